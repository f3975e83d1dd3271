/* pool: one anonymous mapping cut into pages, their positions and state blocks, with free lists.
 *
 *     map (2 MiB aligned, huge pages advised)
 *     | regions of pages | positions [n_ids][64] int32 | blocks [n_blocks][64] float |
 *
 * Pages of different forms have different sizes: a region holds pages of one size, and goes to any
 * size once it is empty. Regions are a quarter more than the pages need, because regions may be
 * partly full; that is address space: the pages in use never take more bytes than n_pages F16
 * pages. The address space is taken at creation, memory is touched at first use: a pool made for a
 * model's longest context must not cost that much before it is needed. What was touched is used
 * again first, and page numbers are deterministic.
 */
#include "cache/private.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HUGE_PAGE ((size_t)2 << 20)

/* bytes rounded up to whole huge pages, mapped at a multiple of their size; NULL on failure. */
static uint8_t *map_aligned(size_t bytes)
{
    uint8_t *raw =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    const size_t head = (HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE) % HUGE_PAGE;
    if (head)
        munmap(raw, head);
    munmap(raw + head + bytes, HUGE_PAGE - head);
    madvise(raw + head, bytes, MADV_HUGEPAGE); /* advice: without it everything still works */
    return raw + head;
}

static int32_t *new_stack(size_t n)
{
    int32_t *ids = kept_calloc(n, sizeof *ids);
    for (size_t i = 0; ids && i < n; i++)
        ids[i] = (int32_t)(n - 1 - i);
    return ids;
}

static void make_regions(kept_pool *p)
{
    p->sizes[0] = (pool_size){(uint32_t)p->page_bytes, -1};
    p->n_sizes = 1;
    p->free_region = -1;
    for (size_t i = p->n_regions; i-- > 0;) {
        p->regions[i].next = p->free_region;
        p->free_region = (int32_t)i;
    }
    p->n_free_regions = p->n_regions;
}

kept_status kept_pool_new(int head_size, size_t n_pages, size_t n_blocks, kept_pool **out,
                          kept_error *err)
{
    *out = NULL;
    if (head_size < 16 || head_size > KEPT_MAX_HEAD_SIZE || head_size % 16)
        return kept_fail(err, KEPT_ARGUMENT, "head size %d is not a multiple of 16 up to %d",
                         head_size, KEPT_MAX_HEAD_SIZE);
    if (n_pages < 1 || n_pages > INT32_MAX || n_blocks > INT32_MAX)
        return kept_fail(err, KEPT_ARGUMENT, "a pool of %zu pages and %zu blocks is not possible",
                         n_pages, n_blocks);
    kept_pool *p = kept_calloc(1, sizeof *p);
    if (!p)
        return kept_fail(err, KEPT_NOMEM, "out of memory for the page pool");
    p->head_size = head_size;
    p->page_bytes = kept_page_bytes(head_size);
    p->n_pages = n_pages;
    p->n_blocks = p->n_free_blocks = n_blocks;
    p->n_regions = (n_pages + REGION_PAGES - 1) / REGION_PAGES;
    p->n_regions += p->n_regions / 4 + 4;
    p->n_ids = n_pages > INT32_MAX / 8 ? INT32_MAX : n_pages * 8;
    /* At most 2^32 * 2^16 + 2^31 * (2^8 + 2^8) bytes: no overflow. */
    const size_t region_bytes = p->n_regions * REGION_PAGES * p->page_bytes;
    p->map_bytes = region_bytes + p->n_ids * KEPT_POS_BYTES + n_blocks * KEPT_BLOCK_BYTES;
    p->map_bytes = (p->map_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    p->map = map_aligned(p->map_bytes); /* first: it is what fails when too much is asked for */
    if (!p->map)
        goto nomem;
    if (region_bytes / 64 > INT32_MAX) { /* kernels count pages in 64 bytes */
        kept_pool_free(p);
        return kept_fail(err, KEPT_ARGUMENT, "a pool of more than 128 GiB is not possible");
    }
    p->refs = kept_calloc(p->n_ids, sizeof *p->refs);
    p->where = kept_calloc(p->n_ids, sizeof *p->where);
    p->form = kept_calloc(p->n_ids, sizeof *p->form);
    p->free_ids = kept_calloc(p->n_ids, sizeof *p->free_ids);
    p->regions = kept_calloc(p->n_regions, sizeof *p->regions);
    p->free_blocks = new_stack(n_blocks);
    p->mask = kept_calloc(p->n_ids, sizeof *p->mask);
    p->order = kept_calloc(p->n_ids, sizeof *p->order);
    p->list = kept_calloc(p->n_ids, sizeof *p->list);
    p->huge = kept_calloc(1, sizeof *p->huge);
    p->scratch = kept_aligned(64, 2 * p->page_bytes);
    if (!p->refs || !p->where || !p->form || !p->free_ids || !p->regions || !p->free_blocks ||
        !p->mask || !p->order || !p->list || !p->huge || !p->scratch)
        goto nomem;
    p->pos = (int32_t *)(void *)(p->map + region_bytes);
    p->blocks = (float *)(void *)(p->map + region_bytes + p->n_ids * KEPT_POS_BYTES);
    p->huge->at_peak = SIZE_MAX;
    make_regions(p);
    *out = p;
    return KEPT_OK;
nomem:
    kept_fail(err, KEPT_NOMEM, "out of memory for a page pool of %zu MiB; ask for less",
              p->map_bytes >> 20);
    kept_pool_free(p);
    return KEPT_NOMEM;
}

void kept_pool_free(kept_pool *p)
{
    if (!p)
        return;
    assert(p->n_caches == 0);
    if (p->map)
        munmap(p->map, p->map_bytes);
    free(p->refs);
    free(p->where);
    free(p->form);
    free(p->free_ids);
    free(p->regions);
    free(p->scratch);
    free(p->free_blocks);
    free(p->mask);
    free(p->order);
    free(p->list);
    free(p->huge);
    free(p);
}

uint8_t *kept_pool_base(const kept_pool *p)
{
    return p->map;
}

void kept_pool_set_low(kept_pool *p, const kept_low *low)
{
    p->low = low;
}

bool kept_pool_has_low(const kept_pool *p)
{
    return p->low != NULL;
}

int32_t *kept_pool_pos(const kept_pool *p)
{
    return p->pos;
}

float *kept_pool_block(const kept_pool *p, int32_t b)
{
    return p->blocks + (size_t)b * KEPT_PAGE_SLOTS;
}

size_t kept_pool_free_pages(const kept_pool *p)
{
    const size_t paid = p->n_pages - (p->used_bytes + p->page_bytes - 1) / p->page_bytes;
    const size_t room = p->f16_room + p->n_free_regions * REGION_PAGES;
    return paid < room ? paid : room;
}

kept_packed kept_pool_get_page(const kept_pool *p, int32_t id)
{
    return (kept_packed){.at = kept_pool_page(p, id),
                         .c = p->form[id],
                         .head_size = p->head_size,
                         .pos = p->pos + (size_t)id * KEPT_PAGE_SLOTS};
}

size_t kept_pool_free_blocks(const kept_pool *p)
{
    return p->n_free_blocks;
}

static size_t region_room(const kept_pool *p, uint32_t bytes)
{
    return REGION_PAGES * p->page_bytes / bytes;
}

/* The size of that many bytes, NULL: there are too many. */
static pool_size *find_size(kept_pool *p, uint32_t bytes)
{
    for (int i = 0; i < p->n_sizes; i++)
        if (p->sizes[i].bytes == bytes)
            return &p->sizes[i];
    if (p->n_sizes == MAX_PAGE_SIZES)
        return NULL;
    p->sizes[p->n_sizes] = (pool_size){bytes, -1};
    return &p->sizes[p->n_sizes++];
}

/* Takes region r out of a list. */
static void unlink_region(kept_pool *p, int32_t *first, int32_t r)
{
    const pool_region *x = &p->regions[r];
    if (x->prev >= 0)
        p->regions[x->prev].next = x->next;
    else
        *first = x->next;
    if (x->next >= 0)
        p->regions[x->next].prev = x->prev;
}

static void link_region(kept_pool *p, int32_t *first, int32_t r)
{
    p->regions[r].prev = -1;
    p->regions[r].next = *first;
    if (*first >= 0)
        p->regions[*first].prev = r;
    *first = r;
}

/* Bytes of map where a page of that size now is, or SIZE_MAX. */
static size_t take_place(kept_pool *p, pool_size *size)
{
    const size_t room = region_room(p, size->bytes);
    if (size->first < 0) {
        const int32_t r = p->free_region;
        if (r < 0)
            return SIZE_MAX;
        p->free_region = p->regions[r].next;
        p->n_free_regions--;
        p->regions[r] = (pool_region){.bytes = size->bytes};
        link_region(p, &size->first, r);
        p->f16_room += size == p->sizes ? room : 0;
    }
    const int32_t r = size->first;
    pool_region *x = &p->regions[r];
    size_t w = 0;
    while (!~x->busy[w])
        w++;
    const size_t i = w * 64 + (size_t)__builtin_ctzll(~x->busy[w]);
    x->busy[w] |= UINT64_C(1) << i % 64;
    if ((size_t)++x->used == room)
        unlink_region(p, &size->first, r);
    p->f16_room -= size == p->sizes;
    return (size_t)r * REGION_PAGES * p->page_bytes + i * size->bytes;
}

static void drop_place(kept_pool *p, size_t where)
{
    const size_t region = REGION_PAGES * p->page_bytes;
    const int32_t r = (int32_t)(where / region);
    pool_region *x = &p->regions[r];
    pool_size *size = find_size(p, x->bytes);
    const size_t i = where % region / x->bytes, room = region_room(p, x->bytes);
    if ((size_t)x->used-- == room)
        link_region(p, &size->first, r);
    x->busy[i / 64] &= ~(UINT64_C(1) << i % 64);
    p->f16_room += size == p->sizes;
    if (x->used)
        return;
    unlink_region(p, &size->first, r);
    p->f16_room -= size == p->sizes ? room : 0;
    x->bytes = 0;
    x->next = p->free_region;
    p->free_region = r;
    p->n_free_regions++;
}

bool kept_pool_has_place(kept_pool *p, kept_codecs form)
{
    const pool_size *size = find_size(p, (uint32_t)kept_codec_page_bytes(form, p->head_size));
    return size && (size->first >= 0 || p->free_region >= 0);
}

int32_t kept_pool_take_page(kept_pool *p, kept_codecs form)
{
    const size_t bytes = kept_codec_page_bytes(form, p->head_size);
    pool_size *size = find_size(p, (uint32_t)bytes);
    if (!size || p->used_bytes + bytes > p->n_pages * p->page_bytes ||
        (!p->n_free_ids && p->n_fresh == p->n_ids))
        return -1;
    const size_t where = take_place(p, size);
    if (where == SIZE_MAX)
        return -1;
    const int32_t id = p->n_free_ids ? p->free_ids[--p->n_free_ids] : (int32_t)p->n_fresh++;
    assert(p->refs[id] == 0);
    p->refs[id] = 1;
    p->where[id] = where;
    p->form[id] = form;
    p->used_bytes += bytes;
    const size_t pages = (p->used_bytes + p->page_bytes - 1) / p->page_bytes;
    if (pages > p->peak_pages)
        p->peak_pages = pages;
    return id;
}

void kept_pool_drop_page(kept_pool *p, int32_t id)
{
    assert(p->refs[id] > 0);
    if (--p->refs[id])
        return;
    p->used_bytes -= kept_pool_bytes_of(p, id);
    drop_place(p, p->where[id]);
    p->free_ids[p->n_free_ids++] = id;
}

int32_t kept_pool_take_block(kept_pool *p)
{
    return p->n_free_blocks ? p->free_blocks[--p->n_free_blocks] : -1;
}

void kept_pool_drop_block(kept_pool *p, int32_t id)
{
    assert(p->n_free_blocks < p->n_blocks);
    p->free_blocks[p->n_free_blocks++] = id;
}

/* Sums AnonHugePages over the mappings that overlap [begin, end); 0 where the system does not say.
 * A mapping may be merged with a neighbour, so the sum is capped by the caller. */
static uint64_t read_huge_bytes(uintptr_t begin, uintptr_t end)
{
    FILE *f = fopen("/proc/self/smaps", "r");
    if (!f)
        return 0;
    char line[512];
    bool ours = false;
    uint64_t sum = 0;
    while (fgets(line, sizeof line, f)) {
        unsigned long long a, b, kib;
        if (sscanf(line, "%llx-%llx ", &a, &b) == 2)
            ours = a < end && b > begin;
        else if (ours && sscanf(line, "AnonHugePages: %llu kB", &kib) == 1)
            sum += kib * 1024;
    }
    fclose(f);
    return sum;
}

void kept_pool_get_account(const kept_pool *p, kept_pool_account *out)
{
    /* Memory is only touched when the peak grows, and reading smaps is slow. */
    if (p->huge->at_peak != p->peak_pages) {
        const uintptr_t begin = (uintptr_t)p->map;
        const uint64_t bytes = read_huge_bytes(begin, begin + p->map_bytes);
        p->huge->bytes = bytes < p->map_bytes ? bytes : p->map_bytes;
        p->huge->at_peak = p->peak_pages;
    }
    *out = (kept_pool_account){.page_bytes = p->page_bytes,
                               .n_pages = p->n_pages,
                               .n_free_pages = kept_pool_free_pages(p),
                               .peak_pages = p->peak_pages,
                               .huge_bytes = p->huge->bytes};
}
