/* slerp: pages of two adjacent layers that share directions (MiniCache, arXiv 2405.14366). A slot's
 * vectors a, of the earlier layer, and b are kept as their lengths and one direction between
 * theirs:
 *
 *     e = sin((1 - t) w) / sin(w) a/|a| + sin(t w) / sin(w) b/|b|,  cos(w) = <a, b> / (|a| |b|)
 *
 * with t = 0.6; a is read as |a| e and b as |b| e (eq. 3 to 5). The 4 slots of a page whose angles
 * w are the largest stay unmerged: both directions are kept. The paper has the directions of all
 * heads of a token together, and leaves those apart whose angle is within 5 % of the range below
 * the largest.
 *
 * A half: directions as an f16 half; lengths [2][64] f16; [64] bytes, of which the first 4 say
 * which slots are unmerged; the directions of b of these, [4][D] f16. Directions and lengths are at
 * most the F16 range. */
#ifndef KERN_SLERP_H
#define KERN_SLERP_H

#include "kern/kern.h"

#define KEPT_SLERP_APART 4

static inline size_t kept_slerp_bytes(int head_size)
{
    return (size_t)(2 * KEPT_PAGE_SLOTS + 2 * KEPT_SLERP_APART) * (size_t)head_size +
           5 * KEPT_PAGE_SLOTS;
}
/* From a and b, [64][D] each. */
void kept_slerp_pack(uint8_t *half, bool v, int head_size, const float *a, const float *b);
/* x[64][D] of the earlier (which 0) or the later (1) layer. */
void kept_slerp_read(const uint8_t *half, bool v, int head_size, int which, float *x);
/* The same as floats in the element order of an F16 half. */
void kept_slerp_widen(const uint8_t *half, bool v, int head_size, int which, float *to);
void kept_slerp_widen_avx2(const uint8_t *half, bool v, int head_size, int which, float *to);

#endif
