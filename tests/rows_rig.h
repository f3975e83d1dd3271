/* rows_rig: fidelity of scores that read keys, values and what is known of queries: a world of
 * random rows, one eviction in it, and what an eviction keeps of every head against scores in
 * double that the test writes. Where the two sets differ, every token in question must lie within
 * what single precision loses of the threshold, and exact ties keep the later position.
 */
#ifndef TESTS_ROWS_RIG_H
#define TESTS_ROWS_RIG_H

#include "base/base.h"
#include "trained_rig.h"

#define L         2
#define H         2
#define MAX_N     300
#define MAX_D     128
#define TOLERANCE 2e-6 /* what a sum of floats may lose of its terms */

/* CHANNELS: some are the same in every token; SIZES: rows of 0, short and long ones among the rest
 */
typedef enum pattern { RANDOM, HEAVY, SIZES, CONSTANT, TIES, CHANNELS, N_PATTERNS } pattern;

typedef struct world {
    rig r;
    int n, d, g, share; /* share: slots of a head */
    int sinks, recent;  /* protected */
    const kept_strategy *s;
    double key0[MAX_N][MAX_D]; /* of the head at hand */
    double slack, more; /* what rounding may change in its scores: a part of them, and besides */
} world;

/* ---- input --------------------------------------------------------------------------------- */

static inline double draw(kept_rng *rng, pattern kind, int t, int d, bool is_key)
{
    static const double sizes[] = {0, 1, 1, 0x1p-5, 300, 1, 1};
    double x = kept_rng_normal(rng);
    kept_rng fixed;
    kept_rng_init(&fixed, (uint64_t)(t * 7 % 5 * 1000 + d) + (is_key ? 100000 : 200000));
    switch (kind) {
    case HEAVY:
        return t % 17 == 3 ? 3 * x + (is_key ? 2 : 1) : x;
    case TIES:
        return kept_rng_normal(&fixed);
    case CONSTANT:
        return 0.5;
    case CHANNELS:
        return d % 3 ? x : 1.5;
    case SIZES:
        return x * sizes[t % 7];
    default:
        return x;
    }
}

static inline world *make(pattern kind, int n, int d, int g)
{
    world *w = kept_calloc(1, sizeof *w);
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(n * 1000 + d + g) + (uint64_t)kind);
    w->r = rig_new(L, H, g, d, n);
    w->n = n;
    w->d = d;
    w->g = g;
    for (int i = 0; i < L * H; i++)
        for (int t = 0; t < n; t++)
            for (int c = 0; c < d; c++) {
                size_t at = (size_t)t * (size_t)d + (size_t)c;
                rig_k(&w->r, i / H, i % H)[at] = rig_round(draw(&rng, kind, t, c, true));
                rig_v(&w->r, i / H, i % H)[at] = rig_round(draw(&rng, kind, t, c, false));
            }
    for (int i = 0; i < L * H * g * d; i++)
        w->r.q_mean[i] = (float)kept_rng_normal(&rng);
    return w;
}

/* What strategy s records of the world; masses differ less than tokens do. */
static inline void record(world *w)
{
    rig_needs(&w->r, w->s);
    for (size_t i = 0; i < (size_t)(w->r.n_state * L * H) * (size_t)w->n; i++)
        w->r.mass[i] = (float)(1 + i * 7919 % 101);
    rig_lend(&w->r, w->s);
    rig_pool(&w->r);
}

/* ---- what formulas share
 * ------------------------------------------------------------------------------ */

static inline const float *row(const world *w, const float *x, int t)
{
    return x + (size_t)t * (size_t)w->d;
}
static inline double norm(const float *x, int d)
{
    double sum = 0;
    for (int i = 0; i < d; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}
static inline double option(const world *w, int i)
{
    return w->s->option[KEPT_AXIS_SCORE][i];
}
static inline bool guarded(const world *w, int t)
{
    return t < w->sinks || t >= w->n - w->recent;
}

/* In place; rounding counts for more or less by that. */
static inline void z_scores(world *w, double *x, bool all)
{
    double mean = 0, var = 0, m = 0;
    for (int t = 0; t < w->n; t++)
        if (all || !guarded(w, t)) {
            mean += x[t];
            m++;
        }
    mean /= fmax(m, 1);
    for (int t = 0; t < w->n; t++)
        if (all || !guarded(w, t))
            var += (x[t] - mean) * (x[t] - mean);
    double deviation = m > 1 ? fmax(sqrt(var / (m - 1)), 1e-6) : 1;
    double most = 0;
    for (int t = 0; t < w->n; t++)
        most = fmax(most, fabs(x[t]));
    w->more = fmax(w->more, w->slack * most / deviation);
    for (int t = 0; t < w->n; t++)
        x[t] = (x[t] - mean) / deviation;
}

/* Inverse of the positive definite a [k][k] in its place, by Gauss and Jordan. */
static inline void invert(double *a, int k)
{
    for (int p = 0; p < k; p++) {
        double pivot = 1 / a[p * k + p];
        a[p * k + p] = 1;
        for (int j = 0; j < k; j++)
            a[p * k + j] *= pivot;
        for (int i = 0; i < k; i++) {
            double x = a[i * k + p];
            if (i == p)
                continue;
            a[i * k + p] = 0;
            for (int j = 0; j < k; j++)
                a[i * k + j] -= x * a[p * k + j];
        }
    }
}

/* out[t] = y' (ridge I + sum weight y y')^-1 y, y [n][k]. Single precision may lose as many digits
 * of it as the matrix' condition takes. */
static inline void quadratic(world *w, const double *y, int k, const double *weight, double ridge,
                             double *out)
{
    static double m[MAX_D * MAX_D];
    double size = 0, inverse = 0;
    for (int i = 0; i < k; i++)
        for (int j = 0; j <= i; j++) {
            double sum = i == j ? ridge : 0;
            for (int t = 0; t < w->n; t++)
                sum += weight[t] * y[t * k + i] * y[t * k + j];
            m[i * k + j] = m[j * k + i] = sum;
        }
    for (int i = 0; i < k * k; i++)
        size += m[i] * m[i];
    invert(m, k);
    for (int i = 0; i < k * k; i++)
        inverse += m[i] * m[i];
    w->slack = fmax(w->slack, 0x1p-24 * sqrt(size) * sqrt(inverse));
    for (int t = 0; t < w->n; t++) {
        out[t] = 0;
        for (int i = 0; i < k; i++) {
            double sum = 0;
            for (int j = 0; j < k; j++)
                sum += m[i * k + j] * y[t * k + j];
            out[t] += y[t * k + i] * sum;
        }
    }
}

/* Keys of a head turned back, pairs (j, j + D/2). */
static inline void turn_back(world *w, int l, int h)
{
    for (int t = 0; t < w->n; t++)
        for (int j = 0; j < w->d / 2; j++) {
            const float *k = row(w, rig_k(&w->r, l, h), t);
            double angle = t * (double)w->r.freq[j], a = k[j], b = k[j + w->d / 2];
            w->key0[t][j] = a * cos(angle) + b * sin(angle);
            w->key0[t][j + w->d / 2] = b * cos(angle) - a * sin(angle);
        }
}

/* ---- comparison ---------------------------------------------------------------------------- */

static const double *sort_by;

/* Larger value first, then the later position. Values apart by rounding of doubles are equal. */
static inline int better(const void *x, const void *y)
{
    int a = *(const int *)x, b = *(const int *)y;
    double gap = sort_by[a] - sort_by[b];
    if (fabs(gap) > 1e-12 * (fabs(sort_by[a]) + fabs(sort_by[b])))
        return gap > 0 ? -1 : 1;
    return b - a;
}

static inline void compare(const world *w, int l, int h, const double *score)
{
    int order[MAX_N], m = 0, off = 0, kept = 0;
    uint8_t live[MAX_N];
    double least = INFINITY, most = -INFINITY;
    for (int t = 0; t < w->n; t++)
        if (!guarded(w, t))
            order[m++] = t;
    sort_by = score;
    qsort(order, (size_t)m, sizeof *order, better);
    rig_live(&w->r, w->r.cache, l, h, live);
    for (int t = 0; t < w->n; t++)
        CHECK(!guarded(w, t) || live[t]);
    for (int i = 0; i < m; i++) {
        bool expect = i < w->share - w->sinks - w->recent;
        kept += live[order[i]];
        if (expect == live[order[i]])
            continue;
        off++;
        least = fmin(least, score[order[i]]);
        most = fmax(most, score[order[i]]);
    }
    CHECK_INT(kept, w->share - w->sinks - w->recent);
    double allowed = w->slack * fmax(fabs(least), fabs(most)) + w->more;
    if (off && !(most - least <= allowed && most > least)) {
        fprintf(stderr, "layer %d head %d: %d tokens differ, from %.17g to %.17g (%g)\n", l, h, off,
                least, most, allowed);
        test_failed = 1;
    }
}

/* Writes scores [n] of a head, zeros on entry. */
typedef void score_fn(world *w, int l, int h, double *out);

/* One eviction, by turns with protected tokens and without. */
static inline void run(pattern kind, const char *name, int n, int d, int g, score_fn *score_head)
{
    static int turn;
    world *w = make(kind, n, d, g);
    char spec[200];
    uint64_t ns = 0;
    double score[MAX_N];
    int before = test_failed, percent = ++turn % 2 ? 60 : 25;
    test_failed = 0;
    w->sinks = turn % 2 && n > 20 ? 3 : 0;
    w->recent = turn % 2 && n > 20 ? 5 : 0;
    w->share = percent * n / 100 > 0 ? percent * n / 100 : 1;
    snprintf(spec, sizeof spec, "%s+protect(sinks=%d,recent=%d)@%d", name, w->sinks, w->recent,
             w->share);
    kept_strategy *s = rig_parse(spec);
    w->s = s;
    record(w);
    w->r.cache = rig_cache(&w->r, n, n / 3);
    kept_evict e = rig_evict(&w->r, w->r.cache, n);
    CHECK_INT(kept_strategy_evict(s, &e, w->r.work, &ns, &ns, NULL), KEPT_OK);
    for (int x = 0; x < L * H; x++) {
        memset(score, 0, sizeof score);
        w->slack = TOLERANCE;
        w->more = 0;
        score_head(w, x / H, x % H, score);
        compare(w, x / H, x % H, score);
    }
    if (test_failed)
        fprintf(stderr, "  with %s, n=%d D=%d G=%d pattern %d\n", spec, n, d, g, (int)kind);
    test_failed |= before;
    kept_strategy_free(s);
    rig_unlend(&w->r);
    rig_free(&w->r);
    free(w);
}

/* Every score, lengths around the edges of pages and below every window. */
static inline void over_patterns(const char *const *scores, int n_scores, int d, int g,
                                 const int lengths[3], score_fn *score_head)
{
    for (int x = 0; x < 3; x++)
        for (int kind = 0; kind < N_PATTERNS; kind += d == 128 ? 2 : 1)
            for (int i = 0; i < n_scores; i++)
                run((pattern)kind, scores[i], lengths[x], d, g, score_head);
}

#endif
