/* nearest: which kept slot a dropped one is closest to, and means of those that join, for merges.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { ROWS = 64 }; /* gone and kept keys that are multiplied at once */

static float length(const float *x, int n)
{
    return sqrtf(kept_dot(x, x, n));
}

void kept_merge_nearest(const kept_view *v, const kept_merging *m, int32_t *to, float *cosine)
{
    const kept_view_head *h = &v->heads[m->head];
    const int size = v->head_size;
    float *norm = v->scratch, *rows = norm + m->n_kept, *dots = rows + ROWS * size, own[ROWS];
    for (int j = 0; j < m->n_kept; j++)
        norm[j] = length(m->key + (size_t)j * (size_t)size, size);
    for (int g = 0; g < m->n_gone; g += ROWS) {
        const int n = m->n_gone - g < ROWS ? m->n_gone - g : ROWS;
        for (int i = 0; i < n; i++) {
            memcpy(rows + i * size, h->key + (size_t)m->gone[g + i] * (size_t)size,
                   (size_t)size * sizeof *rows);
            own[i] = length(rows + i * size, size);
            to[g + i] = 0;
            cosine[g + i] = -2;
        }
        for (int j = 0; j < m->n_kept; j += ROWS) {
            const int k = m->n_kept - j < ROWS ? m->n_kept - j : ROWS;
            kept_dots(v, n, k, size, rows, m->key + (size_t)j * (size_t)size, dots, ROWS);
            for (int i = 0; i < n; i++)
                for (int c = 0; c < k; c++) {
                    const float by = own[i] * norm[j + c];
                    const float x = by > 0 ? dots[i * ROWS + c] / by : 0;
                    if (x > cosine[g + i]) {
                        cosine[g + i] = x;
                        to[g + i] = j + c;
                    }
                }
        }
    }
}

void kept_merge_neighbour(const kept_view *v, const kept_merging *m, int span, bool guarded,
                          int32_t *to)
{
    const kept_view_head *h = &v->heads[m->head];
    int before = -1, next = 0; /* the last kept slot before a gone one, the first after it */
    for (int g = 0; g < m->n_gone; g++) {
        const int32_t at = h->pos[m->gone[g]];
        int32_t best = INT32_MAX;
        for (; next < m->n_kept; next++) {
            if (!guarded && h->guard[m->kept[next]])
                continue;
            if (m->kept[next] > m->gone[g])
                break;
            before = next;
        }
        to[g] = -1;
        for (int side = 0; side < 2; side++) {
            const int j = side ? next : before;
            if (j < 0 || j == m->n_kept)
                continue;
            const int32_t there = h->pos[m->kept[j]], off = side ? there - at : at - there;
            if (off < best && (!span || there / span == at / span)) {
                best = off;
                to[g] = j;
            }
        }
    }
}

const char *const kept_merge_keys[] = {"unrotated", "rotated", "own", NULL};

static void add(float *row, const float *from, int size, float scale, float w)
{
    for (int d = 0; d < size; d++)
        row[d] = scale * row[d] + w * from[d];
}

static void divide(float *row, int size, float by)
{
    for (int d = 0; d < size; d++)
        row[d] /= by;
}

void kept_merge_means(const kept_view *v, const kept_merging *m, int keys, const float *own,
                      const float *w, float *sum)
{
    const kept_view_head *h = &v->heads[m->head];
    const int size = v->head_size;
    const float *from = keys == KEPT_MERGE_UNROTATED ? h->key0 : h->key;
    float *key = keys == KEPT_MERGE_UNROTATED ? m->key0 : m->key;
    memset(sum, 0, (size_t)m->n_kept * sizeof *sum);
    for (int g = 0; g < m->n_gone; g++) {
        const int j = m->to[g];
        if (j < 0 || !(w[g] > 0))
            continue;
        const size_t to = (size_t)j * (size_t)size, at = (size_t)m->gone[g] * (size_t)size;
        const float scale = sum[j] > 0 ? 1 : own[j];
        if (keys != KEPT_MERGE_OWN)
            add(key + to, from + at, size, scale, w[g]);
        add(m->value + to, h->value + at, size, scale, w[g]);
        sum[j] += (sum[j] > 0 ? 0 : own[j]) + w[g];
    }
    for (int j = 0; j < m->n_kept; j++) {
        if (!(sum[j] > 0))
            continue;
        if (keys != KEPT_MERGE_OWN)
            divide(key + (size_t)j * (size_t)size, size, sum[j]);
        divide(m->value + (size_t)j * (size_t)size, size, sum[j]);
    }
}
