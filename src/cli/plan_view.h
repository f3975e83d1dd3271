/* plan_view: a plan as a table or as JSON. Pure functions of the plan. */
#ifndef CLI_PLAN_VIEW_H
#define CLI_PLAN_VIEW_H

#include "bench/plan.h"

#include <stdio.h>

#define KEPT_PLAN_CONTEXTS   8
#define KEPT_PLAN_STRATEGIES 32
#define KEPT_PLAN_ROWS       (KEPT_PLAN_STRATEGIES + 4)

typedef struct kept_plan_view {
    kept_model_info info;
    int n_contexts;
    int context[KEPT_PLAN_CONTEXTS];              /* tokens */
    const char *context_text[KEPT_PLAN_CONTEXTS]; /* as written: "4K" */
    size_t context_len[KEPT_PLAN_CONTEXTS];
    int batch, bits, chunk;
    kept_strategy *strategy[KEPT_PLAN_STRATEGIES]; /* owned by the command */
    const char *spec[KEPT_PLAN_STRATEGIES];        /* as written */
    int n_strategies;
    kept_plan_row row[KEPT_PLAN_ROWS];
    const char *row_name[KEPT_PLAN_ROWS];
    int n_rows;
    bool has_memory, has_weights;
    uint64_t memory, weights;
} kept_plan_view;

void kept_plan_print(const kept_plan_view *v, FILE *out);
/* NOMEM. */
kept_status kept_plan_print_json(const kept_plan_view *v, FILE *out, kept_error *err);

#endif
