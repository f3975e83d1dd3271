/* park_basis: bases, and how fine their components are rounded. With one step for all components of
 * a half, the rates are those of reverse water-filling: a component whose deviation is below the
 * step costs next to nothing. Steps of halves are one number times their deviations, found by
 * bisection so that the rates of Gaussian components sum to the bits that there are. */
#include "model/park_lossy.h"
#include "model/work.h"

#include "base/linalg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUTLIER = 8, OCTAVE = 8, N_RD = 20 * OCTAVE, RD_LOW = -6 };

/* Rate (bits) and gain (variance less distortion, in squares of the step) of a Gaussian of
 * deviation 2^(RD_LOW + i / OCTAVE) steps that is rounded to them. */
struct kept_rates {
    float rate[N_RD], gain[N_RD];
};

void kept_lossy_basis(kept_half *f, int n, int d)
{
    for (int c = 0; c < n; c++) {
        double v[KEPT_MAX_HEAD_SIZE], length = 0;
        for (int i = 0; i < d; i++)
            v[i] = f->stored[c * d + i];
        for (int twice = 0; twice < 2; twice++)
            for (int b = 0; b < c; b++) {
                const float *u = f->basis + b * d;
                double along = 0;
                for (int i = 0; i < d; i++)
                    along += v[i] * u[i];
                for (int i = 0; i < d; i++)
                    v[i] -= along * u[i];
            }
        for (int i = 0; i < d; i++)
            length += v[i] * v[i];
        length = sqrt(length);
        for (int i = 0; i < d; i++)
            f->basis[c * d + i] = length > 1e-6 ? (float)(v[i] / length) : 0.0f;
    }
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The deviation of a number in most rows of x [n][d]: one that stands out must not make the others
 * coarse. work [n]. */
static float scale_of(const float *x, int n, int d, float *work)
{
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int c = 0; c < d; c++)
            sum += (double)x[i * d + c] * x[i * d + c];
        work[i] = (float)sqrt(sum / d);
    }
    qsort(work, (size_t)n, sizeof *work, by_size);
    for (int i = n / 2; i < n; i++)
        if (work[i] > 0)
            return work[i];
    return 0;
}

/* Mean, rounded to F16 and taken off x, and the covariance about it: cov [D][D], of n rows. */
static void covariance(const kept_lossy *j, kept_half *f, float *x, float *work, double *cov)
{
    const int d = j->d, n = f->n;
    float sum[KEPT_MAX_HEAD_SIZE] = {0}, *part = f->basis; /* not made yet */
    double mean[KEPT_MAX_HEAD_SIZE] = {0};
    const float most = OUTLIER * scale_of(x, n, d, work);
    int used = 0;
    for (int i = 0; i < n; i++) {
        if (most > 0 && scale_of(x + (size_t)i * (size_t)d, 1, d, work) > most)
            continue; /* the mean is that of most rows */
        used++;
        for (int c = 0; c < d; c++)
            mean[c] += x[(size_t)i * (size_t)d + (size_t)c];
    }
    for (int c = 0; c < d; c++)
        f->mean[c] = kept_f16_to_f32(kept_f32_to_f16((float)(mean[c] / used)));
    for (int i = 0; i < n * d; i++)
        x[i] -= f->mean[i % d];
    memset(cov, 0, (size_t)(d * d) * sizeof *cov);
    for (int at = 0; at < n; at += 256) {
        memset(part, 0, (size_t)(d * d) * sizeof *part);
        j->s->engine->kern->outer(kept_min(256, n - at), d, x + (size_t)at * (size_t)d, (size_t)d,
                                  sum, part);
        for (int i = 0; i < d * d; i++)
            cov[i] += (double)part[i] / n;
    }
}

/* The principal components of a covariance, as they are stored and as they are read back. */
static bool own_basis(kept_half *f, int d, double *axes)
{
    if (!kept_eigen_symmetric(d, axes, f->var))
        return false;
    for (int c = 0; c < d; c++) {
        double most = 1e-30;
        for (int k = 0; k < d; k++)
            most = fmax(most, fabs(axes[c * d + k]));
        for (int k = 0; k < d; k++)
            f->stored[c * d + k] = (int8_t)lrint(127 * axes[c * d + k] / most);
    }
    kept_lossy_basis(f, d, d);
    return true;
}

void kept_lossy_model(void *arg, int lane, int i)
{
    kept_lossy *j = arg;
    const int d = j->d, layer = i / 2 / j->n_kv, h = i / 2 % j->n_kv;
    kept_half *f = &j->halves[i];
    const size_t n = (size_t)kept_cache_n(j->s->cache, layer, h);
    float *x = malloc((n + 1) * (size_t)d * sizeof *x);
    int32_t *slot = malloc((n + 1) * sizeof *slot);
    double *cov = malloc((size_t)(2 * d * d) * sizeof *cov), *axes = cov + d * d;
    (void)lane;
    if (!x || !slot || !cov)
        goto out;
    f->n = kept_lossy_rows(j, layer, h, i % 2, x, slot);
    if (!f->n)
        goto out;
    covariance(j, f, x, (float *)(void *)slot, cov);
    memcpy(axes, cov, (size_t)(d * d) * sizeof *cov);
    if (f->given)
        memcpy(f->basis, f->given, (size_t)(d * d) * sizeof *f->basis);
    else if (!own_basis(f, d, axes))
        goto out;
    for (int c = 0; c < d; c++) {
        f->var[c] = 0;
        for (int a = 0; a < d; a++)
            for (int b = 0; b < d; b++)
                f->var[c] += (double)f->basis[c * d + a] * cov[a * d + b] * f->basis[c * d + b];
    }
    f->rms = scale_of(x, f->n, d, (float *)(void *)slot);
out:
    j->failed |= !x || !slot || !cov;
    free(x);
    free(slot);
    free(cov);
}

/* ---- rates ------------------------------------------------------------------------------------
 */

struct kept_rates *kept_rates_new(void)
{
    struct kept_rates *t = malloc(sizeof *t);
    for (int i = 0; t && i < N_RD; i++) {
        const double x = exp2(RD_LOW + (double)i / OCTAVE), s = x * sqrt(2.0);
        double rate = 0, gain = 0;
        if (x > 16) {
            rate = log2(x) + 2.0470956; /* of a density: log2(x sqrt(2 pi e)) */
            gain = x * x - 1.0 / 12;
        }
        for (int k = 0; x <= 16 && k <= (int)(8 * x) + 1; k++) {
            const double low = k - 0.5, high = k + 0.5;
            const double p = 0.5 * (erf(high / s) - erf(low / s));
            const double mean = x / sqrt(2 * acos(-1.0)) *
                                (exp(-low * low / (s * s)) - exp(-high * high / (s * s)));
            const double sides = k ? 2 : 1;
            rate -= p > 1e-30 ? sides * p * log2(p) : 0;
            gain += sides * (2 * k * mean - k * k * p);
        }
        t->rate[i] = (float)rate;
        t->gain[i] = (float)gain;
    }
    return t;
}

static int table_at(double x)
{
    const double i = (log2(x) - RD_LOW) * OCTAVE;
    return !(i > 0) ? 0 : i > N_RD - 1 ? N_RD - 1 : (int)lrint(i);
}

/* Steps for one number delta, and which components then pay: one is held if it lowers the error by
 * more than as many bits would elsewhere (6 dB a bit). Returns the bits of all. */
static double allocate(kept_lossy *j, double delta)
{
    double bits = 0;
    const double price = 2 * log(2.0) / 12; /* squared steps a bit */
    for (int i = 0; i < j->s->engine->model->info.n_layers * j->n_kv * 2; i++) {
        kept_half *f = &j->halves[i];
        if (!f->n)
            continue;
        f->step = (float)(delta * f->rms * (i % 2 ? 1 : j->rest->keys));
        f->step = f->step > 1e-20f ? f->step : 1e-20f;
        f->r = 0;
        bits += 8 * (6 + 2 * j->d);
        double open = 0; /* bits of components that do not pay, before one that does */
        for (int c = 0; c < j->d; c++) {
            const int at = table_at(sqrt(fmax(f->var[c], 0)) / f->step);
            const double cost = f->n * (double)j->rates->rate[at] + (f->given ? 0 : 8 * j->d) + 8;
            open += cost;
            if (f->n * (double)j->rates->gain[at] <= price * cost)
                continue;
            f->r = c + 1;
            bits += open;
            open = 0;
        }
    }
    return bits;
}

void kept_lossy_fit(kept_lossy *j, double bits)
{
    double low = -16, high = 4; /* log2 of delta */
    for (int i = 0; i < 30; i++) {
        const double middle = (low + high) / 2;
        if (allocate(j, exp2(middle)) > bits)
            low = middle;
        else
            high = middle;
    }
    (void)allocate(j, exp2(high));
}
