/* kerncheck: verification. Random K and V are multiples of 2^-8 below 4, exact in binary16, so that
 * what is stored has no rounding and the reference needs none of the table's conversions. */
#include "bench/kerncheck.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define G               KEPT_KERNCHECK_GROUP
#define PAGES           (KEPT_SEG_PAGES + 3) /* a whole segment and a part of one */
#define SLOTS           (PAGES * KEPT_PAGE_SLOTS)
#define QUERIES         16 /* QUERIES * G = KEPT_TILE_ROWS */
#define ROWS            (QUERIES * G)
#define TOLERANCE       2e-5 /* of attention, relative to the largest |V| */
#define MASS_TOLERANCE  2e-3 /* weights pass through binary16 */
#define OUTER_TOLERANCE 1e-4

typedef struct bed {
    const kept_kern *kern;
    int d;
    uint8_t *pool;        /* [PAGES] pages */
    float *k, *v, *q;     /* [SLOTS][D], [SLOTS][D], [QUERIES][G][D] */
    float *m, *l, *acc;   /* of one segment: [ROWS], [ROWS], [ROWS][D] */
    float *M, *L, *O;     /* of the row */
    kept_f16 *p;          /* [PAGES][ROWS][64] */
    float *p_max, *mass;  /* [PAGES][ROWS], [SLOTS] */
    double *weight, *out; /* [ROWS][SLOTS], [ROWS][D]: the reference */
    int32_t pages[PAGES], pos[SLOTS];
} bed;

static void bed_clear(bed *b)
{
    free(b->pool), free(b->k), free(b->v), free(b->q);
    free(b->m), free(b->l), free(b->acc), free(b->M), free(b->L), free(b->O);
    free(b->p), free(b->p_max), free(b->mass), free(b->weight), free(b->out);
}

static float random_exact(kept_rng *r)
{
    return (float)((int)kept_rng_below(r, 2048) - 1024) / 256;
}

static bool bed_init(bed *b, const kept_kern *kern, int d, uint64_t seed)
{
    const size_t n = (size_t)d;
    kept_rng r;
    kept_rng_init(&r, seed);
    *b = (bed){.kern = kern, .d = d};
    b->pool = kept_aligned(64, PAGES * kept_page_bytes(d));
    b->k = kept_aligned(64, SLOTS * n * 4), b->v = kept_aligned(64, SLOTS * n * 4);
    b->q = kept_aligned(64, ROWS * n * 4), b->m = kept_aligned(64, ROWS * 4);
    b->l = kept_aligned(64, ROWS * 4), b->acc = kept_aligned(64, ROWS * n * 4);
    b->M = kept_aligned(64, ROWS * 4), b->L = kept_aligned(64, ROWS * 4);
    b->O = kept_aligned(64, ROWS * n * 4), b->p = kept_aligned(64, SLOTS * ROWS * 2);
    b->p_max = kept_aligned(64, PAGES * ROWS * 4), b->mass = kept_aligned(64, SLOTS * 4);
    b->weight = kept_aligned(64, ROWS * SLOTS * 8), b->out = kept_aligned(64, ROWS * n * 8);
    if (!b->pool || !b->k || !b->v || !b->q || !b->m || !b->l || !b->acc || !b->M || !b->L ||
        !b->O || !b->p || !b->p_max || !b->mass || !b->weight || !b->out)
        return false;
    for (size_t i = 0; i < SLOTS * n; i++) {
        b->k[i] = random_exact(&r);
        b->v[i] = random_exact(&r);
    }
    for (size_t i = 0; i < ROWS * n; i++)
        b->q[i] = (float)kept_rng_normal(&r);
    for (int i = 0; i < PAGES; i++)
        b->pages[i] = (i * 7 + 3) % PAGES; /* a permutation: page ids are not slot order */
    for (int i = 0; i < SLOTS; i++)
        b->pos[i] = (i * 5 + 1) % SLOTS; /* slots are not in order of position */
    return true;
}

/* ---- storage ------------------------------------------------------------------------------- */

static double half_value(const uint8_t *at)
{
    uint16_t h;
    memcpy(&h, at, sizeof h);
    int e = h >> 10 & 31, f = h & 1023;
    double v = e ? ldexp(1024 + f, e - 25) : ldexp(f, -24);
    return h >> 15 ? -v : v;
}

static double stored_k(const uint8_t *page, int d, int slot, int c)
{
    return half_value(
        page + 2 * (((size_t)(slot / 32) * (size_t)d + (size_t)c) * 32 + (size_t)(slot % 32)));
}

static double stored_v(const uint8_t *page, int d, int slot, int c)
{
    int block = c / 64, w = d - 64 * block < 64 ? d - 64 * block : 64;
    return half_value(page + 128 * (size_t)d +
                      2 * ((size_t)(64 * 64 * block) + (size_t)(slot * w + c % 64)));
}

static uint8_t *page_of(const bed *b, int slot)
{
    return b->pool + (size_t)b->pages[slot / 64] * kept_page_bytes(b->d);
}

/* Whether slot `at` of a page holds K and V of token `from`. */
static bool holds(const bed *b, const uint8_t *page, int at, int from)
{
    for (int c = 0; c < b->d; c++)
        if (stored_k(page, b->d, at, c) != (double)b->k[from * b->d + c] ||
            stored_v(page, b->d, at, c) != (double)b->v[from * b->d + c])
            return false;
    return true;
}

static const char *check_storage(bed *b)
{
    const int d = b->d;
    for (int s = 0; s < SLOTS; s++)
        b->kern->put(page_of(b, s), d, s % 64, b->k + s * d, b->v + s * d);
    for (int s = 0; s < SLOTS; s++)
        if (!holds(b, page_of(b, s), s % 64, s))
            return "put";
    /* Five slots across the middle of a page, into buffers that the attention refills. */
    b->kern->get(page_of(b, 64), d, 30, 5, b->acc, b->O);
    for (int i = 0; i < 5 * d; i++)
        if (b->acc[i] != b->k[(64 + 30) * d + i] || b->O[i] != b->v[(64 + 30) * d + i])
            return "get";
    b->kern->move(page_of(b, 0), 61, page_of(b, 64), 2, d);
    if (!holds(b, page_of(b, 0), 61, 66) || !holds(b, page_of(b, 64), 2, 66) ||
        !holds(b, page_of(b, 0), 60, 60) || !holds(b, page_of(b, 0), 62, 62))
        return "move";
    b->kern->put(page_of(b, 61), d, 61, b->k + 61 * d, b->v + 61 * d);
    return NULL;
}

/* ---- attention ----------------------------------------------------------------------------- */

typedef struct view {
    int n_q, visible, window;
    int32_t q_pos;
} view;

static bool sees(const bed *b, const view *w, int t, int slot)
{
    return slot < w->visible + t && (!w->window || b->pos[slot] > w->q_pos + t - w->window);
}

/* The definition: softmax over visible slots, row by row, in double. */
static void reference(bed *b, const view *w)
{
    for (int r = 0; r < w->n_q * G; r++) {
        double *p = b->weight + (size_t)r * SLOTS, *o = b->out + (size_t)r * (size_t)b->d;
        double most = -INFINITY, sum = 0;
        for (int s = 0; s < SLOTS; s++) {
            p[s] = -INFINITY;
            if (!sees(b, w, r / G, s))
                continue;
            p[s] = 0;
            for (int c = 0; c < b->d; c++)
                p[s] += (double)b->q[r * b->d + c] * (double)b->k[s * b->d + c];
            p[s] /= sqrt(b->d);
            most = fmax(most, p[s]);
        }
        for (int s = 0; s < SLOTS; s++)
            sum += p[s] = exp(p[s] - most);
        memset(o, 0, (size_t)b->d * sizeof *o);
        for (int s = 0; s < SLOTS; s++) {
            p[s] /= sum;
            for (int c = 0; c < b->d; c++)
                o[c] += p[s] * (double)b->v[s * b->d + c];
        }
    }
}

static void compute(bed *b, const view *w)
{
    const int rows = w->n_q * G, d = b->d;
    for (int r = 0; r < rows; r++)
        b->M[r] = -INFINITY, b->L[r] = 0;
    memset(b->O, 0, (size_t)(rows * d) * sizeof *b->O);
    memset(b->mass, 0, SLOTS * sizeof *b->mass);
    for (int first = 0; first < PAGES; first += KEPT_SEG_PAGES) {
        int n = PAGES - first < KEPT_SEG_PAGES ? PAGES - first : KEPT_SEG_PAGES;
        kept_attn_tile t = {.head_size = d,
                            .group = G,
                            .n_q = w->n_q,
                            .q = b->q,
                            .q_stride_t = (size_t)(G * d),
                            .q_stride_g = (size_t)d,
                            .scale = (float)(1.4426950408889634 / sqrt(d)),
                            .pool = b->pool,
                            .page_bytes = kept_page_bytes(d),
                            .pages = b->pages + first,
                            .n_pages = n,
                            .first_slot = first * KEPT_PAGE_SLOTS,
                            .visible = w->visible,
                            .window = w->window,
                            .q_pos = w->q_pos,
                            .pos = b->pos + first * KEPT_PAGE_SLOTS,
                            .m = b->m,
                            .l = b->l,
                            .acc = b->acc,
                            .p = b->p + (size_t)(first * rows * KEPT_PAGE_SLOTS),
                            .p_max = b->p_max + (size_t)(first * rows)};
        b->kern->attend(&t);
        b->kern->combine(rows, d, b->M, b->L, b->O, b->m, b->l, b->acc);
    }
    for (int first = 0; first < PAGES; first += KEPT_SEG_PAGES) {
        int n = PAGES - first < KEPT_SEG_PAGES ? PAGES - first : KEPT_SEG_PAGES;
        b->kern->mass(n, rows, 0, rows, 1, b->p + (size_t)(first * rows * KEPT_PAGE_SLOTS),
                      b->p_max + (size_t)(first * rows), b->M, b->L,
                      b->mass + first * KEPT_PAGE_SLOTS);
    }
}

/* A NaN is the largest error there is. */
static void note(double *worst, double error)
{
    if (!(error <= *worst))
        *worst = isnan(error) ? INFINITY : error;
}

static const char *check_attention(bed *b, const view *w, kept_kerncheck *out)
{
    reference(b, w);
    compute(b, w);
    const int rows = w->n_q * G;
    double error = 0, mass_error = 0;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < b->d; c++) {
            int i = r * b->d + c;
            note(&error, fabs((double)b->O[i] / (double)b->L[r] - b->out[i]) / 4);
        }
    for (int s = 0; s < SLOTS; s++) {
        double mass = 0;
        for (int r = 0; r < rows; r++)
            mass += b->weight[(size_t)r * SLOTS + (size_t)s];
        note(&mass_error, fabs((double)b->mass[s] - mass) / fmax(mass, 1e-3));
    }
    note(&out->error, error);
    note(&out->mass_error, mass_error);
    return !(error <= TOLERANCE)             ? "attend or combine"
           : !(mass_error <= MASS_TOLERANCE) ? "mass"
                                             : NULL;
}

static const char *check_outer(bed *b)
{
    const int d = b->d;
    float *mean = b->k, *cov = kept_aligned(64, (size_t)(d * d) * 4); /* K is not needed any more */
    const char *failed = NULL;
    if (!cov)
        return "outer (out of memory)";
    memset(mean, 0, (size_t)d * sizeof *mean);
    b->kern->outer(ROWS, d, b->q, (size_t)d, mean, cov);
    for (int i = 0; i < d; i++) {
        double m = 0;
        for (int r = 0; r < ROWS; r++)
            m += (double)b->q[r * d + i];
        if (!(fabs(m - (double)mean[i]) <= OUTER_TOLERANCE))
            failed = "outer";
        for (int j = 0; j < d; j++) {
            double x = 0;
            for (int r = 0; r < ROWS; r++)
                x += (double)b->q[r * d + i] * (double)b->q[r * d + j];
            if (!(fabs(x - (double)cov[i * d + j]) <= OUTER_TOLERANCE * ROWS))
                failed = "outer";
        }
    }
    free(cov);
    return failed;
}

kept_status kept_kerncheck_verify(const kept_kern *kern, int head_size, uint64_t seed,
                                  kept_kerncheck *out, kept_error *err)
{
    static const view views[] = {
        {1, SLOTS, 0, 0},                                 /* decode, every slot visible */
        {1, SLOTS - 77, 0, 0},                            /* decode, a partly filled last page */
        {QUERIES, SLOTS - QUERIES, 0, 0},                 /* a prefill chunk under a causal edge */
        {QUERIES, SLOTS - QUERIES, 200, SLOTS - QUERIES}, /* the same under a sliding window */
    };
    bed b;
    *out = (kept_kerncheck){0};
    kept_status st = KEPT_OK;
    if (!bed_init(&b, kern, head_size, seed)) {
        st = kept_fail(err, KEPT_NOMEM, "out of memory for checking kernels");
        goto out;
    }
    out->failed = check_storage(&b);
    for (size_t i = 0; i < sizeof views / sizeof views[0] && !out->failed; i++)
        out->failed = check_attention(&b, &views[i], out);
    if (!out->failed)
        out->failed = check_outer(&b);
out:
    bed_clear(&b);
    return st;
}
