/* paths: what a row's tokens say beside its scores.
 *
 *   kl_stats     scored text: the statistics of llama.cpp's `perplexity --kl-divergence`, from the
 *                same formulas (tools/perplexity): uncertainties treat tokens as independent, so
 *                they are too small; the intervals of a cell do not
 *   trajectory   answers: how long the row says the same tokens as the full cache, and how much
 * longer or shorter its answers are; answers the full cache ended and a limit cut are told apart
 */
#include "bench/run.h"
#include "bench/doc.h"
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- kl_stats -------------------------------------------------------------------------------- */

#define KEY_GAIN  2 /* nats that the long context is worth to a key token: alpha */
#define KEY_LEAST 2 /* nats that one costs with it at most: -beta */

/* Tokens that need the long context, by the full cache's own likelihoods (LongPPL, arXiv
 * 2410.23771, eq. 4 and 5 with the paper's alpha = 2, beta = -2). */
typedef struct key_tokens {
    double own, full;
    int n;
} key_tokens;

static void add_keys(key_tokens *k, const json_t *sample, const json_t *own, const json_t *full)
{
    const json_t *brief = json_object_get(sample, "short_nll");
    const json_t *a = json_object_get(own, "nll"), *b = json_object_get(full, "nll");
    for (size_t i = 0; i < json_array_size(brief); i++) {
        const double base = kept_doc_at(b, i), x = kept_doc_at(a, i);
        if (kept_doc_at(brief, i) - base > KEY_GAIN && base < KEY_LEAST && isfinite(x)) {
            k->own += x;
            k->full += base;
            k->n++;
        }
    }
}

static json_t *keys_json(const key_tokens *k)
{
    json_t *o = json_object();
    json_object_set_new(o, "n", json_integer(k->n));
    kept_doc_put(o, "nll", k->own / k->n);
    kept_doc_put(o, "full_nll", k->full / k->n);
    kept_doc_put(o, "ppl", exp(k->own / k->n));
    kept_doc_put(o, "full_ppl", exp(k->full / k->n));
    return o;
}

typedef struct series {
    double *kl, *own, *full, *dp; /* [n] KL; NLL of the row and of the full cache; p - p_full */
    int n, cap, same;
} series;

static bool grow(series *s)
{
    const int cap = s->cap ? 2 * s->cap : 1024;
    double **all[] = {&s->kl, &s->own, &s->full, &s->dp};
    for (int i = 0; i < 4; i++) {
        double *more = realloc(*all[i], (size_t)cap * sizeof *more);
        if (!more)
            return false;
        *all[i] = more;
    }
    s->cap = cap;
    return true;
}

static bool collect(series *s, const json_t *own, const json_t *full)
{
    const json_t *kl = json_object_get(own, "kl"), *nll = json_object_get(own, "nll");
    const json_t *base = json_object_get(full, "nll"), *top1 = json_object_get(own, "top1");
    for (size_t i = 0; i < json_array_size(kl); i++) {
        const double k = kept_doc_at(kl, i), a = kept_doc_at(nll, i), b = kept_doc_at(base, i);
        if (!isfinite(k) || !isfinite(a) || !isfinite(b))
            continue;
        if (s->n == s->cap && !grow(s))
            return false;
        s->kl[s->n] = k;
        s->own[s->n] = a;
        s->full[s->n] = b;
        s->dp[s->n++] = exp(-a) - exp(-b);
        s->same += kept_doc_at(top1, i) > 0;
    }
    return true;
}

typedef struct spread {
    double mean, se;
} spread;

/* llama.cpp's mean_and_uncertainty: variance over n, then / (n - 1). */
static spread mean_of(const double *x, int n)
{
    double sum = 0, sum2 = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i];
        sum2 += x[i] * x[i];
    }
    const double mean = sum / n, var = sum2 / n - mean * mean;
    return (spread){mean, n > 1 ? sqrt(fmax(var, 0) / (n - 1)) : NAN};
}

static double covariance(const double *x, const double *y, int n)
{
    double sx = 0, sy = 0, sxy = 0;
    for (int i = 0; i < n; i++) {
        sx += x[i];
        sy += y[i];
        sxy += x[i] * y[i];
    }
    return n > 1 ? (sxy / n - sx / n * (sy / n)) / (n - 1) : NAN;
}

/* Standard error of the mean of a x - b y, as mean_of's: from the differences, since variances and
 * covariance of rows that hardly differ leave nothing but their rounding. */
static double se_between(const double *x, double a, const double *y, double b, int n)
{
    double mean = 0, sum2 = 0;
    for (int i = 0; i < n; i++)
        mean += (a * x[i] - b * y[i]) / n;
    for (int i = 0; i < n; i++) {
        const double d = a * x[i] - b * y[i] - mean;
        sum2 += d * d;
    }
    return n > 1 ? sqrt(sum2 / n / (n - 1)) : NAN;
}

static void put_quantiles(json_t *o, const char *name, double *x, int n)
{
    static const struct {
        const char *suffix;
        double q;
    } list[] = {{"max", 1},   {"p99_9", 0.999}, {"p99", 0.99}, {"p95", 0.95},
                {"p90", 0.9}, {"median", 0.5},  {"p10", 0.1},  {"p5", 0.05},
                {"p1", 0.01}, {"p0_1", 0.001},  {"min", 0}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char key[40];
        snprintf(key, sizeof key, "%s_%s", name, list[i].suffix);
        kept_doc_put(o, key, kept_quantile(x, n, list[i].q));
    }
}

static json_t *kl_json(series *s)
{
    json_t *o = json_object();
    const int n = s->n;
    const spread own = mean_of(s->own, n), full = mean_of(s->full, n), kl = mean_of(s->kl, n);
    const double cov = covariance(s->own, s->full, n);
    const double ratio = exp(own.mean - full.mean);
    const double ratio_se = se_between(s->own, 1, s->full, 1, n);
    const double ppl = exp(own.mean), base = exp(full.mean);
    json_object_set_new(o, "n", json_integer(n));
    kept_doc_put(o, "ppl", ppl);
    kept_doc_put(o, "ppl_se", ppl * own.se);
    kept_doc_put(o, "full_ppl", base);
    kept_doc_put(o, "full_ppl_se", base * full.se);
    kept_doc_put(o, "correlation", cov / (own.se * full.se));
    kept_doc_put(o, "ln_ratio", own.mean - full.mean);
    kept_doc_put(o, "ln_ratio_se", ratio_se);
    kept_doc_put(o, "ratio", ratio);
    kept_doc_put(o, "ratio_se", ratio * ratio_se);
    kept_doc_put(o, "difference", ppl - base);
    kept_doc_put(o, "difference_se", se_between(s->own, ppl, s->full, base, n));
    kept_doc_put(o, "kl_mean", kl.mean);
    kept_doc_put(o, "kl_se", kl.se);
    const spread dp = mean_of(s->dp, n);
    kept_doc_put(o, "dp_mean", dp.mean);
    kept_doc_put(o, "dp_se", dp.se);
    put_quantiles(o, "kl", s->kl, n);
    put_quantiles(o, "dp", s->dp, n); /* sorted now: the pairs are not needed again */
    for (int i = 0; i < n; i++)
        s->dp[i] *= s->dp[i];
    const spread square = mean_of(s->dp, n);
    kept_doc_put(o, "dp_rms", sqrt(square.mean));
    kept_doc_put(o, "dp_rms_se", square.mean > 0 ? 0.5 * square.se / sqrt(square.mean) : 0);
    const double same = (double)s->same / n;
    kept_doc_put(o, "same_top", same);
    kept_doc_put(o, "same_top_se", n > 1 ? sqrt(same * (1 - same) / (n - 1)) : NAN);
    return o;
}

bool kept_put_kl_stats(json_t *cell, const json_t *samples, int task, int variant)
{
    series s = {0};
    key_tokens keys = {0};
    const json_t *x;
    size_t i;
    bool ok = true;
    json_array_foreach(samples, i, x)
    {
        const json_t *own = kept_doc_outcome(x, variant), *full = kept_doc_outcome(x, 0);
        if (kept_doc_number(x, "task") == task && own && full && ok)
            ok = collect(&s, own, full);
        if (kept_doc_number(x, "task") == task && own && full)
            add_keys(&keys, x, own, full);
    }
    json_object_set_new(cell, "key_tokens", keys.n ? keys_json(&keys) : json_null());
    if (ok)
        json_object_set_new(cell, "kl_stats", s.n ? kl_json(&s) : json_null());
    free(s.kl);
    free(s.own);
    free(s.full);
    free(s.dp);
    return ok;
}

/* ---- trajectory ------------------------------------------------------------------------------ */

typedef struct path {
    double same, first, length, full_length;
    int n, n_diverged, n_identical, longer, shorter, cut;
    int class[3], n_class,
        moved; /* novel, near-copy, abstain; told; another than the full cache's */
} path;

static void add_class(path *p, const json_t *own, const json_t *full)
{
    static const char *const names[] = {"novel", "near-copy", "abstain"};
    const char *a = kept_doc_text(own, "class");
    for (int i = 0; i < 3; i++)
        if (!strcmp(a, names[i])) {
            p->class[i]++;
            p->n_class++;
            p->moved += strcmp(a, kept_doc_text(full, "class")) != 0;
        }
}

static json_t *classes_json(const path *p)
{
    static const char *const names[] = {"novel", "near_copy", "abstain"};
    json_t *o = json_object();
    for (int i = 0; i < 3; i++)
        kept_doc_put(o, names[i], (double)p->class[i] / p->n_class);
    kept_doc_put(o, "moved", (double)p->moved / p->n_class);
    return o;
}

/* One pair of answers: ids, never text. */
static void add_pair(path *p, const json_t *own, const json_t *full)
{
    const json_t *a = json_object_get(own, "tokens"), *b = json_object_get(full, "tokens");
    const size_t na = json_array_size(a), nb = json_array_size(b), most = na > nb ? na : nb;
    size_t same = 0;
    while (same < na && same < nb &&
           json_integer_value(json_array_get(a, same)) ==
               json_integer_value(json_array_get(b, same)))
        same++;
    const bool ended = json_is_true(json_object_get(own, "ended"));
    const bool identical = same == most && ended == json_is_true(json_object_get(full, "ended"));
    p->n++;
    add_class(p, own, full);
    p->same += most ? (double)same / (double)most : 1;
    p->length += (double)na;
    p->full_length += (double)nb;
    p->longer += na > nb;
    p->shorter += na < nb;
    p->cut += !ended;
    p->n_identical += identical;
    if (!identical) {
        p->n_diverged++;
        p->first += (double)same;
    }
}

void kept_put_trajectory(json_t *cell, const json_t *samples, int task, int variant)
{
    path p = {0};
    const json_t *x, *t;
    size_t i, k;
    json_array_foreach(samples, i, x)
    {
        const json_t *own = kept_doc_outcome(x, variant), *full = kept_doc_outcome(x, 0);
        if (kept_doc_number(x, "task") != task || !own || !full ||
            !json_is_false(json_object_get(own, "failed")) ||
            !json_is_false(json_object_get(full, "failed")))
            continue;
        const json_t *turns = json_object_get(own, "turns");
        if (!turns)
            add_pair(&p, own, full);
        json_array_foreach(turns, k, t)
            add_pair(&p, t, json_array_get(json_object_get(full, "turns"), k));
    }
    json_t *o = p.n ? json_object() : json_null();
    if (p.n) {
        json_object_set_new(o, "n", json_integer(p.n));
        kept_doc_put(o, "identical", (double)p.n_identical / p.n);
        kept_doc_put(o, "prefix_match", p.same / p.n);
        kept_doc_put(o, "first_divergence", p.n_diverged ? p.first / p.n_diverged : NAN);
        kept_doc_put(o, "length_ratio", p.full_length > 0 ? p.length / p.full_length : NAN);
        json_object_set_new(o, "longer", json_integer(p.longer));
        json_object_set_new(o, "shorter", json_integer(p.shorter));
        json_object_set_new(o, "cut", json_integer(p.cut));
        json_object_set_new(o, "classes", p.n_class ? classes_json(&p) : json_null());
    }
    json_object_set_new(cell, "trajectory", o);
}
