// SPDX-License-Identifier: MIT
#define _XOPEN_SOURCE 700 // nftw
#include "file_fixture.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char root[64];

void make_path(char path[256], const char *dir, const char *name)
{
    int n = snprintf(path, 256, "%s/%s", dir, name);
    assert_true(n > 0 && n < 256);
}

void write_bytes(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[256], folder[256];
    make_path(path, dir, name);
    strcpy(folder, path);
    *strrchr(folder, '/') = '\0';
    mkdir(folder, 0700);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

void write_text(const char *dir, const char *name, const char *text)
{
    write_bytes(dir, name, text, strlen(text));
}

void remove_file(const char *dir, const char *name)
{
    char path[256];
    make_path(path, dir, name);
    unlink(path);
}

static int remove_one(const char *path, const struct stat *sb, int flag, struct FTW *ftw)
{
    (void)sb;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void new_folder(char dir[256], const char *name)
{
    make_path(dir, root, name);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    assert_int_equal(mkdir(dir, 0700), 0);
}

int make_root(void **state)
{
    (void)state;
    strcpy(root, "/tmp/clq_test_XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

int remove_root(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void count_warning(void *user, const char *text)
{
    warnings *w = user;
    w->n++;
    snprintf(w->last, sizeof w->last, "%s", text);
}

clq_source *open_source_with(const char *path, const clq_hooks *hooks)
{
    clq_source *s = NULL;
    clq_error err = {0};
    if (clq_source_open(path, hooks, &s, &err) != CLQ_OK) fail_msg("%s: %s", path, err.text);
    return s;
}

clq_source *open_source(const char *path) { return open_source_with(path, NULL); }

void must_refuse(const char *path, const char *says)
{
    clq_source *s = (clq_source *)1;
    clq_error err = {0};
    clq_status st = clq_source_open(path, NULL, &s, &err);
    if (st == CLQ_OK) {
        clq_source_close(s);
        fail_msg("%s was opened; expected: %s", path, says);
    }
    assert_int_equal(st, CLQ_BAD_INPUT);
    assert_int_equal(err.status, CLQ_BAD_INPUT);
    assert_null(s);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}
