/* test_codec_axis: strategies that store pages in another form than F16, inside the engine. What is
 * stored is held against a reading of the codec's definition in double precision over the keys and
 * values of a full F16 cache, which the same prompt wrote; bytes against the budget and a walk.
 */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "policy/parts.h"
#include "test.h"

#include <unistd.h>

enum { D = 64, P64 = 64, N_PROMPT = 235, CHUNK = 64, N_DECODE = 24, MOST = 320 };

static kept_model *model;
static const kept_model_info *info;
static int32_t *tokens;

static const char *const codecs[] = {"bf16",
                                     "q8",
                                     "q4",
                                     "q4g",
                                     "rot4",
                                     "rot3",
                                     "rot2",
                                     "kivi4(residual=0)",
                                     "kivi2(residual=0)",
                                     "think75",
                                     "think50",
                                     "think25"};
enum { N_CODECS = sizeof codecs / sizeof *codecs };

static util_run start(int threads, int pool_pages)
{
    util_run r = {.n_vocab = info->n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = MOST,
                             .max_batch_tokens = CHUNK,
                             .pool_bytes = (size_t)pool_pages * kept_page_bytes(D),
                             .max_seqs = 4};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
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

/* The prompt is in, and logits of n decode steps (out NULL: none) follow. */
static kept_seq *run(util_run *r, const kept_strategy *st, int n, float *out)
{
    kept_seq *s = NULL;
    CHECK_INT(kept_seq_new(r->engine, st, NULL, 3, &s, &r->err), KEPT_OK);
    if (!s)
        return NULL;
    CHECK_INT(kept_seq_prefill(s, tokens, N_PROMPT, CHUNK, 0, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    if (n)
        CHECK_INT(util_decode(r, s, tokens + N_PROMPT, n, out), KEPT_OK);
    return s;
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

static uint64_t kv_bytes(const kept_seq *s)
{
    kept_account a;
    kept_seq_account(s, &a);
    return a.kv_bytes;
}

/* ---- what is stored -------------------------------------------------------------------------- */

/* Largest distance between a value and the nearest of `levels` between the least and the largest of
 * x [n] that are `stride` apart, if both ends are kept in F16 and rounded outwards. */
static double span_error(const float *x, int n, int stride, int levels)
{
    double low = x[0], high = x[0];
    for (int i = 1; i < n; i++) {
        low = fmin(low, (double)x[i * stride]);
        high = fmax(high, (double)x[i * stride]);
    }
    const double zero = fabs(low) / 1024 + 6e-8; /* how far F16 may put the lower end */
    const double step = (high - low + zero) / (levels - 1) * (1 + 1.0 / 1024) + 6e-8;
    return step / 2 + 1e-6;
}

static double even_error(const double *x, int n, int top)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    return most / top * (1 + 1.0 / 128) / 2 + 1e-6; /* bf16 rounds the scale up by 2^-7 at most */
}

/* The rotation by its definition: signs, then H[i][j] = (-1)^popcount(i & j) / sqrt(D). */
static void turn(const float *x, double *y)
{
    for (int i = 0; i < D; i++) {
        y[i] = 0;
        for (int j = 0; j < D; j++)
            y[i] += (__builtin_popcount((unsigned)(i & j)) & 1 ? -1.0 : 1.0) * (double)x[j] *
                    (double)kept_codec_signs[j];
        y[i] /= sqrt(D);
    }
}

/* Mean square error over mean square that Max 1960 gives for a Gaussian. */
static double lloyd_error(int codec)
{
    return codec == KEPT_ROT4 ? 0.0095 : codec == KEPT_ROT3 ? 0.0345 : 0.118;
}

/* One row [D] of a page: x was written, y is read back; page and slot for scales per channel. */
static void check_row(int codec, const float *x, const float *y, const float *page, int slot,
                      double *error, double *square)
{
    double wide[D], sum = 0;
    const int half = slot / 32 * 32;
    for (int d = 0; d < D; d++) {
        const double e = fabs((double)y[d] - (double)x[d]);
        wide[d] = x[d];
        sum += e * e;
        *square += (double)x[d] * (double)x[d];
        if (codec == KEPT_BF16)
            CHECK(e <= fabs((double)x[d]) / 256);
        if (codec == KEPT_TOK4 || codec == KEPT_TOK2)
            CHECK(e <= span_error(x + d / 32 * 32, 32, 1, codec == KEPT_TOK4 ? 16 : 4));
        if (codec == KEPT_CHAN4 || codec == KEPT_CHAN2)
            CHECK(e <= span_error(page + half * D + d, 32, D, codec == KEPT_CHAN4 ? 16 : 4));
    }
    *error += sum;
    for (int d = 0; d < D && codec == KEPT_Q8; d++)
        CHECK(fabs((double)y[d] - (double)x[d]) <= even_error(wide, D, 127));
    for (int d = 0; d < D && codec == KEPT_Q4G; d++)
        CHECK(fabs((double)y[d] - (double)x[d]) <= even_error(wide + d / 32 * 32, 32, 7));
    if (codec == KEPT_Q4) { /* a rotation keeps lengths */
        turn(x, wide);
        CHECK(sqrt(sum) <= sqrt(D) * even_error(wide, D, 7));
    }
}

/* Pages of `s` against those of the full cache: packed ones by the codec's definition, the others
 * bit by bit. */
static void check_stored(const kept_seq *s, const kept_seq *full, const kept_strategy *st)
{
    static float k[2][MOST * D], v[2][MOST * D];
    double error[2] = {0}, square[2] = {0};
    kept_codecs form = {0, 0};
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int n = kept_cache_n(s->cache, l, h);
            const int32_t *ids = kept_cache_pages(s->cache, l, h);
            const int packed = n / P64 - kept_strategy_residual(st);
            form = kept_strategy_form(st, l, info->n_layers);
            kept_cache_read(s->cache, l, h, NULL, k[0], v[0]);
            kept_cache_read(full->cache, l, h, NULL, k[1], v[1]);
            for (int p = 0; p * P64 < n; p++) {
                const kept_codecs is = kept_pool_get_page(s->engine->pool, ids[p]).c;
                CHECK_INT(is.k, p < packed ? form.k : KEPT_F16);
                CHECK_INT(is.v, p < packed ? form.v : KEPT_F16);
                for (int i = p * P64; i < n && i < (p + 1) * P64; i++) {
                    const int at = i * D, page = p * P64 * D;
                    if (p < packed) {
                        check_row(form.k, k[1] + at, k[0] + at, k[1] + page, i % P64, &error[0],
                                  &square[0]);
                        check_row(form.v, v[1] + at, v[0] + at, v[1] + page, i % P64, &error[1],
                                  &square[1]);
                        continue;
                    }
                    CHECK(!memcmp(k[0] + at, k[1] + at, D * sizeof(float)));
                    CHECK(!memcmp(v[0] + at, v[1] + at, D * sizeof(float)));
                }
            }
        }
    for (int half = 0; half < 2; half++)
        if (form.k >= KEPT_ROT4 && form.k <= KEPT_ROT2)
            CHECK(error[half] / square[half] < 1.1 * lloyd_error(form.k));
}

static void test_stored(void)
{
    util_run r = start(1, 400);
    kept_seq *full = run(&r, NULL, 0, NULL);
    for (int i = 0; i < N_CODECS; i++) {
        char spec[80];
        snprintf(spec, sizeof spec, "full+%s", codecs[i]);
        kept_strategy *st = parse(spec);
        kept_seq *s = run(&r, st, 0, NULL);
        check_stored(s, full, st);
        check_account(s);
        CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                                   (uint64_t)kept_seq_held(s).slots));
        kept_seq_free(s);
        kept_strategy_free(st);
    }
    const char *more[] = {"full+kivi2", "full+store(k=q8,v=q4,edge=1)",
                          "full+store(k=rot2,edge=1,edge-as=q8,residual=65)"};
    for (int i = 0; i < 3; i++) {
        kept_strategy *st = parse(more[i]);
        kept_seq *s = run(&r, st, 0, NULL);
        check_stored(s, full, st);
        check_account(s);
        kept_seq_free(s);
        kept_strategy_free(st);
    }
    kept_seq_free(full);
    kept_engine_free(r.engine);
}

/* ---- logits ---------------------------------------------------------------------------------- */

/* Fewer bits, more difference. bf16 rounds a number by 2^-9 of itself at most, q8 by 1/254 of the
 * row's largest, which is up to three standard deviations: four to six times as much in the mean.
 */
static void test_logits(void)
{
    const size_t v = (size_t)info->n_vocab;
    float *full = calloc(N_DECODE * v, sizeof(float)), *own = calloc(N_DECODE * v, sizeof(float));
    util_run r = start(1, 400);
    double rms[N_CODECS];
    kept_seq_free(run(&r, NULL, N_DECODE, full));
    for (int i = 0; i < N_CODECS; i++) {
        char spec[80];
        snprintf(spec, sizeof spec, "full+%s", codecs[i]);
        kept_strategy *st = parse(spec);
        kept_seq_free(run(&r, st, N_DECODE, own));
        rms[i] = util_compare(full, own, N_DECODE, info->n_vocab).rel_rms;
        printf("# %-18s %.2g\n", codecs[i], rms[i]);
        kept_strategy_free(st);
    }
    CHECK(rms[0] > 0 && rms[0] < 0.02);
    CHECK(rms[1] > rms[0] && rms[1] < 6 * rms[0]);
    CHECK(rms[1] * 4 < rms[2]);                /* q8 and q4: 16 times the step */
    CHECK(rms[4] < rms[5] && rms[5] < rms[6]); /* rot4, rot3, rot2 */
    CHECK(rms[7] < rms[8]);                    /* kivi4, kivi2 */
    CHECK(rms[9] < rms[10] && rms[10] < rms[11]);
    kept_engine_free(r.engine);
    free(full);
    free(own);
}

/* ---- budgets --------------------------------------------------------------------------------- */

/* K/V held right after the eviction is at most the budget and a page a head, and more slots than
 * F16 would hold, but not less than a budget that is used. */
static void check_budget(util_run *r, const char *score, const char *codec, double percent)
{
    char spec[120];
    const uint64_t heads = (uint64_t)(info->n_layers * info->n_kv_heads);
    snprintf(spec, sizeof spec, "%s+%s@%.0f%%", score, codec, percent);
    kept_strategy *st = parse(spec);
    kept_seq *s = run(r, st, 0, NULL);
    const double full = (double)heads * N_PROMPT * 4 * D, budget = full * percent / 100;
    const double held = (double)kv_bytes(s), slots = (double)kept_seq_held(s).slots;
    check_account(s);
    CHECK(held <= budget + (double)heads * (double)kept_page_bytes(D));
    CHECK(slots >= floor((double)heads * N_PROMPT * percent / 100));
    CHECK(slots == (double)heads * N_PROMPT || held + (double)heads * kept_page_bytes(D) > budget);
    if (test_failed)
        fprintf(stderr, "  with %s: %.0f of %.0f bytes, %.0f slots\n", spec, held, budget, slots);
    kept_seq_free(s);
    kept_strategy_free(st);
}

static void test_budgets(void)
{
    const double percent[] = {10, 25, 60};
    const char *const scores[] = {"knorm", "snapkv+ada", "knorm+pyramid", "snapkv+global+chunks",
                                  "h2o+decode"};
    util_run r = start(1, 400);
    for (int i = 0; i < N_CODECS; i++)
        for (int p = 0; p < 3; p++)
            check_budget(&r, scores[(i + p) % 5], codecs[i], percent[p]);
    check_budget(&r, "knorm", "store(k=q8,v=q4,edge=1)", 25);
    check_budget(&r, "snapkv+ada", "store(k=q4,edge=1,edge-as=q8)", 25);
    check_budget(&r, "snapkv+global", "store(k=q4,edge=1)", 25);
    check_budget(&r, "snapkv", "store(k=q4,residual=64)", 40);
    kept_engine_free(r.engine);
}

/* ---- schedules ------------------------------------------------------------------------------- */

static uint64_t peak(const kept_seq *s)
{
    kept_account a;
    kept_seq_account(s, &a);
    return a.peak_bytes;
}

/* Packed while it is read: the peak is the packed cache and a chunk. Layer by layer: what is stored
 * and decoded has the bits of packing when the prompt is in. */
static void test_schedules(void)
{
    const size_t v = (size_t)info->n_vocab;
    float *out[3];
    kept_seq *s[3];
    const char *const specs[] = {"full+q4", "full+q4+layers", "full+q4+chunks"};
    kept_strategy *st[3];
    util_run r = start(1, 400);
    const uint64_t heads = (uint64_t)(info->n_layers * info->n_kv_heads);
    for (int i = 0; i < 3; i++) {
        out[i] = calloc(N_DECODE * v, sizeof(float));
        st[i] = parse(specs[i]);
        s[i] = run(&r, st[i], N_DECODE, out[i]);
        check_account(s[i]);
        CHECK_INT(kv_bytes(s[i]), kv_bytes(s[0]));
    }
    CHECK(!memcmp(out[0], out[1], N_DECODE * v * sizeof(float)));
    CHECK(memcmp(out[0], out[2], N_DECODE * v * sizeof(float)));
    /* While it is read: the packed pages, a chunk's F16 pages, the newest page. */
    CHECK(peak(s[2]) <= kv_bytes(s[2]) + heads * kept_page_bytes(D) * (CHUNK / P64 + 1) +
                            heads * 2048 /* lists and positions */);
    CHECK(peak(s[0]) >= heads * N_PROMPT * 4 * D);
    for (int i = 0; i < 3; i++) {
        kept_seq_free(s[i]);
        kept_strategy_free(st[i]);
        free(out[i]);
    }
    kept_engine_free(r.engine);
}

/* Evictions over packed pages, positions that move keys, a conversation. */
static void test_evictions(void)
{
    const char *const specs[] = {"h2o+q8+decode@25%",
                                 "tova+kivi4(residual=0)+decode(every=3)@25%",
                                 "recency+q4+slot+decode(every=2)@25%",
                                 "knorm+q8+rerotated+decode(every=16)@25%",
                                 "snapkv+rot3+chunks(decode=8)@15%",
                                 "adaptive(signal=entropy,calm=full+q8,tight=h2o+q4,every=4)@20%",
                                 "h2o+q4+balance@25%",
                                 "knorm+q8+turns@20%",
                                 "knorm+q4+merging+decode(every=4)@25%",
                                 "h2o+q8+pressure@25%"};
    const size_t v = (size_t)info->n_vocab;
    float *out = calloc(N_DECODE * v, sizeof(float));
    util_run r = start(1, 400);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        kept_strategy *st = parse(specs[i]);
        kept_seq *s = run(&r, st, N_DECODE, out);
        for (size_t k = 0; k < N_DECODE * v; k++)
            CHECK(isfinite(out[k]));
        CHECK_INT(kept_seq_end_turn(s, &r.err), KEPT_OK);
        check_account(s);
        if (test_failed)
            fprintf(stderr, "  with %s\n", specs[i]);
        kept_seq_free(s);
        kept_strategy_free(st);
    }
    kept_pool_account pool;
    kept_engine_pool(r.engine, &pool);
    CHECK_INT(pool.n_free_pages, pool.n_pages);
    kept_engine_free(r.engine);
    free(out);
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* Decodes s beside n others; logits of s into out. */
static void beside(util_run *r, kept_seq *s, kept_seq *const *other, int n, float *out)
{
    const size_t v = (size_t)r->n_vocab;
    for (int t = 0; t < N_DECODE; t++) {
        kept_item it[4] = {
            {.seq = s, .tokens = tokens + N_PROMPT + t, .n_tokens = 1, .n_logits = 1}};
        for (int i = 0; i < n; i++)
            it[1 + i] = (kept_item){.seq = other[i], .tokens = tokens + 7 * i + t, .n_tokens = 1};
        CHECK_INT(kept_engine_forward(r->engine, it, 1 + n, &r->err), KEPT_OK);
        memcpy(out + (size_t)t * v, kept_engine_logits(r->engine), v * sizeof(float));
    }
}

/* A fork of a full prefix that packs has the bits of a sequence that read the prompt itself, and
 * leaves the prefix as it was; neighbours and threads change nothing. */
static void test_bits(void)
{
    const size_t v = (size_t)info->n_vocab, n = N_DECODE * v;
    const char *const specs[] = {"full+q8", "full+kivi2", "snapkv+q4+decode(every=8)@25%"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        kept_strategy *st = parse(specs[i]), *other_st = parse("full+rot3");
        float *out[4];
        for (int k = 0; k < 4; k++) {
            out[k] = calloc(n, sizeof(float));
            util_run r = start(k == 1 ? 1 : 2, 600);
            kept_capture cap = {0};
            kept_seq *s = NULL, *base = NULL, *other[2] = {NULL, NULL};
            CHECK_INT(kept_strategy_needs(st, &cap, &r.err), KEPT_OK);
            CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 3, &base, &r.err), KEPT_OK);
            CHECK_INT(kept_seq_prefill(base, tokens, N_PROMPT, CHUNK, 0, &r.err), KEPT_OK);
            CHECK_INT(kept_seq_fork(base, other_st, NULL, 3, &other[0], &r.err), KEPT_OK);
            CHECK_INT(kept_seq_end_prefill(other[0], &r.err), KEPT_OK);
            CHECK_INT(kept_seq_fork(base, NULL, NULL, 3, &other[1], &r.err), KEPT_OK);
            if (k < 2) {
                s = run(&r, st, 0, NULL);
            } else {
                const uint64_t before = kv_bytes(base);
                CHECK_INT(kept_seq_fork(base, st, NULL, 3, &s, &r.err), KEPT_OK);
                CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_OK);
                CHECK_INT(kv_bytes(base), before);
                CHECK(kv_bytes(s) < before);
            }
            beside(&r, s, other, k == 3 ? 2 : 1, out[k]);
            CHECK(!k || !memcmp(out[0], out[k], n * sizeof(float)));
            check_account(s);
            check_account(other[0]);
            kept_seq_free(s);
            kept_seq_free(other[0]);
            kept_seq_free(other[1]);
            kept_seq_free(base);
            kept_engine_free(r.engine);
        }
        for (int k = 0; k < 4; k++)
            free(out[k]);
        kept_strategy_free(st);
        kept_strategy_free(other_st);
    }
}

/* A pool that the prompt fills has room again once it is packed, page by page in its own place; a
 * page that somebody shares stays until there is room for both. */
static void test_full_pool(void)
{
    const int pages = info->n_layers * info->n_kv_heads * ((N_PROMPT + P64 - 1) / P64);
    util_run r = start(1, pages);
    kept_strategy *st = parse("full+q8");
    kept_seq *s = run(&r, st, 0, NULL), *full = NULL;
    check_account(s);
    CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                               (uint64_t)kept_seq_held(s).slots));
    kept_seq_free(s);
    full = run(&r, NULL, 0, NULL);
    CHECK_INT(kept_seq_fork(full, st, NULL, 3, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_OK);
    CHECK_INT(kv_bytes(s), kv_bytes(full));
    check_account(s);
    kept_seq_free(full);
    kept_item it = {.seq = s, .tokens = tokens, .n_tokens = 1};
    CHECK_INT(kept_engine_forward(r.engine, &it, 1, &r.err), KEPT_OK);
    CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                               (uint64_t)kept_seq_held(s).slots));
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* ---- refused --------------------------------------------------------------------------------- */

static void open_model(int head_size, kept_model **out)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    spec.head_size = head_size;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, out, &err)) {
        fprintf(stderr, "model: %s\n", path ? err.text : "no temporary file");
        exit(1);
    }
    unlink(path);
    free(path);
}

static void test_refused(void)
{
    kept_model *m;
    open_model(80, &m);
    kept_engine *e = NULL;
    kept_engine_options o = {.n_threads = 1, .max_tokens = 64, .max_batch_tokens = 8};
    kept_error err = {"", 0};
    kept_seq *s = NULL;
    CHECK_INT(kept_engine_new(m, &o, &e, &err), KEPT_OK);
    kept_strategy *bad = parse("full+q4g"), *good = parse("full+q8");
    CHECK_INT(kept_seq_new(e, bad, NULL, 0, &s, &err), KEPT_UNSUPPORTED);
    CHECK(strstr(err.text, "heads of 80 channels") && strstr(err.text, "use q8"));
    CHECK_INT(kept_seq_new(e, good, NULL, 0, &s, &err), KEPT_OK);
    kept_seq_free(s);
    kept_strategy_free(bad);
    kept_strategy_free(good);
    kept_engine_free(e);
    kept_model_free(m);
}

int main(void)
{
    open_model(D, &model);
    info = kept_model_get_info(model);
    tokens = util_tokens(MOST, info->n_vocab, 5);
    RUN(test_stored);
    RUN(test_logits);
    RUN(test_budgets);
    RUN(test_schedules);
    RUN(test_evictions);
    RUN(test_bits);
    RUN(test_full_pool);
    RUN(test_refused);
    free(tokens);
    kept_model_free(model);
    TEST_END();
}
