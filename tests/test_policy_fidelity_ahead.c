/* Fidelity of the scores that read planes of a look-ahead: oracle, kvzip, kvzip-plus. What is kept
 * equals a double-precision reading of the formula over the same planes; ties keep the later
 * position. That the planes hold what they should is test_echo's business. */
#include "policy_rig.h"

#define L 2
#define H 2

/* mean over query heads of ||W_o v||_1, in double */
static double weight_of(const rig *r, int l, int h, int t)
{
    const float *v = rig_v(r, l, h) + (size_t)t * (size_t)r->head_size;
    const int row = r->n_heads * r->group * r->head_size;
    double sum = 0;
    for (int g = 0; g < r->group; g++)
        for (int e = 0; e < RIG_EMBD; e++) {
            const float *w =
                rig_w_o((void *)(uintptr_t)r, l) + e * row + (h * r->group + g) * r->head_size;
            double y = 0;
            for (int d = 0; d < r->head_size; d++)
                y += (double)w[d] * v[d];
            sum += fabs(y) / r->group;
        }
    return sum;
}

static void check(const char *spec, int budget, int n, int d, int g, bool ties, bool weighted)
{
    char text[96];
    kept_strategy *s = NULL;
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(n + d * 7 + g));
    snprintf(text, sizeof text, "%s+protect(sinks=0,recent=0)@%d", spec, budget);
    CHECK_INT(kept_strategy_parse(text, &s, NULL), KEPT_OK);
    rig r = rig_new(L, H, g, d, n);
    rig_needs(&r, s);
    CHECK_INT(r.n_state, 1);
    for (int i = 0; i < L * H * n * d; i++)
        r.v[i] = rig_round(kept_rng_normal(&rng));
    for (int i = 0; i < L * RIG_EMBD * H * g * d; i++)
        r.w_o[i] = (float)kept_rng_normal(&rng);
    for (int i = 0; i < L * H * n; i++)
        r.mass[i] = ties ? (float)kept_rng_below(&rng, 4) : (float)fabs(kept_rng_normal(&rng));
    rig_pool(&r);
    r.cache = rig_cache(&r, n, n / 3);
    kept_evict e = rig_evict(&r, r.cache, n);
    uint64_t a = 0, b = 0;
    CHECK_INT(kept_strategy_evict(s, &e, r.work, &a, &b, NULL), KEPT_OK);
    for (int l = 0; l < L; l++)
        for (int h = 0; h < H; h++) {
            double x[400];
            bool kept[400] = {false};
            int32_t pos[400];
            const int m = kept_cache_n(r.cache, l, h);
            CHECK_INT(m, budget < n ? budget : n);
            kept_cache_read(r.cache, l, h, pos, NULL, NULL);
            for (int i = 0; i < m; i++)
                kept[pos[i]] = true;
            for (int t = 0; t < n; t++)
                x[t] = rig_mass(&r, 0, l, h)[t] * (weighted ? weight_of(&r, l, h, t) : 1);
            for (int t = 0; t < n; t++) {
                int before = 0; /* tokens that go first */
                for (int u = 0; u < n; u++)
                    before += x[u] > x[t] || (x[u] == x[t] && u > t);
                CHECK_INT(kept[t], before < m);
            }
        }
    rig_free(&r);
    kept_strategy_free(s);
}

static void all(const char *spec, bool weighted)
{
    static const int n[] = {1, 63, 64, 65, 129, 300}, group[] = {1, 3, 8};
    for (int i = 0; i < 6; i++)
        for (int g = 0; g < 3; g++) {
            check(spec, n[i] / 2 + 1, n[i], g == 1 ? 128 : 64, group[g], false, weighted);
            check(spec, n[i] / 4 + 1, n[i], 64, group[g], !weighted, weighted);
        }
}

static void oracle(void)
{
    all("oracle", false);
}
static void kvzip(void)
{
    all("kvzip", false);
}
static void kvzip_plus(void)
{
    all("kvzip-plus", true);
}

int main(void)
{
    RUN(oracle);
    RUN(kvzip);
    RUN(kvzip_plus);
    TEST_END();
}
