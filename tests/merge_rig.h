/* merge_rig: heads before and after a cut with a merge, for the tests of merges. */
#ifndef TESTS_MERGE_RIG_H
#define TESTS_MERGE_RIG_H

#include "trained_rig.h"

#define MOST 2200

typedef enum pattern { RANDOM, CONSTANT, ZERO, HUGE, TIES, N_PATTERNS } pattern;

static inline void fill(rig *r, pattern kind, uint64_t seed)
{
    kept_rng rng;
    kept_rng_init(&rng, seed);
    size_t rows = (size_t)(r->n_layers * r->n_heads) * (size_t)r->n, size = (size_t)r->head_size;
    static const double level[] = {0, 1, 0, 60000, 0};
    for (size_t i = 0; i < rows * size; i++) {
        const bool same = kind == TIES && i / size % 3; /* runs of three equal rows */
        const bool plain = kind == RANDOM || kind == TIES;
        r->k[i] = same    ? r->k[i - size]
                  : plain ? rig_round(kept_rng_normal(&rng))
                          : rig_round(level[kind]);
        r->v[i] = same    ? r->v[i - size]
                  : plain ? rig_round(kept_rng_normal(&rng))
                          : rig_round(level[kind]);
    }
    rig_fill_captured(r, kind == RANDOM ? &rng : NULL, kind == HUGE ? 1e30f : 0.125f,
                      (float)level[kind]);
    for (int l = 0; l < r->n_layers; l++)
        r->cosine[l] = 0.5;
}

/* A sequence of n tokens that has captured what spec needs. */
static inline rig make(pattern kind, int n, int group, int size, const char *spec)
{
    rig r = rig_new(2, 2, group, size, n);
    kept_strategy *s = rig_parse(spec);
    rig_needs(&r, s);
    rig_lend(&r, s);
    kept_strategy_free(s);
    fill(&r, kind, 7);
    rig_pool(&r);
    r.cache = rig_cache(&r, n, n / 3);
    return r;
}

static inline void finish(rig *r)
{
    rig_unlend(r);
    rig_free(r);
}

/* Pieces in reverse, on lanes that alternate: any order and any lane must do. */
static inline void each_backwards(void *ctx, int n, kept_each_fn *fn, void *arg)
{
    (void)ctx;
    for (int i = n - 1; i >= 0; i--)
        fn(arg, (n - i) % 2, i);
}

static inline void cut(rig *r, const char *spec, kept_cache *c, bool threads)
{
    kept_strategy *s = rig_parse(spec);
    uint64_t score_ns = 0, compact_ns = 0;
    kept_error err = {"", 0};
    kept_evict e = rig_evict(r, c, r->n);
    if (threads) {
        e.each = each_backwards;
        e.n_lanes = 2;
    }
    if (kept_strategy_evict(s, &e, r->work, &score_ns, &compact_ns, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        test_failed = 1;
    }
    kept_strategy_free(s);
}

static inline kept_cache *fork_of(rig *r)
{
    int planes[KEPT_MAX_PLANES];
    kept_cache *c = NULL;
    for (int i = 0; i < r->n_state + 2; i++)
        planes[i] = i;
    CHECK_INT(kept_cache_fork(r->cache, r->n_state + 2, planes, &c, NULL), KEPT_OK);
    return c;
}

/* One head as the cache holds it, by position; a row of a position that is gone is not written. */
typedef struct head {
    int n;
    uint8_t live[MOST];
    float *k, *v, bias[MOST];
} head;

static inline head read_head(const rig *r, const kept_cache *c, int l, int h)
{
    const size_t size = (size_t)r->head_size;
    head x = {.n = kept_cache_n(c, l, h)};
    float *k = rig_array((size_t)x.n * size + 1), *v = rig_array((size_t)x.n * size + 1);
    int32_t *pos = rig_array((size_t)x.n + 1);
    x.k = rig_array((size_t)r->n * size);
    x.v = rig_array((size_t)r->n * size);
    kept_cache_read(c, l, h, pos, k, v);
    for (int i = 0; i < x.n; i++) {
        x.live[pos[i]] = 1;
        memcpy(x.k + (size_t)pos[i] * size, k + (size_t)i * size, size * sizeof *k);
        memcpy(x.v + (size_t)pos[i] * size, v + (size_t)i * size, size * sizeof *v);
        x.bias[pos[i]] = kept_cache_state(c, l, h, r->n_state + 1, i) / 1.44269504f;
    }
    free(k), free(v), free(pos);
    return x;
}

static inline void free_head(head *x)
{
    free(x->k), free(x->v);
}

/* What a head was and what is left of it, all in double. */
typedef struct world {
    rig r;
    head now;
    int l, h, D;
} world;

static inline const float *key_of(const world *w, int pos)
{
    return rig_k(&w->r, w->l, w->h) + (size_t)pos * (size_t)w->D;
}
static inline const float *value_of(const world *w, int pos)
{
    return rig_v(&w->r, w->l, w->h) + (size_t)pos * (size_t)w->D;
}

/* x is want [D] as F16 holds it. */
static inline bool near_row(const float *x, const double *want, int n)
{
    double worst = 0;
    for (int d = 0; d < n; d++)
        worst = fmax(worst, fabs(x[d] - want[d]) - 1e-3 * fabs(want[d]));
    return worst < 2e-4;
}

typedef void check_fn(world *w, const double *option);

/* Runs spec over shapes and patterns, and check over every head. */
static inline void each_head(const char *spec, const double *option, check_fn *check)
{
    static const int shapes[][3] = {{130, 1, 64}, {200, 3, 128}, {97, 8, 64}};
    static const pattern kinds[] = {RANDOM, CONSTANT, TIES};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++) {
            world w = {.r = make(kinds[k], shapes[i][0], shapes[i][1], shapes[i][2], spec)};
            w.D = shapes[i][2];
            cut(&w.r, spec, w.r.cache, false);
            for (w.l = 0; w.l < 2; w.l++)
                for (w.h = 0; w.h < 2; w.h++) {
                    w.now = read_head(&w.r, w.r.cache, w.l, w.h);
                    CHECK(w.now.n < w.r.n);
                    check(&w, option);
                    free_head(&w.now);
                }
            finish(&w.r);
        }
}

static inline double dot(const float *a, const float *b, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += (double)a[d] * b[d];
    return sum;
}

static inline double cosine(const float *a, const float *b, int n)
{
    double by = sqrt(dot(a, a, n) * dot(b, b, n));
    return by > 0 ? dot(a, b, n) / by : 0;
}

#endif
