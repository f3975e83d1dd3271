/* cache: one case per promise of cache.h. Content is read by the page layout, not through the
 * cache's own reader; the long random comparison is test_cache_random. */
#include "test.h"

#include "cache_peek.h"

static kept_f16 bits[2048];
static const kept_kern *kern;

typedef struct box {
    kept_pool *pool;
    kept_cache *c;
    int d;
} box;

static box new_box(int d, int pages, int blocks, int planes, int max_slots)
{
    box b = {.d = d};
    kept_error e;
    CHECK_INT(kept_pool_new(d, (size_t)pages, (size_t)blocks, &b.pool, &e), KEPT_OK);
    CHECK_INT(kept_cache_new(b.pool, kern, 1, 2, planes, max_slots, &b.c, &e), KEPT_OK);
    return b;
}

static void end_box(box *b)
{
    kept_pool_account a;
    kept_cache_free(b->c);
    kept_pool_get_account(b->pool, &a);
    CHECK_INT(a.n_free_pages, a.n_pages);
    kept_pool_free(b->pool);
}

/* Positions, keys and values named first..first+n-1. */
static kept_status append(const box *b, kept_cache *c, int head, int first, int n)
{
    float k[256], v[256];
    const kept_status s = kept_cache_reserve(c, 0, head, n);
    const int at = kept_cache_n(c, 0, head);
    for (int i = 0; !s && i < n; i++) {
        peek_row(first + i, b->d, k);
        peek_row(first + i + 1000, b->d, v);
        kept_cache_put(c, 0, head, at + i, k, v, first + i);
    }
    if (!s)
        kept_cache_commit(c, 0, head, n);
    return s;
}

/* Every live slot holds the rows that its position names; positions are the set want[0..n). */
static void check_head(const box *b, const kept_cache *c, int head, const int *want, int n)
{
    static int seen[20000];
    memset(seen, 0, sizeof seen);
    CHECK_INT(kept_cache_n(c, 0, head), n);
    const int32_t *pages = kept_cache_pages(c, 0, head), *pos = kept_pool_pos(b->pool);
    for (int i = 0; i < n; i++)
        seen[want[i]] = 1;
    for (int s = 0; s < n; s++) {
        const int32_t p = pos[pages[s / 64] * 64 + s % 64];
        const int ids[2] = {p, p + 1000};
        if (p < 0 || p >= 20000 || seen[p] != 1 ||
            !peek_equal(peek_page(b->pool, b->d, pages[s / 64]), b->d, s % 64, ids, bits)) {
            CHECK_INT(p, -1); /* prints the wrong position */
            return;
        }
        seen[p]++;
    }
    uint64_t kv, meta;
    kept_account a;
    kept_cache_account(c, &a);
    kept_cache_walk(c, &kv, &meta);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
}

static int *range(int from, int to)
{
    static int ids[20000];
    for (int i = from; i < to; i++)
        ids[i - from] = i;
    return ids;
}

static void arguments(void)
{
    kept_pool *p;
    kept_cache *c;
    kept_error e;
    const int sizes[] = {0, -16, 8, 20, 272, 1 << 30};
    for (int i = 0; i < 6; i++) {
        CHECK_INT(kept_pool_new(sizes[i], 4, 4, &p, &e), KEPT_ARGUMENT);
        CHECK(p == NULL);
    }
    CHECK_INT(kept_pool_new(64, 0, 4, &p, NULL), KEPT_ARGUMENT);
    CHECK_INT(kept_pool_new(64, (size_t)1 << 40, 4, &p, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_pool_new(64, 4, SIZE_MAX, &p, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_pool_new(256, INT32_MAX, 4, &p, &e), KEPT_NOMEM); /* 128 TiB */
    CHECK(strstr(e.text, "MiB") != NULL);
    CHECK_INT(kept_pool_new(64, 4, 0, &p, &e), KEPT_OK);
    CHECK((uintptr_t)kept_pool_base(p) % (2u << 20) == 0);
    CHECK_INT(kept_cache_new(p, kern, 0, 1, 0, 64, &c, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_new(p, kern, 1, 0, 0, 64, &c, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_new(p, kern, 1, 1, KEPT_MAX_PLANES + 1, 64, &c, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_new(p, kern, 1, 1, -1, 64, &c, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_new(p, kern, 1, 1, 0, 0, &c, &e), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_new(p, kern, 1, 1, 0, INT32_MAX, &c, &e), KEPT_ARGUMENT);
    CHECK(c == NULL);
    CHECK_INT(kept_cache_new(p, kern, 1, 1, 0, 64, &c, &e), KEPT_OK);
    CHECK_INT(kept_cache_reserve(c, 0, 0, 129), KEPT_ARGUMENT); /* lists hold 64 + 64 */
    CHECK_INT(kept_cache_reserve(c, 0, 0, INT32_MAX), KEPT_ARGUMENT);
    CHECK_INT(kept_cache_reserve(c, 0, 0, 128), KEPT_OK);
    kept_cache_free(c);
    kept_pool_free(p);
    kept_pool_free(NULL);
    kept_cache_free(NULL);
}

static void append_and_read(void)
{
    const int sizes[] = {16, 64, 80, 96, 128, 256};
    for (int i = 0; i < 6; i++) {
        box b = new_box(sizes[i], 8, 0, 0, 300);
        const int d = sizes[i];
        CHECK_INT(append(&b, b.c, 0, 0, 63), KEPT_OK);
        CHECK_INT(append(&b, b.c, 0, 63, 1), KEPT_OK);
        CHECK_INT(append(&b, b.c, 0, 64, 100), KEPT_OK);
        CHECK_INT(append(&b, b.c, 1, 5000, 2), KEPT_OK);
        check_head(&b, b.c, 0, range(0, 164), 164);
        check_head(&b, b.c, 1, range(5000, 5002), 2);
        for (int p = 0; p < 3; p++) /* lowest ids first */
            CHECK_INT(kept_cache_pages(b.c, 0, 0)[p], p);
        CHECK_INT(kept_pool_free_pages(b.pool), 4);
        int32_t *pos = kept_calloc(164, sizeof *pos);
        float *k = kept_calloc((size_t)(164 * d), sizeof *k),
              *v = kept_calloc((size_t)(164 * d), 4);
        kept_cache_read(b.c, 0, 0, pos, k, NULL);
        kept_cache_read(b.c, 0, 0, NULL, NULL, v);
        for (int s = 0; s < 164; s++) {
            CHECK_INT(pos[s], s);
            if (k[s * d + d - 1] != (float)peek_value(s, d - 1) ||
                v[s * d + d - 1] != (float)peek_value(s + 1000, d - 1))
                CHECK_INT(s, -1);
        }
        free(pos);
        free(k);
        free(v);
        end_box(&b);
    }
}

static void reserve_is_exact(void)
{
    box b = new_box(16, 4, 8, 2, 600);
    CHECK_INT(kept_cache_reserve_cost(b.c, 0, 65), 4);
    CHECK_INT(kept_cache_reserve(b.c, 0, 0, 129), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 1);
    CHECK_INT(kept_pool_free_blocks(b.pool), 2);
    CHECK_INT(kept_cache_reserve_cost(b.c, 0, 129), 3);
    CHECK_INT(kept_cache_reserve(b.c, 0, 1, 65), KEPT_FULL);
    CHECK_INT(kept_pool_free_pages(b.pool), 1);
    CHECK_INT(kept_cache_reserve(b.c, 0, 0, 129), KEPT_OK); /* the same again takes nothing */
    CHECK_INT(kept_pool_free_pages(b.pool), 1);
    CHECK_INT(kept_cache_reserve(b.c, 0, 0, 64), KEPT_OK); /* less gives back */
    CHECK_INT(kept_pool_free_pages(b.pool), 3);
    CHECK_INT(kept_cache_n(b.c, 0, 0), 0);
    CHECK_INT(append(&b, b.c, 0, 0, 70), KEPT_OK);
    CHECK_INT(kept_cache_reserve(b.c, 0, 0, 100), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 1);
    uint8_t keep[70];
    memset(keep, 1, sizeof keep);
    CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_OK); /* so does retain, even of all */
    CHECK_INT(kept_pool_free_pages(b.pool), 2);
    check_head(&b, b.c, 0, range(0, 70), 70);
    end_box(&b);
    /* Blocks run out before pages. */
    b = new_box(16, 4, 3, 2, 600);
    CHECK_INT(append(&b, b.c, 0, 0, 64), KEPT_OK);
    CHECK_INT(append(&b, b.c, 0, 64, 1), KEPT_FULL);
    CHECK_INT(kept_pool_free_pages(b.pool), 3);
    CHECK_INT(kept_pool_free_blocks(b.pool), 1);
    check_head(&b, b.c, 0, range(0, 64), 64);
    end_box(&b);
}

static void fork_shares_pages(void)
{
    box b = new_box(64, 8, 0, 0, 400);
    kept_cache *f;
    CHECK_INT(append(&b, b.c, 0, 0, 130), KEPT_OK);
    CHECK_INT(kept_cache_fork(b.c, 0, NULL, &f, NULL), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 5);
    for (int i = 0; i < 3; i++)
        CHECK_INT(kept_cache_pages(f, 0, 0)[i], kept_cache_pages(b.c, 0, 0)[i]);
    CHECK_INT(kept_cache_reserve_cost(f, 0, 62), 2); /* head 0: a copy; head 1: its first page */
    CHECK_INT(append(&b, f, 0, 200, 10), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 4);
    CHECK_INT(append(&b, b.c, 0, 130, 3), KEPT_OK); /* the original's last page is its own again */
    CHECK_INT(kept_pool_free_pages(b.pool), 4);
    CHECK(kept_cache_pages(f, 0, 0)[1] == kept_cache_pages(b.c, 0, 0)[1]);
    CHECK(kept_cache_pages(f, 0, 0)[2] != kept_cache_pages(b.c, 0, 0)[2]);
    check_head(&b, b.c, 0, range(0, 133), 133);
    int *want = range(0, 130);
    for (int i = 0; i < 10; i++)
        want[130 + i] = 200 + i;
    check_head(&b, f, 0, want, 140);
    kept_cache_free(b.c);
    check_head(&b, f, 0, want, 140);
    b.c = f;
    end_box(&b);
}

static void retain_window(void)
{
    /* Sinks and a window: the pages of the window stay untouched, the middle goes back. */
    box b = new_box(64, 20, 0, 0, 1100);
    kept_cache *f;
    CHECK_INT(append(&b, b.c, 0, 0, 1024), KEPT_OK);
    CHECK_INT(kept_cache_fork(b.c, 0, NULL, &f, NULL), KEPT_OK);
    uint8_t keep[1024] = {0};
    memset(keep, 1, 4);
    memset(keep + 768, 1, 256);
    CHECK_INT(kept_cache_retain(f, 0, 0, keep), KEPT_OK);
    int *want = range(764, 1024);
    for (int i = 0; i < 4; i++)
        want[i] = i;
    check_head(&b, f, 0, want, 260);
    for (int i = 0; i < 4; i++)
        CHECK_INT(kept_cache_pages(f, 0, 0)[i], 12 + i);
    CHECK_INT(kept_cache_pages(f, 0, 0)[4], 0); /* nothing to change in it: still shared */
    CHECK_INT(kept_pool_free_pages(b.pool), 4);
    check_head(&b, b.c, 0, range(0, 1024), 1024);
    kept_cache_free(b.c);
    CHECK_INT(kept_pool_free_pages(b.pool), 15);
    b.c = f;
    kept_account a;
    kept_cache_account(f, &a);
    CHECK_INT(a.n_evicted, 764);
    uint8_t none[260] = {0};
    CHECK_INT(kept_cache_retain(f, 0, 0, none), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 20);
    CHECK_INT(append(&b, f, 0, 3, 1), KEPT_OK);
    check_head(&b, f, 0, range(3, 4), 1);
    end_box(&b);
}

static void retain_scattered(void)
{
    enum { N = 8192 };
    static uint8_t keep[N];
    static int want[N];
    for (int shared = 0; shared < 2; shared++) {
        box b = new_box(16, 260, 300, 1, N);
        kept_cache *f = NULL;
        kept_rng r;
        int n = 0;
        kept_rng_init(&r, 5);
        CHECK_INT(append(&b, b.c, 0, 0, N), KEPT_OK);
        for (int s = 0; s < N; s++)
            kept_cache_set_state(b.c, 0, 0, 0, s, (float)s);
        if (shared)
            CHECK_INT(kept_cache_fork(b.c, 1, (int[]){0}, &f, NULL), KEPT_OK);
        const size_t before = kept_pool_free_pages(b.pool);
        for (int s = 0; s < N; s++) {
            keep[s] = kept_rng_below(&r, 4) == 0 ? 1 + (uint8_t)kept_rng_below(&r, 255) : 0;
            if (keep[s])
                want[n++] = s;
        }
        CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_OK);
        const int ideal = 128 - (n + 63) / 64;
        if (shared)
            CHECK_INT(before - kept_pool_free_pages(b.pool), (n + 63) / 64);
        else
            CHECK((double)(kept_pool_free_pages(b.pool) - before) >= 0.95 * ideal);
        check_head(&b, b.c, 0, want, n);
        for (int s = 0; s < n; s++) { /* state travels with its slot */
            const int32_t id = kept_cache_pages(b.c, 0, 0)[s / 64];
            CHECK_INT(kept_cache_state(b.c, 0, 0, 0, s), kept_pool_pos(b.pool)[id * 64 + s % 64]);
        }
        if (f)
            check_head(&b, f, 0, range(0, N), N);
        kept_cache_free(f);
        end_box(&b);
    }
}

static void retain_full_changes_nothing(void)
{
    box b = new_box(16, 4, 0, 0, 400);
    kept_cache *f;
    CHECK_INT(append(&b, b.c, 0, 0, 200), KEPT_OK);
    CHECK_INT(kept_cache_fork(b.c, 0, NULL, &f, NULL), KEPT_OK);
    uint8_t keep[200];
    for (int i = 0; i < 200; i++)
        keep[i] = i % 2 == 0;
    int32_t pages[4];
    memcpy(pages, kept_cache_pages(f, 0, 0), sizeof pages);
    CHECK_INT(kept_cache_retain(f, 0, 0, keep), KEPT_FULL);
    CHECK(!memcmp(pages, kept_cache_pages(f, 0, 0), sizeof pages));
    check_head(&b, f, 0, range(0, 200), 200);
    kept_account a;
    kept_cache_account(f, &a);
    CHECK_INT(a.n_evicted, 0);
    float k[16] = {0};
    CHECK_INT(kept_cache_set_row(f, 0, 0, 3, k, NULL), KEPT_FULL);
    CHECK_INT(append(&b, f, 0, 200, 1), KEPT_FULL);
    /* The other side may not evict either, until it is alone. */
    CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_FULL);
    kept_cache_free(f);
    CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 2);
    int *want = range(0, 200);
    for (int i = 0; i < 100; i++)
        want[i] = 2 * i;
    check_head(&b, b.c, 0, want, 100);
    end_box(&b);
}

static void retain_reuses_dead_pages(void)
{
    /* No page is free, but the head's own dead page can hold the copy. */
    box b = new_box(16, 2, 0, 0, 400);
    kept_cache *f;
    CHECK_INT(append(&b, b.c, 0, 0, 64), KEPT_OK);
    CHECK_INT(kept_cache_fork(b.c, 0, NULL, &f, NULL), KEPT_OK);
    CHECK_INT(append(&b, f, 0, 64, 64), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 0);
    uint8_t keep[128] = {0};
    keep[9] = keep[40] = 1;
    CHECK_INT(kept_cache_retain(f, 0, 0, keep), KEPT_OK);
    check_head(&b, f, 0, (int[]){9, 40}, 2);
    check_head(&b, b.c, 0, range(0, 64), 64);
    kept_cache_free(f);
    end_box(&b);
}

static void set_row_copies(void)
{
    box b = new_box(80, 8, 0, 0, 400);
    kept_cache *f;
    float k[80];
    CHECK_INT(append(&b, b.c, 0, 0, 100), KEPT_OK);
    CHECK_INT(kept_cache_fork(b.c, 0, NULL, &f, NULL), KEPT_OK);
    peek_row(77, 80, k);
    CHECK_INT(kept_cache_set_row(f, 0, 0, 5, k, NULL), KEPT_OK);
    CHECK_INT(kept_cache_set_row(f, 0, 0, 6, k, k), KEPT_OK);
    CHECK_INT(kept_cache_set_row(f, 0, 0, 7, NULL, k), KEPT_OK);
    CHECK_INT(kept_pool_free_pages(b.pool), 5);
    check_head(&b, b.c, 0, range(0, 100), 100);
    for (int s = 0; s < 64; s++) {
        const int ids[2] = {s == 5 || s == 6 ? 77 : s, s == 6 || s == 7 ? 77 : s + 1000};
        const int32_t page = kept_cache_pages(f, 0, 0)[0];
        CHECK(peek_equal(peek_page(b.pool, 80, page), 80, s, ids, bits));
        CHECK_INT(kept_pool_pos(b.pool)[page * 64 + s], s);
    }
    kept_cache_free(f);
    end_box(&b);
}

static void state_planes(void)
{
    box b = new_box(16, 8, 12, 2, 400);
    kept_cache *f;
    CHECK_INT(append(&b, b.c, 0, 0, 100), KEPT_OK);
    for (int s = 0; s < 100; s++) {
        CHECK_INT(kept_cache_state(b.c, 0, 0, 1, s), 0);
        kept_cache_set_state(b.c, 0, 0, 0, s, 10 + (float)s);
        kept_cache_set_state(b.c, 0, 0, 1, s, 1000 + (float)s);
    }
    CHECK_INT(kept_cache_fork(b.c, 3, (int[]){1, -1, 0}, &f, NULL), KEPT_OK);
    CHECK_INT(kept_cache_n_planes(f), 3);
    CHECK_INT(kept_pool_free_blocks(b.pool), 12 - 4 - 6);
    CHECK_INT(kept_cache_state(f, 0, 0, 0, 99), 1099);
    CHECK_INT(kept_cache_state(f, 0, 0, 1, 99), 0);
    CHECK_INT(kept_cache_state(f, 0, 0, 2, 99), 109);
    kept_cache *g;
    kept_error e;
    CHECK_INT(kept_cache_fork(b.c, 2, (int[]){0, 1}, &g, &e), KEPT_FULL);
    CHECK(g == NULL && strstr(e.text, "blocks"));
    CHECK_INT(kept_cache_fork(b.c, 1, (int[]){2}, &g, &e), KEPT_ARGUMENT);
    kept_cache_set_state(f, 0, 0, 0, 0, -1); /* blocks are private */
    CHECK_INT(kept_cache_state(b.c, 0, 0, 1, 0), 1000);
    kept_cache_drop_planes(f, 1);
    CHECK_INT(kept_cache_n_planes(f), 1);
    CHECK_INT(kept_pool_free_blocks(b.pool), 12 - 4 - 2);
    CHECK_INT(kept_cache_state(f, 0, 0, 0, 98), 1098);
    check_head(&b, f, 0, range(0, 100), 100);
    /* Slots that come back after an eviction start at zero again. */
    uint8_t keep[100] = {0};
    memset(keep, 1, 10);
    CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_OK);
    CHECK_INT(append(&b, b.c, 0, 200, 80), KEPT_OK);
    for (int s = 10; s < 90; s++)
        CHECK_INT(kept_cache_state(b.c, 0, 0, 1, s), 0);
    CHECK_INT(kept_cache_state(b.c, 0, 0, 1, 9), 1009);
    kept_cache_free(f);
    CHECK_INT(kept_pool_free_blocks(b.pool), 12 - 4);
    end_box(&b);
}

static uint64_t bytes_of(const kept_cache *c, kept_account *a)
{
    kept_cache_account(c, a);
    return a->kv_bytes + a->meta_bytes;
}

static void account(void)
{
    box b = new_box(64, 16, 32, 2, 400);
    kept_account a;
    const uint64_t empty = bytes_of(b.c, &a);
    CHECK_INT(a.kv_bytes, 0);
    CHECK_INT(a.peak_bytes, empty);
    CHECK(empty >= 2 * 3 * 8 * sizeof(int32_t));    /* 2 heads, 3 lists, ceil(464/64) entries */
    const uint64_t page = 256 * 64 + 256 + 2 * 256; /* K, V, positions, two blocks */
    CHECK_INT(append(&b, b.c, 0, 0, 130), KEPT_OK);
    CHECK_INT(bytes_of(b.c, &a), empty + 3 * page);
    CHECK_INT(a.kv_bytes, 3 * 256 * 64);
    CHECK_INT(a.peak_bytes, empty + 3 * page); /* without a tick */
    kept_cache_tick(b.c, 130);
    kept_cache_set_extra(b.c, 1000);
    CHECK_INT(bytes_of(b.c, &a), empty + 3 * page + 1000);
    uint8_t keep[130] = {1, 1};
    CHECK_INT(kept_cache_retain(b.c, 0, 0, keep), KEPT_OK);
    kept_cache_tick(b.c, 1);
    CHECK_INT(bytes_of(b.c, &a), empty + page + 1000);
    CHECK_INT(a.peak_bytes, empty + 3 * page + 1000);
    CHECK_INT(a.n_evicted, 128);
    const double steps = 130.0 * (double)(empty + 3 * page) + (double)(empty + page + 1000);
    CHECK_NEAR(a.byte_steps, steps, 0.5);
    kept_cache *f;
    CHECK_INT(kept_cache_fork(b.c, 2, (int[]){0, 1}, &f, NULL), KEPT_OK);
    CHECK_INT(bytes_of(f, &a), empty + page); /* extra is its owner's to say */
    CHECK_INT(a.peak_bytes, empty + 3 * page + 1000);
    CHECK_NEAR(a.byte_steps, steps, 0.5);
    CHECK_INT(a.n_evicted, 128);
    kept_pool_account pa;
    kept_pool_get_account(b.pool, &pa);
    CHECK_INT(pa.page_bytes, 256 * 64);
    CHECK_INT(pa.peak_pages, 3);
    CHECK_INT(pa.n_free_pages, 15); /* shared: counted once */
    CHECK(pa.huge_bytes % (2u << 20) == 0 && pa.huge_bytes <= 4u << 20);
    kept_cache_drop_planes(f, 0);
    CHECK_INT(bytes_of(f, &a), empty + page - 512);
    kept_cache_free(f);
    end_box(&b);
}

int main(void)
{
    for (int i = 0; i < 2048; i++)
        bits[i] = peek_bits(i);
    const char *names[8];
    const int n = kept_kern_levels(names, 8);
    for (int i = 0; i < n; i++) {
        kern = kept_kern_get(names[i]);
        printf("kernels %s\n", names[i]);
        RUN(arguments);
        RUN(append_and_read);
        RUN(reserve_is_exact);
        RUN(fork_shares_pages);
        RUN(retain_window);
        RUN(retain_scattered);
        RUN(retain_full_changes_nothing);
        RUN(retain_reuses_dead_pages);
        RUN(set_row_copies);
        RUN(state_planes);
        RUN(account);
    }
    TEST_END();
}
