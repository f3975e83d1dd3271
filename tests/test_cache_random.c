/* cache: a random state machine of several caches in one small pool beside a naive model, which
 * keeps for every head a plain array of slots in order of position. After every operation all
 * content, both byte counts and the pool's free counts are compared. */
#include "test.h"

#include "cache_peek.h"

enum { LAYERS = 2, HEADS = 2, ALL = 4, MAX_SLOTS = 200, CACHES = 5 };

typedef struct slot {
    int pos, id[2]; /* names of its K and V rows */
    float state[KEPT_MAX_PLANES];
} slot;

typedef struct model {
    kept_cache *c;
    int n_planes, next_pos;
    int n[ALL], held[ALL]; /* slots; pages with the reserved ones */
    slot slots[ALL][MAX_SLOTS + 64];
    uint64_t own, extra, peak, evicted;
    double steps;
    uint64_t most_pages;      /* ever held */
    double page_steps, ticks; /* what a fork's own past is told from until it evicts */
} model;

typedef struct world {
    kept_pool *pool;
    const kept_kern *kern;
    int d, n_pages, n_blocks, next_id;
    int last; /* the cache that the last operation named */
    kept_rng rng;
    model m[CACHES];
    int refs[512], blocks[2048];
    long full, done[12];
} world;

static kept_f16 bits[2048];

static int below(world *w, int n)
{
    return (int)kept_rng_below(&w->rng, (uint32_t)n);
}
static int pages_of(int n)
{
    return (n + 63) / 64;
}

static slot *find(model *m, int h, int pos)
{
    int lo = 0, hi = m->n[h];
    while (lo < hi) {
        const int mid = (lo + hi) / 2;
        if (m->slots[h][mid].pos < pos)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < m->n[h] && m->slots[h][lo].pos == pos ? &m->slots[h][lo] : NULL;
}

static int pos_of(const world *w, const model *m, int h, int s)
{
    const int32_t id = kept_cache_pages(m->c, h / HEADS, h % HEADS)[s / 64];
    return kept_pool_pos(w->pool)[id * 64 + s % 64];
}

/* Distinct positions, all in the model, with equal state and (if rows) K and V; as many as the
 * model has. */
static int head_is_equal(const world *w, model *m, int h, int rows)
{
    const int l = h / HEADS, j = h % HEADS, n = m->n[h];
    unsigned char seen[MAX_SLOTS + 64] = {0};
    if (kept_cache_n(m->c, l, j) != n)
        return 0;
    const int32_t *pages = kept_cache_pages(m->c, l, j);
    for (int s = 0; s < n; s++) {
        const slot *x = find(m, h, pos_of(w, m, h, s));
        if (!x || seen[x - m->slots[h]]++)
            return 0;
        if (rows && !peek_equal(peek_page(w->pool, w->d, pages[s / 64]), w->d, s % 64, x->id, bits))
            return 0;
        for (int p = 0; p < m->n_planes; p++) {
            const int32_t b = kept_cache_blocks(m->c, l, j, p)[s / 64];
            if (kept_pool_block(w->pool, b)[s % 64] != x->state[p])
                return 0;
        }
    }
    return 1;
}

static uint64_t expected_kv(const world *w, const model *m)
{
    uint64_t pages = 0;
    for (int h = 0; h < ALL; h++)
        pages += (uint64_t)m->held[h];
    return pages * 256u * (uint64_t)w->d;
}

static uint64_t expected_meta(const world *w, const model *m)
{
    const uint64_t pages = expected_kv(w, m) / (256u * (uint64_t)w->d);
    return m->own + m->extra + pages * 256u * (uint64_t)(1 + m->n_planes);
}

static int account_is_equal(const world *w, const model *m)
{
    kept_account a;
    uint64_t kv, meta;
    kept_cache_account(m->c, &a);
    kept_cache_walk(m->c, &kv, &meta);
    return a.kv_bytes == kv && a.meta_bytes == meta && kv == expected_kv(w, m) &&
           meta == expected_meta(w, m) && a.peak_bytes == m->peak && a.n_evicted == m->evicted &&
           a.byte_steps == m->steps;
}

static void update_peak(const world *w, model *m)
{
    const uint64_t now = expected_kv(w, m) + expected_meta(w, m);
    if (now > m->peak)
        m->peak = now;
    const uint64_t pages = expected_kv(w, m) / (256u * (uint64_t)w->d);
    if (pages > m->most_pages)
        m->most_pages = pages;
}

/* Counts references of all pages and blocks by walking every list. Free counts must agree. */
static int pool_is_equal(world *w)
{
    size_t used = 0, blocks = 0;
    memset(w->refs, 0, sizeof w->refs);
    memset(w->blocks, 0, sizeof w->blocks);
    for (int i = 0; i < CACHES; i++)
        for (int h = 0; w->m[i].c && h < ALL; h++)
            for (int p = 0; p < w->m[i].held[h]; p++) {
                const int l = h / HEADS, j = h % HEADS;
                const int32_t id = kept_cache_pages(w->m[i].c, l, j)[p];
                if (id < 0 || id >= w->n_pages)
                    return 0;
                used += !w->refs[id]++;
                for (int q = 0; q < w->m[i].n_planes; q++) {
                    const int32_t b = kept_cache_blocks(w->m[i].c, l, j, q)[p];
                    if (b < 0 || b >= w->n_blocks || w->blocks[b]++)
                        return 0; /* state is never shared */
                    blocks++;
                }
            }
    return kept_pool_free_pages(w->pool) == (size_t)w->n_pages - used &&
           kept_pool_free_blocks(w->pool) == (size_t)w->n_blocks - blocks;
}

/* K and V of the caches that the operation did not name are compared every fourth time: it is most
 * of the test's time, and damage stays. */
static int all_is_equal(world *w, int op)
{
    if (!pool_is_equal(w))
        return 0;
    for (int i = 0; i < CACHES; i++) {
        if (!w->m[i].c)
            continue;
        if (!account_is_equal(w, &w->m[i]))
            return 0;
        for (int h = 0; h < ALL; h++)
            if (!head_is_equal(w, &w->m[i], h, i == w->last || op % 4 == 0))
                return 0;
    }
    return 1;
}

static void op_new(world *w, model *m)
{
    if (m->c)
        return;
    kept_account a;
    memset(m, 0, sizeof *m);
    m->n_planes = below(w, 4);
    CHECK_INT(kept_cache_new(w->pool, w->kern, LAYERS, HEADS, m->n_planes, MAX_SLOTS, &m->c, NULL),
              KEPT_OK);
    kept_cache_account(m->c, &a);
    m->own = m->peak = a.meta_bytes;
}

static void op_free(world *w, model *m)
{
    (void)w;
    kept_cache_free(m->c);
    m->c = NULL;
}

static void op_append(world *w, model *m)
{
    const int h = below(w, ALL), l = h / HEADS, j = h % HEADS;
    const int n = below(w, 4) ? 1 + below(w, 5) : below(w, 100), at = m->n[h];
    if (at + n > MAX_SLOTS)
        return;
    /* The naive rule: new pages, and one more if the partly filled last page has other readers. */
    const int more = pages_of(at + n) > m->held[h] ? pages_of(at + n) - m->held[h] : 0;
    const int copy = n && at % 64 && w->refs[kept_cache_pages(m->c, l, j)[at / 64]] > 1;
    const kept_status want = (size_t)(more + copy) > kept_pool_free_pages(w->pool) ||
                                     (size_t)(more * m->n_planes) > kept_pool_free_blocks(w->pool)
                                 ? KEPT_FULL
                                 : KEPT_OK;
    const kept_status s = kept_cache_reserve(m->c, l, j, n);
    CHECK_INT(s, want);
    w->full += s == KEPT_FULL;
    if (s)
        return;
    m->held[h] = pages_of(at + n);
    update_peak(w, m);
    if (below(w, 20) == 0)
        return; /* an abandoned pass: reserved, not committed */
    float k[256], v[256];
    for (int i = 0; i < n; i++) {
        slot *x = &m->slots[h][at + i];
        *x = (slot){.pos = m->next_pos++, .id = {w->next_id++, w->next_id++}};
        peek_row(x->id[0], w->d, k);
        peek_row(x->id[1], w->d, v);
        kept_cache_put(m->c, l, j, at + i, k, v, x->pos);
        for (int p = 0; p < m->n_planes; p++) { /* new slots start at zero */
            CHECK(kept_cache_state(m->c, l, j, p, at + i) == 0);
            x->state[p] = (float)below(w, 1000);
            kept_cache_set_state(m->c, l, j, p, at + i, x->state[p]);
        }
    }
    kept_cache_commit(m->c, l, j, n);
    m->n[h] += n;
}

static void make_mask(world *w, uint8_t *keep, int n)
{
    const int kind = below(w, 6), a = below(w, n + 1), b = below(w, n + 1), share = 1 + below(w, 9);
    for (int s = 0; s < n; s++) {
        keep[s] = kind == 0   ? 0
                  : kind == 1 ? 1
                  : kind == 2 ? s < a || s > a + b
                  : kind == 3 ? s >= a
                  : kind == 4 ? s != a
                              : below(w, 10) < share;
        if (keep[s])
            keep[s] = (uint8_t)(1 + below(w, 255));
    }
}

static void op_retain(world *w, model *m)
{
    const int h = below(w, ALL), l = h / HEADS, j = h % HEADS, n = m->n[h];
    uint8_t keep[MAX_SLOTS + 64];
    int before[MAX_SLOTS + 64], shared = 0;
    make_mask(w, keep, n);
    for (int s = 0; s < n; s++)
        before[s] = pos_of(w, m, h, s);
    for (int p = 0; p < pages_of(n); p++)
        shared += w->refs[kept_cache_pages(m->c, l, j)[p]] > 1;
    m->held[h] = pages_of(n);
    const kept_status s = kept_cache_retain(m->c, l, j, keep);
    w->full += s == KEPT_FULL;
    if (s) {
        CHECK_INT(s, KEPT_FULL);
        /* Only possible if more shared pages had to change than were free. */
        CHECK(shared > 0 && (size_t)shared > kept_pool_free_pages(w->pool));
        for (int i = 0; i < n; i++)
            CHECK_INT(pos_of(w, m, h, i), before[i]);
        return;
    }
    int gone[MAX_SLOTS + 64], n_gone = 0, left = 0;
    for (int i = 0; i < n; i++)
        if (!keep[i])
            gone[n_gone++] = (int)(find(m, h, before[i]) - m->slots[h]);
    for (int i = 0; i < n_gone; i++)
        m->slots[h][gone[i]].pos = -1;
    for (int i = 0; i < n; i++)
        if (m->slots[h][i].pos >= 0)
            m->slots[h][left++] = m->slots[h][i];
    m->n[h] = left;
    m->held[h] = pages_of(left);
    m->evicted += (uint64_t)n_gone;
}

static void op_fork(world *w, model *m)
{
    model *to = &w->m[below(w, CACHES)];
    if (to->c)
        return;
    int planes[KEPT_MAX_PLANES], n_planes = below(w, 4), need = 0;
    for (int p = 0; p < n_planes; p++)
        planes[p] = m->n_planes ? below(w, m->n_planes + 1) - 1 : -1;
    for (int h = 0; h < ALL; h++)
        need += pages_of(m->n[h]) * n_planes;
    kept_cache *c;
    const kept_status s = kept_cache_fork(m->c, n_planes, planes, &c, NULL);
    w->full += s == KEPT_FULL;
    CHECK_INT(s, (size_t)need > kept_pool_free_blocks(w->pool) + (s ? 0 : (size_t)need) ? KEPT_FULL
                                                                                        : KEPT_OK);
    if (s)
        return;
    kept_account a;
    *to = *m;
    to->c = c;
    to->n_planes = n_planes;
    to->extra = 0;
    for (int h = 0; h < ALL; h++) {
        to->held[h] = pages_of(m->n[h]);
        for (int i = 0; i < m->n[h]; i++)
            for (int p = 0; p < n_planes; p++)
                to->slots[h][i].state[p] = planes[p] < 0 ? 0 : m->slots[h][i].state[planes[p]];
    }
    kept_cache_account(c, &a);
    to->own = 0;
    to->own = a.meta_bytes - expected_meta(w, to);
    if (!m->evicted) { /* as if it had run alone with its own planes */
        const uint64_t page = 256u * (uint64_t)(w->d + 1 + n_planes);
        to->peak = m->most_pages * page + to->own;
        to->steps = m->page_steps * (double)page + m->ticks * (double)to->own;
    }
    update_peak(w, to);
}

static void op_set_row(world *w, model *m)
{
    const int h = below(w, ALL), l = h / HEADS, j = h % HEADS;
    if (!m->n[h])
        return;
    const int s = below(w, m->n[h]);
    const int shared = w->refs[kept_cache_pages(m->c, l, j)[s / 64]] > 1;
    const kept_status want = shared && !kept_pool_free_pages(w->pool) ? KEPT_FULL : KEPT_OK;
    const int which = 1 + below(w, 3); /* bit 0: K, bit 1: V */
    float k[256], v[256];
    peek_row(w->next_id, w->d, k);
    peek_row(w->next_id + 1, w->d, v);
    const kept_status got =
        kept_cache_set_row(m->c, l, j, s, which & 1 ? k : NULL, which & 2 ? v : NULL);
    CHECK_INT(got, want);
    w->full += got == KEPT_FULL;
    for (int i = 0; i < 2 && !got; i++)
        if (which & 1 << i)
            find(m, h, pos_of(w, m, h, s))->id[i] = w->next_id + i;
    w->next_id += 2;
}

static void op_set_state(world *w, model *m)
{
    const int h = below(w, ALL);
    if (!m->n[h] || !m->n_planes)
        return;
    const int s = below(w, m->n[h]), p = below(w, m->n_planes);
    const float v = (float)below(w, 1000);
    kept_cache_set_state(m->c, h / HEADS, h % HEADS, p, s, v);
    CHECK(kept_cache_state(m->c, h / HEADS, h % HEADS, p, s) == v);
    find(m, h, pos_of(w, m, h, s))->state[p] = v;
}

static void op_account(world *w, model *m)
{
    if (below(w, 4) == 0) {
        m->extra = (uint64_t)below(w, 5000);
        kept_cache_set_extra(m->c, m->extra);
        update_peak(w, m);
    }
    const int n = 1 + below(w, 10);
    kept_cache_tick(m->c, n);
    m->steps += (double)(expected_kv(w, m) + expected_meta(w, m)) * n;
    m->page_steps += (double)(expected_kv(w, m) / (256u * (uint64_t)w->d)) * n;
    m->ticks += n;
}

static void op_read(world *w, model *m)
{
    static int32_t pos[MAX_SLOTS + 64];
    static float k[(MAX_SLOTS + 64) * 256], v[(MAX_SLOTS + 64) * 256];
    const int h = below(w, ALL), n = m->n[h];
    kept_cache_read(m->c, h / HEADS, h % HEADS, pos, k, v);
    for (int s = 0; s < n; s++) {
        const slot *x = find(m, h, pos[s]);
        CHECK(x != NULL);
        for (int d = 0; x && d < w->d; d++)
            if (k[s * w->d + d] != (float)peek_value(x->id[0], d) ||
                v[s * w->d + d] != (float)peek_value(x->id[1], d))
                CHECK_INT(d, -1);
    }
}

static void op_drop_planes(world *w, model *m)
{
    const int n = below(w, m->n_planes + 1);
    if (below(w, 4))
        return;
    if (below(w, 2) && m->n_planes) {
        const int p = below(w, m->n_planes);
        kept_cache_keep_plane(m->c, p);
        for (int h = 0; h < ALL; h++)
            for (int i = 0; i < m->n[h]; i++)
                m->slots[h][i].state[0] = m->slots[h][i].state[p];
        m->n_planes = 1;
        return;
    }
    kept_cache_drop_planes(m->c, n);
    m->n_planes = n;
}

static void step(world *w)
{
    w->last = below(w, CACHES);
    model *m = &w->m[w->last];
    const int o = below(w, 100);
    const int op = !m->c    ? 0
                   : o < 45 ? 1
                   : o < 65 ? 2
                   : o < 72 ? 3
                   : o < 80 ? 4
                   : o < 88 ? 5
                   : o < 93 ? 6
                   : o < 96 ? 7
                   : o < 98 ? 8
                            : 9;
    static void (*const ops[])(world *, model *) = {
        op_new,       op_append,  op_retain, op_fork,        op_set_row,
        op_set_state, op_account, op_read,   op_drop_planes, op_free};
    if (op == 0 && below(w, 3))
        return; /* leave room for forks */
    w->done[op]++;
    ops[op](w, m);
}

static void run(const char *kern, int d, int n_blocks, uint64_t seed, int n_ops)
{
    const int n_pages = 28;
    world *w = kept_calloc(1, sizeof *w);
    w->d = d;
    w->n_pages = n_pages;
    w->n_blocks = n_blocks;
    w->kern = kept_kern_get(kern);
    kept_rng_init(&w->rng, seed);
    CHECK_INT(kept_pool_new(d, (size_t)n_pages, (size_t)n_blocks, &w->pool, NULL), KEPT_OK);
    for (int i = 0; i < n_ops && !test_failed; i++) {
        step(w);
        if (!all_is_equal(w, i)) {
            fprintf(stderr, "kernels %s, D %d, seed %llu: not equal after operation %d\n", kern, d,
                    (unsigned long long)seed, i);
            test_failed = 1;
        }
    }
    for (int op = 0; op < 10; op++)
        CHECK(w->done[op] > n_ops / 200); /* the test did what it says */
    CHECK(w->full > n_ops / 200);
    for (int i = 0; i < CACHES; i++)
        op_free(w, &w->m[i]);
    CHECK_INT(kept_pool_free_pages(w->pool), n_pages);
    CHECK_INT(kept_pool_free_blocks(w->pool), n_blocks);
    kept_pool_free(w->pool);
    free(w);
}

/* Scarce pages, then scarce blocks; then the fastest kernels, which must move the same bits. */
static void scarce_pages(void)
{
    run("ref", 16, 80, 1, 16000);
}
static void scarce_blocks(void)
{
    run("ref", 80, 36, 2, 16000);
}
static void best_kernels(void)
{
    run(kept_kern_get(NULL)->name, 144, 60, 3, 4000);
}

int main(void)
{
    for (int i = 0; i < 2048; i++)
        bits[i] = peek_bits(i);
    RUN(scarce_pages);
    RUN(scarce_blocks);
    RUN(best_kernels);
    TEST_END();
}
