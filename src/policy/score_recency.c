/* recency: later is better. With protected sinks this is StreamingLLM, without them a sliding
 * window.
 */
#include "kept/policy.h"

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++)
        out[i] = (float)h->pos[i];
}

const kept_score kept_score_recency = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "recency",
             .summary = "the position itself: the latest tokens stay",
             .paper = "arXiv 2309.17453",
             .deviations = "sinks are the protection's business: see streaming and window"},
    .any_order = true,
    .comparable = true,
    .score = score,
};
