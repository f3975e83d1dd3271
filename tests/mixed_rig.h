/* mixed_rig: what the tests of mixed precision share: a small model, sequences, bytes. */
#ifndef TESTS_MIXED_RIG_H
#define TESTS_MIXED_RIG_H

#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "policy/parts.h"
#include "test.h"

#include <unistd.h>

enum { D = 64, P64 = 64, N_PROMPT = 522, CHUNK = 128, N_DECODE = 70, MOST = 640 };

static kept_model *model;
static char *model_path;
static const kept_model_info *info;
static int32_t *tokens;

static inline util_run start(void)
{
    util_run r = {.n_vocab = info->n_vocab};
    kept_engine_options o = {.n_threads = 1,
                             .max_tokens = MOST,
                             .max_batch_tokens = CHUNK,
                             .pool_bytes = (size_t)200 * kept_page_bytes(D),
                             .max_seqs = 4};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static inline kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err;
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

/* The prompt is in, and logits of n decode steps (out NULL: none) follow. */
static inline kept_seq *run(util_run *r, const kept_strategy *st, int n, float *out)
{
    kept_seq *s = NULL;
    CHECK_INT(kept_seq_new(r->engine, st, NULL, 3, &s, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, N_PROMPT, CHUNK, 0, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    if (n)
        CHECK_INT(util_decode(r, s, tokens + N_PROMPT, n, out), KEPT_OK);
    return s;
}

static inline kept_codecs form_of(const kept_seq *s, int l, int h, int page)
{
    return kept_pool_get_page(s->engine->pool, kept_cache_pages(s->cache, l, h)[page]).c;
}

static inline uint64_t kv_bytes(const kept_seq *s)
{
    kept_account a;
    uint64_t kv, meta;
    kept_seq_account(s, &a);
    kept_cache_walk(s->cache, &kv, &meta);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
    return kv;
}

/* K/V held right after the eviction is at most the budget and a page a head, and what is left over
 * is less than that. */
static inline void check_budget(util_run *r, const char *parts, double percent)
{
    char spec[160];
    const int heads = info->n_layers * info->n_kv_heads;
    snprintf(spec, sizeof spec, "%s@%g%%", parts, percent);
    kept_strategy *st = parse(spec);
    kept_seq *s = run(r, st, 0, NULL);
    const double page = (double)heads * (double)kept_page_bytes(D);
    const double full = (double)heads * N_PROMPT * 4 * D, budget = full * percent / 100;
    const double held = (double)kv_bytes(s), slots = (double)kept_seq_held(s).slots;
    CHECK(held <= budget + page);
    CHECK(slots == (double)heads * N_PROMPT || held + page > budget);
    if (test_failed)
        fprintf(stderr, "  with %s: %.0f of %.0f bytes, %.0f slots\n", spec, held, budget, slots);
    kept_seq_free(s);
    kept_strategy_free(st);
}

static inline void open_model(void)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    spec.n_layers = 2;
    spec.n_ctx = MOST;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "model: %s\n", path ? err.text : "no temporary file");
        exit(1);
    }
    model_path = path;
    info = kept_model_get_info(model);
    tokens = util_tokens(MOST, info->n_vocab, 5);
}

static inline void close_model(void)
{
    free(tokens);
    kept_model_free(model);
    unlink(model_path);
    free(model_path);
}

#endif
