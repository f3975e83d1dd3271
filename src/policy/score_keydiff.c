/* keydiff: arXiv 2504.15364: keys that point away from the others carry information that
 * the others do not, so the score is -cos(k_i, mean_j k_j/||k_j||).
 *
 * Keys as stored (rotated), protected ones included in the mean. A zero key has no direction: it
 * adds nothing to the mean and its cosine counts as 0. The paper evicts in blocks of 128 while it
 * prefills: that is the schedule, see chunks.
 */
#include "kept/policy.h"

#include <math.h>

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size;
    float *mean = v->scratch; /* a sum would do: the cosine does not see its length */
    double sum[512] = {0};
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        out[i] = sqrtf(kept_dot(k, k, size));
        float inverse = out[i] > 0 ? 1 / out[i] : 0;
        for (int d = 0; d < size; d++)
            sum[d] += k[d] * inverse;
    }
    for (int d = 0; d < size; d++)
        mean[d] = (float)sum[d];
    float length = sqrtf(kept_dot(mean, mean, size));
    for (int i = 0; i < h->n; i++) {
        float both = out[i] * length;
        out[i] = both > 0 ? -kept_dot(h->key + (size_t)i * (size_t)size, mean, size) / both : 0;
    }
}

const kept_score kept_score_keydiff = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "keydiff",
             .summary = "negative cosine between the key and the mean direction of all keys",
             .paper = "arXiv 2504.15364",
             .deviations = "evicts when the schedule says so (the paper: blocks of 128 while "
                           "prefilling, see chunks)"},
    .needs = KEPT_NEED_KEYS,
    .score = score,
};
