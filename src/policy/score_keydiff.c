/* keydiff: arXiv 2504.15364, section 3: keys that point away from the others carry information that
 * the others do not, so the score is -cos(k_i, mean_j k_j/||k_j||).
 *
 * Keys as stored (rotated), protected ones included in the mean. A zero key has no direction: it
 * adds nothing to the mean and its cosine counts as 0. The paper evicts in blocks of 128 while it
 * prefills: that is the schedule, see chunks.
 */
#include "kept/policy.h"

#include <math.h>

static double length(const float *k, int n)
{
    double sum = 0;
    for (int d = 0; d < n; d++)
        sum += (double)k[d] * k[d];
    return sqrt(sum);
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size;
    float *mean = v->scratch; /* a sum would do: the cosine does not see its length */
    for (int d = 0; d < size; d++)
        mean[d] = 0;
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        double l = length(k, size);
        for (int d = 0; d < size && l > 0; d++)
            mean[d] += (float)(k[d] / l);
    }
    double mean_length = length(mean, size);
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        double dot = 0, l = length(k, size) * mean_length;
        for (int d = 0; d < size; d++)
            dot += (double)k[d] * mean[d];
        out[i] = l > 0 ? -(float)(dot / l) : 0;
    }
}

const kept_score kept_score_keydiff = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "keydiff",
             .summary = "negative cosine between the key and the mean direction of all keys",
             .paper = "arXiv 2504.15364, section 3",
             .deviations = "evicts when the schedule says so (the paper: blocks of 128 while "
                           "prefilling, see chunks)"},
    .needs = KEPT_NEED_KEYS,
    .score = score,
};
