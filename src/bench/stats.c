/* stats: intervals, paired tests, quantiles, Pareto front. Plain double arithmetic, seeded
 * generators, no state. Sources: Wilson 1927; McNemar's exact form is the two-sided binomial test
 * of the discordant pairs; Hyndman and Fan 1996, type 7; Phipson and Smyth 2010 for the +1 in
 * sampled permutation tests.
 */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

#define EXACT_FLIPS 20 /* 2^19 sign patterns are enumerated at most */

/* Standard normal quantile by bisection of erfc: called once per interval, so exactness wins. */
static double normal_quantile(double p)
{
    double low = -40, high = 40;
    for (int i = 0; i < 80; i++) {
        const double mid = (low + high) / 2;
        if (0.5 * erfc(-mid / sqrt(2.0)) < p)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

kept_interval kept_wilson(double k, int n, double level)
{
    if (n <= 0 || !(level < 1))
        return (kept_interval){0, 1};
    const double z = level > 0 ? normal_quantile(0.5 + level / 2) : 0;
    const double p = fmin(fmax(k / n, 0), 1), zz = z * z / n;
    const double mid = (p + zz / 2) / (1 + zz);
    const double half = z / (1 + zz) * sqrt(p * (1 - p) / n + zz / (4.0 * n));
    /* The bounds at 0 and n successes are exact; rounding must not leave 1e-17 there. */
    return (kept_interval){p <= 0 ? 0 : fmax(mid - half, 0), p >= 1 ? 1 : fmin(mid + half, 1)};
}

double kept_mcnemar(int b, int c)
{
    if (b <= 0 && c <= 0)
        return 1;
    b = b < 0 ? 0 : b;
    c = c < 0 ? 0 : c;
    const int few = b < c ? b : c;
    const double n = (double)b + c;
    double log_term = -n * log(2.0), sum = exp(log_term);
    for (int i = 1; i <= few; i++) {
        log_term += log((n - i + 1) / i);
        sum += exp(log_term);
    }
    return fmin(2 * sum, 1);
}

static int compare_double(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Type 7 on sorted values. */
static double sorted_quantile(const double *x, int n, double q)
{
    const double h = (n - 1) * fmin(fmax(q, 0), 1);
    const int i = (int)h;
    return i + 1 < n && h > i ? x[i] + (h - i) * (x[i + 1] - x[i]) : x[i];
}

double kept_quantile(double *x, int n, double q)
{
    if (n <= 0)
        return NAN;
    qsort(x, (size_t)n, sizeof *x, compare_double);
    return sorted_quantile(x, n, q);
}

kept_interval kept_bootstrap_mean(const double *x, int n, double level, int rounds, uint64_t seed)
{
    kept_interval out = {NAN, NAN};
    if (n <= 0 || rounds <= 0)
        return out;
    double *means = kept_calloc((size_t)rounds, sizeof *means);
    if (!means)
        return out;
    kept_rng rng;
    kept_rng_init(&rng, seed);
    for (int r = 0; r < rounds; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += x[kept_rng_below(&rng, (uint32_t)n)];
        means[r] = sum / n;
    }
    const double tail = (1 - fmin(fmax(level, 0), 1)) / 2;
    qsort(means, (size_t)rounds, sizeof *means, compare_double);
    out = (kept_interval){sorted_quantile(means, rounds, tail),
                          sorted_quantile(means, rounds, 1 - tail)};
    free(means);
    return out;
}

/* All sign patterns with the first sign fixed: |sum| is the same for a pattern and its opposite.
 * Gray code order changes one sign per step. */
static double signflip_exact(const double *x, int n, double threshold)
{
    double sum = 0;
    bool minus[EXACT_FLIPS] = {false};
    for (int i = 0; i < n; i++)
        sum += x[i];
    const uint32_t patterns = UINT32_C(1) << (n - 1);
    uint32_t hits = fabs(sum) >= threshold;
    for (uint32_t g = 1; g < patterns; g++) {
        const int i = 1 + __builtin_ctz(g);
        sum += minus[i] ? 2 * x[i] : -2 * x[i];
        minus[i] = !minus[i];
        hits += fabs(sum) >= threshold;
    }
    return (double)hits / patterns;
}

double kept_signflip(const double *x, int n, int rounds, uint64_t seed)
{
    if (n <= 0)
        return 1;
    double sum = 0, size = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i];
        size += fabs(x[i]);
    }
    if (!isfinite(size))
        return NAN;
    /* Ties with the observed sum must count whatever the order of additions did to them. */
    const double threshold = fabs(sum) - 1e-9 * size;
    if (n <= EXACT_FLIPS)
        return signflip_exact(x, n, threshold);
    kept_rng rng;
    kept_rng_init(&rng, seed);
    int hits = 1;
    rounds = rounds > 0 ? rounds : 1;
    for (int r = 0; r < rounds; r++) {
        double s = 0;
        uint64_t bits = 0;
        for (int i = 0; i < n; i++, bits >>= 1) {
            if (i % 64 == 0)
                bits = kept_rng_u64(&rng);
            s += bits & 1 ? x[i] : -x[i];
        }
        hits += fabs(s) >= threshold;
    }
    return (double)hits / (1.0 + rounds);
}

void kept_pareto(const double *gain, const double *cost, int n, bool *front)
{
    for (int i = 0; i < n; i++) {
        front[i] = true;
        for (int j = 0; j < n && front[i]; j++)
            if (gain[j] >= gain[i] && cost[j] <= cost[i] &&
                (gain[j] > gain[i] || cost[j] < cost[i]))
                front[i] = false;
    }
}
