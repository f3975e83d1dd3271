/* capture: what a sequence records besides its state planes, and what an eviction is shown of it.
 *
 *   statistics  sums over queries before rotation, for their mean and covariance
 *   recent      the rotated queries of the last n_recent tokens, a ring by position
 *   cosine      how far each layer's attention turns its input, summed over all tokens
 *   W_o         a layer's output matrix as floats, read from the file when a strategy asks
 *
 * Nodes write places of their own (a head's sums, a token's queries or cosine), and sums over
 * tokens are made in their order, so nothing depends on threads or on how a prompt is cut. */
#include "model/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- sizes ---------------------------------------------------------------------------------- */

static size_t n_layers_of(const kept_engine *e)
{
    return (size_t)e->model->info.n_layers;
}

/* Floats of one token's queries in one layer. */
static size_t token_size(const kept_engine *e)
{
    return (size_t)e->model->info.n_heads * (size_t)e->model->info.head_size;
}

static size_t ring_size(const kept_engine *e, int n_recent)
{
    return n_layers_of(e) * (size_t)n_recent * token_size(e);
}

/* ---- query statistics ------------------------------------------------------------------------ */

static uint64_t stats_bytes(const kept_engine *e)
{
    const size_t d = (size_t)e->model->info.head_size;
    return n_layers_of(e) * token_size(e) * (1 + d) * sizeof(float) + sizeof(kept_stats);
}

static void stats_free(kept_stats *s)
{
    if (!s)
        return;
    free(s->sum);
    free(s->outer);
    free(s);
}

/* A zeroed one, or a copy of src. */
static kept_stats *stats_new(const kept_engine *e, const kept_stats *src)
{
    const size_t d = (size_t)e->model->info.head_size, n = n_layers_of(e) * token_size(e);
    kept_stats *s = kept_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->sum = kept_calloc(n, sizeof(float));
    s->outer = kept_calloc(n * d, sizeof(float));
    if (!s->sum || !s->outer) {
        stats_free(s);
        return NULL;
    }
    if (src) {
        s->count = src->count;
        memcpy(s->sum, src->sum, n * sizeof(float));
        memcpy(s->outer, src->outer, n * d * sizeof(float));
    }
    return s;
}

/* Mean and covariance of all heads into the engine's buffers. */
static kept_status stats_finish(kept_engine *e, const kept_stats *s, kept_error *err)
{
    const size_t d = (size_t)e->model->info.head_size, n = n_layers_of(e) * token_size(e);
    if (!e->mean_buf)
        e->mean_buf = kept_calloc(n, sizeof(float));
    if (!e->cov_buf)
        e->cov_buf = kept_calloc(n * d, sizeof(float));
    if (!e->mean_buf || !e->cov_buf)
        return kept_fail(err, KEPT_NOMEM, "no memory for query statistics");
    const float inv = s->count > 0 ? 1.0f / (float)s->count : 0.0f;
    for (size_t h = 0; h < n / d; h++) {
        float *mean = e->mean_buf + h * d, *cov = e->cov_buf + h * d * d;
        for (size_t i = 0; i < d; i++)
            mean[i] = s->sum[h * d + i] * inv;
        for (size_t i = 0; i < d; i++)
            for (size_t j = 0; j < d; j++)
                cov[i * d + j] = s->outer[(h * d + i) * d + j] * inv - mean[i] * mean[j];
    }
    return KEPT_OK;
}

void kept_record_stats(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth)
{
    const kept_dims k = kept_dims_of(e);
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_job *job = &e->jobs[j];
        kept_stats *s = job->seq->stats;
        const int skip = kept_min(job->n, kept_max(0, KEPT_STATS_SKIP - job->pos0));
        if (!s || skip == job->n)
            continue;
        for (int h = ith; h < k.n_heads; h += nth) {
            const size_t i = (size_t)layer * (size_t)k.n_heads + (size_t)h;
            const float *x = (const float *)((const char *)q->data + (size_t)h * q->nb[1] +
                                             (size_t)(job->tok0 + skip) * q->nb[2]);
            e->kern->outer(job->n - skip, k.d, x, q->nb[2] / 4, s->sum + i * (size_t)k.d,
                           s->outer + i * (size_t)k.d * (size_t)k.d);
        }
    }
}

/* ---- recent queries -------------------------------------------------------------------------- */

/* Queries of the token at position pos in one layer of a ring. */
static float *ring_at(const kept_seq *s, size_t layer, int32_t pos)
{
    const int cap = s->capture.n_recent;
    return s->recent + (layer * (size_t)cap + (size_t)(pos % cap)) * token_size(s->engine);
}

void kept_record_recent(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth)
{
    const size_t size = token_size(e);
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_job *job = &e->jobs[j];
        if (!job->seq->recent)
            continue;
        for (int t = kept_max(0, job->n - job->seq->capture.n_recent); t < job->n; t++)
            if ((job->tok0 + t) % nth == ith)
                memcpy(ring_at(job->seq, (size_t)layer, job->pos0 + t),
                       (const char *)q->data + (size_t)(job->tok0 + t) * q->nb[2],
                       size * sizeof(float));
    }
}

static kept_status ring_new(kept_seq *s, const kept_seq *src, kept_error *err)
{
    kept_engine *e = s->engine;
    const int want = s->capture.n_recent;
    const size_t size = ring_size(e, want);
    if (src && kept_min(src->n_tokens, want) > src->capture.n_recent)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the prefix recorded the queries of its last %d tokens, not %d",
                         src->capture.n_recent, want);
    if (size > e->recent_cap) {
        free(e->recent_buf);
        e->recent_buf = kept_calloc(size, sizeof(float));
        e->recent_cap = e->recent_buf ? size : 0;
    }
    s->recent = kept_calloc(size, sizeof(float));
    if (!s->recent || !e->recent_buf)
        return kept_fail(err, KEPT_NOMEM, "no memory for the queries of %d tokens", want);
    for (size_t l = 0; src && l < n_layers_of(e); l++)
        for (int32_t p = kept_max(0, src->n_tokens - want); p < src->n_tokens; p++)
            memcpy(ring_at(s, l, p), ring_at(src, l, p), token_size(e) * sizeof(float));
    return KEPT_OK;
}

void kept_record_turn(kept_seq *s, int32_t back)
{
    const kept_engine *e = s->engine;
    const kept_model_info *info = &e->model->info;
    const kept_view v = {
        .rope_freq = e->rope_freq, .n_rope = e->model->n_rope, .rope_neox = e->model->rope_neox};
    float re[KEPT_MAX_HEAD_SIZE / 2], im[KEPT_MAX_HEAD_SIZE / 2];
    if (!s->recent || !back)
        return;
    kept_rope_mean(&v, -back, 1, re, im);
    for (int l = 0; l < info->n_layers; l++)
        for (int32_t p = kept_max(0, s->n_tokens - s->capture.n_recent);
             p < s->n_tokens && !info->windowed[l]; p++)
            for (int h = 0; h < info->n_heads; h++)
                kept_rope_turn(&v, re, im, ring_at(s, (size_t)l, p) + h * info->head_size, 1);
}

/* The ring from its oldest token on into the engine's buffer. Returns the tokens it holds. */
static int ring_unroll(const kept_seq *s)
{
    kept_engine *e = s->engine;
    const int cap = s->capture.n_recent, n = kept_min(cap, s->n_tokens);
    const int32_t first = s->n_tokens - n;
    const int head = kept_min(n, cap - first % cap); /* up to the end of the ring */
    const size_t size = token_size(e);
    for (size_t l = 0; l < n_layers_of(e); l++) {
        float *to = e->recent_buf + l * (size_t)n * size;
        memcpy(to, ring_at(s, l, first), (size_t)head * size * sizeof *to);
        if (n > head)
            memcpy(to + (size_t)head * size, ring_at(s, l, first + head),
                   (size_t)(n - head) * size * sizeof *to);
    }
    return n;
}

/* ---- what layers do to their input ----------------------------------------------------------- */

/* Cosine of two vectors; 1 if both are zero, 0 if one is or if a number is not finite. */
static float cosine(const float *x, const float *y, int64_t n)
{
    double xx = 0, yy = 0, xy = 0;
    for (int64_t i = 0; i < n; i++) {
        xx += (double)x[i] * (double)x[i];
        yy += (double)y[i] * (double)y[i];
        xy += (double)x[i] * (double)y[i];
    }
    if (xx == 0 && yy == 0)
        return 1;
    const double c = xy / sqrt(xx * yy);
    return isfinite(c) ? (float)c : 0;
}

void kept_node_cosine(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    kept_engine *e = ((kept_node *)node)->engine;
    const struct ggml_tensor *x = dst->src[0], *y = dst->src[1];
    float *out = e->cosines + (size_t)((kept_node *)node)->layer * (size_t)e->max_batch;
    for (int j = 0; j < e->n_jobs; j++)
        for (int t = 0; t < e->jobs[j].n && e->jobs[j].seq->cosine; t++) {
            const size_t row = (size_t)(e->jobs[j].tok0 + t);
            if (row % (size_t)nth == (size_t)ith)
                out[row] =
                    cosine((const float *)((const char *)x->data + row * x->nb[1]),
                           (const float *)((const char *)y->data + row * y->nb[1]), x->ne[0]);
        }
}

static kept_status cosine_new(kept_seq *s, const kept_seq *src, kept_error *err)
{
    kept_engine *e = s->engine;
    const size_t n = n_layers_of(e);
    if (src && src->n_tokens && !src->cosine)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the prefix did not record what layers do to their input");
    if (!e->cosines)
        e->cosines = kept_calloc(n * (size_t)e->max_batch, sizeof *e->cosines);
    if (!e->cosine_buf)
        e->cosine_buf = kept_calloc(n, sizeof *e->cosine_buf);
    s->cosine = kept_calloc(n, sizeof *s->cosine);
    if (!s->cosine || !e->cosines || !e->cosine_buf)
        return kept_fail(err, KEPT_NOMEM, "no memory for the cosines of %zu layers", n);
    if (src && src->cosine)
        memcpy(s->cosine, src->cosine, n * sizeof *s->cosine);
    return KEPT_OK;
}

/* ---- output matrices ------------------------------------------------------------------------- */

/* One layer's at a time: that of every layer of a large model would weigh more than its cache. */
static float *output_buffer(kept_engine *e)
{
    if (!e->w_o) {
        e->w_o = kept_calloc((size_t)e->model->info.n_embd * token_size(e), sizeof *e->w_o);
        e->w_o_layer = -1;
    }
    return e->w_o;
}

static const float *output_of(void *ctx, int layer)
{
    kept_engine *e = ctx;
    if (!output_buffer(e))
        return NULL;
    if (e->w_o_layer == layer)
        return e->w_o;
    e->w_o_layer = -1;
    if (!kept_weights_read(e->model, e->model->layers[layer].o.w, e->w_o))
        return NULL;
    e->w_o_layer = layer;
    return e->w_o;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static kept_status check_plane(const kept_plane *p, kept_error *err)
{
    if (p->kind != KEPT_PLANE_MASS && p->split)
        return kept_fail(err, KEPT_ARGUMENT, "only planes of attention mass can be split");
    if (p->kind == KEPT_PLANE_MASS && p->window < 1)
        return kept_fail(err, KEPT_ARGUMENT, "a plane sums over 1 and more queries, not %d",
                         p->window);
    if (p->kind == KEPT_PLANE_LOCAL && p->window < 1)
        return kept_fail(err, KEPT_ARGUMENT, "a block has 1 and more positions, not %d", p->window);
    return KEPT_OK;
}

kept_status kept_record_check(const kept_engine *e, const kept_strategy *s, const kept_capture *cap,
                              kept_error *err)
{
    const kept_dims k = kept_dims_of(e);
    const int n = kept_capture_state(cap, cap->n_planes, k.group);
    for (int i = 0; i < cap->n_planes; i++) {
        kept_status st = check_plane(&cap->plane[i], err);
        if (st)
            return st;
    }
    if (n > KEPT_MAX_PLANES - 2)
        return kept_fail(err, KEPT_ARGUMENT,
                         "%d values per slot are wanted at once, %d are possible: use fewer window "
                         "sizes, or fewer scores that tell query heads apart, together",
                         n, KEPT_MAX_PLANES - 2);
    if (cap->n_recent < 0 || cap->n_recent > KEPT_MAX_RECENT)
        return kept_fail(err, KEPT_ARGUMENT, "0 to %d recent queries can be recorded, not %d",
                         KEPT_MAX_RECENT, cap->n_recent);
    if (!s || !(kept_strategy_needs_of(s) & KEPT_NEED_OUTPUT))
        return KEPT_OK;
    for (int l = 0; l < e->model->info.n_layers; l++)
        if (!kept_weights_read(e->model, e->model->layers[l].o.w, NULL))
            return kept_fail(err, KEPT_UNSUPPORTED,
                             "'%s' needs the output matrix of every layer; that of layer %d is %s, "
                             "which cannot be read: use a model with f16 or q8_0 weights",
                             s->name, l, ggml_type_name(e->model->layers[l].o.w->type));
    return KEPT_OK;
}

kept_status kept_record_new(kept_seq *s, const kept_seq *src, kept_error *err)
{
    kept_engine *e = s->engine;
    const kept_capture *c = &s->capture;
    uint64_t bytes = 0;
    kept_status st = KEPT_OK;
    if (c->query_stats) {
        if (src && src->n_tokens && !src->stats)
            return kept_fail(err, KEPT_ARGUMENT, "the prefix did not record query statistics");
        s->stats = stats_new(e, src ? src->stats : NULL);
        if (!s->stats)
            return kept_fail(err, KEPT_NOMEM, "no memory for query statistics");
        bytes += stats_bytes(e);
    }
    if (c->n_recent) {
        st = ring_new(s, src, err);
        bytes += ring_size(e, c->n_recent) * sizeof(float);
    }
    if (!st && c->layer_cosine) {
        st = cosine_new(s, src, err);
        bytes += n_layers_of(e) * sizeof(double);
    }
    if (!st && s->whole && kept_strategy_needs_of(s->whole) & KEPT_NEED_OUTPUT && !output_buffer(e))
        st = kept_fail(err, KEPT_NOMEM, "no memory for the output matrix of a layer");
    s->extra_bytes = bytes;
    if (!st)
        kept_cache_set_extra(s->cache, bytes);
    return st;
}

void kept_record_free(kept_seq *s)
{
    stats_free(s->stats);
    free(s->recent);
    free(s->cosine);
    s->stats = NULL;
    s->recent = NULL;
    s->cosine = NULL;
}

int kept_record_graph(const kept_seq *s)
{
    return (s->stats ? KEPT_GRAPH_STATS : 0) | (s->cosine ? KEPT_GRAPH_COSINE : 0);
}

kept_status kept_record_show(kept_seq *s, kept_evict *x, kept_error *err)
{
    kept_engine *e = s->engine;
    x->w_o = output_of;
    x->w_o_ctx = e;
    x->n_embd = e->model->info.n_embd;
    if (s->recent) {
        x->n_recent = ring_unroll(s);
        x->recent = e->recent_buf;
    }
    if (s->cosine) {
        for (size_t l = 0; l < n_layers_of(e); l++)
            e->cosine_buf[l] = s->n_tokens ? s->cosine[l] / s->n_tokens : 1;
        x->cosine = e->cosine_buf;
    }
    if (!s->stats)
        return KEPT_OK;
    kept_status st = stats_finish(e, s->stats, err);
    x->q_mean = e->mean_buf;
    x->q_cov = e->cov_buf;
    return st;
}

void kept_record_commit(kept_seq *s, const kept_job *job, int from, int to)
{
    const kept_engine *e = s->engine;
    if (s->stats) {
        const int32_t first = kept_max(KEPT_STATS_SKIP, s->n_tokens);
        s->stats->count += kept_max(0, s->n_tokens + job->n - first);
    }
    for (size_t l = (size_t)from; s->cosine && l < (size_t)to; l++)
        for (int t = 0; t < job->n; t++)
            s->cosine[l] += (double)e->cosines[l * (size_t)e->max_batch + (size_t)(job->tok0 + t)];
}

void kept_record_engine_free(kept_engine *e)
{
    void *all[] = {e->mean_buf, e->cov_buf, e->recent_buf, e->cosines, e->cosine_buf, e->w_o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}
