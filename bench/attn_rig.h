/* attn_rig: what the attention benchmarks share: data, our pages in a shuffled pool, ggml's flash
 * attention over a cache of its own type and layout, attention in double, and bars. */
#ifndef BENCH_ATTN_RIG_H
#define BENCH_ATTN_RIG_H

#include "kern/kern.h"

#include <ggml-alloc.h>
#include <ggml-backend.h>
#include <ggml.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define HEADS      8
#define POOL_BYTES ((size_t)512 << 20)
#define MAX_ROUNDS 99
#define HUGE_PAGE  ((size_t)2 << 20)

struct setup {
    int D, G, slots, rounds, layers, strict;
    const kept_kern *kern;
    kept_codecs codec;   /* of the pages, set before make_ours */
    const kept_low *low; /* of all heads, where the pages' codec has a basis */
    const int32_t *pos;  /* [slots] positions, the same for all heads; NULL: not needed */
    enum ggml_type type; /* of ggml's cache */
    size_t layer_bytes;  /* of F16 K and V; there are layers for POOL_BYTES of the smallest side */
    float *q;            /* [HEADS*G][D], shared by all layers */
    kept_f16 *k, *v;     /* [slots][HEADS][D]: the data of every layer */
};

struct ours {
    uint8_t *pool;
    kept_codecs codec; /* of every page */
    size_t page;       /* bytes */
    float *k, *v;      /* [slots][HEADS][D] what the pages hold */
    int32_t *pages;    /* [layers][HEADS][slots/64] */
    float *m, *l, *acc, *M, *L;
    float *out;  /* [layers][HEADS*G][D] */
    float *mass; /* [layers][HEADS][slots] */
    kept_f16 *p;
    float *p_max;
};

struct peer {
    ggml_backend_t backend;
    ggml_backend_reg_t reg;
    struct ggml_context *ctx;
    struct ggml_cgraph *graph;
    ggml_gallocr_t alloc;
    struct ggml_tensor *first, *last; /* outputs of the first and the last layer */
    uint8_t *cache;
    size_t half;  /* bytes of K of a layer */
    float *k, *v; /* [slots][HEADS][D] what the cache holds */
};

static double seconds(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Sorts x. */
static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_value);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* Zeroed memory on a 2 MiB boundary that asks for large pages; ends the program if there is none.
 */
static void *big(size_t bytes)
{
    int prot = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS;
    uint8_t *p = mmap(NULL, bytes + HUGE_PAGE, prot, flags, -1, 0);

    if (p == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    p += (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

static float noise(void)
{
    float x = 0;

    for (int i = 0; i < 4; i++)
        x += (float)rand() / (float)RAND_MAX - 0.5f;
    return x * 1.7f;
}

static void make_data(struct setup *s, size_t bytes_per_layer)
{
    size_t n = (size_t)s->slots * HEADS * (size_t)s->D;
    size_t nq = (size_t)(HEADS * s->G) * (size_t)s->D;

    s->layer_bytes = 2 * n * sizeof(kept_f16);
    if (!bytes_per_layer)
        bytes_per_layer = s->layer_bytes;
    s->layers = (int)((POOL_BYTES + bytes_per_layer - 1) / bytes_per_layer);
    s->q = big(nq * sizeof *s->q);
    s->k = big(n * sizeof *s->k);
    s->v = big(n * sizeof *s->v);
    for (size_t i = 0; i < nq; i++)
        s->q[i] = noise();
    for (size_t i = 0; i < n; i++) {
        s->k[i] = kept_f32_to_f16(noise());
        s->v[i] = kept_f32_to_f16(noise());
    }
}

/* Copies the data into the pages of layer 0, and what they hold into o->k and o->v. */
static void fill_pages(const struct setup *s, struct ours *o)
{
    float k[KEPT_PAGE_SLOTS * KEPT_MAX_HEAD_SIZE], v[KEPT_PAGE_SLOTS * KEPT_MAX_HEAD_SIZE];
    int np = s->slots / KEPT_PAGE_SLOTS;
    size_t D = (size_t)s->D;
    uint8_t *f16 = big(kept_page_bytes(s->D));

    for (int i = 0; i < np * HEADS; i++) {
        kept_packed page = {.at = o->pool + (size_t)o->pages[i] * o->page,
                            .c = o->codec,
                            .head_size = s->D,
                            .low = s->low,
                            .pos = s->pos ? s->pos + i % np * KEPT_PAGE_SLOTS : NULL};

        for (size_t j = 0; j < KEPT_PAGE_SLOTS; j++) {
            size_t at = ((size_t)(i % np) * KEPT_PAGE_SLOTS + j) * HEADS * D + (size_t)(i / np) * D;

            for (size_t d = 0; d < D; d++) {
                k[d] = kept_f16_to_f32(s->k[at + d]);
                v[d] = kept_f16_to_f32(s->v[at + d]);
            }
            s->kern->put(f16, s->D, (int)j, k, v);
        }
        kept_codec_pack(page, f16);
        kept_codec_read(page, 0, KEPT_PAGE_SLOTS, k, v);
        for (size_t j = 0; j < KEPT_PAGE_SLOTS; j++) {
            size_t at = ((size_t)(i % np) * KEPT_PAGE_SLOTS + j) * HEADS * D + (size_t)(i / np) * D;

            memcpy(o->k + at, k + j * D, D * sizeof *k);
            memcpy(o->v + at, v + j * D, D * sizeof *v);
        }
    }
}

static void make_ours(const struct setup *s, struct ours *o)
{
    size_t np = (size_t)(s->slots / KEPT_PAGE_SLOTS), heads = (size_t)s->layers * HEADS;
    size_t G = (size_t)s->G, D = (size_t)s->D, n = heads * np;

    o->codec = s->codec;
    o->page = kept_codec_page_bytes(o->codec, s->D);
    o->pool = big(n * o->page);
    o->k = big((size_t)s->slots * HEADS * D * sizeof *o->k);
    o->v = big((size_t)s->slots * HEADS * D * sizeof *o->v);
    o->pages = big(n * sizeof *o->pages);
    o->m = big(4 * G * sizeof(float));
    o->l = o->m + G, o->M = o->m + 2 * G, o->L = o->m + 3 * G;
    o->acc = big(G * D * sizeof(float));
    o->out = big(heads * G * D * sizeof(float));
    o->mass = big(heads * (size_t)s->slots * sizeof(float));
    o->p = big((size_t)s->slots * G * sizeof(kept_f16));
    o->p_max = big(np * G * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        size_t j = (size_t)rand() % (i + 1);

        o->pages[i] = o->pages[j];
        o->pages[j] = (int32_t)i;
    }
    fill_pages(s, o);
    for (size_t i = HEADS * np; i < n; i++)
        memcpy(o->pool + (size_t)o->pages[i] * o->page,
               o->pool + (size_t)o->pages[i % (HEADS * np)] * o->page, o->page);
}

/* One KV head of one layer: all segments in order, then the division and the masses. */
static void run_head(const struct setup *s, struct ours *o, size_t head, bool scores)
{
    int np = s->slots / KEPT_PAGE_SLOTS, G = s->G;
    size_t D = (size_t)s->D, page = o->page;
    const int32_t *pages = o->pages + head * (size_t)np;
    const int32_t *end = o->pages + (size_t)s->layers * HEADS * (size_t)np;
    float *out = o->out + head * (size_t)G * D;
    kept_attn_tile a = {.head_size = s->D, .group = G, .n_q = 1, .q_stride_g = D};
    kept_codecs codec[KEPT_SEG_PAGES];
    const int32_t *slot_pos[KEPT_SEG_PAGES];

    for (int i = 0; i < KEPT_SEG_PAGES; i++)
        codec[i] = o->codec;
    a.low = s->low;
    a.slot_pos = s->pos ? slot_pos : NULL;
    a.codec = kept_codec_is_f16(o->codec) ? NULL : codec;
    a.q = s->q + head % HEADS * (size_t)G * D;
    a.scale = 1.44269504f / sqrtf((float)s->D);
    a.pool = o->pool, a.page_bytes = page, a.visible = s->slots;
    a.m = o->m, a.l = o->l, a.acc = o->acc;
    for (int g = 0; g < G; g++)
        o->M[g] = -INFINITY, o->L[g] = 0;
    memset(out, 0, (size_t)G * D * sizeof *out);
    for (int i = 0; i < np; i += a.n_pages) {
        a.pages = pages + i;
        a.n_pages = np - i < KEPT_SEG_PAGES ? np - i : KEPT_SEG_PAGES;
        a.next = a.pages + a.n_pages < end ? o->pool + (size_t)a.pages[a.n_pages] * page : NULL;
        a.first_slot = i * KEPT_PAGE_SLOTS;
        for (int k = 0; k < a.n_pages && s->pos; k++)
            slot_pos[k] = s->pos + (i + k) * KEPT_PAGE_SLOTS;
        a.p = scores ? o->p + (size_t)(i * G) * KEPT_PAGE_SLOTS : NULL;
        a.p_max = o->p_max + i * G;
        s->kern->attend(&a);
        s->kern->combine(G, s->D, o->M, o->L, out, o->m, o->l, o->acc);
    }
    for (size_t i = 0; i < (size_t)G * D; i++)
        out[i] /= o->L[i / D];
    if (scores)
        s->kern->mass(np, G, 0, G, 1, o->p, o->p_max, o->M, o->L,
                      o->mass + head * (size_t)s->slots);
}

static void run_ours(const struct setup *s, struct ours *o, bool scores)
{
    for (size_t head = 0; head < (size_t)s->layers * HEADS; head++)
        run_head(s, o, head, scores);
}

static bool open_backend(struct peer *g)
{
    void (*set_threads)(ggml_backend_t, int);
    ggml_backend_dev_t dev;

    ggml_backend_load_all();
    dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!dev || !(g->backend = ggml_backend_dev_init(dev, NULL)))
        return false;
    g->reg = ggml_backend_dev_backend_reg(dev);
    *(void **)&set_threads =
        ggml_backend_reg_get_proc_address(g->reg, "ggml_backend_set_n_threads");
    if (set_threads)
        set_threads(g->backend, 1);
    return set_threads != NULL;
}

/* A tensor over memory of ours. */
static struct ggml_tensor *borrow(struct peer *g, enum ggml_type type, const int64_t *ne, void *at)
{
    struct ggml_tensor *t = ggml_new_tensor(g->ctx, type, 4, ne);
    size_t bytes = ggml_nbytes(t);
    ggml_backend_dev_t dev = ggml_backend_get_device(g->backend);

    ggml_backend_tensor_alloc(ggml_backend_dev_buffer_from_host_ptr(dev, at, bytes, bytes), t, at);
    return t;
}

/* Rounds the data of one side into ggml's type at `at`, and what that holds into back. */
static void fill_peer(const struct setup *s, const kept_f16 *from, uint8_t *at, float *back)
{
    const struct ggml_type_traits *t = ggml_get_type_traits(s->type);
    size_t rows = (size_t)s->slots * HEADS, bytes = ggml_row_size(s->type, s->D);
    float x[KEPT_MAX_HEAD_SIZE];

    for (size_t r = 0; r < rows; r++) {
        for (size_t d = 0; d < (size_t)s->D; d++)
            x[d] = kept_f16_to_f32(from[r * (size_t)s->D + d]);
        ggml_quantize_chunk(s->type, x, at + r * bytes, 0, 1, s->D, NULL);
        t->to_float(at + r * bytes, back + r * (size_t)s->D, s->D);
    }
}

static bool make_peer(const struct setup *s, struct peer *g)
{
    int64_t D = s->D, n = s->slots, cache_ne[4] = {D, HEADS, n, 1};
    int64_t q_ne[4] = {D, 1, (int64_t)HEADS * s->G, 1}, mask_ne[4] = {n, 64, 1, 1};
    size_t nodes = (size_t)s->layers * 8 + 64, numbers = (size_t)s->slots * HEADS * (size_t)D;
    size_t bytes = ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false);
    struct ggml_tensor *q, *mask;

    if (!open_backend(g))
        return false;
    g->half = ggml_row_size(s->type, (int64_t)numbers);
    g->k = big(numbers * sizeof *g->k);
    g->v = big(numbers * sizeof *g->v);
    g->ctx = ggml_init((struct ggml_init_params){bytes, NULL, true});
    g->graph = ggml_new_graph_custom(g->ctx, nodes, false);
    g->cache = big((size_t)s->layers * 2 * g->half);
    q = borrow(g, GGML_TYPE_F32, q_ne, s->q);
    mask = borrow(g, GGML_TYPE_F16, mask_ne, big((size_t)n * 64 * 2));
    fill_peer(s, s->k, g->cache, g->k);
    fill_peer(s, s->v, g->cache + g->half, g->v);
    for (int i = 0; i < s->layers; i++) {
        uint8_t *at = g->cache + (size_t)i * 2 * g->half;
        struct ggml_tensor *k = borrow(g, s->type, cache_ne, at);
        struct ggml_tensor *v = borrow(g, s->type, cache_ne, at + g->half);

        if (i)
            memcpy(at, g->cache, 2 * g->half);
        k = ggml_permute(g->ctx, k, 0, 2, 1, 3);
        v = ggml_permute(g->ctx, v, 0, 2, 1, 3);
        g->last = ggml_flash_attn_ext(g->ctx, q, k, v, mask, 1.0f / sqrtf((float)D), 0, 0);
        ggml_set_output(g->last);
        ggml_build_forward_expand(g->graph, g->last);
        g->first = i ? g->first : g->last;
    }
    g->alloc = ggml_gallocr_new(ggml_backend_get_default_buffer_type(g->backend));
    return ggml_gallocr_alloc_graph(g->alloc, g->graph);
}

/* Attention of query row r over k and v in double, in out[D]; its weights are added to mass[slots].
 */
static void oracle(const struct setup *s, int r, const float *const kv[2], double *out,
                   double *mass)
{
    double *w = calloc((size_t)s->slots, sizeof *w), top = -INFINITY, sum = 0;
    size_t D = (size_t)s->D, step = HEADS * D, at = (size_t)(r / s->G) * D;

    for (size_t j = 0; j < (size_t)s->slots; j++) {
        for (size_t d = 0; d < D; d++)
            w[j] += (double)s->q[(size_t)r * D + d] * (double)kv[0][j * step + at + d] /
                    sqrt((double)D);
        top = fmax(top, w[j]);
    }
    for (size_t j = 0; j < (size_t)s->slots; j++)
        sum += w[j] = exp(w[j] - top);
    memset(out, 0, D * sizeof *out);
    for (size_t j = 0; j < (size_t)s->slots; j++) {
        mass[j] += w[j] / sum;
        for (size_t d = 0; d < D; d++)
            out[d] += w[j] / sum * (double)kv[1][j * step + at + d];
    }
    free(w);
}

static double distance(const float *x, const double *y, size_t n)
{
    double e = 0, all = 0;

    for (size_t i = 0; i < n; i++) {
        e += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
        all += y[i] * y[i];
    }
    return sqrt(e / all);
}

/* One KV head in the first layer and another in the last, against double. worst: relative L2 of
 * ours and of ggml, L1 error of our masses; each the largest seen. */
static void compare(const struct setup *s, const struct ours *o, const struct peer *g, bool end,
                    double *worst)
{
    size_t D = (size_t)s->D, G = (size_t)s->G, rows = HEADS * G, head = end ? HEADS - 1 : 0;
    size_t layer = end ? (size_t)s->layers - 1 : 0, n = (size_t)s->slots;
    double *mass = calloc(n, sizeof *mass), out[KEPT_MAX_HEAD_SIZE], off = 0;
    double *unused = calloc(n, sizeof *unused);
    const float *const mine[2] = {o->k, o->v}, *const theirs[2] = {g->k, g->v};
    float *peer = malloc(rows * D * sizeof *peer);

    ggml_backend_tensor_get(end ? g->last : g->first, peer, 0, rows * D * sizeof *peer);
    for (size_t r = head * G; r < (head + 1) * G; r++) {
        oracle(s, (int)r, mine, out, mass);
        worst[0] = fmax(worst[0], distance(o->out + (layer * rows + r) * D, out, D));
        oracle(s, (int)r, theirs, out, unused);
        worst[1] = fmax(worst[1], distance(peer + r * D, out, D));
    }
    for (size_t j = 0; j < n; j++)
        off += fabs((double)o->mass[(layer * HEADS + head) * n + j] - mass[j]);
    worst[2] = fmax(worst[2], off / (double)G);
    free(peer);
    free(mass);
    free(unused);
}

/* Reads the whole peer cache once: four streams and prefetching are what one core reads best. */
static inline uint64_t stream(const struct setup *s, const struct peer *g)
{
    size_t n = (size_t)s->layers * 2 * g->half / 32;
    const uint64_t *x = (const uint64_t *)(const void *)g->cache;
    uint64_t sum[4][8] = {{0}}, all = 0;

    for (size_t i = 0; i < n; i += 8)
        for (size_t k = 0; k < 4; k++) {
            __builtin_prefetch(x + k * n + i + 128, 0, 2);
            for (size_t c = 0; c < 8; c++)
                sum[k][c] ^= x[k * n + i + c];
        }
    for (int k = 0; k < 32; k++)
        all ^= sum[k / 8][k % 8];
    return all;
}

static bool bar(const char *what, double value, double limit, bool at_least)
{
    bool ok = at_least ? value >= limit : value <= limit;

    printf("%s %s: %.2f (bar: %s %.2f)\n", ok ? "PASS" : "FAIL", what, value,
           at_least ? ">=" : "<=", limit);
    return ok;
}

static inline void print_features(const struct peer *g)
{
    ggml_backend_get_features_t features;

    *(void **)&features = ggml_backend_reg_get_proc_address(g->reg, "ggml_backend_get_features");
    for (struct ggml_backend_feature *f = features ? features(g->reg) : NULL; f && f->name; f++)
        printf(" %s=%s", f->name, f->value);
    printf("\n");
}

#endif
