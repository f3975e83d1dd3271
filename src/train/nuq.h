/* nuq: how `kept calibrate nuq` finds levels. */
#ifndef TRAIN_NUQ_H
#define TRAIN_NUQ_H

#include <stddef.h>

/* A number y that was seen, what its square error weighs, and what y is a multiple of: errors
 * beyond all others in y times unit make outliers. */
typedef struct kept_nuq_sample {
    float y, weight, unit;
} kept_nuq_sample;

/* The n levels (8 or 16, ascending) with the least weighted square error over m samples, by Lloyd's
 * rule (one-dimensional k-means) from the levels of a Gaussian; but for the `part` of the samples
 * that they meet worst (0: all count), found in turns with them. Sorts x; work [2 (m + 1)]. Returns
 * that error as a part of the weighted mean square, 0 if there is nothing. */
double kept_nuq_fit(kept_nuq_sample *x, int m, int n, double part, float *level, double *work);

#endif
