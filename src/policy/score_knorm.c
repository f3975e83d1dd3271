/* knorm: arXiv 2406.11430: keys of small norm attract attention, so the score is
 * -||k||_2. Rotation does not change a norm, so stored keys will do.
 */
#include "kept/policy.h"

#include <math.h>

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)v->head_size;
        out[i] = -sqrtf(kept_dot(k, k, v->head_size));
    }
}

const kept_score kept_score_knorm = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "knorm",
             .summary = "negative length of the key",
             .paper = "arXiv 2406.11430",
             .deviations = "no layer is skipped"},
    .needs = KEPT_NEED_KEYS,
    .score = score,
};
