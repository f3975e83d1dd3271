/* kern, inside: attend of a tile of one query over packed pages (codec.h), included by the file of
 * a level after simd_attend.h and its integer primitives (ivec, i_*).
 *
 * Scores: 64 bytes of codes hold some channels of 16 slots, so a dot product instruction of a
 * query's word (4 channels, broadcast) leaves one sum per slot, as F16's d-major K does. Outputs:
 * the same with slots and channels exchanged; a page's weights, times the slots' scales, are
 * rounded relative to their largest, per row. Levels of linear codecs are used as they are, those
 * of Lloyd-Max codecs are looked up (pshufb). Rows go in blocks of up to four. */
#ifndef KERN_SIMD_CODEC_H
#define KERN_SIMD_CODEC_H

#define PK_ROWS  4  /* rows of a block */
#define MAX_ROWS 16 /* one query's */
#define WORDS    (KEPT_MAX_HEAD_SIZE / 2)

/* How codes become integers, and what scales belong to. */
enum kind { S8, U4, U2, T4, T3, T2 };
enum form { BY_ROW, BY_GROUP, BY_SPAN, BY_CHANNEL };

/* A packed half: codes, the same place in the next page, scales. */
struct packed {
    const uint8_t *at, *high; /* high: high bits of K, see codec.h */
    ptrdiff_t ahead;
    const uint16_t *scale;
    const kept_codec_info *info;
    int D;
};

/* Rows rounded to integers: words [4 bytes] of 8-bit, pairs of words of 16-bit numbers. */
struct ints {
    int32_t word[MAX_ROWS][WORDS];
    float scale[MAX_ROWS];
    float sum[MAX_ROWS][8];   /* of the integers of each 32 channels */
    float whole[MAX_ROWS];    /* of all integers */
    float plain[MAX_ROWS][8]; /* of the numbers themselves, per 32 channels */
    float extra[MAX_ROWS];    /* to be added to a row's scores */
};

/* Quads (4 channels of slots, or 4 slots of channels) 4*step .. 4*step+3: unsigned codes, or
 * levels. row: bytes from word to word. */
INLINE void quads(int kind, const struct packed *h, const uint8_t *at, const uint8_t *high,
                  int step, size_t row, ivec table, ivec u[4])
{
    const ivec low4 = i_bytes(15), low2 = i_bytes(3);

    if (kind == S8) {
        UNROLL
        for (int i = 0; i < 4; i++) {
            const uint8_t *p = at + (size_t)(4 * step + i) * row;

            u[i] = i_load(p);
            __builtin_prefetch(p + h->ahead, 0, 2);
        }
    } else if (kind == U4 || kind == T4) {
        UNROLL
        for (int i = 0; i < 2; i++) {
            const uint8_t *p = at + (size_t)(2 * step + i) * row;
            ivec x = i_load(p);

            __builtin_prefetch(p + h->ahead, 0, 3);
            u[2 * i] = i_and(x, low4);
            u[2 * i + 1] = i_and(i_shr(x, 4), low4);
        }
    } else {
        const uint8_t *p = at + (size_t)step * row;
        ivec x = i_load(p);

        __builtin_prefetch(p + h->ahead, 0, 3);
        u[0] = i_and(x, low2);
        u[1] = i_and(i_shr(x, 2), low2);
        u[2] = i_and(i_shr(x, 4), low2);
        u[3] = i_and(i_shr(x, 6), low2);
    }
    if (kind == T3) {
        const ivec four = i_bytes(4);
        ivec x = i_load(high + (size_t)(step / 2) * row);

        x = step % 2 ? i_shr(x, 4) : x;
        u[0] = i_or(u[0], i_and(i_shl(x, 2), four));
        u[1] = i_or(u[1], i_and(i_shl(x, 1), four));
        u[2] = i_or(u[2], i_and(x, four));
        u[3] = i_or(u[3], i_and(i_shr(x, 1), four));
    }
    if (kind == T4 || kind == T3 || kind == T2) {
        UNROLL
        for (int i = 0; i < 4; i++)
            u[i] = i_look(table, u[i]);
    }
}

/* sum[r][..] += words of rows times quads; words: of the first quad, one (S8: two) per quad. */
INLINE void dot_quads(int kind, bool signed_codes, int nr, const int32_t *word, const ivec u[4],
                      ivec (*sum)[SETS])
{
    bool small = kind == U4 || kind == U2;

    UNROLL
    for (int i = 0; i < 4; i++) {
        if (kind == S8) {
            ivec even = i_sar(i_shl(u[i], 8), 8), odd = i_sar(u[i], 8);

            UNROLL
            for (int r = 0; r < nr; r++) {
                const int32_t *w = word + r * WORDS + 2 * i;

                sum[r][0] = i_dot16(sum[r][0], even, i_word(w));
                sum[r][SETS - 1] = i_dot16(sum[r][SETS - 1], odd, i_word(w + 1));
            }
        } else {
            UNROLL
            for (int r = 0; r < nr; r++) {
                ivec w = i_word(word + r * WORDS + i), *to = &sum[r][i % SETS];

                *to = signed_codes ? i_dot8(*to, w, u[i], small) : i_dot8(*to, u[i], w, small);
            }
        }
    }
}

INLINE void clear(ivec sum[SETS])
{
    sum[0] = i_zero();
    sum[SETS - 1] = i_zero();
}

INLINE ivec both(const ivec sum[SETS])
{
    return SETS == 2 ? i_add32(sum[0], sum[SETS - 1]) : sum[0];
}

/* ---- scores ---------------------------------------------------------------------------------- */

INLINE vec scales_at(int form, const uint16_t *p)
{
    return form == BY_SPAN ? v_wide(p) : v_bf16(p);
}

/* s[r][slot ..] of nr rows from r0 for SLOT_VECS vectors of slots, from sums of whole rows. */
INLINE void store_scores(int nr, int form, const struct packed *k, const struct ints *q, int r0,
                         int slot, ivec (*acc)[PK_ROWS][SETS], float *s)
{
    int off = form == BY_CHANNEL ? 0 : k->info->bits == 8 ? 0 : k->info->level[0] < -8 ? 64 : 8;

    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        vec scale = form == BY_CHANNEL ? v_set(1) : v_bf16(k->scale + slot + c * W);

        UNROLL
        for (int r = 0; r < nr; r++) {
            vec x = v_sub(i_float(both(acc[c][r])), v_set((float)off * q->whole[r0 + r]));

            x = v_mul(v_mul(x, v_set(q->scale[r0 + r])), scale);
            if (form == BY_CHANNEL)
                x = v_add(x, v_set(q->extra[r0 + r]));
            v_store(s + r * P64 + slot + c * W, x);
        }
    }
}

/* f[c][r] += what group g of 32 channels adds, from its sums. */
INLINE void add_group(int nr, int form, const struct packed *k, const struct ints *q,
                      const int at[3], ivec (*acc)[PK_ROWS][SETS], vec (*f)[PK_ROWS])
{
    int r0 = at[0], slot = at[1], g = at[2];

    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        const uint16_t *p = k->scale + g * P64 + slot + c * W;
        vec scale = scales_at(form, p);

        UNROLL
        for (int r = 0; r < nr; r++) {
            vec x = i_float(both(acc[c][r]));

            if (form == BY_GROUP)
                x = v_sub(x, v_set(8.0f * q->sum[r0 + r][g]));
            f[c][r] = v_fma(v_mul(x, v_set(q->scale[r0 + r])), scale, f[c][r]);
            if (form == BY_SPAN)
                f[c][r] = v_fma(v_wide(p + k->D / 32 * P64), v_set(q->plain[r0 + r][g]), f[c][r]);
        }
    }
}

/* Scores of nr rows for slots [slot, slot + SLOT_VECS * W). */
INLINE void score_block(int nr, int kind, int form, const struct packed *k, const struct ints *q,
                        int r0, int slot, float *s)
{
    const bool small = kind == U4 || kind == U2, groups = form == BY_GROUP || form == BY_SPAN;
    const int D = k->D, bits = kind == S8 ? 8 : kind == U4 || kind == T4 ? 4 : 2;
    const size_t block = (size_t)(D * bits * 2), high = (size_t)((D + 31) / 32) * 64;
    int8_t levels[16] = {0};
    ivec acc[SLOT_VECS][PK_ROWS][SETS], table;
    vec f[SLOT_VECS][PK_ROWS];

    for (int i = 0; (kind == T4 || kind == T3 || kind == T2) && i < 1 << k->info->bits; i++)
        levels[i] = (int8_t)(k->info->level[i] + 64);
    table = i_table(levels);
    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        UNROLL
        for (int r = 0; r < nr; r++) {
            f[c][r] = v_set(0);
            clear(acc[c][r]);
        }
    }
    for (int d0 = 0; d0 < D; d0 += 32) {
        ivec sum[SLOT_VECS][PK_ROWS][SETS];

        UNROLL
        for (int c = 0; c < SLOT_VECS; c++) {
            UNROLL
            for (int r = 0; r < nr; r++) {
                sum[c][r][0] = i_open(acc[c][r][0], small);
                sum[c][r][SETS - 1] = i_open(acc[c][r][SETS - 1], small);
            }
        }
        for (int d = d0; d < d0 + 32 && d < D; d += 16) {
            UNROLL
            for (int c = 0; c < SLOT_VECS; c++) {
                size_t b = (size_t)((slot + c * W) / 16), in = (size_t)((slot + c * W) % 16) * 4;
                ivec u[4];

                quads(kind, k, k->at + b * block + in, k->high + b * high + in, d / 16, 64, table,
                      u);
                dot_quads(kind, false, nr, q->word[r0] + (kind == S8 ? d / 2 : d / 4), u, sum[c]);
            }
        }
        UNROLL
        for (int c = 0; c < SLOT_VECS; c++) {
            UNROLL
            for (int r = 0; r < nr; r++) {
                acc[c][r][0] = i_close(acc[c][r][0], sum[c][r][0], small);
                if (SETS == 2)
                    acc[c][r][SETS - 1] = i_close(acc[c][r][SETS - 1], sum[c][r][SETS - 1], small);
            }
        }
        if (groups) {
            add_group(nr, form, k, q, (const int[3]){r0, slot, d0 / 32}, acc, f);
            UNROLL
            for (int c = 0; c < SLOT_VECS; c++) {
                UNROLL
                for (int r = 0; r < nr; r++)
                    clear(acc[c][r]);
            }
        }
    }
    if (!groups) {
        store_scores(nr, form, k, q, r0, slot, acc, s);
        return;
    }
    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        UNROLL
        for (int r = 0; r < nr; r++)
            v_store(s + r * P64 + slot + c * W, f[c][r]);
    }
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* acc[r][0 .. nv * W) += weights of nr rows times channels from `at` on, of a block of w channels.
 */
INLINE void value_block(int nr, int nv, int kind, int form, const struct packed *v,
                        const struct ints *p, const int where[3], float *acc)
{
    const bool small = kind == U4 || kind == U2;
    const int w = where[1], per = kind == S8                 ? 64
                                  : kind == U4 || kind == T4 ? 32
                                  : kind == T3               ? 24
                                                             : 16;
    /* Eight pairs of a byte and a level of 4 bits fit 16 bits, of a whole code only four do. */
    const int every = form == BY_SPAN ? 1 : 2;
    const uint8_t *base = v->at + (size_t)(where[0] * per);
    const ivec bias = i_bytes(form == BY_SPAN ? 0 : 8);
    ivec acc32[2][PK_ROWS][SETS], table = i_zero();

    if (kind == T4 || kind == T3 || kind == T2)
        table = i_table(v->info->level);
    UNROLL
    for (int c = 0; c < nv; c++) {
        UNROLL
        for (int r = 0; r < nr; r++)
            clear(acc32[c][r]);
    }
    for (int step = 0; step < 4; step += every) {
        ivec sum[2][PK_ROWS][SETS];

        UNROLL
        for (int c = 0; c < nv; c++) {
            UNROLL
            for (int r = 0; r < nr; r++) {
                sum[c][r][0] = i_open(acc32[c][r][0], small);
                sum[c][r][SETS - 1] = i_open(acc32[c][r][SETS - 1], small);
            }
        }
        UNROLL
        for (int i = 0; i < every; i++) {
            UNROLL
            for (int c = 0; c < nv; c++) {
                size_t in = (size_t)(where[2] + c * W) * 4;
                ivec u[4];

                quads(kind, v, base + in, base + (size_t)w * 16 + in, step + i, (size_t)w * 4,
                      table, u);
                UNROLL
                for (int k = 0; k < 4 && kind == U4; k++)
                    u[k] = i_sub8(u[k], bias);
                dot_quads(kind, true, nr, p->word[0] + (step + i) * (kind == S8 ? 8 : 4), u,
                          sum[c]);
            }
        }
        UNROLL
        for (int c = 0; c < nv; c++) {
            UNROLL
            for (int r = 0; r < nr; r++) {
                acc32[c][r][0] = i_close(acc32[c][r][0], sum[c][r][0], small);
                if (SETS == 2)
                    acc32[c][r][SETS - 1] =
                        i_close(acc32[c][r][SETS - 1], sum[c][r][SETS - 1], small);
            }
        }
    }
    UNROLL
    for (int r = 0; r < nr; r++) {
        UNROLL
        for (int c = 0; c < nv; c++) {
            float *to = acc + (size_t)r * (size_t)v->D + where[0] + where[2] + c * W;
            vec x = v_fma(i_float(both(acc32[c][r])), v_set(p->scale[r]), v_load(to));

            v_store(to, form == BY_SPAN ? v_add(x, v_set(p->extra[r])) : x);
        }
    }
}

/* ---- rounding ---------------------------------------------------------------------------------
 */

/* n numbers of a row as integers of 8 bits, or 16 where codes have 8. */
INLINE void round_row(struct ints *o, int r, const float *x, int n, bool wide, bool has_sign)
{
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
            i_narrow16(o->word[r] + i / 2, x + i, v_set(inverse));
        else
            i_narrow8(o->word[r] + i / 4, x + i, v_set(inverse), has_sign);
    }
}

/* Queries of n rows, with the sums that offsets and zeros need. */
static void round_queries(struct ints *o, int n, const float *q, size_t stride, int D, bool wide)
{
    for (int r = 0; r < n; r++, q += stride) {
        const int8_t *byte = (const int8_t *)(const void *)o->word[r];

        round_row(o, r, q, D, wide, true);
        o->whole[r] = 0;
        for (int g = 0; 32 * g < D && !wide; g++) {
            int sum = 0;
            float plain = 0;

            for (int d = 32 * g; d < 32 * g + 32 && d < D; d++) {
                sum += byte[d];
                plain += q[d];
            }
            o->sum[r][g] = (float)sum;
            o->plain[r][g] = plain;
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
        o->extra[r] = v_sum(sum);
    }
}

/* Weights of one row times the scales of its slots (group g); wide: codes of 8 bits. */
INLINE void round_weights(struct ints *o, int r, const float *p, const struct packed *v, int form,
                          int g)
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
    round_row(o, r, x, P64, v->info->bits == 8, false);
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
            score_block(nr, kind, form, k, &turned, 0, slot, s);
        else
            score_block(nr, kind, form, k, q, r0, slot, s);
    }
}

INLINE void values_of(int nr, int kind, int form, const struct packed *v, const float *p,
                      float *acc)
{
    struct ints ints;

    for (int c = 0; c < v->D; c += 32) {
        int w = v->D - c < 32 ? v->D - c : 32, in = 0;

        for (int r = 0; r < nr && (c == 0 || form != BY_ROW); r++)
            round_weights(&ints, r, p + r * P64, v, form, c / 32);
        for (; in + SLOT_VECS * W <= w; in += SLOT_VECS * W)
            value_block(nr, SLOT_VECS, kind, form, v, &ints, (const int[3]){c, w, in}, acc);
        if (SLOT_VECS > 1 && in < w)
            value_block(nr, 1, kind, form, v, &ints, (const int[3]){c, w, in}, acc);
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

/* A half of page i; its codes end where its scales begin. */
static struct packed open_packed(const kept_attn_tile *a, int i, bool v)
{
    kept_codecs c = kept_tile_codec(a, i);
    int D = a->head_size, codec = v ? c.v : c.k, bits;
    size_t at = v ? kept_codec_half_bytes(c.k, false, D) : 0;
    const uint8_t *page = a->pool + (size_t)a->pages[i] * a->page_bytes, *next = a->next;
    struct packed h = {.at = page + at, .D = D, .info = kept_codec_get(codec)};

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
    if (!packed_scores[codec]) {
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
    struct rows rows = {q, s, sum, a->group};
    struct queries x = {.q = q, .turned = turned_q, .key = -1};
    bool turned = kept_codec_get(kept_tile_codec(a, 0).v)->rotated; /* zeros are both */

    begin_rows(a, &rows);
    for (int i = 0; i < a->n_pages; i++) {
        page_scores(a, i, &x, &rows, wide);
        for (int r = 0; r < rows.n; r++)
            weigh_row(a, i, r, &rows);
        turn_outputs(a, rows.n, kept_tile_codec(a, i).v, &turned);
        page_values(a, i, &rows, wide);
    }
    turn_outputs(a, rows.n, KEPT_F16, &turned);
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
