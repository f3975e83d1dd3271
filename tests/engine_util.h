/* engine_util: what the engine tests share: run tokens through kept and through plain libllama. */
#ifndef TESTS_ENGINE_UTIL_H
#define TESTS_ENGINE_UTIL_H

#include "base/base.h"

#include <llama.h>

/* Seeded token ids in 0..n_vocab-1 ([n], malloc). */
int32_t *util_tokens(int n, int n_vocab, uint64_t seed);

/* Prefills tokens[0..n) into s in chunks of `chunk`; logits of every token into out [n][n_vocab]
 * (NULL: not wanted). */
typedef struct util_run {
    kept_engine *engine;
    int n_vocab;
    kept_error err;
} util_run;
kept_status util_prefill(util_run *r, kept_seq *s, const int32_t *tokens, int n, int chunk,
                         float *out);
/* Feeds tokens one at a time as decode steps; logits into out [n][n_vocab]. */
kept_status util_decode(util_run *r, kept_seq *s, const int32_t *tokens, int n, float *out);

/* The same with libllama: n_prefill tokens in one batch with all logits, then the rest one by one.
 * out [n][n_vocab]. flash: flash attention on. callback may be NULL. */
bool util_llama(struct llama_model *m, const int32_t *tokens, int n_prefill, int n, bool flash,
                ggml_backend_sched_eval_callback cb, void *ctx, float *out);

typedef struct util_diff {
    double max_abs, rel_rms;
    int same_argmax, n;
    double worst_gap; /* largest top-2 gap of `a` where the argmax differs */
} util_diff;
util_diff util_compare(const float *a, const float *b, int n, int n_vocab);

#endif
