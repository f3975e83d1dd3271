/* family: verdicts that were asked for together, corrected for their number. Private to src/bench.
 */
#ifndef BENCH_FAMILY_H
#define BENCH_FAMILY_H

#include "bench/stats.h"

#include <jansson.h>

typedef struct kept_member {
    double p_better, p_worse;
    kept_verdict verdict; /* of this one alone */
    double more;
    int ladder;  /* which; rows that are no budgets of one strategy: one each */
    double held; /* percent of the full cache: the place in the ladder, largest first */
} kept_member;

typedef struct kept_family {
    json_t *rows;        /* one object per member, to which the corrected verdict is added */
    kept_member *member; /* [n] */
    int n;
} kept_family;

/* Adds "p_inferior_holm", "verdict" and "more" to every row. A verdict among several stands only if
 * Holm's procedure over ladders lets it: non-inferiority is tested from the largest budget down,
 * "worse" from the smallest up. NOMEM. */
kept_status kept_family_correct(kept_family *f, double level, kept_error *err);

#endif
