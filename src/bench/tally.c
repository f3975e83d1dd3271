/* tally: see tally.h. */
#include "bench/tally.h"
#include "bench/doc.h"

#include <math.h>
#include <stdlib.h>

#define PAIR 2 /* speed: steps of one F V V F block */

const int kept_distance_end[KEPT_N_DISTANCES] = {8, 16, 32, 64, 128, 512, 2048, INT32_MAX};

/* Means over the outcomes that did not fail, under the same name. */
const char *const kept_plain[KEPT_N_PLAIN] = {
    "kv_bytes",         "meta_bytes",      "kv_bits",      "peak_bytes",    "byte_steps",
    "n_evicted",        "prefill_ns",      "score_ns",     "compact_ns",    "mass_recall",
    "mass_recall_core", "evidence_recall", "evidence_any", "oracle_regret", "read_bytes",
    "parked_bytes",     "park_ns",         "resume_ns",
};
void kept_mean_add(kept_mean *m, double x)
{
    if (isfinite(x)) {
        m->sum += x;
        m->n++;
    }
}

double kept_mean_of(const kept_mean *m)
{
    return m->n ? m->sum / m->n : NAN;
}

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

static void add_diff(kept_tally *t, const json_t *sample, double diff)
{
    t->cluster[t->n_diff] = cluster_of(t->ids, sample);
    t->diff[t->n_diff++] = diff;
}

static void add_bytes(kept_tally *t, const json_t *o, const json_t *full)
{
    for (int i = 0; i < KEPT_N_PLAIN; i++)
        kept_mean_add(&t->plain[i], kept_doc_number(o, kept_plain[i]));
    kept_mean_add(&t->held, held(o));
    if (is_failed(full))
        return;
    kept_mean_add(&t->held_pct, 100 * held(o) / held(full));
    kept_mean_add(&t->kv_pct,
                  100 * kept_doc_number(o, "kv_bytes") / kept_doc_number(full, "kv_bytes"));
    kept_mean_add(&t->peak_pct,
                  100 * kept_doc_number(o, "peak_bytes") / kept_doc_number(full, "peak_bytes"));
    kept_mean_add(&t->byte_steps_pct,
                  100 * kept_doc_number(o, "byte_steps") / kept_doc_number(full, "byte_steps"));
    kept_mean_add(&t->parked_pct, 100 * kept_doc_number(o, "parked_bytes") / held(full));
    kept_mean_add(&t->read_pct,
                  100 * kept_doc_number(o, "read_bytes") / kept_doc_number(full, "read_bytes"));
}

static void add_answer(kept_tally *t, const json_t *sample, const json_t *o, const json_t *full)
{
    double score = is_failed(o) ? 0 : kept_doc_number(o, "score");
    t->score_cluster[t->score.n] = cluster_of(t->all_ids, sample);
    t->scores[t->score.n] = score;
    kept_mean_add(&t->score, score);
    if (is_failed(full))
        return;
    double diff = score - kept_doc_number(full, "score");
    t->regressions += diff < 0;
    t->improvements += diff > 0;
    add_diff(t, sample, diff);
    if (!is_failed(o)) {
        kept_mean_add(&t->n_new, (double)json_array_size(json_object_get(o, "tokens")));
        kept_mean_add(&t->diverged, json_is_null(json_object_get(o, "diverged")) ? 0 : 1);
    }
}

/* KL, top-1 and, for scored text, NLL of every position; position i is i + 1 tokens after. */
static void add_positions(kept_tally *t, const json_t *sample, const json_t *o, const json_t *full)
{
    const json_t *kl = json_object_get(o, "kl"), *top1 = json_object_get(o, "top1");
    const json_t *nll = json_object_get(o, "nll"), *full_nll = json_object_get(full, "nll");
    kept_mean own = {0}, base = {0};
    int range = 0;
    for (size_t i = 0; i < json_array_size(kl); i++) {
        while ((int)i + 1 > kept_distance_end[range])
            range++;
        kept_distance *d = &t->by_distance[range];
        double x = kept_doc_at(kl, i);
        kept_mean_add(&own, kept_doc_at(nll, i));
        kept_mean_add(&d->nll, kept_doc_at(nll, i));
        if (is_failed(full))
            continue;
        kept_mean_add(&t->kl, x);
        kept_mean_add(&t->top1, kept_doc_at(top1, i));
        kept_mean_add(&d->kl, x);
        kept_mean_add(&d->top1, kept_doc_at(top1, i));
        kept_mean_add(&base, kept_doc_at(full_nll, i));
        kept_mean_add(&d->full_nll, kept_doc_at(full_nll, i));
        t->kl_max = x > t->kl_max ? x : t->kl_max;
    }
    kept_mean_add(&t->nll, kept_mean_of(&own));
    kept_mean_add(&t->full_nll, kept_mean_of(&base));
    if (nll && own.n && base.n)
        add_diff(t, sample, kept_mean_of(&own) - kept_mean_of(&base));
}

/* Room for another `more` doubles; false: out of memory. */
static bool grow(double **x, int n, size_t more)
{
    double *bigger = realloc(*x, ((size_t)n + more + 1) * sizeof **x);
    if (bigger)
        *x = bigger;
    return bigger;
}

static bool add_speed(kept_tally *t, const json_t *o)
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

static bool tally_sample(kept_tally *t, const json_t *sample, int variant)
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

bool kept_tally_fill(kept_tally *t, const json_t *samples, int variant)
{
    const size_t n = json_array_size(samples) + 1;
    *t = (kept_tally){.diff = kept_calloc(n, sizeof *t->diff),
                      .cluster = kept_calloc(n, sizeof *t->cluster),
                      .scores = kept_calloc(n, sizeof *t->scores),
                      .score_cluster = kept_calloc(n, sizeof *t->score_cluster),
                      .ids = json_object(),
                      .all_ids = json_object()};
    const json_t *s;
    size_t i;
    bool ok = t->diff && t->cluster && t->scores && t->score_cluster && t->ids && t->all_ids;
    json_array_foreach(samples, i, s) ok = ok && tally_sample(t, s, variant);
    return ok;
}

void kept_tally_clear(kept_tally *t)
{
    void *blocks[] = {t->diff,  t->cluster, t->scores,    t->score_cluster,
                      t->steps, t->ratios,  t->full_steps};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    json_decref(t->ids);
    json_decref(t->all_ids);
    *t = (kept_tally){0};
}
