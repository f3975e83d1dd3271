/* tova: Token Omission Via Attention, arXiv 2401.06104: a token's score is the
 * attention that the last query pays it, averaged over all heads of the layer, so every head of a
 * layer drops the same tokens. gqa and pool act inside a KV head; the mean over KV heads follows.
 *
 * Heads whose live tokens differ (a fork of a sequence that another strategy has cut) are matched
 * by position: a head that lost the token pays it nothing.
 */
#include "kept/policy.h"

#include <string.h>

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = 1, .split = kept_group_splits(options)};
}

/* Adds x of head o to what head h has at the same positions. */
static void add(const kept_view_head *h, const kept_view_head *o, const float *x, float *out)
{
    if (h->n == o->n && !memcmp(h->pos, o->pos, (size_t)h->n * sizeof *h->pos)) {
        for (int i = 0; i < h->n; i++)
            out[i] += x[i];
        return;
    }
    for (int i = 0, j = 0; i < h->n; i++) {
        while (j < o->n && o->pos[j] < h->pos[i])
            j++;
        if (j < o->n && o->pos[j] == h->pos[i])
            out[i] += x[j];
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int rows = kept_group_splits(v->options) ? v->group : 1;
    for (int i = 0; i < h->n; i++)
        out[i] = 0;
    for (int k = 0; k < v->n_heads; k++) {
        kept_group(v, v->heads[k].mass, rows, v->heads[k].n, v->heads[k].n, v->scratch);
        add(h, &v->heads[k], v->scratch, out);
    }
    for (int i = 0; i < h->n; i++)
        out[i] /= (float)v->n_heads;
}

static const kept_option options[] = {KEPT_GROUP_OPTIONS(KEPT_GQA_MEAN, KEPT_POOL_NONE, 1)};

const kept_score kept_score_tova = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "tova",
             .summary = "attention of the last query, averaged over the heads of the layer",
             .paper = "arXiv 2401.06104",
             .deviations = "the paper drops one token at every step: add decode(every=1) for that",
             .options = options,
             .n_options = 4},
    .plane = plane,
    .grouped = true,
    .any_order = true,
    .layer_shared = true,
    .comparable = true,
    .score = score,
};
