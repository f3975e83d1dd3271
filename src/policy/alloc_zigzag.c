/* zigzag: ZigZagKV, arXiv 2412.09036: layers get slots in proportion to their uncertainty, the
 * least number of slots that carries `part` of a head's score (LMBA), averaged over the heads of
 * the layer. Every layer gets at least `floor` of its even share before that. Heads of a layer hold
 * equally many slots.
 *
 * Deviations: of the score in hand instead of the attention of the last query; only candidates
 * count; the paper's least budget is a number of tokens.
 */
#include "kept/policy.h"

enum { PART, FLOOR };

static void split(const kept_split *s, int *keep)
{
    double share[KEPT_MAX_LAYERS], sum = 0, least = s->options[FLOOR];
    int open[KEPT_MAX_LAYERS];
    for (int l = 0; l < s->n_layers; l++) {
        share[l] = 0;
        for (int i = l * s->n_heads; i < (l + 1) * s->n_heads; i++)
            share[l] += kept_split_cover(s, i, s->options[PART]);
        sum += share[l];
    }
    for (int l = 0; l < s->n_layers; l++)
        share[l] = least / s->n_layers + (1 - least) * (sum > 0 ? share[l] / sum : 1);
    kept_split_layers(s, share, open);
    for (int l = 0; l < s->n_layers; l++)
        kept_split_fill(s, l * s->n_heads, s->n_heads, s->n, open[l], keep);
}

static const kept_option options[] = {
    {"part", 0.9, 0, 1, false, NULL, "part of a head's score that its slots must carry"},
    {"floor", 0.2, 0, 1, false, NULL, "part of its even share that every layer gets"},
};

const kept_allocator kept_alloc_zigzag = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "zigzag",
             .summary = "layers that need many slots to carry their score get more",
             .paper = "arXiv 2412.09036",
             .deviations = "of the score in hand instead of the last query's attention; the least "
                           "budget of a layer is a part of its even share",
             .options = options,
             .n_options = 2},
    .needs_scores = true,
    .cascades = true,
    .split = split,
};
