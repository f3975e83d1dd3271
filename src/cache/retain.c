/* retain: drops slots of one head and gives the freed pages back.
 *
 * Slot order is free, so whole pages may be reordered in the list at no cost. Pages are sorted by
 * the number of slots they keep, fullest first; the first ceil(kept/64) of them stay and their
 * holes are filled from the rest, which then goes back to the pool:
 *
 *     pages   #### ##.# .... #..# ..#.      after sorting   #### ##.# #..# ..#. ....
 *     after filling and trimming            #### #### ##
 *
 * So pages that keep everything are never touched (and stay shared), dead pages cost nothing, and
 * the number of columns moved is the least possible. A page that must change and is shared gets a
 * private copy first. All decisions are made on scratch before anything changes.
 */
#include "cache/private.h"

#include <assert.h>
#include <string.h>

#define N_KEYS (2 * KEPT_PAGE_SLOTS + 2)

/* What retain will do to one head. Pages are named by their place in the sorted list. */
typedef struct plan {
    kept_cache *c;
    int layer, head;
    int n_pages;     /* pages before */
    int n_keep;      /* slots after */
    int n_stay;      /* pages after */
    uint64_t *mask;  /* [n_pages] slots kept, by place in the old list */
    int32_t *order;  /* [n_pages] old place of the page now at this place */
    size_t n_copies; /* pages that must change and cannot: see must_copy */
    size_t n_dead;   /* private F16 pages that keep nothing */
} plan;

/* Bit i: keep[i] != 0, for n <= 64 bytes. Eight at a time, because every slot of every head passes
 * here: the high bit of each byte is set if the byte is not zero, and one product collects the
 * eight bits in its top byte. */
static uint64_t mask_of(const uint8_t *keep, int n)
{
    const uint64_t low7 = UINT64_C(0x7f7f7f7f7f7f7f7f);
    uint64_t m = 0;
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w = 0;
        for (int j = 0; j < 8; j++) /* one load where bytes are in this order */
            w |= (uint64_t)keep[i + j] << (8 * j);
        w = ((((w & low7) + low7) | w) & ~low7) >> 7;
        m |= (w * UINT64_C(0x0102040810204080) >> 56) << i;
    }
    for (; i < n; i++)
        m |= (uint64_t)(keep[i] != 0) << i;
    return m;
}

static uint64_t low_bits(int n)
{
    return n >= KEPT_PAGE_SLOTS ? ~UINT64_C(0) : (UINT64_C(1) << n) - 1;
}

/* Slots that the page at this place must hold in the end. */
static uint64_t wanted(const plan *r, int place)
{
    return low_bits(r->n_keep - place * KEPT_PAGE_SLOTS);
}

static uint64_t holes(const plan *r, int place)
{
    return place < r->n_stay ? wanted(r, place) & ~r->mask[r->order[place]] : 0;
}

/* The staying page at this place, id, must be replaced by an F16 copy of its own: slots come into
 * it and it is shared or its slots cannot be written one by one, or it is packed and will be the
 * partly full last page. */
static bool must_copy(const plan *r, int place, int32_t id)
{
    const kept_codecs form = r->c->pool->form[id];
    const bool filled = holes(r, place) != 0, partial = ~wanted(r, place) != 0;
    if (filled && r->c->pool->refs[id] > 1)
        return true;
    return !kept_codec_is_f16(form) && (partial || (filled && !kept_codec_has_rows(form)));
}

static bool is_shared(const plan *r, int old_place)
{
    const int32_t id = kept_cache_list(r->c, r->layer, r->head, 0)[old_place];
    return r->c->pool->refs[id] > 1;
}

/* Stable counting sort: most kept slots first, private before shared. */
static void sort_pages(plan *r)
{
    int start[N_KEYS + 1] = {0};
    for (int i = 0; i < r->n_pages; i++)
        start[N_KEYS - 2 * __builtin_popcountll(r->mask[i]) - !is_shared(r, i)]++;
    for (int k = 1; k <= N_KEYS; k++)
        start[k] += start[k - 1];
    for (int i = r->n_pages - 1; i >= 0; i--)
        r->order[--start[N_KEYS - 2 * __builtin_popcountll(r->mask[i]) - !is_shared(r, i)]] = i;
}

static void make_plan(plan *r, const uint8_t *keep, int n)
{
    const int32_t *pages = kept_cache_list(r->c, r->layer, r->head, 0);
    r->n_pages = kept_pages_for(n);
    for (int i = 0; i < r->n_pages; i++) {
        const int at = i * KEPT_PAGE_SLOTS;
        r->mask[i] = mask_of(keep + at, n - at < KEPT_PAGE_SLOTS ? n - at : KEPT_PAGE_SLOTS);
        r->n_keep += __builtin_popcountll(r->mask[i]);
        r->n_dead +=
            !r->mask[i] && !is_shared(r, i) && kept_codec_is_f16(r->c->pool->form[pages[i]]);
    }
    r->n_stay = kept_pages_for(r->n_keep);
    sort_pages(r);
    for (int i = 0; i < r->n_stay; i++)
        r->n_copies += must_copy(r, i, pages[r->order[i]]);
}

/* Brings pages and blocks into the sorted order. */
static void reorder(const plan *r)
{
    int32_t *old = r->c->pool->list;
    for (int l = 0; l <= r->c->n_planes; l++) {
        int32_t *ids = kept_cache_list(r->c, r->layer, r->head, l);
        memcpy(old, ids, (size_t)r->n_pages * sizeof *ids);
        for (int i = 0; i < r->n_pages; i++)
            ids[i] = old[r->order[i]];
    }
    for (int k = 0; k < r->c->n_notes; k++) {
        int32_t *ids = kept_cache_notes(r->c, r->layer, r->head, k);
        memcpy(old, ids, (size_t)r->n_pages * sizeof *ids);
        for (int i = 0; i < r->n_pages; i++)
            ids[i] = old[r->order[i]];
    }
}

/* Slot src of page from becomes slot dst of page to, with its position and state. */
static void move_slot(const plan *r, int to, int dst, int from, int src)
{
    kept_pool *p = r->c->pool;
    const int32_t *pages = kept_cache_list(r->c, r->layer, r->head, 0);
    p->pos[(size_t)pages[to] * KEPT_PAGE_SLOTS + (size_t)dst] =
        p->pos[(size_t)pages[from] * KEPT_PAGE_SLOTS + (size_t)src];
    kept_cache_move_row(r->c, kept_cache_page(r->c, r->layer, r->head, to), dst,
                        kept_cache_page(r->c, r->layer, r->head, from), src);
    kept_cache_spoil_note(r->c, r->layer, r->head, to);
    for (int i = 1; i <= r->c->n_planes; i++) {
        const int32_t *blocks = kept_cache_list(r->c, r->layer, r->head, i);
        kept_pool_block(p, blocks[to])[dst] = kept_pool_block(p, blocks[from])[src];
    }
}

/* Fills every hole of the staying pages. There are exactly as many slots to take as holes: those of
 * the pages behind, and those of the last staying page that lie beyond its end. */
static void fill_holes(const plan *r)
{
    int from = r->n_stay - 1;
    uint64_t source = r->mask[r->order[from]] & ~wanted(r, from);
    for (int to = 0; to < r->n_stay; to++)
        for (uint64_t empty = holes(r, to); empty; empty &= empty - 1) {
            while (!source) {
                from++;
                assert(from < r->n_pages);
                source = r->mask[r->order[from]];
            }
            move_slot(r, to, __builtin_ctzll(empty), from, __builtin_ctzll(source));
            source &= source - 1;
        }
}

/* One slot goes, what a step of decoding drops: the last slot takes its place, and no page needs
 * sorting. False where pages must be copied first. */
static bool drop_one(kept_cache *c, int layer, int head, int slot)
{
    const kept_pool *p = c->pool;
    cache_head *h = kept_cache_head(c, layer, head);
    const int32_t *pages = kept_cache_list(c, layer, head, 0);
    const int last = h->n - 1, from = last / KEPT_PAGE_SLOTS, to = slot / KEPT_PAGE_SLOTS;
    const bool stays = last % KEPT_PAGE_SLOTS != 0; /* the last page, now partly full */
    const plan r = {.c = c, .layer = layer, .head = head};
    if ((stays || slot != last) && !kept_codec_is_f16(p->form[pages[from]]))
        return false;
    if (slot != last && (p->refs[pages[to]] > 1 || !kept_codec_has_rows(p->form[pages[to]])))
        return false;
    if (slot != last)
        move_slot(&r, to, slot % KEPT_PAGE_SLOTS, from, last % KEPT_PAGE_SLOTS);
    h->n = last;
    c->n_evicted++;
    kept_cache_trim(c, layer, head, kept_pages_for(last));
    return true;
}

kept_status kept_cache_retain(kept_cache *c, int layer, int head, const uint8_t *keep)
{
    cache_head *h = kept_cache_head(c, layer, head);
    kept_cache_trim(c, layer, head, kept_pages_for(h->n));
    const uint8_t *gone = h->n ? memchr(keep, 0, (size_t)h->n) : NULL;
    if (!gone)
        return KEPT_OK;
    const int slot = (int)(gone - keep);
    if (!memchr(gone + 1, 0, (size_t)(h->n - slot - 1)) && drop_one(c, layer, head, slot))
        return KEPT_OK;
    plan r = {.c = c, .layer = layer, .head = head, .mask = c->pool->mask, .order = c->pool->order};
    make_plan(&r, keep, h->n);
    if (r.n_copies > kept_pool_free_pages(c->pool) + r.n_dead)
        return KEPT_FULL;
    reorder(&r);
    /* Dead pages are last in the order; they go first, so that copies can use them. */
    int n_used = r.n_pages;
    while (n_used > 0 && !r.mask[r.order[n_used - 1]])
        n_used--;
    kept_cache_trim(c, layer, head, n_used);
    int32_t *pages = kept_cache_list(c, layer, head, 0);
    for (int i = 0; r.n_copies && i < r.n_stay; i++)
        if (must_copy(&r, i, pages[i]))
            kept_cache_own_page(c, layer, head, i);
    if (r.n_stay)
        fill_holes(&r);
    kept_cache_trim(c, layer, head, r.n_stay);
    c->n_evicted += (uint64_t)(h->n - r.n_keep);
    h->n = r.n_keep;
    return KEPT_OK;
}
