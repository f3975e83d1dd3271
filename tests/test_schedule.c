/* test_schedule: when sequences evict, what they protect and where their keys stand, inside the
 * engine: slack, turns, pressure, parts of the prompt, classes of tokens, renumbered keys. */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "test.h"

#include <math.h>
#include <unistd.h>

enum { N_PROMPT = 200, N_DECODE = 60, N_ALL = N_PROMPT + N_DECODE };

static kept_model *model;
static const kept_model_info *info;
static int32_t *tokens;

static util_run start(size_t pages, int threads)
{
    util_run r = {.n_vocab = info->n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = 512,
                             .max_batch_tokens = 256,
                             .max_seqs = 16,
                             .pool_bytes = pages * 256 * (size_t)info->head_size};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static void stop(util_run *r)
{
    kept_pool_account pool;
    kept_engine_pool(r->engine, &pool);
    CHECK_INT(pool.n_free_pages, pool.n_pages);
    kept_engine_free(r->engine);
}

static kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err;
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

static kept_seq *new_seq(util_run *r, const kept_strategy *st)
{
    kept_seq *s = NULL;
    if (kept_seq_new(r->engine, st, NULL, 1, &s, &r->err)) {
        fprintf(stderr, "sequence: %s\n", r->err.text);
        exit(1);
    }
    return s;
}

static kept_seq *prefilled(util_run *r, const kept_strategy *st, int n)
{
    kept_seq *s = new_seq(r, st);
    CHECK_INT(util_prefill(r, s, tokens, n, 64, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    return s;
}

/* One decode step of token t. */
static kept_status step(util_run *r, kept_seq *s, int t)
{
    kept_item it = {.seq = s, .tokens = tokens + t, .n_tokens = 1, .n_logits = 1};
    return kept_engine_forward(r->engine, &it, 1, &r->err);
}

static int held(const kept_seq *s)
{
    return kept_seq_positions(s, 0, 0, NULL, 0);
}

/* Whether a head holds a position. */
static bool holds(const kept_seq *s, int layer, int head, int pos)
{
    int32_t at[512];
    const int n = kept_seq_positions(s, layer, head, at, 512);
    for (int i = 0; i < n; i++)
        if (at[i] == pos)
            return true;
    return false;
}

/* ---- schedules ------------------------------------------------------------------------------ */

/* Heads grow to budget + slack, and the step that passes it cuts to the budget. */
static void slack_lets_heads_grow(void)
{
    kept_strategy *st = parse("h2o+decode(every=1,slack=20)@64");
    util_run r = start(200, 1);
    kept_seq *s = prefilled(&r, st, N_PROMPT);
    CHECK_INT(held(s), 64);
    for (int t = 1; t <= 50; t++) {
        CHECK_INT(step(&r, s, N_PROMPT + t), KEPT_OK);
        CHECK_INT(held(s), 64 + t % 21);
    }
    kept_seq_free(s);
    s = prefilled(&r, st, 84); /* not above it: nothing happens */
    CHECK_INT(held(s), 84);
    CHECK_INT(step(&r, s, 84), KEPT_OK);
    CHECK_INT(held(s), 64);
    kept_seq_free(s);
    kept_strategy_free(st);
    stop(&r);
}

static void slack_holds_between_chunks(void)
{
    kept_strategy *st = parse("knorm+chunks(slack=40)@64");
    util_run r = start(200, 1);
    kept_seq *s = new_seq(&r, st);
    static const int want[] = {64, 96, 64, 96}; /* chunks of 32: 64, 96, 128 > 104, 96 */
    for (int c = 0; c < 5; c++) {
        kept_item it = {.seq = s, .tokens = tokens + 32 * c, .n_tokens = 32, .prefill = true};
        CHECK_INT(kept_engine_forward(r.engine, &it, 1, &r.err), KEPT_OK);
        if (c)
            CHECK_INT(held(s), want[c - 1]);
    }
    kept_seq_free(s);
    kept_strategy_free(st);
    stop(&r);
}

/* Data-dependent: acts again once it holds that much more than it left. */
static void slack_counts_from_what_was_left(void)
{
    kept_strategy *st = parse("h2o+coverage(part=0.5)+decode(every=1,slack=10)@100%");
    util_run r = start(200, 1);
    kept_seq *s = prefilled(&r, st, N_PROMPT);
    const int heads = info->n_layers * info->n_kv_heads;
    int64_t last = kept_seq_held(s).slots;
    CHECK(last < (int64_t)heads * N_PROMPT);
    for (int t = 1; t <= 22; t++) {
        CHECK_INT(step(&r, s, N_PROMPT + t), KEPT_OK);
        const int64_t now = kept_seq_held(s).slots;
        CHECK(t % 11 ? now == last + heads : now < last + heads);
        last = now;
    }
    kept_seq_free(s);
    kept_strategy_free(st);
    stop(&r);
}

static void turns_end_with_an_eviction(void)
{
    kept_strategy *st = parse("h2o+turns@50%"), *once = parse("h2o@50%");
    util_run r = start(200, 1);
    kept_seq *s = prefilled(&r, st, N_PROMPT), *o = prefilled(&r, once, N_PROMPT);
    CHECK_INT(held(s), N_PROMPT / 2);
    for (int t = 0; t < 40; t++)
        CHECK_INT(step(&r, s, N_PROMPT + t), KEPT_OK);
    CHECK_INT(held(s), N_PROMPT / 2 + 40);
    CHECK_INT(kept_seq_end_turn(s, &r.err), KEPT_OK);
    CHECK_INT(held(s), (N_PROMPT + 40) / 2);
    CHECK(holds(s, 0, 0, 0) && holds(s, 0, 0, N_PROMPT + 39)); /* sink and recent, as of now */
    CHECK_INT(step(&r, o, N_PROMPT), KEPT_OK);
    CHECK_INT(kept_seq_end_turn(o, &r.err), KEPT_OK);
    CHECK_INT(held(o), N_PROMPT / 2 + 1);
    kept_seq_free(s);
    kept_seq_free(o);
    kept_strategy_free(st);
    kept_strategy_free(once);
    stop(&r);
}

static uint64_t evicted(const kept_seq *s)
{
    kept_account a;
    kept_seq_account(s, &a);
    return a.n_evicted;
}

/* A pool of 7 pages per head, full with 128 + 128 + 192 slots: while there was room all hold
 * everything. The one that holds most of its budget is cut for a third one's sake, and the others
 * are as they were. Where cutting gives no page, the pass is refused and nobody has grown. */
static void pressure_cuts_who_is_furthest_over(void)
{
    kept_strategy *a = parse("h2o+pressure@64"), *b = parse("knorm+pressure@100"),
                  *c = parse("h2o@192");
    const int heads = info->n_layers * info->n_kv_heads;
    util_run r = start((size_t)heads * 7, 1);
    kept_seq *x = prefilled(&r, a, 128), *y = prefilled(&r, b, 128), *z = prefilled(&r, c, 192);
    kept_pool_account pool;
    kept_engine_pool(r.engine, &pool);
    CHECK_INT(pool.n_free_pages, 0);
    CHECK(!evicted(x) && !evicted(y) && !evicted(z));
    CHECK_INT(step(&r, z, 192), KEPT_OK); /* of no batch, x shrinks for z */
    CHECK_INT(held(x), 64);
    CHECK_INT(held(y), 128);
    CHECK_INT(held(z), 193);
    CHECK_INT(step(&r, x, 128), KEPT_FULL); /* 100 slots of y take as many pages as 128 */
    CHECK_INT(held(y), 100);
    CHECK_INT(held(x), 64);
    CHECK_INT(kept_seq_n_tokens(x), 128);
    kept_seq_free(z);
    CHECK_INT(step(&r, x, 128), KEPT_OK);
    CHECK_INT(held(x), 65);
    kept_seq_free(x);
    kept_seq_free(y);
    kept_strategy_free(a);
    kept_strategy_free(b);
    kept_strategy_free(c);
    stop(&r);
}

/* ---- protection ----------------------------------------------------------------------------- */

static void parts_of_the_prompt_stay(void)
{
    kept_strategy *st = parse("random+protect(sinks=1,recent=2,first=0.1,last=0.05)+turns@40%");
    util_run r = start(200, 1);
    kept_seq *s = prefilled(&r, st, N_PROMPT);
    for (int l = 0; l < info->n_layers; l++)
        for (int p = 0; p < N_PROMPT; p++)
            if (p < 20 || p >= N_PROMPT - 10)
                CHECK(holds(s, l, 1, p));
    CHECK_INT(held(s), 80);
    kept_seq_free(s);
    kept_strategy_free(st);
    stop(&r);
}

/* Marked positions stay, or go first, whatever they score; forks know them too. */
static void template_tokens(void)
{
    kept_strategy *keep = parse("random+protect(sinks=0,recent=0,template=keep)@50%");
    kept_strategy *demote = parse("random+protect(sinks=0,recent=0,template=demote)@90%");
    kept_strategy *off = parse("random+protect(sinks=0,recent=0)@50%");
    util_run r = start(400, 1);
    kept_seq *base = new_seq(&r, NULL), *s[3];
    CHECK_INT(kept_seq_mark(base, 50, 80, KEPT_CLASS_TEMPLATE), KEPT_OK);
    CHECK_INT(kept_seq_mark(base, 60, 70, KEPT_CLASS_TEXT), KEPT_OK);
    CHECK_INT(util_prefill(&r, base, tokens, N_PROMPT, 64, NULL), KEPT_OK);
    const kept_strategy *st[] = {keep, demote, off};
    int lost[3] = {0}, left[3] = {0};
    for (int i = 0; i < 3; i++) {
        CHECK_INT(kept_seq_fork(base, st[i], NULL, 1, &s[i], &r.err), KEPT_OK);
        CHECK_INT(kept_seq_end_prefill(s[i], &r.err), KEPT_OK);
        for (int l = 0; l < info->n_layers; l++)
            for (int h = 0; h < info->n_kv_heads; h++)
                for (int p = 50; p < 80; p++)
                    if (p < 60 || p >= 70)
                        (holds(s[i], l, h, p) ? left : lost)[i]++;
        kept_seq_free(s[i]);
    }
    CHECK_INT(lost[0], 0);
    CHECK_INT(left[1], 0); /* 20 of 20 slots to drop */
    CHECK(lost[2] > 0 && left[2] > 0);
    CHECK_INT(kept_seq_mark(base, 0, 513, KEPT_CLASS_TEMPLATE), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_mark(base, -1, 5, KEPT_CLASS_TEMPLATE), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_pin(base, 500, 513), KEPT_ARGUMENT);
    kept_seq_free(base);
    kept_strategy_free(keep);
    kept_strategy_free(demote);
    kept_strategy_free(off);
    stop(&r);
}

/* ---- positions ------------------------------------------------------------------------------ */

/* key turned by `by` positions in double precision. */
static void turn(const kept_engine *e, const float *key, int by, double *out)
{
    const int half = e->model->n_rope / 2, d = info->head_size;
    for (int j = 0; j < half; j++) {
        const int a = e->model->rope_neox ? j : 2 * j, b = e->model->rope_neox ? j + half : a + 1;
        const double w = (double)by * (double)e->rope_freq[j];
        out[a] = cos(w) * (double)key[a] - sin(w) * (double)key[b];
        out[b] = sin(w) * (double)key[a] + cos(w) * (double)key[b];
    }
    for (int j = 2 * half; j < d; j++)
        out[j] = key[j];
}

/* Keys of layer 0 depend on nothing but the token and its position. Those of s equal those of the
 * full cache, turned to their rank (decoded since the last eviction: to where queries count). */
static void check_ranks(const kept_seq *s, const kept_seq *full, bool all_ranked)
{
    static float k[512 * 256], k0[512 * 256];
    static int32_t at[512];
    double want[256];
    const size_t d = (size_t)info->head_size;
    for (int h = 0; h < info->n_kv_heads; h++) {
        const int n = kept_cache_n(s->cache, 0, h);
        double worst = 0;
        kept_cache_read(s->cache, 0, h, at, k, NULL);
        kept_cache_read(full->cache, 0, h, NULL, k0, NULL);
        for (int i = 0; i < n; i++) {
            int rank = 0;
            for (int j = 0; j < n; j++)
                rank += at[j] < at[i];
            if (!all_ranked && at[i] == s->n_tokens - 1)
                rank = at[i] - s->rope_back;
            turn(s->engine, k0 + (size_t)at[i] * d, rank - at[i], want);
            for (size_t j = 0; j < d; j++)
                worst = fmax(worst, fabs((double)k[(size_t)i * d + j] - want[j]));
        }
        CHECK(worst < 0.02); /* a few roundings to f16 of numbers below 4 */
    }
}

static void keys_are_renumbered(void)
{
    kept_strategy *st = parse("knorm+global+decode(every=4)+rerotated@40%");
    util_run r = start(400, 1);
    kept_seq *full = prefilled(&r, NULL, N_PROMPT), *s = prefilled(&r, st, N_PROMPT);
    check_ranks(s, full, true);
    int shortest = held(s);
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++)
            shortest = (int)fmin(shortest, kept_seq_positions(s, l, h, NULL, 0));
    CHECK(shortest < kept_seq_held(s).longest); /* or the case proves nothing */
    for (int t = 0; t < 16; t++) {
        CHECK_INT(step(&r, full, N_PROMPT + t), KEPT_OK);
        CHECK_INT(step(&r, s, N_PROMPT + t), KEPT_OK);
        CHECK_INT(s->n_tokens - s->rope_back, kept_seq_held(s).longest);
        if ((t + 1) % 4 < 2)
            check_ranks(s, full, (t + 1) % 4 == 0);
    }
    kept_seq_free(full);
    kept_seq_free(s);
    kept_strategy_free(st);
    stop(&r);
}

/* Heads of one length: differences of positions are those of "slot", so queries recorded before a
 * renumbering and keys after it must agree too (cake reads them). */
static void renumbered_equals_slot_if_even(void)
{
    enum { N = 24 };
    kept_strategy *a = parse("tova+decode(every=4)+slot@60"),
                  *b = parse("tova+decode(every=4)+rerotated@60");
    const size_t n = (size_t)N * (size_t)info->n_vocab;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    kept_capture recent = {.n_recent = 8};
    util_run r = start(400, 1);
    kept_seq *s = NULL, *q = NULL;
    CHECK_INT(kept_seq_new(r.engine, a, &recent, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, b, &recent, 1, &q, &r.err), KEPT_OK);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(util_prefill(&r, i ? q : s, tokens, N_PROMPT, 64, NULL), KEPT_OK);
        CHECK_INT(kept_seq_end_prefill(i ? q : s, &r.err), KEPT_OK);
    }
    CHECK_INT(util_decode(&r, s, tokens + N_PROMPT, N, x), KEPT_OK);
    CHECK_INT(util_decode(&r, q, tokens + N_PROMPT, N, y), KEPT_OK);
    const util_diff d = util_compare(x, y, N, info->n_vocab);
    printf("# rerotated and slot: rms %.2g\n", d.rel_rms);
    CHECK(d.rel_rms < 5e-3);
    /* The newest recorded query of layer 0, turned by what the two count apart. */
    double want[256], worst = 0;
    const size_t at = (size_t)((s->n_tokens - 1) % 8) * (size_t)(info->n_heads * info->head_size);
    turn(r.engine, s->recent + at, -q->rope_back, want);
    for (int j = 0; j < info->head_size; j++)
        worst = fmax(worst, fabs(want[j] - (double)q->recent[at + (size_t)j]));
    CHECK(q->rope_back > 0 && worst < 1e-3);
    const size_t old = (size_t)((s->n_tokens - 7) % 8) * (size_t)(info->n_heads * info->head_size);
    turn(r.engine, s->recent + old, -q->rope_back, want);
    for (int j = 0; j < info->head_size; j++)
        worst = fmax(worst, fabs(want[j] - (double)q->recent[old + (size_t)j]));
    CHECK(worst < 1e-3);
    kept_seq_free(s);
    kept_seq_free(q);
    kept_strategy_free(a);
    kept_strategy_free(b);
    free(x);
    free(y);
    stop(&r);
}

int main(void)
{
    llama_backend_init();
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "model: %s\n", path ? err.text : "no temporary file");
        return 1;
    }
    info = kept_model_get_info(model);
    tokens = util_tokens(N_ALL, info->n_vocab, 5);
    RUN(slack_lets_heads_grow);
    RUN(slack_holds_between_chunks);
    RUN(slack_counts_from_what_was_left);
    RUN(turns_end_with_an_eviction);
    RUN(pressure_cuts_who_is_furthest_over);
    RUN(parts_of_the_prompt_stay);
    RUN(template_tokens);
    RUN(keys_are_renumbered);
    RUN(renumbered_equals_slot_if_even);
    unlink(path);
    free(path);
    free(tokens);
    kept_model_free(model);
    TEST_END();
}
