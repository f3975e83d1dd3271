/* oracle: the attention probability that the queries to come will pay a token, summed over them:
 * the question and the answer, read ahead on a copy of the cache (kept_seq_foresee). An upper bound
 * for the other scores of attention, not a method: the future must be known, so the engine refuses
 * it where nobody said what it will be.
 *
 * The softmax of a future query runs over the full cache and over what it adds itself. What reading
 * ahead costs is in no account.
 */
#include "kept/policy.h"

#include <string.h>

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_FUTURE};
}

static void score(const kept_view *v, int head, float *out)
{
    memcpy(out, v->heads[head].mass, (size_t)v->heads[head].n * sizeof *out);
}

const kept_score kept_score_oracle = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "oracle",
             .summary = "upper bound: attention of the queries to come; only where they are known",
             .paper = "",
             .deviations =
                 "not a method: it reads the question and the answer ahead, at no cost in "
                 "any account"},
    .plane = plane,
    .comparable = true,
    .score = score,
};
