/* mean-variance: the token score of CAKE, arXiv 2503.12491: the mean of the attention that the last
 * `window` queries pay the token plus gamma times its variance over them, then pooled.
 *
 * Deviations: attention is over the slots that are live now; the population variance. The layers'
 * budgets are the allocator's business: cake.
 */
#include "kept/policy.h"

#include <string.h>

enum { WINDOW, GAMMA };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t n = (size_t)h->n, all = (size_t)v->group * n;
    float *made = v->scratch, *square = made + all; /* [G][n], [n] */
    float gamma = (float)v->options[GAMMA], count = (float)v->n_recent;
    int old = 0;
    memset(made, 0, all * sizeof *made);
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    for (int g = 0; g < v->group; g++) {
        float *mean = made + (size_t)g * n;
        const float *p = h->prob + (size_t)g * n;
        for (int t = 0; t < v->n_recent; t++)
            for (size_t i = 0; i < n; i++)
                mean[i] += p[(size_t)t * all + i] / count;
        memset(square, 0, n * sizeof *square);
        for (int t = 0; t < v->n_recent; t++)
            for (size_t i = 0; i < n; i++) {
                float x = p[(size_t)t * all + i] - mean[i];
                square[i] += x * x;
            }
        for (size_t i = 0; i < n; i++)
            mean[i] += gamma * square[i] / count;
    }
    kept_group(v, made, v->group, h->n, old, out);
}

static const kept_option options[] = {
    {"window", 32, 1, KEPT_MAX_RECENT, true, NULL, "last queries that vote"},
    {"gamma", 200, 0, 1000000, false, NULL, "what the variance counts beside the mean"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_MEAN, KEPT_POOL_AVG, 5),
};

const kept_score kept_score_mean_variance = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "mean-variance",
             .summary = "mean attention of the last window queries plus gamma times its variance",
             .paper = "arXiv 2503.12491",
             .deviations = "over the slots that are live now; the population variance",
             .options = options,
             .n_options = 6},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .score = score,
};
