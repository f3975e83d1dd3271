/* kern/avx2_lowrank: keys and values from their coefficients, for every level from AVX2 up. 64
 * slots are made row by row, two at a time so that a direction is loaded once for both, turned to
 * their positions, and turned over into the order of an F16 half. */
#include "kern/codec_words.h"
#include "kern/impl.h"
#include "kern/lowrank.h"
#include "kern/slerp.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#define P64     KEPT_PAGE_SLOTS
#define INLINE  static inline __attribute__((always_inline))
#define ALIGNED __attribute__((aligned(64)))

INLINE __m256 wide8(const kept_f16 *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* nv vectors of channels of two slots: x += sum of coefficient times direction. */
INLINE void two_slots(int nv, const float *c0, const float *c1, int stride, const float *u, int r,
                      int D, float *x)
{
    __m256 a[4], b[4];

    for (int j = 0; j < nv; j++)
        a[j] = b[j] = _mm256_setzero_ps();
    for (int i = 0; i < r; i++, u += D) {
        __m256 y = _mm256_broadcast_ss(c0 + i * stride), z = _mm256_broadcast_ss(c1 + i * stride);

        for (int j = 0; j < nv; j++) {
            __m256 w = _mm256_loadu_ps(u + 8 * j);

            a[j] = _mm256_fmadd_ps(y, w, a[j]);
            b[j] = _mm256_fmadd_ps(z, w, b[j]);
        }
    }
    for (int j = 0; j < nv; j++) {
        _mm256_storeu_ps(x + 8 * j, a[j]);
        _mm256_storeu_ps(x + D + 8 * j, b[j]);
    }
}

/* x[64][D] of coefficients that lie at c + (s / 32) * block + (s % 32) * step, stride apart. */
static void make_rows(const float *c, const int at[3], const float *u, int r, int D, float *x)
{
    for (int s = 0; s < P64; s += 2) {
        const float *c0 = c + s / 32 * at[0] + s % 32 * at[1], *c1 = c0 + at[1];
        float *to = x + s * D;
        int d = 0;

        for (; d + 32 <= D; d += 32)
            two_slots(4, c0, c1, at[2], u + d, r, D, to + d);
        if (d < D) /* D is a multiple of 16 */
            two_slots(2, c0, c1, at[2], u + d, r, D, to + d);
    }
}

/* Turns a row to its position. */
INLINE void turn_row(const kept_turns *t, int32_t pos, float *x)
{
    const int half = t->n_rope / 2;
    const float *re0 = t->re_low + pos % P64 * half, *im0 = t->im_low + pos % P64 * half;
    const float *re1 = t->re_high + pos / P64 * half, *im1 = t->im_high + pos / P64 * half;
    int j = 0;

    for (; j + 8 <= half; j += 8) {
        __m256 a = _mm256_loadu_ps(re0 + j), b = _mm256_loadu_ps(im0 + j);
        __m256 c = _mm256_loadu_ps(re1 + j), d = _mm256_loadu_ps(im1 + j);
        __m256 re = _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, d));
        __m256 im = _mm256_fmadd_ps(a, d, _mm256_mul_ps(b, c));
        __m256 p = _mm256_loadu_ps(x + j), q = _mm256_loadu_ps(x + j + half);

        _mm256_storeu_ps(x + j, _mm256_fmsub_ps(re, p, _mm256_mul_ps(im, q)));
        _mm256_storeu_ps(x + j + half, _mm256_fmadd_ps(im, p, _mm256_mul_ps(re, q)));
    }
    for (; j < half; j++) {
        float re = re0[j] * re1[j] - im0[j] * im1[j], im = re0[j] * im1[j] + im0[j] * re1[j];
        float a = x[j], b = x[j + half];

        x[j] = re * a - im * b;
        x[j + half] = im * a + re * b;
    }
}

/* Eight channels of eight slots, x row by row of D, to vectors of slots: channel i at to[i]. */
INLINE void turn_over(const float *x, int D, float *const to[8])
{
    __m256 r[8], s[8];

    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(x + i * D);
    for (int i = 0; i < 8; i += 2) {
        s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(s[i], s[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(s[i], s[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(s[i + 1], s[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to[i], _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to[i + 4], _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

static void keys_of(const kept_packed *p, const float *c, float *to)
{
    ALIGNED float x[P64 * KEPT_MAX_HEAD_SIZE];
    const int D = p->head_size, r = kept_codec_channels(p->c.k, D);
    const bool turned = kept_low_is_turned(p->c.k, false);
    const kept_turns *t = p->low->turns;

    make_rows(c, (const int[3]){r * 32, 1, 32}, kept_low_directions(p->low, p->c.k, false), r, D,
              x);
    for (int s = 0; s < P64 && turned; s++)
        turn_row(t, p->pos[s], x + s * D);
    for (int s = 0; s < P64; s += 8)
        for (int d = 0; d < D; d += 8) {
            float *at[8];

            for (int i = 0; i < 8; i++)
                at[i] = to + s / 32 * D * 32 + (turned ? t->order[d + i] : d + i) * 32 + s % 32;
            turn_over(x + s * D + d, D, at);
        }
}

static void values_of(const kept_packed *p, const float *c, float *to)
{
    ALIGNED float x[P64 * KEPT_MAX_HEAD_SIZE], rows[P64 * KEPT_MAX_HEAD_SIZE];
    const int D = p->head_size, r = kept_codec_channels(p->c.v, D);

    for (int at = 0; at < r; at += 64)
        for (int s = 0, w = kept_v_width(r, at); s < P64; s++)
            memcpy(rows + s * r + at, c + P64 * at + s * w, (size_t)w * sizeof *rows);
    make_rows(rows, (const int[3]){32 * r, r, 1}, kept_low_directions(p->low, p->c.v, true), r, D,
              x);
    for (int at = 0; at < D; at += 64)
        for (int s = 0, w = kept_v_width(D, at); s < P64; s++)
            memcpy(to + P64 * at + s * w, x + s * D + at, (size_t)w * sizeof *x);
}

void kept_low_widen_avx2(kept_packed p, bool v, float *to)
{
    ALIGNED float c[P64 * KEPT_MAX_HEAD_SIZE];
    const int codec = v ? p.c.v : p.c.k, r = kept_codec_channels(codec, p.head_size);
    const int inner = kept_codec_get(codec)->inner;
    const uint8_t *half = p.at + (v ? kept_codec_half_bytes(p.c.k, false, p.head_size) : 0);

    for (int i = 0; inner == KEPT_F16 && i < P64 * r; i += 8)
        _mm256_storeu_ps(c + i, wide8((const kept_f16 *)(const void *)half + i));
    if (inner != KEPT_F16)
        kept_codec_widen(c, half, inner, v, r);
    if (v)
        values_of(&p, c, to);
    else
        keys_of(&p, c, to);
}

/* Directions times lengths; then the slots that are apart. */
void kept_slerp_widen_avx2(const uint8_t *half, bool v, int D, int which, float *to)
{
    const kept_f16 *from = (const kept_f16 *)(const void *)half, *own = from + P64 * D;
    const uint8_t *apart = (const uint8_t *)(own + 2 * P64);
    ALIGNED float length[P64];

    for (int s = 0; s < P64; s += 8)
        _mm256_store_ps(length + s, wide8(own + which * P64 + s));
    own = (const kept_f16 *)(const void *)(apart + P64);
    for (int i = 0; i < P64 * D && !v; i += 8) {
        const int s = i / (32 * D) * 32 + i % 32;

        _mm256_storeu_ps(to + i, _mm256_mul_ps(wide8(from + i), _mm256_load_ps(length + s)));
    }
    for (int c = 0; c < D && v; c += 64)
        for (int s = 0, w = kept_v_width(D, c); s < P64; s++)
            for (int d = 0; d < w; d += 8) {
                const int i = P64 * c + s * w + d;

                _mm256_storeu_ps(to + i, _mm256_mul_ps(wide8(from + i), _mm256_set1_ps(length[s])));
            }
    for (int k = 0; k < KEPT_SLERP_APART && which; k++)
        for (int d = 0; d < D; d++) {
            const int s = apart[k], c = d / 64 * 64;
            const size_t i = v ? (size_t)(P64 * c + s * kept_v_width(D, c) + d - c)
                               : kept_k_at(D, s) + (size_t)d * 32;

            to[i] = kept_f16_to_f32(own[k * D + d]) * length[s];
        }
}

#else
void kept_slerp_widen_avx2(const uint8_t *half, bool v, int D, int which, float *to)
{
    kept_slerp_widen(half, v, D, which, to);
}

void kept_low_widen_avx2(kept_packed p, bool v, float *to)
{
    kept_low_widen(p, v, to);
}
#endif
