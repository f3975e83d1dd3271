/* headkv: HeadKV, arXiv 2410.19258: every head gives 1/beta of its even share c into a pool that is
 * handed out by a trained table: c (1 - 1/beta) + pool score / sum of scores.
 *
 * Trained kind "headkv": "score" [model layers][n_kv_heads] >= 0, mean over the query heads of a KV
 * head. Without a table that covers the layers, or if all of it is 0, all heads get the same.
 *
 * Deviations: the paper scores query heads and keeps a cache for each. beta is 1.2 (the paper picks
 * one of 1.005 to 10 for each model and budget). Only unprotected slots follow the table.
 */
#include "kept/policy.h"

#include <math.h>

enum { BETA };

static void split(const kept_split *s, int *keep)
{
    const float *score = kept_split_table(s, "score", 0, 1);
    double sum = 0, pool = 1 / s->options[BETA];
    int n = s->n_layers * s->n_heads;
    for (int i = 0; i < n; i++) {
        float x = score ? score[s->layer[i / s->n_heads] * s->n_heads + i % s->n_heads] : 1;
        sum += s->share[i] = isfinite(x) && x > 0 ? x : 0;
    }
    for (int i = 0; i < n; i++)
        s->share[i] = 1 - pool + pool * (sum > 0 ? n * s->share[i] / sum : 1);
    kept_split_shares(s, s->share, keep);
}

static const kept_option options[] = {
    {"beta", 1.2, 1, 1000000, false, NULL, "even share divided by what a head gives to the pool"},
};

const kept_allocator kept_alloc_headkv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "headkv",
             .summary = "heads that retrieve get more; a table says which",
             .paper = "arXiv 2410.19258",
             .deviations = "a score per KV head; beta is 1.2 (the paper tunes it); only "
                           "unprotected slots follow the table",
             .options = options,
             .n_options = 1},
    .trained = "headkv",
    .layerwise = true,
    .split = split,
};
