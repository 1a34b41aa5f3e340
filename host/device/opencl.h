// SPDX-License-Identifier: MIT
// The OpenCL device's own types. Included only within device/.
#ifndef CLQ_DEVICE_OPENCL_H
#define CLQ_DEVICE_OPENCL_H

#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>

#include "device/device.h"
#include "device/tune.h"

enum { CLQ_UNITS = 64 };        // kernels/common.cl: UNITS
enum { CLQ_MAX_KERNELS = 8 };   // a program

typedef struct clq_kernel {
    char name[32];
    cl_kernel kernel;
    cl_uint n_args;
} clq_kernel;

typedef struct clq_program {
    struct clq_program *next;
    char file[48], options[1536];
    char cache_path[512]; // "" : not cached
    bool from_cache;
    cl_program program;
    clq_kernel kernels[CLQ_MAX_KERNELS];
    uint32_t n_kernels;
} clq_program;

// What was self-tested: a target type (without its group size) from one source.
typedef struct clq_family {
    clq_type type;
    clq_format_id source;
    bool decode_only, range_only, weighted, given;
    bool use_reference; // the kernel did not build or gave other bytes
} clq_family;

// What forward passes need (steps.c).
typedef struct clq_steps {
    clq_memory *buffer, *sync; // steps under way; a flag, then counters of groups that wait
    clq_memory *tables;        // clq_grids_expand
    uint32_t n_steps, counter;
    bool together;             // one launch runs many steps
    bool dot_product;          // the device has integer dot products, and they work
    bool pending;              // something was started and not waited for
    bool use_reference;        // the self-test failed
    bool use_blas;             // CLBlast makes dense products
    cl_mem blas_rows;          // its input
    uint64_t blas_bytes;
    bool prepare;              // the program has the steps that prepare weights, too
    bool keys[CLQ_FORMAT_COUNT + 9]; // formats of the program; integer types by their bits behind
    clq_kernel *kernels[CLQ_STEP_KINDS + 1]; // wg form: one for each kind, else [0]
} clq_steps;

typedef struct clq_opencl {
    clq_device base;
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue compute, upload, download; // one queue when memory is unified
    bool unified, work_groups;
    int lanes;        // VW
    int search_lanes; // VW of encoders that search: long chains of arithmetic want more of them in flight
    char cache_dir[400];
    cl_event *launches; // of kernels, since their time was asked for
    uint32_t n_launches, max_launches;
    bool timed;
    clq_program *programs;
    clq_family *families;
    uint32_t n_families;
    clq_tuning tuning;
    clq_steps steps;
    cl_mem tables[CLQ_FORMAT_COUNT]; // of formats that have one, once it was needed
} clq_opencl;

static inline clq_opencl *clq_opencl_of(clq_device *d) { return (clq_opencl *)d; }

clq_status clq_cl_fail(clq_error *err, cl_int code, const char *format, ...) __attribute__((format(printf, 3, 4)));
const char *clq_cl_error_name(cl_int code);

// program.c. The kernel `name` of kernels/<file> built with VW = lanes (1 in the wg form) and `options`.
clq_status clq_kernel_get(clq_opencl *d, const char *file, int lanes, const char *options, const char *name,
                          clq_kernel **kernel, clq_error *err);
// Saves programs that were built in this run, then frees all.
void clq_programs_close(clq_opencl *d);
// The text of an embedded kernel file (or of the folder CLQ_KERNEL_DIR), includes resolved; free() it.
clq_status clq_kernel_source(const char *file, char **text, clq_error *err);

// launch.c: the one door to clEnqueueNDRangeKernel.
typedef struct clq_arg {
    size_t size;
    const void *value;
} clq_arg;
#define CLQ_ARG(x) ((clq_arg){sizeof(x), &(x)})
clq_status clq_launch(clq_opencl *d, clq_kernel *kernel, uint64_t n_groups, const clq_arg *args, cl_uint n_args,
                      const cl_event *wait, clq_error *err);

// lane.c
clq_status clq_cl_lane_create(clq_device *d, const clq_lane_limits *limits, clq_lane **lane, clq_error *err);
void clq_cl_lane_free(clq_lane *lane);
void *clq_cl_lane_staging(clq_lane *lane);
clq_status clq_cl_lane_submit(clq_lane *lane, const clq_tile *tile, clq_error *err);
clq_status clq_cl_lane_wait(clq_lane *lane, clq_tile_result *result, clq_error *err);

// steps.c
clq_status clq_cl_memory_create(clq_device *d, uint64_t n_bytes, clq_memory **memory, clq_error *err);
void clq_cl_memory_free(clq_memory *memory);
clq_status clq_cl_memory_write(clq_memory *memory, uint64_t offset, const void *src, uint64_t n_bytes, clq_error *err);
clq_status clq_cl_memory_read(clq_memory *memory, uint64_t offset, void *dst, uint64_t n_bytes, clq_error *err);
clq_status clq_cl_steps_prepare(clq_device *d, const clq_type *types, uint32_t n, clq_error *err);
clq_status clq_cl_steps_run(clq_device *d, const clq_step *steps, uint32_t n_steps, clq_memory *weights,
                            clq_memory *state, clq_memory *cache, clq_error *err);
clq_status clq_cl_steps_wait(clq_device *d, clq_error *err);
void clq_steps_close(clq_opencl *d);

// tune.c: what was stored for the device.
clq_tuning clq_tuning_load(const clq_opencl *d);

// blas.c: LINEAR steps with float32 weights and many tokens.
void clq_blas_open(clq_opencl *d);
bool clq_blas_takes(const clq_opencl *d, const clq_step *s);
clq_status clq_blas_linear(clq_opencl *d, const clq_step *s, cl_mem weights, cl_mem state, clq_error *err);
void clq_blas_close(clq_opencl *d);

// selftest.c: tests the tile's family on first use; whether the reference stands in for its kernels.
clq_status clq_family_get(clq_opencl *d, const clq_tile *tile, bool *use_reference, clq_error *err);

#endif
