/* compare_row: one row on one task, its pairs and what is said of them. See compare_row.h. */
#include "bench/compare_row.h"
#include "bench/doc.h"

#include <math.h>
#include <stdlib.h>

static json_t *side(const json_t *outcome, double value)
{
    json_t *o = json_object(), *t = json_object_get(outcome, "text");
    kept_doc_put(o, "value", value);
    json_object_set(o, "text", t ? t : json_null());
    json_object_set(o, "failed", json_object_get(outcome, "failed"));
    return o;
}

static json_t *flip(const kept_pair *p, double before, double after)
{
    static const char *const keys[] = {"index", "hash", "depth", "answers"};
    json_t *o = json_object();
    for (int k = 0; k < 4; k++)
        json_object_set(o, keys[k], json_object_get(p->sample, keys[k]));
    json_object_set_new(o, "before", side(p->before, before));
    json_object_set_new(o, "after", side(p->after, after));
    return o;
}

/* The numbers of one comparison; signs as in a cell: more NLL is worse. */
static void put_change(json_t *r, const kept_change *c, bool generate)
{
    const double sign = generate ? 1 : -1;
    json_object_set_new(r, "n", json_integer(c->n));
    json_object_set_new(r, "n_clusters", json_integer(c->n_clusters));
    kept_doc_put(r, "change", sign * c->mean + 0.0);
    kept_doc_put(r, "change_low", generate ? c->interval.low : -c->interval.high);
    kept_doc_put(r, "change_high", generate ? c->interval.high : -c->interval.low);
    kept_doc_put(r, "bound_low", generate ? c->bounds.low : -c->bounds.high);
    kept_doc_put(r, "bound_high", generate ? c->bounds.high : -c->bounds.low);
    kept_doc_put(r, "p", c->p);
    kept_doc_put(r, "p_inferior", c->p_inferior);
    json_object_set_new(r, "regressions", json_integer(c->regressions));
    json_object_set_new(r, "improvements", json_integer(c->improvements));
}

kept_status kept_compare_row_pair(kept_compare_row *w, const kept_pairs *pairs, kept_error *err)
{
    const size_t n = (size_t)pairs->n;
    json_t *ids = json_object();
    double sum[2] = {0, 0};
    w->diff = kept_calloc(n + 1, sizeof *w->diff);
    w->cluster = kept_calloc(n + 1, sizeof *w->cluster);
    w->flips = json_array();
    kept_status s =
        w->diff && w->cluster && w->flips ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    for (size_t i = 0; !s && i < n; i++) {
        const double x = kept_outcome_value(pairs->pair[i].before, w->generate);
        const double y = kept_outcome_value(pairs->pair[i].after, w->generate);
        if (!isfinite(x) || !isfinite(y))
            continue;
        char name[16]; /* clusters are numbered anew: those without a number are gone */
        snprintf(name, sizeof name, "%d", pairs->pair[i].cluster);
        if (!json_object_get(ids, name))
            json_object_set_new(ids, name, json_integer((json_int_t)json_object_size(ids)));
        w->cluster[w->n] = (int)json_integer_value(json_object_get(ids, name));
        w->diff[w->n++] = w->generate ? y - x : x - y;
        sum[0] += x;
        sum[1] += y;
        if (w->generate && x != y)
            json_array_append_new(w->flips, flip(&pairs->pair[i], x, y));
    }
    w->before = w->n ? sum[0] / w->n : NAN;
    w->after = w->n ? sum[1] / w->n : NAN;
    json_decref(ids);
    return s;
}

void kept_compare_row_put(const kept_compare_row *w, const kept_change *c, double margin,
                          json_t *row)
{
    kept_doc_put(row, "margin", margin);
    kept_doc_put(row, "before_value", w->before);
    kept_doc_put(row, "after_value", w->after);
    put_change(row, c, w->generate);
    json_object_set(row, "flips", w->flips);
}

void kept_compare_row_clear(kept_compare_row *w)
{
    free(w->diff);
    free(w->cluster);
    json_decref(w->flips);
    *w = (kept_compare_row){0};
}
