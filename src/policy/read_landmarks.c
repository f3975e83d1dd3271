/* landmarks: pages by the score of their mean key, as ShadowKV picks its chunks (arXiv 2410.21465,
 * section 4.2). */
#include "kept/policy.h"

#include <string.h>

static void describe(const float *key, int n, int head_size, float *note)
{
    for (int d = 0; d < head_size; d++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += key[(size_t)i * (size_t)head_size + (size_t)d];
        note[d] = (float)(sum / n);
    }
}

static void weigh(const double *options, const float *q, int head_size, float *w)
{
    (void)options;
    memcpy(w, q, (size_t)head_size * sizeof *w);
}

static const kept_option options[] = {KEPT_READ_OPTIONS(0.125, 3, 0, KEPT_READ_SOFT)};
const kept_read kept_read_landmarks = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_READ,
             .name = "landmarks",
             .summary = "pages by the score of their mean key; nothing is evicted",
             .paper = "arXiv 2410.21465 (landmarks)",
             .deviations =
                 "pages of 64 slots (the paper: chunks of 8); no low rank, no offload, and "
                 "no chunks set aside as outliers",
             .options = options,
             .n_options = KEPT_N_READ_OPTIONS},
    .note = 1,
    .describe = describe,
    .weigh = weigh,
};
