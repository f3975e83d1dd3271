/* kern/avx2: the table for AVX2, FMA and F16C: 16 registers of 8 floats. Only the vector
 * primitives and the block shapes live here; the algorithms are in simd_attend.h, simd_codec.h and
 * simd_rest.h. avx2vnni.c is this file again with AVX-VNNI.
 */
#include "kern/impl.h"

#ifndef LEVEL
#define LEVEL       "avx2"
#define LEVEL_TABLE kept_kern_avx2
#endif

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kern/simd_avx2.h"

#define ROWS       6 /* most rows of a register block: 6 x 2 sums, 2 vectors, 1 broadcast */
#define QUAD_ROWS  2 /* up to here blocks are four vectors wide, else two */
#define MANY_ROWS  6 /* rows of a block when there are many */
#define LOW_WIDEN  kept_low_widen_avx2
#define LOW_SCORES kept_low_scores_avx2
#define PACK_HALF  kept_pack_avx2

INLINE void v_narrow(kept_f16 *p, vec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
INLINE float v_top(vec x)
{
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
INLINE float v_sum(vec x)
{
    __m128 h = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    h = _mm_add_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
INLINE float v_first(vec x)
{
    return _mm256_cvtss_f32(x);
}
/* All ones in the first n lanes. */
INLINE __m256i v_lanes(int n)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);

    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane);
}
/* The first n of p, the rest 0. */
INLINE vec v_load_n(const float *p, int n)
{
    return _mm256_maskload_ps(p, v_lanes(n));
}
/* x, but -INFINITY in lanes n and up, and where pos (if not NULL) is not above horizon */
INLINE vec v_hide(vec x, int n, const int32_t *pos, int32_t horizon)
{
    __m256i see = v_lanes(n);

    if (pos) {
        __m256i at = _mm256_loadu_si256((const __m256i *)(const void *)pos);

        see = _mm256_and_si256(see, _mm256_cmpgt_epi32(at, _mm256_set1_epi32(horizon)));
    }
    return _mm256_blendv_ps(v_set(-__builtin_inff()), x, _mm256_castsi256_ps(see));
}
/* 2^x for x <= 0, relative error below 2e-7 and exactly 1 at 0; 0 below the cut and for NaN */
INLINE vec v_exp2(vec x)
{
    vec keep = _mm256_cmp_ps(x, v_set(KEPT_EXP2_CUT), _CMP_GT_OQ);
    vec n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    vec f = _mm256_sub_ps(x, n);
    vec p = v_fma(v_set(KEPT_EXP2_C5), f, v_set(KEPT_EXP2_C4));
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);

    p = v_fma(p, f, v_set(KEPT_EXP2_C3));
    p = v_fma(p, f, v_set(KEPT_EXP2_C2));
    p = v_fma(p, f, v_set(KEPT_EXP2_C1));
    p = v_fma(p, f, v_set(1.0f));
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
    return _mm256_and_ps(p, keep);
}

/* ---- integers: 32 bytes ---------------------------------------------------------------------- */

#ifdef __AVXVNNI__
#define SETS 2 /* a dot product takes 5 cycles, so sums are kept twice */
#else
#define SETS 1
#endif
#define SLOT_VECS 1 /* vectors of slots of a block of packed scores */
#define SPREAD    8

INLINE ivec i_zero(void)
{
    return _mm256_setzero_si256();
}
INLINE ivec i_load(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
/* A word of four bytes (or two numbers) in every lane; it lies there SPREAD times, because a
 * broadcast of its own would be a quarter of the kernel's instructions. */
INLINE ivec i_word(const int32_t *p)
{
    return _mm256_load_si256((const __m256i *)(const void *)p);
}
INLINE void i_spread(int32_t *to, int32_t word)
{
    _mm256_store_si256((__m256i *)(void *)to, _mm256_set1_epi32(word));
}
INLINE ivec i_bytes(int x)
{
    return _mm256_set1_epi8((char)x);
}
INLINE ivec i_table(const int8_t *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE ivec i_look(ivec table, ivec x)
{
    return _mm256_shuffle_epi8(table, x);
}
INLINE ivec i_and(ivec x, ivec y)
{
    return _mm256_and_si256(x, y);
}
INLINE ivec i_or(ivec x, ivec y)
{
    return _mm256_or_si256(x, y);
}
INLINE ivec i_sub8(ivec x, ivec y)
{
    return _mm256_sub_epi8(x, y);
}
INLINE ivec i_add32(ivec x, ivec y)
{
    return _mm256_add_epi32(x, y);
}
/* 16-bit lanes */
#define i_shl(x, n) _mm256_slli_epi16(x, n)
#define i_shr(x, n) _mm256_srli_epi16(x, n)
#define i_sar(x, n) _mm256_srai_epi16(x, n)
INLINE vec i_float(ivec x)
{
    return _mm256_cvtepi32_ps(x);
}
/* acc + sums of pairs of 16-bit products */
INLINE ivec i_dot16(ivec acc, ivec x, ivec y)
{
#ifdef __AVXVNNI__
    return _mm256_dpwssd_avx_epi32(acc, x, y);
#else
    return _mm256_add_epi32(acc, _mm256_madd_epi16(x, y));
#endif
}
/* Sums of unsigned times signed bytes. `small`: eight pairs fit 16 bits, so without VNNI sums are
 * kept there between i_open and i_close. */
INLINE ivec i_open(ivec acc, bool small)
{
#ifdef __AVXVNNI__
    (void)small;
    return acc;
#else
    return small ? _mm256_setzero_si256() : acc;
#endif
}
INLINE ivec i_dot8(ivec acc, ivec x, ivec y, bool small)
{
#ifdef __AVXVNNI__
    (void)small;
    return _mm256_dpbusd_avx_epi32(acc, x, y);
#else
    ivec z = _mm256_maddubs_epi16(x, y);

    if (small)
        return _mm256_add_epi16(acc, z);
    return _mm256_add_epi32(acc, _mm256_madd_epi16(z, _mm256_set1_epi16(1)));
#endif
}
INLINE ivec i_close(ivec acc, ivec sum, bool small)
{
#ifdef __AVXVNNI__
    (void)acc;
    (void)small;
    return sum;
#else
    return small ? _mm256_add_epi32(acc, _mm256_madd_epi16(sum, _mm256_set1_epi16(1))) : sum;
#endif
}
/* 16 floats times scale, rounded, as 16-bit numbers in the order 0 2 1 3 of each four */
INLINE __m256i round16(const float *x, vec scale)
{
    __m256i a = _mm256_cvtps_epi32(v_mul(v_load(x), scale));
    __m256i b = _mm256_cvtps_epi32(v_mul(v_load(x + 8), scale));

    return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
}
INLINE void i_narrow16(void *to, const float *x, vec scale)
{
    __m256i y = _mm256_shufflelo_epi16(round16(x, scale), 0xd8);

    _mm256_storeu_si256((__m256i *)to, _mm256_shufflehi_epi16(y, 0xd8));
}
/* ... as signed or unsigned bytes in order */
INLINE void i_narrow8(void *to, const float *x, vec scale, bool has_sign)
{
    __m256i y = round16(x, scale);
    __m128i a = _mm256_castsi256_si128(y), b = _mm256_extracti128_si256(y, 1);

    _mm_storeu_si128((__m128i *)to, has_sign ? _mm_packs_epi16(a, b) : _mm_packus_epi16(a, b));
}
/* The Hadamard transform of the lanes, not scaled. */
INLINE vec v_hadamard(vec x)
{
    const vec s1 = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
    const vec s2 = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1);
    const vec s4 = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1);

    x = v_fma(x, s1, _mm256_permute_ps(x, 0xb1));
    x = v_fma(x, s2, _mm256_permute_ps(x, 0x4e));
    return v_fma(x, s4, _mm256_permute2f128_ps(x, x, 1));
}

#include "kern/codec_words.h"
#include "kern/simd_attend.h"
#include "kern/simd_codec.h"
#include "kern/simd_packed.h"
#include "kern/simd_rest.h"

const kept_kern *LEVEL_TABLE(void)
{
    static const kept_kern table = SIMD_TABLE(LEVEL);

    return &table;
}
#else
const kept_kern *LEVEL_TABLE(void)
{
    return NULL;
}
#endif
