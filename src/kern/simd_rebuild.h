/* kern, inside: the keys of a page from its coefficients (lowrank.h), and scores against them,
 * included by the file of a level after its primitives (vec, v_*, W), BLOCK, the channels that are
 * made at once, and SCORE_ROWS, the queries that are scored at once.
 *
 * Half a page, 32 slots, at a time: rows of 32 numbers, one row a channel. Some rows are the
 * coefficients; the others are products of small matrices, BLOCK rows of 2 W slots in registers,
 * with the coefficients and the factors in the first cache. Then pairs of channels are turned, 32
 * positions at once: those of a page whose positions follow each other by the factors of the first
 * position and of 0..63, others by factors of their own. For scores the turned pairs meet the
 * queries in registers, and queries are turned back by the first position in place of keys forth.
 */
#ifndef KERN_SIMD_REBUILD_H
#define KERN_SIMD_REBUILD_H

#define P64     KEPT_PAGE_SLOTS
#define ALIGNED __attribute__((aligned(64)))
#define MOST_D  KEPT_MAX_HEAD_SIZE

/* n rows of sums: the factor of coefficient i for row k is at k * row + i * step. */
struct sums_of {
    const float *factor;
    int n, r, row, step;
};

/* ---- coefficients ---------------------------------------------------------------------------- */

/* c[r][32] of slots [32 h, 32 h + 32); asks for the same of another page at `ahead` bytes, evenly,
 * in the order of reading. */
INLINE void load_coefficients(const uint8_t *half, int inner, int r, int h, ptrdiff_t ahead,
                              float *c)
{
    const kept_f16 *from = (const kept_f16 *)(const void *)half + (size_t)(h * r) * 32;
    const uint16_t *scale = (const uint16_t *)(const void *)(half + P64 * r) + 32 * h;

    for (int i = 0; inner == KEPT_F16 && i < 32 * r; i += 32) {
        __builtin_prefetch((const uint8_t *)(from + i) + ahead, 0, 2);
        UNROLL
        for (int s = 0; s < 32; s += W)
            v_store(c + i + s, v_wide(from + i + s));
    }
    for (int s = 0; inner == KEPT_Q8 && s < 32; s += W) {
        const uint8_t *at = half + (size_t)(2 * h + s / 16) * (size_t)(16 * r) + s % 16 * 4;
        const vec y = v_bf16(scale + s);

        for (int i = 0; i < r; i += 4, at += 64) {
            __builtin_prefetch(at + ahead, 0, 2);
            UNROLL
            for (int j = 0; j < 4; j++)
                v_store(c + (i + j) * 32 + s, v_mul(v_byte(at, j), y));
        }
    }
}

/* ---- sums ------------------------------------------------------------------------------------ */

/* to[k][32] of nr rows from k0. */
INLINE void sum_block(int nr, const struct sums_of *m, int k0, const float *c, float *to)
{
    const size_t row = (size_t)m->row, step = (size_t)m->step;

    to += 32 * k0;
    for (int s = 0; s < 32; s += 2 * W) {
        const float *y = c + s, *f = m->factor + (size_t)k0 * row;
        vec x[BLOCK][2];

        UNROLL
        for (int k = 0; k < nr; k++)
            x[k][0] = x[k][1] = v_zero();
        for (int i = 0; i < m->r; i++, y += 32, f += step) {
            const vec a = v_load(y), b = v_load(y + W);

            UNROLL
            for (int k = 0; k < nr; k++) {
                const vec z = v_all(f + (size_t)k * row);

                x[k][0] = v_fma(z, a, x[k][0]);
                x[k][1] = v_fma(z, b, x[k][1]);
            }
        }
        UNROLL
        for (int k = 0; k < nr; k++) {
            v_store(to + k * 32 + s, x[k][0]);
            v_store(to + k * 32 + s + W, x[k][1]);
        }
    }
}

#define SUM_BLOCK(n)                                                                               \
    case n:                                                                                        \
        sum_block(n, m, k, c, to);                                                                 \
        break;

/* Blocks of BLOCK rows and a rest that is no small one: few sums at once wait for each other.
 */
static void sum_rows(const struct sums_of *m, const float *c, float *to)
{
    for (int k = 0, n; k < m->n; k += n) {
        const int left = m->n - k;

        n = left <= BLOCK ? left : left < BLOCK + 4 ? (left + 1) / 2 : BLOCK;
        switch (n) {
            SUM_BLOCK(1)
            SUM_BLOCK(2)
            SUM_BLOCK(3)
            SUM_BLOCK(4)
            SUM_BLOCK(5)
            SUM_BLOCK(6)
#if BLOCK > 6
            SUM_BLOCK(7)
            SUM_BLOCK(8)
            SUM_BLOCK(9)
            SUM_BLOCK(10)
            SUM_BLOCK(11)
            SUM_BLOCK(12)
#endif
        default:
            break;
        }
    }
}

/* ---- turns ----------------------------------------------------------------------------------- */

/* Factors of 32 slots: pair j of slot s is turned by (re, im)[j * stride + s], and before that, if
 * there are any, by (re_all, im_all)[j]. */
struct factors {
    const float *re, *im, *re_all, *im_all;
    int stride;
};

/* 32 keys k, in places by way of row, turned and in channels. */
INLINE void turn_pairs(const kept_turns *t, bool all, const struct factors *f, const uint16_t *row,
                       const float *k, float *to)
{
    const int half = t->n_rope / 2;

    for (int j = 0; j < half; j++) {
        const float *x = k + row[j] * 32, *y = k + row[j + half] * 32;
        float *p = to + t->order[j] * 32, *q = to + t->order[j + half] * 32;

        UNROLL
        for (int s = 0; s < 32; s += W) {
            vec re = v_load(f->re + j * f->stride + s), im = v_load(f->im + j * f->stride + s);
            const vec a = v_load(x + s), b = v_load(y + s);

            if (all) {
                const vec u = v_all(f->re_all + j), v = v_all(f->im_all + j);
                const vec was = re;

                re = v_fms(re, u, v_mul(im, v));
                im = v_fma(was, v, v_mul(im, u));
            }
            v_store(p + s, v_fms(re, a, v_mul(im, b)));
            v_store(q + s, v_fma(re, b, v_mul(im, a)));
        }
    }
}

/* Factors of one position, [n_rope/2] each. */
static void factors_of(const kept_turns *t, int32_t pos, float *re, float *im)
{
    const int half = t->n_rope / 2;
    const float *re0 = t->re_low + pos % P64 * half, *im0 = t->im_low + pos % P64 * half;
    const float *re1 = t->re_high + pos / P64 * half, *im1 = t->im_high + pos / P64 * half;
    int j = 0;

    for (; j + 8 <= half; j += 8) {
        __m256 a = _mm256_loadu_ps(re0 + j), b = _mm256_loadu_ps(im0 + j);
        __m256 c = _mm256_loadu_ps(re1 + j), d = _mm256_loadu_ps(im1 + j);

        _mm256_storeu_ps(re + j, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, d)));
        _mm256_storeu_ps(im + j, _mm256_fmadd_ps(a, d, _mm256_mul_ps(b, c)));
    }
    for (; j < half; j++) {
        re[j] = re0[j] * re1[j] - im0[j] * im1[j];
        im[j] = re0[j] * im1[j] + im0[j] * re1[j];
    }
}

/* Eight numbers of eight slots, x row by row, to vectors of slots: number i at to + 32 i. */
INLINE void turn_over(const float *x, int row, float *to)
{
    __m256 r[8];

    UNROLL
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(x + i * row);
    turn_square(r, to, 32);
}

/* Factors of 32 positions in no order. */
static void scattered(const kept_turns *t, const int32_t *pos, float *re, float *im)
{
    ALIGNED float row[2][8][MOST_D / 2];
    const int half = t->n_rope / 2;

    for (int s = 0; s < 32; s += 8) {
        int j = 0;

        for (int i = 0; i < 8; i++)
            factors_of(t, pos[s + i], row[0][i], row[1][i]);
        for (; j + 8 <= half; j += 8) {
            turn_over(row[0][0] + j, MOST_D / 2, re + j * 32 + s);
            turn_over(row[1][0] + j, MOST_D / 2, im + j * 32 + s);
        }
        for (; j < half; j++)
            for (int i = 0; i < 8; i++) {
                re[j * 32 + s + i] = row[0][i][j];
                im[j * 32 + s + i] = row[1][i][j];
            }
    }
}

static bool follow(const int32_t *pos)
{
    int32_t off = 0;

    for (int s = 0; s < P64; s++)
        off |= pos[s] ^ (pos[0] + s);
    return !off;
}

static void turn_half(const kept_packed *p, int h, const uint16_t *row, const float *k, float *to)
{
    ALIGNED float re[MOST_D / 2 * 32], im[MOST_D / 2 * 32];
    const kept_turns *t = p->low->turns;

    for (int i = t->n_rope; i < p->head_size; i++)
        memcpy(to + t->order[i] * 32, k + row[i] * 32, 32 * sizeof *to);
    if (follow(p->pos)) {
        factors_of(t, p->pos[0], re, im);
        turn_pairs(t, true,
                   &(struct factors){t->re_slot + 32 * h, t->im_slot + 32 * h, re, im, P64}, row, k,
                   to);
        return;
    }
    scattered(t, p->pos + 32 * h, re, im);
    turn_pairs(t, false, &(struct factors){re, im, NULL, NULL, 32}, row, k, to);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Keys of a FLAT page: all channels are sums. */
static void flat_keys(const kept_packed *p, float *to)
{
    ALIGNED float c[MOST_D * 32];
    const int D = p->head_size, r = kept_codec_channels(p->c.k, D);
    const struct sums_of m = {kept_low_directions(p->low, p->c.k, false), D, r, 1, D};

    for (int h = 0; h < 2; h++, to += 32 * D) {
        load_coefficients(p->at, kept_codec_get(p->c.k)->inner, r, h, 0, c);
        sum_rows(&m, c, to);
    }
}

/* Rows of places in what still_keys makes. */
static void rows_of_places(const kept_stands *x, uint16_t *row)
{
    for (int k = 0; k < x->n_own; k++)
        row[x->own[k]] = x->from[k];
    for (int k = 0; k < x->n_rest; k++)
        row[x->rest[k]] = (uint16_t)(x->r + k);
}

/* 32 keys at position 0, rows k[..][32]: the coefficients, then the sums. */
static void still_keys(const kept_packed *p, const kept_stands *x, int h, ptrdiff_t ahead, float *k)
{
    const struct sums_of m = {x->mix, x->n_rest, x->r, x->r, 1};

    load_coefficients(p->at, kept_codec_get(p->c.k)->inner, x->r, h, ahead, k);
    sum_rows(&m, k, k + 32 * x->r);
}

/* K of a page whose codec has a basis, as floats in the element order of an F16 half. */
static void make_keys(const kept_packed *p, float *to)
{
    if (!kept_low_is_turned(p->c.k, false)) {
        flat_keys(p, to);
        return;
    }
    ALIGNED float k[2 * MOST_D * 32];
    uint16_t row[MOST_D];
    const kept_stands *x = kept_low_stands(p->low, p->c.k);

    rows_of_places(x, row);
    for (int h = 0; h < 2; h++, to += 32 * p->head_size) {
        still_keys(p, x, h, 0, k);
        turn_half(p, h, row, k, to);
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* A query in places; turned back by the position of these factors, if there are any. */
static void place_query(const kept_turns *t, const float *re, const float *im, int D,
                        const float *q, float *to)
{
    const int half = t->n_rope / 2;

    for (int i = 0; i < D; i++)
        to[i] = q[t->order[i]];
    for (int j = 0; re && j < half; j++) {
        const float a = to[j], b = to[j + half];

        to[j] = re[j] * a + im[j] * b;
        to[j + half] = re[j] * b - im[j] * a;
    }
}

/* s[r][32] of nr queries q[r][MOST_D] in places and keys k, in places by way of row. */
INLINE void score_rows(int nr, const kept_packed *page, const struct factors *f, const float *k,
                       const uint16_t *row, const float *q, float *s)
{
    const int half = page->low->turns->n_rope / 2, D = page->head_size;

    for (int at = 0; at < 32; at += 2 * W) {
        vec x[SCORE_ROWS][2];

        UNROLL
        for (int r = 0; r < nr; r++)
            x[r][0] = x[r][1] = v_zero();
        for (int j = 0; j < half; j++) {
            const float *p = k + row[j] * 32 + at, *o = k + row[j + half] * 32 + at;
            vec a[2], b[2];

            UNROLL
            for (int c = 0; c < 2; c++) {
                const vec re = v_load(f->re + j * f->stride + at + c * W);
                const vec im = v_load(f->im + j * f->stride + at + c * W);
                const vec y = v_load(p + c * W), z = v_load(o + c * W);

                a[c] = v_fms(re, y, v_mul(im, z));
                b[c] = v_fma(re, z, v_mul(im, y));
            }
            UNROLL
            for (int r = 0; r < nr; r++) {
                const vec y = v_all(q + r * MOST_D + j), z = v_all(q + r * MOST_D + j + half);

                UNROLL
                for (int c = 0; c < 2; c++)
                    x[r][c] = v_fma(z, b[c], v_fma(y, a[c], x[r][c]));
            }
        }
        for (int i = 2 * half; i < D; i++) {
            UNROLL
            for (int r = 0; r < nr; r++) {
                UNROLL
                for (int c = 0; c < 2; c++)
                    x[r][c] = v_fma(v_all(q + r * MOST_D + i), v_load(k + row[i] * 32 + at + c * W),
                                    x[r][c]);
            }
        }
        UNROLL
        for (int r = 0; r < nr; r++) {
            v_store(s + r * P64 + at, x[r][0]);
            v_store(s + r * P64 + at + W, x[r][1]);
        }
    }
}

#define SCORE_BLOCK(n)                                                                             \
    case n:                                                                                        \
        score_rows(n, p, &f, k, row, placed + r * MOST_D, s + r * P64 + 32 * h);                   \
        break;

/* s[n][64] of n queries q, `stride` apart, against a page of turned keys. */
static void turned_scores(const kept_packed *p, ptrdiff_t ahead, int n, const float *q, int stride,
                          float *s)
{
    ALIGNED float k[2 * MOST_D * 32], placed[16 * MOST_D];
    ALIGNED float re[MOST_D / 2 * 32], im[MOST_D / 2 * 32];
    uint16_t row[MOST_D];
    const kept_turns *t = p->low->turns;
    const kept_stands *x = kept_low_stands(p->low, p->c.k);
    const int D = p->head_size;
    const bool near = follow(p->pos);

    rows_of_places(x, row);
    if (near)
        factors_of(t, p->pos[0], re, im);
    for (int r = 0; r < n; r++)
        place_query(t, near ? re : NULL, im, D, q + r * stride, placed + r * MOST_D);
    for (int h = 0; h < 2; h++) {
        struct factors f = {t->re_slot + 32 * h, t->im_slot + 32 * h, NULL, NULL, P64};

        still_keys(p, x, h, ahead, k);
        if (!near) {
            scattered(t, p->pos + 32 * h, re, im);
            f = (struct factors){re, im, NULL, NULL, 32};
        }
        for (int r = 0; r < n; r += SCORE_ROWS)
            switch (n - r < SCORE_ROWS ? n - r : SCORE_ROWS) {
                SCORE_BLOCK(1)
                SCORE_BLOCK(2)
                SCORE_BLOCK(3)
                SCORE_BLOCK(4)
#if SCORE_ROWS > 4
                SCORE_BLOCK(5)
                SCORE_BLOCK(6)
                SCORE_BLOCK(7)
                SCORE_BLOCK(8)
#endif
            default:
                break;
            }
    }
}

#endif
