/* kern, inside: rounds queries and weights to integers and walks packed pages; after simd_codec.h.
 */
#ifndef KERN_SIMD_PACKED_H
#define KERN_SIMD_PACKED_H

/* ---- rounding ---------------------------------------------------------------------------------
 */

/* n numbers of a row as integers of 8 bits, or 16 where codes have 8. */
INLINE void round_row(struct ints *o, int r, const float *x, int n, bool wide, bool has_sign)
{
    int32_t *flat = o->flat;
    float top = wide ? 32767.0f : has_sign ? 127.0f : 255.0f, most, inverse;
    vec m = v_abs(v_load(x));

    for (int i = W; i < n; i += W)
        m = v_max(m, v_abs(v_load(x + i)));
    most = v_top(m);
    /* The inverse of anything smaller is not a number that can be multiplied with. */
    inverse = most > 1e-30f ? top / most : 0.0f;
    o->scale[r] = most > 1e-30f ? most / top : 0.0f;
    for (int i = 0; i < n; i += 16) {
        if (wide)
            i_narrow16(flat + i / 2, x + i, v_set(inverse));
        else
            i_narrow8(flat + i / 4, x + i, v_set(inverse), has_sign);
    }
    for (int i = 0; i < n / (wide ? 2 : 4); i += 4) {
        UNROLL
        for (int k = i; k < i + 4; k++)
            i_spread(o->word[r] + (size_t)k * SPREAD, flat[k]);
    }
}

/* Queries of n rows, with the sums that offsets and zeros need. */
static void round_queries(struct ints *o, int n, const float *q, size_t stride, int D, bool wide)
{
    for (int r = 0; r < n; r++, q += stride) {
        const int8_t *code = (const int8_t *)o->flat;

        round_row(o, r, q, D, wide, true);
        o->whole[r] = 0;
        for (int g = 0; 32 * g < D && !wide; g++, code += 32) {
            const int end = D - 32 * g < 32 ? 16 : 32; /* D is a multiple of 16 */
            vec plain = v_load(q + 32 * g);
            int sum = 0;

            for (int d = 0; d < end; d++)
                sum += code[d];
            for (int d = W; d < end; d += W)
                plain = v_add(plain, v_load(q + 32 * g + d));
            o->sum[r][g] = (float)sum;
            o->plain[r][g] = v_sum(plain);
            o->whole[r] += (float)sum;
        }
    }
}

/* Queries times the scales of channels of one half of the slots. */
static void round_by_channel(struct ints *o, int nr, const float *q, const struct packed *k,
                             int half)
{
    const uint16_t *scale = k->scale + half * k->D, *zero = scale + 2 * k->D;
    ALIGNED float x[KEPT_MAX_HEAD_SIZE];

    for (int r = 0; r < nr; r++, q += Q_STRIDE) {
        vec sum = v_set(0);
        int d = 0;

        do {
            vec y = v_load(q + d);

            v_store(x + d, v_mul(y, v_wide(scale + d)));
            sum = v_fma(y, v_wide(zero + d), sum);
        } while ((d += W) < k->D);
        round_row(o, r, x, k->D, false, true);
        o->whole[r] = 0; /* zeros take the place of an offset */
        o->extra[r] = v_sum(sum);
    }
}

/* Weights of row r, at p, times the scales of their slots (group g). */
INLINE void round_weights(struct ints *o, int r, const float *p, const struct packed *v, int kind,
                          int form, int g)
{
    ALIGNED float x[P64];
    vec sum = v_set(0);

    UNROLL
    for (int i = 0; i < P64; i += W) {
        const uint16_t *at = v->scale + g * P64 + i;
        vec y = v_load(p + i);

        v_store(x + i, v_mul(y, scales_at(form, at)));
        if (form == BY_SPAN)
            sum = v_fma(y, v_wide(at + v->D / 32 * P64), sum);
    }
    if (form == BY_SPAN)
        o->extra[r] = v_sum(sum);
    round_row(o, r, x, P64, kind == S8, false);
}

/* ---- pages ------------------------------------------------------------------------------------
 */

INLINE void scores_of(int nr, int kind, int form, const struct packed *k, const struct ints *q,
                      int r0, const float *plain, float *s)
{
    struct ints turned;

    for (int slot = 0; slot < P64; slot += SLOT_VECS * W) {
        if (form == BY_CHANNEL && slot % 32 == 0)
            round_by_channel(&turned, nr, plain, k, slot / 32);
        if (form == BY_CHANNEL)
            score_block(nr, kind, form, k, &turned, (const int[2]){0, slot}, s);
        else
            score_block(nr, kind, form, k, q, (const int[2]){r0, slot}, s);
    }
}

/* p, of which the compiler knows nothing: what lies there is read again for every block. It took
 * all words as constants of the loop, for which there are no registers, and copied them from the
 * stack to the stack. */
INLINE const struct ints *afresh(const struct ints *p)
{
    __asm__("" : "+r"(p) : : "memory");
    return p;
}

/* The block of channels from where[0], where[1] wide: a constant, for addresses are made of it. */
INLINE void channels_of(int nr, int kind, int form, const struct packed *v, const struct ints *p,
                        const int where[2], float *acc)
{
    const int c = where[0], w = where[1];
    int in = 0;

    for (; in + SLOT_VECS * W <= w; in += SLOT_VECS * W)
        value_block(nr, SLOT_VECS, kind, form, v, afresh(p), (const int[3]){c, w, in}, acc);
    if (SLOT_VECS > 1 && in < w)
        value_block(nr, 1, kind, form, v, afresh(p), (const int[3]){c, w, in}, acc);
}

INLINE void values_of(int nr, int kind, int form, const struct packed *v, const float *p,
                      float *acc)
{
    struct ints ints;

    for (int c = 0; c < v->D; c += 32) {
        for (int r = 0; r < nr && (c == 0 || form != BY_ROW); r++)
            round_weights(&ints, r, p + r * P64, v, kind, form, c / 32);
        if (v->D - c >= 32)
            channels_of(nr, kind, form, v, &ints, (const int[2]){c, 32}, acc);
        else
            channels_of(nr, kind, form, v, &ints, (const int[2]){c, 16}, acc);
    }
}

#define BY_ROWS(nr, CALL, ...)                                                                     \
    switch (nr) {                                                                                  \
    case 1:                                                                                        \
        CALL(1, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    case 2:                                                                                        \
        CALL(2, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    case 3:                                                                                        \
        CALL(3, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    default:                                                                                       \
        CALL(4, __VA_ARGS__);                                                                      \
        break;                                                                                     \
    }

/* One function per codec, so that each is a loop of its own. */
#define PACKED_K(name, kind, form)                                                                 \
    static void scores_##name(int nr, const struct packed *k, const struct ints *q, int r0,        \
                              const float *plain, float *s)                                        \
    {                                                                                              \
        BY_ROWS(nr, scores_of, kind, form, k, q, r0, plain, s)                                     \
    }
#define PACKED_V(name, kind, form)                                                                 \
    static void values_##name(int nr, const struct packed *v, const float *p, float *acc)          \
    {                                                                                              \
        BY_ROWS(nr, values_of, kind, form, v, p, acc)                                              \
    }
PACKED_K(q8, S8, BY_ROW)
PACKED_V(q8, S8, BY_ROW)
PACKED_K(q4, U4, BY_ROW)
PACKED_V(q4, U4, BY_ROW)
PACKED_K(q4g, U4, BY_GROUP)
PACKED_V(q4g, U4, BY_GROUP)
PACKED_K(rot4, T4, BY_ROW)
PACKED_V(rot4, T4, BY_ROW)
PACKED_K(rot3, T3, BY_ROW)
PACKED_V(rot3, T3, BY_ROW)
PACKED_K(rot2, T2, BY_ROW)
PACKED_V(rot2, T2, BY_ROW)
PACKED_K(tok4, U4, BY_SPAN)
PACKED_V(tok4, U4, BY_SPAN)
PACKED_K(tok2, U2, BY_SPAN)
PACKED_V(tok2, U2, BY_SPAN)
PACKED_K(chan4, U4, BY_CHANNEL)
PACKED_K(chan2, U2, BY_CHANNEL)

typedef void scores_fn(int nr, const struct packed *k, const struct ints *q, int r0,
                       const float *plain, float *s);
typedef void values_fn(int nr, const struct packed *v, const float *p, float *acc);
/* NULL: read as floats. */
static scores_fn *const packed_scores[KEPT_N_CODECS] = {
    [KEPT_Q8] = scores_q8,       [KEPT_Q4] = scores_q4,     [KEPT_Q4G] = scores_q4g,
    [KEPT_ROT4] = scores_rot4,   [KEPT_ROT3] = scores_rot3, [KEPT_ROT2] = scores_rot2,
    [KEPT_TOK4] = scores_tok4,   [KEPT_TOK2] = scores_tok2, [KEPT_CHAN4] = scores_chan4,
    [KEPT_CHAN2] = scores_chan2,
};
static values_fn *const packed_values[KEPT_N_CODECS] = {
    [KEPT_Q8] = values_q8,     [KEPT_Q4] = values_q4,     [KEPT_Q4G] = values_q4g,
    [KEPT_ROT4] = values_rot4, [KEPT_ROT3] = values_rot3, [KEPT_ROT2] = values_rot2,
    [KEPT_TOK4] = values_tok4, [KEPT_TOK2] = values_tok2,
};

/* A half of page i, of coefficients where it has a basis; its codes end where its scales begin. */
static struct packed open_packed(const kept_attn_tile *a, int i, bool v)
{
    kept_codecs c = kept_tile_codec(a, i);
    int codec = v ? c.v : c.k, bits;
    int D = kept_codec_is_thin(codec) ? a->head_size : kept_codec_channels(codec, a->head_size);
    size_t at = v ? kept_codec_half_bytes(c.k, false, a->head_size) : 0;
    const uint8_t *page = a->pool + (size_t)a->pages[i] * a->page_bytes, *next = a->next;
    struct packed h = {.at = page + at, .D = D, .info = kept_codec_get(codec)};

    if (h.info->basis)
        h.info = kept_codec_get(h.info->inner);

    if (i + 1 < a->n_pages)
        next = a->pool + (size_t)a->pages[i + 1] * a->page_bytes;
    bits = h.info->bits;
    h.high = h.at + (bits == 3 ? (size_t)D * 16 : 0);
    h.ahead = next ? next - page : 0;
    h.scale = (const uint16_t *)(const void *)(h.at + kept_words_bytes(bits, v, D));
    return h;
}

/* Queries of a tile in the forms that its pages want, made when first wanted. */
struct queries {
    float *q, *turned; /* [rows][Q_STRIDE] */
    bool has_turned;
    int key; /* of ints: which queries, rounded how; -1: nothing */
    struct ints ints;
    float *flat; /* [rows][Q_STRIDE] along the directions of flat_codec; 0: nothing */
    int flat_codec;
};

static const float *queries_for(struct queries *x, int n, int D, int codec)
{
    const kept_codec_info *f = kept_codec_get(codec);
    int key = 2 * f->rotated + (f->bits == 8);
    const float *q = x->q;

    if (f->rotated) {
        if (!x->has_turned) {
            memcpy(x->turned, x->q, (size_t)n * Q_STRIDE * sizeof *x->q);
            turn_rows(x->turned, n, Q_STRIDE, D, false);
        }
        x->has_turned = true;
        q = x->turned;
    }
    if (packed_scores[codec] && !f->channel && key != x->key) {
        round_queries(&x->ints, n, q, Q_STRIDE, D, f->bits == 8);
        x->key = key;
    }
    return q;
}

/* Scores against a page that holds some of the channels: those of the queries, side by side. */
static void thin_scores(const struct packed *k, int codec, int n, const float *q, float *s)
{
    ALIGNED float some[MAX_ROWS * Q_STRIDE];
    const int kept = kept_codec_channels(codec, k->D);
    const uint8_t *at = kept_codec_channels_of(k->at, codec, k->D);
    struct half h = {k->at, (const kept_f16 *)(const void *)(k->at + k->ahead)};

    for (int r = 0; r < n; r++)
        for (int d = 0; d < kept; d++)
            some[r * Q_STRIDE + d] = q[r * Q_STRIDE + at[d]];
    for (int r = 0; r < n; r += ROWS)
        qk_few(n - r < ROWS ? n - r : ROWS, &h, kept, some + r * Q_STRIDE, s + r * P64);
}

#include "kern/simd_lowrank.h"

/* Scores of all rows against page i. */
static void page_scores(const kept_attn_tile *a, int i, struct queries *x, struct rows *rows,
                        float *wide)
{
    int codec = kept_tile_codec(a, i).k, D = a->head_size, n = rows->n;
    const float *q = queries_for(x, n, D, codec);
    struct packed k = open_packed(a, i, false);

    for (int r = 0; r < n && packed_scores[codec]; r += PK_ROWS)
        packed_scores[codec](n - r < PK_ROWS ? n - r : PK_ROWS, &k, &x->ints, r,
                             q + (size_t)r * Q_STRIDE, rows->s + r * P64);
    if (kept_codec_get(codec)->basis == KEPT_BASIS_FLAT) {
        flat_scores(a, &k, codec, x, rows);
    } else if (kept_codec_is_thin(codec)) {
        thin_scores(&k, codec, n, q, rows->s);
    } else if (kept_codec_get(codec)->basis) {
        LOW_SCORES(kept_tile_packed(a, i), k.ahead, n, q, Q_STRIDE, rows->s);
    } else if (!packed_scores[codec]) {
        struct half h = {k.at, (const kept_f16 *)(const void *)(k.at + k.ahead)};

        widen_any(wide, a, i, false, &h);
        for (int r = 0; r < n; r += MANY_ROWS)
            qk_many(n - r < MANY_ROWS ? n - r : MANY_ROWS, &h, D, q + (size_t)r * Q_STRIDE,
                    rows->s + r * P64);
    }
}

static void page_values(const kept_attn_tile *a, int i, const struct rows *rows, float *wide)
{
    int codec = kept_tile_codec(a, i).v, D = a->head_size, n = rows->n;
    struct packed v = open_packed(a, i, true);

    for (int r = 0; r < n && packed_values[codec]; r += PK_ROWS)
        packed_values[codec](n - r < PK_ROWS ? n - r : PK_ROWS, &v, rows->s + r * P64,
                             a->acc + (size_t)r * (size_t)D);
    if (!packed_values[codec]) {
        struct half h = {v.at, (const kept_f16 *)(const void *)(v.at + v.ahead)};

        widen_any(wide, a, i, true, &h);
        for (int c = 0; c < D; c += 64)
            for (int r = 0; r < n; r += MANY_ROWS)
                pv_many(n - r < MANY_ROWS ? n - r : MANY_ROWS, &h, c, kept_tile_seen(a, i, 0),
                        rows->s + r * P64, a->acc + (size_t)r * (size_t)D, D);
    }
}

static void attend_packed(const kept_attn_tile *a)
{
    ALIGNED float q[MAX_ROWS * Q_STRIDE], turned_q[MAX_ROWS * Q_STRIDE], s[MAX_ROWS * P64];
    ALIGNED float sum[MAX_ROWS * W], wide[P64 * KEPT_MAX_HEAD_SIZE];
    ALIGNED float flat_q[MAX_ROWS * Q_STRIDE], low[MAX_ROWS * KEPT_MAX_HEAD_SIZE];
    struct rows rows = {q, s, sum, a->group};
    struct queries x = {.q = q, .turned = turned_q, .key = -1, .flat = flat_q};
    struct sums sums = {.acc = low};
    bool turned = kept_codec_get(kept_tile_codec(a, 0).v)->rotated; /* zeros are both */

    begin_rows(a, &rows);
    for (int i = 0; i < a->n_pages; i++) {
        page_scores(a, i, &x, &rows, wide);
        for (int r = 0; r < rows.n; r++) {
            const float was = a->m[r];

            weigh_row(a, i, r, &rows);
            rescale_sums(a, &sums, r, was);
        }
        if (is_idle(a, i, &rows))
            continue;
        if (kept_codec_get(kept_tile_codec(a, i).v)->basis) {
            if (sums.codec && sums.codec != kept_tile_codec(a, i).v)
                turn_outputs(a, rows.n, KEPT_F16, &turned); /* sums are folded into them */
            sum_values(a, i, &rows, &sums);
            continue;
        }
        turn_outputs(a, rows.n, kept_tile_codec(a, i).v, &turned);
        page_values(a, i, &rows, wide);
    }
    turn_outputs(a, rows.n, KEPT_F16, &turned);
    fold_sums(a, &sums, rows.n);
    end_rows(a, &rows);
}

static void simd_attend(const kept_attn_tile *a)
{
    bool packed = false;

    for (int i = 0; a->codec && i < a->n_pages; i++)
        packed |= !kept_codec_is_f16(a->codec[i]);
    if (packed && a->n_q == 1)
        attend_packed(a);
    else if (a->n_q * a->group <= FEW && !packed)
        attend_few(a);
    else
        attend_many(a);
}

#endif
