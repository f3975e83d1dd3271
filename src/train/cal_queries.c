/* cal_queries: what is calibrated from queries alone: "qfilters", "triattention" and "expected".
 *
 * Every query of every document is seen once, rotated; where the mean before rotation is wanted, it
 * is turned back. Queries at the first positions are left out, as query statistics leave them out.
 */
#include "train/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SKIP = 4 };

static int all_recent(const double *options)
{
    (void)options;
    return KEPT_TRAIN_CHUNK;
}

static const kept_score eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "queries"},
                                .recent = all_recent};

/* Sums over the queries of a query head; a kind has those that it asks for. */
typedef struct sums {
    double *count;  /* [1] queries of a head */
    double *mean;   /* [n_layers][n_heads][G][D], before rotation; qfilters: after it */
    double *outer;  /* expected: [..][G][D][D]; qfilters: [..][D][D], of all query heads together */
    double *length; /* triattention: [..][G][D/2] lengths of channel pairs */
    float *query;   /* [KEPT_TRAIN_CHUNK][D], not kept */
    int fresh;      /* of the queries shown, the last so many are new */
    bool rotated, per_head, pairs;
} sums;

static size_t n_query_heads(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads * (size_t)j->group;
}

static kept_status open_sums(kept_train_job *j, bool rotated, bool outer, bool pairs,
                             kept_error *err)
{
    size_t size = (size_t)j->head_size, heads = n_query_heads(j);
    sums *s = j->own = kept_calloc(1, sizeof *s);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "no memory for query statistics");
    s->rotated = rotated;
    s->per_head = outer && !rotated;
    s->pairs = pairs;
    s->query = kept_calloc(KEPT_TRAIN_CHUNK * size, sizeof *s->query);
    s->count = kept_train_state(j, "count", 1, sizeof *s->count);
    s->mean = kept_train_state(j, "mean", heads * size, sizeof *s->mean);
    if (outer)
        s->outer =
            kept_train_state(j, "outer", (rotated ? heads / (size_t)j->group : heads) * size * size,
                             sizeof *s->outer);
    if (pairs)
        s->length = kept_train_state(j, "length", heads * (size / 2), sizeof *s->length);
    if (!s->query || !s->count || !s->mean || (outer && !s->outer) || (pairs && !s->length))
        return kept_fail(err, KEPT_NOMEM, "no memory for query statistics");
    return KEPT_OK;
}

static void close_sums(kept_train_job *j)
{
    sums *s = j->own;
    if (s)
        free(s->query);
    free(s);
}

/* The fresh queries of query head g into s->query [m][D]; turned back if wanted. Returns m. */
static int gather(sums *s, const kept_view *v, const kept_view_head *h, int g)
{
    int D = v->head_size, m = 0;
    float re[512], im[512];
    for (int t = v->n_recent - s->fresh; t < v->n_recent; t++) {
        int32_t pos = v->next_pos - v->n_recent + t;
        float *q = s->query + (size_t)m * (size_t)D;
        if (pos < SKIP)
            continue;
        memcpy(q, h->query + ((size_t)t * (size_t)v->group + (size_t)g) * (size_t)D,
               (size_t)D * sizeof *q);
        if (!s->rotated) {
            kept_rope_mean(v, pos, 1, re, im);
            for (int i = 0; i < v->n_rope / 2; i++)
                im[i] = -im[i];
            kept_rope_turn(v, re, im, q, 1);
        }
        m++;
    }
    return m;
}

static void add_outer(const float *q, int m, int D, double *outer)
{
    for (int t = 0; t < m; t++, q += D)
        for (int i = 0; i < D; i++) {
            double *row = outer + (size_t)i * (size_t)D, x = q[i];
            for (int k = 0; k < D; k++)
                row[k] += x * (double)q[k];
        }
}

static void see(void *ctx, const kept_view *v, int head)
{
    sums *s = ctx;
    size_t D = (size_t)v->head_size;
    size_t kv = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    for (int g = 0; g < v->group; g++) {
        size_t at = kv * (size_t)v->group + (size_t)g;
        int m = gather(s, v, &v->heads[head], g);
        const float *q = s->query;
        for (int t = 0; t < m; t++, q += D) {
            for (size_t d = 0; d < D; d++)
                s->mean[at * D + d] += q[d];
            for (int i = 0; s->pairs && i < (int)D / 2; i++) {
                bool halves = v->rope_neox && i < v->n_rope / 2;
                double a = q[halves ? i : 2 * i], b = q[halves ? i + v->n_rope / 2 : 2 * i + 1];
                s->length[at * (D / 2) + (size_t)i] += sqrt(a * a + b * b);
            }
        }
        if (s->outer)
            add_outer(s->query, m, (int)D, s->outer + (s->per_head ? at : kv) * D * D);
    }
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    sums *s = j->own;
    kept_seq *seq;
    (void)i, (void)held;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    for (int at = 0; !st && at < j->length; at += s->fresh) {
        s->fresh = j->length - at < KEPT_TRAIN_CHUNK ? j->length - at : KEPT_TRAIN_CHUNK;
        st = kept_train_feed(j, seq, tokens + at, s->fresh, err);
        if (!st)
            st = kept_train_look(j, seq, true, see, s, err);
        if (!st)
            st = kept_train_tick(j, (double)(at + s->fresh) / j->length, err);
        s->count[0] += st ? 0 : at < SKIP ? s->fresh - SKIP : s->fresh;
    }
    kept_seq_free(seq);
    return st;
}

/* ---- expected ------------------------------------------------------------------------------- */

static kept_status open_expected(kept_train_job *j, kept_error *err)
{
    return open_sums(j, false, true, false, err);
}

static kept_status finish_expected(kept_train_job *j, kept_trained *out, kept_error *err)
{
    sums *s = j->own;
    size_t D = (size_t)j->head_size, heads = n_query_heads(j);
    for (size_t h = 0; h < heads; h++) {
        double *mean = s->mean + h * D, *cov = s->outer + h * D * D;
        for (size_t i = 0; i < D; i++)
            mean[i] /= s->count[0];
        for (size_t i = 0; i < D * D; i++)
            cov[i] = cov[i] / s->count[0] - mean[i / D] * mean[i % D];
    }
    kept_status st = kept_train_put(out, "mean", s->mean, heads * D, err);
    return st ? st : kept_train_put(out, "cov", s->outer, heads * D * D, err);
}

const kept_trainer kept_trainer_expected = {
    .kind = {.name = "expected",
             .calibrates = true,
             .reads_text = true,
             .summary = "mean and covariance of queries before rotation, for expected-attention",
             .paper = "arXiv 2510.00636",
             .n_tokens = 10240,
             .length = 1024},
    .eyes = &eyes,
    .open = open_expected,
    .document = document,
    .finish = finish_expected,
    .close = close_sums,
};

/* ---- qfilters ------------------------------------------------------------------------------- */

static kept_status open_qfilters(kept_train_job *j, kept_error *err)
{
    return open_sums(j, true, true, false, err);
}

/* Share of the length of the queries that lies along the filter, mean over KV heads: what the
 * method rests on. */
static double alignment(const double *outer, const double *f, size_t D)
{
    double along = 0, all = 0;
    for (size_t i = 0; i < D; i++) {
        all += outer[i * D + i];
        for (size_t k = 0; k < D; k++)
            along += f[i] * outer[i * D + k] * f[k];
    }
    return all > 0 ? along / all : 0;
}

static kept_status finish_qfilters(kept_train_job *j, kept_trained *out, kept_error *err)
{
    sums *s = j->own;
    size_t D = (size_t)j->head_size, G = (size_t)j->group, heads = n_query_heads(j) / G;
    double *filter = kept_calloc(heads * D + D, sizeof *filter), sum = 0;
    int n = 0;
    if (!filter)
        return kept_fail(err, KEPT_NOMEM, "no memory for filters");
    for (size_t h = 0; h < heads; h++) {
        double *f = filter + h * D, along = 0;
        if (j->info->windowed[h / (size_t)j->n_heads])
            continue;
        kept_fit_principal(s->outer + h * D * D, (int)D, f, filter + heads * D);
        for (size_t i = 0; i < G * D; i++)
            along += f[i % D] * s->mean[h * G * D + i];
        for (size_t i = 0; i < D && along < 0; i++)
            f[i] = -f[i];
        sum += alignment(s->outer + h * D * D, f, D);
        n++;
    }
    kept_status st = kept_train_put(out, "filter", filter, heads * D, err);
    if (!st)
        st = kept_train_note(out, err, "energy-along-filter", "%.4f", n ? sum / n : 0);
    free(filter);
    return st;
}

const kept_trainer kept_trainer_qfilters = {
    .kind = {.name = "qfilters",
             .calibrates = true,
             .reads_text = true,
             .summary = "the main direction of the queries of each KV head",
             .paper = "arXiv 2503.02812",
             .deviations = "directions of rotated queries, because rotated keys are scored with "
                           "them; query heads of a KV head are taken together",
             .n_tokens = 10240,
             .length = 2048},
    .eyes = &eyes,
    .open = open_qfilters,
    .document = document,
    .finish = finish_qfilters,
    .close = close_sums,
};

/* ---- triattention --------------------------------------------------------------------------- */

static kept_status open_triattention(kept_train_job *j, kept_error *err)
{
    return open_sums(j, false, false, true, err);
}

static kept_status finish_triattention(kept_train_job *j, kept_trained *out, kept_error *err)
{
    sums *s = j->own;
    size_t D = (size_t)j->head_size, heads = n_query_heads(j);
    for (size_t i = 0; i < heads * D; i++)
        s->mean[i] /= s->count[0];
    for (size_t i = 0; i < heads * (D / 2); i++)
        s->length[i] /= s->count[0];
    kept_status st = kept_train_put(out, "mean", s->mean, heads * D, err);
    return st ? st : kept_train_put(out, "modulus", s->length, heads * (D / 2), err);
}

const kept_trainer kept_trainer_triattention = {
    .kind = {.name = "triattention",
             .calibrates = true,
             .reads_text = true,
             .summary = "mean of queries before rotation, and mean length of their channel pairs",
             .paper = "arXiv 2604.04921",
             .n_tokens = 10240,
             .length = 2048},
    .eyes = &eyes,
    .open = open_triattention,
    .document = document,
    .finish = finish_triattention,
    .close = close_sums,
};
