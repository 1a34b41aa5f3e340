// SPDX-License-Identifier: MIT
#include "model/view.h"

#include <stdlib.h>
#include <string.h>

static int by_name(const void *a, const void *b)
{
    return strcmp(((const clq_view_tensor *)a)->name, ((const clq_view_tensor *)b)->name);
}

static clq_status allocate(clq_view *v, uint32_t n, clq_error *err)
{
    v->tensors = calloc((uint64_t)n + 1, sizeof *v->tensors);
    return v->tensors ? CLQ_OK : clq_fail_memory(err, n * sizeof *v->tensors);
}

static clq_status view_gguf(clq_view *v, clq_error *err)
{
    const clq_source *s = v->source;
    CLQ_TRY(allocate(v, s->n_tensors, err));
    v->kvs = &s->kvs;
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        clq_view_tensor *t = &v->tensors[v->n_tensors++];
        *t = (clq_view_tensor){
            .name = s->tensors[i].name, .n_dims = s->tensors[i].n_dims, .from = clq_origin_of(s, i)};
        memcpy(t->dims, s->tensors[i].dims, sizeof t->dims);
    }
    return CLQ_OK;
}

static clq_status view_folder(clq_view *v, clq_error *err)
{
    clq_translation *x = &v->translation;
    CLQ_TRY(clq_translate_to_gguf(v->source, NULL, x, err)); // without its warnings about a file
    CLQ_TRY(allocate(v, x->n_tensors + x->n_computed, err));
    v->kvs = &x->kvs;
    for (uint32_t i = 0; i < x->n_tensors; i++) {
        clq_view_tensor *t = &v->tensors[v->n_tensors++];
        *t = (clq_view_tensor){
            .name = x->tensors[i].name, .n_dims = x->tensors[i].n_dims, .from = x->tensors[i].from};
        memcpy(t->dims, x->tensors[i].dims, sizeof t->dims);
    }
    for (uint32_t i = 0; i < x->n_computed; i++) {
        clq_view_tensor *t = &v->tensors[v->n_tensors++];
        *t = (clq_view_tensor){
            .name = x->computed[i].name, .n_dims = x->computed[i].n_dims, .computed = x->computed[i].data};
        memcpy(t->dims, x->computed[i].dims, sizeof t->dims);
    }
    return CLQ_OK;
}

clq_status clq_view_create(const clq_source *source, clq_view *view, clq_error *err)
{
    *view = (clq_view){.source = source};
    clq_status st;
    if (source->container == CLQ_GGUF)
        st = view_gguf(view, err);
    else
        st = view_folder(view, err);
    if (st == CLQ_OK)
        qsort(view->tensors, view->n_tensors, sizeof *view->tensors, by_name);
    else
        clq_view_free(view);
    return st;
}

void clq_view_free(clq_view *view)
{
    clq_translation_free(&view->translation);
    free(view->tensors);
    *view = (clq_view){0};
}

const clq_view_tensor *clq_view_find(const clq_view *view, const char *name)
{
    clq_view_tensor key = {.name = name};
    return bsearch(&key, view->tensors, view->n_tensors, sizeof key, by_name);
}
