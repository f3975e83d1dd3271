/* blended: a token scores what it does plus the mean of what the heads of the layer give it, so
 * that heads differ less: the step before the allocation in the reference code of KVCompose, arXiv
 * 2509.05165 (add_mean_across_heads).
 *
 * Deviations: heads that no longer hold the token count 0 in the mean.
 */
#include "kept/policy.h"

enum { WEIGHT, N_CURSORS = KEPT_SCRATCH / 2 };

/* The positions of all heads are walked together. */
static void wrap(const kept_view *v, float *const *score)
{
    int32_t *at = (int32_t *)v->scratch;
    if (v->n_heads > N_CURSORS)
        return;
    for (int h = 0; h < v->n_heads; h++)
        at[h] = 0;
    for (;;) {
        int32_t pos = INT32_MAX;
        double sum = 0;
        for (int h = 0; h < v->n_heads; h++)
            if (at[h] < v->heads[h].n && v->heads[h].pos[at[h]] < pos)
                pos = v->heads[h].pos[at[h]];
        if (pos == INT32_MAX)
            return;
        for (int h = 0; h < v->n_heads; h++)
            if (at[h] < v->heads[h].n && v->heads[h].pos[at[h]] == pos)
                sum += score[h][at[h]];
        for (int h = 0; h < v->n_heads; h++)
            if (at[h] < v->heads[h].n && v->heads[h].pos[at[h]] == pos)
                score[h][at[h]++] += (float)(v->options[WEIGHT] * sum / v->n_heads);
    }
}

static const kept_option options[] = {
    {"weight", 1, 0, 1000, false, NULL, "of the mean; a token's own score has 1"},
};

const kept_wrapper kept_wrap_blended = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_WRAPPER,
             .name = "blended",
             .summary = "a token's score plus its mean over the heads of the layer",
             .paper = "arXiv 2509.05165; kvpress KVComposePress",
             .deviations = "heads that no longer hold the token count 0",
             .options = options,
             .n_options = 1},
    .wrap = wrap,
};
