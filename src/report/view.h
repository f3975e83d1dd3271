/* view: what the files of src/report share. Private. */
#ifndef REPORT_VIEW_H
#define REPORT_VIEW_H

#include "report/report.h"

/* Number at key, NaN if it is not there or null. */
double kept_view_number(const json_t *o, const char *key);
/* Text at key, "" if it is not there. */
const char *kept_view_text(const json_t *o, const char *key);
bool kept_view_true(const json_t *o, const char *key);

/* Element i of list, NULL if i is no index (NaN included). */
const json_t *kept_view_at(const json_t *list, double i);

/* One outcome with the names of its task and row and what its sample is: a new reference. */
json_t *kept_view_record(const json_t *result, const json_t *sample, const json_t *outcome);

#define KEPT_VIEW_TEXT 24

typedef struct kept_column {
    const char *head[2];                          /* two lines of heading */
    void (*write)(const json_t *cell, char *buf); /* [KEPT_VIEW_TEXT] */
} kept_column;

/* Columns of a task of this kind, in order. */
const kept_column *kept_view_columns(bool generate, int *n);
/* What the columns mean, for tables of answered tasks, of scored text, or both. */
void kept_view_legend(FILE *out, bool generate, bool score);

#endif
