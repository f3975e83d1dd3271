/* Decode attention, one thread: our kernel, with and without fused scores, against ggml's CPU flash
 * attention over an F16 cache, alternated in one process.
 *
 * A layer is 8 KV heads of the same --slots. There are enough layers for 512 MiB per side, so that
 * caches do not help, on 2 MiB pages; our page table is a random permutation. ggml gets its own
 * layout ([slot][head][channel], as llama.cpp keeps it) and is called through the backend registry.
 * Times are CPU times of the process, because the machine may be shared; the wall ratio is printed.
 * Round: ggml, 4 x (on off off on), ggml, streaming read. Both outputs are first compared with
 * attention in double. Exit 1 if that fails (with --strict also if a bar is missed), 2 for usage,
 * 77 if ggml has no CPU backend. */
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
    size_t layer_bytes; /* of either side */
    float *q;           /* [HEADS*G][D], shared by all layers */
    kept_f16 *k, *v;    /* [slots][HEADS][D]: the data of every layer */
};

struct ours {
    uint8_t *pool;
    int32_t *pages; /* [layers][HEADS][slots/64] */
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

static void make_data(struct setup *s)
{
    size_t n = (size_t)s->slots * HEADS * (size_t)s->D;
    size_t nq = (size_t)(HEADS * s->G) * (size_t)s->D;

    s->layer_bytes = 2 * n * sizeof(kept_f16);
    s->layers = (int)((POOL_BYTES + s->layer_bytes - 1) / s->layer_bytes);
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

/* Copies the data into the pages of layer 0. */
static void fill_pages(const struct setup *s, struct ours *o)
{
    float k[KEPT_MAX_HEAD_SIZE], v[KEPT_MAX_HEAD_SIZE];
    int np = s->slots / KEPT_PAGE_SLOTS;

    for (int j = 0; j < s->slots; j++) {
        for (int h = 0; h < HEADS; h++) {
            size_t at = ((size_t)j * HEADS + (size_t)h) * (size_t)s->D;
            size_t page = (size_t)o->pages[h * np + j / KEPT_PAGE_SLOTS];

            for (int d = 0; d < s->D; d++) {
                k[d] = kept_f16_to_f32(s->k[at + (size_t)d]);
                v[d] = kept_f16_to_f32(s->v[at + (size_t)d]);
            }
            s->kern->put(o->pool + page * kept_page_bytes(s->D), s->D, j % KEPT_PAGE_SLOTS, k, v);
        }
    }
}

static void make_ours(const struct setup *s, struct ours *o)
{
    size_t np = (size_t)(s->slots / KEPT_PAGE_SLOTS), heads = (size_t)s->layers * HEADS;
    size_t G = (size_t)s->G, D = (size_t)s->D, page = kept_page_bytes(s->D), n = heads * np;

    o->pool = big(n * page);
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
        memcpy(o->pool + (size_t)o->pages[i] * page,
               o->pool + (size_t)o->pages[i % (HEADS * np)] * page, page);
}

/* One KV head of one layer: all segments in order, then the division and the masses. */
static void run_head(const struct setup *s, struct ours *o, size_t head, bool scores)
{
    int np = s->slots / KEPT_PAGE_SLOTS, G = s->G;
    size_t D = (size_t)s->D, page = kept_page_bytes(s->D);
    const int32_t *pages = o->pages + head * (size_t)np;
    const int32_t *end = o->pages + (size_t)s->layers * HEADS * (size_t)np;
    float *out = o->out + head * (size_t)G * D;
    kept_attn_tile a = {.head_size = s->D, .group = G, .n_q = 1, .q_stride_g = D};

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

static bool make_peer(const struct setup *s, struct peer *g)
{
    int64_t D = s->D, n = s->slots, cache_ne[4] = {D, HEADS, n, 1};
    int64_t q_ne[4] = {D, 1, (int64_t)HEADS * s->G, 1}, mask_ne[4] = {n, 64, 1, 1};
    size_t nodes = (size_t)s->layers * 8 + 64, half = s->layer_bytes / 2;
    size_t bytes = ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false);
    struct ggml_tensor *q, *mask;

    if (!open_backend(g))
        return false;
    g->ctx = ggml_init((struct ggml_init_params){bytes, NULL, true});
    g->graph = ggml_new_graph_custom(g->ctx, nodes, false);
    g->cache = big((size_t)s->layers * s->layer_bytes);
    q = borrow(g, GGML_TYPE_F32, q_ne, s->q);
    mask = borrow(g, GGML_TYPE_F16, mask_ne, big((size_t)n * 64 * 2));
    for (int i = 0; i < s->layers; i++) {
        uint8_t *at = g->cache + (size_t)i * s->layer_bytes;
        struct ggml_tensor *k = borrow(g, GGML_TYPE_F16, cache_ne, at);
        struct ggml_tensor *v = borrow(g, GGML_TYPE_F16, cache_ne, at + half);

        memcpy(at, s->k, half);
        memcpy(at + half, s->v, half);
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

/* Attention of query row r in double, in out[D]; its weights are added to mass[slots]. */
static void oracle(const struct setup *s, int r, double *out, double *mass)
{
    double *w = calloc((size_t)s->slots, sizeof *w), top = -INFINITY, sum = 0;
    size_t D = (size_t)s->D, step = HEADS * D, at = (size_t)(r / s->G) * D;

    for (size_t j = 0; j < (size_t)s->slots; j++) {
        for (size_t d = 0; d < D; d++)
            w[j] += (double)s->q[(size_t)r * D + d] *
                    (double)kept_f16_to_f32(s->k[j * step + at + d]) / sqrt((double)D);
        top = fmax(top, w[j]);
    }
    for (size_t j = 0; j < (size_t)s->slots; j++)
        sum += w[j] = exp(w[j] - top);
    memset(out, 0, D * sizeof *out);
    for (size_t j = 0; j < (size_t)s->slots; j++) {
        mass[j] += w[j] / sum;
        for (size_t d = 0; d < D; d++)
            out[d] += w[j] / sum * (double)kept_f16_to_f32(s->v[j * step + at + d]);
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
    float *peer = malloc(rows * D * sizeof *peer);

    ggml_backend_tensor_get(end ? g->last : g->first, peer, 0, rows * D * sizeof *peer);
    for (size_t r = head * G; r < (head + 1) * G; r++) {
        oracle(s, (int)r, out, mass);
        worst[0] = fmax(worst[0], distance(o->out + (layer * rows + r) * D, out, D));
        worst[1] = fmax(worst[1], distance(peer + r * D, out, D));
    }
    for (size_t j = 0; j < n; j++)
        off += fabs((double)o->mass[(layer * HEADS + head) * n + j] - mass[j]);
    worst[2] = fmax(worst[2], off / (double)G);
    free(peer);
    free(mass);
}

/* ggml sums V in F16, hence its wider limit. */
static bool check_outputs(const struct setup *s, const struct ours *o, const struct peer *g)
{
    double worst[3] = {0};

    compare(s, o, g, false, worst);
    compare(s, o, g, true, worst);
    printf("check against double: ours rel L2 %.2g (<= 1e-5), mass L1 %.2g (<= 1e-3), "
           "ggml rel L2 %.2g (<= 5e-2)\n",
           worst[0], worst[2], worst[1]);
    return worst[0] <= 1e-5 && worst[2] <= 1e-3 && worst[1] <= 5e-2;
}

/* Reads the whole peer cache once: four streams and prefetching are what one core reads best. */
static uint64_t stream(const struct setup *s, const struct peer *g)
{
    size_t n = (size_t)s->layers * s->layer_bytes / 8 / 4;
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

enum side { OFF, ON, GGML, STREAM, N_SIDES };

struct times {
    double best[N_SIDES], mid[N_SIDES]; /* ns per slot and KV head */
    double ratio[2], over;              /* ggml/ours, score overhead in %: medians over rounds */
    double busy;                        /* CPU time / wall time */
};

/* One round: t[side] = mean ns per slot and KV head. */
static void run_round(const struct setup *s, struct ours *o, struct peer *g, double *t)
{
    static const enum side order[] = {GGML, ON,  OFF, OFF, ON,  ON,  OFF, OFF,  ON,    ON,
                                      OFF,  OFF, ON,  ON,  OFF, OFF, ON,  GGML, STREAM};
    double unit = 1e9 / ((double)s->layers * HEADS * s->slots);
    volatile uint64_t sink = 0;
    int count[N_SIDES] = {0};

    for (int k = 0; k < N_SIDES; k++)
        t[k] = 0;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        double from = seconds(CLOCK_PROCESS_CPUTIME_ID);

        if (order[i] == GGML)
            ggml_backend_graph_compute(g->backend, g->graph);
        else if (order[i] == STREAM)
            sink = sink ^ stream(s, g);
        else
            run_ours(s, o, order[i] == ON);
        t[order[i]] += (seconds(CLOCK_PROCESS_CPUTIME_ID) - from) * unit;
        count[order[i]]++;
    }
    for (int k = 0; k < N_SIDES; k++)
        t[k] /= count[k];
}

static struct times measure(const struct setup *s, struct ours *o, struct peer *g)
{
    static double t[N_SIDES][MAX_ROUNDS], ratio[2][MAX_ROUNDS], over[MAX_ROUNDS];
    double cpu = seconds(CLOCK_PROCESS_CPUTIME_ID), wall = seconds(CLOCK_MONOTONIC);
    struct times y;

    for (int r = 0; r < s->rounds; r++) {
        double x[N_SIDES];

        run_round(s, o, g, x);
        for (int k = 0; k < N_SIDES; k++)
            t[k][r] = x[k];
        ratio[OFF][r] = x[GGML] / x[OFF];
        ratio[ON][r] = x[GGML] / x[ON];
        over[r] = 100 * (x[ON] / x[OFF] - 1);
    }
    for (int k = 0; k < N_SIDES; k++) {
        y.mid[k] = median(t[k], s->rounds);
        y.best[k] = t[k][0];
    }
    y.ratio[OFF] = median(ratio[OFF], s->rounds);
    y.ratio[ON] = median(ratio[ON], s->rounds);
    y.over = median(over, s->rounds);
    y.busy = (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) / (seconds(CLOCK_MONOTONIC) - wall);
    return y;
}

static void print_line(const char *name, const struct setup *s, const struct times *y, int k)
{
    printf("%-18s %8.2f %8.2f %8.2f %8.0f %%\n", name, y->mid[k], y->best[k],
           4.0 * s->D / y->mid[k], 100 * y->mid[STREAM] / y->mid[k]);
}

static bool bar(const char *what, double value, double limit, bool at_least)
{
    bool ok = at_least ? value >= limit : value <= limit;

    printf("%s %s: %.2f (bar: %s %.2f)\n", ok ? "PASS" : "FAIL", what, value,
           at_least ? ">=" : "<=", limit);
    return ok;
}

static void print_features(const struct peer *g)
{
    ggml_backend_get_features_t features;

    *(void **)&features = ggml_backend_reg_get_proc_address(g->reg, "ggml_backend_get_features");
    for (struct ggml_backend_feature *f = features ? features(g->reg) : NULL; f && f->name; f++)
        printf(" %s=%s", f->name, f->value);
    printf("\n");
}

static bool report(const struct setup *s, const struct peer *g, const struct times *y)
{
    bool wide = !strcmp(s->kern->name, "avx512"), ok = true;

    printf("ours: %s; ggml CPU features:", s->kern->name);
    print_features(g);
    printf("head size %d, group %d, %d KV heads, %d slots, %d layers, 1 thread, %d rounds, "
           "CPU/wall %.2f\n",
           s->D, s->G, HEADS, s->slots, s->layers, s->rounds, y->busy);
    printf("ns per slot-head     median     best     GB/s  of stream\n");
    print_line("ours, scores on", s, y, ON);
    print_line("ours, scores off", s, y, OFF);
    print_line("ggml", s, y, GGML);
    print_line("streaming read", s, y, STREAM);
    printf("ggml/ours: scores on %.2f (of best times %.2f), off %.2f (of best times %.2f)\n",
           y->ratio[ON], y->best[GGML] / y->best[ON], y->ratio[OFF], y->best[GGML] / y->best[OFF]);
    if (strcmp(s->kern->name, "ref"))
        ok = bar("ratio with scores", y->ratio[ON], wide ? 5.5 : 4.0, true);
    if (s->D == 128)
        ok = bar("score overhead %", y->over, 4.0, false) && ok;
    else
        printf("score overhead %%: %.2f (no bar at this head size)\n", y->over);
    return ok;
}

static bool parse(int argc, char **argv, struct setup *s)
{
    const char *isa = NULL;

    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *v;

        if (!strcmp(name, "--strict")) {
            s->strict = 1;
            continue;
        }
        if (!(v = argv[++i]))
            return false;
        if (!strcmp(name, "--head-size"))
            s->D = atoi(v);
        else if (!strcmp(name, "--group"))
            s->G = atoi(v);
        else if (!strcmp(name, "--slots"))
            s->slots = atoi(v);
        else if (!strcmp(name, "--rounds"))
            s->rounds = atoi(v);
        else if (!strcmp(name, "--isa"))
            isa = v;
        else
            return false;
    }
    s->kern = kept_kern_get(isa);
    return s->kern && s->D >= 16 && s->D <= KEPT_MAX_HEAD_SIZE && s->D % 16 == 0 && s->G >= 1 &&
           s->G <= 16 && s->slots >= 64 && s->slots <= 1 << 17 && s->slots % 64 == 0 &&
           s->rounds >= 1 && s->rounds <= MAX_ROUNDS;
}

int main(int argc, char **argv)
{
    struct setup s = {.D = 128, .G = 4, .slots = 8192, .rounds = 9};
    struct peer g = {0};
    struct ours o;
    struct times y;
    bool ok;

    if (!parse(argc, argv, &s)) {
        fprintf(stderr, "usage: bench_attn [--head-size N*16] [--group 1..16] [--slots N*64] "
                        "[--rounds 1..99] [--isa ref|avx2|avx512] [--strict]\n");
        return 2;
    }
    kept_kern_enter();
    make_data(&s);
    make_ours(&s, &o);
    if (!make_peer(&s, &g)) {
        printf("skip ggml has no CPU backend here\n");
        return 77;
    }
    run_ours(&s, &o, true);
    ggml_backend_graph_compute(g.backend, g.graph);
    if (!check_outputs(&s, &o, &g)) {
        printf("FAIL outputs\n");
        return 1;
    }
    y = measure(&s, &o, &g);
    ok = report(&s, &g, &y);
    return s.strict && !ok;
}
