/* quest: pages by the greatest score that any of their keys could have. The note holds minimum m_c
 * and maximum M_c of every channel over the page's keys; the bound is
 *
 *     sum_c max(q_c m_c, q_c M_c)  =  sum_c min(q_c, 0) m_c + max(q_c, 0) M_c
 *
 * (Quest, arXiv 2406.10774, section 3.3). It is a scalar product because the sign of q_c says which
 * of the two is the greater. */
#include "kept/policy.h"

static void describe(const float *key, int n, int head_size, float *note)
{
    for (int d = 0; d < head_size; d++)
        note[d] = note[head_size + d] = key[d];
    for (int i = 1; i < n; i++)
        for (int d = 0; d < head_size; d++) {
            const float x = key[(size_t)i * (size_t)head_size + (size_t)d];
            note[d] = x < note[d] ? x : note[d];
            note[head_size + d] = x > note[head_size + d] ? x : note[head_size + d];
        }
}

static void weigh(const double *options, const float *q, int head_size, float *w)
{
    (void)options;
    for (int d = 0; d < head_size; d++) {
        w[d] = q[d] < 0 ? q[d] : 0;
        w[head_size + d] = q[d] > 0 ? q[d] : 0;
    }
}

static const kept_option options[] = {KEPT_READ_OPTIONS(0.125, 3, 2, KEPT_READ_MAX)};
const kept_read kept_read_quest = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_READ,
             .name = "quest",
             .summary = "pages by an upper bound of their keys' scores; nothing is evicted",
             .paper = "arXiv 2406.10774",
             .deviations = "pages of 64 slots (the paper: 16); one choice per KV head; a part of "
                           "the pages held where the paper has a number of tokens (share=0 and "
                           "pages=N is that); the newest page is always read",
             .options = options,
             .n_options = KEPT_N_READ_OPTIONS},
    .note = 2,
    .bounds = true,
    .describe = describe,
    .weigh = weigh,
};
