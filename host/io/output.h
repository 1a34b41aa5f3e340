// SPDX-License-Identifier: MIT
// Writing a file or a folder so that it is either complete or not there: everything goes to a
// partial file (or folder) beside the target, and one rename at the end makes it the target.
//
//   dir/model.gguf  ->  dir/.model.gguf.clq-partial, dir/.model.gguf.clq-journal
//   dir/model/      ->  dir/.model.clq-partial/,     dir/.model.clq-journal
// The parts of a split file are collected in a partial folder too; at the end each is renamed, the first last, as
// readers begin with it.
//
// The journal has a record for each tensor that is complete, so that an interrupted run can resume.
#ifndef CLQ_IO_OUTPUT_H
#define CLQ_IO_OUTPUT_H

#include "base/error.h"
#include "io/file.h"

typedef struct clq_output clq_output;

typedef enum clq_output_kind { CLQ_OUTPUT_FILE, CLQ_OUTPUT_FOLDER, CLQ_OUTPUT_PARTS } clq_output_kind;

typedef struct clq_output_file {
    const char *name; // in the folder (may have one sub-folder) or beside `path` (parts); "" for one file
    uint64_t n_bytes;
} clq_output_file;

// What a finished tensor leaves in the journal.
typedef struct clq_record {
    uint32_t tensor;
    uint64_t hash; // of its bytes
    clq_stats stats;
} clq_record;

// Checks before any work: the target is not one of the inputs, can be replaced, its folder is
// writable, and there is space. fingerprint: of source, settings and layout; a journal with another
// one refuses `resume`.
clq_status clq_output_open(const char *path, clq_output_kind kind, const clq_output_file *files, uint32_t n_files,
                           uint64_t fingerprint, bool resume, clq_output **output, clq_error *err);
// Records of an earlier run, after `resume`.
const clq_record *clq_output_records(const clq_output *output, uint32_t *n);
clq_status clq_output_write(clq_output *output, uint32_t file, uint64_t offset, const void *bytes, uint64_t n,
                            clq_error *err);
clq_status clq_output_record(clq_output *output, const clq_record *record, clq_error *err);
// Opens what was written so far, to check it. clq_file_close() it.
clq_status clq_output_reopen(const clq_output *output, uint32_t file, clq_file *opened, clq_error *err);
// The path of the partial file or folder.
const char *clq_output_partial(const clq_output *output);
clq_status clq_output_sync(clq_output *output, clq_error *err);
// Renames. After it the output is the target.
clq_status clq_output_commit(clq_output *output, clq_error *err);
// Ends it; without a commit the partial data is removed, or kept for a later resume.
void clq_output_close(clq_output *output, bool keep_partial);

// Whether something can be written at the path: its name suits, and its folder is there. Writes nothing.
clq_status clq_output_check_place(const char *path, clq_error *err);
// Whether a file can be written there: what clq_output_open() checks, for work that comes before it.
clq_status clq_output_try_file(const char *path, clq_error *err);
// Whether path lies in the folder, at any depth.
bool clq_output_is_inside(const char *path, const char *folder);
// Whether path names the same file as one of the n files (or, for folders, holds it).
bool clq_output_is_input(const char *path, const clq_file *files, uint32_t n);

// A whole file of n bytes: as clq_output_open to clq_output_commit make it.
clq_status clq_output_whole(const char *path, const void *bytes, uint64_t n, clq_error *err);

#endif
