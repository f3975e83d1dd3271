/* pack: pages of a head become packed ones, one at a time: through a scratch page of the pool, so
 * that a head that is demoted never has a second copy.
 */
#include "cache/private.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* A half that has the form of page id's keeps its bits. */
static void keep_half(const kept_pool *p, int32_t id, kept_packed to)
{
    const kept_codecs now = p->form[id];
    const int D = p->head_size;
    const uint8_t *from = kept_pool_page(p, id);
    if (kept_codec_layers(now) > 1)
        return;
    if (now.k == to.c.k)
        memcpy(to.at, from, kept_codec_half_bytes(now.k, false, D));
    if (now.v == to.c.v)
        memcpy(to.at + kept_codec_half_bytes(to.c.k, false, D),
               from + kept_codec_half_bytes(now.k, false, D),
               kept_codec_half_bytes(now.v, true, D));
}

/* A page of that form in place of page id, which loses one reference, or -1. In a pool without room
 * for both, a page that nobody shares goes before its packed copy comes. with: what packing needs
 * besides the page. */
static int32_t pack_page(kept_pool *p, int32_t id, kept_codecs form, const kept_packed *with)
{
    int32_t pos[KEPT_PAGE_SLOTS], to = kept_pool_take_page(p, form);
    const bool first = to < 0;
    if (first && (p->refs[id] > 1 || !kept_pool_has_place(p, form)))
        return -1;
    memcpy(pos, p->pos + (size_t)id * KEPT_PAGE_SLOTS, KEPT_POS_BYTES);
    const kept_packed packed = {.at = first ? p->scratch : kept_pool_page(p, to),
                                .c = form,
                                .head_size = p->head_size,
                                .channels = with->channels,
                                .low = with->low,
                                .pos = pos};
    const uint8_t *from = kept_pool_page(p, id);
    if (!kept_codec_is_f16(p->form[id])) {
        uint8_t *wide = p->scratch + p->page_bytes;
        kept_packed now = kept_pool_get_page(p, id);
        now.low = with->low;
        kept_codec_unpack(wide, now);
        from = wide;
    }
    kept_codec_pack(packed, from);
    keep_half(p, id, packed);
    kept_pool_drop_page(p, id);
    if (first) {
        to = kept_pool_take_page(p, form);
        assert(to >= 0);
        memcpy(kept_pool_page(p, to), p->scratch, kept_pool_bytes_of(p, to));
    }
    memcpy(p->pos + (size_t)to * KEPT_PAGE_SLOTS, pos, KEPT_POS_BYTES);
    return to;
}

/* Which channels pages packed into a thin form hold: [r] into out. All of a head hold the same, so
 * that rows can move between them. */
static void choose_channels(const kept_cache *c, const int32_t *ids, int n, kept_codecs form,
                            const float *weight, uint8_t *out)
{
    const kept_pool *p = c->pool;
    const int D = p->head_size, r = kept_codec_channels(form.k, D);
    float k[KEPT_PAGE_SLOTS * KEPT_MAX_HEAD_SIZE];
    double sum[KEPT_MAX_HEAD_SIZE] = {0};
    for (int i = 0; i < n; i++)
        if (p->form[ids[i]].k == form.k) {
            memcpy(out, kept_codec_channels_of(kept_pool_page(p, ids[i]), form.k, D), (size_t)r);
            return;
        }
    for (int i = 0; i < n; i++) {
        if (!kept_codec_is_f16(p->form[ids[i]]))
            continue;
        c->kern->get(kept_pool_page(p, ids[i]), D, 0, KEPT_PAGE_SLOTS, k, NULL);
        for (int j = 0; j < KEPT_PAGE_SLOTS * D; j++)
            sum[j % D] += isfinite(k[j]) ? (double)k[j] * (double)k[j] : 0;
    }
    for (int d = 0; d < D && weight; d++)
        sum[d] *= (double)weight[d];
    kept_codec_choose(sum, D, r, out);
}

/* Page i of a head in that form. False: there is no room. */
static bool replace_page(kept_cache *c, int layer, int head, int i, kept_codecs form,
                         const uint8_t *channels)
{
    kept_pool *p = c->pool;
    int32_t *id = &kept_cache_list(c, layer, head, 0)[i];
    const size_t before = kept_cache_bytes_of(c, layer, *id);
    const kept_packed with = {.channels = channels, .low = kept_cache_low(c, layer, head)};
    const int32_t to = pack_page(p, *id, form, &with);
    if (to < 0)
        return false;
    c->held_bytes += kept_pool_bytes_of(p, to);
    kept_cache_note_form(c, form);
    kept_cache_note_peak(c); /* for a moment there were both */
    c->held_bytes -= before;
    *id = to;
    kept_cache_spoil_note(c, layer, head, i);
    return true;
}

kept_status kept_cache_pack(kept_cache *c, int layer, int head, kept_codecs form, int skip,
                            const float *weight)
{
    kept_pool *p = c->pool;
    int32_t *ids = kept_cache_list(c, layer, head, 0);
    const int full = kept_cache_n(c, layer, head) / KEPT_PAGE_SLOTS, n = full - skip;
    uint8_t channels[KEPT_MAX_HEAD_SIZE];
    if (n > 0 && kept_codec_is_thin(form.k))
        choose_channels(c, ids, full, form, weight, channels);
    for (int i = 0; i < n && !kept_codec_is_f16(form); i++) {
        if (!kept_codec_is_f16(p->form[ids[i]]))
            continue;
        if (!replace_page(c, layer, head, i, form, channels))
            return KEPT_FULL;
    }
    return KEPT_OK;
}

kept_status kept_cache_narrow(kept_cache *c, int layer, int head, int page, kept_codecs form)
{
    const kept_pool *p = c->pool;
    const int32_t id = kept_cache_list(c, layer, head, 0)[page];
    const kept_codecs now = p->form[id];
    const int D = p->head_size;
    assert(page < kept_cache_n(c, layer, head) / KEPT_PAGE_SLOTS);
    assert(!kept_codec_is_thin(form.k) && kept_codec_layers(form) == 1);
    if (kept_codec_layers(now) > 1) /* it is other layers' page too */
        return KEPT_OK;
    if (kept_codec_half_bytes(form.k, false, D) >= kept_codec_half_bytes(now.k, false, D))
        form.k = now.k;
    if (kept_codec_half_bytes(form.v, true, D) >= kept_codec_half_bytes(now.v, true, D))
        form.v = now.v;
    if (form.k == now.k && form.v == now.v)
        return KEPT_OK;
    return replace_page(c, layer, head, page, form, NULL) ? KEPT_OK : KEPT_FULL;
}
