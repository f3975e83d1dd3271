/* pyramid: PyramidKV, arXiv 2406.02069: the budget of a layer falls linearly from the
 * first to the last. With c the mean number of unprotected slots per head, the last layer gets
 * min = c / beta, the first max = 2c - min, and layer l gets max - l (max - min) / (L - 1).
 *
 * Deviations: the reference code drops what is over where a layer has fewer tokens than its share,
 * and what floor division leaves; here it goes to the other layers, in proportion. L counts the
 * layers that evict (layers with a sliding window are left alone).
 */
#include "kept/policy.h"

enum { BETA };

static void split(const kept_split *s, int *keep)
{
    double min = 1 / s->options[BETA], max = 2 - min;
    double step = s->n_layers > 1 ? (max - min) / (s->n_layers - 1) : 0;
    for (int l = 0; l < s->n_layers; l++)
        for (int h = 0; h < s->n_heads; h++)
            s->share[l * s->n_heads + h] = s->n_layers > 1 ? max - l * step : 1;
    kept_split_shares(s, s->share, keep);
}

static const kept_option options[] = {
    {"beta", 20, 1, 1000000, false, NULL, "mean share divided by the last layer's share"},
};

const kept_allocator kept_alloc_pyramid = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "pyramid",
             .summary = "the budget falls linearly from the first layer to the last",
             .paper = "arXiv 2406.02069",
             .deviations = "what a clipped layer or rounding leaves over goes to the other layers; "
                           "only unprotected slots follow the slope",
             .options = options,
             .n_options = 1},
    .layerwise = true,
    .split = split,
};
