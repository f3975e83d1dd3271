/* basis: what `kept calibrate basis` computes from sums of products. */
#ifndef TRAIN_BASIS_H
#define TRAIN_BASIS_H

#include <stdbool.h>

/* Directions of n groups of D numbers end to end, from the sum of their products, a block
 * [n D][n D] with `stride` numbers a row, of which the lower half is read: the D eigenvectors with
 * the largest eigenvalues, unit length over all n D numbers, into out [n][D][D]: part g of
 * direction i is row i of block g. The largest number of each is positive. energy [D] += the
 * eigenvalues. False: no memory or no convergence. */
bool kept_basis_directions(const double *sum, int stride, int D, int n, float *out, double *energy);

#endif
