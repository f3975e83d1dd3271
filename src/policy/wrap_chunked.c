/* chunked: ChunkKV, arXiv 2502.00299: tokens that stand together stay together. Positions are cut
 * into chunks of `size`; every token scores what its chunk does, the mean over its live tokens,
 * summed over the heads of the layer, so all heads keep the same chunks.
 *
 * Deviations: what the budget leaves after whole chunks goes to the latest tokens of the next one.
 */
#include "kept/policy.h"

#include <string.h>

enum { SIZE };

/* What chunk a position is in; positions beyond what scratch counts share the last one. */
static int chunk_of(int32_t pos, int size)
{
    return pos / size < KEPT_SCRATCH ? pos / size : KEPT_SCRATCH - 1;
}

static void wrap(const kept_view *v, float *const *score)
{
    int size = (int)v->options[SIZE];
    float *sum = v->scratch; /* by chunk */
    memset(sum, 0, (size_t)(chunk_of(v->next_pos, size) + 1) * sizeof *sum);
    for (int h = 0; h < v->n_heads; h++) {
        const kept_view_head *x = &v->heads[h];
        for (int from = 0, to = 0; from < x->n; from = to) {
            int chunk = chunk_of(x->pos[from], size);
            double total = 0;
            for (; to < x->n && chunk_of(x->pos[to], size) == chunk; to++)
                total += score[h][to];
            sum[chunk] += (float)(total / (to - from));
        }
    }
    for (int h = 0; h < v->n_heads; h++)
        for (int i = 0; i < v->heads[h].n; i++)
            score[h][i] = sum[chunk_of(v->heads[h].pos[i], size)];
}

static const kept_option options[] = {
    {"size", 20, 4, 65536, true, NULL, "positions of a chunk"},
};

const kept_wrapper kept_wrap_chunked = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_WRAPPER,
             .name = "chunked",
             .summary =
                 "whole chunks of positions by their mean score, the same for a layer's heads",
             .paper = "arXiv 2502.00299",
             .deviations = "what the budget leaves after whole chunks goes to the latest tokens of "
                           "the next one; the mean is over what is live of a chunk",
             .options = options,
             .n_options = 1},
    .layer_shared = true,
    .wrap = wrap,
};
