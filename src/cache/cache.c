/* cache: the lists of one sequence: making, forking, growing, reading and writing. Dropping slots
 * is in retain.c, byte counts in account.c.
 *
 * Order of events for one layer of a forward pass: reserve, put (any thread), commit. Everything
 * that can fail fails in reserve, before anything has changed.
 */
#include "cache/private.h"

#include "kern/lowrank.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

kept_status kept_cache_new(kept_pool *p, const kept_kern *kern, int n_layers, int n_heads,
                           int n_planes, int max_slots, kept_cache **out, kept_error *err)
{
    *out = NULL;
    if (n_layers < 1 || n_layers > KEPT_MAX_LAYERS || n_heads < 1 || n_heads > 4096)
        return kept_fail(err, KEPT_ARGUMENT, "a cache of %d layers x %d heads is not possible",
                         n_layers, n_heads);
    if (n_planes < 0 || n_planes > KEPT_MAX_PLANES)
        return kept_fail(err, KEPT_ARGUMENT, "%d state planes; 0 to %d are possible", n_planes,
                         KEPT_MAX_PLANES);
    if (max_slots < 1 || max_slots > INT32_MAX - 2 * KEPT_PAGE_SLOTS)
        return kept_fail(err, KEPT_ARGUMENT, "%d slots per head are not possible", max_slots);
    const size_t n = (size_t)(n_layers * n_heads), lists = 1 + (size_t)n_planes;
    const size_t cap = (size_t)kept_pages_for(max_slots + KEPT_PAGE_SLOTS);
    const size_t n_entries = n * lists * cap; /* < 2^20 * 2^3 * 2^26 */
    const size_t bytes = sizeof(kept_cache) + n * sizeof(cache_head) + n_entries * sizeof(int32_t);
    kept_cache *c = kept_calloc(1, bytes);
    if (!c)
        return kept_fail(err, KEPT_NOMEM, "out of memory for page lists of %d slots", max_slots);
    c->pool = p;
    c->kern = kern;
    c->n_layers = n_layers;
    c->n_heads = n_heads;
    c->max_slots = max_slots;
    c->n_planes = n_planes;
    c->n_lists = (int)lists;
    c->cap = (int)cap;
    c->heads = (cache_head *)(void *)(c + 1);
    c->lists = (int32_t *)(void *)(c->heads + n);
    memset(c->lists, 0xff, n_entries * sizeof(int32_t)); /* -1 */
    c->own_bytes = bytes;
    p->n_caches++;
    kept_cache_note_peak(c);
    *out = c;
    return KEPT_OK;
}

void kept_cache_trim(kept_cache *c, int layer, int head, int n_pages)
{
    cache_head *h = kept_cache_head(c, layer, head);
    if (h->n_pages > n_pages)
        kept_cache_drop_notes(c, layer, head, n_pages, h->n_pages);
    for (int l = 0; l <= c->n_planes; l++) {
        int32_t *ids = kept_cache_list(c, layer, head, l);
        for (int i = h->n_pages - 1; i >= n_pages; i--) {
            if (l) {
                kept_pool_drop_block(c->pool, ids[i]);
            } else {
                c->held_bytes -= kept_cache_bytes_of(c, layer, ids[i]);
                kept_pool_drop_page(c->pool, ids[i]);
            }
            ids[i] = -1;
        }
    }
    if (h->n_pages > n_pages) {
        c->held_pages -= (size_t)(h->n_pages - n_pages);
        c->held_blocks -= (size_t)(h->n_pages - n_pages) * (size_t)c->n_planes;
        h->n_pages = n_pages;
    }
}

void kept_cache_free(kept_cache *c)
{
    if (!c)
        return;
    /* Last taken, first given back: the pool's stacks end as they were. */
    for (int layer = c->n_layers - 1; layer >= 0; layer--)
        for (int head = c->n_heads - 1; head >= 0; head--)
            kept_cache_trim(c, layer, head, 0);
    assert(c->held_pages == 0 && c->held_blocks == 0);
    c->pool->n_caches--;
    free(c->notes);
    free(c);
}

/* Pages and blocks of one head of src into the empty head of c. The blocks are there. */
static void fork_head(kept_cache *c, const kept_cache *src, int layer, int head, const int *planes)
{
    const cache_head *from = kept_cache_head(src, layer, head);
    cache_head *to = kept_cache_head(c, layer, head);
    const int n_pages = kept_pages_for(from->n); /* what is only reserved stays with src */
    const int32_t *pages = kept_cache_list(src, layer, head, 0);
    int32_t *copy = kept_cache_list(c, layer, head, 0);
    for (int i = 0; i < n_pages; i++) {
        copy[i] = pages[i];
        c->pool->refs[pages[i]]++;
        c->held_bytes += kept_cache_bytes_of(c, layer, pages[i]);
    }
    for (int p = 0; p < c->n_planes; p++) {
        int32_t *blocks = kept_cache_list(c, layer, head, 1 + p);
        for (int i = 0; i < n_pages; i++) {
            blocks[i] = kept_pool_take_block(c->pool);
            float *state = kept_pool_block(c->pool, blocks[i]);
            if (planes[p] < 0) {
                memset(state, 0, KEPT_BLOCK_BYTES);
                continue;
            }
            const int32_t b = kept_cache_list(src, layer, head, 1 + planes[p])[i];
            memcpy(state, kept_pool_block(c->pool, b), KEPT_BLOCK_BYTES);
        }
    }
    to->n = from->n;
    to->n_pages = n_pages;
    c->held_pages += (size_t)n_pages;
    c->held_blocks += (size_t)n_pages * (size_t)c->n_planes;
}

kept_status kept_cache_fork(kept_cache *src, int n_planes, const int *planes, kept_cache **out,
                            kept_error *err)
{
    *out = NULL;
    for (int p = 0; p < n_planes; p++)
        if (planes[p] < -1 || planes[p] >= src->n_planes)
            return kept_fail(err, KEPT_ARGUMENT, "state plane %d of %d", planes[p], src->n_planes);
    kept_cache *c;
    const kept_status s = kept_cache_new(src->pool, src->kern, src->n_layers, src->n_heads,
                                         n_planes, src->max_slots, &c, err);
    if (s)
        return s;
    size_t n_pages = 0;
    for (int i = 0; i < src->n_layers * src->n_heads; i++)
        n_pages += (size_t)kept_pages_for(src->heads[i].n);
    if (n_pages * (size_t)n_planes > src->pool->n_free_blocks) {
        kept_cache_free(c);
        return kept_fail(err, KEPT_FULL, "%zu state blocks are free, a fork needs %zu",
                         src->pool->n_free_blocks, n_pages * (size_t)n_planes);
    }
    for (int layer = 0; layer < c->n_layers; layer++)
        for (int head = 0; head < c->n_heads; head++)
            fork_head(c, src, layer, head, planes);
    kept_cache_inherit_account(c, src);
    *out = c;
    return KEPT_OK;
}

const kept_low *kept_cache_low(const kept_cache *c, int layer, int head)
{
    return c->pool->low ? &c->pool->low[layer * c->n_heads + head] : NULL;
}

kept_packed kept_cache_page(const kept_cache *c, int layer, int head, int i)
{
    kept_packed p = kept_pool_get_page(c->pool, kept_cache_list(c, layer, head, 0)[i]);
    p.low = kept_cache_low(c, layer, head);
    p.layer = layer;
    return p;
}

int kept_cache_n(const kept_cache *c, int layer, int head)
{
    return kept_cache_head(c, layer, head)->n;
}

const int32_t *kept_cache_pages(const kept_cache *c, int layer, int head)
{
    return kept_cache_list(c, layer, head, 0);
}

kept_codecs kept_cache_form(const kept_cache *c, int layer, int head, int page)
{
    return c->pool->form[kept_cache_list(c, layer, head, 0)[page]];
}

int kept_cache_n_planes(const kept_cache *c)
{
    return c->n_planes;
}

const int32_t *kept_cache_blocks(const kept_cache *c, int layer, int head, int plane)
{
    assert(plane >= 0 && plane < c->n_planes);
    return kept_cache_list(c, layer, head, 1 + plane);
}

void kept_cache_drop_planes(kept_cache *c, int n_planes)
{
    assert(n_planes >= 0);
    while (c->n_planes > n_planes) {
        for (int i = c->n_layers * c->n_heads - 1; i >= 0; i--) {
            int32_t *ids = kept_cache_list(c, i / c->n_heads, i % c->n_heads, c->n_planes);
            for (int j = c->heads[i].n_pages - 1; j >= 0; j--) {
                kept_pool_drop_block(c->pool, ids[j]);
                ids[j] = -1;
            }
            c->held_blocks -= (size_t)c->heads[i].n_pages;
        }
        c->n_planes--;
    }
}

void kept_cache_keep_plane(kept_cache *c, int plane)
{
    assert(plane >= 0 && plane < c->n_planes);
    for (int i = 0; i < c->n_layers * c->n_heads; i++) {
        int32_t *a = kept_cache_list(c, i / c->n_heads, i % c->n_heads, 1);
        int32_t *b = kept_cache_list(c, i / c->n_heads, i % c->n_heads, 1 + plane);
        for (int j = 0; j < c->heads[i].n_pages; j++) {
            const int32_t id = a[j];
            a[j] = b[j];
            b[j] = id;
        }
    }
    kept_cache_drop_planes(c, 1);
}

/* Pages that reserving n more slots takes; *copy: one of them replaces a shared last page. */
static int pages_to_take(const kept_cache *c, int layer, int head, int n, bool *copy)
{
    const cache_head *h = kept_cache_head(c, layer, head);
    const int more = kept_pages_for(h->n + n) - h->n_pages;
    *copy = false;
    if (n > 0 && h->n % KEPT_PAGE_SLOTS) {
        const int32_t last = kept_cache_list(c, layer, head, 0)[h->n / KEPT_PAGE_SLOTS];
        *copy = c->pool->refs[last] > 1;
    }
    return (more > 0 ? more : 0) + *copy;
}

size_t kept_cache_reserve_cost(const kept_cache *c, int layer, int n)
{
    size_t sum = 0;
    bool copy;
    for (int head = 0; head < c->n_heads; head++)
        sum += (size_t)pages_to_take(c, layer, head, n, &copy);
    return sum;
}

static const kept_codecs f16 = {KEPT_F16, KEPT_F16};

void kept_cache_own_page(kept_cache *c, int layer, int head, int i)
{
    kept_pool *p = c->pool;
    int32_t *at = &kept_cache_list(c, layer, head, 0)[i], id = *at;
    const int32_t to = kept_pool_take_page(p, f16);
    assert(to >= 0);
    memcpy(p->pos + (size_t)to * KEPT_PAGE_SLOTS, p->pos + (size_t)id * KEPT_PAGE_SLOTS,
           KEPT_POS_BYTES);
    /* All of it: measured no slower than moving the few slots that count. */
    if (kept_codec_is_f16(p->form[id]))
        memcpy(kept_pool_page(p, to), kept_pool_page(p, id), p->page_bytes);
    else
        kept_codec_unpack(kept_pool_page(p, to), kept_cache_page(c, layer, head, i));
    c->held_bytes += p->page_bytes - kept_cache_bytes_of(c, layer, id);
    kept_pool_drop_page(p, id);
    *at = to;
}

void kept_cache_move_row(kept_cache *c, kept_packed a, int dst, kept_packed b, int src)
{
    float k[KEPT_MAX_HEAD_SIZE], v[KEPT_MAX_HEAD_SIZE];
    if (a.c.k == b.c.k && a.c.v == b.c.v) {
        if (kept_codec_is_f16(a.c))
            c->kern->move(a.at, dst, b.at, src, a.head_size);
        else
            kept_codec_move(a, dst, b, src);
        return;
    }
    kept_codec_read(b, src, 1, k, v);
    if (kept_codec_is_f16(a.c))
        c->kern->put(a.at, a.head_size, dst, k, v);
    else
        kept_codec_put(a, dst, k, v);
}

kept_status kept_cache_reserve(kept_cache *c, int layer, int head, int n)
{
    cache_head *h = kept_cache_head(c, layer, head);
    assert(n >= 0);
    if (n > c->cap * KEPT_PAGE_SLOTS - h->n)
        return KEPT_ARGUMENT;
    bool copy;
    const int want = kept_pages_for(h->n + n);
    const size_t take = (size_t)pages_to_take(c, layer, head, n, &copy);
    if (take > kept_pool_free_pages(c->pool) ||
        (take - copy) * (size_t)(c->n_planes + c->n_notes) > c->pool->n_free_blocks)
        return KEPT_FULL;
    const int first = h->n / KEPT_PAGE_SLOTS, used = h->n % KEPT_PAGE_SLOTS;
    int32_t *pages = kept_cache_list(c, layer, head, 0);
    if (copy)
        kept_cache_own_page(c, layer, head, first);
    kept_cache_trim(c, layer, head, want);
    for (int i = h->n_pages; i < want; i++) {
        pages[i] = kept_pool_take_page(c->pool, f16);
        for (int p = 0; p < c->n_planes; p++)
            kept_cache_list(c, layer, head, 1 + p)[i] = kept_pool_take_block(c->pool);
    }
    for (int i = first; i < h->n_pages; i++)
        kept_cache_spoil_note(c, layer, head, i);
    kept_cache_take_notes(c, layer, head, h->n_pages, want);
    c->held_pages += (size_t)(want - h->n_pages);
    c->held_bytes += (size_t)(want - h->n_pages) * c->pool->page_bytes;
    c->held_blocks += (size_t)(want - h->n_pages) * (size_t)c->n_planes;
    h->n_pages = want;
    /* Slots left over from a retain or an abandoned pass may hold anything. */
    for (int p = 0; p < c->n_planes; p++)
        for (int i = first; i < want; i++) {
            const int from = i == first ? used : 0;
            float *state = kept_pool_block(c->pool, kept_cache_list(c, layer, head, 1 + p)[i]);
            memset(state + from, 0, (size_t)(KEPT_PAGE_SLOTS - from) * sizeof *state);
        }
    kept_cache_note_peak(c);
    return KEPT_OK;
}

void kept_cache_put(kept_cache *c, int layer, int head, int slot, const float *k, const float *v,
                    int32_t pos)
{
    assert(slot >= kept_cache_head(c, layer, head)->n &&
           slot < kept_cache_head(c, layer, head)->n_pages * KEPT_PAGE_SLOTS);
    const int32_t id = kept_cache_list(c, layer, head, 0)[slot / KEPT_PAGE_SLOTS];
    assert(c->pool->refs[id] == 1 && kept_codec_is_f16(c->pool->form[id]));
    c->kern->put(kept_pool_page(c->pool, id), c->pool->head_size, slot % KEPT_PAGE_SLOTS, k, v);
    c->pool->pos[(size_t)id * KEPT_PAGE_SLOTS + (size_t)(slot % KEPT_PAGE_SLOTS)] = pos;
}

void kept_cache_commit(kept_cache *c, int layer, int head, int n)
{
    cache_head *h = kept_cache_head(c, layer, head);
    assert(n >= 0 && h->n + n <= h->n_pages * KEPT_PAGE_SLOTS);
    h->n += n;
}

static float *state_of(const kept_cache *c, int layer, int head, int plane, int slot)
{
    assert(slot >= 0 && slot < kept_cache_head(c, layer, head)->n_pages * KEPT_PAGE_SLOTS);
    const int32_t b = kept_cache_blocks(c, layer, head, plane)[slot / KEPT_PAGE_SLOTS];
    return kept_pool_block(c->pool, b) + slot % KEPT_PAGE_SLOTS;
}

float kept_cache_state(const kept_cache *c, int layer, int head, int plane, int slot)
{
    return *state_of(c, layer, head, plane, slot);
}

void kept_cache_set_state(kept_cache *c, int layer, int head, int plane, int slot, float v)
{
    *state_of(c, layer, head, plane, slot) = v;
}

void kept_cache_read_state(const kept_cache *c, int layer, int head, int plane, float *out)
{
    const int n = kept_cache_n(c, layer, head);
    const int32_t *blocks = kept_cache_blocks(c, layer, head, plane);
    for (int at = 0; at < n; at += KEPT_PAGE_SLOTS) {
        const int m = n - at < KEPT_PAGE_SLOTS ? n - at : KEPT_PAGE_SLOTS;
        memcpy(out + at, kept_pool_block(c->pool, blocks[at / KEPT_PAGE_SLOTS]),
               (size_t)m * sizeof *out);
    }
}

static void prefetch(const void *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)at + i);
}

void kept_cache_prefetch(const kept_cache *c, int layer, int head, int plane)
{
    const int n = kept_pages_for(kept_cache_n(c, layer, head));
    const int32_t *pages = kept_cache_pages(c, layer, head);
    const int32_t *blocks = plane >= 0 ? kept_cache_blocks(c, layer, head, plane) : NULL;
    for (int i = 0; i < n; i++) {
        prefetch(c->pool->pos + (size_t)pages[i] * KEPT_PAGE_SLOTS, KEPT_POS_BYTES);
        if (blocks)
            prefetch(kept_pool_block(c->pool, blocks[i]), KEPT_BLOCK_BYTES);
    }
}

void kept_cache_read(const kept_cache *c, int layer, int head, int32_t *pos, float *k, float *v)
{
    const kept_pool *p = c->pool;
    const int n = kept_cache_n(c, layer, head), d = p->head_size;
    const int32_t *pages = kept_cache_pages(c, layer, head);
    for (int at = 0; at < n; at += KEPT_PAGE_SLOTS) {
        const int32_t id = pages[at / KEPT_PAGE_SLOTS];
        const int m = n - at < KEPT_PAGE_SLOTS ? n - at : KEPT_PAGE_SLOTS;
        if (pos)
            memcpy(pos + at, p->pos + (size_t)id * KEPT_PAGE_SLOTS, (size_t)m * sizeof *pos);
        float *to_k = k ? k + (size_t)at * (size_t)d : NULL,
              *to_v = v ? v + (size_t)at * (size_t)d : NULL;
        if ((k || v) && kept_codec_is_f16(p->form[id]))
            c->kern->get(kept_pool_page(p, id), d, 0, m, to_k, to_v);
        else if (k || v)
            kept_codec_read(kept_cache_page(c, layer, head, at / KEPT_PAGE_SLOTS), 0, m, to_k,
                            to_v);
    }
}

kept_status kept_cache_set_row(kept_cache *c, int layer, int head, int slot, const float *k,
                               const float *v)
{
    kept_pool *p = c->pool;
    assert(slot >= 0 && slot < kept_cache_n(c, layer, head));
    const int at = slot / KEPT_PAGE_SLOTS;
    int32_t *id = &kept_cache_list(c, layer, head, 0)[at];
    kept_cache_spoil_note(c, layer, head, slot / KEPT_PAGE_SLOTS);
    if (p->refs[*id] > 1 || !kept_codec_has_rows(p->form[*id])) {
        if (!kept_pool_free_pages(p))
            return KEPT_FULL;
        kept_cache_own_page(c, layer, head, at);
        kept_cache_note_peak(c);
    }
    if (!kept_codec_is_f16(p->form[*id])) {
        kept_codec_put(kept_cache_page(c, layer, head, at), slot % KEPT_PAGE_SLOTS, k, v);
        return KEPT_OK;
    }
    /* What stays is rounded already, so reading and writing it again changes no bit. */
    float old_k[KEPT_MAX_HEAD_SIZE], old_v[KEPT_MAX_HEAD_SIZE];
    uint8_t *page = kept_pool_page(p, *id);
    slot %= KEPT_PAGE_SLOTS;
    c->kern->get(page, p->head_size, slot, 1, k ? NULL : old_k, v ? NULL : old_v);
    c->kern->put(page, p->head_size, slot, k ? k : old_k, v ? v : old_v);
    return KEPT_OK;
}
