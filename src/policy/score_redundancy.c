/* redundancy: R-KV, arXiv 2505.24133: lambda * importance - (1 - lambda) * redundancy.
 *
 * Importance: logits of the last `window` queries on the keys before them, maximum over the query
 * heads, softmax over these keys, mean over the queries, maximum over `kernel` neighbours; 0 for
 * the keys of these queries themselves. Redundancy: cosines S[j][i] of all live keys, S[i][i] = 0;
 * for each key i, of its near-duplicates S[j][i] > `near` the newest j is spared, S[j][i] = 0; the
 * mean of row j, softmax over j. So of a group of equal keys the newest stays.
 * Deviations: keys as stored (rotated), the window's own among them; 262144 slots a head at most.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { WINDOW, LAMBDA, NEAR, KERNEL };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

/* Adds part of softmax(x) to out; x changes. */
static void add_softmax(float *x, int n, float part, float *out)
{
    float top = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    for (int i = 0; i < n; i++)
        sum += x[i] = expf(x[i] - top);
    for (int i = 0; i < n; i++)
        out[i] += part * x[i] / sum;
}

/* Into out [old], which is 0; work [(1 + G) old]. */
static void importance(const kept_view *v, const kept_view_head *h, int old, float *work,
                       float *out)
{
    float *best = work + (size_t)v->group * (size_t)old;
    size_t size = (size_t)v->group * (size_t)v->head_size;
    for (int t = 0; t < v->n_recent; t++) {
        kept_dots(v, v->group, old, v->head_size, h->query + (size_t)t * size, h->key, work, old);
        for (int i = 0; i < old; i++) {
            best[i] = work[i] * v->attn_scale;
            for (int g = 1; g < v->group; g++)
                best[i] = fmaxf(best[i], work[g * old + i] * v->attn_scale);
        }
        add_softmax(best, old, 1 / (float)v->n_recent, out);
    }
}

/* Row means of the cosines into row [n]; unit [n]: work. */
static void alike(const kept_view *v, const kept_view_head *h, float *row, float *unit)
{
    int n = h->n, size = v->head_size, block = KEPT_SCRATCH / n < 64 ? KEPT_SCRATCH / n : 64;
    float *lines = v->scratch + (2 + v->group) * n;
    for (int i = 0; i < n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        kept_dots(v, 1, 1, size, k, k, &unit[i], 1);
        unit[i] = unit[i] > 0 ? 1 / sqrtf(unit[i]) : 0;
        row[i] = 0;
    }
    for (int i = 0; i < n; i++) {
        float *line = lines + (size_t)(i % block) * (size_t)n;
        int newest = n - 1;
        if (i % block == 0)
            kept_dots(v, n - i < block ? n - i : block, n, size, h->key + (size_t)i * (size_t)size,
                      h->key, lines, n);
        line[i] = 0;
        for (int j = 0; j < n; j++)
            line[j] *= unit[i] * unit[j];
        while (newest >= 0 && !(line[newest] > (float)v->options[NEAR]))
            newest--;
        for (int j = 0; j < n; j++)
            row[j] += j == newest ? 0 : line[j] / (float)n;
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    float *a = v->scratch, *b = a + h->n, lambda = (float)v->options[LAMBDA];
    int old = 0, half = (int)v->options[KERNEL] / 2;
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    memset(out, 0, (size_t)h->n * sizeof *out);
    if (h->n > KEPT_SCRATCH)
        return;
    alike(v, h, a, b);
    add_softmax(a, h->n, lambda - 1, out);
    memset(a, 0, (size_t)h->n * sizeof *a);
    importance(v, h, old, b, a);
    for (int i = 0; i < old; i++) {
        float best = 0;
        for (int j = i - half < 0 ? 0 : i - half; j <= i + half && j < old; j++)
            best = a[j] > best ? a[j] : best;
        out[i] += lambda * best;
    }
}

static const kept_option options[] = {
    {"window", 8, 1, KEPT_MAX_RECENT, true, NULL, "last queries that say what is important"},
    {"lambda", 0.1, 0, 1, false, NULL, "what importance counts; the rest is redundancy"},
    {"near", 0.5, 0, 1, false, NULL, "cosine above which two keys are near-duplicates"},
    {"kernel", 7, 1, 1023, true, NULL, "tokens pooled together, 1: no pooling"},
};

const kept_score kept_score_redundancy = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "redundancy",
             .summary = "attention of recent queries, less how much other keys resemble the key",
             .paper = "arXiv 2505.24133",
             .deviations = "keys as stored; the window's keys count as duplicates too",
             .options = options,
             .n_options = 4},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .comparable = true,
    .score = score,
};
