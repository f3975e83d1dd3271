/* lagkv: LagKV, arXiv 2504.04704: after `sinks` tokens, partitions of `lag`. Each is normalised
 * channel by channel with the minimum and maximum of the next one; a token's information is the
 * standard deviation over channels, softmaxed over the partition; keys and values are averaged.
 * What is kept of a partition is decided inside it, so the score is the rank there over `lag`.
 * Sinks, the last whole partition and what follows it score 1.
 *
 * Equal scores rank the later token higher. A channel that is constant in the next partition says
 * nothing and is left out (the reference code divides by 0). Fewer than sinks + 2 lag tokens have
 * no partition to look at: sinks score 1, the others rise with their order, as in the reference
 * code.
 */
#include "kept/policy.h"

#include <math.h>

enum { SINKS, LAG, CROSS };

/* Adds half the softmax over rows [0, lag) of x of their deviation, as rows [lag, 2 lag) scale
 * channels, to out [lag]. */
static void add_information(const kept_view *v, const float *x, int lag, float *out)
{
    int size = v->head_size, used = 0;
    float *low = v->scratch + lag, *scale = low + size, *mask = scale + size, *y = mask + size;
    double top = -INFINITY, all = 0;
    for (int d = 0; d < size; d++)
        low[d] = scale[d] = x[lag * size + d];
    for (const float *r = x + lag * size; r < x + 2 * lag * size; r += size)
        for (int d = 0; d < size; d++) {
            low[d] = r[d] < low[d] ? r[d] : low[d];
            scale[d] = r[d] > scale[d] ? r[d] : scale[d];
        }
    for (int d = 0; d < size; d++) {
        bool varies = scale[d] > low[d];
        scale[d] = varies ? 1 / (scale[d] - low[d]) : 0;
        mask[d] = varies;
        used += varies;
    }
    for (int i = 0; i < lag; i++) {
        for (int d = 0; d < size; d++)
            y[d] = (x[i * size + d] - low[d]) * scale[d];
        float mean = kept_dot(y, mask, size) / fmaxf((float)used, 1);
        for (int d = 0; d < size; d++)
            y[d] = (y[d] - mean) * mask[d];
        v->scratch[i] = used > 1 ? sqrtf(kept_dot(y, y, size) / (float)(used - 1)) : 0;
        top = fmax(top, v->scratch[i]);
    }
    for (int i = 0; i < lag; i++)
        all += exp(v->scratch[i] - top);
    for (int i = 0; i < lag; i++)
        out[i] += (float)(exp(v->scratch[i] - top) / all / 2);
}

/* Ranks of x [lag] over lag, in its place. */
static void rank(const kept_view *v, int lag, float *x)
{
    float *from = v->scratch;
    for (int i = 0; i < lag; i++)
        from[i] = x[i];
    for (int i = 0; i < lag; i++) {
        int below = 0;
        for (int k = 0; k < i; k++)
            below += from[k] <= from[i];
        for (int k = i + 1; k < lag; k++)
            below += from[k] < from[i];
        x[i] = (float)below / (float)lag;
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int sinks = (int)v->options[SINKS], lag = (int)v->options[LAG], i = 0;
    bool enough = h->n >= sinks + 2 * lag;
    for (; i < h->n && i < sinks; i++)
        out[i] = 1;
    for (; enough && i + 2 * lag <= h->n; i += lag) {
        size_t at = (size_t)i * (size_t)v->head_size;
        for (int k = 0; k < lag; k++)
            out[i + k] = 0;
        add_information(v, h->key + at, lag, out + i);
        add_information(v, h->value + at, lag, out + i);
        if (v->options[CROSS] == 0)
            rank(v, lag, out + i);
    }
    for (; i < h->n; i++)
        out[i] = enough ? 1 : (float)(i - sinks) / (float)(h->n - sinks);
}

static const kept_option options[] = {
    {"sinks", 4, 0, 65536, true, NULL, "first tokens before the first partition"},
    {"lag", 128, 8, 1024, true, NULL, "tokens of a partition"},
    {"cross", 0, 0, 1, true, kept_off_on, "off: ranks inside a partition; on: scores as they are"},
};

const kept_score kept_score_lagkv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "lagkv",
             .summary = "spread of a token over channels, scaled by the partition after it",
             .paper = "arXiv 2504.04704",
             .deviations = "partitions are of live tokens; channels that are constant in the next "
                           "partition are left out",
             .options = options,
             .n_options = 3},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
