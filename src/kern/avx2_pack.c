/* kern/avx2_pack: packs pages with AVX2 (simd_pack.h). */
#include "kern/impl.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "kern/simd_avx2.h"

/* To F16, rounded down or up. */
INLINE void v_narrow_down(kept_f16 *p, vec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEG_INF));
}
INLINE void v_narrow_up(kept_f16 *p, vec x)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_POS_INF));
}
INLINE vec v_min(vec x, vec y)
{
    return _mm256_min_ps(x, y);
}
INLINE vec v_sqrt(vec x)
{
    return _mm256_sqrt_ps(x);
}
INLINE vec v_inverse(vec x)
{
    return v_if_positive(x, v_div(v_set(1), x));
}
/* Inside the F16 range, 0 for NaN */
INLINE vec v_bounded(vec x)
{
    const vec y = v_max(v_min(x, v_set(65504.0f)), v_set(-65504.0f));

    return _mm256_and_ps(_mm256_cmp_ps(x, x, _CMP_ORD_Q), y);
}
INLINE float v_least(vec x)
{
    __m128 h = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    h = _mm_min_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_min_ss(h, _mm_movehdup_ps(h)));
}
INLINE float v_most(vec x)
{
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));

    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}
/* The first 8 of p, and number i of them */
INLINE vec v_table(const float *p)
{
    return v_load(p);
}
INLINE vec v_look(vec table, ivec i)
{
    return _mm256_permutevar8x32_ps(table, i);
}
INLINE ivec i_set(int x)
{
    return _mm256_set1_epi32(x);
}
INLINE ivec i_add(ivec x, ivec y)
{
    return _mm256_add_epi32(x, y);
}
INLINE ivec i_sub(ivec x, ivec y)
{
    return _mm256_sub_epi32(x, y);
}
INLINE ivec i_xor(ivec x, ivec y)
{
    return _mm256_xor_si256(x, y);
}
INLINE ivec i_bits(vec x)
{
    return _mm256_castps_si256(x);
}
INLINE ivec i_of(vec x)
{
    return _mm256_cvttps_epi32(x);
}
/* n, one more where x > y */
INLINE ivec i_count(ivec n, ivec x, ivec y)
{
    return _mm256_sub_epi32(n, _mm256_cmpgt_epi32(x, y));
}
/* All ones where x is not above 0 */
INLINE ivec i_not_positive(vec x)
{
    return _mm256_castps_si256(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_NGT_UQ));
}
/* x with the sign of all ones */
INLINE vec v_signed(vec x, ivec below)
{
    return _mm256_xor_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(below, 31)));
}
/* bf16: upper halves of floats */
INLINE ivec i_high(ivec x)
{
    return _mm256_srli_epi32(x, 16);
}
INLINE vec v_of_high(ivec x)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16));
}
INLINE ivec i_nearest_high(vec x)
{
    const ivec u = i_bits(x), odd = _mm256_and_si256(i_high(u), i_set(1));

    return i_high(i_add(u, i_add(odd, i_set(0x7fff))));
}
INLINE void i_store16(uint16_t *p, ivec x)
{
    const __m128i y = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));

    _mm_storeu_si128((__m128i *)(void *)p, y);
}
INLINE void i_store8(uint8_t *p, ivec x)
{
    const __m128i y = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));

    _mm_storel_epi64((__m128i *)(void *)p, _mm_packs_epi16(y, y));
}

#include "kern/simd_pack.h"

bool kept_pack_avx2(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size)
{
    return pack_half(half, f16, codec, v, head_size);
}

#else
bool kept_pack_avx2(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size)
{
    (void)half, (void)f16, (void)codec, (void)v, (void)head_size;
    return false;
}
#endif
