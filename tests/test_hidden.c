/* test_hidden: hidden states that a trainer taps against libllama's, and what the trained file
 * "kvzap" predicts from them against the formula in double precision. */
#include "engine_util.h"
#include "kept/trained.h"
#include "kern/kern.h"
#include "mkgguf.h"
#include "model/ahead.h"
#include "policy/strategy.h"
#include "policy/trained_fits.h"
#include "test.h"
#include "train/train.h"

#include <unistd.h>

#define KIND(k) ((kept_plane){.kind = KEPT_PLANE_##k})
#define CAP1(a) (&(kept_capture){.n_planes = 1, .plane = {a}})

enum { N = 150, EMBD = 192, LAYERS = 7, N_SHAPES = 2 };

typedef struct fixture {
    char *path;
    kept_model *model;
    kept_model_info info;
    int32_t *tokens; /* [N] */
    float *x;        /* [LAYERS][N][EMBD] tapped: see tap_all */
} fixture;

static fixture fix[N_SHAPES];

static mkgguf_spec shape(int i)
{
    mkgguf_spec s = mkgguf_default(i ? "gemma3" : "llama");
    s.n_layers = i ? LAYERS : 3;
    s.n_embd = EMBD;
    s.n_ff = 256;
    s.n_heads = i ? 4 : 6;
    s.n_kv_heads = i ? 1 : 3;
    s.head_size = i ? 256 : 64;
    s.type = GGML_TYPE_F32;
    s.seed = (uint64_t)i + 1;
    s.sliding_window = i ? 64 : 0;
    return s;
}

static util_run start(const fixture *f, int threads)
{
    util_run r = {.n_vocab = f->info.n_vocab};
    kept_engine_options o = {.n_threads = threads, .max_tokens = 512, .max_batch_tokens = 150};
    if (kept_engine_new(f->model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

/* ---- the tap -----------------------------------------------------------------------------------
 */

typedef struct tape {
    fixture *f;
    int calls, last;
} tape;

static void record(void *ctx, const kept_seq *s, int layer, int32_t pos0, int n, const float *x)
{
    tape *t = ctx;
    CHECK(s && (layer == t->last + 1 || (layer == 0 && pos0 > 0)));
    t->last = layer;
    t->calls++;
    memcpy(t->f->x + (layer * N + pos0) * EMBD, x, (size_t)n * EMBD * sizeof *x);
}

/* Hidden states of all tokens of the fixture. */
static void tap_all(fixture *f)
{
    util_run r = start(f, 2);
    tape t = {.f = f, .last = -1};
    kept_seq *s = NULL;
    kept_engine_tap(r.engine, record, &t);
    CHECK_INT(kept_seq_new(r.engine, NULL, CAP1(KIND(FUTURE)), 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, 80, NULL), KEPT_OK);
    CHECK_INT(t.calls, 2 * f->info.n_layers);
    CHECK_INT(kept_seq_foresee(s, f->tokens, 30, &r.err), KEPT_OK); /* not shown */
    kept_engine_tap(r.engine, NULL, NULL);
    CHECK_INT(util_prefill(&r, s, f->tokens, 30, 30, NULL), KEPT_OK);
    CHECK_INT(t.calls, 2 * f->info.n_layers);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

typedef struct probe {
    const fixture *f;
    int seen;
    double error, all;
} probe;

static bool on_node(struct ggml_tensor *t, bool ask, void *ctx)
{
    probe *p = ctx;
    int layer = -1;
    if (sscanf(t->name, "attn_norm-%d", &layer) != 1 || layer == p->f->info.n_layers - 1)
        return false;
    for (int q = 0; !ask && q < (int)t->ne[1]; q++)
        for (int i = 0; i < EMBD; i++) {
            const double a =
                (double)*(const float *)(const void *)((const char *)t->data +
                                                       (size_t)q * t->nb[1] + (size_t)i * 4);
            p->error += pow(a - (double)p->f->x[(layer * N + q) * EMBD + i], 2);
            p->all += a * a;
        }
    p->seen += !ask;
    return true;
}

static void tap_equals_libllama(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        probe p = {.f = f};
        struct llama_model *m = llama_model_load_from_file(f->path, llama_model_default_params());
        float *logits = malloc((size_t)N * (size_t)f->info.n_vocab * sizeof *logits);
        CHECK(m && util_llama(m, f->tokens, N, N, false, on_node, &p, logits));
        CHECK_INT(p.seen, f->info.n_layers - 1);
        CHECK(p.all > 0 && sqrt(p.error / p.all) < 1e-3);
        free(logits);
        llama_model_free(m);
    }
}

/* ---- prediction --------------------------------------------------------------------------------
 */

static float *randoms(kept_rng *rng, size_t n, double scale)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(kept_rng_normal(rng) * scale);
    return x;
}

static void put(kept_trained *t, const char *name, int layer, float *x, size_t n)
{
    char text[32];
    snprintf(text, sizeof text, "%s.%d", name, layer);
    CHECK_INT(kept_trained_put(t, text, x, n, NULL), KEPT_OK);
    free(x);
}

/* hidden 0: linear. */
static kept_trained *network(const fixture *f, int hidden)
{
    char hex[65];
    kept_trained *t = NULL;
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)hidden + 3);
    CHECK_INT(kept_model_sha256(f->model, hex, NULL), KEPT_OK);
    CHECK_INT(kept_trained_new("kvzap", hex, &t, NULL), KEPT_OK);
    const size_t kv = (size_t)f->info.n_kv_heads, n = hidden ? (size_t)hidden : kv;
    for (int l = 0; l < f->info.n_layers; l++) {
        if (f->info.windowed[l])
            continue;
        put(t, "w1", l, randoms(&rng, n * EMBD, 0.1), n * EMBD);
        put(t, "b1", l, randoms(&rng, n, 1), n);
        if (hidden) {
            put(t, "w2", l, randoms(&rng, n * kv, 0.3), n * kv);
            put(t, "b2", l, randoms(&rng, kv, 1), kv);
        }
    }
    return t;
}

static const float *array_of(const kept_trained *t, const char *name, int layer)
{
    char text[32];
    size_t n;
    snprintf(text, sizeof text, "%s.%d", name, layer);
    return kept_trained_array(t, text, &n);
}

/* The formula, in double. */
static double naive(const fixture *f, const kept_trained *t, int hidden, int l, int h, int pos)
{
    const float *w1 = array_of(t, "w1", l), *b1 = array_of(t, "b1", l);
    const float *w2 = array_of(t, "w2", l), *b2 = array_of(t, "b2", l);
    double y = hidden ? (double)b2[h] : 0;
    for (int j = 0; j < (hidden ? hidden : f->info.n_kv_heads); j++) {
        double z = (double)b1[j];
        for (int i = 0; i < EMBD; i++)
            z += (double)w1[j * EMBD + i] * (double)f->x[(l * N + pos) * EMBD + i];
        if (!hidden && j == h)
            return z;
        if (hidden)
            y += (double)w2[h * hidden + j] * 0.5 * z * (1 + erf(z / sqrt(2.0)));
    }
    return y;
}

/* All predicted planes of s, [LAYERS][3][N], in order of position; NAN where a slot is gone. */
static void planes(const fixture *f, const kept_seq *s, float *out)
{
    for (int i = 0; i < LAYERS * 3 * N; i++)
        out[i] = NAN;
    for (int l = 0; l < f->info.n_layers; l++)
        for (int h = 0; h < f->info.n_kv_heads && !f->info.windowed[l]; h++) {
            float x[N];
            int32_t pos[N];
            const int n = kept_seq_plane(s, l, h, KIND(PREDICTED), x, N);
            kept_seq_positions(s, l, h, pos, N);
            for (int k = 0; k < n; k++)
                out[(l * 3 + h) * N + pos[k]] = x[k];
        }
}

/* Prefills with chunks of `chunk` tokens and reads the planes. */
static void run(const fixture *f, const kept_trained *t, int threads, int chunk, float *out)
{
    util_run r = start(f, threads);
    kept_seq *s = NULL;
    CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, CAP1(KIND(PREDICTED)), 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, chunk, NULL), KEPT_OK);
    planes(f, s, out);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

static void prediction_equals_the_formula(void)
{
    static const int hiddens[] = {0, 1, 24, 50};
    static float one[LAYERS * 3 * N], other[LAYERS * 3 * N];
    for (int i = 0; i < N_SHAPES; i++)
        for (int k = 0; k < 4; k++) {
            fixture *f = &fix[i];
            kept_trained *t = network(f, hiddens[k]);
            int seen = 0;
            run(f, t, 1, 150, one);
            for (int l = 0; l < f->info.n_layers; l++)
                for (int h = 0; h < f->info.n_kv_heads && !f->info.windowed[l]; h++)
                    for (int p = 0; p < N; p++, seen++)
                        CHECK_NEAR(one[(l * 3 + h) * N + p], naive(f, t, hiddens[k], l, h, p),
                                   1e-4);
            CHECK(seen >= N);
            run(f, t, 2, 150, other);
            CHECK(!memcmp(one, other, sizeof one));
            run(f, t, 2, 37, other); /* chunks of two and more */
            CHECK(!memcmp(one, other, sizeof one));
            run(f, t, 2, 1, other); /* as while decoding */
            for (int p = 0; p < LAYERS * 3 * N; p++)
                CHECK(isnan(one[p]) || fabs((double)one[p] - (double)other[p]) < 2e-3);
            kept_trained_free(t);
        }
}

static void kvzap_keeps_the_best(void)
{
    const fixture *f = &fix[0];
    static float all[LAYERS * 3 * N], kept[LAYERS * 3 * N];
    util_run r = start(f, 2);
    kept_trained *t = network(f, 24);
    kept_strategy *st = NULL;
    kept_seq *s = NULL, *fork = NULL;
    CHECK_INT(kept_strategy_parse("kvzap+protect(sinks=0,recent=0)@40", &st, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kvzap"));
    CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, 64, NULL), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, st, CAP1(KIND(PREDICTED)), 1, &fork, &r.err), KEPT_OK);
    planes(f, s, all);
    CHECK_INT(kept_seq_end_prefill(fork, &r.err), KEPT_OK);
    planes(f, fork, kept);
    for (int i = 0; i < f->info.n_layers * 3; i++) {
        float worst = INFINITY, best = -INFINITY;
        int n = 0;
        for (int p = 0; p < N; p++) {
            const bool here = !isnan(kept[i * N + p]);
            n += here;
            CHECK(!here || kept[i * N + p] == all[i * N + p]);
            if (here)
                worst = fminf(worst, all[i * N + p]);
            else
                best = fmaxf(best, all[i * N + p]);
        }
        CHECK_INT(n, 40);
        CHECK(worst >= best);
    }
    kept_seq_free(fork);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
    kept_trained_free(t);
}

static void files_that_do_not_fit_are_refused(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 1);
    char hex[65];
    CHECK_INT(kept_model_sha256(f->model, hex, NULL), KEPT_OK);
    for (int bad = 0; bad < 5; bad++) {
        kept_trained *t = NULL;
        CHECK_INT(kept_trained_new("kvzap", hex, &t, NULL), KEPT_OK);
        for (int l = 0; l < f->info.n_layers - (bad == 0); l++) { /* 0: a layer is missing */
            float *w1 = calloc(3 * EMBD, sizeof *w1), *b1 = calloc(3, sizeof *b1);
            if (bad == 4 && l == 2)
                w1[100] = NAN;
            put(t, "w1", l, w1, (size_t)(bad == 1 ? 2 * EMBD : 3 * EMBD));
            put(t, "b1", l, b1, 3);
            if (bad == 2) /* half a second layer */
                put(t, "w2", l, calloc(9, sizeof(float)), 9);
            if (bad == 3) { /* of another number of heads */
                put(t, "w2", l, calloc(9, sizeof(float)), 6);
                put(t, "b2", l, calloc(3, sizeof(float)), 2);
            }
        }
        CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, bad == 4 ? "finite" : "does not fit"));
        kept_trained_free(t);
    }
    kept_engine_free(r.engine);
}

/* Whoever reads a trained file that the engine was not lent is told when the sequence is made. */
static void files_that_are_missing_are_refused(void)
{
    static const char *const need[][2] = {{"q-filters@50%", "kept calibrate qfilters"},
                                          {"triattention@50%", "kept calibrate triattention"},
                                          {"trikv@50%", "kept calibrate triattention"},
                                          {"expected-attention-stats@50%", "calibrate expected"},
                                          {"ranker@50%", "kept train ranker"},
                                          {"kvzap@50%", "kept train kvzap"},
                                          {"recency+duo@50%", "kept calibrate duo"},
                                          {"headkv-snapkv@50%", "kept calibrate headkv"},
                                          {"lukv@50%", "kept calibrate lu-kv"}};
    const fixture *f = &fix[0];
    util_run r = start(f, 1);
    kept_capture all = {0};
    kept_seq *base = NULL, *s = NULL;
    kept_strategy *st[9] = {NULL}, *none = NULL;
    for (int i = 0; i < 9; i++) {
        CHECK_INT(kept_strategy_parse(need[i][0], &st[i], &r.err), KEPT_OK);
        if (i != 5) /* a plane of predictions is refused by itself */
            CHECK_INT(kept_strategy_needs(st[i], &all, &r.err), KEPT_OK);
    }
    CHECK_INT(kept_seq_new(r.engine, NULL, &all, 1, &base, &r.err), KEPT_OK);
    for (int i = 0; i < 9; i++) {
        r.err.text[0] = 0;
        CHECK_INT(kept_seq_new(r.engine, st[i], NULL, 1, &s, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, need[i][1]) && !strchr(r.err.text, '\n'));
        r.err.text[0] = 0;
        CHECK_INT(kept_seq_fork(base, st[i], NULL, 1, &s, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, need[i][1]));
        kept_strategy_free(st[i]);
    }
    CHECK_INT(kept_seq_new(r.engine, NULL, CAP1(KIND(PREDICTED)), 1, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kept train kvzap"));
    /* the same score by the sequence's own queries reads no file */
    CHECK_INT(kept_strategy_parse("expected-attention@50%", &none, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, none, NULL, 1, &s, &r.err), KEPT_OK);
    kept_seq_free(s);
    kept_seq_free(base);
    kept_strategy_free(none);
    kept_engine_free(r.engine);
    for (int i = 0; i < kept_train_kind_count(); i++) {
        const kept_train_kind *k = kept_train_kind_at(i);
        CHECK_STR(kept_trained_verb(k->name), k->calibrates ? "calibrate" : "train");
    }
}

int main(void)
{
    llama_backend_init();
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        const mkgguf_spec spec = shape(i);
        kept_error err;
        f->path = mkgguf_temp();
        if (!f->path || mkgguf_write(f->path, &spec) || kept_model_open(f->path, &f->model, &err)) {
            fprintf(stderr, "model %d: %s\n", i, f->path ? err.text : "no temporary file");
            return 1;
        }
        f->info = *kept_model_get_info(f->model);
        f->tokens = util_tokens(N, f->info.n_vocab, 7);
        f->x = calloc((size_t)LAYERS * N * EMBD, sizeof *f->x);
        tap_all(f);
    }
    RUN(tap_equals_libllama);
    RUN(prediction_equals_the_formula);
    RUN(kvzap_keeps_the_best);
    RUN(files_that_do_not_fit_are_refused);
    RUN(files_that_are_missing_are_refused);
    for (int i = 0; i < N_SHAPES; i++) {
        unlink(fix[i].path);
        free(fix[i].path);
        free(fix[i].tokens);
        free(fix[i].x);
        kept_model_free(fix[i].model);
    }
    TEST_END();
}
