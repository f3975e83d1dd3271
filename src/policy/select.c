/* select: see select.h. Keys are score bits above position bits, so that no two are equal and the
 * outcome depends neither on slot order nor on the algorithm.
 */
#include "policy/select.h"

#include <math.h>
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

void kept_order_keys(uint64_t *key, int n, uint64_t *work)
{
    for (int i = 0; i < n; i++)
        key[i] = ~key[i];
    for (int shift = 0; shift < 64; shift += 16) { /* two passes, so that key is where it was */
        radix_pass(key, work, n, shift);
        radix_pass(work, key, n, shift + 8);
    }
    for (int i = 0; i < n; i++)
        key[i] = ~key[i];
}

void kept_order_scores(const float *score, const int32_t *pos, int n, int32_t *order,
                       uint64_t *work)
{
    uint64_t *a = work, *b = work + n;
    kept_order_positions(pos, n, order, work);
    for (int i = 0; i < n; i++) { /* later positions first: the sort keeps their order */
        const int32_t slot = order[n - 1 - i];
        a[i] = (uint64_t)~kept_float_order(score[slot]) << 32 | (uint32_t)slot;
    }
    for (int shift = 32; shift < 64; shift += 16) {
        radix_pass(a, b, n, shift);
        radix_pass(b, a, n, shift + 8);
    }
    for (int i = 0; i < n; i++)
        order[i] = (int32_t)(a[i] & UINT32_MAX);
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

#define STRIP 16 /* slots whose minimum is found without a branch */

typedef float vec4f __attribute__((vector_size(16)));
typedef int32_t vec4i __attribute__((vector_size(16)));
typedef uint8_t vec4b __attribute__((vector_size(4)));

static float strip_least(const float *score, const uint8_t *mask)
{
    const vec4f none = {INFINITY, INFINITY, INFINITY, INFINITY};
    vec4f low = none, x;
    vec4b m;
    for (int i = 0; i < STRIP; i += 4) {
        memcpy(&x, score + i, sizeof x);
        memcpy(&m, mask + i, sizeof m);
        const vec4i marked = __builtin_convertvector(m, vec4i) != 0;
        x = (vec4f)(((vec4i)none & marked) | ((vec4i)x & ~marked));
        const vec4i less = x < low;
        low = (vec4f)(((vec4i)x & less) | ((vec4i)low & ~less));
    }
    float a = low[0] < low[1] ? low[0] : low[1], b = low[2] < low[3] ? low[2] : low[3];
    return a < b ? a : b;
}

int kept_select_worst(const float *score, const int32_t *pos, const uint8_t *mask, int n,
                      float *low)
{
    float least = INFINITY;
    int32_t first = INT32_MAX;
    int worst = -1;
    for (int i = 0; i < n; i += STRIP) {
        float x = INFINITY;
        if (i + STRIP <= n)
            x = strip_least(score + i, mask + i);
        for (int k = i; k < n && i + STRIP > n; k++)
            x = !mask[k] && score[k] < x ? score[k] : x;
        low[i / STRIP] = x;
        least = x < least ? x : least;
    }
    for (int i = 0; i < n; i++) {
        if (i % STRIP == 0 && low[i / STRIP] > least)
            i += STRIP - 1;
        else if (score[i] == least && !mask[i] && pos[i] < first)
            first = pos[worst = i];
    }
    return worst;
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
        const int worst = kept_select_worst(score, pos, mask, n, (float *)(void *)work);
        memset(mask, 1, (size_t)n);
        mask[worst] = 0;
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
