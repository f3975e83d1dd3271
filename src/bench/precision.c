/* precision: eviction and precision together. See robust.h. */
#include "bench/doc.h"
#include "bench/pairs.h"
#include "bench/robust.h"
#include "bench/stats.h"

#include <stdlib.h>
#include <string.h>

#define LEVEL 0.95

/* Length of the part that begins at s: up to a '+' or '@' outside parentheses. */
static size_t part_length(const char *s)
{
    size_t n = 0;
    for (int depth = 0; s[n] && (depth > 0 || (s[n] != '+' && s[n] != '@')); n++)
        depth += (s[n] == '(') - (s[n] == ')');
    return n;
}

/* If b is a with another part in the place of its f16: where that part stands and its length. */
static const char *other_form(const char *a, const char *b, size_t *len)
{
    const char *form = NULL;
    while (*a && *b) {
        const size_t n = part_length(a), m = part_length(b);
        const bool same = n == m && !strncmp(a, b, n);
        if (!same && (form || n != 3 || strncmp(a, "f16", 3)))
            return NULL;
        if (!same) {
            form = b;
            *len = m;
        }
        a += n;
        b += m;
        if (*a != *b || *a == '@')
            break;
        a += *a == '+';
        b += *b == '+';
    }
    return form && !strcmp(a, b) ? form : NULL;
}

/* The full cache stored like that; -1: it was not run. */
static int full_in(const json_t *variants, const char *form, size_t len)
{
    const json_t *v;
    size_t i;
    json_array_foreach(variants, i, v)
    {
        const char *spec = kept_doc_text(v, "resolved");
        if (!strncmp(spec, "full+", 5) && strlen(spec) == 5 + len && !strncmp(spec + 5, form, len))
            return (int)i;
    }
    return -1;
}

typedef struct four {
    int evict, both, pack; /* variants; the full cache is 0 */
} four;

typedef struct sums {
    double evict, pack, both;
    double *x; /* [n] interactions, halved */
    int n;
} sums;

/* A sum of four scores of which two count as minus lies in [-2, 2]: halved it is what the
 * statistics expect. More is better in x. */
static void add_sample(sums *s, const json_t *sample, const four *f, bool generate)
{
    const int who[4] = {0, f->evict, f->pack, f->both};
    double v[4];
    for (int k = 0; k < 4; k++) {
        const json_t *o = kept_doc_outcome(sample, who[k]);
        v[k] = o ? kept_outcome_value(o, generate) : NAN;
        if (!isfinite(v[k]))
            return;
    }
    s->evict += v[1] - v[0];
    s->pack += v[2] - v[0];
    s->both += v[3] - v[0];
    s->x[s->n++] = (generate ? 1 : -1) * (v[3] - v[1] - v[2] + v[0]) / 2;
}

static void put_change(json_t *o, const sums *s, const kept_change *c, bool generate)
{
    const double sign = generate ? 2 : -2;
    json_object_set_new(o, "n", json_integer(s->n));
    kept_doc_put(o, "evict", s->evict / s->n);
    kept_doc_put(o, "pack", s->pack / s->n);
    kept_doc_put(o, "both", s->both / s->n);
    kept_doc_put(o, "interaction", sign * c->mean + 0.0);
    kept_doc_put(o, "low", sign * (generate ? c->interval.low : c->interval.high));
    kept_doc_put(o, "high", sign * (generate ? c->interval.high : c->interval.low));
    kept_doc_put(o, "p", c->p);
}

static kept_status add_row(const json_t *doc, size_t t, const four *f, json_t *list,
                           kept_error *err)
{
    const json_t *task = json_array_get(json_object_get(doc, "tasks"), t), *sample;
    const json_t *samples = json_object_get(doc, "samples");
    const json_t *variants = json_object_get(doc, "variants");
    const bool generate = strcmp(kept_doc_text(task, "kind"), "score") != 0;
    size_t i;
    sums s = {.x = kept_calloc(json_array_size(samples) + 1, sizeof *s.x)};
    if (!s.x)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    json_array_foreach(samples, i, sample)
    {
        if (kept_doc_number(sample, "task") == (double)t)
            add_sample(&s, sample, f, generate);
    }
    const kept_paired x = {s.x, NULL, s.n, generate};
    kept_change c;
    kept_status st = s.n ? kept_change_of(&x, 0, LEVEL, &c, err) : KEPT_OK;
    if (!st && s.n) {
        const int who[3] = {f->evict, f->both, f->pack};
        static const char *const keys[3] = {"row", "packed", "full_packed"};
        json_t *o = json_object();
        json_object_set(o, "task", json_object_get(task, "label"));
        json_object_set(o, "kind", json_object_get(task, "kind"));
        json_object_set_new(o, "task_index", json_integer((json_int_t)t));
        json_object_set_new(o, "variant", json_integer(f->evict));
        json_object_set_new(o, "packed_variant", json_integer(f->both));
        for (int k = 0; k < 3; k++)
            json_object_set(o, keys[k],
                            json_object_get(json_array_get(variants, (size_t)who[k]), "name"));
        put_change(o, &s, &c, generate);
        json_array_append_new(list, o);
    }
    free(s.x);
    return st;
}

kept_status kept_precision(const json_t *doc, json_t **out, kept_error *err)
{
    const json_t *variants = json_object_get(doc, "variants");
    const size_t n = json_array_size(variants);
    kept_status s = KEPT_OK;
    *out = json_array();
    if (!*out)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    for (size_t t = 0; t < json_array_size(json_object_get(doc, "tasks")); t++)
        for (size_t a = 2; a < n; a++)
            for (size_t b = 2; !s && b < n; b++) {
                size_t len = 0;
                const char *form =
                    other_form(kept_doc_text(json_array_get(variants, a), "resolved"),
                               kept_doc_text(json_array_get(variants, b), "resolved"), &len);
                const int pack = form ? full_in(variants, form, len) : -1;
                const four f = {(int)a, (int)b, pack};
                if (pack >= 0)
                    s = add_row(doc, t, &f, *out, err);
            }
    return s;
}
