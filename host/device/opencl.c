// SPDX-License-Identifier: MIT
// Finding and opening OpenCL devices.
#include "device/opencl.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/threads.h"

enum { MAX_DEVICES = 64 };

typedef struct {
    cl_platform_id platform;
    cl_device_id id;
} found;

// Every device of every platform. A loader without any driver gives none.
static uint32_t find_devices(found *list)
{
    cl_platform_id platforms[16];
    cl_uint n_platforms = 0;
    uint32_t n = 0;
    if (clGetPlatformIDs(16, platforms, &n_platforms) != CL_SUCCESS) return 0;
    if (n_platforms > 16) n_platforms = 16;
    for (cl_uint p = 0; p < n_platforms; p++) {
        cl_device_id ids[MAX_DEVICES];
        cl_uint count = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, MAX_DEVICES, ids, &count) != CL_SUCCESS) continue;
        for (cl_uint i = 0; i < count && i < MAX_DEVICES && n < MAX_DEVICES; i++)
            list[n++] = (found){platforms[p], ids[i]};
    }
    return n;
}

static void trim(char *s)
{
    size_t from = strspn(s, " "), len = strlen(s + from);
    memmove(s, s + from, len + 1);
    while (len && s[len - 1] == ' ') s[--len] = '\0';
}

#define GET(id, what, out) clGetDeviceInfo(id, what, sizeof(out), &(out), NULL)

static void describe(const found *f, uint32_t index, clq_device_info *i)
{
    *i = (clq_device_info){.index = index};
    cl_device_type type = 0;
    cl_device_fp_config fp32 = 0;
    cl_bool unified = CL_FALSE;
    cl_uint units = 0;
    cl_ulong global = 0, most = 0, local = 0;
    char extensions[8192] = "";
    clGetDeviceInfo(f->id, CL_DEVICE_NAME, sizeof i->name - 1, i->name, NULL);
    clGetPlatformInfo(f->platform, CL_PLATFORM_NAME, sizeof i->platform - 1, i->platform, NULL);
    clGetDeviceInfo(f->id, CL_DEVICE_VERSION, sizeof i->version - 1, i->version, NULL);
    clGetDeviceInfo(f->id, CL_DRIVER_VERSION, sizeof i->driver - 1, i->driver, NULL);
    clGetDeviceInfo(f->id, CL_DEVICE_EXTENSIONS, sizeof extensions - 1, extensions, NULL);
    GET(f->id, CL_DEVICE_TYPE, type);
    GET(f->id, CL_DEVICE_SINGLE_FP_CONFIG, fp32);
    GET(f->id, CL_DEVICE_HOST_UNIFIED_MEMORY, unified);
    GET(f->id, CL_DEVICE_MAX_COMPUTE_UNITS, units);
    GET(f->id, CL_DEVICE_GLOBAL_MEM_SIZE, global);
    GET(f->id, CL_DEVICE_MAX_MEM_ALLOC_SIZE, most);
    GET(f->id, CL_DEVICE_LOCAL_MEM_SIZE, local);
    trim(i->name);
    i->is_cpu = type & CL_DEVICE_TYPE_CPU;
    i->is_gpu = type & CL_DEVICE_TYPE_GPU;
    i->unified_memory = unified || i->is_cpu;
    i->exact_divide = fp32 & CL_FP_CORRECTLY_ROUNDED_DIVIDE_SQRT;
    i->denormals = fp32 & CL_FP_DENORM;
    i->fp16 = strstr(extensions, "cl_khr_fp16");
    i->fp64 = strstr(extensions, "cl_khr_fp64");
    i->compute_units = units;
    i->global_memory = global;
    i->max_allocation = most;
    i->local_memory = local;
}

clq_status clq_device_count(uint32_t *count, clq_error *err)
{
    (void)err;
    found list[MAX_DEVICES];
    *count = find_devices(list);
    return CLQ_OK;
}

clq_status clq_device_query(uint32_t index, clq_device_info *info, clq_error *err)
{
    found list[MAX_DEVICES];
    uint32_t n = find_devices(list);
    if (index >= n) return clq_fail(err, CLQ_DEVICE, "OpenCL device %u does not exist; there are %u", index, n);
    describe(&list[index], index, info);
    return CLQ_OK;
}

static bool name_holds(const char *name, const char *part)
{
    for (size_t n = strlen(part); *name; name++)
        if (strncasecmp(name, part, n) == 0) return true;
    return false;
}

// The device that the selector means (NULL: a GPU before others), or n.
static uint32_t choose(const clq_device_info *infos, uint32_t n, const char *selector)
{
    uint32_t i;
    if (selector && isdigit((unsigned char)selector[0])) {
        char *end;
        unsigned long index = strtoul(selector, &end, 10);
        if (*end == '\0') return index < n ? (uint32_t)index : n;
    }
    for (i = 0; i < n; i++)
        if (!selector || strcasecmp(selector, "gpu") == 0 ? infos[i].is_gpu
            : strcasecmp(selector, "cpu") == 0            ? infos[i].is_cpu
                                                          : name_holds(infos[i].name, selector))
            return i;
    return selector ? n : 0;
}

// Makes every folder of the path; whether it is there then.
static bool make_dirs(char *path)
{
    for (char *p = path + 1; *p; p++)
        if (*p == '/') {
            *p = '\0';
            mkdir(path, 0777);
            *p = '/';
        }
    struct stat sb;
    mkdir(path, 0777);
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

static void set_cache_dir(clq_opencl *d)
{
    const char *own = getenv("CLQ_CACHE_DIR"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = own && !*own ? 0 // set but empty: no cache
            : own        ? snprintf(d->cache_dir, sizeof d->cache_dir, "%s", own)
            : xdg && *xdg ? snprintf(d->cache_dir, sizeof d->cache_dir, "%s/clquant", xdg)
            : home && *home ? snprintf(d->cache_dir, sizeof d->cache_dir, "%s/.cache/clquant", home)
                            : 0;
    if (n <= 0 || (size_t)n >= sizeof d->cache_dir || !make_dirs(d->cache_dir)) d->cache_dir[0] = '\0';
}

static void opencl_close(clq_device *device)
{
    clq_opencl *d = clq_opencl_of(device);
    clq_steps_close(d);
    clq_programs_close(d);
    for (int i = 0; i < CLQ_FORMAT_COUNT; i++)
        if (d->tables[i]) clReleaseMemObject(d->tables[i]);
    if (d->download && d->download != d->compute) clReleaseCommandQueue(d->download);
    if (d->upload && d->upload != d->compute) clReleaseCommandQueue(d->upload);
    if (d->compute) clReleaseCommandQueue(d->compute);
    if (d->context) clReleaseContext(d->context);
    for (uint32_t i = 0; i < d->n_launches; i++) clReleaseEvent(d->launches[i]);
    free(d->launches);
    free(d->families);
    free(d);
}

static double opencl_copy_rate(clq_device *device);
static double opencl_kernel_seconds(clq_device *device);

static const clq_device_ops opencl_ops = {
    .lane_create = clq_cl_lane_create,
    .lane_free = clq_cl_lane_free,
    .lane_staging = clq_cl_lane_staging,
    .lane_submit = clq_cl_lane_submit,
    .lane_wait = clq_cl_lane_wait,
    .memory_create = clq_cl_memory_create,
    .memory_free = clq_cl_memory_free,
    .memory_write = clq_cl_memory_write,
    .memory_read = clq_cl_memory_read,
    .steps_prepare = clq_cl_steps_prepare,
    .steps_run = clq_cl_steps_run,
    .wait = clq_cl_steps_wait,
    .copy_rate = opencl_copy_rate,
    .kernel_seconds = opencl_kernel_seconds,
    .close = opencl_close,
};

static clq_status make_queues(clq_opencl *d, clq_error *err)
{
    cl_int code;
    d->context = clCreateContext(NULL, 1, &d->id, NULL, NULL, &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "no context on '%s'", d->base.info.name);
    d->compute = clCreateCommandQueue(d->context, d->id, 0, &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "no command queue on '%s'", d->base.info.name);
    d->upload = d->download = d->compute;
    if (d->unified) return CLQ_OK;
    cl_command_queue up = clCreateCommandQueue(d->context, d->id, 0, &code);
    if (code == CL_SUCCESS) d->upload = up;
    cl_command_queue down = clCreateCommandQueue(d->context, d->id, 0, &code);
    if (code == CL_SUCCESS) d->download = down;
    return CLQ_OK;
}

// How to run the kernels, from what the device is; options decide where they say something.
static void set_form(clq_opencl *d)
{
    const clq_device_options *o = &d->base.options;
    const char *discrete = getenv("CLQ_TEST_DISCRETE"); // treat memory as the device's own
    size_t most = 0;
    GET(d->id, CL_DEVICE_MAX_WORK_GROUP_SIZE, most);
    d->work_groups = o->work_group_form >= 0         ? o->work_group_form
                     : d->tuning.work_groups >= 0 ? d->tuning.work_groups
                                                  : !d->base.info.is_cpu;
    if (most < CLQ_UNITS) d->work_groups = false;
    d->lanes = o->lanes ? o->lanes : d->base.info.is_cpu ? 8 : 4;
    d->search_lanes = o->lanes ? o->lanes : d->base.info.is_cpu ? 16 : 4;
    d->unified = d->base.info.unified_memory && !(discrete && *discrete == '1');
    d->base.info.unified_memory = d->unified;
    if (o->max_allocation && o->max_allocation < d->base.info.max_allocation)
        d->base.info.max_allocation = o->max_allocation;
}

clq_status clq_opencl_open(const char *selector, const clq_device_options *options, const clq_tuning *tuning,
                           clq_device **device, clq_error *err)
{
    *device = NULL;
    if (options && options->threads) { // PoCL reads it when it starts; a value that the user set stays
        char text[16];
        snprintf(text, sizeof text, "%u", options->threads);
        setenv("POCL_MAX_PTHREAD_COUNT", text, 0);
    }
    found list[MAX_DEVICES];
    clq_device_info infos[MAX_DEVICES];
    uint32_t n = find_devices(list);
    for (uint32_t i = 0; i < n; i++) describe(&list[i], i, &infos[i]);
    uint32_t chosen = choose(infos, n, selector);
    if (chosen >= n)
        return clq_fail(err, CLQ_DEVICE, n ? "no OpenCL device matches '%s'; `clquant devices` lists the %u there are"
                                           : "no OpenCL device was found (asked for '%s'); --device ref needs none",
                        selector ? selector : "any", n);
    clq_opencl *d = calloc(1, sizeof *d);
    if (!d) return clq_fail_memory(err, sizeof *d);
    d->base.ops = &opencl_ops;
    d->base.options = options ? *options : (clq_device_options){.work_group_form = -1};
    d->base.info = infos[chosen];
    d->base.threads = d->base.options.threads ? d->base.options.threads : clq_threads_allowed();
    d->platform = list[chosen].platform;
    d->id = list[chosen].id;
    set_cache_dir(d);
    d->tuning = tuning ? *tuning : clq_tuning_load(d);
    set_form(d);
    clq_status st = make_queues(d, err);
    if (st != CLQ_OK) {
        opencl_close(&d->base);
        return st;
    }
    *device = &d->base;
    return CLQ_OK;
}

static double opencl_copy_rate(clq_device *device)
{
    clq_opencl *d = clq_opencl_of(device);
    enum { WORDS = 16 << 20, ROUNDS = 5 };
    cl_int code;
    clq_kernel *copy;
    double best = 0;
    cl_uint n = WORDS;
    cl_mem from = clCreateBuffer(d->context, CL_MEM_READ_ONLY, WORDS * 4ull, NULL, &code);
    cl_mem to = clCreateBuffer(d->context, CL_MEM_WRITE_ONLY, WORDS * 4ull, NULL, &code);
    if (!from || !to || clq_kernel_get(d, "reduce.cl", d->lanes, "-DSRC=0", "copy_words", &copy, NULL) != CLQ_OK)
        goto out;
    cl_uint zero = 0;
    clEnqueueFillBuffer(d->compute, from, &zero, 4, 0, WORDS * 4ull, 0, NULL, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        clq_arg args[] = {CLQ_ARG(from), CLQ_ARG(n), CLQ_ARG(to)};
        clFinish(d->compute);
        double start = clq_seconds();
        if (clq_launch(d, copy, WORDS / (CLQ_UNITS * 32), args, 3, NULL, NULL) != CLQ_OK) break;
        clFinish(d->compute);
        double rate = 2.0 * WORDS * 4 / (clq_seconds() - start);
        if (rate > best) best = rate;
    }
out:
    if (from) clReleaseMemObject(from);
    if (to) clReleaseMemObject(to);
    return best;
}

static double opencl_kernel_seconds(clq_device *device)
{
    clq_opencl *d = clq_opencl_of(device);
    cl_int code;
    if (!d->timed) { // from now on, in a queue that takes times
        cl_command_queue timed = clCreateCommandQueue(d->context, d->id, CL_QUEUE_PROFILING_ENABLE, &code);
        if (code != CL_SUCCESS) return -1;
        clFinish(d->compute);
        if (d->upload == d->compute) d->upload = timed;
        if (d->download == d->compute) d->download = timed;
        clReleaseCommandQueue(d->compute);
        d->compute = timed;
        d->timed = true;
    }
    clFinish(d->compute);
    double sum = 0;
    for (uint32_t i = 0; i < d->n_launches; i++) {
        cl_ulong begin = 0, end = 0;
        clGetEventProfilingInfo(d->launches[i], CL_PROFILING_COMMAND_START, sizeof begin, &begin, NULL);
        clGetEventProfilingInfo(d->launches[i], CL_PROFILING_COMMAND_END, sizeof end, &end, NULL);
        sum += 1e-9 * (double)(end - begin);
        clReleaseEvent(d->launches[i]);
    }
    d->n_launches = 0;
    return sum;
}
