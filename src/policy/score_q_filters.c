/* q-filters: Q-Filters, arXiv 2503.02812: the queries of a head lie along one direction f, found
 * once per model, so that a key gets the more attention on average the further it points along f:
 * the score is <k, f>, f being the first right-singular vector of the queries, turned so that the
 * mean query points along it. (Published filters point the other way, hence -<k, f> in their code.)
 * Keys and queries are rotated ones.
 */
#include "kept/policy.h"

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    const float *filter = kept_view_trained(v, "filter", v->head_size, head);
    for (int i = 0; i < h->n; i++)
        out[i] =
            filter ? kept_dot(h->key + (size_t)i * (size_t)v->head_size, filter, v->head_size) : 0;
}

const kept_score kept_score_q_filters = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "q-filters",
             .summary = "how far the key points along the main direction of the head's queries",
             .paper = "arXiv 2503.02812",
             .deviations = "one direction for the query heads of a KV head together"},
    .needs = KEPT_NEED_KEYS,
    .trained = "qfilters",
    .score = score,
};
