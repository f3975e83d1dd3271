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
#define STRIDE   ((WORDS + 2) * SPREAD) /* from row to row, odd in cache lines */

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
    ALIGNED int32_t word[MAX_ROWS][STRIDE]; /* each SPREAD times */
    ALIGNED int32_t flat[WORDS];            /* those of the last row, once */
    float scale[MAX_ROWS];
    float sum[MAX_ROWS][8];   /* of the integers of each 32 channels */
    float whole[MAX_ROWS];    /* of all integers */
    float plain[MAX_ROWS][8]; /* of the numbers themselves, per 32 channels */
    float extra[MAX_ROWS];    /* to be added to a row's scores */
};

/* Bytes of a step (16 channels, or 16 slots) of a row of 64 bytes, without the high bits of 3. */
#define STEP_BYTES(kind) ((kind) == S8 ? 256 : (kind) == U4 || (kind) == T4 ? 128 : 64)

/* The four quads (4 channels of slots, or 4 slots of channels) of a step: unsigned codes, or
 * levels. row: bytes from word to word; odd: of two steps, which share high bits, the second. */
INLINE void quads(int kind, const uint8_t *p, const uint8_t *high, size_t row, bool odd, ivec table,
                  ivec u[4])
{
    const ivec low4 = i_bytes(15), low2 = i_bytes(3);

    if (kind == S8) {
        UNROLL
        for (int i = 0; i < 4; i++, p += row)
            u[i] = i_load(p);
    } else if (kind == U4 || kind == T4) {
        ivec x = i_load(p), y = i_load(p + row);

        u[0] = i_and(x, low4);
        u[1] = i_and(i_shr(x, 4), low4);
        u[2] = i_and(y, low4);
        u[3] = i_and(i_shr(y, 4), low4);
    } else {
        ivec x = i_load(p);

        u[0] = i_and(x, low2);
        u[1] = i_and(i_shr(x, 2), low2);
        u[2] = i_and(i_shr(x, 4), low2);
        u[3] = i_and(i_shr(x, 6), low2);
    }
    if (kind == T3) {
        const ivec four = i_bytes(4);
        ivec x = i_load(high);

        x = odd ? i_shr(x, 4) : x;
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

/* Asks for n bytes of the next page, at most four lines: those of 8 bits would push the words out
 * of the first cache. */
INLINE void ask_bytes(int kind, const uint8_t *p, int n)
{
    UNROLL_4
    for (int i = 0; i == 0 || i < n; i += 64) {
        if (kind == S8)
            __builtin_prefetch(p + i, 0, 2);
        else
            __builtin_prefetch(p + i, 0, 3);
    }
}

/* sum[r] += words of rows times the quads of a step; word: of the first quad, one (S8: two) each.
 */
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
                const int32_t *w = word + r * STRIDE + 2 * i * SPREAD;

                sum[r][0] = i_dot16(sum[r][0], even, i_word(w));
                sum[r][SETS - 1] = i_dot16(sum[r][SETS - 1], odd, i_word(w + SPREAD));
            }
        } else {
            UNROLL
            for (int r = 0; r < nr; r++) {
                ivec w = i_word(word + r * STRIDE + i * SPREAD), *to = &sum[r][i % SETS];

                *to = signed_codes ? i_dot8(*to, w, u[i], small) : i_dot8(*to, u[i], w, small);
            }
        }
    }
}

/* Sums between i_open and i_close, of nr rows. */
INLINE void open_sums(int nr, bool small, ivec (*sum)[SETS], ivec (*acc)[SETS])
{
    UNROLL
    for (int r = 0; r < nr; r++) {
        sum[r][0] = i_open(acc[r][0], small);
        if (SETS == 2)
            sum[r][SETS - 1] = i_open(acc[r][SETS - 1], small);
    }
}
INLINE void close_sums(int nr, bool small, ivec (*sum)[SETS], ivec (*acc)[SETS])
{
    UNROLL
    for (int r = 0; r < nr; r++) {
        acc[r][0] = i_close(acc[r][0], sum[r][0], small);
        if (SETS == 2)
            acc[r][SETS - 1] = i_close(acc[r][SETS - 1], sum[r][SETS - 1], small);
    }
}
INLINE void clear_sums(int nr, ivec (*acc)[SETS])
{
    UNROLL
    for (int r = 0; r < nr; r++) {
        acc[r][0] = i_zero();
        acc[r][SETS - 1] = i_zero();
    }
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
INLINE void store_scores(int nr, int form, const struct packed *k, const struct ints *q,
                         const int where[2], ivec (*acc)[PK_ROWS][SETS], float *s)
{
    int r0 = where[0], slot = where[1];
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

/* The levels of a looked-up codec as unsigned numbers, 64 more. */
INLINE ivec high_levels(int kind, const kept_codec_info *info)
{
    int8_t levels[16] = {0};

    for (int i = 0; (kind == T4 || kind == T3 || kind == T2) && i < 1 << info->bits; i++)
        levels[i] = (int8_t)(info->level[i] + 64);
    return i_table(levels);
}

/* sum[c] += one step of channels for SLOT_VECS vectors of slots. at: the step's words of the first
 * slot's block, high bits likewise. */
INLINE void score_step(int nr, int kind, const struct packed *k, const uint8_t *const at[2],
                       const int32_t *word, const int where[2], ivec table,
                       ivec (*sum)[PK_ROWS][SETS])
{
    const int slot = where[0], odd = where[1], step = STEP_BYTES(kind);
    const int share = W < 16 ? step / 2 : step, part = slot % 16 ? step / 2 : 0;
    const size_t block = (size_t)(k->D / 16 * step), high = (size_t)((k->D + 31) / 32) * 64;

    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        const uint8_t *p = at[0] + (size_t)c * block;
        ivec u[4];

        ask_bytes(kind, p + k->ahead - slot % 16 * 4 + part, share);
        quads(kind, p, at[1] + (size_t)c * high, 64, odd, table, u);
        dot_quads(kind, false, nr, word, u, sum[c]);
    }
}

/* Scores of nr rows for slots [slot, slot + SLOT_VECS * W). */
INLINE void score_block(int nr, int kind, int form, const struct packed *k, const struct ints *q,
                        const int where[2], float *s)
{
    const bool small = kind == U4 || kind == U2, groups = form == BY_GROUP || form == BY_SPAN;
    const int D = k->D, r0 = where[0], slot = where[1], step = STEP_BYTES(kind);
    const size_t words = (kind == S8 ? 8 : 4) * SPREAD, block = (size_t)(slot / 16);
    const ivec table = high_levels(kind, k->info);
    const uint8_t *at[2] = {k->at + block * (size_t)(D / 16 * step) + slot % 16 * 4,
                            k->high + block * (size_t)((D + 31) / 32) * 64 + slot % 16 * 4};
    const int32_t *word = q->word[r0];
    ivec acc[SLOT_VECS][PK_ROWS][SETS], sum[SLOT_VECS][PK_ROWS][SETS];
    vec f[SLOT_VECS][PK_ROWS];

    UNROLL
    for (int c = 0; c < SLOT_VECS; c++) {
        clear_sums(nr, acc[c]);
        UNROLL
        for (int r = 0; r < nr; r++)
            f[c][r] = v_set(0);
    }
    for (int d = 0; d < D; d += 32, at[0] += 2 * step, at[1] += 64, word += 2 * words) {
        const uint8_t *const second[2] = {at[0] + step, at[1]};

        UNROLL
        for (int c = 0; c < SLOT_VECS; c++)
            open_sums(nr, small, sum[c], acc[c]);
        score_step(nr, kind, k, at, word, (const int[2]){slot, 0}, table, sum);
        if (d + 16 < D)
            score_step(nr, kind, k, second, word + words, (const int[2]){slot, 1}, table, sum);
        UNROLL
        for (int c = 0; c < SLOT_VECS; c++)
            close_sums(nr, small, sum[c], acc[c]);
        if (groups) {
            add_group(nr, form, k, q, (const int[3]){r0, slot, d / 32}, acc, f);
            UNROLL
            for (int c = 0; c < SLOT_VECS; c++)
                clear_sums(nr, acc[c]);
        }
    }
    if (!groups)
        store_scores(nr, form, k, q, where, acc, s);
    UNROLL
    for (int c = 0; c < SLOT_VECS && groups; c++) {
        UNROLL
        for (int r = 0; r < nr; r++)
            v_store(s + r * P64 + slot + c * W, f[c][r]);
    }
}

/* ---- outputs --------------------------------------------------------------------------------- */

/* acc[r][..] += weights of nr rows times nv vectors of channels. where: first channel of the block,
 * its width, first of these in it. */
INLINE void value_block(int nr, int nv, int kind, int form, const struct packed *v,
                        const struct ints *p, const int where[3], float *acc)
{
    const bool small = kind == U4 || kind == U2;
    const int w = where[1], step = STEP_BYTES(kind) / 16 * w, share = step * nv * W / w;
    /* Eight pairs of a byte and a level of 4 bits fit 16 bits, of a whole code only four do. */
    const int every = form == BY_SPAN ? 1 : 2;
    const uint8_t *at = v->at + where[0] * (kind == T3 ? 24 : STEP_BYTES(kind) / 4) + where[2] * 4;
    const uint8_t *high = at + w * 16;
    const uint8_t *next = at + v->ahead - where[2] * 4 + where[2] / (nv * W) * share;
    const ivec bias = i_bytes(form == BY_SPAN ? 0 : 8);
    const size_t words = (kind == S8 ? 8 : 4) * SPREAD;
    ivec acc32[2][PK_ROWS][SETS], sum[2][PK_ROWS][SETS], table = i_zero();

    if (kind == T4 || kind == T3 || kind == T2)
        table = i_table(v->info->level);
    UNROLL
    for (int c = 0; c < nv; c++)
        clear_sums(nr, acc32[c]);
    UNROLL
    for (int s = 0; s < 4; s++, at += step, next += step) {
        UNROLL
        for (int c = 0; c < nv; c++) {
            ivec u[4];

            if (s % every == 0)
                open_sums(nr, small, sum[c], acc32[c]);
            if (c == 0)
                ask_bytes(kind, next, share);
            quads(kind, at + c * W * 4, high + s / 2 * w * 4 + c * W * 4, (size_t)w * 4, s % 2,
                  table, u);
            UNROLL
            for (int k = 0; k < 4 && kind == U4; k++)
                u[k] = i_sub8(u[k], bias);
            dot_quads(kind, true, nr, p->word[0] + (size_t)s * words, u, sum[c]);
            if (s % every == every - 1)
                close_sums(nr, small, sum[c], acc32[c]);
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

#endif
