/* slerp: packing, and the plain reading. */
#include "kern/slerp.h"

#include "kern/impl.h"

#include <math.h>
#include <string.h>

#define P64   KEPT_PAGE_SLOTS
#define APART KEPT_SLERP_APART
#define T     0.6

static size_t element(bool v, int D, int s, int d)
{
    const int c = d / 64 * 64;

    return v ? (size_t)(P64 * c + s * kept_v_width(D, c) + d - c)
             : kept_k_at(D, s) + (size_t)d * 32;
}

/* Parts of a half. */
typedef struct parts {
    kept_f16 *direction, *length, *own; /* own: of the later layer */
    uint8_t *apart;
} parts;

static parts open_half(const uint8_t *half, int D)
{
    uint8_t *at = (uint8_t *)(uintptr_t)half;
    parts p = {.direction = (kept_f16 *)(void *)at};

    at += 2 * P64 * D;
    p.length = (kept_f16 *)(void *)at;
    p.apart = at + 4 * P64;
    p.own = (kept_f16 *)(void *)(at + 5 * P64);
    return p;
}

static double dot(const float *a, const float *b, int D)
{
    double sum = 0;

    for (int d = 0; d < D; d++)
        sum += (double)a[d] * (double)b[d];
    return sum;
}

/* The length as it is stored, and what a vector is multiplied by to be a direction. */
static double length_of(const float *x, int D, kept_f16 *stored)
{
    const double length = sqrt(dot(x, x, D));

    *stored = kept_f32_to_f16((float)(length < 65504 ? length : 65504));
    return length > 0 ? 1 / length : 0;
}

/* Weights of a/|a| and b/|b|. */
static void weights_of(double cosine, double w[2])
{
    const double angle = acos(cosine < -1 ? -1 : cosine > 1 ? 1 : cosine), s = sin(angle);

    w[0] = s > 1e-4 ? sin((1 - T) * angle) / s : 1 - T;
    w[1] = s > 1e-4 ? sin(T * angle) / s : T;
}

/* The APART slots with the least cosines, the earlier of equal ones. */
static void choose(const double *cosine, uint8_t *apart)
{
    bool taken[P64] = {false};

    for (int k = 0; k < APART; k++) {
        int best = -1;

        for (int s = 0; s < P64; s++)
            if (!taken[s] && (best < 0 || cosine[s] < cosine[best]))
                best = s;
        taken[best] = true;
        apart[k] = (uint8_t)best;
    }
}

void kept_slerp_pack(uint8_t *half, bool v, int D, const float *a, const float *b)
{
    const parts p = open_half(half, D);
    double cosine[P64], by[2][P64];

    memset(p.apart, 0, P64);
    for (int s = 0; s < P64; s++) {
        by[0][s] = length_of(a + s * D, D, &p.length[s]);
        by[1][s] = length_of(b + s * D, D, &p.length[P64 + s]);
        cosine[s] = dot(a + s * D, b + s * D, D) * by[0][s] * by[1][s];
        if (by[0][s] == 0 || by[1][s] == 0)
            cosine[s] = 1; /* what has no length has any direction */
    }
    choose(cosine, p.apart);
    for (int s = 0; s < P64; s++) {
        const uint8_t *apart = memchr(p.apart, s, APART);
        kept_f16 *own = apart ? p.own + (apart - p.apart) * D : NULL;
        double w[2], e[KEPT_MAX_HEAD_SIZE], square = 0;

        weights_of(cosine[s], w);
        for (int d = 0; d < D; d++) {
            const double x = (double)a[s * D + d] * by[0][s], y = (double)b[s * D + d] * by[1][s];

            e[d] = apart ? x : w[0] * x + w[1] * y;
            square += e[d] * e[d];
            if (apart)
                own[d] = kept_f32_to_f16((float)y);
        }
        for (int d = 0; d < D; d++) /* of length 1 already, but where one vector is 0 */
            p.direction[element(v, D, s, d)] =
                kept_f32_to_f16((float)(square > 0 ? e[d] / sqrt(square) : 0));
    }
}

void kept_slerp_read(const uint8_t *half, bool v, int D, int which, float *x)
{
    const parts p = open_half(half, D);

    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++)
            x[s * D + d] = kept_f16_to_f32(p.direction[element(v, D, s, d)]) *
                           kept_f16_to_f32(p.length[which * P64 + s]);
    for (int k = 0; k < APART && which; k++)
        for (int d = 0; d < D; d++)
            x[p.apart[k] * D + d] =
                kept_f16_to_f32(p.own[k * D + d]) * kept_f16_to_f32(p.length[P64 + p.apart[k]]);
}

void kept_slerp_widen(const uint8_t *half, bool v, int D, int which, float *to)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];

    kept_slerp_read(half, v, D, which, x);
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++)
            to[element(v, D, s, d)] = x[s * D + d];
}
