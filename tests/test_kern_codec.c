/* Packed pages, every codec, head size and level this CPU runs. The oracle reads codes and scales
 * by the layout stated in codec.h, turns rows back with a Hadamard matrix written out, and attends
 * in double.
 *
 * Tolerances of attention over stored values, per row. Floats (the ref level, tiles of several
 * queries, F16 and bf16 pages) as in test_kern. Integers: a query of 8 bits moves a score by step *
 * |k| / sqrt(12) if roundings are random; four times that is allowed. Weights of 8 bits are off by
 * 1/255/sqrt(12) of the page's largest: 64 of them by .009 of it times a value's length. */
#include "codec_oracle.h"

#define LOG2E 1.4426950408889634

static const int sizes[] = {64, 128, 256, 80, 16, 96};
#define N_SIZES (int)(sizeof sizes / sizeof *sizes)

static uint64_t seed = 7;
static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}
static float gauss(void)
{
    double u = uniform() + 1e-12, v = uniform();

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* ---- packing -----------------------------------------------------------------------------------
 */

enum kind { GAUSS, CONSTANT, ZERO, HUGE_, OUTLIER, TINY_, MIXED, N_KINDS };

static float number(enum kind kind, int s, int d)
{
    switch (kind) {
    case CONSTANT:
        return 0.37f * (float)(s % 5 - 2);
    case ZERO:
        return 0;
    case HUGE_:
        return uniform() < 0.5 ? 65504.0f : -65504.0f;
    case OUTLIER:
        return d == 5 ? 3000.0f : gauss();
    case TINY_:
        return gauss() * 3e-7f;
    case MIXED: /* rows of very different size */
        return gauss() * (float)ldexp(1, s % 30 - 15);
    default:
        return gauss();
    }
}

static uint8_t *new_page(size_t bytes)
{
    uint8_t *p = aligned_alloc(64, (bytes + 127) / 64 * 64);

    memset(p, 0x5a, (bytes + 127) / 64 * 64);
    return p;
}

static void fill_f16(uint8_t *page, int D, enum kind kind)
{
    float k[256], v[256];

    for (int s = 0; s < 64; s++) {
        for (int d = 0; d < D; d++)
            k[d] = number(kind, s, d), v[d] = number(kind, s, d);
        kept_kern_get("ref")->put(page, D, s, k, v);
    }
}

/* Every number is within half a step of what was packed, in the basis it is stored in; Lloyd-Max
 * rows within what their levels lose on a Gaussian (.0095, .0345, .118 of the square; rows of 16 to
 * 256 numbers scatter, and those with outliers are Gaussian only after turning). */
static void check_half(const uint8_t *page, const uint8_t *f16, kept_codecs c, bool v,
                       const int at[2])
{
    int D = at[0], codec = v ? c.v : c.k;
    const uint8_t *half = page + (v ? kept_codec_half_bytes(c.k, false, D) : 0);
    double *was = malloc(64 * 256 * sizeof *was), *is = malloc(64 * 256 * sizeof *is);
    double error = 0, square = 0, worst = 0, step;

    read_half(f16, (kept_codecs){0, 0}, v, D, was);
    read_half(page, c, v, D, is);
    for (int s = 0; s < 64; s++) {
        double most = 0;

        for (int d = 0; d < D; d++) {
            double e = is[s * D + d] - was[s * D + d];

            error += e * e;
            square += was[s * D + d] * was[s * D + d];
            stored(half, codec, v, (const int[3]){D, s, d}, &step);
            most = fmax(most, fabs(was[s * D + d]));
            if (codec >= KEPT_THIN75 && is[s * D + d] != 0)
                CHECK(e == 0);
            else if (!kept_codec_get(codec)->rotated && codec > KEPT_BF16 && codec < KEPT_THIN75)
                worst = fmax(worst, fabs(e) - 0.5001 * step - 1e-6 * most);
            if (codec == KEPT_BF16)
                worst = fmax(worst, fabs(e) - 0.00391 * fabs(was[s * D + d]));
        }
    }
    if (codec == KEPT_F16)
        CHECK(error == 0);
    CHECK(worst <= 0);
    const double lose = codec == KEPT_ROT4   ? 0.0095
                        : codec == KEPT_ROT3 ? 0.0345
                        : codec == KEPT_ROT2 ? 0.118
                        : codec == KEPT_Q4   ? 0.02
                                             : 1;
    /* The constant and the huge rows turn into few numbers, which are no Gaussian. */
    if (at[1] == GAUSS || at[1] == MIXED || at[1] == TINY_)
        CHECK(error <= (at[1] == MIXED ? 1.4 : 1.15) * lose * square + 64 * D * 1e-15);
    if (kept_codec_get(codec)->rotated)
        CHECK(error <= square);
    free(was), free(is);
}

/* The channels that a thin page leaves out: none of them is larger than one that it holds, and as
 * many as it should hold are there, ascending. */
static void check_channels(const uint8_t *page, const uint8_t *f16, int codec, int D)
{
    const int n = D * (KEPT_THIN25 - codec + 1) / 4;
    const uint8_t *list = page + 128 * n;
    double *x = malloc(64 * 256 * sizeof *x), sum[256] = {0}, least = INFINITY, most = -INFINITY;
    bool in[256] = {false};

    read_half(f16, (kept_codecs){0, 0}, false, D, x);
    for (int i = 0; i < 64 * D; i++)
        sum[i % D] += x[i] * x[i];
    for (int i = 0; i < n; i++) {
        CHECK(list[i] < D && (!i || list[i] > list[i - 1]));
        in[list[i]] = true;
    }
    for (int d = 0; d < D; d++) {
        least = in[d] ? fmin(least, sum[d]) : least;
        most = in[d] ? most : fmax(most, sum[d]);
    }
    CHECK(least >= most);
    free(x);
}

/* kept_codec_read and unpack agree with the oracle's reading. */
static void check_read(kept_packed p)
{
    int D = p.head_size;
    float *k = malloc(64 * 256 * 4), *v = malloc(64 * 256 * 4);
    double *x = malloc(64 * 256 * sizeof *x), *y = malloc(64 * 256 * sizeof *y);
    uint8_t *f16 = new_page(kept_page_bytes(D));

    kept_codec_read(p, 3, 61, k, v);
    kept_codec_unpack(f16, p);
    for (int half = 0; half < 2; half++) {
        const float *got = half ? v : k;
        double off = 0, rounded = 0, most = 0;

        read_half(p.at, p.c, half, D, x);
        read_half(f16, (kept_codecs){0, 0}, half, D, y);
        for (int s = 0; s < 64; s++) {
            double norm = 0;

            for (int d = 0; d < D; d++)
                norm = fmax(norm, fabs(x[s * D + d]));
            for (int d = 0; d < D; d++) {
                if (s >= 3)
                    off = fmax(off, fabs(got[(s - 3) * D + d] - x[s * D + d]) - 4e-6 * norm);
                if (fabs(x[s * D + d]) < 65000)
                    rounded = fmax(rounded, fabs(y[s * D + d] - x[s * D + d]) - 5e-4 * norm - 3e-8);
            }
            most = fmax(most, norm);
        }
        CHECK(off <= 0);
        CHECK(rounded <= 0);
    }
    free(k), free(v), free(x), free(y), free(f16);
}

static void packing(void)
{
    for (int i = 0; i < N_SIZES; i++)
        for (int codec = 0; codec < KEPT_N_PLAIN; codec++)
            for (int kind = 0; kind < N_KINDS; kind++) {
                int D = sizes[i];
                kept_codecs c = {(uint8_t)codec, (uint8_t)(codec < KEPT_CHAN4    ? codec
                                                           : codec < KEPT_THIN75 ? KEPT_TOK2
                                                                                 : KEPT_F16)};
                size_t bytes;
                const char *why;

                if (!kept_codec_fits(c, D, &why)) {
                    CHECK(why &&
                          ((D % 32 && kept_codec_get(c.v)->grouped) ||
                           (codec >= KEPT_THIN75 && D * (KEPT_THIN25 - codec + 1) / 4 % 16)));
                    continue;
                }
                bytes = kept_codec_page_bytes(c, D);
                CHECK(bytes % 64 == 0);
                uint8_t *f16 = new_page(kept_page_bytes(D)), *page = new_page(bytes);
                kept_packed p = {.at = page, .c = c, .head_size = D};
                int before = test_failed;

                test_failed = 0;

                fill_f16(f16, D, (enum kind)kind);
                kept_codec_pack(p, f16);
                CHECK(page[bytes] == 0x5a); /* not past the end */
                check_half(page, f16, c, false, (const int[2]){D, kind});
                check_half(page, f16, c, true, (const int[2]){D, kind});
                if (codec >= KEPT_THIN75)
                    check_channels(page, f16, codec, D);
                check_read(p);
                if (test_failed)
                    fprintf(stderr, "  %s, head size %d, kind %d\n", kept_codec_get(codec)->name, D,
                            kind);
                test_failed |= before;
                free(f16), free(page);
            }
}

/* Bits per number, scales included, at head size 128: 16-bit scales per 128, 32 or (twice) 32. */
static void sizes_of_pages(void)
{
    static const double want[KEPT_N_PLAIN] = {16, 16, 8.125, 4.125, 4.5, 4.125, 3.125, 2.125, 5, 3,
                                              5, 3,
                                              /* and a byte a channel of each page, in lines */
                                              12.125, 8.0625, 4.0625};

    for (int codec = 0; codec < KEPT_N_PLAIN; codec++)
        CHECK_NEAR((double)kept_codec_half_bytes(codec, false, 128) * 8 / (64 * 128), want[codec],
                   1e-9);
    CHECK_INT(kept_codec_page_bytes((kept_codecs){0, 0}, 128), kept_page_bytes(128));
    CHECK(!kept_codec_fits((kept_codecs){KEPT_Q8, KEPT_CHAN4}, 128, NULL));
}

/* Rows written and moved one by one: others keep their bits, moved ones keep theirs. */
static void rows(void)
{
    for (int i = 0; i < N_SIZES; i++)
        for (int codec = 0; codec < KEPT_N_PLAIN; codec++) {
            int D = sizes[i];
            const bool thin = codec >= KEPT_THIN75;
            kept_codecs c = {(uint8_t)codec, (uint8_t)(thin ? KEPT_Q8 : codec)};

            if (kept_codec_get(codec)->channel)
                continue;
            float k[256], v[256], *all = malloc(64 * 256 * 4), *moved = malloc(64 * 256 * 4);
            uint8_t *f16 = new_page(kept_page_bytes(D)), *a, *b;

            if (!kept_codec_fits(c, D, NULL)) {
                free(all), free(moved), free(f16);
                continue;
            }
            a = new_page(kept_codec_page_bytes(c, D));
            b = new_page(kept_codec_page_bytes(c, D));
            CHECK(kept_codec_has_rows(c));
            fill_f16(f16, D, GAUSS);
            kept_codec_pack((kept_packed){.at = a, .c = c, .head_size = D}, f16);
            /* writing every row is packing the page */
            memset(b, 0, kept_codec_page_bytes(c, D));
            if (thin) /* which channels a page holds was decided when it was packed */
                memcpy(b + 128 * kept_codec_channels(codec, D), kept_codec_channels_of(a, codec, D),
                       (size_t)kept_codec_channels(codec, D));
            for (int s = 63; s >= 0; s--) {
                kept_kern_get("ref")->get(f16, D, s, 1, k, v);
                kept_codec_put((kept_packed){.at = b, .c = c, .head_size = D}, s, k, v);
            }
            CHECK(!memcmp(a, b, kept_codec_page_bytes(c, D)));
            /* reversing by moves is reversing */
            for (int s = 0; s < 64; s++)
                kept_codec_move((kept_packed){.at = b, .c = c, .head_size = D}, s,
                                (kept_packed){.at = a, .c = c, .head_size = D}, 63 - s);
            for (int half = 0; half < 2; half++) {
                kept_codec_read((kept_packed){.at = a, .c = c, .head_size = D}, 0, 64,
                                half ? NULL : all, half ? all : NULL);
                kept_codec_read((kept_packed){.at = b, .c = c, .head_size = D}, 0, 64,
                                half ? NULL : moved, half ? moved : NULL);
                for (int s = 0; s < 64; s++)
                    CHECK(!memcmp(all + s * D, moved + (63 - s) * D, (size_t)D * 4));
            }
            free(all), free(moved), free(f16), free(a), free(b);
        }
}

/* ---- attention ---------------------------------------------------------------------------------
 */

struct problem {
    int D, G, nq, n_pages, left; /* left: F16 slots of the last page, which is not packed */
    kept_codecs *codec;
    uint8_t *pool;
    int32_t *pages; /* in units of 64 bytes */
    float *q;
    double *k, *v; /* [n_pages*64][D] stored values */
    float *bias;   /* [n_pages*64] base 2, or NULL */
};

static struct problem make(int D, int G, int nq, const kept_codecs *codecs, int n)
{
    struct problem x = {.D = D, .G = G, .nq = nq, .n_pages = n, .left = 64};
    size_t at = 0, N = (size_t)(n * 64 * D);

    x.pool = new_page((size_t)n * kept_page_bytes(D));
    x.pages = malloc((size_t)n * sizeof *x.pages);
    x.codec = malloc((size_t)n * sizeof *x.codec);
    x.q = malloc((size_t)(nq * G * D) * sizeof *x.q);
    x.k = malloc(N * sizeof *x.k), x.v = malloc(N * sizeof *x.v);
    for (int i = 0; i < nq * G * D; i++)
        x.q[i] = gauss() * 1.5f;
    for (int i = 0; i < n; i++) {
        uint8_t *f16 = new_page(kept_page_bytes(D)), *page = x.pool + at;

        x.codec[i] = codecs[i];
        x.pages[i] = (int32_t)(at / 64);
        fill_f16(f16, D, GAUSS);
        if (i == n / 2) { /* a slot that some rows see much of */
            float k[256], v[256];

            for (int d = 0; d < D; d++)
                k[d] = x.q[d] * 0.5f, v[d] = gauss();
            kept_kern_get("ref")->put(f16, D, 17, k, v);
        }
        kept_codec_pack((kept_packed){.at = page, .c = codecs[i], .head_size = D}, f16);
        read_half(page, codecs[i], false, D, x.k + (size_t)(i * 64 * D));
        read_half(page, codecs[i], true, D, x.v + (size_t)(i * 64 * D));
        at += kept_codec_page_bytes(codecs[i], D);
        free(f16);
    }
    static int made;
    x.bias = made++ % 2 ? malloc((size_t)n * 64 * sizeof *x.bias) : NULL;
    for (int s = 0; x.bias && s < n * 64; s++)
        x.bias[s] = s % 3 ? (float)(s % 64) / 16 - 1 : 0;
    return x;
}

static void drop(struct problem *x)
{
    free(x->pool), free(x->pages), free(x->codec), free(x->q), free(x->k), free(x->v);
    free(x->bias);
}

/* Row `row` in double: out[D], mass[slot]; returns how far a rounded query may move a score. */
static double oracle(const struct problem *x, int row, double *out, double *mass)
{
    int n = x->n_pages * 64 - (64 - x->left) - (x->nq - 1) + row / x->G, D = x->D;
    const float *q = x->q + (size_t)row * (size_t)D;
    double top = -INFINITY, sum = 0, long_k = 0, most_q = 0, norm = 0;

    for (int d = 0; d < D; d++)
        norm += (double)q[d] * q[d];
    most_q = 4 * sqrt(norm / D); /* turned queries are near Gaussian */
    for (int d = 0; d < D; d++)
        most_q = fmax(most_q, fabs((double)q[d]));
    for (int s = 0; s < n; s++) {
        double a = 0, kk = 0;

        for (int d = 0; d < D; d++) {
            a += q[d] * x->k[s * D + d];
            kk += x->k[s * D + d] * x->k[s * D + d];
        }
        mass[s] = a / sqrt(D) + (x->bias ? x->bias[s] / LOG2E : 0);
        top = fmax(top, mass[s]);
        long_k = fmax(long_k, sqrt(kk));
    }
    for (int s = 0; s < n; s++)
        sum += mass[s] = exp(mass[s] - top);
    memset(out, 0, (size_t)D * sizeof *out);
    for (int s = 0; s < n; s++) {
        mass[s] /= sum;
        for (int d = 0; d < D; d++)
            out[d] += mass[s] * x->v[s * D + d];
    }
    return 4 * most_q / 127 / sqrt(12) * long_k / sqrt(D);
}

/* How much of the two tolerances applies: 0 floats, 1 8 bits, else the steps of 16 bits to those
 * of 8. */
static double coarse(const struct problem *x, bool v)
{
    double most = 0;

    for (int i = 0; i < x->n_pages; i++) {
        int bits = kept_codec_get(v ? x->codec[i].v : x->codec[i].k)->bits;

        most = fmax(most, bits == 16 ? 0 : bits == 8 ? 1.0 / (v ? 128 : 256) : 1);
    }
    return most;
}

static void check_row(const kept_attn_tile *a, const struct problem *x, size_t r, bool integers)
{
    size_t D = (size_t)x->D, n = (size_t)x->nq * (size_t)x->G;
    double out[256], *mass = calloc((size_t)x->n_pages * 64, sizeof *mass), off = 0, e = 0,
                     norm = 0;
    double moved = oracle(x, (int)r, out, mass) * (integers ? coarse(x, false) : 0), square = 0;
    double weights = integers ? 0.012 * coarse(x, true) : 0;

    for (int s = 0; s < x->n_pages * 64; s++) {
        size_t at = (size_t)(s / 64) * n + r;
        double w = f16_value(a->p[at * 64 + (size_t)(s % 64)]) *
                   exp2((double)a->p_max[at] - (double)a->m[r]) / (double)a->l[r];

        off += fabs(w - mass[s]);
        square += mass[s] * mass[s];
    }
    for (size_t d = 0; d < D; d++) {
        double o = a->acc[r * D + d] / (double)a->l[r];

        e += (o - out[d]) * (o - out[d]);
        norm += out[d] * out[d];
    }
    CHECK(off <= 1e-3 + moved);
    CHECK(sqrt(e) <= 1e-5 * sqrt(norm) + (moved + weights) * sqrt((double)D * square));
    free(mass);
}

/* Leaves NaN where the next call's variables will be: what a kernel forgets to set is seen. */
static __attribute__((noinline)) void spoil_stack(void)
{
    volatile float junk[1 << 16];
    for (int i = 0; i < 1 << 16; i++)
        junk[i] = NAN;
    (void)junk[17];
}

static void check_level(const kept_kern *k, const struct problem *x)
{
    size_t D = (size_t)x->D, n = (size_t)x->nq * (size_t)x->G, np = (size_t)x->n_pages;
    float *m = malloc(n * 4), *l = malloc(n * 4), *acc = malloc(n * D * 4),
          *top = malloc(np * n * 4);
    kept_f16 *p = malloc(np * n * 64 * 2);
    const float *bias[KEPT_SEG_PAGES];
    kept_attn_tile a = {.head_size = x->D, .group = x->G, .n_q = x->nq, .q = x->q, .pool = x->pool};

    a.q_stride_t = (size_t)x->G * D, a.q_stride_g = D, a.scale = (float)(LOG2E / sqrt(x->D));
    a.page_bytes = 64, a.pages = x->pages, a.n_pages = x->n_pages, a.codec = x->codec;
    a.visible = x->n_pages * 64 - (64 - x->left) - (x->nq - 1);
    a.m = m, a.l = l, a.acc = acc, a.p = p, a.p_max = top;
    for (size_t i = 0; i < np; i++)
        bias[i] = x->bias ? x->bias + 64 * i : NULL;
    a.bias = x->bias ? bias : NULL;
    spoil_stack();
    k->attend(&a);
    for (size_t r = 0; r < n; r++)
        check_row(&a, x, r, x->nq == 1 && strcmp(k->name, "ref"));
    free(m), free(l), free(acc), free(p), free(top);
}

/* Every level over one run of pages; with a last page of 13 slots too where that is F16. */
static void check_codecs(int D, const int shape[2], const kept_codecs *c, int n)
{
    const char *names[8];
    int levels = kept_kern_levels(names, 8);
    struct problem x = make(D, shape[0], shape[1], c, n);

    for (int left = 64; left > 0; left = kept_codec_is_f16(c[n - 1]) && left == 64 ? 13 : 0) {
        x.left = left;
        for (int i = 0; i < levels; i++) {
            int before = test_failed;

            test_failed = 0;
            check_level(kept_kern_get(names[i]), &x);
            if (test_failed)
                fprintf(stderr,
                        "  %s, k %s, v %s, head size %d, group %d, %d queries, %d pages, %d\n",
                        names[i], kept_codec_get(c[0].k)->name, kept_codec_get(c[0].v)->name, D,
                        shape[0], shape[1], n, left);
            test_failed |= before;
        }
    }
    drop(&x);
}

static void attention(void)
{
    static const int groups[] = {1, 4, 7, 2, 3, 16, 5};

    for (int i = 0, turn = 0; i < N_SIZES; i++)
        for (int k = 0; k < KEPT_N_PLAIN; k++) {
            const int v = k >= KEPT_THIN75 ? KEPT_F16 : k >= KEPT_CHAN4 ? k - 2 : k;
            const kept_codecs c = {(uint8_t)k, (uint8_t)v}, f = {0, 0};
            const kept_codecs odd = {(uint8_t)k, (uint8_t)(v == KEPT_Q8 ? KEPT_ROT3 : KEPT_Q8)};

            if (!kept_codec_fits(c, sizes[i], NULL))
                continue;
            const int one[2] = {groups[turn % 7], 1}, other[2] = {groups[(turn + 1) % 7], 1};
            turn++;
            check_codecs(sizes[i], one, (const kept_codecs[]){c, c, c}, 3);
            check_codecs(sizes[i], other, (const kept_codecs[]){c, odd, f}, 3);
            check_codecs(sizes[i], (const int[2]){2, 5}, (const kept_codecs[]){c, f}, 2);
        }
}

/* Who packs may say which channels stay. */
static void given_channels(void)
{
    enum { D = 64, N = 32 };
    uint8_t list[N], *f16 = new_page(kept_page_bytes(D));
    const kept_codecs c = {KEPT_THIN50, KEPT_F16};
    uint8_t *page = new_page(kept_codec_page_bytes(c, D));
    double *was = malloc(64 * D * sizeof *was), *is = malloc(64 * D * sizeof *is);

    for (int i = 0; i < N; i++)
        list[i] = (uint8_t)(2 * i + (i > 9));
    fill_f16(f16, D, GAUSS);
    kept_codec_pack((kept_packed){.at = page, .c = c, .head_size = D, .channels = list}, f16);
    CHECK(!memcmp(kept_codec_channels_of(page, c.k, D), list, N));
    read_half(f16, (kept_codecs){0, 0}, false, D, was);
    read_half(page, c, false, D, is);
    for (int i = 0; i < 64 * D; i++)
        CHECK(is[i] == (memchr(list, i % D, N) ? was[i] : 0));
    free(f16), free(page), free(was), free(is);
}

int main(void)
{
    kept_kern_enter();
    RUN(sizes_of_pages);
    RUN(packing);
    RUN(given_channels);
    RUN(rows);
    RUN(attention);
    TEST_END();
}
