/* rerotate: closes the gaps between the rotary positions of what is left of a head.
 *
 * A key at original position p has been turned to p + shift so far. Only differences of positions
 * matter to rotary attention, so instead of numbering slots from 0 and moving every later query,
 * the newest slot sits right before the next query and older ones follow without gaps. The window
 * of a stream then never moves; only its sinks do. Position "rerotated" does number slots from 0;
 * the engine then counts the next query from there.
 */
#include "policy/rerotate.h"

#include "policy/select.h"

#include <math.h>

/* Factors of a turn by `delta` positions. Neighbours mostly turn by the same, so the last is kept.
 */
typedef struct turn {
    int32_t delta;
    float re[KEPT_MAX_HEAD_SIZE / 2], im[KEPT_MAX_HEAD_SIZE / 2];
} turn;

static void set_turn(turn *t, const kept_evict *e, int32_t delta)
{
    if (t->delta == delta)
        return;
    t->delta = delta;
    for (int j = 0; j < e->n_rope / 2; j++) {
        double angle = (double)delta * e->rope_freq[j];
        t->re[j] = (float)cos(angle);
        t->im[j] = (float)sin(angle);
    }
}

static void apply(const turn *t, const kept_evict *e, float *key)
{
    int half = e->n_rope / 2;
    for (int j = 0; j < half; j++) {
        float *a = key + (e->rope_neox ? j : 2 * j),
              *b = key + (e->rope_neox ? j + half : 2 * j + 1);
        float x = *a, y = *b;
        *a = t->re[j] * x - t->im[j] * y;
        *b = t->im[j] * x + t->re[j] * y;
    }
}

kept_status kept_rerotate_head(const kept_evict *e, int layer, int head, bool renumber,
                               const kept_rerotate *w)
{
    int n = kept_cache_n(e->cache, layer, head), first = renumber ? 0 : e->next_pos - n;
    turn t = {.delta = 0};
    bool have_keys = false;
    kept_cache_read(e->cache, layer, head, w->pos, NULL, NULL);
    kept_order_positions(w->pos, n, w->order, w->work);
    for (int i = 0; i < n; i++) {
        int slot = w->order[i];
        float shift = kept_cache_state(e->cache, layer, head, e->rope_plane, slot);
        int32_t want = first + i - w->pos[slot], delta = want - (int32_t)shift;
        if (!delta)
            continue;
        if (!have_keys)
            kept_cache_read(e->cache, layer, head, NULL, w->key, NULL);
        have_keys = true;
        float *key = w->key + (size_t)slot * (size_t)e->head_size;
        set_turn(&t, e, delta);
        apply(&t, e, key);
        kept_status st = kept_cache_set_row(e->cache, layer, head, slot, key, NULL);
        if (st)
            return st;
        kept_cache_set_state(e->cache, layer, head, e->rope_plane, slot, (float)want);
    }
    return KEPT_OK;
}
