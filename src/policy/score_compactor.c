/* compactor: Compactor, arXiv 2507.08143: blend * leverage + non-causal, both z-scores. The blend
 * is the part of the tokens that goes, unless written.
 */
#include "kept/policy.h"

enum { SKETCH, BLOCK, BLEND };

static kept_plane plane(const double *options)
{
    return (kept_plane){.kind = KEPT_PLANE_LOCAL, .window = (int)options[BLOCK]};
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    float *attention = v->pooled;
    double kept = v->share, blend = v->options[BLEND];
    for (int i = 0; i < h->n; i++)
        kept += h->guard[i];
    if (blend < 0)
        blend = h->n && kept < h->n ? 1 - kept / h->n : 0;
    kept_block_attention(v, head, attention);
    kept_key_leverage(v, head, (int)v->options[SKETCH], out);
    for (int i = 0; i < h->n; i++)
        out[i] = (float)(blend * out[i] + attention[i]);
}

static const kept_option options[] = {
    {"sketch", 48, 0, 128, true, NULL, "random directions that keys are projected on, 0: none"},
    {"block", 256, 16, 1024, true, NULL, "positions that see each other"},
    {"blend", -1, -1, 100, false, NULL, "weight of leverage; below 0: the part that goes"},
};

const kept_score kept_score_compactor = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "compactor",
             .summary = "leverage of keys plus attention inside blocks",
             .paper = "arXiv 2507.08143",
             .deviations = "those of leverage and non-causal; protects as any score (the paper: 8 "
                           "first and 4 last tokens, see compactorkv)",
             .options = options,
             .n_options = 3},
    .needs = KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
    .plane = plane,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
