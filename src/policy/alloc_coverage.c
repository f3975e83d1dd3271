/* coverage: a head holds the fewest slots that carry `part` of its score, so heads that attend to
 * little hold little: top-p, as arXiv 2502.02770 (Twilight) and 2310.01801 (FastGen) judge
 * attention heads. Where that is more than the budget, the budget is split in proportion to it;
 * with @100% the data alone decides.
 *
 * Deviations: those papers choose what is read, and a policy per head; here it is what a head
 * keeps. Only candidates count. Scores of a head that has negative ones count from its lowest.
 */
#include "kept/policy.h"

enum { PART };

static void split(const kept_split *s, int *keep)
{
    int n = s->n_layers * s->n_heads;
    int64_t open = kept_split_open(s), wanted = 0;
    for (int i = 0; i < n; i++) {
        s->share[i] = keep[i] = kept_split_cover(s, i, s->options[PART]);
        wanted += keep[i];
    }
    if (wanted > open)
        kept_split_shares(s, s->share, keep);
}

static const kept_option options[] = {
    {"part", 0.95, 0, 1, false, NULL, "part of a head's score that its slots must carry"},
};

const kept_allocator kept_alloc_coverage = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "coverage",
             .summary = "the fewest slots that carry most of a head's score, up to the budget",
             .paper = "arXiv 2502.02770, 2310.01801 (top-p of a head)",
             .deviations = "decides what is kept, not what is read; scores of a head that has "
                           "negative ones count from its lowest",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .data_dependent = true,
    .cascades = true,
    .split = split,
};
