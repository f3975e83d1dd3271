/* Reads cache content straight from the pool by the page layout in kern.h, and makes rows whose
 * binary16 bits are known without any conversion of ours: small integers. */
#ifndef TESTS_CACHE_PEEK_H
#define TESTS_CACHE_PEEK_H

#include "cache/cache.h"

#include <math.h>

/* Bits of the integer i, 0..2047: sign 0, exponent e + 15, fraction i / 2^e - 1. */
static inline kept_f16 peek_bits(int i)
{
    if (!i)
        return 0;
    int e = 0;
    while (i >> (e + 1))
        e++;
    return (kept_f16)((e + 15) << 10 | ((i << (10 - e)) & 1023));
}

/* Value of channel d in the row called id: rows with different ids differ in every channel. */
static inline int peek_value(int id, int d)
{
    return (int)((unsigned)(id * 31 + d * 7) & 2047);
}

static inline void peek_row(int id, int d_head, float *row)
{
    for (int d = 0; d < d_head; d++)
        row[d] = (float)peek_value(id, d);
}

static inline kept_f16 peek_k(const uint8_t *page, int d_head, int s, int d)
{
    return ((const kept_f16 *)(const void *)page)[((s / 32) * d_head + d) * 32 + s % 32];
}

static inline kept_f16 peek_v(const uint8_t *page, int d_head, int s, int d)
{
    const kept_f16 *v = (const kept_f16 *)(const void *)page + 64 * d_head;
    const int b = d / 64, left = d_head - 64 * b, w = left < 64 ? left : 64;
    return v[64 * 64 * b + s * w + d % 64];
}

/* Does slot s of page hold rows kid and vid? bits: peek_bits of 0..2047. */
static inline int peek_equal(const uint8_t *page, int d_head, int s, const int id[2],
                             const kept_f16 *bits)
{
    for (int d = 0; d < d_head; d++)
        if (peek_k(page, d_head, s, d) != bits[peek_value(id[0], d)] ||
            peek_v(page, d_head, s, d) != bits[peek_value(id[1], d)])
            return 0;
    return 1;
}

static inline const uint8_t *peek_page(const kept_pool *p, int d_head, int32_t id)
{
    (void)d_head;
    return kept_pool_get_page(p, id).at;
}

#endif
