/* kern/avx512_pack: packs pages with AVX-512 (simd_pack.h). */
#include "kern/impl.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#include "kern/simd_avx512.h"

/* To F16, rounded down or up. */
INLINE void v_narrow_down(kept_f16 *p, vec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEG_INF));
}
INLINE void v_narrow_up(kept_f16 *p, vec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_POS_INF));
}
INLINE vec v_min(vec x, vec y)
{
    return _mm512_min_ps(x, y);
}
INLINE vec v_sqrt(vec x)
{
    return _mm512_sqrt_ps(x);
}
INLINE vec v_inverse(vec x)
{
    return v_if_positive(x, v_div(v_set(1), x));
}
/* Inside the F16 range, 0 for NaN */
INLINE vec v_bounded(vec x)
{
    const vec y = v_max(v_min(x, v_set(65504.0f)), v_set(-65504.0f));

    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, x, _CMP_ORD_Q), y);
}
INLINE float v_least(vec x)
{
    return _mm512_reduce_min_ps(x);
}
INLINE float v_most(vec x)
{
    return _mm512_reduce_max_ps(x);
}
/* The first 8 of p, and number i of them */
INLINE vec v_table(const float *p)
{
    return v_load(p);
}
INLINE vec v_look(vec table, ivec i)
{
    return _mm512_permutexvar_ps(i, table);
}
INLINE ivec i_set(int x)
{
    return _mm512_set1_epi32(x);
}
INLINE ivec i_add(ivec x, ivec y)
{
    return _mm512_add_epi32(x, y);
}
INLINE ivec i_sub(ivec x, ivec y)
{
    return _mm512_sub_epi32(x, y);
}
INLINE ivec i_xor(ivec x, ivec y)
{
    return _mm512_xor_si512(x, y);
}
INLINE ivec i_bits(vec x)
{
    return _mm512_castps_si512(x);
}
INLINE ivec i_of(vec x)
{
    return _mm512_cvttps_epi32(x);
}
/* n, one more where x > y */
INLINE ivec i_count(ivec n, ivec x, ivec y)
{
    return _mm512_mask_add_epi32(n, _mm512_cmpgt_epi32_mask(x, y), n, i_set(1));
}
/* All ones where x is not above 0 */
INLINE ivec i_not_positive(vec x)
{
    return _mm512_movm_epi32(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NGT_UQ));
}
/* x with the sign of all ones */
INLINE vec v_signed(vec x, ivec below)
{
    return _mm512_castsi512_ps(_mm512_xor_si512(i_bits(x), _mm512_slli_epi32(below, 31)));
}
/* bf16: upper halves of floats */
INLINE ivec i_high(ivec x)
{
    return _mm512_srli_epi32(x, 16);
}
INLINE vec v_of_high(ivec x)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(x, 16));
}
INLINE ivec i_nearest_high(vec x)
{
    const ivec u = i_bits(x), odd = _mm512_and_si512(i_high(u), i_set(1));

    return i_high(i_add(u, i_add(odd, i_set(0x7fff))));
}
INLINE void i_store16(uint16_t *p, ivec x)
{
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtepi32_epi16(x));
}
INLINE void i_store8(uint8_t *p, ivec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(x));
}

#include "kern/simd_pack.h"

bool kept_pack_avx512(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size)
{
    return pack_half(half, f16, codec, v, head_size);
}

#else
bool kept_pack_avx512(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size)
{
    (void)half, (void)f16, (void)codec, (void)v, (void)head_size;
    return false;
}
#endif
