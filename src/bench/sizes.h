/* sizes: what a run must know of every sample before it begins, so that a study need not tokenize
 * all of them again when it goes on. Private to src/bench. */
#ifndef BENCH_SIZES_H
#define BENCH_SIZES_H

#include "bench/job.h"

typedef struct kept_sample_size {
    char hash[17];                                /* of the prompt's tokens */
    int n_prefix, n_suffix, after, n_new, levels; /* after: kept_task_room; levels: branch.c */
} kept_sample_size;

/* What the sizes depend on, as text: model, version, options of the task, content of its file.
 * NULL: out of memory. Free it. */
char *kept_sizes_key(kept_job *j, const kept_run_task *t, kept_error *err);
/* The sizes that the sink remembers under this key, malloc'ed; NULL in *out: it has none. */
kept_status kept_sizes_recall(const kept_job *j, const char *key, kept_sample_size **out, int *n,
                              kept_error *err);
kept_status kept_sizes_remember(const kept_job *j, const char *key, const kept_sample_size *size,
                                int n, kept_error *err);

#endif
