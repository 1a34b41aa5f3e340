// SPDX-License-Identifier: MIT
// Whether integer dot products (cl_khr_integer_dot_product) build and give what they should. Before OpenCL C 3.0 they are
// not declared: then the result is wrong.
__kernel void probe_dot(__global int *out, uint a, uint b)
{
#if __OPENCL_C_VERSION__ >= 300
    out[get_local_id(0)] = dot_4x8packed_ss_int(a, b);
#else
    out[get_local_id(0)] = 0;
#endif
}
