/* ahead: planes that are not attention of the past: what a look-ahead pays (foresee), what
 * repeating the context pays (echo), and what is computed from hidden states. The contracts are in
 * kept/kept.h and ahead.h.
 *
 * Foresee and echo run forks of the sequence and copy a plane of the fork back. A fork's first
 * slots are the sequence's, in the same order, because a fork of the engine's own never evicts;
 * only windowed layers drop pages, and these are left out.
 */
#include "model/engine.h"
#include "policy/parts.h"
#include "policy/trained_fits.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_echo(kept_plane p)
{
    return p.kind == KEPT_PLANE_ECHO || p.kind == KEPT_PLANE_ECHO_PLUS;
}

/* Whether c holds a plane of one of two kinds. */
static bool has(const kept_capture *c, kept_plane_kind a, kept_plane_kind b)
{
    for (int i = 0; i < c->n_planes; i++)
        if (c->plane[i].kind == a || c->plane[i].kind == b)
            return true;
    return false;
}

static bool has_echo(const kept_capture *c)
{
    return has(c, KEPT_PLANE_ECHO, KEPT_PLANE_ECHO_PLUS);
}

/* ---- for seq.c ------------------------------------------------------------------------------ */

static kept_status need_file(const kept_engine *e, const char *who, const char *kind,
                             kept_error *err)
{
    if (!kind || kept_hidden_file(e, kind))
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' needs a trained file of kind '%s' (kept_engine_add_trained); make it "
                     "with: kept %s %s MODEL",
                     who, kind, kept_trained_verb(kind), kind);
}

static kept_status need_files(const kept_engine *e, const kept_strategy *s, kept_error *err)
{
    kept_status st = KEPT_OK;
    if (!kept_strategy_is_full(s))
        st = need_file(e, kept_strategy_name(s), kept_score_trained(s), err);
    if (!st && !kept_strategy_is_full(s))
        st = need_file(e, kept_strategy_name(s), kept_allocator_trained(s), err);
    if (!st && !s->n_states)
        st = need_file(e, kept_strategy_name(s), kept_codec_trained(s), err);
    if (!st && !s->n_states)
        st = need_file(e, kept_strategy_name(s), kept_rest_trained(s), err);
    if (!st && !s->n_states && kept_form_is(s, &kept_part_searched))
        st = kept_fail(err, KEPT_ARGUMENT, "'%s' is not bound to its trained file: %s",
                       kept_strategy_name(s), "call kept_strategy_bind before");
    for (int i = 0; i < s->n_states && !st; i++)
        st = need_files(e, s->state[i], err);
    return st;
}

kept_status kept_ahead_check(const kept_engine *e, const kept_strategy *strategy,
                             const kept_capture *want, kept_error *err)
{
    kept_status st = strategy ? kept_strategy_check(strategy, err) : KEPT_OK;
    if (!st && strategy)
        st = need_files(e, strategy, err);
    if (!st && has(want, KEPT_PLANE_PREDICTED, KEPT_PLANE_PREDICTED))
        st = need_file(e, "a plane of predicted scores", "kvzap", err);
    return st;
}

kept_status kept_ahead_new(kept_seq *s, const kept_seq *from, kept_error *err)
{
    const size_t n = (size_t)s->engine->max_tokens;
    kept_status st = kept_local_new(s->engine, &s->capture, err);
    if (from && has(&s->capture, KEPT_PLANE_FUTURE, KEPT_PLANE_FUTURE))
        s->foreseen = from->foreseen;
    if (st || !has_echo(&s->capture))
        return st;
    s->log = kept_calloc(n, sizeof *s->log);
    if (!s->log)
        return kept_fail(err, KEPT_NOMEM, "no memory for the tokens of a sequence");
    if (from && from->log) {
        memcpy(s->log, from->log, (size_t)from->n_tokens * sizeof *s->log);
        s->echoed = from->echoed;
        s->ahead_bytes = from->ahead_bytes;
        s->ahead_ns = from->ahead_ns;
    }
    s->extra_bytes += n * sizeof *s->log;
    kept_seq_note_held(s, s->ahead_bytes);
    return KEPT_OK;
}

void kept_ahead_free(kept_seq *s)
{
    free(s->log);
    s->log = NULL;
}

/* First state plane of plane i of what s captures. */
static int state_of(const kept_seq *s, int i)
{
    const kept_model_info *info = &s->engine->model->info;
    return kept_capture_state(&s->capture, i, info->n_heads / info->n_kv_heads);
}

kept_status kept_ahead_ready(kept_seq *s, kept_error *err)
{
    kept_capture own = {0};
    kept_status st = kept_strategy_needs(s->strategy, &own, err);
    if (st)
        return st;
    if (has(&own, KEPT_PLANE_FUTURE, KEPT_PLANE_FUTURE) && !s->foreseen)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' must be told what will come (kept_seq_foresee): it runs only where "
                         "the question and the answer are known",
                         kept_strategy_name(s->strategy));
    return has_echo(&own) && !s->echoed ? kept_seq_echo(s, err) : KEPT_OK;
}

/* ---- forks that read ------------------------------------------------------------------------ */

/* Feeds tokens to a fork. FULL: the line says for what pages are missing. */
static kept_status read_all(kept_seq *fork, const int32_t *tokens, int n, kept_error *err)
{
    kept_engine *e = fork->engine;
    for (int at = 0; at < n;) {
        const int k = n - at < e->max_batch ? n - at : e->max_batch;
        const kept_item it = {.seq = fork,
                              .tokens = tokens + at,
                              .n_tokens = k,
                              .n_after = n - at - k,
                              .prefill = true};
        kept_status st = kept_engine_forward(e, &it, 1, err);
        if (st)
            return st;
        at += k;
    }
    return KEPT_OK;
}

/* Plane `from` of a fork becomes plane `to` of s, for the slots of s. */
static void copy_plane(const kept_seq *fork, int from, kept_seq *s, int to)
{
    const kept_model_info *info = &s->engine->model->info;
    kept_pool *pool = s->engine->pool;
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads && !info->windowed[l]; h++) {
            const int32_t *a = kept_cache_blocks(fork->cache, l, h, from);
            const int32_t *b = kept_cache_blocks(s->cache, l, h, to);
            for (int at = 0; at < kept_cache_n(s->cache, l, h); at += KEPT_PAGE_SLOTS) {
                const int n = kept_cache_n(s->cache, l, h) - at;
                memcpy(kept_pool_block(pool, b[at / KEPT_PAGE_SLOTS]),
                       kept_pool_block(pool, a[at / KEPT_PAGE_SLOTS]),
                       (size_t)(n < KEPT_PAGE_SLOTS ? n : KEPT_PAGE_SLOTS) * sizeof(float));
            }
        }
}

kept_status kept_seq_foresee(kept_seq *s, const int32_t *tokens, int n, kept_error *err)
{
    const kept_capture all = {.n_planes = 1,
                              .plane = {{.kind = KEPT_PLANE_MASS, .window = INT_MAX}}};
    const int none = -1;
    const int at = kept_capture_find(&s->capture, (kept_plane){.kind = KEPT_PLANE_FUTURE});
    kept_seq *fork = NULL;
    if (at < 0)
        return kept_fail(err, KEPT_ARGUMENT, "the sequence has no plane for what will come");
    if (n < 0)
        return kept_fail(err, KEPT_ARGUMENT, "%d tokens cannot be foreseen", n);
    kept_status st = kept_seq_scratch(s, &all, &none, &fork, err);
    if (!st)
        st = read_all(fork, tokens, n, err);
    if (!st) {
        copy_plane(fork, 0, s, state_of(s, at));
        s->foreseen = true;
    }
    kept_seq_scratch_free(fork);
    return st;
}

/* ---- echo ------------------------------------------------------------------------------------ */

/* The words are the paper's; no chat template is put around them. */
#define ASK_FIRST "\n\nRepeat the previous context exactly:\n"
#define ASK_NEXT  "\n\nRepeat the part of the previous context exactly, starting with: "
enum { ASK_MOST = 256 }; /* bytes, so tokens, of either */

int kept_echo_room(int n)
{
    const size_t words = sizeof ASK_NEXT > sizeof ASK_FIRST ? sizeof ASK_NEXT : sizeof ASK_FIRST;
    return (n < KEPT_ECHO_CHUNK ? n : KEPT_ECHO_CHUNK) + KEPT_ECHO_TAIL + (int)words;
}

int kept_echo_tokens(const kept_seq *s, int begin, int end, int32_t *out, int cap)
{
    const char *ask = begin ? ASK_NEXT : ASK_FIRST;
    const int tail = begin < KEPT_ECHO_TAIL ? begin : KEPT_ECHO_TAIL;
    int32_t words[ASK_MOST];
    int n = 0;
    if (!s->log ||
        kept_tokenize(s->engine->model, ask, strlen(ask), false, false, words, ASK_MOST, &n))
        return -1;
    const int from = begin - tail;
    for (int i = 0; i < n + end - from && i < cap; i++)
        out[i] = i < n ? words[i] : s->log[from + i - n];
    return n + end - from;
}

/* What a fork holds beside the pages it shares with s, which held free_before free pages. */
static void note_peak(kept_seq *s, const kept_seq *fork, size_t free_before)
{
    kept_pool *pool = s->engine->pool;
    kept_account a;
    kept_cache_account(fork->cache, &a);
    const uint64_t pages = free_before - kept_pool_free_pages(pool);
    const uint64_t bytes = a.meta_bytes + pages * kept_page_bytes(s->engine->model->info.head_size);
    s->ahead_bytes = bytes > s->ahead_bytes ? bytes : s->ahead_bytes;
    kept_seq_note_held(s, s->ahead_bytes);
}

/* One chunk: a fork repeats positions [begin, end), and its maxima become those of s. */
static kept_status echo_chunk(kept_seq *s, int begin, int end, int32_t *tokens, kept_error *err)
{
    kept_capture cap = {0};
    int planes[2], to[2];
    for (int i = 0; i < s->capture.n_planes; i++)
        if (is_echo(s->capture.plane[i])) {
            to[cap.n_planes] = planes[cap.n_planes] = state_of(s, i);
            cap.plane[cap.n_planes++] = s->capture.plane[i];
        }
    const size_t free_before = kept_pool_free_pages(s->engine->pool);
    const int n = kept_echo_tokens(s, begin, end, tokens, s->engine->max_tokens);
    kept_seq *fork = NULL;
    kept_status st = kept_seq_scratch(s, &cap, planes, &fork, err);
    if (st)
        return st;
    fork->echoing = true;
    st = read_all(fork, tokens, n, err);
    if (!st) {
        note_peak(s, fork, free_before);
        for (int i = 0; i < cap.n_planes; i++)
            copy_plane(fork, i, s, to[i]);
    }
    kept_seq_scratch_free(fork);
    return st;
}

static void clear_echo(kept_seq *s)
{
    const kept_model_info *info = &s->engine->model->info;
    for (int i = 0; i < s->capture.n_planes; i++)
        for (int l = 0; l < info->n_layers && is_echo(s->capture.plane[i]); l++)
            for (int h = 0; h < info->n_kv_heads; h++) {
                const int32_t *b = kept_cache_blocks(s->cache, l, h, state_of(s, i));
                for (int at = 0; at < kept_cache_n(s->cache, l, h); at += KEPT_PAGE_SLOTS)
                    memset(kept_pool_block(s->engine->pool, b[at / KEPT_PAGE_SLOTS]), 0,
                           KEPT_PAGE_SLOTS * sizeof(float));
            }
}

/* Tokens of the longest chunk's fork. */
static int echo_need(const kept_seq *s, int chunk)
{
    int most = 0;
    for (int at = 0; at < s->n_tokens; at += chunk) {
        const int end = at + chunk < s->n_tokens ? at + chunk : s->n_tokens;
        const int n = kept_echo_tokens(s, at, end, NULL, 0);
        if (n < 0)
            return -1;
        most = n > most ? n : most;
    }
    return most;
}

kept_status kept_seq_echo_by(kept_seq *s, int chunk, kept_error *err)
{
    kept_engine *e = s->engine;
    const uint64_t t0 = kept_clock_ns();
    if (!s->log)
        return kept_fail(err, KEPT_ARGUMENT, "the sequence has no plane for its own repetition");
    const int need = echo_need(s, chunk);
    if (need < 0)
        return kept_fail(err, KEPT_ARGUMENT, "this model's tokenizer cannot ask for a repetition");
    if (need > e->max_tokens - s->n_tokens)
        return kept_fail(err, KEPT_ARGUMENT,
                         "repeating %d tokens needs %d more, but max_tokens is %d: make it at "
                         "least %d",
                         s->n_tokens, need, e->max_tokens, s->n_tokens + need);
    int32_t *tokens = kept_calloc((size_t)need + 1, sizeof *tokens);
    if (!tokens)
        return kept_fail(err, KEPT_NOMEM, "no memory for %d tokens to repeat", need);
    clear_echo(s);
    kept_status st = KEPT_OK;
    for (int at = 0; at < s->n_tokens && !st; at += chunk)
        st = echo_chunk(s, at, at + chunk < s->n_tokens ? at + chunk : s->n_tokens, tokens, err);
    free(tokens);
    if (!st)
        s->echoed = s->n_tokens;
    s->ahead_ns += kept_clock_ns() - t0;
    return st;
}

kept_status kept_seq_echo(kept_seq *s, kept_error *err)
{
    return kept_seq_echo_by(s, KEPT_ECHO_CHUNK, err);
}
