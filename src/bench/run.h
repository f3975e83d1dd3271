/* run: the main job. For every sample of every task: one prefill, forked for all strategies; all
 * variants and the full reference decode in one batch; outcomes become one JSON document (docs:
 * docs/result-format.md), which is the truth that every view (table, csv) is computed from.
 *
 * Per sample
 *   1. prefill the prefix once in chunks, capturing the union of what the strategies need;
 *      strategies that evict between chunks prefill for themselves
 *   2. fork for each strategy, end_prefill (evicts), measure held bytes, evidence_recall
 *   3. GENERATE: feed the suffix to all variants, decode greedily in one batch to an end token or
 *      max_new_tokens; SCORE: teacher-force the suffix one token at a time through all variants
 *   4. mass_recall: share of the full cache's attention probability (last query, prefix positions)
 *      that lies on slots the variant still has, mean over layers, heads and steps
 *   5. on the first speed_samples samples: time speed_steps decode steps of each variant alone,
 *      alternated with the full cache (F V V F); ratio = median of paired ratios
 * A failed variant (pool full, ...) is counted as failed with score 0, never dropped.
 */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "task/task.h"

#include <jansson.h>

typedef struct kept_run_options {
    const char *model_path, *model_name;
    const char *const *specs; /* [n_specs] strategy specs; "full" is always added first */
    int n_specs;
    const kept_task_options *tasks; /* [n_tasks] */
    int n_tasks;
    int n_threads;
    uint64_t seed;
    int chunk;          /* prefill chunk, tokens (512) */
    int speed_samples;  /* 1 */
    int speed_steps;    /* 16 */
    const char *isa;    /* NULL: best */
    const char *dump_kept; /* file for kept positions, NULL: none */
    /* Called after each sample, and at least every second or so: fraction done in [0,1], what is
     * being done. Returning false cancels: the result so far is returned, marked "partial". */
    bool (*progress)(void *ctx, double done, const char *what);
    void *ctx;
} kept_run_options;

/* *result: new reference. CANCELLED also fills *result (partial: true) with all finished samples. */
kept_status kept_run(const kept_run_options *o, json_t **result, kept_error *err);

/* Machine description for results: cpu model, isa, ggml version and features, threads, memory. */
json_t *kept_machine_json(const char *isa, int n_threads);

#endif
