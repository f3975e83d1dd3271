/* tova: Token Omission Via Attention, arXiv 2401.06104: a token's score is the
 * attention that the last query pays it, averaged over all heads of the layer, so every head of a
 * layer drops the same tokens.
 *
 * Heads whose live tokens differ (a fork of a sequence that another strategy has cut) are matched
 * by position: a head that lost the token pays it nothing.
 */
#include "kept/policy.h"

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = 1};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    for (int i = 0; i < h->n; i++)
        out[i] = 0;
    for (int k = 0; k < v->n_heads; k++) {
        const kept_view_head *o = &v->heads[k];
        for (int i = 0, j = 0; i < h->n; i++) {
            while (j < o->n && o->pos[j] < h->pos[i])
                j++;
            if (j < o->n && o->pos[j] == h->pos[i])
                out[i] += o->mass[j];
        }
    }
    float scale = 1.0f / (float)(v->n_heads * v->group);
    for (int i = 0; i < h->n; i++)
        out[i] *= scale;
}

const kept_score kept_score_tova = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "tova",
             .summary = "attention of the last query, averaged over the heads of the layer",
             .paper = "arXiv 2401.06104",
             .deviations = "the paper drops one token at every step: add decode(every=1) for that"},
    .plane = plane,
    .layer_shared = true,
    .comparable = true,
    .score = score,
};
