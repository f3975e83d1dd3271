/* expected-attention: arXiv 2510.00636: what a Gaussian future query will pay each token.
 *
 * Queries before rotation have mean mu and covariance S per query head. With R the mean rotation of
 * the next `future` positions (it turns and shrinks channel pairs), mu' = R mu and S' = R S R^T,
 * the expected unnormalised attention is exp(mu'.k / sqrt(D) + k.S'k / (2 D)). The score is (mean
 * over query heads of its softmax over live tokens + epsilon) * ||v||_2. Deviations: the first
 * tokens take part in statistics and softmax (the reference leaves 4 out).
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { FUTURE, EPSILON, VALUES, BLOCK = 16 };

/* Writes mu'/sqrt(D) to m [D], S'/(2D) to s [D][D], its lower triangle folded into the upper. */
static void prepare(const kept_view *v, const kept_view_head *h, int g, float *m, float *s)
{
    int size = v->head_size;
    const float *mean = h->q_mean + g * size, *cov = h->q_cov + g * size * size;
    float re[512], im[512];
    kept_rope_mean(v, v->next_pos, v->options[FUTURE], re, im);
    for (int i = 0; i < size * size; i++)
        s[i] = cov[i] / (2 * (float)size);
    for (int i = 0; i < size; i++) {
        m[i] = mean[i] / sqrtf((float)size);
        kept_rope_turn(v, re, im, s + i * size, 1); /* S R^T, row by row */
    }
    kept_rope_turn(v, re, im, m, 1);
    for (int i = 0; i < size; i++)
        kept_rope_turn(v, re, im, s + i, size); /* R (S R^T), column by column */
    for (int i = 0; i < size; i++)
        for (int j = i + 1; j < size; j++)
            s[i * size + j] += s[j * size + i];
}

/* e[t] = k.(m + s k), s upper triangular, for BLOCK keys at once: x [D][BLOCK]. */
static void exponents(const float *x, const float *m, const float *s, int size, float *e)
{
    memset(e, 0, BLOCK * sizeof *e);
    for (int i = 0; i < size; i++) {
        float y[BLOCK] = {0};
        for (int j = i; j < size; j++)
            for (int t = 0; t < BLOCK; t++)
                y[t] += s[i * size + j] * x[j * BLOCK + t];
        for (int t = 0; t < BLOCK; t++)
            e[t] += (m[i] + y[t]) * x[i * BLOCK + t];
    }
}

/* out [n] += the softmax over tokens of query head g's exponents, divided by the group. */
static void add_head(const kept_view *v, const kept_view_head *h, int g, float *out)
{
    int size = v->head_size;
    float *s = v->scratch, *m = s + size * size, *x = m + size, *e = x + size * BLOCK;
    double sum = 0, top = -INFINITY;
    prepare(v, h, g, m, s);
    for (int i = 0; i < h->n; i += BLOCK) {
        const float *key = h->key + (size_t)i * (size_t)size;
        for (int k = 0; k < BLOCK * size; k++)
            x[k % size * BLOCK + k / size] = i + k / size < h->n ? key[k] : 0;
        exponents(x, m, s, size, e + i);
    }
    for (int i = 0; i < h->n; i++)
        top = fmax(top, e[i]);
    for (int i = 0; i < h->n; i++)
        sum += e[i] = expf(e[i] - (float)top);
    for (int i = 0; i < h->n; i++)
        out[i] += (float)(e[i] / (sum * v->group));
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    memset(out, 0, (size_t)h->n * sizeof *out);
    for (int g = 0; g < v->group; g++)
        add_head(v, h, g, out);
    for (int i = 0; i < h->n; i++) {
        double square = 0;
        for (size_t d = 0, size = (size_t)v->head_size; d < size; d++)
            square += (double)h->value[(size_t)i * size + d] * h->value[(size_t)i * size + d];
        out[i] += (float)v->options[EPSILON];
        out[i] *= v->options[VALUES] != 0 ? (float)sqrt(square) : 1;
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
    .weighs_values = true,
    .score = score,
};
