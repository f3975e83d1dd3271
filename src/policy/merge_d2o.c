/* d2o: D2O. A dropped token joins the kept one whose key has the greatest cosine u to its own, if u
 * is at least tau; keys and values become means with weights e^u, that of the kept token e:
 *
 *     w_c = e / (e + sum e^u)    w_e = e^u / (e + sum e^u)    k_c <- w_c k_c + sum w_e k_e, v alike
 */
#include "kept/policy.h"

#include <math.h>

enum { KEYS, COUNT };

static void merge(const kept_view *v, const kept_merging *m)
{
    float *own = m->work, *w = own + m->n_kept, *sum = w + m->n_gone;
    double tau = 0;
    kept_merge_nearest(v, m, m->to, w);
    for (int g = 0; g < m->n_gone; g++)
        tau += w[g];
    /* Of equal ones, all are at least their mean; rounding must not say otherwise. */
    tau = tau / m->n_gone - 1e-6;
    for (int j = 0; j < m->n_kept; j++)
        own[j] = expf(1);
    for (int g = 0; g < m->n_gone; g++)
        w[g] = w[g] >= tau ? expf(w[g]) : 0;
    kept_merge_means(v, m, (int)v->options[KEYS], own, w, sum);
    if (v->options[COUNT] == 0)
        return;
    for (int j = 0; j < m->n_kept; j++)
        sum[j] = expf(m->old_bias[m->kept[j]]);
    for (int g = 0; g < m->n_gone; g++)
        sum[m->to[g]] += w[g] > 0 ? expf(m->old_bias[m->gone[g]]) : 0;
    for (int j = 0; j < m->n_kept; j++)
        m->bias[j] = logf(sum[j]);
}

static bool biases(const double *options)
{
    return options[COUNT] != 0;
}

static const kept_option options[] = {
    {"keys", KEPT_MERGE_ROTATED, 0, 2, true, kept_merge_keys, "which keys become means"},
    {"count", 0, 0, 1, true, kept_off_on, "a mean weighs as many tokens as it stands for"},
};

const kept_merge kept_merge_d2o = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "d2o",
             .summary = "similar tokens become means with their most similar kept token",
             .paper = "arXiv 2406.13035",
             .deviations = "the threshold is the mean cosine of the tokens dropped at once, which "
                           "is the paper's at its first step; later ones have no memory of it, so "
                           "a token dropped alone is always merged; only the merging: layers are "
                           "the allocator's business; keys=rotated, as in the paper, mixes phases",
             .options = options,
             .n_options = 2},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
    .biases = biases,
    .merge = merge,
};
