/* cam: CaM. A dropped value is spread over the next m kept tokens, v / m to each, with probability
 * A_e / mean(A of these m), at most 1, where A is the attention that a token received.
 */
#include "kept/policy.h"

#include <stdint.h>

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = INT32_MAX};
}

static void merge(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const int size = v->head_size, most = (int)v->options[0];
    for (int g = 0, next = 0; g < m->n_gone; g++) {
        const int place = m->gone[g];
        const float *from = h->value + (size_t)place * (size_t)size;
        while (next < m->n_kept && m->kept[next] < place)
            next++;
        const int n = m->n_kept - next < most ? m->n_kept - next : most;
        double sum = 0;
        for (int j = next; j < next + n; j++)
            sum += h->mass[m->kept[j]];
        /* Compared without a division: nothing was ever paid to any of them is no reason. */
        if (!n || !(kept_noise(v, m->head, h->pos[place]) * sum < (double)n * h->mass[place]))
            continue;
        for (int j = next; j < next + n; j++)
            for (int d = 0; d < size; d++)
                m->value[(size_t)j * (size_t)size + (size_t)d] += from[d] / (float)n;
    }
}

static const kept_option options[] = {
    {"m", 32, 1, 65536, true, NULL, "kept tokens that a dropped value is spread over"},
};

const kept_merge kept_merge_cam = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "cam",
             .summary = "values are spread over the next kept tokens, at random by attention",
             .paper = "CaM, ICML 2024 (openreview LCTmppB165)",
             .deviations = "all dropped tokens are tried, at any eviction (the paper: one per "
                           "decode step); attention is summed over all queries so far and the "
                           "query heads of a KV head; fewer than m where fewer follow",
             .options = options,
             .n_options = 1},
    .needs = KEPT_NEED_VALUES,
    .plane = plane,
    .merge = merge,
};
