/* random: the floor every score must beat. A hash of seed, head and position, so that heads are
 * independent and the same seed gives the same set whatever the order of slots.
 */
#include "kept/policy.h"

static uint64_t mix(uint64_t x) /* splitmix64's output function */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    uint64_t seed = mix(v->seed ^ mix((uint64_t)head));
    for (int i = 0; i < h->n; i++)
        out[i] = (float)(mix(seed ^ (uint64_t)h->pos[i]) >> 40) * 0x1p-24f;
}

const kept_score kept_score_random = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "random",
             .summary = "uniform random numbers, drawn anew for every head and eviction",
             .paper = "",
             .deviations = ""},
    .any_order = true,
    .comparable = true,
    .score = score,
};
