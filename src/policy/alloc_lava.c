/* lava: LAVa, arXiv 2509.09754: layers get slots in proportion to the normalised entropy of their
 * candidates' scores, H / ln N, where H = -sum p ln p, p = score / sum of scores, over the N
 * candidates of all heads of the layer. Inside a layer the heads compete, as with ada.
 *
 * A layer's part does not grow when the next layer arrives, so layers can be cut as they come.
 *
 * Deviations: scores of a layer that has negative ones count from its lowest. A layer with fewer
 * than two candidates, or where all scores are 0, counts as evenly spread. Ties as for ada.
 */
#include "kept/policy.h"

#include <math.h>

enum { ALPHA };

static double spread(const kept_split *s, int first)
{
    double low = 0, sum = 0, sum_log = 0;
    int64_t n = 0;
    for (int i = first; i < first + s->n_heads; i++)
        for (int k = 0; k < s->n[i]; k++)
            low = fmin(low, s->score[i][k]);
    for (int i = first; i < first + s->n_heads; i++) {
        n += s->n[i];
        for (int k = 0; k < s->n[i]; k++) {
            double x = s->score[i][k] - low;
            sum += x;
            sum_log += x > 0 ? x * log(x) : 0;
        }
    }
    /* -sum (x/S) ln (x/S) = ln S - (sum x ln x) / S */
    return n > 1 && sum > 0 ? fmax(0, log(sum) - sum_log / sum) / log((double)n) : 1;
}

static void split(const kept_split *s, int *keep)
{
    double share[KEPT_MAX_LAYERS];
    int open[KEPT_MAX_LAYERS];
    for (int l = 0; l < s->n_layers; l++)
        share[l] = spread(s, l * s->n_heads);
    kept_split_layers(s, share, open);
    for (int l = 0; l < s->n_layers; l++) {
        int first = l * s->n_heads;
        double least = floor(s->options[ALPHA] * open[l] / s->n_heads);
        for (int i = first; i < first + s->n_heads; i++)
            keep[i] = (int)fmin(s->n[i], least);
        kept_split_top(s, first, s->n_heads, open[l], keep);
    }
}

static const kept_option options[] = {
    {"alpha", 0.2, 0, 1, false, NULL, "part of its even share that a head gets whatever it scores"},
};

const kept_allocator kept_alloc_lava = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "lava",
             .summary = "layers whose scores are spread get more, the heads of a layer compete",
             .paper = "arXiv 2509.09754",
             .deviations = "scores of a layer that has negative ones count from its lowest; ties, "
                           "z-scores and shared scores as for ada",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .cascades = true,
    .split = split,
};
