/* pass_score: shows every head to the score, slots in the order of positions, and puts what it says
 * back into slot order. Protection is decided here too: it needs the same order.
 */
#include "policy/pass.h"
#include "policy/select.h"

#include <float.h>
#include <math.h>
#include <string.h>

static bool is_pinned(const kept_evict *e, int32_t pos)
{
    for (int i = 0; i < e->n_pins; i++)
        if (pos >= e->pins[i].begin && pos < e->pins[i].end)
            return true;
    return false;
}

/* Marks the protected slots of head i in its mask: pins first, then as many sinks and recent slots
 * as the limit leaves room for, sinks from the first on and recent ones from the last back. */
static void guard(kept_pass *p, int i, const kept_view_head *v, const int32_t *order)
{
    const double *option = p->s->option[KEPT_AXIS_PROTECTION];
    int64_t sinks = (int64_t)option[KEPT_PROTECT_SINKS];
    int64_t recent = p->e->next_pos - (int64_t)option[KEPT_PROTECT_RECENT];
    uint8_t *mask = p->mask + p->at[i];
    int n = 0;
    for (int k = 0; k < v->n; k++)
        n += mask[order[k]] = is_pinned(p->e, v->pos[k]);
    for (int k = 0; k < v->n && v->pos[k] < sinks && n < p->limit; k++)
        if (!mask[order[k]])
            n += mask[order[k]] = 1;
    for (int k = v->n - 1; k >= 0 && v->pos[k] >= recent && n < p->limit; k--)
        if (!mask[order[k]])
            n += mask[order[k]] = 1;
    p->n_guard[i] = n;
    p->n_open[i] = v->n - n;
}

/* Positions, mass and query statistics of head h of a layer, in the order of positions. */
static void view_head(kept_pass *p, int layer, int h)
{
    const kept_evict *e = p->e;
    size_t row = (size_t)h * (size_t)p->max_n, size = (size_t)e->head_size;
    size_t q = ((size_t)layer * (size_t)p->n_heads + (size_t)h) * (size_t)e->group * size;
    int32_t *order = p->order + row, *pos = p->pos + row;
    kept_view_head *v = &p->view[h];
    *v = (kept_view_head){.n = kept_cache_n(e->cache, layer, h), .pos = pos};
    kept_cache_read(e->cache, layer, h, p->slot_pos, NULL, NULL);
    kept_order_positions(p->slot_pos, v->n, order, p->work);
    for (int k = 0; k < v->n; k++)
        pos[k] = p->slot_pos[order[k]];
    if (p->plane >= 0) {
        for (int k = 0; k < v->n; k++)
            p->mass[row + (size_t)k] = kept_cache_state(e->cache, layer, h, p->plane, order[k]);
        v->mass = p->mass + row;
    }
    if (p->score->needs & KEPT_NEED_QUERIES) {
        v->q_mean = e->q_mean + q;
        v->q_cov = e->q_cov + q * size;
    }
}

static void sort_rows(const float *from, float *to, const int32_t *order, int n, size_t size)
{
    for (int k = 0; k < n; k++)
        memcpy(to + (size_t)k * size, from + (size_t)order[k] * size, size * sizeof *to);
}

/* Keys and values of head h, in the order of positions. */
static void view_rows(kept_pass *p, int layer, int h, const int32_t *order)
{
    kept_view_head *v = &p->view[h];
    size_t size = (size_t)p->e->head_size;
    if (p->score->needs & KEPT_NEED_KEYS) {
        kept_cache_read(p->e->cache, layer, h, NULL, p->raw, NULL);
        sort_rows(p->raw, p->key, order, v->n, size);
        v->key = p->key;
    }
    if (p->score->needs & KEPT_NEED_VALUES) {
        kept_cache_read(p->e->cache, layer, h, NULL, NULL, p->raw);
        sort_rows(p->raw, p->val, order, v->n, size);
        v->value = p->val;
    }
}

float kept_pass_bounded(float x)
{
    return isnan(x) ? -FLT_MAX : x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

void kept_pass_score(kept_pass *p, int l)
{
    const kept_evict *e = p->e;
    const uint64_t seed[3] = {e->seed, e->round, (uint64_t)p->layer[l]};
    kept_view v = {.layer = p->layer[l],
                   .n_layers = e->n_layers,
                   .n_heads = p->n_heads,
                   .group = e->group,
                   .head_size = e->head_size,
                   .next_pos = e->next_pos,
                   .heads = p->view,
                   .options = p->s->option[KEPT_AXIS_SCORE],
                   .seed = kept_hash64(seed, sizeof seed, 0),
                   .rope_freq = e->rope_freq,
                   .n_rope = e->n_rope,
                   .rope_neox = e->rope_neox,
                   .scratch = p->free_};
    for (int h = 0; h < p->n_heads; h++)
        view_head(p, p->layer[l], h);
    for (int h = 0; h < p->n_heads; h++) {
        int i = l * p->n_heads + h, n = p->view[h].n;
        const int32_t *order = p->order + (size_t)h * (size_t)p->max_n;
        guard(p, i, &p->view[h], order);
        view_rows(p, p->layer[l], h, order);
        p->score->score(&v, h, p->sorted);
        for (int k = 0; k < n; k++)
            p->value[p->at[i] + (size_t)order[k]] = kept_pass_bounded(p->sorted[k]);
    }
}
