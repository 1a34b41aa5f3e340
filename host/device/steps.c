// SPDX-License-Identifier: MIT
// Forward passes on OpenCL: memories, the program of steps, launches, its self-test.
//
// On CPUs one work-group stands for a thread, and one launch runs all steps: the groups wait for each other between
// steps (kernels/steps.cl: TOGETHER), which takes half a microsecond where a launch takes ten. OpenCL does not promise
// that groups run at the same time, so that is tried first. Else a launch runs one step.
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/opencl.h"
#include "format/codebook.h"
#include "ops/steps.h"

enum {
    LANES = 8,        // of the vec form
    MAX_STEPS = 4096, // in the buffer of steps under way
    COUNTERS = 4096,
    PROBE_SPINS = 1 << 22,
    FULL_SPINS = 1 << 30,
};

// Two launches whose groups wait for each other could hold each other's threads: one at a time in a process.
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

// ---- memories ----

typedef struct {
    clq_memory base;
    cl_mem mem;
    uint8_t *host; // where the device works in it, too; NULL: the device's own memory
} step_memory;

static step_memory *memory_of(clq_memory *m) { return (step_memory *)m; }

// Waits for the steps that were started.
static clq_status finish(clq_opencl *d, clq_error *err)
{
    clq_steps *s = &d->steps;
    if (!s->pending) return CLQ_OK;
    s->pending = false;
    cl_int code = clFinish(d->compute);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "running steps on '%s'", d->base.info.name);
    s->n_steps = 0;
    if (s->together && *(volatile cl_uint *)memory_of(s->sync)->host)
        return clq_fail(err, CLQ_DEVICE,
                        "the work-groups of '%s' stopped running at the same time; "
                        "CLQ_TOGETHER=0 runs a step a launch",
                        d->base.info.name);
    return CLQ_OK;
}

clq_status clq_cl_memory_create(clq_device *device, uint64_t n_bytes, clq_memory **memory, clq_error *err)
{
    clq_opencl *d = clq_opencl_of(device);
    step_memory *m = calloc(1, sizeof *m);
    if (!m) return clq_fail_memory(err, sizeof *m);
    m->base = (clq_memory){device, n_bytes};
    cl_int code = CL_SUCCESS;
    uint64_t whole = (n_bytes + 4095) / 4096 * 4096;
    if ((d->base.info.is_cpu && d->unified) || d->steps.use_reference) {
        m->host = aligned_alloc(4096, whole);
        if (!m->host) {
            free(m);
            return clq_fail_memory(err, n_bytes);
        }
        memset(m->host, 0, whole);
        if (!d->steps.use_reference)
            m->mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, whole, m->host, &code);
    } else {
        cl_uint zero = 0;
        m->mem = clCreateBuffer(d->context, CL_MEM_READ_WRITE, whole, NULL, &code);
        if (code == CL_SUCCESS)
            code = clEnqueueFillBuffer(d->compute, m->mem, &zero, sizeof zero, 0, whole, 0, NULL, NULL);
    }
    if (code != CL_SUCCESS) {
        if (m->mem) clReleaseMemObject(m->mem);
        free(m->host);
        free(m);
        return clq_cl_fail(err, code, "no memory of %llu bytes on '%s'", (unsigned long long)n_bytes,
                           d->base.info.name);
    }
    *memory = &m->base;
    return CLQ_OK;
}

void clq_cl_memory_free(clq_memory *memory)
{
    if (!memory) return;
    step_memory *m = memory_of(memory);
    finish(clq_opencl_of(memory->device), NULL);
    if (m->mem) clReleaseMemObject(m->mem);
    free(m->host);
    free(m);
}

clq_status clq_cl_memory_write(clq_memory *memory, uint64_t offset, const void *src, uint64_t n_bytes, clq_error *err)
{
    clq_opencl *d = clq_opencl_of(memory->device);
    step_memory *m = memory_of(memory);
    if (n_bytes == 0) return CLQ_OK;
    if (m->host) {
        CLQ_TRY(finish(d, err));
        memcpy(m->host + offset, src, n_bytes);
        return CLQ_OK;
    }
    cl_int code = clEnqueueWriteBuffer(d->compute, m->mem, CL_TRUE, offset, n_bytes, src, 0, NULL, NULL);
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "writing to '%s'", d->base.info.name);
}

clq_status clq_cl_memory_read(clq_memory *memory, uint64_t offset, void *dst, uint64_t n_bytes, clq_error *err)
{
    clq_opencl *d = clq_opencl_of(memory->device);
    step_memory *m = memory_of(memory);
    if (n_bytes == 0) return CLQ_OK;
    if (m->host) {
        CLQ_TRY(finish(d, err));
        memcpy(dst, m->host + offset, n_bytes);
        return CLQ_OK;
    }
    cl_int code = clEnqueueReadBuffer(d->compute, m->mem, CL_TRUE, offset, n_bytes, dst, 0, NULL, NULL);
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "reading from '%s'", d->base.info.name);
}

// ---- the program ----

enum { N_KEYS = CLQ_FORMAT_COUNT + 9, INT_KEY = 0x10000 };

// Which program a weight needs: its format, for integer types the bits.
static uint32_t key_of(uint32_t format, uint32_t bits) { return format == CLQ_INT ? CLQ_FORMAT_COUNT + bits : format; }

static bool always_there(uint32_t key) // without being asked for
{
    return key == CLQ_F32 || key == CLQ_F16 || key == CLQ_BF16;
}

static void key_name(uint32_t key, char name[32])
{
    if (key >= CLQ_FORMAT_COUNT)
        snprintf(name, 32, "i%u", key - CLQ_FORMAT_COUNT);
    else
        snprintf(name, 32, "%s", clq_format_at((clq_format_id)key)->name);
}

// -D options that name the formats the program has.
static void format_options(const clq_steps *s, char *out, size_t size)
{
    int n = snprintf(out, size, "-DID_f32=%d -DID_f16=%d -DID_bf16=%d", CLQ_F32, CLQ_F16, CLQ_BF16);
    char name[32];
    for (uint32_t key = 0; key < N_KEYS; key++)
        if (s->keys[key] && !always_there(key)) {
            key_name(key, name);
            n += snprintf(out + n, size - (size_t)n, " -DID_%s=%u", name,
                          key >= CLQ_FORMAT_COUNT ? INT_KEY + key - CLQ_FORMAT_COUNT : key);
        }
    n += snprintf(out + n, size - (size_t)n, " -DFORMATS=");
    for (uint32_t key = 0; key < N_KEYS; key++)
        if (s->keys[key] && !always_there(key)) {
            key_name(key, name);
            n += snprintf(out + n, size - (size_t)n, "X(%s)", name);
        }
}

static clq_status get_kernel(clq_opencl *d, uint32_t kind, clq_kernel **kernel, clq_error *err)
{
    clq_steps *s = &d->steps;
    uint32_t slot = d->work_groups ? kind : 0;
    if (!s->kernels[slot]) {
        char options[sizeof((clq_program *)0)->options - 128], formats[1200];
        bool portable = getenv("CLQ_TEST_PORTABLE"); // without the x86 parts of codes.cl
        format_options(s, formats, sizeof formats);
        bool dot = s->dot_product && kind == CLQ_STEP_LINEAR;
        if (d->work_groups)
            snprintf(options, sizeof options, "%s-DKIND=%u %s%s", dot ? "-cl-std=CL3.0 -DDOT_PRODUCT=1 " : "", kind,
                     kind >= CLQ_STEP_COLUMNS ? "-DPREPARE=1 " : "", formats);
        else
            snprintf(options, sizeof options, "-DTOGETHER=%d %s%s%s", s->together, portable ? "-DPORTABLE " : "",
                     s->prepare ? "-DPREPARE=1 " : "", formats);
        CLQ_TRY(clq_kernel_get(d, "steps.cl", LANES, options, "run_steps", &s->kernels[slot], err));
    }
    *kernel = s->kernels[slot];
    return CLQ_OK;
}

// Formats that the program does not have yet make a new one.
static void add_key(clq_steps *s, uint32_t key)
{
    if (s->keys[key] || always_there(key)) return;
    s->keys[key] = true;
    memset(s->kernels, 0, sizeof s->kernels);
}

// Steps that prepare weights make a new one likewise. On other devices each kind has its own.
static void add_kind(clq_opencl *d, uint32_t kind)
{
    if (d->work_groups || d->steps.prepare || kind < CLQ_STEP_COLUMNS || kind >= CLQ_STEP_KINDS) return;
    d->steps.prepare = true;
    memset(d->steps.kernels, 0, sizeof d->steps.kernels);
}

static uint32_t div_up(uint32_t a, uint32_t b) { return (a + b - 1) / b; }

// Work-groups for one step.
static uint64_t groups_for(const clq_opencl *d, const clq_step *s)
{
    uint64_t units = s->tokens;
    bool packed = clq_step_packed(s->tokens);
    switch (s->kind) {
    case CLQ_STEP_NORM: units = s->rows; break;
    case CLQ_STEP_PREP:
        units = (uint64_t)(packed ? div_up(s->tokens, 16) * 16 : s->tokens) * div_up(s->cols, 256);
        if (d->work_groups) units = (units + CLQ_UNITS - 1) / CLQ_UNITS;
        if (s->mode == CLQ_MODE_I8) units = packed ? div_up(s->tokens, 16) : s->tokens;
        break;
    case CLQ_STEP_RANGE: units = s->tokens; break;
    case CLQ_STEP_OBSERVE:
        units = s->phase == CLQ_OBSERVE_CHANNELS ? div_up(s->cols, d->work_groups ? CLQ_UNITS : 8)
                : s->phase == CLQ_OBSERVE_RANGE  ? 1
                : d->work_groups                 ? div_up(s->tokens, 16)
                                                 : d->base.info.compute_units;
        break;
    case CLQ_STEP_GRAM:
        units = div_up(s->group_size ? s->group_size : s->cols, d->work_groups ? 64 : 32);
        if (d->work_groups) units *= units;
        if (s->group_size) units *= s->cols / s->group_size;
        break;
    case CLQ_STEP_QUANT:
    case CLQ_STEP_ROUND:
        units = (uint64_t)s->rows * s->groups;
        if (!d->work_groups && units > d->base.info.compute_units) units = d->base.info.compute_units;
        break;
    case CLQ_STEP_SCALES: units = (uint64_t)div_up(s->rows, d->work_groups ? CLQ_UNITS : LANES) * s->groups; break;
    case CLQ_STEP_GPTQ: units = div_up(s->rows, d->work_groups ? CLQ_UNITS : LANES); break;
    case CLQ_STEP_LINEAR:
        if (!d->work_groups)
            units = packed ? div_up(s->rows, 32) : 4 * d->base.info.compute_units;
        else
            units = packed ? (uint64_t)div_up(s->rows, 64) * div_up(s->tokens, 64) : div_up(s->rows, 4);
        break;
    case CLQ_STEP_ROPE:
    case CLQ_STEP_STORE: units = (uint64_t)s->tokens * s->heads; break;
    case CLQ_STEP_ATTEND:
        units = (uint64_t)(d->work_groups || !packed ? s->tokens : div_up(s->tokens, 16)) * s->heads;
        break;
    case CLQ_STEP_EMBED:
    case CLQ_STEP_ACT:
    case CLQ_STEP_ADD:
    case CLQ_STEP_COLUMNS:
    case CLQ_STEP_SOFTCAP: units = (uint64_t)s->tokens * div_up(s->cols, 256); break;
    default: break;
    }
    uint64_t most = d->work_groups ? 65536 : 8 * d->base.info.compute_units;
    return units > most ? most : units ? units : 1;
}

// What kernels rely on.
static clq_status check_step(const clq_step *s, clq_error *err)
{
    if (s->kind == CLQ_STEP_ATTEND && (s->head_dim % 8 || s->head_dim > 512))
        return clq_fail(err, CLQ_DEVICE,
                        "heads of %u elements: kernels take multiples of 8 up to 512; --device ref takes "
                        "any",
                        s->head_dim);
    if (s->kind == CLQ_STEP_LINEAR && s->mode != CLQ_MODE_F32 && !clq_step_packed(s->tokens) &&
        always_there(key_of(s->format, s->bits)))
        return clq_fail(err, CLQ_DEVICE, "products of float weights with int8 activations are not there");
    if (s->kind == CLQ_STEP_LINEAR && s->flags & CLQ_STEP_STATE_WEIGHT && (s->format != CLQ_F32 || s->mode != CLQ_MODE_F32))
        return clq_fail(err, CLQ_DEVICE, "products of weights in the state are of float32");
    if (s->kind == CLQ_STEP_SCALES && s->in != CLQ_NONE && !(s->flags & CLQ_STEP_DIAGONAL) &&
        (s->group_size ? s->group_size : s->cols) > 256)
        return clq_fail(err, CLQ_DEVICE, "kernels take costs between the columns of at most 256");
    if (s->kind == CLQ_STEP_GPTQ && s->dims > 128)
        return clq_fail(err, CLQ_DEVICE, "kernels take blocks of at most 128 columns");
    return CLQ_OK;
}

// ---- launches ----

static clq_status launch(clq_opencl *d, const clq_step *step, uint32_t first, uint32_t count, uint64_t n_groups,
                         cl_uint spins, clq_memory *weights, clq_memory *state, clq_memory *cache, clq_error *err)
{
    clq_steps *s = &d->steps;
    clq_kernel *kernel;
    CLQ_TRY(get_kernel(d, step->kind, &kernel, err));
    cl_mem none = NULL;
    cl_uint from = first, n = count, counter = ++s->counter;
    clq_arg args[] = {CLQ_ARG(memory_of(s->buffer)->mem),
                      CLQ_ARG(from),
                      CLQ_ARG(n),
                      CLQ_ARG(memory_of(weights)->mem),
                      CLQ_ARG(memory_of(state)->mem),
                      cache ? CLQ_ARG(memory_of(cache)->mem) : CLQ_ARG(none),
                      CLQ_ARG(memory_of(s->tables)->mem),
                      CLQ_ARG(memory_of(s->sync)->mem),
                      CLQ_ARG(counter),
                      CLQ_ARG(spins)};
    s->pending = true;
    return clq_launch(d, kernel, n_groups, args, sizeof args / sizeof *args, NULL, err);
}

// Makes room for n more steps behind those under way.
static clq_status make_room(clq_opencl *d, uint32_t n, clq_error *err)
{
    clq_steps *s = &d->steps;
    if (s->n_steps + n > MAX_STEPS || s->counter + n >= COUNTERS) {
        CLQ_TRY(finish(d, err));
        s->n_steps = 0;
        s->counter = 0;
        if (s->together) memset(memory_of(s->sync)->host, 0, COUNTERS * sizeof(cl_uint));
    }
    return CLQ_OK;
}

static clq_status put_steps(clq_opencl *d, const clq_step *steps, uint32_t n, clq_error *err)
{
    clq_steps *s = &d->steps;
    step_memory *m = memory_of(s->buffer);
    uint64_t at = s->n_steps * sizeof *steps;
    if (m->host) {
        memcpy(m->host + at, steps, n * sizeof *steps); // behind the steps under way
    } else {
        cl_int code = clEnqueueWriteBuffer(d->compute, m->mem, CL_TRUE, at, n * sizeof *steps, steps, 0, NULL, NULL);
        if (code != CL_SUCCESS) return clq_cl_fail(err, code, "writing steps to '%s'", d->base.info.name);
    }
    s->n_steps += n;
    return CLQ_OK;
}

static clq_status run(clq_opencl *d, const clq_step *steps, uint32_t n, cl_uint spins, clq_memory *weights,
                      clq_memory *state, clq_memory *cache, clq_error *err)
{
    clq_steps *s = &d->steps;
    CLQ_TRY(make_room(d, n, err));
    uint32_t first = s->n_steps;
    CLQ_TRY(put_steps(d, steps, n, err));
    if (s->together) {
        pthread_mutex_lock(&one_at_a_time);
        clq_status st = launch(d, steps, first, n, d->base.threads, spins, weights, state, cache, err);
        clq_status done = finish(d, st == CLQ_OK ? err : NULL);
        pthread_mutex_unlock(&one_at_a_time);
        return st == CLQ_OK ? done : st;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (clq_blas_takes(d, &steps[i]))
            CLQ_TRY(clq_blas_linear(d, &steps[i], memory_of(weights)->mem, memory_of(state)->mem, err));
        else
            CLQ_TRY(launch(d, &steps[i], first + i, 1, groups_for(d, &steps[i]), spins, weights, state, cache, err));
    }
    s->pending = true;
    return CLQ_OK;
}

// Whether groups really wait for each other: two steps that do nothing, with a limit on the waiting.
static bool groups_meet(clq_opencl *d)
{
    clq_steps *s = &d->steps;
    clq_step idle[2] = {{.kind = CLQ_STEP_KINDS}, {.kind = CLQ_STEP_KINDS}};
    for (int i = 0; i < 3; i++)
        if (run(d, idle, 2, PROBE_SPINS, s->sync, s->sync, s->sync, NULL) != CLQ_OK || finish(d, NULL) != CLQ_OK)
            return false;
    return true;
}

// Extensions are not taken at their word: a product of packed int8 is built and made.
static bool dot_products_work(clq_opencl *d)
{
    size_t len = 0;
    clGetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, 0, NULL, &len);
    char *extensions = calloc(1, len + 1);
    bool named = extensions && clGetDeviceInfo(d->id, CL_DEVICE_EXTENSIONS, len, extensions, NULL) == CL_SUCCESS &&
                 strstr(extensions, "cl_khr_integer_dot_product");
    free(extensions);
    if (!named || !d->work_groups || getenv("CLQ_TEST_PORTABLE")) return false;
    clq_kernel *kernel;
    clq_memory *out = NULL;
    int32_t results[CLQ_UNITS] = {0};
    cl_uint a = 0x7f80ff03, b = 0x807f02fe; // bytes 3, -1, -128, 127 and -2, 2, 127, -128
    if (clq_kernel_get(d, "probe_dot.cl", 1, "-cl-std=CL3.0", "probe_dot", &kernel, NULL) != CLQ_OK ||
        clq_cl_memory_create(&d->base, sizeof results, &out, NULL) != CLQ_OK)
        return false;
    clq_arg args[] = {CLQ_ARG(memory_of(out)->mem), CLQ_ARG(a), CLQ_ARG(b)};
    d->steps.pending = true;
    bool ran = clq_launch(d, kernel, 1, args, 3, NULL, NULL) == CLQ_OK && finish(d, NULL) == CLQ_OK &&
               clq_cl_memory_read(out, 0, results, sizeof results, NULL) == CLQ_OK;
    clq_cl_memory_free(out);
    return ran && results[0] == 3 * -2 + -1 * 2 + -128 * 127 + 127 * -128 && results[CLQ_UNITS - 1] == results[0];
}

static clq_status prepare(clq_opencl *d, clq_error *err)
{
    clq_steps *s = &d->steps;
    uint8_t tables[CLQ_EXPANDED_WORDS * 8];
    if (s->buffer) return CLQ_OK;
    CLQ_TRY(clq_cl_memory_create(&d->base, MAX_STEPS * sizeof(clq_step), &s->buffer, err));
    CLQ_TRY(clq_cl_memory_create(&d->base, COUNTERS * sizeof(cl_uint), &s->sync, err));
    CLQ_TRY(clq_cl_memory_create(&d->base, sizeof tables, &s->tables, err));
    clq_grids_expand(tables);
    CLQ_TRY(clq_cl_memory_write(s->tables, 0, tables, sizeof tables, err));
    const char *wish = getenv("CLQ_TOGETHER");
    clq_blas_open(d);
    s->dot_product = dot_products_work(d);
    s->together = !d->work_groups && !s->use_blas && memory_of(s->sync)->host &&
                  d->base.threads <= d->base.info.compute_units &&
                  (wish && *wish ? *wish != '0' : d->tuning.together != 0);
    if (s->together && !groups_meet(d)) {
        s->together = false;
        memset(s->kernels, 0, sizeof s->kernels);
        memset(memory_of(s->sync)->host, 0, COUNTERS * sizeof(cl_uint));
    }
    return CLQ_OK;
}

clq_status clq_cl_steps_run(clq_device *device, const clq_step *steps, uint32_t n_steps, clq_memory *weights,
                            clq_memory *state, clq_memory *cache, clq_error *err)
{
    clq_opencl *d = clq_opencl_of(device);
    if (d->steps.use_reference) {
        clq_step_memory m = {memory_of(weights)->host, (float *)(void *)memory_of(state)->host,
                             cache ? memory_of(cache)->host : NULL};
        for (uint32_t i = 0; i < n_steps; i++)
            if (!clq_step_run_ref(d->base.threads, &steps[i], &m)) return clq_fail_memory(err, steps[i].cols * 4ull);
        return CLQ_OK;
    }
    for (uint32_t i = 0; i < n_steps; i++) {
        CLQ_TRY(check_step(&steps[i], err));
        add_kind(d, steps[i].kind);
        if (steps[i].kind == CLQ_STEP_LINEAR || steps[i].kind == CLQ_STEP_EMBED)
            add_key(&d->steps, key_of(steps[i].format, steps[i].bits));
    }
    CLQ_TRY(prepare(d, err));
    for (uint32_t done = 0; done < n_steps;) {
        uint32_t n = n_steps - done < MAX_STEPS ? n_steps - done : MAX_STEPS;
        CLQ_TRY(run(d, steps + done, n, FULL_SPINS, weights, state, cache, err));
        done += n;
    }
    cl_int code = clFlush(d->compute);
    return code == CL_SUCCESS ? CLQ_OK : clq_cl_fail(err, code, "starting steps on '%s'", d->base.info.name);
}

clq_status clq_cl_steps_wait(clq_device *device, clq_error *err) { return finish(clq_opencl_of(device), err); }

clq_status clq_cl_steps_prepare(clq_device *device, const clq_type *types, uint32_t n, clq_error *err)
{
    clq_opencl *d = clq_opencl_of(device);
    (void)err;
    if (d->steps.use_reference) return CLQ_OK;
    for (uint32_t i = 0; i < n; i++) add_key(&d->steps, key_of(types[i].format, types[i].bits));
    const char *broken = getenv("CLQ_TEST_BREAK_KERNEL"); // lets a test see the fall-back
    clq_error why = {0};
    bool good = false;
    clq_status st = clq_steps_test(device, types, n, &good, &why);
    if (broken && strcmp(broken, "steps") == 0) good = false;
    if (st == CLQ_OK && good) return CLQ_OK;
    clq_steps_close(d);
    d->steps.use_reference = true;
    clq_warn(d->base.options.hooks,
             "kernel self-test: a forward pass %s on '%s'; the C references are used instead%s%s",
             st == CLQ_OK ? "gives other results than the reference" : "failed", d->base.info.name,
             st == CLQ_OK ? "" : ": ", st == CLQ_OK ? "" : why.text);
    return CLQ_OK;
}

void clq_steps_close(clq_opencl *d)
{
    clq_blas_close(d);
    clq_cl_memory_free(d->steps.buffer);
    clq_cl_memory_free(d->steps.sync);
    clq_cl_memory_free(d->steps.tables);
    d->steps.buffer = d->steps.sync = d->steps.tables = NULL;
}
