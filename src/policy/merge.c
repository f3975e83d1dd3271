/* merge: what dropped slots leave in kept ones: shows a head to the merge part, takes what it
 * changed, and writes that once the head is cut. Written afterwards, a shared page that is about to
 * lose most of its slots need not be copied first. */
#include "policy/pass.h"
#include "policy/rerotate.h"
#include "policy/select.h"

#include <math.h>
#include <string.h>

#define MOST  65504.0f /* largest number of F16 */
#define LIMIT 60.0f    /* largest bias: e^60 tokens */
#define LOG2E 1.44269504f

/* ---- what a part sees ---------------------------------------------------------------------- */

/* Places of kept and gone slots, scores and biases in the order of positions. */
static void sort_slots(kept_pass *p, int i, const uint8_t *keep, kept_merging *m)
{
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads, n = p->view[head].n;
    const int32_t *order = p->order + (size_t)head * (size_t)p->max_n;
    const float *score = p->value + p->at[i];
    const int plane = p->e->bias_plane;
    for (int k = 0; k < n; k++) {
        if (keep[order[k]])
            p->kept[m->n_kept++] = k;
        else
            p->gone[m->n_gone++] = k;
        p->by_place[k] = score[order[k]];
        p->bias[k] =
            plane < 0 ? 0 : kept_cache_state(p->e->cache, layer, head, plane, order[k]) / LOG2E;
    }
    m->kept = p->kept;
    m->gone = p->gone;
    m->score = p->by_place;
    m->old_bias = p->bias;
    m->to = p->to;
    m->work = p->own;
}

/* Rows [n_kept][D] of x at the kept places, in out; NULL: x is not there. */
static float *gather(const kept_merging *m, const float *x, size_t size, float *out)
{
    if (!x)
        return NULL;
    for (int j = 0; j < m->n_kept; j++)
        memcpy(out + (size_t)j * size, x + (size_t)m->kept[j] * size, size * sizeof *x);
    return out;
}

/* ---- what it changed ----------------------------------------------------------------------- */

static void bound(float *row, size_t size)
{
    for (size_t d = 0; d < size; d++)
        row[d] = row[d] > MOST ? MOST : row[d] < -MOST ? -MOST : row[d];
}

/* Whether row differs from old; cut to the range of F16. A row that is not finite becomes old. */
static bool changed(float *row, const float *old, size_t size)
{
    bool finite = true;
    if (!memcmp(row, old, size * sizeof *row))
        return false;
    for (size_t d = 0; d < size; d++)
        finite &= isfinite(row[d]) != 0;
    bound(row, size);
    if (!finite)
        memcpy(row, old, size * sizeof *row);
    return finite;
}

/* Turns a key that has no rotation to the rotary position of the slot at this place. */
static void turn_to(const kept_pass *p, int layer, int head, int place, float *key)
{
    const kept_evict *e = p->e;
    const int32_t *order = p->order + (size_t)head * (size_t)p->max_n;
    const size_t half = (size_t)e->n_rope / 2;
    const kept_view v = {.n_rope = e->n_rope, .rope_neox = e->rope_neox};
    float im[KEPT_MAX_HEAD_SIZE / 2];
    int32_t at = p->view[head].pos[place];
    if (e->rope_plane >= 0)
        at += (int32_t)kept_cache_state(e->cache, layer, head, e->rope_plane, order[place]);
    at = at < 0 ? 0 : at >= e->next_pos ? e->next_pos - 1 : at;
    const float *re = p->turns + (size_t)at * 2 * half;
    for (size_t j = 0; j < half; j++)
        im[j] = -re[half + j];
    kept_rope_turn(&v, re, im, key, 1);
}

/* Marks what changed of every kept slot. key0 [n_kept][D]: keys before rotation, or NULL. */
static void collect(const kept_pass *p, int i, const kept_merging *m, kept_merged *out)
{
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads;
    const kept_view_head *h = &p->view[head];
    const size_t size = (size_t)p->e->head_size;
    for (int j = 0; j < m->n_kept; j++) {
        const size_t at = (size_t)m->kept[j] * size, to = (size_t)j * size;
        uint8_t set = 0;
        if (m->key && changed(m->key + to, h->key + at, size))
            set |= KEPT_MERGED_KEY;
        if (m->key0 && changed(m->key0 + to, h->key0 + at, size)) {
            memcpy(m->key + to, m->key0 + to, size * sizeof *m->key);
            turn_to(p, layer, head, m->kept[j], m->key + to);
            bound(m->key + to, size);
            set |= KEPT_MERGED_KEY;
        }
        if (m->value && changed(m->value + to, h->value + at, size))
            set |= KEPT_MERGED_VALUE;
        if (m->bias && isfinite(m->bias[j]) && m->bias[j] != m->old_bias[m->kept[j]]) {
            m->bias[j] = fmaxf(-LIMIT, fminf(LIMIT, m->bias[j]));
            set |= KEPT_MERGED_BIAS;
        }
        out->set[j] = set;
    }
}

void kept_merge_head(kept_pass *p, int i, const uint8_t *keep, kept_merged *out)
{
    const int l = i / p->n_heads, head = i % p->n_heads;
    const double *options = p->s->option[KEPT_AXIS_MERGE];
    const size_t size = (size_t)p->e->head_size;
    kept_merging m = {.head = head};
    kept_pass q = *p; /* with what the merge asks for */
    q.needs = p->merge_needs;
    q.n_recent = p->merge_recent;
    q.plane = p->merge_plane;
    q.rows = p->merge_rows;
    out->n = 0;
    if (!memchr(keep, 0, (size_t)p->n[i]) || !memchr(keep, 1, (size_t)p->n[i]))
        return;
    kept_view v = kept_pass_show(&q, l, head);
    sort_slots(p, i, keep, &m);
    const kept_view_head *h = &p->view[head];
    m.key = gather(&m, h->key, size, out->key);
    m.key0 = gather(&m, h->key0, size, p->raw);
    m.value = gather(&m, h->value, size, out->value);
    if (kept_merge_biases(p->merge, options)) {
        m.bias = out->bias;
        for (int j = 0; j < m.n_kept; j++)
            m.bias[j] = m.old_bias[m.kept[j]];
    }
    v.options = options;
    p->merge->merge(&v, &m);
    collect(p, i, &m, out);
    out->n = m.n_kept;
}

/* ---- writing it ---------------------------------------------------------------------------- */

static kept_status write(kept_pass *p, int layer, int head, const kept_merged *m)
{
    const kept_evict *e = p->e;
    const size_t size = (size_t)e->head_size;
    if (!m->n)
        return KEPT_OK;
    kept_cache_read(e->cache, layer, head, p->slot_pos, NULL, NULL);
    kept_order_positions(p->slot_pos, m->n, p->order, p->work);
    for (int j = 0; j < m->n; j++) {
        const int slot = p->order[j];
        const float *k = m->set[j] & KEPT_MERGED_KEY ? m->key + (size_t)j * size : NULL;
        const float *v = m->set[j] & KEPT_MERGED_VALUE ? m->value + (size_t)j * size : NULL;
        if (k || v) {
            kept_status st = kept_cache_set_row(e->cache, layer, head, slot, k, v);
            if (st)
                return st;
        }
        if (m->set[j] & KEPT_MERGED_BIAS)
            kept_cache_set_state(e->cache, layer, head, e->bias_plane, slot, m->bias[j] * LOG2E);
    }
    return KEPT_OK;
}

kept_status kept_pass_cut(kept_pass *p, int i, const uint8_t *keep, const kept_merged *merged)
{
    const kept_rerotate turn = {p->slot_pos, p->order, p->work, p->raw};
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads;
    kept_status st = kept_cache_retain(p->e->cache, layer, head, keep);
    if (!st && merged)
        st = write(p, layer, head, merged);
    if (!st && kept_strategy_moves_keys(p->s))
        st = kept_rerotate_head(p->e, layer, head, kept_strategy_renumbers(p->s), &turn);
    return st;
}
