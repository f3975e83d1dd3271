/* stats: the procedures behind every interval, p and verdict. Each is checked against an
 * independent implementation (tests/test_stats*.c). Plain double arithmetic, seeded generators, no
 * state.
 *
 *   stats.c        Wilson, McNemar, sign flips, quantiles, Pareto front
 *   resample.c     the bootstrap, of many rows at once
 *   stats_dist.c   distributions
 *   stats_test.c   Tango's interval, many tests at once, guarantees, planning, ranks
 *   change.c       all that is said about one paired difference, and the verdict
 *   anytime.c      verdicts that hold whenever one looks
 *   kl.c           distributions over a vocabulary
 */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include "base/base.h"

typedef struct kept_interval {
    double low, high;
} kept_interval;

/* ---- one sample ----------------------------------------------------------------------------- */
/* Wilson score interval of k successes in n (k may be fractional: a mean of graded scores times n,
 * then the interval is conservative for scores in [0,1]; so may n: an effective number). level
 * e.g. 0.95. n = 0: [0, 1]. */
kept_interval kept_wilson(double k, double n, double level);
/* How many independent samples x[n] in clusters are worth for their mean: n over the design effect
 * (cluster-robust variance of the mean by the variance without clusters), between the number of
 * clusters and n. Constant x: the number of clusters. cluster: as in kept_paired. */
double kept_effective_n(const double *x, const int *cluster, int n);
/* Clopper and Pearson 1934: exact interval of k successes in n. n = 0: [0, 1]. */
kept_interval kept_clopper_pearson(int k, int n, double level);
/* Quantile q in [0,1] of x[n] (sorted in place), linear interpolation (type 7). n = 0: NaN. */
double kept_quantile(double *x, int n, double q);
/* Sums and sizes of the clusters of x, in order of their first sample, added to sum[n] and
 * count[n]. cluster NULL: each sample its own. Returns how many there are. */
int kept_gather_clusters(const double *x, const int *cluster, int n, double *sum, double *count);

/* ---- paired differences --------------------------------------------------------------------- */
/* Exact two-sided McNemar p for b regressions and c improvements (binomial, 1 when b + c = 0). */
double kept_mcnemar(int b, int c);
/* Score interval of the difference of two paired proportions, improvements minus regressions by n
 * (Tango 1998, equations 5 to 8); unlike the bootstrap it has a width when nothing flipped. Counts
 * may be fractional. n <= 0: [-1, 1]. */
kept_interval kept_tango(double regressions, double improvements, double n, double level);
/* Its statistic for a difference of delta in (-1, 1): standard normal if that is the truth. */
double kept_tango_z(double regressions, double improvements, double n, double delta);
/* Two-sided sign-flip permutation p for mean(x) = 0: exact for n <= 20, else `rounds` seeded flips
 * with the observed one counted. n = 0: 1. A value that is not finite: NaN. */
double kept_signflip(const double *x, int n, int rounds, uint64_t seed);
/* The same with the sums of whole clusters flipped. Out of memory: NaN. */
double kept_signflip_clusters(const double *x, const int *cluster, int n, int rounds,
                              uint64_t seed);

typedef enum kept_verdict {
    KEPT_NON_INFERIOR, /* the lower bound of the change is above minus the margin */
    KEPT_WORSE,        /* the upper bound is below it, and the exact test tells it from no change */
    KEPT_INCONCLUSIVE
} kept_verdict;
const char *kept_verdict_text(kept_verdict v); /* "non-inferior", "worse", "inconclusive" */

/* Differences "after minus before" on the same samples; positive is better. */
typedef struct kept_paired {
    const double *diff;
    const int *cluster; /* [n] 0 .. clusters - 1 of samples that share a context; NULL: none do */
    int n;
    bool bounded; /* differences of scores in [0, 1]; false: of NLL */
} kept_paired;

/* Percentile bootstrap of the mean difference, whole clusters drawn, rounds resamples, seeded: two
 * intervals of two levels from the same resamples. The percentiles are moved out by the
 * small-sample correction of Hesterberg 2015, section 5.3 ("expanded percentile"): with g clusters
 * the normal quantile z becomes sqrt(g / (g - 1)) t_{g - 1}; without it 95 % means 88 % at n = 8.
 * Fewer than two clusters, or out of memory: NaN. */
void kept_bootstrap(const kept_paired *x, int rounds, uint64_t seed, const double level[2],
                    kept_interval out[2]);
/* The same of n_rows rows, which is what the cells of a task are: rows with equally many clusters
 * draw the same ones, so what is drawn is drawn once for several of them. Each row has the bits
 * that it has alone. out [n_rows][2]. */
void kept_bootstrap_rows(const kept_paired *x, int n_rows, int rounds, uint64_t seed,
                         const double level[2], kept_interval (*out)[2]);

typedef struct kept_change {
    int n, n_clusters, regressions, improvements;
    double mean, variance;  /* of the mean, robust to clusters; NaN: one cluster */
    double p;               /* two-sided, of no change at all */
    kept_interval interval; /* two-sided at `level` */
    kept_interval bounds;   /* the one-sided lower and the one-sided upper bound at `level` */
    double
        p_inferior; /* of change <= -margin: small speaks for non-inferior; in step with bounds */
    kept_verdict verdict;
    double more; /* samples that a verdict would still need, at 80 % power, if the change and its
                  * spread stay as they are; 0: there is one; INFINITY: it sits at the margin */
} kept_change;

/* Zeros and ones, no two in one cluster: Tango's interval and exact McNemar. All else: bootstrap
 * and sign flips over clusters; bounded differences get at least the width that as many clusters
 * without a flip have, for a bootstrap of zeros says nothing. n = 0: NaN, inconclusive. margin
 * >= 0. NOMEM. */
kept_status kept_change_of(const kept_paired *x, double margin, double level, kept_change *out,
                           kept_error *err);
/* The same of n_rows rows, margin [n_rows], out [n_rows]: faster than one by one, with their bits.
 */
kept_status kept_changes_of(const kept_paired *x, const double *margin, int n_rows, double level,
                            kept_change *out, kept_error *err);

/* What `more` is, at another level: where a verdict is one of several. Enough for a power of 80 %,
 * and for the test to reject if all further samples are like these. */
double kept_samples_more(const kept_paired *x, const kept_change *c, double margin, double level);

/* ---- one look after another ------------------------------------------------------------------ */
/* Two bets on a stream of differences in [-1, 1]: one pays if their mean is above minus the margin,
 * one if it is below (betting with capped approximate GRAPA, Waudby-Smith and Ramdas 2024, doi
 * 10.1093/jrsssb/qkad009). Where the true mean is minus the margin or on the wrong side of it, the
 * capital of the wrong bet ever reaches 1 / alpha with a probability of at most alpha (Ville), so
 * one may look after every sample and stop when one likes. Holds for samples whose expectation
 * given those before them is the mean: drawn independently, or in random order. anytime.c. */
typedef struct kept_capital {
    double log_capital[2]; /* non-inferior, worse */
    double sum, spread;
    int n;
    kept_verdict verdict;
    int settled_at; /* samples after which; 0: not yet */
} kept_capital;
kept_capital kept_capital_new(void);
/* Takes one difference; margin in [0, 1); returns the verdict, which stays once it is there. */
kept_verdict kept_capital_add(kept_capital *c, double diff, double margin, double alpha);

/* ---- many at once, plans, guarantees --------------------------------------------------------- */
/* Holm 1979: adjusted[i] <= alpha exactly where the step-down procedure rejects. NaN stays NaN and
 * counts for nothing. Out of memory: false. */
bool kept_holm(const double *p, int n, double *adjusted);
/* Holm over ladders: ladder[i] is the ladder of hypothesis i, and those of one ladder are tested in
 * the order in which they stand, each only after the one before it was rejected. Every unfinished
 * ladder has an equal share of the level; one whose last step was rejected hands its share on. A
 * graphical procedure (Bretz et al. 2009, doi 10.1002/sim.3495), so the familywise error is held;
 * ladders of one step: exactly Holm. adjusted[i] <= alpha exactly where it rejects. A ladder ends
 * before a NaN. Out of memory: false. */
bool kept_holm_ladders(const double *p, const int *ladder, int n, double *adjusted);
/* Fixed sequence: how many of the ordered hypotheses are rejected at alpha before the first that is
 * not; no price for the others. */
int kept_fixed_sequence(const double *p, int n, double alpha);
/* p of "the mean loss is above epsilon" from n exchangeable losses in [0,1] with this sum. All 0 or
 * 1: the binomial tail; graded: Hoeffding-Bentkus (Bates et al. 2021, theorem 4; Angelopoulos et
 * al. 2021, "Learn then Test"). n = 0: 1. */
double kept_loss_p(double sum, int n, bool graded, double epsilon);
/* The smallest epsilon that kept_loss_p would reject at delta. */
double kept_loss_bound(double sum, int n, bool graded, double delta);
/* Paired samples for a non-inferiority verdict when nothing really changes: share `flips` of the
 * samples disagree; margin in (0, 1); one-sided level, power. (z_level + z_power)^2 flips/margin^2,
 * rounded up. */
double kept_samples_needed(double flips, double margin, double level, double power);
/* Kendall's tau-b of two rankings x[n], y[n]; NaN if one of them ties everything. */
double kept_kendall(const double *x, const double *y, int n);
/* Two-sided p of no relation from the exact distribution of discordant pairs (Kendall 1938); NaN
 * with ties, fewer than two, or more than KEPT_MOST_RANKED. */
enum { KEPT_MOST_RANKED = 512 };
double kept_kendall_p(const double *x, const double *y, int n);

/* ---- distributions -------------------------------------------------------------------------- */
double kept_normal_cdf(double x);
double kept_normal_quantile(double p);
double kept_beta_cdf(double x, double a, double b); /* regularised incomplete beta; a, b > 0 */
double kept_t_cdf(double t, double df);
double kept_t_quantile(double p, double df);
double kept_binomial_cdf(int k, int n, double p); /* P(X <= k) */

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
