/* Fidelity of the score ranker: what it sees of a slot, and what its network makes of that, equal a
 * plain reading in double precision of kept/policy.h and score_ranker.c. */
#include "model/look.h"
#include "trained_rig.h"

#define L 2
#define H 2
enum { F = KEPT_N_FEATURES, MOST = 208 };

/* ---- the features, from the arrays of the rig ------------------------------------------------ */

static double norm(const float *x, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += (double)x[d] * x[d];
    return sqrt(sum);
}

static double cosine(const float *a, const double *b, int n)
{
    double ab = 0, bb = 0;
    for (int d = 0; d < n; d++) {
        ab += a[d] * b[d];
        bb += b[d] * b[d];
    }
    double l = norm(a, n) * sqrt(bb);
    return l > 0 ? ab / l : 0;
}

/* Attention of recent query t of query head g to every slot: a causal softmax. */
static void attention(const rig *r, int l, int h, int t, int g, double *p)
{
    int R = r->capture.n_recent, D = r->head_size, seen = r->n - R + t + 1;
    const float *q = rig_recent(r, l, t, h, g);
    double sum = 0, top = -INFINITY;
    for (int k = 0; k < r->n; k++) {
        p[k] = k < seen ? 0 : -INFINITY;
        for (int d = 0; d < D && k < seen; d++)
            p[k] += (double)q[d] * rig_k(r, l, h)[k * D + d] / sqrt(D);
        top = fmax(top, p[k]);
    }
    for (int k = 0; k < r->n; k++)
        sum += p[k] = exp(p[k] - top);
    for (int k = 0; k < r->n; k++)
        p[k] /= sum;
}

static double share(double p, int n)
{
    return log(0.01 + p * n);
}

/* x [n][F] of one head. */
static void features(const rig *r, int l, int h, double *x)
{
    static double p[MOST], own[MOST], last[MOST], mean[MOST], most[MOST];
    int n = r->n, R = r->capture.n_recent, G = r->group, D = r->head_size;
    double way[256] = {0};
    memset(mean, 0, sizeof mean);
    memset(most, 0, sizeof most);
    memset(last, 0, sizeof last);
    for (int g = 0; g < G; g++) {
        memset(own, 0, sizeof own);
        for (int t = 0; t < R; t++) {
            attention(r, l, h, t, g, p);
            for (int i = 0; i < n; i++) {
                own[i] += p[i] / R;
                last[i] += t == R - 1 ? p[i] / G : 0;
            }
        }
        for (int i = 0; i < n; i++) {
            mean[i] += own[i] / G;
            most[i] = fmax(most[i], own[i]);
        }
    }
    for (int i = 0; i < n; i++) {
        const float *k = rig_k(r, l, h) + i * D;
        for (int d = 0; d < D && norm(k, D) > 0; d++)
            way[d] += k[d] / norm(k, D);
    }
    for (int i = 0; i < n; i++, x += F) {
        const float *k = rig_k(r, l, h) + i * D, *v = rig_v(r, l, h) + i * D;
        double near = 0, before[256];
        for (int j = i - 3; j <= i + 3; j++)
            near = j >= 0 && j < n ? fmax(near, mean[j]) : near;
        for (int d = 0; d < D; d++)
            before[d] = i ? k[d - D] : 0;
        x[0] = share(rig_mass(r, 0, l, h)[i] / (G * (double)(n - i)), n);
        x[1] = share(mean[i], n);
        x[2] = share(most[i], n);
        x[3] = share(near, n);
        x[4] = share(last[i], n);
        x[5] = log(1.0 + i);
        x[6] = log(n - i);
        x[7] = (double)i / n;
        x[8] = log(1e-6 + norm(k, D));
        x[9] = log(1e-6 + norm(v, D));
        x[10] = cosine(k, way, D);
        x[11] = cosine(k, before, D);
    }
}

/* ---- comparing ------------------------------------------------------------------------------- */

typedef struct against {
    const rig *r;
    const kept_trained *t;
    double x[MOST * F];
    int seen, slots;
} against;

static void see_block(void *ctx, int first, int n, const float *x)
{
    against *a = ctx;
    CHECK(first == a->slots && n >= 1 && n <= KEPT_FEATURE_BLOCK);
    a->slots += n;
    for (int i = 0; i < n * F; i++)
        CHECK_NEAR(x[i], a->x[first * F + i], 2e-4 * (1 + fabs(a->x[first * F + i])));
}

static double predict(const kept_trained *t, int kv, const double *x)
{
    size_t n;
    const float *w1 = kept_trained_array(t, "w1", &n) + kv * 8 * F;
    const float *b1 = kept_trained_array(t, "b1", &n) + kv * 8;
    const float *w2 = kept_trained_array(t, "w2", &n) + kv * 8;
    double y = kept_trained_array(t, "b2", &n)[kv];
    for (int k = 0; k < 8; k++) {
        double z = b1[k];
        for (int f = 0; f < F; f++)
            z += w1[k * F + f] * x[f];
        y += w2[k] * fmax(0, z);
    }
    return exp(fmin(80, y));
}

static void see_head(void *ctx, const kept_view *v, int head)
{
    static float score[MOST];
    against *a = ctx;
    a->seen++;
    a->slots = 0;
    features(a->r, v->layer, head, a->x);
    kept_slot_features(v, head, see_block, a);
    CHECK_INT(a->slots, a->r->n);
    kept_view shown = *v;
    shown.trained = a->t;
    kept_score_ranker.score(&shown, head, score);
    for (int i = 0; i < a->r->n; i++) {
        double is = predict(a->t, v->layer * H + head, a->x + i * F);
        CHECK_NEAR(log(score[i]), log(is), 5e-3);
    }
    shown.trained = NULL; /* nothing to read: nothing is said */
    kept_score_ranker.score(&shown, head, score);
    for (int i = 0; i < a->r->n; i++)
        CHECK(score[i] == 0);
}

/* A network with weights of both signs, so that some hidden channels are off. */
static kept_trained *network(void)
{
    kept_trained *t = NULL;
    kept_rng rng;
    static const struct {
        const char *name;
        int n;
    } part[] = {{"w1", 8 * F}, {"b1", 8}, {"w2", 8}, {"b2", 1}};
    kept_rng_init(&rng, 17);
    CHECK_INT(kept_trained_new("ranker", RIG_MODEL, &t, NULL), KEPT_OK);
    for (int i = 0; i < 4; i++) {
        float x[L * H * 8 * F];
        for (int k = 0; k < L * H * part[i].n; k++)
            x[k] = (float)(0.4 * kept_rng_normal(&rng));
        CHECK_INT(kept_trained_put(t, part[i].name, x, (size_t)(L * H * part[i].n), NULL), KEPT_OK);
    }
    return t;
}

static void check(int n, int group, int size, bool constant)
{
    static against a;
    const kept_strategy s = kept_look_strategy(&kept_score_ranker);
    rig r = rig_new(L, H, group, size, n);
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(n + group + size));
    rig_needs(&r, &s);
    for (int i = 0; i < L * H * n * size; i++) {
        r.k[i] = constant ? 0.5f : rig_round(kept_rng_normal(&rng));
        r.v[i] = constant ? 0 : rig_round(kept_rng_normal(&rng));
    }
    for (int i = 0; i < L * H * n; i++)
        r.mass[i] = (float)fabs(kept_rng_normal(&rng));
    if (n < r.capture.n_recent)
        r.capture.n_recent = n;
    for (int i = 0; i < L * r.capture.n_recent * H * group * size; i++)
        r.recent[i] = (float)kept_rng_normal(&rng);
    rig_pool(&r);
    r.cache = rig_cache(&r, n, n / 3);
    kept_evict e = rig_evict(&r, r.cache, n);
    kept_trained *t = network();
    a = (against){.r = &r, .t = t};
    const kept_look look = {.fn = see_head, .ctx = &a};
    e.capture.n_recent = 32;
    CHECK_INT(kept_strategy_look(&s, &e, r.work, &look, NULL), KEPT_OK);
    CHECK_INT(a.seen, L * H);
    kept_trained_free(t);
    rig_free(&r);
}

static void features_and_network(void)
{
    static const int n[] = {40, 63, 65, 129, 200}, group[] = {1, 3, 8};
    for (int i = 0; i < 5; i++)
        check(n[i], group[i % 3], i == 3 ? 128 : 64, false);
    check(64, 3, 64, false);
    check(100, 8, 64, false);
}

static void constants(void)
{
    check(70, 3, 64, true);
}

int main(void)
{
    RUN(features_and_network);
    RUN(constants);
    TEST_END();
}
