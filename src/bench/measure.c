/* measure: what a variant still has of what matters, and how fast it decodes.
 *
 * mass_recall and evidence_recall leave windowed layers out: no strategy evicts there. "core" is
 * mass_recall without the first CORE_FIRST and the last CORE_LAST positions of the prefix, which
 * attract most attention mass and which nearly every strategy keeps.
 */
#include "bench/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CORE_FIRST 4
#define CORE_LAST  32

void kept_measure_set_evidence(kept_work *w, const int32_t *positions, int n)
{
    for (int i = 0; i < w->n_evidence; i++)
        w->evidence_at[w->evidence[i]] = -1;
    while (n > 0 && positions[n - 1] >= w->n_prefix)
        n--;
    w->evidence = positions;
    w->n_evidence = n < w->job->max_tokens ? n : w->job->max_tokens;
    for (int i = 0; i < w->n_evidence; i++)
        w->evidence_at[positions[i]] = i;
}

double kept_measure_evidence(kept_work *w, int variant, double *any)
{
    const kept_model_info *m = w->job->info;
    const kept_outcome *o = &w->out[variant];
    int n_evidence = w->n_evidence, n_any = 0;
    int64_t hits = 0, heads = 0;
    float *seen = w->mass; /* seen[i]: evidence token i is alive in some head */
    *any = NAN;
    if (n_evidence < 1)
        return NAN;
    memset(seen, 0, (size_t)n_evidence * sizeof *seen);
    for (int l = 0; l < m->n_layers; l++) {
        for (int h = 0; !m->windowed[l] && h < m->n_kv_heads; h++, heads++) {
            int n = kept_seq_positions(o->seq, l, h, w->pos, w->job->max_tokens);
            for (int i = 0; i < n; i++) {
                int e = w->pos[i] < w->n_prefix ? w->evidence_at[w->pos[i]] : -1;
                if (e < 0)
                    continue;
                hits++;
                seen[e] = 1;
            }
        }
    }
    for (int i = 0; i < n_evidence; i++)
        n_any += seen[i] > 0;
    if (!heads)
        return NAN;
    *any = (double)n_any / n_evidence;
    return (double)hits / ((double)heads * n_evidence);
}

typedef struct masses {
    double all, core;
    int n; /* prefix slots seen */
} masses;

static void add_mass(const kept_work *w, masses *m, int32_t p)
{
    if (p >= w->n_prefix)
        return;
    m->all += w->by_pos[p];
    if (p >= CORE_FIRST && p < w->n_prefix - CORE_LAST)
        m->core += w->by_pos[p];
    m->n++;
}

/* Adds one KV head's shares to every living variant, and its attention to paid [n_prefix]; false:
 * nothing to divide by. */
static bool head_shares(kept_work *w, kept_seq *probe, int layer, int head, float *paid)
{
    int cap = w->job->max_tokens;
    int n = kept_seq_plane(probe, layer, head, KEPT_PROBE, w->mass, cap);
    masses total = {0};
    if (n < 1 || kept_seq_positions(probe, layer, head, w->pos, cap) != n)
        return false;
    memset(w->by_pos, 0, (size_t)w->n_prefix * sizeof *w->by_pos);
    for (int i = 0; i < n; i++)
        if (w->pos[i] < w->n_prefix)
            w->by_pos[w->pos[i]] = w->mass[i];
    for (int i = 0; i < n; i++)
        add_mass(w, &total, w->pos[i]);
    if (!(total.all > 0))
        return false;
    for (int p = 0; p < w->n_prefix; p++)
        paid[p] += (float)(w->by_pos[p] / total.all);
    for (int v = 0; v < w->job->n_variants; v++) {
        masses kept = {0};
        if (!w->out[v].seq)
            continue;
        int alive = kept_seq_positions(w->out[v].seq, layer, head, w->pos, cap);
        for (int i = 0; i < alive; i++)
            add_mass(w, &kept, w->pos[i]);
        w->out[v].n_kept += kept.n;
        bool whole = kept.n == total.n; /* no rounding where nothing is missing */
        w->share[v] += whole ? 1 : kept.all / total.all;
        w->core[v] += whole || !(total.core > 0) ? 1 : kept.core / total.core;
    }
    return true;
}

void kept_measure_mass(kept_work *w)
{
    const kept_model_info *m = w->job->info;
    kept_seq *probe = w->out[KEPT_VARIANT_FLOOR].seq;
    int heads = 0, row = 0;
    if (!w->job->probe || !probe)
        return;
    memset(w->share, 0, (size_t)w->job->n_variants * sizeof *w->share);
    memset(w->core, 0, (size_t)w->job->n_variants * sizeof *w->core);
    for (int l = 0; l < m->n_layers; l++)
        for (int h = 0; !m->windowed[l] && h < m->n_kv_heads; h++, row++)
            heads += head_shares(w, probe, l, h, w->paid + (size_t)row * (size_t)w->n_prefix);
    for (int v = 0; heads && v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        if (!o->seq)
            continue;
        o->mass += w->share[v] / heads;
        o->mass_core += w->core[v] / heads;
        o->n_mass++;
    }
}

/* ---- regret -----------------------------------------------------------------------------------
 */

static int by_most(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* The best that any choice of as many slots, from any heads, could have held of what was paid, less
 * what the variant did hold. A variant's count of slots is its mean over the measurements; between
 * two whole counts the best is linear. */
kept_status kept_measure_regret(kept_work *w, kept_error *err)
{
    const kept_outcome *probe = &w->out[KEPT_VARIANT_FLOOR];
    const kept_model_info *m = w->job->info;
    size_t heads = 0;
    for (int l = 0; l < m->n_layers; l++)
        heads += m->windowed[l] ? 0 : (size_t)m->n_kv_heads;
    size_t n = heads * (size_t)w->n_prefix;
    if (!w->job->probe || !probe->n_mass)
        return KEPT_OK;
    double *best = kept_calloc(n + 1, sizeof *best); /* best[k]: of k slots */
    if (!best)
        return kept_fail(err, KEPT_NOMEM, "out of memory for oracle_regret");
    qsort(w->paid, n, sizeof *w->paid, by_most);
    for (size_t i = 0; i < n; i++)
        best[i + 1] = best[i] + w->paid[i];
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        double k = o->n_mass ? o->n_kept / o->n_mass : 0;
        size_t low = (size_t)k;
        if (!o->n_mass || low > n)
            continue;
        double held = best[low] + (low < n ? (k - (double)low) * w->paid[low] : 0);
        o->regret = low == n ? 0 : held / best[n] - o->mass / o->n_mass;
    }
    free(best);
    return KEPT_OK;
}

/* ---- speed ---------------------------------------------------------------------------------- */

/* One decode step of one sequence alone, in nanoseconds; 0: it could not be done. */
static uint64_t timed_step(kept_work *w, kept_seq *seq, int i)
{
    kept_item item = {
        .seq = seq, .tokens = w->suffix + i % w->n_suffix, .n_tokens = 1, .n_logits = 1};
    uint64_t start = kept_clock_ns();
    if (kept_engine_forward(w->job->engine, &item, 1, NULL))
        return 0;
    return kept_clock_ns() - start;
}

/* A copy to spend on timing, under a strategy of its own, so that it shares no budget with the
 * original. */
static kept_seq *copy_for_speed(kept_work *w, int v, kept_strategy **own)
{
    const kept_strategy *s = w->job->variants[v].strategy;
    *own = NULL;
    if (s && kept_strategy_parse(kept_strategy_resolved(s), own, NULL))
        return NULL;
    return kept_copy_seq(w, v, *own, NULL, NULL);
}

static kept_status time_variant(kept_work *w, int v)
{
    kept_outcome *o = &w->out[v];
    kept_strategy *own[2];
    kept_seq *full = copy_for_speed(w, KEPT_VARIANT_FULL, &own[0]);
    kept_seq *copy = copy_for_speed(w, v, &own[1]);
    kept_status s = KEPT_OK;
    /* The first step takes private copies of shared pages: not what decoding costs. */
    bool ok = full && copy && !kept_control_tell(w, v, copy, full, NULL);
    ok = ok && timed_step(w, full, 0) && timed_step(w, copy, 0);
    for (int i = 0; ok && !s && i < w->job->speed_steps; i += 2) {
        uint64_t f0 = timed_step(w, full, i + 1), v0 = timed_step(w, copy, i + 1);
        uint64_t v1 = timed_step(w, copy, i + 2), f1 = timed_step(w, full, i + 2);
        ok = f0 && v0 && v1 && f1;
        if (!ok)
            break;
        o->full_ns[i] = f0;
        o->full_ns[i + 1] = f1;
        o->step_ns[i] = v0;
        o->step_ns[i + 1] = v1;
        o->n_steps = i + 2;
        s = kept_job_tick(w->job, 4);
    }
    kept_seq_free(full);
    kept_seq_free(copy);
    kept_strategy_free(own[0]);
    kept_strategy_free(own[1]);
    return s;
}

kept_status kept_measure_speed(kept_work *w)
{
    kept_status s = KEPT_OK;
    for (int v = KEPT_VARIANT_FLOOR; !s && v < w->job->n_variants; v++)
        if (w->out[v].seq && w->out[KEPT_VARIANT_FULL].seq)
            s = time_variant(w, v);
    return s;
}
