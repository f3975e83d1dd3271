/* The two ways to put slots in the order of positions, against a plain search for each place. */
#include "policy/select.h"
#include "test.h"

#include "base/base.h"

#include <string.h>

enum { N = 400, LIMIT = 64 * N };

static void check(int n, int32_t limit, kept_rng *rng)
{
    static int32_t pos[N], order[N], again[N];
    static uint64_t work[2 * N], place[LIMIT / 64 + 1 + LIMIT / 2 + 1];
    static bool used[LIMIT];
    memset(used, 0, sizeof used);
    for (int i = 0; i < n; i++) {
        do
            pos[i] = (int32_t)kept_rng_below(rng, (uint32_t)limit);
        while (used[pos[i]]);
        used[pos[i]] = true;
    }
    memset(place, 0x5a, sizeof place);
    kept_order_positions(pos, n, order, work);
    kept_order_places(pos, n, limit, again, place);
    for (int i = 0; i < n; i++) {
        int before = 0;
        for (int k = 0; k < n; k++)
            before += pos[k] < pos[i];
        CHECK_INT(order[before], i);
        CHECK_INT(again[before], i);
    }
}

static void test_both(void)
{
    kept_rng rng;
    kept_rng_init(&rng, 4);
    for (int turn = 0; turn < 40 && !test_failed; turn++) {
        check(1 + (int)kept_rng_below(&rng, N), N + (int)kept_rng_below(&rng, LIMIT - N), &rng);
        check(N, N, &rng);
        check(0, 1, &rng);
        check(1, 1, &rng);
        check(64, 64, &rng);
        check(65, 65, &rng);
    }
}

int main(void)
{
    RUN(test_both);
    TEST_END();
}
