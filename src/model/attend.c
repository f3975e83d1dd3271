/* attend: the three custom nodes of a layer. See engine.h for how work is cut into units.
 *
 *   store   writes the batch's K and V into the caches, sums query statistics, and lays out the
 *           layer's work (thread 0)
 *   attend  computes all units
 *   merge   folds the segments of single-token items, and adds what every slot received to the
 *           mass planes
 *
 * ggml calls each on every thread with (ith, nth) and puts a barrier between nodes. */
#include "model/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* log2(e): kernels work in base 2. */
#define LOG2E 1.4426950408889634f

/* ---- store ---------------------------------------------------------------------------------- */

/* Row t of head h of a [D][heads][tokens] tensor. */
static const float *row_of(const struct ggml_tensor *x, int h, int t)
{
    return (const float *)((const char *)x->data + (size_t)h * x->nb[1] + (size_t)t * x->nb[2]);
}

static void store_heads(kept_engine *e, int layer, const struct ggml_tensor *k,
                        const struct ggml_tensor *v, int ith, int nth)
{
    const int n_kv = e->model->info.n_kv_heads;
    int unit = 0;
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_job *job = &e->jobs[j];
        kept_cache *c = job->seq->cache;
        for (int h = 0; h < n_kv; h++) {
            const int n = kept_cache_n(c, layer, h);
            /* 32 tokens a unit: threads share long chunks of few heads evenly. */
            for (int t0 = 0; t0 < job->n; t0 += 32, unit++) {
                if (unit % nth != ith)
                    continue;
                for (int t = t0; t < kept_min(job->n, t0 + 32); t++)
                    kept_cache_put(c, layer, h, n + t, row_of(k, h, job->tok0 + t),
                                   row_of(v, h, job->tok0 + t), job->pos0 + t);
            }
        }
    }
}

void kept_node_store(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    kept_engine *e = ((kept_node *)node)->engine;
    const int layer = ((kept_node *)node)->layer;
    const uint64_t t0 = kept_clock_ns();
    kept_kern_enter();
    if (ith == 0)
        kept_work_lay_out(e, layer);
    store_heads(e, layer, dst->src[0], dst->src[1], ith, nth);
    if (dst->src[2])
        kept_record_stats(e, layer, dst->src[2], ith, nth);
    atomic_fetch_add_explicit(&e->busy_ns, kept_clock_ns() - t0, memory_order_relaxed);
}

/* ---- attend --------------------------------------------------------------------------------- */

/* What is the same for all tiles of one (item, KV head). */
typedef struct head_ref {
    kept_engine *e;
    const kept_job *job;
    int layer, h, i;   /* i = j * n_kv + h */
    int before, slots; /* live slots before this batch, and with it */
    int phase;
    const int32_t *list; /* the pages that count, as places in the head's list; NULL: all. Those
                            alone are numbered and have slots then */
    const float *q;      /* row 0 of the item, first query head of the group */
    float *out;          /* the same place in the output */
    int ith;
} head_ref;

static head_ref head_at(kept_engine *e, int layer, int i, struct ggml_tensor *dst, int ith)
{
    const kept_dims k = kept_dims_of(e);
    const int j = i / k.n_kv, h = i % k.n_kv;
    const kept_job *job = &e->jobs[j];
    const int held = kept_cache_n(job->seq->cache, layer, h) + job->n;
    const int slots = kept_job_slots(e, job, layer, held);
    const size_t at =
        ((size_t)job->tok0 * (size_t)k.n_heads + (size_t)h * (size_t)k.group) * (size_t)k.d;
    /* Queries are contiguous [D][n_heads][n_tokens] (a rope result), and so is the output. merge
     * works in place on the output and has no queries. */
    const float *q =
        dst->op == GGML_OP_CUSTOM && dst->src[1] ? (const float *)dst->src[0]->data : NULL;
    return (head_ref){e,
                      job,
                      layer,
                      h,
                      i,
                      slots - job->n,
                      slots,
                      kept_phase_of(job, layer),
                      slots == held ? NULL : e->reads + e->work.read[i],
                      q ? q + at : NULL,
                      (float *)dst->data + at,
                      ith};
}

/* A tile and where its pages are, in units of 64 bytes, and in which form. */
typedef struct tile {
    kept_attn_tile a;
    int32_t place[KEPT_SEG_PAGES];
    const float *bias[KEPT_SEG_PAGES];
    const int32_t *slot_pos[KEPT_SEG_PAGES];
    kept_codecs form[KEPT_SEG_PAGES];
} tile;

/* Finds the pages of x: n of the list ids. */
static void place_pages(const kept_engine *e, tile *x, const int32_t *ids)
{
    const uint8_t *base = kept_pool_base(e->pool);
    bool packed = false;
    for (int i = 0; i < x->a.n_pages; i++) {
        const kept_packed page = kept_pool_get_page(e->pool, ids[i]);
        x->place[i] = (int32_t)((page.at - base) / 64);
        x->form[i] = page.c;
        x->slot_pos[i] = page.pos;
        packed |= !kept_codec_is_f16(page.c);
    }
    x->a.pool = base;
    x->a.page_bytes = 64;
    x->a.pages = x->place;
    x->a.codec = packed ? x->form : NULL;
}

/* Place of a page in the head's list. */
static inline int place_of(const head_ref *r, int page)
{
    return r->list ? r->list[page] : page;
}

/* Biases of the pages of x, the first of which is number `page` of those that are read. */
static void place_biases(const head_ref *r, tile *x, int page)
{
    const kept_seq *s = r->job->seq;
    if (s->bias_plane < 0)
        return;
    const int32_t *blocks = kept_cache_blocks(s->cache, r->layer, r->h, s->bias_plane);
    for (int i = 0; i < x->a.n_pages; i++)
        x->bias[i] = kept_pool_block(r->e->pool, blocks[place_of(r, page + i)]);
    x->a.bias = x->bias;
}

/* Fills x for queries [t0, t0+n_q) against segment seg. False: nothing of it is visible. */
static bool tile_at(const head_ref *r, int t0, int n_q, int seg, tile *x)
{
    kept_attn_tile *t = &x->a;
    kept_engine *e = r->e;
    const kept_dims k = kept_dims_of(e);
    const kept_model_info *info = &e->model->info;
    const int page = kept_page_at(seg, r->phase), first = page * KEPT_PAGE_SLOTS;
    const int visible = r->before + 1 + t0;
    if (first >= visible + n_q - 1)
        return false;
    const size_t stride = (size_t)k.n_heads * (size_t)k.d;
    const int all = kept_pages_of(kept_min(r->slots, visible + n_q - 1));
    *t = (kept_attn_tile){
        .head_size = k.d,
        .group = k.group,
        .n_q = n_q,
        .q = r->q + (size_t)t0 * stride,
        .q_stride_t = stride,
        .q_stride_g = (size_t)k.d,
        .scale = e->model->attn_scale * LOG2E,
        .n_pages = kept_min(kept_page_at(seg + 1, r->phase), all) - page,
        .first_slot = first,
        .visible = visible,
        .q_pos = r->job->pos0 + t0,
    };
    const int32_t *all_ids = kept_cache_pages(r->job->seq->cache, r->layer, r->h);
    int32_t ids[KEPT_SEG_PAGES];
    for (int p = 0; p < t->n_pages; p++)
        ids[p] = all_ids[place_of(r, page + p)];
    place_pages(e, x, ids);
    t->low = kept_cache_low(r->job->seq->cache, r->layer, r->h);
    t->slot_pos = x->slot_pos;
    t->layer = r->layer;
    place_biases(r, x, page);
    if (info->windowed[r->layer]) {
        int32_t *pos = e->pos_scratch + (size_t)r->ith * KEPT_SEG_PAGES * KEPT_PAGE_SLOTS;
        for (int p = 0; p < t->n_pages; p++)
            memcpy(pos + p * KEPT_PAGE_SLOTS,
                   kept_pool_pos(e->pool) + (size_t)ids[p] * KEPT_PAGE_SLOTS,
                   KEPT_PAGE_SLOTS * sizeof *pos);
        t->pos = pos;
        t->window = info->sliding_window;
    }
    return true;
}

/* First page of unit u, which this thread will probably get after the one at hand (of cell i or a
 * later one); NULL: none, or not a single token's. */
static const uint8_t *page_of_unit(const kept_engine *e, int layer, int u, int i)
{
    const int n_kv = e->model->info.n_kv_heads, n = e->n_jobs * n_kv;
    const int *unit = e->work.unit;
    if (u >= unit[n])
        return NULL;
    while (u >= unit[i + 1])
        i++;
    const kept_job *job = &e->jobs[i / n_kv];
    if (job->n != 1)
        return NULL;
    int page = kept_page_at(u - unit[i], kept_phase_of(job, layer));
    if (e->work.read[i] != SIZE_MAX)
        page = e->reads[e->work.read[i] + (size_t)page];
    return kept_pool_get_page(e->pool, kept_cache_pages(job->seq->cache, layer, i % n_kv)[page]).at;
}

/* A single token against one segment: partial result and, if wanted, probabilities. */
static void attend_segment(const head_ref *r, int seg, const uint8_t *next)
{
    kept_engine *e = r->e;
    const kept_dims k = kept_dims_of(e);
    tile x;
    kept_attn_tile *const t = &x.a;
    if (!tile_at(r, 0, 1, seg, &x))
        return; /* cannot happen: the last segment holds the token itself */
    float *part = e->parts + e->work.part[r->i] + (size_t)seg * kept_part_size(&k);
    t->next = next;
    t->m = part;
    t->l = part + k.group;
    t->acc = part + 2 * k.group;
    if (r->job->n_vecs) {
        const size_t page = (size_t)kept_page_at(seg, r->phase);
        t->p = e->probs + e->work.prob[r->i] + page * (size_t)k.group * KEPT_PAGE_SLOTS;
        t->p_max = e->prob_maxes + e->work.prob_max[r->i] + page * (size_t)k.group;
    }
    uint8_t skipped[KEPT_SEG_PAGES] = {0};
    t->skip = r->job->decodes ? r->job->seq->skip_v : 0;
    t->skipped = skipped;
    e->kern->attend(t);
    uint64_t bytes = 0;
    for (int p = 0; p < t->n_pages; p++)
        bytes += kept_codec_page_bytes(x.form[p], k.d) -
                 (skipped[p] ? kept_codec_half_bytes(x.form[p].v, true, k.d) : 0);
    if (r->job->decodes)
        atomic_fetch_add_explicit(&r->job->seq->read_bytes, bytes, memory_order_relaxed);
}

static void finish_rows(int rows, int d, const float *L, const float *O, float *out, int group,
                        size_t stride_t)
{
    for (int r = 0; r < rows; r++) {
        const float inv = 1.0f / L[r];
        float *o = out + (size_t)(r / group) * stride_t + (size_t)(r % group) * (size_t)d;
        for (int i = 0; i < d; i++)
            o[i] = O[(size_t)r * (size_t)d + (size_t)i] * inv;
    }
}

/* Query heads that captured plane i tells apart. */
static int heads_of(const head_ref *r, int i)
{
    return r->job->seq->capture.plane[i].split ? kept_dims_of(r->e).group : 1;
}

/* First of the item's queries that plane p counts. */
static int counted_from(const kept_job *job, int p)
{
    return job->n - job->counted[p];
}

static bool is_echo(const kept_job *job, int p)
{
    const kept_plane_kind kind = job->seq->capture.plane[p].kind;
    return kind == KEPT_PLANE_ECHO || kind == KEPT_PLANE_ECHO_PLUS;
}

/* Probabilities of queries [t0, t0+n_q) of an item, as the kernels leave them. */
typedef struct probs {
    int t0, n_q;
    const kept_f16 *p;
    const float *p_max, *M, *L;
} probs;

/* vec = the greater of vec and what these queries of a repeating fork gave to every slot, for its
 * plane i. */
static void echo_peak(const head_ref *r, int i, const probs *x, float *vec)
{
    const kept_engine *e = r->e;
    const int group = kept_dims_of(e).group, rows = x->n_q * group;
    const bool plus = r->job->seq->capture.plane[i].kind == KEPT_PLANE_ECHO_PLUS;
    float weight[KEPT_TILE_ROWS];
    for (int row = 0; plus && row < rows; row++)
        weight[row] = e->inv_norm[r->job->tok0 + x->t0 + row / group];
    e->kern->peak(kept_pages_of(kept_min(r->slots, r->before + x->t0 + x->n_q)), rows, x->p,
                  x->p_max, x->M, x->L, plus ? weight : NULL, vec);
}

/* Adds what queries [t0, t0+n_q) gave to every slot to the unit's vectors. */
static void tile_mass(const head_ref *r, int t0, int n_q, const float *M, const float *L,
                      const float *p_max, float *vec)
{
    kept_engine *e = r->e;
    const int group = kept_dims_of(e).group;
    const kept_f16 *p = e->tile_prob + (size_t)r->ith * e->tile_prob_size;
    const int pages = kept_pages_of(kept_min(r->slots, r->before + t0 + n_q));
    const size_t size = (size_t)kept_pages_of(r->slots) * KEPT_PAGE_SLOTS;
    for (int i = 0; i < r->job->seq->capture.n_planes; i++) {
        const int from = kept_max(counted_from(r->job, i), t0) - t0;
        const int n = heads_of(r, i), end = n_q * group;
        if (from < n_q && is_echo(r->job, i)) {
            echo_peak(r, i, &(probs){t0, n_q, p, p_max, M, L}, vec + (size_t)r->job->vec[i] * size);
            continue;
        }
        for (int g = 0; g < n && from < n_q; g++)
            e->kern->mass(pages, end, from * group + g, end, n, p, p_max, M, L,
                          vec + (size_t)(r->job->vec[i] + g) * size);
    }
}

/* Queries [t0, t0+n_q) of an item, all segments, results written out. vec: mass wanted. */
static void attend_tile(const head_ref *r, int t0, int n_q, float *vec)
{
    kept_engine *e = r->e;
    const kept_dims k = kept_dims_of(e);
    const int rows = n_q * k.group;
    float *buf = e->tile_buf + (size_t)r->ith * e->tile_buf_size;
    float *O = buf, *acc = O + KEPT_TILE_ROWS * k.d, *M = acc + KEPT_TILE_ROWS * k.d;
    float *L = M + KEPT_TILE_ROWS, *m = L + KEPT_TILE_ROWS, *l = m + KEPT_TILE_ROWS;
    float *p_max = l + KEPT_TILE_ROWS;
    kept_f16 *p = e->tile_prob + (size_t)r->ith * e->tile_prob_size;
    for (int i = 0; i < rows; i++) {
        M[i] = -INFINITY;
        L[i] = 0;
    }
    memset(O, 0, (size_t)rows * (size_t)k.d * sizeof *O);
    tile x;
    kept_attn_tile *const t = &x.a;
    for (int seg = 0; seg < kept_segments_of(r->slots, r->phase) && tile_at(r, t0, n_q, seg, &x);
         seg++) {
        const size_t page = (size_t)kept_page_at(seg, r->phase);
        t->m = m;
        t->l = l;
        t->acc = acc;
        t->p = vec ? p + page * (size_t)rows * KEPT_PAGE_SLOTS : NULL;
        t->p_max = p_max + page * (size_t)rows;
        e->kern->attend(t);
        e->kern->combine(rows, k.d, M, L, O, m, l, acc);
    }
    finish_rows(rows, k.d, L, O, r->out + (size_t)t0 * (size_t)k.n_heads * (size_t)k.d, k.group,
                (size_t)k.n_heads * (size_t)k.d);
    if (vec)
        tile_mass(r, t0, n_q, M, L, p_max, vec);
}

/* A group of queries of a longer item. */
static void attend_group(const head_ref *r, int group_no)
{
    kept_engine *e = r->e;
    const int group = kept_dims_of(e).group;
    const size_t size = (size_t)r->job->n_vecs * (size_t)kept_pages_of(r->slots) * KEPT_PAGE_SLOTS;
    float *vec = e->vecs + e->work.vec[r->i] + (size_t)group_no * size;
    const int t0 = group_no * kept_unit_queries(group);
    const int t1 = kept_min(r->job->n, t0 + kept_unit_queries(group));
    int first_counted = r->job->n;
    for (int i = 0; i < r->job->seq->capture.n_planes; i++)
        first_counted = kept_min(first_counted, counted_from(r->job, i));
    if (size)
        memset(vec, 0, size * sizeof *vec);
    for (int t = t0; t < t1; t += kept_tile_queries(group)) {
        const int n_q = kept_min(kept_tile_queries(group), t1 - t);
        attend_tile(r, t, n_q, first_counted < t + n_q ? vec : NULL);
    }
}

void kept_node_attend(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    kept_engine *e = ((kept_node *)node)->engine;
    const int layer = ((kept_node *)node)->layer;
    const uint64_t clock0 = kept_clock_ns();
    const int *unit = e->work.unit;
    const int n = e->n_jobs * e->model->info.n_kv_heads;
    kept_kern_enter();
    kept_record_recent(e, layer, dst->src[0], ith, nth);
    kept_record_local(e, layer, dst->src[0], ith, nth);
    for (int i = 0;;) {
        const int u = atomic_fetch_add_explicit(&e->next_attend[layer], 1, memory_order_relaxed);
        if (u >= unit[n])
            break;
        while (u >= unit[i + 1]) /* units are handed out in ascending order */
            i++;
        const head_ref r = head_at(e, layer, i, dst, ith);
        if (r.job->n == 1)
            attend_segment(&r, u - unit[i], page_of_unit(e, layer, u + nth, i));
        else
            attend_group(&r, u - unit[i]);
    }
    atomic_fetch_add_explicit(&e->busy_ns, kept_clock_ns() - clock0, memory_order_relaxed);
}

/* ---- merge ---------------------------------------------------------------------------------- */

/* Plane i of the capture, the part of query head g where it is split: += or = x, over all pages of
 * a head. A page that was not read received nothing. */
static void plane_add(const head_ref *r, int i, int g, const float *x, bool reset)
{
    const int plane = kept_capture_state(&r->job->seq->capture, i, kept_dims_of(r->e).group) + g;
    const int32_t *blocks = kept_cache_blocks(r->job->seq->cache, r->layer, r->h, plane);
    for (int p = 0; r->list && reset && p < r->list[kept_pages_of(r->slots) - 1]; p++)
        memset(kept_pool_block(r->e->pool, blocks[p]), 0, KEPT_PAGE_SLOTS * sizeof(float));
    for (int p = 0; p < kept_pages_of(r->slots); p++) {
        float *b = kept_pool_block(r->e->pool, blocks[place_of(r, p)]);
        for (int s = 0; s < KEPT_PAGE_SLOTS; s++)
            b[s] = (reset ? 0.0f : b[s]) + x[p * KEPT_PAGE_SLOTS + s];
    }
}

/* Plane i = the greater of it and x, over all pages of a head. */
static void plane_max(const head_ref *r, int i, const float *x)
{
    const int plane = kept_capture_state(&r->job->seq->capture, i, kept_dims_of(r->e).group);
    const int32_t *blocks = kept_cache_blocks(r->job->seq->cache, r->layer, r->h, plane);
    for (int p = 0; p < kept_pages_of(r->slots); p++) {
        float *b = kept_pool_block(r->e->pool, blocks[p]);
        for (int s = 0; s < KEPT_PAGE_SLOTS; s++)
            b[s] = x[p * KEPT_PAGE_SLOTS + s] > b[s] ? x[p * KEPT_PAGE_SLOTS + s] : b[s];
    }
}

/* A single token of a repeating fork. */
static void merge_single_echo(const head_ref *r, const float *M, const float *L)
{
    kept_engine *e = r->e;
    const int pages = kept_pages_of(r->slots);
    float *vec = (float *)(void *)(e->tile_prob + (size_t)r->ith * e->tile_prob_size);
    const probs x = {0, 1, e->probs + e->work.prob[r->i], e->prob_maxes + e->work.prob_max[r->i],
                     M, L};
    for (int i = 0; i < r->job->seq->capture.n_planes; i++)
        if (is_echo(r->job, i)) {
            memset(vec, 0, (size_t)pages * KEPT_PAGE_SLOTS * sizeof *vec);
            echo_peak(r, i, &x, vec);
            plane_max(r, i, vec);
        }
}

/* Books the mass of a single token in the planes that are split, or in those that are not: each
 * receives the same vectors. */
static void merge_single_mass(const head_ref *r, bool split, const float *M, const float *L)
{
    kept_engine *e = r->e;
    const kept_job *job = r->job;
    const kept_capture *c = &job->seq->capture;
    const int group = kept_dims_of(e).group, pages = kept_pages_of(r->slots);
    float *vec = (float *)(void *)(e->tile_prob + (size_t)r->ith * e->tile_prob_size);
    int first = 0;
    while (first < c->n_planes && !(job->counted[first] && c->plane[first].split == split))
        first++;
    if (first == c->n_planes)
        return;
    for (int g = 0; g < (split ? group : 1); g++) {
        memset(vec, 0, (size_t)pages * KEPT_PAGE_SLOTS * sizeof *vec);
        e->kern->mass(pages, group, g, split ? g + 1 : group, 1, e->probs + e->work.prob[r->i],
                      e->prob_maxes + e->work.prob_max[r->i], M, L, vec);
        for (int i = first; i < c->n_planes; i++)
            if (job->counted[i] && c->plane[i].split == split)
                plane_add(r, i, g, vec, job->reset[i]);
    }
}

/* Folds the segments of a single-token item and books its mass. */
static void merge_single(const head_ref *r)
{
    kept_engine *e = r->e;
    const kept_dims k = kept_dims_of(e);
    float *buf = e->tile_buf + (size_t)r->ith * e->tile_buf_size;
    float *O = buf, *M = O + KEPT_TILE_ROWS * k.d, *L = M + KEPT_TILE_ROWS;
    for (int g = 0; g < k.group; g++) {
        M[g] = -INFINITY;
        L[g] = 0;
    }
    memset(O, 0, (size_t)k.group * (size_t)k.d * sizeof *O);
    const float *part = e->parts + e->work.part[r->i];
    for (int s = 0; s < kept_segments_of(r->slots, r->phase); s++, part += kept_part_size(&k))
        e->kern->combine(k.group, k.d, M, L, O, part, part + k.group, part + 2 * k.group);
    finish_rows(k.group, k.d, L, O, r->out, k.group, 0);
    if (r->job->seq->echoing) {
        merge_single_echo(r, M, L);
        return;
    }
    merge_single_mass(r, false, M, L);
    merge_single_mass(r, true, M, L);
}

/* Adds the units' vectors of a longer item in order. */
static void merge_mass(const head_ref *r)
{
    kept_engine *e = r->e;
    const kept_job *job = r->job;
    const int group = kept_dims_of(e).group;
    const int units = (job->n + kept_unit_queries(group) - 1) / kept_unit_queries(group);
    const size_t size = (size_t)kept_pages_of(r->slots) * KEPT_PAGE_SLOTS;
    const float *vec = e->vecs + e->work.vec[r->i];
    for (int i = 0; i < job->seq->capture.n_planes; i++)
        for (int g = 0; g < heads_of(r, i) && job->counted[i]; g++)
            for (int u = 0; u < units; u++) {
                const float *x = vec + (size_t)(u * job->n_vecs + job->vec[i] + g) * size;
                if (is_echo(job, i))
                    plane_max(r, i, x);
                else
                    plane_add(r, i, g, x, u == 0 && job->reset[i]);
            }
}

void kept_node_merge(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    (void)nth;
    kept_engine *e = ((kept_node *)node)->engine;
    const int layer = ((kept_node *)node)->layer;
    const uint64_t t0 = kept_clock_ns();
    const int n = e->n_jobs * e->model->info.n_kv_heads;
    kept_kern_enter();
    for (;;) {
        const int i = atomic_fetch_add_explicit(&e->next_merge[layer], 1, memory_order_relaxed);
        if (i >= n)
            break;
        const head_ref r = head_at(e, layer, i, dst, ith);
        if (r.job->n == 1)
            merge_single(&r);
        else
            merge_mass(&r);
    }
    atomic_fetch_add_explicit(&e->busy_ns, kept_clock_ns() - t0, memory_order_relaxed);
}
