/* schedule: when sequences evict, and what one eviction is lent.
 *
 *   prompt    kept_seq_end_prefill
 *   chunks    after every prefill item; decode steps are counted (kept_seq_after)
 *   turns     kept_seq_end_turn
 *   pressure  kept_seq_shed, when a pass finds the pool short
 *   layers    prompt.c
 */
#include "model/engine.h"
#include "model/look.h"
#include "policy/parts.h"

#include <stdlib.h>
#include <string.h>

kept_held kept_seq_held(const kept_seq *s)
{
    const kept_model_info *info = &s->engine->model->info;
    kept_held x = {0};
    for (int l = 0; l < info->n_layers; l++) {
        x.layers += !info->windowed[l];
        for (int h = 0; h < info->n_kv_heads && !info->windowed[l]; h++) {
            const int n = kept_cache_n(s->cache, l, h);
            x.slots += n;
            x.longest = n > x.longest ? n : x.longest;
        }
    }
    return x;
}

kept_evict kept_seq_lend(kept_seq *s, int32_t full_tokens)
{
    kept_engine *e = s->engine;
    const struct kept_model *m = e->model;
    return (kept_evict){
        .cache = s->cache,
        .each = kept_engine_each,
        .each_ctx = e,
        .n_lanes = e->n_threads,
        .n_layers = m->info.n_layers,
        .windowed = m->info.windowed,
        .n_heads = m->info.n_kv_heads,
        .group = m->info.n_heads / m->info.n_kv_heads,
        .head_size = m->info.head_size,
        .next_pos = s->n_tokens,
        .full_tokens = full_tokens,
        .pins = s->pins,
        .n_pins = s->n_pins,
        .mark = s->marks,
        .left = s->left,
        .capture = s->capture,
        .rope_plane = s->rope_plane,
        .bias_plane = s->bias_plane,
        .rope_back = s->rope_back,
        .trained = e->trained,
        .n_trained = e->n_trained,
        .kern = e->kern,
        .attn_scale = m->attn_scale,
        .rope_freq = e->rope_freq,
        .n_rope = m->n_rope,
        .rope_neox = m->rope_neox,
        .seed = s->seed,
        .round = s->round,
        .slots = kept_control_slots(s),
    };
}

/* After an eviction: what it left, and where the next token stands. */
static void settle(kept_seq *s)
{
    const kept_held held = kept_seq_held(s);
    s->left = held.slots;
    if (!kept_strategy_renumbers(s->strategy))
        return;
    kept_record_turn(s, s->n_tokens - held.longest - s->rope_back);
    s->rope_back = s->n_tokens - held.longest;
}

kept_status kept_seq_evict(kept_seq *s, int32_t full_tokens, kept_error *err)
{
    kept_engine *e = s->engine;
    kept_status st = kept_ahead_ready(s, err);
    if (st)
        return st;
    kept_evict x = kept_seq_lend(s, full_tokens);
    bool acted = false;
    x.acted = &acted;
    const uint64_t t0 = kept_clock_ns();
    st = kept_record_show(s, &x, err);
    s->score_ns += kept_clock_ns() - t0;
    if (!st)
        st = kept_strategy_evict(s->strategy, &x, e->evict_work, &s->score_ns, &s->compact_ns, err);
    if (st)
        return st;
    if (acted)
        settle(s);
    kept_seq_pack(s, 0, e->model->info.n_layers, 0);
    s->score_ns += s->ahead_ns;
    s->ahead_ns = 0;
    s->round++;
    s->steps = 0;
    return KEPT_OK;
}

kept_status kept_seq_reserve(kept_seq *s, const kept_strategy *what, kept_error *err)
{
    kept_evict x = kept_seq_lend(s, s->n_tokens);
    kept_status st = kept_record_show(s, &x, err);
    return st ? st
              : kept_strategy_reserve(what, &x, s->engine->evict_work, s->engine->max_tokens, err);
}

kept_status kept_seq_look(kept_seq *s, const kept_score *as, const kept_look *look, kept_error *err)
{
    kept_evict x = kept_seq_lend(s, s->n_tokens);
    kept_strategy what = kept_look_strategy(as);
    kept_status st = kept_record_show(s, &x, err);
    return st ? st : kept_strategy_look(&what, &x, s->engine->evict_work, look, err);
}

void kept_seq_forget(kept_seq *s)
{
    if (s->control || kept_strategy_acts_again(s->strategy) || s->keep_planes)
        return;
    if (s->bias_plane >= 0) /* part of what slots are, not of what is known about them */
        kept_cache_keep_plane(s->cache, s->bias_plane);
    else
        kept_cache_drop_planes(s->cache, 0);
    s->bias_plane = s->bias_plane >= 0 ? 0 : -1;
    s->capture = (kept_capture){0};
    s->done = true;
    s->shift_lost |= s->rope_plane >= 0;
    s->rope_plane = -1;
    kept_record_free(s);
    kept_ahead_free(s);
    free(s->marks);
    s->marks = NULL;
    s->extra_bytes = 0;
    kept_cache_set_extra(s->cache, 0);
}

kept_status kept_seq_end_prefill(kept_seq *s, kept_error *err)
{
    s->full_tokens = s->n_tokens;
    s->n_after = 0;
    kept_status st = kept_control_start(s, err);
    if (!st && s->strategy && kept_strategy_when(s->strategy).prompt) {
        if (s->layered)
            settle(s);
        else
            st = kept_seq_evict(s, s->full_tokens, err);
        s->round += s->layered;
        if (!st)
            kept_seq_forget(s);
    }
    if (!st)
        st = kept_control_follow(s, err);
    kept_seq_pack(s, 0, s->engine->model->info.n_layers, 0);
    return st;
}

kept_status kept_seq_end_turn(kept_seq *s, kept_error *err)
{
    if (!s->strategy || !kept_strategy_when(s->strategy).turns)
        return KEPT_OK;
    return kept_seq_evict(s, s->n_tokens, err);
}

/* ---- pressure ---------------------------------------------------------------------------------
 */

/* Tokens that a percentage of s refers to now. */
static int32_t full_of(const kept_seq *s)
{
    return s->full_tokens ? s->full_tokens : s->n_tokens + s->n_after;
}

/* Slots held for each slot of the budget; 0: s may not be cut for want of pages. */
static double excess(const kept_seq *s)
{
    if (!s->strategy || !kept_strategy_when(s->strategy).pressure || s->shed)
        return 0;
    const kept_model_info *info = &s->engine->model->info;
    const kept_held held = kept_seq_held(s);
    int64_t budget = kept_control_slots(s);
    if (!budget)
        budget = kept_strategy_budget_slots(s->strategy, held.layers, info->n_kv_heads,
                                            info->head_size, full_of(s));
    const bool bound = kept_strategy_allocator(s->strategy)->data_dependent;
    if (held.slots <= budget && !bound)
        return 0;
    return (double)held.slots / (double)(budget > 0 ? budget : 1);
}

void kept_seq_shed_begin(kept_engine *e)
{
    for (kept_seq *s = e->seqs; s; s = s->next)
        s->shed = false;
}

bool kept_seq_shed(kept_engine *e, kept_error *err)
{
    kept_seq *victim = NULL;
    double most = 0;
    for (kept_seq *s = e->seqs; s; s = s->next) { /* of equal ones the older */
        const double x = excess(s);
        if (x > 0 && x >= most) {
            most = x;
            victim = s;
        }
    }
    if (!victim)
        return false;
    victim->shed = true;
    /* Pages that are shared and cannot be copied now leave it as it is: then the next one's turn.
     */
    (void)kept_seq_evict(victim, full_of(victim), err);
    return true;
}

/* ---- after a pass ------------------------------------------------------------------------------
 */

/* Leading pages of windowed layers that no coming query can see go back to the pool. Strategies
 * leave these layers alone, so their slots are in order of position and only whole pages leave:
 * what is visible keeps its place in pages and segments, and rows keep their bits. */
kept_status kept_seq_trim(kept_seq *s, int from, int to)
{
    kept_engine *e = s->engine;
    const kept_model_info *info = &e->model->info;
    const int32_t stale_tokens = s->n_tokens - info->sliding_window + 1;
    for (int l = from; l < to; l++) {
        const int stale = stale_tokens / KEPT_PAGE_SLOTS - s->trimmed[l];
        if (!info->windowed[l] || stale_tokens <= 0 || stale <= 0)
            continue;
        for (int h = 0; h < info->n_kv_heads; h++) {
            memset(e->keep_buf, 1, (size_t)kept_cache_n(s->cache, l, h));
            memset(e->keep_buf, 0, (size_t)stale * KEPT_PAGE_SLOTS);
            kept_status st = kept_cache_retain(s->cache, l, h, e->keep_buf);
            if (st)
                return st;
        }
        s->trimmed[l] += stale;
    }
    return KEPT_OK;
}

kept_status kept_seq_after(kept_seq *s, const kept_item *item, kept_error *err)
{
    kept_status st = KEPT_OK;
    s->n_after = item->prefill ? item->n_after : 0;
    if (!s->strategy)
        return KEPT_OK;
    if (item->prefill) {
        if (kept_strategy_acts_on_chunks(s->strategy) && s->full_tokens == 0)
            st = kept_seq_evict(s, s->n_tokens + item->n_after, err);
    } else {
        const int every = kept_strategy_decode_every(s->strategy);
        s->steps += item->n_tokens;
        if (every && s->steps >= every)
            st = kept_seq_evict(s, s->full_tokens ? s->full_tokens : s->n_tokens, err);
    }
    /* The tokens are in. Shared pages that cannot be copied now are tried again after the next
     * pass; if the pool stays full, that pass is refused before it changes anything. */
    return st == KEPT_FULL ? KEPT_OK : st;
}
