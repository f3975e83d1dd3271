/* Contracts that every schedule keeps with every class of score, inside the engine: budgets,
 * protection, neighbours and forks left alone, the account, the number of threads. Schedules and
 * scores come from the registry; a class is a family and a cost, and its first score stands for it.
 */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "policy/parts.h"
#include "test.h"

#include <unistd.h>

enum { N_PROMPT = 100, CHUNK = 32, N_DECODE = 9, PIN_BEGIN = 40, PIN_END = 43, MOST = 256 };

static kept_model *model;
static const kept_model_info *info;
static int32_t *tokens;

static util_run start(int threads)
{
    util_run r = {.n_vocab = info->n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = MOST,
                             .max_batch_tokens = CHUNK,
                             .pool_bytes = (size_t)16 << 20,
                             .max_seqs = 4};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static bool holds(const kept_seq *s, int layer, int head, int pos)
{
    int32_t at[MOST];
    const int n = kept_seq_positions(s, layer, head, at, MOST);
    for (int i = 0; i < n; i++)
        if (at[i] == pos)
            return true;
    return false;
}

/* Right after an eviction with a budget of full_tokens' 40 %. */
static void check_budget(const kept_seq *s, const kept_strategy *st, int full_tokens)
{
    const kept_held held = kept_seq_held(s);
    const int64_t total =
        kept_strategy_budget_slots(st, held.layers, info->n_kv_heads, info->head_size, full_tokens);
    CHECK(held.slots <= total);
    CHECK(held.slots >= total - (info->n_kv_heads - 1) ||
          kept_strategy_allocator(st)->data_dependent);
}

static void check_protected(const kept_seq *s)
{
    const int last = kept_seq_n_tokens(s) - 1;
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            CHECK(holds(s, l, h, 0) && holds(s, l, h, 3));
            CHECK(holds(s, l, h, PIN_BEGIN) && holds(s, l, h, PIN_END - 1));
            CHECK(holds(s, l, h, last) && holds(s, l, h, last - 4));
        }
}

static void check_account(const kept_seq *s)
{
    kept_account a;
    uint64_t kv, meta;
    kept_seq_account(s, &a);
    kept_cache_walk(s->cache, &kv, &meta);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
    CHECK(a.peak_bytes >= kv + meta);
}

/* A fork that goes on leaves s as it is. */
static void check_fork(util_run *r, kept_seq *s)
{
    kept_seq *fork = NULL;
    const int64_t before = kept_seq_held(s).slots;
    kept_item it = {.tokens = tokens, .n_tokens = 1};
    CHECK_INT(kept_seq_fork(s, NULL, NULL, 1, &fork, &r->err), KEPT_OK);
    it.seq = fork;
    CHECK_INT(kept_engine_forward(r->engine, &it, 1, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_held(s).slots, before);
    CHECK(kept_seq_held(fork).slots > before);
    kept_seq_free(fork);
    check_protected(s);
}

/* Runs st beside a full sequence; logits of the last decode step into out. The sequence, or NULL:
 * it cannot run here (a trained file is missing, or what will come is not known). */
static kept_seq *run(util_run *r, const kept_strategy *st, kept_seq *other, float *out)
{
    const kept_when when = kept_strategy_when(st);
    const size_t v = (size_t)r->n_vocab;
    kept_seq *s = NULL;
    if (kept_seq_new(r->engine, st, NULL, 3, &s, &r->err)) {
        CHECK(strstr(r->err.text, "trained"));
        return NULL;
    }
    CHECK_INT(kept_seq_pin(s, PIN_BEGIN, PIN_END), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, N_PROMPT, CHUNK, 0, &r->err), KEPT_OK);
    if (kept_seq_end_prefill(s, &r->err)) {
        CHECK(strstr(r->err.text, "trained") || strstr(r->err.text, "foresee"));
        kept_seq_free(s);
        return NULL;
    }
    check_protected(s);
    if (when.prompt)
        check_budget(s, st, N_PROMPT);
    else
        CHECK_INT(kept_seq_held(s).longest, N_PROMPT);
    for (int t = 0; t < N_DECODE; t++) {
        kept_item it[2] = {
            {.seq = s, .tokens = tokens + N_PROMPT + t, .n_tokens = 1, .n_logits = 1},
            {.seq = other, .tokens = tokens + t, .n_tokens = 1}};
        CHECK_INT(kept_engine_forward(r->engine, it, 2, &r->err), KEPT_OK);
        if (when.every && (t + 1) % when.every == 0)
            check_budget(s, st, N_PROMPT);
    }
    memcpy(out, kept_engine_logits(r->engine), v * sizeof *out);
    CHECK_INT(kept_seq_end_turn(s, &r->err), KEPT_OK);
    if (when.turns)
        check_budget(s, st, N_PROMPT + N_DECODE);
    check_protected(s);
    check_account(s);
    check_fork(r, s);
    return s;
}

static bool same_sets(const kept_seq *a, const kept_seq *b)
{
    int32_t x[MOST], y[MOST];
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int n = kept_seq_positions(a, l, h, x, MOST);
            if (kept_seq_positions(b, l, h, y, MOST) != n || memcmp(x, y, (size_t)n * sizeof *x))
                return false;
        }
    return true;
}

static int n_runs;

static void contract(const char *spec)
{
    kept_strategy *st = NULL;
    kept_error err;
    const size_t v = (size_t)info->n_vocab;
    float *out[2] = {calloc(v, sizeof(float)), calloc(v, sizeof(float))};
    util_run r[2] = {start(1), start(2)};
    kept_seq *s[2] = {NULL, NULL}, *other[2] = {NULL, NULL};
    if (kept_strategy_parse(spec, &st, &err)) {
        CHECK(strstr(err.text, "use the schedule")); /* refused before any work */
        goto out;
    }
    for (int i = 0; i < 2; i++) {
        CHECK_INT(kept_seq_new(r[i].engine, NULL, NULL, 1, &other[i], &err), KEPT_OK);
        s[i] = run(&r[i], st, other[i], out[i]);
        if (!s[i])
            goto out;
        CHECK_INT(kept_seq_held(other[i]).slots,
                  kept_seq_held(other[i]).layers * info->n_kv_heads * (int64_t)N_DECODE);
    }
    n_runs++;
    CHECK(same_sets(s[0], s[1]));
    CHECK(!memcmp(out[0], out[1], v * sizeof(float)));
out:
    for (int i = 0; i < 2; i++) {
        kept_pool_account pool;
        kept_seq_free(s[i]);
        kept_seq_free(other[i]);
        kept_engine_pool(r[i].engine, &pool);
        CHECK_INT(pool.n_free_pages, pool.n_pages);
        kept_engine_free(r[i].engine);
        free(out[i]);
    }
    kept_strategy_free(st);
    if (test_failed)
        fprintf(stderr, "  with %s\n", spec);
}

/* Whether no earlier score is of the same family and cost. */
static bool is_first_of_class(int i)
{
    kept_profile a, b;
    kept_part_profile(kept_part_at(i), NULL, &a);
    for (int k = 0; k < i; k++) {
        if (kept_part_at(k)->axis != KEPT_AXIS_SCORE || kept_part_at(k) == &kept_score_full.part)
            continue;
        kept_part_profile(kept_part_at(k), NULL, &b);
        if (!strcmp(a.family, b.family) && !strcmp(a.cost, b.cost))
            return false;
    }
    return true;
}

static void schedules_and_scores(void)
{
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *score = kept_part_at(i);
        if (score->axis != KEPT_AXIS_SCORE || score == &kept_score_full.part ||
            !is_first_of_class(i))
            continue;
        for (int k = 0; k < kept_part_count() && !test_failed; k++) {
            const kept_part *schedule = kept_part_at(k);
            char spec[200];
            if (schedule->axis != KEPT_AXIS_SCHEDULE)
                continue;
            snprintf(spec, sizeof spec, "%s+%s+protect(sinks=4,recent=5)@40%%", score->name,
                     schedule == &kept_part_decode   ? "decode(every=3)"
                     : schedule == &kept_part_chunks ? "chunks(decode=3)"
                                                     : schedule->name);
            contract(spec);
        }
    }
    printf("# %d pairs of a schedule and a class of scores\n", n_runs);
    CHECK(n_runs >= 20);
}

int main(void)
{
    llama_backend_init();
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    spec.n_layers = 2;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "model: %s\n", path ? err.text : "no temporary file");
        return 1;
    }
    unlink(path);
    free(path);
    info = kept_model_get_info(model);
    tokens = util_tokens(N_PROMPT + N_DECODE, info->n_vocab, 5);
    RUN(schedules_and_scores);
    free(tokens);
    kept_model_free(model);
    TEST_END();
}
