#include "engine_util.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int32_t *util_tokens(int n, int n_vocab, uint64_t seed)
{
    int32_t *t = malloc((size_t)n * sizeof *t);
    kept_rng r;
    kept_rng_init(&r, seed);
    for (int i = 0; i < n; i++)
        t[i] = (int32_t)kept_rng_below(&r, (uint32_t)n_vocab);
    return t;
}

kept_status util_prefill(util_run *r, kept_seq *s, const int32_t *tokens, int n, int chunk,
                         float *out)
{
    for (int p = 0; p < n; p += chunk) {
        const int k = n - p < chunk ? n - p : chunk;
        kept_item it = {.seq = s,
                        .tokens = tokens + p,
                        .n_tokens = k,
                        .n_logits = out ? k : 0,
                        .n_after = n - p - k,
                        .prefill = true};
        kept_status st = kept_engine_forward(r->engine, &it, 1, &r->err);
        if (st)
            return st;
        if (out)
            memcpy(out + (size_t)p * (size_t)r->n_vocab, kept_engine_logits(r->engine),
                   (size_t)k * (size_t)r->n_vocab * sizeof *out);
    }
    return KEPT_OK;
}

kept_status util_decode(util_run *r, kept_seq *s, const int32_t *tokens, int n, float *out)
{
    for (int t = 0; t < n; t++) {
        kept_item it = {.seq = s, .tokens = tokens + t, .n_tokens = 1, .n_logits = 1};
        kept_status st = kept_engine_forward(r->engine, &it, 1, &r->err);
        if (st)
            return st;
        memcpy(out + (size_t)t * (size_t)r->n_vocab, kept_engine_logits(r->engine),
               (size_t)r->n_vocab * sizeof *out);
    }
    return KEPT_OK;
}

static bool llama_feed(struct llama_context *x, struct llama_batch *b, const int32_t *tokens,
                       int pos, int n)
{
    b->n_tokens = n;
    for (int i = 0; i < n; i++) {
        b->token[i] = tokens[i];
        b->pos[i] = pos + i;
        b->n_seq_id[i] = 1;
        b->seq_id[i][0] = 0;
        b->logits[i] = 1;
    }
    return llama_decode(x, *b) == 0;
}

bool util_llama(struct llama_model *m, const int32_t *tokens, int n_prefill, int n, bool flash,
                ggml_backend_sched_eval_callback cb, void *ctx, float *out)
{
    const size_t v = (size_t)llama_vocab_n_tokens(llama_model_get_vocab(m));
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)n + 64;
    p.n_batch = p.n_ubatch = (uint32_t)n_prefill;
    p.n_threads = p.n_threads_batch = 1;
    p.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.cb_eval = cb;
    p.cb_eval_user_data = ctx;
    struct llama_context *x = llama_init_from_model(m, p);
    struct llama_batch b = llama_batch_init(n_prefill, 0, 1);
    bool ok = x && llama_feed(x, &b, tokens, 0, n_prefill);
    for (int i = 0; i < n_prefill && ok; i++)
        memcpy(out + (size_t)i * v, llama_get_logits_ith(x, i), v * sizeof *out);
    for (int t = n_prefill; t < n && ok; t++) {
        ok = llama_feed(x, &b, tokens + t, t, 1);
        if (ok)
            memcpy(out + (size_t)t * v, llama_get_logits_ith(x, 0), v * sizeof *out);
    }
    llama_batch_free(b);
    llama_free(x);
    return ok;
}

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

util_diff util_compare(const float *a, const float *b, int n, int n_vocab)
{
    util_diff d = {.n = n};
    double se = 0, sa = 0;
    for (int r = 0; r < n; r++) {
        const float *x = a + (size_t)r * (size_t)n_vocab, *y = b + (size_t)r * (size_t)n_vocab;
        for (int i = 0; i < n_vocab; i++) {
            const double e = fabs((double)x[i] - (double)y[i]);
            d.max_abs = e > d.max_abs ? e : d.max_abs;
            se += e * e;
            sa += (double)x[i] * (double)x[i];
        }
        const int i = argmax(x, n_vocab), j = argmax(y, n_vocab);
        d.same_argmax += i == j;
        if (i != j && x[i] - x[j] > d.worst_gap)
            d.worst_gap = x[i] - x[j];
    }
    d.rel_rms = sa > 0 ? sqrt(se / sa) : 0;
    return d;
}
