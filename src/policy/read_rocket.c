/* rocket: the second stage of RocketKV (arXiv 2502.14051, section 3.3, hybrid attention): pages by
 *
 *     sum over the `channels` channels c with the largest |q_c| of  q_c (q_c > 0 ? M_c : m_c)
 *
 * with m_c and M_c the least and the greatest value of the channel over the page's keys. */
#include "kept/policy.h"

#include <math.h>

enum { CHANNELS = KEPT_N_READ_OPTIONS, N_OPTIONS };

static void describe(const float *key, int n, int head_size, float *note)
{
    for (int d = 0; d < head_size; d++) {
        float low = key[d], high = key[d];
        for (int i = 1; i < n; i++) {
            low = fminf(low, key[(size_t)i * (size_t)head_size + (size_t)d]);
            high = fmaxf(high, key[(size_t)i * (size_t)head_size + (size_t)d]);
        }
        note[d] = low;
        note[head_size + d] = high;
    }
}

/* Channels with a larger |q|; of equal ones the earlier is the larger. */
static int rank(const float *q, int head_size, int d)
{
    int n = 0;
    for (int i = 0; i < head_size; i++)
        n += fabsf(q[i]) > fabsf(q[d]) || (i < d && fabsf(q[i]) == fabsf(q[d]));
    return n;
}

static void weigh(const double *options, const float *q, int head_size, float *w)
{
    const double part = options[CHANNELS] * head_size;
    for (int d = 0; d < head_size; d++) {
        const float x = rank(q, head_size, d) < part ? q[d] : 0;
        w[d] = x < 0 ? x : 0;
        w[head_size + d] = x > 0 ? x : 0;
    }
}

static const kept_option options[] = {
    KEPT_READ_OPTIONS(0.125, 3, 0, KEPT_READ_SUM),
    {"channels", 0.5, 0, 1, false, NULL, "part of the query's channels that pages are judged by"},
};
const kept_read kept_read_rocket = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_READ,
             .name = "rocket",
             .summary = "pages by a bound from the query's largest channels; nothing is evicted",
             .paper = "arXiv 2502.14051 (second stage)",
             .deviations =
                 "pages of 64 slots and half of the channels (the paper splits its ratio "
                 "between both); channels are each query head's own; notes are read whole; "
                 "a part of the pages held; the newest page is always read",
             .options = options,
             .n_options = N_OPTIONS},
    .note = 2,
    .bounds = true,
    .describe = describe,
    .weigh = weigh,
};
