/* fit: small fits for merges. The contracts are in kept/merge.h. */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { SWEEPS = 200 };

/* Coordinate descent: for a convex square and bounds that are independent, it ends at the minimum.
 */
void kept_fit_box(int n, int rows, const float *a, float *b, const double range[2],
                  const uint8_t *fixed, float *x)
{
    for (int j = 0; j < n; j++)
        for (int r = 0; r < rows; r++)
            b[r] -= a[(size_t)j * (size_t)rows + (size_t)r] * x[j];
    for (int sweep = 0; sweep < SWEEPS; sweep++) {
        double most = 0;
        for (int j = 0; j < n; j++) {
            const float *col = a + (size_t)j * (size_t)rows;
            double along = 0, square = 0;
            if (fixed && fixed[j])
                continue;
            for (int r = 0; r < rows; r++) {
                along += (double)col[r] * b[r];
                square += (double)col[r] * col[r];
            }
            double to = square > 0 ? x[j] + along / square : x[j];
            to = fmin(fmax(to, range[0]), range[1]);
            const float step = (float)(to - x[j]);
            for (int r = 0; r < rows && step != 0; r++)
                b[r] -= step * col[r];
            x[j] += step;
            most = fmax(most, fabs(step));
        }
        if (most < 1e-5)
            return;
    }
}

/* Solves (a + ridge I) x = b by a Cholesky factor; a [n][n] symmetric, lower half read. */
static bool solve(int n, int m, double *a, double ridge, float *b)
{
    for (int i = 0; i < n; i++) {
        double *row = a + (size_t)i * (size_t)n;
        row[i] += ridge;
        for (int j = 0; j <= i; j++) {
            const double *other = a + (size_t)j * (size_t)n;
            double sum = row[j];
            for (int k = 0; k < j; k++)
                sum -= row[k] * other[k];
            if (j == i && !(sum > 0))
                return false;
            row[j] = j == i ? sqrt(sum) : sum / other[j];
        }
        for (int c = 0; c < m; c++) { /* forward, row by row */
            double sum = b[(size_t)i * (size_t)m + (size_t)c];
            for (int k = 0; k < i; k++)
                sum -= row[k] * b[(size_t)k * (size_t)m + (size_t)c];
            b[(size_t)i * (size_t)m + (size_t)c] = (float)(sum / row[i]);
        }
    }
    for (int i = n - 1; i >= 0; i--)
        for (int c = 0; c < m; c++) {
            double sum = b[(size_t)i * (size_t)m + (size_t)c];
            for (int k = i + 1; k < n; k++)
                sum -= a[(size_t)k * (size_t)n + (size_t)i] * b[(size_t)k * (size_t)m + (size_t)c];
            b[(size_t)i * (size_t)m + (size_t)c] =
                (float)(sum / a[(size_t)i * (size_t)n + (size_t)i]);
        }
    return true;
}

void kept_fit_rows(const kept_fit *f, double ridge, double *work, float *off, float *x)
{
    const size_t n = (size_t)f->rows, size = (size_t)f->size;
    double trace = 0;
    memset(work, 0, n * n * sizeof *work);
    for (int j = 0; j < f->n; j++) {
        const float *p = f->p + (size_t)j * n;
        for (size_t a = 0; a < n && !f->fixed[j]; a++)
            for (size_t b = 0; b <= a && p[a] != 0; b++)
                work[a * n + b] += (double)p[a] * p[b];
    }
    for (size_t a = 0; a < n; a++)
        trace += work[a * n + a];
    if (!solve(f->rows, f->size, work, ridge * trace / (double)n, off))
        return;
    for (int j = 0; j < f->n; j++)
        for (size_t r = 0; r < n && !f->fixed[j]; r++)
            for (size_t c = 0; c < size; c++)
                x[(size_t)j * size + c] += f->p[(size_t)j * n + r] * off[r * size + c];
}
