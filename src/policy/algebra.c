/* algebra: arithmetic that more than one score needs: z-scores, leverage, what a trained file says
 * of a head. The contracts are in kept/algebra.h. */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { BLOCK = 64, STRIP = 16 };

void kept_standardize(float *x, int n, const uint8_t *skip)
{
    double sum = 0, square = 0;
    int m = 0;
    for (int i = 0; i < n; i++)
        if (!skip || !skip[i]) {
            sum += x[i];
            m++;
        }
    double mean = m ? sum / m : 0;
    for (int i = 0; i < n; i++)
        if (!skip || !skip[i])
            square += (x[i] - mean) * (x[i] - mean);
    double deviation = m > 1 ? fmax(sqrt(square / (m - 1)), 1e-6) : 1;
    for (int i = 0; i < n; i++)
        x[i] = (float)((x[i] - mean) / deviation);
}

static uint64_t mix(uint64_t x) /* splitmix64's output function */
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

double kept_normal(uint64_t seed, uint64_t i)
{
    uint64_t a = mix(seed ^ mix(i)), b = mix(a); /* Box and Muller; a + 1: no logarithm of 0 */
    double radius = sqrt(-2 * log((double)((a >> 11) + 1) * 0x1p-53));
    return radius * cos(6.283185307179586 * ((double)(b >> 11) * 0x1p-53));
}

const float *kept_view_trained(const kept_view *v, const char *name, int n, int head)
{
    size_t size = 0, row = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    const float *x = v->trained ? kept_trained_array(v->trained, name, &size) : NULL;
    bool fits = size == (size_t)v->n_layers * (size_t)v->n_heads * (size_t)n;
    return x && fits ? x + row * (size_t)n : NULL;
}

/* ---- leverage ------------------------------------------------------------------------------ */

/* Where things lie in the work: a matrix of doubles first, then blocks of rows. */
typedef struct desk {
    double *a, *diagonal; /* [k][k], [k] */
    float *x, *y, *flat, *weighed, *strip;
} desk;

static desk lay_out(const kept_rows *r, float *work)
{
    desk d = {.a = (double *)(void *)work};
    size_t k = (size_t)r->k, block = BLOCK * (size_t)r->size;
    d.diagonal = d.a + k * k;
    d.x = (float *)(d.diagonal + k);
    d.y = d.x + block;
    d.flat = d.y + block;
    d.weighed = d.flat + block;
    d.strip = d.weighed + block;
    return d;
}

/* Rows [i, i + m) as y. */
static const float *rows(const kept_view *v, const kept_rows *r, const desk *d, int i, int m)
{
    const float *x = r->x + (size_t)i * (size_t)r->size;
    if (r->centre) {
        for (int t = 0; t < m; t++)
            for (int c = 0; c < r->size; c++)
                d->x[t * r->size + c] = x[t * r->size + c] - r->centre[c];
        x = d->x;
    }
    if (!r->map)
        return x;
    kept_dots(v, m, r->k, r->size, x, r->map, d->y, r->k);
    return d->y;
}

/* The lower half of sum weight y y', from blocks in single precision summed in double, and the
 * same above the diagonal. */
static void gram(const kept_view *v, const kept_rows *r, const desk *d)
{
    int k = r->k;
    memset(d->a, 0, (size_t)k * (size_t)k * sizeof *d->a);
    for (int i = 0; i < r->n; i += BLOCK) {
        int m = r->n - i < BLOCK ? r->n - i : BLOCK;
        const float *y = rows(v, r, d, i, m);
        for (int t = 0; t < m; t++)
            for (int c = 0; c < k; c++) {
                d->flat[c * m + t] = y[t * k + c];
                d->weighed[c * m + t] = r->weight ? y[t * k + c] * r->weight[i + t] : y[t * k + c];
            }
        for (int c = 0; c < k; c += STRIP) {
            int high = k - c < STRIP ? k - c : STRIP;
            kept_dots(v, high, c + high, m, d->flat + c * m, d->weighed, d->strip, k);
            for (int a = 0; a < high; a++)
                for (int b = 0; b <= c + a; b++)
                    d->a[(c + a) * k + b] += d->strip[a * k + b];
        }
    }
    for (int a = 0; a < k; a++) {
        d->diagonal[a] = d->a[a * k + a];
        for (int b = 0; b < a; b++)
            d->a[b * k + a] = d->a[a * k + b];
    }
}

/* The Cholesky factor of the matrix above the diagonal plus the ridge, into the lower half. */
static bool factor(const desk *d, int k, double ridge)
{
    for (int a = 0; a < k; a++)
        for (int b = 0; b <= a; b++) {
            double sum = b < a ? d->a[b * k + a] : d->diagonal[a] + ridge;
            const double *x = d->a + a * k, *y = d->a + b * k;
            for (int c = 0; c < b; c++)
                sum -= x[c] * y[c];
            if (b == a && !(sum > 1e-12 * (d->diagonal[a] + ridge)))
                return false;
            d->a[a * k + b] = b < a ? sum / y[b] : sqrt(sum);
        }
    return true;
}

/* The factor's inverse, zeros above the diagonal, as floats [k][k] in its place. */
static const float *invert(const desk *d, int k)
{
    double *l = d->a;
    float *out = (float *)(void *)l;
    for (int b = 0; b < k; b++) {
        l[b * k + b] = 1 / l[b * k + b];
        for (int a = b + 1; a < k; a++) {
            double sum = 0;
            for (int c = b; c < a; c++)
                sum += l[a * k + c] * l[c * k + b];
            l[a * k + b] = -sum / l[a * k + a];
        }
    }
    for (int a = 0; a < k; a++)
        for (int b = 0; b < k; b++) {
            double x = b <= a ? l[a * k + b] : 0; /* read before what lies there is written */
            float y = (float)x;
            memcpy(out + a * k + b, &y, sizeof y);
        }
    return out;
}

void kept_leverage(const kept_view *v, const kept_rows *r, double ridge, float *work, float *out)
{
    desk d = lay_out(r, work);
    bool done = false;
    memset(out, 0, (size_t)r->n * sizeof *out);
    gram(v, r, &d);
    for (; !done && ridge < 1e30; ridge *= done ? 1 : 10)
        done = factor(&d, r->k, ridge);
    if (!done)
        return;
    const float *inverse = invert(&d, r->k);
    for (int i = 0; i < r->n; i += BLOCK) {
        int m = r->n - i < BLOCK ? r->n - i : BLOCK;
        kept_dots(v, m, r->k, r->k, rows(v, r, &d, i, m), inverse, d.flat, r->k);
        for (int t = 0; t < m; t++) {
            float sum = 0;
            for (int c = 0; c < r->k; c++)
                sum += d.flat[t * r->k + c] * d.flat[t * r->k + c];
            out[i + t] = isfinite(sum) ? sum : 0;
        }
    }
}

void kept_key_leverage(const kept_view *v, int head, int sketch, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size, k = sketch && sketch < size ? sketch : size, open = 0;
    float *centre = v->scratch + KEPT_LEVERAGE_WORK, *weight = centre + size, *map = weight + h->n;
    double mean[512] = {0};
    for (int i = 0; i < h->n; i++) {
        weight[i] = h->guard[i] ? 0 : 1;
        open += !h->guard[i];
        for (int c = 0; c < size && !h->guard[i]; c++)
            mean[c] += h->key0[(size_t)i * (size_t)size + (size_t)c];
    }
    for (int c = 0; c < size; c++)
        centre[c] = open ? (float)(mean[c] / open) : 0;
    for (int i = 0; i < k * size && k < size; i++)
        map[i] = (float)(kept_normal(v->seed + (uint64_t)head, (uint64_t)i) / sqrt(k));
    kept_rows r = {h->key0, centre, k < size ? map : NULL, weight, h->n, size, k};
    kept_leverage(v, &r, 0.01, v->scratch, out);
    kept_standardize(out, h->n, h->guard);
}

/* ---- attention inside blocks ------------------------------------------------------------------
 */

void kept_block_attention(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    float *x = v->scratch;
    for (int i = 0; i < h->n; i++) {
        const float *value = h->value + (size_t)i * (size_t)v->head_size;
        x[i] = h->mass[i] / (float)v->group * sqrtf(kept_dot(value, value, v->head_size));
    }
    for (int i = 0; i < h->n; i++)
        out[i] = ((i ? x[i - 1] : 0) + x[i] + (i + 1 < h->n ? x[i + 1] : 0)) / 3;
    kept_standardize(out, h->n, h->guard);
}
