/* morph: MorphKV, arXiv 2503.00979: what the last `window` tokens attend to, refreshed whenever it
 * is asked: over=sum adds their attention up (the paper's sum fusion), over=max takes the most that
 * one of them pays.
 *
 * Deviations: sum over the query heads of a KV head (the paper's models share keys as well; it does
 * not say how heads are joined); attention is over the slots that are live now.
 */
#include "kept/policy.h"

#include <string.h>

enum { WINDOW, OVER };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t all = (size_t)v->group * (size_t)h->n;
    float *made = v->scratch; /* [G][n] */
    int old = 0;
    memset(made, 0, all * sizeof *made);
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    for (int t = 0; t < v->n_recent; t++) {
        const float *p = h->prob + (size_t)t * all;
        if (v->options[OVER] == 0)
            for (size_t i = 0; i < all; i++)
                made[i] += p[i];
        else
            for (size_t i = 0; i < all; i++)
                made[i] = p[i] > made[i] ? p[i] : made[i];
    }
    kept_group(v, made, v->group, h->n, old, out);
}

static const char *const over[] = {"sum", "max", NULL};
static const kept_option options[] = {
    {"window", 32, 1, KEPT_MAX_RECENT, true, NULL, "last queries that vote"},
    {"over", 0, 0, 1, true, over, "sum or maximum over these queries"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_morph = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "morph",
             .summary = "attention of exactly the last window queries, their sum or maximum",
             .paper = "arXiv 2503.00979",
             .deviations = "summed over the query heads of a KV head; over the slots that are "
                           "live now",
             .options = options,
             .n_options = 6},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .score = score,
};
