/* linalg: decompositions, by LAPACK. The only place that calls it. */
#ifndef BASE_LINALG_H
#define BASE_LINALG_H

#include <stdbool.h>

/* Eigenvalues of a symmetric matrix, largest first, into w [n], and its eigenvectors, unit length,
 * as rows 0 .. n - 1 of a [n][n], of which the lower half is read. False: out of memory, entries
 * that are not finite, or no convergence; a is then destroyed. Any thread. */
bool kept_eigen_symmetric(int n, double *a, double *w);

#endif
