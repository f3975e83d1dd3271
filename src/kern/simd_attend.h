/* kern, inside: attend over any vector width, included by the file of a level after its primitives
 * (vec, v_*), block shapes (W, ROWS, QUAD_ROWS, MANY_ROWS), and what the level has for
 * lowrank.h (LOW_*).
 *
 * Few rows (decode): pages are widened in registers as they stream by, with the next page
 * prefetched line for line at the same place. Many rows (prefill): a page half is widened once into
 * a buffer of the same layout, then blocks of rows go over it. Both run the same chains:
 *
 *     score(row, slot): fma over channels, ascending, of (q * scale) * k
 *     acc(row, channel): fma over slots, ascending within a page, pages in order
 *     l(row): one sum per lane, lanes added at the end
 *
 * so the bits of a row depend on the row alone. Adding slots of weight 0 changes no sum, hence a
 * block may run up to the last slot that any of its rows sees, but never past it: dead slots may
 * hold anything. */
#ifndef KERN_SIMD_ATTEND_H
#define KERN_SIMD_ATTEND_H

#include "kern/lowrank.h"
#include "kern/nuq.h"
#include "kern/slerp.h"

#include <string.h>

#define FEW      (2 * ROWS) /* up to here pages are widened on the fly */
#define P64      KEPT_PAGE_SLOTS
#define Q_STRIDE (KEPT_MAX_HEAD_SIZE + 16) /* odd in cache lines: rows spread over all sets */
#define ALIGNED  __attribute__((aligned(64)))

/* Rows of one tile on their way through its pages. */
struct rows {
    float *q;   /* [n][Q_STRIDE] scaled queries */
    float *s;   /* [n][64] scores, then weights, of the current page */
    float *sum; /* [n][W] partial sums of l */
    int n;
};

/* One half of a page as the blocks read it: F16 in place or widened, same element order. */
struct half {
    const void *at;
    const kept_f16 *next; /* the same half of the page to prefetch (this one if there is none) */
};

INLINE vec fetch(const struct half *h, size_t i, bool wide)
{
    return wide ? v_load((const float *)h->at + i) : v_wide((const kept_f16 *)h->at + i);
}

/* Asks for elements [i, i+n) of the next page's half, line by line. Blocks that read n elements per
 * step ask for n per step, in order: the stream of requests is even, whatever the block's shape. */
INLINE void ask(const struct half *h, size_t i, int n)
{
    if (n >= 32 || i % 32 == 0)
        __builtin_prefetch(h->next + i, 0, 2);
    if (n > 32)
        __builtin_prefetch(h->next + i + 32, 0, 2);
}

/* s[r][0..64) = q[r] . K for nr rows; slots nv vectors at a time. */
INLINE void qk_block(int nr, int nv, bool wide, const struct half *k, int D, const float *q,
                     float *s)
{
    for (int b = 0; b < P64; b += nv * W) {
        size_t at = (size_t)(b / 32) * 32 * (size_t)D + (size_t)(b % 32);
        vec x[ROWS][4];

        UNROLL
        for (int r = 0; r < nr; r++) {
            UNROLL
            for (int c = 0; c < nv; c++)
                x[r][c] = v_set(0);
        }
        UNROLL_4
        for (int d = 0; d < D; d++, at += 32) {
            vec f[4];

            UNROLL
            for (int c = 0; c < nv; c++) {
                size_t i = at + (size_t)(c * W / 32) * 32 * (size_t)D + (size_t)(c * W % 32);

                f[c] = fetch(k, i, wide);
            }
            ask(k, (size_t)(b * D + d * nv * W), nv * W);
            UNROLL
            for (int r = 0; r < nr; r++) {
                vec y = v_set(q[r * Q_STRIDE + d]);

                UNROLL
                for (int c = 0; c < nv; c++)
                    x[r][c] = v_fma(y, f[c], x[r][c]);
            }
        }
        UNROLL
        for (int r = 0; r < nr; r++) {
            UNROLL
            for (int c = 0; c < nv; c++)
                v_store(s + r * P64 + b + c * W, x[r][c]);
        }
    }
}

INLINE void qk_rows(int nr, bool wide, const struct half *k, int D, const float *q, float *s)
{
    if (wide && nr <= QUAD_ROWS) /* one stream of lines from memory is 3 % faster than two */
        qk_block(nr, 4, wide, k, D, q, s);
    else
        qk_block(nr, 2, wide, k, D, q, s);
}

/* acc[r][0 .. nv*W) += p[r] . V over n slots, for nr rows; V element i is channel 0 of slot 0. */
INLINE void pv_block(int nr, int nv, bool wide, const struct half *v, size_t i, int w, int n,
                     const float *p, float *acc, int D)
{
    size_t lines = (i / P64 + i % P64) * P64; /* of these channels, counted in reading order */
    vec x[ROWS][4];

    UNROLL
    for (int r = 0; r < nr; r++) {
        UNROLL
        for (int c = 0; c < nv; c++)
            x[r][c] = v_load(acc + (size_t)r * (size_t)D + c * W);
    }
    UNROLL_2
    for (int j = 0; j < n; j++, i += (size_t)w) {
        vec f[4];

        UNROLL
        for (int c = 0; c < nv; c++)
            f[c] = fetch(v, i + (size_t)(c * W), wide);
        ask(v, lines + (size_t)(j * nv * W), nv * W);
        UNROLL
        for (int r = 0; r < nr; r++) {
            vec y = v_set(p[r * P64 + j]);

            UNROLL
            for (int c = 0; c < nv; c++)
                x[r][c] = v_fma(y, f[c], x[r][c]);
        }
    }
    UNROLL
    for (int r = 0; r < nr; r++) {
        UNROLL
        for (int c = 0; c < nv; c++)
            v_store(acc + (size_t)r * (size_t)D + c * W, x[r][c]);
    }
}

/* The V block at channel c0: w channels, cut into what the registers hold. */
INLINE void pv_rows(int nr, bool wide, const struct half *v, int c0, int n, const float *p,
                    float *acc, int D)
{
    int w = kept_v_width(D, c0), c = 0;
    size_t at = (size_t)P64 * (size_t)c0;

    if (nr <= QUAD_ROWS) {
        for (; c + 4 * W <= w; c += 4 * W)
            pv_block(nr, 4, wide, v, at + (size_t)c, w, n, p, acc + c0 + c, D);
    }
    for (; c + 2 * W <= w; c += 2 * W)
        pv_block(nr, 2, wide, v, at + (size_t)c, w, n, p, acc + c0 + c, D);
    for (; c < w; c += W)
        pv_block(nr, 1, wide, v, at + (size_t)c, w, n, p, acc + c0 + c, D);
}

/* Calls BLOCK(n, ...) with n a constant 1..ROWS, so that each size keeps its sums in registers. */
#if ROWS == 8
#define MORE_ROWS(BLOCK, ...)                                                                      \
    case 7:                                                                                        \
        BLOCK(7, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 8:                                                                                        \
        BLOCK(8, __VA_ARGS__);                                                                     \
        break;
#else
#define MORE_ROWS(BLOCK, ...)
#endif
#define FOR_ROWS(n, BLOCK, ...)                                                                    \
    switch (n) {                                                                                   \
    case 1:                                                                                        \
        BLOCK(1, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 2:                                                                                        \
        BLOCK(2, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 3:                                                                                        \
        BLOCK(3, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 4:                                                                                        \
        BLOCK(4, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 5:                                                                                        \
        BLOCK(5, __VA_ARGS__);                                                                     \
        break;                                                                                     \
    case 6:                                                                                        \
        BLOCK(6, __VA_ARGS__);                                                                     \
        break;                                                                                     \
        MORE_ROWS(BLOCK, __VA_ARGS__)                                                              \
    default:                                                                                       \
        break;                                                                                     \
    }

static void qk_few(int nr, const struct half *k, int D, const float *q, float *s)
{
    FOR_ROWS(nr, qk_rows, false, k, D, q, s)
}
static void qk_many(int nr, const struct half *k, int D, const float *q,
                    float *s){FOR_ROWS(nr, qk_rows, true, k, D, q, s)}

/* Brings m, l, acc of a row up to page i: scores in s become weights, stored in p if asked for. */
INLINE void weigh_row(const kept_attn_tile *a, int i, int r, const struct rows *rows)
{
    int t = r / a->group, seen = kept_tile_seen(a, i, t);
    float *s = rows->s + (size_t)r * P64, *sum = rows->sum + (size_t)r * W, top;
    vec x[P64 / W], m, l;

    UNROLL
    for (int c = 0; c < P64 / W; c++)
        x[c] = v_load(s + c * W);
    if (a->bias) {
        UNROLL
        for (int c = 0; c < P64 / W; c++)
            x[c] = v_add(x[c], v_load(a->bias[i] + c * W));
    }
    if (seen < P64 || a->window > 0) {
        const int32_t *pos = a->window > 0 ? a->pos + (size_t)i * P64 : NULL;
        int32_t horizon = kept_tile_horizon(a, t);

        for (int c = 0; c < P64 / W; c++)
            x[c] = v_hide(x[c], seen - c * W, pos ? pos + c * W : NULL, horizon);
    }
    m = x[0];
    UNROLL
    for (int c = 1; c < P64 / W; c++)
        m = v_max(m, x[c]);
    top = v_top(m);
    l = v_load(sum);
    if (__builtin_expect(top > a->m[r], 0)) {
        vec c = v_set(v_first(v_exp2(v_set(a->m[r] - top))));
        float *acc = a->acc + (size_t)r * (size_t)a->head_size;

        for (int d = 0; d < a->head_size; d += W)
            v_store(acc + d, v_mul(v_load(acc + d), c));
        l = v_mul(l, c);
        a->m[r] = top;
    }
    m = v_set(a->m[r]);
    UNROLL
    for (int c = 0; c < P64 / W; c++) {
        x[c] = v_exp2(v_sub(x[c], m));
        l = v_add(l, x[c]);
        v_store(s + c * W, x[c]);
    }
    v_store(sum, l);
    if (a->p) {
        size_t at = (size_t)i * (size_t)rows->n + (size_t)r;

        UNROLL
        for (int c = 0; c < P64 / W; c++)
            v_narrow(a->p + at * P64 + c * W, x[c]);
        a->p_max[at] = a->m[r] > -__builtin_inff() ? a->m[r] : 0.0f;
    }
}

/* Whether V of page i can be left out: see kept_attn_tile.skip. */
INLINE bool is_idle(const kept_attn_tile *a, int i, const struct rows *rows)
{
    vec m = v_set(0);

    if (!(a->skip > 0))
        return false;
    for (int j = 0; j < rows->n * P64; j += W)
        m = v_max(m, v_load(rows->s + j));
    a->skipped[i] = v_top(m) <= a->skip;
    return a->skipped[i];
}

/* Starts the rows' state and scales their queries. */
INLINE void begin_rows(const kept_attn_tile *a, const struct rows *rows)
{
    vec scale = v_set(a->scale);

    for (int r = 0; r < rows->n; r++) {
        const float *q =
            a->q + (size_t)(r / a->group) * a->q_stride_t + (size_t)(r % a->group) * a->q_stride_g;

        for (int d = 0; d < a->head_size; d += W) {
            v_store(rows->q + (size_t)r * Q_STRIDE + d, v_mul(v_load(q + d), scale));
            v_store(a->acc + (size_t)r * (size_t)a->head_size + d, v_set(0));
        }
        v_store(rows->sum + (size_t)r * W, v_set(0));
        a->m[r] = -__builtin_inff();
    }
}

INLINE void end_rows(const kept_attn_tile *a, const struct rows *rows)
{
    for (int r = 0; r < rows->n; r++)
        a->l[r] = v_sum(v_load(rows->sum + (size_t)r * W));
}

/* Halves of page i: K and, 64 * D elements on, V. */
INLINE void open_page(const kept_attn_tile *a, int i, struct half *k, struct half *v)
{
    size_t half = (size_t)P64 * (size_t)a->head_size;
    const kept_f16 *page = (const void *)(a->pool + (size_t)a->pages[i] * a->page_bytes);
    const kept_f16 *next = a->next ? (const void *)a->next : page;

    if (i + 1 < a->n_pages)
        next = (const void *)(a->pool + (size_t)a->pages[i + 1] * a->page_bytes);
    *k = (struct half){page, next};
    *v = (struct half){page + half, next + half};
}

/* Rows [*from, *to) of block b of n_blocks even ones; returns how many slots of page i they reach.
 */
INLINE int row_block(const kept_attn_tile *a, int i, int b, int n_blocks, int *from, int *to)
{
    int rows = a->n_q * a->group;

    *from = rows * b / n_blocks;
    *to = rows * (b + 1) / n_blocks;
    return kept_tile_seen(a, i, (*to - 1) / a->group);
}

INLINE void pv_few(int nr, const struct half *v, int n, const float *p, float *acc, int D)
{
    for (int c = 0; c < D; c += 64)
        pv_rows(nr, false, v, c, n, p, acc, D);
}

static void attend_few(const kept_attn_tile *a)
{
    ALIGNED float q[FEW * Q_STRIDE], s[FEW * P64], sum[FEW * W];
    struct rows rows = {q, s, sum, a->n_q * a->group};
    int D = a->head_size, blocks = (rows.n + ROWS - 1) / ROWS, r0, r1;

    begin_rows(a, &rows);
    for (int i = 0; i < a->n_pages; i++) {
        struct half k, v;

        open_page(a, i, &k, &v);
        for (int b = 0; b < blocks; b++) {
            row_block(a, i, b, blocks, &r0, &r1);
            qk_few(r1 - r0, &k, D, q + r0 * Q_STRIDE, s + r0 * P64);
        }
        for (int r = 0; r < rows.n; r++)
            weigh_row(a, i, r, &rows);
        if (is_idle(a, i, &rows))
            continue;
        for (int b = 0; b < blocks; b++) {
            int n = row_block(a, i, b, blocks, &r0, &r1);

            FOR_ROWS(r1 - r0, pv_few, &v, n, s + r0 * P64, a->acc + (size_t)r0 * (size_t)D, D)
        }
    }
    end_rows(a, &rows);
}

/* Rotates n vectors of D floats as codec.h says, or back. The lanes of a vector are turned in
 * registers, the rest of a block in memory. */
static void turn_rows(float *x, int n, size_t stride, int D, bool back)
{
    int block = kept_codec_block(D);
    vec scale = v_set(1.0f / __builtin_sqrtf((float)block));

    for (int r = 0; r < n; r++, x += stride) {
        for (int d = 0; d < D; d += W) {
            vec y = v_mul(v_load(x + d), scale);

            v_store(x + d, v_hadamard(back ? y : v_mul(y, v_load(kept_codec_signs + d))));
        }
        for (int step = W; step < block; step *= 2)
            for (int at = 0; at < D; at += 2 * step)
                for (int d = at; d < at + step; d += W) {
                    vec y = v_load(x + d), z = v_load(x + d + step);

                    v_store(x + d, v_add(y, z));
                    v_store(x + d + step, v_sub(y, z));
                }
        for (int d = 0; back && d < D; d += W)
            v_store(x + d, v_mul(v_load(x + d), v_load(kept_codec_signs + d)));
    }
}

/* Brings the outputs of all rows into the basis of a V codec; *turned: the basis they are in. */
INLINE void turn_outputs(const kept_attn_tile *a, int rows, int codec, bool *turned)
{
    bool want = kept_codec_get(codec)->rotated;

    if (want == *turned)
        return;
    turn_rows(a->acc, rows, (size_t)a->head_size, a->head_size, *turned);
    *turned = want;
}

/* Widens a page half; the buffer keeps its element order. */
INLINE void widen_half(float *to, struct half *h, int D)
{
    for (size_t i = 0; i < (size_t)P64 * (size_t)D; i += 32) {
        UNROLL
        for (size_t c = 0; c < 32; c += W)
            v_store(to + i + c, fetch(h, i + c, false));
    }
    h->at = to;
}

/* A half of page i, widened, whatever its form. */
INLINE void widen_any(float *to, const kept_attn_tile *a, int i, bool v, struct half *h)
{
    kept_codecs c = kept_tile_codec(a, i);
    int D = a->head_size, codec = v ? c.v : c.k;

    h->at = a->pool + (size_t)a->pages[i] * a->page_bytes +
            (v ? kept_codec_half_bytes(c.k, false, D) : 0);
    if (codec == KEPT_F16)
        widen_half(to, h, D);
    else if (kept_codec_get(codec)->slerp)
        kept_slerp_widen_avx2(h->at, v, D, a->layer % 2, to);
    else if (kept_codec_get(codec)->basis)
        LOW_WIDEN(kept_tile_packed(a, i), v, to);
    else if (kept_codec_get(codec)->nuq)
        kept_nuq_widen(kept_tile_packed(a, i), v, to);
    else
        kept_codec_widen(to, h->at, codec, v, D);
    h->at = to;
}

static void pv_many(int nr, const struct half *v, int c, int n, const float *p, float *acc, int D)
{
    FOR_ROWS(nr, pv_rows, true, v, c, n, p, acc, D)
}

static void attend_many(const kept_attn_tile *a)
{
    ALIGNED float q[KEPT_TILE_ROWS * Q_STRIDE], s[KEPT_TILE_ROWS * P64], sum[KEPT_TILE_ROWS * W];
    ALIGNED float wide[P64 * KEPT_MAX_HEAD_SIZE];
    struct rows rows = {q, s, sum, a->n_q * a->group};
    int D = a->head_size, blocks = (rows.n + MANY_ROWS - 1) / MANY_ROWS, r0, r1;
    bool q_turned = false, turned = false; /* the bases that q and acc are in */

    begin_rows(a, &rows);
    for (int i = 0; i < a->n_pages; i++) {
        kept_codecs form = kept_tile_codec(a, i);
        struct half k, v;

        open_page(a, i, &k, &v);
        widen_any(wide, a, i, false, &k);
        if (q_turned != kept_codec_get(form.k)->rotated) {
            turn_rows(q, rows.n, Q_STRIDE, D, q_turned);
            q_turned = !q_turned;
        }
        for (int b = 0; b < blocks; b++) {
            if (row_block(a, i, b, blocks, &r0, &r1))
                qk_many(r1 - r0, &k, D, q + r0 * Q_STRIDE, s + r0 * P64);
            else
                memset(s + r0 * P64, 0, (size_t)(r1 - r0) * P64 * sizeof *s);
        }
        for (int r = 0; r < rows.n; r++)
            weigh_row(a, i, r, &rows);
        if (is_idle(a, i, &rows))
            continue;
        widen_any(wide, a, i, true, &v);
        turn_outputs(a, rows.n, form.v, &turned);
        for (int c = 0; c < D; c += 64) {
            for (int b = 0; b < blocks; b++) {
                int n = row_block(a, i, b, blocks, &r0, &r1);
                float *acc = a->acc + (size_t)r0 * (size_t)D;

                if (n)
                    pv_many(r1 - r0, &v, c, n, s + r0 * P64, acc, D);
            }
        }
    }
    turn_outputs(a, rows.n, KEPT_F16, &turned);
    end_rows(a, &rows);
}

#endif
