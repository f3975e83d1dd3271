/* select: ordering and choosing slots. Pure functions on arrays; no state, no allocation. */
#ifndef POLICY_SELECT_H
#define POLICY_SELECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bits that order like the floats they came from; -0 equals 0. Not for NaN. */
uint32_t kept_float_order(float f);

/* Sorts pos [n] (distinct, >= 0): order[i] is the index of the i-th smallest. work [2n]. */
void kept_order_positions(const int32_t *pos, int n, int32_t *order, uint64_t *work);

/* The same in one pass each way, for 0 <= pos < limit where limit is not many times n. place
 * [kept_place_words(limit)]. */
void kept_order_places(const int32_t *pos, int n, int32_t limit, int32_t *order, uint64_t *place);
static inline size_t kept_place_words(int32_t limit)
{
    return (size_t)limit / 64 + 1 + (size_t)limit / 2 + 1;
}

/* The same by score: larger first, later position among equals. Positions are distinct. */
void kept_order_scores(const float *score, const int32_t *pos, int n, int32_t *order,
                       uint64_t *work);
/* Sorts key [n], largest first. work [n]. */
void kept_order_keys(uint64_t *key, int n, uint64_t *work);

/* The k-th largest of n distinct keys, 1 <= k <= n. Linear, whatever the keys. */
uint64_t kept_kth_largest(const uint64_t *key, int n, int k);

/* On entry mask [n] marks what stays anyway; sets it for the `keep` best of the others too: larger
 * score first, later position among equals. work [n]. */
void kept_select_slots(const float *score, const int32_t *pos, int n, int keep, uint8_t *mask,
                       uint64_t *work);

/* The slot that goes first of those without a mark in mask [n], -1 if all have one. Scores
 * are finite. low [n/16 + 1]. */
int kept_select_worst(const float *score, const int32_t *pos, const uint8_t *mask, int n,
                      float *low);

#endif
