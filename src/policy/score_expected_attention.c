/* expected-attention: arXiv 2510.00636: what a Gaussian future query will pay each token.
 *
 * Queries before rotation have mean mu and covariance S per query head. The next `future` positions
 * rotate them by R_t; with R the mean of the R_t, mu' = R mu and S' = R S R^T, the expected
 * unnormalised attention is exp(mu'.k / sqrt(D) + k.S'k / (2 D)). The score is
 * (mean over query heads of its softmax over live tokens + epsilon) * ||v||_2.
 * Deviations: the first tokens take part in statistics and softmax (the reference leaves 4 out).
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { FUTURE, EPSILON, VALUES };

/* Writes the mean over t in [next_pos, next_pos + future) of exp(i t w_j) to re, im [n_rope/2]. */
static void mean_turns(const kept_view *v, float *re, float *im)
{
    double n = v->options[FUTURE];
    for (int j = 0; j < v->n_rope / 2; j++) {
        double w = v->rope_freq[j], half = sin(w / 2), angle = (v->next_pos + (n - 1) / 2) * w;
        double size = fabs(half) < 1e-12 ? 1 : sin(n * w / 2) / (n * half);
        re[j] = (float)(size * cos(angle));
        im[j] = (float)(size * sin(angle));
    }
}

/* x <- R x for one vector whose channels lie `stride` apart. */
static void turn(const kept_view *v, const float *re, const float *im, float *x, int stride)
{
    for (int j = 0; j < v->n_rope / 2; j++) {
        float *a = x + (v->rope_neox ? j : 2 * j) * stride;
        float *b = x + (v->rope_neox ? j + v->n_rope / 2 : 2 * j + 1) * stride, old = *a;
        *a = re[j] * old - im[j] * *b;
        *b = im[j] * old + re[j] * *b;
    }
}

/* Writes mu'/sqrt(D) to m [D], S'/(2D) to s [D][D], its lower triangle folded into the upper. */
static void prepare(const kept_view *v, const kept_view_head *h, int g, float *m, float *s)
{
    int size = v->head_size;
    const float *mean = h->q_mean + g * size, *cov = h->q_cov + (size_t)(g * size * size);
    float re[512], im[512];
    mean_turns(v, re, im);
    for (int i = 0; i < size * size; i++)
        s[i] = cov[i] / (2 * (float)size);
    for (int i = 0; i < size; i++) {
        m[i] = mean[i] / sqrtf((float)size);
        turn(v, re, im, s + i * size, 1); /* S R^T, row by row */
    }
    turn(v, re, im, m, 1);
    for (int i = 0; i < size; i++)
        turn(v, re, im, s + i, size); /* R (S R^T), column by column */
    for (int i = 0; i < size; i++)
        for (int j = i + 1; j < size; j++)
            s[i * size + j] += s[j * size + i];
}

/* k.(m + s k), s upper triangular; y [D] is scratch. */
static float exponent(const float *k, const float *m, const float *s, int size, float *y)
{
    double sum = 0;
    memcpy(y, m, (size_t)size * sizeof *y);
    for (int i = 0; i < size; i++)
        for (int j = i; j < size; j++)
            y[j] += s[i * size + j] * k[i];
    for (int j = 0; j < size; j++)
        sum += (double)y[j] * k[j];
    return (float)sum;
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size;
    float *s = v->scratch, *m = s + size * size, *y = m + size, *e = y + size;
    memset(out, 0, (size_t)h->n * sizeof *out);
    for (int g = 0; g < v->group; g++) {
        double sum = 0, top = -INFINITY;
        prepare(v, h, g, m, s);
        for (int i = 0; i < h->n; i++) {
            e[i] = exponent(h->key + (size_t)i * (size_t)size, m, s, size, y);
            top = fmax(top, e[i]);
        }
        for (int i = 0; i < h->n; i++)
            sum += e[i] = expf(e[i] - (float)top);
        for (int i = 0; i < h->n; i++)
            out[i] += (float)(e[i] / (sum * v->group));
    }
    for (int i = 0; i < h->n; i++) {
        double square = 0;
        for (const float *x = h->value + (size_t)i * (size_t)size, *end = x + size; x < end; x++)
            square += (double)*x * *x;
        out[i] = (out[i] + (float)v->options[EPSILON]) *
                 (v->options[VALUES] != 0 ? (float)sqrt(square) : 1);
    }
}

static const char *const off_on[] = {"off", "on", NULL};
static const kept_option options[] = {
    {"future", 512, 1, 1048576, true, NULL, "next positions averaged over"},
    {"epsilon", 0, 0, 1, false, NULL, "added to the attention before values count"},
    {"values", 1, 0, 1, true, off_on, "multiply by the length of the value"},
};

const kept_score kept_score_expected_attention = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "expected-attention",
             .summary = "attention that future queries are expected to pay, times value length",
             .paper = "arXiv 2510.00636",
             .deviations = "the first tokens take part in query statistics and softmax (the "
                           "reference code leaves 4 out)",
             .options = options,
             .n_options = 3},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES | KEPT_NEED_QUERIES,
    .comparable = true,
    .score = score,
};
