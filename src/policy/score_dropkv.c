/* dropkv: DropKV (kvpress #284, #285): how much the output of recent queries changes if this one
 * token is dropped. Without token i a softmax attention's output o moves by p/(1-p) (v - o), so
 *
 *     s(i) = sum over the last `window` queries of (p_i / (1 - p_i))^2 ||v_i - o||^2
 *
 * Deviations: o is over the slots that are live now; summed over the query heads of the KV head; a
 * token that has all attention counts as if 0 were left.
 */
#include "kept/policy.h"

#include <string.h>

#define MAX_SIZE 512

enum { WINDOW };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static float distance(const float *x, const float *y, int n)
{
    float part[8] = {0};
    int d = 0;
    for (; d + 8 <= n; d += 8)
        for (int j = 0; j < 8; j++)
            part[j] += (x[d + j] - y[d + j]) * (x[d + j] - y[d + j]);
    for (; d < n; d++)
        part[0] += (x[d] - y[d]) * (x[d] - y[d]);
    return part[0] + part[1] + part[2] + part[3] + part[4] + part[5] + part[6] + part[7];
}

/* Adds the errors of one query: p, values and to [n]. Of the token that has most attention, the
 * others' output is made apart: o would hide how little of it they are. */
static void add_errors(const float *p, const float *value, int n, int size, float *to)
{
    float o[MAX_SIZE] = {0}, other[MAX_SIZE], rest = 0;
    int top = 0;
    for (int i = 0; i < n; i++)
        top = p[i] > p[top] ? i : top;
    for (int i = 0; i < n; i++) {
        if (i == top || !(p[i] > 0))
            continue;
        rest += p[i];
        for (int d = 0; d < size; d++)
            o[d] += p[i] * value[(size_t)i * (size_t)size + (size_t)d];
    }
    for (int d = 0; d < size; d++) {
        other[d] = rest > 0 ? o[d] / rest : 0;
        o[d] += p[top] * value[(size_t)top * (size_t)size + (size_t)d];
    }
    for (int i = 0; i < n; i++) {
        const float *v = value + (size_t)i * (size_t)size;
        float odds = i == top ? p[i] : p[i] / (1 - p[i]);
        if (p[i] > 0)
            to[i] += odds * odds * distance(v, i == top ? other : o, size);
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t n = (size_t)h->n;
    float *error = v->scratch; /* [G][n] */
    int old = 0;
    memset(error, 0, (size_t)v->group * n * sizeof *error);
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    for (int row = 0; row < v->n_recent * v->group; row++)
        add_errors(h->prob + (size_t)row * n, h->value, h->n, v->head_size,
                   error + (size_t)(row % v->group) * n);
    kept_group(v, error, v->group, h->n, old, out);
}

static const kept_option options[] = {
    {"window", 32, 1, KEPT_MAX_RECENT, true, NULL, "last queries whose output is looked at"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_dropkv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "dropkv",
             .summary = "error in the output of recent queries if this one token were gone",
             .paper = "kvpress #284, #285 (DropKV)",
             .deviations = "over the slots that are live now; summed over the query heads of a KV "
                           "head; a token that has all attention leaves 0",
             .options = options,
             .n_options = 5},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
