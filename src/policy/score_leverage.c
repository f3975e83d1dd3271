/* leverage: one half of Compactor, arXiv 2507.08143: statistical leverage of keys before rotation.
 * X: the keys, less their mean, times a Gaussian matrix [D][sketch] / sqrt(sketch); the score is
 * diag(X (X'X + 0.01 I)^-1 X'), as z-scores. It finds keys that the others do not span.
 */
#include "kept/policy.h"

enum { SKETCH };

static void score(const kept_view *v, int head, float *out)
{
    kept_key_leverage(v, head, (int)v->options[SKETCH], out);
}

static const kept_option options[] = {
    {"sketch", 48, 0, 128, true, NULL, "random directions that keys are projected on, 0: none"},
};

const kept_score kept_score_leverage = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "leverage",
             .summary = "how far the key stands out from what the other keys span",
             .paper = "arXiv 2507.08143",
             .deviations = "mean, matrix and z-scores are of a head's unprotected tokens; a sketch "
                           "as wide as a key is none; the ridge 0.01 as in kvpress",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_KEYS0,
    .comparable = true,
    .score = score,
};
