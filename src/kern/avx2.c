/* kern/avx2: the table for AVX2, FMA and F16C: 16 registers of 8 floats. Only the vector
 * primitives and the block shapes live here; the algorithms are in simd_attend.h and simd_rest.h.
 */
#include "kern/impl.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#define W         8 /* floats of a vector */
#define ROWS      6 /* most rows of a register block: 6 x 2 sums, 2 vectors, 1 broadcast */
#define QUAD_ROWS 2 /* up to here blocks are four vectors wide, else two */
#define MANY_ROWS 6 /* rows of a block when there are many */

#define INLINE static inline __attribute__((always_inline))

typedef __m256 vec;

INLINE vec v_set(float x)
{
    return _mm256_set1_ps(x);
}
INLINE vec v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
INLINE void v_store(float *p, vec x)
{
    _mm256_storeu_ps(p, x);
}
INLINE vec v_wide(const kept_f16 *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
INLINE void v_narrow(kept_f16 *p, vec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
INLINE vec v_add(vec x, vec y)
{
    return _mm256_add_ps(x, y);
}
INLINE vec v_sub(vec x, vec y)
{
    return _mm256_sub_ps(x, y);
}
INLINE vec v_mul(vec x, vec y)
{
    return _mm256_mul_ps(x, y);
}
INLINE vec v_div(vec x, vec y)
{
    return _mm256_div_ps(x, y);
}
INLINE vec v_max(vec x, vec y)
{
    return _mm256_max_ps(x, y);
}
INLINE vec v_fma(vec x, vec y, vec z)
{
    return _mm256_fmadd_ps(x, y, z);
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
/* x where y > 0, else 0 */
INLINE vec v_if_positive(vec y, vec x)
{
    return _mm256_and_ps(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_GT_OQ), x);
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

#include "kern/simd_attend.h"
#include "kern/simd_rest.h"

const kept_kern *kept_kern_avx2(void)
{
    static const kept_kern table = SIMD_TABLE("avx2");

    return &table;
}
#else
const kept_kern *kept_kern_avx2(void)
{
    return NULL;
}
#endif
