/* shuffle: orders. RULER shuffles words and documents with a generator seeded anew for every sample
 * (random.Random(42)), so that a count has one order; its layout can be had only with CPython's own
 * generator (MT19937, Matsumoto and Nishimura 1998) and shuffle.
 */
#include "task/parts.h"

#define N 624
#define M 397

typedef struct twister {
    uint32_t s[N];
    int at;
} twister;

/* init_by_array of one key, as random.seed(key) calls it. */
static void seed(twister *t, uint32_t key)
{
    uint32_t *s = t->s;
    s[0] = 19650218u;
    for (uint32_t i = 1; i < N; i++)
        s[i] = 1812433253u * (s[i - 1] ^ s[i - 1] >> 30) + i;
    uint32_t i = 1;
    for (int k = 0; k < N; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1664525u) + key;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    for (int k = 0; k < N - 1; k++) {
        s[i] = (s[i] ^ (s[i - 1] ^ s[i - 1] >> 30) * 1566083941u) - i;
        if (++i >= N) {
            s[0] = s[N - 1];
            i = 1;
        }
    }
    s[0] = 0x80000000u;
    t->at = N;
}

static uint32_t next(twister *t)
{
    uint32_t *s = t->s;
    if (t->at == N) {
        for (int i = 0; i < N; i++) {
            const uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
            s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        t->at = 0;
    }
    uint32_t y = s[t->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

/* random.Random._randbelow for n < 2^31. */
static int below(twister *t, int n)
{
    int bits = 0;
    while (n >> bits)
        bits++;
    for (;;) {
        const int r = (int)(next(t) >> (32 - bits));
        if (r < n)
            return r;
    }
}

static void swap(int *order, int i, int j)
{
    const int x = order[i];
    order[i] = order[j];
    order[j] = x;
}

void kept_shuffle_fixed(int *order, int n)
{
    twister t;
    seed(&t, 42);
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--)
        swap(order, i, below(&t, i + 1));
}

void kept_shuffle(kept_rng *rng, int *order, int n)
{
    for (int i = 0; i < n; i++)
        order[i] = i;
    for (int i = n - 1; i > 0; i--)
        swap(order, i, (int)kept_rng_below(rng, (uint32_t)i + 1));
}

void kept_task_shuffle(const kept_task *t, kept_rng *rng, int *order, int n)
{
    if (t->compat)
        kept_shuffle_fixed(order, n);
    else
        kept_shuffle(rng, order, n);
}
