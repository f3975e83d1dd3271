/* h2o: Heavy-Hitter Oracle, arXiv 2306.14048: a token's score is the attention
 * probability it has received from all queries so far, F(i) = sum_q A[q][i].
 *
 * norm=on divides by the number of queries that could see the token (every query from its own
 * position on), which takes away the advantage that early tokens have in a causal column sum;
 * kvpress calls that ObservedAttention.
 *
 * Deviations: the sum runs over the query heads of the KV head (the paper has none of them share
 * keys); a query that ran after an eviction had its softmax over what was left, as in the paper;
 * the paper's recent half of the budget is the protection's business.
 */
#include "kept/policy.h"

enum { NORM, FOUR };

static kept_plane plane(const double *options)
{
    return (kept_plane){
        .kind = KEPT_PLANE_MASS, .window = INT32_MAX, .split = kept_group_splits(options + FOUR)};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int rows = kept_group_splits(v->options + FOUR) ? v->group : 1;
    const float *x = h->mass;
    if (v->options[NORM] != 0) {
        x = v->scratch;
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < h->n; i++)
                v->scratch[r * h->n + i] = h->mass[r * h->n + i] / (float)(v->next_pos - h->pos[i]);
    }
    kept_group(v, x, rows, h->n, h->n, out);
}

static const kept_option options[] = {
    {"norm", 0, 0, 1, true, kept_off_on, "divide by the number of queries that saw the token"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_h2o = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "h2o",
             .summary = "attention received from all queries so far",
             .paper = "arXiv 2306.14048; norm=on: kvpress ObservedAttention",
             .deviations = "summed over the query heads of a KV head; the paper's recent share of "
                           "the budget is the fixed window of protect",
             .options = options,
             .n_options = 5},
    .plane = plane,
    .grouped = true,
    .any_order = true,
    .comparable = true,
    .score = score,
};
