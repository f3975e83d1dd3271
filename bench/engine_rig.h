/* What the benches of the whole engine share: a real model and its tokens, timed prefill and decode
 * of ours, and of libllama in the same process. */
#ifndef BENCH_ENGINE_RIG_H
#define BENCH_ENGINE_RIG_H

#include "base/base.h"
#include "kern/kern.h"

#include <llama.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUNDS 21
#define MAX_STEPS  1024

static int missed; /* bars */

typedef struct setup {
    const char *path;
    int context, steps, threads, rounds, sweep_tokens;
    bool strict;
    kept_model *model;
    const kept_model_info *info;
    int32_t *tokens;
} setup;

typedef struct speed {
    double prefill, decode; /* tokens per second */
} speed;

static inline void die(const char *what, const kept_error *err)
{
    fprintf(stderr, "bench: %s%s%s\n", what, err ? ": " : "", err ? err->text : "");
    exit(1);
}

static inline int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

static inline void bar(const char *what, double value, const char *sign, double limit)
{
    const bool ok = *sign == '>' ? value >= limit : value <= limit;
    printf("  %-58s %6.2f  bar %s= %.2f  %s\n", what, value, sign, limit, ok ? "PASS" : "FAIL");
    missed += !ok;
}

static inline kept_engine *engine_new(const setup *s, size_t pool_bytes)
{
    kept_error err;
    kept_engine *e = NULL;
    kept_engine_options o = {.n_threads = s->threads,
                             .max_tokens = s->context + s->steps + 64,
                             .pool_bytes = pool_bytes};
    if (kept_engine_new(s->model, &o, &e, &err))
        die("engine", &err);
    return e;
}

static inline void forward(kept_engine *e, const kept_item *items, int n)
{
    kept_error err;
    if (kept_engine_forward(e, items, n, &err))
        die("forward", &err);
}

static inline void prefill(kept_engine *e, kept_seq *seq, const int32_t *tokens, int n)
{
    for (int p = 0; p < n; p += 512) {
        const int k = n - p < 512 ? n - p : 512;
        kept_item it = {.seq = seq,
                        .tokens = tokens + p,
                        .n_tokens = k,
                        .n_logits = p + k == n,
                        .n_after = n - p - k,
                        .prefill = true};
        forward(e, &it, 1);
    }
}

/* Feeds `steps` tokens of the setup from `from` on, one by one; median nanoseconds of a step. all
 * [steps][n_vocab]: what they said; NULL: not wanted. */
static inline double decode(const setup *s, kept_engine *e, kept_seq *seq, int from, float *all)
{
    const size_t v = (size_t)s->info->n_vocab;
    double step[MAX_STEPS];
    for (int i = 0; i < s->steps; i++) {
        const uint64_t q = kept_clock_ns();
        kept_item it = {.seq = seq, .tokens = s->tokens + from + i, .n_tokens = 1, .n_logits = 1};
        forward(e, &it, 1);
        step[i] = (double)(kept_clock_ns() - q);
        if (all)
            memcpy(all + (size_t)i * v, kept_engine_logits(e), v * sizeof *all);
    }
    return median(step, s->steps);
}

static inline struct llama_context *llama_new(const setup *s, struct llama_model *m, bool flash,
                                              enum ggml_type type)
{
    struct llama_context_params p = llama_context_default_params();
    p.n_ctx = (uint32_t)(s->context + s->steps + 64);
    p.n_batch = p.n_ubatch = 512;
    p.n_threads = p.n_threads_batch = s->threads;
    p.flash_attn_type = flash ? LLAMA_FLASH_ATTN_TYPE_ENABLED : LLAMA_FLASH_ATTN_TYPE_DISABLED;
    p.type_k = p.type_v = type;
    p.no_perf = true;
    struct llama_context *x = llama_init_from_model(m, p);
    if (!x)
        die("libllama makes no context", NULL);
    return x;
}

/* One round; logits of the last prompt token into out, of every step into all, where not NULL. */
static inline speed run_llama(const setup *s, struct llama_context *x, float *out, float *all)
{
    double step[MAX_STEPS];
    llama_memory_clear(llama_get_memory(x), false);
    const uint64_t t0 = kept_clock_ns();
    for (int p = 0; p < s->context; p += 512) {
        const int n = s->context - p < 512 ? s->context - p : 512;
        if (llama_decode(x, llama_batch_get_one(s->tokens + p, n)))
            die("llama_decode", NULL);
    }
    llama_synchronize(x);
    const uint64_t t1 = kept_clock_ns();
    if (out)
        memcpy(out, llama_get_logits_ith(x, -1), (size_t)s->info->n_vocab * sizeof *out);
    for (int i = 0; i < s->steps; i++) {
        const uint64_t q = kept_clock_ns();
        if (llama_decode(x, llama_batch_get_one(s->tokens + s->context + i, 1)))
            die("llama_decode", NULL);
        llama_synchronize(x);
        step[i] = (double)(kept_clock_ns() - q);
        if (all)
            memcpy(all + (size_t)i * (size_t)s->info->n_vocab, llama_get_logits_ith(x, -1),
                   (size_t)s->info->n_vocab * sizeof *all);
    }
    return (speed){s->context / ((double)(t1 - t0) * 1e-9), 1e9 / median(step, s->steps)};
}

static inline int count(const char *text)
{
    char *end;
    const long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > 1 << 20) {
        fprintf(stderr, "bench: not a count: %s\n", text);
        exit(2);
    }
    return (int)n;
}

#endif
