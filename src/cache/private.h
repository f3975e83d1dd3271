/* private: the two structs of the cache layer and the pool's take and drop. Only src/cache includes
 * this. One engine has one caller thread, so nothing here is atomic; kept_cache_put is the only
 * function that runs on several threads at once, and it reads what it shares.
 *
 * One allocation per cache:   struct | heads [n_heads_all] | lists [n_heads_all][1 + planes][cap]
 * List 0 of a head holds page ids, list 1 + i the block ids of plane i. Unused entries are -1.
 */
#ifndef CACHE_PRIVATE_H
#define CACHE_PRIVATE_H

#include "cache/cache.h"

#define KEPT_BLOCK_BYTES (KEPT_PAGE_SLOTS * sizeof(float))   /* one state block */
#define KEPT_POS_BYTES   (KEPT_PAGE_SLOTS * sizeof(int32_t)) /* positions of one page */

/* What was last read from the system about huge pages. Apart from kept_pool so that reading the
 * account can refresh it. */
typedef struct pool_huge {
    uint64_t bytes;
    size_t at_peak; /* peak_pages when it was read, SIZE_MAX: never read */
} pool_huge;

/* A region is REGION_PAGES F16 pages' bytes, cut into pages of one size while any is in use: so the
 * bytes of pages that were packed come back as whole regions for pages of any size. */
#define REGION_PAGES   32
#define REGION_WORDS   5  /* bitmap: a 2-bit page is an eighth of an F16 page, less than 320 fit */
#define MAX_PAGE_SIZES 64 /* different page sizes of one pool */
typedef struct pool_region {
    uint32_t bytes;              /* of its pages, 0: free */
    int32_t used;                /* pages in use */
    int32_t prev, next;          /* in the list of its size while it has room, or of free ones */
    uint64_t busy[REGION_WORDS]; /* pages in use */
} pool_region;

typedef struct pool_size {
    uint32_t bytes;
    int32_t first; /* region with room, -1: none */
} pool_size;

struct kept_pool {
    int head_size;
    size_t page_bytes, n_pages, n_blocks;
    uint8_t *map; /* regions, positions and blocks, in this order; 2 MiB aligned */
    size_t map_bytes;
    int32_t *pos;          /* [n_ids][64], in map */
    float *blocks;         /* [n_blocks][64], in map */
    size_t n_ids, n_fresh; /* page ids, and those that were ever used */
    int32_t *refs;         /* [n_ids] references, 0: free */
    size_t *where;         /* [n_ids] bytes from map */
    kept_codecs *form;     /* [n_ids] */
    int32_t *free_ids;     /* stack [n_ids] of used and dropped ids */
    size_t n_free_ids;
    pool_region *regions; /* [n_regions] */
    size_t n_regions, n_free_regions;
    int32_t free_region;             /* first of the free ones, -1 */
    pool_size sizes[MAX_PAGE_SIZES]; /* [n_sizes], F16 first */
    int n_sizes;
    size_t f16_room;               /* F16 pages free in regions of F16 pages */
    size_t used_bytes, peak_bytes; /* of pages in use; at most n_pages * page_bytes */
    int32_t *free_blocks;          /* stack [n_blocks] */
    size_t n_free_blocks, peak_pages;
    uint64_t *mask;        /* [n_ids] scratch of retain: live slots of a head's pages */
    int32_t *order, *list; /* [n_ids] scratch of retain */
    uint8_t *scratch;      /* two F16 pages */
    pool_huge *huge;
    size_t n_caches;
    const kept_low *low; /* lent: directions of every head, or NULL */
};

typedef struct cache_head {
    int32_t n;       /* live slots */
    int32_t n_pages; /* pages held, reserved ones included; every plane holds as many blocks */
} cache_head;

struct kept_cache {
    kept_pool *pool;
    const kept_kern *kern;
    int n_layers, n_heads, max_slots;
    int n_planes;      /* planes now */
    int n_lists;       /* 1 + planes at creation: the stride of the lists */
    int cap;           /* entries of one list */
    cache_head *heads; /* [n_layers * n_heads] */
    int32_t *lists;    /* [n_layers * n_heads][n_lists][cap] */
    size_t own_bytes;  /* this allocation */
    size_t held_pages, held_blocks;
    uint64_t held_bytes; /* of the pages */
    int n_notes;         /* blocks of a page's note, 0: none */
    int32_t *notes;      /* [n_layers * n_heads][n_notes][cap] their ids, or NULL */
    bool packed, joint;  /* a page ever was, or was joint */
    size_t low_bytes;    /* of the directions that its pages are read with */
    uint64_t extra_meta, peak_bytes, n_evicted;
    double byte_steps;
    /* History in pages and tokens, from which a fork with other planes gets its own. */
    size_t peak_pages;
    double page_steps, n_ticks;
};

static inline int kept_pages_for(int n)
{
    return (n + KEPT_PAGE_SLOTS - 1) / KEPT_PAGE_SLOTS;
}

static inline cache_head *kept_cache_head(const kept_cache *c, int layer, int head)
{
    return &c->heads[layer * c->n_heads + head];
}

/* List i of a head: 0 pages, 1 + p blocks of plane p. */
static inline int32_t *kept_cache_list(const kept_cache *c, int layer, int head, int i)
{
    return c->lists +
           ((size_t)(layer * c->n_heads + head) * (size_t)c->n_lists + (size_t)i) * (size_t)c->cap;
}

/* Ids of block k of the notes of a head's pages. */
static inline int32_t *kept_cache_notes(const kept_cache *c, int layer, int head, int k)
{
    return c->notes +
           ((size_t)(layer * c->n_heads + head) * (size_t)c->n_notes + (size_t)k) * (size_t)c->cap;
}

static inline uint8_t *kept_pool_page(const kept_pool *p, int32_t id)
{
    return p->map + p->where[id];
}

static inline size_t kept_pool_bytes_of(const kept_pool *p, int32_t id)
{
    return kept_codec_page_bytes(p->form[id], p->head_size);
}

/* Layers of the group that `layer` is in, of a form of joint pages. */
static inline int kept_cache_group(const kept_cache *c, int layer, kept_codecs form)
{
    const int g = kept_codec_layers(form), left = c->n_layers - layer / g * g;
    return left < g ? left : g;
}

/* Bytes that page id counts in one of its layers. */
static inline size_t kept_cache_bytes_of(const kept_cache *c, int layer, int32_t id)
{
    return kept_pool_bytes_of(c->pool, id) / (size_t)kept_cache_group(c, layer, c->pool->form[id]);
}

/* A page with one reference, contents undefined, or -1. Lowest unused id first at the start. */
int32_t kept_pool_take_page(kept_pool *p, kept_codecs form);
void kept_pool_drop_page(kept_pool *p, int32_t id); /* one reference less */
/* Whether a page of that form has a place as soon as there are bytes for it. */
bool kept_pool_has_place(kept_pool *p, kept_codecs form);
/* A block, contents undefined, or -1. */
int32_t kept_pool_take_block(kept_pool *p);
void kept_pool_drop_block(kept_pool *p, int32_t id);

/* Page i of a head becomes a private F16 copy; the page it was loses one reference, and the cache's
 * bytes are adjusted. There must be a free page. A packed page is unpacked. */
void kept_cache_own_page(kept_cache *c, int layer, int head, int i);
/* Gives back the pages and blocks of a head from its n_pages'th on. */
void kept_cache_trim(kept_cache *c, int layer, int head, int n_pages);
/* Slot src of one page of a head becomes slot dst of another, whatever their forms. The position is
 * there already. */
void kept_cache_move_row(kept_cache *c, kept_packed to, int dst, kept_packed from, int src);
/* Pages [from, to) of a head get notes, stale ones, or give theirs back. The blocks are there. */
void kept_cache_take_notes(kept_cache *c, int layer, int head, int from, int to);
void kept_cache_drop_notes(kept_cache *c, int layer, int head, int from, int to);
void kept_cache_spoil_note(kept_cache *c, int layer, int head, int page); /* its keys change */
/* A page of that form is there: its directions are held, counted once. */
void kept_cache_note_form(kept_cache *c, kept_codecs form);
void kept_cache_note_peak(kept_cache *c); /* after anything that grows the bytes held */
void kept_cache_inherit_account(kept_cache *c, const kept_cache *src); /* c: a new fork of src */
uint64_t kept_cache_bytes(const kept_cache *c);                        /* kv + meta now */

#endif
