/* stats against closed forms, brute force and long double: no oracle here is our own code path. */
#include "bench/stats.h"
#include "test.h"

/* Newcombe 1998, table I, method 3, as printed there: four digits. */
static void test_wilson_golden(void)
{
    kept_interval w = kept_wilson(81, 263, 0.95);
    CHECK_NEAR(w.low, 0.2553, 5e-5);
    CHECK_NEAR(w.high, 0.3662, 5e-5);
    w = kept_wilson(15, 148, 0.95);
    CHECK_NEAR(w.low, 0.0624, 5e-5);
    CHECK_NEAR(w.high, 0.1605, 5e-5);
    w = kept_wilson(0, 20, 0.95);
    CHECK(w.low == 0);
    CHECK_NEAR(w.high, 0.161125, 1e-6); /* z^2 / (n + z^2) */
    w = kept_wilson(20, 20, 0.95);
    CHECK(w.high == 1);
    CHECK_NEAR(w.low, 1 - 0.161125, 1e-6);
}

/* The bounds are the roots p of (phat - p)^2 = z^2 p (1 - p) / n. */
static void test_wilson_equation(void)
{
    const double z99 = 2.5758293035489004;
    for (int n = 1; n <= 200; n += 37)
        for (double k = 0.25; k < n; k += 0.75) {
            const kept_interval w = kept_wilson(k, n, 0.99);
            const double bound[2] = {w.low, w.high};
            for (int i = 0; i < 2; i++) {
                const double p = bound[i], d = k / n - p;
                CHECK_NEAR(d * d, z99 * z99 * p * (1 - p) / n, 1e-9);
            }
            CHECK(w.low < k / n && k / n < w.high);
        }
    const kept_interval none = kept_wilson(0, 0, 0.95);
    CHECK(none.low == 0 && none.high == 1);
}

static void test_mcnemar(void)
{
    CHECK_NEAR(kept_mcnemar(0, 0), 1, 0);
    CHECK_NEAR(kept_mcnemar(5, 5), 1, 0);
    CHECK_NEAR(kept_mcnemar(0, 6), 2.0 / 64, 1e-15);
    CHECK_NEAR(kept_mcnemar(1, 9), 2.0 * 11 / 1024, 1e-14);
    CHECK_NEAR(kept_mcnemar(10, 2), 2.0 * (1 + 12 + 66) / 4096, 1e-14);
    for (int n = 1; n <= 40; n++) { /* Pascal's triangle in integers */
        uint64_t c[41] = {1};
        for (int i = 1; i <= n; i++)
            for (int j = i; j > 0; j--)
                c[j] += c[j - 1];
        uint64_t sum = 0;
        for (int b = 0; 2 * b < n; b++) {
            sum += c[b];
            const double want = 2 * (double)sum / (double)(UINT64_C(1) << n);
            CHECK_NEAR(kept_mcnemar(b, n - b), want < 1 ? want : 1, 1e-12);
            CHECK_NEAR(kept_mcnemar(n - b, b), want < 1 ? want : 1, 1e-12);
        }
    }
    CHECK(kept_mcnemar(0, 5000) >= 0 && kept_mcnemar(0, 5000) < 1e-300);
    CHECK_NEAR(kept_mcnemar(4950, 5050), 0.322, 0.002); /* normal with continuity: 2 Phi(-0.99) */
}

static void test_quantile(void)
{
    double x[] = {7, 1, 4, 9, 2}; /* R: quantile(c(7,1,4,9,2), type = 7) */
    CHECK_NEAR(kept_quantile(x, 5, 0), 1, 0);
    CHECK_NEAR(kept_quantile(x, 5, 0.25), 2, 0);
    CHECK_NEAR(kept_quantile(x, 5, 0.5), 4, 0);
    CHECK_NEAR(kept_quantile(x, 5, 0.9), 8.2, 1e-14);
    CHECK_NEAR(kept_quantile(x, 5, 1), 9, 0);
    double y[] = {3, 1};
    CHECK_NEAR(kept_quantile(y, 2, 0.3), 1.6, 1e-15);
    double z[] = {5};
    CHECK_NEAR(kept_quantile(z, 1, 0.77), 5, 0);
    CHECK(isnan(kept_quantile(z, 0, 0.5)));
}

/* Every sign pattern, each summed from scratch. */
static double brute_signflip(const double *x, int n)
{
    double obs = 0;
    for (int i = 0; i < n; i++)
        obs += x[i];
    long hits = 0;
    for (long p = 0; p < 1L << n; p++) {
        double s = 0;
        for (int i = 0; i < n; i++)
            s += (p >> i) & 1 ? -x[i] : x[i];
        hits += fabs(s) >= fabs(obs) - 1e-12;
    }
    return (double)hits / (double)(1L << n);
}

static void test_signflip(void)
{
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int n = 1; n <= 13; n++)
        for (int t = 0; t < 5; t++) {
            double x[13];
            for (int i = 0; i < n; i++) /* few distinct values: many ties */
                x[i] = t < 3 ? (double)kept_rng_below(&rng, 5) * 0.1 - 0.2 + 0.05 * t
                             : kept_rng_normal(&rng) + 0.5;
            CHECK_NEAR(kept_signflip(x, n, 0, 1), brute_signflip(x, n), 1e-15);
        }
    double same[20];
    for (int i = 0; i < 20; i++)
        same[i] = 1;
    CHECK_NEAR(kept_signflip(same, 20, 0, 1), 2.0 / 1048576, 1e-18);
    CHECK_NEAR(kept_signflip(same, 0, 0, 1), 1, 0);
    /* Sampled: 30 values of +1/-1 with 21 plus are the binomial test of 9 against 21. */
    double pm[30];
    for (int i = 0; i < 30; i++)
        pm[i] = i < 21 ? 1 : -1;
    const double p = kept_signflip(pm, 30, 40000, 7);
    CHECK_NEAR(p, 0.04277, 4 * 0.00101); /* four standard errors */
    CHECK(p == kept_signflip(pm, 30, 40000, 7));
    CHECK(p != kept_signflip(pm, 30, 40000, 8));
}

typedef struct naive_kl {
    long double kl, nll_base, nll_other;
} naive_kl;

static naive_kl kl_by_definition(const float *a, const float *b, int n, int token)
{
    long double za = 0, zb = 0, ma = a[0], mb = b[0];
    for (int i = 1; i < n; i++) {
        ma = a[i] > ma ? a[i] : ma;
        mb = b[i] > mb ? b[i] : mb;
    }
    for (int i = 0; i < n; i++) {
        za += expl(a[i] - ma);
        zb += expl(b[i] - mb);
    }
    naive_kl out = {0, logl(za) + ma - a[token], logl(zb) + mb - b[token]};
    for (int i = 0; i < n; i++) {
        const long double la = a[i] - ma - logl(za), lb = b[i] - mb - logl(zb);
        out.kl += expl(la) * (la - lb);
    }
    return out;
}

enum { MAX_VOCAB = 1031 };

static void test_kl_naive(void)
{
    static float a[MAX_VOCAB], b[MAX_VOCAB];
    static const int sizes[] = {1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 1000, MAX_VOCAB};
    static const double spread[] = {0.01, 1, 5, 40, 500}, shift[] = {0, 1e-4, 0.3, 10};
    kept_rng rng;
    kept_rng_init(&rng, 5);
    double worst = 0;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t d = 0; d < 5; d++)
            for (size_t e = 0; e < 4; e++) {
                const int n = sizes[s];
                for (int i = 0; i < n; i++) {
                    a[i] = (float)(spread[d] * kept_rng_normal(&rng) + 30);
                    b[i] = (float)(a[i] + shift[e] * kept_rng_normal(&rng) - 50);
                }
                const int token = (int)kept_rng_below(&rng, (uint32_t)n);
                const kept_kl got = kept_kl_logits(a, b, n, token);
                const naive_kl want = kl_by_definition(a, b, n, token);
                CHECK_NEAR(got.kl, want.kl, 1e-12 * (1 + spread[d] + shift[e]));
                CHECK_NEAR(got.nll_base, want.nll_base, 1e-11 * fabsl(want.nll_base) + 1e-17);
                CHECK_NEAR(got.nll_other, want.nll_other, 1e-11 * fabsl(want.nll_other) + 1e-17);
                const double diff = fabs((double)(got.kl - want.kl));
                worst = diff > worst ? diff : worst;
            }
    printf("# largest KL error %.3g nats\n", worst);
}

static void test_kl_exact_cases(void)
{
    static float a[MAX_VOCAB], b[MAX_VOCAB];
    kept_rng rng;
    kept_rng_init(&rng, 6);
    for (int n = 1; n <= MAX_VOCAB; n += 103) {
        for (int i = 0; i < n; i++)
            a[i] = b[i] = (float)(8 * kept_rng_normal(&rng));
        const kept_kl same = kept_kl_logits(a, b, n, 0);
        CHECK(same.kl == 0 && same.top1 && same.nll_base == same.nll_other);
    }
    /* Two tokens in closed form; a confident one keeps the digits of -log p. */
    const float p[] = {0, (float)-30}, q[] = {0, 0};
    const kept_kl two = kept_kl_logits(p, q, 2, 0);
    CHECK_NEAR(two.nll_base / log1p(exp(-30.0)), 1, 1e-12);
    CHECK_NEAR(two.nll_other, log(2.0), 1e-15);
    CHECK_NEAR(two.kl, log(2.0), 1e-11);
    CHECK(two.top1); /* the lowest id wins ties */
    const float r[] = {-1, 5, 5, 2}, s[] = {-1, 4, 5, 2};
    CHECK(!kept_kl_logits(r, s, 4, 0).top1);
    CHECK(kept_kl_logits(r, r, 4, 0).top1);
    CHECK(isnan(kept_kl_logits(r, s, 4, 4).nll_base) &&
          isnan(kept_kl_logits(r, s, 4, -1).nll_base));
    const float cut[] = {0, 1, -INFINITY}, far[] = {0, 1, -3.0e38f};
    CHECK(kept_kl_logits(cut, far, 3, 0).kl == 0); /* impossible tokens weigh nothing */
}

/* A dominating point beats each point that is off the front. */
static void test_pareto(void)
{
    const double gain[] = {1, 2, 2, 3, 3, 0}, cost[] = {1, 2, 3, 3, 3, 1};
    const bool want[] = {true, true, false, true, true, false};
    bool front[6];
    kept_pareto(gain, cost, 6, front);
    for (int i = 0; i < 6; i++)
        CHECK_INT(front[i], want[i]);
}

int main(void)
{
    RUN(test_wilson_golden);
    RUN(test_wilson_equation);
    RUN(test_mcnemar);
    RUN(test_quantile);
    RUN(test_signflip);
    RUN(test_kl_naive);
    RUN(test_kl_exact_cases);
    RUN(test_pareto);
    TEST_END();
}
