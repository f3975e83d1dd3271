/* control: carries out what controllers decide. A sequence whose strategy has one reads its signal
 * after decode steps, moves on to the state or the budget that policy/controller.c answers, and
 * writes the decision down. What a sequence follows now is s->strategy, so eviction knows nothing
 * of this.
 *
 * Logs are sized when the sequence is made and scratch when its prompt is in, so that a decode step
 * allocates nothing, whenever it switches.
 */
#include "model/work.h"
#include "policy/parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SPARE_LOG 64 /* decisions beside those of its own decode steps */

struct kept_control {
    const kept_controller *how;
    const double *options;
    const kept_signal *signal;
    kept_control_state at;
    int64_t waited;                  /* decode tokens since the last decision */
    int64_t tokens[KEPT_MAX_STATES]; /* decode tokens spent in each state */
    double hint;                     /* NaN: none */
    double kl;                       /* of the pass that just ended, NaN: not probed */
    kept_seq *reference;             /* or NULL */
    bool owed;                       /* an eviction that a full pool put off */
    int64_t own, slots;              /* sharing: the budget it brings; what it may hold now */
    int n_log, cap;                  /* decisions made; those that log holds at most */
    kept_decision *log;              /* [cap] */
    kept_decision *replay;           /* [n_replay] decisions to follow, or NULL */
    int n_replay, next;
};

/* What a split over a group works on; one per engine. */
struct kept_sharing {
    kept_seq **who;  /* [max_seqs] */
    kept_member *m;  /* [max_seqs] */
    int64_t *slots;  /* [max_seqs] */
    double *scratch; /* [max_seqs] */
};

/* ---- creation ------------------------------------------------------------------------------- */

kept_status kept_control_check(const kept_strategy *s, kept_error *err)
{
    kept_capture cap = {0};
    if (!s || !s->n_states)
        return KEPT_OK;
    kept_status st = kept_strategy_needs(s, &cap, err);
    for (int i = 0; i < cap.n_planes && !st; i++)
        if (cap.plane[i].kind == KEPT_PLANE_FUTURE || cap.plane[i].kind == KEPT_PLANE_ECHO ||
            cap.plane[i].kind == KEPT_PLANE_ECHO_PLUS)
            st = kept_fail(err, KEPT_ARGUMENT,
                           "a state of '%s' needs extra forward passes when it evicts, which a "
                           "decode step cannot make; use a score without",
                           kept_strategy_name(s));
    return st;
}

static kept_status group_new(kept_engine *e, kept_error *err)
{
    const size_t n = (size_t)e->max_seqs;
    if (e->sharing)
        return KEPT_OK;
    kept_sharing *g = kept_calloc(1, sizeof *g);
    if (!g)
        return kept_fail(err, KEPT_NOMEM, "no memory to share a budget");
    e->sharing = g;
    g->who = kept_calloc(n, sizeof *g->who);
    g->m = kept_calloc(n, sizeof *g->m);
    g->slots = kept_calloc(n, sizeof *g->slots);
    g->scratch = kept_calloc(n, sizeof *g->scratch);
    if (g->who && g->m && g->slots && g->scratch)
        return KEPT_OK;
    kept_control_engine_free(e);
    return kept_fail(err, KEPT_NOMEM, "no memory to share a budget over %zu sequences", n);
}

void kept_control_engine_free(kept_engine *e)
{
    if (!e->sharing)
        return;
    free(e->sharing->who);
    free(e->sharing->m);
    free(e->sharing->slots);
    free(e->sharing->scratch);
    free(e->sharing);
    e->sharing = NULL;
}

/* A fork that goes on under the same strategy goes on from the same place. */
static void inherit(kept_control *c, const kept_control *from)
{
    kept_decision *log = c->log;
    const int cap = c->cap;
    *c = *from;
    c->log = log;
    c->cap = cap;
    c->replay = NULL;
    c->reference = NULL;
    memcpy(c->log, from->log, (size_t)kept_min(from->n_log, cap) * sizeof *log);
}

static const kept_strategy *in_force(const kept_seq *s)
{
    const kept_strategy *now = kept_strategy_state(s->whole, s->control->at.state);
    return kept_strategy_is_idle(now) ? NULL : now;
}

kept_status kept_control_new(kept_seq *s, const kept_seq *from, kept_error *err)
{
    if (!s->whole || !kept_controller_acts(kept_strategy_controller(s->whole)))
        return KEPT_OK;
    const kept_controller *how = kept_strategy_controller(s->whole);
    const double *options = s->whole->option[KEPT_AXIS_CONTROLLER];
    kept_control *c = kept_calloc(1, sizeof *c);
    s->control = c;
    if (!c)
        return kept_fail(err, KEPT_NOMEM, "no memory for a controller");
    *c = (kept_control){.how = how,
                        .options = options,
                        .signal = kept_strategy_signal(s->whole),
                        .at = KEPT_CONTROL_START,
                        .hint = NAN,
                        .kl = NAN,
                        .cap = s->engine->max_tokens / (int)options[how->every] + SPARE_LOG};
    c->log = kept_calloc((size_t)c->cap, sizeof *c->log);
    if (!c->log)
        return kept_fail(err, KEPT_NOMEM, "no memory for a log of %d decisions", c->cap);
    if (from && from->control && !strcmp(from->whole->resolved, s->whole->resolved))
        inherit(c, from->control);
    s->strategy = in_force(s);
    s->extra_bytes += sizeof *c + (uint64_t)c->cap * sizeof *c->log;
    kept_cache_set_extra(s->cache, s->extra_bytes);
    return how->share ? group_new(s->engine, err) : KEPT_OK;
}

void kept_control_free(kept_seq *s)
{
    for (kept_seq *t = s->engine->seqs; t; t = t->next)
        if (t->control && t->control->reference == s)
            t->control->reference = NULL;
    if (!s->control)
        return;
    free(s->control->log);
    free(s->control->replay);
    free(s->control);
    s->control = NULL;
}

/* ---- signals -------------------------------------------------------------------------------- */

static int option_or(const kept_control *c, int option, int value)
{
    return option >= 0 ? (int)c->options[option] : value;
}

static double read_signal(const kept_seq *s)
{
    const kept_engine *e = s->engine;
    const kept_control *c = s->control;
    const kept_model_info *info = &e->model->info;
    const int plane = kept_capture_find(&s->capture, KEPT_SIGNAL_PLANE);
    kept_pool_account pool;
    kept_pool_get_account(e->pool, &pool);
    kept_signal_view v = {.used = (double)(pool.n_pages - pool.n_free_pages) / (double)pool.n_pages,
                          .hint = c->hint,
                          .kl = c->kl,
                          .pool = e->pool,
                          .cache = s->cache,
                          .plane = plane < 0 ? -1
                                             : kept_capture_state(&s->capture, plane,
                                                                  info->n_heads / info->n_kv_heads),
                          .n_layers = info->n_layers,
                          .windowed = info->windowed,
                          .n_heads = info->n_kv_heads,
                          .next_pos = s->n_tokens,
                          .sinks = option_or(c, c->how->sinks, KEPT_SIGNAL_SINKS),
                          .window = option_or(c, c->how->window, KEPT_SIGNAL_WINDOW)};
    return c->signal->read(&v);
}

/* The sequence's divergence from its reference, if this batch shows both at the same place. */
static double probe(const kept_engine *e, const kept_item *items, int n_items, int i)
{
    const kept_seq *s = items[i].seq, *full = s->control->reference;
    const float *own = NULL, *other = NULL, *row = e->logits;
    for (int j = 0; j < n_items; j++) {
        row += (size_t)items[j].n_logits * (size_t)e->model->info.n_vocab;
        if (j == i && items[j].n_logits)
            own = row - e->model->info.n_vocab;
        if (full && items[j].seq == full && items[j].n_logits)
            other = row - e->model->info.n_vocab;
    }
    if (!own || !other || full->n_tokens != s->n_tokens || full->history != s->history)
        return NAN;
    return kept_control_kl(other, own, e->model->info.n_vocab);
}

/* ---- decisions ------------------------------------------------------------------------------ */

static int32_t budget_tokens(const kept_seq *s)
{
    return s->full_tokens ? s->full_tokens : s->n_tokens;
}

/* KV heads of all layers that evict. */
static int n_heads_of(const kept_engine *e)
{
    const kept_model_info *info = &e->model->info;
    int n = 0;
    for (int l = 0; l < info->n_layers; l++)
        n += info->windowed[l] ? 0 : info->n_kv_heads;
    return n;
}

static int64_t slots_of(const kept_seq *s, const kept_strategy *what)
{
    const kept_model_info *info = &s->engine->model->info;
    return kept_strategy_budget_slots(what, n_heads_of(s->engine) / info->n_kv_heads,
                                      info->n_kv_heads, info->head_size, budget_tokens(s));
}

static void write_down(kept_seq *s, double signal)
{
    kept_control *c = s->control;
    const kept_strategy *now = in_force(s);
    if (c->n_log < c->cap)
        c->log[c->n_log] = (kept_decision){.at = s->n_tokens,
                                           .state = c->at.state,
                                           .slots = c->how->share ? c->slots
                                                    : now         ? slots_of(s, now)
                                                                  : 0,
                                           .signal = signal};
    c->n_log++;
}

/* Evicts by what is in force now, unless that waits for the pool to run short; a full pool puts it
 * off to the next pass. */
static kept_status evict_now(kept_seq *s, kept_error *err)
{
    const bool now = s->strategy && !kept_strategy_when(s->strategy).pressure;
    kept_status st = now ? kept_seq_evict(s, budget_tokens(s), err) : KEPT_OK;
    s->control->owed = st == KEPT_FULL;
    return st == KEPT_FULL ? KEPT_OK : st;
}

/* True: the state is another one now. */
static bool enter(kept_seq *s, int state)
{
    kept_control *c = s->control;
    if (c->at.state == state)
        return false;
    c->at = (kept_control_state){state, 0};
    s->strategy = in_force(s);
    s->pack_owed = true;
    return true;
}

/* One look at the signal of a sequence that switches. True: it switched. */
static bool look(kept_seq *s)
{
    kept_control *c = s->control;
    const uint64_t t0 = kept_clock_ns();
    const double x = read_signal(s);
    bool switched = false;
    if (isfinite(x)) {
        switched = enter(s, c->how->next(c->options, &c->at, x));
        c->waited = 0;
        write_down(s, x);
    }
    s->score_ns += kept_clock_ns() - t0;
    return switched;
}

/* ---- a shared budget ------------------------------------------------------------------------ */

static bool is_member(const kept_seq *s, const kept_strategy *of)
{
    return s->whole == of && s->control && s->full_tokens && !s->control->replay;
}

/* Splits anew over all live members, and cuts at once who holds more than it may now; but not
 * `fresh`, which is about to evict anyway. */
static kept_status share(kept_engine *e, const kept_strategy *of, const kept_seq *fresh,
                         kept_error *err)
{
    kept_sharing *g = e->sharing;
    const kept_controller *how = kept_strategy_controller(of);
    const double *options = of->option[KEPT_AXIS_CONTROLLER];
    const int64_t growth = (int64_t)options[how->every] * n_heads_of(e);
    kept_status st = KEPT_OK;
    int n = 0;
    for (kept_seq *s = e->seqs; s; s = s->next) {
        if (!is_member(s, of))
            continue;
        const uint64_t t0 = kept_clock_ns();
        g->who[n] = s;
        g->m[n++] = (kept_member){s->control->own, kept_seq_held(s).slots + growth, read_signal(s)};
        s->score_ns += kept_clock_ns() - t0;
    }
    how->share(options, g->m, n, g->slots, g->scratch);
    for (int i = 0; i < n && !st; i++) {
        kept_seq *s = g->who[i];
        s->control->slots = g->slots[i];
        s->control->waited = 0;
        write_down(s, g->m[i].signal);
        if (s != fresh && kept_seq_held(s).slots > g->slots[i])
            st = evict_now(s, err);
    }
    return st;
}

int64_t kept_control_slots(const kept_seq *s)
{
    return s->control && s->control->how->share ? s->control->slots : 0;
}

/* ---- replay --------------------------------------------------------------------------------- */

/* Puts the next decision of the log in force. True: it was followed by an eviction. */
static bool follow_one(kept_seq *s)
{
    kept_control *c = s->control;
    const kept_decision *d = &c->replay[c->next++];
    const bool switched = enter(s, d->state);
    c->slots = c->how->share ? d->slots : 0;
    write_down(s, d->signal);
    return switched || (c->how->share && kept_seq_held(s).slots > c->slots);
}

static bool is_due(const kept_seq *s)
{
    const kept_control *c = s->control;
    return c->replay && c->next < c->n_replay && c->replay[c->next].at <= s->n_tokens;
}

kept_status kept_control_follow(kept_seq *s, kept_error *err)
{
    kept_status st = KEPT_OK;
    while (s->control && is_due(s) && !st)
        if (follow_one(s))
            st = evict_now(s, err);
    return st;
}

kept_status kept_seq_replay(kept_seq *s, const kept_decision *log, int n, kept_error *err)
{
    kept_control *c = s->control;
    if (!c)
        return kept_fail(err, KEPT_ARGUMENT, "the sequence's controller decides nothing");
    for (int i = 0; i < n; i++)
        if (log[i].state < 0 || !kept_strategy_state(s->whole, log[i].state) || log[i].slots < 0 ||
            (i && log[i].at < log[i - 1].at))
            return kept_fail(err, KEPT_ARGUMENT, "decision %d of the log is none of '%s'", i,
                             kept_strategy_name(s->whole));
    kept_decision *copy = kept_calloc((size_t)n + 1, sizeof *copy);
    if (!copy)
        return kept_fail(err, KEPT_NOMEM, "no memory for a log of %d decisions", n);
    if (n)
        memcpy(copy, log, (size_t)n * sizeof *copy);
    free(c->replay);
    c->replay = copy;
    c->n_replay = n;
    c->next = 0;
    return KEPT_OK;
}

/* ---- called by seq.c and engine.c ------------------------------------------------------------ */

/* So that the first eviction while decoding needs no memory. */
static kept_status reserve(kept_seq *s, kept_error *err)
{
    kept_status st = KEPT_OK;
    for (int i = 0; s->whole->n_states && kept_strategy_state(s->whole, i) && !st; i++)
        st = kept_seq_reserve(s, kept_strategy_state(s->whole, i), err);
    return st;
}

kept_status kept_control_start(kept_seq *s, kept_error *err)
{
    kept_control *c = s->control;
    if (!c)
        return KEPT_OK;
    kept_status st = reserve(s, err);
    if (st)
        return st;
    c->own = c->slots = c->how->share ? slots_of(s, s->whole) : 0;
    if (c->how->share && !c->replay)
        return share(s->engine, s->whole, s, err);
    if (is_due(s))
        follow_one(s);
    else if (!c->replay)
        look(s);
    return KEPT_OK;
}

kept_status kept_control_check_item(const kept_item *item, kept_error *err)
{
    const kept_control *c = item->seq->control;
    if (!c || item->prefill || !c->signal->probe || c->reference || c->replay)
        return KEPT_OK;
    return kept_fail(
        err, KEPT_ARGUMENT,
        "'%s' reads the signal '%s', which needs a live full cache that reads the same "
        "tokens: kept_seq_set_reference",
        kept_strategy_name(item->seq->whole), c->signal->name);
}

static kept_status after_item(kept_engine *e, const kept_item *items, int n_items, int i,
                              kept_error *err)
{
    kept_seq *s = items[i].seq;
    kept_control *c = s->control;
    kept_status st = c->owed ? evict_now(s, err) : KEPT_OK;
    if (st || c->replay)
        return st ? st : kept_control_follow(s, err);
    if (c->waited < (int64_t)c->options[c->how->every])
        return KEPT_OK;
    if (c->signal->probe) {
        const uint64_t t0 = kept_clock_ns();
        c->kl = probe(e, items, n_items, i);
        s->score_ns += kept_clock_ns() - t0;
    }
    if (c->how->share)
        return share(e, s->whole, NULL, err);
    return look(s) ? evict_now(s, err) : KEPT_OK;
}

kept_status kept_control_after(kept_engine *e, const kept_item *items, int n_items, kept_error *err)
{
    kept_status st = KEPT_OK;
    /* All have counted before one decides for others. */
    for (int i = 0; i < n_items; i++) {
        kept_control *c = items[i].seq->control;
        if (!c || items[i].prefill)
            continue;
        c->tokens[c->at.state] += items[i].n_tokens;
        c->at.since += items[i].n_tokens;
        c->waited += items[i].n_tokens;
    }
    for (int i = 0; i < n_items && !st; i++)
        if (items[i].seq->control && !items[i].prefill)
            st = after_item(e, items, n_items, i, err);
    return st;
}

/* ---- public --------------------------------------------------------------------------------- */

kept_status kept_seq_hint(kept_seq *s, double hint)
{
    if (!(hint >= 0 && hint <= 1))
        return KEPT_ARGUMENT;
    if (s->control)
        s->control->hint = hint;
    return KEPT_OK;
}

kept_status kept_seq_set_reference(kept_seq *s, kept_seq *full, kept_error *err)
{
    if (full && (full->engine != s->engine || full == s || full->whole || full->read))
        return kept_fail(err, KEPT_ARGUMENT,
                         "a reference is another sequence of the same engine with a full cache");
    if (s->control)
        s->control->reference = full;
    return KEPT_OK;
}

int kept_seq_decisions(const kept_seq *s, kept_decision *out, int cap)
{
    const kept_control *c = s->control;
    if (!c)
        return 0;
    const int n = kept_min(kept_min(cap, c->n_log), c->cap);
    if (n > 0)
        memcpy(out, c->log, (size_t)n * sizeof *out);
    return c->n_log;
}

int kept_seq_state_tokens(const kept_seq *s, int64_t *tokens, int cap)
{
    const int n = s->control ? s->whole->n_states : 0;
    for (int i = 0; i < n && i < cap; i++)
        tokens[i] = s->control->tokens[i];
    return n;
}

const char *kept_strategy_state_name(const kept_strategy *s, int i)
{
    const kept_controller *c = kept_strategy_controller(s);
    return i >= 0 && i < s->n_states ? c->states[i] : NULL;
}
