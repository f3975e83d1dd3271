/* kern/avx512: the table for AVX-512 F, BW, DQ and VL: 32 registers of 16 floats. Only the vector
 * primitives and the block shapes live here; the algorithms are in simd_attend.h, simd_codec.h and
 * simd_rest.h. avx512vnni.c is this file again with AVX-512 VNNI.
 */
#include "kern/impl.h"

#ifndef LEVEL
#define LEVEL       "avx512"
#define LEVEL_TABLE kept_kern_avx512
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "kern/simd_avx512.h"

#define ROWS       8 /* most rows of a register block */
#define QUAD_ROWS  6 /* up to here blocks are four vectors wide, else two */
#define MANY_ROWS  6 /* rows of a block when there are many */
#define LOW_WIDEN  kept_low_widen_avx512
#define LOW_SCORES kept_low_scores_avx512
#define PACK_HALF  kept_pack_avx512

INLINE void v_narrow(kept_f16 *p, vec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
INLINE float v_top(vec x)
{
    return _mm512_reduce_max_ps(x);
}
INLINE float v_sum(vec x)
{
    return _mm512_reduce_add_ps(x);
}
INLINE float v_first(vec x)
{
    return _mm512_cvtss_f32(x);
}
/* The first n of p, the rest 0. */
INLINE vec v_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps(n >= W ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1), p);
}
/* x, but -INFINITY in lanes n and up, and where pos (if not NULL) is not above horizon */
INLINE vec v_hide(vec x, int n, const int32_t *pos, int32_t horizon)
{
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __mmask16 see = _mm512_cmplt_epi32_mask(lane, _mm512_set1_epi32(n));

    if (pos)
        see =
            _mm512_mask_cmpgt_epi32_mask(see, _mm512_loadu_si512(pos), _mm512_set1_epi32(horizon));
    return _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), see, x);
}
/* 2^x for x <= 0, relative error below 2e-7 and exactly 1 at 0; 0 below the cut and for NaN */
INLINE vec v_exp2(vec x)
{
    __mmask16 keep = _mm512_cmp_ps_mask(x, _mm512_set1_ps(KEPT_EXP2_CUT), _CMP_GT_OQ);
    vec n = _mm512_roundscale_ps(x, 8), f = _mm512_sub_ps(x, n);
    vec p = v_fma(v_set(KEPT_EXP2_C5), f, v_set(KEPT_EXP2_C4));

    p = v_fma(p, f, v_set(KEPT_EXP2_C3));
    p = v_fma(p, f, v_set(KEPT_EXP2_C2));
    p = v_fma(p, f, v_set(KEPT_EXP2_C1));
    p = v_fma(p, f, v_set(1.0f));
    return _mm512_maskz_scalef_ps(keep, p, n);
}

/* ---- integers: 64 bytes ---------------------------------------------------------------------- */

#ifdef __AVX512VNNI__
#define SETS 2 /* a dot product takes 5 cycles, so sums are kept twice */
#else
#define SETS 1
#endif
#define SLOT_VECS 2 /* vectors of slots of a block of packed scores */
#define SPREAD    1

INLINE ivec i_zero(void)
{
    return _mm512_setzero_si512();
}
INLINE ivec i_load(const void *p)
{
    return _mm512_loadu_si512(p);
}
/* A word of four bytes (or two numbers) in every lane: the broadcast is part of the instruction. */
INLINE ivec i_word(const int32_t *p)
{
    return _mm512_set1_epi32(*p);
}
INLINE void i_spread(int32_t *to, int32_t word)
{
    *to = word;
}
INLINE ivec i_bytes(int x)
{
    return _mm512_set1_epi8((char)x);
}
INLINE ivec i_table(const int8_t *p)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE ivec i_look(ivec table, ivec x)
{
    return _mm512_shuffle_epi8(table, x);
}
INLINE ivec i_and(ivec x, ivec y)
{
    return _mm512_and_si512(x, y);
}
INLINE ivec i_or(ivec x, ivec y)
{
    return _mm512_or_si512(x, y);
}
INLINE ivec i_sub8(ivec x, ivec y)
{
    return _mm512_sub_epi8(x, y);
}
INLINE ivec i_add32(ivec x, ivec y)
{
    return _mm512_add_epi32(x, y);
}
/* 16-bit lanes */
#define i_shl(x, n) _mm512_slli_epi16(x, n)
#define i_shr(x, n) _mm512_srli_epi16(x, n)
#define i_sar(x, n) _mm512_srai_epi16(x, n)
INLINE vec i_float(ivec x)
{
    return _mm512_cvtepi32_ps(x);
}
/* acc + sums of pairs of 16-bit products */
INLINE ivec i_dot16(ivec acc, ivec x, ivec y)
{
#ifdef __AVX512VNNI__
    return _mm512_dpwssd_epi32(acc, x, y);
#else
    return _mm512_add_epi32(acc, _mm512_madd_epi16(x, y));
#endif
}
/* Sums of unsigned times signed bytes. `small`: eight pairs fit 16 bits, so without VNNI sums are
 * kept there between i_open and i_close. */
INLINE ivec i_open(ivec acc, bool small)
{
#ifdef __AVX512VNNI__
    (void)small;
    return acc;
#else
    return small ? _mm512_setzero_si512() : acc;
#endif
}
INLINE ivec i_dot8(ivec acc, ivec x, ivec y, bool small)
{
#ifdef __AVX512VNNI__
    (void)small;
    return _mm512_dpbusd_epi32(acc, x, y);
#else
    ivec z = _mm512_maddubs_epi16(x, y);

    if (small)
        return _mm512_add_epi16(acc, z);
    return _mm512_add_epi32(acc, _mm512_madd_epi16(z, _mm512_set1_epi16(1)));
#endif
}
INLINE ivec i_close(ivec acc, ivec sum, bool small)
{
#ifdef __AVX512VNNI__
    (void)acc;
    (void)small;
    return sum;
#else
    return small ? _mm512_add_epi32(acc, _mm512_madd_epi16(sum, _mm512_set1_epi16(1))) : sum;
#endif
}
/* 16 floats times scale, rounded, as 16-bit numbers in the order 0 2 1 3 of each four */
INLINE void i_narrow16(void *to, const float *x, vec scale)
{
    __m256i y = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v_mul(v_load(x), scale)));

    y = _mm256_shufflelo_epi16(y, 0xd8);
    _mm256_storeu_si256((__m256i *)to, _mm256_shufflehi_epi16(y, 0xd8));
}
/* ... as signed or unsigned bytes in order; the unsigned are not negative */
INLINE void i_narrow8(void *to, const float *x, vec scale, bool has_sign)
{
    __m512i y = _mm512_cvtps_epi32(v_mul(v_load(x), scale));

    _mm_storeu_si128((__m128i *)to,
                     has_sign ? _mm512_cvtsepi32_epi8(y) : _mm512_cvtusepi32_epi8(y));
}
/* The Hadamard transform of the lanes, not scaled. */
INLINE vec v_hadamard(vec x)
{
    const vec s1 = _mm512_setr_ps(1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1);
    const vec s2 = _mm512_setr_ps(1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1);
    const vec s4 = _mm512_setr_ps(1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1);
    const vec s8 = _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1);

    x = v_fma(x, s1, _mm512_permute_ps(x, 0xb1));
    x = v_fma(x, s2, _mm512_permute_ps(x, 0x4e));
    x = v_fma(x, s4, _mm512_shuffle_f32x4(x, x, 0xb1));
    return v_fma(x, s8, _mm512_shuffle_f32x4(x, x, 0x4e));
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
