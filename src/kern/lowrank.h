/* lowrank: directions that coefficients of packed pages refer to, and what turns one into the
 * other.
 *
 * A slot's vector x [D] is kept as r coefficients, and read as its projection sum_i <u_i, x> u_i on
 * the first r of D directions u_i. The directions of LOW and FLAT are orthonormal. Those of PAIR
 * and QUAD are the parts, one for each layer of a group, of directions that are orthonormal over
 * all its layers: <u_i, x> is a sum over the layers, so layers that are alike cost what one does.
 *
 * Values, and keys of FLAT, are kept as c_i = <u_i, x>. Outputs are summed over coefficients and
 * become vectors once a segment of pages, which is the same sum in another order; the query of FLAT
 * keys is projected. Neither vector is made.
 *
 * Keys of LOW, PAIR and QUAD are turned back to position 0 before, and forth to the slot's position
 * when they are read: exact up to rounding, and what is linear in a layer's input stays so (Palu,
 * arXiv 2407.21118; xKV, arXiv 2503.18893). So keys must be made again, for all query heads of the
 * KV head together, and that is nearly all that reading them costs. Projections lie in a space of r
 * dimensions, where r channels, chosen once, determine the others: those r channels of the
 * projection, and not <u_i, x>, are the coefficients, and only D - r channels are sums when keys
 * are made again. Which channels: such that no factor is much above 1 (nearly the submatrix of the
 * greatest volume, Goreinov et al. 2010), so rounding grows little. (Deviation from Palu and xKV,
 * which keep <u_i, x>: the same projection in other coordinates.)
 *
 * Rotary factors come from small tables: position 64 a + b turns by 64 a, then by b. */
#ifndef KERN_LOWRANK_H
#define KERN_LOWRANK_H

#include "kern/kern.h"

#define KEPT_JOINT_LAYERS 4 /* most layers of a group */

/* Rotary factors cos and sin of positions [0, 64 n_high). */
typedef struct kept_turns {
    int n_rope, n_high;
    /* Places of a turned vector: pairs are (i, i + n_rope/2). Channel of each place, [D]. */
    uint8_t order[KEPT_MAX_HEAD_SIZE];
    float *table;                                     /* owned */
    const float *re_low, *im_low, *re_high, *im_high; /* [64] and [n_high], each [n_rope/2] */
    const float *re_slot, *im_slot;                   /* [n_rope/2][64]: re_low turned over */
} kept_turns;

/* freq [n_rope/2] radians a position; pairs are (2j, 2j+1), with neox (j, j + n_rope/2). NULL: no
 * memory. */
kept_turns *kept_turns_new(const float *freq, int n_rope, bool neox, int head_size, int max_pos);
void kept_turns_free(kept_turns *t);
size_t kept_turns_bytes(const kept_turns *t);

/* A key x[D] of position pos, in channels, becomes the same at position 0, in places; and back. */
void kept_turns_place(const kept_turns *t, int32_t pos, int D, float *x);
void kept_turns_unplace(const kept_turns *t, int32_t pos, int D, float *x);

typedef struct kept_stands kept_stands; /* lowrank_stands.h */

/* Directions of one KV head of one layer, [D][D] each, the most important first; NULL: none. Keys
 * but those of FLAT in the places of turns->order, everything else in channels. Of turned keys it
 * is what stands for them that is read, by quarters less 1; NULL: nobody reads such pages. */
struct kept_low {
    const float *k[KEPT_N_BASES], *v[KEPT_N_BASES];
    const kept_stands *stands[KEPT_N_BASES][4];
    const kept_turns *turns;
    const struct kept_nuq *nuq; /* nuq.h; NULL: none */
};

/* c[64][r] += the coefficients of x[64][D]; x is destroyed. pos [64], for keys that are turned. */
void kept_low_project(const kept_low *low, int codec, bool v, const int32_t *pos, int D, float *x,
                      float *c);
/* x[D] of one slot becomes its coefficients [r]; not for a joint codec. */
void kept_low_project_row(const kept_low *low, int codec, bool v, int32_t pos, int D, float *x);
/* x[64][D] from c[64][r]. */
void kept_low_expand(const kept_low *low, int codec, bool v, const int32_t *pos, int D,
                     const float *c, float *x);
/* A half of a page, packed as it may be, as floats in the element order of an F16 half; avx2: of
 * one whose codec has a basis. */
void kept_low_widen(kept_packed p, bool v, float *to);
void kept_low_widen_avx2(kept_packed p, bool v, float *to);
void kept_low_widen_avx512(kept_packed p, bool v, float *to);
/* s[n][64] of n <= 16 queries, `stride` apart, against a page of turned keys; asks for the page at
 * `ahead` bytes, 0: none. Only where the level is. */
void kept_low_scores_avx2(kept_packed p, ptrdiff_t ahead, int n, const float *q, int stride,
                          float *s);
void kept_low_scores_avx512(kept_packed p, ptrdiff_t ahead, int n, const float *q, int stride,
                            float *s);

/* The directions of a half; keys of that kind are turned. */
static inline const float *kept_low_directions(const kept_low *low, int codec, bool v)
{
    return (v ? low->v : low->k)[kept_codec_get(codec)->basis];
}
static inline bool kept_low_is_turned(int codec, bool v)
{
    return !v && kept_codec_get(codec)->basis != KEPT_BASIS_FLAT;
}
static inline const kept_stands *kept_low_stands(const kept_low *low, int codec)
{
    return low->stands[kept_codec_get(codec)->basis][kept_codec_get(codec)->quarters - 1];
}

#endif
