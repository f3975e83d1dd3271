/* cells: one aggregate per task and variant, from nothing but the samples of a result document, so
 * that anybody can recompute them. The unit is the sample; comparisons are paired with the
 * reference on the same sample.
 *
 * A failed outcome scores 0 and counts in n; its bytes, times and distances are left out.
 */
#include "bench/run.h"
#include "bench/doc.h"

#include "bench/stats.h"
#include "bench/tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 0.95

/* ---- to JSON -------------------------------------------------------------------------------- */

static void put_int(json_t *c, const char *key, int x)
{
    json_object_set_new(c, key, json_integer(x));
}

/* Mean paired difference with its interval, bounds and p. NLL is better when smaller. */
static void put_change(json_t *c, const kept_tally *t, const kept_change *d, bool generate)
{
    const double sign = generate ? 1 : -1;
    kept_doc_put(c, "change", sign * d->mean + 0.0);
    kept_doc_put(c, "change_low", generate ? d->interval.low : -d->interval.high);
    kept_doc_put(c, "change_high", generate ? d->interval.high : -d->interval.low);
    kept_doc_put(c, "bound_low", generate ? d->bounds.low : -d->bounds.high);
    kept_doc_put(c, "bound_high", generate ? d->bounds.high : -d->bounds.low);
    kept_doc_put(c, "p", t->n_diff ? d->p : NAN);
    put_int(c, "n_pairs", t->n_diff);
    put_int(c, "n_clusters", d->n_clusters);
    if (generate) {
        put_int(c, "regressions", t->regressions);
        put_int(c, "improvements", t->improvements);
    }
}

static void put_quality(json_t *c, const kept_tally *t, const kept_change *d, bool generate)
{
    if (generate) {
        double n = kept_effective_n(t->scores, t->score_cluster, t->score.n);
        kept_interval w = kept_wilson(kept_mean_of(&t->score) * n, n, LEVEL);
        kept_doc_put(c, "score", kept_mean_of(&t->score));
        kept_doc_put(c, "score_low", t->n ? w.low : NAN);
        kept_doc_put(c, "score_high", t->n ? w.high : NAN);
        kept_doc_put(c, "n_new", kept_mean_of(&t->n_new));
        kept_doc_put(c, "diverged", kept_mean_of(&t->diverged));
    } else {
        kept_doc_put(c, "nll", kept_mean_of(&t->nll));
        kept_doc_put(c, "full_nll", kept_mean_of(&t->full_nll));
        kept_doc_put(c, "ppl", exp(kept_mean_of(&t->nll)));
        kept_doc_put(c, "full_ppl", exp(kept_mean_of(&t->full_nll)));
    }
    put_change(c, t, d, generate);
    kept_doc_put(c, "kl", kept_mean_of(&t->kl));
    kept_doc_put(c, "kl_max", t->kl.n ? t->kl_max : NAN);
    kept_doc_put(c, "top1", kept_mean_of(&t->top1));
    put_int(c, "n_positions", t->kl.n);
}

static void put_distances(json_t *c, const kept_tally *t)
{
    json_t *list = json_array();
    for (int i = 0; i < KEPT_N_DISTANCES; i++) {
        const kept_distance *d = &t->by_distance[i];
        if (!d->nll.n)
            continue;
        json_t *o = json_object();
        put_int(o, "from", i ? kept_distance_end[i - 1] + 1 : 1);
        json_object_set_new(
            o, "to", i + 1 < KEPT_N_DISTANCES ? json_integer(kept_distance_end[i]) : json_null());
        put_int(o, "n", d->nll.n);
        kept_doc_put(o, "kl", kept_mean_of(&d->kl));
        kept_doc_put(o, "top1", kept_mean_of(&d->top1));
        kept_doc_put(o, "nll", kept_mean_of(&d->nll));
        kept_doc_put(o, "full_nll", kept_mean_of(&d->full_nll));
        json_array_append_new(list, o);
    }
    json_object_set_new(c, "by_distance", list);
}

static void put_speed(json_t *c, kept_tally *t)
{
    double own = t->n_steps ? kept_quantile(t->steps, t->n_steps, 0.5) : NAN;
    double full = t->n_full_steps ? kept_quantile(t->full_steps, t->n_full_steps, 0.5) : NAN;
    kept_doc_put(c, "tokens_per_s", 1e9 / own);
    kept_doc_put(c, "full_tokens_per_s", 1e9 / full);
    kept_doc_put(c, "speed_ratio", t->n_pairs ? kept_quantile(t->ratios, t->n_pairs, 0.5) : NAN);
    put_int(c, "n_speed_steps", t->n_steps);
    kept_put_gaps(c, t->steps, t->n_steps);
}

static json_t *cell_json(kept_tally *t, const kept_change *d, int task, int variant, bool generate)
{
    json_t *c = json_object();
    put_int(c, "task", task);
    put_int(c, "variant", variant);
    put_int(c, "n", t->n);
    put_int(c, "failed", t->failed);
    for (int i = 0; i < KEPT_N_PLAIN; i++)
        kept_doc_put(c, kept_plain[i], kept_mean_of(&t->plain[i]));
    kept_doc_put(c, "held_bytes", kept_mean_of(&t->held));
    kept_doc_put(c, "held_pct", kept_mean_of(&t->held_pct));
    kept_doc_put(c, "kv_pct", kept_mean_of(&t->kv_pct));
    kept_doc_put(c, "peak_pct", kept_mean_of(&t->peak_pct));
    kept_doc_put(c, "byte_steps_pct", kept_mean_of(&t->byte_steps_pct));
    kept_doc_put(c, "read_pct", kept_mean_of(&t->read_pct));
    kept_doc_put(c, "parked_pct", kept_mean_of(&t->parked_pct));
    put_quality(c, t, d, generate);
    if (!generate)
        put_distances(c, t);
    put_speed(c, t);
    return c;
}

/* The samples of one task: each row looks at nothing else. */
static json_t *samples_of(const json_t *result, int task)
{
    json_t *out = json_array(), *s;
    size_t i;
    json_array_foreach(json_object_get(result, "samples"), i, s)
    {
        if (kept_doc_number(s, "task") == task && json_array_append(out, s)) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* What is told of a row beside its tally. false: out of memory. */
static bool add_views(json_t *c, const json_t *samples, int task, int variant, bool generate)
{
    json_object_set_new(c, "control", kept_control_cell(samples, task, variant));
    if (generate) {
        kept_put_turns(c, samples, task, variant);
        kept_put_trajectory(c, samples, task, variant);
        return true;
    }
    kept_put_positions(c, samples, task, variant);
    return kept_put_kl_stats(c, samples, task, variant);
}

/* Differences so that more is better: of NLL, less is. */
static kept_paired differences(kept_tally *t, bool generate)
{
    for (int i = 0; !generate && i < t->n_diff; i++)
        t->diff[i] = -t->diff[i];
    return (kept_paired){t->diff, t->cluster, t->n_diff, generate};
}

/* Cells of all rows on one task into row[n], which the caller owns; all changes are measured
 * together, for rows of one task draw the same resamples. false: out of memory. */
static bool make_row_cells(const json_t *samples, int task, int n, bool generate, json_t **row)
{
    kept_tally *t = kept_calloc((size_t)n, sizeof *t);
    kept_paired *x = kept_calloc((size_t)n, sizeof *x);
    kept_change *d = kept_calloc((size_t)n, sizeof *d);
    double *margin = kept_calloc((size_t)n, sizeof *margin);
    bool ok = t && x && d && margin;
    for (int v = 0; ok && v < n; v++) {
        ok = kept_tally_fill(&t[v], samples, v);
        x[v] = differences(&t[v], generate);
    }
    ok = ok && !kept_changes_of(x, margin, n, LEVEL, d, NULL);
    for (int v = 0; v < n; v++) {
        row[v] = ok ? cell_json(&t[v], &d[v], task, v, generate) : NULL;
        ok = row[v] && add_views(row[v], samples, task, v, generate);
    }
    for (int v = 0; t && v < n; v++)
        kept_tally_clear(&t[v]);
    free(t);
    free(x);
    free(d);
    free(margin);
    return ok;
}

/* p of the strategies of one task together; the full caches are no hypotheses. */
static void put_holm(json_t *const *row, int n)
{
    double p[KEPT_MAX_ROWS], adjusted[KEPT_MAX_ROWS];
    for (int v = 0; v < n; v++)
        p[v] = v < 2 ? NAN : kept_doc_number(row[v], "p");
    bool ok = kept_holm(p, n, adjusted);
    for (int v = 0; v < n; v++)
        kept_doc_put(row[v], "p_holm", ok ? adjusted[v] : NAN);
}

/* The reference has no timing of its own: it takes what ran beside the others. */
static void share_full_speed(json_t *const *row, int n)
{
    kept_mean m = {0};
    for (int v = 1; v < n; v++)
        kept_mean_add(&m, kept_doc_number(row[v], "full_tokens_per_s"));
    kept_doc_put(row[0], "tokens_per_s", kept_mean_of(&m));
    kept_doc_put(row[0], "full_tokens_per_s", kept_mean_of(&m));
    kept_doc_put(row[0], "speed_ratio", m.n ? 1 : NAN);
}

/* Marks the rows no other row beats in both quality and bytes held. The floor takes no part, nor
 * does a row that failed anywhere: its bytes are those of the samples it survived. */
static void mark_front(json_t *const *row, int n, bool generate, double *gain, double *cost)
{
    bool front[KEPT_MAX_ROWS];
    int m = 0, who[KEPT_MAX_ROWS];
    for (int v = 0; v < n; v++) {
        double g = generate ? kept_doc_number(row[v], "score") : -kept_doc_number(row[v], "nll");
        double b = kept_doc_number(row[v], "held_bytes");
        json_object_set_new(row[v], "front", json_false());
        if (v == 1 || kept_doc_number(row[v], "failed") > 0 || !isfinite(g) || !isfinite(b))
            continue;
        gain[m] = g;
        cost[m] = b;
        who[m++] = v;
    }
    kept_pareto(gain, cost, m, front);
    for (int i = 0; i < m; i++)
        json_object_set_new(row[who[i]], "front", json_boolean(front[i]));
}

json_t *kept_result_cells(const json_t *result)
{
    const json_t *tasks = json_object_get(result, "tasks"), *task;
    int n = (int)json_array_size(json_object_get(result, "variants"));
    json_t *cells = json_array(), *row[KEPT_MAX_ROWS];
    double gain[KEPT_MAX_ROWS], cost[KEPT_MAX_ROWS];
    size_t i;
    if (n < 1 || n > KEPT_MAX_ROWS)
        return cells;
    json_array_foreach(tasks, i, task)
    {
        const char *kind = json_string_value(json_object_get(task, "kind"));
        json_t *samples = samples_of(result, (int)i);
        bool generate = kind && !strcmp(kind, "generate");
        bool ok = samples && make_row_cells(samples, (int)i, n, generate, row);
        for (int v = 0; samples && v < n; v++)
            ok = !(row[v] && json_array_append_new(cells, row[v])) && ok;
        json_decref(samples);
        if (!ok) {
            json_decref(cells);
            return NULL;
        }
        put_holm(row, n);
        share_full_speed(row, n);
        for (int v = 0; v < n; v++)
            kept_put_roof(result, row[0], row[v]);
        mark_front(row, n, generate, gain, cost);
    }
    return cells;
}
