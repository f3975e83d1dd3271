/* watch: see watch.h. What was read once is kept as sums; a sample is read again as long as it
 * lacks a row of its task. New rows or tasks make it start from nothing.
 */
#include "store/watch.h"

#include "bench/stats.h"
#include "store/db.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LEVEL 0.95

typedef struct cell {
    int64_t id;
    char *name;
    bool reference, floor, flips; /* flips: every difference is -1, 0 or 1 */
    int n, failed, n_diff, worse, better;
    double sum, sum_d, sum_dd;
} cell;

typedef struct seen {
    int64_t id;
    int n;       /* outcomes read */
    double full; /* what the full cache is worth; NAN: not there */
    bool *cell;  /* [n_cells] read */
} seen;

typedef struct task {
    int64_t id, setting, total;
    char *label, *model;
    double length;
    bool generate;
    cell *cells;
    seen *samples;
    int n_cells, n_samples, complete;
} task;

struct kept_watch {
    kept_store *store;
    int64_t setting, version, shape; /* PRAGMA data_version; rows of cell and task */
    task *tasks;
    int n_tasks;
};

static kept_status no_memory(kept_error *err)
{
    return kept_fail(err, KEPT_NOMEM, "out of memory for the study");
}

static void forget(kept_watch *w)
{
    for (int t = 0; t < w->n_tasks; t++) {
        task *k = &w->tasks[t];
        for (int i = 0; i < k->n_cells; i++)
            free(k->cells[i].name);
        for (int i = 0; i < k->n_samples; i++)
            free(k->samples[i].cell);
        free(k->cells);
        free(k->samples);
        free(k->label);
        free(k->model);
    }
    free(w->tasks);
    w->tasks = NULL;
    w->n_tasks = 0;
}

kept_status kept_watch_open(const char *path, int64_t setting, kept_watch **out, kept_error *err)
{
    kept_watch *w = kept_calloc(1, sizeof *w);
    *out = NULL;
    if (!w)
        return no_memory(err);
    w->setting = setting;
    w->version = w->shape = -1;
    const kept_status st = kept_store_open(path, KEPT_STORE_WATCH, &w->store, err);
    if (st)
        free(w);
    else
        *out = w;
    return st;
}

void kept_watch_close(kept_watch *w)
{
    if (!w)
        return;
    forget(w);
    kept_store_close(w->store);
    free(w);
}

/* ---- reading -------------------------------------------------------------------------------- */

static kept_status number(kept_watch *w, const char *sql, int64_t *x, kept_error *err)
{
    kept_query q;
    kept_query_open(&q, w->store, err, sql, "");
    *x = kept_query_row(&q) ? sqlite3_column_int64(q.stmt, 0) : 0;
    return kept_query_close(&q);
}

static char *column_text(kept_query *q, int i)
{
    const char *s = (const char *)sqlite3_column_text(q->stmt, i);
    return strdup(s ? s : "");
}

static kept_status load_cells(kept_watch *w, task *k, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    kept_query_open(&q, w->store, err,
                    "SELECT c.id, json_extract(v.json, '$.name'), json_extract(v.json, '$.role') "
                    "FROM cell c JOIN variant v ON v.id = c.variant WHERE c.task = ? ORDER BY v.id",
                    "i", k->id);
    while (!st && kept_query_row(&q)) {
        cell *more = realloc(k->cells, (size_t)(k->n_cells + 1) * sizeof *more);
        const char *role = (const char *)sqlite3_column_text(q.stmt, 2);
        if (!more) {
            st = no_memory(err);
            break;
        }
        k->cells = more;
        k->cells[k->n_cells++] = (cell){.id = sqlite3_column_int64(q.stmt, 0),
                                        .name = column_text(&q, 1),
                                        .reference = role && !strcmp(role, "reference"),
                                        .floor = role && !strcmp(role, "floor"),
                                        .flips = true};
    }
    return kept_query_close(&q) && !st ? q.status : st;
}

static kept_status load_tasks(kept_watch *w, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    forget(w);
    kept_query_open(&q, w->store, err,
                    "SELECT t.id, t.setting, json_extract(t.json, '$.label'),"
                    " json_extract(g.head, '$.model.name'), json_extract(t.json, '$.length'),"
                    " json_extract(t.json, '$.kind') FROM task t JOIN setting g ON g.id = t.setting"
                    " WHERE ?1 = 0 OR t.setting = ?1 ORDER BY t.id",
                    "i", w->setting);
    while (!st && kept_query_row(&q)) {
        task *more = realloc(w->tasks, (size_t)(w->n_tasks + 1) * sizeof *more);
        const char *kind = (const char *)sqlite3_column_text(q.stmt, 5);
        if (!more) {
            st = no_memory(err);
            break;
        }
        w->tasks = more;
        w->tasks[w->n_tasks++] = (task){.id = sqlite3_column_int64(q.stmt, 0),
                                        .setting = sqlite3_column_int64(q.stmt, 1),
                                        .label = column_text(&q, 2),
                                        .model = column_text(&q, 3),
                                        .length = sqlite3_column_double(q.stmt, 4),
                                        .generate = !kind || strcmp(kind, "score") != 0};
    }
    if (kept_query_close(&q) && !st)
        st = q.status;
    for (int t = 0; !st && t < w->n_tasks; t++)
        st = load_cells(w, &w->tasks[t], err);
    return st;
}

/* Samples that are new since the last look; ids only grow. */
static kept_status load_samples(kept_watch *w, task *k, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    const int64_t last = k->n_samples ? k->samples[k->n_samples - 1].id : 0;
    kept_query_open(&q, w->store, err, "SELECT count(*) FROM prompt WHERE task = ?", "i", k->id);
    k->total = kept_query_row(&q) ? sqlite3_column_int64(q.stmt, 0) : 0;
    if (kept_query_close(&q))
        return q.status;
    kept_query_open(&q, w->store, err,
                    "SELECT id FROM sample WHERE task = ? AND id > ? ORDER BY id", "ii", k->id,
                    last);
    while (!st && kept_query_row(&q)) {
        seen *more = realloc(k->samples, (size_t)(k->n_samples + 1) * sizeof *more);
        bool *cells = kept_calloc((size_t)k->n_cells + 1, sizeof *cells);
        k->samples = more ? more : k->samples;
        if (more && cells)
            k->samples[k->n_samples++] =
                (seen){.id = sqlite3_column_int64(q.stmt, 0), .full = NAN, .cell = cells};
        else
            st = no_memory(err);
    }
    return kept_query_close(&q) && !st ? q.status : st;
}

/* ---- sums ----------------------------------------------------------------------------------- */

static int cell_at(const task *k, int64_t id)
{
    for (int i = 0; i < k->n_cells; i++)
        if (k->cells[i].id == id)
            return i;
    return -1;
}

static void add_pair(cell *c, double diff)
{
    if (!isfinite(diff))
        return;
    c->flips &= diff == 0 || diff == 1 || diff == -1;
    c->n_diff++;
    c->worse += diff < 0;
    c->better += diff > 0;
    c->sum_d += diff;
    c->sum_dd += diff * diff;
}

/* One sample: outcomes come with the reference first, for its cell has the lowest number. */
static kept_status read_sample(kept_watch *w, task *k, seen *s, kept_error *err)
{
    kept_query q;
    kept_query_open(
        &q, w->store, err,
        k->generate ? "SELECT cell, json_extract(json, '$.failed'), json_extract(json, '$.score') "
                      "FROM outcome WHERE sample = ? ORDER BY cell"
                    : "SELECT cell, json_extract(json, '$.failed'), (SELECT avg(value) FROM "
                      "json_each(json, '$.nll')) FROM outcome WHERE sample = ? ORDER BY cell",
        "i", s->id);
    while (kept_query_row(&q)) {
        const int at = cell_at(k, sqlite3_column_int64(q.stmt, 0));
        const bool failed = sqlite3_column_int(q.stmt, 1) != 0;
        if (at < 0 || s->cell[at])
            continue;
        cell *c = &k->cells[at];
        double x =
            sqlite3_column_type(q.stmt, 2) == SQLITE_NULL ? NAN : sqlite3_column_double(q.stmt, 2);
        x = failed ? (k->generate ? 0 : NAN) : x;
        s->cell[at] = true;
        s->n++;
        c->n++;
        c->failed += failed;
        c->sum += isfinite(x) ? x : 0;
        if (c->reference)
            s->full = x;
        else
            add_pair(c, x - s->full);
    }
    k->complete += s->n == k->n_cells;
    return kept_query_close(&q);
}

static kept_status read_new(kept_watch *w, kept_error *err)
{
    kept_status st = KEPT_OK;
    for (int t = 0; !st && t < w->n_tasks; t++) {
        task *k = &w->tasks[t];
        st = load_samples(w, k, err);
        for (int i = 0; !st && i < k->n_samples; i++)
            if (k->samples[i].n < k->n_cells)
                st = read_sample(w, k, &k->samples[i], err);
    }
    return st;
}

/* ---- what is told --------------------------------------------------------------------------- */

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static kept_interval interval_of(const cell *c, bool generate)
{
    const double n = c->n_diff, mean = c->sum_d / n;
    const double var = (c->sum_dd - n * mean * mean) / (n - 1);
    if (generate && c->flips && n > 0)
        return kept_tango(c->worse, c->better, n, LEVEL);
    if (n < 2)
        return (kept_interval){NAN, NAN};
    const double half = kept_t_quantile(0.5 + LEVEL / 2, n - 1) * sqrt(fmax(var, 0) / n);
    return (kept_interval){mean - half, mean + half};
}

static json_t *cell_json(const cell *c, bool generate)
{
    json_t *o = json_object();
    const int n = c->n - (generate ? 0 : c->failed);
    const kept_interval in = interval_of(c, generate);
    json_object_set_new(o, "name", json_string(c->name ? c->name : ""));
    json_object_set_new(o, "role",
                        json_string(c->reference ? "reference"
                                    : c->floor   ? "floor"
                                                 : "strategy"));
    json_object_set_new(o, "n", json_integer(c->n));
    json_object_set_new(o, "failed", json_integer(c->failed));
    json_object_set_new(o, "value", real(n ? c->sum / n : NAN));
    json_object_set_new(o, "change", real(c->n_diff ? c->sum_d / c->n_diff : NAN));
    json_object_set_new(o, "low", real(c->reference ? NAN : in.low));
    json_object_set_new(o, "high", real(c->reference ? NAN : in.high));
    return o;
}

static json_t *task_json(const task *k)
{
    json_t *o = json_object(), *cells = json_array();
    for (int i = 0; i < k->n_cells; i++)
        json_array_append_new(cells, cell_json(&k->cells[i], k->generate));
    json_object_set_new(o, "setting", json_integer(k->setting));
    json_object_set_new(o, "model", json_string(k->model ? k->model : ""));
    json_object_set_new(o, "label", json_string(k->label ? k->label : ""));
    json_object_set_new(o, "length", json_real(k->length));
    json_object_set_new(o, "kind", json_string(k->generate ? "generate" : "score"));
    json_object_set_new(o, "samples", json_integer(k->total));
    json_object_set_new(o, "complete", json_integer(k->complete));
    json_object_set_new(o, "cells", cells);
    return o;
}

static json_t *look_json(const kept_watch *w, int64_t claims)
{
    json_t *o = json_object(), *tasks = json_array();
    int64_t total = 0, complete = 0, outcomes = 0, wanted = 0;
    for (int t = 0; t < w->n_tasks; t++) {
        const task *k = &w->tasks[t];
        total += k->total;
        complete += k->complete;
        wanted += k->total * k->n_cells;
        for (int i = 0; i < k->n_cells; i++)
            outcomes += k->cells[i].n;
        json_array_append_new(tasks, task_json(k));
    }
    json_object_set_new(o, "samples", json_integer(total));
    json_object_set_new(o, "complete", json_integer(complete));
    json_object_set_new(o, "outcomes", json_integer(outcomes));
    json_object_set_new(o, "outcomes_wanted", json_integer(wanted));
    json_object_set_new(o, "claims", json_integer(claims));
    json_object_set_new(o, "tasks", tasks);
    return o;
}

kept_status kept_watch_look(kept_watch *w, json_t **out, kept_error *err)
{
    int64_t version = 0, shape = 0, claims = 0;
    *out = NULL;
    kept_status st = number(w, "PRAGMA data_version", &version, err);
    if (!st && version != w->version)
        st = number(w, "SELECT (SELECT count(*) FROM cell) * 1000003 + (SELECT count(*) FROM task)",
                    &shape, err);
    if (!st && version != w->version && shape != w->shape) {
        st = load_tasks(w, err);
        w->shape = shape;
    }
    if (!st && version != w->version)
        st = read_new(w, err);
    char sql[80];
    snprintf(sql, sizeof sql, "SELECT count(*) FROM claim WHERE until > %lld",
             (long long)time(NULL));
    if (!st)
        st = number(w, sql, &claims, err);
    w->version = st ? -1 : version;
    w->shape = st ? -1 : w->shape;
    if (!st && !(*out = look_json(w, claims)))
        st = no_memory(err);
    return st;
}
