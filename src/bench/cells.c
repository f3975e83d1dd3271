/* cells: one aggregate per task and variant, from nothing but the samples of a result document, so
 * that anybody can recompute them. The unit is the sample; comparisons are paired with the
 * reference on the same sample.
 *
 * A failed outcome scores 0 and counts in n; its bytes, times and distances are left out.
 */
#include "bench/run.h"
#include "bench/doc.h"

#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 0.95
#define PAIR  2 /* speed: steps of one F V V F block */

/* Upper ends of the distance ranges, in tokens after the eviction. */
static const int distance_end[] = {8, 16, 32, 64, 128, 512, 2048, INT32_MAX};
enum { N_DISTANCES = sizeof distance_end / sizeof *distance_end };

/* Means over the outcomes that did not fail, under the same name. */
static const char *const plain[] = {
    "kv_bytes",         "meta_bytes",      "kv_bits",      "peak_bytes",    "byte_steps",
    "n_evicted",        "prefill_ns",      "score_ns",     "compact_ns",    "mass_recall",
    "mass_recall_core", "evidence_recall", "evidence_any", "oracle_regret", "read_bytes",
    "parked_bytes",     "park_ns",         "resume_ns",
};
enum { N_PLAIN = sizeof plain / sizeof *plain };

typedef struct mean {
    double sum;
    int n;
} mean;

static void add(mean *m, double x)
{
    if (isfinite(x)) {
        m->sum += x;
        m->n++;
    }
}

static double mean_of(const mean *m)
{
    return m->n ? m->sum / m->n : NAN;
}

typedef struct distance {
    mean kl, top1, nll, full_nll;
} distance;

typedef struct tally {
    int n, failed, regressions, improvements, n_diff, n_steps, n_pairs, n_full_steps;
    mean plain[N_PLAIN], held, held_pct, kv_pct, peak_pct, byte_steps_pct, read_pct, parked_pct;
    mean score, kl, top1, n_new, diverged, nll, full_nll;
    double kl_max;
    distance by_distance[N_DISTANCES];
    double *diff;          /* [n_diff] paired differences: score, or mean NLL of a sample */
    int *cluster;          /* [n_diff] which share a context */
    double *scores;        /* [n] failures as 0 */
    int *score_cluster;    /* [n] */
    json_t *ids, *all_ids; /* text of a cluster -> its number, of diff and of scores */
    double *steps, *ratios, *full_steps; /* speed: nanoseconds, paired ratios */
} tally;

static bool is_failed(const json_t *o)
{
    return !json_is_false(json_object_get(o, "failed"));
}

static double held(const json_t *o)
{
    return kept_doc_number(o, "kv_bytes") + kept_doc_number(o, "meta_bytes");
}

/* Number of the sample's cluster: its context, or itself where the document has none. */
static int cluster_of(json_t *ids, const json_t *sample)
{
    const char *name = json_string_value(json_object_get(sample, "cluster"));
    if (!name)
        name = json_string_value(json_object_get(sample, "hash"));
    const int next = (int)json_object_size(ids);
    const json_t *id = name ? json_object_get(ids, name) : NULL;
    if (id)
        return (int)json_integer_value(id);
    char own[32];
    snprintf(own, sizeof own, "#%d", next);
    json_object_set_new(ids, name ? name : own, json_integer(next));
    return next;
}

static void add_diff(tally *t, const json_t *sample, double diff)
{
    t->cluster[t->n_diff] = cluster_of(t->ids, sample);
    t->diff[t->n_diff++] = diff;
}

static void add_bytes(tally *t, const json_t *o, const json_t *full)
{
    for (int i = 0; i < N_PLAIN; i++)
        add(&t->plain[i], kept_doc_number(o, plain[i]));
    add(&t->held, held(o));
    if (is_failed(full))
        return;
    add(&t->held_pct, 100 * held(o) / held(full));
    add(&t->kv_pct, 100 * kept_doc_number(o, "kv_bytes") / kept_doc_number(full, "kv_bytes"));
    add(&t->peak_pct, 100 * kept_doc_number(o, "peak_bytes") / kept_doc_number(full, "peak_bytes"));
    add(&t->byte_steps_pct,
        100 * kept_doc_number(o, "byte_steps") / kept_doc_number(full, "byte_steps"));
    add(&t->parked_pct, 100 * kept_doc_number(o, "parked_bytes") / held(full));
    add(&t->read_pct, 100 * kept_doc_number(o, "read_bytes") / kept_doc_number(full, "read_bytes"));
}

static void add_answer(tally *t, const json_t *sample, const json_t *o, const json_t *full)
{
    double score = is_failed(o) ? 0 : kept_doc_number(o, "score");
    t->score_cluster[t->score.n] = cluster_of(t->all_ids, sample);
    t->scores[t->score.n] = score;
    add(&t->score, score);
    if (is_failed(full))
        return;
    double diff = score - kept_doc_number(full, "score");
    t->regressions += diff < 0;
    t->improvements += diff > 0;
    add_diff(t, sample, diff);
    if (!is_failed(o)) {
        add(&t->n_new, (double)json_array_size(json_object_get(o, "tokens")));
        add(&t->diverged, json_is_null(json_object_get(o, "diverged")) ? 0 : 1);
    }
}

/* KL, top-1 and, for scored text, NLL of every position; position i is i + 1 tokens after. */
static void add_positions(tally *t, const json_t *sample, const json_t *o, const json_t *full)
{
    const json_t *kl = json_object_get(o, "kl"), *top1 = json_object_get(o, "top1");
    const json_t *nll = json_object_get(o, "nll"), *full_nll = json_object_get(full, "nll");
    mean own = {0}, base = {0};
    int range = 0;
    for (size_t i = 0; i < json_array_size(kl); i++) {
        while ((int)i + 1 > distance_end[range])
            range++;
        distance *d = &t->by_distance[range];
        double x = kept_doc_at(kl, i);
        add(&own, kept_doc_at(nll, i));
        add(&d->nll, kept_doc_at(nll, i));
        if (is_failed(full))
            continue;
        add(&t->kl, x);
        add(&t->top1, kept_doc_at(top1, i));
        add(&d->kl, x);
        add(&d->top1, kept_doc_at(top1, i));
        add(&base, kept_doc_at(full_nll, i));
        add(&d->full_nll, kept_doc_at(full_nll, i));
        t->kl_max = x > t->kl_max ? x : t->kl_max;
    }
    add(&t->nll, mean_of(&own));
    add(&t->full_nll, mean_of(&base));
    if (nll && own.n && base.n)
        add_diff(t, sample, mean_of(&own) - mean_of(&base));
}

/* Room for another `more` doubles; false: out of memory. */
static bool grow(double **x, int n, size_t more)
{
    double *bigger = realloc(*x, ((size_t)n + more + 1) * sizeof **x);
    if (bigger)
        *x = bigger;
    return bigger;
}

static bool add_speed(tally *t, const json_t *o)
{
    const json_t *speed = json_object_get(o, "speed");
    const json_t *own = json_object_get(speed, "step_ns");
    const json_t *full = json_object_get(speed, "full_step_ns");
    size_t n = json_array_size(own);
    if (!grow(&t->steps, t->n_steps, n) || !grow(&t->ratios, t->n_pairs, n) ||
        !grow(&t->full_steps, t->n_full_steps, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        t->steps[t->n_steps++] = kept_doc_at(own, i);
        t->full_steps[t->n_full_steps++] = kept_doc_at(full, i);
        if (i % PAIR == PAIR - 1)
            t->ratios[t->n_pairs++] = (kept_doc_at(full, i - 1) + kept_doc_at(full, i)) /
                                      (kept_doc_at(own, i - 1) + kept_doc_at(own, i));
    }
    return true;
}

static bool tally_sample(tally *t, const json_t *sample, int variant)
{
    const json_t *o = kept_doc_outcome(sample, variant), *full = kept_doc_outcome(sample, 0);
    if (!o || !full)
        return true;
    t->n++;
    t->failed += is_failed(o);
    if (json_object_get(o, "score"))
        add_answer(t, sample, o, full);
    if (is_failed(o))
        return true;
    add_bytes(t, o, full);
    add_positions(t, sample, o, full);
    return add_speed(t, o);
}

/* ---- to JSON -------------------------------------------------------------------------------- */

static void put_int(json_t *c, const char *key, int x)
{
    json_object_set_new(c, key, json_integer(x));
}

/* Mean paired difference with its interval, bounds and p. NLL is better when smaller. */
static void put_change(json_t *c, const tally *t, bool generate)
{
    const double sign = generate ? 1 : -1;
    kept_paired x = {t->diff, t->cluster, t->n_diff, generate};
    kept_change d;
    for (int i = 0; i < t->n_diff; i++)
        t->diff[i] *= sign;
    if (kept_change_of(&x, 0, LEVEL, &d, NULL))
        d = (kept_change){.mean = NAN, .p = NAN, .interval = {NAN, NAN}, .bounds = {NAN, NAN}};
    kept_doc_put(c, "change", sign * d.mean + 0.0);
    kept_doc_put(c, "change_low", generate ? d.interval.low : -d.interval.high);
    kept_doc_put(c, "change_high", generate ? d.interval.high : -d.interval.low);
    kept_doc_put(c, "bound_low", generate ? d.bounds.low : -d.bounds.high);
    kept_doc_put(c, "bound_high", generate ? d.bounds.high : -d.bounds.low);
    kept_doc_put(c, "p", t->n_diff ? d.p : NAN);
    put_int(c, "n_pairs", t->n_diff);
    put_int(c, "n_clusters", d.n_clusters);
    if (generate) {
        put_int(c, "regressions", t->regressions);
        put_int(c, "improvements", t->improvements);
    }
}

static void put_quality(json_t *c, const tally *t, bool generate)
{
    if (generate) {
        double n = kept_effective_n(t->scores, t->score_cluster, t->score.n);
        kept_interval w = kept_wilson(mean_of(&t->score) * n, n, LEVEL);
        kept_doc_put(c, "score", mean_of(&t->score));
        kept_doc_put(c, "score_low", t->n ? w.low : NAN);
        kept_doc_put(c, "score_high", t->n ? w.high : NAN);
        kept_doc_put(c, "n_new", mean_of(&t->n_new));
        kept_doc_put(c, "diverged", mean_of(&t->diverged));
    } else {
        kept_doc_put(c, "nll", mean_of(&t->nll));
        kept_doc_put(c, "full_nll", mean_of(&t->full_nll));
        kept_doc_put(c, "ppl", exp(mean_of(&t->nll)));
        kept_doc_put(c, "full_ppl", exp(mean_of(&t->full_nll)));
    }
    put_change(c, t, generate);
    kept_doc_put(c, "kl", mean_of(&t->kl));
    kept_doc_put(c, "kl_max", t->kl.n ? t->kl_max : NAN);
    kept_doc_put(c, "top1", mean_of(&t->top1));
    put_int(c, "n_positions", t->kl.n);
}

static void put_distances(json_t *c, const tally *t)
{
    json_t *list = json_array();
    for (int i = 0; i < N_DISTANCES; i++) {
        const distance *d = &t->by_distance[i];
        if (!d->nll.n)
            continue;
        json_t *o = json_object();
        put_int(o, "from", i ? distance_end[i - 1] + 1 : 1);
        json_object_set_new(o, "to",
                            i + 1 < N_DISTANCES ? json_integer(distance_end[i]) : json_null());
        put_int(o, "n", d->nll.n);
        kept_doc_put(o, "kl", mean_of(&d->kl));
        kept_doc_put(o, "top1", mean_of(&d->top1));
        kept_doc_put(o, "nll", mean_of(&d->nll));
        kept_doc_put(o, "full_nll", mean_of(&d->full_nll));
        json_array_append_new(list, o);
    }
    json_object_set_new(c, "by_distance", list);
}

static void put_speed(json_t *c, tally *t)
{
    double own = t->n_steps ? kept_quantile(t->steps, t->n_steps, 0.5) : NAN;
    double full = t->n_full_steps ? kept_quantile(t->full_steps, t->n_full_steps, 0.5) : NAN;
    kept_doc_put(c, "tokens_per_s", 1e9 / own);
    kept_doc_put(c, "full_tokens_per_s", 1e9 / full);
    kept_doc_put(c, "speed_ratio", t->n_pairs ? kept_quantile(t->ratios, t->n_pairs, 0.5) : NAN);
    put_int(c, "n_speed_steps", t->n_steps);
    kept_put_gaps(c, t->steps, t->n_steps);
}

static json_t *cell_json(tally *t, int task, int variant, bool generate)
{
    json_t *c = json_object();
    put_int(c, "task", task);
    put_int(c, "variant", variant);
    put_int(c, "n", t->n);
    put_int(c, "failed", t->failed);
    for (int i = 0; i < N_PLAIN; i++)
        kept_doc_put(c, plain[i], mean_of(&t->plain[i]));
    kept_doc_put(c, "held_bytes", mean_of(&t->held));
    kept_doc_put(c, "held_pct", mean_of(&t->held_pct));
    kept_doc_put(c, "kv_pct", mean_of(&t->kv_pct));
    kept_doc_put(c, "peak_pct", mean_of(&t->peak_pct));
    kept_doc_put(c, "byte_steps_pct", mean_of(&t->byte_steps_pct));
    kept_doc_put(c, "read_pct", mean_of(&t->read_pct));
    kept_doc_put(c, "parked_pct", mean_of(&t->parked_pct));
    put_quality(c, t, generate);
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

static json_t *make_cell(const json_t *samples, int task, int variant, bool generate)
{
    const size_t n = json_array_size(samples) + 1;
    tally t = {.diff = kept_calloc(n, sizeof *t.diff),
               .cluster = kept_calloc(n, sizeof *t.cluster),
               .scores = kept_calloc(n, sizeof *t.scores),
               .score_cluster = kept_calloc(n, sizeof *t.score_cluster),
               .ids = json_object(),
               .all_ids = json_object()};
    const json_t *s;
    size_t i;
    bool ok = t.diff && t.cluster && t.scores && t.score_cluster && t.ids && t.all_ids;
    json_array_foreach(samples, i, s) ok = ok && tally_sample(&t, s, variant);
    json_t *c = ok ? cell_json(&t, task, variant, generate) : NULL;
    if (c)
        json_object_set_new(c, "control", kept_control_cell(samples, task, variant));
    if (c && generate) {
        kept_put_turns(c, samples, task, variant);
        kept_put_trajectory(c, samples, task, variant);
    } else if (c) {
        kept_put_positions(c, samples, task, variant);
    }
    if (c && !generate && !kept_put_kl_stats(c, samples, task, variant)) {
        json_decref(c);
        c = NULL;
    }
    void *blocks[] = {t.diff,  t.cluster, t.scores,    t.score_cluster,
                      t.steps, t.ratios,  t.full_steps};
    for (i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    json_decref(t.ids);
    json_decref(t.all_ids);
    return c;
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
    mean m = {0};
    for (int v = 1; v < n; v++)
        add(&m, kept_doc_number(row[v], "full_tokens_per_s"));
    kept_doc_put(row[0], "tokens_per_s", mean_of(&m));
    kept_doc_put(row[0], "full_tokens_per_s", mean_of(&m));
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
        bool generate = kind && !strcmp(kind, "generate"), ok = samples;
        for (int v = 0; ok && v < n; v++) {
            row[v] = make_cell(samples, (int)i, v, generate);
            ok = row[v] && !json_array_append_new(cells, row[v]);
        }
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
