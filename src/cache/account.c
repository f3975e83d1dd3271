/* account: what a cache holds. Counters are kept by whoever takes and gives back; kept_cache_walk
 * counts list entries instead and must agree with them.
 */
#include "cache/private.h"

#include "kern/lowrank_stands.h"

static uint64_t kv_bytes(const kept_cache *c)
{
    return c->held_bytes;
}

static uint64_t meta_bytes(const kept_cache *c)
{
    return c->held_pages * KEPT_POS_BYTES + c->held_blocks * KEPT_BLOCK_BYTES + c->own_bytes +
           c->extra_meta + c->low_bytes;
}

/* What reading a half of that codec takes besides the page: of all heads, as any layer may have it.
 */
static size_t low_bytes(const kept_cache *c, int codec, bool v)
{
    const size_t D = (size_t)c->pool->head_size, heads = (size_t)(c->n_layers * c->n_heads);
    size_t bytes = 0;
    if (!kept_low_is_turned(codec, v))
        return heads * (size_t)kept_codec_channels(codec, (int)D) * D * sizeof(float);
    for (size_t h = 0; h < heads; h++)
        bytes += kept_stands_bytes(kept_low_stands(&c->pool->low[h], codec));
    return bytes;
}

void kept_cache_note_form(kept_cache *c, kept_codecs form)
{
    const size_t D = (size_t)c->pool->head_size, heads = (size_t)(c->n_layers * c->n_heads);
    size_t bytes = 0;
    c->packed |= !kept_codec_is_f16(form);
    if (!kept_codec_has_low(form))
        return;
    for (int v = 0; v < 2; v++) {
        const int codec = v ? form.v : form.k;
        if (kept_codec_get(codec)->basis)
            bytes += low_bytes(c, codec, v);
        if (kept_codec_get(codec)->nuq) /* levels, and of keys a mean and a scale per channel */
            bytes +=
                heads * ((1u << kept_codec_get(codec)->bits) + (v ? 0 : 2 * D)) * sizeof(float);
    }
    if (kept_codec_get(form.k)->basis || kept_codec_get(form.k)->nuq)
        bytes += kept_turns_bytes(c->pool->low[0].turns);
    c->low_bytes = bytes > c->low_bytes ? bytes : c->low_bytes;
}

uint64_t kept_cache_bytes(const kept_cache *c)
{
    return kv_bytes(c) + meta_bytes(c);
}

void kept_cache_note_peak(kept_cache *c)
{
    const uint64_t now = kept_cache_bytes(c);
    if (now > c->peak_bytes)
        c->peak_bytes = now;
    if (c->held_pages > c->peak_pages)
        c->peak_pages = c->held_pages;
}

/* Until something is evicted or packed every page has one block per plane, so a fork's own past,
 * had it run alone with its own planes, is exact. Afterwards the past is the source's. */
void kept_cache_inherit_account(kept_cache *c, const kept_cache *src)
{
    const uint64_t per_page =
        c->pool->page_bytes + KEPT_POS_BYTES + (uint64_t)c->n_planes * KEPT_BLOCK_BYTES;
    c->n_evicted = src->n_evicted;
    c->packed = src->packed;
    c->low_bytes = src->low_bytes;
    c->joint = src->joint;
    c->peak_pages = src->peak_pages;
    c->page_steps = src->page_steps;
    c->n_ticks = src->n_ticks;
    if (src->n_evicted || src->packed) {
        c->peak_bytes = src->peak_bytes;
        c->byte_steps = src->byte_steps;
    } else {
        c->peak_bytes = src->peak_pages * per_page + c->own_bytes;
        c->byte_steps = src->page_steps * (double)per_page + src->n_ticks * (double)c->own_bytes;
    }
    kept_cache_note_peak(c);
}

void kept_cache_set_extra(kept_cache *c, uint64_t extra_meta)
{
    c->extra_meta = extra_meta;
    kept_cache_note_peak(c);
}

void kept_cache_tick(kept_cache *c, double n)
{
    kept_cache_note_peak(c);
    c->byte_steps += (double)kept_cache_bytes(c) * n;
    c->page_steps += (double)c->held_pages * n;
    c->n_ticks += n;
}

void kept_cache_account(const kept_cache *c, kept_account *out)
{
    *out = (kept_account){.kv_bytes = kv_bytes(c),
                          .meta_bytes = meta_bytes(c),
                          .peak_bytes = c->peak_bytes,
                          .byte_steps = c->byte_steps,
                          .kv_numbers = (uint64_t)c->held_pages * KEPT_PAGE_SLOTS * 2 *
                                        (uint64_t)c->pool->head_size,
                          .n_evicted = c->n_evicted};
}

void kept_cache_walk(const kept_cache *c, uint64_t *kv, uint64_t *meta)
{
    const size_t n = (size_t)(c->n_layers * c->n_heads);
    const size_t n_entries = n * (size_t)c->n_lists * (size_t)c->cap;
    size_t pages = 0, blocks = 0;
    *kv = 0;
    for (size_t i = 0; i < n_entries; i++) {
        if (c->lists[i] < 0)
            continue;
        if (i / (size_t)c->cap % (size_t)c->n_lists) {
            blocks++;
            continue;
        }
        pages++;
        const size_t cell = i / ((size_t)c->cap * (size_t)c->n_lists);
        *kv += kept_cache_bytes_of(c, (int)cell / c->n_heads, c->lists[i]);
    }
    const size_t n_notes = n * (size_t)c->n_notes * (size_t)c->cap;
    for (size_t i = 0; i < n_notes; i++)
        blocks += c->notes[i] >= 0;
    *meta = n_notes * sizeof(int32_t) + pages * KEPT_POS_BYTES + blocks * KEPT_BLOCK_BYTES +
            sizeof *c + n * sizeof(cache_head) + n_entries * sizeof(int32_t) + c->extra_meta +
            c->low_bytes;
}
