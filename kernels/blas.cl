// SPDX-License-Identifier: MIT
// What stands around a product that CLBlast makes (host/device/blas.c).
#include "group.cl"

// Packed inputs [panel][k16][16] at `in` to rows [tokens][cols].
__kernel GROUP void unpack_panels(__global const float *state, ulong in, uint k16, uint cols, uint tokens,
                                  __global float *rows)
{
    for (uint t = get_group_id(0); t < tokens; t += get_num_groups(0))
        for (uint i = LID; i < cols; i += LSIZE)
            rows[(size_t)t * cols + i] = state[in + ((size_t)(t / 16) * k16 + i) * 16 + t % 16];
}

__kernel GROUP void add_bias(__global float *state, ulong out, uint stride, uint rows, uint tokens,
                             __global const uchar *weights, ulong bias)
{
    __global const float *b = (__global const float *)(weights + bias);
    for (uint t = get_group_id(0); t < tokens; t += get_num_groups(0))
        for (uint i = LID; i < rows; i += LSIZE) state[out + (size_t)t * stride + i] += b[i];
}
