/* answer: what happens after eviction. A turn's question goes to every variant in common forward
 * passes, then all variants answer greedily, each until its own end token; in a conversation the
 * next question finds the earlier turns in the cache, a request finds what the first one found
 * (task.h, kept_turn_mode). Or all variants are fed the true text token by token. The reference
 * rides in the same batch, so comparing costs no second run.
 *
 * The suffix is a later turn: its tokens are fed with prefill = false, so a strategy that evicts
 * while decoding counts them as steps and one that acts on prefill chunks does not act again.
 */
#include "bench/job.h"

#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MASS_EVERY 8 /* tokens between two measurements of mass_recall */

/* The pool is full: the variant that holds most gives up, the two full caches only at the end. */
static void give_up_largest(kept_work *w, const kept_error *why)
{
    int victim = w->out[KEPT_VARIANT_FLOOR].active ? KEPT_VARIANT_FLOOR : KEPT_VARIANT_FULL;
    uint64_t most = 0;
    for (int v = KEPT_FIRST_VARIANT; v < w->job->n_variants; v++) {
        kept_account a;
        if (!w->out[v].active)
            continue;
        kept_seq_account(w->out[v].seq, &a);
        if (a.kv_bytes >= most) {
            most = a.kv_bytes;
            victim = v;
        }
    }
    kept_outcome_fail(&w->out[victim], why->text);
}

/* Items of the active variants from *v on, as many as fit one forward pass. */
static int collect(kept_work *w, int *v, int n, bool logits)
{
    int n_items = 0;
    for (; *v < w->job->n_variants && (n_items + 1) * n <= w->job->max_batch; ++*v) {
        if (!w->out[*v].active)
            continue;
        w->who[n_items] = *v;
        w->items[n_items++] = (kept_item){
            .seq = w->out[*v].seq, .tokens = w->feed[*v], .n_tokens = n, .n_logits = logits};
    }
    return n_items;
}

kept_status kept_feed(kept_work *w, int n, kept_visit visit, kept_error *err)
{
    kept_job *j = w->job;
    for (int from = 0; from < j->n_variants;) {
        int next = from;
        int n_items = collect(w, &next, n, visit != NULL);
        kept_error why = {.text = ""};
        kept_status s = n_items ? kept_engine_forward(j->engine, w->items, n_items, &why) : KEPT_OK;
        if (s == KEPT_FULL) {
            give_up_largest(w, &why);
            continue;
        }
        if (s)
            return kept_fail(err, s, "%s", why.text);
        const float *logits = visit ? kept_engine_logits(j->engine) : NULL;
        for (int i = 0; visit && i < n_items; i++)
            visit(w, w->who[i], logits + (size_t)i * (size_t)j->info->n_vocab);
        if ((s = kept_job_tick(j, (double)n_items * n)))
            return s;
        from = next;
    }
    return KEPT_OK;
}

int32_t kept_argmax(const float *x, int n)
{
    int32_t best = 0;
    float sum = 0;
    for (int32_t i = 0; i < n; i++) {
        sum += x[i] * 0.0f; /* stays 0 unless x[i] is NaN or infinite */
        if (x[i] > x[best])
            best = i;
    }
    return sum == 0.0f ? best : -1;
}

/* Compares with the reference at the position just computed; false: the variant failed. */
static bool compare(kept_work *w, int v, const float *logits, int32_t true_token)
{
    kept_outcome *o = &w->out[v];
    int n_vocab = w->job->info->n_vocab;
    o->next = kept_argmax(logits, n_vocab);
    if (o->next < 0) {
        kept_outcome_fail(o, "the model's output is not finite");
        return false;
    }
    if (v == KEPT_VARIANT_FULL) {
        memcpy(w->reference, logits, (size_t)n_vocab * sizeof *logits);
        w->have_reference = true;
    }
    bool have = w->have_reference && !w->out[KEPT_VARIANT_FULL].failed;
    kept_kl k = kept_kl_logits(have ? w->reference : logits, logits, n_vocab,
                               true_token < 0 ? 0 : true_token);
    o->kl[o->n_scored] = have ? k.kl : NAN;
    o->nll[o->n_scored] = true_token < 0 ? NAN : k.nll_other;
    o->top1[o->n_scored++] = have && k.top1;
    return true;
}

/* Whether all variants have been fed the same tokens. */
static bool comparable(const kept_work *w)
{
    return w->turn == 0 || kept_task_turn_mode(w->job->tasks[w->task].task) != KEPT_TURNS_OWN;
}

static void visit_first(kept_work *w, int v, const float *logits)
{
    kept_outcome *o = &w->out[v];
    if (!compare(w, v, logits, -1))
        return;
    if (!comparable(w)) {
        o->kl[o->n_scored - 1] = NAN;
        o->top1[o->n_scored - 1] = false;
    }
    if (w->sample.turns[w->turn].metric == KEPT_METRIC_CHOICE)
        kept_choice_first(w, v, logits);
}

static void visit_next(kept_work *w, int v, const float *logits)
{
    w->out[v].next = kept_argmax(logits, w->job->info->n_vocab);
    if (w->out[v].next < 0)
        kept_outcome_fail(&w->out[v], "the model's output is not finite");
}

static void visit_score(kept_work *w, int v, const float *logits)
{
    compare(w, v, logits, w->suffix[w->at + 1]);
}

void kept_feed_all(kept_work *w, const int32_t *tokens)
{
    for (int v = 0; v < w->job->n_variants; v++)
        w->feed[v] = tokens;
}

/* Takes the token every active variant chose; returns how many variants go on. */
static int take_tokens(kept_work *w)
{
    int n_active = 0;
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        if (!o->active)
            continue;
        kept_reply *r = &o->replies[w->turn];
        r->ended = kept_token_is_end(w->job->model, o->next);
        if (!r->ended)
            r->tokens[r->n_new++] = o->next;
        o->active = !r->ended && r->n_new < w->sample.turns[w->turn].max_new_tokens;
        w->feed[v] = &o->next;
        n_active += o->active;
    }
    return n_active;
}

void kept_wake(kept_work *w)
{
    for (int v = 0; v < w->job->n_variants; v++)
        w->out[v].active = w->out[v].seq != NULL;
}

static int first_difference(const kept_reply *a, const kept_reply *b)
{
    int n = a->n_new < b->n_new ? a->n_new : b->n_new;
    for (int i = 0; i < n; i++)
        if (a->tokens[i] != b->tokens[i])
            return i;
    return a->n_new == b->n_new && a->ended == b->ended ? -1 : n;
}

/* Text and score of the turn's answer; a variant that has failed scores 0. */
static kept_status finish_turn(kept_work *w, kept_error *err)
{
    const kept_turn *t = &w->sample.turns[w->turn];
    const kept_reference ref = {t->answers, t->n_answers, t->labels, t->n_labels};
    const kept_outcome *full = &w->out[KEPT_VARIANT_FULL];
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        kept_reply *r = &o->replies[w->turn];
        if (!r->text) {
            size_t len = kept_detokenize(w->job->model, r->tokens, r->n_new, false, NULL, 0);
            r->text = kept_calloc(len + 1, 1);
            if (!r->text)
                return kept_fail(err, KEPT_NOMEM, "out of memory for an answer");
            kept_detokenize(w->job->model, r->tokens, r->n_new, false, r->text, len + 1);
        }
        if (!o->failed)
            r->score = kept_metric_score(t->metric, r->text, &ref);
        o->score += r->score / w->sample.n_turns;
        if (!full->failed)
            r->diverged = first_difference(&full->replies[w->turn], r);
    }
    return KEPT_OK;
}

/* What each variant still has of what this turn is about. */
static void measure_turn(kept_work *w)
{
    const kept_turn_tokens *t = &w->tokens.turns[w->turn];
    double any;
    if (w->sample.n_turns < 2)
        return;
    kept_measure_set_evidence(w, t->evidence, t->n_evidence);
    for (int v = 0; v < w->job->n_variants; v++)
        if (w->out[v].seq)
            w->out[v].replies[w->turn].evidence = kept_measure_evidence(w, v, &any);
}

/* Feeds suffix[at..end); half a batch at most, so that both full caches share every pass. */
static kept_status feed_suffix(kept_work *w, int at, int end, kept_visit visit, kept_error *err)
{
    const int piece = w->job->max_batch / 2;
    while (at < end) {
        int n = end - at < piece ? end - at : piece;
        kept_feed_all(w, w->suffix + at);
        at += n;
        kept_status s = kept_feed(w, n, at == end ? visit : NULL, err);
        if (s)
            return s;
    }
    return KEPT_OK;
}

/* The turn before is over, for strategies that act on that. */
static void end_turn(kept_work *w)
{
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_error why = {.text = ""};
        if (w->out[v].active && kept_seq_end_turn(w->out[v].seq, &why))
            kept_outcome_fail(&w->out[v], why.text);
    }
}

/* The gold answer before, if there is one, and the question. */
static kept_status feed_question(kept_work *w, bool conversation, kept_error *err)
{
    const kept_turn_tokens *t = &w->tokens.turns[w->turn];
    kept_status s = KEPT_OK;
    w->have_reference = false;
    if (w->turn)
        s = feed_suffix(w, w->tokens.turns[w->turn - 1].end, t->question, NULL, err);
    if (!s && w->turn && conversation)
        end_turn(w);
    measure_turn(w);
    if (!s)
        s = feed_suffix(w, t->question, t->end, visit_first, err);
    if (!s)
        kept_measure_mass(w);
    return s;
}

static kept_status decode(kept_work *w, kept_error *err)
{
    for (int n = 1; w->sample.turns[w->turn].max_new_tokens > 0 && take_tokens(w); n++) {
        bool probing = w->out[KEPT_VARIANT_FLOOR].active; /* its last query is this step's */
        kept_status s = kept_feed(w, 1, visit_next, err);
        if (s)
            return s;
        if (probing && n % MASS_EVERY == 0)
            kept_measure_mass(w);
    }
    return KEPT_OK;
}

/* A conversation goes on with the whole answer: its last token was never fed if it hit the limit.
 */
static kept_status feed_last(kept_work *w, kept_error *err)
{
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        const kept_reply *r = &o->replies[w->turn];
        o->active = o->seq && !r->ended && r->n_new > 0;
        w->feed[v] = r->tokens + r->n_new - 1;
    }
    return kept_feed(w, 1, NULL, err);
}

/* One turn. What must not stay in the cache happens on copies; after the last nothing follows. */
static kept_status answer_turn(kept_work *w, kept_error *err)
{
    const kept_turn_mode mode = kept_task_turn_mode(w->job->tasks[w->task].task);
    const bool last = w->turn + 1 == w->sample.n_turns;
    const bool choice = w->sample.turns[w->turn].metric == KEPT_METRIC_CHOICE;
    kept_wake(w);
    if (!last && mode == KEPT_TURNS_REQUESTS)
        kept_branch(w);
    kept_status s = feed_question(w, mode != KEPT_TURNS_REQUESTS, err);
    if (s)
        return s;
    if (!last && mode == KEPT_TURNS_GOLD && !choice)
        kept_branch(w);
    s = choice ? kept_choose(w, err) : decode(w, err);
    if (!s)
        s = finish_turn(w, err);
    if (w->level)
        kept_unbranch(w);
    if (!s && !last && mode == KEPT_TURNS_OWN && !choice)
        s = feed_last(w, err);
    return s;
}

kept_status kept_answer_generate(kept_work *w, kept_error *err)
{
    kept_status s = KEPT_OK;
    for (w->turn = 0; w->turn < w->sample.n_turns && !s; w->turn++)
        s = answer_turn(w, err);
    w->turn = 0;
    return s;
}

kept_status kept_answer_score(kept_work *w, kept_error *err)
{
    kept_status first = kept_short_context(w, err);
    if (first)
        return first;
    for (w->at = 0; w->at + 1 < w->n_suffix; w->at++) {
        kept_feed_all(w, w->suffix + w->at);
        kept_status s = kept_feed(w, 1, visit_score, err);
        if (s)
            return s;
        if (w->at % MASS_EVERY == 0)
            kept_measure_mass(w);
    }
    return KEPT_OK;
}
