/* view: what the files of src/report share. Private. */
#ifndef REPORT_VIEW_H
#define REPORT_VIEW_H

#include "report/report.h"

/* Number at key, NaN if it is not there or null. */
double kept_view_number(const json_t *o, const char *key);
/* Text at key, "" if it is not there. */
const char *kept_view_text(const json_t *o, const char *key);
bool kept_view_true(const json_t *o, const char *key);

void kept_view_csv(FILE *out, const char *s); /* text as a field, quoted where it must be */

/* Element i of list, NULL if i is no index (NaN included). */
const json_t *kept_view_at(const json_t *list, double i);

/* One outcome with the names of its task and row and what its sample is: a new reference. */
json_t *kept_view_record(const json_t *result, const json_t *sample, const json_t *outcome);

/* Writes a file whole or not at all: write gets a stream of a temporary file beside path, which is
 * renamed if write and the disk are fine. IO with errno's text; what write fails with. */
typedef struct kept_view_writer {
    kept_status (*write)(const void *ctx, FILE *out);
    const void *ctx;
} kept_view_writer;
kept_status kept_view_save(const char *path, const kept_view_writer *w, kept_error *err);

#define KEPT_VIEW_TEXT 24

typedef struct kept_column {
    const char *head[2];                          /* two lines of heading */
    void (*write)(const json_t *cell, char *buf); /* [KEPT_VIEW_TEXT] */
    bool (*quiet)(const json_t *cell);            /* says no more than others do; NULL: never */
} kept_column;
/* A column of which every cell is quiet is left out of a table; cells NULL: none is. */
bool kept_view_shows(const kept_column *c, const json_t *cells);

#define KEPT_VIEW_COLUMNS 24

/* A cell as a row of a table. */
typedef struct kept_row {
    const json_t *cell;
    const char *name; /* of its strategy, as the user wrote it */
    int variant;
    double gain, cost;                            /* score or -NLL; bytes held */
    char text[KEPT_VIEW_COLUMNS][KEPT_VIEW_TEXT]; /* its columns */
} kept_row;

/* The rows of a task, the full caches first, then those of the front: [*n], the caller frees them.
 * NULL: out of memory. */
kept_row *kept_view_rows(const json_t *result, int task, int *n);
/* Whether a task is answered; else it is scored text. */
bool kept_view_generate(const json_t *task);
/* What so many samples can tell at all, as a sentence (two lines). */
void kept_view_resolution(bool generate, int n, char *buf, size_t cap);

/* Columns of a task of this kind, in order. */
const kept_column *kept_view_columns(bool generate, int *n);
/* What the columns mean that tables of these cells (NULL: any) show: of answered tasks, of scored
 * text, or both. */
void kept_view_legend(FILE *out, const json_t *cells, bool generate, bool score);

#endif
