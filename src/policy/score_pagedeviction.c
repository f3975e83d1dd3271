/* pagedeviction: PagedEviction, arXiv 2509.04377: a token with a long value and a short key
 * matters,
 * ||v||_2 / ||k||_2. While decoding the paper drops the block whose mean is lowest: a wrapper's
 * business. A key of length 0 counts as the shortest positive one.
 */
#include "kept/policy.h"

#include <float.h>
#include <math.h>

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++) {
        size_t at = (size_t)i * (size_t)v->head_size;
        const float *key = h->key + at, *value = h->value + at;
        float k = sqrtf(kept_dot(key, key, v->head_size));
        float ratio = sqrtf(kept_dot(value, value, v->head_size)) / fmaxf(k, FLT_MIN);
        out[i] = fminf(ratio, FLT_MAX);
    }
}

const kept_score kept_score_pagedeviction = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "pagedeviction",
             .summary = "length of the value over the length of the key",
             .paper = "arXiv 2509.04377",
             .deviations = "token by token; the paper's blocks while decoding are a wrapper's"},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .weighs_values = true,
    .score = score,
};
