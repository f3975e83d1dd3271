/* tally: what the outcomes of one row on one task add up to, on the way to a cell. Private to
 * src/bench. */
#ifndef BENCH_TALLY_H
#define BENCH_TALLY_H

#include "base/base.h"

#include <jansson.h>

enum { KEPT_N_DISTANCES = 8, KEPT_N_PLAIN = 18 };
extern const int kept_distance_end[KEPT_N_DISTANCES]; /* of ranges, in tokens after the eviction */
extern const char *const kept_plain[KEPT_N_PLAIN];    /* members whose mean a cell has */

typedef struct kept_mean {
    double sum;
    int n;
} kept_mean;

void kept_mean_add(kept_mean *m, double x); /* unless it is not finite */
double kept_mean_of(const kept_mean *m);    /* NAN: of nothing */

typedef struct kept_distance {
    kept_mean kl, top1, nll, full_nll;
} kept_distance;

typedef struct kept_tally {
    int n, failed, regressions, improvements, n_diff, n_steps, n_pairs, n_full_steps;
    kept_mean plain[KEPT_N_PLAIN], held, held_pct, kv_pct, peak_pct, byte_steps_pct, read_pct,
        parked_pct;
    kept_mean score, kl, top1, n_new, diverged, nll, full_nll;
    double kl_max;
    kept_distance by_distance[KEPT_N_DISTANCES];
    double *diff;          /* [n_diff] paired differences: score, or mean NLL of a sample */
    int *cluster;          /* [n_diff] which share a context */
    double *scores;        /* [n] failures as 0 */
    int *score_cluster;    /* [n] */
    json_t *ids, *all_ids; /* text of a cluster -> its number, of diff and of scores */
    double *steps, *ratios, *full_steps; /* speed: nanoseconds, paired ratios */
} kept_tally;

/* Adds up what `samples` say of a row; a failed outcome scores 0 and counts in n, its bytes, times
 * and distances are left out. Clear in any case. false: out of memory. */
bool kept_tally_fill(kept_tally *t, const json_t *samples, int variant);
void kept_tally_clear(kept_tally *t);

#endif
