/* kept/algebra.h: arithmetic that more than one score needs; part of kept/policy.h. */
#ifndef KEPT_ALGEBRA_H
#define KEPT_ALGEBRA_H

#include "kept/policy.h"
#include "kept/read.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sum of a[i] * b[i], n a multiple of 8: eight sums side by side, so that compilers make vectors of
 * them. Equal rows give equal bits. */
static inline float kept_dot(const float *a, const float *b, int n)
{
    float part[8] = {0};
    for (int i = 0; i < n; i += 8)
        for (int j = 0; j < 8; j++)
            part[j] += a[i + j] * b[i + j];
    return ((part[0] + part[4]) + (part[1] + part[5])) +
           ((part[2] + part[6]) + (part[3] + part[7]));
}
/* Turns x [n] into z-scores by mean and (unbiased) standard deviation, at least 1e-6, of the
 * entries that skip [n] does not mark; skip NULL: of all. */
KEPT_API void kept_standardize(float *x, int n, const uint8_t *skip);
/* Number i of a sequence of independent standard normal numbers that the seed stands for. */
KEPT_API double kept_normal(uint64_t seed, uint64_t i);

/* Rows y_i [k] = map (x_i - centre). */
typedef struct kept_rows {
    const float *x;      /* [n][size] */
    const float *centre; /* [size], NULL: 0 */
    const float *map;    /* [k][size], NULL: the identity, k = size */
    const float *weight; /* [n], >= 0; NULL: 1 */
    int n, size, k;      /* k <= size */
} kept_rows;
#define KEPT_LEVERAGE_WORK 217088 /* floats of its work, 8-byte aligned */
/* out[i] = y_i' (ridge I + sum_j weight_j y_j y_j')^-1 y_i, by a Cholesky factor; ridge > 0 grows
 * tenfold as long as rounding leaves the matrix indefinite. 0 where the rows are not finite. */
KEPT_API void kept_leverage(const kept_view *v, const kept_rows *r, double ridge, float *work,
                            float *out);
/* Leverage of each key of a head among its unprotected keys before rotation, from their mean, as
 * z-scores; sketched by `sketch` Gaussian directions of view.seed, 0: exact. Needs KEYS0. */
KEPT_API void kept_key_leverage(const kept_view *v, int head, int sketch, float *out);
/* Mean over the query heads of attention inside blocks (mass of a LOCAL plane) times ||v||, mean
 * over 3 neighbours, as z-scores by the unprotected tokens. Needs VALUES. */
KEPT_API void kept_block_attention(const kept_view *v, int head, float *out);
/* The n floats of KV head `head` of array `name` [n_layers][n_heads][n] of view.trained; NULL: no
 * such array, or one of another size. */
KEPT_API const float *kept_view_trained(const kept_view *v, const char *name, int n, int head);

/* For learned scores: what a slot shows of itself. Needs keys, values, the mass plane of all
 * queries and recent queries (none: their features are constant). fn sees the slots in order, at
 * most KEPT_FEATURE_BLOCK at once: x [n][KEPT_N_FEATURES] of slots first .. first + n - 1, borrowed
 * for the call, within -50..50. Overwrites v->scratch. A share is log(0.01 + a probability as a
 * multiple of an even share): 0 share of all queries so far; 1 of the recent ones, mean of the
 * query heads; 2 of the query head that attends most; 3 the greatest of 1 within three slots; 4 of
 * the last query; 5 log(1 + position); 6 log of age in tokens; 7 position / tokens seen; 8, 9 log
 * of the length of key and value; 10 cosine of the key to the mean direction of keys; 11 to the key
 * before. */
#define KEPT_N_FEATURES    12
#define KEPT_FEATURE_BLOCK 64
typedef void kept_features_fn(void *ctx, int first, int n, const float *x);
KEPT_API void kept_slot_features(const kept_view *v, int head, kept_features_fn *fn, void *ctx);

#ifdef __cplusplus
}
#endif
#endif
