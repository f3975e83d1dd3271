/* pool: one anonymous mapping cut into pages, their positions and state blocks, with free lists.
 *
 *     map (2 MiB aligned, huge pages advised)
 *     | pages [n_pages][256*D] | positions [n_pages][64] int32 | blocks [n_blocks][64] float |
 *
 * The address space is taken at creation, memory is touched at first use: a pool made for a model's
 * longest context must not cost that much before it is needed. Free ids are a stack, lowest id on
 * top at the start, so what was touched is used again first and page numbers are deterministic.
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
    p->n_pages = p->n_free_pages = n_pages;
    p->n_blocks = p->n_free_blocks = n_blocks;
    /* At most 2^31 * (2^16 + 2^8 + 2^8) bytes: no overflow. */
    p->map_bytes = n_pages * (p->page_bytes + KEPT_POS_BYTES) + n_blocks * KEPT_BLOCK_BYTES;
    p->map_bytes = (p->map_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    p->map = map_aligned(p->map_bytes); /* first: it is what fails when too much is asked for */
    if (!p->map)
        goto nomem;
    p->refs = kept_calloc(n_pages, sizeof *p->refs);
    p->free_pages = new_stack(n_pages);
    p->free_blocks = new_stack(n_blocks);
    p->mask = kept_calloc(n_pages, sizeof *p->mask);
    p->order = kept_calloc(n_pages, sizeof *p->order);
    p->list = kept_calloc(n_pages, sizeof *p->list);
    p->huge = kept_calloc(1, sizeof *p->huge);
    if (!p->refs || !p->free_pages || !p->free_blocks || !p->mask || !p->order || !p->list ||
        !p->huge)
        goto nomem;
    p->pos = (int32_t *)(void *)(p->map + n_pages * p->page_bytes);
    p->blocks = (float *)(void *)(p->map + n_pages * (p->page_bytes + KEPT_POS_BYTES));
    p->huge->at_peak = SIZE_MAX;
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
    free(p->free_pages);
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
    return p->n_free_pages;
}

size_t kept_pool_free_blocks(const kept_pool *p)
{
    return p->n_free_blocks;
}

int32_t kept_pool_take_page(kept_pool *p)
{
    if (!p->n_free_pages)
        return -1;
    const int32_t id = p->free_pages[--p->n_free_pages];
    assert(p->refs[id] == 0);
    p->refs[id] = 1;
    if (p->n_pages - p->n_free_pages > p->peak_pages)
        p->peak_pages = p->n_pages - p->n_free_pages;
    return id;
}

void kept_pool_drop_page(kept_pool *p, int32_t id)
{
    assert(p->refs[id] > 0);
    if (--p->refs[id] == 0)
        p->free_pages[p->n_free_pages++] = id;
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
                               .n_free_pages = p->n_free_pages,
                               .peak_pages = p->peak_pages,
                               .huge_bytes = p->huge->bytes};
}
