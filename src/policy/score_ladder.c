/* ladder: positions on a grid that gets coarser with age. Position p lies on grids up to 2^z, the
 * largest power of two that divides it; its score is 2^z / age^gamma. The best of these thin out
 * the past evenly (gamma 0) or in proportion to age (gamma 1: as many of the last 100 tokens as of
 * the last 100 to 200), and a token goes when its age has outgrown its grid. For merges that
 * summarise: spans around a kept token are compressed again and again as they grow old.
 */
#include "kept/policy.h"

#include <math.h>

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++) {
        int32_t p = h->pos[i], grid = p & -p;
        double age = (double)v->next_pos - p;
        out[i] = (float)((p ? grid : 0x40000000) / pow(age, v->options[0]));
    }
}

static const kept_option options[] = {
    {"gamma", 1, 0, 4, false, NULL, "how fast the grid coarsens with age, 0: evenly spaced"},
};

const kept_score kept_score_ladder = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "ladder",
             .summary = "positions on grids of powers of two, coarser with age",
             .paper = "",
             .deviations = "",
             .options = options,
             .n_options = 1},
    .any_order = true,
    .comparable = true,
    .score = score,
};
