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

struct kept_pool {
    int head_size;
    size_t page_bytes, n_pages, n_blocks;
    uint8_t *map; /* pages, positions and blocks, in this order; 2 MiB aligned */
    size_t map_bytes;
    int32_t *pos;         /* [n_pages][64], in map */
    float *blocks;        /* [n_blocks][64], in map */
    int32_t *refs;        /* [n_pages] references, 0: free */
    int32_t *free_pages;  /* stack [n_pages] */
    int32_t *free_blocks; /* stack [n_blocks] */
    size_t n_free_pages, n_free_blocks, peak_pages;
    uint64_t *mask;        /* [n_pages] scratch of retain: live slots of a head's pages */
    int32_t *order, *list; /* [n_pages] scratch of retain */
    pool_huge *huge;
    size_t n_caches;
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

static inline uint8_t *kept_pool_page(const kept_pool *p, int32_t id)
{
    return p->map + (size_t)id * p->page_bytes;
}

/* A page with one reference, contents undefined, or -1. Lowest unused id first at the start. */
int32_t kept_pool_take_page(kept_pool *p);
void kept_pool_drop_page(kept_pool *p, int32_t id); /* one reference less */
/* A block, contents undefined, or -1. */
int32_t kept_pool_take_block(kept_pool *p);
void kept_pool_drop_block(kept_pool *p, int32_t id);

/* A private copy of page id, which loses one reference. There must be a free page. */
int32_t kept_cache_private_page(kept_cache *c, int32_t id);
/* Gives back the pages and blocks of a head from its n_pages'th on. */
void kept_cache_trim(kept_cache *c, int layer, int head, int n_pages);
void kept_cache_note_peak(kept_cache *c);       /* after anything that grows the bytes held */
void kept_cache_inherit_account(kept_cache *c, const kept_cache *src); /* c: a new fork of src */
uint64_t kept_cache_bytes(const kept_cache *c); /* kv + meta now */

#endif
