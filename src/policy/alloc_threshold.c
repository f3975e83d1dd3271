/* threshold: a head holds the slots that score `at` or more, so what is held follows from the data
 * (KVzap, arXiv 2601.07891; DMS, arXiv 2506.05345). Where more than the budget pass, the threshold
 * rises for all heads together until the budget holds; with @100% the data alone decides.
 *
 * Scores that heads cannot compare come as z-scores per head: `at` is in standard deviations then.
 *
 * Deviations: the papers have no budget. Their delay window is protect(recent=...). An eviction
 * compares the scores of that moment; those that depend on what is live (a softmax over slots,
 * z-scores) rise or fall with it.
 */
#include "kept/policy.h"

enum { AT };

static void split(const kept_split *s, int *keep)
{
    int n = s->n_layers * s->n_heads;
    int64_t open = kept_split_open(s), passed = 0;
    for (int i = 0; i < n; i++) {
        keep[i] = 0;
        for (int k = 0; k < s->n[i]; k++)
            keep[i] += s->score[i][k] >= s->options[AT];
        passed += keep[i];
    }
    if (passed <= open)
        return;
    for (int i = 0; i < n; i++)
        keep[i] = 0;
    kept_split_top(s, 0, n, open, keep);
}

static const kept_option options[] = {
    {"at", 0, -1e9, 1e9, false, NULL, "the least score that stays"},
};

const kept_allocator kept_alloc_threshold = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "threshold",
             .summary = "what scores enough stays, up to the budget",
             .paper = "arXiv 2601.07891, 2506.05345 (allocation only)",
             .deviations = "where more pass than the budget holds, the threshold rises; ties, "
                           "z-scores and shared scores as for ada",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .data_dependent = true,
    .cascades = true,
    .split = split,
};
