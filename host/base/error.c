// SPDX-License-Identifier: MIT
#define _GNU_SOURCE // strerror_r that returns the text
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_text(clq_error *err, clq_status status, const char *format, va_list args)
{
    err->status = status;
    vsnprintf(err->text, sizeof err->text, format, args);
}

clq_status clq_fail(clq_error *err, clq_status status, const char *format, ...)
{
    if (!err) return status;
    va_list args;
    va_start(args, format);
    set_text(err, status, format, args);
    va_end(args);
    return status;
}

clq_status clq_fail_errno(clq_error *err, clq_status status, int errno_value, const char *format, ...)
{
    if (!err) return status;
    va_list args;
    va_start(args, format);
    set_text(err, status, format, args);
    va_end(args);
    char reason[128];
    size_t used = strlen(err->text);
    snprintf(err->text + used, sizeof err->text - used, ": %s",
             strerror_r(errno_value, reason, sizeof reason));
    return status;
}

clq_status clq_fail_memory(clq_error *err, uint64_t n_bytes)
{
    return clq_fail(err, CLQ_DEVICE, "out of memory: %llu bytes could not be allocated",
                    (unsigned long long)n_bytes);
}

void clq_error_locate(clq_error *err, const char *where)
{
    if (!err || strstr(err->text, where)) return;
    char head[400];
    size_t n = (size_t)snprintf(head, sizeof head, "'%.380s': ", where);
    memmove(err->text + n, err->text, sizeof err->text - n);
    memcpy(err->text, head, n);
    err->text[sizeof err->text - 1] = '\0';
}

void clq_warn(const clq_hooks *hooks, const char *format, ...)
{
    if (!hooks || !hooks->warn) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hooks->warn(hooks->user, text);
}

bool clq_cancelled(const clq_hooks *hooks)
{
    return hooks && hooks->cancel && *hooks->cancel;
}

const char *clq_version(void)
{
    return CLQ_VERSION;
}
