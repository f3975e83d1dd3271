/* mkgguf: random GGUF models for tests, small, valid for libllama too, the same for the same spec.
 *
 * Weights are normal with the width's usual scale, norms near 1. The tokenizer is SentencePiece
 * (all byte tokens, ASCII, a few words, ChatML control tokens and template) or, with bpe, the 256
 * byte letters of GPT-2 and a few merges.
 */
#ifndef TESTS_MKGGUF_H
#define TESTS_MKGGUF_H

#include "base/base.h"

#include <ggml.h>
#include <gguf.h>

typedef struct mkgguf_spec {
    const char *arch; /* "llama", "qwen2", "qwen3", "gemma3" */
    int n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_size;
    int n_vocab;         /* >= 400 */
    int n_ctx;           /* context length the file declares */
    enum ggml_type type; /* of matrices */
    bool tied;           /* no output.weight */
    uint64_t seed;
    float qk_gain;      /* factor on Q and K weights: larger is more peaked attention; 0: 1 */
    int sliding_window; /* gemma3: 0 leaves the key out */
    float rope_scaling; /* linear scaling factor; 0 leaves the key out */
    bool rope_factors;  /* llama: with rope_freqs.weight */
    bool bpe;           /* GPT-2 tokenizer instead of SentencePiece */
    bool sparse;        /* leave out keys that have defaults (needs head_size = n_embd / n_heads) */
    /* called with all keys set and no tensor added: may set and remove keys; or NULL */
    void (*tweak_keys)(struct gguf_context *g, void *user);
    /* called before a tensor is added: may change its name or, by returning false, leave it out */
    bool (*tweak_tensor)(struct ggml_tensor *t, void *user);
    void *user;
} mkgguf_spec;

/* 3 layers (gemma3: 7), 128 wide, 4 query and 2 KV heads of 64, 512 tokens, F32, tied for gemma3.
 */
mkgguf_spec mkgguf_default(const char *arch);
/* Writes the model to path. 0, or -1 if it cannot. */
int mkgguf_write(const char *path, const mkgguf_spec *s);
/* Makes an empty temporary file and returns its path, to be removed with unlink and freed. */
char *mkgguf_temp(void);

#endif
