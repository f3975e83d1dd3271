/* pass_score: shows every head to the score, slots in the order of positions, and puts what it says
 * back into slot order. Protection is decided here too: it needs the same order.
 */
#include "policy/pass.h"
#include "policy/select.h"

#include <float.h>
#include <math.h>
#include <string.h>

static bool is_pinned(const kept_evict *e, int32_t pos)
{
    for (int i = 0; i < e->n_pins; i++)
        if (pos >= e->pins[i].begin && pos < e->pins[i].end)
            return true;
    return false;
}

/* Tokens that an option in tokens and one in parts of the prompt protect together. */
static int64_t protects(const kept_pass *p, int tokens, int part)
{
    const double *option = p->s->option[KEPT_AXIS_PROTECTION];
    return (int64_t)fmax(option[tokens], ceil(option[part] * p->e->full_tokens - 1e-6));
}

static bool template_is(const kept_pass *p, int choice)
{
    return (int)p->s->option[KEPT_AXIS_PROTECTION][KEPT_PROTECT_TEMPLATE] == choice;
}

/* Marks the protected slots of a head: pins first, then as many template tokens, sinks and recent
 * slots as the limit leaves room for, recent ones from the last back, the others from the first on.
 * Returns their number. */
static int guard(const kept_pass *p, const kept_view_head *v, uint8_t *guarded)
{
    int64_t sinks = protects(p, KEPT_PROTECT_SINKS, KEPT_PROTECT_FIRST);
    int64_t recent = p->e->next_pos - protects(p, KEPT_PROTECT_RECENT, KEPT_PROTECT_LAST);
    bool template = v->mark && template_is(p, KEPT_TEMPLATE_KEEP);
    int n = 0;
    memset(guarded, 0, (size_t)v->n);
    for (int k = 0; k < v->n && p->e->n_pins; k++)
        if (is_pinned(p->e, v->pos[k]))
            n += guarded[k] = 1;
    for (int k = 0; k < v->n && template && n < p->limit; k++)
        if (!guarded[k] && v->mark[k] == KEPT_CLASS_TEMPLATE)
            n += guarded[k] = 1;
    for (int k = 0; k < v->n && v->pos[k] < sinks && n < p->limit; k++)
        if (!guarded[k])
            n += guarded[k] = 1;
    for (int k = v->n - 1; k >= 0 && v->pos[k] >= recent && n < p->limit; k--)
        if (!guarded[k])
            n += guarded[k] = 1;
    return n;
}

/* Marks the protected slots of head i in its mask too. */
static void protect(kept_pass *p, int i, const kept_view_head *v, const int32_t *order,
                    uint8_t *guarded)
{
    uint8_t *mask = p->mask + p->at[i];
    p->n_guard[i] = guard(p, v, guarded);
    p->n_open[i] = v->n - p->n_guard[i];
    for (int k = 0; k < v->n; k++)
        mask[order[k]] = guarded[k];
}

/* Positions, mass and query statistics of head h of a layer, in the order of positions. */
static void view_head(kept_pass *p, int layer, int h)
{
    const kept_evict *e = p->e;
    size_t row = (size_t)h * (size_t)p->max_n, size = (size_t)e->head_size;
    size_t q = ((size_t)layer * (size_t)p->n_heads + (size_t)h) * (size_t)e->group * size;
    int32_t *order = p->order + row, *pos = p->pos + row;
    kept_view_head *v = &p->view[h];
    *v = (kept_view_head){.n = kept_cache_n(e->cache, layer, h), .pos = pos};
    kept_cache_read(e->cache, layer, h, p->slot_pos, NULL, NULL);
    if (e->next_pos <= 64 * v->n)
        kept_order_places(p->slot_pos, v->n, e->next_pos, order, p->place);
    else
        kept_order_positions(p->slot_pos, v->n, order, p->work);
    for (int k = 0; k < v->n; k++)
        pos[k] = p->slot_pos[order[k]];
    if (e->mark) {
        uint8_t *mark = p->mark + row;
        v->mark = mark;
        for (int k = 0; k < v->n; k++)
            mark[k] = e->mark[pos[k]];
    }
    if (p->plane >= 0) {
        float *mass = p->mass + row * (size_t)p->rows;
        v->mass = mass;
        for (int r = 0; r < p->rows; r++) {
            kept_cache_read_state(e->cache, layer, h, p->plane + r, p->pooled);
            for (int k = 0; k < v->n; k++)
                *mass++ = p->pooled[order[k]];
        }
    }
    if (p->needs & KEPT_NEED_QUERIES) {
        v->q_mean = e->q_mean + q;
        v->q_cov = e->q_cov + q * size;
    }
}

/* Whether a head's slots may be shown as they lie, unsorted: the score reads each by itself and
 * nothing else looks at them. */
static bool any_order(const kept_pass *p)
{
    const double *four = p->s->option[KEPT_AXIS_SCORE] + p->score->part.n_options - 4;
    bool pools = p->score->grouped && (int)four[1] != KEPT_POOL_NONE && four[2] > 1;
    return p->score->any_order && !pools && !p->needs && !p->n_recent && !p->look &&
           !p->wrap->wrap && !p->alloc->observe && !p->e->mark && !p->e->n_pins;
}

/* The heads of the l-th layer as they lie. False where they have to be sorted after all: protection
 * does not fit, so that positions compete for it, or heads that share scores differ in order. */
static bool view_as_is(kept_pass *p, int l)
{
    const kept_evict *e = p->e;
    int64_t first = protects(p, KEPT_PROTECT_SINKS, KEPT_PROTECT_FIRST);
    int64_t last = e->next_pos - protects(p, KEPT_PROTECT_RECENT, KEPT_PROTECT_LAST);
    int32_t sinks = first < e->next_pos ? (int32_t)first : e->next_pos;
    int32_t recent = last > 0 ? (int32_t)last : 0;
    for (int h = 0; h < p->n_heads; h++)
        kept_cache_prefetch(e->cache, p->layer[l], h, p->plane);
    for (int h = 0; h < p->n_heads; h++) {
        size_t row = (size_t)h * (size_t)p->max_n;
        int32_t *pos = p->pos + row;
        float *mass = p->mass + row * (size_t)p->rows;
        int i = l * p->n_heads + h, n = p->n[i], guarded = 0;
        uint8_t *mask = p->mask + p->at[i];
        kept_cache_read(e->cache, p->layer[l], h, pos, NULL, NULL);
        if (p->score->layer_shared &&
            (n != p->view[0].n || memcmp(pos, p->pos, (size_t)n * sizeof *pos) != 0) && h)
            return false;
        for (int k = 0; k < n; k++)
            guarded += mask[k] = (pos[k] < sinks) | (pos[k] >= recent);
        if (guarded > p->limit)
            return false;
        for (int r = 0; p->plane >= 0 && r < p->rows; r++)
            kept_cache_read_state(e->cache, p->layer[l], h, p->plane + r, mass + r * n);
        p->n_guard[i] = guarded;
        p->n_open[i] = n - guarded;
        p->view[h] = (kept_view_head){
            .n = n, .pos = pos, .guard = mask, .mass = p->plane >= 0 ? mass : NULL};
        p->sorted_of[h] = p->value + p->at[i];
    }
    return true;
}

static void sort_rows(const float *from, float *to, const int32_t *order, int n, size_t size)
{
    for (int k = 0; k < n; k++)
        memcpy(to + (size_t)k * size, from + (size_t)order[k] * size, size * sizeof *to);
}

/* Keys and values of head h, in the order of positions, and what is made of them. */
static void view_rows(kept_pass *p, int layer, int h, const float *w_o)
{
    kept_view_head *v = &p->view[h];
    const int32_t *order = p->order + (size_t)h * (size_t)p->max_n;
    size_t size = (size_t)p->e->head_size;
    if (p->needs & (KEPT_NEED_KEYS | KEPT_NEED_KEYS0)) {
        kept_cache_read(p->e->cache, layer, h, NULL, p->raw, NULL);
        sort_rows(p->raw, p->key, order, v->n, size);
        v->key = p->key;
    }
    if (p->needs & KEPT_NEED_KEYS0) {
        kept_pass_unrotate(p, layer, h, order);
        v->key0 = p->key0;
    }
    if (p->needs & KEPT_NEED_VALUES) {
        kept_cache_read(p->e->cache, layer, h, NULL, NULL, p->raw);
        sort_rows(p->raw, p->val, order, v->n, size);
        v->value = p->val;
    }
    if (w_o)
        kept_pass_weight(p, h, w_o);
    if (p->n_recent)
        kept_pass_probs(p, layer, h);
}

float kept_pass_bounded(float x)
{
    return isnan(x) ? -FLT_MAX : x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

/* Makes all of x [n] finite. Looking first is cheap, and hardly ever is there anything to do. */
static void bound(float *x, int n)
{
    uint32_t bad = 0;
    for (int k = 0; k < n; k++) {
        uint32_t bits;
        memcpy(&bits, x + k, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    for (int k = 0; bad && k < n; k++)
        x[k] = kept_pass_bounded(x[k]);
}

/* The part of the recent queries that one part of the strategy asked for. */
static void narrow(kept_pass *p, kept_view *v, int h, kept_recent_of *recent, const double *options)
{
    kept_view_head *x = &p->view[h];
    int want = recent ? recent(options) : 0;
    v->n_recent = want < p->n_recent ? want : p->n_recent;
    x->query = x->prob = x->lse = NULL;
    if (!v->n_recent)
        return;
    size_t rows = (size_t)(p->n_recent - v->n_recent) * (size_t)p->e->group;
    x->query = p->query + rows * (size_t)p->e->head_size;
    x->prob = p->prob + rows * (size_t)x->n;
    x->lse = p->lse + rows;
}

/* score [n] times what the value of each token weighs; scores that can be negative first count
 * from the lowest one. */
static void weigh(const kept_pass *p, const kept_view_head *h, float *score)
{
    const double *option = p->s->option[KEPT_AXIS_WEIGHT];
    int kind = (int)option[KEPT_VALUES_KIND], size = p->e->head_size;
    float low = 0, most = 0;
    for (int i = 0; i < h->n; i++)
        low = score[i] < low ? score[i] : low;
    for (int i = 0; i < h->n; i++) {
        const float *v = h->value + (size_t)i * (size_t)size;
        float sum = 0;
        for (int d = 0; d < size; d++)
            sum += kind == KEPT_WEIGHT_L2 ? v[d] * v[d] : fabsf(v[d]);
        p->pooled[i] = kind == KEPT_WEIGHT_L2 ? sqrtf(sum) : sum;
        most = p->pooled[i] > most ? p->pooled[i] : most;
    }
    for (int i = 0; i < h->n; i++) {
        float w = kind == KEPT_WEIGHT_OUTPUT ? h->weight[i]
                  : kind == KEPT_WEIGHT_MAX  ? most
                                             : p->pooled[i];
        score[i] = (score[i] - low + (float)option[KEPT_VALUES_EPSILON]) * w;
    }
}

/* Unprotected slots of head i if every head holds the same. */
static int share_of(const kept_pass *p, int i)
{
    return p->limit > p->n_guard[i] ? p->limit - p->n_guard[i] : 0;
}

/* Scores head h (number i of all): [n] in the order of positions. */
static void score_head(kept_pass *p, kept_view *v, int i, int h)
{
    const double *option = p->s->option[KEPT_AXIS_SCORE];
    const double *alloc_option = p->s->option[KEPT_AXIS_ALLOCATOR];
    float *score = p->sorted_of[h];
    v->share = share_of(p, i);
    v->options = option;
    v->trained = p->trained;
    narrow(p, v, h, p->score->recent, option);
    if (p->look) {
        memset(score, 0, (size_t)p->view[h].n * sizeof *score);
        p->look->fn(p->look->ctx, v, h);
        return;
    }
    p->score->score(v, h, score);
    bound(score, p->view[h].n);
    if (p->s->part[KEPT_AXIS_WEIGHT] == &kept_part_values)
        weigh(p, &p->view[h], score);
    if (!p->alloc->observe)
        return;
    v->options = alloc_option;
    v->trained = p->alloc_trained;
    narrow(p, v, h, p->alloc->recent, alloc_option);
    p->signal[2 * i] = p->signal[2 * i + 1] = 0;
    p->alloc->observe(v, h, alloc_option, &p->signal[2 * i]);
}

static kept_view view_of(const kept_pass *p, int l)
{
    const kept_evict *e = p->e;
    const uint64_t seed[3] = {e->seed, e->round, (uint64_t)p->layer[l]};
    const double *four = p->s->option[KEPT_AXIS_SCORE] + p->score->part.n_options - 4;
    kept_view v = {.layer = p->layer[l],
                   .n_layers = e->n_layers,
                   .n_heads = p->n_heads,
                   .group = e->group,
                   .head_size = e->head_size,
                   .next_pos = e->next_pos,
                   .n_steps = e->next_pos > e->full_tokens ? e->next_pos - e->full_tokens : 0,
                   .rope_back = e->rope_back,
                   .heads = p->view,
                   .attn_scale = e->attn_scale,
                   .seed = kept_hash64(seed, sizeof seed, 0),
                   .rope_freq = e->rope_freq,
                   .n_rope = e->n_rope,
                   .rope_neox = e->rope_neox,
                   .scratch = p->free_,
                   .kern = e->kern,
                   .pooled = p->pooled,
                   .work = p->work};
    if (p->score->grouped)
        v.grouping =
            (kept_grouping){(kept_gqa)four[0], (kept_pool_kind)four[1], (int)four[2], four[3] != 0};
    return v;
}

kept_view kept_pass_show(kept_pass *p, int l, int h)
{
    const size_t row = (size_t)h * (size_t)p->max_n;
    kept_view v = view_of(p, l);
    view_head(p, p->layer[l], h);
    guard(p, &p->view[h], p->guarded + row);
    p->view[h].guard = p->guarded + row;
    view_rows(p, p->layer[l], h, NULL);
    v.n_recent = p->n_recent;
    return v;
}

/* Template tokens that may go score just below the lowest other candidate: they go first whatever
 * they scored, and the scale of the scores stays what it was. */
static void demote(const kept_view_head *h, float *score)
{
    float low = INFINITY;
    for (int k = 0; k < h->n; k++)
        if (!h->guard[k] && h->mark[k] != KEPT_CLASS_TEMPLATE)
            low = fminf(low, score[k]);
    for (int k = 0; k < h->n && low < INFINITY; k++)
        if (!h->guard[k] && h->mark[k] == KEPT_CLASS_TEMPLATE)
            score[k] = nextafterf(low, -INFINITY);
}

/* Scores back into slot order. */
static void put_back(kept_pass *p, int l)
{
    for (int h = 0; h < p->n_heads; h++) {
        const int32_t *order = p->order + (size_t)h * (size_t)p->max_n;
        float *value = p->value + p->at[l * p->n_heads + h];
        bound(p->sorted_of[h], p->view[h].n);
        for (int k = 0; k < p->view[h].n; k++)
            value[order[k]] = p->sorted_of[h][k];
    }
}

/* The slot of every head of the l-th layer that goes first. */
static void find_worst(kept_pass *p, int l, bool as_is)
{
    for (int h = 0; h < p->n_heads; h++) {
        const kept_view_head *x = &p->view[h];
        const int worst =
            kept_select_worst(p->sorted_of[h], x->pos, x->guard, x->n, (float *)(void *)p->work);
        const int32_t *order = p->order + (size_t)h * (size_t)p->max_n;
        p->worst[l * p->n_heads + h] = as_is || worst < 0 ? worst : order[worst];
    }
}

kept_status kept_pass_score(kept_pass *p, int l, kept_error *err)
{
    const kept_evict *e = p->e;
    const float *w_o = NULL;
    kept_view v = view_of(p, l);
    if (p->needs & KEPT_NEED_OUTPUT && !(w_o = e->w_o(e->w_o_ctx, p->layer[l])))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' needs the output matrix of layer %d, which cannot be read",
                         p->s->name, p->layer[l]);
    bool as_is = any_order(p) && view_as_is(p, l);
    for (int h = 0; h < p->n_heads && !as_is; h++) {
        size_t row = (size_t)h * (size_t)p->max_n;
        view_head(p, p->layer[l], h);
        protect(p, l * p->n_heads + h, &p->view[h], p->order + row, p->guarded + row);
        p->view[h].guard = p->guarded + row;
        p->sorted_of[h] = p->sorted + row;
    }
    for (int h = 0; h < p->n_heads; h++) {
        kept_view_head *x = &p->view[h];
        view_rows(p, p->layer[l], h, w_o);
        score_head(p, &v, l * p->n_heads + h, h);
        x->key = x->key0 = x->value = x->prob = x->query = x->lse = NULL;
    }
    if (p->wrap->wrap && !p->look) {
        v.options = p->s->option[KEPT_AXIS_WRAPPER];
        v.share = share_of(p, l * p->n_heads);
        v.n_recent = 0;
        p->wrap->wrap(&v, p->sorted_of);
    }
    for (int h = 0; h < p->n_heads && e->mark && template_is(p, KEPT_TEMPLATE_DEMOTE); h++)
        demote(&p->view[h], p->sorted_of[h]);
    if (!as_is)
        put_back(p, l);
    if (p->one)
        find_worst(p, l, as_is);
    return KEPT_OK;
}
