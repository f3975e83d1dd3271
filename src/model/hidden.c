/* hidden: what is made of hidden states in a forward pass: lengths for ECHO_PLUS, scores predicted
 * by the trained file "kvzap", and what a trainer taps. Formats and meanings are in ahead.h.
 *
 * A token's prediction has the same bits wherever it stands in a pass of two and more tokens; a
 * pass of one adds in another order, as its matrix products do.
 */
#include "model/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define UNIT 32 /* tokens predicted at once */

typedef struct layer_net {
    const float *w1, *b1, *w2, *b2; /* w2 NULL: linear */
    int hidden;                     /* rows of w1 */
} layer_net;

const kept_trained *kept_hidden_file(const kept_engine *e, const char *kind)
{
    for (int i = 0; i < e->n_trained; i++)
        if (!strcmp(kept_trained_kind(e->trained[i]), kind))
            return e->trained[i];
    return NULL;
}

static const float *array_of(const kept_trained *t, const char *name, int layer, size_t *n)
{
    char text[32];
    snprintf(text, sizeof text, "%s.%d", name, layer);
    return kept_trained_array(t, text, n);
}

/* The arrays of one layer. False: they do not fit the model. */
static bool net_of(const kept_trained *t, const kept_model_info *info, int layer, layer_net *net)
{
    size_t w1 = 0, b1 = 0, w2 = 0, b2 = 0;
    const size_t kv = (size_t)info->n_kv_heads;
    net->w1 = array_of(t, "w1", layer, &w1);
    net->b1 = array_of(t, "b1", layer, &b1);
    net->w2 = array_of(t, "w2", layer, &w2);
    net->b2 = array_of(t, "b2", layer, &b2);
    net->hidden = (int)b1;
    if (!net->w1 || !net->b1 || !net->w2 != !net->b2 || b1 < 1 || b1 > (1 << 16) ||
        w1 != b1 * (size_t)info->n_embd)
        return false;
    return net->w2 ? w2 == kv * b1 && b2 == kv : b1 == kv;
}

static bool finite_all(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

kept_status kept_hidden_trained(kept_engine *e, const kept_trained *t, kept_error *err)
{
    const kept_model_info *info = &e->model->info;
    int most = info->n_kv_heads;
    for (int l = 0; l < info->n_layers; l++) {
        layer_net net;
        if (info->windowed[l])
            continue;
        if (!net_of(t, info, l, &net))
            return kept_fail(err, KEPT_ARGUMENT,
                             "the trained file of kind 'kvzap' does not fit this model: w1.%d, "
                             "b1.%d and, with two layers, w2.%d, b2.%d must be there for %d "
                             "channels and %d KV heads; train it again",
                             l, l, l, l, info->n_embd, info->n_kv_heads);
        const size_t n = (size_t)net.hidden, kv = (size_t)info->n_kv_heads;
        if (!finite_all(net.w1, n * (size_t)info->n_embd) || !finite_all(net.b1, n) ||
            (net.w2 && !(finite_all(net.w2, n * kv) && finite_all(net.b2, kv))))
            return kept_fail(err, KEPT_ARGUMENT,
                             "the trained file of kind 'kvzap': layer %d has a number that is not "
                             "finite; train it again",
                             l);
        most = kept_max(most, net.hidden);
    }
    const size_t size = (size_t)(most + info->n_kv_heads) * UNIT;
    if (size <= e->predict_size)
        return KEPT_OK;
    float *p = kept_calloc((size_t)e->n_threads * size, sizeof *p);
    if (!p)
        return kept_fail(err, KEPT_NOMEM, "no memory for a predictor of %d hidden channels", most);
    free(e->predict);
    e->predict = p;
    e->predict_size = size;
    return KEPT_OK;
}

/* ---- prediction ------------------------------------------------------------------------------ */

static float gelu(float z)
{
    return 0.5f * z * (1 + erff(z * 0.70710678f));
}

/* One product of a matrix [rows][k] and a vector; eight sums, so that the compiler has vectors. */
static void times(const float *w, int rows, int k, const float *x, float *out, int stride)
{
    for (int r = 0; r < rows; r++, w += k) {
        float sum[8] = {0};
        int i = 0;
        for (; i + 8 <= k; i += 8)
            for (int c = 0; c < 8; c++)
                sum[c] += w[i + c] * x[i + c];
        for (; i < k; i++)
            sum[0] += w[i] * x[i];
        out[(size_t)r * (size_t)stride] =
            ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
    }
}

/* y [n_kv][UNIT] of n tokens x [n][n_embd]; z [hidden][UNIT] is scratch. */
static void predict(const kept_engine *e, const layer_net *net, const float *x, int n, float *z,
                    float *y)
{
    const int embd = e->model->info.n_embd, kv = e->model->info.n_kv_heads;
    float *first = net->w2 ? z : y;
    if (n == 1)
        times(net->w1, net->hidden, embd, x, first, UNIT);
    else
        e->kern->dots(net->hidden, n, embd, net->w1, x, first, UNIT);
    for (int j = 0; j < net->hidden; j++)
        for (int t = 0; t < n; t++) {
            float *at = &first[j * UNIT + t];
            *at = net->w2 ? gelu(*at + net->b1[j]) : *at + net->b1[j];
        }
    for (int h = 0; net->w2 && h < kv; h++) {
        for (int t = 0; t < n; t++)
            y[h * UNIT + t] = net->b2[h];
        for (int j = 0; j < net->hidden; j++)
            for (int t = 0; t < n; t++)
                y[h * UNIT + t] +=
                    net->w2[(size_t)h * (size_t)net->hidden + (size_t)j] * z[j * UNIT + t];
    }
}

/* Predictions of a job's tokens into its plane: units of tokens go to threads in turn. */
static void predict_job(kept_engine *e, const kept_job *job, int layer, const float *x, int ith,
                        int nth)
{
    const kept_model_info *info = &e->model->info;
    const kept_seq *s = job->seq;
    const kept_trained *t = kept_hidden_file(e, "kvzap");
    const int i = kept_capture_find(&s->capture, (kept_plane){.kind = KEPT_PLANE_PREDICTED});
    layer_net net;
    if (i < 0 || info->windowed[layer] || !t || !net_of(t, info, layer, &net))
        return;
    const int plane = kept_capture_state(&s->capture, i, info->n_heads / info->n_kv_heads);
    float *y = e->predict + (size_t)ith * e->predict_size, *z = y + info->n_kv_heads * UNIT;
    for (int at = ith * UNIT; at < job->n; at += nth * UNIT) {
        const int n = kept_min(UNIT, job->n - at);
        predict(e, &net, x + (size_t)at * (size_t)info->n_embd, n, z, y);
        for (int h = 0; h < info->n_kv_heads; h++) {
            const int first = kept_cache_n(s->cache, layer, h) + at;
            for (int k = 0; k < n; k++)
                kept_cache_set_state(s->cache, layer, h, plane, first + k, y[h * UNIT + k]);
        }
    }
}

/* ---- the node -------------------------------------------------------------------------------- */

void kept_engine_tap(kept_engine *e, kept_hidden_fn *fn, void *ctx)
{
    e->tap = fn;
    e->tap_ctx = ctx;
}

int kept_hidden_graph(const kept_seq *s)
{
    bool wanted = s->engine->tap && !s->scratch;
    for (int i = 0; i < s->capture.n_planes; i++) {
        const kept_plane_kind kind = s->capture.plane[i].kind;
        wanted |= kind == KEPT_PLANE_PREDICTED || (kind == KEPT_PLANE_ECHO_PLUS && s->echoing);
    }
    return wanted ? KEPT_GRAPH_HIDDEN : 0;
}

static const float *row(const struct ggml_tensor *x, int t)
{
    return (const float *)(const void *)((const char *)x->data + (size_t)t * x->nb[1]);
}

void kept_node_hidden(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    kept_engine *e = ((kept_node *)node)->engine;
    const int layer = ((kept_node *)node)->layer;
    const struct ggml_tensor *in = dst->src[0], *x = dst->src[1];
    kept_kern_enter();
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_job *job = &e->jobs[j];
        if (e->tap && !job->seq->scratch && ith == 0)
            e->tap(e->tap_ctx, job->seq, layer, job->pos0, job->n, row(x, job->tok0));
        predict_job(e, job, layer, row(x, job->tok0), ith, nth);
        for (int t = job->tok0 + ith; job->seq->echoing && t < job->tok0 + job->n; t += nth) {
            double sum = 0;
            for (int i = 0; i < e->model->info.n_embd; i++)
                sum += (double)row(in, t)[i] * (double)row(in, t)[i];
            e->inv_norm[t] = sum > 0 ? (float)(1 / sqrt(sum)) : 0.0f;
        }
    }
}
