/* expected-attention: arXiv 2510.00636: what a Gaussian future query will pay each token.
 *
 * Queries before rotation have mean mu and covariance S per query head. With R the mean rotation of
 * the next `future` positions (it turns and shrinks channel pairs), mu' = R mu and S' = R S R^T,
 * the expected unnormalised attention is exp(mu'.k / sqrt(D) + k.S'k / (2 D)). The score is (mean
 * over query heads of its softmax over live tokens + epsilon) * ||v||_2. mu and S are those of the
 * sequence's own queries, or of the trained file "expected".
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { FUTURE, EPSILON, VALUES, STATISTICS, BLOCK = 64 };

static bool is_calibrated(const double *options)
{
    return options[STATISTICS] != 0;
}
static int needs_of(const double *options)
{
    return KEPT_NEED_KEYS | KEPT_NEED_VALUES | (is_calibrated(options) ? 0 : KEPT_NEED_QUERIES);
}

/* Writes mu'/sqrt(D) to m [D] and S'/(2D) to s [D][D]. */
static void prepare(const kept_view *v, const float *mean, const float *cov, float *m, float *s)
{
    int size = v->head_size;
    float re[256], im[256];
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
}

/* out [n] += the softmax over tokens of k.(m + s k), divided by the group. */
static void add_head(const kept_view *v, const kept_view_head *h, const float *m, const float *s,
                     float *out)
{
    int size = v->head_size;
    float *y = v->scratch + size * size + size, *e = y + BLOCK * size, top = -INFINITY;
    double sum = 0;
    for (int i = 0; i < h->n; i += BLOCK) {
        int rows = h->n - i < BLOCK ? h->n - i : BLOCK;
        const float *key = h->key + (size_t)i * (size_t)size;
        kept_dots(v, rows, size, size, key, s, y, size);
        for (int t = 0; t < rows; t++) {
            for (int d = 0; d < size; d++)
                y[t * size + d] += m[d];
            e[i + t] = kept_dot(key + t * size, y + t * size, size);
            top = fmaxf(top, e[i + t]);
        }
    }
    for (int i = 0; i < h->n; i++)
        sum += e[i] = expf(e[i] - top);
    for (int i = 0; i < h->n; i++)
        out[i] += (float)(e[i] / (sum * v->group));
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size;
    bool trained = is_calibrated(v->options);
    const float *mean = trained ? kept_view_trained(v, "mean", v->group * size, head) : h->q_mean;
    const float *cov =
        trained ? kept_view_trained(v, "cov", v->group * size * size, head) : h->q_cov;
    float *s = v->scratch, *m = s + size * size;
    memset(out, 0, (size_t)h->n * sizeof *out);
    for (int g = 0; g < v->group && mean && cov; g++) {
        prepare(v, mean + g * size, cov + g * size * size, m, s);
        add_head(v, h, m, s, out);
    }
    for (int i = 0; i < h->n; i++) {
        const float *value = h->value + (size_t)i * (size_t)size;
        out[i] += (float)v->options[EPSILON];
        out[i] *= v->options[VALUES] != 0 ? sqrtf(kept_dot(value, value, size)) : 1;
    }
}

static const char *const kinds[] = {"online", "calibrated", NULL};
static const kept_option options[] = {
    {"future", 512, 1, 1048576, true, NULL, "next positions averaged over"},
    {"epsilon", 0, 0, 1, false, NULL, "added to the attention before values count"},
    {"values", 1, 0, 1, true, kept_off_on, "multiply by the length of the value"},
    {"statistics", 0, 0, 1, true, kinds, "of the sequence's queries, or of a trained file"},
};

const kept_score kept_score_expected_attention = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "expected-attention",
             .summary = "attention that future queries are expected to pay, times value length",
             .paper = "arXiv 2510.00636",
             .deviations = "the first tokens take part in the softmax (the reference code leaves 4 "
                           "out there too)",
             .options = options,
             .n_options = 4},
    .needs_of = needs_of,
    .trained = "expected",
    .uses_trained = is_calibrated,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
