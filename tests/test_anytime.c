/* test_anytime: verdicts that hold whenever one looks. Golden capitals are from a plain loop in
 * Python; error rates are simulated at the worst case, with a look after every sample.
 */
#include "bench/stats.h"
#include "test.h"

static void feed(kept_capital *c, const double *x, int n, double margin)
{
    *c = kept_capital_new();
    for (int i = 0; i < n; i++)
        (void)kept_capital_add(c, x[i], margin, 0.05);
}

/* null = (1 - m) / 2; y = (x + 1) / 2; mean = (.5 + sum(ys)) / (n + 1), sq = .25 + sum of (y - mean
 * after it)^2; off = s * (mean - null); lam = clip(off / (sq / (n + 1) + off^2), 0, .5 / (null if s
 * > 0 else 1 - null)); K *= 1 + s * lam * (y - null), for s = 1 and -1; printed: log K */
static void golden(void)
{
    static const double mixed[16] = {0, 0, -1, 0.5, 0, 1, 0, 0, -0.25, 0, 0, 0.75, 0, -1, -1, 0};
    double lost[10], same[50] = {0};
    kept_capital c;
    for (int i = 0; i < 10; i++)
        lost[i] = -1;
    feed(&c, mixed, 16, 0.05);
    CHECK_NEAR(c.log_capital[0], -0.7123615821896365, 1e-12);
    CHECK_NEAR(c.log_capital[1], -0.41817620438608416, 1e-12);
    feed(&c, lost, 10, 0.02);
    CHECK_NEAR(c.log_capital[0], -0.019786633821517033, 1e-12);
    CHECK_NEAR(c.log_capital[1], 3.53076321177588, 1e-12);
    CHECK(c.verdict == KEPT_WORSE && c.settled_at > 0 && c.settled_at < 10);
    feed(&c, same, 50, 0.1);
    CHECK_NEAR(c.log_capital[0], 2.575265788962695, 1e-12);
    CHECK_NEAR(c.log_capital[1], 0, 1e-12);
}

/* -1 with probability worse, 1 with probability better, else 0. */
static double draw(kept_rng *rng, double worse, double better)
{
    const double u = kept_rng_unit(rng);
    return u < worse ? -1 : u < worse + better ? 1 : 0;
}

typedef struct rates {
    double good, bad, steps; /* share that ended non-inferior, worse; mean samples of all */
} rates;

static rates simulate(double worse, double better, double margin, int most, int runs, uint64_t seed)
{
    rates r = {0, 0, 0};
    kept_rng rng;
    kept_rng_init(&rng, seed);
    for (int k = 0; k < runs; k++) {
        kept_capital c = kept_capital_new();
        int n = 0;
        while (n < most && c.verdict == KEPT_INCONCLUSIVE) {
            (void)kept_capital_add(&c, draw(&rng, worse, better), margin, 0.05);
            n++;
        }
        r.good += (double)(c.verdict == KEPT_NON_INFERIOR) / runs;
        r.bad += (double)(c.verdict == KEPT_WORSE) / runs;
        r.steps += (double)n / runs;
    }
    return r;
}

/* The true change is minus the margin: either verdict is wrong, and looked for after every sample.
 * 4000 runs: three standard deviations of a rate of 5 % are 1.03 %. */
static void errors_are_bounded(void)
{
    static const double cases[][3] = {
        {0.05, 0, 0.05}, {0.12, 0.02, 0.1}, {0.6, 0.4, 0.2}, {0.3, 0.29, 0.01}};
    for (int i = 0; i < 4; i++) {
        const rates r = simulate(cases[i][0], cases[i][1], cases[i][2], 600, 4000, 7 + (uint64_t)i);
        printf("# change %+.3f at margin %.2f: non-inferior %.4f, worse %.4f\n",
               cases[i][1] - cases[i][0], cases[i][2], r.good, r.bad);
        CHECK(r.good <= 0.0604);
        CHECK(r.bad <= 0.0604);
    }
}

/* And it does come to a verdict where there is one. */
static void verdicts_come(void)
{
    const rates same = simulate(0.02, 0.02, 0.1, 1000, 400, 3);
    const rates lost = simulate(0.6, 0, 0.05, 1000, 400, 4);
    printf(
        "# no change, margin 10 pt: %.3f non-inferior in %.0f samples; 60 pt lost: %.3f worse in "
        "%.0f\n",
        same.good, same.steps, lost.bad, lost.steps);
    CHECK(same.good > 0.95 && same.steps < 300);
    CHECK(lost.bad > 0.99 && lost.steps < 40);
}

int main(void)
{
    RUN(golden);
    RUN(errors_are_bounded);
    RUN(verdicts_come);
    TEST_END();
}
