// SPDX-License-Identifier: MIT
// Packed block layouts, shared by the host (C11) and the kernels (OpenCL C).
//
// Every layout is made of 8- and 16-bit fields only, so that a block may stand at any even address
// in both languages. A float16 field is a clq_half: the bit pattern, never arithmetic.
// Source of the layouts: ggml's ggml-common.h (see docs/formats.md).
#ifndef CLQUANT_BLOCKS_H
#define CLQUANT_BLOCKS_H

#if defined(__OPENCL_VERSION__) || defined(__OPENCL_C_VERSION__)
typedef uchar clq_u8;
typedef char clq_i8;
typedef ushort clq_u16;
#define CLQ_SIZE(type, bytes)
#else
#include <assert.h>
#include <stdint.h>
typedef uint8_t clq_u8;
typedef int8_t clq_i8;
typedef uint16_t clq_u16;
#define CLQ_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), "packed size of " #type)
#endif

typedef clq_u16 clq_half;

// 32 elements. Byte j of qs holds element j in its low and element j + 16 in its high nibble;
// bit j of qh is the fifth bit of element j.
typedef struct { clq_half d; clq_u8 qs[16]; } clq_block_q4_0;              // d * (q - 8)
typedef struct { clq_half d, m; clq_u8 qs[16]; } clq_block_q4_1;           // d * q + m
typedef struct { clq_half d; clq_u8 qh[4]; clq_u8 qs[16]; } clq_block_q5_0; // d * (q - 16)
typedef struct { clq_half d, m; clq_u8 qh[4]; clq_u8 qs[16]; } clq_block_q5_1; // d * q + m
typedef struct { clq_half d; clq_i8 qs[32]; } clq_block_q8_0;              // d * q
typedef struct { clq_half d, s; clq_i8 qs[32]; } clq_block_q8_1;
typedef struct { clq_half d; clq_u8 qs[16]; } clq_block_iq4_nl;            // d * table[q]
typedef struct { clq_u8 e; clq_u8 qs[16]; } clq_block_mxfp4;
CLQ_SIZE(clq_block_q4_0, 18);
CLQ_SIZE(clq_block_q4_1, 20);
CLQ_SIZE(clq_block_q5_0, 22);
CLQ_SIZE(clq_block_q5_1, 24);
CLQ_SIZE(clq_block_q8_0, 34);
CLQ_SIZE(clq_block_q8_1, 36);
CLQ_SIZE(clq_block_iq4_nl, 18);
CLQ_SIZE(clq_block_mxfp4, 17);

// 64 and 128 elements.
typedef struct { clq_u8 d[4]; clq_u8 qs[32]; } clq_block_nvfp4;
typedef struct { clq_half d; clq_u8 qs[16]; } clq_block_q2_0;
typedef struct { clq_half d; clq_u8 qs[16]; } clq_block_q1_0;
CLQ_SIZE(clq_block_nvfp4, 36);
CLQ_SIZE(clq_block_q2_0, 18);
CLQ_SIZE(clq_block_q1_0, 18);

// 256 elements.
typedef struct { clq_u8 scales[16]; clq_u8 qs[64]; clq_half d, dmin; } clq_block_q2_K;
typedef struct { clq_u8 hmask[32]; clq_u8 qs[64]; clq_u8 scales[12]; clq_half d; } clq_block_q3_K;
typedef struct { clq_half d, dmin; clq_u8 scales[12]; clq_u8 qs[128]; } clq_block_q4_K;
typedef struct { clq_half d, dmin; clq_u8 scales[12]; clq_u8 qh[32]; clq_u8 qs[128]; } clq_block_q5_K;
typedef struct { clq_u8 ql[128]; clq_u8 qh[64]; clq_i8 scales[16]; clq_half d; } clq_block_q6_K;
typedef struct { clq_u16 d[2]; clq_i8 qs[256]; clq_u16 bsums[16]; } clq_block_q8_K;
typedef struct { clq_half d; clq_u16 qs[32]; } clq_block_iq2_xxs;
typedef struct { clq_half d; clq_u16 qs[32]; clq_u8 scales[8]; } clq_block_iq2_xs;
typedef struct { clq_half d; clq_u8 qs[64]; clq_u8 qh[8]; clq_u8 scales[8]; } clq_block_iq2_s;
typedef struct { clq_half d; clq_u8 qs[96]; } clq_block_iq3_xxs;
typedef struct { clq_half d; clq_u8 qs[64]; clq_u8 qh[8]; clq_u8 signs[32]; clq_u8 scales[4]; } clq_block_iq3_s;
typedef struct { clq_half d; clq_u8 qs[32]; clq_u16 qh[8]; } clq_block_iq1_s;
typedef struct { clq_u8 qs[32]; clq_u8 qh[16]; clq_u8 scales[8]; } clq_block_iq1_m;
typedef struct { clq_half d; clq_u16 scales_h; clq_u8 scales_l[4]; clq_u8 qs[128]; } clq_block_iq4_xs;
typedef struct { clq_u8 qs[48]; clq_u8 qh[4]; clq_half d; } clq_block_tq1_0;
typedef struct { clq_u8 qs[64]; clq_half d; } clq_block_tq2_0;
CLQ_SIZE(clq_block_q2_K, 84);
CLQ_SIZE(clq_block_q3_K, 110);
CLQ_SIZE(clq_block_q4_K, 144);
CLQ_SIZE(clq_block_q5_K, 176);
CLQ_SIZE(clq_block_q6_K, 210);
CLQ_SIZE(clq_block_q8_K, 292);
CLQ_SIZE(clq_block_iq2_xxs, 66);
CLQ_SIZE(clq_block_iq2_xs, 74);
CLQ_SIZE(clq_block_iq2_s, 82);
CLQ_SIZE(clq_block_iq3_xxs, 98);
CLQ_SIZE(clq_block_iq3_s, 110);
CLQ_SIZE(clq_block_iq1_s, 50);
CLQ_SIZE(clq_block_iq1_m, 56);
CLQ_SIZE(clq_block_iq4_xs, 136);
CLQ_SIZE(clq_block_tq1_0, 54);
CLQ_SIZE(clq_block_tq2_0, 66);

#endif
