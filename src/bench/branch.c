/* branch: copies of all sequences on which something is tried that must not stay in their caches:
 * an answer that a conversation does not go on with, a request, a label whose likelihood is asked;
 * and the short context that tells which tokens need the long one. A copy shares pages until one
 * side changes them, so what is tried costs what it adds.
 */
#include "bench/job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SHORT_PIECE 64 /* tokens whose logits are asked for at once */
#define SHORT_LEAST 16 /* a shorter context tells nothing */

kept_seq *kept_copy_seq(kept_work *w, int v, const kept_strategy *s, const kept_capture *extra,
                        kept_error *err)
{
    kept_seq *copy = NULL;
    (void)kept_seq_fork(w->out[v].seq, s, extra, w->job->o->seed, &copy, err);
    return copy;
}

void kept_branch(kept_work *w)
{
    const kept_capture probe = {.n_planes = 1, .plane = {KEPT_PROBE}};
    w->level++;
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        kept_error why = {.text = ""};
        if (!o->active)
            continue;
        const kept_capture *extra = v == KEPT_VARIANT_FLOOR && w->job->probe ? &probe : NULL;
        kept_seq *copy = kept_copy_seq(w, v, w->job->variants[v].strategy, extra, &why);
        if (!copy) {
            kept_outcome_fail(o, why.text);
            continue;
        }
        o->trunk[o->n_trunks++] = o->seq;
        o->seq = copy;
    }
}

void kept_unbranch(kept_work *w)
{
    for (int v = 0; v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        if (o->n_trunks < w->level)
            continue;
        kept_seq_free(o->seq);
        o->seq = o->trunk[--o->n_trunks];
    }
    w->level--;
}

/* ---- choices --------------------------------------------------------------------------------- */

static double log_likelihood(const float *logits, int n_vocab, int32_t token)
{
    double most = -INFINITY, sum = 0;
    for (int i = 0; i < n_vocab; i++)
        most = logits[i] > most ? logits[i] : most;
    for (int i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - most);
    return (double)logits[token] - most - log(sum);
}

/* Feeds n tokens to a plain sequence and, unless nll is NULL, takes the NLL of what follows each.
 */
static kept_status read_plain(kept_work *w, kept_seq *seq, const int32_t *tokens, int n,
                              double *nll, kept_error *err)
{
    const int n_vocab = w->job->info->n_vocab;
    for (int at = 0; at < n; at += SHORT_PIECE) {
        const int m = n - at < SHORT_PIECE ? n - at : SHORT_PIECE;
        const kept_item item = {.seq = seq,
                                .tokens = tokens + at,
                                .n_tokens = m,
                                .n_logits = nll ? m : 0,
                                .prefill = true};
        kept_status s = kept_engine_forward(w->job->engine, &item, 1, err);
        if (s)
            return s;
        const float *logits = nll ? kept_engine_logits(w->job->engine) : NULL;
        for (int i = 0; nll && i < m; i++)
            nll[at + i] =
                -log_likelihood(logits + (size_t)i * (size_t)n_vocab, n_vocab, tokens[at + i + 1]);
    }
    return KEPT_OK;
}

kept_status kept_short_context(kept_work *w, kept_error *err)
{
    const int n = w->n_prefix / 8, n_scored = w->n_suffix - 1;
    const int32_t *prefix = w->tokens.prefix;
    kept_error why = {.text = ""};
    kept_seq *seq = NULL;
    if (n < SHORT_LEAST || n_scored < 1)
        return KEPT_OK;
    w->short_nll = kept_calloc((size_t)n_scored, sizeof *w->short_nll);
    if (!w->short_nll)
        return kept_fail(err, KEPT_NOMEM, "out of memory for key tokens");
    kept_status s = kept_seq_new(w->job->engine, NULL, NULL, 0, &seq, &why);
    if (!s) /* the first token may be BOS, which models expect */
        s = read_plain(w, seq, prefix, 1, NULL, &why);
    if (!s)
        s = read_plain(w, seq, prefix + w->n_prefix - n + 1, n - 1, NULL, &why);
    if (!s)
        s = read_plain(w, seq, w->suffix, n_scored, w->short_nll, &why);
    kept_seq_free(seq);
    if (!s)
        return KEPT_OK;
    free(w->short_nll);
    w->short_nll = NULL;
    return s == KEPT_FULL ? KEPT_OK : kept_fail(err, s, "%s", why.text);
}

static int label_begin(const kept_turn_tokens *t, int label)
{
    return label ? t->label_end[label - 1] : 0;
}

void kept_choice_first(kept_work *w, int v, const float *logits)
{
    const kept_turn_tokens *t = &w->tokens.turns[w->turn];
    for (int i = 0; i < w->sample.turns[w->turn].n_labels; i++)
        w->out[v].choice[i] =
            log_likelihood(logits, w->job->info->n_vocab, t->labels[label_begin(t, i)]);
}

static void visit_label(kept_work *w, int v, const float *logits)
{
    w->out[v].choice[w->label] +=
        log_likelihood(logits, w->job->info->n_vocab, w->tokens.turns[w->turn].labels[w->at + 1]);
}

static kept_status feed_label(kept_work *w, int label, kept_error *err)
{
    const kept_turn_tokens *t = &w->tokens.turns[w->turn];
    kept_status s = KEPT_OK;
    w->label = label;
    w->at = label_begin(t, label);
    if (w->at + 1 == t->label_end[label])
        return KEPT_OK; /* one token: its likelihood is known */
    kept_branch(w);
    for (; w->at + 1 < t->label_end[label] && !s; w->at++) {
        kept_feed_all(w, t->labels + w->at);
        s = kept_feed(w, 1, visit_label, err);
    }
    kept_unbranch(w);
    return s;
}

kept_status kept_choose(kept_work *w, kept_error *err)
{
    const kept_turn *turn = &w->sample.turns[w->turn];
    const kept_turn_tokens *t = &w->tokens.turns[w->turn];
    kept_status s = KEPT_OK;
    for (int i = 0; i < turn->n_labels && !s; i++)
        s = feed_label(w, i, err);
    for (int v = 0; v < w->job->n_variants && !s; v++) {
        kept_outcome *o = &w->out[v];
        kept_reply *r = &o->replies[w->turn];
        int best = 0;
        if (o->failed)
            continue;
        for (int i = 1; i < turn->n_labels; i++)
            best = o->choice[i] > o->choice[best] ? i : best;
        const int begin = label_begin(t, best);
        r->n_new = t->label_end[best] - begin;
        memcpy(r->tokens, t->labels + begin, (size_t)r->n_new * sizeof *r->tokens);
        r->text = strdup(turn->labels[best]);
        if (!r->text)
            s = kept_fail(err, KEPT_NOMEM, "out of memory for an answer");
    }
    return s;
}
