/* KVCompose (arXiv 2509.05165): composite tokens, read naively. They are made one by one from
 * scores that the test orders itself, and taken from the best down, slot by slot; and a whole
 * eviction of `blended+composite` keeps what that says. Scores are multiples of 1/1024, so that
 * sums are exact and ties are ties. */
#include "policy_rig.h"

enum { L = 5, H = 3, ALL = L * H, N = 60 };

static int falling(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* What every head keeps of its candidates: x [n_layers * n_heads][N] in falling order. */
static void naive(int n_layers, int n_heads, double (*x)[N], const int *n, bool most, int64_t left,
                  int *keep)
{
    int next[ALL] = {0};
    for (int i = 0; i < n_layers * n_heads; i++)
        keep[i] = 0;
    while (left > 0) {
        double top = 0;
        int best = -1;
        for (int l = 0; l < n_layers; l++) {
            double sum = 0, max = -INFINITY;
            int heads = 0, longest = 0;
            for (int i = l * n_heads; i < (l + 1) * n_heads; i++) {
                if (!n[i])
                    continue;
                const double own = x[i][next[l] < n[i] ? next[l] : n[i] - 1];
                sum += own;
                max = own > max ? own : max;
                heads++;
                longest = n[i] > longest ? n[i] : longest;
            }
            const double score = most ? max : sum / heads;
            if (next[l] < longest && (best < 0 || score > top)) {
                best = l;
                top = score;
            }
        }
        if (best < 0)
            return;
        for (int i = best * n_heads; i < (best + 1) * n_heads; i++)
            if (next[best] < n[i] && left > 0) {
                keep[i]++;
                left--;
            }
        next[best]++;
    }
}

static void test_split(void)
{
    static double x[ALL][N];
    static float value[ALL][N];
    const float *score[ALL];
    const double mean[] = {0}, most[] = {1};
    kept_rng rng;
    kept_rng_init(&rng, 21);
    for (int round = 0; round < 2000 && !test_failed; round++) {
        int n[ALL], guard[ALL], keep[ALL], want[ALL];
        int64_t all = 0;
        const uint32_t levels = round % 3 ? 2000 : 7; /* the latter: many ties */
        for (int i = 0; i < ALL; i++) {
            n[i] = round % 2 ? 40 : (int)kept_rng_below(&rng, N + 1);
            guard[i] = (int)kept_rng_below(&rng, 6);
            all += n[i] + guard[i];
            for (int k = 0; k < n[i]; k++)
                x[i][k] = ((double)kept_rng_below(&rng, levels) - (round % 5 ? 0 : 900)) / 1024;
            qsort(x[i], (size_t)n[i], sizeof **x, falling);
            for (int k = 0; k < n[i]; k++)
                value[i][k] = (float)x[i][k];
            score[i] = value[i];
        }
        const kept_split s = {.n_layers = L,
                              .n_heads = H,
                              .n = n,
                              .score = score,
                              .n_protected = guard,
                              .total = kept_rng_below(&rng, (uint32_t)all + 10),
                              .options = round % 4 ? mean : most};
        kept_alloc_composite.split(&s, keep);
        naive(L, H, x, n, round % 4 == 0, kept_split_open(&s), want);
        for (int i = 0; i < ALL; i++)
            CHECK_INT(keep[i], want[i]);
        for (int i = 0; i < ALL && round % 2; i++) /* heads of a layer: equally long, or one more */
            CHECK(abs(keep[i] - keep[i / H * H]) <= 1);
    }
}

/* ---- a whole eviction ------------------------------------------------------------------------ */

enum { LAYERS = 3, HEADS = 2, TOKENS = N + 12, FIRST = 4, LAST = 8 };

static bool protects(int i)
{
    return i < FIRST || i >= TOKENS - LAST;
}

static void evict_once(rig *r, const char *spec, double weight, int64_t slots)
{
    static double x[LAYERS * HEADS][N], by_pos[LAYERS * HEADS][TOKENS];
    int n[LAYERS * HEADS], keep[LAYERS * HEADS];
    uint8_t live[TOKENS];
    uint64_t ns = 0;
    kept_error err = {"", 0};
    char text[160];
    snprintf(text, sizeof text, "%s+protect(sinks=%d,recent=%d)@%d", spec, FIRST, LAST,
             (int)(slots / (LAYERS * HEADS)));
    kept_strategy *s = rig_parse(text);
    for (int i = 0; i < LAYERS * HEADS; i++) {
        n[i] = 0;
        for (int t = 0; t < TOKENS; t++) {
            double sum = 0;
            for (int h = 0; h < HEADS; h++)
                sum += (double)rig_mass(r, 0, i / HEADS, h)[t];
            by_pos[i][t] = (double)rig_mass(r, 0, i / HEADS, i % HEADS)[t] + weight * sum / HEADS;
            if (!protects(t))
                x[i][n[i]++] = by_pos[i][t];
        }
        qsort(x[i], (size_t)n[i], sizeof **x, falling);
    }
    naive(LAYERS, HEADS, x, n, false, slots - LAYERS * HEADS * (FIRST + LAST), keep);
    kept_evict e = rig_evict(r, r->cache, TOKENS);
    CHECK_INT(kept_strategy_evict(s, &e, r->work, &ns, &ns, &err), KEPT_OK);
    for (int i = 0; i < LAYERS * HEADS; i++) {
        CHECK_INT(rig_live(r, r->cache, i / HEADS, i % HEADS, live), keep[i] + FIRST + LAST);
        for (int t = 0; t < TOKENS; t++) { /* better ones, of equal ones the later, come first */
            int before = 0;
            for (int u = 0; u < TOKENS; u++)
                before += !protects(u) &&
                          (by_pos[i][u] > by_pos[i][t] || (by_pos[i][u] == by_pos[i][t] && u > t));
            CHECK_INT(live[t], protects(t) || before < keep[i]);
        }
    }
    kept_strategy_free(s);
}

static void test_evict(void)
{
    kept_rng rng;
    kept_rng_init(&rng, 4);
    for (int round = 0; round < 40 && !test_failed; round++) {
        const bool blended = round % 2;
        rig r = rig_new(LAYERS, HEADS, 1, 64, TOKENS);
        kept_strategy *s = rig_parse("h2o@1");
        rig_needs(&r, s);
        kept_strategy_free(s);
        for (int i = 0; i < LAYERS * HEADS * TOKENS; i++) /* deeper layers score less */
            r.mass[i] = (float)kept_rng_below(&rng, (uint32_t)(300 - i / TOKENS * 40)) / 1024;
        rig_pool(&r);
        r.cache = rig_cache(&r, TOKENS, 17);
        evict_once(&r, blended ? "h2o+blended(weight=2)+composite" : "h2o+composite",
                   blended ? 2 : 0, LAYERS * HEADS * (14 + (int)kept_rng_below(&rng, 50)));
        rig_free(&r);
    }
}

int main(void)
{
    RUN(test_split);
    RUN(test_evict);
    TEST_END();
}
