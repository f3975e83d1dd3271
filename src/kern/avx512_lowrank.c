/* kern/avx512_lowrank: keys from their coefficients for the levels of AVX-512 (simd_rebuild.h).
 * Values, which are made for several queries only, are those of avx2_lowrank.c. */
#include "kern/impl.h"
#include "kern/lowrank_stands.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "kern/simd_avx512.h"
#include <string.h>

#define BLOCK      12 /* of 2 vectors: 24 sums, 2 vectors */
#define SCORE_ROWS 8

INLINE vec v_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE vec v_all(const float *p)
{
    return _mm512_set1_ps(*p);
}
/* Byte j of 16 words, with its sign. */
INLINE vec v_byte(const uint8_t *p, int j)
{
    __m512i x = _mm512_sll_epi32(_mm512_loadu_si512(p), _mm_cvtsi32_si128(24 - 8 * j));

    return _mm512_cvtepi32_ps(_mm512_srai_epi32(x, 24));
}
INLINE vec v_fms(vec x, vec y, vec z)
{
    return _mm512_fmsub_ps(x, y, z);
}

#include "kern/simd_rebuild.h"

void kept_low_widen_avx512(kept_packed p, bool v, float *to)
{
    if (v)
        kept_low_widen_avx2(p, v, to);
    else
        make_keys(&p, to);
}

void kept_low_scores_avx512(kept_packed p, ptrdiff_t ahead, int n, const float *q, int stride,
                            float *s)
{
    turned_scores(&p, ahead, n, q, stride, s);
}

#else
void kept_low_widen_avx512(kept_packed p, bool v, float *to)
{
    kept_low_widen(p, v, to);
}
#endif
