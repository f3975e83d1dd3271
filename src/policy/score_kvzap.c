/* kvzap: arXiv 2601.07891: a small network, linear or of two layers, reads the hidden state that
 * the layer makes keys and values of, and says the logarithm of the token's kvzip-plus score in
 * each KV head, so that no repetition is needed. The engine runs it as tokens come (a state plane);
 * the score hands its answers on. Trained for a model by `kept train kvzap`.
 *
 * Deviations: the paper drops what falls below a threshold once it is 128 tokens old; here that is
 * the allocator threshold with a protected recent window, and other allocators may be used.
 */
#include "kept/policy.h"

#include <string.h>

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_PREDICTED};
}

static void score(const kept_view *v, int head, float *out)
{
    memcpy(out, v->heads[head].mass, (size_t)v->heads[head].n * sizeof *out);
}

const kept_score kept_score_kvzap = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "kvzap",
             .summary = "logarithm of the kvzip-plus score, predicted from the hidden state",
             .paper = "arXiv 2601.07891",
             .deviations =
                 "the paper's threshold after 128 tokens is the allocator threshold with a "
                 "protected recent window; predicts kvzip-plus as it is here"},
    .plane = plane,
    .trained = "kvzap",
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
