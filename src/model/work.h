/* work: how one layer's attention is cut into units (see engine.h), and the index arithmetic that
 * work.c and attend.c share. */
#ifndef MODEL_WORK_H
#define MODEL_WORK_H

#include "model/engine.h"

static inline int kept_min(int a, int b)
{
    return a < b ? a : b;
}
static inline int kept_max(int a, int b)
{
    return a > b ? a : b;
}

typedef struct kept_dims {
    int n_heads, n_kv, group, d;
} kept_dims;

static inline kept_dims kept_dims_of(const kept_engine *e)
{
    const kept_model_info *i = &e->model->info;
    return (kept_dims){i->n_heads, i->n_kv_heads, i->n_heads / i->n_kv_heads, i->head_size};
}

static inline int kept_tile_queries(int group)
{
    return kept_max(1, KEPT_TILE_ROWS / group);
}
static inline int kept_unit_queries(int group)
{
    return 4 * kept_tile_queries(group);
}
static inline int kept_pages_of(int slots)
{
    return (slots + KEPT_PAGE_SLOTS - 1) / KEPT_PAGE_SLOTS;
}
/* Pages missing in front of a head's first segment: windowed layers drop leading pages, and what is
 * left keeps its place in segments. */
static inline int kept_phase_of(const kept_job *job, int layer)
{
    return job->seq->trimmed[layer] % KEPT_SEG_PAGES;
}
static inline int kept_segments_of(int slots, int phase)
{
    return (kept_pages_of(slots) + phase + KEPT_SEG_PAGES - 1) / KEPT_SEG_PAGES;
}
/* First page of a segment. */
static inline int kept_page_at(int seg, int phase)
{
    return seg ? seg * KEPT_SEG_PAGES - phase : 0;
}

/* Floats of one segment's partial result: m, l and acc of G rows. */
static inline size_t kept_part_size(const kept_dims *k)
{
    return (size_t)k->group * (size_t)(k->d + 2);
}

/* Pages that a job reads of the n that a head of this layer holds, its own token's included. */
static inline int kept_job_pages(const kept_engine *e, const kept_job *job, int layer, int n)
{
    const kept_strategy *s =
        job->decodes && !e->model->info.windowed[layer] ? job->seq->read : NULL;
    return s ? kept_strategy_pages_read(s, layer, n) : n;
}
/* Slots that a job attends to, of n that are there: pages that are not read do not count. */
static inline int kept_job_slots(const kept_engine *e, const kept_job *job, int layer, int n)
{
    const int pages = kept_pages_of(n);
    return n - (pages - kept_job_pages(e, job, layer, pages)) * KEPT_PAGE_SLOTS;
}

/* Writes e->work's offsets for this layer's caches and the batch in e->jobs. */
void kept_work_lay_out(kept_engine *e, int layer);

#endif
