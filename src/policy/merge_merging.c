/* merging: MergingPress (kvpress). The value of each dropped token goes into the kept one whose key
 * has the greatest cosine s to its own:
 *
 *     w_e = max(s, 0) |v_e| / (|v_e| + |v_t|)   if s >= at        v_t <- (v_t + sum w_e v_e) / (1 +
 * sum w_e)
 */
#include "kept/policy.h"

#include <math.h>

#define EPSILON 1e-6

static double length(const float *x, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += (double)x[d] * x[d];
    return sqrt(sum);
}

static void merge(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const size_t size = (size_t)v->head_size;
    float *own = m->work, *w = own + m->n_kept, *sum = w + m->n_gone;
    kept_merge_nearest(v, m, m->to, w);
    for (int j = 0; j < m->n_kept; j++)
        own[j] = 1;
    for (int g = 0; g < m->n_gone; g++) {
        double e = length(h->value + (size_t)m->gone[g] * size, v->head_size);
        double t = length(h->value + (size_t)m->kept[m->to[g]] * size, v->head_size);
        w[g] = w[g] >= v->options[0] ? (float)(w[g] * e / (e + t + EPSILON)) : 0;
    }
    kept_merge_means(v, m, KEPT_MERGE_OWN, own, w, sum);
}

static const kept_option options[] = {
    {"at", 0, -1, 1, false, NULL, "least cosine of the keys for which a token is merged"},
};

const kept_merge kept_merge_merging = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "merging",
             .summary = "values go into those of the most similar kept keys, by their lengths",
             .paper = "kvpress MergingPress, after arXiv 2210.09461 and 2406.13035",
             .deviations = "protected tokens are targets too, as there; the share of tokens that "
                           "are merged (merge_fraction) is always 1",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .merge = merge,
};
