/* advise_row: what each row of a result is worth under what is asked. */
#include "bench/advise.h"
#include "bench/doc.h"
#include "bench/pairs.h"
#include "bench/plan.h"

#include <stdlib.h>
#include <string.h>

static const json_t *cell_of(const json_t *doc, int task, int variant)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        if (kept_doc_number(c, "task") == task && kept_doc_number(c, "variant") == variant)
            return c;
    }
    return NULL;
}

/* ---- quality -------------------------------------------------------------------------------- */

/* The rule of three made exact: no regression among n, and n large enough. */
static kept_holds judge_zero(const kept_advise_options *o, const json_t *r, double *more)
{
    const int n = (int)kept_doc_number(r, "n_clusters");
    const double need = ceil(log(1 - o->level) / log1p(-KEPT_ZERO_RATE));
    *more = 0;
    if (kept_doc_number(r, "regressions") > 0)
        return KEPT_FAILS;
    if (n >= need)
        return KEPT_HOLDS;
    *more = need - n;
    return KEPT_UNKNOWN;
}

static kept_holds judge(const kept_advise_options *o, const json_t *r, double *more)
{
    const char *verdict = kept_doc_text(r, "verdict");
    if (o->gate.zero && strcmp(kept_doc_text(r, "kind"), "score"))
        return judge_zero(o, r, more);
    const double x = kept_doc_number(r, "more");
    *more = isnan(x) ? INFINITY : x;
    return !strcmp(verdict, kept_verdict_text(KEPT_NON_INFERIOR)) ? KEPT_HOLDS
           : !strcmp(verdict, kept_verdict_text(KEPT_WORSE))      ? KEPT_FAILS
                                                                  : KEPT_UNKNOWN;
}

/* What the row may lose at worst, in margins; a point or a hundredth of a nat where there is none.
 */
static double loss_of(const json_t *r)
{
    const bool score = !strcmp(kept_doc_text(r, "kind"), "score");
    const double margin = kept_doc_number(r, "margin");
    const double worst =
        score ? kept_doc_number(r, "bound_high") : -kept_doc_number(r, "bound_low");
    return worst / (margin > 0 ? margin : 0.01);
}

/* One verdict into its row. share: of the task in the weights. */
static void add_verdict(const kept_advise_options *o, kept_advised *a, json_t *r, int task,
                        double share)
{
    double more;
    const kept_holds h = judge(o, r, &more);
    const bool score = !strcmp(kept_doc_text(r, "kind"), "score");
    const double gain = (score ? -1 : 1) * kept_doc_number(r, "change");
    a->loss += share * loss_of(r);
    if (h == KEPT_UNKNOWN) {
        a->more = fmax(a->more, more);
        a->promising &= gain > -kept_doc_number(r, "margin") || o->gate.zero;
    }
    if (h == KEPT_FAILS || a->quality == KEPT_FAILS)
        a->quality = KEPT_FAILS;
    else if (h == KEPT_UNKNOWN)
        a->quality = KEPT_UNKNOWN;
    json_object_set_new(r, "task_index", json_integer(task));
    json_object_set_new(r, "holds", json_integer(h));
    kept_doc_put(r, "need", h == KEPT_UNKNOWN ? more : 0);
}

static kept_status add_verdicts(const kept_advise_options *o, kept_advised *rows, int n,
                                json_t **verdicts, kept_error *err)
{
    const size_t n_tasks = json_array_size(json_object_get(o->doc, "tasks"));
    bool *on = kept_calloc(n_tasks + 1, sizeof *on);
    double total = 0;
    if (!on)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    for (size_t t = 0; t < n_tasks; t++) {
        on[t] = o->weight[t] > 0;
        total += on[t] ? o->weight[t] : 0;
    }
    const kept_compare_options c = {.before = o->doc,
                                    .after = o->doc,
                                    .before_name = o->name,
                                    .after_name = o->name,
                                    .tasks = on,
                                    .margin = o->gate.margin,
                                    .relative = o->gate.relative,
                                    .nll_margin = o->gate.nll,
                                    .level = o->level,
                                    .ladder = true,
                                    .common = true};
    kept_status s = total > 0
                        ? kept_compare(&c, verdicts, err)
                        : kept_fail(err, KEPT_ARGUMENT, "no task of %s is asked for", o->name);
    size_t at = 0; /* verdicts come task by task, rows in order */
    for (size_t t = 0; !s && t < n_tasks; t++)
        for (int i = 1; on[t] && i < n; i++)
            add_verdict(o, &rows[i], json_array_get(json_object_get(*verdicts, "rows"), at++),
                        (int)t, o->weight[t] / total);
    free(on);
    return s;
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static void shape_of(const json_t *doc, kept_model_info *info)
{
    const json_t *m = json_object_get(doc, "model");
    *info = (kept_model_info){0};
    info->n_layers = (int)json_integer_value(json_object_get(m, "n_layers"));
    info->n_heads = (int)json_integer_value(json_object_get(m, "n_heads"));
    info->n_kv_heads = (int)json_integer_value(json_object_get(m, "n_kv_heads"));
    info->head_size = (int)json_integer_value(json_object_get(m, "head_size"));
    info->sliding_window = (int)json_integer_value(json_object_get(m, "sliding_window"));
    const int n = (int)json_integer_value(json_object_get(m, "n_windowed_layers"));
    for (int l = 0; l < n && l < KEPT_MAX_LAYERS; l++)
        info->windowed[l] = true; /* how many there are is all that a plan looks at */
}

static void plan_row(const kept_advise_options *o, kept_advised *a, const kept_model_info *info)
{
    const json_t *v = json_array_get(json_object_get(o->doc, "variants"), (size_t)a->variant);
    const double chunk = kept_doc_number(json_object_get(o->doc, "options"), "chunk");
    kept_strategy *s = NULL;
    const uint64_t left = o->memory > o->weights ? o->memory - o->weights : 0;
    a->bytes = a->peak = NAN;
    a->widest = -1;
    if (!kept_shape_check(info, NULL) &&
        !kept_strategy_parse(kept_doc_text(v, "resolved"), &s, NULL)) {
        const kept_plan_row row = {KEPT_PLAN_STRATEGY, s, 16, chunk >= 1 ? (int)chunk : 512};
        const kept_plan_bytes one = kept_plan_one(&row, info, o->context);
        a->bytes = ((double)one.kv_bytes + (double)one.meta_bytes) * o->batch;
        a->peak = (double)kept_plan_batch_peak(one, o->batch);
        a->widest = o->memory ? kept_plan_widest(&row, info, o->context, left) : -1;
    }
    kept_strategy_free(s);
    if (o->memory)
        a->memory = isnan(a->peak)            ? KEPT_UNKNOWN
                    : a->peak <= (double)left ? KEPT_HOLDS
                                              : KEPT_FAILS;
}

/* ---- time ----------------------------------------------------------------------------------- */

static double larger(double a, double b)
{
    return isnan(a) || b > a ? b : a;
}

static kept_holds within(double x, double limit)
{
    return !(limit > 0) || x <= limit ? KEPT_HOLDS : isnan(x) ? KEPT_UNKNOWN : KEPT_FAILS;
}

static void time_row(const kept_advise_options *o, kept_advised *a)
{
    a->tpot_ms = a->ttft_ms = a->length_ratio = NAN;
    for (size_t t = 0; t < json_array_size(json_object_get(o->doc, "tasks")); t++) {
        const json_t *c = cell_of(o->doc, (int)t, a->variant);
        if (!(o->weight[t] > 0) || !c)
            continue;
        const json_t *path = json_object_get(c, "trajectory");
        a->tpot_ms = larger(a->tpot_ms, 1000 / kept_doc_number(c, "tokens_per_s"));
        a->ttft_ms =
            larger(a->ttft_ms, (kept_doc_number(c, "prefill_ns") + kept_doc_number(c, "score_ns") +
                                kept_doc_number(c, "compact_ns")) /
                                   1e6);
        a->length_ratio = larger(a->length_ratio, kept_doc_number(path, "length_ratio"));
    }
    const kept_holds h[3] = {within(a->ttft_ms, o->gate.ttft_ms),
                             within(a->tpot_ms, o->gate.tpot_ms),
                             within(a->length_ratio, a->variant ? o->gate.length_ratio : 0)};
    for (int i = 0; i < 3; i++)
        if (h[i] == KEPT_FAILS || (h[i] == KEPT_UNKNOWN && a->time != KEPT_FAILS))
            a->time = h[i];
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* a before b where x is smaller; not measured is last. */
static int ascending(double x, double y)
{
    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

bool kept_advise_better(const kept_advised *a, const kept_advised *b, kept_prefer prefer)
{
    const int bytes = ascending(a->bytes, b->bytes), loss = ascending(a->loss, b->loss);
    const int speed = ascending(a->tpot_ms, b->tpot_ms);
    const int first = prefer == KEPT_PREFER_QUALITY ? loss
                      : prefer == KEPT_PREFER_SPEED ? speed
                                                    : bytes;
    const int second = prefer == KEPT_PREFER_QUALITY ? bytes : loss;
    const int c = first ? first : second ? second : a->variant - b->variant;
    return c < 0;
}

kept_status kept_advise_rows(const kept_advise_options *o, kept_advised **rows, int *n,
                             json_t **verdicts, kept_error *err)
{
    const json_t *v;
    kept_model_info *info = kept_calloc(1, sizeof *info);
    size_t i;
    *n = 0;
    *verdicts = NULL;
    *rows = kept_calloc(json_array_size(json_object_get(o->doc, "variants")) + 1, sizeof **rows);
    kept_status s = *rows && info ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    if (!s)
        shape_of(o->doc, info);
    json_array_foreach(json_object_get(o->doc, "variants"), i, v)
    {
        if (s || !strcmp(kept_doc_text(v, "role"), "floor"))
            continue;
        kept_advised *a = &(*rows)[(*n)++];
        *a = (kept_advised){.variant = (int)i, .name = kept_doc_text(v, "name"), .promising = true};
        plan_row(o, a, info);
        time_row(o, a);
    }
    if (!s)
        s = add_verdicts(o, *rows, *n, verdicts, err);
    free(info);
    return s;
}
