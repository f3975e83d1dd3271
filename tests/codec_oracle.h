/* How the tests of packed pages read one: codes and scales by the layout stated in codec.h, rows
 * turned back with a Hadamard matrix written out, all in double. */
#ifndef TESTS_CODEC_ORACLE_H
#define TESTS_CODEC_ORACLE_H

#include "kern/kern.h"
#include "test.h"

/* Number `d` of slot `s` in a plane of `bits`: V planes lie at `in` bytes a channel of a block of
 * `per` bytes a channel. */
static int field(const uint8_t *plane, int bits, bool v, const int at[3], int in, int per)
{
    int D = at[0], s = at[1], d = at[2], c = d / 32 * 32, w = D - c < 32 ? D - c : 32;
    int n = 32 / bits, along = v ? s : d, word = along / n, shift = along % n / 4 * bits;

    if (v)
        plane += c * per + in * w + word * w * 4 + (d - c) * 4 + s % 4;
    else
        plane += s / 16 * ((D + n - 1) / n * 64) + word * 64 + s % 16 * 4 + d % 4;
    return *plane >> shift & ((1 << bits) - 1);
}

static int code_of(const uint8_t *half, int bits, bool v, int D, int s, int d)
{
    const int at[3] = {D, s, d};

    if (bits != 3)
        return field(half, bits, v, at, 0, 8 * bits);
    return field(half, 2, v, at, 0, 24) |
           field(v ? half : half + 4 * (D / 16) * 64, 1, v, at, 16, 24) << 2;
}

static double f16_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);

    return h & 0x8000 ? -x : x;
}
static double bf16_value(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;

    memcpy(&f, &u, 4);
    return f;
}

/* Lloyd-Max levels (Max 1960), as integers of 63 parts of the largest. */
static double lloyd(int bits, int code)
{
    static const double l2[] = {.453, 1.510}, l3[] = {.245, .756, 1.344, 2.152};
    static const double l4[] = {.128, .388, .657, .942, 1.256, 1.618, 2.069, 2.733};
    const double *l = bits == 2 ? l2 : bits == 3 ? l3 : l4;
    int half = 1 << (bits - 1), i = code >= half ? code - half : half - 1 - code;
    double x = nearbyint(63 * l[i] / l[half - 1]);

    return code >= half ? x : -x;
}

static double level_of(int codec, int code)
{
    switch (codec) {
    case KEPT_Q8:
        return code < 128 ? code : code - 256;
    case KEPT_Q4:
    case KEPT_Q4G:
        return code - 8;
    case KEPT_ROT4:
    case KEPT_ROT3:
    case KEPT_ROT2:
        return lloyd(kept_codec_get(codec)->bits, code);
    default:
        return code;
    }
}

/* x[D] in the basis it is stored in. scale and zero: those of the number, for error bounds. */
static double stored(const uint8_t *half, int codec, bool v, const int at[3], double *step)
{
    int D = at[0], s = at[1], d = at[2], bits = kept_codec_get(codec)->bits, g = d / 32;
    size_t codes = bits == 3 ? (v ? (size_t)D * 24 : (size_t)(4 * (D / 16 + (D + 31) / 32) * 64))
                             : (size_t)(64 * D * bits / 8);
    const uint16_t *sc = (const uint16_t *)(const void *)(half + codes), *el = (const void *)half;
    int c = d / 64 * 64, w = D - c < 64 ? D - c : 64;

    if (codec >= KEPT_THIN75) { /* three, two, one quarter of the channels, then which */
        int n = D * (KEPT_THIN25 - codec + 1) / 4, i = 0;
        const uint8_t *list = half + 128 * n;

        while (i < n && list[i] != d)
            i++;
        *step = 0;
        return i < n ? f16_value(el[(s / 32 * n + i) * 32 + s % 32]) : 0;
    }
    if (bits == 16) {
        uint16_t h = el[v ? 64 * c + s * w + d - c : (s / 32 * D + d) * 32 + s % 32];

        *step = 0;
        return codec == KEPT_F16 ? f16_value(h) : bf16_value(h);
    }
    double code = level_of(codec, code_of(half, bits, v, D, s, d)), zero = 0;
    switch (codec) {
    case KEPT_Q4G:
        *step = bf16_value(sc[g * 64 + s]);
        break;
    case KEPT_TOK4:
    case KEPT_TOK2:
        *step = f16_value(sc[g * 64 + s]);
        zero = f16_value(sc[(D / 32 + g) * 64 + s]);
        break;
    case KEPT_CHAN4:
    case KEPT_CHAN2:
        *step = f16_value(sc[s / 32 * D + d]);
        zero = f16_value(sc[(2 + s / 32) * D + d]);
        break;
    default:
        *step = bf16_value(sc[s]);
    }
    return code * *step + zero;
}

/* Turns x[D] by the transpose of the rotation (its inverse), written out. */
static void turn_back(double *x, int D)
{
    int block = D & -D;
    double y[256];

    for (int d = 0; d < D; d++) {
        y[d] = 0;
        for (int j = 0; j < block; j++)
            y[d] += (__builtin_popcount((unsigned)(d % block & j)) & 1 ? -1 : 1) *
                    x[d / block * block + j];
        y[d] *= (double)kept_codec_signs[d] / sqrt(block);
    }
    memcpy(x, y, (size_t)D * sizeof *x);
}

/* x[64][D]: the values of a half. */
static void read_half(const uint8_t *page, kept_codecs c, bool v, int D, double *x)
{
    int codec = v ? c.v : c.k;
    const uint8_t *half = page + (v ? kept_codec_half_bytes(c.k, false, D) : 0);
    double step;

    for (int s = 0; s < 64; s++) {
        for (int d = 0; d < D; d++)
            x[s * D + d] = stored(half, codec, v, (const int[3]){D, s, d}, &step);
        if (kept_codec_get(codec)->rotated)
            turn_back(x + s * D, D);
    }
}

#endif
