/* nuq_fit: levels by Lloyd's rule on sorted samples: with sums over the samples before each, a turn
 * costs one search per level. */
#include "train/nuq.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

enum { TURNS = 300, TRIMS = 4 };

/* Lloyd-Max levels of a unit Gaussian (Max 1960), the positive half. */
static const double gauss8[] = {0.245, 0.756, 1.344, 2.152};
static const double gauss16[] = {0.128, 0.388, 0.657, 0.942, 1.256, 1.618, 2.069, 2.733};

static int by_y(const void *a, const void *b)
{
    const kept_nuq_sample *x = a, *y = b;
    if (x->y != y->y)
        return x->y < y->y ? -1 : 1;
    if (x->weight != y->weight)
        return x->weight < y->weight ? -1 : 1;
    return (x->unit > y->unit) - (x->unit < y->unit);
}

static int nearest(const float *level, int n, float y)
{
    int c = 0;
    while (c + 1 < n && y > 0.5f * (level[c] + level[c + 1]))
        c++;
    return c;
}

/* What a sample loses, in its unit: what outliers are chosen by. */
static double error_of(const kept_nuq_sample *x, const float *level, int n)
{
    return fabs((double)x->y - (double)level[nearest(level, n, x->y)]) * (double)x->unit;
}

/* The error that `part` of the samples exceed. */
static double find_limit(const kept_nuq_sample *x, int m, const float *level, int n, double part)
{
    double low = 0, high = 0;
    for (int i = 0; i < m; i++)
        high = fmax(high, error_of(&x[i], level, n));
    for (int turn = 0; turn < 40; turn++) {
        const double mid = (low + high) / 2;
        int above = 0;
        for (int i = 0; i < m; i++)
            above += error_of(&x[i], level, n) > mid;
        *(above > part * m ? &low : &high) = mid;
    }
    return high;
}

/* Sums of weights, and of weights times samples, before each sample; those beyond limit weigh
 * nothing. */
static void sum_up(const kept_nuq_sample *x, int m, const float *level, int n, double limit,
                   double *weight, double *moment)
{
    weight[0] = moment[0] = 0;
    for (int i = 0; i < m; i++) {
        const bool counts = !(limit < INFINITY) || error_of(&x[i], level, n) <= limit;
        const double w = counts ? (double)x[i].weight : 0;
        weight[i + 1] = weight[i] + w;
        moment[i + 1] = moment[i] + w * (double)x[i].y;
    }
}

/* Samples that are at most y. */
static int before(const kept_nuq_sample *x, int m, float y)
{
    int low = 0, high = m;
    while (low < high) {
        const int mid = (low + high) / 2;
        if (x[mid].y <= y)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* One turn: every level becomes the mean of the samples next to it. */
static bool turn(const kept_nuq_sample *x, int m, int n, const double *weight, const double *moment,
                 float *level)
{
    float next[16];
    bool moved = false;
    for (int c = 0, from = 0; c < n; c++) {
        const int to = c + 1 < n ? before(x, m, 0.5f * (level[c] + level[c + 1])) : m;
        const double w = weight[to] - weight[from];
        next[c] = w > 0 ? (float)((moment[to] - moment[from]) / w) : level[c];
        moved |= next[c] != level[c];
        from = to;
    }
    for (int c = 0; c < n; c++)
        level[c] = c && next[c] < level[c - 1] ? level[c - 1] : next[c];
    return moved;
}

/* Levels of a Gaussian with mean and deviation of the samples that differ from `centre` by no more
 * than limit. */
static void begin(const kept_nuq_sample *x, int m, float centre, double limit, int n, float *level)
{
    const double *gauss = n == 8 ? gauss8 : gauss16;
    double w = 0, sum = 0, square = 0;
    for (int i = 0; i < m; i++)
        if (error_of(&x[i], &centre, 1) <= limit) {
            w += (double)x[i].weight;
            sum += (double)x[i].weight * (double)x[i].y;
            square += (double)x[i].weight * (double)x[i].y * (double)x[i].y;
        }
    const double mean = w > 0 ? sum / w : 0;
    const double deviation = w > 0 ? sqrt(fmax(0, square / w - mean * mean)) : 0;
    for (int c = 0; c < n / 2; c++) {
        level[n / 2 + c] = (float)(mean + deviation * gauss[c]);
        level[n / 2 - 1 - c] = (float)(mean - deviation * gauss[c]);
    }
}

double kept_nuq_fit(kept_nuq_sample *x, int m, int n, double part, float *level, double *work)
{
    double *weight = work, *moment = work + m + 1, square = 0, lost = 0, limit = INFINITY;
    float centre = 0;
    qsort(x, (size_t)m, sizeof *x, by_y);
    sum_up(x, m, &centre, 1, INFINITY, weight, moment);
    centre = weight[m] > 0 ? (float)(moment[m] / weight[m]) : 0;
    /* A level among outliers would meet them and stay there: begin without those far out. */
    limit = part > 0 ? find_limit(x, m, &centre, 1, part) : INFINITY;
    begin(x, m, centre, limit, n, level);
    sum_up(x, m, &centre, 1, limit, weight, moment);
    for (int trim = 0; trim < (part > 0 ? TRIMS : 1); trim++) {
        for (int i = 0; i < TURNS && turn(x, m, n, weight, moment, level); i++)
            ;
        limit = part > 0 ? find_limit(x, m, level, n, part) : INFINITY;
        sum_up(x, m, level, n, limit, weight, moment);
    }
    for (int i = 0; i < m; i++) {
        const double e = (double)x[i].y - (double)level[nearest(level, n, x[i].y)];
        square += (double)x[i].weight * (double)x[i].y * (double)x[i].y;
        if (error_of(&x[i], level, n) <= limit)
            lost += (double)x[i].weight * e * e;
    }
    return square > 0 ? lost / square : 0;
}
