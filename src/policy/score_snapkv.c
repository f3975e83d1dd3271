/* snapkv: arXiv 2404.14469: the attention that the last `window` queries pay each token,
 * summed, then pooled over neighbouring tokens so that details around a hit survive with it.
 *
 * Pooling is over live tokens in the order of their positions, a centred window of `kernel` with
 * stride 1. As in the reference code, the queries' own tokens (the last `window` positions) do not
 * take part in the pooling of earlier ones: the two stretches are pooled apart. Beyond an edge, avg
 * counts zeros (the divisor is always `kernel`) and max counts nothing.
 *
 * Deviations: scores are summed over the query heads of a KV head before pooling, where the paper
 * keeps a cache per query head; the window's own tokens stay because of protect(recent=32), not
 * because of this score.
 */
#include "kept/policy.h"

enum { WINDOW, FOUR };

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_MASS,
                        .window = (int)options[WINDOW],
                        .split = kept_group_splits(options + FOUR)};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int32_t edge = v->next_pos - (int32_t)v->options[WINDOW];
    int n_old = 0;
    while (n_old < h->n && h->pos[n_old] < edge)
        n_old++;
    kept_group(v, h->mass, kept_group_splits(v->options + FOUR) ? v->group : 1, h->n, n_old, out);
}

static const kept_option options[] = {
    {"window", 32, 1, 65536, true, NULL, "last queries that vote"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_MAX, 7),
};

const kept_score kept_score_snapkv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "snapkv",
             .summary = "attention of the last window queries, pooled over neighbouring tokens",
             .paper = "arXiv 2404.14469",
             .deviations = "summed over the query heads of a KV head before pooling; the window's "
                           "own tokens stay through protect (keep recent >= window); avg pooling "
                           "counts zeros beyond an edge",
             .options = options,
             .n_options = 5},
    .plane = plane,
    .grouped = true,
    .comparable = true,
    .score = score,
};
