/* The planner against the published example, naive loops over layers, and a real cache. */
#include "bench/kerncheck.h"
#include "bench/plan.h"
#include "test.h"

static kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err = {0};
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

static kept_model_info shape(const char *name)
{
    kept_model_info m = {0};
    CHECK(kept_shape_get(name, &m));
    return m;
}

static const kept_plan_row all_heads = {KEPT_PLAN_ALL_HEADS, NULL, 16, 512};
static const kept_plan_row grouped = {KEPT_PLAN_GROUPED, NULL, 16, 512};
static const kept_plan_row windowed = {KEPT_PLAN_WINDOWED, NULL, 16, 512};

static void published_example(void)
{
    kept_model_info m = shape("llama-2-70b");
    /* 10.5 GB at 4K and 336 GB at 128K, K = 1000, every head cached, two bytes */
    CHECK_NEAR((double)kept_plan_one(&all_heads, &m, 4000).kv_bytes, 10.4858e9, 1e5);
    CHECK_NEAR((double)kept_plan_one(&all_heads, &m, 128000).kv_bytes, 335.5443e9, 1e5);
    CHECK_INT(kept_plan_one(&all_heads, &m, 4000).kv_bytes, 2ll * 80 * 64 * 128 * 4000 * 2);
    CHECK_INT(kept_plan_one(&grouped, &m, 4000).kv_bytes, 2ll * 80 * 8 * 128 * 4000 * 2);
}

static void windows(void)
{
    kept_model_info m = shape("gemma3-270m");
    int n_windowed = 0;
    for (int l = 0; l < 18; l++)
        n_windowed += m.windowed[l];
    CHECK_INT(n_windowed, 15);
    CHECK(!m.windowed[5] && !m.windowed[11] && !m.windowed[17]);
    for (int n = 100; n <= 10000; n += 1237) {
        long long slots = 0;
        for (int l = 0; l < 18; l++)
            slots += l % 6 == 5 || n < 512 ? n : 512;
        CHECK_INT(kept_plan_one(&windowed, &m, n).kv_bytes, slots * 256 * 2 * 2);
    }
}

static void bits(void)
{
    kept_model_info m = shape("smollm2-135m");
    kept_plan_row row = grouped;
    row.bits = 4;
    CHECK_INT(kept_plan_one(&row, &m, 7).kv_bytes, 2 * 30 * 3 * 64 * 7 / 2);
}

static void shapes(void)
{
    for (int i = 0; i < kept_shape_count(); i++) {
        kept_error err = {0};
        kept_model_info m = shape(kept_shape_name(i));
        CHECK_INT(kept_shape_check(&m, &err), KEPT_OK);
        CHECK_STR(m.name, kept_shape_name(i));
        for (int j = 0; j < i; j++)
            CHECK(strcmp(kept_shape_name(i), kept_shape_name(j)) != 0);
    }
    kept_model_info m;
    CHECK(!kept_shape_get("no-such-model", &m));
    m = shape("llama-3-8b");
    m.n_kv_heads = 5;
    CHECK_INT(kept_shape_check(&m, NULL), KEPT_ARGUMENT);
    m.n_kv_heads = 8, m.n_layers = KEPT_MAX_LAYERS + 1;
    CHECK_INT(kept_shape_check(&m, NULL), KEPT_ARGUMENT);
    m.n_layers = 1, m.head_size = 0;
    CHECK_INT(kept_shape_check(&m, NULL), KEPT_ARGUMENT);
}

/* ---- against a cache ------------------------------------------------------------------------ */

#define LAYERS 3
#define HEADS  2
#define TOKENS 1000

static kept_cache *fill(kept_pool *pool, int n_planes)
{
    static const float zero[64];
    kept_cache *c = NULL;
    CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), LAYERS, HEADS, n_planes, TOKENS, &c, NULL),
              KEPT_OK);
    for (int i = 0; i < LAYERS * HEADS; i++) {
        CHECK_INT(kept_cache_reserve(c, i / HEADS, i % HEADS, TOKENS), KEPT_OK);
        for (int s = 0; s < TOKENS; s++)
            kept_cache_put(c, i / HEADS, i % HEADS, s, zero, zero, s);
        kept_cache_commit(c, i / HEADS, i % HEADS, TOKENS);
    }
    kept_cache_tick(c, TOKENS);
    return c;
}

/* The fixed struct of a cache is all that the plan leaves out. */
static void same_account(const kept_cache *c, kept_plan_bytes b)
{
    kept_account a;
    kept_cache_account(c, &a);
    CHECK_INT(b.kv_bytes, a.kv_bytes);
    CHECK_NEAR((double)b.meta_bytes, (double)a.meta_bytes, 256);
    CHECK_NEAR((double)b.peak_bytes, (double)a.peak_bytes, 256);
}

static void as_the_cache_accounts(void)
{
    static uint8_t keep[TOKENS];
    kept_model_info m = {.n_layers = LAYERS, .n_heads = 4, .n_kv_heads = HEADS, .head_size = 64};
    kept_pool *pool = NULL;
    CHECK_INT(kept_pool_new(64, 256, 512, &pool, NULL), KEPT_OK);
    kept_strategy *full = parse("full"), *once = parse("h2o@25%"),
                  *always = parse("streaming+decode@250");
    kept_plan_row row = {KEPT_PLAN_STRATEGY, full, 16, 512};
    kept_cache *c = fill(pool, 0);
    same_account(c, kept_plan_one(&row, &m, TOKENS));
    kept_cache_free(c);
    memset(keep, 1, 250);
    for (int forgets = 0; forgets < 2; forgets++) {
        row.strategy = forgets ? once : always; /* each has one plane */
        c = fill(pool, 1);
        for (int i = 0; i < LAYERS * HEADS; i++)
            CHECK_INT(kept_cache_retain(c, i / HEADS, i % HEADS, keep), KEPT_OK);
        if (forgets)
            kept_cache_drop_planes(c, 0);
        same_account(c, kept_plan_one(&row, &m, TOKENS));
        CHECK_INT(kept_plan_one(&row, &m, TOKENS).slots, 250 * LAYERS * HEADS);
        kept_cache_free(c);
    }
    kept_strategy_free(full), kept_strategy_free(once), kept_strategy_free(always);
    kept_pool_free(pool);
}

static void chunks_bound_the_peak(void)
{
    kept_model_info m = shape("llama-3-8b");
    kept_strategy *once = parse("h2o@512"), *chunked = parse("h2o+chunks@512");
    kept_plan_row a = {KEPT_PLAN_STRATEGY, once, 16, 512},
                  b = {KEPT_PLAN_STRATEGY, chunked, 16, 512};
    uint64_t page_slots = 1024 * 256, per_slot = 128 * 2 * 2;
    CHECK(kept_plan_one(&a, &m, 32000).peak_bytes >= 32000 * page_slots / 1024 * per_slot);
    kept_plan_bytes x = kept_plan_one(&b, &m, 32000);
    CHECK(x.peak_bytes >= page_slots * per_slot); /* 512 and a chunk of 512 */
    CHECK(x.peak_bytes - x.meta_bytes < page_slots * per_slot * 11 / 10);
    /* Layer by layer: 512 slots in each of 256 heads, and 32000 in the 8 of one layer. */
    kept_strategy *layers = parse("h2o+layers@512");
    kept_plan_row c = {KEPT_PLAN_STRATEGY, layers, 16, 512};
    const kept_plan_bytes y = kept_plan_one(&c, &m, 32000);
    const uint64_t slots = 512 * 256 + 32000 * 8;
    CHECK(y.peak_bytes >= slots * per_slot);
    CHECK(y.peak_bytes - y.meta_bytes < slots * per_slot * 11 / 10);
    kept_strategy_free(once), kept_strategy_free(chunked), kept_strategy_free(layers);
}

static void fits(void)
{
    kept_model_info m = shape("qwen2.5-7b");
    static const char *const specs[] = {"full", "h2o@20%", "snapkv+ada+chunks@1024", "knorm@64MiB"};
    const uint64_t memory = 3000000000u;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        kept_strategy *s = parse(specs[i]);
        kept_plan_row row = {KEPT_PLAN_STRATEGY, s, 16, 512};
        for (int batch = 1; batch <= 5; batch += 4) {
            int n = kept_plan_longest(&row, &m, batch, memory);
            CHECK(n > 0 && n < KEPT_PLAN_MAX_TOKENS);
            CHECK(kept_plan_batch_peak(kept_plan_one(&row, &m, n), batch) <= memory);
            CHECK(kept_plan_batch_peak(kept_plan_one(&row, &m, n + 1), batch) > memory);
        }
        int b = kept_plan_widest(&row, &m, 8000, memory);
        CHECK(b > 0);
        CHECK(kept_plan_batch_peak(kept_plan_one(&row, &m, 8000), b) <= memory);
        CHECK(kept_plan_batch_peak(kept_plan_one(&row, &m, 8000), b + 1) > memory);
        kept_strategy_free(s);
    }
    CHECK_INT(kept_plan_longest(&grouped, &m, 1, 0), 0);
    CHECK_INT(kept_plan_widest(&grouped, &m, 1, 0), 0);
}

static void largest_shape_does_not_overflow(void)
{
    kept_model_info m = {
        .n_layers = KEPT_MAX_LAYERS, .n_heads = 1024, .n_kv_heads = 1024, .head_size = 1024};
    kept_plan_row row = all_heads;
    row.bits = 32;
    double expected = 2.0 * 256 * 1024 * 1024 * KEPT_PLAN_MAX_TOKENS * 4;
    CHECK_NEAR((double)kept_plan_one(&row, &m, KEPT_PLAN_MAX_TOKENS).kv_bytes / expected, 1, 1e-9);
    CHECK(kept_plan_batch_peak(kept_plan_one(&row, &m, KEPT_PLAN_MAX_TOKENS), 1000000) ==
          UINT64_MAX);
}

/* ---- kerncheck: a table with one wrong function must be told apart ------------------------- */

static const kept_kern *real;

static void wrong_attend(const kept_attn_tile *t)
{
    real->attend(t);
    t->acc[t->head_size - 1] += 0.01f;
}

static void wrong_mass(int n_pages, int rows, int row0, int row1, int step, const kept_f16 *p,
                       const float *p_max, const float *M, const float *L, float *out)
{
    real->mass(n_pages, rows, row0, row1, step, p, p_max, M, L, out);
    out[n_pages * 64 - 1] *= 1.01f;
}

static void wrong_move(uint8_t *to, int dst, const uint8_t *from, int src, int head_size)
{
    real->move(to, dst, from, src ^ 1, head_size);
}

static void wrong_outer(int n, int head_size, const float *x, size_t stride, float *mean,
                        float *cov)
{
    real->outer(n, head_size, x, stride, mean, cov);
    cov[1] += 1;
}

/* Wrong over packed pages alone, with one query or with several. */
static int wrong_queries;
static void wrong_packed(const kept_attn_tile *t)
{
    real->attend(t);
    if (t->codec && (t->n_q > 1) == (wrong_queries > 1))
        t->acc[1] += wrong_queries > 1 ? 0.01f * t->l[0] : 0.2f * t->l[0];
}

static void kernels_that_are_wrong(void)
{
    kept_kerncheck k;
    real = kept_kern_get("ref");
    CHECK_INT(kept_kerncheck_verify(real, 80, 7, &k, NULL), KEPT_OK);
    CHECK(!k.failed);
    kept_kern bad = *real;
    bad.attend = wrong_attend;
    CHECK_INT(kept_kerncheck_verify(&bad, 64, 7, &k, NULL), KEPT_OK);
    CHECK_STR(k.failed, "attend or combine");
    bad = *real, bad.mass = wrong_mass;
    CHECK_INT(kept_kerncheck_verify(&bad, 64, 7, &k, NULL), KEPT_OK);
    CHECK_STR(k.failed, "mass");
    bad = *real, bad.move = wrong_move;
    CHECK_INT(kept_kerncheck_verify(&bad, 64, 7, &k, NULL), KEPT_OK);
    CHECK_STR(k.failed, "move");
    bad = *real, bad.outer = wrong_outer;
    CHECK_INT(kept_kerncheck_verify(&bad, 64, 7, &k, NULL), KEPT_OK);
    CHECK_STR(k.failed, "outer");
    k = (kept_kerncheck){.failed = NULL};
    CHECK_INT(kept_packcheck_verify(real, 80, 7, &k, NULL), KEPT_OK);
    CHECK(!k.failed && k.packed_error < 2e-5); /* this table rounds no query */
    for (wrong_queries = 1; wrong_queries < 3; wrong_queries++) {
        bad = *real, bad.attend = wrong_packed;
        CHECK_INT(kept_packcheck_verify(&bad, 64, 7, &k, NULL), KEPT_OK);
        CHECK_STR(k.failed, wrong_queries == 1 ? "attend, packed pages"
                                               : "attend, packed pages, several queries");
        k = (kept_kerncheck){.failed = NULL};
    }
}

int main(void)
{
    RUN(published_example);
    RUN(windows);
    RUN(bits);
    RUN(shapes);
    RUN(as_the_cache_accounts);
    RUN(chunks_bound_the_peak);
    RUN(fits);
    RUN(largest_shape_does_not_overflow);
    RUN(kernels_that_are_wrong);
    TEST_END();
}
