/* knorm: arXiv 2406.11430, section 3: keys of small norm attract attention, so the score is
 * -||k||_2. Rotation does not change a norm, so stored keys will do.
 */
#include "kept/policy.h"

#include <math.h>

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)v->head_size;
        double sum = 0;
        for (int d = 0; d < v->head_size; d++)
            sum += (double)k[d] * k[d];
        out[i] = -(float)sqrt(sum);
    }
}

const kept_score kept_score_knorm = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "knorm",
             .summary = "negative length of the key",
             .paper = "arXiv 2406.11430, section 3",
             .deviations = "no layer is skipped"},
    .needs = KEPT_NEED_KEYS,
    .score = score,
};
