/* pass_memory: the arrays of one eviction, laid out in one block that is used again and again. */
#include "policy/pass.h"
#include "policy/select.h"

#include <stdlib.h>

struct kept_evict_work {
    char *data;
    size_t bytes;
};

kept_evict_work *kept_evict_work_new(void)
{
    return kept_calloc(1, sizeof(kept_evict_work));
}

void kept_evict_work_free(kept_evict_work *w)
{
    if (w)
        free(w->data);
    free(w);
}

static void *take(char *base, size_t *used, size_t n, size_t size)
{
    void *p = base ? base + *used : NULL;
    *used += (n * size + 63) / 64 * 64;
    return p;
}

#define TAKE(field, count) p->field = take(base, used, count, sizeof *p->field)

/* What is held of one layer, and of one head: every lane has its own. */
static void lay_out_lane(kept_pass *p, char *base, size_t *used)
{
    size_t n = (size_t)p->max_n, row = n * (size_t)p->n_heads, body = n * (size_t)p->e->head_size;
    int queries = p->n_recent > p->merge_recent ? p->n_recent : p->merge_recent;
    int rows = p->plane < 0 ? 0 : p->rows, needs = p->needs | p->merge_needs;
    size_t recent = (size_t)queries * (size_t)p->e->group, size = (size_t)p->e->head_size;
    bool output = (needs & KEPT_NEED_OUTPUT) != 0;
    bool keys = (needs & (KEPT_NEED_KEYS | KEPT_NEED_KEYS0)) != 0;
    bool values = (needs & KEPT_NEED_VALUES) != 0;
    rows = p->merge_plane >= 0 && p->merge_rows > rows ? p->merge_rows : rows;
    TAKE(view, (size_t)p->n_heads);
    TAKE(pos, row);
    TAKE(order, row);
    TAKE(guarded, row);
    TAKE(mark, p->e->mark ? row : 0);
    TAKE(sorted, row);
    TAKE(sorted_of, (size_t)p->n_heads);
    TAKE(mass, row * (size_t)rows);
    TAKE(weight, output ? row : 0);
    TAKE(slot_pos, n);
    TAKE(work, 2 * n);
    TAKE(place, p->e->next_pos <= 64 * p->max_n ? kept_place_words(p->e->next_pos) : 0);
    TAKE(raw, keys || values || kept_strategy_moves_keys(p->s) ? body : 0);
    TAKE(key, keys ? body : 0);
    TAKE(key0, needs & KEPT_NEED_KEYS0 ? body : 0);
    TAKE(val, values ? body : 0);
    TAKE(query, recent * size);
    TAKE(prob, recent * n);
    TAKE(lse, recent);
    TAKE(output, output ? (size_t)p->e->n_embd * size : 0);
    TAKE(pooled, n);
    TAKE(free_, n * (size_t)(2 + p->e->group) + KEPT_SCRATCH);
    n = p->merge->merge ? n : 0;
    TAKE(kept, n);
    TAKE(gone, n);
    TAKE(by_place, n);
    TAKE(bias, n);
    TAKE(to, n);
    TAKE(own, 3 * n);
}

static void lay_out_merged(kept_pass *p, char *base, size_t *used)
{
    int lanes = !p->merge->merge ? 0 : p->n_lanes > 1 ? p->n_lanes : 1;
    TAKE(merged, (size_t)lanes);
    for (int i = 0; i < lanes; i++) {
        size_t n = (size_t)p->max_n, body = n * (size_t)p->e->head_size;
        kept_merged none = {0}, *m = base ? &p->merged[i] : &none;
        m->key = take(base, used, p->merge_needs & KEPT_NEED_KEYS ? body : 0, sizeof(float));
        m->value = take(base, used, p->merge_needs & KEPT_NEED_VALUES ? body : 0, sizeof(float));
        m->bias = take(base, used, n, sizeof(float));
        m->set = take(base, used, n, 1);
    }
}

static void lay_out_grading(kept_pass *p, char *base, size_t *used)
{
    kept_grading none = {0}, *g = base ? &p->grade : &none;
    const size_t all = (size_t)p->n_all, pages = (size_t)p->n_slots / KEPT_PAGE_SLOTS + all;
    if (!kept_form_grades(p->s))
        return;
    g->by_pos = take(base, used, (size_t)p->e->next_pos, sizeof *g->by_pos);
    g->from = take(base, used, (size_t)p->max_n, sizeof *g->from);
    g->first = take(base, used, all, sizeof *g->first);
    g->low = take(base, used, all, sizeof *g->low);
    g->scale = take(base, used, all, sizeof *g->scale);
    g->worth = take(base, used, pages, sizeof *g->worth);
    g->head = take(base, used, pages, sizeof *g->head);
    g->width = take(base, used, pages, sizeof *g->width);
    g->rest = take(base, used, pages, sizeof *g->rest);
    g->step = take(base, used, KEPT_GRADE_STEPS * pages, sizeof *g->step);
    g->sorting = take(base, used, KEPT_GRADE_STEPS * pages, sizeof *g->sorting);
}

/* Lays all arrays out from base and returns the bytes they take; base NULL: only counts. */
static size_t lay_out(kept_pass *p, char *base)
{
    size_t bytes = 0, *used = &bytes, all = (size_t)p->n_all, slots = (size_t)p->n_slots;
    int n_more = p->n_lanes > 1 ? p->n_lanes - 1 : 0;
    TAKE(at, all);
    TAKE(value, slots);
    TAKE(mask, slots);
    TAKE(open, p->alloc->needs_scores ? slots : 0);
    TAKE(open_of, all);
    TAKE(n, all);
    TAKE(n_open, all);
    TAKE(n_guard, all);
    TAKE(keep, all);
    TAKE(worst, all);
    TAKE(scratch, all);
    TAKE(share, all);
    TAKE(signal, 2 * all);
    TAKE(cosine, (size_t)p->n_layers);
    TAKE(turns, (p->needs | p->merge_needs) & KEPT_NEED_KEYS0
                    ? (size_t)p->e->next_pos * (size_t)p->e->n_rope
                    : 0);
    lay_out_merged(p, base, used);
    lay_out_grading(p, base, used);
    TAKE(lane, (size_t)n_more);
    lay_out_lane(p, base, used);
    for (int i = 0; i < n_more; i++) {
        kept_pass lane = *p;
        lay_out_lane(&lane, base, used);
        if (base)
            p->lane[i] = lane;
    }
    return bytes;
}
#undef TAKE

#define LEAST_SHARED 8192 /* slots below which waking other threads costs more than it brings */

void kept_pass_lanes(kept_pass *p)
{
    const kept_evict *e = p->e;
    bool many = e->each && e->n_lanes > 1 && p->n_slots >= LEAST_SHARED && !p->look;
    p->n_lanes = many && !(p->needs & KEPT_NEED_OUTPUT) ? e->n_lanes : 1;
}

kept_status kept_pass_memory(kept_pass *p, kept_evict_work *w, kept_error *err)
{
    size_t bytes = lay_out(p, NULL);
    if (bytes > w->bytes) {
        free(w->data);
        w->bytes = bytes + bytes / 2; /* so that a growing sequence rarely asks again */
        w->data = kept_aligned(64, w->bytes);
        if (!w->data) {
            w->bytes = 0;
            return kept_fail(err, KEPT_NOMEM, "out of memory for evicting (%zu bytes)", bytes);
        }
    }
    lay_out(p, w->data);
    return KEPT_OK;
}
