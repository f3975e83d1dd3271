/* pass_view: what a view shows only if asked for, because it costs work: keys before rotation, the
 * attention of recent queries, the weight of values in the output. */
#include "policy/pass.h"

#include "kern/kern.h"

#include <math.h>
#include <string.h>

/* ---- keys before rotation ------------------------------------------------------------------ */

void kept_pass_turns(kept_pass *p)
{
    const kept_evict *e = p->e;
    size_t half = (size_t)e->n_rope / 2;
    for (size_t pos = 0; pos < (size_t)e->next_pos; pos++) {
        float *re = p->turns + pos * 2 * half;
        for (size_t j = 0; j < half; j++) {
            double angle = (double)pos * e->rope_freq[j];
            re[j] = (float)cos(angle);
            re[half + j] = (float)-sin(angle);
        }
    }
}

void kept_pass_unrotate(kept_pass *p, int layer, int head, const int32_t *order)
{
    const kept_evict *e = p->e;
    const kept_view_head *h = &p->view[head];
    const kept_view v = {.n_rope = e->n_rope, .rope_neox = e->rope_neox};
    size_t size = (size_t)e->head_size, half = (size_t)e->n_rope / 2;
    memcpy(p->key0, p->key, (size_t)h->n * size * sizeof *p->key0);
    for (int i = 0; i < h->n; i++) {
        int32_t at = h->pos[i];
        if (e->rope_plane >= 0) /* an earlier eviction has moved the key */
            at += (int32_t)kept_cache_state(e->cache, layer, head, e->rope_plane, order[i]);
        at = at < 0 ? 0 : at >= e->next_pos ? e->next_pos - 1 : at;
        const float *re = p->turns + (size_t)at * 2 * half;
        kept_rope_turn(&v, re, re + half, p->key0 + (size_t)i * size, 1);
    }
}

/* ---- attention of recent queries ----------------------------------------------------------- */

/* e^x for x <= 0 within 2e-7 of it, 0 below -87: plain arithmetic that vectorises everywhere. */
static inline float exp_below(float x)
{
    float y = x * 1.442695041f;
    y = y < -126.0f ? -126.0f : y;
    int32_t whole = (int32_t)(y + 126.5f) - 126;
    float f = (y - (float)whole) * 0.6931471806f, power;
    float sum =
        1.0f +
        f * (1.0f + f * (0.5f + f * (0.16666667f + f * (0.041666668f +
                                                        f * (0.0083333340f + f * 0.0013888889f)))));
    uint32_t bits = (uint32_t)(whole + 127) << 23;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : sum * power;
}

/* Turns dots row [0..n), times scale plus bias, into probabilities over [0..seen), 0 beyond.
 * Returns log sum exp. */
static float soft_max(float *row, int n, int seen, float scale, const float *bias)
{
    float top = -INFINITY;
    double sum = 0;
    for (int i = 0; i < seen; i++) {
        row[i] = row[i] * scale + (bias ? bias[i] : 0);
        top = row[i] > top ? row[i] : top;
    }
    if (!seen || !isfinite(top)) {
        memset(row, 0, (size_t)n * sizeof *row);
        return 0;
    }
    for (int i = 0; i < seen; i++)
        row[i] = exp_below(row[i] - top);
    for (int i = 0; i < seen; i++)
        sum += row[i];
    float inverse = (float)(1 / sum);
    for (int i = 0; i < seen; i++)
        row[i] *= inverse;
    memset(row + seen, 0, (size_t)(n - seen) * sizeof *row);
    return top + (float)log(sum);
}

void kept_pass_probs(kept_pass *p, int layer, int head)
{
    const kept_evict *e = p->e;
    kept_view_head *h = &p->view[head];
    size_t size = (size_t)e->head_size * (size_t)e->group, R = (size_t)p->n_recent;
    const float *from =
        e->recent +
        ((size_t)layer * (size_t)e->n_recent + (size_t)e->n_recent - R) * (size_t)p->n_heads * size;
    for (size_t t = 0; t < R; t++)
        memcpy(p->query + t * size, from + (t * (size_t)p->n_heads + (size_t)head) * size,
               size * sizeof *from);
    h->query = p->query;
    if (p->look && p->look->queries_only)
        return;
    const float *bias = e->bias_plane < 0 ? NULL : p->pooled;
    for (int i = 0; bias && i < h->n; i++) /* in base 2 there */
        p->pooled[i] =
            0.69314718f * kept_cache_state(e->cache, layer, head, e->bias_plane,
                                           p->order[(size_t)head * (size_t)p->max_n + (size_t)i]);
    e->kern->dots((int)R * e->group, h->n, e->head_size, p->query, p->key, p->prob, h->n);
    for (int t = 0, seen = 0; t < p->n_recent; t++) {
        while (seen < h->n && h->pos[seen] <= e->next_pos - p->n_recent + t)
            seen++;
        for (int g = 0; g < e->group; g++) {
            int row = t * e->group + g;
            p->lse[row] =
                soft_max(p->prob + (size_t)row * (size_t)h->n, h->n, seen, e->attn_scale, bias);
        }
    }
    h->prob = p->prob;
    h->lse = p->lse;
}

/* ---- weight of values ---------------------------------------------------------------------- */

void kept_pass_weight(kept_pass *p, int head, const float *w_o)
{
    const kept_evict *e = p->e;
    kept_view_head *h = &p->view[head];
    size_t size = (size_t)e->head_size, row = (size_t)(p->n_heads * e->group) * size;
    int block = KEPT_SCRATCH / e->n_embd;
    float *weight = p->weight + (size_t)head * (size_t)p->max_n;
    block = block < 1 ? 1 : block > 64 ? 64 : block;
    memset(weight, 0, (size_t)h->n * sizeof *weight);
    for (int g = 0; g < e->group; g++) {
        for (size_t i = 0; i < (size_t)e->n_embd; i++)
            memcpy(p->output + i * size, w_o + i * row + (size_t)(head * e->group + g) * size,
                   size * sizeof *w_o);
        for (int i = 0; i < h->n; i += block) {
            int m = h->n - i < block ? h->n - i : block;
            e->kern->dots(m, e->n_embd, e->head_size, p->val + (size_t)i * size, p->output,
                          p->free_, e->n_embd);
            for (int k = 0; k < m; k++) {
                const float *x = p->free_ + (size_t)k * (size_t)e->n_embd;
                float part[8] = {0};
                int c = 0;
                for (; c + 8 <= e->n_embd; c += 8)
                    for (int j = 0; j < 8; j++)
                        part[j] += fabsf(x[c + j]);
                for (; c < e->n_embd; c++)
                    part[0] += fabsf(x[c]);
                float sum =
                    part[0] + part[1] + part[2] + part[3] + part[4] + part[5] + part[6] + part[7];
                weight[i + k] += sum / (float)e->group;
            }
        }
    }
    h->weight = weight;
}
