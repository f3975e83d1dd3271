/* attend_rig: pages in any forms, and attention over what they hold, in double. */
#ifndef TESTS_ATTEND_RIG_H
#define TESTS_ATTEND_RIG_H

#include "lowrank_rig.h"

enum { MOST_PAGES = 5, MOST_Q = 5 };

typedef struct pages {
    int n;
    uint8_t *at; /* F16 pages' room each */
    int32_t id[MOST_PAGES], pos[MOST_PAGES][P64];
    const int32_t *slot_pos[MOST_PAGES];
    const kept_codecs *form;
    double *k, *v; /* [n * 64][D] what they hold */
} pages;

/* The largest difference of any output from attention in double over what the pages hold, whose
 * sums of weights are compared here. rounds: queries are rounded to integers. */
static inline double worst(const kept_kern *kern, const pages *x, int group, int n_q, bool rounds)
{
    const int D = the.D, n = x->n * P64 - 7;
    static float q[MOST_Q * 8 * MOST], acc[MOST_Q * 8 * MOST], m[64], l[64];
    static kept_f16 p[MOST_PAGES * 64 * P64];
    static float p_max[MOST_PAGES * 64];
    double most = 0;
    for (int i = 0; i < n_q * group * D; i++)
        q[i] = (float)(uniform() * (rounds ? 0.5 : 2));
    const kept_attn_tile t = {.head_size = D,
                              .group = group,
                              .n_q = n_q,
                              .q = q,
                              .q_stride_t = (size_t)(group * D),
                              .q_stride_g = (size_t)D,
                              .scale = 0.25f,
                              .pool = x->at,
                              .page_bytes = kept_page_bytes(D),
                              .pages = x->id,
                              .n_pages = x->n,
                              .codec = x->form,
                              .visible = n - n_q + 1,
                              .low = &the.low[1],
                              .slot_pos = x->slot_pos,
                              .m = m,
                              .l = l,
                              .acc = acc,
                              .p = p,
                              .p_max = p_max};
    kern->attend(&t);
    for (int r = 0; r < n_q * group; r++) {
        double s[MOST_PAGES * P64], top = -INFINITY, sum = 0, out[MOST] = {0};
        const int seen = n - n_q + 1 + r / group;
        for (int i = 0; i < seen; i++) {
            s[i] = 0;
            for (int d = 0; d < D; d++)
                s[i] += (double)q[r * D + d] * x->k[i * D + d];
            s[i] *= 0.25;
            top = fmax(top, s[i]);
        }
        for (int i = 0; i < seen; i++) {
            const double w = exp2(s[i] - top);
            sum += w;
            for (int d = 0; d < D; d++)
                out[d] += w * x->v[i * D + d];
        }
        for (int d = 0; d < D; d++)
            most = fmax(most, fabs((double)(acc[r * D + d] / l[r]) - out[d] / sum));
        CHECK_NEAR(log2((double)l[r]) + (double)m[r], log2(sum) + top, rounds ? 0.05 : 1e-4);
    }
    return most;
}

#endif
