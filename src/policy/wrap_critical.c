/* critical: CriticalKV, arXiv 2502.03805: a part `first` of the budget goes to the best tokens by
 * the score itself; the rest by (score + epsilon) * ||W_o v||_1, how far the token can move the
 * output of the layer, the norm averaged over the query heads of the KV head.
 *
 * The first stage ends up above the second: its tokens score as in the second, plus the most that a
 * token of the layer scores there. Scores that can be negative count from the lowest of the head.
 *
 * Deviations: the first stage fills its part of the slots that a head has if all hold the same, so
 * with an allocator that splits otherwise (critical-adakv) the parts are not exact.
 */
#include "kept/policy.h"

enum { FIRST, EPSILON };

/* Unprotected slots of head h, if all heads hold as many in all: view.share is that of the first.
 */
static int share_of(const kept_view *v, int h)
{
    int share = v->share;
    for (int i = 0; i < v->heads[0].n; i++)
        share += v->heads[0].guard[i];
    for (int i = 0; i < v->heads[h].n; i++)
        share -= v->heads[h].guard[i];
    return share > 0 ? share : 0;
}

static void wrap(const kept_view *v, float *const *score)
{
    uint8_t *pick = (uint8_t *)v->scratch;
    float most = 0;
    for (int h = 0; h < v->n_heads; h++) {
        const kept_view_head *x = &v->heads[h];
        float low = 0;
        for (int i = 0; i < x->n; i++)
            low = score[h][i] < low ? score[h][i] : low;
        for (int i = 0; i < x->n; i++) {
            float second = (score[h][i] - low + (float)v->options[EPSILON]) * x->weight[i];
            most = second > most ? second : most;
        }
    }
    for (int h = 0; h < v->n_heads; h++) {
        const kept_view_head *x = &v->heads[h];
        float low = 0;
        kept_pick(v, h, score[h], (int)(v->options[FIRST] * share_of(v, h)), pick);
        for (int i = 0; i < x->n; i++)
            low = score[h][i] < low ? score[h][i] : low;
        for (int i = 0; i < x->n; i++) {
            float second = (score[h][i] - low + (float)v->options[EPSILON]) * x->weight[i];
            /* the factor keeps the stages apart where a second-stage score is the most itself */
            score[h][i] = pick[i] ? 1.0001f * most + second : second;
        }
    }
}

static const kept_option options[] = {
    {"first", 0.5, 0, 1, false, NULL, "part of the budget that the score alone decides"},
    {"epsilon", 0.0001, 0, 1, false, NULL, "added to the score before it is weighed"},
};

const kept_wrapper kept_wrap_critical = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_WRAPPER,
             .name = "critical",
             .summary =
                 "part of the budget by score, the rest by score times how much W_o v weighs",
             .paper = "arXiv 2502.03805",
             .deviations = "the first part is of an even share of the budget, whatever the "
                           "allocator; a score that can be negative counts from the lowest one of "
                           "the head",
             .options = options,
             .n_options = 2},
    .needs = KEPT_NEED_OUTPUT,
    .wrap = wrap,
};
