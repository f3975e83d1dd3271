/* nacl: NACL, ACL 2024 (arXiv 2408.03675): most slots go to the tokens that the proxies, the last
 * `window` tokens of the prompt, pay most attention; a share of them is drawn from the rest at
 * random, token i with probability softmax(score / temperature)_i, without putting back.
 *
 * Drawing k tokens that way is keeping the k largest of score/T + Gumbel noise, so one order holds
 * both stages: what the proxies choose first, then the draw. Every eviction draws anew.
 *
 * Deviations: the choice of the proxies fills its part of the slots that the head has if all heads
 * hold the same, so with another allocator the parts are not exact; summed over the query heads of
 * the KV head; random=0.3 (the paper tunes it).
 */
#include "kept/policy.h"

#include <math.h>

enum { WINDOW, RANDOM, TEMPERATURE, FOUR };

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_MASS,
                        .window = (int)options[WINDOW],
                        .split = kept_group_splits(options + FOUR)};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int rows = kept_group_splits(v->options + FOUR) ? v->group : 1, n_old = 0;
    int chosen = v->share - (int)floor(v->options[RANDOM] * v->share);
    uint8_t *pick = (uint8_t *)v->scratch;
    while (n_old < h->n && h->pos[n_old] < v->next_pos - (int32_t)v->options[WINDOW])
        n_old++;
    kept_group(v, h->mass, rows, h->n, n_old, out);
    kept_pick(v, head, out, chosen, pick);
    for (int i = 0; i < h->n; i++) {
        if (pick[i])
            out[i] = 1 + out[i];
        else {
            double x = out[i] / v->options[TEMPERATURE] - log(-log(kept_noise(v, head, h->pos[i])));
            out[i] = (float)(x / (2 * (1 + fabs(x)))); /* in order, below 1/2 */
        }
    }
}

static const kept_option options[] = {
    {"window", 32, 1, 65536, true, NULL, "last queries, the proxies"},
    {"random", 0.3, 0, 1, false, NULL, "part of the slots that is drawn at random"},
    {"temperature", 1, 0.001, 1000, false, NULL, "how little the score counts in the draw"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_nacl = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "nacl",
             .summary = "attention of the last window queries, a part of the slots drawn by it",
             .paper = "arXiv 2408.03675",
             .deviations = "the part drawn is of an even share of the budget, whatever the "
                           "allocator; summed over the query heads of a KV head; random is 0.3 "
                           "(the paper tunes it)",
             .options = options,
             .n_options = 7},
    .plane = plane,
    .grouped = true,
    .score = score,
};
