/* blocks: PagedEviction, arXiv 2509.04377, over any score: every token scores the mean of its
 * block, `size` positions of one KV head, so that whole blocks leave and the memory of a page with
 * them.
 *
 * Deviations: what the budget leaves after whole blocks goes to the latest tokens of the next one.
 */
#include "kept/policy.h"

enum { SIZE };

static void wrap(const kept_view *v, float *const *score)
{
    int size = (int)v->options[SIZE];
    for (int h = 0; h < v->n_heads; h++) {
        const kept_view_head *x = &v->heads[h];
        for (int from = 0, to = 0; from < x->n; from = to) {
            double total = 0;
            for (; to < x->n && x->pos[to] / size == x->pos[from] / size; to++)
                total += score[h][to];
            for (int i = from; i < to; i++)
                score[h][i] = (float)(total / (to - from));
        }
    }
}

static const kept_option options[] = {
    {"size", 16, 1, 65536, true, NULL, "positions of a block"},
};

const kept_wrapper kept_wrap_blocks = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_WRAPPER,
             .name = "blocks",
             .summary = "whole blocks of positions by their mean score, each head its own",
             .paper = "arXiv 2509.04377",
             .deviations =
                 "over any score; what the budget leaves after whole blocks goes to the "
                 "latest tokens of the next one; the mean is over what is live of a block",
             .options = options,
             .n_options = 1},
    .wrap = wrap,
};
