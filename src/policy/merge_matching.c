/* matching: Attention Matching. Over reference queries q, with p the attention of the full head:
 *
 *     1. a bias b_j = log w_j for each kept key, so that their mass matches that of all keys:
 *        min over w of sum_q (sum_j w_j p_qj - 1)^2, e^low <= w_j <= e^high
 *     2. values that give the same output: with p'_qj = w_j p_qj / sum_i w_i p_qi,
 *        min over V' of |P' V' - O|^2 + ridge |V' - V|^2
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { QUERIES, RIDGE, LOW, HIGH, GUARDED, VALUES };

static int recent(const double *options)
{
    return (int)options[QUERIES];
}

typedef struct desk { /* in view.scratch and merging.work */
    int rows;         /* queries times query heads */
    double *gram;     /* [rows][rows] */
    float *p;         /* [n_kept][rows] attention of kept keys */
    float *off;       /* [rows][D] what the output lacks */
    float *mass;      /* [rows] */
    float *w;         /* [n_kept] */
    uint8_t *fixed;   /* [n_kept] */
} desk;

/* As many queries as there is room for, the latest. */
static desk lay_out(const kept_view *v, const kept_merging *m)
{
    const int most = v->n_recent * v->group;
    desk d = {.gram = (double *)(void *)v->scratch};
    while (d.rows < most &&
           (int64_t)(d.rows + 1) * (2 * (d.rows + 1) + m->n_kept + v->head_size + 1) < KEPT_SCRATCH)
        d.rows++;
    d.p = (float *)(d.gram + (size_t)d.rows * (size_t)d.rows);
    d.off = d.p + (size_t)d.rows * (size_t)m->n_kept;
    d.mass = d.off + (size_t)d.rows * (size_t)v->head_size;
    d.w = m->work;
    d.fixed = (uint8_t *)(m->work + m->n_kept);
    return d;
}

/* off = O - P' V of query `r`: over all keys, kept ones with what P' differs from P by. */
static void lacking(const kept_view *v, const kept_merging *m, const desk *d, int r, const float *p)
{
    const kept_view_head *h = &v->heads[m->head];
    float *off = d->off + (size_t)r * (size_t)v->head_size;
    memset(off, 0, (size_t)v->head_size * sizeof *off);
    for (int i = 0, j = 0; i < h->n; i++) {
        const bool kept = j < m->n_kept && m->kept[j] == i;
        const float *row = h->value + (size_t)i * (size_t)v->head_size;
        const float by = kept ? p[i] - d->p[(size_t)j * (size_t)d->rows + (size_t)r] : p[i];
        for (int c = 0; c < v->head_size && by != 0; c++)
            off[c] += by * row[c];
        j += kept;
    }
}

static void merge(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const desk d = lay_out(v, m);
    const size_t first = (size_t)(v->n_recent * v->group - d.rows);
    const double range[2] = {exp(v->options[LOW]), exp(v->options[HIGH])};
    for (int j = 0; j < m->n_kept; j++) {
        d.w[j] = 1;
        d.fixed[j] = v->options[GUARDED] == 0 && h->guard[m->kept[j]];
        for (int r = 0; r < d.rows; r++)
            d.p[(size_t)j * (size_t)d.rows + (size_t)r] =
                h->prob[(first + (size_t)r) * (size_t)h->n + (size_t)m->kept[j]];
    }
    for (int r = 0; r < d.rows; r++)
        d.mass[r] = 1;
    kept_fit_box(m->n_kept, d.rows, d.p, d.mass, range, d.fixed, d.w);
    for (int j = 0; j < m->n_kept && m->bias; j++)
        m->bias[j] += logf(d.w[j]);
    for (int r = 0; r < d.rows && v->options[VALUES] != 0; r++) {
        const float all = 1 - d.mass[r]; /* b - a x is left in mass */
        for (int j = 0; j < m->n_kept; j++)
            d.p[(size_t)j * (size_t)d.rows + (size_t)r] *= all > 0 ? d.w[j] / all : 0;
        lacking(v, m, &d, r, h->prob + (first + (size_t)r) * (size_t)h->n);
    }
    if (d.rows && v->options[VALUES] != 0)
        kept_fit_rows(&(kept_fit){m->n_kept, d.rows, v->head_size, d.p, d.fixed}, v->options[RIDGE],
                      d.gram, d.off, m->value);
}

static bool biases(const double *options)
{
    return options[HIGH] > options[LOW];
}

static const kept_option options[] = {
    {"queries", 64, 1, KEPT_MAX_RECENT, true, NULL, "latest queries that are matched"},
    {"ridge", 0.01, 0, 1000, false, NULL, "pull to the own values, as a part of the mean square"},
    {"low", -3, -20, 0, false, NULL, "least bias"},
    {"high", 3, 0, 20, false, NULL, "greatest bias"},
    {"guarded", 0, 0, 1, true, kept_off_on, "protected tokens change too"},
    {"values", 1, 0, 1, true, kept_off_on, "fit values, not biases alone"},
};

const kept_merge kept_merge_matching = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "matching",
             .summary = "biases and values that give recent queries the mass and output they had",
             .paper = "arXiv 2602.16284",
             .deviations = "keys are those that the score keeps; the reference queries are the "
                           "latest ones that fit the scratch; each query's mass counts alike; the "
                           "fit of values has a ridge: there are more keys than queries",
             .options = options,
             .n_options = 6},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .recent = recent,
    .biases = biases,
    .merge = merge,
};
