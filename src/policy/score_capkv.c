/* capkv: CapKV, arXiv 2604.25975: what a token adds to the capacity of the values that queries
 * will look at. Per query head w_i = exp(tau cos(k_i, R mu)), mu the mean query before rotation and
 * R the mean rotation of the next `future` positions, M = I + sum w_i v_i v_i'; the score is the
 * mean over query heads of w_i v_i' M^-1 v_i.
 *
 * The cosine and the rotation are those of kvpress (the paper: <k, mu>). A key or mean of length 0
 * has cosine 0.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { TAU, FUTURE };

/* w [n] of query head g. */
static void weigh(const kept_view *v, const kept_view_head *h, int g, const float *turn, float *w)
{
    int size = v->head_size;
    float mu[512];
    memcpy(mu, h->q_mean + g * size, (size_t)size * sizeof *mu);
    kept_rope_turn(v, turn, turn + v->n_rope / 2, mu, 1);
    float length = sqrtf(kept_dot(mu, mu, size));
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        float both = length * sqrtf(kept_dot(k, k, size));
        w[i] = expf((float)v->options[TAU] * (both > 0 ? kept_dot(k, mu, size) / both : 0));
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    float turn[512], *w = v->scratch + KEPT_LEVERAGE_WORK, *x = v->pooled;
    kept_rows r = {.x = h->value, .weight = w, .n = h->n, .size = v->head_size, .k = v->head_size};
    kept_rope_mean(v, v->next_pos, v->options[FUTURE], turn, turn + v->n_rope / 2);
    memset(out, 0, (size_t)h->n * sizeof *out);
    for (int g = 0; g < v->group; g++) {
        weigh(v, h, g, turn, w);
        kept_leverage(v, &r, 1, v->scratch, x);
        for (int i = 0; i < h->n; i++)
            out[i] += w[i] * x[i] / (float)v->group;
    }
}

static const kept_option options[] = {
    {"tau", 5, 0, 20, false, NULL, "how sharply the cosine with the mean query counts"},
    {"future", 512, 1, 1048576, true, NULL, "next positions averaged over"},
};

const kept_score kept_score_capkv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "capkv",
             .summary = "leverage of the value among values, by how queries look at their keys",
             .paper = "arXiv 2604.25975",
             .deviations =
                 "cosine and mean rotation as kvpress (the paper: inner product), without "
                 "its shift of weights; the first tokens take part",
             .options = options,
             .n_options = 2},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES | KEPT_NEED_QUERIES,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
