/* Caches of packed pages against a naive model: random appends, packing, demotion page by page,
 * slots in another order, evictions and forks, with
 * and without notes on pages; the
 * model knows of every slot only its position, whose row is a function of it. A row that was
 * rounded is still nearer to its own than to any other, whose distance is 1.4 times a row's length:
 * half of a row's length separates right from wrong, whatever was rounded how often. */
#include "test.h"
#include "cache/cache.h"

#define D        64
#define HEADS    3
#define N_CACHES 4
#define MAX      700
#define ROWS     2048       /* different rows of a head: position p has that of p % ROWS */
#define LAST_POS (40 * MAX) /* a cache begins anew before it */
#define LOOK     48         /* operations from one comparison of all rows to the next */

typedef struct model {
    kept_cache *c; /* NULL: not there */
    int n[HEADS], next;
    int32_t pos[HEADS][MAX];
} model;

static uint64_t seed = 11;
static uint32_t below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* Number d of a row: keys and values differ, and so do heads. */
static float make_number(int32_t pos, int head, int v, int d)
{
    uint64_t h = ((uint64_t)pos * 8 + (uint64_t)(head * 2 + v)) * 0x9e3779b97f4a7c15u +
                 (uint64_t)d * 0xbf58476d1ce4e5b9u;
    float x = 0;

    for (int i = 0; i < 4; i++) {
        h ^= h >> 29, h *= 0x94d049bb133111ebu, h ^= h >> 32;
        x += (float)(h >> 40) / 16777216.0f - 0.5f;
    }
    return x * 1.7f;
}

static float rows[ROWS][HEADS][2][D]; /* made once: they cost most of the time otherwise */
static float number(int32_t pos, int head, int v, int d)
{
    return rows[pos % ROWS][head][v][d];
}

static void make_rows(void)
{
    for (int32_t p = 0; p < ROWS; p++)
        for (int i = 0; i < HEADS * 2 * D; i++)
            rows[p][i / D / 2][i / D % 2][i % D] = make_number(p, i / D / 2, i / D % 2, i % D);
}

static double distance(const float *x, int32_t pos, int head, int v)
{
    double e = 0, all = 0;

    for (int d = 0; d < D; d++) {
        double y = number(pos, head, v, d);

        e += (x[d] - y) * (x[d] - y), all += y * y;
    }
    return sqrt(e / all);
}

/* Minimum and maximum of every channel, by sorting as a naive reader would. */
static void describe(const float *key, int n, int head_size, float *note)
{
    for (int d = 0; d < head_size; d++) {
        note[d] = INFINITY, note[head_size + d] = -INFINITY;
        for (int i = 0; i < n; i++) {
            note[d] = fminf(note[d], key[i * head_size + d]);
            note[head_size + d] = fmaxf(note[head_size + d], key[i * head_size + d]);
        }
    }
}

/* Notes of all full pages are what the keys say that the cache returns (k [n][D]). */
static void check_notes(const model *m, int h, const float *k)
{
    static float scratch[64 * D + KEPT_NOTE_BLOCK];
    float want[2 * D];

    if (!kept_cache_n_notes(m->c))
        return;
    kept_cache_refresh_notes(m->c, 0, h, m->n[h] / 64, describe, scratch);
    for (int p = 0; p < m->n[h] / 64; p++) {
        const kept_f16 *note = kept_cache_note(m->c, 0, h, p, 0);

        describe(k + (size_t)p * 64 * D, 64, D, want);
        for (int d = 0; d < 2 * D; d++)
            CHECK_INT(note[d], kept_f32_to_f16(want[d]));
    }
}

static kept_pool *pool_of_all;
static long n_ops_done;
static bool thin; /* keys hold some channels, exactly, and no others */

static void check_thin(const float *k, int32_t pos, int head)
{
    int held = 0;

    for (int d = 0; d < D; d++) {
        const float y = number(pos, head, 0, d);

        held += k[d] != 0;
        CHECK(k[d] == 0 || fabsf(k[d] - y) <= 1e-3f * fabsf(y) + 1e-6f);
    }
    CHECK(held > 0);
}

/* The same positions with their rows; bytes counted twice alike. limit: of a row's length. */
static double check(const model *m)
{
    static float k[MAX * D], v[MAX * D];
    static int32_t pos[MAX];
    double worst = 0;

    for (int h = 0; h < HEADS; h++) {
        static char seen[LAST_POS]; /* all 0 between two heads */

        CHECK_INT(kept_cache_n(m->c, 0, h), m->n[h]);
        kept_cache_read(m->c, 0, h, pos, k, v);
        for (int s = 0; s < m->n[h]; s++)
            seen[m->pos[h][s]] = 1;
        for (int s = 0; s < m->n[h]; s++) {
            CHECK(seen[pos[s]] == 1);
            seen[pos[s]] = 0;
            if (thin)
                check_thin(k + s * D, pos[s], h);
            else
                worst = fmax(worst, distance(k + s * D, pos[s], h, 0));
            worst = fmax(worst, distance(v + s * D, pos[s], h, 1));
        }
        check_notes(m, h, k);
    }
    CHECK(worst < 0.5);
    return worst;
}

/* Numbers of slots, bytes counted twice alike, and the position of one slot. */
static void glance(const model *m)
{
    uint64_t kv, meta;
    kept_account a;

    for (int h = 0; h < HEADS; h++)
        CHECK_INT(kept_cache_n(m->c, 0, h), m->n[h]);
    kept_cache_account(m->c, &a);
    kept_cache_walk(m->c, &kv, &meta);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
}

static void append(model *m)
{
    int n = 1 + (int)below(90);
    float k[D], v[D];

    for (int h = 0; h < HEADS; h++)
        if (m->n[h] + n > MAX - 64)
            return;
    for (int h = 0; h < HEADS; h++) {
        if (kept_cache_reserve(m->c, 0, h, n)) {
            for (int i = 0; i <= h; i++)
                kept_cache_reserve(m->c, 0, i, 0);
            return;
        }
    }
    for (int h = 0; h < HEADS; h++) {
        for (int t = 0; t < n; t++) {
            for (int d = 0; d < D; d++)
                k[d] = number(m->next + t, h, 0, d), v[d] = number(m->next + t, h, 1, d);
            kept_cache_put(m->c, 0, h, m->n[h] + t, k, v, m->next + t);
            m->pos[h][m->n[h] + t] = m->next + t;
        }
        kept_cache_commit(m->c, 0, h, n);
        m->n[h] += n;
    }
    m->next += n;
}

static void evict(model *m)
{
    uint8_t keep[MAX];
    int h = (int)below(HEADS), share = 1 + (int)below(10), left = 0;
    static int32_t pos[MAX];

    kept_cache_read(m->c, 0, h, pos, NULL, NULL);
    for (int s = 0; s < m->n[h]; s++)
        keep[s] = (int)below(10) < share;
    if (kept_cache_retain(m->c, 0, h, keep))
        return;
    for (int s = 0; s < m->n[h]; s++)
        if (keep[s])
            m->pos[h][left++] = pos[s];
    m->n[h] = left;
}

static void pack(model *m, const kept_codecs *forms, int n_forms)
{
    kept_codecs form = forms[below((uint32_t)n_forms)];
    int skip = (int)below(2);

    for (int h = 0; h < HEADS; h++)
        kept_cache_pack(m->c, 0, h, form, skip, NULL);
}

/* One page of every head becomes narrower, if it does. */
static void narrow(model *m, const kept_codecs *forms, int n_forms)
{
    const kept_codecs form = forms[below((uint32_t)n_forms)];

    for (int h = 0; h < HEADS && m->n[h] >= 64; h++) {
        int page = (int)below((uint32_t)m->n[h] / 64);

        kept_cache_narrow(m->c, 0, h, page, form);
    }
}

/* Slots of F16 pages in any order: rows keep their bits, and positions and state go with them. */
static void arrange(model *m)
{
    static float k[2][MAX * D], v[2][MAX * D];
    static int32_t from[MAX], free_[MAX], pos[2][MAX];

    for (int h = 0; h < HEADS; h++) {
        const int n = m->n[h];
        const int32_t *ids = kept_cache_pages(m->c, 0, h);
        int n_free = 0;

        kept_cache_read(m->c, 0, h, pos[0], k[0], v[0]);
        for (int i = 0; i < n; i++) {
            from[i] = i;
            if (kept_codec_is_f16(kept_pool_get_page(pool_of_all, ids[i / 64]).c))
                free_[n_free++] = i;
            kept_cache_set_state(m->c, 0, h, 0, i, (float)pos[0][i]);
        }
        for (int i = n_free - 1; i > 0; i--) {
            int j = (int)below((uint32_t)i + 1), a = free_[i], b = free_[j], t = from[a];

            from[a] = from[b], from[b] = t;
        }
        if (kept_cache_arrange(m->c, 0, h, from))
            continue;
        kept_cache_read(m->c, 0, h, pos[1], k[1], v[1]);
        for (int i = 0; i < n; i++) {
            CHECK_INT(pos[1][i], pos[0][from[i]]);
            CHECK_INT((int)kept_cache_state(m->c, 0, h, 0, i), pos[1][i]);
            CHECK(!memcmp(k[1] + i * D, k[0] + from[i] * D, D * sizeof(float)));
            CHECK(!memcmp(v[1] + i * D, v[0] + from[i] * D, D * sizeof(float)));
        }
    }
}

static kept_cache *empty(bool notes)
{
    kept_cache *c = NULL;

    CHECK_INT(kept_cache_new(pool_of_all, kept_kern_get(NULL), 1, HEADS, 1, MAX, &c, NULL),
              KEPT_OK);
    if (notes)
        CHECK_INT(kept_cache_set_notes(c, 1), KEPT_OK);
    return c;
}

/* Pages to bytes and back, with their state: the same bits. */
static void park(model *m)
{
    static uint8_t bytes[HEADS][MAX / 64 + 1][256 * D], again[256 * D];
    static int32_t pos[HEADS][MAX];
    static kept_codecs form[HEADS][MAX / 64 + 1];
    const bool notes = kept_cache_n_notes(m->c) > 0;

    for (int h = 0; h < HEADS; h++) {
        kept_cache_reserve(m->c, 0, h, 0);
        kept_cache_read(m->c, 0, h, pos[h], NULL, NULL);
        for (int p = 0; p * 64 < m->n[h]; p++) {
            form[h][p] = kept_pool_get_page(pool_of_all, kept_cache_pages(m->c, 0, h)[p]).c;
            CHECK_INT(kept_cache_save_page(m->c, 0, h, p, bytes[h][p]),
                      kept_codec_page_bytes(form[h][p], D));
        }
    }
    kept_cache_free(m->c);
    m->c = empty(notes);
    for (int h = 0; h < HEADS; h++) {
        int n = m->n[h];
        for (int p = 0; p * 64 < n; p++) {
            int32_t part[64] = {0};
            memcpy(part, pos[h] + 64 * p, (size_t)(n - 64 * p < 64 ? n - 64 * p : 64) * 4);
            if (kept_cache_load_page(m->c, 0, h, form[h][p], bytes[h][p], part)) {
                n = m->n[h] = 64 * p; /* others took the room meanwhile: so much is back */
                break;
            }
        }
        kept_cache_load_end(m->c, 0, h, n);
        memcpy(m->pos[h], pos[h], (size_t)n * sizeof *pos[h]);
        for (int p = 0; p * 64 < n; p++) {
            const size_t size = kept_cache_save_page(m->c, 0, h, p, again);
            CHECK(!memcmp(again, bytes[h][p], size));
        }
    }
}

static void fork_to(model *m, const model *from)
{
    kept_error e;

    kept_cache_free(m->c);
    *m = *from;
    m->c = NULL;
    CHECK_INT(kept_cache_fork(from->c, 1, (const int[]){0}, &m->c, &e), KEPT_OK);
    if (below(2))
        CHECK_INT(kept_cache_set_notes(m->c, 1), KEPT_OK);
}

/* Many operations; returns the worst distance seen. */
static double run(int n_ops, int n_pages, const kept_codecs *forms, int n_forms)
{
    model m[N_CACHES] = {{NULL, {0}, 0, {{0}}}};
    kept_pool *pool;
    kept_pool_account a;
    double worst = 0;

    CHECK_INT(kept_pool_new(D, (size_t)n_pages, 4000, &pool, NULL), KEPT_OK);
    pool_of_all = pool;
    for (int i = 0; i < N_CACHES; i++)
        m[i].c = empty(i > 0);
    CHECK_INT(kept_cache_set_notes(m[1].c, 1), KEPT_ARGUMENT);
    for (int op = 0; op < n_ops && !test_failed; op++) {
        model *x = &m[below(N_CACHES)];
        uint32_t what = below(100);

        if (x->next + 100 >= LAST_POS) {
            const bool notes = kept_cache_n_notes(x->c) > 0;

            kept_cache_free(x->c);
            *x = (model){empty(notes), {0}, 0, {{0}}};
        }
        n_ops_done++;
        if (what < 55)
            append(x);
        else if (what < 80)
            evict(x);
        else if (what < 92)
            pack(x, forms, n_forms);
        else if (what < 95 && !thin)
            narrow(x, forms, n_forms);
        else if (what < 96)
            arrange(x);
        else if (what < 97)
            park(x);
        else if (x != m)
            fork_to(x, m);
        glance(x);
        if (op % LOOK == 0)
            worst = fmax(worst, check(x));
    }
    for (int i = 0; i < N_CACHES; i++)
        kept_cache_free(m[i].c);
    kept_pool_get_account(pool, &a);
    CHECK_INT(a.n_free_pages, a.n_pages);
    kept_pool_free(pool);
    return worst;
}

static const kept_codecs rows_only[] = {{KEPT_Q8, KEPT_Q8}};
static const kept_codecs all[] = {{KEPT_Q8, KEPT_Q8},   {KEPT_ROT4, KEPT_Q8},
                                  {KEPT_Q4, KEPT_Q4},   {KEPT_CHAN4, KEPT_TOK4},
                                  {KEPT_Q8, KEPT_ROT4}, {KEPT_BF16, KEPT_Q8}};

/* q8 rows move as they are: hundreds of operations add up to little. */
static void moves_lose_nothing(void)
{
    CHECK(run(20000, 400, rows_only, 1) < 0.03);
}
static void every_form(void)
{
    run(40000, 400, all, 6);
}
/* Pages of a head hold the same channels, so rows that move between them lose nothing. */
static void thin_rows(void)
{
    static const kept_codecs forms[] = {{KEPT_THIN50, KEPT_F16}, {KEPT_THIN75, KEPT_F16}};

    thin = true;
    CHECK(run(10000, 400, forms, 1) < 1e-3);
    run(10000, 400, forms, 2);
    thin = false;
}
static void little_room(void)
{
    run(24000, 60, all, 6);
}

/* Demotion, one page after the other: bytes fall with every page, in the peak there is one page
 * besides, also in a pool that has no room for another; a wider form changes no bit. */
static void demotion(void)
{
    static const kept_codecs ladder[] = {
        {KEPT_Q8, KEPT_Q8}, {KEPT_ROT4, KEPT_ROT4}, {KEPT_ROT2, KEPT_ROT2}};
    static float k[2][MAX * D], v[2][MAX * D];
    kept_pool *pool;
    model m = {NULL, {0}, 0, {{0}}};
    kept_account a, before;

    CHECK_INT(kept_pool_new(D, 30, 1000, &pool, NULL), KEPT_OK);
    CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), 1, HEADS, 0, MAX, &m.c, NULL), KEPT_OK);
    for (int i = 0; i < 40; i++)
        append(&m);
    for (int form = 0; form < 3; form++) {
        const size_t page = kept_codec_page_bytes(ladder[form], D);
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < m.n[h] / 64; i++) {
                kept_cache_account(m.c, &before);
                CHECK_INT(kept_cache_narrow(m.c, 0, h, i, ladder[form]), KEPT_OK);
                kept_cache_account(m.c, &a);
                CHECK(a.peak_bytes <= before.peak_bytes + page);
                CHECK_INT(a.kv_bytes, before.kv_bytes + page -
                                          (form ? kept_codec_page_bytes(ladder[form - 1], D)
                                                : kept_page_bytes(D)));
            }
        if (form < 2)
            check(&m);
    }
    kept_cache_read(m.c, 0, 0, NULL, k[0], v[0]);
    CHECK_INT(kept_cache_narrow(m.c, 0, 0, 0, ladder[0]), KEPT_OK);
    kept_cache_read(m.c, 0, 0, NULL, k[1], v[1]);
    CHECK(!memcmp(k[0], k[1], (size_t)m.n[0] * D * sizeof(float)));
    CHECK(!memcmp(v[0], v[1], (size_t)m.n[0] * D * sizeof(float)));
    kept_cache_free(m.c);
    kept_pool_free(pool);
}

/* Packing a full cache gives its bytes back: pages of any size can use them. */
static void bytes_come_back(void)
{
    kept_pool *pool;
    model m = {NULL, {0}, 0, {{0}}};
    size_t page = kept_codec_page_bytes((kept_codecs){KEPT_Q4, KEPT_Q4}, D);

    CHECK_INT(kept_pool_new(D, 96, 1000, &pool, NULL), KEPT_OK);
    CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), 1, HEADS, 0, MAX, &m.c, NULL), KEPT_OK);
    for (int i = 0; i < 40; i++)
        append(&m);
    int full = 0, tails = 0;
    for (int h = 0; h < HEADS; h++) {
        full += m.n[h] / 64, tails += m.n[h] % 64 > 0;
        CHECK_INT(kept_cache_pack(m.c, 0, h, (kept_codecs){KEPT_Q4, KEPT_Q4}, 0, NULL), KEPT_OK);
    }
    kept_account a;
    kept_cache_account(m.c, &a);
    CHECK(full >= 20);
    CHECK_INT(a.kv_bytes, (size_t)full * page + (size_t)tails * kept_page_bytes(D));
    CHECK_INT(kept_pool_free_pages(pool),
              96 - (a.kv_bytes + kept_page_bytes(D) - 1) / kept_page_bytes(D));
    check(&m);
    kept_cache_free(m.c);
    kept_pool_free(pool);
}

static void many_operations(void)
{
    CHECK(n_ops_done >= 100000);
}

int main(void)
{
    make_rows();
    RUN(bytes_come_back);
    RUN(demotion);
    RUN(moves_lose_nothing);
    RUN(every_form);
    RUN(thin_rows);
    RUN(little_room);
    RUN(many_operations);
    TEST_END();
}
