/* pairs: the same prompts in two results. Private to src/bench. */
#ifndef BENCH_PAIRS_H
#define BENCH_PAIRS_H

#include "base/base.h"

#include <jansson.h>

typedef struct kept_pair {
    const json_t *sample;         /* of the second result */
    const json_t *before, *after; /* outcomes */
    int cluster;                  /* 0 .. clusters - 1 */
} kept_pair;

typedef struct kept_pairs {
    kept_pair *pair; /* [n] */
    int n, n_only_before, n_only_after;
} kept_pairs;

/* Samples of task ta of a, row va, and task tb of b, row vb, that have one hash; of a prompt that
 * comes several times the first with the first and so on. Clear in any case. NOMEM. */
kept_status kept_pairs_find(const json_t *a, int ta, int va, const json_t *b, int tb, int vb,
                            kept_pairs *out, kept_error *err);
void kept_pairs_clear(kept_pairs *p);

/* What an outcome is worth: its score (0 if it failed), or its mean NLL (NaN if it failed). */
double kept_outcome_value(const json_t *outcome, bool generate);
/* Index of the row with this name, canonical or resolved spec, -1: none. */
int kept_row_find(const json_t *doc, const char *name);
/* Length of a spec without its budget: rows whose resolved specs agree so far are one ladder. */
size_t kept_spec_stem(const char *spec);
/* What a row holds on a task, in percent of the full cache; NAN: not told. */
double kept_held_pct(const json_t *doc, int task, int variant);

#endif
