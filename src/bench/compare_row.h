/* compare_row: one row on one task while a comparison is made. Private to src/bench. */
#ifndef BENCH_COMPARE_ROW_H
#define BENCH_COMPARE_ROW_H

#include "bench/pairs.h"
#include "bench/stats.h"

typedef struct kept_compare_row {
    bool generate;
    double *diff; /* [n] more is better */
    int *cluster; /* [n] */
    int n;
    double before, after; /* means, NAN: of nothing */
    json_t *flips;
} kept_compare_row;

/* Fills a row whose `generate` is set; clear it in any case. NOMEM. */
kept_status kept_compare_row_pair(kept_compare_row *w, const kept_pairs *pairs, kept_error *err);
/* Its numbers into a row of the document; signs as in a cell: more NLL is worse. */
void kept_compare_row_put(const kept_compare_row *w, const kept_change *c, double margin,
                          json_t *row);
void kept_compare_row_clear(kept_compare_row *w);

#endif
