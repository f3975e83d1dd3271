/* global: one flat top-k over the candidates of all layers and heads, as KVzip allocates (arXiv
 * 2505.23416; only its allocation, not its score). alpha > 0 first gives every head
 * that part of its even share from its own best.
 *
 * Deviations: as for ada, the earlier layer and head wins ties, and scores that heads cannot
 * compare come as z-scores per head.
 */
#include "kept/policy.h"

#include <math.h>

enum { ALPHA };

static void split(const kept_split *s, int *keep)
{
    int n = s->n_layers * s->n_heads;
    int64_t open = kept_split_open(s), candidates = 0;
    double least = floor(s->options[ALPHA] * (double)open / n);
    for (int i = 0; i < n; i++) {
        keep[i] = (int)fmin(s->n[i], least);
        candidates += s->n[i];
    }
    kept_split_top(s, 0, n, open < candidates ? open : candidates, keep);
}

static const kept_option options[] = {
    {"alpha", 0, 0, 1, false, NULL, "part of its even share that a head gets whatever it scores"},
};

const kept_allocator kept_alloc_global = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "global",
             .summary = "all heads of all layers compete for one budget",
             .paper = "arXiv 2505.23416 (allocation only)",
             .deviations = "ties, z-scores and shared scores as for ada",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .cascades = true,
    .split = split,
};
