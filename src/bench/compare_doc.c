/* compare_doc: see compare_doc.h. */
#include "bench/compare_doc.h"
#include "bench/doc.h"

#include <stdlib.h>
#include <string.h>

/* Kendall's tau of how the two results rank the strategies they share, on the first task that they
 * share; of rows that tell results apart those of this one. */
static void put_ranking(const kept_compare_options *o, json_t *doc, const json_t *rows, int result)
{
    const json_t *r;
    const char *first = NULL;
    size_t i;
    double *x = kept_calloc(2 * json_array_size(rows) + 1, sizeof *x);
    double *y = x ? x + json_array_size(rows) : NULL;
    int n = 0;
    json_array_foreach(rows, i, r)
    {
        if (result >= 0 && kept_doc_number(r, "result") != result)
            continue;
        first = first ? first : kept_doc_text(r, "task");
        if (!x || strcmp(kept_doc_text(r, "task"), first))
            continue; /* values of two tasks have no order */
        x[n] = json_number_value(json_object_get(r, "before_value"));
        y[n++] = json_number_value(json_object_get(r, "after_value"));
    }
    if (x && o->before != o->after && n > 2)
        kept_doc_put(doc, "kendall_tau", kept_kendall(x, y, n));
    free(x);
}

static json_t *differences(const kept_compare_options *o)
{
    json_t *notes = json_array();
    static const struct {
        const char *part, *key, *note;
    } looks[] = {{"model", "sha256", "the models differ"},
                 {NULL, "kept", "the versions of kept differ"},
                 {"machine", "isa", "the kernel levels differ: rounding may"},
                 {"options", "seed", "the seeds differ"},
                 {"options", "chunk", "the prefill chunks differ"}};
    for (size_t i = 0; i < sizeof looks / sizeof *looks; i++) {
        const json_t *a = looks[i].part ? json_object_get(o->before, looks[i].part) : o->before;
        const json_t *b = looks[i].part ? json_object_get(o->after, looks[i].part) : o->after;
        if (!kept_doc_same(a, b, looks[i].key))
            json_array_append_new(notes, json_string(looks[i].note));
    }
    return notes;
}

static json_t *head(const kept_compare_options *o, bool apart)
{
    json_t *doc = json_object();
    json_object_set_new(doc, "schema", json_string("kept-comparison"));
    json_object_set_new(doc, "version", json_integer(1));
    json_object_set_new(doc, "before", json_string(o->before_name));
    json_object_set_new(doc, "after", apart ? json_null() : json_string(o->after_name));
    kept_doc_put(doc, "margin", o->margin);
    kept_doc_put(doc, "nll_margin", o->nll_margin);
    kept_doc_put(doc, "level", o->level);
    json_object_set_new(doc, "ladder", json_boolean(o->ladder));
    json_object_set_new(doc, "notes", apart ? json_array() : differences(o));
    return doc;
}

/* Rows of one result that were chosen one by one, task by task. */
static json_t *by_task(const json_t *rows, size_t n_tasks)
{
    json_t *list = json_array(), *r;
    size_t i;
    for (size_t t = 0; t < n_tasks; t++)
        json_array_foreach(rows, i, r) if (kept_doc_number(r, "task_index") == (double)t)
            json_array_append(list, r);
    return list;
}

/* What tells several results apart. */
static json_t *results(const kept_compare_options *o, int n, const json_t *rows)
{
    json_t *list = json_array();
    for (int k = 0; k < n; k++) {
        json_t *one = json_pack("{s:s,s:o}", "after", o[k].after_name, "notes", differences(&o[k]));
        put_ranking(&o[k], one, rows, k);
        json_array_append_new(list, one);
    }
    return list;
}

json_t *kept_compare_document(const kept_compare_options *o, int n, const json_t *rows, bool apart)
{
    json_t *doc = head(o, apart);
    const size_t n_tasks = json_array_size(json_object_get(o->after, "tasks"));
    json_object_set_new(doc, "rows",
                        apart || n == 1 ? json_incref((json_t *)(uintptr_t)rows)
                                        : by_task(rows, n_tasks));
    if (apart)
        json_object_set_new(doc, "results", results(o, n, rows));
    else
        put_ranking(o, doc, rows, -1);
    json_object_set_new(doc, "verdict", json_string(kept_verdict_text(kept_compare_verdict(doc))));
    return doc;
}
