/* summary: chunk summaries. A dropped token joins the kept token nearest by position, which becomes
 * the mean of all that joined it, weighted by how many tokens each stands for:
 *
 *     c = sum c_i    k = sum c_i k_i / c    v = sum c_i v_i / c    bias = log c
 *
 * The bias gives it the weight of c tokens in the softmax: summaries of equal tokens change
 * nothing. A summary that is dropped later joins another with its count: chunks become coarser
 * chunks.
 */
#include "kept/policy.h"

#include <math.h>

enum { SPAN, KEYS, COUNT, GUARDED };

static void merge(const kept_view *v, const kept_merging *m)
{
    float *own = m->work, *w = own + m->n_kept, *sum = w + m->n_gone;
    for (int j = 0; j < m->n_kept; j++)
        own[j] = expf(m->old_bias[m->kept[j]]);
    for (int g = 0; g < m->n_gone; g++)
        w[g] = expf(m->old_bias[m->gone[g]]);
    kept_merge_neighbour(v, m, (int)v->options[SPAN], v->options[GUARDED] != 0, m->to);
    kept_merge_means(v, m, (int)v->options[KEYS], own, w, sum);
    for (int j = 0; j < m->n_kept && v->options[COUNT] != 0; j++)
        if (sum[j] > 0)
            m->bias[j] = logf(sum[j]);
}

static bool biases(const double *options)
{
    return options[COUNT] != 0;
}

static const kept_option options[] = {
    {"span", 0, 0, 1048576, true, NULL,
     "positions of a chunk: a token joins the nearest kept one of its chunk; 0: the nearest of "
     "all"},
    {"keys", KEPT_MERGE_UNROTATED, 0, 2, true, kept_merge_keys,
     "mean of keys before rotation, turned to the position of the kept one; of keys as stored; or "
     "its own key"},
    {"count", 1, 0, 1, true, kept_off_on, "a summary weighs as many tokens as it stands for"},
    {"guarded", 0, 0, 1, true, kept_off_on, "protected tokens take part too"},
};

const kept_merge kept_merge_summary = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "summary",
             .summary = "chunk summaries: means of the tokens around each kept one, with counts",
             .paper = "",
             .deviations = "",
             .options = options,
             .n_options = 4},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
    .biases = biases,
    .merge = merge,
};
