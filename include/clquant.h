// SPDX-License-Identifier: MIT
// clquant: quantize model checkpoints on any OpenCL device. This is the whole public interface.
//
// Conventions. Functions that can fail return a clq_status and take a clq_error as their last
// parameter (NULL: no text wanted); the text says what failed, in which file and tensor, and what
// to do. `_open`/`_create` functions hand out objects that the caller ends with `_close`/`_free`,
// which accept NULL. Shapes are row-major: the last dimension is the contiguous one, and a weight
// matrix is [out_features, in_features]. Paths are byte strings handed to the system unchanged.
#ifndef CLQUANT_H
#define CLQUANT_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLQ_VERSION "0.1.0"
#ifndef CLQ_API
#define CLQ_API __attribute__((visibility("default")))
#endif

// ---- status ------------------------------------------------------------------------------------

// The values are the exit codes of the clquant program.
typedef enum clq_status {
    CLQ_OK = 0,
    CLQ_QUALITY = 1,       // ran to its end, but a quality bound was missed
    CLQ_USAGE = 2,         // the request makes no sense
    CLQ_BAD_INPUT = 3,     // a file's content is malformed, unsupported or cannot be represented
    CLQ_DEVICE = 4,        // OpenCL device or memory
    CLQ_OUTPUT = 5,        // the output cannot be written (disk, permission)
    CLQ_INTERRUPTED = 130, // cancelled by the caller; resumable
} clq_status;

typedef struct clq_error {
    clq_status status;
    char text[1024];
} clq_error;

CLQ_API const char *clq_version(void);

// ---- messages, progress, cancellation ----------------------------------------------------------

typedef struct clq_progress {
    const char *tensor;               // the tensor whose bytes were written last
    uint32_t tensors_done, n_tensors; // output tensors
    uint64_t elements_done, n_elements;
    double seconds;                   // since the run began
} clq_progress;

// Callbacks come from the calling thread. Any member may be NULL.
typedef struct clq_hooks {
    void *user;
    void (*warn)(void *user, const char *text);
    void (*progress)(void *user, const clq_progress *p);
    volatile sig_atomic_t *cancel; // set to non-zero (a signal handler may) to stop at the next tile
} clq_hooks;

// ---- formats -----------------------------------------------------------------------------------

typedef enum clq_format_id {
#define CLQ_CODEC(ID, name, ggml, st, elements, bytes, scale, exactness, bound, weights) CLQ_##ID,
#define CLQ_STORAGE(ID, name, ggml, st, elements, bytes, kind) CLQ_##ID,
#include "clquant_formats.def"
#undef CLQ_CODEC
#undef CLQ_STORAGE
    CLQ_INT, // the integer family: bits, symmetry and granularity stand in clq_type
    CLQ_FORMAT_COUNT,
} clq_format_id;

typedef enum clq_granularity { CLQ_PER_CHANNEL, CLQ_PER_TENSOR, CLQ_PER_GROUP } clq_granularity;

// How a tensor's values are stored. For formats other than CLQ_INT only `format` counts.
// Integer codes are signed: symmetric -(2^(bits-1)-1) .. 2^(bits-1)-1, asymmetric
// -2^(bits-1) .. 2^(bits-1)-1; value = scale * (code - zero_point), zero_point 0 when symmetric.
typedef struct clq_type {
    clq_format_id format;
    uint8_t bits;                // 2..8
    bool symmetric;              // absmax, else zero-point
    clq_granularity granularity; // of scales and zero-points
    uint32_t group_size;         // in elements of a row, CLQ_PER_GROUP only: a multiple of 32
    clq_format_id scale_format;  // CLQ_F32, CLQ_F16 or CLQ_BF16: what a stored scale is rounded to
} clq_type;

typedef struct clq_format_info {
    const char *name;
    int32_t ggml_type;        // -1: not in GGUF
    uint32_t block_elements;  // per block
    uint32_t block_bytes;
    bool has_codec;           // can be encoded to and decoded from
    bool exact;               // byte-identical to the public reference encoder
    double error_bound;       // |x - decoded| <= error_bound * largest |x| of the block
} clq_format_info;

// Facts of a format; NULL past the end. `id` of CLQ_INT describes the family as a whole.
CLQ_API const clq_format_info *clq_format_at(clq_format_id id);

// Reads "q4_0", "F16", "i8", "i4_g128", "i4_asym_g64", "i8_tensor" ... in any case.
CLQ_API clq_status clq_type_parse(const char *text, clq_type *out, clq_error *err);
// Writes the canonical name (at most 31 characters).
CLQ_API void clq_type_name(const clq_type *type, char name[32]);

// ---- devices -----------------------------------------------------------------------------------

typedef struct clq_device clq_device;

typedef struct clq_device_info {
    uint32_t index;          // what --device takes
    char name[128], platform[128], version[128], driver[64];
    bool is_cpu, is_gpu, is_reference;
    bool unified_memory;     // host memory is used in place
    bool exact_divide;       // correctly rounded division: exact formats are byte-identical here
    bool denormals, fp16, fp64;
    uint32_t compute_units;
    uint64_t global_memory, max_allocation, local_memory; // bytes
} clq_device_info;

typedef struct clq_device_options {
    uint32_t threads;       // host threads (and PoCL's, if set before its first use); 0: as many as allowed
    uint64_t max_allocation; // bytes; a lower limit than the device's own; 0: the device's
    int lanes;              // vector width of CPU kernels: 1, 4, 8 or 16; 0: by device
    int work_group_form;    // 1: `wg` kernels, 0: `vec` kernels, -1: by device type
    const clq_hooks *hooks; // receives the warning when a self-test fails
} clq_device_options;

// Number of OpenCL devices of all platforms. No OpenCL at all is not an error: 0.
CLQ_API clq_status clq_device_count(uint32_t *count, clq_error *err);
CLQ_API clq_status clq_device_query(uint32_t index, clq_device_info *info, clq_error *err);
// selector: an index, a part of a name (any case), "cpu", "gpu", "ref", or NULL: the first GPU, else
// the first device, else the C references. "ref" makes no OpenCL call.
CLQ_API clq_status clq_device_open(const char *selector, const clq_device_options *options,
                                   clq_device **device, clq_error *err);
CLQ_API void clq_device_close(clq_device *device);
CLQ_API void clq_device_describe(const clq_device *device, clq_device_info *info);

// ---- one tensor in memory ----------------------------------------------------------------------

// Sizes in bytes of the parts of an encoded [rows, cols] tensor. Formats other than CLQ_INT have
// codes only. Fails (CLQ_USAGE) where cols does not suit the type.
//   codes        CLQ_INT, 8 bits: int8 [rows, cols]; fewer: uint32 [rows, ceil(cols * bits / 32)],
//                code + 2^(bits-1) as a dense bit stream, least significant bit first
//   scales       [rows, groups] of scale_format (one for CLQ_PER_TENSOR)
//   zero_points  int8 [rows, groups], asymmetric only
typedef struct clq_part_sizes {
    uint64_t codes, scales, zero_points;
    uint64_t groups; // scales per row
} clq_part_sizes;
CLQ_API clq_status clq_type_sizes(const clq_type *type, uint64_t rows, uint64_t cols,
                                  clq_part_sizes *sizes, clq_error *err);

// What encoding cost, measured by decoding the bytes that were produced.
typedef struct clq_stats {
    double sum_x2, sum_e2; // squares of the values and of the errors
    double max_error;
    uint64_t bad_inputs;   // NaN or infinite source values
    uint64_t bad_outputs;  // finite values that became NaN or infinite (a scale out of range)
    uint64_t lost_groups;  // not all zero, but every code is: the scale's dtype cannot hold it
} clq_stats;

// Encodes x (source: CLQ_F32, CLQ_F16 or CLQ_BF16, row-major [rows, cols]). scales and zero_points
// may be NULL where the type has none. CLQ_BAD_INPUT if x or the result is not finite.
CLQ_API clq_status clq_encode(clq_device *device, const clq_type *type, clq_format_id source,
                              const void *x, uint64_t rows, uint64_t cols, void *codes,
                              void *scales, void *zero_points, clq_stats *stats, clq_error *err);
// The same with a weight >= 0 for each of the cols columns (a row of an importance matrix; NULL: none) on the
// errors that a search makes small. Types without a search ignore it.
CLQ_API clq_status clq_encode_weighted(clq_device *device, const clq_type *type, clq_format_id source,
                                       const void *x, const float *importance, uint64_t rows, uint64_t cols,
                                       void *codes, void *scales, void *zero_points, clq_stats *stats, clq_error *err);
// Decodes to float [rows, cols].
CLQ_API clq_status clq_decode(clq_device *device, const clq_type *type, const void *codes,
                              const void *scales, const void *zero_points, uint64_t rows,
                              uint64_t cols, float *y, clq_error *err);

// Parallel reductions over x (CLQ_F32, CLQ_F16 or CLQ_BF16), row-major [rows, cols]. group_size
// divides cols; cols itself: per row; 0: one result for the tensor. Results are [rows, cols /
// group_size] (or 1). A NaN in x makes the result NaN.
CLQ_API clq_status clq_absmax(clq_device *device, clq_format_id source, const void *x, uint64_t rows,
                              uint64_t cols, uint64_t group_size, float *absmax, clq_error *err);
CLQ_API clq_status clq_minmax(clq_device *device, clq_format_id source, const void *x, uint64_t rows,
                              uint64_t cols, uint64_t group_size, float *min, float *max,
                              clq_error *err);

// ---- checkpoints -------------------------------------------------------------------------------

typedef struct clq_source clq_source;

typedef enum clq_container { CLQ_GGUF, CLQ_SAFETENSORS, CLQ_HF_FOLDER } clq_container;

// How the inputs of a weight's products are rounded to int8.
typedef enum clq_activations {
    CLQ_ACTIVATIONS_NONE,
    CLQ_ACTIVATIONS_TOKEN,  // a scale for each token, absmax / 127, when the model runs
    CLQ_ACTIVATIONS_TENSOR, // a scale and zero-point for all tokens of a pass, when the model runs
    CLQ_ACTIVATIONS_STATIC, // a scale and zero-point that were measured beforehand
    CLQ_ACTIVATIONS_AUTO,   // when quantizing: static, but token where some tokens are much larger than most
} clq_activations;

typedef struct clq_activation_info {
    clq_activations kind;
    float scale;           // CLQ_ACTIVATIONS_STATIC: value = scale * (code - zero_point)
    int32_t zero_point;
} clq_activation_info;

CLQ_API const char *clq_activations_name(clq_activations kind); // "none", "token", "tensor", "static", "auto"

typedef struct clq_tensor_info {
    const char *name;
    char type[32];         // format name
    uint32_t n_dims;
    uint64_t dims[8];      // row-major
    uint64_t n_elements, n_bytes; // bytes with scales and zero-points
    const char *file;      // where its bytes are
    uint64_t offset;       // in that file
    clq_activation_info activation;
} clq_tensor_info;

// Opens a GGUF file (any part of a split one), a safetensors file or a Hugging Face folder. Every
// number in it is checked against the files' sizes before this returns.
CLQ_API clq_status clq_source_open(const char *path, const clq_hooks *hooks, clq_source **source,
                                   clq_error *err);
CLQ_API void clq_source_close(clq_source *source);
CLQ_API clq_container clq_source_container(const clq_source *source);
CLQ_API const char *clq_source_architecture(const clq_source *source); // "llama", "" if unknown
CLQ_API uint32_t clq_source_count(const clq_source *source);
CLQ_API clq_status clq_source_tensor(const clq_source *source, uint32_t index,
                                     clq_tensor_info *info, clq_error *err);
// Decodes rows [first, first + n) to float, a row being everything behind the first dimension.
CLQ_API clq_status clq_source_rows(const clq_source *source, uint32_t index, uint64_t first,
                                   uint64_t n, float *y, clq_error *err);

// ---- quantize and convert ----------------------------------------------------------------------

typedef struct clq_rule {
    const char *pattern; // PCRE2, searched in the output's tensor name
    clq_type type;
} clq_rule;

// A mix: a name of llama.cpp's llama-quantize, which gives each tensor of a GGUF file a type.
typedef struct clq_mix {
    const char *name;    // "Q4_K_M"
    uint32_t file_type;  // general.file_type
    clq_format_id base;  // of the tensors that no rule of the mix is about
} clq_mix;

CLQ_API const clq_mix *clq_mix_at(uint32_t index);     // NULL past the end
CLQ_API const clq_mix *clq_mix_find(const char *name); // in any case; NULL: no such mix

// A metadata entry of a GGUF output that is set: u32, f32, bool or string.
typedef enum clq_override_kind {
    CLQ_OVERRIDE_INT, CLQ_OVERRIDE_FLOAT, CLQ_OVERRIDE_BOOL, CLQ_OVERRIDE_STRING
} clq_override_kind;

typedef struct clq_override {
    const char *key;
    clq_override_kind kind;
    uint32_t integer;
    float number;
    bool truth;
    const char *text;
} clq_override;

// How the output stores its weights. Those of folders are about integer types.
typedef enum clq_layout {
    CLQ_LAYOUT_DEFAULT,            // by the output's name: GGUF, or compressed-tensors
    CLQ_LAYOUT_GGUF,
    CLQ_LAYOUT_COMPRESSED_TENSORS,
    CLQ_LAYOUT_AWQ,                // AutoAWQ's "GEMM": i4_asym_gN or i4_gN, float16 scales
    CLQ_LAYOUT_GPTQ,               // version 1: i2, i3, i4 or i8, with _gN or without, float16 scales
    CLQ_LAYOUT_GPTQ_V2,            // the same, with _asym too
} clq_layout;

// "gguf", "compressed-tensors", "awq", "gptq", "gptq-v2"; "": CLQ_LAYOUT_DEFAULT.
CLQ_API const char *clq_layout_name(clq_layout layout);

// What is done to weights before they are encoded.
typedef enum clq_method_id {
    CLQ_METHOD_RTN,         // nothing: values are rounded to nearest
    CLQ_METHOD_AWQ,         // channels are scaled so that those with large activations are rounded better
    CLQ_METHOD_SMOOTHQUANT, // channels are scaled so that activations have a smaller range
    CLQ_METHOD_GPTQ,        // later columns make up for the rounding errors of earlier ones
    CLQ_METHOD_HQQ,         // scales and zero-points by half-quadratic optimization; needs no text
} clq_method_id;

typedef struct clq_method_info {
    const char *name, *summary;
    bool calibrated; // needs a text, to run the model on
} clq_method_info;

CLQ_API const clq_method_info *clq_method_at(uint32_t id);               // NULL past the end
CLQ_API bool clq_method_find(const char *name, clq_method_id *method);   // in any case

// How scales and zero-points of integer types are chosen.
typedef enum clq_scale_rule {
    CLQ_SCALES_OF_METHOD, // rtn, smoothquant: absmax; awq, gptq: search; hqq: its own
    CLQ_SCALES_BY_RANGE,  // from the smallest and largest value of a group ("absmax")
    CLQ_SCALES_BY_SEARCH, // whose rounding errors cost least in products with the calibration text ("search")
    CLQ_SCALES_BY_CLIP,   // AWQ's clipping ("clip")
} clq_scale_rule;

typedef enum clq_text_kind {
    CLQ_TEXT_PLAIN,
    CLQ_TEXT_JSONL,  // lines, each a JSON object with a text in "text"
    CLQ_TEXT_TOKENS, // token ids, parted by white space
} clq_text_kind;

typedef struct clq_method_options {
    clq_method_id method;
    clq_scale_rule scales;
    const char *text;       // calibration: text_len bytes; NULL: none. Methods that need none tell the errors on it,
                            // and CLQ_SCALES_BY_SEARCH weighs with it
    size_t text_len;
    const char *text_name;  // for messages
    clq_text_kind text_kind;
    uint32_t context;       // tokens of a window; 0: 512, or what the model takes
    uint32_t windows;       // 0: as many whole ones as the text has, at most 128
    uint32_t search_tokens; // of the text's tokens, on which awq and smoothquant compare candidates; 0: 2048
    float alpha;            // smoothquant: 0 to 1; negative: searched for each input
    float damp;             // gptq: part of the mean of the Hessian's diagonal that is added to it; 0: 0.01
    bool keep_order;        // gptq: columns in their order, not by descending diagonal of the Hessian
    const clq_type *search_type; // awq: the integer type that candidates are rounded to, where outputs are not of one;
                                 // NULL: one that is like the output's type
} clq_method_options;

// What a method did to the weights that share an input.
typedef struct clq_site_report {
    uint32_t layer;
    const char *name;       // "attn_q, attn_k, attn_v"
    const char *fold;       // what the factors went into: "attn_norm"; "": none
    float ratio;            // awq: of activations in the factors; smoothquant: alpha; < 0: none
    bool weighted;          // awq: with the term of weights
    double search_loss, search_plain; // awq, smoothquant: mean squared error of the module's output, with the factors and
                                      // without; < 0: not searched
    double error, energy;   // sums over the search's tokens of squares: of products' errors, of products
} clq_site_report;

// What pointers lead to is needed until clq_plan_create returns.
typedef struct clq_quantize_options {
    clq_type type;            // of all tensors that quantization applies to; with `mix`: its base
    const clq_mix *mix;       // GGUF output: the mix's types instead of one; NULL: none
    bool pure;                // with `mix`: its base everywhere
    const clq_rule *rules;    // win over `type` and `mix`; the first that matches counts
    uint32_t n_rules;
    const clq_type *token_embedding, *output_tensor; // GGUF output: win over rules; NULL: not given
    bool leave_output_tensor; // output.weight stays as it is
    const clq_override *overrides;
    uint32_t n_overrides;
    const char *imatrix;      // a file with an importance matrix, .dat or GGUF, or of statistics; NULL: none
    const clq_activations *activations; // of integer weights; NULL: as the source says of those that are copied
    bool activations_asymmetric; // static ones have zero-points
    const char *statistics;   // a file of `clquant calibrate`, for _STATIC and _AUTO; `imatrix` if that is NULL
    const char *observer;     // whose ranges static ones take; NULL: the default
    // Parts of names: of the tensors to use it for, or not to; at most one of the two lists.
    const char *const *include_weights, *const *exclude_weights;
    uint32_t n_include_weights, n_exclude_weights;
    bool keep_split;          // GGUF to GGUF: parts as the source's
    uint64_t split_max_bytes; // of the tensors of a part; 0: no limit
    uint32_t split_max_tensors;
    const clq_method_options *method; // NULL: rounding to nearest
    bool convert;             // `type` is F32, F16 or BF16 and applies to every weight
    bool keep_types;          // with `convert`: tensors keep their types and numbers instead, in another layout
    clq_layout layout;
    bool no_fallback;         // refuse where a tensor's shape does not suit its type
    bool resume;
    uint64_t max_memory;      // bytes of buffers; 0: 1 GiB or a quarter of RAM, the smaller
    uint32_t threads;         // 0: as many as the process may use
} clq_quantize_options;

typedef struct clq_plan clq_plan;

typedef struct clq_plan_tensor {
    const char *name;         // in the output
    const char *source_name;
    char source_type[32], type[32];
    const char *note;         // why the type is not the one asked for; "" if it is
    uint32_t n_dims;
    uint64_t dims[8];
    uint64_t n_elements, n_bytes;
    clq_stats stats;          // after the run
    bool quantized, lossy;    // lossy: stats were measured
    clq_activation_info activation;
} clq_plan_tensor;

typedef struct clq_plan_totals {
    uint64_t n_bytes;         // of all output files together: exact
    uint64_t source_bytes, n_elements, quantized_elements;
    uint64_t memory;          // buffers that the run will allocate, at most
    int64_t fallback_bytes;   // what tensors without the type asked for take more than with it
    uint32_t n_tensors, n_fallbacks, n_notes, n_files;
    double seconds;           // of the run, after it
    uint64_t calibration_tokens, search_tokens; // after it: that a method ran, and compared candidates on
} clq_plan_totals;

// Decides everything before any work: types, names, offsets, sizes. `out` ending in ".gguf" makes a
// GGUF file (with a split: NAME-00001-of-0000N.gguf), anything else a folder. Nothing is written.
CLQ_API clq_status clq_plan_create(clq_source *source, const char *out,
                                   const clq_quantize_options *options, const clq_hooks *hooks,
                                   clq_plan **plan, clq_error *err);
CLQ_API void clq_plan_free(clq_plan *plan);
CLQ_API void clq_plan_summary(const clq_plan *plan, clq_plan_totals *totals);
// NULL past the end.
CLQ_API const clq_plan_tensor *clq_plan_at(const clq_plan *plan, uint32_t index);
// After the run, of methods that ran the model. NULL past the end.
CLQ_API const clq_site_report *clq_plan_site(const clq_plan *plan, uint32_t index);
// The path of the first part of a GGUF output in parts; NULL: not in parts.
CLQ_API const char *clq_plan_first_part(const clq_plan *plan);
// Writes the output: temporary file, fsync, check, rename. On failure nothing is left behind; after
// CLQ_INTERRUPTED (or a crash) the partial file and its journal are, for `resume`.
CLQ_API clq_status clq_plan_run(clq_plan *plan, clq_device *device, clq_error *err);

// ---- verify ------------------------------------------------------------------------------------

typedef struct clq_verify_tensor {
    const char *name;        // in the output
    char type[32];
    double sqnr_db;          // 10 log10(sum x^2 / sum (x - y)^2), INFINITY when equal
    double max_error;
    uint64_t bad_values;     // NaN or infinite decoded values or scales
    uint64_t n_elements;
    bool missed;             // its bound
} clq_verify_tensor;

typedef struct clq_verify_totals {
    uint32_t n_compared, n_missing; // missing: in the source, not in the output
    uint32_t n_missed, n_more;      // compared ones that miss their bound; tensors that only the output has
    double sqnr_db, worst_sqnr_db;
    uint64_t bad_values;
} clq_verify_totals;

// Decodes both checkpoints with the C references, tensor by tensor, and calls `each` (may be NULL).
// CLQ_QUALITY when a value or scale is not finite, a tensor is missing, an unquantized tensor differs
// beyond its rounding, or a tensor's SQNR is below min_sqnr_db (1 is what garbage does not reach).
CLQ_API clq_status clq_verify(clq_source *source, clq_source *output, uint32_t threads, double min_sqnr_db,
                              const clq_hooks *hooks,
                              void (*each)(void *user, const clq_verify_tensor *t), void *user,
                              clq_verify_totals *totals, clq_error *err);

// ---- running models ----------------------------------------------------------------------------

typedef struct clq_model clq_model;

// What products do to their inputs.
typedef enum clq_rounding {
    CLQ_ROUND_STORED,      // as the checkpoint says, nothing where it says nothing
    CLQ_ROUND_NOTHING,     // nothing, whatever it says
    CLQ_ROUND_INT8,        // as it says; else with quantized weights to int8: for ggml's types as llama.cpp does, for
                           // integers with one scale a token
    CLQ_ROUND_INT8_TENSOR, // as it says; else with integer weights to 8 bits with one scale and zero-point for all
                           // tokens of a pass
} clq_rounding;

typedef struct clq_model_options {
    uint32_t context;          // positions of the cache; 0: what the model was trained on, at most 4096
    uint32_t batch;            // tokens of one pass, at most; 0: 512
    clq_rounding activations;
    clq_format_id cache_type;  // CLQ_F32, CLQ_F16 or CLQ_Q8_0
    uint64_t max_memory;       // bytes on the device; layers that do not fit are streamed. 0: what the device has
    const clq_hooks *hooks;
} clq_model_options;

typedef enum clq_pooling { CLQ_POOL_NONE, CLQ_POOL_MEAN, CLQ_POOL_CLS, CLQ_POOL_LAST } clq_pooling;

typedef struct clq_model_facts {
    const char *architecture; // GGUF's name
    const char *name;         // general.name; "" if unknown
    uint32_t layers, embd, vocab, trained_context, context, batch;
    bool is_encoder;          // bidirectional: embeddings, no logits
    clq_pooling pooling;      // what the model says
    uint64_t n_weights, weight_bytes; // all parameters, as stored
    uint32_t streamed_layers; // layers that are loaded for each pass
    bool rounds_activations;  // some products round their inputs
} clq_model_facts;

// Takes any source: GGUF or a Hugging Face folder. The source must live as long as the model. CLQ_BAD_INPUT with a
// sentence where the architecture is unknown, a tensor is missing or has the wrong shape, or the metadata contradict.
CLQ_API clq_status clq_model_open(const clq_source *source, clq_device *device, const clq_model_options *options,
                                  clq_model **model, clq_error *err);
CLQ_API void clq_model_close(clq_model *model);
CLQ_API const clq_model_facts *clq_model_facts_of(const clq_model *model);
// Token ids of a text: as many as there is room for are stored, *n tells how many there are. special: with the
// tokens that the model wants around a text; parse: control tokens that stand in the text are tokens.
// CLQ_BAD_INPUT without a tokenizer.
CLQ_API clq_status clq_model_tokenize(const clq_model *model, const char *text, size_t len, bool special, bool parse,
                                      int32_t *ids, uint32_t room, uint32_t *n, clq_error *err);
// A token's bytes: as many as there is room for; *len tells how many there are.
CLQ_API clq_status clq_model_token_text(const clq_model *model, int32_t id, char *text, size_t room, size_t *len,
                                        clq_error *err);
CLQ_API bool clq_model_is_end(const clq_model *model, int32_t id); // whether the token ends a generated text

// Rows of logits, floats [n][vocab], of the tokens first ... first + n - 1 of the call. Valid during the call. Other
// than CLQ_OK ends the evaluation with that status (fill err).
typedef clq_status (*clq_logits_fn)(void *user, uint32_t first, uint32_t n, const float *logits, clq_error *err);
// The hidden states after layer `layer` (0: the embedding, layers: behind the final norm) for n tokens from the call's
// token `first` on: floats [n][embd].
typedef clq_status (*clq_hidden_fn)(void *user, uint32_t layer, uint32_t first, uint32_t n, const float *hidden,
                                    clq_error *err);

typedef struct clq_eval {
    const int32_t *tokens; // n of them: checked against the vocabulary; they follow those in the cache
    uint32_t n;
    uint32_t logits_from;  // logits are wanted from this token of the call on; n: none
    clq_logits_fn logits;  // called in order; NULL: none wanted
    clq_hidden_fn hidden;  // NULL: none wanted
    void *user;
} clq_eval;

// Runs the tokens behind those in the cache, in passes of `batch`. CLQ_BAD_INPUT when an id is out of range or the
// cache is too short.
CLQ_API clq_status clq_model_eval(clq_model *model, const clq_eval *eval, clq_error *err);
// Positions filled; and forgets those behind the first n.
CLQ_API uint32_t clq_model_position(const clq_model *model);
CLQ_API void clq_model_rewind(clq_model *model, uint32_t n);

// An encoder's (or, pooled, a decoder's) embedding of one text: floats [embd], pooled as asked, not normalised.
// CLQ_BAD_INPUT when the text is longer than the model takes. Empties the cache.
CLQ_API clq_status clq_model_embed(clq_model *model, const int32_t *tokens, uint32_t n, clq_pooling pooling,
                                   float *embedding, clq_error *err);

#ifdef __cplusplus
}
#endif
#endif
