/* codec: packing and unpacking of page halves, in plain C. What levels have of their own for
 * packing gives the same bits (simd_pack.h). Codes are handled as bytes [64][D] on the way; words.c
 * lays them out.
 *
 * Rounding adds and subtracts 1.5 * 2^23, which rounds to even like the kernels do. */
#include "kern/codec.h"

#include "kern/codec_words.h"
#include "kern/impl.h"
#include "kern/lowrank_stands.h"
#include "kern/nuq.h"
#include "kern/slerp.h"

#include <math.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

const float kept_codec_lloyd_top[5] = {0, 0, 1.510f, 2.152f, 2.733f};

static bool is_float(int codec)
{
    return kept_codec_infos[codec].bits == 16;
}

static size_t n_scales(int codec, int head_size)
{
    const kept_codec_info *f = &kept_codec_infos[codec];
    size_t n = f->channel ? 2 * (size_t)head_size : f->grouped ? 2 * (size_t)head_size : P64;

    return is_float(codec) ? 0 : f->zero ? 2 * n : n;
}

/* ---- small things --------------------------------------------------------------------------- */

static inline float nearest(float x)
{
    return (x + 12582912.0f) - 12582912.0f;
}

/* Finite F16 range: what is beyond it has no scale. */
static inline float bounded(float x)
{
    return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x == x ? x : 0.0f;
}

/* x >= 0, rounded up or to nearest. */
static uint16_t bf16_of(float x, bool up)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return (uint16_t)((u + (up ? 0xffffu : 0x7fffu + (u >> 16 & 1))) >> 16);
}

/* Towards plus or minus infinity. */
static kept_f16 f16_toward(float x, bool up)
{
    kept_f16 h = kept_f32_to_f16(x);
    float y = kept_f16_to_f32(h);

    if (up ? y < x : y > x) {
        if (!(h & 0x7fff))
            h = up ? 1 : 0x8001;
        else
            h = (kept_f16)((h & 0x8000) == (up ? 0x8000 : 0) ? h - 1 : h + 1);
    }
    return h;
}

void kept_codec_turn(float *x, int head_size, bool back)
{
    int block = kept_codec_block(head_size);
    float scale = 1.0f / sqrtf((float)block);

    for (int d = 0; d < head_size; d++)
        x[d] *= back ? scale : scale * kept_codec_signs[d];
    for (int at = 0; at < head_size; at += block) {
        for (int n = 1; n < block; n *= 2) {
            for (int i = at; i < at + block; i += 2 * n) {
                for (int j = i; j < i + n; j++) {
                    float a = x[j], b = x[j + n];

                    x[j] = a + b;
                    x[j + n] = a - b;
                }
            }
        }
    }
    for (int d = 0; back && d < head_size; d++)
        x[d] *= kept_codec_signs[d];
}

/* ---- rows ----------------------------------------------------------------------------------- */

/* Codes of n values with a linear scale that is rounded up. */
static uint16_t encode_even(const float *x, int n, int top, int zero_code, uint8_t *code)
{
    float most = 0, inverse, scale;
    uint16_t bits;

    for (int d = 0; d < n; d++)
        most = fabsf(x[d]) > most ? fabsf(x[d]) : most;
    bits = bf16_of(most / (float)top, true);
    scale = kept_bf16_to_f32(bits);
    inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (int d = 0; d < n; d++) {
        float c = nearest(x[d] * inverse), t = (float)top;

        code[d] = (uint8_t)((int)(c > t ? t : c < -t ? -t : c) + zero_code);
    }
    return bits;
}

/* Codes of n values between their least and largest. */
static void encode_span(const float *x, int n, int top, uint8_t *code, uint16_t scale_zero[2])
{
    float low = x[0], high = x[0], scale, zero, inverse;

    for (int d = 1; d < n; d++) {
        low = x[d] < low ? x[d] : low;
        high = x[d] > high ? x[d] : high;
    }
    low += 0.0f; /* no -0, whichever zero came first */
    high += 0.0f;
    scale_zero[1] = f16_toward(low, false);
    zero = kept_f16_to_f32(scale_zero[1]);
    scale_zero[0] = f16_toward((high - zero) / (float)top, true);
    scale = kept_f16_to_f32(scale_zero[0]);
    inverse = scale > 0 ? 1.0f / scale : 0.0f;
    for (int d = 0; d < n; d++) {
        float c = nearest((x[d] - zero) * inverse);

        code[d] = (uint8_t)(c > (float)top ? (float)top : c < 0 ? 0.0f : c);
    }
}

/* Codes of a turned row by the nearest Lloyd-Max level. The scale starts from the row's standard
 * deviation and is then fitted to the codes by least squares, which costs nothing to read and is
 * better for rows that are not quite Gaussian. */
static uint16_t encode_lloyd(const float *x, int n, const kept_codec_info *f, uint8_t *code)
{
    int levels = 1 << f->bits;
    float sum = 0, unit, inverse, dot = 0, square = 0;

    for (int d = 0; d < n; d++)
        sum += x[d] * x[d];
    unit = sqrtf(sum / (float)n) * kept_codec_lloyd_top[f->bits] / 63.0f;
    inverse = unit > 0 ? 1.0f / unit : 0.0f;
    for (int d = 0; d < n; d++) {
        float y = x[d] * inverse;
        int c = 0;

        for (int i = 1; i < levels; i++)
            c += y > 0.5f * (float)(f->level[i - 1] + f->level[i]);
        code[d] = (uint8_t)c;
    }
    for (int d = 0; d < n; d++) {
        float level = f->level[code[d]];

        dot += x[d] * level;
        square += level * level;
    }
    return bf16_of(dot > 0 ? dot / square : 0.0f, false);
}

/* Codes of one row and its scales, which lie in column `slot` of sc. x is destroyed. */
static void encode_row(int codec, int D, float *x, uint8_t *code, uint16_t *sc)
{
    const kept_codec_info *f = &kept_codec_infos[codec];
    int top = (1 << (f->bits - 1)) - 1, groups = D / 32;

    for (int d = 0; d < D; d++)
        x[d] = bounded(x[d]);
    if (f->rotated)
        kept_codec_turn(x, D, false);
    if (f->zero) {
        for (int g = 0; g < groups; g++) {
            uint16_t sz[2];

            encode_span(x + 32 * g, 32, (1 << f->bits) - 1, code + 32 * g, sz);
            sc[g * P64] = sz[0];
            sc[(groups + g) * P64] = sz[1];
        }
    } else if (f->grouped) {
        for (int g = 0; g < groups; g++)
            sc[g * P64] = encode_even(x + 32 * g, 32, top, 8, code + 32 * g);
    } else if (f->level && f->level != kept_codec_even4) {
        *sc = encode_lloyd(x, D, f, code);
    } else {
        *sc = encode_even(x, D, top, f->level ? 8 : 0, code);
    }
}

/* Values of one row, still turned. */
static void decode_row(int codec, int D, const uint8_t *code, const uint16_t *sc, float *x)
{
    const kept_codec_info *f = &kept_codec_infos[codec];
    int n = f->grouped ? 32 : D;

    for (int at = 0, g = 0; at < D; at += n, g++) {
        uint16_t s = sc[g * P64];
        float scale = f->zero ? kept_f16_to_f32(s) : kept_bf16_to_f32(s);
        float zero = f->zero ? kept_f16_to_f32(sc[(D / 32 + g) * P64]) : 0.0f;

        for (int d = at; d < at + n; d++)
            x[d] = (float)(f->level ? f->level[code[d]] : (int8_t)code[d]) * scale + zero;
    }
}

static void encode_channels(int codec, int D, float *x, uint8_t *code, uint16_t *sc)
{
    int top = (1 << kept_codec_infos[codec].bits) - 1;

    for (int i = 0; i < P64 * D; i++)
        x[i] = bounded(x[i]);
    for (int h = 0; h < 2; h++) {
        for (int d = 0; d < D; d++) {
            uint16_t sz[2];
            uint8_t c[32];
            float y[32];

            for (int s = 0; s < 32; s++)
                y[s] = x[(32 * h + s) * D + d];
            encode_span(y, 32, top, c, sz);
            for (int s = 0; s < 32; s++)
                code[(32 * h + s) * D + d] = c[s];
            sc[h * D + d] = sz[0];
            sc[(2 + h) * D + d] = sz[1];
        }
    }
}

static void decode_channels(int D, const uint8_t *code, const uint16_t *sc, float *x)
{
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++)
            x[s * D + d] = (float)code[s * D + d] * kept_f16_to_f32(sc[s / 32 * D + d]) +
                           kept_f16_to_f32(sc[(2 + s / 32) * D + d]);
}

/* ---- halves ---------------------------------------------------------------------------------- */

/* Element of an F16 or bf16 half. */
static size_t element(bool v, int D, int s, int d)
{
    int c = d / 64 * 64;

    if (!v)
        return kept_k_at(D, s) + (size_t)d * 32;
    return (size_t)P64 * (size_t)c + (size_t)(s * kept_v_width(D, c) + d - c);
}

static uint16_t *scales_of(uint8_t *half, int codec, bool v, int D)
{
    return (uint16_t *)(void *)(half + kept_words_bytes(kept_codec_infos[codec].bits, v, D));
}

/* x[64][D] of a half, still turned. */
static void decode_half(const uint8_t *half, int codec, bool v, int D, float *x)
{
    uint8_t code[P64 * KEPT_MAX_HEAD_SIZE];
    const uint16_t *sc = scales_of((uint8_t *)(uintptr_t)half, codec, v, D);

    if (is_float(codec)) {
        const uint16_t *from = (const uint16_t *)(const void *)half;
        const int n = kept_codec_channels(codec, D);
        const uint8_t *at = n < D ? kept_codec_channels_of(half, codec, D) : NULL;

        if (at)
            memset(x, 0, (size_t)(P64 * D) * sizeof *x);
        for (int s = 0; s < P64; s++)
            for (int d = 0; d < n; d++) {
                uint16_t h = from[element(v, n, s, d)];

                x[s * D + (at ? at[d] : d)] =
                    codec == KEPT_BF16 ? kept_bf16_to_f32(h) : kept_f16_to_f32(h);
            }
        return;
    }
    kept_words_load(code, half, kept_codec_infos[codec].bits, v, D);
    if (kept_codec_infos[codec].channel)
        decode_channels(D, code, sc, x);
    for (int s = 0; s < P64 && !kept_codec_infos[codec].channel; s++)
        decode_row(codec, D, code + s * D, sc + s, x + s * D);
}

/* Of x[64][D], which is destroyed. */
static void encode_half(uint8_t *half, int codec, bool v, int D, float *x)
{
    uint8_t code[P64 * KEPT_MAX_HEAD_SIZE];
    uint16_t *sc = scales_of(half, codec, v, D);

    if (kept_codec_infos[codec].channel)
        encode_channels(codec, D, x, code, sc);
    for (int s = 0; s < P64 && !kept_codec_infos[codec].channel; s++)
        encode_row(codec, D, x + s * D, code + s * D, sc + s);
    kept_words_store(half, code, kept_codec_infos[codec].bits, v, D);
}

/* One number as the float codecs store it. */
static uint16_t float_bits(int codec, float x)
{
    float y = bounded(x);

    if (codec == KEPT_BF16)
        return (uint16_t)(bf16_of(fabsf(y), false) | (y < 0 ? 0x8000 : 0));
    return kept_f32_to_f16(codec == KEPT_F16 ? x : y);
}

/* The channels of x[64][D] with the largest sums of squares. */
static void choose_channels(const float *x, int D, int n, uint8_t *out)
{
    double sum[KEPT_MAX_HEAD_SIZE] = {0};

    for (int i = 0; i < P64 * D; i++)
        sum[i % D] += (double)bounded(x[i]) * (double)bounded(x[i]);
    kept_codec_choose(sum, D, n, out);
}

static void encode_floats(uint8_t *half, int codec, bool v, int D, const float *x,
                          const uint8_t *channels)
{
    const int n = kept_codec_channels(codec, D);
    uint16_t *to = (uint16_t *)(void *)half;
    uint8_t *at = n < D ? half + (size_t)(2 * P64) * (size_t)n : NULL;

    if (at)
        memset(at, 0, ((size_t)n + 63) / 64 * 64);
    if (at && channels)
        memcpy(at, channels, (size_t)n);
    else if (at)
        choose_channels(x, D, n, at);
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < n; d++)
            to[element(v, n, s, d)] = float_bits(codec, x[s * D + (at ? at[d] : d)]);
}

/* A half from x[64][D] of each of n layers, which are destroyed. */
static void pack_half(kept_packed to, bool v, int n, const kept_low *const *low, float *x)
{
    float c[P64 * KEPT_MAX_HEAD_SIZE];
    int codec = v ? to.c.v : to.c.k, D = to.head_size;
    uint8_t *at = to.at + (v ? kept_codec_half_bytes(to.c.k, false, D) : 0);

    if (kept_codec_infos[codec].nuq) {
        kept_nuq_pack(at, codec, v, to, x);
        return;
    }
    if (kept_codec_infos[codec].basis) {
        const int r = kept_codec_channels(codec, D);

        memset(c, 0, (size_t)(P64 * r) * sizeof *c);
        for (int i = 0; i < n; i++)
            kept_low_project(low[i], codec, v, to.pos, D, x + (size_t)i * (size_t)(P64 * D), c);
        codec = kept_codec_infos[codec].inner;
        D = r;
        x = c;
        if (codec == KEPT_F16) {
            kept_low_store(at, v, r, c);
            return;
        }
    }
    if (is_float(codec))
        encode_floats(at, codec, v, D, x, to.channels);
    else
        encode_half(at, codec, v, D, x);
}

/* Values and keys that are no numbers would be everywhere once they are projected. */
static void bound_all(float *x, int n)
{
    for (int i = 0; i < n; i++)
        x[i] = bounded(x[i]);
}

void kept_codec_pack_joint(kept_packed to, int n, const kept_low *const *low,
                           const uint8_t *const *f16)
{
    float x[KEPT_JOINT_LAYERS * P64 * KEPT_MAX_HEAD_SIZE];
    void (*get)(const uint8_t *, int, int, int, float *, float *) = kept_kern_get(NULL)->get;
    const int D = to.head_size;

    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < n; i++)
            get(f16[i], D, 0, P64, v ? NULL : x + i * P64 * D, v ? x + i * P64 * D : NULL);
        bound_all(x, n * P64 * D);
        if (kept_codec_infos[to.c.k].slerp)
            kept_slerp_pack(to.at + (v ? kept_slerp_bytes(D) : 0), v, D, x, x + P64 * D);
        else
            pack_half(to, v, n, low, x);
    }
}

void kept_codec_pack_by(const kept_kern *kern, kept_packed to, const uint8_t *f16)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];
    int D = to.head_size;
    size_t half = kept_page_bytes(D) / 2;

    for (int v = 0; v < 2; v++) {
        const int codec = v ? to.c.v : to.c.k;
        uint8_t *at = to.at + (v ? kept_codec_half_bytes(to.c.k, false, D) : 0);

        if (codec == KEPT_F16) {
            memcpy(at, f16 + (v ? half : 0), half);
            continue;
        }
        if (kern->pack && kern->pack(at, f16 + (v ? half : 0), codec, v, D))
            continue;
        kern->get(f16, D, 0, P64, v ? NULL : x, v ? x : NULL);
        if (kept_codec_infos[codec].basis)
            bound_all(x, P64 * D);
        pack_half(to, v, 1, &to.low, x);
    }
}

void kept_codec_pack(kept_packed to, const uint8_t *f16)
{
    kept_codec_pack_by(kept_kern_get(NULL), to, f16);
}

static void read_half(kept_packed p, bool v, float *x)
{
    int codec = v ? p.c.v : p.c.k, D = p.head_size;
    const uint8_t *at = p.at + (v ? kept_codec_half_bytes(p.c.k, false, D) : 0);

    if (kept_codec_infos[codec].slerp) {
        kept_slerp_read(at, v, D, p.layer % 2, x);
        return;
    }
    if (kept_codec_infos[codec].nuq) {
        kept_nuq_read(at, codec, v, p, x);
        return;
    }
    if (kept_codec_infos[codec].basis) {
        float c[P64 * KEPT_MAX_HEAD_SIZE];

        decode_half(at, kept_codec_infos[codec].inner, v, kept_codec_channels(codec, D), c);
        kept_low_expand(p.low, codec, v, p.pos, D, c, x);
        return;
    }
    decode_half(at, codec, v, D, x);
    for (int s = 0; s < P64 && kept_codec_infos[codec].rotated; s++)
        kept_codec_turn(x + s * D, D, true);
}

void kept_codec_unpack(uint8_t *f16, kept_packed from)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];
    int D = from.head_size;

    for (int v = 0; v < 2; v++) {
        read_half(from, v, x);
        encode_floats(f16 + (v ? kept_page_bytes(D) / 2 : 0), KEPT_F16, v, D, x, NULL);
    }
}

/* One row of a half that has rows of its own and nothing else. False: of another. */
static bool read_row(const kept_packed *p, bool v, int slot, float *x)
{
    const int codec = v ? p->c.v : p->c.k, D = p->head_size;
    uint8_t *half = p->at + (v ? kept_codec_half_bytes(p->c.k, false, D) : 0);
    uint8_t code[KEPT_MAX_HEAD_SIZE];

    if (codec > KEPT_TOK2)
        return false;
    for (int d = 0; d < D && is_float(codec); d++) {
        const uint16_t h = ((const uint16_t *)(const void *)half)[element(v, D, slot, d)];

        x[d] = codec == KEPT_BF16 ? kept_bf16_to_f32(h) : kept_f16_to_f32(h);
    }
    if (is_float(codec))
        return true;
    kept_words_get(code, half, kept_codec_infos[codec].bits, v, D, slot);
    decode_row(codec, D, code, scales_of(half, codec, v, D) + slot, x);
    if (kept_codec_infos[codec].rotated)
        kept_codec_turn(x, D, true);
    return true;
}

void kept_codec_read(kept_packed p, int slot0, int n, float *k, float *v)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];
    size_t D = (size_t)p.head_size;

    if (n == 1 && k && read_row(&p, false, slot0, k))
        k = NULL;
    if (n == 1 && v && read_row(&p, true, slot0, v))
        v = NULL;
    if (k) {
        read_half(p, false, x);
        memcpy(k, x + (size_t)slot0 * D, (size_t)n * D * sizeof *x);
    }
    if (v) {
        read_half(p, true, x);
        memcpy(v, x + (size_t)slot0 * D, (size_t)n * D * sizeof *x);
    }
}

void kept_codec_widen(float *to, const uint8_t *half, int codec, bool v, int D)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];

    decode_half(half, codec, v, D, x);
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++)
            to[element(v, D, s, d)] = x[s * D + d];
}

/* ---- single rows ------------------------------------------------------------------------------
 */

static void put_half(uint8_t *half, int codec, bool v, const kept_packed *p, int slot,
                     const float *from)
{
    uint8_t code[KEPT_MAX_HEAD_SIZE];
    float x[KEPT_MAX_HEAD_SIZE];
    int D = p->head_size;

    memcpy(x, from, (size_t)D * sizeof *x);
    if (kept_codec_infos[codec].nuq) {
        kept_nuq_put(half, codec, v, *p, slot, x);
        return;
    }
    if (kept_codec_infos[codec].basis) {
        bound_all(x, D);
        kept_low_project_row(p->low, codec, v, p->pos ? p->pos[slot] : 0, D, x);
        D = kept_codec_channels(codec, D);
        codec = kept_codec_infos[codec].inner;
    }
    if (is_float(codec)) {
        uint16_t *to = (uint16_t *)(void *)half;
        const int n = kept_codec_channels(codec, D);
        const uint8_t *at = n < D ? kept_codec_channels_of(half, codec, D) : NULL;

        for (int d = 0; d < n; d++)
            to[element(v, n, slot, d)] = float_bits(codec, x[at ? at[d] : d]);
        return;
    }
    encode_row(codec, D, x, code, scales_of(half, codec, v, D) + slot);
    kept_words_put(half, code, kept_codec_infos[codec].bits, v, D, slot);
}

void kept_codec_put(kept_packed p, int slot, const float *k, const float *v)
{
    if (k)
        put_half(p.at, p.c.k, false, &p, slot, k);
    if (v)
        put_half(p.at + kept_codec_half_bytes(p.c.k, false, p.head_size), p.c.v, true, &p, slot, v);
}

static void move_half(uint8_t *to, int dst, const uint8_t *from, int src, int codec, bool v, int D)
{
    uint8_t code[KEPT_MAX_HEAD_SIZE];
    uint16_t *st = scales_of(to, codec, v, D);
    const uint16_t *sf = scales_of((uint8_t *)(uintptr_t)from, codec, v, D);

    if (kept_codec_infos[codec].basis) {
        move_half(to, dst, from, src, kept_codec_infos[codec].inner, v,
                  kept_codec_channels(codec, D));
        return;
    }
    if (is_float(codec)) {
        const int n = kept_codec_channels(codec, D);

        for (int d = 0; d < n; d++)
            ((uint16_t *)(void *)to)[element(v, n, dst, d)] =
                ((const uint16_t *)(const void *)from)[element(v, n, src, d)];
        return;
    }
    kept_words_get(code, from, kept_codec_infos[codec].bits, v, D, src);
    kept_words_put(to, code, kept_codec_infos[codec].bits, v, D, dst);
    for (size_t i = 0; i < n_scales(codec, D); i += P64)
        st[i + (size_t)dst] = sf[i + (size_t)src];
}

void kept_codec_move(kept_packed to, int dst, kept_packed from, int src)
{
    const size_t half = kept_codec_half_bytes(to.c.k, false, to.head_size);

    for (int v = 0; v < 2; v++) {
        const int codec = v ? to.c.v : to.c.k;
        const size_t at = v ? half : 0;

        if (kept_codec_infos[codec].nuq)
            kept_nuq_move(to, dst, from, src, v);
        else
            move_half(to.at + at, dst, from.at + at, src, codec, v, to.head_size);
    }
}
