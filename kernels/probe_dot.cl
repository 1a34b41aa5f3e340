// SPDX-License-Identifier: MIT
// Whether integer dot products (cl_khr_integer_dot_product, OpenCL C 3.0) build and give what they should.
__kernel void probe_dot(__global int *out, uint a, uint b)
{
    out[get_local_id(0)] = dot_4x8packed_ss_int(a, b);
}
