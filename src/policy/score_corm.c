/* corm: CORM, arXiv 2404.15949: a token is worth keeping if any recent query needed it. A query
 * that sees t tokens needs those that get at least 1/t of its attention; the score counts how many
 * of the last `window` queries needed the token, over the query heads of the KV head.
 *
 * Deviations: the paper drops what no recent query needed and lets the size follow from that
 * (threshold(at=1) does it); under a budget what fewer queries needed goes first. Attention is over
 * the slots that are live now.
 */
#include "kept/policy.h"

enum { WINDOW };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++)
        out[i] = 0;
    for (int t = 0, seen = 0; t < v->n_recent; t++) {
        while (seen < h->n && h->pos[seen] <= v->next_pos - v->n_recent + t)
            seen++;
        for (int g = 0; g < v->group; g++) {
            const float *p = h->prob + ((size_t)t * (size_t)v->group + (size_t)g) * (size_t)h->n;
            for (int i = 0; i < seen; i++)
                out[i] += p[i] * (float)seen >= 1;
        }
    }
}

static const kept_option options[] = {
    {"window", 64, 1, KEPT_MAX_RECENT, true, NULL, "last queries that vote"},
};

const kept_score kept_score_corm = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "corm",
             .summary = "how many of the last window queries paid the token more than its share",
             .paper = "arXiv 2404.15949",
             .deviations = "the paper keeps what any of 256 queries needed, whatever that adds up "
                           "to; here 64 vote (the cost is slots times queries) and the budget "
                           "decides",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .comparable = true,
    .score = score,
};
