/* change: all that is said about one paired difference. */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS 10000
#define SEED   1
#define POWER  0.8

const char *kept_verdict_text(kept_verdict v)
{
    return v == KEPT_NON_INFERIOR ? "non-inferior" : v == KEPT_WORSE ? "worse" : "inconclusive";
}

/* Zeros, ones and minus ones, each sample its own cluster. */
static bool are_flips(const kept_paired *x, int n_clusters)
{
    for (int i = 0; i < x->n; i++)
        if (x->diff[i] != 0 && x->diff[i] != 1 && x->diff[i] != -1)
            return false;
    return x->bounded && n_clusters == x->n;
}

static int count_clusters(const kept_paired *x)
{
    int g = 0;
    for (int i = 0; x->cluster && i < x->n; i++)
        g = x->cluster[i] + 1 > g ? x->cluster[i] + 1 : g;
    return x->cluster ? g : x->n;
}

/* No interval of bounded differences is narrower than that of g clusters without a flip. */
static kept_interval widened(kept_interval in, const kept_change *c, bool bounded, double level)
{
    if (!bounded || isnan(in.low))
        return in;
    const kept_interval least = kept_tango(0, 0, c->n_clusters, level);
    return (kept_interval){fmax(fmin(in.low, c->mean + least.low), -1),
                           fmin(fmax(in.high, c->mean + least.high), 1)};
}

static void measure_flips(kept_change *c, double margin, double level)
{
    const double b = c->regressions, i = c->improvements, n = c->n;
    c->p = kept_mcnemar(c->regressions, c->improvements);
    c->interval = kept_tango(b, i, n, level);
    c->bounds = kept_tango(b, i, n, 2 * level - 1);
    c->p_inferior = margin < 1 ? kept_normal_cdf(-kept_tango_z(b, i, n, -margin)) : 0;
}

/* A t test of the mean over clusters, for the p that goes with a bootstrap bound: both are what the
 * same spread says, the bootstrap with the skew of the data. */
static double graded_inferior(const kept_paired *x, const kept_change *c, double margin)
{
    const double off = c->mean + margin, se = sqrt(c->variance);
    double p = se > 0 ? 1 - kept_t_cdf(off / se, c->n_clusters - 1) : off > 0 ? 0 : 1;
    if (x->bounded && off > -1 && off < 1)
        p = fmax(p, kept_normal_cdf(-kept_tango_z(0, 0, c->n_clusters, -off)));
    return p;
}

/* Cluster-robust variance of the mean, with g / (g - 1) for few clusters. */
static double mean_variance(const kept_paired *x, const kept_change *c, double *room)
{
    double sum = 0;
    memset(room, 0, (size_t)x->n * sizeof *room);
    for (int i = 0; i < x->n; i++)
        room[x->cluster ? x->cluster[i] : i] += x->diff[i] - c->mean;
    for (int g = 0; g < c->n_clusters; g++)
        sum += room[g] * room[g];
    const double k = c->n_clusters;
    return k > 1 ? sum * k / (k - 1) / ((double)x->n * x->n) : NAN;
}

/* Everything but the bootstrap's intervals, which come for all rows together. */
static void measure_graded(const kept_paired *x, kept_change *c, double margin, double level,
                           const kept_interval in[2])
{
    c->p = kept_signflip_clusters(x->diff, x->cluster, x->n, ROUNDS, SEED);
    c->interval = widened(in[0], c, x->bounded, level);
    c->bounds = widened(in[1], c, x->bounded, 2 * level - 1);
    c->p_inferior = c->n_clusters > 1 ? graded_inferior(x, c, margin) : NAN;
}

/* p of the side that the mean speaks for, had there been k times as many samples like these. */
static double p_at(const kept_paired *x, const kept_change *c, double margin, double k)
{
    const double off = c->mean + margin, n = k * c->n, g = k * c->n_clusters;
    if (are_flips(x, c->n_clusters)) {
        if (margin >= 1)
            return 0;
        const double z = kept_tango_z(k * c->regressions, k * c->improvements, n, -margin);
        const int b = (int)lround(k * c->regressions), i = (int)lround(k * c->improvements);
        return off > 0 ? kept_normal_cdf(-z) : fmax(kept_normal_cdf(z), kept_mcnemar(b, i) / 2);
    }
    const double se = sqrt(c->variance / k);
    double p = !(g > 1) ? 1 : se > 0 ? 1 - kept_t_cdf(fabs(off) / se, g - 1) : 0;
    if (x->bounded && fabs(off) < 1)
        p = fmax(p, kept_normal_cdf(-fabs(kept_tango_z(0, 0, g, -off))));
    return p;
}

/* The fewest samples like these with which the test itself rejects; INFINITY: no number does. */
static double least_samples(const kept_paired *x, const kept_change *c, double margin, double level)
{
    double low = 1, high = 1;
    while (high < 1e7 && p_at(x, c, margin, high) > 1 - level)
        high *= 2;
    if (high >= 1e7)
        return INFINITY;
    for (int i = 0; i < 60; i++) {
        const double mid = (low + high) / 2;
        if (p_at(x, c, margin, mid) > 1 - level)
            low = mid;
        else
            high = mid;
    }
    return ceil(high * x->n - 1e-6);
}

/* What is known of the spread is at least what one flip up and one down in two samples more say. */
double kept_samples_more(const kept_paired *x, const kept_change *c, double margin, double level)
{
    const double off = fabs(c->mean + margin);
    const double z = kept_normal_quantile(level) + kept_normal_quantile(POWER);
    double each = c->variance * x->n; /* what one sample adds */
    if (x->bounded)
        each = fmax(each, 2.0 / (x->n + 2.0));
    const double n = ceil(z * z * each / (off * off));
    if (!(off > 0) || !isfinite(n))
        return INFINITY;
    return fmax(fmax(n, least_samples(x, c, margin, level)) - x->n, 1);
}

/* Counts, mean and its variance. */
static kept_status begin(const kept_paired *x, kept_change *out, kept_error *err)
{
    *out = (kept_change){.n = x->n,
                         .n_clusters = count_clusters(x),
                         .mean = NAN,
                         .p = NAN,
                         .interval = {NAN, NAN},
                         .bounds = {NAN, NAN},
                         .p_inferior = NAN,
                         .verdict = KEPT_INCONCLUSIVE,
                         .more = INFINITY};
    if (x->n < 1)
        return KEPT_OK;
    double *room = kept_calloc((size_t)x->n, sizeof *room), sum = 0;
    if (!room)
        return kept_fail(err, KEPT_NOMEM, "out of memory for statistics");
    for (int i = 0; i < x->n; i++) {
        sum += x->diff[i];
        out->regressions += x->diff[i] < 0;
        out->improvements += x->diff[i] > 0;
    }
    out->mean = sum / x->n;
    out->variance = mean_variance(x, out, room);
    free(room);
    return KEPT_OK;
}

static void settle(const kept_paired *x, double margin, double level, kept_change *out)
{
    if (out->bounds.low > -margin)
        out->verdict = KEPT_NON_INFERIOR;
    else if (out->bounds.high < -margin && out->p / 2 <= 1 - level)
        out->verdict = KEPT_WORSE;
    out->more = out->verdict == KEPT_INCONCLUSIVE ? kept_samples_more(x, out, margin, level) : 0;
}

kept_status kept_changes_of(const kept_paired *x, const double *margin, int n_rows, double level,
                            kept_change *out, kept_error *err)
{
    const size_t n = n_rows > 0 ? (size_t)n_rows : 1;
    const double levels[2] = {level, 2 * level - 1};
    kept_paired *graded = kept_calloc(n, sizeof *graded);
    kept_interval(*in)[2] = kept_calloc(n, sizeof *in);
    int *who = kept_calloc(n, sizeof *who), n_graded = 0;
    kept_status s =
        graded && in && who ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory for statistics");
    for (int i = 0; !s && i < n_rows; i++) {
        s = begin(&x[i], &out[i], err);
        if (s || x[i].n < 1)
            continue;
        if (are_flips(&x[i], out[i].n_clusters)) {
            measure_flips(&out[i], margin[i], level);
        } else {
            graded[n_graded] = x[i];
            who[n_graded++] = i;
        }
    }
    if (!s)
        kept_bootstrap_rows(graded, n_graded, ROUNDS, SEED, levels, in);
    for (int k = 0; !s && k < n_graded; k++)
        measure_graded(&graded[k], &out[who[k]], margin[who[k]], level, in[k]);
    for (int i = 0; !s && i < n_rows; i++)
        if (x[i].n > 0)
            settle(&x[i], margin[i], level, &out[i]);
    free(graded);
    free(in);
    free(who);
    return s;
}

kept_status kept_change_of(const kept_paired *x, double margin, double level, kept_change *out,
                           kept_error *err)
{
    return kept_changes_of(x, &margin, 1, level, out, err);
}
