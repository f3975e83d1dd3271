/* rng: xoshiro256** (Blackman and Vigna 2018), its state filled by splitmix64 from one 64-bit seed,
 * and a 64-bit hash built from the same mixer. Words are read byte by byte, so results do not
 * depend on the machine's byte order or alignment.
 */
#include "base/base.h"

#include <math.h>

static uint64_t rotl(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

/* The output function of splitmix64: a bijection of 64-bit words that mixes every bit. */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void kept_rng_init(kept_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        r->s[i] = mix(seed);
    }
}

uint64_t kept_rng_u64(kept_rng *r)
{
    uint64_t *s = r->s;
    const uint64_t out = rotl(s[1] * 5, 7) * 9;
    const uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return out;
}

double kept_rng_unit(kept_rng *r)
{
    return (double)(kept_rng_u64(r) >> 11) * 0x1p-53;
}

/* Lemire's multiply-and-reject. */
uint32_t kept_rng_below(kept_rng *r, uint32_t n)
{
    if (n <= 1)
        return 0;
    const uint32_t floor = (uint32_t)(-n) % n;
    for (;;) {
        const uint64_t m = (kept_rng_u64(r) >> 32) * n;
        if ((uint32_t)m >= floor)
            return (uint32_t)(m >> 32);
    }
}

/* Marsaglia's polar method. The second number of each pair is dropped: no hidden state. */
double kept_rng_normal(kept_rng *r)
{
    for (;;) {
        const double u = 2 * kept_rng_unit(r) - 1, v = 2 * kept_rng_unit(r) - 1;
        const double s = u * u + v * v;
        if (s > 0 && s < 1)
            return u * sqrt(-2 * log(s) / s);
    }
}

uint64_t kept_hash64(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = mix(seed + UINT64_C(0x9e3779b97f4a7c15)) ^ (uint64_t)n;
    while (n) {
        uint64_t w = 0;
        const size_t take = n < 8 ? n : 8;
        for (size_t i = 0; i < take; i++)
            w |= (uint64_t)p[i] << (8 * i);
        h = mix((h ^ w) + UINT64_C(0x9e3779b97f4a7c15));
        p += take;
        n -= take;
    }
    return mix(h + UINT64_C(0x9e3779b97f4a7c15));
}
