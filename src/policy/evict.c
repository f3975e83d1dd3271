/* evict: the one procedure that applies every strategy: score, split, select, drop.
 *
 * All heads are scored and the budget is split before anything is dropped, so that what can fail
 * for want of memory or capture fails first. Scores see a head's slots in the order of positions;
 * what is kept of all heads at once (score and guard) is in slot order, 5 bytes per slot.
 */
#include "policy/pass.h"
#include "policy/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- plan ---------------------------------------------------------------------------------- */

void kept_pass_count(kept_pass *p, int planned)
{
    const kept_evict *e = p->e;
    p->n_heads = e->n_heads;
    for (int l = 0; l < e->n_layers; l++) {
        if (e->windowed && e->windowed[l])
            continue;
        p->layer[p->n_layers++] = l;
        for (int h = 0; h < e->n_heads; h++) {
            int n = planned >= 0 ? planned : kept_cache_n(e->cache, l, h);
            p->n_slots += n;
            p->max_n = n > p->max_n ? n : p->max_n;
        }
    }
    p->n_all = p->n_layers * p->n_heads;
    p->total = e->slots ? e->slots
                        : kept_strategy_budget_slots(p->s, p->n_layers, p->n_heads, e->head_size,
                                                     e->full_tokens);
}

/* First state plane that a part reads, -1: none, and how many. */
static kept_status find_plane(const kept_pass *p, kept_plane_of *of, kept_axis axis, int *plane,
                              int *rows, kept_error *err)
{
    const kept_evict *e = p->e;
    *plane = -1;
    *rows = 1;
    if (!of)
        return KEPT_OK;
    kept_plane want = of(p->s->option[axis]);
    int at = kept_capture_find(&e->capture, want);
    if (at < 0)
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs attention that was not captured",
                         p->s->name);
    *rows = want.split ? e->group : 1;
    *plane = kept_capture_state(&e->capture, at, e->group);
    return KEPT_OK;
}

static kept_status find_trained(const kept_pass *p, const char *kind, const kept_trained **out,
                                kept_error *err)
{
    *out = NULL;
    for (int i = 0; kind && i < p->e->n_trained; i++)
        if (!strcmp(kept_trained_kind(p->e->trained[i]), kind))
            *out = p->e->trained[i];
    if (kind && !*out && !p->look) /* who only looks may be about to make it */
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs a trained file of kind '%s'", p->s->name,
                         kind);
    return KEPT_OK;
}

/* Recent queries that the parts want. */
static kept_status find_recent(kept_pass *p, kept_error *err)
{
    const kept_evict *e = p->e;
    p->n_recent = kept_strategy_recent(p->s);
    p->merge_recent = p->merge->recent ? p->merge->recent(p->s->option[KEPT_AXIS_MERGE]) : 0;
    int most = p->n_recent > p->merge_recent ? p->n_recent : p->merge_recent;
    if (most && !(e->recent && e->capture.n_recent >= most))
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs recent queries that were not captured",
                         p->s->name);
    p->n_recent = p->n_recent < e->n_recent ? p->n_recent : e->n_recent;
    p->merge_recent = p->merge_recent < e->n_recent ? p->merge_recent : e->n_recent;
    return KEPT_OK;
}

/* What the merge needs. */
static kept_status check_merge(kept_pass *p, kept_error *err)
{
    const kept_merge *m = p->merge;
    p->merge_needs = m->needs;
    if (p->merge_recent || m->needs & KEPT_NEED_KEYS0)
        p->merge_needs |= KEPT_NEED_KEYS;
    if (kept_merge_biases(m, p->s->option[KEPT_AXIS_MERGE]) && p->e->bias_plane < 0)
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs a plane for biases", p->s->name);
    return find_plane(p, m->plane, KEPT_AXIS_MERGE, &p->merge_plane, &p->merge_rows, err);
}

/* Everything that the strategy needs must have been captured. */
static kept_status check(kept_pass *p, kept_error *err)
{
    const kept_evict *e = p->e;
    const kept_strategy *s = p->s;
    kept_status st = find_plane(p, p->score->plane, KEPT_AXIS_SCORE, &p->plane, &p->rows, err);
    if (st || (st = find_recent(p, err)) || (st = check_merge(p, err)))
        return st;
    p->needs = kept_strategy_needs_of(s) | (p->n_recent ? KEPT_NEED_KEYS : 0);
    if (p->needs & KEPT_NEED_OUTPUT)
        p->needs |= KEPT_NEED_VALUES;
    if (p->needs & KEPT_NEED_QUERIES && !(e->q_mean && e->q_cov))
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs query statistics that were not captured",
                         s->name);
    if (p->needs & KEPT_NEED_COSINE && !e->cosine)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' needs what layers do to their input, which was not captured",
                         s->name);
    if (p->needs & KEPT_NEED_OUTPUT && !(e->w_o && e->w_o(e->w_o_ctx, p->layer[0])))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' needs the output matrix of every layer, which cannot be read from "
                         "this model",
                         s->name);
    if (kept_strategy_moves_keys(s) && e->rope_plane < 0)
        return kept_fail(err, KEPT_ARGUMENT, "'%s' needs a plane for rotation shifts", s->name);
    st = find_trained(p, kept_score_trained(s), &p->trained, err);
    return st ? st : find_trained(p, kept_allocator_trained(s), &p->alloc_trained, err);
}

/* ---- split --------------------------------------------------------------------------------- */

static void normalise(float *x, int n)
{
    double sum = 0, square = 0;
    for (int k = 0; k < n; k++)
        sum += x[k];
    double mean = n ? sum / n : 0;
    for (int k = 0; k < n; k++)
        square += (x[k] - mean) * (x[k] - mean);
    double scale = square > 0 ? 1 / sqrt(square / n) : 0;
    for (int k = 0; k < n; k++)
        x[k] = kept_pass_bounded((float)((x[k] - mean) * scale));
}

/* x [n] from the largest down; work [2n]. */
static void order_falling(float *x, int n, uint64_t *work)
{
    uint32_t bits;
    for (int k = 0; k < n; k++) {
        memcpy(&bits, &x[k], sizeof bits);
        work[k] = (uint64_t)kept_float_order(x[k]) << 32 | bits;
    }
    kept_order_keys(work, n, work + n);
    for (int k = 0; k < n; k++) {
        bits = (uint32_t)work[k];
        memcpy(&x[k], &bits, sizeof bits);
    }
}

/* Scores of the candidates alone, for allocators that ask. */
static void collect_open(kept_pass *p)
{
    float *to = p->open;
    for (int i = 0; i < p->n_all; i++) {
        int m = 0;
        if (i >= p->n_heads && p->at[i] == p->at[i - p->n_heads]) { /* one stands for the other */
            p->open_of[i] = p->open_of[i - p->n_heads];
            continue;
        }
        for (int k = 0; k < p->n[i]; k++)
            if (!p->mask[p->at[i] + (size_t)k])
                to[m++] = p->value[p->at[i] + (size_t)k];
        if (!p->score->comparable)
            normalise(to, m);
        if (p->alloc->falling)
            order_falling(to, m, p->work);
        p->open_of[i] = to;
        to += m;
    }
}

/* Gives the heads of each layer equally many slots, then whole tokens of what that leaves over to
 * the layers in order. */
static void share_layers(kept_pass *p)
{
    int64_t left = 0;
    for (int l = 0; l < p->n_layers; l++) {
        int *keep = p->keep + l * p->n_heads, *open = p->n_open + l * p->n_heads;
        int64_t sum = 0;
        for (int h = 0; h < p->n_heads; h++)
            sum += keep[h];
        for (int h = 0; h < p->n_heads; h++) {
            keep[h] = (int)(sum / p->n_heads < open[h] ? sum / p->n_heads : open[h]);
            left -= keep[h];
        }
        left += sum;
    }
    for (bool any = true; any && left >= p->n_heads;) {
        any = false;
        for (int l = 0; l < p->n_layers && left >= p->n_heads; l++) {
            int *keep = p->keep + l * p->n_heads, *open = p->n_open + l * p->n_heads;
            for (int h = 0; h < p->n_heads; h++)
                if (keep[h] < open[h]) {
                    keep[h]++;
                    left--;
                    any = true;
                }
        }
    }
}

void kept_pass_split(kept_pass *p)
{
    kept_split x = {.n_layers = p->n_layers,
                    .n_heads = p->n_heads,
                    .n = p->n_open,
                    .score = p->open_of,
                    .n_protected = p->n_guard,
                    .total = p->total,
                    .options = p->s->option[KEPT_AXIS_ALLOCATOR],
                    .layer = p->layer,
                    .signal = p->alloc->observe ? p->signal : NULL,
                    .cosine = p->needs & KEPT_NEED_COSINE ? p->cosine : NULL,
                    .trained = p->alloc_trained,
                    .n_tokens = p->e->full_tokens,
                    .scratch = p->scratch,
                    .share = p->share};
    for (int l = 0; x.cosine && l < p->n_layers; l++)
        p->cosine[l] = p->e->cosine[p->layer[l]];
    if (kept_form_is(p->s, &kept_part_waterfill)) {
        kept_grade_split(p);
        return;
    }
    if (p->alloc->needs_scores)
        collect_open(p);
    p->alloc->split(&x, p->keep);
    if (p->score->layer_shared || p->wrap->layer_shared)
        share_layers(p);
}

kept_status kept_pass_open(kept_pass *p, kept_evict_work *w, kept_error *err)
{
    kept_status st = check(p, err);
    p->limit = p->n_all ? (int)(p->total / p->n_all) : 0;
    if (!st) {
        kept_pass_lanes(p);
        st = kept_pass_memory(p, w, err);
    }
    if (!st && (p->needs | p->merge_needs) & KEPT_NEED_KEYS0)
        kept_pass_turns(p);
    return st;
}

/* ---- all layers at once -------------------------------------------------------------------- */

typedef struct shared_work {
    kept_pass *p;
    kept_status st; /* of lane 0 where there is one lane; with more nothing can fail */
    kept_error *err;
} shared_work;

static kept_pass *lane_of(kept_pass *p, int lane)
{
    return lane ? &p->lane[lane - 1] : p;
}

/* Runs fn for every layer. */
static void each_layer(shared_work *x, kept_each_fn *fn)
{
    kept_pass *p = x->p;
    if (p->n_lanes > 1)
        p->e->each(p->e->each_ctx, p->n_layers, fn, x);
    else
        for (int l = 0; l < p->n_layers && !x->st; l++)
            fn(x, 0, l);
}

static void score_layer(void *arg, int lane, int l)
{
    shared_work *x = arg;
    kept_status st = kept_pass_score(lane_of(x->p, lane), l, x->err);
    if (st)
        x->st = st;
}

static void select_layer(void *arg, int lane, int l)
{
    shared_work *x = arg;
    kept_pass *p = lane_of(x->p, lane);
    for (int i = l * p->n_heads; i < (l + 1) * p->n_heads; i++) {
        if (x->p->one && p->keep[i] > 0 && p->keep[i] == p->n_open[i] - 1) {
            memset(p->mask + p->at[i], 1, (size_t)p->n[i]);
            p->mask[p->at[i] + (size_t)p->worst[i]] = 0;
            continue;
        }
        kept_cache_read(p->e->cache, p->layer[l], i % p->n_heads, p->slot_pos, NULL, NULL);
        kept_select_slots(p->value + p->at[i], p->slot_pos, p->n[i], p->keep[i], p->mask + p->at[i],
                          p->work);
    }
}

/* ---- drop ---------------------------------------------------------------------------------- */

typedef struct merge_work {
    kept_pass *p;
    int first; /* head of piece 0 */
} merge_work;

static void merge_one(void *arg, int lane, int k)
{
    const merge_work *x = arg;
    const int i = x->first + k;
    kept_merge_head(lane_of(x->p, lane), i, x->p->mask + x->p->at[i], &x->p->merged[k]);
}

/* Heads are cut one after the other: they give pages back to one pool. What they merge is found for
 * as many heads at once as there are lanes. */
static kept_status drop(kept_pass *p)
{
    const int at_once = p->n_lanes > 1 ? p->n_lanes : 1;
    const bool grades = kept_form_grades(p->s);
    for (int first = 0; first < p->n_all; first += at_once) {
        const int n = p->n_all - first < at_once ? p->n_all - first : at_once;
        merge_work x = {p, first};
        if (p->merge->merge && n > 1)
            p->e->each(p->e->each_ctx, n, merge_one, &x);
        else if (p->merge->merge)
            merge_one(&x, 0, 0);
        for (int k = 0; k < n; k++) {
            if (grades)
                kept_grade_note(p, first + k);
            kept_status st = kept_pass_cut(p, first + k, p->mask + p->at[first + k],
                                           p->merge->merge ? &p->merged[k] : NULL);
            if (st)
                return st;
            if (grades)
                kept_grade_find(p, first + k);
        }
    }
    return grades ? kept_grade_pack(p) : KEPT_OK;
}

/* Shows every head to the score. */
static kept_status score_all(kept_pass *p, kept_evict_work *w, kept_error *err)
{
    size_t at = 0;
    kept_status st = kept_pass_open(p, w, err);
    if (st)
        return st;
    for (int i = 0; i < p->n_all; i++) {
        p->n[i] = kept_cache_n(p->e->cache, p->layer[i / p->n_heads], i % p->n_heads);
        p->at[i] = at;
        at += (size_t)p->n[i];
    }
    shared_work x = {p, KEPT_OK, err};
    each_layer(&x, score_layer);
    return x.st;
}

kept_status kept_strategy_reserve(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                                  int n, kept_error *err)
{
    kept_evict grown = *e;
    kept_pass p = {.s = s,
                   .e = &grown,
                   .score = kept_strategy_score(s),
                   .wrap = kept_strategy_wrapper(s),
                   .merge = kept_strategy_merge(s),
                   .alloc = kept_strategy_allocator(s)};
    kept_status st;
    if (kept_strategy_is_full(s))
        return KEPT_OK;
    grown.next_pos = n;
    grown.n_recent = grown.capture.n_recent;
    kept_pass_count(&p, -1);
    if ((st = check(&p, err)))
        return st;
    p.max_n = n;
    p.n_slots = (int64_t)p.n_all * n;
    kept_pass_lanes(&p);
    return kept_pass_memory(&p, w, err);
}

kept_status kept_strategy_look(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                               const kept_look *look, kept_error *err)
{
    kept_pass p = {.s = s,
                   .e = e,
                   .score = kept_strategy_score(s),
                   .wrap = kept_strategy_wrapper(s),
                   .merge = kept_strategy_merge(s),
                   .alloc = kept_strategy_allocator(s),
                   .look = look};
    kept_pass_count(&p, -1);
    return p.n_slots ? score_all(&p, w, err) : KEPT_OK;
}

bool kept_pass_is_due(const kept_pass *p)
{
    const int64_t slack = (int64_t)kept_strategy_when(p->s).slack * p->n_all;
    const int64_t page = (int64_t)p->n_all * KEPT_PAGE_SLOTS;
    if (kept_form_grades(p->s) && (!p->e->left || p->n_slots >= p->e->left + page))
        return true; /* there are pages that nothing has graded */
    if (p->alloc->data_dependent)
        return !slack || p->n_slots > p->e->left + slack;
    return p->n_slots > p->total + slack;
}

kept_status kept_strategy_evict(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                                uint64_t *score_ns, uint64_t *compact_ns, kept_error *err)
{
    kept_pass p = {.s = s,
                   .e = e,
                   .score = kept_strategy_score(s),
                   .wrap = kept_strategy_wrapper(s),
                   .merge = kept_strategy_merge(s),
                   .alloc = kept_strategy_allocator(s)};
    uint64_t t0 = kept_clock_ns();
    kept_status st;
    if (kept_strategy_is_full(s))
        return KEPT_OK;
    kept_pass_count(&p, -1);
    if (!kept_pass_is_due(&p))
        return KEPT_OK;
    p.one = p.n_slots > p.total && p.n_slots - p.total <= p.n_all;
    if ((st = score_all(&p, w, err)))
        return st;
    kept_pass_split(&p);
    if (e->acted)
        *e->acted = true;
    each_layer(&(shared_work){.p = &p}, select_layer);
    const uint64_t t1 = kept_clock_ns();
    *score_ns += t1 - t0;
    st = drop(&p);
    *compact_ns += kept_clock_ns() - t1;
    if (st)
        return kept_fail(err, st, "no free page to cut a shared one while evicting with '%s'",
                         s->name);
    return KEPT_OK;
}
