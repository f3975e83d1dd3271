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

enum { WINDOW, KERNEL, POOL };

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = (int)options[WINDOW]};
}

/* Pools x[0..n) into out. */
static void pool(const float *x, int n, int kernel, bool max, float *out)
{
    for (int i = 0; i < n; i++) {
        int low = i - kernel / 2, high = low + kernel;
        low = low < 0 ? 0 : low;
        high = high > n ? n : high;
        float best = x[i];
        double sum = 0; /* exact for floats of like size, so that equal windows tie */
        for (int j = low; j < high; j++) {
            best = x[j] > best ? x[j] : best;
            sum += x[j];
        }
        out[i] = max ? best : (float)(sum / kernel);
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int32_t edge = v->next_pos - (int32_t)v->options[WINDOW];
    int kernel = (int)v->options[KERNEL], n_old = 0;
    bool max = v->options[POOL] == 0;
    while (n_old < h->n && h->pos[n_old] < edge)
        n_old++;
    pool(h->mass, n_old, kernel, max, out);
    pool(h->mass + n_old, h->n - n_old, kernel, max, out + n_old);
}

static const char *const pools[] = {"max", "avg", NULL};
static const kept_option options[] = {
    {"window", 32, 1, 65536, true, NULL, "last queries that vote"},
    {"kernel", 7, 1, 1023, true, NULL, "tokens pooled together, 1: no pooling"},
    {"pool", 0, 0, 1, true, pools, "max or mean of the pooled tokens"},
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
             .n_options = 3},
    .plane = plane,
    .comparable = true,
    .score = score,
};
