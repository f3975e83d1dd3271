/* test_local: attention inside blocks without a mask, in double precision, from libllama's products
 * of queries and keys (which it masks later) and, closer, from the engine's own queries and stored
 * keys; and what must not change it. */
#include "engine_util.h"
#include "kern/kern.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "test.h"

#include <unistd.h>

#define PLANE(n)                                                                                   \
    {                                                                                              \
        .kind = KEPT_PLANE_LOCAL, .window = (n)                                                    \
    }
#define LOCAL(n) ((kept_plane)PLANE(n))

enum { N = 150, MORE = 3, N_SHAPES = 3, MOST_HEADS = 8, BLOCK = 48, ALL = 1024, CAP = N + MORE };

static const kept_capture both = {.n_planes = 2, .plane = {PLANE(BLOCK), PLANE(ALL)}};

typedef struct fixture {
    char *path;
    kept_model *model;
    kept_model_info info;
    int32_t *tokens; /* [N + MORE] */
    int layer;       /* the one that is looked at */
    double scale;    /* of libllama's products, then of the engine's own */
    double *kq;      /* [n_heads][N][N] products of that layer, all pairs */
} fixture;

static fixture fix[N_SHAPES];

static mkgguf_spec shape(int i)
{
    static const char *const arch[N_SHAPES] = {"llama", "qwen2", "gemma3"};
    static const int heads[N_SHAPES][3] = {{8, 2, 64}, {6, 2, 80}, {4, 1, 256}};
    mkgguf_spec s = mkgguf_default(arch[i]);
    s.n_layers = i == 2 ? 7 : 3;
    s.n_embd = i == 1 ? 480 : 256;
    s.n_ff = 256;
    s.n_heads = heads[i][0];
    s.n_kv_heads = heads[i][1];
    s.head_size = heads[i][2];
    s.type = GGML_TYPE_F32;
    s.seed = (uint64_t)i + 11;
    s.sliding_window = i == 2 ? 64 : 0;
    return s;
}

static util_run start(const fixture *f, int threads)
{
    util_run r = {.n_vocab = f->info.n_vocab};
    kept_engine_options o = {
        .n_threads = threads, .max_tokens = 512, .max_batch_tokens = 2 * N, .max_seqs = 4};
    if (kept_engine_new(f->model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

/* ---- the oracle --------------------------------------------------------------------------------
 */

static bool on_node(struct ggml_tensor *t, bool ask, void *ctx)
{
    fixture *f = ctx;
    char name[32];
    snprintf(name, sizeof name, "kq-%d", f->layer);
    if (strcmp(t->name, name))
        return false;
    for (int h = 0; !ask && h < f->info.n_heads; h++)
        for (int q = 0; q < N; q++)
            for (int k = 0; k < N; k++)
                f->kq[(h * N + q) * N + k] = (double)*(
                    const float *)(const void *)((const char *)t->data + (size_t)h * t->nb[2] +
                                                 (size_t)q * t->nb[1] + (size_t)k * 4);
    return true;
}

static void look_at(fixture *f, int layer)
{
    struct llama_model *m = llama_model_load_from_file(f->path, llama_model_default_params());
    float *logits = malloc((size_t)N * (size_t)f->info.n_vocab * sizeof *logits);
    f->layer = layer;
    memset(f->kq, 0, (size_t)f->info.n_heads * N * N * sizeof *f->kq);
    CHECK(m && util_llama(m, f->tokens, N, N, false, on_node, f, logits));
    CHECK(f->kq[N - 1] != 0);
    free(logits);
    llama_model_free(m);
}

/* Column sums of KV head h inside parts that end at multiples of block and of chunk. */
static void naive(const fixture *f, int h, int block, int chunk, double out[N])
{
    const int group = f->info.n_heads / f->info.n_kv_heads;
    for (int from = 0, to; from < N; from = to) {
        const int a = (from / block + 1) * block, b = (from / chunk + 1) * chunk;
        to = a < b ? a : b;
        to = to < N ? to : N;
        for (int k = from; k < to; k++)
            out[k] = 0;
        for (int g = h * group; g < (h + 1) * group; g++)
            for (int q = from; q < to; q++) {
                const double *x = f->kq + (g * N + q) * N;
                double sum = 0;
                for (int k = from; k < to; k++)
                    sum += exp(f->scale * x[k]);
                for (int k = from; k < to; k++)
                    out[k] += exp(f->scale * x[k]) / sum;
            }
    }
}

/* Live slots of a plane against the oracle. */
static void equals(const fixture *f, const kept_seq *s, int block, int chunk, double bound)
{
    double worst = 0, spread = 0;
    for (int h = 0; h < f->info.n_kv_heads; h++) {
        double want[N];
        float x[CAP];
        int32_t pos[CAP];
        naive(f, h, block, chunk, want);
        const int n = kept_seq_plane(s, f->layer, h, LOCAL(block), x, CAP);
        CHECK(n > 0 && kept_seq_positions(s, f->layer, h, pos, CAP) == n);
        for (int i = 0; i < n; i++) {
            worst = fmax(worst, fabs((double)x[i] - want[pos[i]]) / fmax(1, want[pos[i]]));
            spread = fmax(spread, fabs(want[pos[i]] * f->info.n_kv_heads / f->info.n_heads - 1));
        }
    }
    CHECK_NEAR(worst, 0, bound);
    CHECK(spread > 0.1); /* uniform attention would say nothing */
}

/* ---- cases -------------------------------------------------------------------------------------
 */

static void equals_libllama(void)
{
    static const int chunks[] = {N, BLOCK, 50};
    for (int i = 0; i < N_SHAPES; i++)
        for (int c = 0; c < 3; c++) {
            const fixture *f = &fix[i];
            util_run r = start(f, 1);
            kept_seq *s = NULL;
            CHECK_INT(kept_seq_new(r.engine, NULL, &both, 1, &s, &r.err), KEPT_OK);
            CHECK_INT(util_prefill(&r, s, f->tokens, N, chunks[c], NULL), KEPT_OK);
            equals(f, s, BLOCK, chunks[c], 5e-3);
            equals(f, s, ALL, chunks[c], 5e-3);
            kept_seq_free(s);
            kept_engine_free(r.engine);
        }
}

/* From what the engine multiplied: libllama rounds queries to F16. */
static void equals_the_formula(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture f = fix[i];
        const int d = f.info.head_size, heads = f.info.n_heads, group = heads / f.info.n_kv_heads;
        util_run r = start(&f, 1);
        kept_capture cap = both;
        kept_seq *s = NULL;
        float *k = malloc((size_t)N * (size_t)d * sizeof *k);
        int32_t pos[N];
        cap.n_recent = N;
        CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 1, &s, &r.err), KEPT_OK);
        CHECK_INT(util_prefill(&r, s, f.tokens, N, N, NULL), KEPT_OK);
        for (f.layer = 0; f.layer < f.info.n_layers; f.layer++) {
            if (f.info.windowed[f.layer])
                continue;
            for (int h = 0; h < heads; h++) {
                kept_cache_read(s->cache, f.layer, h / group, pos, k, NULL);
                for (int a = 0; a < N; a++)
                    for (int b = 0; b < N; b++) {
                        const float *q = s->recent + ((f.layer * N + a) * heads + h) * d;
                        double sum = 0;
                        for (int c = 0; c < d; c++)
                            sum += (double)q[c] * (double)k[b * d + c];
                        f.kq[(h * N + a) * N + pos[b]] = sum;
                    }
            }
            f.scale = 1 / sqrt(d);
            equals(&f, s, BLOCK, N, 1e-5);
            equals(&f, s, ALL, N, 1e-5);
        }
        free(k);
        kept_seq_free(s);
        kept_engine_free(r.engine);
    }
}

/* Both planes of all heads of layers that are not windowed, in slot order; the tokens after N are
 * decoded. Returns the rows written. */
static int planes(const fixture *f, int threads, int chunk, bool busy, float *out)
{
    util_run r = start(f, threads);
    kept_capture cap = both;
    kept_seq *s = NULL, *other = NULL;
    int rows = 0;
    if (busy)
        CHECK_INT(
            kept_capture_add(
                &cap, (kept_plane){.kind = KEPT_PLANE_MASS, .window = 32, .split = true}, &r.err),
            KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, NULL, 1, &other, &r.err), KEPT_OK);
    for (int at = 0; at < N; at += chunk) {
        const int n = N - at < chunk ? N - at : chunk;
        const kept_item items[2] = {
            {.seq = other, .tokens = f->tokens, .n_tokens = 7, .prefill = true},
            {.seq = s, .tokens = f->tokens + at, .n_tokens = n, .prefill = true}};
        CHECK_INT(kept_engine_forward(r.engine, busy ? items : items + 1, 1 + busy, &r.err),
                  KEPT_OK);
    }
    for (int t = N; t < N + MORE; t++) {
        const kept_item it = {.seq = s, .tokens = f->tokens + t, .n_tokens = 1};
        CHECK_INT(kept_engine_forward(r.engine, &it, 1, &r.err), KEPT_OK);
    }
    for (int l = 0; l < f->info.n_layers; l++)
        for (int i = 0; i < 2 * f->info.n_kv_heads; i++) {
            float *x = out + rows * CAP;
            const int n = kept_seq_plane(s, l, i / 2, both.plane[i % 2], x, CAP);
            for (int k = 0; k < n && f->info.windowed[l]; k++)
                CHECK(x[k] == 0);
            CHECK(f->info.windowed[l] ? n < CAP : n == CAP);
            rows += !f->info.windowed[l];
        }
    kept_seq_free(other);
    kept_seq_free(s);
    kept_engine_free(r.engine);
    return rows;
}

static void same_whoever_computes(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        const fixture *f = &fix[i];
        const int group = f->info.n_heads / f->info.n_kv_heads;
        const int most = 2 * f->info.n_layers * f->info.n_kv_heads;
        float *a = malloc((size_t)most * CAP * sizeof *a), *b = malloc(sizeof *a * CAP * most);
        const int rows = planes(f, 1, N, false, a);
        CHECK_INT(planes(f, 3, N, true, b), rows);
        CHECK(!memcmp(a, b, (size_t)rows * CAP * sizeof *a));
        planes(f, 1, 2 * BLOCK, true, b);
        for (int r = 0; r < rows; r += 2) /* the plane whose blocks these chunks leave whole */
            CHECK(!memcmp(a + r * CAP, b + r * CAP, N * sizeof *a));
        for (int r = 0; r < rows; r++) {
            double sum = 0;
            for (int t = 0; t < CAP; t++) {
                sum += (double)a[r * CAP + t];
                CHECK(t < N || a[r * CAP + t] == (float)group);
            }
            CHECK_NEAR(sum, CAP * group, 1e-2);
        }
        free(a);
        free(b);
    }
}

/* Chunks that are cut leave slots out of step with pages. What layer 0 multiplies depends on the
 * tokens alone, so the oracle holds there. */
static void slots_out_of_step(void)
{
    fixture *f = &fix[0];
    util_run r = start(f, 1);
    kept_strategy *st = NULL;
    kept_seq *s = NULL;
    const int back = f->layer;
    look_at(f, 0);
    CHECK_INT(kept_strategy_parse("non-causal(block=48)+protect(sinks=1,recent=2)+chunks@37", &st,
                                  &r.err),
              KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, st, &both, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, BLOCK, NULL), KEPT_OK);
    int32_t pos[CAP];
    CHECK_INT(kept_seq_positions(s, 0, 0, pos, CAP), 37);
    equals(f, s, BLOCK, BLOCK, 5e-3);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
    look_at(f, back);
}

static void forks_and_strategies(void)
{
    fixture *f = &fix[0];
    util_run r = start(f, 1);
    kept_strategy *st = NULL;
    kept_seq *s = NULL, *fork = NULL;
    int32_t pos[CAP];
    CHECK_INT(kept_strategy_parse("compactorkv@40", &st, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, &(kept_capture){0}, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, N, NULL), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, st, NULL, 1, &fork, &r.err), KEPT_ARGUMENT);
    kept_seq_free(s);
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, f->tokens, N, N, NULL), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, st, NULL, 1, &fork, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(fork, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_positions(s, 1, 0, pos, CAP), N);
    CHECK_INT(kept_seq_positions(fork, 1, 0, pos, CAP), 40);
    kept_seq_free(fork);
    kept_seq_free(s);
    for (int window = -1; window < 1; window++) {
        const kept_capture bad = {.n_planes = 1, .plane = {LOCAL(window)}};
        CHECK_INT(kept_seq_new(r.engine, NULL, &bad, 1, &s, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, "block"));
    }
    kept_strategy_free(st);
    kept_engine_free(r.engine);
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
        f->tokens = util_tokens(N + MORE, f->info.n_vocab, 7);
        f->kq = calloc((size_t)f->info.n_heads * N * N, sizeof *f->kq);
        f->scale = i == 2 ? 1 : 1 / sqrt(f->info.head_size); /* gemma3 scales its queries */
        look_at(f, i == 2 ? 5 : 1);
    }
    RUN(equals_libllama);
    RUN(equals_the_formula);
    RUN(same_whoever_computes);
    RUN(slots_out_of_step);
    RUN(forks_and_strategies);
    for (int i = 0; i < N_SHAPES; i++) {
        unlink(fix[i].path);
        free(fix[i].path);
        free(fix[i].tokens);
        free(fix[i].kq);
        kept_model_free(fix[i].model);
    }
    TEST_END();
}
