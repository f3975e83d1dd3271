/* dropkv: DropKV (kvpress #284, #285): how much the output of recent queries changes if this one
 * token is dropped. Without token i a softmax attention's output o moves by p/(1-p) (v - o), so
 *
 *     s(i) = sum over the last `window` queries of (p_i / (1 - p_i))^2 ||v_i - o||^2
 *
 * Deviations: o is over the slots that are live now; summed over the query heads of the KV head;
 * 1 - p counts at least 1e-6, so that a token that has all attention stays comparable.
 */
#include "kept/policy.h"

#include <string.h>

#define MAX_SIZE 512

enum { WINDOW };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

/* Attention on all tokens but the one that has most: 1 - p of that one, to full precision. */
static float rest_of(const float *p, int n)
{
    float most = 0, rest = 0;
    int top = 0;
    for (int i = 0; i < n; i++)
        if (p[i] > most)
            most = p[top = i];
    for (int i = 0; i < n; i++)
        rest += i == top ? 0 : p[i];
    return rest;
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

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t n = (size_t)h->n, size = (size_t)v->head_size;
    float *error = v->scratch, o[MAX_SIZE]; /* [G][n] */
    int old = 0;
    memset(error, 0, (size_t)v->group * n * sizeof *error);
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    for (int row = 0; row < v->n_recent * v->group; row++) {
        const float *p = h->prob + (size_t)row * n;
        float *to = error + (size_t)(row % v->group) * n, rest = rest_of(p, h->n);
        memset(o, 0, sizeof o);
        for (size_t i = 0; i < n; i++)
            for (size_t d = 0; d < size && p[i] > 0; d++)
                o[d] += p[i] * h->value[i * size + d];
        for (size_t i = 0; i < n; i++) {
            float left = p[i] > 0.5f ? rest : 1 - p[i], odds = p[i] / (left > 1e-6f ? left : 1e-6f);
            if (p[i] > 0)
                to[i] += odds * odds * distance(h->value + i * size, o, v->head_size);
        }
    }
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
                           "head; 1 - p counts at least 1e-6",
             .options = options,
             .n_options = 5},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
