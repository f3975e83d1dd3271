/* test_engine: the forward pass against libllama on random models of all four architectures, and
 * against itself: decode against prefill, chunk sizes, threads, neighbours in a batch. */
#include "engine_util.h"
#include "kern/kern.h"
#include "mkgguf.h"
#include "test.h"

#include <limits.h>
#include <unistd.h>

#define MASS(n) ((kept_plane){.kind = KEPT_PLANE_MASS, .window = (n)})

enum { N_PREFILL = 200, N_ALL = 240, N_SHAPES = 5 };

typedef struct fixture {
    char *path;
    kept_model *model;
    kept_model_info info;
    int32_t *tokens; /* [N_ALL] */
    float *own;      /* [N_ALL][n_vocab] prefill of all tokens in one chunk, one thread */
} fixture;

static fixture fix[N_SHAPES];

static mkgguf_spec shape(int i)
{
    static const char *const arch[N_SHAPES] = {"llama", "qwen2", "qwen3", "gemma3", "llama"};
    static const int heads[N_SHAPES][3] = {
        {8, 2, 64}, {6, 2, 80}, {4, 4, 128}, {4, 1, 256}, {9, 3, 96}};
    mkgguf_spec s = mkgguf_default(arch[i]);
    s.n_layers = i == 3 ? 7 : 4;
    s.n_embd = i == 1 ? 480 : 256; /* libllama wants heads * head size there */
    s.n_ff = 512;
    s.n_heads = heads[i][0];
    s.n_kv_heads = heads[i][1];
    s.head_size = heads[i][2];
    s.type = i == 1 || i == 4 ? GGML_TYPE_F16 : GGML_TYPE_F32;
    s.seed = (uint64_t)i + 1;
    s.sliding_window = i == 3 ? 64 : 0;
    s.rope_factors = i == 4;
    return s;
}

/* Kernel level of the engines: KEPT_ISA, NULL: the best. */
static const char *isa;

static util_run start(const fixture *f, int threads, int max_seqs)
{
    util_run r = {.n_vocab = f->info.n_vocab};
    kept_engine_options o = {.n_threads = threads,
                             .max_tokens = 1024,
                             .max_batch_tokens = 512,
                             .max_seqs = max_seqs,
                             .isa = isa,
                             .pool_bytes = (size_t)128 << 20};
    if (kept_engine_new(f->model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static kept_seq *new_seq(util_run *r, const kept_capture *capture)
{
    kept_seq *s = NULL;
    if (kept_seq_new(r->engine, NULL, capture, 1, &s, &r->err)) {
        fprintf(stderr, "sequence: %s\n", r->err.text);
        exit(1);
    }
    return s;
}

static float *rows(const fixture *f, int n)
{
    return malloc((size_t)n * (size_t)f->info.n_vocab * sizeof(float));
}

static bool same(const float *a, const float *b, const fixture *f, int n)
{
    return memcmp(a, b, (size_t)n * (size_t)f->info.n_vocab * sizeof *a) == 0;
}

/* Prefill of all tokens with these settings. */
static float *run_prefill(const fixture *f, int threads, int chunk)
{
    util_run r = start(f, threads, 4);
    kept_seq *s = new_seq(&r, NULL);
    float *out = rows(f, N_ALL);
    CHECK_INT(util_prefill(&r, s, f->tokens, N_ALL, chunk, out), KEPT_OK);
    kept_seq_free(s);
    kept_engine_free(r.engine);
    return out;
}

/* Bounds. F32 weights: the reference measured 7e-5 rms, 7e-4 at most. F16 weights: ggml rounds
 * activations to F16 as well, which alone is about 1e-3 rms on four random layers, for libllama
 * against itself too. */
static double rms_bound(const fixture *f)
{
    return shape((int)(f - fix)).type == GGML_TYPE_F32 ? 3e-4 : 2e-3;
}

/* libllama's own half-precision accumulation sets what "equal" can mean: its prefill (tiled flash
 * attention, F32 accumulation) is compared to 2e-3; its decode has 0.5-1 % of noise with flash
 * attention on and less with it off, so it is only a sanity bound. */
static void equals_libllama(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        struct llama_model *m = llama_model_load_from_file(f->path, llama_model_default_params());
        float *ref = rows(f, N_ALL);
        CHECK(m && util_llama(m, f->tokens, N_PREFILL, N_ALL, true, NULL, NULL, ref));
        const util_diff d = util_compare(ref, f->own, N_PREFILL, f->info.n_vocab);
        const size_t at = (size_t)N_PREFILL * (size_t)f->info.n_vocab;
        CHECK(m && util_llama(m, f->tokens, N_PREFILL, N_ALL, false, NULL, NULL, ref));
        const util_diff g = util_compare(ref + at, f->own + at, N_ALL - N_PREFILL, f->info.n_vocab);
        printf("# %s D=%d: prefill max %.2g rms %.2g argmax %d/%d; decode max %.2g rms %.2g "
               "argmax %d/%d\n",
               f->info.arch, f->info.head_size, d.max_abs, d.rel_rms, d.same_argmax, d.n, g.max_abs,
               g.rel_rms, g.same_argmax, g.n);
        CHECK(d.max_abs <= (shape(i).type == GGML_TYPE_F32 ? 2e-3 : 1e-2));
        CHECK(d.rel_rms <= rms_bound(f));
        CHECK(d.worst_gap <= 2 * d.max_abs);
        CHECK(g.rel_rms <= 6e-3);
        CHECK(g.worst_gap <= 2 * g.max_abs);
        free(ref);
        llama_model_free(m);
    }
}

static void decode_equals_prefill(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        util_run r = start(f, 1, 4);
        kept_seq *s = new_seq(&r, NULL);
        const size_t at = (size_t)N_PREFILL * (size_t)f->info.n_vocab;
        float *out = rows(f, N_ALL - N_PREFILL);
        CHECK_INT(util_prefill(&r, s, f->tokens, N_PREFILL, N_PREFILL, NULL), KEPT_OK);
        CHECK_INT(util_decode(&r, s, f->tokens + N_PREFILL, N_ALL - N_PREFILL, out), KEPT_OK);
        const util_diff d = util_compare(f->own + at, out, N_ALL - N_PREFILL, f->info.n_vocab);
        printf("# %s: decode against prefill max %.2g rms %.2g%s\n", f->info.arch, d.max_abs,
               d.rel_rms, same(f->own + at, out, f, N_ALL - N_PREFILL) ? " (bit-identical)" : "");
        CHECK(d.rel_rms <= rms_bound(f));
        CHECK(d.worst_gap <= 2 * d.max_abs);
        free(out);
        kept_seq_free(s);
        kept_engine_free(r.engine);
    }
}

static void threads_do_not_matter(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        float *two = run_prefill(&fix[i], 2, N_ALL);
        CHECK(same(fix[i].own, two, &fix[i], N_ALL));
        free(two);
    }
}

/* Chunks of two and more tokens: bit-identical. A batch of one token is a matrix-vector product in
 * ggml (vec_dot instead of the tiled sgemm), which adds in another order: equal within rounding. */
static void chunks_do_not_matter(void)
{
    static const int chunk[] = {128, 63, 64, 37, 5, 2, 1};
    for (int i = 0; i < N_SHAPES; i++)
        for (size_t c = 0; c < sizeof chunk / sizeof *chunk; c++) {
            float *out = run_prefill(&fix[i], 1, chunk[c]);
            const util_diff d = util_compare(fix[i].own, out, N_ALL, fix[i].info.n_vocab);
            const bool bits = same(fix[i].own, out, &fix[i], N_ALL);
            if (!bits)
                printf("# %s: chunk %d differs from one chunk: max %.2g rms %.2g\n",
                       fix[i].info.arch, chunk[c], d.max_abs, d.rel_rms);
            CHECK(bits || chunk[c] == 1 || N_ALL % chunk[c] == 1);
            CHECK(d.rel_rms <= rms_bound(&fix[i]));
            free(out);
        }
}

/* Every kernel level this CPU has gives the same function. */
static void levels_do_not_matter(void)
{
    const char *names[8], *const before = isa;
    const int n = kept_kern_levels(names, 8);
    for (int i = 0; i < N_SHAPES; i++)
        for (int l = 0; l < n; l++) {
            isa = names[l];
            float *out = run_prefill(&fix[i], 2, N_ALL);
            const util_diff d = util_compare(fix[i].own, out, N_ALL, fix[i].info.n_vocab);
            CHECK(d.rel_rms <= rms_bound(&fix[i]));
            CHECK(d.worst_gap <= 2 * d.max_abs);
            free(out);
        }
    isa = before;
}

/* Three sequences of different length and phase in one batch against each alone. */
static void neighbours_do_not_matter(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        const int v = f->info.n_vocab;
        util_run r = start(f, 2, 4);
        kept_seq *s[3] = {new_seq(&r, NULL), new_seq(&r, NULL), new_seq(&r, NULL)};
        CHECK_INT(util_prefill(&r, s[0], f->tokens, 130, 130, NULL), KEPT_OK);
        CHECK_INT(util_prefill(&r, s[1], f->tokens, 50, 50, NULL), KEPT_OK);
        kept_item it[3] = {
            {.seq = s[0],
             .tokens = f->tokens + 130,
             .n_tokens = 20,
             .n_logits = 20,
             .prefill = true},
            {.seq = s[1], .tokens = f->tokens + 50, .n_tokens = 1, .n_logits = 1},
            {.seq = s[2], .tokens = f->tokens, .n_tokens = 70, .n_logits = 70, .prefill = true}};
        CHECK_INT(kept_engine_forward(r.engine, it, 3, &r.err), KEPT_OK);
        const float *out = kept_engine_logits(r.engine);
        CHECK(same(f->own + 130 * v, out, f, 20));
        CHECK(same(f->own + 50 * v, out + 20 * v, f, 1));
        CHECK(same(f->own, out + 21 * v, f, 70));
        for (int j = 0; j < 3; j++)
            kept_seq_free(s[j]);
        kept_engine_free(r.engine);
    }
}

/* ---- attention mass against libllama's own probabilities ---------------------------------------
 */

typedef struct probe {
    int layer, n_kv, group;
    double *sum; /* [n_kv][N_PREFILL] column sums, all queries */
    double *last;
} probe;

static bool on_node(struct ggml_tensor *t, bool ask, void *ctx)
{
    probe *p = ctx;
    char name[32];
    snprintf(name, sizeof name, "kq_soft_max-%d", p->layer);
    if (strcmp(t->name, name))
        return false;
    if (ask || t->ne[1] < N_PREFILL)
        return true;
    for (int h = 0; h < p->n_kv * p->group; h++)
        for (int q = 0; q < N_PREFILL; q++)
            for (int k = 0; k < N_PREFILL; k++) {
                const float *x = (const float *)((const char *)t->data + (size_t)h * t->nb[2] +
                                                 (size_t)q * t->nb[1]) +
                                 k;
                p->sum[h / p->group * N_PREFILL + k] += (double)*x;
                if (q == N_PREFILL - 1)
                    p->last[h / p->group * N_PREFILL + k] += (double)*x;
            }
    return true;
}

static double l1(const double *a, const float *b, int n)
{
    double d = 0;
    for (int i = 0; i < n; i++)
        d += fabs(a[i] - (double)b[i]);
    return d;
}

static void mass_equals_libllama(void)
{
    for (int i = 0; i < N_SHAPES; i++) {
        fixture *f = &fix[i];
        probe p = {.layer = i == 3 ? 5 : 1,
                   .n_kv = f->info.n_kv_heads,
                   .group = f->info.n_heads / f->info.n_kv_heads};
        p.sum = calloc((size_t)p.n_kv * N_PREFILL, sizeof(double));
        p.last = calloc((size_t)p.n_kv * N_PREFILL, sizeof(double));
        struct llama_model *m = llama_model_load_from_file(f->path, llama_model_default_params());
        float *ref = rows(f, N_PREFILL);
        CHECK(m && util_llama(m, f->tokens, N_PREFILL, N_PREFILL, false, on_node, &p, ref));
        util_run r = start(f, 2, 4);
        const kept_capture cap = {.n_planes = 3, .plane = {MASS(1), MASS(32), MASS(INT_MAX)}};
        kept_seq *s = new_seq(&r, &cap);
        CHECK_INT(util_prefill(&r, s, f->tokens, N_PREFILL, 77, NULL), KEPT_OK);
        float mass[N_PREFILL + 64];
        int32_t pos[N_PREFILL + 64];
        for (int h = 0; h < p.n_kv; h++) {
            const int n = kept_seq_plane(s, p.layer, h, MASS(INT_MAX), mass, N_PREFILL + 64);
            CHECK_INT(kept_seq_positions(s, p.layer, h, pos, N_PREFILL + 64), n);
            CHECK_INT(n, N_PREFILL);
            CHECK(l1(p.sum + h * N_PREFILL, mass, n) <= 2e-3 * N_PREFILL * p.group);
            CHECK_INT(kept_seq_plane(s, p.layer, h, MASS(1), mass, N_PREFILL + 64), n);
            for (int j = 0; j < n; j++)
                CHECK_NEAR(mass[j], p.last[h * N_PREFILL + pos[j]], 4e-3);
            double w = 0;
            kept_seq_plane(s, p.layer, h, MASS(32), mass, N_PREFILL + 64);
            for (int j = 0; j < n; j++)
                w += (double)mass[j];
            CHECK_NEAR(w, 32.0 * p.group, 0.05);
        }
        free(p.sum);
        free(p.last);
        free(ref);
        llama_model_free(m);
        kept_seq_free(s);
        kept_engine_free(r.engine);
    }
}

/* ---- limits -------------------------------------------------------------------------------------
 */

static void bad_batches_are_refused(void)
{
    fixture *f = &fix[0];
    util_run r = start(f, 1, 2);
    kept_seq *s = new_seq(&r, NULL);
    int32_t bad = f->info.n_vocab, fine = 3;
    kept_item twice[2] = {{.seq = s, .tokens = &fine, .n_tokens = 1},
                          {.seq = s, .tokens = &fine, .n_tokens = 1}};
    kept_item id = {.seq = s, .tokens = &bad, .n_tokens = 1};
    kept_item none = {.seq = s, .tokens = &fine, .n_tokens = 0};
    CHECK_INT(kept_engine_forward(r.engine, twice, 2, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_engine_forward(r.engine, &id, 1, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "token id"));
    CHECK_INT(kept_engine_forward(r.engine, &none, 1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_engine_forward(r.engine, twice, 0, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_n_tokens(s), 0);
    kept_seq_free(s);
    kept_engine_free(r.engine);
}

/* A pool for 64 tokens: the 65th token is refused, nothing changes, the sequence goes on living. */
static void full_pool_changes_nothing(void)
{
    fixture *f = &fix[0];
    const kept_model_info *i = &f->info;
    util_run r = {.n_vocab = i->n_vocab};
    kept_engine_options o = {.n_threads = 1,
                             .max_tokens = 1024,
                             .pool_bytes = (size_t)(i->n_layers * i->n_kv_heads) * 256 *
                                           (size_t)i->head_size};
    CHECK_INT(kept_engine_new(f->model, &o, &r.engine, &r.err), KEPT_OK);
    kept_seq *s = new_seq(&r, NULL);
    CHECK_INT(util_prefill(&r, s, f->tokens, 64, 64, NULL), KEPT_OK);
    kept_account before, after;
    kept_seq_account(s, &before);
    kept_item it = {.seq = s, .tokens = f->tokens, .n_tokens = 1};
    CHECK_INT(kept_engine_forward(r.engine, &it, 1, &r.err), KEPT_FULL);
    kept_seq_account(s, &after);
    CHECK_INT(kept_seq_n_tokens(s), 64);
    CHECK_INT(after.kv_bytes, before.kv_bytes);
    CHECK_INT(kept_seq_positions(s, 0, 0, NULL, 0), 64);
    kept_seq_free(s);
    kept_pool_account pool;
    kept_engine_pool(r.engine, &pool);
    CHECK_INT(pool.n_free_pages, pool.n_pages);
    kept_engine_free(r.engine);
}

int main(void)
{
    llama_backend_init();
    isa = getenv("KEPT_ISA");
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
        f->tokens = util_tokens(N_ALL, f->info.n_vocab, 7);
        f->own = run_prefill(f, 1, N_ALL);
    }
    RUN(equals_libllama);
    RUN(decode_equals_prefill);
    RUN(threads_do_not_matter);
    RUN(chunks_do_not_matter);
    RUN(levels_do_not_matter);
    RUN(neighbours_do_not_matter);
    RUN(mass_equals_libllama);
    RUN(bad_batches_are_refused);
    RUN(full_pool_changes_nothing);
    for (int i = 0; i < N_SHAPES; i++) {
        unlink(fix[i].path);
        free(fix[i].path);
        free(fix[i].tokens);
        free(fix[i].own);
        kept_model_free(fix[i].model);
    }
    TEST_END();
}
