/* compare: verdicts on rows, as a document. */
#include "bench/compare.h"
#include "bench/compare_doc.h"
#include "bench/compare_row.h"
#include "bench/doc.h"
#include "bench/family.h"
#include "bench/pairs.h"
#include "bench/run.h"

#include <stdlib.h>
#include <string.h>

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static const json_t *row_of(const json_t *doc, int v)
{
    return json_array_get(json_object_get(doc, "variants"), (size_t)v);
}

static bool is_role(const json_t *row, const char *role)
{
    return !strcmp(text(row, "role"), role);
}

/* ---- which rows ----------------------------------------------------------------------------- */

static kept_status no_such_row(const json_t *doc, const char *name, kept_error *err)
{
    const char *names[KEPT_MAX_ROWS];
    const int n = (int)json_array_size(json_object_get(doc, "variants"));
    for (int v = 0; v < n && v < KEPT_MAX_ROWS; v++)
        names[v] = text(row_of(doc, v), "name");
    const int near = kept_nearest(name, strlen(name), names, n < KEPT_MAX_ROWS ? n : KEPT_MAX_ROWS);
    if (near >= 0)
        return kept_fail(err, KEPT_ARGUMENT, "there is no row '%s', did you mean '%s'?", name,
                         names[near]);
    return kept_fail(err, KEPT_ARGUMENT, "there is no row '%s'; rows are '%s', '%s', ...", name,
                     names[0], names[n - 1]);
}

typedef struct row_pair {
    int before, after;
} row_pair;

/* Every row that both results have; a full cache counts if the results are of two models. */
static int shared_rows(const kept_compare_options *o, row_pair *rows)
{
    const json_t *v;
    size_t i;
    int n = 0;
    json_array_foreach(json_object_get(o->after, "variants"), i, v)
    {
        if (is_role(v, "floor"))
            continue;
        const int b = is_role(v, "reference") ? 0 : kept_row_find(o->before, text(v, "resolved"));
        if (b >= 0)
            rows[n++] = (row_pair){b, (int)i};
    }
    return n;
}

static kept_status find_rows(const kept_compare_options *o, row_pair *rows, int *n, kept_error *err)
{
    const int b = o->before_row ? kept_row_find(o->before, o->before_row) : 0;
    const int a = o->after_row ? kept_row_find(o->after, o->after_row) : 0;
    if (b < 0)
        return no_such_row(o->before, o->before_row, err);
    if (a < 0)
        return no_such_row(o->after, o->after_row, err);
    *n = 0;
    if (o->after_row)
        rows[(*n)++] = (row_pair){b, a};
    else if (o->before != o->after && !o->before_row)
        *n = shared_rows(o, rows);
    else
        for (int v = 0; v < (int)json_array_size(json_object_get(o->after, "variants")); v++)
            if (is_role(row_of(o->after, v), "strategy") && (o->before != o->after || v != b))
                rows[(*n)++] = (row_pair){b, v};
    return *n ? KEPT_OK
              : kept_fail(err, KEPT_ARGUMENT, "%s and %s have no row in common", o->before_name,
                          o->after_name);
}

/* The task of `before` that is this one by all that its label and options say. */
static int same_task(const kept_compare_options *o, const json_t *task)
{
    static const char *const keys[] = {"label", "kind", "length", "chat", "query_aware"};
    const json_t *t;
    size_t i;
    json_array_foreach(json_object_get(o->before, "tasks"), i, t)
    {
        bool same = true;
        for (int k = 0; k < 5; k++)
            same = same && kept_doc_same(t, task, keys[k]);
        if (same)
            return (int)i;
    }
    return -1;
}

/* ---- one row on one task -------------------------------------------------------------------- */

static kept_status refuse_unpaired(const kept_compare_options *o, const kept_pairs *p,
                                   const char *label, kept_error *err)
{
    if (!p->n && !(o->common && o->before == o->after))
        return kept_fail(err, KEPT_ARGUMENT, "%s: %s and %s have no prompt in common", label,
                         o->before_name, o->after_name);
    if (o->common || !(p->n_only_before || p->n_only_after))
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "%s: %d prompts are in one result only; --common compares the %d that both "
                     "have",
                     label, p->n_only_before + p->n_only_after, p->n);
}

typedef struct filling {
    kept_family f;
    kept_compare_row *row; /* [f.n] */
    json_t *ladders;       /* name -> number */
    int size;              /* verdicts that share the level from the start */
    int result;            /* of several comparisons the one that is being filled, -1: one only */
} filling;

/* Budgets of one strategy on one task of one result are one ladder; else every row is one. */
static int ladder_of(const kept_compare_options *o, filling *x, int task, int row)
{
    const char *spec = text(row_of(o->after, row), "resolved");
    char key[2048];
    if (!o->ladder)
        return x->f.n;
    snprintf(key, sizeof key, "%d %d %.*s", x->result, task, (int)kept_spec_stem(spec), spec);
    if (!json_object_get(x->ladders, key))
        json_object_set_new(x->ladders, key,
                            json_integer((json_int_t)json_object_size(x->ladders)));
    return (int)json_integer_value(json_object_get(x->ladders, key));
}

static kept_status add_row(const kept_compare_options *o, filling *x, int ta, int tb, row_pair rows,
                           kept_error *err)
{
    const json_t *task = json_array_get(json_object_get(o->after, "tasks"), (size_t)tb);
    kept_pairs pairs;
    json_t *r = json_object();
    kept_compare_row *w = &x->row[x->f.n];
    w->generate = strcmp(text(task, "kind"), "score") != 0;
    kept_status s =
        kept_pairs_find(o->before, ta, rows.before, o->after, tb, rows.after, &pairs, err);
    if (!s)
        s = refuse_unpaired(o, &pairs, text(task, "label"), err);
    if (x->result >= 0)
        json_object_set_new(r, "result", json_integer(x->result));
    json_object_set(r, "task", json_object_get(task, "label"));
    json_object_set_new(r, "task_index", json_integer(tb));
    json_object_set_new(r, "after_index", json_integer(rows.after));
    json_object_set(r, "length", json_object_get(task, "length"));
    json_object_set(r, "kind", json_object_get(task, "kind"));
    json_object_set(r, "before", json_object_get(row_of(o->before, rows.before), "name"));
    json_object_set(r, "after", json_object_get(row_of(o->after, rows.after), "name"));
    if (!s)
        s = kept_compare_row_pair(w, &pairs, err);
    kept_pairs_clear(&pairs);
    if (!s && json_array_append(x->f.rows, r))
        s = kept_fail(err, KEPT_NOMEM, "out of memory");
    json_decref(r);
    x->f.member[x->f.n].ladder = ladder_of(o, x, tb, rows.after);
    x->f.member[x->f.n].held = kept_held_pct(o->after, tb, rows.after);
    x->f.n++; /* also a row that failed: it is cleared like the others */
    return s;
}

static double margin_of(const kept_compare_options *o, const kept_compare_row *w)
{
    return !w->generate         ? o->nll_margin
           : !(o->relative > 0) ? o->margin
                                : o->relative * (w->n ? w->before : 0);
}

/* All changes together: rows of one task draw the same resamples. */
static kept_status measure(const kept_compare_options *o, filling *x, kept_error *err)
{
    const size_t n = (size_t)x->f.n + 1;
    kept_paired *pairs = kept_calloc(n, sizeof *pairs);
    kept_change *c = kept_calloc(n, sizeof *c);
    double *margin = kept_calloc(n, sizeof *margin);
    kept_status s = pairs && c && margin ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    for (int i = 0; !s && i < x->f.n; i++) {
        const kept_compare_row *w = &x->row[i];
        pairs[i] = (kept_paired){w->diff, w->cluster, w->n, w->generate};
        margin[i] = margin_of(o, w);
    }
    if (!s)
        s = kept_changes_of(pairs, margin, x->f.n, o->level, c, err);
    for (int i = 0; !s && i < x->f.n; i++) {
        kept_member *m = &x->f.member[i];
        kept_compare_row_put(&x->row[i], &c[i], margin[i], json_array_get(x->f.rows, (size_t)i));
        if (x->size > 1)
            c[i].more =
                kept_samples_more(&pairs[i], &c[i], margin[i], 1 - (1 - o->level) / x->size);
        m->p_better = c[i].p_inferior;
        m->p_worse = 1 - c[i].p_inferior;
        m->verdict = c[i].verdict;
        m->more = c[i].more;
    }
    free(pairs);
    free(c);
    free(margin);
    return s;
}

/* Whether a row of one result was run on this task at all: a study may have grown unevenly. */
static bool was_run(const json_t *doc, int task, int variant)
{
    const json_t *sample;
    size_t i;
    json_array_foreach(json_object_get(doc, "samples"), i, sample)
    {
        if (kept_doc_number(sample, "task") == task && kept_doc_outcome(sample, variant))
            return true;
    }
    return false;
}

/* ---- the whole ------------------------------------------------------------------------------ */

/* The task of `before` that task t of `after` is compared with; -1: none, or not asked for. */
static int task_before(const kept_compare_options *o, size_t t, const json_t *task)
{
    if (o->tasks && !o->tasks[t])
        return -1;
    return o->before == o->after ? (int)t : same_task(o, task);
}

typedef struct chosen {
    row_pair *rows; /* [n] of KEPT_MAX_ROWS */
    int n;
} chosen;

/* How many verdicts, or ladders of them, a comparison adds to those that share the level. */
static kept_status count(const kept_compare_options *o, filling *x, const chosen *c,
                         kept_error *err)
{
    const json_t *task;
    size_t t;
    int n_tasks = 0;
    json_array_foreach(json_object_get(o->after, "tasks"), t, task)
    {
        const bool on = task_before(o, t, task) >= 0;
        n_tasks += on;
        for (int i = 0; on && i < c->n; i++)
            (void)ladder_of(o, x, (int)t, c->rows[i].after);
    }
    if (!n_tasks)
        return kept_fail(err, KEPT_ARGUMENT, "%s and %s have no task in common", o->before_name,
                         o->after_name);
    x->size = o->ladder ? (int)json_object_size(x->ladders) : x->size + c->n * n_tasks;
    return KEPT_OK;
}

static kept_status fill(const kept_compare_options *o, filling *x, const chosen *c, kept_error *err)
{
    const json_t *task;
    size_t t;
    kept_status s = KEPT_OK;
    const int had = x->f.n;
    json_array_foreach(json_object_get(o->after, "tasks"), t, task)
    {
        const int ta = task_before(o, t, task);
        for (int i = 0; !s && ta >= 0 && i < c->n; i++)
            if (o->before != o->after || was_run(o->after, (int)t, c->rows[i].after))
                s = add_row(o, x, ta, (int)t, c->rows[i], err);
    }
    if (!s && x->f.n == had)
        return kept_fail(err, KEPT_ARGUMENT, "%s has no sample of a row that could be compared",
                         o->after_name);
    return s;
}

static void clear(filling *x, chosen *c, int n)
{
    for (int k = 0; c && k < n; k++)
        free(c[k].rows);
    free(c);
    for (int i = 0; x->row && i < x->f.n; i++)
        kept_compare_row_clear(&x->row[i]);
    free(x->row);
    free(x->f.member);
    json_decref(x->f.rows);
    json_decref(x->ladders);
}

kept_status kept_compare_all(const kept_compare_options *o, int n, json_t **out, kept_error *err)
{
    size_t room = 0;
    bool apart = false; /* several results */
    for (int k = 0; k < n; k++) {
        room += KEPT_MAX_ROWS * (json_array_size(json_object_get(o[k].after, "tasks")) + 1);
        apart = apart || o[k].after != o[0].after;
    }
    chosen *c = kept_calloc((size_t)n, sizeof *c);
    filling x = {.f.rows = json_array(),
                 .f.member = kept_calloc(room, sizeof *x.f.member),
                 .row = kept_calloc(room, sizeof *x.row),
                 .ladders = json_object()};
    kept_status s = KEPT_OK;
    *out = NULL;
    if (!c || !x.f.member || !x.row || !x.f.rows || !x.ladders)
        s = kept_fail(err, KEPT_NOMEM, "out of memory");
    for (int k = 0; k < n && !s; k++) {
        x.result = apart ? k : -1;
        c[k].rows = kept_calloc(KEPT_MAX_ROWS, sizeof *c[k].rows);
        s = c[k].rows ? find_rows(&o[k], c[k].rows, &c[k].n, err)
                      : kept_fail(err, KEPT_NOMEM, "out of memory");
        if (!s)
            s = count(&o[k], &x, &c[k], err);
    }
    for (int k = 0; k < n && !s; k++) {
        x.result = apart ? k : -1;
        s = fill(&o[k], &x, &c[k], err);
    }
    if (!s)
        s = measure(o, &x, err);
    if (!s)
        s = kept_family_correct(&x.f, o->level, err);
    if (!s)
        *out = kept_compare_document(o, n, x.f.rows, apart);
    clear(&x, c, n);
    return s;
}

kept_status kept_compare(const kept_compare_options *o, json_t **out, kept_error *err)
{
    return kept_compare_all(o, 1, out, err);
}

kept_verdict kept_compare_verdict(const json_t *comparison)
{
    kept_verdict all = KEPT_NON_INFERIOR;
    const json_t *r;
    size_t i;
    json_array_foreach(json_object_get(comparison, "rows"), i, r)
    {
        if (!strcmp(text(r, "verdict"), kept_verdict_text(KEPT_WORSE)))
            return KEPT_WORSE;
        if (strcmp(text(r, "verdict"), kept_verdict_text(KEPT_NON_INFERIOR)))
            all = KEPT_INCONCLUSIVE;
    }
    return all;
}
