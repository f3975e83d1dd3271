/* nuq: levels that are not spread evenly, found on a text, and outliers beside them (KVQuant, arXiv
 * 2401.18079).
 *
 * A key is turned back to position 0 and, channel by channel, brought to mean 0 and deviation 1 by
 * two numbers that were calibrated and cost a page nothing; a value is brought to a mean square of
 * 1, slot by slot, by a scale that the page holds. What is left is the nearest of 8 or 16 levels of
 * the KV head:
 *
 *     key    = turn(zero[c] + scale[c] * level[code])
 *     value  = scale of the slot * level[code]
 *
 * The key of position 0, which most queries look at and which is unlike all others, is held whole.
 *
 * Codecs nuq4s and nuq3s hold the numbers of a half that the levels meet worst beside these, as
 * positions and F16 values: 16 for every 25 channels or part of them, 1 % or a little more. A page
 * half is
 *
 *     codes    as in codec.h, of keys in the places of turns->order (lowrank.h)
 *     first    K only: [D] F16, in places, the key of the slot of position 0 if the page has one
 *     scales   V only: [64] bf16
 *     where    s only: [n] 16-bit numbers slot * D + channel (of keys: place)
 *     what     s only: [n] F16, of keys before they are turned
 *
 * Every level of instructions widens such a page to floats by looking codes up, and attends to
 * these as to any page that is widened. */
#ifndef KERN_NUQ_H
#define KERN_NUQ_H

#include "kern/lowrank.h"

/* What was calibrated of one KV head of one layer. */
struct kept_nuq {
    const float *zero, *scale;   /* [D] of keys, in places; scale > 0 */
    const float *level[2][2][2]; /* of K and V; without outliers and with; [8] or [16], ascending */
};

/* Numbers that a half holds as they are; 0: none. */
int kept_nuq_outliers(int codec, int D);
size_t kept_nuq_half_bytes(int codec, bool v, int D);
/* A half from x[64][D], which is destroyed. low->nuq and, for keys, pos[64] and low->turns. */
void kept_nuq_pack(uint8_t *half, int codec, bool v, kept_packed p, float *x);
void kept_nuq_read(const uint8_t *half, int codec, bool v, kept_packed p, float *x);
/* A half as floats in the element order of an F16 half. */
void kept_nuq_widen(kept_packed p, bool v, float *to);
/* One row of a half without outliers: x[D] is destroyed; a copy, bit by bit, into a half of page
 * `to`, from.pos[src] being the position. */
void kept_nuq_put(uint8_t *half, int codec, bool v, kept_packed p, int slot, float *x);
void kept_nuq_move(kept_packed to, int dst, kept_packed from, int src, bool v);

#endif
