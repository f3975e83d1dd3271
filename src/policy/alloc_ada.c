/* ada: AdaKV, arXiv 2407.11550, algorithm 1 with the safeguard of its section 4: the heads of a
 * layer share one budget. Their candidates compete in one list for it, after each head has taken
 * alpha of its even share from its own best. Layers get even budgets.
 *
 * Deviations: where candidates of two heads tie, the earlier head takes the slot. Scores of heads
 * that share no scale (norms, cosines) come here as z-scores per head: the engine sees to that.
 */
#include "kept/policy.h"

#include <math.h>

enum { ALPHA };

/* Open slots of each layer: even, protected slots included. */
static void split_layers(const kept_split *s, int *open)
{
    int n[KEPT_MAX_LAYERS], n_protected[KEPT_MAX_LAYERS], scratch[KEPT_MAX_LAYERS];
    double share[KEPT_MAX_LAYERS];
    kept_split layers = {.n_layers = s->n_layers,
                         .n_heads = 1,
                         .n = n,
                         .n_protected = n_protected,
                         .total = s->total,
                         .scratch = scratch};
    for (int l = 0; l < s->n_layers; l++) {
        n[l] = n_protected[l] = 0;
        for (int i = l * s->n_heads; i < (l + 1) * s->n_heads; i++) {
            n[l] += s->n[i];
            n_protected[l] += s->n_protected[i];
        }
        share[l] = fmax(0, (double)s->total / s->n_layers - n_protected[l]);
    }
    kept_split_shares(&layers, share, open);
}

static void split(const kept_split *s, int *keep)
{
    int open[KEPT_MAX_LAYERS];
    split_layers(s, open);
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
             .paper = "arXiv 2407.11550, algorithm 1",
             .deviations = "the earlier head wins ties; scores that heads cannot compare (knorm, "
                           "keydiff) are turned into z-scores per head first; a score shared by "
                           "the layer (tova) gets the mean of its heads' budgets",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .split = split,
};
