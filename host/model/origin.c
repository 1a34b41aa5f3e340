// SPDX-License-Identifier: MIT
#include "model/origin.h"

clq_origin clq_origin_of(const clq_source *s, uint32_t source)
{
    return (clq_origin){.source = source, .n_pieces = 1, .n_elements = s->tensors[source].n_elements};
}

clq_status clq_origin_read(const clq_source *s, const clq_origin *o, uint64_t at, uint64_t n, float *y,
                           clq_error *err)
{
    for (uint64_t done = 0; done < n;) {
        clq_stretch x = clq_origin_at(s, o, at + done, n - done);
        uint64_t rows, cols;
        clq_tensor_matrix(x.t, &rows, &cols);
        CLQ_TRY(clq_tensor_read(s, x.t, x.first / cols, x.n / cols, y + done, err));
        done += x.n;
    }
    for (uint64_t i = 0; o->shift != 0 && i < n; i++) y[i] += o->shift;
    return CLQ_OK;
}

static const clq_tensor *piece_tensor(const clq_source *s, const clq_origin *o, uint32_t piece)
{
    return &s->tensors[o->sources ? o->sources[piece] : o->source];
}

bool clq_origin_uniform(const clq_source *s, const clq_origin *o)
{
    const clq_tensor *first = &s->tensors[o->source];
    for (uint32_t i = 0; i < (o->sources ? o->n_pieces : 1); i++) {
        const clq_tensor *t = piece_tensor(s, o, i);
        if (t->scales.n_bytes || !clq_type_equal(&t->type, &first->type)) return false;
    }
    return true;
}

uint64_t clq_origin_bytes(const clq_source *s, const clq_origin *o)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < o->n_pieces; i++) {
        const clq_tensor *t = piece_tensor(s, o, i);
        uint64_t all = t->codes.n_bytes + t->scales.n_bytes + t->zero_points.n_bytes;
        sum += t->n_elements == o->n_elements
                   ? all
                   : (uint64_t)((double)all / (double)t->n_elements * (double)o->n_elements);
    }
    return sum;
}
