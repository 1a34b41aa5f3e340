// SPDX-License-Identifier: MIT
// Building programs, and the cache of their binaries on disk.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/buffer.h"
#include "device/embedded.h"
#include "device/opencl.h"

// ---- source ----

static clq_status read_kernel_file(const char *name, clq_buf *text, clq_error *err)
{
    const char *dir = getenv("CLQ_KERNEL_DIR"); // the folder kernels/ of a source tree, to edit without a build
    if (dir && *dir) {
        char header[64]; // clquant_*.h stand in include/
        snprintf(header, sizeof header, "../include/%s", name);
        char *path = clq_path_join(dir, strncmp(name, "clquant_", 8) == 0 ? header : name);
        FILE *f = path ? fopen(path, "rb") : NULL;
        clq_status st = CLQ_OK;
        if (!f) st = clq_fail_errno(err, CLQ_DEVICE, errno, "cannot open kernel file '%s'", path ? path : name);
        char piece[4096];
        size_t n;
        while (f && (n = fread(piece, 1, sizeof piece, f)) > 0) clq_buf_append(text, piece, n);
        if (f) fclose(f);
        free(path);
        return st;
    }
    for (size_t i = 0; i < clq_n_embedded_files; i++)
        if (strcmp(clq_embedded_files[i].name, name) == 0) {
            clq_buf_append(text, clq_embedded_files[i].text, clq_embedded_files[i].len);
            return CLQ_OK;
        }
    return clq_fail(err, CLQ_DEVICE, "there is no kernel file '%s'", name);
}

// Appends a file with its `#include "..."` lines replaced; guards inside the files keep each once.
static clq_status resolve(const char *name, int depth, clq_buf *out, clq_error *err)
{
    static const char include[] = "#include \"";
    if (depth > 16) return clq_fail(err, CLQ_DEVICE, "kernel file '%s' includes itself", name);
    clq_buf text = {0};
    clq_status st = read_kernel_file(name, &text, err);
    clq_buf_append(&text, "", 1);
    if (st == CLQ_OK && text.failed) st = clq_fail_memory(err, text.len);
    for (char *line = text.data; st == CLQ_OK && line && *line;) {
        char *end = strchr(line, '\n');
        size_t len = end ? (size_t)(end - line) + 1 : strlen(line);
        char *close;
        if (strncmp(line, include, sizeof include - 1) == 0 && (close = strchr(line + sizeof include - 1, '"'))) {
            char child[64];
            snprintf(child, sizeof child, "%.*s", (int)(close - line - (long)(sizeof include - 1)),
                     line + sizeof include - 1);
            st = resolve(child, depth + 1, out, err);
        } else if (strncmp(line, "#include", 8) == 0) {
            clq_buf_text(out, "\n"); // system headers: for the host only
        } else {
            clq_buf_append(out, line, len);
        }
        line += len;
    }
    clq_buf_free(&text);
    return st;
}

clq_status clq_kernel_source(const char *file, char **text, clq_error *err)
{
    clq_buf out = {0};
    clq_status st = resolve(file, 0, &out, err);
    clq_buf_append(&out, "", 1);
    if (st == CLQ_OK && out.failed) st = clq_fail_memory(err, out.len);
    if (st != CLQ_OK) {
        clq_buf_free(&out);
        return st;
    }
    *text = out.data;
    return CLQ_OK;
}

// ---- cache ----

static void set_cache_path(clq_opencl *d, clq_program *p, const char *source)
{
    if (!d->cache_dir[0]) return;
    const clq_device_info *i = &d->base.info;
    const char *parts[] = {source, p->options, i->name, i->platform, i->version, i->driver};
    XXH3_state_t *hash = XXH3_createState();
    if (!hash) return;
    XXH3_128bits_reset(hash);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
        XXH3_128bits_update(hash, parts[k], strlen(parts[k]) + 1);
    XXH128_hash_t h = XXH3_128bits_digest(hash);
    XXH3_freeState(hash);
    snprintf(p->cache_path, sizeof p->cache_path, "%s/%016" PRIx64 "%016" PRIx64 ".bin", d->cache_dir, h.high64,
             h.low64);
}

static bool load_binary(clq_opencl *d, clq_program *p)
{
    FILE *f = p->cache_path[0] ? fopen(p->cache_path, "rb") : NULL;
    if (!f) return false;
    unsigned char *bytes = NULL;
    bool loaded = false;
    struct stat sb;
    if (fstat(fileno(f), &sb) == 0 && sb.st_size > 0 && sb.st_size < 256 << 20 &&
        (bytes = malloc((size_t)sb.st_size)) && fread(bytes, 1, (size_t)sb.st_size, f) == (size_t)sb.st_size) {
        size_t len = (size_t)sb.st_size;
        const unsigned char *binary = bytes;
        cl_int code, status;
        p->program = clCreateProgramWithBinary(d->context, 1, &d->id, &len, &binary, &status, &code);
        if (code == CL_SUCCESS && status == CL_SUCCESS)
            loaded = clBuildProgram(p->program, 1, &d->id, p->options, NULL, NULL) == CL_SUCCESS;
        if (!loaded && p->program) clReleaseProgram(p->program);
        if (!loaded) p->program = NULL;
    }
    free(bytes);
    fclose(f);
    return loaded;
}

// After the first launches, so that what a driver compiles only then is in the binary too.
static void save_binary(clq_program *p)
{
    size_t len = 0;
    if (!p->cache_path[0] || clGetProgramInfo(p->program, CL_PROGRAM_BINARY_SIZES, sizeof len, &len, NULL) || !len)
        return;
    unsigned char *bytes = malloc(len);
    char temp[sizeof p->cache_path + 32];
    snprintf(temp, sizeof temp, "%s.%ld", p->cache_path, (long)getpid());
    if (bytes && clGetProgramInfo(p->program, CL_PROGRAM_BINARIES, sizeof bytes, &bytes, NULL) == CL_SUCCESS) {
        FILE *f = fopen(temp, "wb");
        bool written = f && fwrite(bytes, 1, len, f) == len;
        if (f && fclose(f) != 0) written = false;
        if (!written || rename(temp, p->cache_path) != 0) unlink(temp);
    }
    free(bytes);
}

// ---- building ----

static clq_status build_log(clq_opencl *d, clq_program *p, cl_int code, clq_error *err)
{
    size_t len = 0;
    clGetProgramBuildInfo(p->program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &len);
    char *log = malloc(len + 1);
    if (log) {
        log[0] = '\0';
        clGetProgramBuildInfo(p->program, d->id, CL_PROGRAM_BUILD_LOG, len, log, NULL);
        log[len] = '\0';
    }
    clq_status st = clq_fail(err, CLQ_DEVICE, "kernel file '%s' does not build on '%s' (%s) with %s: %.600s", p->file,
                             d->base.info.name, clq_cl_error_name(code), p->options, log ? log : "");
    free(log);
    return st;
}

static clq_status build(clq_opencl *d, clq_program *p, clq_error *err)
{
    char *source;
    CLQ_TRY(clq_kernel_source(p->file, &source, err));
    clq_status st = CLQ_OK;
    set_cache_path(d, p, source);
    p->from_cache = load_binary(d, p);
    if (!p->from_cache) {
        cl_int code;
        const char *text = source;
        p->program = clCreateProgramWithSource(d->context, 1, &text, NULL, &code);
        if (code != CL_SUCCESS) {
            p->program = NULL;
            st = clq_cl_fail(err, code, "creating the program '%s'", p->file);
        } else if ((code = clBuildProgram(p->program, 1, &d->id, p->options, NULL, NULL)) != CL_SUCCESS) {
            st = build_log(d, p, code, err);
        }
    }
    free(source);
    return st;
}

static void program_free(clq_program *p)
{
    for (uint32_t i = 0; i < p->n_kernels; i++) clReleaseKernel(p->kernels[i].kernel);
    if (p->program) clReleaseProgram(p->program);
    free(p);
}

static clq_status program_get(clq_opencl *d, const char *file, int lanes, const char *extra, clq_program **program,
                              clq_error *err)
{
    char options[sizeof((clq_program *)0)->options];
    snprintf(options, sizeof options, "%s-w%s -DVW=%d -DWG=%d %s", strstr(extra, "-cl-std=") ? "" : "-cl-std=CL1.2 ",
             d->base.info.exact_divide ? " -cl-fp32-correctly-rounded-divide-sqrt" : "",
             d->work_groups ? 1 : lanes, d->work_groups, extra);
    for (clq_program *p = d->programs; p; p = p->next)
        if (strcmp(p->file, file) == 0 && strcmp(p->options, options) == 0) {
            *program = p;
            return CLQ_OK;
        }
    clq_program *p = calloc(1, sizeof *p);
    if (!p) return clq_fail_memory(err, sizeof *p);
    snprintf(p->file, sizeof p->file, "%s", file);
    memcpy(p->options, options, sizeof options);
    clq_status st = build(d, p, err);
    if (st != CLQ_OK) {
        program_free(p);
        return st;
    }
    p->next = d->programs;
    d->programs = p;
    *program = p;
    return CLQ_OK;
}

clq_status clq_kernel_get(clq_opencl *d, const char *file, int lanes, const char *options, const char *name,
                          clq_kernel **kernel, clq_error *err)
{
    clq_program *p = NULL;
    CLQ_TRY(program_get(d, file, lanes, options, &p, err));
    for (uint32_t i = 0; i < p->n_kernels; i++)
        if (strcmp(p->kernels[i].name, name) == 0) {
            *kernel = &p->kernels[i];
            return CLQ_OK;
        }
    if (p->n_kernels == CLQ_MAX_KERNELS) return clq_fail(err, CLQ_DEVICE, "'%s' has too many kernels", file);
    clq_kernel *k = &p->kernels[p->n_kernels];
    cl_int code;
    k->kernel = clCreateKernel(p->program, name, &code);
    if (code != CL_SUCCESS) return clq_cl_fail(err, code, "kernel '%s' of '%s'", name, file);
    clGetKernelInfo(k->kernel, CL_KERNEL_NUM_ARGS, sizeof k->n_args, &k->n_args, NULL);
    snprintf(k->name, sizeof k->name, "%s", name);
    p->n_kernels++;
    *kernel = k;
    return CLQ_OK;
}

void clq_programs_close(clq_opencl *d)
{
    while (d->programs) {
        clq_program *p = d->programs;
        d->programs = p->next;
        if (!p->from_cache && p->n_kernels) save_binary(p);
        program_free(p);
    }
}
