/* stats_test: Tango's interval, corrections for many tests, guarantees, sample sizes, ranks. */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>

/* ---- Tango ---------------------------------------------------------------------------------- */

/* Tango 1998, equations 6 to 8, with x12 = improvements, x21 = regressions: the variance is that of
 * the maximum-likelihood table whose difference is delta. */
double kept_tango_z(double regressions, double improvements, double n, double delta)
{
    const double b = improvements, c = regressions;
    const double A = 2 * n, B = -b - c + (2 * n - b + c) * delta, C = -c * delta * (1 - delta);
    const double q = (sqrt(fmax(B * B - 4 * A * C, 0)) - B) / (2 * A);
    const double variance = n * (2 * q + delta * (1 - delta)), off = b - c - n * delta;
    if (variance > 0)
        return off / sqrt(variance);
    return off > 0 ? INFINITY : off < 0 ? -INFINITY : 0;
}

/* z falls as delta grows: the delta where it crosses `z`. */
static double tango_root(double b, double c, double n, double z)
{
    double low = -1, high = 1;
    for (int i = 0; i < 60; i++) {
        const double mid = (low + high) / 2;
        if (kept_tango_z(b, c, n, mid) > z)
            low = mid;
        else
            high = mid;
    }
    return (low + high) / 2;
}

kept_interval kept_tango(double regressions, double improvements, double n, double level)
{
    if (!(n > 0))
        return (kept_interval){-1, 1};
    const double z = kept_normal_quantile(0.5 + level / 2);
    return (kept_interval){tango_root(regressions, improvements, n, z),
                           tango_root(regressions, improvements, n, -z)};
}

/* ---- many at once --------------------------------------------------------------------------- */

typedef struct ranked {
    double p;
    int i;
} ranked;

static int by_p(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    return x->p != y->p ? (x->p > y->p) - (x->p < y->p) : (x->i > y->i) - (x->i < y->i);
}

bool kept_holm(const double *p, int n, double *adjusted)
{
    ranked *r = kept_calloc((size_t)(n > 0 ? n : 1), sizeof *r);
    int m = 0;
    double most = 0;
    if (!r)
        return false;
    for (int i = 0; i < n; i++) {
        adjusted[i] = NAN;
        if (!isnan(p[i]))
            r[m++] = (ranked){p[i], i};
    }
    qsort(r, (size_t)m, sizeof *r, by_p);
    for (int k = 0; k < m; k++) {
        most = fmax(most, fmin(1, (m - k) * r[k].p));
        adjusted[r[k].i] = most;
    }
    free(r);
    return true;
}

/* Index of the first step of the ladder that is not done; n: none, or it was not measured. */
static int head_of(const double *p, const int *ladder, const bool *done, int n, int which)
{
    for (int i = 0; i < n; i++)
        if (ladder[i] == which && !done[i])
            return isnan(p[i]) ? n : i;
    return n;
}

bool kept_holm_ladders(const double *p, const int *ladder, int n, double *adjusted)
{
    bool *done = kept_calloc((size_t)(n > 0 ? n : 1), sizeof *done);
    int *head = kept_calloc((size_t)(n > 0 ? n : 1), sizeof *head), n_heads = 0;
    double most = 0;
    if (!done || !head) {
        free(done);
        free(head);
        return false;
    }
    for (int i = 0; i < n; i++) {
        adjusted[i] = isnan(p[i]) ? NAN : 1;
        if (head_of(p, ladder, done, n, ladder[i]) == i)
            head[n_heads++] = i;
    }
    while (n_heads) {
        int best = 0;
        for (int k = 1; k < n_heads; k++)
            if (p[head[k]] < p[head[best]])
                best = k;
        const int i = head[best];
        most = fmax(most, fmin(1, n_heads * p[i]));
        adjusted[i] = most;
        done[i] = true;
        head[best] = head_of(p, ladder, done, n, ladder[i]);
        if (head[best] == n) /* its share of the level goes to the others */
            head[best] = head[--n_heads];
    }
    free(done);
    free(head);
    return true;
}

int kept_fixed_sequence(const double *p, int n, double alpha)
{
    int k = 0;
    while (k < n && p[k] <= alpha)
        k++;
    return k;
}

/* ---- guarantees ----------------------------------------------------------------------------- */

/* Relative entropy of Bernoulli(a) to Bernoulli(b). */
static double entropy(double a, double b)
{
    double h = 0;
    if (a > 0)
        h += a * log(a / b);
    if (a < 1)
        h += (1 - a) * log((1 - a) / (1 - b));
    return h;
}

double kept_loss_p(double sum, int n, bool graded, double epsilon)
{
    if (n <= 0 || !(epsilon > 0))
        return 1;
    if (epsilon >= 1)
        return 0;
    if (!graded)
        return kept_binomial_cdf((int)lround(sum), n, epsilon);
    const double mean = fmin(fmax(sum / n, 0), 1);
    const double hoeffding = exp(-n * entropy(fmin(mean, epsilon), epsilon));
    /* The ceiling must not jump on rounding of a sum that is whole. */
    const double bentkus = exp(1) * kept_binomial_cdf((int)ceil(sum - 1e-9), n, epsilon);
    return fmin(fmin(hoeffding, bentkus), 1);
}

double kept_loss_bound(double sum, int n, bool graded, double delta)
{
    double low = 0, high = 1;
    if (n <= 0)
        return 1;
    for (int i = 0; i < 60; i++) {
        const double mid = (low + high) / 2;
        if (kept_loss_p(sum, n, graded, mid) > delta)
            low = mid;
        else
            high = mid;
    }
    return high;
}

/* ---- plans and ranks ------------------------------------------------------------------------ */

double kept_samples_needed(double flips, double margin, double level, double power)
{
    const double z = kept_normal_quantile(level) + kept_normal_quantile(power);
    /* A whole number must not become the next one by rounding. */
    return ceil(z * z * flips / (margin * margin) - 1e-9);
}

double kept_kendall(const double *x, const double *y, int n)
{
    double agree = 0, pairs_x = 0, pairs_y = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            const int a = (x[i] > x[j]) - (x[i] < x[j]), b = (y[i] > y[j]) - (y[i] < y[j]);
            agree += a * b;
            pairs_x += a != 0;
            pairs_y += b != 0;
        }
    return pairs_x > 0 && pairs_y > 0 ? agree / sqrt(pairs_x * pairs_y) : NAN;
}

/* Shares of the permutations of n with 0, 1, ... inversions: those of n - 1 are shifted by where
 * the n-th item is put. share [n * (n - 1) / 2 + 1], room as long. */
static void inversions(int n, double *share, double *room)
{
    int most = 0;
    share[0] = 1;
    for (int m = 2; m <= n; m++) {
        const int was = most;
        most += m - 1;
        double window = 0;
        for (int k = 0; k <= most; k++) {
            window += k <= was ? share[k] : 0;
            window -= k - m >= 0 && k - m <= was ? share[k - m] : 0;
            room[k] = window / m;
        }
        for (int k = 0; k <= most; k++)
            share[k] = room[k];
    }
}

double kept_kendall_p(const double *x, const double *y, int n)
{
    if (n < 2 || n > KEPT_MOST_RANKED)
        return NAN;
    const int most = n * (n - 1) / 2;
    int against = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            if (x[i] == x[j] || y[i] == y[j])
                return NAN;
            against += (x[i] > x[j]) != (y[i] > y[j]);
        }
    double *share = kept_calloc(2 * ((size_t)most + 1), sizeof *share), sum = 0;
    if (!share)
        return NAN;
    inversions(n, share, share + most + 1);
    const int few = against < most - against ? against : most - against;
    for (int k = 0; k <= few; k++)
        sum += share[k];
    free(share);
    return fmin(2 * sum, 1);
}
