/* stats: intervals, paired tests, quantiles, Pareto front; the bootstrap is in resample.c. Plain
 * double arithmetic, seeded generators, no state. Sources: Wilson 1927; McNemar's exact form is the
 * two-sided binomial test of the discordant pairs; Hyndman and Fan 1996, type 7; Phipson and Smyth
 * 2010 for the +1 in sampled permutation tests.
 */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

#define EXACT_FLIPS 20 /* 2^19 sign patterns are enumerated at most */

kept_interval kept_wilson(double k, double n, double level)
{
    if (!(n > 0) || !(level < 1))
        return (kept_interval){0, 1};
    const double z = level > 0 ? kept_normal_quantile(0.5 + level / 2) : 0;
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

static void sort(double *x, int n)
{
    bool sorted = true; /* often so: several quantiles of one list */
    for (int i = 1; i < n && sorted; i++)
        sorted = x[i - 1] <= x[i];
    if (!sorted)
        qsort(x, (size_t)n, sizeof *x, compare_double);
}

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
    sort(x, n);
    return sorted_quantile(x, n, q);
}

int kept_gather_clusters(const double *x, const int *cluster, int n, double *sum, double *count)
{
    int g = 0;
    for (int i = 0; i < n; i++) {
        const int c = cluster ? cluster[i] : i;
        sum[c] += x[i];
        count[c] += 1;
        g = c + 1 > g ? c + 1 : g;
    }
    return g;
}

double kept_effective_n(const double *x, const int *cluster, int n)
{
    double mean = 0, plain = 0, robust = 0;
    double *sum = kept_calloc(2 * (size_t)(n > 0 ? n : 1), sizeof *sum),
           *count = sum ? sum + n : NULL;
    if (!sum || n < 1) {
        free(sum);
        return n;
    }
    const int g = kept_gather_clusters(x, cluster, n, sum, count);
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        plain += (x[i] - mean) * (x[i] - mean);
    for (int c = 0; c < g; c++)
        robust += (sum[c] - count[c] * mean) * (sum[c] - count[c] * mean);
    free(sum);
    if (!(plain > 0) || !(robust > 0))
        return g;
    return fmin(fmax(n * plain / robust, g), n);
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

/* Random signs, eight values at a time: table[b][s] is the sum of block b under the signs s. */
static double signflip_sampled(const double *x, int n, double threshold, int rounds, uint64_t seed)
{
    const int blocks = (n + 7) / 8;
    double(*table)[256] = kept_calloc((size_t)blocks, sizeof *table);
    if (!table)
        return NAN;
    for (int i = 0; i < n; i++)
        for (int s = 0; s < 256; s++)
            table[i / 8][s] += s >> i % 8 & 1 ? x[i] : -x[i];
    kept_rng rng;
    kept_rng_init(&rng, seed);
    int hits = 1;
    for (int r = 0; r < rounds; r++) {
        double sum = 0;
        uint64_t bits = 0;
        for (int b = 0; b < blocks; b++, bits >>= 8) {
            if (b % 8 == 0)
                bits = kept_rng_u64(&rng);
            sum += table[b][bits & 255];
        }
        hits += fabs(sum) >= threshold;
    }
    free(table);
    return (double)hits / (1.0 + rounds);
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
    return signflip_sampled(x, n, threshold, rounds > 0 ? rounds : 1, seed);
}

double kept_signflip_clusters(const double *x, const int *cluster, int n, int rounds, uint64_t seed)
{
    if (!cluster || n <= 0)
        return kept_signflip(x, n, rounds, seed);
    double *sum = kept_calloc(2 * (size_t)n, sizeof *sum);
    if (!sum)
        return NAN;
    const int g = kept_gather_clusters(x, cluster, n, sum, sum + n);
    const double p = kept_signflip(sum, g, rounds, seed);
    free(sum);
    return p;
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
