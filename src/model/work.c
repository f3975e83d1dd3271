/* work: lays out the units of a layer, and owns the offsets and scratch that they write to. */
#include "model/work.h"
#include "policy/parts.h"

#include <stdlib.h>

typedef struct totals {
    size_t parts, probs, prob_maxes, vecs, reads;
} totals;

static totals totals_max(totals a, totals b)
{
    if (b.parts > a.parts)
        a.parts = b.parts;
    if (b.probs > a.probs)
        a.probs = b.probs;
    if (b.prob_maxes > a.prob_maxes)
        a.prob_maxes = b.prob_maxes;
    if (b.vecs > a.vecs)
        a.vecs = b.vecs;
    if (b.reads > a.reads)
        a.reads = b.reads;
    return a;
}

/* Writes e->work's offsets for this layer (w NULL: only counts). */
static totals layout(const kept_engine *e, int layer, const kept_layer_work *w)
{
    const kept_dims k = kept_dims_of(e);
    totals t = {0};
    int unit = 0;
    for (int j = 0; j < e->n_jobs; j++) {
        const kept_job *job = &e->jobs[j];
        for (int h = 0; h < k.n_kv; h++) {
            const int i = j * k.n_kv + h;
            const int held = kept_cache_n(job->seq->cache, layer, h) + job->n;
            const int slots = kept_job_slots(e, job, layer, held);
            const size_t pages = (size_t)kept_pages_of(slots);
            const bool all = slots == held;
            if (w) {
                w->unit[i] = unit;
                w->part[i] = t.parts;
                w->prob[i] = t.probs;
                w->prob_max[i] = t.prob_maxes;
                w->vec[i] = t.vecs;
                w->read[i] = all ? SIZE_MAX : t.reads;
            }
            t.reads += all ? 0 : pages;
            if (job->n == 1) {
                const int segs = kept_segments_of(slots, kept_phase_of(job, layer));
                unit += segs;
                t.parts += (size_t)segs * kept_part_size(&k);
                if (job->n_vecs) {
                    t.probs += pages * (size_t)k.group * KEPT_PAGE_SLOTS;
                    t.prob_maxes += pages * (size_t)k.group;
                }
            } else {
                const int groups =
                    (job->n + kept_unit_queries(k.group) - 1) / kept_unit_queries(k.group);
                unit += groups;
                t.vecs += (size_t)groups * (size_t)job->n_vecs * pages * KEPT_PAGE_SLOTS;
            }
        }
    }
    if (w)
        w->unit[e->n_jobs * k.n_kv] = unit;
    return t;
}

void kept_work_lay_out(kept_engine *e, int layer)
{
    layout(e, layer, &e->work);
}

static bool grow(void **p, size_t *cap, size_t need, size_t size)
{
    if (need <= *cap)
        return true;
    /* A quarter more, so that a sequence that grows by a token a step does not come back. */
    size_t want = need + need / 4 + 4096;
    void *q = aligned_alloc(64, (want * size + 63) / 64 * 64);
    if (!q)
        return false;
    free(*p);
    *p = q;
    *cap = want;
    return true;
}

kept_status kept_work_prepare(kept_engine *e, kept_error *err)
{
    totals t = {0};
    for (int l = 0; l < e->model->info.n_layers; l++) {
        atomic_store_explicit(&e->next_attend[l], 0, memory_order_relaxed);
        atomic_store_explicit(&e->next_merge[l], 0, memory_order_relaxed);
        t = totals_max(t, layout(e, l, NULL));
    }
    const size_t cells = (size_t)e->n_jobs * (size_t)e->model->info.n_kv_heads;
    for (size_t i = 0; i < cells; i++)
        e->work.chosen[i] = -1;
    e->chosen_stride = 0;
    for (int j = 0; j < e->n_jobs && t.reads; j++) {
        const kept_strategy *by = e->jobs[j].seq->read;
        if (by && by->option[KEPT_AXIS_READ][KEPT_READ_EVERY] > 1)
            e->chosen_stride = (size_t)kept_pages_of(e->max_tokens) + 1;
    }
    if (!grow((void **)&e->parts, &e->parts_cap, t.parts, sizeof(float)) ||
        !grow((void **)&e->probs, &e->probs_cap, t.probs, sizeof(kept_f16)) ||
        !grow((void **)&e->prob_maxes, &e->prob_maxes_cap, t.prob_maxes, sizeof(float)) ||
        !grow((void **)&e->vecs, &e->vecs_cap, t.vecs, sizeof(float)) ||
        !grow((void **)&e->reads, &e->reads_cap, t.reads, sizeof(int32_t)) ||
        !grow((void **)&e->chosen, &e->chosen_cap, cells * e->chosen_stride, sizeof(int32_t)))
        return kept_fail(err, KEPT_NOMEM, "no memory for attention scratch of %d sequences",
                         e->n_jobs);
    return KEPT_OK;
}

kept_status kept_work_new(kept_engine *e, kept_error *err)
{
    const kept_dims k = kept_dims_of(e);
    const size_t cells = (size_t)e->max_seqs * (size_t)k.n_kv + 1;
    const size_t pages = (size_t)kept_pages_of(e->max_tokens) + 1;
    const size_t layers = (size_t)e->model->info.n_layers;
    kept_layer_work *w = &e->work;
    w->unit = kept_calloc(cells, sizeof *w->unit);
    w->part = kept_calloc(cells, sizeof *w->part);
    w->prob = kept_calloc(cells, sizeof *w->prob);
    w->prob_max = kept_calloc(cells, sizeof *w->prob_max);
    w->vec = kept_calloc(cells, sizeof *w->vec);
    w->read = kept_calloc(cells, sizeof *w->read);
    w->chosen = kept_calloc(cells, sizeof *w->chosen);
    w->chosen_of = kept_calloc(cells, sizeof *w->chosen_of);
    e->next_attend = kept_calloc(layers, sizeof *e->next_attend);
    e->next_merge = kept_calloc(layers, sizeof *e->next_merge);
    /* A tile's probabilities and their page maxima, for all pages of the longest sequence. */
    e->tile_prob_size = pages * KEPT_TILE_ROWS * KEPT_PAGE_SLOTS;
    /* M, L, m, l, p_max of every page; O and acc. */
    e->tile_buf_size = KEPT_TILE_ROWS * (4 + pages + 2 * (size_t)k.d) + 64;
    e->tile_buf_size = (e->tile_buf_size + 15) / 16 * 16;
    e->tile_prob = aligned_alloc(64, (size_t)e->n_threads * e->tile_prob_size * sizeof(kept_f16));
    e->tile_buf = aligned_alloc(64, (size_t)e->n_threads * e->tile_buf_size * sizeof(float));
    e->pos_scratch = kept_calloc((size_t)e->n_threads * KEPT_SEG_PAGES * KEPT_PAGE_SLOTS,
                                 sizeof *e->pos_scratch);
    if (!w->unit || !w->part || !w->prob || !w->prob_max || !w->vec || !w->read || !w->chosen ||
        !w->chosen_of || !e->next_attend || !e->next_merge || !e->tile_prob || !e->tile_buf ||
        !e->pos_scratch)
        return kept_fail(err, KEPT_NOMEM, "no memory for attention work space");
    return KEPT_OK;
}

void kept_work_free(kept_engine *e)
{
    kept_layer_work *w = &e->work;
    void *all[] = {w->unit,        w->part,       w->prob,       w->prob_max, w->vec,
                   e->next_attend, e->next_merge, e->tile_prob,  e->tile_buf, e->pos_scratch,
                   e->parts,       e->vecs,       e->prob_maxes, e->probs,    w->read,
                   e->reads,       w->chosen,     w->chosen_of,  e->chosen};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}
