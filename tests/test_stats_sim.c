/* Error rates by simulation: what an interval covers, how often an effect of zero is called worse.
 * Seeded. KEPT_SIM=N makes it N times as long, with bounds as much tighter (`make suite` runs 40).
 */
#include "bench/stats.h"
#include "test.h"

static int scale = 1;
static kept_rng rng;

/* A share of `n` trials that is `p` in truth lies within this of it, but for one in 10^4. */
static double slack(double p, int n)
{
    return 3.9 * sqrt(p * (1 - p) / n);
}

/* Regressions, improvements and the rest as -1, 1, 0; cluster members agree with probability `tie`.
 */
static void draw_flips(double *x, const int *cluster, int n, double down, double up, double tie)
{
    double first = 0;
    for (int i = 0; i < n; i++) {
        const double u = kept_rng_unit(&rng);
        x[i] = u < down ? -1 : u < down + up ? 1 : 0;
        if (!cluster || i == 0 || cluster[i] != cluster[i - 1])
            first = x[i];
        else if (kept_rng_unit(&rng) < tie)
            x[i] = first;
    }
}

/* 0/1 scores: Tango covers 95 % (94 to 96 % claimed), by exact summation over all tables for one n.
 */
static void tango_covers_exactly(void)
{
    const int n = 60;
    double least = 1, sum = 0;
    int cases = 0;
    for (double down = 0.05; down < 0.35; down += 0.1)
        for (double up = 0.05; up < 0.35; up += 0.1) {
            double cover = 0;
            for (int b = 0; b <= n; b++)
                for (int c = 0; b + c <= n; c++) {
                    const double p = exp(lgamma(n + 1.0) - lgamma(b + 1.0) - lgamma(c + 1.0) -
                                         lgamma(n - b - c + 1.0) + b * log(down) + c * log(up) +
                                         (n - b - c) * log(1 - down - up));
                    if (p < 1e-9)
                        continue;
                    /* delta is inside where its own z is */
                    cover += p * (fabs(kept_tango_z(b, c, n, up - down)) <= 1.959963984540054);
                }
            least = cover < least ? cover : least;
            sum += cover;
            cases++;
        }
    printf("# tango, n = 60: covers %.4f on average, %.4f at least\n", sum / cases, least);
    CHECK(sum / cases >= 0.94 && sum / cases <= 0.96);
    CHECK(least >= 0.935);
}

/* Mean differences without bounds. The skewed ones (chi-square, one degree) are harder than any
 * percentile method bears; there the oracle is the same procedure in numpy, 4000 trials of 2000
 * rounds: x = rng.standard_normal((4000, n))**2; t =
 * stats.norm.cdf(-np.sqrt(n/(n-1))*stats.t.ppf(.975, n-1)); m = x[j][rng.integers(0, n, (2000,
 * n))].mean(1); np.quantile(m, [t, 1-t]) around 1 for each j */
static void bootstrap_covers(void)
{
    static const int sizes[] = {8, 20, 50};
    static const double oracle[] = {0.8588, 0.9058, 0.9210};
    const double levels[2] = {0.95, 0.9};
    const int sims = 1500 * scale;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int skewed = 0; skewed < 2; skewed++) {
            int hit = 0, above = 0;
            const int n = sizes[s];
            for (int t = 0; t < sims; t++) {
                double x[50];
                kept_interval in[2];
                for (int i = 0; i < n; i++) {
                    const double z = kept_rng_normal(&rng);
                    x[i] = skewed ? z * z - 1 : z;
                }
                const kept_paired d = {.diff = x, .n = n};
                kept_bootstrap(&d, 600, (uint64_t)t, levels, in);
                hit += in[0].low <= 0 && 0 <= in[0].high;
                above += in[1].low > 0;
            }
            const double cover = (double)hit / sims;
            printf("# bootstrap, n = %d, %s: covers %.4f, one-sided misses %.4f\n", n,
                   skewed ? "skewed" : "normal", cover, (double)above / sims);
            if (skewed) {
                CHECK_NEAR(cover, oracle[s], 2 * slack(oracle[s], sims) + 0.005);
                continue;
            }
            CHECK(cover >= 0.94 - slack(0.95, sims) && cover <= 0.96 + slack(0.95, sims));
        }
}

/* Ten prompts, six questions each, whose answers go together. */
static void clusters_are_respected(void)
{
    const int sims = 2500 * scale, n = 120, per = 4;
    const double levels[2] = {0.95, 0.9};
    int hit = 0, blind = 0, cluster[120];
    for (int i = 0; i < n; i++)
        cluster[i] = i / per;
    for (int t = 0; t < sims; t++) {
        double x[120], shared = 0;
        kept_interval in[2];
        for (int i = 0; i < n; i++) {
            if (i % per == 0)
                shared = kept_rng_normal(&rng);
            x[i] = shared + 0.5 * kept_rng_normal(&rng);
        }
        const kept_paired d = {x, cluster, n, false}, without = {x, NULL, n, false};
        kept_bootstrap(&d, 600, (uint64_t)t, levels, in);
        hit += in[0].low <= 0 && 0 <= in[0].high;
        if (t % 4 == 0) {
            kept_bootstrap(&without, 200, (uint64_t)t, levels, in);
            blind += in[0].low <= 0 && 0 <= in[0].high;
        }
    }
    const double cover = (double)hit / sims;
    printf("# clusters: covers %.4f; ignoring them %.4f\n", cover, 4.0 * blind / sims);
    CHECK(cover >= 0.94 - slack(0.95, sims) && cover <= 0.96 + slack(0.95, sims));
    CHECK(4.0 * blind / sims < 0.8);
}

/* Verdicts when nothing changes, and when the change is exactly the margin, which is where calling
 * it non-inferior is the error that the level bounds. */
static void false_verdicts(void)
{
    const int sims = 4000 * scale, n = 150;
    int worse = 0, passed = 0, no_margin = 0;
    for (int t = 0; t < sims; t++) {
        double x[150];
        kept_change c;
        const kept_paired d = {.diff = x, .n = n, .bounded = true};
        draw_flips(x, NULL, n, 0.1, 0.1, 0);
        CHECK_INT(kept_change_of(&d, 0.02, 0.95, &c, NULL), KEPT_OK);
        worse += c.verdict == KEPT_WORSE;
        CHECK_INT(kept_change_of(&d, 0, 0.95, &c, NULL), KEPT_OK);
        no_margin += c.verdict == KEPT_WORSE;
        draw_flips(x, NULL, n, 0.15, 0.05, 0); /* a change of -0.1 */
        CHECK_INT(kept_change_of(&d, 0.1, 0.95, &c, NULL), KEPT_OK);
        passed += c.verdict == KEPT_NON_INFERIOR;
    }
    printf(
        "# zero effect called worse: %.4f at a margin of 2 points, %.4f at none; an effect at the "
        "margin called non-inferior: %.4f\n",
        (double)worse / sims, (double)no_margin / sims, (double)passed / sims);
    CHECK((double)worse / sims <= 0.05);
    CHECK((double)no_margin / sims <= 0.05);
    CHECK((double)passed / sims <= 0.05 + slack(0.05, sims));
    CHECK((double)passed / sims > 0.03); /* no more careful than it claims */
}

/* The same for graded scores in clusters. */
static void false_verdicts_of_graded_scores(void)
{
    const int sims = 150 * scale, n = 80;
    int worse = 0, cluster[80];
    for (int i = 0; i < n; i++)
        cluster[i] = i / 2;
    for (int t = 0; t < sims; t++) {
        double x[80];
        kept_change c;
        draw_flips(x, cluster, n, 0.2, 0.2, 0.7);
        for (int i = 0; i < n; i++)
            x[i] *= 0.25 + 0.5 * kept_rng_unit(&rng);
        const kept_paired d = {x, cluster, n, true};
        CHECK_INT(kept_change_of(&d, 0, 0.95, &c, NULL), KEPT_OK);
        worse += c.verdict == KEPT_WORSE;
    }
    printf("# graded, clustered zero effect called worse at no margin: %.4f\n",
           (double)worse / sims);
    CHECK((double)worse / sims <= 0.05 + slack(0.05, sims));
}

/* A ladder of budgets whose true losses grow: the largest eviction accepted may lose more than
 * epsilon in a share delta of the trials at most. */
static void guarantee_holds(void)
{
    static const double loss[] = {0.01, 0.03, 0.06, 0.09, 0.11, 0.2};
    const int sims = 6000 * scale, n = 200;
    const double epsilon = 0.1, delta = 0.1;
    for (int graded = 0; graded < 2; graded++) {
        int broken = 0, steps = 0;
        for (int t = 0; t < sims; t++) {
            double p[6];
            for (int k = 0; k < 6; k++) {
                double sum = 0;
                for (int i = 0; i < n; i++)
                    sum += kept_rng_unit(&rng) < loss[k] / (graded ? 0.5 : 1)
                               ? (graded ? kept_rng_unit(&rng) : 1)
                               : 0;
                p[k] = kept_loss_p(sum, n, graded, epsilon);
            }
            const int k = kept_fixed_sequence(p, 6, delta);
            broken += k > 4;
            steps += k;
        }
        printf(
            "# guarantee, %s: broken in %.4f of trials (allowed %.2f), %.2f steps of 4 true ones\n",
            graded ? "graded" : "binary", (double)broken / sims, delta, (double)steps / sims);
        CHECK((double)broken / sims <= delta + slack(delta, sims));
        CHECK((double)steps / sims > 1);
    }
}

int main(void)
{
    const char *longer = getenv("KEPT_SIM");
    scale = longer && atoi(longer) > 0 ? atoi(longer) : 1;
    kept_rng_init(&rng, 11);
    RUN(tango_covers_exactly);
    RUN(bootstrap_covers);
    RUN(clusters_are_respected);
    RUN(false_verdicts);
    RUN(false_verdicts_of_graded_scores);
    RUN(guarantee_holds);
    TEST_END();
}
