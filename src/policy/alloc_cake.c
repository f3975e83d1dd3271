/* cake: CAKE, arXiv 2503.12491: layers get slots in proportion to H^(1/tau1) V^(1/tau2), where the
 * attention of the last `window` queries on the tokens before them is A [window][tokens]:
 * H = -sum A ln A, how far attention is spread, and V = sum over tokens of the variance of A over
 * the queries, how much it shifts; both summed over the query heads of the layer. Heads of a layer
 * hold equally many slots.
 *
 * A layer's part does not grow when the next layer arrives, so layers can be cut as they come.
 *
 * Deviations: A is the softmax over the slots that are live now. Where nothing precedes the window,
 * and where all layers score 0, layers get even parts. The population variance is taken; its
 * divisor cancels.
 */
#include "kept/policy.h"

#include <math.h>

enum { WINDOW, TAU1, TAU2 };
enum { ENTROPY, VARIANCE };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void observe(const kept_view *v, int head, const double *options, double signal[2])
{
    const kept_view_head *h = &v->heads[head];
    float *sum = v->scratch, *square = v->scratch + h->n; /* over the queries, of each token */
    int n = 0;
    (void)options;
    while (n < h->n && h->pos[n] < v->next_pos - v->n_recent)
        n++;
    for (int g = 0; g < v->group; g++) {
        for (int i = 0; i < n; i++)
            sum[i] = square[i] = 0;
        for (int t = 0; t < v->n_recent; t++) {
            const float *p = h->prob + ((size_t)t * (size_t)v->group + (size_t)g) * (size_t)h->n;
            for (int i = 0; i < n; i++) {
                sum[i] += p[i];
                square[i] += p[i] * p[i];
                signal[ENTROPY] -= p[i] > 0 ? p[i] * logf(p[i]) : 0;
            }
        }
        for (int i = 0; i < n; i++) {
            double mean = (double)sum[i] / v->n_recent;
            signal[VARIANCE] += fmax(0, (double)square[i] / v->n_recent - mean * mean);
        }
    }
}

static void split(const kept_split *s, int *keep)
{
    double share[KEPT_MAX_LAYERS];
    int open[KEPT_MAX_LAYERS];
    for (int l = 0; l < s->n_layers; l++) {
        double sum[2] = {0, 0};
        for (int i = l * s->n_heads; s->signal && i < (l + 1) * s->n_heads; i++)
            for (int k = 0; k < 2; k++)
                sum[k] += s->signal[2 * i + k];
        share[l] =
            pow(sum[ENTROPY], 1 / s->options[TAU1]) * pow(sum[VARIANCE], 1 / s->options[TAU2]);
    }
    kept_split_layers(s, share, open);
    for (int l = 0; l < s->n_layers; l++)
        kept_split_fill(s, l * s->n_heads, s->n_heads, s->n, open[l], keep);
}

static const kept_option options[] = {
    {"window", 32, 2, KEPT_MAX_RECENT, true, NULL, "last queries whose attention is looked at"},
    {"tau1", 1, 0.1, 100, false, NULL, "how little the spread of attention counts"},
    {"tau2", 1, 0.1, 100, false, NULL, "how little the shift of attention counts"},
};

const kept_allocator kept_alloc_cake = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "cake",
             .summary = "layers whose attention is spread and shifts get more",
             .paper = "arXiv 2503.12491",
             .deviations = "attention over the slots that are live now; the paper tunes tau1 and "
                           "tau2 per model and budget, here both are 1 unless written",
             .options = options,
             .n_options = 3},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .cascades = true,
    .observe = observe,
    .split = split,
};
