// SPDX-License-Identifier: MIT
// What tests with files share: a folder to work in, files, warnings, sources that open and that are refused.
#ifndef CLQ_TESTS_FILE_FIXTURE_H
#define CLQ_TESTS_FILE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "io/source.h"

// The folder that a test program works in: made by make_root, a group setup.
extern char root[64];

typedef struct warnings {
    int n;
    char last[1024];
} warnings;

int make_root(void **state);
int remove_root(void **state);
void make_path(char path[256], const char *dir, const char *name);
void write_bytes(const char *dir, const char *name, const void *bytes, size_t n);
void write_text(const char *dir, const char *name, const char *text);
void remove_file(const char *dir, const char *name);
// An empty folder below root.
void new_folder(char dir[256], const char *name);
// A clq_hooks.warn; user: a `warnings`.
void count_warning(void *user, const char *text);
clq_source *open_source(const char *path);
clq_source *open_source_with(const char *path, const clq_hooks *hooks);
// The message must hold `says`.
void must_refuse(const char *path, const char *says);

#endif
