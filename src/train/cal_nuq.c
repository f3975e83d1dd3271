/* cal_nuq: levels that are not spread evenly, for codecs nuq (kern/nuq.h).
 *
 * Keys before rotation are brought to mean 0 and deviation 1, channel by channel, values to a mean
 * square of 1, slot by slot; levels of a KV head are those with the least weighted square error
 * over every eighth of its slots. An error of a key's channel weighs the mean square that queries
 * have there (of a pair of channels that turn together the mean), for that is what it adds to
 * scores; one of a value the mean square of its row, which is what it adds to outputs.
 */
#include "kern/nuq.h"
#include "model/engine.h"
#include "train/job.h"
#include "train/nuq.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { QUERIES = 64, STRIDE = 8 };

static int last_queries(const double *options)
{
    (void)options;
    return QUERIES;
}

static const kept_score eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "levels"},
                                .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
                                .recent = last_queries};

typedef struct seen {
    double *sum, *square; /* [cells][D] of keys before rotation */
    double *query;        /* [cells][D] squares of queries */
    double *n;            /* [1] slots */
    float *row[2];        /* [cells][rows][D] every eighth key and value */
    int rows, doc;
} seen;

static size_t cells(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads;
}

static int rows_of(const kept_train_job *j)
{
    return (j->length + STRIDE - 1) / STRIDE;
}

static kept_status open(kept_train_job *j, kept_error *err)
{
    const size_t D = (size_t)j->head_size, n = cells(j) * D;
    seen *s = j->own = kept_calloc(1, sizeof *s);
    if (s) {
        s->rows = j->n_docs * rows_of(j);
        s->sum = kept_train_state(j, "sum", n, sizeof *s->sum);
        s->square = kept_train_state(j, "square", n, sizeof *s->square);
        s->query = kept_train_state(j, "query", n, sizeof *s->query);
        s->n = kept_train_state(j, "n", 1, sizeof *s->n);
        for (int v = 0; v < 2; v++)
            s->row[v] =
                kept_train_state(j, v ? "values" : "keys", n * (size_t)s->rows, sizeof *s->row[v]);
    }
    return s && s->sum && s->square && s->query && s->n && s->row[0] && s->row[1]
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "no memory for keys and values");
}

static void close(kept_train_job *j)
{
    free(j->own);
}

static void see(void *ctx, const kept_view *v, int head)
{
    const kept_train_job *j = ctx;
    const seen *s = j->own;
    const kept_view_head *h = &v->heads[head];
    const size_t D = (size_t)v->head_size;
    const size_t cell = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    for (size_t i = D; i < (size_t)h->n * D; i++) {
        const double x = (double)h->key0[i];
        s->sum[cell * D + i % D] += x;
        s->square[cell * D + i % D] += x * x;
    }
    for (size_t i = 0; i < (size_t)v->n_recent * (size_t)v->group * D; i++)
        s->query[cell * D + i % D] += (double)h->query[i] * (double)h->query[i];
    for (int i = 1 + s->doc % STRIDE, k = s->doc * rows_of(j); i < h->n; i += STRIDE, k++) {
        const size_t to = (cell * (size_t)s->rows + (size_t)k) * D;
        memcpy(s->row[0] + to, h->key0 + (size_t)i * D, D * sizeof(float));
        memcpy(s->row[1] + to, h->value + (size_t)i * D, D * sizeof(float));
    }
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    seen *s = j->own;
    kept_seq *seq;
    (void)held;
    s->doc = i;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    st = kept_train_feed(j, seq, tokens, j->length, err);
    if (!st)
        st = kept_train_look(j, seq, true, see, j, err);
    *s->n += j->length - 1;
    kept_seq_free(seq);
    return st ? st : kept_train_tick(j, 1, err);
}

/* ---- levels --------------------------------------------------------------------------------- */

/* Channel that turns with channel d; d itself if it does not. */
static int partner(const kept_train_job *j, int d)
{
    const int half = j->model->n_rope / 2;
    if (d >= 2 * half)
        return d;
    return !j->model->rope_neox ? d ^ 1 : d < half ? d + half : d - half;
}

/* Mean and deviation of every channel of a cell's keys. */
static void normalise(const kept_train_job *j, size_t cell, float *zero, float *scale)
{
    const seen *s = j->own;
    const size_t D = (size_t)j->head_size;
    for (size_t d = 0; d < D; d++) {
        const double n = fmax(1, *s->n), mean = s->sum[cell * D + d] / n;
        zero[d] = (float)mean;
        scale[d] = (float)sqrt(fmax(1e-12, s->square[cell * D + d] / n - mean * mean));
    }
}

/* Samples of a cell's keys or values; returns how many. */
static int sample(const kept_train_job *j, size_t cell, bool v, const float *zero,
                  const float *scale, kept_nuq_sample *out)
{
    const seen *s = j->own;
    const int D = j->head_size;
    int m = 0;
    for (int k = 0; k < s->rows; k++) {
        const float *x = s->row[v] + (cell * (size_t)s->rows + (size_t)k) * (size_t)D;
        const double *q = s->query + cell * (size_t)D;
        double square = 0;
        for (int d = 0; d < D; d++)
            square += (double)x[d] * (double)x[d];
        if (!(square > 0)) /* not a row, or one that needs no levels */
            continue;
        const float unit = (float)sqrt(square / D);
        for (int d = 0; d < D; d++) {
            const float w = v ? unit : scale[d];
            const double turns = v ? 1 : (q[d] + q[partner(j, d)]) / 2;
            out[m++] = (kept_nuq_sample){.y = v ? x[d] / unit : (x[d] - zero[d]) / w,
                                         .weight = (float)(turns * (double)w * (double)w),
                                         .unit = w};
        }
    }
    return m;
}

/* Arrays of levels, by keys and values, without outliers and with, 3 bits and 4. */
static const struct {
    const char *name;
    bool v, sparse;
    int n;
} kinds[] = {{"k3", false, false, 8},  {"k4", false, false, 16}, {"k3s", false, true, 8},
             {"k4s", false, true, 16}, {"v3", true, false, 8},   {"v4", true, false, 16},
             {"v3s", true, true, 8},   {"v4s", true, true, 16}};
enum { N_KINDS = sizeof kinds / sizeof *kinds };

typedef struct fit {
    float *zero, *scale, *level[N_KINDS]; /* of all cells */
    kept_nuq_sample *sample;
    double *work, lost[N_KINDS];
} fit;

static void fit_cell(const kept_train_job *j, size_t cell, fit *f)
{
    const size_t D = (size_t)j->head_size;
    const double part =
        (double)kept_nuq_outliers(KEPT_NUQ4S, (int)D) / (double)(KEPT_PAGE_SLOTS * (int)D);
    normalise(j, cell, f->zero + cell * D, f->scale + cell * D);
    for (int i = 0; i < N_KINDS; i++) {
        const int m =
            sample(j, cell, kinds[i].v, f->zero + cell * D, f->scale + cell * D, f->sample);
        float *level = f->level[i] + cell * (size_t)kinds[i].n;
        f->lost[i] +=
            kept_nuq_fit(f->sample, m, kinds[i].n, kinds[i].sparse ? part : 0, level, f->work) /
            (double)cells(j);
    }
}

static kept_status put_all(const kept_train_job *j, const fit *f, kept_trained *out,
                           kept_error *err)
{
    const size_t n = cells(j) * (size_t)j->head_size;
    kept_status st = kept_trained_put(out, "k-zero", f->zero, n, err);
    st = st ? st : kept_trained_put(out, "k-scale", f->scale, n, err);
    for (int i = 0; i < N_KINDS && !st; i++) {
        char key[32];
        st = kept_trained_put(out, kinds[i].name, f->level[i], cells(j) * (size_t)kinds[i].n, err);
        snprintf(key, sizeof key, "lost-%s", kinds[i].name);
        if (!st)
            st = kept_train_note(out, err, key, "%.5f", f->lost[i]);
    }
    return st;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    const seen *s = j->own;
    const size_t n = cells(j) * (size_t)j->head_size, m = (size_t)s->rows * (size_t)j->head_size;
    fit f = {.zero = kept_calloc(n, sizeof(float)),
             .scale = kept_calloc(n, sizeof(float)),
             .sample = kept_calloc(m + 1, sizeof *f.sample),
             .work = kept_calloc(2 * (m + 1), sizeof *f.work)};
    bool ok = f.zero && f.scale && f.sample && f.work;
    for (int i = 0; i < N_KINDS; i++)
        ok &= (f.level[i] = kept_calloc(cells(j) * (size_t)kinds[i].n, sizeof(float))) != NULL;
    kept_status st = ok ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for levels");
    for (size_t cell = 0; cell < cells(j) && !st; cell++)
        if (!j->info->windowed[cell / (size_t)j->n_heads])
            fit_cell(j, cell, &f);
    if (!st)
        st = put_all(j, &f, out, err);
    free(f.zero);
    free(f.scale);
    free(f.sample);
    free(f.work);
    for (int i = 0; i < N_KINDS; i++)
        free(f.level[i]);
    return st;
}

const kept_trainer kept_trainer_nuq = {
    .kind = {.name = "nuq",
             .calibrates = true,
             .reads_text = true,
             .summary =
                 "levels that keys and values of each KV head are rounded to, in 4 and 3 bits",
             .paper = "arXiv 2401.18079 (KVQuant)",
             .deviations = "errors weigh what queries and rows make of them, not gradients; levels "
                           "of every KV head by itself; channels by mean and deviation, not range; "
                           "outliers by error, not by thresholds of channels",
             .n_tokens = 4096,
             .length = 1024},
    .eyes = &eyes,
    .open = open,
    .document = document,
    .finish = finish,
    .close = close,
};
