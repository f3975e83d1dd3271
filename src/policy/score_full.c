/* full: the reference. Nothing is ever evicted, so this score is never asked. */
#include "kept/policy.h"

static void score(const kept_view *v, int head, float *out)
{
    for (int i = 0; i < v->heads[head].n; i++)
        out[i] = 0;
}

const kept_score kept_score_full = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "full",
             .summary = "the full cache: no eviction, no budget",
             .paper = "",
             .deviations = ""},
    .comparable = true,
    .score = score,
};
