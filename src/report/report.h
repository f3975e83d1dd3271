/* report: views of a result document. Pure functions of the JSON; nothing is measured here. */
#ifndef REPORT_REPORT_H
#define REPORT_REPORT_H

#include "base/base.h"
#include "store/store.h"

#include <jansson.h>
#include <stdio.h>

typedef struct kept_view_options {
    bool colour; /* ANSI colour; only when stdout is a terminal and NO_COLOR is unset */
    int columns; /* terminal width, 0: 120 */
} kept_view_options;

/* Sorted Pareto-first. Every row: strategy, bytes kept now/peak/byte-steps and % of full, score
 * with its Wilson interval and paired change with flips, KL, top-1, mass_recall, evidence_recall,
 * prefill time, decode tokens/s and ratio to the full cache, scoring and compaction time. */
kept_status kept_report_table(const json_t *result, FILE *out, const kept_view_options *o);
/* Columns that the table has no room for, task by task: a set of kept_report_column_sets. ARGUMENT:
 * no such set. */
kept_status kept_report_columns(const json_t *result, const char *set, FILE *out);
const char *const *kept_report_column_sets(int *n);
kept_status kept_report_csv(const json_t *result, FILE *out);
/* One line for every sample and row. */
kept_status kept_report_jsonl(const json_t *result, FILE *out);
/* A folder for each row as the EleutherAI harness (0.4) writes results; see lmeval.c. */
kept_status kept_report_lmeval(const json_t *result, const char *folder, kept_error *err);
kept_status kept_report_json(const json_t *result, FILE *out);
/* A comparison (bench/compare.h) as text, with up to n_flips flips of each row. */
kept_status kept_report_compare(const json_t *comparison, FILE *out, int n_flips);
/* A look at a study (store/watch.h), its tasks with "per_s" where a rate was seen: a screen; a
 * line.
 */
void kept_report_watch(const json_t *look, FILE *out);
void kept_report_watch_line(const json_t *look, FILE *out);
/* What kept_decay (bench/decay.h) says. */
kept_status kept_report_decay(const json_t *list, FILE *out);
/* What kept_drift (bench/drift.h) says. */
kept_status kept_report_drift(const json_t *list, FILE *out);
/* Where a run that may stop early stopped; nothing for others. */
kept_status kept_report_sequential(const json_t *result, FILE *out);
/* What kept_scale and kept_precision (bench/robust.h) say. */
kept_status kept_report_scale(const json_t *list, FILE *out);
kept_status kept_report_precision(const json_t *list, FILE *out);
/* What kept_pressure (bench/pressure.h) found. */
kept_status kept_report_pressure(const json_t *doc, FILE *out);
kept_status kept_report_pressure_csv(const json_t *doc, FILE *out);
/* Advice (bench/advise.h) as text. */
kept_status kept_report_advice(const json_t *advice, FILE *out);
kept_status kept_report_guarantees(const json_t *list, FILE *out, double epsilon, double delta);
/* The page of `kept report`: one HTML file that needs nothing else. All borrowed. */
typedef struct kept_page {
    const json_t *result;
    const json_t *comparison; /* kept_compare of every strategy with the full cache; NULL: none */
    const json_t *prompts;    /* of kept_page_prompts; NULL: none */
    const char *source;       /* what the page calls the study, usually its file's name */
    const json_t *robust;     /* kept_robust of it and of results on other models; NULL: none */
} kept_page;
/* Where the prompts of a page come from. */
typedef struct kept_page_study {
    kept_store *store;
    int64_t setting;         /* 0: any */
    const kept_model *model; /* its vocabulary; NULL: no prompts, kept positions only */
    const char *note;        /* why there are no prompts, NULL: there are */
} kept_page_study;
/* What a page shows of prompts and kept positions: an object for kept_page.prompts. IO, FORMAT,
 * NOMEM. */
kept_status kept_page_prompts(const kept_page_study *study, const json_t *result,
                              const json_t *comparison, json_t **out, kept_error *err);
/* UNSUPPORTED: this kept was built without the script that draws plots. */
kept_status kept_page_ready(kept_error *err);
/* Writes the page whole or not at all. UNSUPPORTED: not ready. IO, NOMEM. */
kept_status kept_report_page(const kept_page *p, const char *path, kept_error *err);

/* Writes atomically (temporary file and rename): no partial output file ever. IO with errno text.
 */
kept_status kept_report_save(const json_t *result, const char *path, const char *format,
                             kept_error *err);

#endif
