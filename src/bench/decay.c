/* decay: see decay.h. */
#include "bench/decay.h"
#include "bench/doc.h"
#include "bench/stats.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_LENGTHS = 32 };

typedef struct point {
    double length, n, score, full, se; /* se: of score / full */
    size_t task;
} point;

static bool is_of(const json_t *cell, size_t task, size_t variant)
{
    return kept_doc_number(cell, "task") == (double)task &&
           kept_doc_number(cell, "variant") == (double)variant;
}

static const json_t *cell_of(const json_t *doc, size_t task, size_t variant)
{
    const json_t *cells = json_object_get(doc, "cells"), *c;
    const size_t n = json_array_size(json_object_get(doc, "variants"));
    size_t i;
    if (is_of(c = json_array_get(cells, task * n + variant), task, variant))
        return c; /* where it stands in a result without gaps */
    json_array_foreach(cells, i, c)
    {
        if (is_of(c, task, variant))
            return c;
    }
    return NULL;
}

/* Options but for length and what follows from it. */
static bool same_kind(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"name",        "kind",     "key",         "value",
                                       "n_keys",      "n_values", "n_queries",   "digits",
                                       "turns",       "chat",     "query_aware", "ruler_compat",
                                       "file_sha256", "seed",     "perturb"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
        if (x != y && !json_equal(x, y))
            return false;
    }
    return true;
}

static int by_length(const void *a, const void *b)
{
    const point *x = a, *y = b;
    return (x->length > y->length) - (x->length < y->length);
}

/* Points of a row over all tasks of the kind of task t, ascending. */
static int collect(const json_t *doc, size_t t, size_t variant, point *p)
{
    const json_t *tasks = json_object_get(doc, "tasks"), *task;
    const double z = kept_normal_quantile(0.975);
    size_t i;
    int n = 0;
    json_array_foreach(tasks, i, task)
    {
        const json_t *c = cell_of(doc, i, variant), *full = cell_of(doc, i, 0);
        const double base = kept_doc_number(full, "score"), score = kept_doc_number(c, "score");
        if (n == MAX_LENGTHS || !same_kind(task, json_array_get(tasks, t)) || !(base > 0) ||
            !isfinite(score))
            continue;
        const double width = kept_doc_number(c, "change_high") - kept_doc_number(c, "change_low");
        p[n++] = (point){kept_doc_number(task, "length"),
                         kept_doc_number(c, "n"),
                         score,
                         base,
                         variant ? width / (2 * z) / base : 0,
                         i};
    }
    qsort(p, (size_t)n, sizeof *p, by_length);
    return n;
}

static void put_slope(json_t *o, const point *p, int n)
{
    double mean = 0, sxx = 0, slope = 0, variance = 0;
    for (int i = 0; i < n; i++)
        mean += log2(p[i].length) / n;
    for (int i = 0; i < n; i++)
        sxx += pow(log2(p[i].length) - mean, 2);
    for (int i = 0; i < n; i++) {
        const double w = (log2(p[i].length) - mean) / sxx;
        slope += w * p[i].score / p[i].full;
        variance += w * w * p[i].se * p[i].se;
    }
    const double half = kept_normal_quantile(0.975) * sqrt(variance);
    kept_doc_put(o, "slope", slope);
    kept_doc_put(o, "slope_low", slope - half);
    kept_doc_put(o, "slope_high", slope + half);
}

static double effective(const point *p, int n)
{
    double longest = NAN;
    for (int i = 0; i < n && p[i].score >= KEPT_EFFECTIVE * p[0].full; i++)
        longest = p[i].length;
    return longest;
}

static json_t *row_json(const json_t *task, const json_t *variant, const point *p, int n)
{
    json_t *o = json_object(), *points = json_array();
    json_object_set(o, "task", json_object_get(task, "name"));
    json_object_set(o, "row", json_object_get(variant, "name"));
    for (int i = 0; i < n; i++) {
        json_t *x = json_object();
        json_object_set_new(x, "task", json_integer((json_int_t)p[i].task));
        kept_doc_put(x, "length", p[i].length);
        kept_doc_put(x, "n", p[i].n);
        kept_doc_put(x, "score", p[i].score);
        kept_doc_put(x, "full_score", p[i].full);
        kept_doc_put(x, "ratio", p[i].score / p[i].full);
        kept_doc_put(x, "se", p[i].se);
        json_array_append_new(points, x);
    }
    json_object_set_new(o, "points", points);
    put_slope(o, p, n);
    kept_doc_put(o, "effective_length", effective(p, n));
    return o;
}

kept_status kept_decay(const json_t *doc, json_t **out, kept_error *err)
{
    const json_t *tasks = json_object_get(doc, "tasks"), *task, *v;
    point p[MAX_LENGTHS];
    size_t t, i;
    *out = json_array();
    if (!*out)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    json_array_foreach(tasks, t, task)
    {
        bool first = !!strcmp(kept_doc_text(task, "kind"), "score");
        for (size_t k = 0; k < t; k++) /* a kind is told where its first task stands */
            first = first && !same_kind(task, json_array_get(tasks, k));
        json_array_foreach(json_object_get(doc, "variants"), i, v)
        {
            const int n = first && i != 1 ? collect(doc, t, i, p) : 0;
            if (n < 2 || !(p[0].length < p[n - 1].length))
                continue;
            json_t *row = row_json(task, v, p, n);
            json_object_set_new(row, "variant", json_integer((json_int_t)i));
            json_array_append_new(*out, row);
        }
    }
    return KEPT_OK;
}
