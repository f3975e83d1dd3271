/* test_echo: planes that look ahead. Foresee and echo against libllama's own probabilities of the
 * same tokens, against really reading them, and against what must not change. */
#include "engine_util.h"
#include "kern/kern.h"
#include "mkgguf.h"
#include "model/ahead.h"
#include "test.h"

#include <limits.h>
#include <unistd.h>

#define MASS(n)    ((kept_plane){.kind = KEPT_PLANE_MASS, .window = (n)})
#define KIND(k)    ((kept_plane){.kind = KEPT_PLANE_##k})
#define CAP1(a)    (&(kept_capture){.n_planes = 1, .plane = {a}})
#define CAP2(a, b) (&(kept_capture){.n_planes = 2, .plane = {a, b}})

enum { N = 150, ROOM = 512, N_SHAPES = 3 };

typedef struct fixture {
    char *path;
    kept_model *model;
    kept_model_info info;
    int32_t *tokens; /* [ROOM] */
    int layer;       /* the one that is looked at: not windowed */
} fixture;

static fixture fix[N_SHAPES];

static mkgguf_spec shape(int i)
{
    static const char *const arch[N_SHAPES] = {"llama", "qwen3", "gemma3"};
    static const int heads[N_SHAPES][3] = {{6, 2, 64}, {3, 3, 128}, {4, 1, 256}};
    mkgguf_spec s = mkgguf_default(arch[i]);
    s.n_layers = i == 2 ? 7 : 3;
    s.n_embd = 192;
    s.n_ff = 256;
    s.n_heads = heads[i][0];
    s.n_kv_heads = heads[i][1];
    s.head_size = heads[i][2];
    s.type = GGML_TYPE_F32;
    s.seed = (uint64_t)i + 1;
    s.sliding_window = i == 2 ? 64 : 0;
    return s;
}

static util_run start(const fixture *f, int threads, int max_tokens, int pages)
{
    util_run r = {.n_vocab = f->info.n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = max_tokens,
                             .max_batch_tokens = 96, /* several passes, the last one of any size */
                             .max_seqs = 8,
                             .pool_bytes = (size_t)(f->info.n_layers * f->info.n_kv_heads * pages) *
                                           kept_page_bytes(f->info.head_size)};
    if (kept_engine_new(f->model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static kept_seq *prefilled(util_run *r, const fixture *f, const kept_strategy *st,
                           const kept_capture *cap)
{
    kept_seq *s = NULL;
    if (kept_seq_new(r->engine, st, cap, 1, &s, &r->err) ||
        util_prefill(r, s, f->tokens, N, 96, NULL)) {
        fprintf(stderr, "sequence: %s\n", r->err.text);
        exit(1);
    }
    return s;
}

static kept_strategy *strategy(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err;
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

static size_t free_pages(const util_run *r)
{
    kept_pool_account a;
    kept_engine_pool(r->engine, &a);
    return a.n_free_pages;
}

static uint64_t passes(const util_run *r)
{
    kept_engine_times t;
    kept_engine_get_times(r->engine, &t);
    return t.n_forwards;
}

/* The plane in order of position, [N]; positions that are gone are -1. */
static void plane_of(const kept_seq *s, int layer, int h, kept_plane p, float *out)
{
    float x[ROOM];
    int32_t pos[ROOM];
    const int n = kept_seq_plane(s, layer, h, p, x, ROOM);
    CHECK_INT(kept_seq_positions(s, layer, h, pos, ROOM), n);
    for (int i = 0; i < N; i++)
        out[i] = -1;
    for (int i = 0; i < n; i++)
        if (pos[i] < N)
            out[pos[i]] = x[i];
}

/* ---- libllama's view --------------------------------------------------------------------------
 */

typedef struct probe {
    const fixture *f;
    double *sum, *top, *plus; /* [n_kv][N] over queries from N on */
    double length[ROOM];      /* of the layer's input */
} probe;

static void see_probs(probe *p, const struct ggml_tensor *t)
{
    const int group = p->f->info.n_heads / p->f->info.n_kv_heads;
    for (int h = 0; h < p->f->info.n_heads; h++)
        for (int q = N; q < (int)t->ne[1]; q++)
            for (int k = 0; k < N; k++) {
                const double x =
                    (double)*(const float *)((const char *)t->data + (size_t)h * t->nb[2] +
                                             (size_t)q * t->nb[1] + (size_t)k * 4);
                const int i = h / group * N + k;
                p->sum[i] += x;
                p->top[i] = fmax(p->top[i], x);
                p->plus[i] = fmax(p->plus[i], x / p->length[q]);
            }
}

static bool on_node(struct ggml_tensor *t, bool ask, void *ctx)
{
    probe *p = ctx;
    char probs[32], input[32];
    snprintf(probs, sizeof probs, "kq_soft_max-%d", p->f->layer);
    snprintf(input, sizeof input, "l_out-%d", p->f->layer - 1);
    const bool is_probs = !strcmp(t->name, probs), is_input = !strcmp(t->name, input);
    if (ask || t->ne[1] <= N || !(is_probs || is_input))
        return is_probs || is_input;
    if (is_probs)
        see_probs(p, t);
    for (int q = 0; is_input && q < (int)t->ne[1]; q++) {
        const char *x = (const char *)t->data + (size_t)q * t->nb[1];
        double sum = 0;
        for (int i = 0; i < p->f->info.n_embd; i++)
            sum += pow((double)((const float *)(const void *)x)[i], 2);
        p->length[q] = sqrt(sum);
    }
    return true;
}

static probe probe_new(const fixture *f)
{
    const size_t n = (size_t)f->info.n_kv_heads * N;
    return (probe){.f = f,
                   .sum = calloc(n, sizeof(double)),
                   .top = calloc(n, sizeof(double)),
                   .plus = calloc(n, sizeof(double))};
}

static void probe_free(probe *p)
{
    free(p->sum), free(p->top), free(p->plus);
}

/* Runs context and n more tokens, in one batch, through libllama; p gathers. */
static void ask_llama(probe *p, const int32_t *more, int n)
{
    const fixture *f = p->f;
    int32_t all[ROOM];
    memcpy(all, f->tokens, N * sizeof *all);
    memcpy(all + N, more, (size_t)n * sizeof *all);
    struct llama_model *m = llama_model_load_from_file(f->path, llama_model_default_params());
    float *logits = malloc((size_t)(N + n) * (size_t)f->info.n_vocab * sizeof *logits);
    CHECK(m && util_llama(m, all, N + n, N + n, false, on_node, p, logits));
    free(logits);
    llama_model_free(m);
}

/* ---- foresee -----------------------------------------------------------------------------------
 */

static void foresee_equals_libllama(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        const fixture *f = &fix[i];
        util_run r = start(f, 2, ROOM, 64);
        kept_seq *s = prefilled(&r, f, NULL, CAP1(KIND(FUTURE)));
        probe p = probe_new(f);
        ask_llama(&p, f->tokens + N, 97); /* the last pass has one token */
        CHECK_INT(kept_seq_foresee(s, f->tokens + N, 97, &r.err), KEPT_OK);
        for (int h = 0; h < f->info.n_kv_heads; h++) {
            float x[N];
            double off = 0, all = 0;
            plane_of(s, f->layer, h, KIND(FUTURE), x);
            for (int k = 0; k < N; k++) {
                off += fabs((double)x[k] - p.sum[h * N + k]);
                all += p.sum[h * N + k];
            }
            CHECK(off <= 3e-3 * all && all > 1);
        }
        /* Again: filled anew, not added to. */
        float a[N], b[N];
        plane_of(s, f->layer, 0, KIND(FUTURE), a);
        CHECK_INT(kept_seq_foresee(s, f->tokens + N, 97, &r.err), KEPT_OK);
        plane_of(s, f->layer, 0, KIND(FUTURE), b);
        CHECK(!memcmp(a, b, sizeof a));
        probe_free(&p);
        kept_seq_free(s);
        kept_engine_free(r.engine);
    }
}

/* The same queries, read for real by a fork. */
static void foresee_equals_reading(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 2, ROOM, 64);
    kept_seq *s = prefilled(&r, f, NULL, CAP2(MASS(INT_MAX), KIND(FUTURE))), *fork = NULL;
    float before[N], after[N], future[N];
    CHECK_INT(kept_seq_foresee(s, f->tokens + N, 40, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, NULL, CAP1(MASS(INT_MAX)), 1, &fork, &r.err), KEPT_OK);
    plane_of(fork, f->layer, 1, MASS(INT_MAX), before);
    CHECK_INT(util_prefill(&r, fork, f->tokens + N, 40, 40, NULL), KEPT_OK);
    plane_of(fork, f->layer, 1, MASS(INT_MAX), after);
    plane_of(s, f->layer, 1, KIND(FUTURE), future);
    for (int k = 0; k < N; k++)
        CHECK_NEAR(after[k] - before[k], future[k], 2e-5 * after[k] + 1e-6);
    kept_seq_free(fork);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

static void oracle_keeps_what_is_used(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 1, ROOM, 64);
    kept_strategy *st = strategy("oracle+protect(sinks=0,recent=0)@40%");
    kept_seq *s = prefilled(&r, f, st, NULL);
    CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "foresee"));
    CHECK_INT(kept_seq_positions(s, 0, 0, NULL, 0), N);
    CHECK_INT(kept_seq_foresee(s, f->tokens + N, 30, &r.err), KEPT_OK);
    float x[N], left[N];
    kept_seq *twin = NULL;
    CHECK_INT(kept_seq_fork(s, st, CAP1(KIND(FUTURE)), 1, &twin, &r.err), KEPT_OK);
    plane_of(s, 1, 1, KIND(FUTURE), x);
    CHECK_INT(kept_seq_end_prefill(twin, &r.err), KEPT_OK); /* a fork knows what s foresaw */
    plane_of(twin, 1, 1, KIND(FUTURE), left);
    double worst = INFINITY, best = 0;
    for (int k = 0; k < N; k++)
        if (left[k] >= 0)
            worst = fmin(worst, x[k]);
        else
            best = fmax(best, x[k]);
    CHECK(worst >= best && best > 0);
    kept_seq_free(twin);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* ---- echo --------------------------------------------------------------------------------------
 */

/* Planes of s against libllama's probabilities of the same repetitions. */
static void check_echo(const fixture *f, const kept_seq *s, int chunk)
{
    probe p = probe_new(f);
    for (int at = 0; at < N; at += chunk) {
        int32_t more[ROOM];
        const int end = at + chunk < N ? at + chunk : N;
        const int n = kept_echo_tokens(s, at, end, more, ROOM);
        CHECK(n > end - at && N + n <= ROOM);
        ask_llama(&p, more, n);
    }
    for (int h = 0; h < f->info.n_kv_heads; h++) {
        float a[N], b[N];
        plane_of(s, f->layer, h, KIND(ECHO), a);
        plane_of(s, f->layer, h, KIND(ECHO_PLUS), b);
        double high = 0;
        for (int k = 0; k < N; k++) {
            CHECK_NEAR(a[k], p.top[h * N + k], 1e-2 * p.top[h * N + k] + 1e-4);
            CHECK_NEAR(b[k], p.plus[h * N + k], 1e-2 * p.plus[h * N + k] + 1e-4 / p.length[N]);
            high = fmax(high, p.top[h * N + k]);
        }
        CHECK(high > 0.02);
    }
    probe_free(&p);
}

static void echo_equals_libllama(void)
{
    static const int chunks[] = {KEPT_ECHO_CHUNK, 64};
    for (int i = 0; i < N_SHAPES; i++)
        for (int c = 0; c < 2; c++) {
            const fixture *f = &fix[i];
            util_run r = start(f, 2, ROOM, 64);
            kept_seq *s = prefilled(&r, f, NULL, CAP2(KIND(ECHO), KIND(ECHO_PLUS)));
            const size_t pages = free_pages(&r);
            CHECK_INT(kept_seq_echo_by(s, chunks[c], &r.err), KEPT_OK);
            CHECK_INT(free_pages(&r), pages);
            check_echo(f, s, chunks[c]);
            kept_seq_free(s);
            kept_engine_free(r.engine);
        }
}

/* What a repetition consists of: a request, the last tokens before the chunk, the chunk. */
static void echo_asks_for_the_chunk(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 1, ROOM, 64);
    kept_seq *s = prefilled(&r, f, NULL, CAP1(KIND(ECHO)));
    int32_t a[ROOM];
    const int n = kept_echo_tokens(s, 64, 128, a, ROOM);
    CHECK(n > 64 + KEPT_ECHO_TAIL);
    CHECK(!memcmp(a + n - 64 - KEPT_ECHO_TAIL, f->tokens + 64 - KEPT_ECHO_TAIL,
                  (64 + KEPT_ECHO_TAIL) * sizeof *a));
    char text[400];
    kept_detokenize(f->model, a, n - 64 - KEPT_ECHO_TAIL, false, text, sizeof text);
    CHECK(strstr(text, "Repeat the part of the previous context"));
    CHECK_INT(kept_echo_tokens(s, 64, 128, a, 3), n);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

/* An evicted sequence whose keys have one query head each: decoding the repetition token by token
 * shows every query's probabilities in a plane of window 1. */
static void echo_of_an_evicted_sequence(void)
{
    const fixture *f = &fix[1];
    util_run r = start(f, 2, ROOM, 64);
    kept_strategy *st = strategy("knorm+ada@50%");
    kept_seq *s = prefilled(&r, f, st, CAP2(MASS(1), KIND(ECHO))), *fork = NULL;
    CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_echo(s, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_fork(s, NULL, CAP1(MASS(1)), 1, &fork, &r.err), KEPT_OK);
    int32_t more[ROOM];
    const int n = kept_echo_tokens(s, 0, N, more, ROOM);
    float top[3][N] = {{0}}, x[N];
    float *logits = malloc((size_t)f->info.n_vocab * sizeof *logits);
    for (int t = 0; t < n; t++) {
        CHECK_INT(util_decode(&r, fork, more + t, 1, logits), KEPT_OK);
        for (int h = 0; h < 3; h++) {
            plane_of(fork, f->layer, h, MASS(1), x);
            for (int k = 0; k < N; k++)
                top[h][k] = fmaxf(top[h][k], x[k]);
        }
    }
    int gone = 0;
    for (int h = 0; h < 3; h++) {
        plane_of(s, f->layer, h, KIND(ECHO), x);
        for (int k = 0; k < N; k++) {
            gone += x[k] < 0;
            CHECK_NEAR(fmaxf(x[k], 0), top[h][k], 2e-3 * top[h][k] + 1e-5);
        }
    }
    CHECK(gone > N);
    free(logits);
    kept_seq_free(fork);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void echo_changes_nothing_else(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        const fixture *f = &fix[i];
        util_run r = start(f, 2, ROOM, 64);
        const kept_capture *cap =
            &(kept_capture){.n_planes = 3, .plane = {MASS(32), KIND(FUTURE), KIND(ECHO)}};
        kept_seq *s = prefilled(&r, f, NULL, cap), *twin = prefilled(&r, f, NULL, cap);
        const size_t size = 20 * (size_t)f->info.n_vocab * sizeof(float), pages = free_pages(&r);
        float *a = malloc(size), *b = malloc(size);
        kept_account before, after;
        kept_seq_account(s, &before);
        CHECK_INT(kept_seq_echo_by(s, 64, &r.err), KEPT_OK);
        CHECK_INT(kept_seq_foresee(s, f->tokens + N, 20, &r.err), KEPT_OK);
        kept_seq_account(s, &after);
        CHECK_INT(free_pages(&r), pages);
        CHECK_INT(after.kv_bytes, before.kv_bytes);
        CHECK_INT(after.meta_bytes, before.meta_bytes);
        CHECK(after.byte_steps == before.byte_steps && after.n_evicted == before.n_evicted);
        CHECK(after.score_ns > before.score_ns);
        CHECK(after.peak_bytes > before.peak_bytes); /* what the repetition held meanwhile */
        CHECK_INT(kept_seq_n_tokens(s), N);
        CHECK_INT(util_prefill(&r, s, f->tokens + N, 20, 20, a), KEPT_OK);
        CHECK_INT(util_prefill(&r, twin, f->tokens + N, 20, 20, b), KEPT_OK);
        CHECK(!memcmp(a, b, size));
        float x[ROOM], y[ROOM];
        CHECK_INT(kept_seq_plane(s, f->layer, 0, MASS(32), x, ROOM),
                  kept_seq_plane(twin, f->layer, 0, MASS(32), y, ROOM));
        CHECK(!memcmp(x, y, (N + 20) * sizeof *x));
        free(a), free(b);
        kept_seq_free(s);
        kept_seq_free(twin);
        kept_engine_free(r.engine);
    }
}

static void forks_share_the_echo(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 2, ROOM, 64);
    kept_strategy *st = strategy("kvzip+global@30%");
    kept_capture cap = {0};
    CHECK_INT(kept_capture_union((const kept_strategy *const *)&st, 1, &cap, &r.err), KEPT_OK);
    kept_seq *base = prefilled(&r, f, NULL, &cap), *a = NULL, *b = NULL;
    CHECK_INT(kept_seq_fork(base, st, NULL, 1, &a, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_echo(base, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_fork(base, st, NULL, 1, &b, &r.err), KEPT_OK);
    const uint64_t before = passes(&r);
    CHECK_INT(kept_seq_end_prefill(b, &r.err), KEPT_OK);
    CHECK_INT(passes(&r), before); /* knows what base found out */
    CHECK_INT(kept_seq_end_prefill(a, &r.err), KEPT_OK);
    CHECK(passes(&r) > before); /* finds it out itself */
    kept_account x, y, z;
    kept_seq_account(base, &x);
    kept_seq_account(a, &y);
    kept_seq_account(b, &z);
    CHECK(z.score_ns >= x.score_ns && x.score_ns > 0);
    CHECK_INT(y.peak_bytes, z.peak_bytes);
    for (int l = 0; l < f->info.n_layers; l++)
        for (int h = 0; h < f->info.n_kv_heads; h++) {
            int32_t p[ROOM], q[ROOM];
            const int n = kept_seq_positions(a, l, h, p, ROOM);
            CHECK_INT(kept_seq_positions(b, l, h, q, ROOM), n);
            CHECK(n <= N && !memcmp(p, q, (size_t)n * sizeof *p));
        }
    kept_seq_free(a);
    kept_seq_free(b);
    kept_seq_free(base);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void threads_do_not_matter(void)
{
    float x[2][3][2][N];
    for (int t = 0; t < 2; t++) {
        util_run r = start(&fix[0], t + 1, ROOM, 64);
        kept_seq *s = prefilled(
            &r, &fix[0], NULL,
            &(kept_capture){.n_planes = 3, .plane = {KIND(FUTURE), KIND(ECHO), KIND(ECHO_PLUS)}});
        CHECK_INT(kept_seq_echo_by(s, 64, &r.err), KEPT_OK);
        CHECK_INT(kept_seq_foresee(s, fix[0].tokens, 50, &r.err), KEPT_OK);
        for (int h = 0; h < 2; h++) {
            plane_of(s, 2, h, KIND(FUTURE), x[t][0][h]);
            plane_of(s, 2, h, KIND(ECHO), x[t][1][h]);
            plane_of(s, 2, h, KIND(ECHO_PLUS), x[t][2][h]);
        }
        kept_seq_free(s);
        kept_engine_free(r.engine);
    }
    CHECK(!memcmp(x[0], x[1], sizeof x[0]));
}

/* ---- limits ------------------------------------------------------------------------------------
 */

static void full_pool_changes_nothing(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 1, ROOM, 5); /* a copied page and 170 tokens */
    kept_seq *s = prefilled(&r, f, NULL, CAP2(KIND(FUTURE), KIND(ECHO)));
    const size_t pages = free_pages(&r);
    CHECK_INT(kept_seq_echo(s, &r.err), KEPT_FULL);
    CHECK_INT(kept_seq_foresee(s, f->tokens, 200, &r.err), KEPT_FULL);
    CHECK_INT(free_pages(&r), pages);
    CHECK_INT(kept_seq_n_tokens(s), N);
    CHECK_INT(kept_seq_echo_by(s, 20, &r.err), KEPT_OK); /* smaller pieces fit */
    CHECK_INT(util_prefill(&r, s, f->tokens + N, 20, 20, NULL), KEPT_OK);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

static void what_cannot_be_is_refused(void)
{
    const fixture *f = &fix[0];
    util_run r = start(f, 1, 256, 64);
    kept_seq *s = prefilled(&r, f, NULL, CAP2(KIND(FUTURE), KIND(ECHO))), *plain = NULL;
    CHECK_INT(kept_seq_echo(s, &r.err), KEPT_ARGUMENT);
    const char *least = strstr(r.err.text, "at least ");
    CHECK(least && atoi(least + 9) > 2 * N);
    CHECK_INT(kept_seq_foresee(s, f->tokens, 107, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_foresee(s, f->tokens, -1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_foresee(s, (const int32_t[]){-5}, 1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_new(r.engine, NULL, NULL, 1, &plain, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_echo(plain, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_foresee(plain, f->tokens, 1, &r.err), KEPT_ARGUMENT);
    static const char *const early[] = {"kvzip+chunks@50%", "kvzip+layers@50%",
                                        "oracle+pressure@9"};
    for (size_t i = 0; i < sizeof early / sizeof *early; i++) {
        kept_strategy *no = NULL;
        CHECK_INT(kept_strategy_parse(early[i], &no, &r.err), KEPT_ARGUMENT);
        CHECK(strstr(r.err.text, "whole prompt"));
    }
    kept_seq_free(plain);
    kept_seq_free(s);
    if (least) { /* exactly what the line asks for */
        util_run q = start(f, 1, atoi(least + 9), 64);
        s = prefilled(&q, f, NULL, CAP1(KIND(ECHO)));
        CHECK_INT(kept_seq_echo(s, &q.err), KEPT_OK);
        kept_seq_free(s);
        kept_engine_free(q.engine);
    }
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
        f->tokens = util_tokens(ROOM, f->info.n_vocab, 7);
        f->layer = i == 2 ? 5 : 1;
    }
    RUN(foresee_equals_libllama);
    RUN(foresee_equals_reading);
    RUN(oracle_keeps_what_is_used);
    RUN(echo_equals_libllama);
    RUN(echo_asks_for_the_chunk);
    RUN(echo_of_an_evicted_sequence);
    RUN(echo_changes_nothing_else);
    RUN(forks_share_the_echo);
    RUN(threads_do_not_matter);
    RUN(full_pool_changes_nothing);
    RUN(what_cannot_be_is_refused);
    for (int i = 0; i < N_SHAPES; i++) {
        unlink(fix[i].path);
        free(fix[i].path);
        free(fix[i].tokens);
        kept_model_free(fix[i].model);
    }
    TEST_END();
}
