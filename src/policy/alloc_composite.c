/* composite: KVCompose, arXiv 2509.05165, its allocation: in every head the candidates are put in
 * the order of their scores; the i-th ones of all heads of a layer make its i-th composite token,
 * whose score is the mean (or the most) of theirs. The composites of all layers compete in one list
 * for the budget, and a layer keeps as many as it has there, so that its heads stay equally long,
 * each with tokens of its own.
 *
 * Deviations: what the budget leaves beside whole composites goes to the first heads of the next
 * one. A head with fewer candidates than others takes part in further composites with the score of
 * its last one, and no slot. The reference code makes the first layer the longest, which its
 * framework's cache needs; here it competes like the others.
 */
#include "kept/policy.h"

#include <math.h>

enum { OVER };
enum { MEAN, MOST };

/* Score of composite i of a layer; it never rises with i. -INFINITY: there are no candidates. */
static double score_of(const kept_split *s, int l, int i)
{
    double sum = 0, most = -INFINITY;
    int heads = 0;
    for (int k = l * s->n_heads; k < (l + 1) * s->n_heads; k++) {
        if (!s->n[k])
            continue;
        const double x = s->score[k][i < s->n[k] ? i : s->n[k] - 1];
        sum += x;
        most = fmax(most, x);
        heads++;
    }
    return (int)s->options[OVER] == MOST || !heads ? most : sum / heads;
}

static int longest(const kept_split *s, int l)
{
    int n = 0;
    for (int k = l * s->n_heads; k < (l + 1) * s->n_heads; k++)
        n = s->n[k] > n ? s->n[k] : n;
    return n;
}

/* Composites of a layer that score at least `at`. */
static int count(const kept_split *s, int l, double at)
{
    int low = 0, high = longest(s, l);
    while (low < high) {
        const int mid = (low + high) / 2;
        if (score_of(s, l, mid) >= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* Slots of these composites of all layers; keep: of every head, or NULL. */
static int64_t slots(const kept_split *s, double at, int *keep)
{
    int64_t sum = 0;
    for (int l = 0; l < s->n_layers; l++) {
        const int n = count(s, l, at);
        for (int k = l * s->n_heads; k < (l + 1) * s->n_heads; k++) {
            const int own = n < s->n[k] ? n : s->n[k];
            sum += own;
            if (keep)
                keep[k] = own;
        }
    }
    return sum;
}

static void split(const kept_split *s, int *keep)
{
    double low = INFINITY, high = -INFINITY;
    for (int l = 0; l < s->n_layers; l++)
        if (longest(s, l)) {
            low = fmin(low, score_of(s, l, longest(s, l) - 1));
            high = fmax(high, score_of(s, l, 0));
        }
    double from = low, to = nextafter(high, INFINITY);
    const int64_t open = kept_split_open(s);
    while (low <= high) { /* the highest score such that the budget is used up is in [from, to) */
        const double mid = from + (to - from) / 2;
        if (mid <= from || mid >= to)
            break;
        *(slots(s, mid, NULL) >= open ? &from : &to) = mid;
    }
    int64_t left = open - slots(s, to, keep);
    for (int l = 0; l < s->n_layers; l++) /* composites that tie at from, one after the other */
        for (int i = count(s, l, to), n = count(s, l, from); i < n && left > 0; i++)
            for (int k = l * s->n_heads; k < (l + 1) * s->n_heads && left > 0; k++)
                if (i < s->n[k]) {
                    keep[k]++;
                    left--;
                }
}

static const char *const over[] = {"mean", "max", NULL};
static const kept_option options[] = {
    {"over", MEAN, 0, 1, true, over, "what a composite scores: mean or most of its tokens"},
};

const kept_allocator kept_alloc_composite = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "composite",
             .summary = "layers compete with the i-th best tokens of their heads; heads of a layer "
                        "stay equally long",
             .paper = "arXiv 2509.05165 (allocation only)",
             .deviations = "what is left beside whole composites goes to heads of the next one; "
                           "the first layer has no privilege (the reference code: it is longest)",
             .options = options,
             .n_options = 1},
    .needs_scores = true,
    .falling = true,
    .cascades = true,
    .split = split,
};
