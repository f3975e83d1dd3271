/* kern, inside: packs a half of an F16 page with the bits that codec.c gives it, included by the
 * file of a level after its primitives (vec, ivec, v_*, i_*, W).
 *
 * The lanes of a vector are slots, so what codec.c does number after number of a row is done in its
 * order: W rows at once, channel after channel, without a sum across lanes and without fused
 * products. Codes go to bytes, channel by channel [D][64], and from there into words. */
#ifndef KERN_SIMD_PACK_H
#define KERN_SIMD_PACK_H

#include "kern/codec_words.h"

#define P64     KEPT_PAGE_SLOTS
#define MOST_D  KEPT_MAX_HEAD_SIZE
#define ALIGNED __attribute__((aligned(64)))

/* W slots on their way. */
struct pack {
    ALIGNED float x[MOST_D * W]; /* [D][W] */
    uint8_t *code;               /* [D][64], of these slots */
    uint16_t *scale;             /* where those of the first of them are */
    const kept_codec_info *info;
    int D;
};

/* ---- numbers --------------------------------------------------------------------------------- */

/* Eight channels of eight slots, rows of `row` numbers, to vectors of slots at to + W i. */
INLINE void turn_over(const kept_f16 *from, int row, float *to)
{
    __m256 r[8];

    UNROLL
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + i * row)));
    turn_square(r, to, W);
}

/* Slots [s, s + W) of a half. */
INLINE void load_slots(struct pack *p, const kept_f16 *half, bool v, int s)
{
    const int D = p->D;

    for (int d = 0; !v && d < D; d++)
        v_store(p->x + d * W, v_wide(half + (size_t)(s / 32 * D + d) * 32 + s % 32));
    for (int c = 0; v && c < D; c += 64) {
        const int w = kept_v_width(D, c);

        for (int d = 0; d < w; d += 8)
            for (int i = 0; i < W; i += 8)
                turn_over(half + P64 * c + (s + i) * w + d, w, p->x + (c + d) * W + i);
    }
    for (int d = 0; d < D; d++)
        v_store(p->x + d * W, v_bounded(v_load(p->x + d * W)));
}

/* kept_codec_turn, two steps at a time. */
static void turn_slots(struct pack *p)
{
    const int block = kept_codec_block(p->D);
    const float scale = 1.0f / __builtin_sqrtf((float)block);
    int n = 1;

    for (int d = 0; d < p->D; d++)
        v_store(p->x + d * W, v_mul(v_load(p->x + d * W), v_set(scale * kept_codec_signs[d])));
    for (; 2 * n < block; n *= 4)
        for (int i = 0; i < p->D; i += 4 * n)
            for (int j = i; j < i + n; j++) {
                float *at = p->x + j * W;
                const vec a = v_load(at), b = v_load(at + n * W);
                const vec c = v_load(at + 2 * n * W), d = v_load(at + 3 * n * W);
                const vec ab = v_add(a, b), a_b = v_sub(a, b), cd = v_add(c, d), c_d = v_sub(c, d);

                v_store(at, v_add(ab, cd));
                v_store(at + n * W, v_add(a_b, c_d));
                v_store(at + 2 * n * W, v_sub(ab, cd));
                v_store(at + 3 * n * W, v_sub(a_b, c_d));
            }
    for (int i = 0; n < block && i < p->D; i += 2 * n)
        for (int j = i; j < i + n; j++) {
            float *at = p->x + j * W;
            const vec a = v_load(at), b = v_load(at + n * W);

            v_store(at, v_add(a, b));
            v_store(at + n * W, v_sub(a, b));
        }
}

/* ---- codes ----------------------------------------------------------------------------------- */

INLINE vec nearest(vec x)
{
    const vec magic = v_set(12582912.0f);

    return v_sub(v_add(x, magic), magic);
}

/* Channels [d0, d0 + n) with one linear scale. */
INLINE void even_codes(struct pack *p, int d0, int n, int top, int zero_code, uint16_t *scale)
{
    const vec most_code = v_set((float)top), least_code = v_set((float)-top);
    vec most = v_set(0), inverse;
    ivec bits;

    for (int d = d0; d < d0 + n; d++)
        most = v_max(v_abs(v_load(p->x + d * W)), most);
    bits = i_high(i_add(i_bits(v_div(most, most_code)), i_set(0xffff)));
    i_store16(scale, bits);
    inverse = v_inverse(v_of_high(bits));
    for (int d = d0; d < d0 + n; d++) {
        vec c = nearest(v_mul(v_load(p->x + d * W), inverse));

        c = v_max(v_min(c, most_code), least_code);
        i_store8(p->code + d * P64, i_add(i_of(c), i_set(zero_code)));
    }
}

/* Channels [d0, d0 + n) between their least and their largest. */
INLINE void span_codes(struct pack *p, int d0, int n, int top, uint16_t *scale, uint16_t *zero)
{
    vec low = v_load(p->x + d0 * W), high = low, base, inverse;

    for (int d = d0 + 1; d < d0 + n; d++) {
        low = v_min(v_load(p->x + d * W), low);
        high = v_max(v_load(p->x + d * W), high);
    }
    low = v_add(low, v_set(0)); /* no -0 */
    high = v_add(high, v_set(0));
    v_narrow_down(zero, low);
    base = v_wide(zero);
    v_narrow_up(scale, v_div(v_sub(high, base), v_set((float)top)));
    inverse = v_inverse(v_wide(scale));
    for (int d = d0; d < d0 + n; d++) {
        vec c = nearest(v_mul(v_sub(v_load(p->x + d * W), base), inverse));

        c = v_max(v_min(c, v_set((float)top)), v_set(0));
        i_store8(p->code + d * P64, i_of(c));
    }
}

/* Nearest Lloyd-Max levels, which are the same on both sides of 0: a number's side, and how many of
 * the bounds between levels on that side are below its size. On the negative side a bound itself
 * belongs to the lower level, so sizes count as one bit more there. */
INLINE void lloyd_codes(int bits, struct pack *p, float top_level)
{
    enum { MOST = 8 };
    const int half = 1 << (bits - 1), D = p->D;
    const int8_t *level = p->info->level + half;
    ivec bound[MOST];
    vec sum = v_set(0), dot = sum, square = sum, inverse;
    float size[16] = {0};

    for (int i = 0; i < half; i++)
        size[i] = level[i];
    UNROLL
    for (int i = 1; i < half; i++)
        bound[i] = i_bits(v_set(0.5f * (size[i - 1] + size[i])));
    const vec sizes = v_table(size);
    for (int d = 0; d < D; d++) {
        const vec y = v_load(p->x + d * W);

        sum = v_add(sum, v_mul(y, y));
    }
    sum = v_sqrt(v_div(sum, v_set((float)D)));
    inverse = v_inverse(v_div(v_mul(sum, v_set(top_level)), v_set(63.0f)));
    for (int d = 0; d < D; d++) {
        const vec x = v_load(p->x + d * W), y = v_mul(x, inverse);
        const ivec below = i_not_positive(y), at = i_sub(i_bits(v_abs(y)), below);
        ivec m = i_set(0);
        vec z;

        UNROLL
        for (int i = 1; i < half; i++)
            m = i_count(m, at, bound[i]);
        z = v_signed(v_look(sizes, m), below);
        i_store8(p->code + d * P64, i_add(i_xor(m, below), i_set(half)));
        dot = v_add(dot, v_mul(x, z));
        square = v_add(square, v_mul(z, z));
    }
    i_store16(p->scale, i_nearest_high(v_if_positive(dot, v_div(dot, square))));
}

/* Rows of W slots. */
INLINE void encode_slots(struct pack *p, int codec)
{
    const kept_codec_info *f = p->info;
    const int groups = p->D / 32;

    if (f->rotated)
        turn_slots(p);
    for (int g = 0; f->grouped && g < groups; g++) {
        uint16_t *scale = p->scale + g * P64;

        if (f->zero)
            span_codes(p, 32 * g, 32, (1 << f->bits) - 1, scale, scale + groups * P64);
        else
            even_codes(p, 32 * g, 32, 7, 8, scale);
    }
    if (f->grouped)
        return;
    if (codec == KEPT_ROT4)
        lloyd_codes(4, p, kept_codec_lloyd_top[4]);
    else if (codec == KEPT_ROT3)
        lloyd_codes(3, p, kept_codec_lloyd_top[3]);
    else if (codec == KEPT_ROT2)
        lloyd_codes(2, p, kept_codec_lloyd_top[2]);
    else if (codec == KEPT_Q4)
        even_codes(p, 0, p->D, 7, 8, p->scale);
    else
        even_codes(p, 0, p->D, 127, 0, p->scale);
}

/* Keys with scales per channel of 32 slots, [2][D] scales, then zeros; code [D][64]. */
static void encode_channels(const kept_f16 *half, int D, int top, uint8_t *code, uint16_t *scale)
{
    for (int i = 0; i < 2 * D; i++) {
        const int h = i / D, d = i % D;
        ALIGNED uint16_t sz[2][W];
        vec x[32 / W], low, high, base, inverse;

        UNROLL
        for (int k = 0; k < 32 / W; k++)
            x[k] = v_bounded(v_wide(half + 32 * i + k * W));
        low = high = x[0];
        UNROLL
        for (int k = 1; k < 32 / W; k++) {
            low = v_min(x[k], low);
            high = v_max(x[k], high);
        }
        low = v_add(v_set(v_least(low)), v_set(0)); /* no -0 */
        high = v_add(v_set(v_most(high)), v_set(0));
        v_narrow_down(sz[1], low);
        base = v_wide(sz[1]);
        v_narrow_up(sz[0], v_div(v_sub(high, base), v_set((float)top)));
        inverse = v_inverse(v_wide(sz[0]));
        scale[h * D + d] = sz[0][0];
        scale[(2 + h) * D + d] = sz[1][0];
        UNROLL
        for (int k = 0; k < 32 / W; k++) {
            vec c = nearest(v_mul(v_sub(x[k], base), inverse));

            c = v_max(v_min(c, v_set((float)top)), v_set(0));
            i_store8(code + d * P64 + 32 * h + k * W, i_of(c));
        }
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

/* 16 slots of byte j of a word of K: channels d + j, d + 4 + j, ... in fields of p. */
INLINE __m128i byte_of(const kept_plane *p, const uint8_t *code, int D, int d)
{
    const __m128i mask = _mm_set1_epi8((char)((1 << p->bits) - 1));
    const __m128i down = _mm_cvtsi32_si128(p->shift);
    __m128i x = _mm_setzero_si128();

    for (int i = 0; i * p->bits < 8 && d + 4 * i < D; i++) {
        __m128i y = _mm_loadu_si128((const __m128i *)(const void *)(code + (d + 4 * i) * P64));

        y = _mm_and_si128(_mm_srl_epi16(y, down), mask);
        x = _mm_or_si128(x, _mm_sll_epi16(y, _mm_cvtsi32_si128(i * p->bits)));
    }
    return x;
}

static void store_k_words(const kept_plane *p, const uint8_t *code, int D)
{
    for (int s = 0; s < P64; s += 16) {
        uint8_t *to = p->base + (size_t)(s / 16) * p->block_step;

        for (int d = 0; d < D; d += 32 / p->bits, to += 64) {
            __m128i b[4], c[4];

            for (int j = 0; j < 4; j++)
                b[j] = byte_of(p, code + s, D, d + j);
            c[0] = _mm_unpacklo_epi8(b[0], b[1]);
            c[1] = _mm_unpackhi_epi8(b[0], b[1]);
            c[2] = _mm_unpacklo_epi8(b[2], b[3]);
            c[3] = _mm_unpackhi_epi8(b[2], b[3]);
            for (int j = 0; j < 2; j++) {
                __m128i *at = (__m128i *)(void *)(to + 32 * j);

                _mm_storeu_si128(at, _mm_unpacklo_epi16(c[j], c[2 + j]));
                _mm_storeu_si128(at + 1, _mm_unpackhi_epi16(c[j], c[2 + j]));
            }
        }
    }
}

static void store_v_words(const kept_plane *p, const uint8_t *code, int D)
{
    const int per = 8 / p->bits;
    const uint32_t mask = 0x01010101u * (uint32_t)((1 << p->bits) - 1);

    for (int d = 0; d < D; d++) {
        const int c = d / 32 * 32, w = D - c < 32 ? D - c : 32;
        uint8_t *to = p->base + (size_t)c * p->block_step + (size_t)w * p->at + (d - c) * 4;

        for (int s = 0; s < P64; s += 4 * per, to += w * 4) {
            uint32_t x = 0;

            for (int i = 0; i < per; i++) {
                uint32_t y;

                memcpy(&y, code + d * P64 + s + 4 * i, sizeof y);
                x |= (y >> p->shift & mask) << i * p->bits;
            }
            memcpy(to, &x, sizeof x);
        }
    }
}

/* ---- a half ---------------------------------------------------------------------------------- */

static bool pack_half(uint8_t *half, const uint8_t *f16, int codec, bool v, int D)
{
    ALIGNED uint8_t code[MOST_D * P64];
    const kept_codec_info *f = kept_codec_get(codec);
    struct pack p;
    const kept_f16 *from = (const kept_f16 *)(const void *)f16;
    uint16_t *scale = (uint16_t *)(void *)(half + kept_words_bytes(f->bits, v, D));
    kept_plane plane[2];

    if (codec < KEPT_Q8 || codec > KEPT_CHAN2)
        return false;
    p.info = f;
    p.D = D;
    if (f->channel)
        encode_channels(from, D, (1 << f->bits) - 1, code, scale);
    for (int s = 0; s < P64 && !f->channel; s += W) {
        p.code = code + s;
        p.scale = scale + s;
        load_slots(&p, from, v, s);
        encode_slots(&p, codec);
    }
    for (int i = kept_words_planes(plane, half, f->bits, v, D) - 1; i >= 0; i--) {
        if (v)
            store_v_words(&plane[i], code, D);
        else
            store_k_words(&plane[i], code, D);
    }
    return true;
}

#endif
