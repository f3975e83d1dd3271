/* Statistics against SciPy 1.x and statsmodels 0.14 in a throw-away environment. Each table says
 * what made it; `import numpy as np; from scipy import stats, special, optimize` stands before all.
 */
#include "bench/stats.h"
#include "test.h"

/* stats.t.ppf, stats.t.cdf, special.betainc(a, b, x), stats.binom.cdf(k, n, p) */
static void distributions(void)
{
    CHECK_NEAR(kept_t_quantile(0.975, 1), 12.7062047362, 1e-9);
    CHECK_NEAR(kept_t_quantile(0.975, 7), 2.3646242516, 1e-9);
    CHECK_NEAR(kept_t_quantile(0.95, 30), 1.6972608866, 1e-9);
    CHECK_NEAR(kept_t_quantile(0.995, 499), 2.5857176831, 1e-9);
    CHECK_NEAR(kept_t_quantile(0.4, 2.5), -0.2814595127, 1e-9);
    CHECK_NEAR(kept_t_cdf(-3, 2), 0.047732983133, 1e-11);
    CHECK_NEAR(kept_t_cdf(1.5, 7), 0.911350756505, 1e-11);
    CHECK_NEAR(kept_t_cdf(0, 4), 0.5, 1e-12);
    CHECK_NEAR(kept_t_cdf(40, 3), 0.999982809660, 1e-11);
    CHECK_NEAR(kept_beta_cdf(0.3, 2, 5), 0.579825, 1e-12);
    CHECK_NEAR(kept_beta_cdf(0.5, 200, 210), 0.689485213427417, 1e-11);
    CHECK_NEAR(kept_beta_cdf(1e-6, 0.5, 0.5), 0.000636619878470925, 1e-14);
    CHECK_NEAR(kept_beta_cdf(0.7, 1e4, 4e3), 0.000104293314986734, 1e-12);
    CHECK_NEAR(kept_binomial_cdf(0, 59, 0.05), 0.0484945252494232, 1e-13);
    CHECK_NEAR(kept_binomial_cdf(3, 100, 0.05), 0.257838659116015, 1e-12);
    CHECK_NEAR(kept_binomial_cdf(250, 500, 0.5), 0.517832322776675, 1e-11);
    CHECK_NEAR(kept_binomial_cdf(7, 8, 0.99), 0.07725530557208, 1e-13);
    CHECK_NEAR(kept_normal_quantile(0.975), 1.959963984540054, 1e-12);
}

/* statsmodels.stats.proportion.proportion_confint(k, n, .05, 'beta') */
static void clopper_pearson(void)
{
    static const struct {
        int k, n;
        double low, high;
    } want[] = {{0, 20, 0, 0.1684334710},
                {3, 100, 0.0062299715, 0.0851760530},
                {20, 20, 0.8315665290, 1},
                {250, 500, 0.4552855693, 0.5447144307}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const kept_interval in = kept_clopper_pearson(want[i].k, want[i].n, 0.95);
        CHECK_NEAR(in.low, want[i].low, 1e-9);
        CHECK_NEAR(in.high, want[i].high, 1e-9);
    }
}

/* The likelihood under a fixed difference maximised by a general optimiser instead of in closed
 * form: def tango(b, c, n, level):     # b improvements, c regressions def z(d): nll = lambda q:
 * -sum(k*np.log(max(p, 1e-300)) for k, p in
 *                          [(b, q+d), (c, q), (n-b-c, 1-2*q-d)] if k > 0)
 *     q = optimize.minimize_scalar(nll, bounds=(max(0, -d), (1-d)/2), method='bounded',
 *                                  options=dict(xatol=1e-13)).x if b + c else max(0, -d)
 *     return (b - c - n*d) / np.sqrt(n*(2*q + d*(1-d)))
 *   k = stats.norm.ppf(.5 + level/2)
 *   return [optimize.brentq(lambda d: z(d) - s*k, -1+1e-9, 1-1e-9) for s in (1, -1)] */
static void tango(void)
{
    static const struct {
        int regressions, improvements, n;
        double low, high;
    } want[] = {{0, 0, 8, -0.324407565, 0.324407565},   {6, 1, 8, -0.894641179, 0.023788351},
                {1, 3, 50, -0.054425007, 0.146146265},  {12, 2, 100, -0.181881669, -0.031000519},
                {1, 0, 500, -0.011240707, 0.005639589}, {25, 20, 200, -0.092377125, 0.041819649}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const kept_interval in =
            kept_tango(want[i].regressions, want[i].improvements, want[i].n, 0.95);
        CHECK_NEAR(in.low, want[i].low, 2e-7);
        CHECK_NEAR(in.high, want[i].high, 2e-7);
    }
    CHECK(kept_tango(8, 0, 8, 0.95).low < -0.999); /* all lost: nothing is worse */
    CHECK(kept_tango(0, 0, 0, 0.95).low == -1 && kept_tango(0, 0, 0, 0.95).high == 1);
}

/* statsmodels.stats.multitest.multipletests(p, method='holm')[1];
 * stats.kendalltau(x, y).statistic;
 * mcnemar([[0, 7], [2, 0]], exact=True).pvalue;
 * np.ceil((stats.norm.ppf(.95) + stats.norm.ppf(.8))**2 * flips / margin**2) */
static void many_tests_ranks_and_plans(void)
{
    const double p[] = {0.01, 0.04, NAN, 0.03, 0.005, 0.5, 0.03};
    const double want[] = {0.05, 0.12, NAN, 0.12, 0.03, 0.5, 0.12};
    double got[7];
    CHECK(kept_holm(p, 7, got));
    for (int i = 0; i < 7; i++)
        if (i != 2)
            CHECK_NEAR(got[i], want[i], 1e-12);
    CHECK(isnan(got[2]));
    const double a[] = {1, 2, 3, 4, 5}, b[] = {3, 1, 2, 5, 4};
    const double c[] = {1, 1, 2, 3, 3, 4}, d[] = {2, 1, 1, 3, 4, 4};
    const double e[] = {0.9, 0.5, 0.5, 0.1, 0.7}, f[] = {0.2, 0.2, 0.4, 0.9, 0.1};
    CHECK_NEAR(kept_kendall(a, b, 5), 0.4, 1e-12);
    CHECK_NEAR(kept_kendall(c, d, 6), 0.692307692308, 1e-11);
    CHECK_NEAR(kept_kendall(e, f, 5), -0.666666666667, 1e-11);
    CHECK(isnan(kept_kendall(got, got, 1)));
    CHECK_NEAR(kept_mcnemar(2, 7), 0.1796875, 1e-12);
    CHECK_INT(kept_samples_needed(0.02, 0.05, 0.95, 0.8), 50);
    CHECK_INT(kept_samples_needed(0.05, 0.03, 0.95, 0.8), 344);
    CHECK_INT(kept_samples_needed(0.1, 0.02, 0.95, 0.8), 1546);
    CHECK_INT(kept_samples_needed(0.2, 0.01, 0.95, 0.8), 12366);
    const double ladder[] = {0.001, 0.04, 0.05, 0.051, 0.01};
    CHECK_INT(kept_fixed_sequence(ladder, 5, 0.05), 3);
    CHECK_INT(kept_fixed_sequence(ladder + 3, 2, 0.05), 0);
}

/* h1 = lambda a, b: special.rel_entr(a, b) + special.rel_entr(1-a, 1-b)
 * hb = lambda s, n, e: min(np.exp(-n*h1(min(s/n, e), e)), np.e*stats.binom.cdf(np.ceil(s), n, e),
 * 1)
 */
static void guarantees(void)
{
    CHECK_NEAR(kept_loss_p(2.5, 200, true, 0.05), 0.0152926913709, 1e-11);
    CHECK_NEAR(kept_loss_p(0, 100, true, 0.02), 0.132619555895, 1e-11);
    CHECK_NEAR(kept_loss_p(30.2, 300, true, 0.1), 1, 0);
    CHECK_NEAR(kept_loss_p(0, 59, false, 0.05), 0.0484945252494232, 1e-12);
    /* Binary: the bound is Clopper and Pearson's one-sided one, stats.beta.ppf(.95, k+1, n-k). */
    CHECK_NEAR(kept_loss_bound(3, 100, false, 0.05), kept_clopper_pearson(3, 100, 0.9).high, 1e-9);
    CHECK_NEAR(kept_loss_bound(0, 59, false, 0.05), 1 - pow(0.05, 1.0 / 59), 1e-9);
    CHECK_NEAR(kept_loss_p(2.5, 200, true, kept_loss_bound(2.5, 200, true, 0.05)), 0.05, 1e-6);
    CHECK_NEAR(kept_loss_p(0, 0, false, 0.1), 1, 0);
}

static const double graded[] = {0.1, -0.3, 0.25, 0.4, -0.05, 0.6, 0.15, 0.2, -0.1, 0.35, 0.05, 0.3,
                                0.1, -0.3, 0.25, 0.4, -0.05, 0.6, 0.15, 0.2, -0.1, 0.35, 0.05, 0.3};
static const int cluster[] = {0, 0, 1, 1, 1, 2, 3, 3, 4,  4,  5,  5,
                              6, 6, 7, 7, 7, 8, 9, 9, 10, 10, 11, 11};

/* x the 24 values, cl their clusters, S and C sums and counts:
 * t = stats.norm.cdf(-np.sqrt(24/23) * stats.t.ppf(.975, 23))
 * m = np.random.default_rng(1).choice(x, (400000, 24)).mean(1); np.quantile(m, [t, 1-t])
 * clusters: i = default_rng(2).integers(0, 12, (400000, 12)); m = S[i].sum(1) / C[i].sum(1)
 * p_inferior at a margin of .02: se = sm.OLS(x, np.ones(24)).fit(cov_type='cluster',
 *   cov_kwds=dict(groups=cl, use_correction=False)).bse[0] * np.sqrt(12/11);
 *   stats.t.sf((x.mean() + .02) / se, 11)
 * signflip: stats.permutation_test((x[:12],), np.mean, permutation_type='samples',
 * n_resamples=np.inf)
 */
static void bootstrap_and_clusters(void)
{
    const double levels[2] = {0.95, 0.9};
    kept_interval in[2];
    const kept_paired own = {.diff = graded, .n = 24}, shared = {graded, cluster, 24, false};
    kept_bootstrap(&own, 100000, 1, levels, in);
    CHECK_NEAR(in[0].low, 0.060417, 0.0025);
    CHECK_NEAR(in[0].high, 0.2625, 0.0025);
    CHECK(in[1].low > in[0].low && in[1].high < in[0].high);
    kept_bootstrap(&shared, 100000, 1, levels, in);
    CHECK_NEAR(in[0].low, 0.066667, 0.0025);
    CHECK_NEAR(in[0].high, 0.268182, 0.0025);
    kept_change c;
    CHECK_INT(kept_change_of(&shared, 0.02, 0.95, &c, NULL), KEPT_OK);
    CHECK_NEAR(c.mean, 0.1625, 1e-12);
    CHECK_NEAR(c.p_inferior, 0.000681674501, 1e-9);
    CHECK_INT(c.n_clusters, 12);
    CHECK_INT(c.verdict, KEPT_NON_INFERIOR);
    CHECK(c.more == 0);
    CHECK_NEAR(kept_signflip(graded, 12, 0, 1), 0.049316406250, 1e-9);
    CHECK_NEAR(kept_effective_n(graded, cluster, 24), 24, 0); /* 32.3 before the cap */
    double twice[24];
    int pair[24];
    for (int i = 0; i < 24; i++) {
        twice[i] = graded[i / 2];
        pair[i] = i / 2;
    }
    CHECK_NEAR(kept_effective_n(twice, pair, 24), 12, 1e-9); /* copies tell nothing new */
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The bootstrap as it is described, in long double: two indices from each word, the low half first;
 * type 7 quantiles at the expanded tail. */
static kept_interval naive_bootstrap(const kept_paired *x, int rounds, double level)
{
    long double sum[40] = {0}, count[40] = {0};
    double means[500];
    int g = 0;
    for (int i = 0; i < x->n; i++) {
        const int c = x->cluster ? x->cluster[i] : i;
        sum[c] += x->diff[i];
        count[c] += 1;
        g = c >= g ? c + 1 : g;
    }
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int r = 0; r < rounds; r++) {
        long double s = 0, k = 0;
        uint64_t bits = 0;
        for (int i = 0; i < g; i++) {
            bits = i % 2 ? bits >> 32 : kept_rng_u64(&rng);
            const int c = (int)((bits & UINT32_MAX) * (uint64_t)g >> 32);
            s += sum[c];
            k += count[c];
        }
        means[r] = (double)(s / k);
    }
    qsort(means, (size_t)rounds, sizeof *means, ascending);
    const double z = kept_t_quantile(0.5 + level / 2, g - 1);
    const double tail = kept_normal_cdf(-sqrt(g / (g - 1.0)) * z);
    double out[2];
    for (int i = 0; i < 2; i++) {
        const double h = (rounds - 1) * (i ? 1 - tail : tail);
        const int k = (int)h;
        out[i] = means[k] + (h - k) * (means[k + 1] - means[k]);
    }
    return (kept_interval){out[0], out[1]};
}

/* Rows in company: 21 of three sizes, some in clusters, some with one cluster, in mixed order. */
static void bootstrap_rows(void)
{
    static double x[21][40];
    static int shared[21][40];
    kept_paired row[21];
    kept_interval out[21][2], alone[2];
    const double levels[2] = {0.95, 0.8};
    kept_rng rng;
    kept_rng_init(&rng, 17);
    for (int v = 0; v < 21; v++) {
        const int n = v % 3 == 0 ? 40 : v % 3 == 1 ? 25 : 24;
        for (int i = 0; i < n; i++) {
            x[v][i] = kept_rng_normal(&rng);
            shared[v][i] = v == 20 ? 0 : i / 2;
        }
        row[v] = (kept_paired){x[v], v == 20 || v % 4 == 1 ? shared[v] : NULL, n, false};
    }
    kept_bootstrap_rows(row, 21, 400, 3, levels, out);
    CHECK(isnan(out[20][0].low)); /* one cluster */
    for (int v = 0; v < 20; v++) {
        kept_bootstrap(&row[v], 400, 3, levels, alone);
        for (int k = 0; k < 2; k++) {
            const kept_interval want = naive_bootstrap(&row[v], 400, levels[k]);
            CHECK_NEAR(out[v][k].low, want.low, 1e-12);
            CHECK_NEAR(out[v][k].high, want.high, 1e-12);
            CHECK(out[v][k].low == alone[k].low && out[v][k].high == alone[k].high);
        }
    }
}

/* Flips: interval, bounds and p are those of the table alone. */
static void verdicts(void)
{
    double x[400] = {0};
    kept_change c;
    const kept_paired few = {.diff = x, .n = 8, .bounded = true};
    CHECK_INT(kept_change_of(&few, 0.01, 0.95, &c, NULL), KEPT_OK);
    CHECK_INT(c.verdict, KEPT_INCONCLUSIVE);   /* no flip in 8 proves little */
    CHECK_NEAR(c.bounds.low, -0.252724, 1e-5); /* 1.6449^2 / (8 + 1.6449^2) */
    CHECK(c.more > 100 && c.more < 20000);
    for (int i = 0; i < 8; i++)
        x[i] = -1;
    CHECK_INT(kept_change_of(&few, 0.01, 0.95, &c, NULL), KEPT_OK);
    CHECK_INT(c.verdict, KEPT_WORSE);
    CHECK_NEAR(c.p, 2.0 / 256, 1e-12);
    memset(x, 0, sizeof x);
    const kept_paired many = {.diff = x, .n = 400, .bounded = true};
    CHECK_INT(kept_change_of(&many, 0.01, 0.95, &c, NULL), KEPT_OK);
    CHECK_INT(c.verdict, KEPT_NON_INFERIOR);
    const kept_paired none = {.diff = x, .n = 0, .bounded = true};
    CHECK_INT(kept_change_of(&none, 0.01, 0.95, &c, NULL), KEPT_OK);
    CHECK(c.verdict == KEPT_INCONCLUSIVE && isnan(c.mean) && isnan(c.bounds.low));
    /* One cluster holds everything: no spread, no verdict. */
    int all[400] = {0};
    const kept_paired one = {.diff = x, .cluster = all, .n = 400, .bounded = true};
    CHECK_INT(kept_change_of(&one, 0.01, 0.95, &c, NULL), KEPT_OK);
    CHECK_INT(c.verdict, KEPT_INCONCLUSIVE);
}

/* What a verdict still needs as one of 90: with so many samples of the kind the test rejects, with
 * one less it does not, also where the formula for the power asks for none. */
static void samples_that_are_missing(void)
{
    static double x[3000];
    const double level = 1 - 0.05 / 90;
    for (int kind = 0; kind < 2; kind++) {
        const int n = kind ? 40 : 8; /* all worse; NLL a little worse than the margin */
        kept_paired p = {.diff = x, .n = n, .bounded = !kind};
        for (int i = 0; i < 3000; i++)
            x[i] = kind ? -0.02 + 0.04 * (i % 2 ? 1 : -1) : -1;
        kept_change c;
        CHECK_INT(kept_change_of(&p, 0.01, 0.95, &c, NULL), KEPT_OK);
        const int more = (int)kept_samples_more(&p, &c, 0.01, level);
        CHECK(more > 0 && n + more < 3000);
        p.n = n + more;
        CHECK_INT(kept_change_of(&p, 0.01, level, &c, NULL), KEPT_OK);
        CHECK(1 - c.p_inferior <= 1 - level);
        if (kind)
            continue; /* there 80 % power asks for more than the test */
        p.n--;
        CHECK_INT(kept_change_of(&p, 0.01, level, &c, NULL), KEPT_OK);
        CHECK(fmax(1 - c.p_inferior, c.p / 2) > 1 - level);
    }
}

/* Algorithm 1 of Bretz et al. 2009 with its weights and its transition matrix written out (each
 * ladder 1/m of the level, all of a step's share to the next one, of the last one's in equal parts
 * to the heads of the other ladders), adjusted p by bisection over alpha. In Python. */
static void ladders(void)
{
    static const struct {
        int n;
        double p[9];
        int ladder[9];
        double want[9];
    } cases[] = {
        {7,
         {0.001, 0.02, 0.2, 0.012, 0.004, 0.3, 0.015},
         {0, 0, 0, 1, 1, 2, 3},
         {0.004, 0.048, 0.4, 0.048, 0.048, 0.4, 0.048}},
        {9,
         {0.00321, 0.08773, 0.01873, 0.13302, 0.15329, 2e-05, 0.0, 0.4919, 0.00452},
         {0, 0, 0, 0, 1, 1, 2, 2, 2},
         {0.00963, 0.26319, 0.26319, 0.39906, 0.39906, 0.39906, 0, 0.4919, 0.4919}},
        {9,
         {0.00302, 0.98269, 0.04891, 0.48953, 0.05149, 0.1668, 0.00051, 0.16245, 0.56777},
         {0, 0, 0, 0, 1, 1, 2, 2, 2},
         {0.00906, 1, 1, 1, 0.15447, 0.5004, 0.00153, 0.48735, 1}},
    };
    double got[9], holm[9];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        CHECK(kept_holm_ladders(cases[c].p, cases[c].ladder, cases[c].n, got));
        for (int i = 0; i < cases[c].n; i++)
            CHECK_NEAR(got[i], cases[c].want[i], 1e-9);
    }
    static const int alone[] = {3, 1, 4, 0, 5, 9, 2};
    CHECK(kept_holm_ladders(cases[0].p, alone, 7, got) && kept_holm(cases[0].p, 7, holm));
    for (int i = 0; i < 7; i++)
        CHECK_NEAR(got[i], holm[i], 1e-12);
    const double gap[] = {0.01, NAN, 0.001, 0.02};
    const int two[] = {0, 0, 0, 1};
    CHECK(kept_holm_ladders(gap, two, 4, got));
    CHECK(got[0] == 0.02 && isnan(got[1]) && got[2] == 1 && got[3] == 0.02);
}

int main(void)
{
    RUN(distributions);
    RUN(clopper_pearson);
    RUN(tango);
    RUN(many_tests_ranks_and_plans);
    RUN(ladders);
    RUN(guarantees);
    RUN(bootstrap_and_clusters);
    RUN(bootstrap_rows);
    RUN(samples_that_are_missing);
    RUN(verdicts);
    TEST_END();
}
