/* select: see select.h. Keys are score bits above position bits, so that no two are equal and the
 * outcome depends neither on slot order nor on the algorithm.
 */
#include "policy/select.h"

#include <string.h>

uint32_t kept_float_order(float f)
{
    uint32_t u;
    f += 0.0f;
    memcpy(&u, &f, sizeof u);
    return u & 0x80000000u ? ~u : u | 0x80000000u;
}

/* One pass of a least-significant-digit radix sort. */
static void radix_pass(const uint64_t *from, uint64_t *to, int n, int shift)
{
    int start[257] = {0};
    for (int i = 0; i < n; i++)
        start[(from[i] >> shift & 255) + 1]++;
    for (int b = 1; b < 257; b++)
        start[b] += start[b - 1];
    for (int i = 0; i < n; i++)
        to[start[from[i] >> shift & 255]++] = from[i];
}

void kept_order_positions(const int32_t *pos, int n, int32_t *order, uint64_t *work)
{
    uint64_t *a = work, *b = work + n;
    int32_t most = 0;
    bool ascending = true;
    for (int i = 0; i < n; i++) {
        order[i] = i;
        ascending &= i == 0 || pos[i - 1] < pos[i];
        most = pos[i] > most ? pos[i] : most;
        a[i] = (uint64_t)pos[i] << 32 | (uint32_t)i;
    }
    if (ascending)
        return;
    for (int shift = 0; shift < 32 && most >> shift; shift += 8) {
        radix_pass(a, b, n, 32 + shift);
        uint64_t *swap = a;
        a = b;
        b = swap;
    }
    for (int i = 0; i < n; i++)
        order[i] = (int32_t)(a[i] & UINT32_MAX);
}

void kept_order_places(const int32_t *pos, int n, int32_t limit, int32_t *order, uint64_t *place)
{
    const size_t words = (size_t)limit / 64 + 1;
    int32_t *slot = (int32_t *)(void *)(place + words); /* by position, where its bit is set */
    memset(place, 0, words * sizeof *place);
    for (int i = 0; i < n; i++) {
        place[pos[i] / 64] |= UINT64_C(1) << (pos[i] % 64);
        slot[pos[i]] = i;
    }
    int k = 0;
    for (size_t w = 0; w < words; w++)
        for (uint64_t bits = place[w]; bits; bits &= bits - 1)
            order[k++] = slot[w * 64 + (size_t)__builtin_ctzll(bits)];
}

uint64_t kept_kth_largest(const uint64_t *key, int n, int k)
{
    uint64_t prefix = 0, known = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        int count[256] = {0}, b = 255;
        for (int i = 0; i < n; i++)
            if (((key[i] ^ prefix) & known) == 0)
                count[key[i] >> shift & 255]++;
        for (; b > 0 && k > count[b]; b--)
            k -= count[b];
        prefix |= (uint64_t)b << shift;
        known |= (uint64_t)255 << shift;
        for (int i = 0; i < n && count[b] == 1; i++)
            if (((key[i] ^ prefix) & known) == 0)
                return key[i];
    }
    return prefix;
}

/* Bits that order like the floats, as signed numbers; -0 equals 0. */
static inline int32_t signed_order(float f)
{
    int32_t u;
    f += 0.0f;
    memcpy(&u, &f, sizeof u);
    return u ^ (u >> 31 & INT32_MAX);
}

/* Keeps all but the worst of the others: one token per step. Whole passes without branches, so that
 * they vectorise; work [n/2]. */
static void drop_one(const float *score, const int32_t *pos, int n, uint8_t *mask, int32_t *key)
{
    int32_t least = INT32_MAX, first = INT32_MAX;
    int worst = -1;
    for (int i = 0; i < n; i++) {
        int32_t k = signed_order(score[i]);
        key[i] = mask[i] ? INT32_MAX : k; /* no finite score reaches it */
        least = key[i] < least ? key[i] : least;
    }
    for (int i = 0; i < n; i++)
        if (key[i] == least && pos[i] < first) {
            first = pos[i];
            worst = i;
        }
    memset(mask, 1, (size_t)n);
    mask[worst] = 0;
}

void kept_select_slots(const float *score, const int32_t *pos, int n, int keep, uint8_t *mask,
                       uint64_t *work)
{
    int m = 0;
    for (int i = 0; i < n; i++)
        m += !mask[i];
    if (keep <= 0 || m == 0)
        return;
    if (keep == m - 1) {
        drop_one(score, pos, n, mask, (int32_t *)(void *)work);
        return;
    }
    m = 0;
    for (int i = 0; i < n; i++)
        if (!mask[i])
            work[m++] = (uint64_t)kept_float_order(score[i]) << 32 | (uint32_t)pos[i];
    uint64_t least = keep >= m ? 0 : kept_kth_largest(work, m, keep);
    m = 0;
    for (int i = 0; i < n; i++)
        if (!mask[i])
            mask[i] = work[m++] >= least;
}
