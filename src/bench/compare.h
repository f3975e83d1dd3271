/* compare: is one row as good as another? Two rows of one result, or the rows that two results
 * share, paired by the hash of the prompt; verdicts by non-inferiority at a margin chosen before
 * (docs/statistics.md). The outcome is a document of its own (docs/statistics.md). */
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

#include "bench/stats.h"

#include <jansson.h>

typedef struct kept_compare_options {
    const json_t *before, *after;         /* results; the same one twice: rows of it */
    const char *before_name, *after_name; /* what the document calls them */
    /* Rows by name, canonical or resolved spec. One result: NULL before is the full cache, NULL
     * after every strategy. Two results: NULL both, every row that both have. */
    const char *before_row, *after_row;
    const bool *tasks; /* [tasks of after] which are compared; NULL: all */
    double margin;     /* of scores, 0.01 is one point */
    double relative;   /* > 0: the margin of scores is this part of what `before` scores */
    double nll_margin; /* of NLL, nats per token */
    double level;      /* one-sided, 0.95 */
    bool ladder; /* budgets of one strategy are tested from the largest down, each at the level
                  * of the one before it (kept_holm_ladders); false: Holm over all rows */
    bool common; /* compare what both have; false: refuse prompts that only one has */
} kept_compare_options;

/* *out: new reference. ARGUMENT: no such row (with the nearest), nothing in common, prompts that
 * only one side has. Verdicts of several rows are corrected by Holm. NOMEM. */
kept_status kept_compare(const kept_compare_options *o, json_t **out, kept_error *err);
/* The same of n >= 1 comparisons with one `before`, margins, level and ladder: results or rows
 * against the first. All their verdicts are one family, in one document, whose rows say `result`,
 * the number from 0 of what they compare, where n > 1. */
kept_status kept_compare_all(const kept_compare_options *o, int n, json_t **out, kept_error *err);
/* The verdict of the whole document: worse if any row is, else inconclusive if any is. */
kept_verdict kept_compare_verdict(const json_t *comparison);

/* For every answered task and every strategy that has several budgets, the largest eviction whose
 * mean loss against the full cache is at most epsilon, with probability 1 - delta over prompts
 * drawn as these were: [{"task", "strategy", "steps": [{"name", "held_pct", "n", "loss", "bound",
 * "p", "accepted"}], "best": name or null}]. A sample's loss is what it scores less than the full
 * cache; gains do not make up for it. Samples that share a context count as one, with their mean.
 * Budgets are tested from the largest down, each at delta, until one fails (fixed sequence; "Learn
 * then Test"). NOMEM. */
kept_status kept_guarantees(const json_t *doc, double epsilon, double delta, json_t **out,
                            kept_error *err);

#endif
