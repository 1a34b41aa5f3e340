// SPDX-License-Identifier: MIT
// The plan: every output byte's place, decided before the first kernel runs.
#ifndef CLQ_RUN_PLAN_H
#define CLQ_RUN_PLAN_H

#include "base/buffer.h"
#include "calib/stats.h"
#include "io/imatrix.h"
#include "io/source.h"
#include "model/translate.h"

// A stretch of an output file that belongs to a tensor.
typedef struct clq_part {
    char *name;           // safetensors: its own entry
    const char *st_dtype;
    uint32_t n_dims;
    uint64_t dims[CLQ_MAX_DIMS];
    uint64_t offset, n_bytes; // in the file
} clq_part;

enum {
    CLQ_PART_CODES, CLQ_PART_SCALES, CLQ_PART_ZERO_POINTS, CLQ_PART_SHAPE, CLQ_PART_INPUT_SCALE,
    CLQ_PART_INPUT_ZERO_POINT, CLQ_PART_GROUP_INDEX, CLQ_ENTRY_PARTS
};

typedef struct clq_entry {
    clq_plan_tensor info;
    char note[96];
    clq_type type;
    clq_activation activation;
    clq_origin from;      // source UINT32_MAX: computed, not read
    bool uniform;         // all pieces of `from` are stored alike
    bool prepared;        // a method may have changed the values
    bool copy;            // the bytes stay as they are (rows may change places)
    bool repack;          // a copy of an integer weight's numbers, but not of its bytes
    bool ordered;         // a repacked weight whose columns belong to groups by an index
    uint64_t rows, cols;  // the matrix that the type sees
    const float *importance; // borrowed from the plan's imatrix: cols weights for each matrix; NULL: none
    uint64_t matrix_rows;    // with importance: rows of one matrix (expert)
    uint32_t file;
    clq_part parts[CLQ_ENTRY_PARTS]; // n_bytes 0: absent, or the codes of an empty tensor
    uint64_t hash;        // of the bytes written
    bool done;
} clq_entry;

// An output file: its head, and a whole content for files that hold no tensors.
typedef struct clq_plan_file {
    char *name;        // in the folder, "" for a single file
    clq_buf head;      // written at offset 0
    char *copy_of;     // or: a source folder's file, carried along
    uint64_t n_bytes;
} clq_plan_file;

struct clq_plan {
    clq_source *source;
    char *out;
    bool to_gguf;
    clq_packing packing; // of integer weights
    clq_quantize_options options;
    bool in_parts;   // several GGUF files beside each other
    char *first_part; // the path of their first
    clq_rule *rules; // own copy
    clq_method_options method; // own copy, where options.method leads
    clq_type search_type;
    char *method_text, *method_text_name;
    clq_site_report *sites; // names owned
    uint32_t n_sites;
    clq_gguf_kvs kvs; // GGUF output: its metadata, but what describes the file itself
    clq_imatrix *imatrix;
    clq_stats_file *stats;
    const clq_hooks *hooks;
    clq_translation translation;
    clq_entry *entries;
    uint32_t n_entries;
    clq_plan_file *files;
    uint32_t n_files;
    clq_plan_totals totals;
    uint64_t memory;        // of all buffers, at most
    uint64_t gather_bytes;  // of the largest weight that is gathered to be packed by columns; part of no tile
    uint64_t tile_elements; // of one tile, at most, unless one row is longer
    uint32_t n_lanes;
    uint64_t max_src_bytes, max_code_bytes, max_groups, max_elements; // of a tile
    uint64_t fingerprint;
};

// Sets the tiles for a device: of at most max_allocation bytes an array (0: no limit), larger where a
// launch and a transfer cost more (discrete memory). taken: bytes of the memory that a method uses.
void clq_plan_fit(clq_plan *plan, uint64_t max_allocation, bool discrete, uint64_t taken);
// Rows of a tile of the entry.
uint64_t clq_plan_tile_rows(const clq_plan *plan, const clq_entry *e);
// GGUF output: fills kvs from the source or the translation, and sets the overrides.
clq_status clq_plan_metadata(clq_plan *plan, clq_error *err);
// parts.c. The parts of an entry that has its name, shape, type and matrix.
clq_status clq_entry_set_parts(const clq_plan *plan, clq_entry *e, clq_error *err);
// Scale and zero-point of its activation, which are tensors of a folder.
clq_status clq_entry_add_activation(clq_entry *e, bool zero_point, clq_error *err);
uint64_t clq_entry_bytes(const clq_entry *e); // of all parts
size_t clq_entry_module_len(const clq_entry *e); // of "X" in the name "X.weight", else of the name
// layout_gguf.c, layout_hf.c: make files, offsets and heads of a plan whose entries have their types.
clq_status clq_layout_gguf(clq_plan *plan, clq_error *err);
clq_status clq_layout_hf(clq_plan *plan, clq_error *err);
clq_plan_file *clq_plan_add_file(clq_plan *plan, const char *name); // NULL: no memory

#endif
