/* lowrank_stands: which channels of keys stand for the others. The directions, r rows of all
 * channels of a group of layers, are brought to the form [I | mix] by exchanging one channel for
 * another: first the largest number there is, r times, then as long as any number of mix is much
 * above 1. */
#include "kern/lowrank_stands.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEAST   1e-6 /* directions of length 1: less than this is nothing */
#define ENOUGH  1.1  /* no number of mix is larger */
#define MOST_OF 8    /* exchanges for each direction; then it is left as it is */

typedef struct reduction {
    int r, n;
    double *a;  /* [r][n] */
    int *owner; /* [n] the row that column is the own one of, or -1 */
    int *own;   /* [r] its column, or -1 */
} reduction;

/* Row becomes that of column: 1 there, 0 in all other rows. */
static void exchange(const reduction *x, int row, int column)
{
    const int n = x->n;
    double *own = x->a + (size_t)row * (size_t)n;
    const double inverse = 1 / own[column];
    for (int j = 0; j < n; j++)
        own[j] *= inverse;
    own[column] = 1;
    for (int i = 0; i < x->r; i++) {
        double *other = x->a + (size_t)i * (size_t)n;
        const double f = other[column];
        for (int j = 0; j < n && i != row; j++)
            other[j] -= f * own[j];
        if (i != row)
            other[column] = 0;
    }
    if (x->own[row] >= 0)
        x->owner[x->own[row]] = -1;
    x->own[row] = column;
    x->owner[column] = row;
}

/* The largest number of a column that no row owns, in rows that own one or in those that own none.
 */
static double largest(const reduction *x, bool owns, int *row, int *column)
{
    double most = 0;
    for (int i = 0; i < x->r; i++) {
        const double *a = x->a + (size_t)i * (size_t)x->n;
        if ((x->own[i] >= 0) != owns)
            continue;
        for (int j = 0; j < x->n; j++)
            if (x->owner[j] < 0 && fabs(a[j]) > most) {
                most = fabs(a[j]);
                *row = i;
                *column = j;
            }
    }
    return most;
}

static void reduce(const reduction *x)
{
    int row = 0, column = 0;
    for (int j = 0; j < x->n; j++)
        x->owner[j] = -1;
    for (int i = 0; i < x->r; i++)
        x->own[i] = -1;
    for (int i = 0; i < x->r && largest(x, false, &row, &column) > LEAST; i++)
        exchange(x, row, column);
    for (int i = 0; i < MOST_OF * x->r && largest(x, true, &row, &column) > ENOUGH; i++)
        exchange(x, row, column);
}

/* Coefficient of channel `own` of the group: what the projection along the directions has there. */
static void fill_into(const float *const *u, int layer, int D, int r, int own, float *to)
{
    double sum[KEPT_MAX_HEAD_SIZE] = {0};
    for (int k = 0; k < r; k++) {
        const double f = (double)u[own / D][k * D + own % D];
        for (int d = 0; d < D; d++)
            sum[d] += f * (double)u[layer][k * D + d];
    }
    for (int d = 0; d < D; d++)
        to[d] = (float)sum[d];
}

static kept_stands *stands_new(int r, int D, int n_own)
{
    const size_t n_rest = (size_t)(D - n_own), into = (size_t)r * (size_t)D;
    const size_t n = into + (size_t)r * n_rest, places = (size_t)(D + n_own);
    kept_stands *s = calloc(1, sizeof *s + n * sizeof *s->number + places);
    if (!s)
        return NULL;
    uint8_t *at = (uint8_t *)(s->number + n);
    s->r = r;
    s->D = D;
    s->n_own = n_own;
    s->n_rest = (int)n_rest;
    s->into = s->number;
    s->mix = s->number + into;
    s->own = at;
    s->from = at + n_own;
    s->rest = at + 2 * n_own;
    return s;
}

static kept_stands *stands_of(const reduction *x, const float *const *u, int layer, int D)
{
    const int r = x->r;
    int n_own = 0;
    for (int d = 0; d < D; d++)
        n_own += x->owner[layer * D + d] >= 0;
    kept_stands *s = stands_new(r, D, n_own);
    if (!s)
        return NULL;
    float *mix = s->number + (size_t)r * (size_t)D;
    uint8_t *own = (uint8_t *)(mix + (size_t)r * (size_t)s->n_rest), *from = own + n_own;
    uint8_t *rest = from + n_own;
    for (int d = 0; d < D; d++) {
        const int column = layer * D + d, owner = x->owner[column];
        if (owner >= 0) {
            *own++ = (uint8_t)d;
            *from++ = (uint8_t)owner;
            continue;
        }
        *rest++ = (uint8_t)d;
        for (int i = 0; i < r; i++, mix++)
            *mix = x->own[i] < 0 ? 0 : (float)x->a[(size_t)i * (size_t)x->n + (size_t)column];
    }
    for (int i = 0; i < r; i++)
        if (x->own[i] >= 0)
            fill_into(u, layer, D, r, x->own[i], s->number + (size_t)i * (size_t)D);
    return s;
}

bool kept_stands_new(int n, const float *const *u, int D, int r, kept_stands **out)
{
    const size_t N = (size_t)(n * D), size = (size_t)r * N;
    double *a = malloc(size * sizeof *a);
    int *index = malloc((N + (size_t)r) * sizeof *index);
    bool ok = a && index;
    const reduction x = {r, n * D, a, index, index + N};
    for (int l = 0; l < n; l++)
        out[l] = NULL;
    for (size_t i = 0; i < size && ok; i++)
        a[i] = (double)u[i % N / (size_t)D][i / N * (size_t)D + i % (size_t)D];
    if (ok)
        reduce(&x);
    for (int l = 0; l < n && ok; l++)
        ok = (out[l] = stands_of(&x, u, l, D)) != NULL;
    for (int l = 0; l < n && !ok; l++) {
        free(out[l]);
        out[l] = NULL;
    }
    free(a);
    free(index);
    return ok;
}

size_t kept_stands_bytes(const kept_stands *s)
{
    return sizeof *s + (size_t)s->r * (size_t)(s->D + s->n_rest) * sizeof *s->number +
           (size_t)(s->D + s->n_own);
}
