/* net: what the trainers fit. A dense network of two layers, y = w2 f(w1 x + b1) + b2, by Adam
 * (arXiv 1412.6980) on mean squared error (net.c), and a linear map by ridge regression (ridge.c).
 * Everything runs in a fixed order on one thread.
 */
#ifndef TRAIN_NET_H
#define TRAIN_NET_H

#include "kern/kern.h"

#include <stdint.h>

#define KEPT_NET_BATCH 128 /* most rows of one call */

typedef struct kept_net {
    int n_in, n_hidden, n_out;
    bool relu; /* f is max(0, z); false: gelu, z (1 + erf(z / sqrt(2))) / 2 */
    /* w1 [n_hidden][n_in], b1 [n_hidden], w2 [n_out][n_hidden], b2 [n_out], one after the other */
    float *w; /* [kept_net_size] */
} kept_net;

size_t kept_net_size(const kept_net *net);
float *kept_net_b1(const kept_net *net);
float *kept_net_w2(const kept_net *net);
float *kept_net_b2(const kept_net *net);
/* Normal weights with the width's usual scale, biases 0. */
void kept_net_init(const kept_net *net, uint64_t seed);

/* Scratch for run and step: so many floats. */
size_t kept_net_work(const kept_net *net);
/* y [n][n_out] of x [n][n_in], n <= KEPT_NET_BATCH. */
void kept_net_run(const kept_net *net, const kept_kern *kern, const float *x, int n, float *y,
                  float *work);
/* What a step needs besides. */
typedef struct kept_net_fit {
    const kept_kern *kern;
    float *m1, *m2; /* [kept_net_size] Adam's moments, zero before the first step */
    double rate;
    int64_t step; /* counts from 1 */
    float *work;
    float *grad; /* [kept_net_size] */
} kept_net_fit;
/* Gradient of the mean over rows of the squared error against y, into fit->grad. Returns that
 * mean. */
double kept_net_gradient(const kept_net *net, const kept_net_fit *fit, const float *x,
                         const float *y, int n);
/* One step of Adam on it. Returns the mean before. */
double kept_net_step(const kept_net *net, const kept_net_fit *fit, const float *x, const float *y,
                     int n);
/* Makes a network of standardised input, (x - mean) scale, one of x itself; w1 is [n_rows][n_in].
 */
void kept_net_fold(float *w1, float *b1, int n_rows, int n_in, const float *mean,
                   const float *scale);

/* Sums for ridge regression of y [n_out] on x [n_in] and a constant. */
typedef struct kept_ridge {
    int n_in, n_out;
    double *a; /* [kept_ridge_size] lower triangle of the products of (x, 1), row by row */
    double *b; /* [n_out][n_in + 1] */
} kept_ridge;
size_t kept_ridge_size(int n_in);
/* Adds rows x [n][n_in], y [n][n_out]; work [KEPT_NET_BATCH * (n_in + n_in + 1)]. */
void kept_ridge_add(const kept_ridge *r, const kept_kern *kern, const float *x, const float *y,
                    int n, float *work);
/* The w [n_out][n_in] and b [n_out] of least sum of (y - w x - b)^2 + lambda n |w|^2, n the rows
 * added. work [(n_in + 1)^2]. r->b is overwritten. False: not positive definite. */
bool kept_ridge_solve(const kept_ridge *r, double lambda, float *w, float *b, double *work);

#endif
