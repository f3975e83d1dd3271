/* drift: see drift.h. */
#include "bench/drift.h"
#include "bench/doc.h"
#include "bench/pairs.h"
#include "bench/stats.h"

#include <stdlib.h>
#include <string.h>

#define LEVEL 0.95

/* Equal but for the perturbation and what it is called. */
static bool is_plain_of(const json_t *plain, const json_t *task)
{
    json_t *a = json_copy((json_t *)(uintptr_t)plain), *b = json_copy((json_t *)(uintptr_t)task);
    static const char *const off[] = {"label", "perturb", "n_samples"};
    for (int i = 0; i < 3; i++) {
        json_object_del(a, off[i]);
        json_object_del(b, off[i]);
    }
    const bool same = a && b && !json_object_get(plain, "perturb") && json_equal(a, b);
    json_decref(a);
    json_decref(b);
    return same;
}

static const json_t *sample_at(const json_t *doc, size_t task, const json_t *like)
{
    const json_t *s;
    size_t i;
    json_array_foreach(json_object_get(doc, "samples"), i, s)
    {
        if (kept_doc_number(s, "task") == (double)task &&
            kept_doc_number(s, "index") == kept_doc_number(like, "index") &&
            !strcmp(kept_doc_text(s, "cluster"), kept_doc_text(like, "cluster")))
            return s;
    }
    return NULL;
}

typedef struct pair {
    const json_t *plain, *other; /* samples */
} pair;

static double drift_of(const pair *p, int variant)
{
    const json_t *a = kept_doc_outcome(p->plain, variant), *b = kept_doc_outcome(p->other, variant);
    return a && b ? kept_outcome_value(b, true) - kept_outcome_value(a, true) : NAN;
}

static kept_status add_row(const json_t *head, const json_t *variant, int v, const pair *pairs,
                           int n, json_t *out, kept_error *err)
{
    double *diff = kept_calloc((size_t)n + 1, sizeof *diff), sum[2] = {0, 0};
    int m = 0, moved = 0;
    if (!diff)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    for (int i = 0; i < n; i++) {
        const double x = drift_of(&pairs[i], v), y = drift_of(&pairs[i], 0);
        if (!isfinite(x) || !isfinite(y))
            continue;
        diff[m++] = x - y;
        moved += x != 0;
        sum[0] += x;
        sum[1] += y;
    }
    /* A difference of two differences lies in [-2, 2]: halved it is what the statistics expect. */
    for (int i = 0; i < m; i++)
        diff[i] /= 2;
    const kept_paired x = {diff, NULL, m, true};
    kept_change c;
    kept_status s = kept_change_of(&x, 0, LEVEL, &c, err);
    free(diff);
    if (s)
        return s;
    json_t *o = json_copy((json_t *)(uintptr_t)head);
    json_object_set_new(o, "variant", json_integer(v));
    json_object_set(o, "row", json_object_get(variant, "name"));
    json_object_set_new(o, "n", json_integer(m));
    json_object_set_new(o, "moved", json_integer(moved));
    kept_doc_put(o, "drift", m ? sum[0] / m : NAN);
    kept_doc_put(o, "full_drift", m ? sum[1] / m : NAN);
    kept_doc_put(o, "excess", 2 * c.mean);
    kept_doc_put(o, "low", 2 * c.interval.low);
    kept_doc_put(o, "high", 2 * c.interval.high);
    kept_doc_put(o, "p", c.p);
    return json_array_append_new(out, o) ? kept_fail(err, KEPT_NOMEM, "out of memory") : KEPT_OK;
}

static kept_status add_task(const json_t *doc, size_t plain, size_t other, json_t *out,
                            kept_error *err)
{
    const json_t *samples = json_object_get(doc, "samples"), *s, *v;
    const json_t *task = json_array_get(json_object_get(doc, "tasks"), other);
    json_t *head = json_pack("{s:O,s:O,s:I,s:I}", "task", json_object_get(task, "name"), "perturb",
                             json_object_get(task, "perturb"), "task_index", (json_int_t)other,
                             "plain_index", (json_int_t)plain);
    pair *pairs = kept_calloc(json_array_size(samples) + 1, sizeof *pairs);
    kept_status st = pairs && head ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    size_t i;
    int n = 0;
    json_array_foreach(samples, i, s)
    {
        const json_t *p =
            pairs && kept_doc_number(s, "task") == (double)other ? sample_at(doc, plain, s) : NULL;
        if (p)
            pairs[n++] = (pair){p, s};
    }
    json_array_foreach(json_object_get(doc, "variants"), i, v) if (!st && n && i != 1) st =
        add_row(head, v, (int)i, pairs, n, out, err);
    json_decref(head);
    free(pairs);
    return st;
}

kept_status kept_drift(const json_t *doc, json_t **out, kept_error *err)
{
    const json_t *tasks = json_object_get(doc, "tasks"), *t, *p;
    size_t i, k;
    kept_status s = KEPT_OK;
    *out = json_array();
    if (!*out)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    json_array_foreach(tasks, i, t) json_array_foreach(tasks, k, p)
    {
        if (!s && json_object_get(t, "perturb") && strcmp(kept_doc_text(t, "kind"), "score") &&
            is_plain_of(p, t))
            s = add_task(doc, k, i, *out, err);
    }
    return s;
}
