/* stats: the few procedures a table needs, each checked against an independent implementation. */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include "base/base.h"

typedef struct kept_interval {
    double low, high;
} kept_interval;

/* Wilson score interval of k successes in n (k may be fractional: a mean of graded scores times n,
 * then the interval is conservative for scores in [0,1]). level e.g. 0.95. n = 0: [0, 1]. */
kept_interval kept_wilson(double k, int n, double level);
/* Exact two-sided McNemar p for b regressions and c improvements (binomial, 1 when b + c = 0). */
double kept_mcnemar(int b, int c);
/* Percentile bootstrap of the mean of x[n], rounds resamples, seeded. n = 0 or out of
 * memory: [NaN, NaN]. */
kept_interval kept_bootstrap_mean(const double *x, int n, double level, int rounds, uint64_t seed);
/* Two-sided sign-flip permutation p for mean(x) = 0: exact for n <= 20, else `rounds` seeded flips
 * with the observed one counted. n = 0: 1. A value that is not finite: NaN. */
double kept_signflip(const double *x, int n, int rounds, uint64_t seed);
/* Quantile q in [0,1] of x[n] (sorted in place), linear interpolation (type 7). n = 0: NaN. */
double kept_quantile(double *x, int n, double q);

/* ---- distributions over a vocabulary -------------------------------------------------------- */
typedef struct kept_kl {
    double kl;                  /* KL(base || other) in nats, double accumulation */
    double nll_base, nll_other; /* -log p of the true token */
    bool top1;                  /* same argmax (lowest id wins ties) */
} kept_kl;
/* base and other: logits [n_vocab], finite or -infinity (such a token weighs nothing). Equal inputs
 * give kl exactly 0. true_token outside the vocabulary: both nll are NaN. kl.c. */
kept_kl kept_kl_logits(const float *base, const float *other, int n_vocab, int32_t true_token);

/* Pareto front: larger `gain`, smaller `cost`. front[i] = true if no j has gain >= and cost <= with
 * one strict. */
void kept_pareto(const double *gain, const double *cost, int n, bool *front);

#endif
