/* robust: does a ranking of strategies hold on another model, and does eviction cost the same where
 * the cache is stored in fewer bits? Views of results that are there; nothing is run. */
#ifndef BENCH_ROBUST_H
#define BENCH_ROBUST_H

#include "base/base.h"

#include <jansson.h>

enum { KEPT_MOST_MODELS = 16 };

/* How strategies rank on several models: for every task (label, kind and length) that at least two
 * of the results have, the rows that all of these have, by what they change against the full cache
 * of their model (ties share the mean rank), and Kendall's tau-b of each pair of models.
 * *out: [{"task", "kind", "length", "models": [{"name", "sha256", "n_params"}], "rows": [{"row",
 * "change": [..], "rank": [..]}], "tau": [{"a", "b" (indices of models), "n", "tau", "p" (exact,
 * two-sided; null with ties)}]}]. Fewer than three rows: no tau. NOMEM. */
kept_status kept_scale(json_t *const *docs, int n, json_t **out, kept_error *err);

/* What eviction and precision cost together beyond the sum of what each costs: for every strategy S
 * that was run stored as f16 and in another form C with nothing else changed, where the full cache
 * was run in form C too, the mean over samples of (S+C) - (S) - (full+C) + (full), with a 95 %
 * interval. Negative for scores, positive for NLL: they make each other worse.
 * *out: [{"task", "kind", "task_index", "variant" and "packed_variant" (their numbers), "row",
 * "packed", "full_packed", "n", "evict", "pack", "both", "interaction", "low", "high", "p"}].
 * NOMEM. */
kept_status kept_precision(const json_t *doc, json_t **out, kept_error *err);

/* {"models": kept_scale of all results, "precision", "length": kept_decay, "perturb": kept_drift of
 * the first}. NOMEM. */
kept_status kept_robust(json_t *const *docs, int n, json_t **out, kept_error *err);

#endif
