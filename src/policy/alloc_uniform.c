/* uniform: every head of every layer may hold equally many slots, protected ones included. */
#include "kept/policy.h"

static void split(const kept_split *s, int *keep)
{
    int n = s->n_layers * s->n_heads;
    double even = (double)s->total / n;
    for (int i = 0; i < n; i++)
        s->share[i] = even > s->n_protected[i] ? even - s->n_protected[i] : 0;
    kept_split_shares(s, s->share, keep);
}

const kept_allocator kept_alloc_uniform = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "uniform",
             .summary = "every head of every layer holds equally many slots",
             .paper = "",
             .deviations = ""},
    .layerwise = true,
    .even_layers = true,
    .split = split,
};
