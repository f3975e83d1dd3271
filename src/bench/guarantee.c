/* guarantee: the largest eviction that is shown to lose little. Fixed-sequence testing (Bauer 1991)
 * of the ladder of budgets, as in "Learn then Test" (Angelopoulos et al. 2021, section 3.3).
 */
#include "bench/compare.h"
#include "bench/doc.h"

#include "bench/pairs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct step {
    int variant;
    double held; /* percent of the full cache */
    double p, loss, bound;
    int n; /* independent contexts */
} step;

static int by_held(const void *a, const void *b)
{
    const step *x = a, *y = b;
    return x->held != y->held ? (x->held < y->held) - (x->held > y->held)
                              : (x->variant > y->variant) - (x->variant < y->variant);
}

static kept_status measure(const json_t *doc, int task, step *s, double epsilon, double delta,
                           kept_error *err)
{
    kept_pairs pairs;
    bool graded = false;
    double sum = 0;
    kept_status st = kept_pairs_find(doc, task, 0, doc, task, s->variant, &pairs, err);
    if (st)
        return st;
    const size_t room = (size_t)pairs.n + 1;
    double *loss = kept_calloc(2 * room, sizeof *loss), *count = loss ? loss + room : NULL;
    for (int i = 0; loss && i < pairs.n; i++) {
        const kept_pair *p = &pairs.pair[i];
        if (!json_is_false(json_object_get(p->before, "failed")))
            continue; /* nothing to lose */
        const double x = kept_outcome_value(p->before, true),
                     y = kept_outcome_value(p->after, true);
        loss[p->cluster] += fmax(x - y, 0);
        count[p->cluster] += 1;
        s->n = p->cluster + 1 > s->n ? p->cluster + 1 : s->n;
    }
    int n = 0;
    for (int c = 0; loss && c < s->n; c++) {
        const double mean = count[c] > 0 ? loss[c] / count[c] : 0;
        graded |= mean != 0 && mean != 1;
        sum += mean;
        n += count[c] > 0;
    }
    s->n = n;
    s->loss = n ? sum / n : NAN;
    s->p = kept_loss_p(sum, n, graded, epsilon);
    s->bound = kept_loss_bound(sum, n, graded, delta);
    kept_pairs_clear(&pairs);
    const bool ok = loss;
    free(loss);
    return ok ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
}

/* Rows with the strategy of row `first`, largest first. */
static int collect(const json_t *doc, int task, int first, step *steps)
{
    const json_t *variants = json_object_get(doc, "variants"), *v;
    const char *spec = kept_doc_text(json_array_get(variants, (size_t)first), "resolved");
    const size_t len = kept_spec_stem(spec);
    size_t i;
    int n = 0;
    json_array_foreach(variants, i, v)
    {
        const char *other = kept_doc_text(v, "resolved");
        if (!strcmp(kept_doc_text(v, "role"), "strategy") && kept_spec_stem(other) == len &&
            !strncmp(other, spec, len))
            steps[n++] = (step){.variant = (int)i, .held = kept_held_pct(doc, task, (int)i)};
    }
    qsort(steps, (size_t)n, sizeof *steps, by_held);
    return n;
}

static json_t *ladder_json(const json_t *doc, int task, const step *steps, int n, int accepted)
{
    const json_t *variants = json_object_get(doc, "variants");
    json_t *o = json_object(), *list = json_array();
    const char *name =
        kept_doc_text(json_array_get(variants, (size_t)steps[0].variant), "canonical");
    json_object_set(
        o, "task",
        json_object_get(json_array_get(json_object_get(doc, "tasks"), (size_t)task), "label"));
    json_object_set_new(o, "strategy", json_stringn(name, kept_spec_stem(name)));
    for (int i = 0; i < n; i++) {
        json_t *v = json_array_get(variants, (size_t)steps[i].variant), *s = json_object();
        json_object_set(s, "name", json_object_get(v, "name"));
        json_object_set_new(s, "held_pct", json_real(steps[i].held));
        json_object_set_new(s, "n", json_integer(steps[i].n));
        json_object_set_new(s, "loss",
                            isfinite(steps[i].loss) ? json_real(steps[i].loss) : json_null());
        json_object_set_new(s, "bound", json_real(steps[i].bound));
        json_object_set_new(s, "p", json_real(steps[i].p));
        json_object_set_new(s, "accepted", json_boolean(i < accepted));
        json_array_append_new(list, s);
        if (i == accepted - 1)
            json_object_set(o, "best", json_object_get(v, "name"));
    }
    if (!accepted)
        json_object_set_new(o, "best", json_null());
    json_object_set_new(o, "steps", list);
    return o;
}

static kept_status add_ladder(const json_t *doc, int task, step *steps, int n, const double eps[2],
                              json_t *out, kept_error *err)
{
    double *p = kept_calloc((size_t)n, sizeof *p);
    kept_status s = p ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    for (int i = 0; !s && i < n; i++) {
        s = measure(doc, task, &steps[i], eps[0], eps[1], err);
        p[i] = steps[i].p;
    }
    if (!s)
        json_array_append_new(out,
                              ladder_json(doc, task, steps, n, kept_fixed_sequence(p, n, eps[1])));
    free(p);
    return s;
}

kept_status kept_guarantees(const json_t *doc, double epsilon, double delta, json_t **out,
                            kept_error *err)
{
    const json_t *variants = json_object_get(doc, "variants"), *task;
    const int n_rows = (int)json_array_size(variants);
    step *steps = kept_calloc((size_t)n_rows + 1, sizeof *steps);
    const double eps[2] = {epsilon, delta};
    kept_status s = steps ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    size_t t;
    *out = json_array();
    json_array_foreach(json_object_get(doc, "tasks"), t, task)
    {
        if (!strcmp(kept_doc_text(task, "kind"), "score"))
            continue;
        for (int v = 0; !s && v < n_rows; v++) {
            if (strcmp(kept_doc_text(json_array_get(variants, (size_t)v), "role"), "strategy"))
                continue;
            const int n = collect(doc, (int)t, v, steps);
            int first = v; /* a ladder is made once, where its first row stands */
            for (int i = 0; i < n; i++)
                first = steps[i].variant < first ? steps[i].variant : first;
            if (n > 0 && first == v)
                s = add_ladder(doc, (int)t, steps, n, eps, *out, err);
        }
    }
    free(steps);
    if (s) {
        json_decref(*out);
        *out = NULL;
    }
    return s;
}
