/* joint: one page in place of the pages that a group of adjacent layers has of a head. */
#include "cache/private.h"

#include "kern/lowrank.h"

#include <assert.h>
#include <string.h>

/* The group that starts at `layer`, and page i of its lists. */
typedef struct group {
    kept_cache *c;
    int layer, head, n;
} group;

static int32_t *id_of(const group *g, int k, int i)
{
    return &kept_cache_list(g->c, g->layer + k, g->head, 0)[i];
}

/* Are pages i of all layers F16, full, and of the same positions? */
static bool can_join(const group *g, int i)
{
    const kept_pool *p = g->c->pool;
    const int32_t *pos = p->pos + (size_t)*id_of(g, 0, i) * KEPT_PAGE_SLOTS;
    for (int k = 0; k < g->n; k++) {
        if (kept_cache_n(g->c, g->layer + k, g->head) < (i + 1) * KEPT_PAGE_SLOTS)
            return false;
        const int32_t id = *id_of(g, k, i);
        if (!kept_codec_is_f16(p->form[id]) ||
            memcmp(pos, p->pos + (size_t)id * KEPT_PAGE_SLOTS, KEPT_POS_BYTES) != 0)
            return false;
    }
    return true;
}

static kept_status join(const group *g, int i, kept_codecs form)
{
    kept_cache *c = g->c;
    kept_pool *p = c->pool;
    const kept_low *low[KEPT_JOINT_LAYERS];
    const uint8_t *f16[KEPT_JOINT_LAYERS];
    const int32_t to = kept_pool_take_page(p, form);
    if (to < 0)
        return KEPT_FULL;
    for (int k = 0; k < g->n; k++) {
        low[k] = kept_cache_low(c, g->layer + k, g->head);
        f16[k] = kept_pool_page(p, *id_of(g, k, i));
    }
    int32_t *pos = p->pos + (size_t)to * KEPT_PAGE_SLOTS;
    memcpy(pos, p->pos + (size_t)*id_of(g, 0, i) * KEPT_PAGE_SLOTS, KEPT_POS_BYTES);
    kept_codec_pack_joint(
        (kept_packed){
            .at = kept_pool_page(p, to), .c = form, .head_size = p->head_size, .pos = pos},
        g->n, low, f16);
    p->refs[to] = g->n;
    c->joint = true;
    kept_cache_note_form(c, form);
    for (int k = 0; k < g->n; k++)
        c->held_bytes += kept_cache_bytes_of(c, g->layer + k, to);
    kept_cache_note_peak(c); /* for a moment there were both */
    for (int k = 0; k < g->n; k++) {
        int32_t *id = id_of(g, k, i);
        c->held_bytes -= p->page_bytes;
        kept_pool_drop_page(p, *id);
        *id = to;
        kept_cache_spoil_note(c, g->layer + k, g->head, i);
    }
    return KEPT_OK;
}

kept_status kept_cache_pack_joint(kept_cache *c, int layer, int head, kept_codecs form, int skip)
{
    const group g = {c, layer, head, kept_cache_group(c, layer, form)};
    const int n = kept_cache_n(c, layer, head) / KEPT_PAGE_SLOTS - skip;
    assert(layer % kept_codec_layers(form) == 0 && g.n <= KEPT_JOINT_LAYERS);
    for (int i = 0; i < n; i++) {
        if (!can_join(&g, i) || (kept_codec_get(form.k)->slerp && g.n < 2))
            continue;
        const kept_status s = join(&g, i, form);
        if (s)
            return s;
    }
    return KEPT_OK;
}

bool kept_cache_is_joint(const kept_cache *c)
{
    return c->joint;
}
