/* kvzip: arXiv 2505.23416: the model is asked to repeat the context, chunk by chunk, over the whole
 * cache (kept_seq_echo); a token's score is the largest attention probability that any of these
 * queries, in any query head of the KV head, pays it. What no repetition needs can go, whatever is
 * asked later. The paper keeps the best of all layers and heads together: kvzip+global.
 *
 * Deviations: a query's softmax runs over the whole cache and the repetition so far, as in the
 * paper's definition; its chunked form takes the chunk and the repetition only. The request is
 * plain text without a chat template. Tokens decoded after the repetition score 0.
 */
#include "kept/policy.h"

#include <string.h>

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_ECHO};
}

static void score(const kept_view *v, int head, float *out)
{
    memcpy(out, v->heads[head].mass, (size_t)v->heads[head].n * sizeof *out);
}

const kept_score kept_score_kvzip = {
    .part =
        {.abi = KEPT_POLICY_ABI,
         .axis = KEPT_AXIS_SCORE,
         .name = "kvzip",
         .summary = "most attention that repeating the context pays a token; extra forward passes",
         .paper = "arXiv 2505.23416",
         .deviations =
             "softmax over the whole cache and the repetition, not over the chunk alone; no chat "
             "template around the request; tokens decoded later score 0"},
    .plane = plane,
    .comparable = true,
    .score = score,
};
