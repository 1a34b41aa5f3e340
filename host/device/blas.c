// SPDX-License-Identifier: MIT
// Dense float32 products by CLBlast: the only file that knows of it.
#include "device/opencl.h"

#include <clblast_c.h>
#include <stdlib.h>

#include "ops/steps.h"

enum { LEAST_TOKENS = 32 };

// CLBlast knows no parameters for PoCL; with its defaults a product takes four times as long.
static void set_cpu_parameters(clq_opencl *d)
{
    static const char *names[] = {"GEMMK", "KREG", "KWG", "KWI", "MDIMA", "MDIMC", "MWG", "NDIMB",
                                  "NDIMC", "NWG",  "SA",  "SB",  "STRM",  "STRN",  "VWM", "VWN"};
    static const size_t values[] = {0, 1, 32, 2, 8, 8, 64, 8, 8, 64, 1, 1, 0, 0, 8, 4};
    CLBlastOverrideParameters(d->id, "Xgemm", CLBlastPrecisionSingle, sizeof values / sizeof *values, names, values);
}

void clq_blas_open(clq_opencl *d)
{
    const char *wish = getenv("CLQ_BLAS"); // 1: also on CPUs, 0: nowhere
    d->steps.use_blas = wish && *wish ? *wish == '1' : d->tuning.blas >= 0 ? d->tuning.blas : d->base.info.is_gpu;
    if (d->steps.use_blas && d->base.info.is_cpu) set_cpu_parameters(d);
}

bool clq_blas_takes(const clq_opencl *d, const clq_step *s)
{
    return d->steps.use_blas && s->kind == CLQ_STEP_LINEAR && s->format == CLQ_F32 && !s->bits &&
           s->tokens >= LEAST_TOKENS;
}

static clq_status get_rows(clq_opencl *d, uint64_t n_bytes, clq_error *err)
{
    clq_steps *s = &d->steps;
    if (s->blas_rows && s->blas_bytes >= n_bytes) return CLQ_OK;
    if (s->blas_rows) clReleaseMemObject(s->blas_rows);
    cl_int code;
    s->blas_rows = clCreateBuffer(d->context, CL_MEM_READ_WRITE, n_bytes, NULL, &code);
    s->blas_bytes = s->blas_rows ? n_bytes : 0;
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "no memory for a product on '%s'", d->base.info.name);
}

clq_status clq_blas_linear(clq_opencl *d, const clq_step *s, cl_mem weights, cl_mem state, clq_error *err)
{
    clq_kernel *unpack, *bias;
    cl_uint k16 = (s->cols + 15) / 16 * 16, cols = s->cols, tokens = s->tokens, rows = s->rows, stride = s->out_stride;
    cl_ulong in = s->in, out = s->out, bias_at = s->bias;
    CLQ_TRY(get_rows(d, (uint64_t)s->tokens * s->cols * sizeof(float), err));
    CLQ_TRY(clq_kernel_get(d, "blas.cl", 8, "", "unpack_panels", &unpack, err));
    clq_arg args[] = {CLQ_ARG(state), CLQ_ARG(in),     CLQ_ARG(k16),
                      CLQ_ARG(cols),  CLQ_ARG(tokens), CLQ_ARG(d->steps.blas_rows)};
    CLQ_TRY(clq_launch(d, unpack, tokens, args, sizeof args / sizeof *args, NULL, err));
    cl_mem weight = s->flags & CLQ_STEP_STATE_WEIGHT ? state : weights;
    float beta = s->flags & CLQ_STEP_ACCUMULATE ? 1 : 0;
    CLBlastStatusCode code =
        CLBlastSgemm(CLBlastLayoutRowMajor, CLBlastTransposeNo, CLBlastTransposeYes, s->tokens, s->rows, s->cols, 1,
                     d->steps.blas_rows, 0, s->cols, weight, s->w / sizeof(float), s->cols, beta, state, s->out,
                     s->out_stride, &d->compute, NULL);
    if (code != CLBlastSuccess)
        return clq_fail(err, CLQ_DEVICE, "CLBlast's product on '%s' failed with code %d; CLQ_BLAS=0 does without it",
                        d->base.info.name, (int)code);
    if (s->bias == CLQ_NONE) return CLQ_OK;
    CLQ_TRY(clq_kernel_get(d, "blas.cl", 8, "", "add_bias", &bias, err));
    clq_arg bias_args[] = {CLQ_ARG(state),  CLQ_ARG(out),     CLQ_ARG(stride), CLQ_ARG(rows),
                           CLQ_ARG(tokens), CLQ_ARG(weights), CLQ_ARG(bias_at)};
    return clq_launch(d, bias, tokens, bias_args, sizeof bias_args / sizeof *bias_args, NULL, err);
}

void clq_blas_close(clq_opencl *d)
{
    if (d->steps.blas_rows) clReleaseMemObject(d->steps.blas_rows);
    d->steps.blas_rows = NULL;
    if (d->steps.use_blas) CLBlastClearCache();
}
