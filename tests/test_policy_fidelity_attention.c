/* Fidelity of the scores made of attention: what an eviction keeps equals a double-precision
 * reading of the published formula, from full causal attention over the test's own queries and
 * keys, with every way to aggregate query heads and to pool. Randomness comes from kept_noise in
 * both; its distribution has tests of its own.
 */
#include "policy_rig.h"

#define H     2
#define MAX_N 130
#define MAX_D 128
#define MAX_G 8

typedef enum pattern { RANDOM, HEAVY, TIES, CONSTANT, WIDE, N_PATTERNS } pattern;

typedef struct world {
    rig r;
    int n, d, g, steps;
    double slack;                         /* relative, for rounding */
    double p[H][MAX_N][MAX_G][MAX_N];     /* attention of query t */
    double logit[H][MAX_N][MAX_G][MAX_N]; /* of all pairs */
    float q[H][MAX_N][MAX_G][MAX_D];
    double noise[H][MAX_N]; /* uniform */
    double score[H][MAX_N];
} world;

typedef struct reading {
    const char *spec;
    void (*score)(const world *w, const struct reading *f, int h, double *out);
    int window;
    kept_gqa gqa;
    kept_pool_kind pool;
    int kernel;
    bool first; /* pool, then aggregate */
    double a, b;
} reading;

/* ---- input --------------------------------------------------------------------------------- */

static void fill_row(kept_rng *rng, pattern kind, int t, bool key, float *row, int d)
{
    kept_rng fixed;
    kept_rng_init(&fixed, (uint64_t)(t * 7 % 5) + (key ? 100 : 200));
    for (int i = 0; i < d; i++) {
        double x = kept_rng_normal(kind == TIES ? &fixed : rng);
        if (kind == HEAVY)
            x = key && t % 17 == 3 ? 0.3 * x + 0.6 : x + (key ? 0 : 0.3);
        if (kind == WIDE) /* most of a softmax underflows */
            x *= 6;
        row[i] = rig_round(kind == CONSTANT ? 0.5 : x);
    }
}

static void attend(world *w, int h, int t, int g)
{
    double top = -1e300, sum = 0, *x = w->logit[h][t][g], *p = w->p[h][t][g];
    for (int i = 0; i < w->n; i++) {
        x[i] = p[i] = 0;
        for (int d = 0; d < w->d; d++)
            x[i] += (double)w->q[h][t][g][d] * rig_k(&w->r, 0, h)[i * w->d + d];
        x[i] /= sqrt(w->d);
        top = i <= t ? fmax(top, x[i]) : top;
    }
    for (int i = 0; i <= t; i++)
        sum += p[i] = exp(x[i] - top);
    for (int i = 0; i <= t; i++)
        p[i] /= sum;
}

static void fill(world *w, pattern kind)
{
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(w->n * 1000 + w->d + w->g) + (uint64_t)kind);
    for (int h = 0; h < H; h++) {
        for (int t = 0; t < w->n; t++) {
            fill_row(&rng, kind, t, true, rig_k(&w->r, 0, h) + t * w->d, w->d);
            fill_row(&rng, kind, t, false, rig_v(&w->r, 0, h) + t * w->d, w->d);
            for (int g = 0; g < w->g; g++)
                fill_row(&rng, kind, t, false, w->q[h][t][g], w->d);
        }
        for (int t = 0; t < w->n; t++)
            for (int g = 0; g < w->g; g++)
                attend(w, h, t, g);
    }
}

/* What the engine would have recorded. */
static void record(world *w)
{
    const kept_capture *c = &w->r.capture;
    int from = c->n_planes && c->plane[0].window < w->n ? w->n - c->plane[0].window : 0;
    int m = c->n_recent < w->n ? c->n_recent : w->n;
    for (int h = 0; h < H && c->n_planes; h++)
        for (int i = 0; i < w->n; i++)
            for (int g = 0; g < w->g; g++) {
                double sum = 0;
                for (int t = from; t < w->n; t++)
                    sum += w->p[h][t][g][i];
                rig_mass(&w->r, c->plane[0].split ? g : 0, 0, h)[i] += (float)sum;
            }
    for (int t = 0; t < m; t++)
        for (int h = 0; h < H; h++)
            for (int g = 0; g < w->g; g++)
                memcpy(rig_recent(&w->r, 0, t, h, g), w->q[h][w->n - m + t][g],
                       (size_t)w->d * sizeof(float));
}

/* ---- grouping ------------------------------------------------------------------------------ */

static double merge(const reading *f, int g, double so_far, double x)
{
    return g == 0 ? x : f->gqa == KEPT_GQA_MAX ? fmax(so_far, x) : so_far + x;
}

/* Neighbours of i on its side of edge. */
static double pooled(const reading *f, const double *x, int n, int edge, int i)
{
    double best = x[i], sum = 0;
    if (f->pool == KEPT_POOL_NONE || f->kernel == 1)
        return x[i];
    for (int j = i - f->kernel / 2; j < i - f->kernel / 2 + f->kernel; j++)
        if (j >= 0 && j < n && (j < edge) == (i < edge)) {
            best = fmax(best, x[j]);
            sum += x[j];
        }
    return f->pool == KEPT_POOL_MAX ? best : sum / f->kernel;
}

static void grouped(const world *w, const reading *f, double x[MAX_G][MAX_N], int edge, double *out)
{
    double one[MAX_N];
    for (int i = 0; i < w->n; i++) {
        for (int g = 0; g < w->g; g++)
            one[i] = merge(f, g, one[i], x[g][i]);
        for (int g = 0; g < w->g && f->first; g++)
            out[i] = merge(f, g, out[i], pooled(f, x[g], w->n, edge, i));
    }
    for (int i = 0; i < w->n; i++) {
        out[i] = f->first ? out[i] : pooled(f, one, w->n, edge, i);
        out[i] /= f->gqa == KEPT_GQA_MEAN ? w->g : 1;
    }
}

/* ---- the formulas -------------------------------------------------------------------------- */

static int window_of(const world *w, const reading *f)
{
    return f->window < w->n ? w->n - f->window : 0;
}

/* h2o (a: divide by queries that saw the token), snapkv, morph: sums, or maxima (b), over queries.
 */
static void sums(const world *w, const reading *f, int h, double *out)
{
    static double x[MAX_G][MAX_N];
    for (int g = 0; g < w->g; g++)
        for (int i = 0; i < w->n; i++) {
            x[g][i] = 0;
            for (int t = window_of(w, f); t < w->n; t++)
                x[g][i] = f->b != 0 ? fmax(x[g][i], w->p[h][t][g][i]) : x[g][i] + w->p[h][t][g][i];
            x[g][i] /= f->a != 0 ? w->n - i : 1;
        }
    grouped(w, f, x, f->window == INT32_MAX ? w->n : window_of(w, f), out);
}

static void tova(const world *w, const reading *f, int h, double *out)
{
    double one[H][MAX_N];
    (void)h;
    for (int k = 0; k < H; k++) {
        reading last = *f;
        last.window = 1;
        static double x[MAX_G][MAX_N];
        for (int g = 0; g < w->g; g++)
            memcpy(x[g], w->p[k][w->n - 1][g], sizeof x[g]);
        grouped(w, &last, x, w->n, one[k]);
    }
    for (int i = 0; i < w->n; i++)
        out[i] = (one[0][i] + one[1][i]) / H;
}

/* arXiv 2305.17118; a: 1 counts, b: decay */
static void persistence(const world *w, const reading *f, int h, double *out)
{
    double one[MAX_N];
    for (int i = 0; i < w->n; i++)
        out[i] = 0;
    for (int t = window_of(w, f); t < w->n; t++) {
        static double x[MAX_G][MAX_N];
        for (int g = 0; g < w->g; g++)
            memcpy(x[g], w->p[h][t][g], sizeof x[g]);
        grouped(w, f, x, w->n, one);
        for (int i = 0; i <= t; i++)
            out[i] += pow(f->b, w->n - 1 - t) * (f->a != 0 ? one[i] >= 1.0 / (t + 1) : one[i]);
    }
}

/* FINCH */
static void question(const world *w, const reading *f, int h, double *out)
{
    static double x[MAX_G][MAX_N];
    for (int g = 0; g < w->g; g++)
        for (int i = 0; i < w->n; i++) {
            x[g][i] = 0;
            for (int t = window_of(w, f); t < w->n; t++)
                x[g][i] += w->p[h][t][g][i] * (t + 1);
        }
    grouped(w, f, x, window_of(w, f), out);
}

/* arXiv 2503.12491; a: gamma */
static void mean_variance(const world *w, const reading *f, int h, double *out)
{
    static double x[MAX_G][MAX_N];
    int from = window_of(w, f), m = w->n - from;
    for (int g = 0; g < w->g; g++)
        for (int i = 0; i < w->n; i++) {
            double mean = 0, variance = 0;
            for (int t = from; t < w->n; t++)
                mean += w->p[h][t][g][i] / m;
            for (int t = from; t < w->n; t++)
                variance += pow(w->p[h][t][g][i] - mean, 2) / m;
            x[g][i] = mean + f->a * variance;
        }
    grouped(w, f, x, from, out);
}

/* Leave one out in full: the output without token i, renormalised, against the output with it. */
static void drop_one(const world *w, const double *p, const float *v, double *x)
{
    double o[MAX_D] = {0};
    for (int j = 0; j < w->n; j++)
        for (int d = 0; d < w->d; d++)
            o[d] += p[j] * v[j * w->d + d];
    for (int i = 0; i < w->n && p[i] > 0; i++) {
        double without[MAX_D] = {0}, rest = 0;
        for (int j = 0; j < w->n; j++)
            rest += j != i ? p[j] : 0;
        for (int j = 0; j < w->n && rest > 0; j++)
            for (int d = 0; d < w->d && j != i; d++)
                without[d] += p[j] * v[j * w->d + d] / rest;
        for (int d = 0; d < w->d; d++)
            x[i] += pow(without[d] - o[d], 2);
    }
}

static void dropkv(const world *w, const reading *f, int h, double *out)
{
    static double x[MAX_G][MAX_N];
    memset(x, 0, sizeof x);
    for (int t = window_of(w, f); t < w->n; t++)
        for (int g = 0; g < w->g; g++)
            drop_one(w, w->p[h][t][g], rig_v(&w->r, 0, h), x[g]);
    grouped(w, f, x, window_of(w, f), out);
}

/* arXiv 2505.24133; a: lambda, b: near */
static void redundancy(const world *w, const reading *f, int h, double *out)
{
    static double s[MAX_N][MAX_N];
    int n = w->n, old = window_of(w, f);
    double red[MAX_N], imp[MAX_N] = {0}, all = 0;
    const float *k = rig_k(&w->r, 0, h);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++) {
            double ij = 0, ii = 0, jj = 0;
            for (int d = 0; d < w->d; d++) {
                ij += (double)k[i * w->d + d] * k[j * w->d + d];
                ii += (double)k[i * w->d + d] * k[i * w->d + d];
                jj += (double)k[j * w->d + d] * k[j * w->d + d];
            }
            s[j][i] = i == j ? 0 : ij / sqrt(ii * jj);
        }
    for (int i = 0; i < n; i++)
        for (int j = n - 1; j >= 0; j--)
            if (s[j][i] > f->b) {
                s[j][i] = 0;
                break;
            }
    for (int j = 0; j < n; j++) {
        red[j] = 0;
        for (int i = 0; i < n; i++)
            red[j] += s[j][i] / n;
        all += red[j] = exp(red[j]);
    }
    for (int t = old; t < n; t++) {
        double x[MAX_N], sum = 0, top = -1e300;
        for (int i = 0; i < old; i++) {
            x[i] = -1e300;
            for (int g = 0; g < w->g; g++)
                x[i] = fmax(x[i], w->logit[h][t][g][i]);
            top = fmax(top, x[i]);
        }
        for (int i = 0; i < old; i++)
            sum += x[i] = exp(x[i] - top);
        for (int i = 0; i < old; i++)
            imp[i] += x[i] / sum / (n - old);
    }
    for (int i = 0; i < n; i++)
        out[i] = f->a * (i < old ? pooled(f, imp, old, old, i) : 0) - (1 - f->a) * red[i] / all;
}

static double gumbel(const world *w, int h, int i)
{
    return -log(-log(w->noise[h][i]));
}

/* arXiv 2403.09054; temperatures 1 to 2 over a steps */
static void keyformer(const world *w, const reading *f, int h, double *out)
{
    static double x[MAX_G][MAX_N];
    memset(x, 0, sizeof x);
    for (int t = window_of(w, f); t < w->n; t++) {
        int step = t - (w->n - w->steps) + 1; /* the first decoded token is step 1 */
        double tau = 1 + fmin(1, fmax(0, step) / f->a);
        for (int g = 0; g < w->g; g++) {
            double e[MAX_N], sum = 0, top = -1e300;
            for (int i = 0; i <= t; i++)
                top = fmax(top, e[i] = (w->logit[h][t][g][i] + gumbel(w, h, i)) / tau);
            for (int i = 0; i <= t; i++)
                sum += e[i] = exp(e[i] - top);
            for (int i = 0; i <= t; i++)
                x[g][i] += e[i] / sum;
        }
    }
    grouped(w, f, x, w->n, out);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static bool is_guard(const world *w, int i)
{
    return i < 2 || i >= w->n - 3;
}

/* The kept candidates are the `keep` best; who lies within rounding of the threshold may differ,
 * but of two candidates with the same score the later one stays. Returns candidates near the
 * threshold. */
static int compare(const world *w, const double *score, const uint8_t *live, int keep)
{
    double sorted[MAX_N];
    int m = 0, near = 0, n_live = 0;
    for (int i = 0; i < w->n; i++)
        if (!is_guard(w, i)) {
            int at = m++;
            for (; at > 0 && sorted[at - 1] < score[i]; at--)
                sorted[at] = sorted[at - 1];
            sorted[at] = score[i];
            n_live += live[i];
        } else {
            CHECK(live[i]);
        }
    CHECK_INT(n_live, keep);
    double least = sorted[keep - 1], slack = w->slack * fabs(least) + 1e-30;
    for (int i = 0; i < w->n; i++) {
        bool close = fabs(score[i] - least) <= slack;
        near += close && !is_guard(w, i);
        if (!is_guard(w, i) && !close)
            CHECK(live[i] == (score[i] > least));
        for (int j = 0; j < i && !is_guard(w, i) && !is_guard(w, j); j++)
            CHECK(score[i] != score[j] || live[i] >= live[j]);
    }
    return near;
}

static void draw_noise(world *w, const kept_evict *e)
{
    const uint64_t key[3] = {e->seed, e->round, 0};
    const kept_view v = {.seed = kept_hash64(key, sizeof key, 0)};
    for (int h = 0; h < H; h++)
        for (int i = 0; i < w->n; i++)
            w->noise[h][i] = kept_noise(&v, h, i);
}

static void evict(world *w, const char *spec, int keep)
{
    char text[300];
    uint64_t ns = 0;
    kept_error err = {"", 0};
    snprintf(text, sizeof text, "%s+protect(sinks=2,recent=3)@%d", spec, keep);
    kept_strategy *s = rig_parse(text);
    rig_needs(&w->r, s);
    record(w);
    rig_pool(&w->r);
    w->r.cache = rig_cache(&w->r, w->n, w->n / 3);
    kept_evict e = rig_evict(&w->r, w->r.cache, w->n);
    e.n_recent = w->n < e.n_recent ? w->n : e.n_recent;
    e.full_tokens = w->n - w->steps;
    draw_noise(w, &e);
    CHECK_INT(kept_strategy_evict(s, &e, w->r.work, &ns, &ns, &err), KEPT_OK);
    kept_strategy_free(s);
}

static void finish(world *w)
{
    rig *r = &w->r;
    kept_cache_free(r->cache);
    kept_pool_free(r->pool);
    r->cache = NULL;
    r->pool = NULL;
}

/* nacl: kept candidates are those the proxies choose and, of the rest, the draw's. a: part, b: T */
static void check_nacl(const world *w, const reading *f, int h, const uint8_t *live, int keep)
{
    double score[MAX_N], draw[MAX_N];
    uint8_t chosen[MAX_N] = {0};
    int first = keep - (int)floor(f->a * keep);
    sums(w, &(reading){.window = f->window}, h, score);
    for (int k = 0; k < first; k++) {
        int best = -1;
        for (int i = 0; i < w->n; i++)
            if (!is_guard(w, i) && !chosen[i] && (best < 0 || score[i] >= score[best]))
                best = i;
        chosen[best] = 1;
    }
    for (int i = 0; i < w->n; i++) {
        draw[i] = chosen[i] ? 1e9 : score[i] / f->b + gumbel(w, h, i);
        CHECK(!chosen[i] || live[i]);
    }
    compare(w, draw, live, keep);
}

static void nacl(const world *w, const reading *f, int h, double *out)
{
    (void)w, (void)f, (void)h, (void)out; /* see check_nacl */
}

static void one(world *w, const reading *f, pattern kind)
{
    int keep = w->n / 2, near = 0;
    uint8_t live[MAX_N];
    double score[MAX_N];
    evict(w, f->spec, keep);
    for (int h = 0; h < H; h++) {
        CHECK_INT(rig_live(&w->r, w->r.cache, 0, h, live), keep);
        if (f->score == nacl) {
            check_nacl(w, f, h, live, keep - 5);
            continue;
        }
        if (f->score == dropkv && kind == CONSTANT)
            continue; /* nothing can change the output: 0 for all, and the rest is rounding */
        f->score(w, f, h, score);
        near += compare(w, score, live, keep - 5);
    }
    if (kind == RANDOM && f->pool == KEPT_POOL_NONE && f->a != 1)
        CHECK(near <= 4); /* else the comparison says nothing: the threshold itself, and luck */
    finish(w);
}

static const reading readings[] = {
    {"h2o", sums, INT32_MAX, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 0, 0},
    {"h2o(norm=on,gqa=max)", sums, INT32_MAX, KEPT_GQA_MAX, KEPT_POOL_NONE, 1, false, 1, 0},
    {"h2o(gqa=mean,pool=avg,kernel=4)", sums, INT32_MAX, KEPT_GQA_MEAN, KEPT_POOL_AVG, 4, false, 0,
     0},
    {"tova", tova, 1, KEPT_GQA_MEAN, KEPT_POOL_NONE, 1, false, 0, 0},
    {"tova(gqa=max,pool=max,kernel=3)", tova, 1, KEPT_GQA_MAX, KEPT_POOL_MAX, 3, false, 0, 0},
    {"snapkv(gqa=max)", sums, 32, KEPT_GQA_MAX, KEPT_POOL_MAX, 7, false, 0, 0},
    {"snapkv(pool-first=on)", sums, 32, KEPT_GQA_SUM, KEPT_POOL_MAX, 7, true, 0, 0},
    {"snapkv(window=5,gqa=max,pool=avg,kernel=5,pool-first=on)", sums, 5, KEPT_GQA_MAX,
     KEPT_POOL_AVG, 5, true, 0, 0},
    {"snapkv(pool=none)", sums, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 0, 0},
    {"morph", sums, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 0, 0},
    {"morph(window=16,over=max,gqa=max,pool=avg,kernel=3)", sums, 16, KEPT_GQA_MAX, KEPT_POOL_AVG,
     3, false, 0, 1},
    {"persistence", persistence, 64, KEPT_GQA_MEAN, KEPT_POOL_NONE, 1, false, 1, 1},
    {"persistence(window=20,kind=sum,decay=0.9,gqa=sum)", persistence, 20, KEPT_GQA_SUM,
     KEPT_POOL_NONE, 1, false, 0, 0.9},
    {"question", question, 64, KEPT_GQA_MEAN, KEPT_POOL_NONE, 1, false, 0, 0},
    {"question(window=9,gqa=max)", question, 9, KEPT_GQA_MAX, KEPT_POOL_NONE, 1, false, 0, 0},
    {"mean-variance", mean_variance, 32, KEPT_GQA_MEAN, KEPT_POOL_AVG, 5, false, 200, 0},
    {"mean-variance(gamma=3,gqa=max,pool=none)", mean_variance, 32, KEPT_GQA_MAX, KEPT_POOL_NONE, 5,
     false, 3, 0},
    {"dropkv", dropkv, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 0, 0},
    {"redundancy", redundancy, 8, KEPT_GQA_MAX, KEPT_POOL_MAX, 7, false, 0.1, 0.5},
    {"redundancy(lambda=0.9,near=0.1)", redundancy, 8, KEPT_GQA_MAX, KEPT_POOL_MAX, 7, false, 0.9,
     0.1},
    {"keyformer(steps=16)", keyformer, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 16, 0},
    {"nacl", nacl, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 0.3, 1},
    {"nacl(random=1,temperature=0.1)", nacl, 32, KEPT_GQA_SUM, KEPT_POOL_NONE, 1, false, 1, 0.1},
};

static void shape(int d, int g, int n, int steps)
{
    static world w;
    for (pattern kind = 0; kind < N_PATTERNS; kind++) {
        memset(&w, 0, sizeof w);
        w.r = rig_new(1, H, g, d, n);
        w.n = n;
        w.d = d;
        w.g = g;
        w.steps = steps;
        /* A wide logit is some hundreds, which a float holds to 3e-5; dropkv squares its exp. */
        w.slack = kind == WIDE ? 5e-4 : 2e-5;
        fill(&w, kind);
        for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
            int before = test_failed;
            test_failed = 0;
            one(&w, &readings[i], kind);
            if (test_failed)
                fprintf(stderr, "  with %s, pattern %d, d %d, g %d, n %d\n", readings[i].spec,
                        (int)kind, d, g, n);
            test_failed |= before;
        }
        rig_free(&w.r);
    }
}

static void test_d64_g1(void)
{
    shape(64, 1, 130, 12);
    shape(64, 1, 14, 3); /* below every window */
}
static void test_d64_g3(void)
{
    shape(64, 3, 63, 0);
    shape(64, 3, 64, 40);
    shape(64, 3, 66, 1);
}
static void test_d128_g8(void)
{
    shape(128, 8, 64, 64);
}

int main(void)
{
    RUN(test_d64_g1);
    RUN(test_d64_g3);
    RUN(test_d128_g8);
    TEST_END();
}
