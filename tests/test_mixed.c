/* test_mixed: pages in different forms: by age, and by what heads were measured to lose. Forms are
 * held against a naive reading of the rule, page by page, or trying out every choice; bytes against
 * the naive sum, the budget and a walk. */
#include "mixed_rig.h"

/* ---- by age ---------------------------------------------------------------------------------- */

/* One rung everywhere is the plain codec, bit for bit; two of them are its residual. */
static void test_one_rung(void)
{
    static const char *const same[][2] = {
        {"full+aged(new=q8,mid=q8,old=q8)", "full+q8"},
        {"full+aged(new=rot3)", "full+rot3"},
        {"full+aged(new=q4,in=percent,mid-after=10,old-after=70)+chunks", "full+q4+chunks"},
        {"full+aged(mid=f16,old=q8,old-after=130)", "full+store(k=q8,residual=130)"},
        {"full+aged(mid=f16,old=f16)", "full"},
    };
    const size_t n = (size_t)N_DECODE * (size_t)info->n_vocab;
    float *out[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        uint64_t bytes[2];
        for (int k = 0; k < 2; k++) {
            util_run r = start();
            kept_strategy *st = parse(same[i][k]);
            kept_seq *s = run(&r, st, N_DECODE, out[k]);
            bytes[k] = kv_bytes(s);
            kept_seq_free(s);
            kept_strategy_free(st);
            kept_engine_free(r.engine);
        }
        CHECK_INT(bytes[0], bytes[1]);
        CHECK(!memcmp(out[0], out[1], n * sizeof(float)));
        if (test_failed)
            fprintf(stderr, "  with %s\n", same[i][0]);
    }
    free(out[0]);
    free(out[1]);
}

/* The rule, read naively: the form of a page with so many full pages younger than it, of n. */
static uint8_t ladder(const uint8_t *form, double mid, double old, bool percent, int younger, int n)
{
    if (percent) { /* a page counts once all of it is beyond the age */
        mid = floor(mid * n / 100) * P64;
        old = floor(old * n / 100) * P64;
    }
    return younger * P64 < mid ? form[0] : younger * P64 < old ? form[1] : form[2];
}

static int32_t youngest(const int32_t *pos, int page)
{
    int32_t most = -1;
    for (int i = page * P64; i < (page + 1) * P64; i++)
        most = pos[i] > most ? pos[i] : most;
    return most;
}

static const uint8_t *value_form; /* of values, where they are not like keys */

/* exact: pages were never mixed by an eviction, so none is narrower than the rule says. */
static void check_ladder(const kept_seq *s, const uint8_t *form, double mid, double old,
                         bool percent, bool exact)
{
    const uint8_t *values = value_form ? value_form : form;
    static int32_t pos[MOST];
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int n = kept_cache_n(s->cache, l, h) / P64;
            kept_cache_read(s->cache, l, h, pos, NULL, NULL);
            for (int i = 0; i < n; i++) {
                int younger = 0;
                for (int k = 0; k < n; k++)
                    younger += youngest(pos, k) > youngest(pos, i);
                const uint8_t want = ladder(form, mid, old, percent, younger, n);
                const kept_codecs is = form_of(s, l, h, i);
                if (exact)
                    CHECK_INT(is.v, ladder(values, mid, old, percent, younger, n));
                if (exact)
                    CHECK_INT(is.k, want);
                CHECK(kept_codec_get(is.k)->bits <= kept_codec_get(want)->bits);
            }
        }
}

/* Rows against those of the full cache: f16 pages bit by bit, packed ones within what their last
 * form costs (Max 1960 for four bits, a quarter more for the rounding before it). */
static void check_rows(const kept_seq *s, const kept_seq *full)
{
    static float k[2][MOST * D], v[2][MOST * D];
    static const double limit[KEPT_N_CODECS] = {
        [KEPT_Q8] = 1e-4, [KEPT_Q4] = 0.04, [KEPT_ROT4] = 0.0125, [KEPT_ROT2] = 0.15};
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            kept_cache_read(s->cache, l, h, NULL, k[0], v[0]);
            kept_cache_read(full->cache, l, h, NULL, k[1], v[1]);
            for (int i = 0; i < kept_cache_n(s->cache, l, h) / P64; i++) {
                double error = 0, square = 0;
                for (int x = i * P64 * D; x < (i + 1) * P64 * D; x++) {
                    error += pow((double)k[0][x] - (double)k[1][x], 2);
                    error += pow((double)v[0][x] - (double)v[1][x], 2);
                    square += pow((double)k[1][x], 2) + pow((double)v[1][x], 2);
                }
                CHECK(error <= limit[form_of(s, l, h, i).k] * square);
            }
        }
}

/* A full cache while it grows: every page has the form of its age, from step to step demoted in
 * place, and the bytes are the naive sum. */
static void test_ladder(void)
{
    static const uint8_t forms[2][3] = {{KEPT_F16, KEPT_Q8, KEPT_Q4},
                                        {KEPT_Q8, KEPT_ROT4, KEPT_ROT2}};
    static const char *const specs[2] = {
        "full+aged(mid-after=100,old-after=320)",
        "full+aged(new=q8,mid=rot4,old=rot2,in=percent,mid-after=25,old-after=60)"};
    float *out = calloc((size_t)N_DECODE * (size_t)info->n_vocab, sizeof(float));
    for (int i = 0; i < 2; i++) {
        util_run r = start();
        kept_strategy *st = parse(specs[i]);
        kept_seq *full = run(&r, NULL, 0, NULL), *s = run(&r, st, 0, NULL);
        const double mid = i ? 25 : 100, old = i ? 60 : 320;
        check_ladder(s, forms[i], mid, old, i, true);
        check_rows(s, full);
        CHECK_INT(util_decode(&r, s, tokens + N_PROMPT, N_DECODE, out), KEPT_OK);
        check_ladder(s, forms[i], mid, old, i, true);
        uint64_t sum = 0;
        for (int page = 0; page <= (N_PROMPT + N_DECODE) / P64; page++)
            sum += kept_codec_page_bytes(form_of(s, 0, 0, page), D);
        CHECK_INT(kv_bytes(s), sum * (uint64_t)(info->n_layers * info->n_kv_heads));
        CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                                   (uint64_t)kept_seq_held(s).slots));
        kept_seq_free(s);
        kept_seq_free(full);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
    }
    free(out);
}

/* Keys and values on ladders of their own: a half whose form stays keeps its bits when the other is
 * demoted, so keys of the first layer are those of a cache whose values never were. */
static void test_apart(void)
{
    static const uint8_t keys[] = {KEPT_ROT4, KEPT_ROT4, KEPT_ROT3};
    static const uint8_t values[] = {KEPT_F16, KEPT_ROT3, KEPT_ROT3};
    static float k[2][MOST * D];
    float *out = calloc((size_t)N_DECODE * (size_t)info->n_vocab, sizeof(float));
    util_run r = start();
    kept_strategy *st =
        parse("full+aged(new=rot4,mid=rot4,old=rot3,new-v=f16,mid-v=rot3,old-v=rot3,"
              "mid-after=100,old-after=320)");
    kept_strategy *other =
        parse("full+aged(new=rot4,mid=rot4,old=rot3,new-v=f16,mid-v=f16,old-v=f16,"
              "mid-after=100,old-after=320)");
    kept_seq *s = run(&r, st, 0, NULL), *t = run(&r, other, 0, NULL);
    value_form = values;
    check_ladder(s, keys, 100, 320, false, true);
    CHECK_INT(util_decode(&r, s, tokens + N_PROMPT, N_DECODE, out), KEPT_OK);
    CHECK_INT(util_decode(&r, t, tokens + N_PROMPT, N_DECODE, out), KEPT_OK);
    check_ladder(s, keys, 100, 320, false, true);
    kept_cache_read(s->cache, 0, 1, NULL, k[0], NULL);
    kept_cache_read(t->cache, 0, 1, NULL, k[1], NULL);
    CHECK(!memcmp(k[0], k[1], (size_t)(N_PROMPT + N_DECODE) * D * sizeof(float)));
    CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                               (uint64_t)kept_seq_held(s).slots));
    value_form = NULL;
    kept_seq_free(s);
    kept_seq_free(t);
    kept_strategy_free(st);
    kept_strategy_free(other);
    kept_engine_free(r.engine);
    free(out);
}

/* Both layers of two are the outermost ones: no rung of theirs is narrower than edge-as. */
static void test_edge(void)
{
    util_run r = start();
    kept_strategy *st = parse("full+aged(new=f16,mid=q8,old=rot2,mid-after=64,old-after=128,edge=1,"
                              "edge-as=q8)");
    kept_seq *s = run(&r, st, 0, NULL);
    static const uint8_t form[] = {KEPT_F16, KEPT_Q8, KEPT_Q8};
    check_ladder(s, form, 64, 128, false, true);
    CHECK_INT(kept_form_rungs(st, 1, 3, 9).form[2].k, KEPT_ROT2);
    CHECK_INT(kept_form_rungs(st, 2, 3, 9).form[2].v, KEPT_Q8);
    CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                               (uint64_t)kept_seq_held(s).slots));
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* ---- budgets --------------------------------------------------------------------------------- */

static void test_budgets(void)
{
    static const char *const specs[] = {
        "recency+aged(mid-after=64,old-after=128)",
        "snapkv+ada+aged(new=q8,mid=q4,old=rot2,in=percent,mid-after=20,old-after=50)",
        "knorm+pyramid+aged(new=q8,mid-after=64,old-after=192)",
        "snapkv+aged(new=q8,mid=rot4,old=rot3)+chunks",
        "recency+aged(mid-after=0,old-after=64)",
        "snapkv+aged(new=chan4,old=chan2,mid-v=q8,new-v=q8,edge=1,edge-as=q8)",
        "recency+aged(mid=f16,mid-v=q8,old-v=rot2,mid-after=64,old-after=128)"};
    const double percent[] = {12, 30, 55};
    util_run r = start();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (int p = 0; p < 3; p++)
            check_budget(&r, specs[i], percent[p]);
    kept_engine_free(r.engine);
}

/* Pages that evictions mixed are as old as their youngest slot, and never get wider. */
static void test_evicted(void)
{
    static const uint8_t forms[3] = {KEPT_Q8, KEPT_Q4, KEPT_ROT2};
    float *out = calloc((size_t)N_DECODE * (size_t)info->n_vocab, sizeof(float));
    util_run r = start();
    kept_strategy *st = parse("knorm+aged(new=q8,mid=q4,old=rot2,mid-after=64,old-after=128)+"
                              "decode(every=7)@30%");
    kept_seq *s = run(&r, st, N_DECODE, out);
    check_ladder(s, forms, 64, 128, false, false);
    for (int i = 0; i < N_DECODE * info->n_vocab; i++)
        CHECK(isfinite(out[i]));
    kv_bytes(s);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
    free(out);
}

/* ---- calibrated ------------------------------------------------------------------------------ */

enum { HEADS = 4, WIDTHS = 4 };
static const uint8_t width[WIDTHS] = {KEPT_ROT2, KEPT_ROT3, KEPT_ROT4, KEPT_Q8};

static kept_trained *lend(util_run *r, float loss[2][WIDTHS][HEADS], char turn)
{
    static const char *const name[] = {"k-rot2", "k-rot3", "k-rot4", "k-q8",
                                       "v-rot2", "v-rot3", "v-rot4", "v-q8"};
    char hex[65];
    kept_trained *t = NULL;
    CHECK_INT(kept_model_sha256(model, hex, &r->err), KEPT_OK);
    hex[5] = turn ? turn : hex[5];
    CHECK_INT(kept_trained_new("bits", hex, &t, &r->err), KEPT_OK);
    for (int w = 0; w < 2 * WIDTHS; w++)
        CHECK_INT(kept_trained_put(t, name[w], loss[w / WIDTHS][w % WIDTHS], HEADS, &r->err),
                  KEPT_OK);
    return t;
}

static double half_bytes(int w, int v)
{
    return (double)kept_codec_half_bytes(width[w], v, D);
}

/* Every choice of a width per head, or for its keys and its values apart, that takes no more bytes
 * loses no less. */
static void check_choice(const kept_seq *s, float loss[2][WIDTHS][HEADS], double bits, bool apart)
{
    int own[2][HEADS] = {{0}}, pages[HEADS];
    double bytes = 0, lost = 0, all = 0;
    for (int h = 0; h < HEADS; h++) {
        const int l = h / info->n_kv_heads, i = h % info->n_kv_heads;
        pages[h] = kept_cache_n(s->cache, l, i) / P64;
        for (int w = 0; w < WIDTHS; w++) {
            own[0][h] = width[w] == form_of(s, l, i, 0).k ? w : own[0][h];
            own[1][h] = width[w] == form_of(s, l, i, 0).v ? w : own[1][h];
        }
        CHECK(apart || own[0][h] == own[1][h]);
        for (int p = 0; p < pages[h]; p++)
            CHECK(form_of(s, l, i, p).k == width[own[0][h]] &&
                  form_of(s, l, i, p).v == width[own[1][h]]);
        for (int v = 0; v < 2; v++) {
            bytes += pages[h] * half_bytes(own[v][h], v);
            lost += (double)loss[v][own[v][h]][h];
        }
        all += pages[h];
    }
    CHECK(bytes <= all * bits * D * 2 * P64 / 8);
    for (int c = 0; c < (apart ? 65536 : 256); c++) {
        double b = 0, x = 0;
        for (int h = 0; h < HEADS; h++)
            for (int v = 0; v < 2; v++) {
                const int w = c >> 2 * (apart ? HEADS * v + h : h) & 3;
                b += pages[h] * half_bytes(w, v);
                x += (double)loss[v][w][h];
            }
        CHECK(b > bytes || x >= lost * (1 - 1e-12));
    }
}

static void test_calibrated(void)
{
    float equal[2][WIDTHS][HEADS], loss[2][WIDTHS][HEADS];
    const size_t n = (size_t)N_DECODE * (size_t)info->n_vocab;
    float *out[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    const double bits[] = {2.25, 3, 4.25, 5.5, 8.25};
    kept_rng rng;
    kept_rng_init(&rng, 4);
    for (int k = 0; k < 2 * WIDTHS; k++)
        for (int h = 0, v = k / WIDTHS, w = k % WIDTHS; h < HEADS; h++) {
            const double noise = (v ? 0.1 : 1) * (0.2 + kept_rng_below(&rng, 1000) / 500.0);
            equal[v][w][h] = (float)exp2(-2.0 * (w == 3 ? 8 : w + 2));
            loss[v][w][h] = (float)(noise * (double)equal[v][w][h] * (h == 2 ? 40 : 1));
        }
    for (int i = 0; i < 15; i++) {
        char spec[90];
        util_run r = start();
        kept_trained *t = lend(&r, loss, 0);
        CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
        snprintf(spec, sizeof spec,
                 i < 5    ? "full+calibrated(bits=%g)"
                 : i < 10 ? "snapkv+ada+calibrated(bits=%g)@30%%"
                          : "full+calibrated(bits=%g,apart=on)",
                 bits[i % 5]);
        kept_strategy *st = parse(spec);
        kept_seq *s = run(&r, st, 0, NULL);
        check_choice(s, loss, bits[i % 5], i >= 10);
        kept_seq_free(s);
        kept_strategy_free(st);
        if (i >= 5 && i < 10) {
            snprintf(strchr(spec, '@'), 5, "%s", "");
            check_budget(&r, spec, 20);
            check_budget(&r, spec, 45);
        }
        kept_engine_free(r.engine);
        kept_trained_free(t);
    }
    /* Heads that mind equally get the same form. */
    for (int k = 0; k < 2; k++) {
        util_run r = start();
        kept_trained *t = lend(&r, equal, 0);
        CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
        kept_strategy *st = parse(k ? "full+rot4" : "full+calibrated(bits=4.25)");
        kept_seq *s = run(&r, st, N_DECODE, out[k]);
        kept_seq_free(s);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
        kept_trained_free(t);
    }
    CHECK(!memcmp(out[0], out[1], n * sizeof(float)));
    free(out[0]);
    free(out[1]);
}

static void test_refused(void)
{
    static float none[2][WIDTHS][HEADS];
    util_run r = start();
    kept_seq *s = NULL;
    kept_strategy *st = parse("full+calibrated"), *many = parse("full+calibrated(bits=9)");
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 3, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kept calibrate bits"));
    kept_trained *other = lend(&r, none, 'a'), *b = lend(&r, none, 'b'); /* one of them is */
    const bool first = kept_engine_add_trained(r.engine, other, &r.err) == KEPT_ARGUMENT;
    CHECK(first || kept_engine_add_trained(r.engine, b, &r.err) == KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "model"));
    CHECK_INT(kept_seq_new(r.engine, many, NULL, 3, &s, &r.err), KEPT_UNSUPPORTED);
    CHECK(strstr(r.err.text, "2.25 to 8.25 bits a number, not in bits=9"));
    kept_trained_free(other);
    kept_trained_free(b);
    kept_strategy_free(st);
    kept_strategy_free(many);
    kept_engine_free(r.engine);
}

int main(void)
{
    open_model();
    RUN(test_one_rung);
    RUN(test_ladder);
    RUN(test_apart);
    RUN(test_edge);
    RUN(test_budgets);
    RUN(test_evicted);
    RUN(test_calibrated);
    RUN(test_refused);
    close_model();
    TEST_END();
}
