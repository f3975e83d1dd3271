/* kvzip-plus: KVzip+, arXiv 2601.07891: as kvzip, but a repeating query's probability counts by
 * what it adds to the residual stream: max over queries q and heads of A[q][i] * ||W_o v_i|| /
 * ||x_q||, x_q being what enters the query's layer. The plane holds max A / ||x||; W_o v does not
 * depend on the query.
 *
 * Deviations: those of kvzip; ||W_o v|| is the mean over the query heads of the L1 norm, the same
 * for all of them, where the paper takes each head's own before the maximum.
 */
#include "kept/policy.h"

#include <float.h>
#include <math.h>

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_ECHO_PLUS};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++)
        out[i] = fminf(h->mass[i] * fminf(h->weight[i], FLT_MAX), FLT_MAX);
}

const kept_score kept_score_kvzip_plus = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "kvzip-plus",
             .summary =
                 "what repeating the context pays a token, by its share of the residual stream",
             .paper = "arXiv 2601.07891",
             .deviations = "as kvzip; the L1 norm of W_o v, averaged over the query heads"},
    .needs = KEPT_NEED_OUTPUT,
    .plane = plane,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
