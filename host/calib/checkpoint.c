// SPDX-License-Identifier: MIT
#include "calib/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buffer.h"
#include "calib/stats_file.h"
#include "model/json.h"

char *clq_checkpoint_path(const char *out)
{
    clq_buf b = {0};
    size_t len = strlen(out);
    while (len > 1 && out[len - 1] == '/') len--;
    clq_buf_append(&b, out, len);
    clq_buf_append(&b, ".clq-partial", sizeof ".clq-partial");
    if (!b.failed) return b.data;
    clq_buf_free(&b);
    return NULL;
}

clq_status clq_checkpoint_write(const clq_checkpoint *c, const char *path, clq_error *err)
{
    char run[17];
    snprintf(run, sizeof run, "%016" PRIx64, c->run);
    json_t *more = json_pack("{s:s, s:I}", "run", run, "next_layer", (json_int_t)c->next_layer);
    if (!more) return clq_fail_memory(err, 1);
    clq_st_array hidden = {
        .name = "hidden", .format = CLQ_F32, .n_dims = 2, .dims = {c->n_tokens, c->width}, .data = c->hidden};
    clq_stats_sort(c->stats);
    clq_status st = clq_stats_write_as(c->stats, path, CLQ_CHECKPOINT_FORMAT, more, &hidden, 1, err);
    json_decref(more);
    return st;
}

static clq_status take_state(clq_checkpoint *c, clq_stats_opened *o, clq_error *err)
{
    char run[17];
    bool bad = false;
    const char *path = o->source->path, *own = clq_json_text(o->description, "run");
    snprintf(run, sizeof run, "%016" PRIx64, c->run);
    if (!own || strcmp(own, run) != 0)
        return clq_fail(err, CLQ_BAD_INPUT,
                        "cannot resume '%s': model, text, options or device are not those of the interrupted run; run "
                        "without --resume to start anew",
                        path);
    const clq_tensor *t = clq_source_find(o->source, "hidden");
    if (!clq_json_u32(o->description, "next_layer", &c->next_layer, &bad) || o->n_more != 1 || !t ||
        t->type.format != CLQ_F32 || t->n_dims != 2 || t->dims[0] != c->n_tokens || t->dims[1] != c->width)
        return clq_fail(err, CLQ_BAD_INPUT, "cannot resume '%s': it is damaged; run without --resume to start anew",
                        path);
    CLQ_TRY(clq_file_read(&o->source->files[t->codes.file], t->codes.offset, c->hidden, t->codes.n_bytes, err));
    c->stats = o->stats;
    o->stats = NULL;
    return CLQ_OK;
}

clq_status clq_checkpoint_read(clq_checkpoint *c, const char *path, bool *found, clq_error *err)
{
    clq_stats_opened o;
    *found = access(path, F_OK) == 0;
    if (!*found) return CLQ_OK;
    CLQ_TRY(clq_stats_open_as(path, CLQ_CHECKPOINT_FORMAT, &o, err));
    clq_status st = take_state(c, &o, err);
    clq_stats_close(&o);
    return st;
}
