/* scale: rankings of strategies on several models. See robust.h. */
#include "bench/doc.h"
#include "bench/robust.h"
#include "bench/run.h"
#include "bench/stats.h"

#include <stdlib.h>
#include <string.h>

/* One row on the models that have the task. */
typedef struct line {
    const char *name;
    double change[KEPT_MOST_MODELS], rank[KEPT_MOST_MODELS];
} line;

typedef struct group {
    const json_t *doc[KEPT_MOST_MODELS];
    int task[KEPT_MOST_MODELS], n_models;
    bool generate;
    line *lines; /* [n] */
    int n;
} group;

static int same_task(const json_t *doc, const json_t *task)
{
    const json_t *t;
    size_t i;
    json_array_foreach(json_object_get(doc, "tasks"), i, t)
    {
        if (!strcmp(kept_doc_text(t, "label"), kept_doc_text(task, "label")) &&
            !strcmp(kept_doc_text(t, "kind"), kept_doc_text(task, "kind")) &&
            kept_doc_number(t, "length") == kept_doc_number(task, "length"))
            return (int)i;
    }
    return -1;
}

/* Change of the row with this spec against the full cache; NAN: it was not run. */
static double change_of(const json_t *doc, int task, const char *canonical)
{
    const json_t *c, *variants = json_object_get(doc, "variants");
    size_t i;
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        const double v = kept_doc_number(c, "variant");
        const json_t *row = v >= 2 ? json_array_get(variants, (size_t)v) : NULL;
        if (row && kept_doc_number(c, "task") == task && kept_doc_number(c, "n") > 0 &&
            !strcmp(kept_doc_text(row, "canonical"), canonical))
            return kept_doc_number(c, "change");
    }
    return NAN;
}

static bool collect(group *g)
{
    const json_t *v, *variants = json_object_get(g->doc[0], "variants");
    size_t i;
    g->lines = kept_calloc(json_array_size(variants) + 1, sizeof *g->lines);
    g->n = 0;
    json_array_foreach(variants, i, v)
    {
        line *x = g->lines ? &g->lines[g->n] : NULL;
        bool all = x && i >= 2;
        for (int m = 0; all && m < g->n_models; m++) {
            x->change[m] = change_of(g->doc[m], g->task[m], kept_doc_text(v, "canonical"));
            all = isfinite(x->change[m]);
        }
        if (!all)
            continue;
        x->name = kept_doc_text(v, "name");
        g->n++;
    }
    return g->lines;
}

/* More is better of scores, less of NLL; rank 1 is best. */
static void rank(group *g, int m)
{
    const double sign = g->generate ? 1 : -1;
    for (int i = 0; i < g->n; i++) {
        int better = 0, equal = 0;
        for (int k = 0; k < g->n; k++) {
            const double x = sign * (g->lines[k].change[m] - g->lines[i].change[m]);
            better += x > 0;
            equal += x == 0;
        }
        g->lines[i].rank[m] = better + (equal + 1) / 2.0;
    }
}

static json_t *models_json(const group *g)
{
    json_t *list = json_array();
    for (int m = 0; m < g->n_models; m++) {
        const json_t *model = json_object_get(g->doc[m], "model");
        json_t *o = json_object();
        json_object_set_new(o, "name", json_string(kept_doc_text(model, "name")));
        json_object_set_new(o, "sha256", json_string(kept_doc_text(model, "sha256")));
        kept_doc_put(o, "n_params", kept_doc_number(model, "n_params"));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *lines_json(const group *g)
{
    json_t *list = json_array();
    for (int i = 0; i < g->n; i++) {
        json_t *change = json_array(), *ranks = json_array();
        for (int m = 0; m < g->n_models; m++) {
            json_array_append_new(change, json_real(g->lines[i].change[m]));
            json_array_append_new(ranks, json_real(g->lines[i].rank[m]));
        }
        json_array_append_new(list, json_pack("{s:s,s:o,s:o}", "row", g->lines[i].name, "change",
                                              change, "rank", ranks));
    }
    return list;
}

static json_t *taus_json(const group *g)
{
    json_t *list = json_array();
    double *x = kept_calloc(2 * (size_t)g->n + 1, sizeof *x), *y = x ? x + g->n : NULL;
    for (int a = 0; x && g->n > 2 && a < g->n_models; a++)
        for (int b = a + 1; b < g->n_models; b++) {
            for (int i = 0; i < g->n; i++) {
                x[i] = g->lines[i].rank[a];
                y[i] = g->lines[i].rank[b];
            }
            json_t *o = json_pack("{s:i,s:i,s:i}", "a", a, "b", b, "n", g->n);
            kept_doc_put(o, "tau", kept_kendall(x, y, g->n));
            kept_doc_put(o, "p", kept_kendall_p(x, y, g->n));
            json_array_append_new(list, o);
        }
    free(x);
    return list;
}

static json_t *group_json(const group *g)
{
    const json_t *task = json_array_get(json_object_get(g->doc[0], "tasks"), (size_t)g->task[0]);
    json_t *o = json_object();
    json_object_set(o, "task", json_object_get(task, "label"));
    json_object_set(o, "kind", json_object_get(task, "kind"));
    json_object_set(o, "length", json_object_get(task, "length"));
    json_object_set_new(o, "models", models_json(g));
    json_object_set_new(o, "rows", lines_json(g));
    json_object_set_new(o, "tau", taus_json(g));
    return o;
}

/* The results that have this task, from number `from` on, which is the first of them. */
static void find_models(json_t *const *docs, int n, int from, const json_t *task, group *g)
{
    for (int d = from; d < n && g->n_models < KEPT_MOST_MODELS; d++) {
        const int t = same_task(docs[d], task);
        if (t < 0)
            continue;
        g->doc[g->n_models] = docs[d];
        g->task[g->n_models++] = t;
    }
}

static bool seen_before(json_t *const *docs, int from, const json_t *task)
{
    for (int d = 0; d < from; d++)
        if (same_task(docs[d], task) >= 0)
            return true;
    return false;
}

kept_status kept_scale(json_t *const *docs, int n, json_t **out, kept_error *err)
{
    json_t *list = *out = json_array();
    bool ok = list;
    for (int d = 0; ok && d < n; d++) {
        const json_t *task;
        size_t i;
        json_array_foreach(json_object_get(docs[d], "tasks"), i, task)
        {
            group g = {.generate = strcmp(kept_doc_text(task, "kind"), "score") != 0};
            if (!ok || seen_before(docs, d, task))
                continue;
            find_models(docs, n, d, task, &g);
            if (g.n_models < 2)
                continue;
            ok = collect(&g);
            for (int m = 0; ok && m < g.n_models; m++)
                rank(&g, m);
            if (ok && g.n)
                ok = !json_array_append_new(list, group_json(&g));
            free(g.lines);
        }
    }
    return ok ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
}
