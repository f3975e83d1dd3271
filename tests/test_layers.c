/* test_layers: prompts read layer by layer, against the same prompt read as usual and cut once; and
 * the peaks that schedules promise. */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "policy/parts.h"
#include "test.h"

#include <unistd.h>

enum { N_PROMPT = 150, CHUNK = 64, N_DECODE = 3, LONG = 8192, LONG_CHUNK = 512 };

static kept_model *model;
static const kept_model_info *info;
static int32_t *tokens;

static void open_model(const char *arch, int n_layers)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default(arch);
    spec.n_layers = n_layers;
    spec.n_ctx = LONG + 64;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "model: %s\n", path ? err.text : "no temporary file");
        exit(1);
    }
    unlink(path);
    free(path);
    info = kept_model_get_info(model);
}

static util_run start(int threads, int max_tokens, int chunk)
{
    util_run r = {.n_vocab = info->n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = max_tokens,
                             .max_batch_tokens = chunk,
                             .pool_bytes = (size_t)64 << 20,
                             .max_seqs = 4};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

/* ---- the same sets and logits ---------------------------------------------------------------- */

typedef struct outcome {
    kept_seq *seq;
    float *logits; /* of the prompt's last token, then of N_DECODE */
    kept_account account;
} outcome;

/* False: this cannot run here (a trained file is missing). */
static bool run(util_run *r, const kept_strategy *st, outcome *o)
{
    const size_t v = (size_t)r->n_vocab;
    if (kept_seq_new(r->engine, st, NULL, 3, &o->seq, &r->err)) {
        CHECK(strstr(r->err.text, "trained"));
        return false;
    }
    kept_seq_pin(o->seq, 70, 73);
    CHECK_INT(kept_seq_prefill(o->seq, tokens, N_PROMPT, CHUNK, 1, &r->err), KEPT_OK);
    memcpy(o->logits, kept_engine_logits(r->engine), v * sizeof(float));
    const kept_status status = kept_seq_end_prefill(o->seq, &r->err);
    CHECK(!status || strstr(r->err.text, "trained"));
    if (!status)
        CHECK_INT(util_decode(r, o->seq, tokens + N_PROMPT, N_DECODE, o->logits + v), KEPT_OK);
    kept_seq_account(o->seq, &o->account);
    return !status;
}

static bool same_sets(const kept_seq *a, const kept_seq *b)
{
    int32_t x[512], y[512];
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int n = kept_seq_positions(a, l, h, x, 512);
            if (kept_seq_positions(b, l, h, y, 512) != n)
                return false;
            for (int i = 0; i < n; i++) { /* in whatever order */
                int k = 0;
                while (k < n && y[k] != x[i])
                    k++;
                if (k == n)
                    return false;
            }
        }
    return true;
}

static int n_compared;

/* Engine one reads as usual, two layer by layer. A layer that is cut once ends with its slots in
 * the same order, so what is decoded has the same bits; cascades cut again and leave another order.
 */
static void compare(util_run *one, util_run *two, const char *parts)
{
    const size_t v = (size_t)info->n_vocab, n = (1 + N_DECODE) * v;
    outcome a = {.logits = calloc(n, sizeof(float))}, b = {.logits = calloc(n, sizeof(float))};
    char spec[300];
    kept_strategy *st = NULL, *layers = NULL;
    kept_error err;
    snprintf(spec, sizeof spec, "%s+layers@35%%", parts);
    if (kept_strategy_parse(spec, &layers, &err)) {
        CHECK(strstr(err.text, "cannot evict by 'layers'"));
        goto out;
    }
    snprintf(spec, sizeof spec, "%s@35%%", parts);
    CHECK_INT(kept_strategy_parse(spec, &st, &err), KEPT_OK);
    if (!run(one, st, &a) || !run(two, layers, &b))
        goto out;
    n_compared++;
    CHECK(same_sets(a.seq, b.seq));
    CHECK(!memcmp(a.logits, b.logits, v * sizeof(float)));
    if (kept_strategy_allocator(st)->layerwise)
        CHECK(!memcmp(a.logits, b.logits, n * sizeof(float)));
    else
        CHECK(util_compare(a.logits, b.logits, 1 + N_DECODE, info->n_vocab).rel_rms < 5e-3);
    CHECK_INT(a.account.n_evicted, b.account.n_evicted);
    CHECK_INT(a.account.kv_bytes, b.account.kv_bytes);
    CHECK_INT(a.account.meta_bytes, b.account.meta_bytes);
    if (test_failed)
        fprintf(stderr, "  with %s\n", parts);
out:
    kept_seq_free(a.seq);
    kept_seq_free(b.seq);
    free(a.logits);
    free(b.logits);
    kept_strategy_free(st);
    kept_strategy_free(layers);
}

static void each_part(util_run *one, util_run *two)
{
    char parts[200];
    for (int i = 0; i < kept_part_count() && !test_failed; i++) {
        const kept_part *p = kept_part_at(i);
        if (p->axis == KEPT_AXIS_SCORE && p != &kept_score_full.part) {
            compare(one, two, p->name);
            snprintf(parts, sizeof parts, "%s+lava", p->name);
            compare(one, two, parts);
        } else if (p->axis == KEPT_AXIS_ALLOCATOR || p->axis == KEPT_AXIS_WRAPPER ||
                   p->axis == KEPT_AXIS_WEIGHT || p->axis == KEPT_AXIS_POSITION) {
            snprintf(parts, sizeof parts, "h2o+%s", p->name);
            compare(one, two, parts);
            snprintf(parts, sizeof parts, "knorm+%s%s", p->name,
                     p->axis == KEPT_AXIS_ALLOCATOR ? "" : "+ada");
            compare(one, two, parts);
        }
    }
}

static void every_part_keeps_the_same(void)
{
    util_run one = start(1, 256, CHUNK), two = start(1, 256, CHUNK);
    n_compared = 0;
    each_part(&one, &two);
    printf("# %d strategies compared\n", n_compared);
    CHECK(n_compared > 40);
    kept_engine_free(one.engine);
    kept_engine_free(two.engine);
}

/* Windowed layers drop their pages while the layer is read. */
static void windowed_layers(void)
{
    kept_model *before = model;
    open_model("gemma3", 7);
    util_run one = start(1, 256, CHUNK), two = start(2, 256, CHUNK);
    compare(&one, &two, "snapkv+ada");
    compare(&one, &two, "knorm+cake+rerotated");
    kept_engine_free(one.engine);
    kept_engine_free(two.engine);
    kept_model_free(model);
    model = before;
    info = kept_model_get_info(model);
}

/* ---- peaks ---------------------------------------------------------------------------------- */

static kept_account read_prompt(const char *spec, int n, int chunk)
{
    kept_strategy *st = NULL;
    kept_account a = {0};
    util_run r = start(1, n + 64, chunk);
    kept_seq *s = NULL;
    CHECK_INT(kept_strategy_parse(spec, &st, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, n, 0, 0, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_OK);
    kept_seq_account(s, &a);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
    return a;
}

/* 8k tokens between chunks at 12.5 %: at most 20 % of the full cache, everything counted. */
static void chunks_bound_the_peak(void)
{
    kept_model *before = model;
    open_model("llama", 2);
    const kept_account a = read_prompt("snapkv+chunks@12.5%", LONG, LONG_CHUNK);
    const double full = (double)kept_full_kv_bytes(info, LONG);
    printf("# peak of snapkv+chunks@12.5%%: %.1f%% of the full cache\n",
           100 * (double)a.peak_bytes / full);
    CHECK((double)a.peak_bytes <= 0.20 * full);
    CHECK((double)a.peak_bytes >= 0.125 * full);
    kept_model_free(model);
    model = before;
    info = kept_model_get_info(model);
}

/* The peak of a prompt read layer by layer: one full layer, what others keep, hidden states,
 * scores; a part of a page per head and 6 % of positions, state and lists. */
static void layers_bound_the_peak(void)
{
    enum { N = 1024 };
    static const char *const allocators[] = {"uniform", "cake", "global"};
    const double full = (double)kept_full_kv_bytes(info, N), slots = full / 256;
    const double hidden = (double)N * info->n_embd * 4;
    const double pages = (double)(info->n_layers * info->n_kv_heads) * 64 * 256;
    for (int i = 0; i < 3; i++) {
        char spec[80];
        snprintf(spec, sizeof spec, "snapkv+%s@12.5%%", allocators[i]);
        const kept_account once = read_prompt(spec, N, 256);
        snprintf(spec, sizeof spec, "snapkv+%s+layers@12.5%%", allocators[i]);
        const kept_account a = read_prompt(spec, N, 256);
        const double ring =
            i == 1 ? 32.0 * info->n_layers * info->n_heads * info->head_size * 4 : 0;
        const double most =
            (full / 8 + full / info->n_layers + pages) * 1.06 + hidden + ring + 5 * slots;
        printf("# peak of %s: %.1f%% of the full cache, bound %.1f%%, read as usual %.1f%%\n", spec,
               100 * (double)a.peak_bytes / full, 100 * most / full,
               100 * (double)once.peak_bytes / full);
        CHECK((double)a.peak_bytes <= most);
        CHECK((double)a.peak_bytes >= hidden + full / info->n_layers); /* nothing is left out */
        CHECK((double)once.peak_bytes >= full);
        CHECK(a.byte_steps < once.byte_steps);
    }
}

/* ---- bad input ------------------------------------------------------------------------------ */

static void refusals(void)
{
    kept_strategy *st = NULL, *no = NULL;
    util_run r = start(1, 256, CHUNK);
    kept_seq *s = NULL;
    kept_pool_account pool;
    CHECK_INT(kept_strategy_parse("h2o+squeeze+layers@9", &no, &r.err), KEPT_ARGUMENT);
    CHECK_INT(r.err.at, 12);
    CHECK(strstr(r.err.text, "'squeeze' must see every layer"));
    CHECK_INT(kept_strategy_parse("h2o+layers@64", &st, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, tokens, 64, 64, NULL), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kept_seq_prefill"));
    CHECK_INT(kept_seq_prefill(s, tokens, 257, 0, 0, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_prefill(s, tokens, 0, 0, 0, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_prefill(s, tokens, 100, 65, 0, &r.err), KEPT_ARGUMENT); /* max_batch */
    kept_engine_pool(r.engine, &pool);
    CHECK_INT(pool.n_free_pages, pool.n_pages);
    kept_seq_free(s);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, 100, 0, 0, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, 10, 0, 0, &r.err), KEPT_ARGUMENT); /* a second time */
    CHECK(strstr(r.err.text, "100 tokens"));
    kept_seq_free(s);
    /* A bad token in the last chunk is found in the first layer: every page goes back. */
    int32_t bad[100];
    memcpy(bad, tokens, sizeof bad);
    bad[99] = -1;
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, bad, 100, 0, 0, &r.err), KEPT_ARGUMENT);
    kept_engine_pool(r.engine, &pool);
    CHECK_INT(pool.n_free_pages, pool.n_pages);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

int main(void)
{
    llama_backend_init();
    open_model("llama", 4);
    tokens = util_tokens(LONG + N_DECODE, info->n_vocab, 5);
    RUN(every_part_keeps_the_same);
    RUN(windowed_layers);
    RUN(chunks_bound_the_peak);
    RUN(layers_bound_the_peak);
    RUN(refusals);
    free(tokens);
    kept_model_free(model);
    TEST_END();
}
