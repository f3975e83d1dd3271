/* Attention kernels, every level this CPU runs, against attention written plainly in double here.
 * The oracle reads the pages by the layout stated in kern.h, so that a wrong put cannot hide.
 *
 * Tolerances. Output: relative L2 per row at most 1e-5 plus 2.4e-7 (4 roundings) of the largest sum
 * of |q*k|: a score is a float sum, and its absolute error is a relative error of the weight. Mass:
 * L1 error at most 1e-3 of the mass, because weights pass through F16 (11 bits, 2^-24 steps). */
#include "test.h"
#include "kern/kern.h"

#define SEG   (KEPT_SEG_PAGES * KEPT_PAGE_SLOTS)
#define LOG2E 1.4426950408889634
#define GUARD 64
#ifdef __SANITIZE_ADDRESS__
#define SPARSE 2 /* every third length, or the test takes a minute */
#else
#define SPARSE 0
#endif

enum mode { PLAIN, PEAKED, EQUAL, LARGE, TINY, N_MODES };

struct problem {
    int D, G, n, nq, n_pages, window;
    float *q; /* [nq][G][D] */
    uint8_t *pool;
    int32_t *pages, *pos;
    float *bias;                /* [n_pages*64] base 2, or NULL */
    const float **bias_at;      /* [n_pages] */
    double *k, *v;              /* [n][D] what the pages hold */
    double *out, *mass, *slack; /* oracle: [nq*G][D], [G][n_pages*64], [nq*G] */
    double *peak[2];            /* [n_pages*64] oracle: without weights, with row_weight */
    int *live;                  /* [nq*G] slots seen */
};

struct result {
    float *M, *L, *O, *mass, *peak[2], *split; /* split [G][n_pages*64]: mass of each query head */
};

static uint64_t seed = 1;
static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}
static float noise(void)
{
    return (float)((uniform() + uniform() + uniform() + uniform() - 2.0) * 1.7);
}

/* An allocation with guard bytes on both sides. */
static void *guarded(size_t bytes)
{
    uint8_t *p = aligned_alloc(64, (bytes + 2 * GUARD + 63) / 64 * 64);

    memset(p, 0x5a, bytes + 2 * GUARD);
    return p + GUARD;
}
static void release(void *p, size_t bytes)
{
    uint8_t *b = (uint8_t *)p - GUARD;
    int bad = 0;

    for (int i = 0; i < GUARD; i++)
        bad |= b[i] != 0x5a || b[GUARD + bytes + (size_t)i] != 0x5a;
    CHECK(!bad);
    free(b);
}

/* Weights of rows for peak: between 0 and 2. */
static float row_weight(int row)
{
    return (float)(row * 37 % 101) / 50.0f;
}

static double value(kept_f16 h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);

    return h & 0x8000 ? -x : x;
}
static kept_f16 *page_of(const struct problem *x, int s)
{
    return (kept_f16 *)(void *)(x->pool + (size_t)x->pages[s / 64] * kept_page_bytes(x->D));
}
/* Reads the pages by the layout stated in kern.h. */
static void read_pages(struct problem *x)
{
    int D = x->D;

    for (int s = 0; s < x->n; s++) {
        for (int d = 0; d < D; d++) {
            int b = d / 64, w = D - 64 * b < 64 ? D - 64 * b : 64;
            const kept_f16 *page = page_of(x, s);

            x->k[s * D + d] = value(page[((s % 64 / 32) * D + d) * 32 + s % 32]);
            x->v[s * D + d] = value(page[64 * D + 64 * 64 * b + s % 64 * w + d % 64]);
        }
    }
}

static void oracle_row(struct problem *x, int t, int g, double *score)
{
    int row = t * x->G + g, visible = x->n - x->nq + 1;
    const float *q = x->q + (size_t)row * (size_t)x->D;
    double top = -INFINITY, sum = 0, most = 0, *o = x->out + (size_t)row * (size_t)x->D;

    for (int s = 0; s < visible + t; s++) {
        double a = 0, b = 0;

        if (x->window && x->pos[s] <= x->n - x->nq + t - x->window) {
            score[s] = -INFINITY;
            continue;
        }
        for (int d = 0; d < x->D; d++) {
            a += q[d] * x->k[s * x->D + d];
            b += fabs(q[d] * x->k[s * x->D + d]);
        }
        score[s] = a / sqrt(x->D) + (x->bias ? x->bias[s] / LOG2E : 0);
        most = fmax(most, b / sqrt(x->D));
        top = fmax(top, score[s]);
        x->live[row]++;
    }
    x->slack[row] = 1e-5 + 2.4e-7 * most;
    for (int s = 0; s < visible + t; s++)
        sum += exp(score[s] - top);
    for (int s = 0; s < visible + t; s++) {
        double p = x->live[row] ? exp(score[s] - top) / sum : 0;

        x->mass[g * x->n_pages * 64 + s] += p;
        x->peak[0][s] = fmax(x->peak[0][s], p);
        x->peak[1][s] = fmax(x->peak[1][s], p * (double)row_weight(t * x->G + g));
        for (int d = 0; p > 0 && d < x->D; d++)
            o[d] += p * x->v[s * x->D + d];
    }
}

static void fill_slot(struct problem *x, int s, enum mode mode)
{
    float k[256], v[256], size = mode == LARGE ? 300.0f : mode == TINY ? 1e-6f : 1.0f;

    for (int d = 0; d < x->D; d++) {
        k[d] = mode == EQUAL ? 0.25f : noise() * size;
        v[d] = noise() * size;
        if (mode == PEAKED && (s == x->n / 3 || s == x->n - 1))
            k[d] = x->q[d] * (s == x->n - 1 ? 20.0f : 12.0f);
    }
    kept_kern_get("ref")->put((uint8_t *)page_of(x, s), x->D, s % 64, k, v);
}

static struct problem make(int D, int G, int n, int nq, enum mode mode)
{
    struct problem x = {.D = D, .G = G, .n = n, .nq = nq, .n_pages = (n + 63) / 64};
    size_t rows = (size_t)(nq * G), slots = (size_t)x.n_pages * 64;
    size_t bytes = kept_page_bytes(D) * (size_t)(x.n_pages + 1);
    kept_f16 *h;

    x.q = malloc(rows * (size_t)D * sizeof *x.q);
    x.pool = aligned_alloc(64, bytes);
    x.pages = malloc((size_t)x.n_pages * sizeof *x.pages);
    x.pos = malloc(slots * sizeof *x.pos);
    x.out = calloc(rows * (size_t)D, sizeof *x.out);
    x.mass = calloc(slots * (size_t)G, sizeof *x.mass);
    x.peak[0] = calloc(slots, sizeof(double));
    x.peak[1] = calloc(slots, sizeof(double));
    x.slack = calloc(rows, sizeof *x.slack);
    x.live = calloc(rows, sizeof *x.live);
    x.k = malloc((size_t)(n * D) * sizeof *x.k);
    x.v = malloc((size_t)(n * D) * sizeof *x.v);
    h = (kept_f16 *)(void *)x.pool;
    for (size_t i = 0; i < bytes / 2; i++) /* dead slots: NaN and infinities */
        h[i] = (kept_f16)(i % 3 == 0 ? 0x7e01 : i % 3 == 1 ? 0xfc00 : 0x7c00);
    for (int i = 0; i < x.n_pages; i++)
        x.pages[i] = (x.n_pages - i) % (x.n_pages + 1);
    for (size_t i = 0; i < rows * (size_t)D; i++)
        x.q[i] = noise() * (mode == LARGE ? 300.0f : mode == TINY ? 1e-6f : 1.0f);
    for (int s = 0; s < n; s++)
        fill_slot(&x, s, mode);
    for (size_t s = 0; s < slots; s++)
        x.pos[s] = (int32_t)s;
    return x;
}

static void solve(struct problem *x)
{
    double *score = malloc((size_t)(x->n_pages * 64) * sizeof *score);

    read_pages(x);
    for (int t = 0; t < x->nq; t++)
        for (int g = 0; g < x->G; g++)
            oracle_row(x, t, g, score);
    free(score);
}

/* Slots stand for 1 to 64 tokens, or are lowered; dead ones have no number at all. */
static void add_bias(struct problem *x)
{
    size_t slots = (size_t)x->n_pages * 64;

    x->bias = malloc(slots * sizeof *x->bias);
    x->bias_at = malloc((size_t)x->n_pages * sizeof *x->bias_at);
    for (size_t s = 0; s < slots; s++)
        x->bias[s] = s >= (size_t)x->n ? NAN : (float)(uniform() < 0.2 ? 0 : 9 * uniform() - 3);
    for (int i = 0; i < x->n_pages; i++)
        x->bias_at[i] = x->bias + 64 * i;
}

static void drop(struct problem *x)
{
    free(x->q), free(x->pool), free(x->pages), free(x->pos);
    free(x->bias), free(x->bias_at);
    free(x->peak[0]), free(x->peak[1]);
    free(x->out), free(x->mass), free(x->slack), free(x->live);
    free(x->k), free(x->v);
}

/* The tile of queries [t0, t0+nq) and heads [g0, g0+ng) against segment seg, without outputs. */
static kept_attn_tile tile(const struct problem *x, int seg, const int *cut)
{
    int t0 = cut[0], nq = cut[1], g0 = cut[2], ng = cut[3],
        left = x->n_pages - seg * KEPT_SEG_PAGES;

    return (kept_attn_tile){
        .head_size = x->D,
        .group = ng,
        .n_q = nq,
        .q = x->q + (size_t)(t0 * x->G + g0) * (size_t)x->D,
        .q_stride_t = (size_t)(x->G * x->D),
        .q_stride_g = (size_t)x->D,
        .scale = (float)(LOG2E / sqrt(x->D)),
        .pool = x->pool,
        .page_bytes = kept_page_bytes(x->D),
        .pages = x->pages + seg * KEPT_SEG_PAGES,
        .n_pages = left < KEPT_SEG_PAGES ? left : KEPT_SEG_PAGES,
        .first_slot = seg * SEG,
        .visible = x->n - x->nq + 1 + t0,
        .window = x->window,
        .q_pos = x->n - x->nq + t0,
        .pos = x->window ? x->pos + seg * SEG : NULL,
        .bias = x->bias ? x->bias_at + seg * KEPT_SEG_PAGES : NULL,
    };
}

/* Runs queries [t0, t0+nq) through all segments: rows are contiguous, so results go in place. */
static void run_queries(const kept_kern *k, const struct problem *x, int t0, int nq,
                        struct result *y)
{
    size_t rows = (size_t)(nq * x->G), D = (size_t)x->D, first = (size_t)(t0 * x->G);
    size_t np = (size_t)x->n_pages, pn = np * rows * 64 * sizeof(kept_f16);
    float *m = guarded(rows * 4), *l = guarded(rows * 4), *acc = guarded(rows * D * 4);
    float *top = guarded(np * rows * 4), *mass = guarded(np * 64 * 4);
    kept_f16 *p = guarded(pn);
    int cut[4] = {t0, nq, 0, x->G}, half = (int)rows / 2;

    for (int seg = 0; seg * KEPT_SEG_PAGES < x->n_pages; seg++) {
        kept_attn_tile a = tile(x, seg, cut);
        size_t at = (size_t)seg * KEPT_SEG_PAGES * rows;

        a.m = m, a.l = l, a.acc = acc, a.p = p + at * 64, a.p_max = top + at;
        k->attend(&a);
        k->combine((int)rows, x->D, y->M + first, y->L + first, y->O + first * D, m, l, acc);
    }
    memcpy(mass, y->mass, np * 64 * 4);
    for (int part = 0; part < 2; part++)
        k->mass(x->n_pages, (int)rows, part ? half : 0, part ? (int)rows : half, 1, p, top,
                y->M + first, y->L + first, mass);
    memcpy(y->mass, mass, np * 64 * 4);
    for (int g = 0; g < x->G; g++) {
        int cut_row = nq / 2 * x->G;

        memcpy(mass, y->split + (size_t)g * np * 64, np * 64 * 4);
        k->mass(x->n_pages, (int)rows, g, cut_row, x->G, p, top, y->M + first, y->L + first, mass);
        k->mass(x->n_pages, (int)rows, cut_row + g, (int)rows, x->G, p, top, y->M + first,
                y->L + first, mass);
        memcpy(y->split + (size_t)g * np * 64, mass, np * 64 * 4);
    }
    for (int part = 0; part < 2; part++) {
        float *w = guarded(rows * 4);

        for (size_t r = 0; r < rows; r++)
            w[r] = row_weight((int)(first + r));
        memcpy(mass, y->peak[part], np * 64 * 4);
        k->peak(x->n_pages, (int)rows, p, top, y->M + first, y->L + first, part ? w : NULL, mass);
        memcpy(y->peak[part], mass, np * 64 * 4);
        release(w, rows * 4);
    }
    release(m, rows * 4), release(l, rows * 4), release(acc, rows * D * 4);
    release(top, np * rows * 4), release(mass, np * 64 * 4), release(p, pn);
}

static void check_result(const struct problem *x, const struct result *y)
{
    double sum = 0, expected = 0, off = 0, split_off = 0;

    for (int r = 0; r < x->nq * x->G; r++) {
        double e = 0, n = 0;

        for (int d = 0; d < x->D; d++) {
            size_t i = (size_t)r * (size_t)x->D + (size_t)d;
            double o = x->live[r] ? y->O[i] / (double)y->L[r] : y->O[i];

            e += (o - x->out[i]) * (o - x->out[i]);
            n += x->out[i] * x->out[i];
        }
        if (x->live[r])
            CHECK(sqrt(e) <= x->slack[r] * sqrt(n) && y->L[r] > 0);
        else
            CHECK(e == 0 && y->L[r] == 0 && y->M[r] == -INFINITY);
        expected += x->live[r] > 0;
    }
    for (int s = 0, n = x->n_pages * 64; s < n; s++) {
        double all = 0;

        for (int g = 0; g < x->G; g++) {
            all += x->mass[g * n + s];
            split_off += fabs(y->split[g * n + s] - x->mass[g * n + s]);
            CHECK(s < x->n || y->split[g * n + s] == 0);
        }
        sum += y->mass[s];
        off += fabs(y->mass[s] - all);
        if (s >= x->n)
            CHECK(y->mass[s] == 0 && y->peak[0][s] == 0 && y->peak[1][s] == 0);
        for (int part = 0; part < 2; part++) /* one weight, through F16 */
            CHECK_NEAR(y->peak[part][s], x->peak[part][s], 2e-3 * x->peak[part][s] + 1e-6);
    }
    CHECK(fabs(sum - expected) <= 1e-3 * expected);
    CHECK(off <= 1e-3 * expected);
    CHECK(split_off <= 1e-3 * expected);
}

static void check_level(const kept_kern *k, const struct problem *x)
{
    size_t rows = (size_t)(x->nq * x->G), D = (size_t)x->D, step = (size_t)(KEPT_TILE_ROWS / x->G);
    struct result y = {calloc(rows, 4),
                       calloc(rows, 4),
                       calloc(rows * D, 4),
                       calloc((size_t)x->n_pages * 64, 4),
                       {calloc((size_t)x->n_pages * 64, 4), calloc((size_t)x->n_pages * 64, 4)},
                       calloc((size_t)(x->n_pages * 64 * x->G), 4)};

    for (size_t r = 0; r < rows; r++)
        y.M[r] = -INFINITY;
    for (int t = 0; t < x->nq; t += (int)step)
        run_queries(k, x, t, x->nq - t < (int)step ? x->nq - t : (int)step, &y);
    check_result(x, &y);
    free(y.M), free(y.L), free(y.O), free(y.mass), free(y.split);
    free(y.peak[0]), free(y.peak[1]);
}

static void check_all(struct problem *x)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8), before = test_failed;

    solve(x);
    for (int i = 0; i < n; i++) {
        test_failed = 0;
        check_level(kept_kern_get(names[i]), x);
        if (test_failed)
            fprintf(stderr, "  in %s D=%d G=%d n=%d nq=%d window=%d\n", names[i], x->D, x->G, x->n,
                    x->nq, x->window);
        before |= test_failed;
    }
    test_failed = before;
    drop(x);
}

static const int sizes[] = {64, 80, 96, 128, 256, 16, 112}, groups[] = {1, 2, 3, 4, 5, 7, 8, 16};
static const int lengths[] = {1, 2, 63, 64, 65, 127, 128, 511, 512, 513, 1100};
static const int queries[] = {1, 2, 5, 16};

static void shapes(void)
{
    for (int d = 0; d < 7; d++) {
        for (int g = 0; g < 8; g++) {
            for (int n = 0; n < 11; n += 1 + SPARSE) {
                struct problem x = make(sizes[d], groups[g], lengths[n],
                                        queries[(d + g + n) % (n == 10 && g == 7 ? 3 : 4)], PLAIN);

                check_all(&x);
            }
        }
    }
}

static void extremes(void)
{
    for (int mode = PEAKED; mode < N_MODES; mode++) {
        for (int i = 0; i < 8; i++) {
            struct problem x = make(sizes[(i + mode) % 7], groups[i], lengths[4 + i % 6],
                                    queries[i % 4], (enum mode)mode);

            check_all(&x);
        }
    }
}

static void windows(void)
{
    for (int i = 0; i < 24; i++) {
        struct problem x = make(sizes[i % 7], groups[i % 8], 200 + 37 * i, queries[i % 4], PLAIN);

        x.window = 1 + 25 * (i % 9) * (i % 9);
        for (int s = x.n - x.nq; s > 0; s--) { /* cached slots come in any order of position */
            int j = (int)(uniform() * s);
            int32_t p = x.pos[s - 1];

            x.pos[s - 1] = x.pos[j];
            x.pos[j] = p;
        }
        check_all(&x);
    }
}

/* Scores that slots are raised or lowered by, in decode and prefill tiles, with and without a
 * window. */
static void biases(void)
{
    for (int i = 0; i < 40; i++) {
        struct problem x =
            make(sizes[i % 7], groups[i % 8], lengths[i % 11] + i / 8,
                 lengths[i % 11] < 16 ? 1 : queries[(i + i / 8) % 4], i % 5 == 4 ? PEAKED : PLAIN);

        x.window = i % 4 == 3 ? 1 + x.n / 2 : 0;
        add_bias(&x);
        check_all(&x);
    }
}

/* c equal slots, and one of them with the bias log2(c): the same output. */
static void counts(void)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8);

    for (int i = 0; i < 12; i++) {
        struct problem x = make(sizes[i % 7], groups[i % 8], 8, 1, EQUAL);
        float k[256], v[256], m[2][16], l[2][16], acc[2][16 * 256], bias[64] = {0};
        const float *at = bias;
        int cut[4] = {0, 1, 0, x.G};

        for (int d = 0; d < x.D; d++)
            k[d] = noise(), v[d] = noise();
        for (int s = 2; s < 7; s++) /* five of one kind */
            kept_kern_get("ref")->put(x.pool + (size_t)x.pages[0] * kept_page_bytes(x.D), x.D, s, k,
                                      v);
        for (int level = 0; level < n; level++) {
            for (int part = 0; part < 2; part++) {
                kept_attn_tile a = tile(&x, 0, cut);

                a.visible = part ? 3 : 7; /* slots 3 to 6 go */
                a.bias = part ? &at : NULL;
                a.m = m[part], a.l = l[part], a.acc = acc[part];
                bias[2] = part ? 2.321928095f : 0;
                kept_kern_get(names[level])->attend(&a);
            }
            for (int r = 0; r < x.G * x.D; r++) {
                int row = r / x.D;

                CHECK_NEAR(acc[1][r] / l[1][row], acc[0][r] / l[0][row], 4e-6);
            }
        }
        drop(&x);
    }
}

/* A row alone, in a narrower tile or in a full one: the same bits in m, l, acc, p and p_max. */
static void same_rows(const kept_kern *k, const struct problem *x, int seg, const int *cut)
{
    static float m[2][64], l[2][64], acc[2][64 * 256], top[2][8 * 64];
    static kept_f16 p[2][8 * 64 * 64];
    int all[4] = {0, x->nq, 0, x->G}, rows = x->nq * x->G, some = cut[1] * cut[3];
    size_t D = (size_t)x->D;

    for (int i = 0; i < 2; i++) {
        kept_attn_tile a = tile(x, seg, i ? cut : all);

        a.m = m[i], a.l = l[i], a.acc = acc[i], a.p = p[i], a.p_max = top[i];
        k->attend(&a);
    }
    for (int r = 0; r < some; r++) {
        int full = (cut[0] + r / cut[3]) * x->G + cut[2] + r % cut[3];
        int left = x->n_pages - seg * KEPT_SEG_PAGES;

        CHECK(!memcmp(&m[0][full], &m[1][r], 4) && !memcmp(&l[0][full], &l[1][r], 4));
        CHECK(!memcmp(acc[0] + (size_t)full * D, acc[1] + (size_t)r * D, 4 * D));
        for (int i = 0; i < left && i < KEPT_SEG_PAGES; i++) {
            CHECK(!memcmp(p[0] + (i * rows + full) * 64, p[1] + (i * some + r) * 64, 128));
            CHECK(!memcmp(&top[0][i * rows + full], &top[1][i * some + r], 4));
        }
    }
}

static void row_independence(void)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8);

    for (int i = 0; i < 12; i++) {
        int G = groups[i % 8], nq = 64 / G < 16 ? 64 / G : 16;
        struct problem x = make(sizes[i % 7], G, 600 + i, nq, i % 3 ? PLAIN : PEAKED);

        x.window = i % 4 == 3 ? 300 : 0;
        if (i % 2)
            add_bias(&x);
        for (int level = 0; level < n; level++) {
            for (int seg = 0; seg < 2; seg++) {
                for (int t = 0; t < nq; t++) {
                    int alone[4] = {t, 1, t % G, 1}, query[4] = {t, 1, 0, G};
                    int pair[4] = {t, t + 3 < nq ? 3 : 1, 0, (G + 1) / 2};

                    same_rows(kept_kern_get(names[level]), &x, seg, alone);
                    same_rows(kept_kern_get(names[level]), &x, seg, query);
                    same_rows(kept_kern_get(names[level]), &x, seg, pair);
                }
            }
        }
        drop(&x);
    }
}

int main(void)
{
    kept_kern_enter();
    RUN(shapes);
    RUN(extremes);
    RUN(windows);
    RUN(biases);
    RUN(counts);
    RUN(row_independence);
    TEST_END();
}
