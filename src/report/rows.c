/* rows: the rows of one task in the order that tables have them: the full caches, then those that
 * nothing beats in both bytes and quality, then the rest, best first.
 */
#include "report/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SIGNS_NEEDED 6 /* 2 / 2^6 < 0.05: same-sign differences that two-sided tests need */

static int rank(const kept_row *r)
{
    return r->variant < 2 ? r->variant : kept_view_true(r->cell, "front") ? 2 : 3;
}

static int compare_rows(const void *a, const void *b)
{
    const kept_row *x = a, *y = b;
    if (rank(x) != rank(y))
        return rank(x) - rank(y);
    if (x->gain != y->gain)
        return x->gain > y->gain ? -1 : 1;
    if (x->cost != y->cost)
        return x->cost < y->cost ? -1 : 1;
    return x->variant - y->variant;
}

bool kept_view_generate(const json_t *task)
{
    return !strcmp(kept_view_text(task, "kind"), "generate");
}

kept_row *kept_view_rows(const json_t *result, int task, int *n)
{
    const json_t *cells = json_object_get(result, "cells"), *c;
    const json_t *variants = json_object_get(result, "variants");
    const json_t *of = kept_view_at(json_object_get(result, "tasks"), task);
    int n_columns;
    const kept_column *columns = kept_view_columns(kept_view_generate(of), &n_columns);
    kept_row *rows = kept_calloc(json_array_size(cells) + 1, sizeof *rows);
    size_t i;
    *n = 0;
    json_array_foreach(cells, i, c)
    {
        if (!rows || kept_view_number(c, "task") != task)
            continue;
        kept_row *r = &rows[(*n)++];
        double gain = kept_view_number(c, "score"), nll = kept_view_number(c, "nll");
        double cost = kept_view_number(c, "held_bytes"), v = kept_view_number(c, "variant");
        r->cell = c;
        r->variant = v >= 0 ? (int)v : 0;
        r->name = kept_view_text(json_array_get(variants, (size_t)r->variant), "name");
        r->gain = isfinite(gain) ? gain : isfinite(nll) ? -nll : -HUGE_VAL;
        r->cost = isfinite(cost) ? cost : HUGE_VAL;
        for (int k = 0; k < n_columns; k++)
            columns[k].write(c, r->text[k]);
    }
    if (rows)
        qsort(rows, (size_t)*n, sizeof *rows, compare_rows);
    return rows;
}

void kept_view_resolution(bool generate, int n, char *buf, size_t cap)
{
    if (n < SIGNS_NEEDED)
        snprintf(buf, cap,
                 "With %d sample%s nothing here can be told from chance (95%% needs at least %d "
                 "that all point one way).",
                 n, n == 1 ? "" : "s", SIGNS_NEEDED);
    else if (generate)
        snprintf(buf, cap,
                 "! told from chance (p < 0.05, per row). With %d samples no change below %.1f "
                 "points can be; a row without !\n    is not shown to equal full.",
                 n, 100.0 * SIGNS_NEEDED / n);
    else
        snprintf(buf, cap,
                 "! told from chance (p < 0.05, per row, sign flips over %d samples); a "
                 "row without ! is not shown to equal full.",
                 n);
}
