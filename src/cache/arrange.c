/* arrange: slots of a head in another order, in place: one cycle of the order after the other, by
 * way of one row. */
#include "cache/private.h"

#include <assert.h>
#include <string.h>

/* All that belongs to one slot. */
typedef struct row {
    float k[KEPT_MAX_HEAD_SIZE], v[KEPT_MAX_HEAD_SIZE], state[KEPT_MAX_PLANES];
    int32_t pos;
} row;

typedef struct place {
    kept_cache *c;
    int layer, head;
    int32_t *pages;
} place;

static int32_t *pos_of(const place *x, int slot)
{
    return &x->c->pool->pos[(size_t)x->pages[slot / KEPT_PAGE_SLOTS] * KEPT_PAGE_SLOTS +
                            (size_t)(slot % KEPT_PAGE_SLOTS)];
}

static float *state_of(const place *x, int plane, int slot)
{
    const int32_t *blocks = kept_cache_list(x->c, x->layer, x->head, 1 + plane);
    return kept_pool_block(x->c->pool, blocks[slot / KEPT_PAGE_SLOTS]) + slot % KEPT_PAGE_SLOTS;
}

static uint8_t *page_of(const place *x, int slot)
{
    return kept_pool_page(x->c->pool, x->pages[slot / KEPT_PAGE_SLOTS]);
}

/* F16 to floats and back changes no bit of a finite number. */
static void lift(const place *x, int slot, row *r)
{
    x->c->kern->get(page_of(x, slot), x->c->pool->head_size, slot % KEPT_PAGE_SLOTS, 1, r->k, r->v);
    r->pos = *pos_of(x, slot);
    for (int p = 0; p < x->c->n_planes; p++)
        r->state[p] = *state_of(x, p, slot);
}

static void lay(const place *x, int slot, const row *r)
{
    x->c->kern->put(page_of(x, slot), x->c->pool->head_size, slot % KEPT_PAGE_SLOTS, r->k, r->v);
    *pos_of(x, slot) = r->pos;
    for (int p = 0; p < x->c->n_planes; p++)
        *state_of(x, p, slot) = r->state[p];
}

static void move(const place *x, int to, int from)
{
    x->c->kern->move(page_of(x, to), to % KEPT_PAGE_SLOTS, page_of(x, from), from % KEPT_PAGE_SLOTS,
                     x->c->pool->head_size);
    *pos_of(x, to) = *pos_of(x, from);
    for (int p = 0; p < x->c->n_planes; p++)
        *state_of(x, p, to) = *state_of(x, p, from);
}

/* Bits of the slots of a page that get another one's place; n: live slots. */
static uint64_t moved(const int32_t *from, int page, int n)
{
    uint64_t bits = 0;
    for (int i = page * KEPT_PAGE_SLOTS; i < n && i < (page + 1) * KEPT_PAGE_SLOTS; i++)
        bits |= (uint64_t)(from[i] != i) << i % KEPT_PAGE_SLOTS;
    return bits;
}

kept_status kept_cache_arrange(kept_cache *c, int layer, int head, const int32_t *from)
{
    kept_pool *pool = c->pool;
    const int n = kept_cache_n(c, layer, head), n_pages = kept_pages_for(n);
    const place x = {c, layer, head, kept_cache_list(c, layer, head, 0)};
    uint64_t *todo = pool->mask;
    size_t copies = 0;
    for (int i = 0; i < n_pages; i++) {
        todo[i] = moved(from, i, n);
        assert(!todo[i] || kept_codec_is_f16(pool->form[x.pages[i]]));
        copies += todo[i] && pool->refs[x.pages[i]] > 1;
    }
    if (copies > kept_pool_free_pages(pool))
        return KEPT_FULL;
    for (int i = 0; i < n_pages; i++) {
        if (todo[i] && pool->refs[x.pages[i]] > 1)
            kept_cache_own_page(c, layer, head, i);
        if (todo[i])
            kept_cache_spoil_note(c, layer, head, i);
    }
    kept_cache_note_peak(c);
    for (int i = 0; i < n_pages; i++)
        while (todo[i]) {
            row first;
            const int start = i * KEPT_PAGE_SLOTS + __builtin_ctzll(todo[i]);
            lift(&x, start, &first);
            int to = start;
            for (; from[to] != start; to = from[to]) {
                move(&x, to, from[to]);
                todo[to / KEPT_PAGE_SLOTS] &= ~(UINT64_C(1) << to % KEPT_PAGE_SLOTS);
            }
            lay(&x, to, &first);
            todo[to / KEPT_PAGE_SLOTS] &= ~(UINT64_C(1) << to % KEPT_PAGE_SLOTS);
        }
    return KEPT_OK;
}
