/* pressure: many sequences under one hard cap. What a strategy saves is worth most where memory is
 * short, so here N prompts come one after the other into one pool of pages that is not enlarged: a
 * prompt that finds no room is refused, a sequence that finds none while it answers is dropped (the
 * youngest goes first), and both are failures with score 0. Sequences of schedule "pressure" are
 * cut before that (kept_engine_forward), those of controller "balance" share their budgets.
 *
 * A group of N is served like this: each prompt is read in chunks, its strategy evicts, its
 * question is read; when all have come, all that are there answer together, greedily, a token of
 * each in one forward pass. Tasks are answered ones of one turn whose answer is generated.
 */
#ifndef BENCH_PRESSURE_H
#define BENCH_PRESSURE_H

#include "bench/run.h"

#define KEPT_PRESSURE_SCHEMA "kept-pressure"
#define KEPT_MOST_SEQUENCES  256

typedef struct kept_pressure_options {
    const kept_run_options *run; /* pool_bytes is the cap; n_samples of a task: prompts, rounded up
                                  * to whole groups; sink, dump_kept and speed are not used */
    const int *sequences;        /* [n] how many share the cap, 1 to KEPT_MOST_SEQUENCES */
    int n;
} kept_pressure_options;

/* *out: new reference: the head of a result with "cap_bytes", "requests" and "cells" (docs/
 * result-format.md). ARGUMENT: no cap, or a task of another kind. CANCELLED: no document. */
kept_status kept_pressure(const kept_pressure_options *o, json_t **out, kept_error *err);

/* The cells of such a document from its requests alone. NULL: out of memory. */
json_t *kept_pressure_cells(const json_t *doc);

#endif
