// SPDX-License-Identifier: MIT
// A device encodes tiles. Two implementations: OpenCL (opencl.c and its neighbours) and the C
// references (ref.c). Nothing here shows an OpenCL type.
#ifndef CLQ_DEVICE_DEVICE_H
#define CLQ_DEVICE_DEVICE_H

#include "clquant_steps.h"
#include "format/format.h"

// Work on a tile of whole rows of [rows, cols].
typedef struct clq_tile {
    clq_type type;           // to encode to
    clq_format_id source;    // any codec format; decoded on the device where it is not F32, F16, BF16
    const void *src;         // the tile in `source`: rows * cols elements in whole blocks
    uint64_t src_bytes;
    bool in_place;           // src stays valid until the tile was waited for, so it need not be copied
    uint64_t rows, cols;
    bool decode_only;        // codes is the input (src), floats are the result
    bool range_only;         // only min and max of the tile: the first pass of CLQ_PER_TENSOR
    uint64_t range_len;      // range_only: a pair for each stretch of so many elements; 0: one for all
    const float *importance; // a weight >= 0 for each column, NULL: none. Formats may ignore it
    float scale;             // CLQ_PER_TENSOR: known from the first pass
    int8_t zero_point;
    // Encoding CLQ_INT, not CLQ_PER_TENSOR: scales [rows, groups] that a method chose, values of type.scale_format;
    // NULL: those of clq_int_params(). They may be negative where the type is symmetric; 0 makes zeros. The codes are
    // those of clq_int_code() with an asymmetric type: they reach -2^(bits-1). Read by lane_submit.
    const float *given_scales;
    const int8_t *given_zero_points; // [rows, groups], with given_scales of asymmetric types; NULL: all 0
    const float *scales;     // decode_only of CLQ_INT: as floats, [rows, groups] (or one)
    const int8_t *zero_points; // decode_only of CLQ_INT, NULL: none
} clq_tile;

// Borrowed until the lane's next submit.
typedef struct clq_tile_result {
    const void *codes, *scales; // scales in type.scale_format; NULL for CLQ_PER_TENSOR
    const int8_t *zero_points;
    clq_part_sizes sizes;       // of these
    float min, max;             // range_only
    const float *ranges;        // range_only with range_len: (min, max) pairs
    uint64_t n_ranges;
    const float *floats;        // decode_only
    clq_stats stats;            // bad_inputs and bad_outputs: 0, or not 0
} clq_tile_result;

// Upper bounds of the tiles that a lane will see.
typedef struct clq_lane_limits {
    uint64_t src_bytes;   // of the source as stored
    uint64_t n_elements;
    uint64_t code_bytes;
    uint64_t n_groups;    // scales
    bool floats;          // some source needs decoding, or decode_only is used
} clq_lane_limits;

// A lane holds the buffers of one tile in flight; several make a ring.
typedef struct clq_lane clq_lane;

// Memory of a device, for forward passes. On devices that share memory with the host it is host memory.
typedef struct clq_memory clq_memory;

typedef struct clq_device_ops {
    clq_status (*lane_create)(clq_device *d, const clq_lane_limits *limits, clq_lane **lane, clq_error *err);
    void (*lane_free)(clq_lane *lane);
    // Host memory of limits.src_bytes to put a tile's source into; valid until submit.
    void *(*lane_staging)(clq_lane *lane);
    // Starts the tile and returns. tile->src may be the staging memory.
    clq_status (*lane_submit)(clq_lane *lane, const clq_tile *tile, clq_error *err);
    clq_status (*lane_wait)(clq_lane *lane, clq_tile_result *result, clq_error *err);
    // ---- forward passes ----
    // Before any memory is created: the types of the weights that steps will have. Builds and tests the kernels; where
    // they fail, the device uses the C references, with a warning.
    clq_status (*steps_prepare)(clq_device *d, const clq_type *types, uint32_t n, clq_error *err);
    // Memory of n_bytes (> 0, at most info.max_allocation where that is not 0), zeroed.
    clq_status (*memory_create)(clq_device *d, uint64_t n_bytes, clq_memory **memory, clq_error *err);
    void (*memory_free)(clq_memory *memory); // waits for work that uses it
    // Copy between host and device, in order with the steps; when they return, src may be changed and dst holds the
    // result.
    clq_status (*memory_write)(clq_memory *memory, uint64_t offset, const void *src, uint64_t n_bytes, clq_error *err);
    clq_status (*memory_read)(clq_memory *memory, uint64_t offset, void *dst, uint64_t n_bytes, clq_error *err);
    // Starts steps, one after the other, behind all that was started before; copies them. cache may be NULL when no
    // step uses it. What goes wrong while they run is told by this or a later call.
    clq_status (*steps_run)(clq_device *d, const clq_step *steps, uint32_t n_steps, clq_memory *weights,
                            clq_memory *state, clq_memory *cache, clq_error *err);
    clq_status (*wait)(clq_device *d, clq_error *err); // until all that was started is done
    // Bytes a second that the device copies (read + written); 0: unknown.
    double (*copy_rate)(clq_device *d);
    // Seconds that kernels ran since the last call; < 0: not known. The first call starts the count, which
    // costs time of its own: for benches, between submits.
    double (*kernel_seconds)(clq_device *d);
    void (*close)(clq_device *d);
} clq_device_ops;

struct clq_device {
    const clq_device_ops *ops;
    clq_device_info info;
    clq_device_options options;
    uint32_t threads;
};

struct clq_memory {
    clq_device *device;
    uint64_t n_bytes;
};

struct clq_lane {
    clq_device *device;
    clq_lane_limits limits;
};

clq_status clq_ref_open(const clq_device_options *options, clq_device **device, clq_error *err);
// tuning (device/tune.h): NULL: what is stored for the device.
struct clq_tuning;
clq_status clq_opencl_open(const char *selector, const clq_device_options *options, const struct clq_tuning *tuning,
                           clq_device **device, clq_error *err);
// The reference's work on one tile, into the arrays of `r` (not const here). Used by ref.c and where
// a kernel failed its self-test.
typedef struct clq_ref_arrays {
    void *codes, *scales;
    int8_t *zero_points;
    float *floats;       // n_elements; scratch when the source is not F32
    float *scale_floats; // n_groups
    float *ranges;       // 2 * n_groups
} clq_ref_arrays;
clq_status clq_ref_tile(uint32_t threads, const clq_tile *tile, const clq_ref_arrays *arrays,
                        clq_tile_result *result, clq_error *err);
clq_status clq_ref_arrays_create(const clq_lane_limits *limits, clq_ref_arrays *arrays, clq_error *err);
void clq_ref_arrays_free(clq_ref_arrays *arrays);

// Tests a device's steps with weights of these types, on small sizes, against the references (steps_test.c).
clq_status clq_steps_test(clq_device *d, const clq_type *types, uint32_t n, bool *good, clq_error *err);

static inline bool clq_tile_given(const clq_tile *tile)
{
    return tile->given_scales && tile->type.granularity != CLQ_PER_TENSOR;
}

// The sizes of what a tile makes: those of clq_type_sizes, without scales for CLQ_PER_TENSOR.
clq_status clq_tile_sizes(const clq_tile *tile, clq_part_sizes *sizes, clq_error *err);

#endif
