/* kern/avx512: the table for AVX-512 F, BW, DQ and VL: 32 registers of 16 floats. Only the vector
 * primitives and the block shapes live here; the algorithms are in simd_attend.h and simd_rest.h.
 */
#include "kern/impl.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include <immintrin.h>

#define W         16 /* floats of a vector */
#define ROWS      8  /* most rows of a register block */
#define QUAD_ROWS 6  /* up to here blocks are four vectors wide, else two */
#define MANY_ROWS 6  /* rows of a block when there are many */

#define INLINE static inline __attribute__((always_inline))

typedef __m512 vec;

INLINE vec v_set(float x)
{
    return _mm512_set1_ps(x);
}
INLINE vec v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v_store(float *p, vec x)
{
    _mm512_storeu_ps(p, x);
}
INLINE vec v_wide(const kept_f16 *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
INLINE void v_narrow(kept_f16 *p, vec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
INLINE vec v_add(vec x, vec y)
{
    return _mm512_add_ps(x, y);
}
INLINE vec v_sub(vec x, vec y)
{
    return _mm512_sub_ps(x, y);
}
INLINE vec v_mul(vec x, vec y)
{
    return _mm512_mul_ps(x, y);
}
INLINE vec v_div(vec x, vec y)
{
    return _mm512_div_ps(x, y);
}
INLINE vec v_max(vec x, vec y)
{
    return _mm512_max_ps(x, y);
}
INLINE vec v_fma(vec x, vec y, vec z)
{
    return _mm512_fmadd_ps(x, y, z);
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
/* x where y > 0, else 0 */
INLINE vec v_if_positive(vec y, vec x)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ), x);
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

#include "kern/simd_attend.h"
#include "kern/simd_rest.h"

const kept_kern *kept_kern_avx512(void)
{
    static const kept_kern table = SIMD_TABLE("avx512");

    return &table;
}
#else
const kept_kern *kept_kern_avx512(void)
{
    return NULL;
}
#endif
