/* linalg: see linalg.h. LAPACK is Fortran: columns first, everything by address. */
#include "base/linalg.h"

#include <math.h>
#include <stdlib.h>

extern void dsyev_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda,
                   double *w, double *work, const int *lwork, int *info);

/* Turns the order of n things around, each `size` doubles. */
static void reverse(double *x, int n, int size)
{
    for (int i = 0, j = n - 1; i < j; i++, j--)
        for (int k = 0; k < size; k++) {
            const double t = x[i * size + k];
            x[i * size + k] = x[j * size + k];
            x[j * size + k] = t;
        }
}

bool kept_eigen_symmetric(int n, double *a, double *w)
{
    double best = 0;
    int info = -1, ask = -1;
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            if (!isfinite(a[i * n + j]))
                return false;
    if (n < 1)
        return true;
    /* The lower half by rows is the upper half by columns, and an eigenvector, a column there, is a
     * row here. */
    dsyev_("V", "U", &n, a, &n, w, &best, &ask, &info);
    const int room = (int)best;
    double *work = info ? NULL : malloc((size_t)room * sizeof *work);
    if (work)
        dsyev_("V", "U", &n, a, &n, w, work, &room, &info);
    const bool ok = work && !info;
    free(work);
    reverse(w, ok ? n : 0, 1);
    reverse(a, ok ? n : 0, n);
    return ok;
}
