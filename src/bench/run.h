/* run: the main job. For every sample of every task: one prefill, forked for all strategies; all
 * variants and the full reference decode in one batch; outcomes become one JSON document
 * (docs/result-format.md), which is the truth that every view (table, csv) is computed from.
 *
 * Per sample
 *   1. prefill the prefix once in chunks, capturing the union of what the strategies need;
 *      strategies that evict between chunks prefill for themselves
 *   2. fork for each strategy, end_prefill (evicts), measure held bytes, evidence_recall
 *   3. on the first speed_samples samples: time speed_steps decode steps of a fork of each variant
 *      alone, alternated with the full cache (F V V F); ratio = median of paired ratios
 *   4. GENERATE: feed the suffix to all variants, decode greedily in one batch to an end token or
 *      max_new_tokens; SCORE: teacher-force the suffix one token at a time through all variants
 *   5. mass_recall: share of the full cache's attention probability (last query, prefix positions)
 *      that lies on slots the variant still has, mean over layers and heads
 * A failed variant (pool full, ...) is counted as failed with score 0, never dropped.
 *
 * Variant 0 is the full cache, the reference. Variant 1 is the full cache again, the floor: it
 * must show exactly no difference, although it also carries the probe that mass_recall reads.
 */
#ifndef BENCH_RUN_H
#define BENCH_RUN_H

#include "task/task.h"

#include <jansson.h>

#define KEPT_RESULT_SCHEMA  "kept-result"
#define KEPT_RESULT_VERSION 1
#define KEPT_MAX_ROWS       512 /* variants of one run, the two full caches included */

/* What of one sample belongs into a store and not into the document. Borrowed. */
typedef struct kept_run_extra {
    const int32_t *prefix, *suffix; /* tokens of the prompt */
    int n_prefix, n_suffix;
    int n_variants;
    const uint8_t *const *map; /* [n_variants] kept positions after the eviction (keptmap.h); NULL:
                                * the variant did not run, or failed before */
    const size_t *map_bytes;   /* [n_variants] */
} kept_run_extra;

typedef enum kept_take { KEPT_TAKE_RUN, KEPT_TAKE_DONE, KEPT_TAKE_BUSY } kept_take;

/* Where samples go to one by one and come from at the end: src/store makes one of a file. Several
 * processes may share what is behind it. Errors end the run. */
typedef struct kept_run_sink {
    void *ctx;
    /* Once, before the first sample. head: the document without samples and cells; prompts: for
     * each task the hashes of its samples' tokens, in order. *done: samples that need no run. */
    kept_status (*begin)(void *ctx, const json_t *head, const json_t *prompts, int *done,
                         kept_error *err);
    /* What to do with a sample. RUN: it is this process's; lacks [n_variants] says which variants
     * are not there yet. BUSY: another process has it. */
    kept_status (*take)(void *ctx, int task, int index, kept_take *what, bool *lacks,
                        kept_error *err);
    /* A finished sample: all of it or nothing is stored. */
    kept_status (*put)(void *ctx, const json_t *sample, const kept_run_extra *extra,
                       kept_error *err);
    void (*drop)(void *ctx, int task, int index); /* taken, but it will not be finished */
    void (*alive)(void *ctx);                     /* called often; keeps what is taken */
    /* The sample with the outcomes of this run's variants; NULL in *sample: not there. */
    kept_status (*get)(void *ctx, int task, int index, json_t **sample, kept_error *err);
    /* Texts that save work when a run goes on; both may be NULL. recall: *text malloc'ed, NULL if
     * there is none under this key. */
    kept_status (*recall)(void *ctx, const char *key, char **text, kept_error *err);
    kept_status (*remember)(void *ctx, const char *key, const char *text, kept_error *err);
    int rank,
        n_ranks; /* this process starts with the samples whose number is rank modulo n_ranks */
} kept_run_sink;

typedef struct kept_run_options {
    const char *model_path, *model_name;
    const char *const *specs; /* [n_specs] strategy specs; "full" is always added first */
    int n_specs;
    const kept_task_options *tasks; /* [n_tasks] */
    int n_tasks;
    bool auto_chat; /* generate tasks use the chat template if the model has one we know */
    int n_threads;  /* 0: all processors */
    uint64_t seed;
    int chunk;          /* prefill chunk, tokens; 0: 512 */
    int speed_samples;  /* samples per task on which speed is measured, 0: none */
    int speed_steps;    /* even number of timed steps per variant; 0: 16 */
    size_t pool_bytes;  /* 0: as much as the variants' budgets add up to */
    const char *isa;    /* NULL: best */
    double stop_margin; /* > 0: no more samples of an answered task once all of its rows are shown
                         * to lose at most so much, or more than it, at any look (stop.h); samples
                         * of a task come in a seeded random order then. One process only. */
    const char *preset, *gate;  /* recorded only; NULL: none */
    const char *const *trained; /* [n_trained] trained files to read first */
    int n_trained;
    const char *trained_dir;   /* where others are looked for: DIR/<16 of the model's
                                * SHA-256>/KIND.kept; NULL: nowhere */
    const char *dump_kept;     /* file for kept positions, NULL: none */
    const kept_run_sink *sink; /* NULL: the document alone keeps the samples */
    /* Called after each forward pass: fraction done in [0,1], what is being done. Returning false
     * cancels: the result so far is returned, marked "partial". May be NULL. */
    bool (*progress)(void *ctx, double done, const char *what);
    /* Called once if there is a sink: samples that were there already, of all. May be NULL. */
    void (*resumed)(void *ctx, int done, int total);
    void *ctx;
} kept_run_options;

/* *result: new reference. CANCELLED also fills *result (partial: true) with all finished samples.
 */
kept_status kept_run(const kept_run_options *o, json_t **result, kept_error *err);

/* Machine description for results: cpu model, isa, ggml version and features, threads, memory. */
json_t *kept_machine_json(const char *isa, int n_threads);

/* The rows of a result: one aggregate per task and variant, computed from nothing but the
 * document's "tasks", "variants" and "samples". New reference; NULL: out of memory. */
json_t *kept_result_cells(const json_t *result);
/* "control" of a row, from the samples alone: shares of decode tokens in each state, decisions and
 * switches a sample; null if none of its samples has any. */
json_t *kept_control_cell(const json_t *samples, int task, int variant);

/* Adds "by_turn" and "by_again" to a cell whose samples have several turns. turns.c. */
void kept_put_turns(json_t *cell, const json_t *samples, int task, int variant);
/* Adds "kl_stats" to a cell of scored text; false: out of memory. paths.c. */
bool kept_put_kl_stats(json_t *cell, const json_t *samples, int task, int variant);
/* Adds "itl_gap"; sorts step_ns [n]. Adds "roofline_share" and "predicted_speed_up"; full: the cell
 * of the full cache. roof.c. */
void kept_put_gaps(json_t *cell, double *step_ns, int n);
void kept_put_roof(const json_t *result, const json_t *full, json_t *cell);
/* Adds "by_position" to a cell of scored text. where.c. */
void kept_put_positions(json_t *cell, const json_t *samples, int task, int variant);
/* Adds "trajectory" to a cell of answers. paths.c. */
void kept_put_trajectory(json_t *cell, const json_t *samples, int task, int variant);

#endif
