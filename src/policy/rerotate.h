/* rerotate: positions "slot" and "rerotated". */
#ifndef POLICY_REROTATE_H
#define POLICY_REROTATE_H

#include "policy/strategy.h"

/* Scratch of one head: n live slots after the eviction. */
typedef struct kept_rerotate {
    int32_t *pos, *order; /* [n] */
    uint64_t *work;       /* [2n] */
    float *key;           /* [n][D] */
} kept_rerotate;

/* Turns the keys of a head so that its live slots sit at rotary positions without gaps, in the
 * order of their original positions: at 0 .. n - 1 if renumber, else at next_pos - n .. next_pos
 * - 1. Records each slot's shift in the rope plane. FULL: a shared page could not be copied; slots
 * turned so far are recorded. */
kept_status kept_rerotate_head(const kept_evict *e, int layer, int head, bool renumber,
                               const kept_rerotate *w);

#endif
