// SPDX-License-Identifier: MIT
// Errors: one shape for all of clquant. A function that fails fills its clq_error once and returns
// the status; callers forward it with CLQ_TRY.
#ifndef CLQ_BASE_ERROR_H
#define CLQ_BASE_ERROR_H

#include "clquant.h"

// Formats the text into err (NULL: dropped) and returns status.
clq_status clq_fail(clq_error *err, clq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Adds ": <strerror(errno_value)>" to the text.
clq_status clq_fail_errno(clq_error *err, clq_status status, int errno_value, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
clq_status clq_fail_memory(clq_error *err, uint64_t n_bytes);

// Puts "'where': " before the text, unless the text names it already.
void clq_error_locate(clq_error *err, const char *where);

// "tensor%s"
#define CLQ_PLURAL(n) ((n) == 1 ? "" : "s")

// Sends text to the warn hook; hooks and its members may be NULL.
void clq_warn(const clq_hooks *hooks, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool clq_cancelled(const clq_hooks *hooks);

// Return the status if it is not CLQ_OK.
#define CLQ_TRY(expr)                                                                              \
    do {                                                                                           \
        clq_status clq_try_ = (expr);                                                              \
        if (clq_try_ != CLQ_OK) return clq_try_;                                                   \
    } while (0)
// The same with cleanup: sets `st` and jumps to `out`.
#define CLQ_TRY_OUT(expr)                                                                          \
    do {                                                                                           \
        st = (expr);                                                                               \
        if (st != CLQ_OK) goto out;                                                                \
    } while (0)

#endif
