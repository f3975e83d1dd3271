/* html_data: what plots, filters and downloads of the page are made of. Aggregates are computed
 * here, from the samples, so that they are there when the page is too small for the samples.
 */
#include "report/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES   800000 /* of results in a page of 3 MB with 0.9 MB of script */
#define SAMPLE_BYTES 400000 /* above: samples without their lists of tokens */
#define FLIP_BYTES   150000 /* of verdicts with their flips */
#define DIGITS       9
#define FEW_DIGITS   6  /* what plots need; of a page that would be too large otherwise */
#define EXACT        15 /* digits that results are written with: such a copy is a result again */
#define MOST_DEPTHS  10

/* ---- depths --------------------------------------------------------------------------------- */

typedef struct spot {
    double sum;
    int n;
} spot;

/* Score of turn k of an outcome, NaN: none; the outcome's own where it has no turns. */
static double score_of(const json_t *outcome, const json_t *turns, size_t k)
{
    if (!json_is_false(json_object_get(outcome, "failed")))
        return 0;
    return turns ? kept_view_number(json_array_get(json_object_get(outcome, "turns"), k), "score")
                 : kept_view_number(outcome, "score");
}

static void add_depth(const json_t *sample, const json_t *place, size_t k, spot *spots, int n_bins)
{
    const json_t *turns = json_object_get(sample, "turns"), *o;
    const double depth = kept_view_number(place, "depth");
    size_t i;
    if (!(depth >= 0 && depth <= 1))
        return;
    const int bin = depth < 1 ? (int)(depth * n_bins) : n_bins - 1;
    json_array_foreach(json_object_get(sample, "outcomes"), i, o)
    {
        const double v = kept_view_number(o, "variant"), x = score_of(o, turns, k);
        if (!(v >= 0 && v < KEPT_MAX_ROWS) || !isfinite(x))
            continue;
        spot *s = &spots[(int)v * MOST_DEPTHS + bin];
        s->sum += x;
        s->n++;
    }
}

/* As many ranges of depth as a task has places, at most ten. */
static int count_bins(const json_t *samples, int task)
{
    const json_t *s;
    size_t i;
    int n = 0;
    json_array_foreach(samples, i, s)
    {
        if (kept_view_number(s, "task") == task)
            n++;
    }
    return n < 1 ? 1 : n > MOST_DEPTHS ? MOST_DEPTHS : n;
}

/* A line for each row that was answered: task, row, scores by depth, numbers of answers. */
static void put_depths(json_t *out, int task, const spot *spots, int n_bins)
{
    for (int v = 0; v < KEPT_MAX_ROWS; v++) {
        json_t *scores = json_array(), *counts = json_array();
        int n = 0;
        for (int b = 0; b < n_bins; b++) {
            const spot *s = &spots[v * MOST_DEPTHS + b];
            json_array_append_new(scores,
                                  s->n ? json_real(round(1e4 * s->sum / s->n) / 1e4) : json_null());
            json_array_append_new(counts, json_integer(s->n));
            n += s->n;
        }
        if (n)
            json_array_append_new(out, json_pack("[iiOO]", task, v, scores, counts));
        json_decref(scores);
        json_decref(counts);
    }
}

json_t *kept_html_depths(const json_t *result)
{
    const json_t *samples = json_object_get(result, "samples"), *s, *turn;
    const size_t n_tasks = json_array_size(json_object_get(result, "tasks"));
    json_t *out = json_array();
    const size_t n_spots = (size_t)KEPT_MAX_ROWS * MOST_DEPTHS;
    spot *spots = kept_calloc(n_spots, sizeof *spots);
    for (size_t t = 0; spots && t < n_tasks; t++) {
        const int n_bins = count_bins(samples, (int)t);
        size_t i, k;
        memset(spots, 0, n_spots * sizeof *spots);
        json_array_foreach(samples, i, s)
        {
            if (kept_view_number(s, "task") != (double)t)
                continue;
            const json_t *turns = json_object_get(s, "turns");
            json_array_foreach(turns, k, turn) add_depth(s, turn, k, spots, n_bins);
            if (!turns)
                add_depth(s, s, 0, spots, n_bins);
        }
        put_depths(out, (int)t, spots, n_bins);
    }
    free(spots);
    return out;
}

/* ---- ladders -------------------------------------------------------------------------------- */

typedef struct rung {
    int variant;
    double held;
} rung;

static int by_held(const void *a, const void *b)
{
    const rung *x = a, *y = b;
    return x->held != y->held ? (x->held < y->held) - (x->held > y->held) : x->variant - y->variant;
}

/* Rows of the strategy of `first` on a task, largest first; none if an earlier row has it. */
static int collect(const kept_html *p, int task, int first, rung *rungs)
{
    const json_t *variants = json_object_get(p->result, "variants");
    const json_t *own = kept_view_at(variants, first);
    int m = 0;
    for (int v = 2; v < p->n_variants; v++) {
        const double held = kept_view_number(kept_html_cell(p, task, v), "held_pct");
        if (!isfinite(held) || !kept_html_same_stem(own, kept_view_at(variants, v)))
            continue;
        if (v < first)
            return 0;
        rungs[m++] = (rung){v, held};
    }
    qsort(rungs, (size_t)m, sizeof *rungs, by_held);
    return m;
}

static json_t *ladder(const kept_html *p, int task, const rung *rungs, int n)
{
    json_t *o = json_object(), *steps = json_array();
    int cliff = -1;
    for (int i = 0; i < n; i++) {
        const json_t *row = kept_html_verdict(p, task, rungs[i].variant);
        json_array_append_new(steps, json_integer(rungs[i].variant));
        if (cliff < 0 && !strcmp(kept_view_text(row, "verdict"), "worse"))
            cliff = rungs[i].variant;
    }
    json_object_set_new(o, "task", json_integer(task));
    json_object_set_new(o, "steps", steps);
    json_object_set_new(o, "cliff", cliff < 0 ? json_null() : json_integer(cliff));
    return o;
}

json_t *kept_html_ladders(const kept_html *p)
{
    rung *rungs = kept_calloc(KEPT_MAX_ROWS, sizeof *rungs);
    json_t *out = json_array();
    for (int t = 0; rungs && t < p->n_tasks; t++)
        for (int v = 2; v < p->n_variants; v++) {
            const int m = collect(p, t, v, rungs);
            if (m > 1)
                json_array_append_new(out, ladder(p, t, rungs, m));
        }
    free(rungs);
    return out;
}

/* ---- the result, as small as it must be ----------------------------------------------------- */

typedef struct room {
    size_t used, most;
} room;

static int count_bytes(const char *text, size_t n, void *ctx)
{
    room *r = ctx;
    (void)text;
    r->used += n;
    return r->used > r->most ? -1 : 0;
}

/* Whether a value takes at most so many bytes; a large one is not written to its end. */
static bool fits(const json_t *x, size_t most, int digits)
{
    room r = {0, most};
    return !json_dump_callback(
        x, count_bytes, &r, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION((size_t)digits));
}

static void drop(json_t *o, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        json_object_del(o, keys[i]);
}

/* Samples without what is as long as their prompts and answers. A new reference. */
static json_t *thin_samples(const json_t *samples)
{
    static const char *const of_outcome[] = {"kl", "top1", "nll", "tokens", "speed", "control"};
    static const char *const of_sample[] = {"short_nll"};
    json_t *list = json_array();
    const json_t *s, *o;
    size_t i, k;
    json_array_foreach(samples, i, s)
    {
        json_t *copy = json_copy((json_t *)(uintptr_t)s), *outcomes = json_array();
        json_array_foreach(json_object_get(s, "outcomes"), k, o)
        {
            json_t *thin = json_copy((json_t *)(uintptr_t)o);
            drop(thin, of_outcome, sizeof of_outcome / sizeof *of_outcome);
            json_array_append_new(outcomes, thin);
        }
        drop(copy, of_sample, 1);
        json_object_set_new(copy, "outcomes", outcomes);
        json_array_append_new(list, copy);
    }
    return list;
}

static json_t *thin_cells(const json_t *cells)
{
    static const char *const keys[] = {"kl_stats", "key_tokens", "trajectory",
                                       "control",  "bound_low",  "bound_high"};
    json_t *list = json_array();
    const json_t *c;
    size_t i;
    json_array_foreach(cells, i, c)
    {
        json_t *copy = json_copy((json_t *)(uintptr_t)c);
        drop(copy, keys, sizeof keys / sizeof *keys);
        json_array_append_new(list, copy);
    }
    return list;
}

/* Cells as a table, for their names take most of their room: {"keys", "rows"}; null where a cell
 * lacks a member. */
static json_t *cell_table(const json_t *cells)
{
    json_t *seen = json_object(), *keys = json_array(), *rows = json_array();
    json_t *c, *x, *row;
    const char *key;
    size_t i, k;
    json_array_foreach(cells, i, c) json_object_foreach(c, key, x) if (!json_object_get(seen, key))
    {
        json_object_set_new(seen, key, json_true());
        json_array_append_new(keys, json_string(key));
    }
    json_array_foreach(cells, i, c)
    {
        row = json_array();
        json_array_foreach(keys, k, x)
        {
            json_t *value = json_object_get(c, json_string_value(x));
            json_array_append_new(row, value ? json_incref(value) : json_null());
        }
        json_array_append_new(rows, row);
    }
    json_decref(seen);
    return json_pack("{soso}", "keys", keys, "rows", rows);
}

/* The name of a file in place of where it lay: a page is passed on. */
static void forget_folder(json_t *owner, const char *key)
{
    const char *path = json_string_value(json_object_get(owner, key));
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        json_object_set_new(owner, key, json_string(slash + 1));
}

/* The result with members of its own that may be changed, and no folders. A new reference. */
static json_t *copy_result(const json_t *result)
{
    json_t *doc = json_copy((json_t *)(uintptr_t)result), *tasks, *task;
    json_t *model = json_deep_copy(json_object_get(result, "model"));
    size_t t;
    if (model) {
        forget_folder(model, "asked");
        json_object_set_new(doc, "model", model);
    }
    tasks = json_deep_copy(json_object_get(result, "tasks"));
    json_array_foreach(tasks, t, task) forget_folder(task, "file");
    json_object_set_new(doc, "tasks", tasks);
    return doc;
}

/* The document, less what does not fit; *left_out says what, *digits how exact it is. A new
 * reference. */
static json_t *fitting(const json_t *result, const char **left_out, int *digits)
{
    json_t *doc = copy_result(result);
    const json_t *samples = json_object_get(result, "samples");
    *left_out = "nothing";
    *digits = EXACT;
    if (!doc || fits(doc, SAMPLE_BYTES, EXACT))
        return doc;
    *digits = DIGITS;
    if (!fits(samples, SAMPLE_BYTES, DIGITS)) {
        *left_out = "lists of tokens of each sample";
        json_object_set_new(doc, "samples", thin_samples(samples));
    }
    if (!fits(doc, MOST_BYTES, DIGITS)) {
        *left_out = "all samples";
        json_object_set_new(doc, "samples", json_array());
    }
    if (!fits(doc, MOST_BYTES, DIGITS)) {
        *left_out = "all samples, and the details of cells";
        json_object_set_new(doc, "cells", thin_cells(json_object_get(result, "cells")));
        json_object_set_new(doc, "cell_table", cell_table(json_object_get(doc, "cells")));
        json_object_del(doc, "cells");
        if (!fits(doc, MOST_BYTES, DIGITS))
            *digits = FEW_DIGITS;
    }
    return doc;
}

/* Verdicts, without their flips but with the number of them. */
static json_t *verdicts(const json_t *comparison)
{
    static const char *const keys[] = {"task_index", "after_index", "verdict", "more"};
    json_t *list = json_array(), *r;
    size_t i, k;
    json_array_foreach(json_object_get(comparison, "rows"), i, r)
    {
        json_t *o = json_object();
        for (k = 0; k < sizeof keys / sizeof *keys; k++)
            json_object_set(o, keys[k], json_object_get(r, keys[k]));
        k = json_array_size(json_object_get(r, "flips"));
        json_object_set_new(o, "n_flips", json_integer((json_int_t)k));
        json_object_set_new(o, "flips", json_array());
        json_array_append_new(list, o);
    }
    return list;
}

/* Flips as there is room for: the first of every row, then the second, as prompts are taken. */
static json_t *fitting_verdicts(const json_t *comparison)
{
    const json_t *rows = json_object_get(comparison, "rows"), *r;
    json_t *list = verdicts(comparison);
    const size_t how = JSON_COMPACT | JSON_REAL_PRECISION(DIGITS);
    size_t used = json_dumpb(list, NULL, 0, how), i;
    bool more = true;
    for (size_t k = 0; more; k++) {
        more = false;
        json_array_foreach(rows, i, r)
        {
            json_t *flip = json_array_get(json_object_get(r, "flips"), k);
            if (!flip)
                continue;
            used += 1 + json_dumpb(flip, NULL, 0, how);
            if (used > FLIP_BYTES)
                return list;
            more = true;
            json_array_append(json_object_get(json_array_get(list, i), "flips"), flip);
        }
    }
    return list;
}

static json_t *stems(const json_t *result)
{
    json_t *list = json_array();
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(result, "variants"), i, v)
    {
        const kept_spec_parts x = kept_html_spec(v);
        json_array_append_new(list, json_pack("[s#s]", x.stem, x.stem_len, x.budget));
    }
    return list;
}

static kept_status write_block(FILE *out, const char *id, const json_t *x, int digits)
{
    fprintf(out, "<script type=\"application/json\" id=\"%s\">", id);
    kept_status s = x ? kept_html_json(out, x, digits) : KEPT_NOMEM;
    fputs("</script>\n", out);
    return s;
}

kept_status kept_html_write_data(const kept_html *p, FILE *out)
{
    const char *left_out = "";
    int digits;
    json_t *doc = fitting(p->result, &left_out, &digits), *extra = json_object();
    json_object_set_new(extra, "left_out", json_string(left_out));
    json_object_set_new(extra, "digits", json_integer(digits));
    json_object_set_new(extra, "source", json_string(p->source ? p->source : ""));
    json_object_set(extra, "margin", json_object_get(p->comparison, "margin"));
    json_object_set(extra, "nll_margin", json_object_get(p->comparison, "nll_margin"));
    json_object_set_new(extra, "specs", stems(p->result));
    json_object_set_new(extra, "verdicts", fitting_verdicts(p->comparison));
    json_object_set_new(extra, "depths", kept_html_depths(p->result));
    json_object_set_new(extra, "ladders", kept_html_ladders(p));
    json_object_set_new(extra, "prompts",
                        p->prompts ? json_incref((json_t *)(uintptr_t)p->prompts) : json_object());
    kept_status s = write_block(out, "result", doc, digits);
    if (!s)
        s = write_block(out, "extra", extra, DIGITS);
    json_t *robust = kept_html_robust(p);
    if (!s)
        s = write_block(out, "robust-data", robust, 5);
    json_decref(robust);
    json_decref(doc);
    json_decref(extra);
    return s;
}
