/* read: what a study holds, as lists and as result documents; and documents that come in. */
#include "store/db.h"

#include "bench/verify.h"

#include <stdlib.h>
#include <string.h>

static kept_status no_memory(kept_error *err)
{
    return kept_fail(err, KEPT_NOMEM, "out of memory for the study");
}

static json_t *column_json(kept_query *q, int i)
{
    const char *text = (const char *)sqlite3_column_text(q->stmt, i);
    return text ? json_loads(text, 0, NULL) : NULL;
}

static kept_status damaged(kept_store *s, kept_error *err)
{
    return kept_store_fail(s, SQLITE_CORRUPT, err);
}

/* ---- list ----------------------------------------------------------------------------------- */

static kept_status list_tasks(kept_store *s, int64_t setting, json_t *out, kept_error *err)
{
    kept_query q;
    kept_query_open(&q, s, err,
                    "SELECT t.json, (SELECT count(*) FROM sample WHERE task = t.id) FROM task t "
                    "WHERE t.setting = ? ORDER BY t.id",
                    "i", setting);
    while (kept_query_row(&q)) {
        json_t *task = column_json(&q, 0), *o = json_object();
        json_object_set(o, "label", json_object_get(task, "label"));
        json_object_set(o, "length", json_object_get(task, "length"));
        json_object_set_new(o, "samples", json_integer(sqlite3_column_int64(q.stmt, 1)));
        json_array_append_new(out, o);
        json_decref(task);
    }
    return kept_query_close(&q);
}

static kept_status list_variants(kept_store *s, int64_t setting, json_t *out, kept_error *err)
{
    kept_query q;
    kept_query_open(&q, s, err, "SELECT json FROM variant WHERE setting = ? ORDER BY id", "i",
                    setting);
    while (kept_query_row(&q)) {
        json_t *v = column_json(&q, 0);
        json_array_append(out, json_object_get(v, "name"));
        json_decref(v);
    }
    return kept_query_close(&q);
}

static kept_status list_one(kept_store *s, kept_query *q, json_t *out, kept_error *err)
{
    const int64_t id = sqlite3_column_int64(q->stmt, 0);
    json_t *head = column_json(q, 1), *model = json_object_get(head, "model");
    json_t *o = json_object(), *tasks = json_array(), *variants = json_array();
    if (!head)
        return damaged(s, err);
    json_object_set_new(o, "id", json_integer(id));
    json_object_set(o, "model", json_object_get(model, "name"));
    json_object_set(o, "sha256", json_object_get(model, "sha256"));
    json_object_set(o, "date", json_object_get(head, "date"));
    json_object_set_new(o, "outcomes", json_integer(sqlite3_column_int64(q->stmt, 2)));
    json_object_set_new(o, "claims", json_integer(sqlite3_column_int64(q->stmt, 3)));
    json_object_set_new(o, "tasks", tasks);
    json_object_set_new(o, "variants", variants);
    json_array_append_new(out, o);
    json_decref(head);
    kept_status st = list_tasks(s, id, tasks, err);
    return st ? st : list_variants(s, id, variants, err);
}

kept_status kept_store_list(kept_store *s, json_t **out, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    *out = json_array();
    kept_query_open(
        &q, s, err,
        "SELECT g.id, g.head,"
        " (SELECT count(*) FROM outcome o JOIN cell c ON c.id = o.cell JOIN task t ON t.id = c.task"
        "  WHERE t.setting = g.id),"
        " (SELECT count(*) FROM claim k JOIN task t ON t.id = k.task WHERE t.setting = g.id) "
        "FROM setting g ORDER BY g.id",
        "");
    while (!st && kept_query_row(&q))
        st = list_one(s, &q, *out, err);
    if (kept_query_close(&q) && !st)
        st = q.status;
    if (st) {
        json_decref(*out);
        *out = NULL;
    }
    return st;
}

/* ---- export --------------------------------------------------------------------------------- */

static kept_status find_setting(kept_store *s, int64_t *setting, json_t **head, kept_error *err)
{
    kept_query q;
    int n = 0;
    kept_query_open(&q, s, err,
                    "SELECT id, head FROM setting WHERE ?1 = 0 OR id = ?1 ORDER BY id LIMIT 2", "i",
                    *setting);
    for (; kept_query_row(&q); n++) {
        if (n)
            continue;
        *setting = sqlite3_column_int64(q.stmt, 0);
        *head = column_json(&q, 1);
    }
    kept_status st = kept_query_close(&q);
    if (!st && n == 1 && *head)
        return KEPT_OK;
    json_decref(*head);
    *head = NULL;
    if (st)
        return st;
    if (n == 1)
        return damaged(s, err);
    return kept_fail(err, KEPT_ARGUMENT,
                     n ? "%s: holds several settings; 'kept study ls' lists them, --setting N "
                         "takes one"
                       : "%s: has no such setting",
                     s->path);
}

/* The rows of a table of this setting as a list, and their ids. */
static kept_status load_rows(kept_store *s, const char *sql, int64_t setting, json_t *list,
                             int64_t **ids, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    kept_query_open(&q, s, err, sql, "i", setting);
    while (!st && kept_query_row(&q)) {
        const size_t n = json_array_size(list);
        int64_t *bigger = realloc(*ids, (n + 1) * sizeof **ids);
        json_t *x = column_json(&q, 1);
        if (bigger)
            *ids = bigger;
        if (!bigger || !x || json_array_append_new(list, x))
            st = x ? no_memory(err) : damaged(s, err);
        else
            (*ids)[n] = sqlite3_column_int64(q.stmt, 0);
    }
    return kept_query_close(&q) && !st ? q.status : st;
}

typedef struct exporting {
    json_t *tasks, *variants, *samples;
    int64_t *task, *variant;
    bool partial;
} exporting;

static int index_of(const int64_t *ids, const json_t *list, int64_t id)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (ids[i] == id)
            return (int)i;
    return -1;
}

static kept_status load_outcomes(kept_store *s, exporting *x, int64_t sample, json_t *list,
                                 kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    kept_query_open(&q, s, err,
                    "SELECT c.variant, o.json FROM outcome o JOIN cell c ON c.id = o.cell "
                    "WHERE o.sample = ? ORDER BY c.variant",
                    "i", sample);
    while (!st && kept_query_row(&q)) {
        json_t *o = column_json(&q, 1);
        const int v = index_of(x->variant, x->variants, sqlite3_column_int64(q.stmt, 0));
        if (!o || v < 0) {
            json_decref(o);
            st = damaged(s, err);
            break;
        }
        json_object_set_new(o, "variant", json_integer(v));
        json_array_append_new(list, o);
    }
    return kept_query_close(&q) && !st ? q.status : st;
}

static kept_status load_samples(kept_store *s, exporting *x, int64_t setting, kept_error *err)
{
    kept_query q;
    kept_status st = KEPT_OK;
    kept_query_open(&q, s, err,
                    "SELECT s.id, s.json, s.task, (SELECT count(*) FROM cell WHERE task = s.task) "
                    "FROM sample s JOIN task t ON t.id = s.task WHERE t.setting = ? "
                    "ORDER BY s.task, s.idx",
                    "i", setting);
    while (!st && kept_query_row(&q)) {
        json_t *sample = column_json(&q, 1), *list = json_array();
        if (!sample) {
            json_decref(list);
            st = damaged(s, err);
            break;
        }
        const int task = index_of(x->task, x->tasks, sqlite3_column_int64(q.stmt, 2));
        json_object_set_new(sample, "task", json_integer(task));
        json_object_set_new(sample, "outcomes", list);
        json_array_append_new(x->samples, sample);
        st = load_outcomes(s, x, sqlite3_column_int64(q.stmt, 0), list, err);
        x->partial |= (int64_t)json_array_size(list) < sqlite3_column_int64(q.stmt, 3);
    }
    return kept_query_close(&q) && !st ? q.status : st;
}

/* What the document says of how many samples a task has. */
static void count_samples(exporting *x)
{
    const json_t *sample;
    json_t *task;
    size_t i, k;
    json_array_foreach(x->tasks, i, task)
    {
        json_int_t n = 0;
        json_array_foreach(x->samples, k, sample) n +=
            json_integer_value(json_object_get(sample, "task")) == (json_int_t)i;
        json_object_set_new(task, "n_samples", json_integer(n));
    }
}

kept_status kept_store_export(kept_store *s, int64_t setting, json_t **doc, kept_error *err)
{
    exporting x = {json_array(), json_array(), json_array(), NULL, NULL, false};
    json_t *head = NULL, *cells = NULL;
    *doc = NULL;
    kept_status st = find_setting(s, &setting, &head, err);
    if (!st)
        st = load_rows(s, "SELECT id, json FROM task WHERE setting = ? ORDER BY id", setting,
                       x.tasks, &x.task, err);
    if (!st)
        st = load_rows(s, "SELECT id, json FROM variant WHERE setting = ? ORDER BY id", setting,
                       x.variants, &x.variant, err);
    if (!st)
        st = load_samples(s, &x, setting, err);
    if (!st) {
        count_samples(&x);
        json_object_set(head, "tasks", x.tasks);
        json_object_set(head, "variants", x.variants);
        json_object_set(head, "samples", x.samples);
        cells = kept_result_cells(head);
        json_object_set_new(head, "partial", json_boolean(x.partial));
        if (!cells || json_object_set_new(head, "cells", cells))
            st = no_memory(err);
    }
    if (!st)
        *doc = json_incref(head);
    json_decref(head);
    json_decref(x.tasks);
    json_decref(x.variants);
    json_decref(x.samples);
    free(x.task);
    free(x.variant);
    return st;
}

/* ---- import --------------------------------------------------------------------------------- */

/* The head alone, and the hashes of the prompts that the samples name. */
static void split(const json_t *doc, json_t *head, json_t *prompts)
{
    static const char *const rest[] = {"samples", "cells", "times", "partial"};
    const json_t *sample;
    size_t i;
    json_object_update(head, (json_t *)(uintptr_t)doc);
    for (i = 0; i < sizeof rest / sizeof *rest; i++)
        json_object_del(head, rest[i]);
    for (i = 0; i < json_array_size(json_object_get(doc, "tasks")); i++)
        json_array_append_new(prompts, json_array());
    json_array_foreach(json_object_get(doc, "samples"), i, sample)
    {
        json_t *of =
            json_array_get(prompts, (size_t)json_integer_value(json_object_get(sample, "task")));
        const json_int_t at = json_integer_value(json_object_get(sample, "index"));
        while (of && at >= 0 && at < 10000000 && json_array_size(of) <= (size_t)at)
            json_array_append_new(of, json_null());
        if (of)
            json_array_set(of, (size_t)at, json_object_get(sample, "hash"));
    }
}

kept_status kept_store_import(kept_store *s, const json_t *doc, int64_t *n, kept_error *err)
{
    json_t *head = json_object(), *prompts = json_array();
    const json_t *sample;
    size_t i;
    *n = 0;
    kept_status st = kept_result_check(doc, err);
    if (!st) {
        split(doc, head, prompts);
        st = kept_store_begin(s, head, prompts, err);
    }
    json_array_foreach(json_object_get(doc, "samples"), i, sample) if (!st) st =
        kept_store_put(s, sample, NULL, n, err);
    kept_store_end(s);
    json_decref(head);
    json_decref(prompts);
    return st;
}
