/* ada: AdaKV, arXiv 2407.11550 with its safeguard: the heads of a
 * layer share one budget. Their candidates compete in one list for it, after each head has taken
 * alpha of its even share from its own best. Layers get even budgets.
 *
 * Deviations: where candidates of two heads tie, the earlier head takes the slot. Scores of heads
 * that share no scale (norms, cosines) come here as z-scores per head: the engine sees to that.
 */
#include "kept/policy.h"

#include <math.h>

enum { ALPHA };

static void split(const kept_split *s, int *keep)
{
    int open[KEPT_MAX_LAYERS];
    double share[KEPT_MAX_LAYERS];
    for (int l = 0; l < s->n_layers; l++)
        share[l] = 1;
    kept_split_layers(s, share, open);
    for (int l = 0; l < s->n_layers; l++) {
        int first = l * s->n_heads;
        double least = floor(s->options[ALPHA] * open[l] / s->n_heads);
        for (int i = first; i < first + s->n_heads; i++)
            keep[i] = (int)fmin(s->n[i], least);
        kept_split_top(s, first, s->n_heads, open[l], keep);
    }
}

static const kept_option options[] = {
    {"alpha", 0.2, 0, 1, false, NULL, "part of its even share that a head gets whatever it scores"},
};

const kept_allocator kept_alloc_ada = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "ada",
             .summary = "the heads of a layer compete for one budget, layers get even ones",
             .paper = "arXiv 2407.11550",
             .deviations = "the earlier head wins ties; scores that heads cannot compare (knorm, "
                           "keydiff) are turned into z-scores per head first; a score shared by "
                           "the layer (tova) gets the mean of its heads' budgets",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .layerwise = true,
    .even_layers = true,
    .split = split,
};
