/* drift: what the same questions, said otherwise, or the same contexts, laid out otherwise (kept
 * run
 * --perturb), change in a row beyond what they change in the full cache. */
#ifndef BENCH_DRIFT_H
#define BENCH_DRIFT_H

#include "base/base.h"

#include <jansson.h>

/* [{"task", "perturb", "task_index" and "plain_index" (numbers of the two tasks), "variant", "row",
 * "n", "drift" (score, perturbed less plain), "full_drift", "excess" (drift less full_drift, sample
 * by sample), "low", "high" (95 %), "p", "moved" (samples whose score differs)}] of every answered
 * task that stands in the result plain and perturbed; samples are paired by index and by the
 * context as it was before it was perturbed (`cluster`). NOMEM. */
kept_status kept_drift(const json_t *doc, json_t **out, kept_error *err);

#endif
