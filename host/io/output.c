// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include "io/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/buffer.h"
#include "base/checked.h"

static const char journal_magic[8] = "clqjrnl1";

typedef struct {
    char magic[8];
    uint64_t fingerprint;
    uint64_t check; // XXH3 of the fields before
} journal_head;

typedef struct {
    uint64_t tensor, hash;
    double sum_x2, sum_e2, max_error;
    uint64_t lost_groups;
    uint64_t check;
} journal_entry;

struct clq_output {
    char *path, *dir, *partial, *journal;
    clq_output_kind kind;
    bool committed;
    uint32_t n_files;
    char **names;
    uint64_t *sizes;
    int *fds;
    int journal_fd;
    clq_record *records;
    uint32_t n_records;
};

static clq_status fail_path(clq_error *err, const char *what, const char *path)
{
    return clq_fail_errno(err, CLQ_OUTPUT, errno, "%s '%s'", what, path);
}

// ---- paths ----

// "a/b/" -> "a/b"; the folder part in *dir ("." if there is none).
static clq_status split_path(clq_output *o, const char *path, clq_error *err)
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    o->path = strndup(path, len);
    if (!o->path) return clq_fail_memory(err, len);
    const char *base = clq_path_base(o->path);
    if (!*base || strcmp(base, ".") == 0 || strcmp(base, "..") == 0)
        return clq_fail(err, CLQ_USAGE, "'%s' cannot be an output: give it a name of its own", path);
    if (strcmp(path, "-") == 0)
        return clq_fail(err, CLQ_USAGE, "'-' cannot be an output: it is read back and renamed, so a file or folder");
    o->dir = base == o->path       ? strdup(".")
             : base == o->path + 1 ? strdup("/")
                                   : strndup(o->path, (size_t)(base - o->path - 1));
    char *names[2] = {NULL, NULL};
    static const char *const endings[2] = {".clq-partial", ".clq-journal"};
    for (int i = 0; o->dir && i < 2; i++) {
        char *name = malloc(strlen(base) + 32);
        if (!name) break;
        sprintf(name, ".%s%s", base, endings[i]);
        names[i] = clq_path_join(o->dir, name);
        free(name);
    }
    o->partial = names[0];
    o->journal = names[1];
    return o->partial && o->journal ? CLQ_OK : clq_fail_memory(err, len);
}

static clq_status check_dir(const clq_output *o, clq_error *err)
{
    struct stat sb;
    if (stat(o->dir, &sb) != 0) return fail_path(err, "there is no folder", o->dir);
    if (!S_ISDIR(sb.st_mode)) return clq_fail(err, CLQ_OUTPUT, "'%s' is not a folder", o->dir);
    long most = pathconf(o->dir, _PC_NAME_MAX), partial = (long)strlen(clq_path_base(o->partial));
    long added = partial - (long)strlen(clq_path_base(o->path));
    if (most > 0 && partial > most)
        return clq_fail(err, CLQ_OUTPUT,
                        "'%s': the name is too long: while it is written it has %ld bytes more, so at most %ld are "
                        "possible there",
                        o->path, added, most - added);
    return CLQ_OK;
}

static void free_paths(clq_output *o)
{
    free(o->path);
    free(o->dir);
    free(o->partial);
    free(o->journal);
}

clq_status clq_output_check_place(const char *path, clq_error *err)
{
    clq_output o = {0};
    clq_status st = split_path(&o, path, err);
    if (st == CLQ_OK) st = check_dir(&o, err);
    free_paths(&o);
    return st;
}

bool clq_output_is_inside(const char *path, const char *folder)
{
    clq_output o = {0};
    struct stat outer, sb;
    bool inside = false;
    char *dir = split_path(&o, path, NULL) == CLQ_OK && stat(folder, &outer) == 0 ? realpath(o.dir, NULL) : NULL;
    while (dir && !inside) {
        inside = stat(dir, &sb) == 0 && sb.st_dev == outer.st_dev && sb.st_ino == outer.st_ino;
        char *slash = strrchr(dir, '/');
        if (slash == dir) break; // the folders directly below / have been looked at; / is no model
        *slash = '\0';
    }
    free(dir);
    free_paths(&o);
    return inside;
}

static char *file_path(const clq_output *o, uint32_t i)
{
    return o->kind == CLQ_OUTPUT_FILE ? strdup(o->partial) : clq_path_join(o->partial, o->names[i]);
}

bool clq_output_is_input(const char *path, const clq_file *files, uint32_t n)
{
    struct stat sb;
    if (stat(path, &sb) != 0) return false;
    for (uint32_t i = 0; i < n; i++) {
        if (S_ISREG(sb.st_mode) && files[i].device == sb.st_dev && files[i].inode == sb.st_ino) return true;
        if (!S_ISDIR(sb.st_mode)) continue;
        // The folder that an input lies in: entries of the output would replace it.
        char *there = clq_path_join(path, clq_path_base(files[i].path));
        struct stat inner;
        bool same =
            there && stat(there, &inner) == 0 && inner.st_dev == files[i].device && inner.st_ino == files[i].inode;
        free(there);
        if (same) return true;
    }
    return false;
}

static bool planned(const clq_output *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_files; i++) {
        size_t len = strlen(name);
        if (strncmp(o->names[i], name, len) == 0 && (o->names[i][len] == '\0' || o->names[i][len] == '/')) return true;
    }
    return clq_ends_with(name, ".safetensors") || clq_ends_with(name, ".safetensors.index.json");
}

static clq_status check_file_replaceable(const char *path, clq_error *err)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return errno == ENOENT ? CLQ_OK : fail_path(err, "cannot look at", path);
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode))
        return clq_fail(err, CLQ_OUTPUT, "'%s' is a folder, a file is to be written there", path);
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return clq_fail(err, CLQ_OUTPUT, "'%s' is not a regular file", path);
    return CLQ_OK;
}

// An existing folder may be replaced only when nothing is lost but an earlier output.
static clq_status check_replaceable(const clq_output *o, clq_error *err)
{
    struct stat sb;
    if (o->kind == CLQ_OUTPUT_FILE) return check_file_replaceable(o->path, err);
    for (uint32_t i = 0; o->kind == CLQ_OUTPUT_PARTS && i < o->n_files; i++) {
        char *path = clq_path_join(o->dir, o->names[i]);
        clq_status st = path ? check_file_replaceable(path, err) : clq_fail_memory(err, 1);
        free(path);
        CLQ_TRY(st);
    }
    if (o->kind == CLQ_OUTPUT_PARTS) return CLQ_OK;
    if (lstat(o->path, &sb) != 0) return errno == ENOENT ? CLQ_OK : fail_path(err, "cannot look at", o->path);
    if (!S_ISDIR(sb.st_mode)) return clq_fail(err, CLQ_OUTPUT, "'%s' exists and is not a folder", o->path);
    DIR *d = opendir(o->path);
    if (!d) return fail_path(err, "cannot read folder", o->path);
    clq_status st = CLQ_OK;
    struct dirent *e;
    while (st == CLQ_OK && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && !planned(o, e->d_name))
            st = clq_fail(err, CLQ_OUTPUT,
                          "folder '%s' holds '%s', which is not of an earlier output; it is not replaced", o->path,
                          e->d_name);
    closedir(d);
    return st;
}

static void remove_tree(const char *path)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return;
    if (S_ISDIR(sb.st_mode)) {
        DIR *d = opendir(path);
        struct dirent *e;
        while (d && (e = readdir(d))) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
            char *inner = clq_path_join(path, e->d_name);
            if (inner) remove_tree(inner);
            free(inner);
        }
        if (d) closedir(d);
        rmdir(path);
    } else {
        unlink(path);
    }
}

// ---- journal ----

static clq_status write_all(int fd, const void *bytes, size_t n, const char *path, clq_error *err)
{
    const uint8_t *p = bytes;
    while (n) {
        ssize_t got = write(fd, p, n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_path(err, "cannot write", path);
        p += got;
        n -= (size_t)got;
    }
    return CLQ_OK;
}

static clq_status start_journal(clq_output *o, uint64_t fingerprint, clq_error *err)
{
    journal_head head = {.fingerprint = fingerprint};
    memcpy(head.magic, journal_magic, sizeof head.magic);
    head.check = XXH3_64bits(&head, offsetof(journal_head, check));
    if (ftruncate(o->journal_fd, 0) != 0) return fail_path(err, "cannot write", o->journal);
    return write_all(o->journal_fd, &head, sizeof head, o->journal, err);
}

// Reads the complete, undamaged records; a torn one at the end is normal after a crash.
static clq_status read_journal(clq_output *o, uint64_t fingerprint, clq_error *err)
{
    journal_head head;
    if (pread(o->journal_fd, &head, sizeof head, 0) != (ssize_t)sizeof head ||
        memcmp(head.magic, journal_magic, sizeof head.magic) != 0 ||
        head.check != XXH3_64bits(&head, offsetof(journal_head, check)))
        return clq_fail(err, CLQ_BAD_INPUT, "'%s' is not a journal of clquant; run without --resume", o->journal);
    if (head.fingerprint != fingerprint)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "cannot resume '%s': the source or the settings are not those of the interrupted run; run "
                        "without --resume to start anew",
                        o->path);
    journal_entry e;
    off_t at = sizeof head;
    while (pread(o->journal_fd, &e, sizeof e, at) == (ssize_t)sizeof e &&
           e.check == XXH3_64bits(&e, offsetof(journal_entry, check))) {
        clq_record *records = realloc(o->records, (o->n_records + 1) * sizeof *records);
        if (!records) return clq_fail_memory(err, (o->n_records + 1) * sizeof *records);
        o->records = records;
        records[o->n_records++] = (clq_record){
            .tensor = (uint32_t)e.tensor,
            .hash = e.hash,
            .stats = {.sum_x2 = e.sum_x2, .sum_e2 = e.sum_e2, .max_error = e.max_error, .lost_groups = e.lost_groups}};
        at += sizeof e;
    }
    if (ftruncate(o->journal_fd, at) != 0) return fail_path(err, "cannot write", o->journal);
    return CLQ_OK;
}

clq_status clq_output_record(clq_output *o, const clq_record *r, clq_error *err)
{
    journal_entry e = {.tensor = r->tensor,
                       .hash = r->hash,
                       .sum_x2 = r->stats.sum_x2,
                       .sum_e2 = r->stats.sum_e2,
                       .max_error = r->stats.max_error,
                       .lost_groups = r->stats.lost_groups};
    e.check = XXH3_64bits(&e, offsetof(journal_entry, check));
    return write_all(o->journal_fd, &e, sizeof e, o->journal, err);
}

const clq_record *clq_output_records(const clq_output *o, uint32_t *n)
{
    *n = o->n_records;
    return o->records;
}

// ---- opening ----

static clq_status check_space(const clq_output *o, uint64_t already, clq_error *err)
{
    struct statvfs v;
    uint64_t total = 0;
    for (uint32_t i = 0; i < o->n_files; i++)
        if (!clq_add_u64(total, o->sizes[i], &total)) return clq_fail(err, CLQ_OUTPUT, "the output is too large");
    if (statvfs(o->dir, &v) != 0) return fail_path(err, "cannot look at folder", o->dir);
    uint64_t free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    if (total > already && total - already > free_bytes)
        return clq_fail_errno(err, CLQ_OUTPUT, ENOSPC, "'%s' needs %" PRIu64 " bytes, '%s' has %" PRIu64 " free",
                              o->path, total - already, o->dir, free_bytes);
    return CLQ_OK;
}

static clq_status open_journal(clq_output *o, clq_error *err)
{
    CLQ_TRY(check_dir(o, err));
    o->journal_fd = open(o->journal, O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND | O_NOFOLLOW, 0666);
    if (o->journal_fd < 0) return fail_path(err, "cannot write to folder", o->dir);
    if (flock(o->journal_fd, LOCK_EX | LOCK_NB) != 0) {
        clq_status st = clq_fail(err, CLQ_OUTPUT, "'%s' is being written by another process", o->path);
        close(o->journal_fd);
        o->journal_fd = -1;
        return st;
    }
    return CLQ_OK;
}

static clq_status open_files(clq_output *o, bool resume, clq_error *err)
{
    if (o->kind != CLQ_OUTPUT_FILE && mkdir(o->partial, 0777) != 0 && errno != EEXIST)
        return fail_path(err, "cannot make folder", o->partial);
    for (uint32_t i = 0; i < o->n_files; i++) {
        char *path = file_path(o, i);
        if (!path) return clq_fail_memory(err, 1);
        char *slash = strrchr(o->names[i], '/');
        if (slash) {
            char *sub = strndup(path, strlen(path) - strlen(slash));
            if (sub) mkdir(sub, 0777);
            free(sub);
        }
        o->fds[i] = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (resume ? 0 : O_TRUNC), 0666);
        clq_status st = o->fds[i] < 0 ? fail_path(err, "cannot create", path) : CLQ_OK;
        free(path);
        CLQ_TRY(st);
    }
    return CLQ_OK;
}

static uint64_t partial_bytes(const clq_output *o)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < o->n_files; i++) {
        char *path = file_path(o, i);
        struct stat sb;
        if (path && stat(path, &sb) == 0) total += (uint64_t)sb.st_blocks * 512;
        free(path);
    }
    return total;
}

// *resume becomes false where there is nothing to resume.
static clq_status prepare(clq_output *o, uint64_t fingerprint, bool *resume, clq_error *err)
{
    CLQ_TRY(check_replaceable(o, err));
    CLQ_TRY(open_journal(o, err));
    struct stat sb;
    if (*resume && (fstat(o->journal_fd, &sb) != 0 || sb.st_size == 0)) *resume = false;
    if (*resume) CLQ_TRY(read_journal(o, fingerprint, err));
    if (!*resume) remove_tree(o->partial);
    CLQ_TRY(check_space(o, *resume ? partial_bytes(o) : 0, err));
    if (!*resume) CLQ_TRY(start_journal(o, fingerprint, err));
    return open_files(o, *resume, err);
}

clq_status clq_output_open(const char *path, clq_output_kind kind, const clq_output_file *files, uint32_t n_files,
                           uint64_t fingerprint, bool resume, clq_output **output, clq_error *err)
{
    *output = NULL;
    clq_output *o = calloc(1, sizeof *o);
    if (!o) return clq_fail_memory(err, sizeof *o);
    o->journal_fd = -1;
    o->kind = kind;
    o->n_files = n_files;
    o->names = calloc(n_files, sizeof *o->names);
    o->sizes = calloc(n_files, sizeof *o->sizes);
    o->fds = malloc(n_files * sizeof *o->fds);
    bool ok = o->names && o->sizes && o->fds;
    for (uint32_t i = 0; ok && i < n_files; i++) {
        o->fds[i] = -1;
        o->sizes[i] = files[i].n_bytes;
        o->names[i] = strdup(files[i].name);
        ok = o->names[i] != NULL;
    }
    clq_status st = ok ? split_path(o, path, err) : clq_fail_memory(err, n_files * sizeof *o->names);
    // Until the journal is ours, what lies there may be another process's or an interrupted run's.
    if (st == CLQ_OK) st = prepare(o, fingerprint, &resume, err);
    if (st != CLQ_OK) {
        clq_output_close(o, o->journal_fd < 0 || resume);
        return st;
    }
    *output = o;
    return CLQ_OK;
}

clq_status clq_output_try_file(const char *path, clq_error *err)
{
    clq_output *o;
    CLQ_TRY(clq_output_open(path, CLQ_OUTPUT_FILE, &(clq_output_file){.name = ""}, 1, 0, false, &o, err));
    clq_output_close(o, false);
    return CLQ_OK;
}

// ---- writing ----

clq_status clq_output_write(clq_output *o, uint32_t file, uint64_t offset, const void *bytes, uint64_t n,
                            clq_error *err)
{
    const uint8_t *p = bytes;
    uint64_t end;
    if (!clq_add_u64(offset, n, &end) || end > o->sizes[file])
        return clq_fail(err, CLQ_OUTPUT, "a write past the planned end of '%s'", o->path);
    while (n) {
        ssize_t put = pwrite(o->fds[file], p, n < 1u << 30 ? n : 1u << 30, (off_t)offset);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) return fail_path(err, "cannot write", o->path);
        p += put;
        offset += (uint64_t)put;
        n -= (uint64_t)put;
    }
    return CLQ_OK;
}

clq_status clq_output_reopen(const clq_output *o, uint32_t file, clq_file *opened, clq_error *err)
{
    char *path = file_path(o, file);
    if (!path) return clq_fail_memory(err, 1);
    clq_status st = clq_file_open(path, opened, err);
    free(path);
    return st;
}

const char *clq_output_partial(const clq_output *o)
{
    return o->partial;
}

static clq_status sync_dir(const char *path, clq_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return fail_path(err, "cannot open folder", path);
    // Some file systems cannot sync folders; their renames are as durable as they get.
    bool bad = fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS;
    clq_status st = bad ? fail_path(err, "cannot sync folder", path) : CLQ_OK;
    close(fd);
    return st;
}

clq_status clq_output_sync(clq_output *o, clq_error *err)
{
    for (uint32_t i = 0; i < o->n_files; i++) {
        struct stat sb;
        if (fstat(o->fds[i], &sb) != 0) return fail_path(err, "cannot look at", o->partial);
        // A file that ends in padding, or an earlier run's longer one.
        if ((uint64_t)sb.st_size != o->sizes[i] && ftruncate(o->fds[i], (off_t)o->sizes[i]) != 0)
            return fail_path(err, "cannot set the size of", o->partial);
        if (fsync(o->fds[i]) != 0) return fail_path(err, "cannot sync", o->partial);
    }
    return o->kind == CLQ_OUTPUT_FILE ? CLQ_OK : sync_dir(o->partial, err);
}

// The first part last: readers begin with it. After a failure no new part stays at its place.
static clq_status rename_parts(clq_output *o, clq_error *err)
{
    clq_status st = CLQ_OK;
    uint32_t i = o->n_files;
    while (st == CLQ_OK && i-- > 0) {
        char *from = file_path(o, i), *to = clq_path_join(o->dir, o->names[i]);
        if (!from || !to)
            st = clq_fail_memory(err, 1);
        else if (rename(from, to) != 0)
            st = fail_path(err, "cannot rename to", to);
        free(from);
        free(to);
    }
    while (st != CLQ_OK && ++i < o->n_files) {
        char *to = clq_path_join(o->dir, o->names[i]);
        if (to) unlink(to);
        free(to);
    }
    if (st == CLQ_OK) rmdir(o->partial);
    return st;
}

clq_status clq_output_commit(clq_output *o, clq_error *err)
{
    for (uint32_t i = 0; i < o->n_files; i++) {
        int fd = o->fds[i];
        o->fds[i] = -1;
        if (close(fd) != 0) return fail_path(err, "cannot close", o->partial);
    }
    if (o->kind == CLQ_OUTPUT_PARTS) {
        CLQ_TRY(rename_parts(o, err));
        o->committed = true;
    } else if (rename(o->partial, o->path) == 0) {
        o->committed = true;
    } else if (o->kind == CLQ_OUTPUT_FOLDER && (errno == ENOTEMPTY || errno == EEXIST)) {
        // A folder with an earlier output: exchange the two, then remove the old one.
        if (renameat2(AT_FDCWD, o->partial, AT_FDCWD, o->path, RENAME_EXCHANGE) != 0)
            return fail_path(err, "cannot replace", o->path);
        o->committed = true;
        remove_tree(o->partial);
    } else {
        return fail_path(err, "cannot rename to", o->path);
    }
    unlink(o->journal);
    return sync_dir(o->dir, err);
}

void clq_output_close(clq_output *o, bool keep_partial)
{
    if (!o) return;
    for (uint32_t i = 0; o->fds && i < o->n_files; i++)
        if (o->fds[i] >= 0) close(o->fds[i]);
    if (o->journal_fd >= 0) {
        if (!o->committed && !keep_partial) {
            remove_tree(o->partial);
            unlink(o->journal);
        }
        close(o->journal_fd);
    }
    for (uint32_t i = 0; o->names && i < o->n_files; i++) free(o->names[i]);
    free(o->names);
    free(o->sizes);
    free(o->fds);
    free(o->records);
    free_paths(o);
    free(o);
}

clq_status clq_output_whole(const char *path, const void *bytes, uint64_t n, clq_error *err)
{
    clq_output *o = NULL;
    clq_output_file file = {.name = "", .n_bytes = n};
    clq_status st = clq_output_open(path, CLQ_OUTPUT_FILE, &file, 1, 0, false, &o, err);
    if (st == CLQ_OK) st = clq_output_write(o, 0, 0, bytes, n, err);
    if (st == CLQ_OK) st = clq_output_sync(o, err);
    if (st == CLQ_OK) st = clq_output_commit(o, err);
    clq_output_close(o, false);
    return st;
}
