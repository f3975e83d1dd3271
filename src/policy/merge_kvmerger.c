/* kvmerger: KVMerger. Neighbours whose keys have a cosine of at least `at` form a set; what is
 * dropped of it joins its nearest kept token p, the pivot, by a Gaussian kernel:
 *
 *     g_i = exp(-|k_p - k_i|^2 / (2 s^2))    s = mean |k_p - k_i| / sqrt 2
 *     k_p <- (k_p + sum g_i k_i) / (1 + sum g_i), v alike
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { AT, KEYS, COUNT };

/* The nearest kept slot to gone place `place` in its set, the earlier of two, or -1. kept_at [n]:
 * number of a kept slot or -1; joined[i]: place i belongs to the set of i - 1. */
static int pivot_of(int n, int place, const float *kept_at, const float *joined)
{
    bool left = true, right = true;
    for (int off = 1; left || right; off++) {
        left = left && place - off >= 0 && joined[place - off + 1] > 0;
        right = right && place + off < n && joined[place + off] > 0;
        if (left && kept_at[place - off] >= 0)
            return (int)kept_at[place - off];
        if (right && kept_at[place + off] >= 0)
            return (int)kept_at[place + off];
    }
    return -1;
}

static float distance2(const float *a, const float *b, int n)
{
    float sum = 0;
    for (int d = 0; d < n; d++)
        sum += (a[d] - b[d]) * (a[d] - b[d]);
    return sum;
}

/* m->to by the sets. Two arrays of m->work are its own. */
static void find_pivots(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const int size = v->head_size;
    float *kept_at = m->work, *joined = kept_at + h->n, before = 0;
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        const float own = sqrtf(kept_dot(k, k, size)), by = own * before;
        const float x = i && by > 0 ? kept_dot(k, k - size, size) / by : 0;
        joined[i] = i && x >= (float)v->options[AT] ? 1 : 0;
        kept_at[i] = -1;
        before = own;
    }
    for (int j = 0; j < m->n_kept; j++)
        kept_at[m->kept[j]] = (float)j;
    for (int g = 0; g < m->n_gone; g++)
        m->to[g] = pivot_of(h->n, m->gone[g], kept_at, joined);
}

static void merge(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const size_t size = (size_t)v->head_size;
    float *own = m->work, *w = own + m->n_kept, *mean = w + m->n_gone, *n = mean + m->n_kept;
    find_pivots(v, m);
    memset(mean, 0, 2 * (size_t)m->n_kept * sizeof *mean);
    for (int g = 0; g < m->n_gone; g++) {
        const int j = m->to[g];
        w[g] = j < 0 ? 0
                     : distance2(h->key + (size_t)m->kept[j] * size,
                                 h->key + (size_t)m->gone[g] * size, (int)size);
        if (j >= 0) {
            mean[j] += sqrtf(w[g]);
            n[j]++;
        }
    }
    for (int g = 0; g < m->n_gone; g++) { /* 2 s^2 = mean^2 */
        const int j = m->to[g];
        const float s = j < 0 ? 0 : mean[j] / n[j];
        w[g] = j < 0 ? 0 : s > 0 ? expf(-w[g] / (s * s)) : 1;
    }
    for (int j = 0; j < m->n_kept; j++) {
        own[j] = 1;
        if (v->options[COUNT] != 0) /* before means overwrite n */
            n[j] = expf(m->old_bias[m->kept[j]]);
    }
    for (int g = 0; g < m->n_gone && v->options[COUNT] != 0; g++)
        if (m->to[g] >= 0)
            n[m->to[g]] += expf(m->old_bias[m->gone[g]]);
    kept_merge_means(v, m, (int)v->options[KEYS], own, w, mean);
    for (int j = 0; j < m->n_kept && v->options[COUNT] != 0; j++)
        m->bias[j] = logf(n[j]);
}

static bool biases(const double *options)
{
    return options[COUNT] != 0;
}

static const kept_option options[] = {
    {"at", 0.75, -1, 1, false, NULL, "least cosine of the keys of neighbours of one set"},
    {"keys", KEPT_MERGE_ROTATED, 0, 2, true, kept_merge_keys, "which keys become means"},
    {"count", 0, 0, 1, true, kept_off_on, "a mean weighs as many tokens as it stands for"},
};

const kept_merge kept_merge_kvmerger = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "kvmerger",
             .summary = "sets of similar neighbours become Gaussian-weighted means",
             .paper = "arXiv 2407.08454",
             .deviations =
                 "pivots are the kept tokens, so the score and the budget decide how many "
                 "there are, and what is dropped of a set without one is gone; the width "
                 "of the kernel is an own reading; keys=rotated as in the paper",
             .options = options,
             .n_options = 3},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
    .biases = biases,
    .merge = merge,
};
