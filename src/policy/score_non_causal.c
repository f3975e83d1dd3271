/* non-causal: the other half of Compactor, arXiv 2507.08143: attention inside blocks of tokens
 * without a causal mask, summed over the queries of the block, times ||v||_2, averaged over three
 * neighbours, as z-scores. Recorded while the prompt is read.
 */
#include "kept/policy.h"

enum { BLOCK };

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_LOCAL, .window = (int)options[BLOCK]};
}

static const kept_option options[] = {
    {"block", 256, 16, 1024, true, NULL, "positions that see each other"},
};

const kept_score kept_score_non_causal = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "non-causal",
             .summary = "attention inside blocks, later tokens seen too, times value length",
             .paper = "arXiv 2507.08143",
             .deviations =
                 "logits over sqrt(D), which the code leaves out; blocks by position from "
                 "0 on, sinks among them; a block that chunks of the prompt cut counts part by "
                 "part, and a decoded token sees itself; z-scores of a head's unprotected tokens",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_VALUES,
    .plane = plane,
    .comparable = true,
    .weighs_values = true,
    .score = kept_block_attention,
};
