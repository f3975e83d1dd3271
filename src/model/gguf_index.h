/* gguf_index: what gguf_check.c found in a file, for the checks of values in gguf_meta.c.
 *
 * Everything here points into the checked bytes and was bounds-checked when it was read: lengths
 * are inside the file, array data hold count elements, strings of a string array can be walked
 * with kept_gguf_next_str without further checks.
 */
#ifndef MODEL_GGUF_INDEX_H
#define MODEL_GGUF_INDEX_H

#include "base/base.h"

#include <gguf.h>

typedef struct kept_gguf_str {
    const char *s; /* not NUL-terminated */
    size_t n;
} kept_gguf_str;

typedef struct kept_gguf_kv {
    kept_gguf_str key;
    enum gguf_type type; /* GGUF_TYPE_ARRAY for arrays */
    enum gguf_type item; /* type of the elements; equals type for scalars */
    uint64_t count;      /* elements; 1 for scalars */
    const uint8_t *data; /* first element, as in the file: unaligned */
} kept_gguf_kv;

typedef struct kept_gguf_tensor {
    kept_gguf_str name;
    int64_t ne[4];
    int type;        /* a ggml_type, checked */
    uint64_t offset; /* from the start of the data section */
    uint64_t bytes;
} kept_gguf_tensor;

typedef struct kept_gguf_index {
    kept_gguf_kv *kv; /* [n_kv] */
    uint64_t n_kv;
    kept_gguf_tensor *tensors; /* [n_tensors] */
    uint64_t n_tensors;
} kept_gguf_index;

/* The entry with this key, or NULL. */
const kept_gguf_kv *kept_gguf_find(const kept_gguf_index *x, const char *key);
/* Reads the string at *at of a checked string or string array and moves *at behind it. */
kept_gguf_str kept_gguf_next_str(const uint8_t **at);

/* Index of the first of s[0..n) that equals an earlier one, -1 if all differ, -2 without memory. */
int64_t kept_gguf_duplicate(const kept_gguf_str *s, size_t n);

/* ---- gguf_meta.c ---- */
/* Types of the keys that we or libllama read, and everything libllama's tokenizer takes on trust.
 */
kept_status kept_gguf_check_meta(const kept_gguf_index *x, kept_error *err);

#endif
