/* squeeze: SqueezeAttention, arXiv 2404.04793, algorithm 1: layers fall into three groups by the
 * cosine similarity of what goes into them and what comes out. The group with the highest cosines
 * (which change their input least) gets p times the even budget, the others share the rest evenly.
 * Heads of a layer hold equally many slots.
 *
 * Deviations: the three groups are those with the least sum of squared distances to their means
 * over all ways to cut the sorted cosines (the paper runs k-means from a start of its own). Equal
 * cosines are never cut apart: with two different values there are two groups, with one there is
 * one and every layer gets the same. A cosine that is no number counts as 0. The paper's p is 0.3
 * to 0.4.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { P };

/* Sum of squared distances of x[from..to) to their mean, 0 if there are none. */
static double scatter(const double *x, int from, int to)
{
    double sum = 0, square = 0;
    for (int i = from; i < to; i++)
        sum += x[i];
    for (int i = from; i < to; i++)
        square += (x[i] - sum / (to - from)) * (x[i] - sum / (to - from));
    return square;
}

/* The lowest cosine of the group that is to shrink; x [n] ascending. Of cuts that are equally good
 * the first is taken, by the first cut and then the second. */
static double find_top(const double *x, int n)
{
    double best = INFINITY, top = INFINITY;
    for (int i = 1; i < n; i++)
        for (int j = i; j < n; j++) { /* [0, i), [i, j), [j, n); i = j: two groups */
            double sum = scatter(x, 0, i) + scatter(x, i, j) + scatter(x, j, n);
            if (x[i - 1] < x[i] && x[j - 1] < x[j] && sum < best) {
                best = sum;
                top = x[j];
            }
        }
    return top;
}

static void split(const kept_split *s, int *keep)
{
    double x[KEPT_MAX_LAYERS], sorted[KEPT_MAX_LAYERS], share[KEPT_MAX_LAYERS] = {0};
    int open[KEPT_MAX_LAYERS], n = s->n_layers, n_top = 0;
    for (int l = 0; l < n; l++) {
        int at = l;
        x[l] = s->cosine && isfinite(s->cosine[l]) ? s->cosine[l] : 0;
        for (; at > 0 && sorted[at - 1] > x[l]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = x[l];
    }
    double top = find_top(sorted, n), p = s->options[P];
    for (int l = 0; l < n; l++)
        n_top += x[l] >= top;
    for (int l = 0; l < n; l++)
        share[l] = x[l] >= top ? p : (n - p * n_top) / (n - n_top);
    kept_split_layers(s, share, open);
    for (int l = 0; l < n; l++)
        kept_split_fill(s, l * s->n_heads, s->n_heads, s->n, open[l], keep);
}

static const kept_option options[] = {
    {"p", 0.35, 0, 1, false, NULL, "part of the even budget that the most idle layers get"},
};

const kept_allocator kept_alloc_squeeze = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "squeeze",
             .summary = "layers that change their input least get less",
             .paper = "arXiv 2404.04793",
             .deviations = "the best three groups instead of those that k-means finds; equal "
                           "cosines stay together; p is 0.35 (the paper: 0.3 to 0.4)",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_COSINE,
    .split = split,
};
