/* group: how scores of query heads become one score per KV head: pooling and aggregation, the
 * options that every score made of attention has. Also the vocabulary of those options. */
#include "kern/kern.h"
#include "policy/parts.h"
#include "policy/select.h"

#include <string.h>

const char *const kept_gqa_names[] = {"sum", "mean", "max", NULL};
const char *const kept_pool_names[] = {"none", "max", "avg", NULL};
const char *const kept_off_on[] = {"off", "on", NULL};

bool kept_group_splits(const double *four)
{
    bool max_pool = (int)four[1] == KEPT_POOL_MAX && four[2] > 1;
    return (int)four[0] == KEPT_GQA_MAX || (max_pool && four[3] != 0);
}

/* Maxima of a centred window: one pass over x for each place in the window. */
static void pool_max(const float *x, int n, int kernel, float *out)
{
    memcpy(out, x, (size_t)n * sizeof *x);
    for (int k = -(kernel / 2); k < kernel - kernel / 2; k++) {
        int from = k < 0 ? -k : 0, to = k > 0 ? n - k : n;
        for (int i = from; i < to; i++)
            out[i] = x[i + k] > out[i] ? x[i + k] : out[i];
    }
}

/* Pools x[0..n) into out, a centred window of `kernel` with stride 1. */
static void pool_stretch(const float *x, int n, const kept_grouping *g, float *out)
{
    if (g->pool == KEPT_POOL_MAX) {
        pool_max(x, n, g->kernel, out);
        return;
    }
    for (int i = 0; i < n; i++) {
        int low = i - g->kernel / 2, high = low + g->kernel;
        low = low < 0 ? 0 : low;
        high = high > n ? n : high;
        double sum = 0; /* exact for floats of like size, so that equal windows tie */
        for (int j = low; j < high; j++)
            sum += x[j];
        out[i] = (float)(sum / g->kernel);
    }
}

static void pool(const float *x, int n, int edge, const kept_grouping *g, float *out)
{
    if (g->pool == KEPT_POOL_NONE || g->kernel == 1) {
        memcpy(out, x, (size_t)n * sizeof *x);
        return;
    }
    pool_stretch(x, edge, g, out);
    pool_stretch(x + edge, n - edge, g, out + edge);
}

static void aggregate(const float *x, int rows, int n, kept_gqa how, float *out)
{
    memcpy(out, x, (size_t)n * sizeof *x);
    for (int r = 1; r < rows; r++) {
        const float *row = x + (size_t)r * (size_t)n;
        for (int i = 0; i < n; i++)
            out[i] = how != KEPT_GQA_MAX ? out[i] + row[i] : row[i] > out[i] ? row[i] : out[i];
    }
}

void kept_group(const kept_view *v, const float *x, int rows, int n, int edge, float *out)
{
    const kept_grouping *g = &v->grouping;
    float *buf = v->pooled;
    edge = edge < 0 ? 0 : edge > n ? n : edge;
    if (rows == 1 && (g->pool == KEPT_POOL_NONE || g->kernel == 1)) {
        float part = g->gqa == KEPT_GQA_MEAN ? (float)v->group : 1;
        for (int i = 0; i < n; i++)
            out[i] = x[i] / part;
        return;
    }
    if (g->pool_first) {
        float *row = buf;
        for (int r = 0; r < rows; r++) {
            pool(x + (size_t)r * (size_t)n, n, edge, g, row);
            if (r == 0)
                memcpy(out, row, (size_t)n * sizeof *out);
            for (int i = 0; r && i < n; i++)
                out[i] = g->gqa != KEPT_GQA_MAX ? out[i] + row[i]
                         : row[i] > out[i]      ? row[i]
                                                : out[i];
        }
    } else {
        aggregate(x, rows, n, g->gqa, buf);
        pool(buf, n, edge, g, out);
    }
    /* A row that is a sum over the group already becomes the mean of it. */
    if (g->gqa == KEPT_GQA_MEAN)
        for (int i = 0; i < n; i++)
            out[i] /= (float)v->group;
}

void kept_dots(const kept_view *v, int m, int n, int k, const float *a, const float *b, float *c,
               int ldc)
{
    if (m > 0 && n > 0)
        v->kern->dots(m, n, k, a, b, c, ldc);
}

void kept_pick(const kept_view *v, int head, const float *score, int count, uint8_t *mask)
{
    const kept_view_head *h = &v->heads[head];
    memcpy(mask, h->guard, (size_t)h->n);
    kept_select_slots(score, h->pos, h->n, count, mask, v->work);
}

double kept_noise(const kept_view *v, int head, int32_t pos)
{
    const uint64_t key[3] = {v->seed, (uint64_t)head, (uint64_t)pos};
    return ((double)(kept_hash64(key, sizeof key, 0) >> 11) + 0.5) * 0x1p-53;
}
