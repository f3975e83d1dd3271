/* ridge: linear regression in closed form, from sums that any number of rows may be added to.
 * Products are made in floats over KEPT_NET_BATCH rows and summed in doubles. */
#include "train/job.h"
#include "train/net.h"

#include <string.h>

enum { B = KEPT_NET_BATCH, ROWS = KEPT_NET_BATCH };

size_t kept_ridge_size(int n_in)
{
    return ((size_t)n_in + 1) * ((size_t)n_in + 2) / 2;
}

/* At most B rows. turned [n_in][B], products [ROWS][n_in + 1]. */
static void add(const kept_ridge *r, const kept_kern *kern, const float *x, const float *y, int n,
                float *work)
{
    float *turned = work, *products = work + (size_t)B * (size_t)r->n_in;
    for (int i = 0; i < r->n_in; i++)
        for (int t = 0; t < B; t++)
            turned[i * B + t] = t < n ? x[(size_t)t * (size_t)r->n_in + (size_t)i] : 0;
    double *a = r->a, *last = r->a + kept_ridge_size(r->n_in) - (r->n_in + 1);
    for (int from = 0; from < r->n_in; from += ROWS) {
        int rows = r->n_in - from < ROWS ? r->n_in - from : ROWS, cols = from + rows;
        kern->dots(rows, cols, B, turned + from * B, turned, products, cols);
        for (int i = 0; i < rows; i++)
            for (int k = 0; k <= from + i; k++)
                *a++ += products[i * cols + k];
    }
    for (int i = 0; i < r->n_in; i++)
        for (int t = 0; t < n; t++)
            last[i] += turned[i * B + t];
    last[r->n_in] += n;
    for (int o = 0; o < r->n_out; o++) {
        double *b = r->b + (size_t)o * ((size_t)r->n_in + 1);
        for (int t = 0; t < n; t++) {
            double to = y[(size_t)t * (size_t)r->n_out + (size_t)o];
            for (int i = 0; i < r->n_in; i++)
                b[i] += to * (double)x[(size_t)t * (size_t)r->n_in + (size_t)i];
            b[r->n_in] += to;
        }
    }
}

void kept_ridge_add(const kept_ridge *r, const kept_kern *kern, const float *x, const float *y,
                    int n, float *work)
{
    for (int t = 0; t < n; t += B)
        add(r, kern, x + (size_t)t * (size_t)r->n_in, y + (size_t)t * (size_t)r->n_out,
            n - t < B ? n - t : B, work);
}

bool kept_ridge_solve(const kept_ridge *r, double lambda, float *w, float *b, double *work)
{
    size_t n = (size_t)r->n_in, N = n + 1;
    const double *a = r->a;
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k <= i; k++)
            work[i * N + k] = *a++;
    double rows = work[N * N - 1];
    for (size_t i = 0; i < n; i++)
        work[i * N + i] += lambda * rows;
    if (!kept_fit_cholesky(work, (int)N, r->b, r->n_out))
        return false;
    for (int o = 0; o < r->n_out; o++) {
        for (size_t i = 0; i < n; i++)
            w[(size_t)o * n + i] = (float)r->b[(size_t)o * N + i];
        b[o] = (float)r->b[(size_t)o * N + n];
    }
    return true;
}
