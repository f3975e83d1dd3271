/* lowrank_stands: which channels of keys are coefficients and stand for the others: lowrank.h. */
#ifndef KERN_LOWRANK_STANDS_H
#define KERN_LOWRANK_STANDS_H

#include "kern/lowrank.h"

/* What coefficients of turned keys are in one layer. Vectors are in places. */
struct kept_stands {
    int r, D;
    int n_own, n_rest;         /* places that are coefficients, and the others: D in all */
    const uint8_t *own, *from; /* [n_own] these places, and which coefficient each is */
    const uint8_t *rest;       /* [n_rest] place rest[k] is sum_i mix[k][i] c_i */
    const float *mix;          /* [n_rest][r] */
    const float *into;         /* [r][D] coefficient i of x: <into_i, x>, summed over the layers */
    float number[];            /* all of them */
};

/* Of the first r directions of a group of n layers: u[l] [D][D] those of layer l, r <= D. out [n]
 * is for the caller to free; where directions depend on each other, some coefficients are 0. False:
 * no memory. */
bool kept_stands_new(int n, const float *const *u, int D, int r, kept_stands **out);
size_t kept_stands_bytes(const kept_stands *s);

/* c[64][r] as an F16 half of r channels. */
void kept_low_store(uint8_t *half, bool v, int r, const float *c);

#endif
