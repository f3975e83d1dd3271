/* kern/avx2_lowrank: keys from their coefficients for the levels of AVX2 (simd_rebuild.h), values
 * and merged pairs of layers for every level from AVX2 up. Values are only made for several
 * queries; they are made row by row, two at a time so that a direction is loaded once for both. */
#include "kern/codec_words.h"
#include "kern/impl.h"
#include "kern/lowrank_stands.h"
#include "kern/slerp.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kern/simd_avx2.h"
#include <string.h>

#define BLOCK      6 /* of 2 vectors: 12 sums, 2 vectors, 1 factor */
#define SCORE_ROWS 4

INLINE vec v_zero(void)
{
    return _mm256_setzero_ps();
}
INLINE vec v_all(const float *p)
{
    return _mm256_broadcast_ss(p);
}
/* Byte j of 8 words, with its sign. */
INLINE vec v_byte(const uint8_t *p, int j)
{
    __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)p);

    x = _mm256_sll_epi32(x, _mm_cvtsi32_si128(24 - 8 * j));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(x, 24));
}
INLINE vec v_fms(vec x, vec y, vec z)
{
    return _mm256_fmsub_ps(x, y, z);
}

#include "kern/simd_rebuild.h"

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
    const int r = kept_codec_channels(p.c.v, p.head_size);
    const uint8_t *half = p.at + kept_codec_half_bytes(p.c.k, false, p.head_size);

    if (!v) {
        make_keys(&p, to);
        return;
    }
    if (kept_codec_get(p.c.v)->inner == KEPT_F16)
        for (int i = 0; i < P64 * r; i += W)
            v_store(c + i, v_wide((const kept_f16 *)(const void *)half + i));
    else
        kept_codec_widen(c, half, kept_codec_get(p.c.v)->inner, true, r);
    values_of(&p, c, to);
}

void kept_low_scores_avx2(kept_packed p, ptrdiff_t ahead, int n, const float *q, int stride,
                          float *s)
{
    turned_scores(&p, ahead, n, q, stride, s);
}

/* Directions times lengths; then the slots that are apart. */
void kept_slerp_widen_avx2(const uint8_t *half, bool v, int D, int which, float *to)
{
    const kept_f16 *from = (const kept_f16 *)(const void *)half, *own = from + P64 * D;
    const uint8_t *apart = (const uint8_t *)(own + 2 * P64);
    ALIGNED float length[P64];

    for (int s = 0; s < P64; s += 8)
        _mm256_store_ps(length + s, v_wide(own + which * P64 + s));
    own = (const kept_f16 *)(const void *)(apart + P64);
    for (int i = 0; i < P64 * D && !v; i += 8) {
        const int s = i / (32 * D) * 32 + i % 32;

        _mm256_storeu_ps(to + i, _mm256_mul_ps(v_wide(from + i), _mm256_load_ps(length + s)));
    }
    for (int c = 0; c < D && v; c += 64)
        for (int s = 0, w = kept_v_width(D, c); s < P64; s++)
            for (int d = 0; d < w; d += 8) {
                const int i = P64 * c + s * w + d;

                _mm256_storeu_ps(to + i,
                                 _mm256_mul_ps(v_wide(from + i), _mm256_set1_ps(length[s])));
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
