/* seq: sequences: creation, forks, pins and marks, accounts. */
#include "model/engine.h"
#include "policy/parts.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- creation ---------------------------------------------------------------------------------
 */

static int group_of(const kept_engine *e)
{
    return e->model->info.n_heads / e->model->info.n_kv_heads;
}

/* want: what strategy needs and what the caller asked for besides. */
static kept_status captures(const kept_engine *e, const kept_strategy *strategy,
                            const kept_capture *extra, kept_capture *want, kept_error *err)
{
    *want = extra ? *extra : (kept_capture){0};
    kept_status st = kept_control_check(strategy, err);
    if (!st && strategy)
        st = kept_strategy_fits(strategy, e->model->info.head_size, err);
    if (!st && strategy)
        st = kept_strategy_needs(strategy, want, err);
    if (!st)
        st = kept_record_check(e, strategy, want, err);
    if (!st)
        st = kept_ahead_check(e, strategy, want, err);
    return st ? st : kept_directions_for(e, strategy, err);
}

/* biased: slots have biases, or will. */
static kept_seq *seq_alloc(kept_engine *e, const kept_strategy *strategy, const kept_capture *cap,
                           bool keep_planes, bool biased, uint64_t seed)
{
    int planes = kept_capture_state(cap, cap->n_planes, group_of(e));
    kept_seq *s = kept_calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->engine = e;
    s->whole = s->strategy = strategy && !kept_strategy_is_idle(strategy) ? strategy : NULL;
    s->named = strategy && !kept_strategy_is_plain(strategy) ? strategy : NULL;
    s->read = strategy && kept_strategy_read(strategy)->note ? strategy : NULL;
    s->skip_v = strategy ? (float)kept_strategy_skips(strategy) : 0;
    s->capture = *cap;
    s->rope_plane = s->strategy && kept_strategy_moves_keys(s->strategy) ? planes++ : -1;
    s->bias_plane = biased || (s->strategy && kept_strategy_biases(s->strategy)) ? planes : -1;
    s->keep_planes = keep_planes;
    s->seed = seed;
    s->trimmed = kept_calloc((size_t)e->model->info.n_layers, sizeof *s->trimmed);
    if (!s->trimmed) {
        free(s);
        return NULL;
    }
    return s;
}

/* Frees a sequence that the engine does not count (yet, or any more). */
static void seq_destroy(kept_seq *s)
{
    kept_cache_free(s->cache);
    kept_record_free(s);
    kept_ahead_free(s);
    kept_control_free(s);
    free(s->trimmed);
    free(s->marks);
    free(s);
}

/* The engine knows its sequences. */
static void enlist(kept_seq *s)
{
    s->next = s->engine->seqs;
    s->engine->seqs = s;
    s->engine->n_seqs++;
}

/* Makes room for marks: those of from, or none. */
static kept_status mark_all(kept_seq *s, const uint8_t *from)
{
    const size_t n = (size_t)s->engine->max_tokens;
    s->marks = kept_calloc(n, sizeof *s->marks);
    if (!s->marks)
        return KEPT_NOMEM;
    if (from)
        memcpy(s->marks, from, n);
    s->extra_bytes += n;
    kept_cache_set_extra(s->cache, s->extra_bytes);
    return KEPT_OK;
}

static int n_planes(const kept_seq *s)
{
    const kept_capture *c = &s->capture;
    return kept_capture_state(c, c->n_planes, group_of(s->engine)) + (s->rope_plane >= 0) +
           (s->bias_plane >= 0);
}

void kept_seq_note_held(kept_seq *s, uint64_t more)
{
    kept_cache_set_extra(s->cache, s->extra_bytes + more);
    kept_cache_set_extra(s->cache, s->extra_bytes);
}

kept_status kept_seq_new(kept_engine *e, const kept_strategy *strategy, const kept_capture *capture,
                         uint64_t seed, kept_seq **out, kept_error *err)
{
    kept_capture cap;
    kept_status st = captures(e, strategy, capture, &cap, err);
    if (st)
        return st;
    if (e->n_seqs >= e->max_seqs)
        return kept_fail(err, KEPT_FULL, "%d sequences are alive, the engine's limit (max_seqs)",
                         e->n_seqs);
    kept_seq *s = seq_alloc(e, strategy, &cap, capture != NULL, false, seed);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "no memory for a sequence");
    const kept_model_info *info = &e->model->info;
    st = kept_cache_new(e->pool, e->kern, info->n_layers, info->n_kv_heads, n_planes(s),
                        e->max_tokens, &s->cache, err);
    if (!st)
        st = kept_read_new(s, err);
    if (!st)
        st = kept_record_new(s, NULL, err);
    if (!st)
        st = kept_ahead_new(s, NULL, err);
    if (!st)
        st = kept_control_new(s, NULL, err);
    if (st) {
        seq_destroy(s);
        return st;
    }
    enlist(s);
    *out = s;
    return KEPT_OK;
}

/* Which plane of src becomes which plane of s. */
static kept_status fork_planes(const kept_seq *src, kept_seq *s, int *planes, kept_error *err)
{
    const int group = group_of(src->engine);
    for (int i = 0, to = 0; i < s->capture.n_planes; i++) {
        const kept_plane *p = &s->capture.plane[i];
        const int from = kept_capture_find(&src->capture, *p);
        if (from < 0 && src->n_tokens > 0)
            return kept_fail(err, KEPT_ARGUMENT,
                             "the prefix did not record attention over a window of %d queries%s",
                             p->window, p->split ? " for each query head" : "");
        const int at = from >= 0 ? kept_capture_state(&src->capture, from, group) : -1;
        for (int g = 0; g < (p->split ? group : 1); g++)
            planes[to++] = at >= 0 ? at + g : -1;
        s->counted[i] = from >= 0 ? src->counted[from] : 0;
    }
    if (s->rope_plane >= 0 && src->shift_lost)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the prefix moved its keys and no longer knows how far: fork it before");
    s->shift_lost = src->shift_lost || (src->rope_plane >= 0 && s->rope_plane < 0);
    if (s->rope_plane >= 0)
        planes[s->rope_plane] = src->rope_plane;
    if (s->bias_plane >= 0)
        planes[s->bias_plane] = src->bias_plane;
    return KEPT_OK;
}

kept_status kept_seq_fork(kept_seq *src, const kept_strategy *strategy, const kept_capture *extra,
                          uint64_t seed, kept_seq **out, kept_error *err)
{
    kept_engine *e = src->engine;
    kept_capture cap;
    int planes[KEPT_MAX_PLANES];
    /* A branch of one that will not evict again needs nothing that evicting needs. */
    const bool done = src->done && strategy &&
                      !strcmp(kept_strategy_resolved(strategy), kept_strategy_resolved(src->whole));
    kept_status st = captures(e, done ? NULL : strategy, extra, &cap, err);
    if (st)
        return st;
    if (e->n_seqs >= e->max_seqs)
        return kept_fail(err, KEPT_FULL, "%d sequences are alive, the engine's limit (max_seqs)",
                         e->n_seqs);
    kept_seq *s = seq_alloc(e, strategy, &cap, extra != NULL, src->bias_plane >= 0, seed);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "no memory for a sequence");
    s->done = done;
    s->rope_plane = done ? -1 : s->rope_plane;
    st = fork_planes(src, s, planes, err);
    if (!st)
        st = kept_cache_fork(src->cache, n_planes(s), planes, &s->cache, err);
    if (!st)
        st = kept_read_new(s, err);
    if (!st)
        st = kept_record_new(s, src, err);
    if (!st)
        st = kept_ahead_new(s, src, err);
    if (!st)
        st = kept_control_new(s, src, err);
    if (!st && src->marks && (!s->strategy || kept_strategy_reads_marks(s->strategy)) &&
        mark_all(s, src->marks))
        st = kept_fail(err, KEPT_NOMEM, "no memory for the classes of tokens");
    if (st) {
        seq_destroy(s);
        return st;
    }
    s->n_tokens = src->n_tokens;
    s->history = src->history;
    s->full_tokens = src->full_tokens;
    s->n_after = src->n_after;
    s->rope_back = src->rope_back;
    s->score_ns = src->score_ns;
    s->compact_ns = src->compact_ns;
    if (strategy == src->strategy) { /* a branch goes on where its schedule stands */
        s->steps = src->steps;
        s->round = src->round;
    }
    s->n_pins = src->n_pins;
    memcpy(s->pins, src->pins, sizeof s->pins);
    memcpy(s->trimmed, src->trimmed, (size_t)e->model->info.n_layers * sizeof *s->trimmed);
    enlist(s);
    *out = s;
    return KEPT_OK;
}

kept_status kept_seq_scratch(kept_seq *src, const kept_capture *cap, const int *planes,
                             kept_seq **out, kept_error *err)
{
    kept_engine *e = src->engine;
    kept_seq *s = seq_alloc(e, NULL, cap, true, src->bias_plane >= 0, src->seed);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "no memory for a sequence");
    int all[KEPT_MAX_PLANES];
    memcpy(all, planes, (size_t)kept_capture_state(cap, cap->n_planes, group_of(e)) * sizeof *all);
    if (s->bias_plane >= 0)
        all[s->bias_plane] = src->bias_plane;
    kept_status st = kept_cache_fork(src->cache, n_planes(s), all, &s->cache, err);
    if (st) {
        seq_destroy(s);
        return st;
    }
    s->scratch = true;
    s->n_tokens = src->n_tokens;
    s->rope_back = src->rope_back;
    memcpy(s->trimmed, src->trimmed, (size_t)e->model->info.n_layers * sizeof *s->trimmed);
    *out = s;
    return KEPT_OK;
}

void kept_seq_scratch_free(kept_seq *s)
{
    if (s)
        seq_destroy(s);
}

void kept_seq_free(kept_seq *s)
{
    if (!s)
        return;
    kept_seq **at = &s->engine->seqs;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    s->engine->n_seqs--;
    seq_destroy(s);
}

kept_status kept_seq_pin(kept_seq *s, int begin, int end)
{
    if (begin < 0 || end < begin || end > s->engine->max_tokens)
        return KEPT_ARGUMENT;
    if (s->n_pins == KEPT_MAX_PINS)
        return KEPT_FULL;
    s->pins[s->n_pins++] = (kept_span){begin, end};
    return KEPT_OK;
}

kept_status kept_seq_mark(kept_seq *s, int begin, int end, kept_class what)
{
    if (begin < 0 || end < begin || end > s->engine->max_tokens || what < KEPT_CLASS_TEXT ||
        what > KEPT_CLASS_TEMPLATE)
        return KEPT_ARGUMENT;
    if (!s->marks && mark_all(s, NULL))
        return KEPT_NOMEM;
    memset(s->marks + begin, (int)what, (size_t)(end - begin));
    return KEPT_OK;
}

/* ---- looking at a sequence
 * ----------------------------------------------------------------------- */

int kept_seq_n_tokens(const kept_seq *s)
{
    return s->n_tokens;
}

static bool head_ok(const kept_seq *s, int layer, int kv_head)
{
    const kept_model_info *i = &s->engine->model->info;
    return layer >= 0 && layer < i->n_layers && kv_head >= 0 && kv_head < i->n_kv_heads;
}

int kept_seq_positions(const kept_seq *s, int layer, int kv_head, int32_t *pos, int cap)
{
    if (!head_ok(s, layer, kv_head))
        return 0;
    const int n = kept_cache_n(s->cache, layer, kv_head);
    const int32_t *pages = kept_cache_pages(s->cache, layer, kv_head);
    for (int i = 0; i < n && i < cap; i++)
        pos[i] =
            kept_pool_pos(s->engine->pool)[(size_t)pages[i / KEPT_PAGE_SLOTS] * KEPT_PAGE_SLOTS +
                                           (size_t)(i % KEPT_PAGE_SLOTS)];
    return n;
}

int kept_seq_plane(const kept_seq *s, int layer, int kv_head, kept_plane want, float *out, int cap)
{
    const int plane = kept_capture_find(&s->capture, want);
    if (plane < 0 || !head_ok(s, layer, kv_head))
        return -1;
    const int n = kept_cache_n(s->cache, layer, kv_head);
    const int first = kept_capture_state(&s->capture, plane, group_of(s->engine));
    for (int g = 0; g < (want.split ? group_of(s->engine) : 1); g++, out += cap)
        for (int i = 0; i < n && i < cap; i++)
            out[i] = kept_cache_state(s->cache, layer, kv_head, first + g, i);
    return n;
}

void kept_seq_account(const kept_seq *s, kept_account *out)
{
    kept_cache_account(s->cache, out);
    out->score_ns = s->score_ns + s->ahead_ns;
    out->compact_ns = s->compact_ns;
    out->read_bytes = atomic_load_explicit(&s->read_bytes, memory_order_relaxed);
    out->n_reads = s->n_reads;
}

uint64_t kept_full_kv_bytes(const kept_model_info *info, int n_tokens)
{
    uint64_t slots = 0;
    for (int l = 0; l < info->n_layers; l++) {
        int n = n_tokens;
        if (info->windowed[l] && n > info->sliding_window)
            n = info->sliding_window;
        slots += (uint64_t)n;
    }
    return slots * (uint64_t)info->n_kv_heads * (uint64_t)info->head_size * 4;
}
