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

enum { NORM };

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = INT32_MAX};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    bool norm = v->options[NORM] != 0;
    for (int i = 0; i < h->n; i++)
        out[i] = norm ? h->mass[i] / (float)(v->next_pos - h->pos[i]) : h->mass[i];
}

static const char *const off_on[] = {"off", "on", NULL};
static const kept_option options[] = {
    {"norm", 0, 0, 1, true, off_on, "divide by the number of queries that could see the token"},
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
             .n_options = 1},
    .plane = plane,
    .comparable = true,
    .score = score,
};
