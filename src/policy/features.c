/* features: what learned scores see of a slot. The contract is in kept/policy.h. */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { F = KEPT_N_FEATURES, BLOCK = KEPT_FEATURE_BLOCK, POOL = 7 };

static float length(const float *x, int n)
{
    float sum = 0;
    for (int d = 0; d < n; d++)
        sum += x[d] * x[d];
    return sqrtf(sum);
}

static float dot(const float *a, const float *b, int n)
{
    float sum = 0;
    for (int d = 0; d < n; d++)
        sum += a[d] * b[d];
    return sum;
}

static float cosine(const float *a, const float *b, int n)
{
    float l = length(a, n) * length(b, n);
    return l > 0 ? dot(a, b, n) / l : 0;
}

/* Mean over recent queries and query heads, the greatest mean of a query head, and the last query
 * alone: [n] each. */
static void recent(const kept_view *v, const kept_view_head *h, float *mean, float *most,
                   float *last)
{
    size_t n = (size_t)h->n, G = (size_t)v->group;
    memset(mean, 0, n * sizeof *mean);
    memset(most, 0, n * sizeof *most);
    memset(last, 0, n * sizeof *last);
    for (size_t g = 0; g < G && v->n_recent; g++) {
        float *own = last; /* free until the last query is read */
        memset(own, 0, n * sizeof *own);
        for (size_t t = 0; t < (size_t)v->n_recent; t++) {
            const float *p = h->prob + (t * G + g) * n;
            for (size_t i = 0; i < n; i++)
                own[i] += p[i] / (float)v->n_recent;
        }
        for (size_t i = 0; i < n; i++) {
            mean[i] += own[i] / (float)G;
            most[i] = own[i] > most[i] ? own[i] : most[i];
        }
    }
    memset(last, 0, n * sizeof *last);
    for (size_t g = 0; g < G && v->n_recent; g++) {
        const float *p = h->prob + ((size_t)(v->n_recent - 1) * G + g) * n;
        for (size_t i = 0; i < n; i++)
            last[i] += p[i] / (float)G;
    }
}

/* Sum of the directions of all keys. */
static void direction(const kept_view *v, const kept_view_head *h, float *sum)
{
    int size = v->head_size;
    memset(sum, 0, (size_t)size * sizeof *sum);
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        float l = length(k, size);
        for (int d = 0; d < size && l > 0; d++)
            sum[d] += k[d] / l;
    }
}

/* Attention as a multiple of an even share, on a scale that does not care for the least of it. */
static float share(float p, int n)
{
    return logf(0.01f + p * (float)n);
}

void kept_slot_features(const kept_view *v, int head, kept_features_fn *fn, void *ctx)
{
    const kept_view_head *h = &v->heads[head];
    int n = h->n, size = v->head_size;
    float *mean = v->scratch, *most = mean + n, *last = most + n;
    float *sum = last + n, *block = sum + size;
    recent(v, h, mean, most, last);
    direction(v, h, sum);
    for (int from = 0; from < n; from += BLOCK) {
        int m = n - from < BLOCK ? n - from : BLOCK;
        for (int i = from; i < from + m; i++) {
            float *x = block + (i - from) * F, near = 0;
            const float *k = h->key + (size_t)i * (size_t)size;
            int age = v->next_pos - h->pos[i];
            for (int j = i - POOL / 2; j <= i + POOL / 2; j++)
                near = j >= 0 && j < n && mean[j] > near ? mean[j] : near;
            x[0] = share(h->mass[i] / (float)(v->group * age), n);
            x[1] = share(mean[i], n);
            x[2] = share(most[i], n);
            x[3] = share(near, n);
            x[4] = share(last[i], n);
            x[5] = logf(1 + (float)h->pos[i]);
            x[6] = logf((float)age);
            x[7] = (float)h->pos[i] / (float)v->next_pos;
            x[8] = logf(1e-6f + length(k, size));
            x[9] = logf(1e-6f + length(h->value + (size_t)i * (size_t)size, size));
            x[10] = cosine(k, sum, size);
            x[11] = i > 0 ? cosine(k, k - size, size) : 0;
            for (int f = 0; f < F; f++) /* whatever a cache holds */
                x[f] = fminf(50, fmaxf(-50, x[f]));
        }
        fn(ctx, from, m, block);
    }
}
