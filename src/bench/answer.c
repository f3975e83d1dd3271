/* answer: what happens after eviction. The suffix goes to every variant in common forward passes;
 * then either all variants answer greedily, each until its own end token, or all are fed the true
 * text token by token. The reference rides in the same batch, so comparing costs no second run.
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

/* Lowest id wins ties; -1: some logit is not a finite number. */
static int32_t argmax(const float *x, int n)
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
    o->next = argmax(logits, n_vocab);
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

static void visit_first(kept_work *w, int v, const float *logits)
{
    compare(w, v, logits, -1);
}

static void visit_next(kept_work *w, int v, const float *logits)
{
    w->out[v].next = argmax(logits, w->job->info->n_vocab);
    if (w->out[v].next < 0)
        kept_outcome_fail(&w->out[v], "the model's output is not finite");
}

static void visit_score(kept_work *w, int v, const float *logits)
{
    compare(w, v, logits, w->suffix[w->at + 1]);
}

static void feed_all(kept_work *w, const int32_t *tokens)
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
        o->ended = kept_token_is_end(w->job->model, o->next);
        if (!o->ended)
            o->tokens[o->n_new++] = o->next;
        o->active = !o->ended && o->n_new < w->sample.max_new_tokens;
        w->feed[v] = &o->next;
        n_active += o->active;
    }
    return n_active;
}

static int first_difference(const kept_outcome *a, const kept_outcome *b)
{
    int n = a->n_new < b->n_new ? a->n_new : b->n_new;
    for (int i = 0; i < n; i++)
        if (a->tokens[i] != b->tokens[i])
            return i;
    return a->n_new == b->n_new && a->ended == b->ended ? -1 : n;
}

static kept_status finish_answers(kept_work *w, kept_error *err)
{
    const kept_outcome *full = &w->out[KEPT_VARIANT_FULL];
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        size_t len = kept_detokenize(w->job->model, o->tokens, o->n_new, false, NULL, 0);
        o->text = kept_calloc(len + 1, 1);
        if (!o->text)
            return kept_fail(err, KEPT_NOMEM, "out of memory for an answer");
        kept_detokenize(w->job->model, o->tokens, o->n_new, false, o->text, len + 1);
        if (!o->failed)
            o->score = kept_score_match(o->text, w->sample.answers, w->sample.n_answers,
                                        w->sample.any_answer);
        if (!full->failed)
            o->diverged = first_difference(full, o);
    }
    return KEPT_OK;
}

kept_status kept_answer_generate(kept_work *w, kept_error *err)
{
    /* Half a batch at most, so that both full caches share every forward pass. */
    int piece = w->job->max_batch / 2;
    for (int at = 0; at < w->n_suffix;) {
        int n = w->n_suffix - at < piece ? w->n_suffix - at : piece;
        feed_all(w, w->suffix + at);
        at += n;
        kept_status s = kept_feed(w, n, at == w->n_suffix ? visit_first : NULL, err);
        if (s)
            return s;
    }
    kept_measure_mass(w);
    for (int n = 1; w->sample.max_new_tokens > 0 && take_tokens(w); n++) {
        bool probing = w->out[KEPT_VARIANT_FLOOR].active; /* its last query is this step's */
        kept_status s = kept_feed(w, 1, visit_next, err);
        if (s)
            return s;
        if (probing && n % MASS_EVERY == 0)
            kept_measure_mass(w);
    }
    return finish_answers(w, err);
}

kept_status kept_answer_score(kept_work *w, kept_error *err)
{
    for (w->at = 0; w->at + 1 < w->n_suffix; w->at++) {
        feed_all(w, w->suffix + w->at);
        kept_status s = kept_feed(w, 1, visit_score, err);
        if (s)
            return s;
        if (w->at % MASS_EVERY == 0)
            kept_measure_mass(w);
    }
    return KEPT_OK;
}
