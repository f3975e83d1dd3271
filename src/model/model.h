/* model: a GGUF file turned into ggml tensors, plus libllama's tokenizer for the same file.
 *
 *   gguf_check.c  reads the file with bounds checks of its own, before ggml or libllama see it
 *                 (gguf_index.c: look-ups in what it found, gguf_meta.c: checks of values)
 *   hparams.c     architecture and hyper-parameters from the checked metadata
 *   weights.c     tensors: zero-copy from the mapping, or repacked where the CPU backend wants it
 *   split.c       Q4_1 weights as Q4_0 and a constant a block
 *   vocab.c       tokenizer and chat templates (the only file that calls libllama)
 *   ahead.c       planes that look ahead: foresee, echo
 *   hidden.c      what is made of hidden states: predicted scores, lengths, what trainers tap
 *   graph.c       the forward pass as a ggml graph with our store/attend/merge nodes
 *   attend.c      what those nodes do (read.c: which pages they read)
 *   capture.c     what sequences record beside state planes
 *   seq.c         sequences, forks, pins, accounts
 *   park.c        sequences at rest (park_io.h lists its files)
 *   schedule.c    when sequences evict
 *   prompt.c      prompts read chunk by chunk or layer by layer
 *   engine.c      batches, pool, times
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/base.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <gguf.h>

/* A matrix that inputs are multiplied by. Of Q4_1 weights, w = d*q + m in blocks of 32, ggml's CPU
 * backend has no kernel that multiplies many inputs at once; of Q4_0, w = d*(q - 8), it has. The
 * one is the other and a constant for each block, d*q + m = d*(q - 8) + (8*d + m), so the product
 * is that with w as Q4_0 and that of the constants, rounded to F16, with the sums of 32 inputs
 * each. About as many bytes. split.c makes them. */
typedef struct kept_matrix {
    struct ggml_tensor *w;     /* [ne0][ne1], maybe repacked */
    struct ggml_tensor *shift; /* [ne0/32, up to a multiple of 32][ne1] F16; NULL: w is all */
} kept_matrix;

/* Tensors of one layer; NULL where the architecture has none. Shapes are ggml's (ne0 first). */
typedef struct kept_layer {
    struct ggml_tensor *attn_norm;                /* [n_embd] */
    kept_matrix q, k, v;                          /* [n_embd][n_heads*D], [n_embd][n_kv_heads*D] */
    struct ggml_tensor *q_bias, *k_bias, *v_bias; /* qwen2 */
    struct ggml_tensor *q_norm, *k_norm;          /* [D] qwen3, gemma3 */
    kept_matrix o;                                /* [n_heads*D][n_embd] */
    struct ggml_tensor *attn_post_norm;           /* [n_embd] gemma3 */
    struct ggml_tensor *ffn_norm;                 /* [n_embd] */
    kept_matrix gate, up, down;
    struct ggml_tensor *ffn_post_norm; /* [n_embd] gemma3 */
    float rope_base;                   /* rotary base of this layer */
    float rope_scale;                  /* rotary frequency scale of this layer, usually 1 */
} kept_layer;

struct kept_model {
    kept_model_info info;
    char *path;
    char sha256[65]; /* "" until asked for */
    /* hyper-parameters the graph needs beyond info */
    float norm_eps;
    float attn_scale; /* softmax scale, 1/sqrt(D) unless the file says otherwise */
    float embd_scale; /* gemma3: sqrt(n_embd); else 1 */
    int n_rope;       /* rotated channels per head, even, <= D */
    bool rope_neox;   /* pair layout: GGML_ROPE_TYPE_NEOX instead of NORMAL */
    bool gelu;        /* gemma3: GELU-gated; else SiLU-gated */
    int n_ff;
    /* weights */
    struct ggml_tensor *tok_embd;     /* [n_embd][n_vocab], plain layout: get_rows works on it */
    struct ggml_tensor *output_norm;  /* [n_embd] */
    kept_matrix output;               /* [n_embd][n_vocab]; w may be tok_embd itself */
    struct ggml_tensor *rope_factors; /* rope_freqs.weight [n_rope/2] (llama-3 scaling) or NULL */
    kept_layer *layers;               /* [n_layers] */
    ggml_backend_dev_t dev;           /* the CPU device */
    struct kept_weights *weights;     /* mapping, contexts, buffers: owned by weights.c */
    struct llama_model *vocab;        /* libllama model opened vocab_only: owned by vocab.c */
};

/* ---- gguf_check.c ---- */
/* Reads PATH's header, metadata and tensor table with every count, length, type, shape, offset and
 * alignment checked against the file size and against sane caps, never trusting a number before it
 * is checked. OK means: gguf_init_from_file, the tensor data mapping and libllama's vocab loader
 * may see the file. FORMAT / UNSUPPORTED / IO with one line that says what is wrong and where. */
kept_status kept_gguf_check(const char *path, kept_error *err);
/* The same on memory, for the fuzzer. file_size may exceed n only in tests. */
kept_status kept_gguf_check_mem(const uint8_t *data, size_t n, kept_error *err);

/* ---- hparams.c ---- */
/* Fills info and hyper-parameters of m from checked metadata. */
kept_status kept_hparams_read(struct kept_model *m, const struct gguf_context *g, kept_error *err);

/* ---- weights.c ---- */
/* Opens and maps m->path, fills all tensors. repack: use the CPU's extra buffer types. */
kept_status kept_weights_load(struct kept_model *m, bool repack, kept_error *err);
/* A matrix of the model as floats [ne1][ne0] in out, read from the file: its copy in memory may be
 * repacked. False: its type has no conversion. out NULL: only says which. */
bool kept_weights_read(const struct kept_model *m, const struct ggml_tensor *t, float *out);
void kept_weights_free(struct kept_model *m);

/* ---- split.c ---- */
enum { KEPT_SPLIT_BLOCK = 32, KEPT_SPLIT_PAD = 32 }; /* weights of a block; width of shift */
/* Rows of Q4_1 blocks as Q4_0 blocks of as many rows and columns. */
void kept_split_weights(const uint8_t *from, int64_t n_blocks, uint8_t *to);
/* Their constants, F16 [rows][width], zeros behind blocks_per_row. */
void kept_split_shift(const uint8_t *from, int64_t rows, int64_t blocks_per_row, int64_t width,
                      uint16_t *to);

/* ---- vocab.c ---- */
kept_status kept_vocab_open(struct kept_model *m, kept_error *err);
void kept_vocab_free(struct kept_model *m);

/* A model without its weights, for kept_tokenize, kept_detokenize and kept_model_sha256 alone;
 * errors as kept_model_open. Free with kept_model_free. model.c. */
kept_status kept_vocab_load(const char *path, kept_model **out, kept_error *err);

/* Loads ggml's backends once per process (thread-safe), silences ggml's and libllama's logging. */
void kept_ggml_start(void);

#endif
