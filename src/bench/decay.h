/* decay: how a row's score holds as contexts grow, from tasks of one result that differ in their
 * length alone. */
#ifndef BENCH_DECAY_H
#define BENCH_DECAY_H

#include "base/base.h"

#include <jansson.h>

/* Share of the base score that still counts as effective (NoLiMa, arXiv 2502.05167). */
#define KEPT_EFFECTIVE 0.85

/* [{"task", "row", "variant", "points": [{"task" (its number), "length", "n", "score",
 * "full_score", "ratio", "se"}], "slope", "slope_low", "slope_high", "effective_length"}] of every
 * answered task name with two lengths or more and every row. ratio: score over the full cache's at
 * that length; se: of the ratio, from the interval of the paired change. slope: of the ratio per
 * doubling of the length, least squares, with a 95 % interval from those errors (samples of two
 * lengths are independent). effective_length: the longest up to which every score is at least
 * KEPT_EFFECTIVE of the full cache's at the shortest; null: none. NOMEM. */
kept_status kept_decay(const json_t *doc, json_t **out, kept_error *err);

#endif
