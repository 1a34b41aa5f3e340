// SPDX-License-Identifier: MIT
// One layer's tensors as floats on the host, while a method changes them: in the source's tensors, rows and order, so that
// whoever writes them finds them as if they stood in the source.
#ifndef CLQ_METHOD_IMAGE_H
#define CLQ_METHOD_IMAGE_H

#include "model/weights.h"

// One tensor of the source. rows, cols: as a matrix (clq_tensor_matrix).
typedef struct clq_prepared {
    float *w; // [rows][cols]
    uint64_t rows, cols;
    uint64_t matrix_rows; // of one matrix (expert)
    float *columns;       // [rows / matrix_rows][cols]: what the columns were multiplied by; NULL: nothing
    // What the codes of an integer type are to be made with: [rows][groups], scales as stored; NULL: its own rule
    float *scales;
    int8_t *zero_points; // NULL: all 0
    uint64_t groups;
    clq_activation *activations; // [rows / matrix_rows]: the static ones to be stored with the weights; NULL: none
    // gptq, whose w is rounded already: of the values before and of what became of them
    bool measured;
    double sum_x2, sum_e2, max_error;
} clq_prepared;

// What the output does with a tensor of the source.
typedef struct clq_destiny {
    bool written;  // some tensor of the output is made of it
    clq_type type; // of that
    clq_activation activation;
} clq_destiny;

typedef struct clq_image {
    const clq_source *source;
    const clq_destiny *destinies; // by tensor of the source
    clq_prepared **tensors;       // by tensor of the source; NULL: not of the layer
} clq_image;

clq_status clq_image_create(const clq_source *source, const clq_destiny *destinies, clq_image *image, clq_error *err);
void clq_image_free(clq_image *image);
// Reads the tensors of a unit's weights and their biases.
clq_status clq_image_load(clq_image *image, const clq_unit *unit, clq_error *err);
void clq_image_drop(clq_image *image); // all tensors
void clq_image_drop_one(clq_image *image, uint32_t tensor);

// Rows of a weight are counted over all of its matrices, in the order that the model has them (GGUF's).
// The tensor that has a row, and the row there.
clq_prepared *clq_image_row(const clq_image *image, const clq_weight *w, uint64_t row, uint64_t *at);
// The same in the source's order: of the weight's element row * cols, and how many rows from there on, at most *n, lie
// behind each other.
clq_prepared *clq_image_stretch(const clq_image *image, const clq_weight *w, uint64_t row, uint64_t *at, uint64_t *n);
// The index of that tensor in the source.
uint32_t clq_image_tensor(const clq_image *image, const clq_weight *w, uint64_t row);
static inline const clq_destiny *clq_image_destiny(const clq_image *image, const clq_weight *w, uint32_t matrix)
{
    return &image->destinies[clq_image_tensor(image, w, (uint64_t)matrix * w->rows)];
}

// Columns of one matrix times s[cols].
void clq_image_scale_columns(clq_image *image, const clq_weight *w, uint32_t matrix, const float *s);
// Rows [first, first + n) of one matrix, and of the bias if there is one, divided by s[n].
void clq_image_divide_rows(clq_image *image, const clq_weight *w, uint32_t matrix, uint64_t first, uint64_t n,
                           const float *s);
// A norm's vector and its bias divided by s[n]. Where the output stores them in fewer bits, s becomes what the stored
// values stand for; where that is not a positive finite number, 1, and the value stays.
void clq_image_divide_norm(clq_image *image, const clq_weight *w, float *s);
// Puts the rows of a weight, all matrices, and its bias to where a device has them: base in its memory of weights.
clq_status clq_image_push(const clq_image *image, const clq_weight *w, clq_memory *memory, uint64_t base,
                          clq_error *err);

#endif
