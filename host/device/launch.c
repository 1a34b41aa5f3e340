// SPDX-License-Identifier: MIT
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/opencl.h"

const char *clq_cl_error_name(cl_int code)
{
    switch (code) {
#define NAME(x) case x: return #x
        NAME(CL_DEVICE_NOT_FOUND);
        NAME(CL_DEVICE_NOT_AVAILABLE);
        NAME(CL_COMPILER_NOT_AVAILABLE);
        NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE);
        NAME(CL_OUT_OF_RESOURCES);
        NAME(CL_OUT_OF_HOST_MEMORY);
        NAME(CL_BUILD_PROGRAM_FAILURE);
        NAME(CL_INVALID_VALUE);
        NAME(CL_INVALID_BUFFER_SIZE);
        NAME(CL_INVALID_BINARY);
        NAME(CL_INVALID_BUILD_OPTIONS);
        NAME(CL_INVALID_PROGRAM_EXECUTABLE);
        NAME(CL_INVALID_KERNEL_NAME);
        NAME(CL_INVALID_KERNEL_ARGS);
        NAME(CL_INVALID_ARG_SIZE);
        NAME(CL_INVALID_WORK_GROUP_SIZE);
        NAME(CL_INVALID_OPERATION);
#undef NAME
    default: return "OpenCL error";
    }
}

clq_status clq_cl_fail(clq_error *err, cl_int code, const char *format, ...)
{
    if (!err) return CLQ_DEVICE;
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return clq_fail(err, CLQ_DEVICE, "%s: %s (%d)", what, clq_cl_error_name(code), code);
}

static void keep_launch(clq_opencl *d, cl_event event)
{
    if (d->n_launches == d->max_launches) {
        uint32_t more = d->max_launches ? 2 * d->max_launches : 1024;
        cl_event *launches = realloc(d->launches, more * sizeof *launches);
        if (!launches) { // this launch goes uncounted
            clReleaseEvent(event);
            return;
        }
        d->launches = launches;
        d->max_launches = more;
    }
    d->launches[d->n_launches++] = event;
}

clq_status clq_launch(clq_opencl *d, clq_kernel *kernel, uint64_t n_groups, const clq_arg *args, cl_uint n_args,
                      const cl_event *wait, clq_error *err)
{
    if (n_args != kernel->n_args)
        return clq_fail(err, CLQ_DEVICE, "kernel '%s' takes %u arguments, %u were given", kernel->name, kernel->n_args,
                        n_args);
    for (cl_uint i = 0; i < n_args; i++) {
        cl_int code = clSetKernelArg(kernel->kernel, i, args[i].size, args[i].value);
        if (code != CL_SUCCESS) return clq_cl_fail(err, code, "argument %u of kernel '%s'", i, kernel->name);
    }
    size_t local = d->work_groups ? CLQ_UNITS : 1, global = (size_t)n_groups * local;
    if (n_groups == 0) return CLQ_OK;
    cl_event event = NULL;
    cl_int code = clEnqueueNDRangeKernel(d->compute, kernel->kernel, 1, NULL, &global, &local, wait && *wait ? 1 : 0,
                                         wait && *wait ? wait : NULL, d->timed ? &event : NULL);
    if (event) keep_launch(d, event);
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "launching kernel '%s'", kernel->name);
}
