/* Calibrated levels inside the engine, with a file made for the test: what a full cache holds in
 * that form differs from what the exact one holds by no more than levels are apart, and not at all
 * in the key of the first token; evictions, bytes, parking; files that do not belong. */
#include "kept/park.h"
#include "mixed_rig.h"

static float zero[8 * D], scale[8 * D];

static void put(kept_trained *t, const char *name, const float *x, int n)
{
    CHECK_INT(kept_trained_put(t, name, x, (size_t)n, NULL), KEPT_OK);
}

/* Levels from -3 to 3, evenly; channels by what the exact cache holds of keys at position 0. */
static kept_trained *make_file(char turn)
{
    static const char *const four[] = {"k4", "k4s", "v4", "v4s"};
    static const char *const three[] = {"k3", "k3s", "v3", "v3s"};
    float level[2][8 * 16];
    const int heads = info->n_layers * info->n_kv_heads;
    kept_trained *t = NULL;
    kept_error err;
    char hex[65];
    CHECK(heads <= 8);
    CHECK_INT(kept_model_sha256(model, hex, &err), KEPT_OK);
    hex[7] = turn ? turn : hex[7];
    for (int i = 0; i < heads * 16; i++)
        level[1][i] = (float)(6 * (i % 16 + 0.5) / 16 - 3);
    for (int i = 0; i < heads * 8; i++)
        level[0][i] = (float)(6 * (i % 8 + 0.5) / 8 - 3);
    CHECK_INT(kept_trained_new("nuq", hex, &t, NULL), KEPT_OK);
    put(t, "k-zero", zero, heads * D);
    put(t, "k-scale", scale, heads * D);
    for (int i = 0; i < 4; i++) {
        put(t, four[i], level[1], heads * 16);
        put(t, three[i], level[0], heads * 8);
    }
    return t;
}

static util_run start_with(kept_trained *t)
{
    util_run r = start();
    CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
    return r;
}

/* Means and deviations of channels are those of rotated keys here, pair by pair alike: any will do.
 */
static void measure(void)
{
    static float k[MOST * D], v[MOST * D];
    util_run r = start();
    kept_seq *s = run(&r, NULL, 0, NULL);
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            double square = 0;
            kept_cache_read(s->cache, l, h, NULL, k, v);
            for (int i = 0; i < N_PROMPT * D; i++)
                square += (double)k[i] * (double)k[i] / (N_PROMPT * D);
            for (int d = 0; d < D; d++)
                scale[(l * info->n_kv_heads + h) * D + d] = (float)sqrt(square);
        }
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

/* Part of the square that a row loses. */
static double lost(const float *is, const float *was, int n)
{
    double error = 0, square = 0;
    for (int i = 0; i < n; i++) {
        error += pow((double)is[i] - (double)was[i], 2);
        square += pow((double)was[i], 2);
    }
    return error / square;
}

static void stored(void)
{
    static const struct {
        const char *spec;
        double most;
    } row[] = {
        {"full+nuq4", 0.02}, {"full+nuq3", 0.08}, {"full+nuq4s", 0.018}, {"full+nuq3s", 0.07}};
    static float k[2][MOST * D], v[2][MOST * D];
    kept_trained *t = make_file(0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        util_run r = start_with(t);
        kept_strategy *st = parse(row[i].spec);
        kept_seq *full = run(&r, NULL, 0, NULL), *s = run(&r, st, 0, NULL);
        const int n = N_PROMPT / P64 * P64;
        for (int l = 0; l < info->n_layers; l++)
            for (int h = 0; h < info->n_kv_heads; h++) {
                kept_cache_read(full->cache, l, h, NULL, k[0], v[0]);
                kept_cache_read(s->cache, l, h, NULL, k[1], v[1]);
                CHECK(lost(k[1], k[0], n * D) < row[i].most && lost(k[1], k[0], n * D) > 1e-4);
                CHECK(lost(v[1], v[0], n * D) < row[i].most && lost(v[1], v[0], n * D) > 1e-4);
                CHECK(lost(k[1], k[0], D) < 1e-6); /* the first key */
                CHECK(!memcmp(k[1] + n * D, k[0] + n * D, (size_t)(N_PROMPT - n) * D * 4));
            }
        CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                                   (uint64_t)kept_seq_held(s).slots));
        kept_seq_free(s);
        kept_seq_free(full);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
    }
    kept_trained_free(t);
}

/* Rows move between pages, or pages are packed again; parked and resumed, the same bits follow. */
static void evicted_and_parked(void)
{
    static const char *const spec[] = {"knorm+nuq4+decode(every=7)@30%", "snapkv+ada+nuq3s@30%",
                                       "knorm+protect(sinks=0)+nuq3+decode(every=3)@20%",
                                       "full+store(k=nuq4,v=rot3)+chunks"};
    const size_t n = (size_t)N_DECODE * (size_t)info->n_vocab;
    float *out[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    kept_trained *t = make_file(0);
    for (size_t i = 0; i < sizeof spec / sizeof *spec; i++) {
        util_run r = start_with(t);
        kept_strategy *st = parse(spec[i]);
        kept_seq *s = run(&r, st, N_DECODE, out[0]);
        void *data = NULL;
        size_t bytes = 0;
        for (size_t k = 0; k < n; k++)
            CHECK(isfinite(out[0][k]));
        kv_bytes(s);
        kept_seq_free(s);
        s = run(&r, st, 0, NULL);
        CHECK_INT(kept_seq_park(s, &data, &bytes, &r.err), KEPT_OK);
        CHECK_INT(kept_seq_resume(r.engine, st, data, bytes, &s, &r.err), KEPT_OK);
        CHECK_INT(util_decode(&r, s, tokens + N_PROMPT, N_DECODE, out[1]), KEPT_OK);
        CHECK(!memcmp(out[0], out[1], n * sizeof(float)));
        if (test_failed)
            fprintf(stderr, "  with %s\n", spec[i]);
        kept_seq_free(s);
        scale[3] *= 2; /* levels of another file are no levels of these pages */
        kept_trained *other = make_file(0);
        CHECK_INT(kept_engine_add_trained(r.engine, other, &r.err), KEPT_OK);
        CHECK_INT(kept_seq_resume(r.engine, st, data, bytes, &s, &r.err), KEPT_ARGUMENT);
        scale[3] /= 2;
        free(data);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
        kept_trained_free(other);
    }
    util_run r = start_with(t);
    check_budget(&r, "snapkv+nuq4s", 25);
    check_budget(&r, "knorm+nuq3", 40);
    kept_engine_free(r.engine);
    kept_trained_free(t);
    free(out[0]);
    free(out[1]);
}

static void refused(void)
{
    static const char *const spec[][2] = {
        {"snapkv+nuq4+slot@30%", "use the position original, or k=q8"},
        {"full+store(k=nuq4,v=low50)", "kinds 'basis' and 'nuq'; use v=nuq4"},
        {"full+store(k=low50,v=nuq3)", "use v=rot4"}};
    util_run r = start();
    kept_seq *s = NULL;
    kept_strategy *st = parse("full+nuq4"), *bad;
    kept_trained *other[2] = {make_file('a'), make_file('b')}; /* one of them is another model's */
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 3, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kept calibrate nuq"));
    const bool first = kept_engine_add_trained(r.engine, other[0], &r.err) == KEPT_ARGUMENT;
    CHECK(first || kept_engine_add_trained(r.engine, other[1], &r.err) == KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "model"));
    for (int i = 0; i < 3; i++) {
        CHECK_INT(kept_strategy_parse(spec[i][0], &bad, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, spec[i][1]));
    }
    kept_trained_free(other[0]);
    kept_trained_free(other[1]);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

int main(void)
{
    open_model();
    measure();
    RUN(stored);
    RUN(evicted_and_parked);
    RUN(refused);
    close_model();
    TEST_END();
}
