// SPDX-License-Identifier: MIT
// host/io: files that are read, and the output transaction.
#define _XOPEN_SOURCE 700 // truncate, mkfifo
#include "file_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/output.h"

static void file_holds(const char *dir, const char *name, const char *text)
{
    char path[256], *got;
    size_t len;
    make_path(path, dir, name);
    clq_error err;
    if (clq_file_slurp(path, 1 << 20, &got, &len, &err) != CLQ_OK) fail_msg("%s", err.text);
    assert_int_equal(len, strlen(text));
    assert_string_equal(got, text);
    free(got);
}

static int n_entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

// ---- file.c -------------------------------------------------------------------------------------


static void test_file(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "file");
    uint8_t bytes[10000], a[10000], b[10000];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7 + i / 256);
    write_bytes(dir, "f", bytes, sizeof bytes);
    make_path(path, dir, "f");
    clq_file mapped, plain;
    clq_error err;
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_OK);
    assert_int_equal(clq_file_open(path, &plain, &err), CLQ_OK);
    assert_non_null(mapped.map);
    munmap((void *)plain.map, plain.size);
    plain.map = NULL;
    assert_null(clq_file_at(&plain, 0));
    static const uint64_t ranges[][2] = {{0, 10000},   {0, 0},    {10000, 0}, {1, 4095},
                                         {4096, 4096}, {9999, 1}, {123, 8765}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        uint64_t at = ranges[i][0], n = ranges[i][1];
        memset(a, 1, sizeof a);
        memset(b, 1, sizeof b);
        assert_int_equal(clq_file_read(&mapped, at, a, n, &err), CLQ_OK);
        assert_int_equal(clq_file_read(&plain, at, b, n, &err), CLQ_OK);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(a, bytes + at, n);
    }
    static const uint64_t outside[][2] = {
        {0, 10001}, {10001, 0}, {9999, 2}, {UINT64_MAX, 1}, {UINT64_MAX, UINT64_MAX}, {1, UINT64_MAX}};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        assert_int_equal(clq_file_read(&mapped, outside[i][0], a, outside[i][1], &err), CLQ_BAD_INPUT);
        assert_int_equal(clq_file_read(&plain, outside[i][0], a, outside[i][1], &err), CLQ_BAD_INPUT);
    }
    assert_int_equal(mapped.inode, plain.inode);
    // Shortened behind our back, not mapped: an error, not an endless loop.
    assert_int_equal(truncate(path, 5000), 0);
    assert_int_equal(clq_file_read(&plain, 0, a, 5000, &err), CLQ_OK);
    assert_int_equal(clq_file_read(&plain, 4000, a, 2000, &err), CLQ_BAD_INPUT);
    assert_non_null(strstr(err.text, "shorter"));
    clq_file_close(&mapped);
    clq_file_close(&plain);
    clq_file_close(&plain); // twice is harmless

    assert_int_equal(clq_file_open(dir, &mapped, &err), CLQ_BAD_INPUT); // a folder
    make_path(path, dir, "none");
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_BAD_INPUT);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_BAD_INPUT); // must not wait for a writer
    assert_int_equal(clq_file_open("/dev/null", &mapped, &err), CLQ_BAD_INPUT);
    write_text(dir, "empty", "");
    make_path(path, dir, "empty");
    assert_int_equal(clq_file_open(path, &mapped, &err), CLQ_OK);
    assert_int_equal(mapped.size, 0);
    clq_file_close(&mapped);

    char *text;
    size_t len;
    assert_int_equal(clq_file_slurp(path, 10, &text, &len, &err), CLQ_OK);
    assert_string_equal(text, "");
    free(text);
    write_text(dir, "eleven", "12345678901");
    make_path(path, dir, "eleven");
    assert_int_equal(clq_file_slurp(path, 10, &text, &len, &err), CLQ_BAD_INPUT);
    assert_null(text);
}

// ---- output -------------------------------------------------------------------------------------


static clq_output *must_create(const char *path, bool folder, const clq_output_file *files, uint32_t n,
                               uint64_t fingerprint, bool resume)
{
    clq_output *o;
    clq_error err;
    if (clq_output_open(path, folder, files, n, fingerprint, resume, &o, &err) != CLQ_OK) fail_msg("%s", err.text);
    return o;
}

static void cannot_create(const char *path, bool folder, const clq_output_file *files, uint32_t n, uint64_t fingerprint,
                          bool resume, clq_status status, const char *says)
{
    clq_output *o = (clq_output *)1;
    clq_error err = {0};
    assert_int_equal(clq_output_open(path, folder, files, n, fingerprint, resume, &o, &err), status);
    assert_null(o);
    if (!strstr(err.text, says)) fail_msg("'%s' is not about '%s'", err.text, says);
}

static void put(clq_output *o, uint32_t file, uint64_t offset, const char *text)
{
    clq_error err;
    if (clq_output_write(o, file, offset, text, strlen(text), &err) != CLQ_OK) fail_msg("%s", err.text);
}

static void finish(clq_output *o)
{
    clq_error err;
    if (clq_output_sync(o, &err) != CLQ_OK || clq_output_commit(o, &err) != CLQ_OK) fail_msg("%s", err.text);
    clq_output_close(o, false);
}

static void test_output_file(void **state)
{
    (void)state;
    char dir[256], path[256];
    new_folder(dir, "out");
    make_path(path, dir, "m.gguf");
    clq_output_file file = {.name = "", .n_bytes = 10};
    clq_error err;
    clq_output *o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 5, "56789");                                                     // in any order
    assert_int_equal(clq_output_write(o, 0, 6, "56789", 5, &err), CLQ_OUTPUT); // past the planned end
    assert_int_equal(clq_output_write(o, 0, UINT64_MAX, "56789", 5, &err), CLQ_OUTPUT);
    put(o, 0, 0, "01234");
    clq_file reopened;
    assert_int_equal(clq_output_reopen(o, 0, &reopened, &err), CLQ_OK);
    char bytes[10];
    assert_int_equal(clq_file_read(&reopened, 0, bytes, 10, &err), CLQ_OK);
    assert_memory_equal(bytes, "0123456789", 10);
    clq_file_close(&reopened);
    assert_int_equal(access(path, F_OK), -1); // not there before the commit
    finish(o);
    file_holds(dir, "m.gguf", "0123456789");
    assert_int_equal(n_entries(dir), 1);

    // Given up: nothing is left, the earlier output is as it was.
    struct stat before, after;
    assert_int_equal(stat(path, &before), 0);
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "xxxxx");
    assert_int_equal(n_entries(dir), 3); // partial file and journal
    clq_output_close(o, false);
    assert_int_equal(n_entries(dir), 1);
    assert_int_equal(stat(path, &after), 0);
    assert_true(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    file_holds(dir, "m.gguf", "0123456789");

    // Replaced by one rename; a file that was not written to its end has its planned size.
    file.n_bytes = 4;
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "ab");
    finish(o);
    assert_int_equal(stat(path, &after), 0);
    assert_true(after.st_ino != before.st_ino && after.st_size == 4);
    assert_int_equal(n_entries(dir), 1);

    // One writer at a time.
    o = must_create(path, false, &file, 1, 1, false);
    put(o, 0, 0, "mine");
    cannot_create(path, false, &file, 1, 1, false, CLQ_OUTPUT, "another process");
    cannot_create(path, false, &file, 1, 1, true, CLQ_OUTPUT, "another process");
    finish(o);
    file_holds(dir, "m.gguf", "mine");

    // Refused before anything is written.
    char where[256];
    make_path(where, dir, "none/m.gguf");
    cannot_create(where, false, &file, 1, 1, false, CLQ_OUTPUT, "no folder");
    make_path(where, dir, "m.gguf/m.gguf");
    cannot_create(where, false, &file, 1, 1, false, CLQ_OUTPUT, "m.gguf");
    cannot_create(dir, false, &file, 1, 1, false, CLQ_OUTPUT, "is a folder");
    cannot_create("..", false, &file, 1, 1, false, CLQ_USAGE, "name of its own");
    cannot_create("/", false, &file, 1, 1, false, CLQ_USAGE, "name of its own");
    cannot_create("/dev/null", false, &file, 1, 1, false, CLQ_OUTPUT, "regular");
    cannot_create(path, true, &file, 1, 1, false, CLQ_OUTPUT, "not a folder");
    file.n_bytes = 1ull << 60;
    cannot_create(path, false, &file, 1, 1, false, CLQ_OUTPUT, "free");
    clq_output_file two[] = {{.name = "", .n_bytes = UINT64_MAX}, {.name = "", .n_bytes = 2}};
    cannot_create(path, false, two, 2, 1, false, CLQ_OUTPUT, "too large");
    assert_int_equal(n_entries(dir), 1);
    file_holds(dir, "m.gguf", "mine");
}

static void test_output_folder(void **state)
{
    (void)state;
    char dir[256], path[256], with_slash[256];
    new_folder(dir, "out");
    make_path(path, dir, "model");
    make_path(with_slash, dir, "model/");
    clq_output_file files[] = {{.name = "config.json", .n_bytes = 2},
                               {.name = "1_Pooling/config.json", .n_bytes = 2},
                               {.name = "model.safetensors", .n_bytes = 3}};
    clq_output *o = must_create(with_slash, true, files, 3, 1, false);
    put(o, 0, 0, "{}");
    put(o, 1, 0, "[]");
    put(o, 2, 0, "abc");
    assert_int_equal(access(path, F_OK), -1);
    finish(o);
    file_holds(path, "config.json", "{}");
    file_holds(path, "1_Pooling/config.json", "[]");
    file_holds(path, "model.safetensors", "abc");
    assert_int_equal(n_entries(dir), 1);
    assert_int_equal(n_entries(path), 3);

    // An earlier output is replaced as a whole: what only it had is gone.
    o = must_create(path, true, files, 2, 1, false);
    put(o, 0, 0, "12");
    file_holds(path, "model.safetensors", "abc");
    clq_output_close(o, false);
    file_holds(path, "config.json", "{}"); // given up: untouched
    assert_int_equal(n_entries(dir), 1);
    // Anything else in it, and it is not.
    write_text(path, "thesis.tex", "years of work");
    cannot_create(path, true, files, 3, 1, false, CLQ_OUTPUT, "thesis.tex");
    file_holds(path, "thesis.tex", "years of work");
    make_path(with_slash, path, "thesis.tex");
    assert_int_equal(unlink(with_slash), 0);
    files[2] = (clq_output_file){.name = "model-00001-of-00001.safetensors", .n_bytes = 1};
    o = must_create(path, true, files, 3, 1, false);
    put(o, 2, 0, "z");
    finish(o);
    assert_int_equal(n_entries(path), 3);
    file_holds(path, "model-00001-of-00001.safetensors", "z");
    make_path(with_slash, path, "model.safetensors");
    assert_int_equal(access(with_slash, F_OK), -1);
    assert_int_equal(n_entries(dir), 1);
    // An empty folder may be taken.
    new_folder(path, "out/empty");
    o = must_create(path, true, files, 1, 1, false);
    put(o, 0, 0, "ok");
    finish(o);
    file_holds(path, "config.json", "ok");
}

static void record(clq_output *o, uint32_t tensor)
{
    clq_error err;
    clq_record r = {
        .tensor = tensor,
        .hash = 0x1111111111111111u * tensor,
        .stats = {
            .sum_x2 = tensor + 0.5, .sum_e2 = 0.25 * tensor, .max_error = 1.0 / (tensor + 1), .lost_groups = tensor}};
    assert_int_equal(clq_output_record(o, &r, &err), CLQ_OK);
}

static void has_records(const clq_output *o, uint32_t n)
{
    uint32_t got;
    const clq_record *r = clq_output_records(o, &got);
    assert_int_equal(got, n);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(r[i].tensor, i);
        assert_true(r[i].hash == 0x1111111111111111u * i && r[i].stats.sum_x2 == i + 0.5 &&
                    r[i].stats.sum_e2 == 0.25 * i && r[i].stats.max_error == 1.0 / (i + 1) &&
                    r[i].stats.lost_groups == i);
    }
}

static void test_resume(void **state)
{
    (void)state;
    char dir[256], path[256], journal[256];
    new_folder(dir, "out");
    make_path(path, dir, "m.gguf");
    make_path(journal, dir, ".m.gguf.clq-journal");
    clq_output_file file = {.name = "", .n_bytes = 8};
    // Nothing to resume: as a new run.
    clq_output *o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 0);
    put(o, 0, 0, "abcd");
    for (uint32_t i = 0; i < 3; i++) record(o, i);
    clq_output_close(o, true);
    assert_int_equal(n_entries(dir), 2);
    file_holds(dir, ".m.gguf.clq-partial", "abcd");

    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 3);
    record(o, 3);
    clq_output_close(o, true);
    // A torn last record: that one is lost, and what is appended then counts.
    struct stat sb;
    assert_int_equal(stat(journal, &sb), 0);
    off_t record_bytes = (sb.st_size - 24) / 4;
    assert_int_equal((sb.st_size - 24) % 4, 0);
    for (off_t cut = 1; cut < record_bytes; cut += 11) {
        assert_int_equal(truncate(journal, sb.st_size - cut), 0);
        o = must_create(path, false, &file, 1, 77, true);
        has_records(o, 3);
        record(o, 3);
        clq_output_close(o, true);
        o = must_create(path, false, &file, 1, 77, true);
        has_records(o, 4);
        clq_output_close(o, true);
    }
    // Garbage behind the records, as a crash of the machine leaves it.
    int fd = open(journal, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, (char[200]){0}, 200), 200);
    close(fd);
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 4);
    clq_output_close(o, true);
    // A damaged record: it and those behind it are not believed.
    fd = open(journal, O_WRONLY);
    assert_int_equal(pwrite(fd, "X", 1, 24 + record_bytes + 9), 1);
    close(fd);
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 1);
    put(o, 0, 4, "efgh");
    clq_output_close(o, true);

    // Other settings: refused, everything is kept.
    cannot_create(path, false, &file, 1, 78, true, CLQ_BAD_INPUT, "cannot resume");
    assert_int_equal(n_entries(dir), 2);
    file_holds(dir, ".m.gguf.clq-partial", "abcdefgh");
    o = must_create(path, false, &file, 1, 77, true);
    has_records(o, 1);
    finish(o);
    file_holds(dir, "m.gguf", "abcdefgh");
    assert_int_equal(n_entries(dir), 1);

    // Not a journal.
    write_text(dir, ".m.gguf.clq-journal", "something else that is long enough");
    cannot_create(path, false, &file, 1, 77, true, CLQ_BAD_INPUT, "not a journal");
    file_holds(dir, ".m.gguf.clq-journal", "something else that is long enough");
    // Without resume the earlier partial data does not count.
    write_text(dir, ".m.gguf.clq-partial", "old partial data");
    o = must_create(path, false, &file, 1, 77, false);
    has_records(o, 0);
    put(o, 0, 0, "new");
    finish(o);
    make_path(path, dir, "m.gguf");
    assert_int_equal(stat(path, &sb), 0);
    assert_int_equal(sb.st_size, 8);
    assert_int_equal(n_entries(dir), 1);
}

static void test_output_is_input(void **state)
{
    (void)state;
    char dir[256], path[256], other[256];
    new_folder(dir, "same");
    write_text(dir, "a", "x");
    write_text(dir, "b", "y");
    make_path(path, dir, "a");
    clq_file file;
    clq_error err;
    assert_int_equal(clq_file_open(path, &file, &err), CLQ_OK);
    assert_true(clq_output_is_input(path, &file, 1));
    assert_true(clq_output_is_input(dir, &file, 1));
    make_path(other, dir, "./../same/a");
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "hard");
    assert_int_equal(link(path, other), 0);
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "soft");
    assert_int_equal(symlink("a", other), 0);
    assert_true(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "b");
    assert_false(clq_output_is_input(other, &file, 1));
    make_path(other, dir, "none");
    assert_false(clq_output_is_input(other, &file, 1));
    assert_false(clq_output_is_input(path, &file, 0));
    assert_false(clq_output_is_input(root, &file, 1));
    clq_file_close(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_output_file),
        cmocka_unit_test(test_output_folder),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_output_is_input),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
