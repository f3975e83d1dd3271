/* local: planes of attention inside blocks (KEPT_PLANE_LOCAL, kept/kept.h). Every query of a block
 * sees every key of it, later ones too, so this is no by-product of causal attention: the products
 * of the block are made anew, from the queries of the pass and the keys as they are stored.
 *
 * One (item, KV head, part of a block) is one unit with its own slots to write, and goes through
 * the same sums whoever computes it: the plane does not depend on threads, nor on how a prompt is
 * cut as long as no block is.
 */
#include "model/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS  64 /* queries times query heads at once */
#define LOG2E 1.4426950408889634f

/* Scratch of one thread. */
typedef struct scratch {
    float *keys;  /* [most][D] */
    float *rows;  /* [ROWS][D] queries times the scale */
    float *dots;  /* [ROWS][most] */
    float *sums;  /* [most] */
    size_t total; /* floats of all of it */
} scratch;

static scratch scratch_at(const kept_engine *e, float *at, size_t most)
{
    const size_t d = (size_t)e->model->info.head_size;
    scratch s = {.total = (most + ROWS) * d + (ROWS + 1) * most};
    if (at) {
        s.keys = at;
        s.rows = s.keys + most * d;
        s.dots = s.rows + ROWS * d;
        s.sums = s.dots + ROWS * most;
    }
    return s;
}

kept_status kept_local_new(kept_engine *e, const kept_capture *cap, kept_error *err)
{
    int most = 0;
    for (int i = 0; i < cap->n_planes; i++)
        if (cap->plane[i].kind == KEPT_PLANE_LOCAL)
            most = kept_max(most, kept_min(cap->plane[i].window, e->max_batch));
    if (most <= e->local_most)
        return KEPT_OK;
    const size_t size = scratch_at(e, NULL, (size_t)most).total;
    float *p = kept_calloc((size_t)e->n_threads * size, sizeof *p);
    if (!p)
        return kept_fail(err, KEPT_NOMEM, "no memory for attention in blocks of %d", most);
    free(e->local);
    e->local = p;
    e->local_most = most;
    return KEPT_OK;
}

/* 2^x for x <= 0, relative error below 2e-7; 0 where that is no normal number, and for NaN. Without
 * a call or a branch, so that the compiler has vectors. */
static float exp2_of(float x)
{
    const float in = x > -126.0f ? x : -126.0f;
    const int32_t n = (int32_t)(in - 0.5f); /* nearest */
    const float f = in - (float)n;
    float p = 1.54531629e-4f;
    p = p * f + 1.33908634e-3f;
    p = p * f + 9.61808256e-3f;
    p = p * f + 5.55035711e-2f;
    p = p * f + 2.40226508e-1f;
    p = p * f + 6.93147188e-1f;
    p = p * f + 1.0f;
    const int32_t bits = (n + 127) * (1 << 23);
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return x > -126.0f ? p * scale : 0.0f;
}

/* Softmax of x [n], which is in base 2; sums [n] += it. */
static void add_row(float *x, int n, float *sums)
{
    float top = -INFINITY, all = 0;
    for (int j = 0; j < n; j++)
        top = x[j] > top ? x[j] : top;
    for (int j = 0; j < n; j++)
        x[j] = exp2_of(x[j] - top);
    for (int j = 0; j < n; j++)
        all += x[j];
    const float inv = all > 0 ? 1 / all : 0;
    for (int j = 0; j < n; j++)
        sums[j] += x[j] * inv;
}

/* The part of a block that a pass sees: tokens [t0, t0+n) of an item, in one KV head. */
typedef struct part {
    kept_engine *e;
    const kept_job *job;
    const struct ggml_tensor *q; /* [D][n_heads][n_tokens] after rotation */
    int layer, h, t0, n;
    scratch s;
} part;

static void read_keys(const part *p)
{
    kept_cache *c = p->job->seq->cache;
    const kept_engine *e = p->e;
    const int d = e->model->info.head_size, first = kept_cache_n(c, p->layer, p->h) + p->t0;
    const int32_t *pages = kept_cache_pages(c, p->layer, p->h);
    for (int i = 0, n; i < p->n; i += n) {
        const int slot = (first + i) % KEPT_PAGE_SLOTS;
        n = kept_min(p->n - i, KEPT_PAGE_SLOTS - slot);
        /* what is being written is F16 */
        const uint8_t *page = kept_pool_get_page(e->pool, pages[(first + i) / KEPT_PAGE_SLOTS]).at;
        e->kern->get(page, d, slot, n, p->s.keys + (size_t)i * (size_t)d, NULL);
    }
}

/* Queries [from, from+n) of the part, counted with their query heads. */
static void read_rows(const part *p, int from, int n)
{
    const kept_dims k = kept_dims_of(p->e);
    const float scale = p->e->model->attn_scale * LOG2E;
    for (int r = 0; r < n; r++) {
        const size_t t = (size_t)(p->job->tok0 + p->t0 + (from + r) / k.group);
        const size_t head = (size_t)(p->h * k.group + (from + r) % k.group);
        const float *q = (const float *)(const void *)((const char *)p->q->data + t * p->q->nb[2] +
                                                       head * p->q->nb[1]);
        for (int i = 0; i < k.d; i++)
            p->s.rows[r * k.d + i] = q[i] * scale;
    }
}

static void record(const part *p, int plane)
{
    const kept_dims k = kept_dims_of(p->e);
    kept_cache *c = p->job->seq->cache;
    const int first = kept_cache_n(c, p->layer, p->h) + p->t0, all = p->n * k.group;
    if (p->n == 1) { /* as while decoding: the token sees itself */
        kept_cache_set_state(c, p->layer, p->h, plane, first, (float)k.group);
        return;
    }
    memset(p->s.sums, 0, (size_t)p->n * sizeof *p->s.sums);
    read_keys(p);
    for (int from = 0; from < all; from += ROWS) {
        const int n = kept_min(ROWS, all - from);
        read_rows(p, from, n);
        p->e->kern->dots(n, p->n, k.d, p->s.rows, p->s.keys, p->s.dots, p->n);
        for (int r = 0; r < n; r++)
            add_row(p->s.dots + (size_t)r * (size_t)p->n, p->n, p->s.sums);
    }
    for (int i = 0; i < p->n; i++)
        kept_cache_set_state(c, p->layer, p->h, plane, first + i, p->s.sums[i]);
}

void kept_record_local(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth)
{
    const kept_dims k = kept_dims_of(e);
    if (!e->local || e->model->info.windowed[layer])
        return;
    const size_t size = scratch_at(e, NULL, (size_t)e->local_most).total;
    part p = {.e = e, .q = q, .layer = layer};
    p.s = scratch_at(e, e->local + (size_t)ith * size, (size_t)e->local_most);
    int unit = 0;
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_capture *c = &e->jobs[j].seq->capture;
        p.job = &e->jobs[j];
        for (int i = 0; i < c->n_planes; i++) {
            if (c->plane[i].kind != KEPT_PLANE_LOCAL)
                continue;
            const int block = c->plane[i].window;
            for (p.t0 = 0; p.t0 < p.job->n; p.t0 += p.n) {
                p.n = kept_min(p.job->n - p.t0, block - (p.job->pos0 + p.t0) % block);
                for (p.h = 0; p.h < k.n_kv; p.h++, unit++)
                    if (unit % nth == ith)
                        record(&p, kept_capture_state(c, i, k.group));
            }
        }
    }
}
