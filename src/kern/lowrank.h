/* lowrank: directions that coefficients of packed pages refer to, and what turns one into the
 * other.
 *
 * A slot's vector x [D] is kept as c_i = <u_i, x>, i < r, for the first r of D directions u_i, and
 * read as sum_i c_i u_i. The directions of LOW and FLAT are orthonormal. Those of PAIR and QUAD are
 * the parts, one for each layer of a group, of directions that are orthonormal over all its layers:
 * c_i is the sum over the layers, so layers that are alike cost what one does.
 *
 * Keys of LOW, PAIR and QUAD are turned back to position 0 before, and forth to the slot's position
 * when they are read: exact up to rounding, and what is linear in a layer's input stays so (Palu,
 * arXiv 2407.21118; xKV, arXiv 2503.18893). Rotary factors come from two small tables: position 64
 * a + b turns by 64 a, then by b.
 *
 * Scores against a page are those of its keys, made again 64 slots at a time for all query heads of
 * the KV head. FLAT needs no keys: the query is projected. Outputs are summed over coefficients and
 * become vectors once a segment of pages, which is the same sum in another order. */
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
} kept_turns;

/* freq [n_rope/2] radians a position; pairs are (2j, 2j+1), with neox (j, j + n_rope/2). NULL: no
 * memory. */
kept_turns *kept_turns_new(const float *freq, int n_rope, bool neox, int head_size, int max_pos);
void kept_turns_free(kept_turns *t);
size_t kept_turns_bytes(const kept_turns *t);

/* A key x[D] of position pos, in channels, becomes the same at position 0, in places; and back. */
void kept_turns_place(const kept_turns *t, int32_t pos, int D, float *x);
void kept_turns_unplace(const kept_turns *t, int32_t pos, int D, float *x);

/* Directions of one KV head of one layer, [D][D] each, the most important first; NULL: none. Keys
 * but those of FLAT in the places of turns->order, everything else in channels. */
struct kept_low {
    const float *k[KEPT_N_BASES], *v[KEPT_N_BASES];
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
/* out[r] = the query q[D] for a FLAT half. */
void kept_low_query(const kept_low *low, int codec, int D, const float *q, float *out);

/* The directions of a half; keys of that kind are turned. */
static inline const float *kept_low_directions(const kept_low *low, int codec, bool v)
{
    return (v ? low->v : low->k)[kept_codec_get(codec)->basis];
}
static inline bool kept_low_is_turned(int codec, bool v)
{
    return !v && kept_codec_get(codec)->basis != KEPT_BASIS_FLAT;
}

#endif
