/* Merges. Every part of the registry: whatever it does, the kept set, the bytes and the live slots
 * are those of `drop`, rows are finite, and threads change nothing. Then each formula against a
 * plain reading in double precision, and what must hold of counts: c equal tokens and one of them
 * with the bias log c are the same to every query. */
#include "merge_rig.h"

/* ---- every merge --------------------------------------------------------------------------- */

static void check_finite(const rig *r, const kept_cache *c)
{
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            head x = read_head(r, c, l, h);
            bool finite = true;
            for (int i = 0; i < r->n * r->head_size; i++)
                finite &= isfinite(x.k[i]) && isfinite(x.v[i]);
            for (int i = 0; i < r->n; i++)
                finite &= isfinite(x.bias[i]) != 0;
            CHECK(finite);
            free_head(&x);
        }
}

static void check_same(const rig *r, const kept_cache *a, const kept_cache *b, bool rows)
{
    kept_account x, y;
    kept_cache_account(a, &x);
    kept_cache_account(b, &y);
    CHECK_INT(x.kv_bytes, y.kv_bytes);
    CHECK_INT(x.meta_bytes, y.meta_bytes);
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            head p = read_head(r, a, l, h), q = read_head(r, b, l, h);
            CHECK(!memcmp(p.live, q.live, sizeof p.live));
            const size_t bytes = (size_t)(r->n * r->head_size) * sizeof(float);
            if (rows)
                CHECK(!memcmp(p.k, q.k, bytes) && !memcmp(p.v, q.v, bytes) &&
                      !memcmp(p.bias, q.bias, sizeof p.bias));
            free_head(&p), free_head(&q);
        }
}

static void one_pair(pattern kind, const char *score, const char *merge)
{
    char spec[200], plain[200];
    snprintf(spec, sizeof spec, "%s+%s@30%%", score, merge);
    snprintf(plain, sizeof plain, "%s@30%%", score);
    int before = test_failed;
    test_failed = 0;
    rig r = make(kind, 110, 3, 16, spec);
    kept_cache *a = fork_of(&r), *b = fork_of(&r), *c = fork_of(&r);
    cut(&r, plain, a, false);
    cut(&r, spec, b, false);
    cut(&r, spec, c, false);
    check_same(&r, a, b, false);
    check_same(&r, b, c, true);
    check_finite(&r, b);
    kept_cache_free(a), kept_cache_free(b), kept_cache_free(c);
    finish(&r);
    if (test_failed)
        fprintf(stderr, "  with %s, pattern %d\n", spec, kind);
    test_failed |= before;
}

static void contract(void)
{
    for (int i = 0; i < kept_part_count(); i++)
        for (int j = 0; j < kept_part_count(); j++) {
            const kept_part *a = kept_part_at(i), *b = kept_part_at(j);
            if (a->axis != KEPT_AXIS_SCORE || a == &kept_score_full.part ||
                b->axis != KEPT_AXIS_MERGE)
                continue;
            bool all = a == &kept_score_h2o.part || a == &kept_score_knorm.part;
            for (int kind = 0; kind < (all ? N_PATTERNS : 1); kind++)
                one_pair((pattern)kind, a->name, b->name);
        }
}

/* Two lanes, heads in another order, a second eviction: the same bits. */
static void threads(void)
{
    for (int j = 0; j < kept_part_count(); j++) {
        if (kept_part_at(j)->axis != KEPT_AXIS_MERGE)
            continue;
        char spec[200], again[200];
        snprintf(spec, sizeof spec, "snapkv+%s@30%%", kept_part_at(j)->name);
        snprintf(again, sizeof again, "snapkv+%s@12%%", kept_part_at(j)->name);
        rig r = make(RANDOM, MOST, 2, 16, spec);
        kept_cache *a = fork_of(&r), *b = fork_of(&r);
        for (int two = 0; two < 2; two++) {
            cut(&r, spec, two ? b : a, two);
            cut(&r, again, two ? b : a, two);
        }
        check_same(&r, a, b, true);
        check_finite(&r, a);
        kept_cache_free(a), kept_cache_free(b);
        finish(&r);
    }
}

/* ---- formulas ------------------------------------------------------------------------------ */

/* Live position with the largest cosine to the key at pos, the first of equal ones. */
static int most_similar(const world *w, int pos)
{
    int best = -1;
    for (int j = 0; j < w->r.n; j++)
        if (w->now.live[j] &&
            (best < 0 || cosine(key_of(w, j), key_of(w, pos), w->D) >
                             cosine(key_of(w, best), key_of(w, pos), w->D) + 1e-9))
            best = j;
    return best;
}

static void check_merging(world *w, const double *option)
{
    const int D = w->D;
    int to[MOST];
    for (int e = 0; e < w->r.n; e++)
        to[e] = w->now.live[e] ? -1 : most_similar(w, e);
    for (int j = 0; j < w->r.n; j++) {
        double sum[256], all = 1;
        if (!w->now.live[j])
            continue;
        for (int d = 0; d < D; d++)
            sum[d] = value_of(w, j)[d];
        for (int e = 0; e < w->r.n; e++) {
            if (to[e] != j)
                continue;
            double s = cosine(key_of(w, j), key_of(w, e), D);
            double ve = sqrt(dot(value_of(w, e), value_of(w, e), D));
            double vt = sqrt(dot(value_of(w, j), value_of(w, j), D));
            double x = s >= option[0] && s > 0 ? s * ve / (ve + vt + 1e-6) : 0;
            all += x;
            for (int d = 0; d < D; d++)
                sum[d] += x * value_of(w, e)[d];
        }
        for (int d = 0; d < D; d++)
            sum[d] /= all;
        CHECK(near_row(w->now.v + j * D, sum, D));
        CHECK(!memcmp(w->now.k + j * D, key_of(w, j), (size_t)D * sizeof(float)));
        CHECK(w->now.bias[j] == 0);
    }
}

static void merging(void)
{
    each_head("h2o+merging@30%", (const double[]){0}, check_merging);
    each_head("recency+merging(at=0.2)+protect(sinks=2,recent=5)@20%", (const double[]){0.2},
              check_merging);
}

/* The random number is the engine's; the rest is written out. */
static void check_cam(world *w, const double *option)
{
    const int D = w->D, n = w->r.n, most = (int)option[0];
    const float *mass = rig_mass(&w->r, 0, w->l, w->h);
    const uint64_t seed[3] = {1, 0, (uint64_t)w->l};
    const kept_view v = {.seed = kept_hash64(seed, sizeof seed, 0)};
    double *sum = calloc((size_t)(n * D), sizeof *sum);
    for (int e = 0; e < n; e++) {
        int next[256], m = 0;
        double mean = 0;
        for (int j = e + 1; j < n && m < most && !w->now.live[e]; j++)
            if (w->now.live[j])
                mean += mass[next[m++] = j];
        double p = m && mean > 0 ? fmin(1, mass[e] / (mean / m)) : m && mass[e] > 0 ? 1 : 0;
        for (int i = 0; i < m && kept_noise(&v, w->h, e) < p; i++)
            for (int d = 0; d < D; d++)
                sum[next[i] * D + d] += value_of(w, e)[d] / m;
    }
    for (int j = 0; j < n; j++) {
        for (int d = 0; d < D; d++)
            sum[j * D + d] += value_of(w, j)[d];
        if (w->now.live[j])
            CHECK(near_row(w->now.v + j * D, sum + j * D, D));
        if (w->now.live[j])
            CHECK(!memcmp(w->now.k + j * D, key_of(w, j), (size_t)D * sizeof(float)));
    }
    free(sum);
}

static void cam(void)
{
    each_head("h2o+cam(m=5)@40%", (const double[]){5}, check_cam);
    each_head("random+cam@30%", (const double[]){32}, check_cam);
}

/* x turned by `angle` positions: pairs (j, j + D/2), as the rig's model has them. */
static void turn(const rig *r, const float *x, int positions, double *out)
{
    int half = r->head_size / 2;
    for (int j = 0; j < half; j++) {
        double a = (double)positions * r->freq[j];
        out[j] = cos(a) * x[j] - sin(a) * x[j + half];
        out[j + half] = sin(a) * x[j] + cos(a) * x[j + half];
    }
}

/* Live position nearest to pos of its chunk, the earlier of two; protected ones are the first and
 * last so many. */
static int nearest(const world *w, int pos, int span, int sinks, int recent)
{
    int best = -1;
    for (int j = sinks; j < w->r.n - recent; j++)
        if (w->now.live[j] && (!span || j / span == pos / span) &&
            (best < 0 || abs(j - pos) < abs(best - pos)))
            best = j;
    return best;
}

/* option: span, keys, count, guarded. Protection: 4 and 32. */
static void check_summary(world *w, const double *option)
{
    const int D = w->D, span = (int)option[0], keys = (int)option[1];
    const int sinks = option[3] != 0 ? 0 : 4, recent = option[3] != 0 ? 0 : 32;
    for (int j = 0; j < w->r.n; j++) {
        double k[256] = {0}, v[256] = {0}, x[256];
        int c = 0;
        if (!w->now.live[j])
            continue;
        for (int e = 0; e < w->r.n; e++) {
            if (e != j && (w->now.live[e] || nearest(w, e, span, sinks, recent) != j))
                continue;
            /* Keys at j's position: each turned by the distance. */
            turn(&w->r, key_of(w, e), keys == 0 ? j - e : 0, x);
            for (int d = 0; d < D; d++) {
                k[d] += x[d];
                v[d] += value_of(w, e)[d];
            }
            c++;
        }
        for (int d = 0; d < D; d++) {
            k[d] = keys == 2 ? key_of(w, j)[d] : k[d] / c;
            v[d] /= c;
        }
        CHECK(near_row(w->now.k + j * D, k, D));
        CHECK(near_row(w->now.v + j * D, v, D));
        CHECK_NEAR(w->now.bias[j], option[2] != 0 ? log(c) : 0, 1e-5);
    }
}

static void summary(void)
{
    each_head("h2o+summary@50%", (const double[]){0, 0, 1, 0}, check_summary);
    each_head("h2o+summary(keys=rotated,guarded=on)@40%", (const double[]){0, 1, 1, 1},
              check_summary);
    each_head("random+summary(span=16,keys=own,count=off)@50%", (const double[]){16, 2, 0, 0},
              check_summary);
}

/* ---- counts -------------------------------------------------------------------------------- */

/* Attention of q over what a head holds, in double, with its biases. */
static void attend(const head *x, const float *q, int n, int D, double *out)
{
    double sum = 0, top = -INFINITY;
    memset(out, 0, (size_t)D * sizeof *out);
    for (int j = 0; j < n; j++)
        if (x->live[j])
            top = fmax(top, dot(q, x->k + j * D, D) / sqrt(D) + x->bias[j]);
    for (int j = 0; j < n; j++) {
        if (!x->live[j])
            continue;
        double p = exp(dot(q, x->k + j * D, D) / sqrt(D) + x->bias[j] - top);
        sum += p;
        for (int d = 0; d < D; d++)
            out[d] += p * x->v[j * D + d];
    }
    for (int d = 0; d < D; d++)
        out[d] /= sum;
}

/* Blocks of equal tokens of which one or more stay: whatever is dropped, and dropped again, no
 * query sees a difference. Without counts it does. */
static void equal_tokens(void)
{
    static const char *const specs[] = {"summary(span=24,keys=rotated,guarded=on)",
                                        "summary(span=24,keys=own)",
                                        "summary(span=24,keys=own,count=off)"};
    for (int i = 0; i < 3; i++) {
        const int n = 240, D = 64, block = 24;
        rig r = rig_new(2, 2, 1, D, n);
        char spec[200];
        double worst = 0;
        kept_rng rng;
        kept_rng_init(&rng, 3);
        kept_strategy *any = rig_parse("ladder@50%");
        rig_needs(&r, any);
        kept_strategy_free(any);
        for (int row = 0; row < 4 * n; row++) /* the first token of its block, or the same again */
            for (int d = 0; d < D; d++) {
                size_t at = (size_t)row * (size_t)D + (size_t)d;
                bool first = row % n % block == 0;
                r.k[at] = first ? rig_round(kept_rng_normal(&rng)) : r.k[at - (size_t)D];
                r.v[at] = first ? rig_round(kept_rng_normal(&rng)) : r.v[at - (size_t)D];
            }
        rig_pool(&r);
        r.cache = rig_cache(&r, n, 0);
        head before = read_head(&r, r.cache, 1, 1);
        /* A third of the tokens, then a twelfth: each block keeps some. */
        for (int step = 3; step <= 12; step *= 4) {
            snprintf(spec, sizeof spec, "ladder(gamma=0)+protect(sinks=0,recent=0)+%s@%d", specs[i],
                     n / step);
            cut(&r, spec, r.cache, false);
        }
        head after = read_head(&r, r.cache, 1, 1);
        CHECK_INT(after.n, n / 12);
        for (int t = 0; t < 20; t++) {
            float q[64];
            double x[64], y[64];
            for (int d = 0; d < D; d++)
                q[d] = (float)kept_rng_normal(&rng);
            attend(&before, q, n, D, x);
            attend(&after, q, n, D, y);
            for (int d = 0; d < D; d++)
                worst = fmax(worst, fabs(x[d] - y[d]));
        }
        CHECK(i == 2 ? worst > 0.01 : worst < 2e-5);
        free_head(&before), free_head(&after);
        rig_free(&r);
    }
}

/* What cannot be is refused when the spec is read. */
static void refusals(void)
{
    static const char *const wrong[][2] = {
        {"h2o+summry@25%", "did you mean 'summary'?"},
        {"h2o+merging+kivi4@25%", "rewrites slots one by one"},
        {"snapkv+cake+layers+summary@20%", "merged would be dropped"},
        {"full+summary", "takes no merge"},
    };
    for (int i = 0; i < 4; i++) {
        kept_strategy *s = NULL;
        kept_error err = {"", 0};
        CHECK_INT(kept_strategy_parse(wrong[i][0], &s, &err), KEPT_ARGUMENT);
        CHECK(!s && strstr(err.text, wrong[i][1]));
    }
    kept_strategy_free(rig_parse("snapkv+uniform+layers+summary@20%"));
    kept_strategy_free(rig_parse("snapkv+merging+q8@20%"));
}

int main(void)
{
    RUN(refusals);
    RUN(contract);
    RUN(threads);
    RUN(merging);
    RUN(cam);
    RUN(summary);
    RUN(equal_tokens);
    TEST_END();
}
