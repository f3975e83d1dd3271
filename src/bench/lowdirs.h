/* lowdirs: random directions of one KV head of four layers, and levels of it, for checking and
 * timing pages of coefficients (kern/lowrank.h) and of calibrated levels (kern/nuq.h) without a
 * model. */
#ifndef BENCH_LOWDIRS_H
#define BENCH_LOWDIRS_H

#include "base/base.h"
#include "kern/nuq.h"

typedef struct kept_lowdirs {
    int D;
    kept_turns *turns;
    float *u;                                                                /* all directions */
    struct kept_nuq nuq;                                                     /* of all layers */
    float zero[KEPT_MAX_HEAD_SIZE], scale[KEPT_MAX_HEAD_SIZE], level[2][16]; /* 8 and 16 of it */
    kept_low low[KEPT_JOINT_LAYERS]; /* of one layer: the first; of n: the first n */
} kept_lowdirs;

/* All of a head are rotated, base 10000, positions [0, max_pos). NOMEM. */
kept_status kept_lowdirs_new(int head_size, int max_pos, uint64_t seed, kept_lowdirs **out,
                             kept_error *err);
/* Prepares them for pages of that form. NOMEM. */
kept_status kept_lowdirs_need(kept_lowdirs *x, kept_codecs form, kept_error *err);
void kept_lowdirs_free(kept_lowdirs *x);

#endif
