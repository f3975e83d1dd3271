/* kern, inside: vectors of 8 floats and the primitives that files of this level share. Included
 * where the compiler has __AVX2__, __FMA__ and __F16C__.
 */
#ifndef KERN_SIMD_AVX2_H
#define KERN_SIMD_AVX2_H

#include "kern/simd_turn.h"

#define W 8 /* floats of a vector */

typedef __m256 vec;
typedef __m256i ivec;

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
INLINE vec v_bf16(const uint16_t *p)
{
    __m256i x = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
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
INLINE vec v_abs(vec x)
{
    return _mm256_andnot_ps(v_set(-0.0f), x);
}
/* x where y > 0, else 0 */
INLINE vec v_if_positive(vec y, vec x)
{
    return _mm256_and_ps(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_GT_OQ), x);
}

#endif
