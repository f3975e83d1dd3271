/* notes: what a way of reading knows about each page, in blocks like those of state planes. A note
 * whose first number is a NaN is stale: whatever changes the keys of a page makes it so, and
 * kept_cache_refresh_notes makes it anew of the keys as they are stored. Notes are private to a
 * cache, so threads that work on different caches, or heads, never meet. */
#include "cache/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define STALE 0x7e00 /* a NaN */

kept_status kept_cache_set_notes(kept_cache *c, int n_blocks)
{
    const size_t n = (size_t)(c->n_layers * c->n_heads);
    const size_t bytes = n * (size_t)n_blocks * (size_t)c->cap * sizeof *c->notes;
    if (n_blocks < 1 || c->n_notes)
        return KEPT_ARGUMENT;
    if (c->held_pages * (size_t)n_blocks > c->pool->n_free_blocks)
        return KEPT_FULL;
    c->notes = malloc(bytes);
    if (!c->notes)
        return KEPT_NOMEM;
    memset(c->notes, 0xff, bytes);
    c->n_notes = n_blocks;
    c->own_bytes += bytes;
    for (size_t i = 0; i < n; i++)
        kept_cache_take_notes(c, (int)i / c->n_heads, (int)i % c->n_heads, 0, c->heads[i].n_pages);
    kept_cache_note_peak(c);
    return KEPT_OK;
}

int kept_cache_n_notes(const kept_cache *c)
{
    return c->n_notes;
}

void kept_cache_take_notes(kept_cache *c, int layer, int head, int from, int to)
{
    for (int k = 0; k < c->n_notes; k++)
        for (int i = from; i < to; i++)
            kept_cache_notes(c, layer, head, k)[i] = kept_pool_take_block(c->pool);
    c->held_blocks += (size_t)(to - from) * (size_t)c->n_notes;
    for (int i = from; i < to; i++)
        kept_cache_spoil_note(c, layer, head, i);
}

void kept_cache_drop_notes(kept_cache *c, int layer, int head, int from, int to)
{
    for (int k = 0; k < c->n_notes; k++) {
        int32_t *ids = kept_cache_notes(c, layer, head, k);
        for (int i = to - 1; i >= from; i--) {
            kept_pool_drop_block(c->pool, ids[i]);
            ids[i] = -1;
        }
    }
    c->held_blocks -= (size_t)(to - from) * (size_t)c->n_notes;
}

kept_f16 *kept_cache_note(const kept_cache *c, int layer, int head, int page, int block)
{
    return (kept_f16 *)(void *)kept_pool_block(c->pool,
                                               kept_cache_notes(c, layer, head, block)[page]);
}

void kept_cache_spoil_note(kept_cache *c, int layer, int head, int page)
{
    if (c->n_notes)
        kept_cache_note(c, layer, head, page, 0)[0] = STALE;
}

static bool is_stale(kept_f16 x)
{
    return (x & 0x7fff) > 0x7c00;
}

void kept_cache_refresh_notes(kept_cache *c, int layer, int head, int n_pages, kept_describe_fn *fn,
                              float *scratch)
{
    const int d = c->pool->head_size;
    float *key = scratch, *note = scratch + (size_t)KEPT_PAGE_SLOTS * (size_t)d;
    for (int i = 0; i < n_pages; i++) {
        if (!is_stale(*kept_cache_note(c, layer, head, i, 0)))
            continue;
        const kept_packed p = kept_cache_page(c, layer, head, i);
        if (kept_codec_is_f16(p.c))
            c->kern->get(p.at, d, 0, KEPT_PAGE_SLOTS, key, NULL);
        else
            kept_codec_read(p, 0, KEPT_PAGE_SLOTS, key, NULL);
        memset(note, 0, (size_t)c->n_notes * KEPT_NOTE_BLOCK * sizeof *note);
        fn(key, KEPT_PAGE_SLOTS, d, note);
        for (int k = 0; k < c->n_notes; k++) {
            kept_f16 *to = kept_cache_note(c, layer, head, i, k);
            for (int j = 0; j < KEPT_NOTE_BLOCK; j++)
                to[j] = kept_f32_to_f16(note[k * KEPT_NOTE_BLOCK + j]);
        }
    }
}
