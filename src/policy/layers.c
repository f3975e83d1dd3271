/* layers: one eviction spread over the layers of a prompt that is read layer by layer.
 *
 * The pass is that of the whole prompt: every head at its full length. When a layer has been read
 * it is scored and the budget is split anew.
 *
 *   layerwise  A layer's share depends on that layer alone, the others being as long: all heads of
 *              the split stand for the layer at hand, so only its scores are held.
 *   cascades   A layer's share never grows when the next one arrives: the split is over the layers
 *              read so far, with what they scored when they were whole, and earlier ones are cut
 *              again.
 *
 * So what is left after the last layer is what one eviction of the whole cache would have left.
 */
#include "policy/pass.h"
#include "policy/select.h"

#include <stdlib.h>
#include <string.h>

struct kept_layers {
    kept_pass p;
    kept_evict_work *work;
    int n, n_layers, done; /* tokens, layers that evict, those that were read */
    bool idle;             /* the prompt is within the budget */
    uint8_t *chosen;       /* [n] positions that a head keeps */
    uint8_t *keep;         /* [n] the same by slot */
    int32_t *own;          /* [n] 0, 1, 2 ...: positions of a head that was not cut yet */
};

void kept_layers_free(kept_layers *c)
{
    if (!c)
        return;
    kept_evict_work_free(c->work);
    free(c->chosen);
    free(c->keep);
    free(c->own);
    free(c);
}

uint64_t kept_layers_bytes(const kept_layers *c)
{
    return (uint64_t)c->p.n_slots * (sizeof *c->p.value + sizeof *c->p.mask);
}

static bool is_layerwise(const kept_layers *c)
{
    return c->p.alloc->layerwise;
}

/* The pass of the whole prompt, before anything is scored. */
static kept_status plan(kept_layers *c, kept_error *err)
{
    kept_pass *p = &c->p;
    kept_pass_count(p, c->n);
    c->n_layers = p->n_layers;
    c->idle = !kept_pass_is_due(p);
    if (is_layerwise(c))
        p->n_slots = (int64_t)p->n_heads * c->n;
    kept_status st = kept_pass_open(p, c->work, err);
    for (int i = 0; i < p->n_all && !st; i++) {
        p->n[i] = c->n;
        p->at[i] = (size_t)(is_layerwise(c) ? i % p->n_heads : i) * (size_t)c->n;
    }
    return st;
}

kept_status kept_layers_new(const kept_strategy *s, const kept_evict *e, kept_layers **out,
                            kept_error *err)
{
    kept_layers *c = kept_calloc(1, sizeof *c);
    const size_t n = (size_t)e->next_pos;
    if (!c)
        return kept_fail(err, KEPT_NOMEM, "no memory for cutting layer by layer");
    c->n = e->next_pos;
    c->p = (kept_pass){.s = s,
                       .e = e,
                       .score = kept_strategy_score(s),
                       .wrap = kept_strategy_wrapper(s),
                       .merge = kept_strategy_merge(s),
                       .alloc = kept_strategy_allocator(s)};
    c->work = kept_evict_work_new();
    c->chosen = kept_calloc(n, sizeof *c->chosen);
    c->keep = kept_calloc(n, sizeof *c->keep);
    c->own = kept_calloc(n, sizeof *c->own);
    kept_status st = c->work && c->chosen && c->keep && c->own
                         ? KEPT_OK
                         : kept_fail(err, KEPT_NOMEM, "no memory for cutting layer by layer");
    for (int32_t i = 0; i < c->n && !st; i++)
        c->own[i] = i;
    if (!st)
        st = plan(c, err);
    if (st) {
        kept_layers_free(c);
        return st;
    }
    *out = c;
    return KEPT_OK;
}

/* Heads of layers that are not there yet count as those of layer l. */
static void stand_in(kept_pass *p, int l)
{
    for (int i = 0; i < p->n_all; i++) {
        const int like = l * p->n_heads + i % p->n_heads;
        p->n_open[i] = p->n_open[like];
        p->n_guard[i] = p->n_guard[like];
        p->signal[2 * i] = p->signal[2 * like];
        p->signal[2 * i + 1] = p->signal[2 * like + 1];
    }
}

static void split(kept_layers *c)
{
    kept_pass *p = &c->p;
    if (is_layerwise(c)) {
        stand_in(p, c->done);
        kept_pass_split(p);
        return;
    }
    p->n_layers = c->done + 1;
    p->n_all = p->n_layers * p->n_heads;
    kept_pass_split(p);
    p->n_layers = c->n_layers;
    p->n_all = p->n_layers * p->n_heads;
}

/* Leaves head i what the split gave it, of all the tokens it had. */
static kept_status cut_head(kept_layers *c, int i, uint64_t *score_ns, uint64_t *compact_ns)
{
    kept_pass *p = &c->p;
    const int layer = p->layer[i / p->n_heads], head = i % p->n_heads;
    const int live = kept_cache_n(p->e->cache, layer, head);
    const uint64_t t0 = kept_clock_ns();
    memcpy(c->chosen, p->mask + p->at[i], (size_t)c->n);
    kept_select_slots(p->value + p->at[i], c->own, c->n, p->keep[i], c->chosen, p->work);
    kept_cache_read(p->e->cache, layer, head, p->slot_pos, NULL, NULL);
    int stay = 0;
    for (int k = 0; k < live; k++)
        stay += c->keep[k] = c->chosen[p->slot_pos[k]];
    const uint64_t t1 = kept_clock_ns();
    *score_ns += t1 - t0;
    if (stay == live && live < c->n)
        return KEPT_OK;
    kept_merged *merged = p->merge->merge ? &p->merged[0] : NULL;
    if (merged)
        kept_merge_head(p, i, c->keep, merged);
    kept_status st = kept_pass_cut(p, i, c->keep, merged);
    *compact_ns += kept_clock_ns() - t1;
    return st;
}

kept_status kept_layers_cut(kept_layers *c, const kept_evict *e, uint64_t *score_ns,
                            uint64_t *compact_ns, kept_error *err)
{
    kept_pass *p = &c->p;
    const uint64_t t0 = kept_clock_ns();
    if (c->idle)
        return KEPT_OK;
    p->e = e;
    if (e->acted)
        *e->acted = true;
    kept_status st = kept_pass_score(p, c->done, err);
    if (st)
        return st;
    split(c);
    *score_ns += kept_clock_ns() - t0;
    const int last = (c->done + 1) * p->n_heads;
    for (int i = is_layerwise(c) ? last - p->n_heads : 0; i < last && !st; i++)
        st = cut_head(c, i, score_ns, compact_ns);
    c->done++;
    return st ? kept_fail(err, st, "no free page to cut layer %d", p->layer[c->done - 1]) : KEPT_OK;
}
