/* fit: small numerics of the trainers, in a fixed order of operations. */
#include "train/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void kept_fit_principal(const double *a, int n, double *x, double *work)
{
    /* The largest diagonal names a start that is not orthogonal to what is looked for, but for the
     * odd tie; every channel takes part a little. */
    int top = 0;
    for (int i = 1; i < n; i++)
        top = a[(size_t)i * (size_t)n + (size_t)i] > a[(size_t)top * (size_t)n + (size_t)top] ? i
                                                                                              : top;
    for (int i = 0; i < n; i++)
        x[i] = i == top ? 1 : 1e-3 / (i + 1);
    for (int round = 0; round < 2000; round++) {
        double norm = 0, change = 0;
        for (int i = 0; i < n; i++) {
            double sum = 0;
            for (int k = 0; k < n; k++)
                sum += a[(size_t)i * (size_t)n + (size_t)k] * x[k];
            work[i] = sum;
            norm += sum * sum;
        }
        norm = sqrt(norm);
        for (int i = 0; i < n; i++) {
            double to = norm > 0 ? work[i] / norm : i == 0;
            change += (to - x[i]) * (to - x[i]);
            x[i] = to;
        }
        if (change < 1e-26)
            return;
    }
}

bool kept_fit_cholesky(double *a, int n, double *b, int m)
{
    size_t N = (size_t)n;
    for (size_t i = 0; i < N; i++)
        for (size_t k = 0; k <= i; k++) {
            double sum = a[i * N + k];
            for (size_t q = 0; q < k; q++)
                sum -= a[i * N + q] * a[k * N + q];
            if (i == k && !(sum > 0))
                return false;
            a[i * N + k] = i == k ? sqrt(sum) : sum / a[k * N + k];
        }
    for (size_t r = 0; r < (size_t)m; r++) {
        double *x = b + r * N;
        for (size_t i = 0; i < N; i++) {
            for (size_t k = 0; k < i; k++)
                x[i] -= a[i * N + k] * x[k];
            x[i] /= a[i * N + i];
        }
        for (size_t i = N; i-- > 0;) {
            for (size_t k = i + 1; k < N; k++)
                x[i] -= a[k * N + i] * x[k];
            x[i] /= a[i * N + i];
        }
    }
    return true;
}

void kept_fit_adam(float *w, const float *grad, float *m1, float *m2, size_t n, double rate,
                   int64_t step)
{
    const float b1 = 0.9f, b2 = 0.999f;
    const float c1 = (float)(rate / (1 - pow(0.9, (double)step)));
    const float c2 = (float)(1 / (1 - pow(0.999, (double)step)));
    for (size_t i = 0; i < n; i++) {
        m1[i] = b1 * m1[i] + (1 - b1) * grad[i];
        m2[i] = b2 * m2[i] + (1 - b2) * grad[i] * grad[i];
        w[i] -= c1 * m1[i] / (sqrtf(m2[i] * c2) + 1e-8f);
    }
}

typedef struct ranked {
    float x;
    int32_t at;
} ranked;

static int compare(const void *a, const void *b)
{
    const ranked *p = a, *q = b;
    return p->x != q->x ? (p->x > q->x) - (p->x < q->x) : (p->at > q->at) - (p->at < q->at);
}

/* Twice the mean rank of every element. */
static void rank(const float *x, int n, ranked *sorted, int32_t *out)
{
    for (int i = 0; i < n; i++)
        sorted[i] = (ranked){x[i], i};
    qsort(sorted, (size_t)n, sizeof *sorted, compare);
    for (int i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && sorted[j].x == sorted[i].x;)
            j++;
        for (int k = i; k < j; k++)
            out[sorted[k].at] = i + j - 1;
    }
}

double kept_fit_spearman(const float *a, const float *b, int n, int32_t *work)
{
    ranked *sorted = (ranked *)(void *)work;
    int32_t *x = work + 2 * n, *y = work + 3 * n;
    double xy = 0, xx = 0, yy = 0;
    rank(a, n, sorted, x);
    rank(b, n, sorted, y);
    for (int i = 0; i < n; i++) {
        double p = x[i] - (n - 1), q = y[i] - (n - 1);
        xy += p * q;
        xx += p * p;
        yy += q * q;
    }
    return xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : 0;
}

static int by_rank(const void *a, const void *b)
{
    const kept_fit_ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->at < y->at) - (x->at > y->at);
}

void kept_fit_rank(kept_fit_ranked *r, int n)
{
    if (n > 0)
        qsort(r, (size_t)n, sizeof *r, by_rank);
}

static double log_sum(const float *x, int n)
{
    double top = x[0], sum = 0;
    for (int i = 1; i < n; i++)
        top = fmax(top, x[i]);
    for (int i = 0; i < n; i++)
        sum += exp(x[i] - top);
    return top + log(sum);
}

double kept_fit_kl(const float *p, const float *q, int n, int n_vocab)
{
    double sum = 0;
    for (int t = 0; t < n; t++, p += n_vocab, q += n_vocab) {
        const double a = log_sum(p, n_vocab), b = log_sum(q, n_vocab);
        for (int i = 0; i < n_vocab; i++)
            sum += exp(p[i] - a) * (p[i] - a - (q[i] - b));
    }
    return sum / n;
}
