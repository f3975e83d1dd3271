/* park: pages of a cache, one by one, out of it and into another. */
#include "cache/private.h"

#include <string.h>

size_t kept_cache_save_page(const kept_cache *c, int layer, int head, int page, uint8_t *out)
{
    const int32_t id = kept_cache_list(c, layer, head, 0)[page];
    const int n = kept_cache_n(c, layer, head) - page * KEPT_PAGE_SLOTS;
    const kept_packed p = kept_pool_get_page(c->pool, id);
    const size_t bytes = kept_pool_bytes_of(c->pool, id);
    if (n >= KEPT_PAGE_SLOTS) {
        memcpy(out, p.at, bytes);
        return bytes;
    }
    memset(out, 0, bytes); /* a page that is not full is F16; what its other slots hold is chance */
    for (int i = 0; i < n; i++)
        c->kern->move(out, i, p.at, i, c->pool->head_size);
    return bytes;
}

kept_status kept_cache_load_page(kept_cache *c, int layer, int head, kept_codecs form,
                                 const uint8_t *bytes, const int32_t *pos)
{
    kept_pool *p = c->pool;
    cache_head *h = kept_cache_head(c, layer, head);
    if (h->n_pages >= c->cap)
        return KEPT_ARGUMENT;
    if ((kept_codec_has_low(form) && !p->low) || kept_codec_layers(form) > 1)
        return KEPT_ARGUMENT; /* nobody could read it, or it would be there once a layer */
    if ((size_t)(c->n_planes + c->n_notes) > p->n_free_blocks)
        return KEPT_FULL;
    const int32_t id = kept_pool_take_page(p, form);
    if (id < 0)
        return KEPT_FULL;
    memcpy(kept_pool_page(p, id), bytes, kept_pool_bytes_of(p, id));
    memcpy(p->pos + (size_t)id * KEPT_PAGE_SLOTS, pos, KEPT_POS_BYTES);
    kept_cache_list(c, layer, head, 0)[h->n_pages] = id;
    for (int i = 0; i < c->n_planes; i++) {
        const int32_t b = kept_pool_take_block(p);
        kept_cache_list(c, layer, head, 1 + i)[h->n_pages] = b;
        memset(kept_pool_block(p, b), 0, KEPT_BLOCK_BYTES);
    }
    kept_cache_take_notes(c, layer, head, h->n_pages, h->n_pages + 1);
    c->held_pages++;
    c->held_bytes += kept_pool_bytes_of(p, id);
    c->held_blocks += (size_t)c->n_planes;
    kept_cache_note_form(c, form);
    h->n_pages++;
    return KEPT_OK;
}

void kept_cache_load_end(kept_cache *c, int layer, int head, int n)
{
    cache_head *h = kept_cache_head(c, layer, head);
    if (n >= 0 && kept_pages_for(n) == h->n_pages)
        h->n = n;
}

kept_history kept_cache_get_history(const kept_cache *c)
{
    return (kept_history){c->peak_bytes, c->n_evicted,  c->peak_pages,
                          c->byte_steps, c->page_steps, c->n_ticks};
}

void kept_cache_set_history(kept_cache *c, const kept_history *h)
{
    c->peak_bytes = h->peak_bytes;
    c->n_evicted = h->n_evicted;
    c->peak_pages = (size_t)h->peak_pages;
    c->byte_steps = h->byte_steps;
    c->page_steps = h->page_steps;
    c->n_ticks = h->n_ticks;
    kept_cache_note_peak(c);
}
