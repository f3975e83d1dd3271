/* kerntime: the timings of kerncheck.h. A pass goes over all pages in order, as a decode step of a
 * long context does, so what does not fit the CPU's caches comes from memory. */
#include "bench/kerncheck.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define G          KEPT_KERNCHECK_GROUP
#define MIN_PASSES 3
#define MIN_NS     60000000u

typedef struct timing {
    const kept_kern *kern;
    int d, n_pages, n_q;
    bool mass;
    uint8_t *pool;
    int32_t *pages;      /* [n_pages] */
    float *q;            /* [KEPT_TILE_ROWS][D] */
    float *state;        /* m, l, M, L [ROWS] each, then acc, O [ROWS][D] */
    kept_f16 *p;         /* [SEG_PAGES][ROWS][64] */
    float *p_max, *sums; /* [SEG_PAGES][ROWS], [n_pages * 64] */
} timing;

static void pass(timing *t)
{
    const int rows = t->n_q * G, d = t->d, all = KEPT_TILE_ROWS;
    float *m = t->state, *l = m + all, *M = l + all, *L = M + all, *acc = L + all;
    float *O = acc + all * d;
    for (int r = 0; r < rows; r++)
        M[r] = -INFINITY, L[r] = 0;
    memset(O, 0, (size_t)(rows * d) * sizeof *O);
    for (int first = 0; first + KEPT_SEG_PAGES <= t->n_pages; first += KEPT_SEG_PAGES) {
        bool last = first + 2 * KEPT_SEG_PAGES > t->n_pages;
        kept_attn_tile tile = {.head_size = d,
                               .group = G,
                               .n_q = t->n_q,
                               .q = t->q,
                               .q_stride_t = (size_t)(G * d),
                               .q_stride_g = (size_t)d,
                               .scale = (float)(1.4426950408889634 / sqrt(d)),
                               .pool = t->pool,
                               .page_bytes = kept_page_bytes(d),
                               .pages = t->pages + first,
                               .n_pages = KEPT_SEG_PAGES,
                               .next = last ? NULL
                                            : t->pool + (size_t)t->pages[first + KEPT_SEG_PAGES] *
                                                            kept_page_bytes(d),
                               .first_slot = first * KEPT_PAGE_SLOTS,
                               .visible = t->n_pages * KEPT_PAGE_SLOTS,
                               .m = m,
                               .l = l,
                               .acc = acc,
                               .p = t->mass ? t->p : NULL,
                               .p_max = t->mass ? t->p_max : NULL};
        t->kern->attend(&tile);
        t->kern->combine(rows, d, M, L, O, m, l, acc);
        if (t->mass)
            t->kern->mass(KEPT_SEG_PAGES, rows, 0, rows, 1, t->p, t->p_max, M, L,
                          t->sums + first * KEPT_PAGE_SLOTS);
    }
}

static double best_ns(timing *t)
{
    uint64_t begin = kept_clock_ns(), best = UINT64_MAX;
    for (int i = 0; i < MIN_PASSES || kept_clock_ns() - begin < MIN_NS; i++) {
        uint64_t t0 = kept_clock_ns();
        pass(t);
        uint64_t ns = kept_clock_ns() - t0;
        best = ns < best ? ns : best;
    }
    return (double)best;
}

static void measure(timing *t, kept_kerntime *out)
{
    double slots = (double)t->n_pages * KEPT_PAGE_SLOTS;
    t->n_q = 1;
    out->decode_ns = best_ns(t) / slots;
    t->mass = true;
    out->decode_mass_ns = best_ns(t) / slots;
    t->mass = false;
    t->n_q = KEPT_TILE_ROWS / G;
    /* Compute-bound: a few segments tell as much as all of them. */
    if (t->n_pages > 16 * KEPT_SEG_PAGES)
        t->n_pages = 16 * KEPT_SEG_PAGES;
    slots = (double)t->n_pages * KEPT_PAGE_SLOTS;
    out->prefill_gflops = 4.0 * KEPT_TILE_ROWS * slots * t->d / best_ns(t);
}

kept_status kept_kerncheck_time(const kept_kern *kern, int head_size, size_t cache_bytes,
                                kept_kerntime *out, kept_error *err)
{
    const size_t d = (size_t)head_size, page = kept_page_bytes(head_size);
    size_t n = cache_bytes / page / KEPT_SEG_PAGES * KEPT_SEG_PAGES;
    kept_rng r;
    kept_rng_init(&r, 1);
    timing t = {.kern = kern, .d = head_size, .n_pages = (int)(n ? n : KEPT_SEG_PAGES)};
    n = (size_t)t.n_pages;
    t.pool = kept_aligned(64, n * page);
    t.pages = kept_calloc(n, sizeof *t.pages);
    t.q = kept_aligned(64, KEPT_TILE_ROWS * d * 4);
    t.state = kept_aligned(64, KEPT_TILE_ROWS * (4 + 2 * d) * 4);
    t.p = kept_aligned(64, (size_t)KEPT_SEG_PAGES * KEPT_TILE_ROWS * KEPT_PAGE_SLOTS * 2);
    t.p_max = kept_aligned(64, (size_t)KEPT_SEG_PAGES * KEPT_TILE_ROWS * 4);
    t.sums = kept_aligned(64, n * KEPT_PAGE_SLOTS * 4);
    kept_status st = KEPT_OK;
    if (!t.pool || !t.pages || !t.q || !t.state || !t.p || !t.p_max || !t.sums) {
        st = kept_fail(err, KEPT_NOMEM, "out of memory for timing kernels");
        goto out;
    }
    for (size_t i = 0; i < n; i++)
        t.pages[i] = (int32_t)i;
    /* Any finite halves do: sign, an exponent around 1, random fraction. */
    for (size_t i = 0; i + 8 <= n * page; i += 8) {
        uint64_t bits = (kept_rng_u64(&r) & 0x83ff83ff83ff83ffu) | 0x3800380038003800u;
        memcpy(t.pool + i, &bits, sizeof bits);
    }
    for (size_t i = 0; i < KEPT_TILE_ROWS * d; i++)
        t.q[i] = (float)kept_rng_normal(&r);
    kept_kern_enter();
    measure(&t, out);
out:
    free(t.pool), free(t.pages), free(t.q), free(t.state), free(t.p), free(t.p_max), free(t.sums);
    return st;
}

/* ---- bandwidth ----------------------------------------------------------------------------- */

#define MAX_THREADS 256

typedef struct reader {
    pthread_t thread;
    const uint64_t *words;
    size_t n;
    uint64_t begin_ns, end_ns, sum;
} reader;

/* Eight sums, so that the additions do not wait for each other. */
static uint64_t read_all(const uint64_t *w, size_t n)
{
    uint64_t s[8] = {0}, sum = 0;
    for (size_t i = 0; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            s[j] += w[i + (size_t)j];
    for (int j = 0; j < 8; j++)
        sum += s[j];
    return sum;
}

static void *read_thread(void *arg)
{
    reader *r = arg;
    r->begin_ns = kept_clock_ns();
    r->sum = read_all(r->words, r->n);
    r->end_ns = kept_clock_ns();
    return NULL;
}

/* Nanoseconds from the first thread's begin to the last one's end. 0: a thread did not start. */
static uint64_t read_pass(reader *r, int n_threads)
{
    uint64_t begin = UINT64_MAX, end = 0;
    int n = 0;
    while (n < n_threads && !pthread_create(&r[n].thread, NULL, read_thread, &r[n]))
        n++;
    for (int i = 0; i < n; i++) {
        pthread_join(r[i].thread, NULL);
        begin = r[i].begin_ns < begin ? r[i].begin_ns : begin;
        end = r[i].end_ns > end ? r[i].end_ns : end;
    }
    return n < n_threads || end <= begin ? 0 : end - begin;
}

kept_status kept_read_bandwidth(int n_threads, size_t total_bytes, double *out, kept_error *err)
{
    n_threads = n_threads < 1 ? 1 : n_threads > MAX_THREADS ? MAX_THREADS : n_threads;
    const size_t each = total_bytes / (size_t)n_threads / 64 * 8;
    uint64_t *words = kept_aligned(64, each * (size_t)n_threads * 8);
    reader *readers = kept_calloc((size_t)n_threads, sizeof *readers);
    kept_status st = KEPT_OK;
    uint64_t best = UINT64_MAX;
    if (!words || !readers) {
        st = kept_fail(err, KEPT_NOMEM, "out of memory for measuring bandwidth");
        goto out;
    }
    memset(words, 1, each * (size_t)n_threads * 8); /* untouched pages are all the same zero page */
    for (int i = 0; i < n_threads; i++) {
        readers[i].words = words + each * (size_t)i;
        readers[i].n = each;
    }
    for (int i = 0; i < 3; i++) {
        uint64_t ns = read_pass(readers, n_threads);
        if (!ns) {
            st = kept_fail(err, KEPT_UNSUPPORTED, "cannot start %d threads", n_threads);
            goto out;
        }
        best = ns < best ? ns : best;
    }
    *out = (double)(each * (size_t)n_threads * 8) * 1e9 / (double)best;
out:
    free(words);
    free(readers);
    return st;
}
