/* simlayer: SimLayerKV, arXiv 2410.13846: a layer is lazy if the last queries pay more than `theta`
 * of their attention (mean over query heads) to the first `initial` and the last `recent` tokens.
 * Lazy layers hold that many slots and no more, the others all of theirs, up to the budget: all
 * heads rise to one level, those of lazy layers to initial + recent at most. What that leaves over
 * stays unused, so the sequence may hold less than its budget; with @100% the data alone decides.
 *
 * A layer's part does not grow when the next layer arrives, so layers can be cut as they come.
 *
 * Deviations: there is a budget. Which slots a lazy layer keeps is the score's business: recency
 * with protect(sinks=4) keeps those that the paper does.
 */
#include "kept/policy.h"

#include <math.h>

enum { THETA, INITIAL, RECENT, LAST };

static int recent(const double *options)
{
    return (int)options[LAST];
}

/* signal[0]: mean over query heads and queries of the attention on the two windows. */
static void observe(const kept_view *v, int head, const double *options, double signal[2])
{
    const kept_view_head *h = &v->heads[head];
    double edge = v->next_pos - options[RECENT];
    int rows = v->n_recent * v->group;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < h->n; i++)
            if (h->pos[i] < options[INITIAL] || h->pos[i] >= edge)
                signal[0] += h->prob[(size_t)r * (size_t)h->n + (size_t)i] / (double)rows;
}

static void split(const kept_split *s, int *keep)
{
    double window = s->options[INITIAL] + s->options[RECENT];
    for (int l = 0; l < s->n_layers; l++) {
        double sum = 0;
        for (int i = l * s->n_heads; s->signal && i < (l + 1) * s->n_heads; i++)
            sum += s->signal[2 * i];
        bool lazy = sum / s->n_heads > s->options[THETA];
        for (int i = l * s->n_heads; i < (l + 1) * s->n_heads; i++)
            s->scratch[i] =
                lazy ? (int)fmin(s->n[i], fmax(0, window - s->n_protected[i])) : s->n[i];
    }
    kept_split_fill(s, 0, s->n_layers * s->n_heads, s->scratch, kept_split_open(s), keep);
}

static const kept_option options[] = {
    {"theta", 0.9, 0, 1, false, NULL, "attention on the two windows above which a layer is lazy"},
    {"initial", 4, 0, 1048576, true, NULL, "first tokens that make one window"},
    {"recent", 1024, 0, 1048576, true, NULL, "last tokens that make the other"},
    {"last", 1, 1, KEPT_MAX_RECENT, true, NULL, "last queries that are looked at"},
};

const kept_allocator kept_alloc_simlayer = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "simlayer",
             .summary = "lazy layers hold a window, the others all they may",
             .paper = "arXiv 2410.13846",
             .deviations = "the others are cut to the budget; holds less where the lazy layers "
                           "leave it; the paper tunes theta per model (0.65 to 0.9)",
             .options = options,
             .n_options = 4},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .data_dependent = true,
    .cascades = true,
    .observe = observe,
    .split = split,
};
