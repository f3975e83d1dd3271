/* kern, inside: vectors of 16 floats and the primitives that files of this level share. Included
 * where the compiler has __AVX512F__, BW, DQ and VL.
 */
#ifndef KERN_SIMD_AVX512_H
#define KERN_SIMD_AVX512_H

#include "kern/simd_turn.h"

#define W 16 /* floats of a vector */

typedef __m512 vec;
typedef __m512i ivec;

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
INLINE vec v_bf16(const uint16_t *p)
{
    __m512i x = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
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
INLINE vec v_abs(vec x)
{
    return _mm512_abs_ps(x);
}
/* x where y > 0, else 0 */
INLINE vec v_if_positive(vec y, vec x)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_GT_OQ), x);
}

#endif
