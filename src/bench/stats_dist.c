/* stats_dist: the distributions that intervals and tests are made of. Quantiles are bisections of
 * the distribution function: called once per interval, so exactness wins over speed.
 */
#include "bench/stats.h"

#include <math.h>

#define STEPS 200

double kept_normal_cdf(double x)
{
    return 0.5 * erfc(-x / sqrt(2.0));
}

double kept_normal_quantile(double p)
{
    double low = -40, high = 40;
    for (int i = 0; i < 80; i++) {
        const double mid = (low + high) / 2;
        if (kept_normal_cdf(mid) < p)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

/* Continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method; converges
 * fast for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double x, double a, double b)
{
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m <= 10000; m++) {
        for (int odd = 0; odd < 2; odd++) {
            const double term =
                odd ? -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1))
                    : m * (b - m) * x / ((a + 2.0 * m - 1) * (a + 2.0 * m));
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            f *= c * d;
        }
        if (fabs(c * d - 1) < 1e-16)
            break;
    }
    return f;
}

double kept_beta_cdf(double x, double a, double b)
{
    if (!(x > 0))
        return 0;
    if (x >= 1)
        return 1;
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2))
        return front * beta_fraction(x, a, b) / a;
    return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double kept_t_cdf(double t, double df)
{
    const double tail = 0.5 * kept_beta_cdf(df / (df + t * t), df / 2, 0.5);
    return t > 0 ? 1 - tail : tail;
}

double kept_t_quantile(double p, double df)
{
    if (p < 0.5)
        return -kept_t_quantile(1 - p, df);
    double low = 0, high = 1;
    while (kept_t_cdf(high, df) < p && high < 1e12)
        high *= 2;
    for (int i = 0; i < STEPS && high - low > 1e-14 * high; i++) {
        const double mid = (low + high) / 2;
        if (kept_t_cdf(mid, df) < p)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

double kept_binomial_cdf(int k, int n, double p)
{
    if (k < 0)
        return 0;
    if (k >= n)
        return 1;
    return kept_beta_cdf(1 - p, (double)n - k, k + 1.0);
}

/* The x at which the beta distribution function is p. */
static double beta_quantile(double p, double a, double b)
{
    double low = 0, high = 1;
    for (int i = 0; i < STEPS; i++) {
        const double mid = (low + high) / 2;
        if (kept_beta_cdf(mid, a, b) < p)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

kept_interval kept_clopper_pearson(int k, int n, double level)
{
    if (n <= 0)
        return (kept_interval){0, 1};
    const double tail = (1 - level) / 2;
    return (kept_interval){k <= 0 ? 0 : beta_quantile(tail, k, n - k + 1.0),
                           k >= n ? 1 : beta_quantile(1 - tail, k + 1.0, (double)n - k)};
}
