/* The score "random": no formula to compare with, but chance to be compared to. */
#include "policy_rig.h"

#define N 128

/* random has no formula: its sets must be what chance gives, and differ between heads and seeds. */
static void test_random(void)
{
    rig r = rig_new(1, 2, 1, 64, N);
    rig_pool(&r);
    kept_strategy *s = rig_parse("random+protect(sinks=0,recent=0)@50%");
    int hits[N] = {0}, both = 0, again = 0;
    bool last[N] = {0};
    for (int seed = 0; seed < 400; seed++) {
        uint64_t ns = 0;
        uint8_t a[N], b[N];
        r.cache = rig_cache(&r, N, 0);
        kept_evict e = rig_evict(&r, r.cache, N);
        e.seed = (uint64_t)seed;
        CHECK_INT(kept_strategy_evict(s, &e, r.work, &ns, &ns, NULL), KEPT_OK);
        CHECK_INT(rig_live(&r, r.cache, 0, 0, a), 64);
        rig_live(&r, r.cache, 0, 1, b);
        for (int i = 0; i < N; i++) {
            hits[i] += a[i];
            both += a[i] && b[i];
            again += a[i] && last[i];
            last[i] = a[i];
        }
        kept_cache_free(r.cache);
        r.cache = NULL;
    }
    for (int i = 0; i < N; i++)
        CHECK(hits[i] > 150 && hits[i] < 250); /* 200 expected, deviation 10 */
    CHECK_NEAR(both / 400.0, 32, 2);           /* deviation of one draw: 2.8 */
    CHECK_NEAR(again / 400.0, 32, 2);
    kept_strategy_free(s);
    rig_free(&r);
}

int main(void)
{
    RUN(test_random);
    TEST_END();
}
