/* duo: DuoAttention, arXiv 2410.10819: a trained table says which heads need the whole past.
 * Streaming heads hold a window of sinks + recent slots, retrieval heads all of theirs. As many
 * heads as the budget holds are retrieval heads, those with the highest alpha (the earlier head on
 * ties); the one that does not fit whole gets what is left. Where the budget does not even hold the
 * windows, all heads hold the same.
 *
 * Trained kind "duo": "alpha" [model layers][n_kv_heads], 0 (streaming) to 1 (retrieval). Without a
 * table that covers the layers all heads hold the same.
 *
 * Deviations: the paper fixes the share of retrieval heads (half of them with grouped queries);
 * here it follows from the budget. Which slots a streaming head keeps is the score's business:
 * recency with protect(sinks=64) keeps those that the paper does.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { SINKS, RECENT };

static void split(const kept_split *s, int *keep)
{
    const float *alpha = kept_split_table(s, "alpha", 0, 1);
    double window = alpha ? s->options[SINKS] + s->options[RECENT] : INFINITY;
    int64_t left = kept_split_open(s);
    int n = s->n_layers * s->n_heads;
    for (int i = 0; i < n; i++) {
        s->scratch[i] = (int)fmin(s->n[i], fmax(0, window - s->n_protected[i]));
        float x = alpha ? alpha[s->layer[i / s->n_heads] * s->n_heads + i % s->n_heads] : 0;
        s->share[i] = isfinite(x) ? x : -INFINITY;
    }
    kept_split_fill(s, 0, n, s->scratch, left, keep);
    for (int i = 0; i < n; i++)
        left -= keep[i];
    memset(s->scratch, 0, (size_t)n * sizeof *s->scratch); /* from here on: has its turn had */
    for (int turn = 0; turn < n && left > 0; turn++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!s->scratch[i] && (best < 0 || s->share[i] > s->share[best]))
                best = i;
        int64_t more = s->n[best] - keep[best];
        s->scratch[best] = 1;
        keep[best] += (int)(more < left ? more : left);
        left -= more;
    }
}

static const kept_option options[] = {
    {"sinks", 64, 0, 1048576, true, NULL, "first tokens of a streaming head's window"},
    {"recent", 256, 0, 1048576, true, NULL, "last tokens of a streaming head's window"},
};

const kept_allocator kept_alloc_duo = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "duo",
             .summary = "streaming heads hold a window, retrieval heads all; a table says which",
             .paper = "arXiv 2410.10819",
             .deviations = "the budget decides how many heads are retrieval heads; below the "
                           "windows all heads hold the same",
             .options = options,
             .n_options = 2},
    .trained = "duo",
    .layerwise = true,
    .split = split,
};
