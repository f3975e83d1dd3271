/* cal_split: how one budget of bytes is best split between eviction and precision, for the codec
 * `searched`: a text is read, cut by snapkv to a budget with pages in each form (the fewer bits,
 * the more slots), and goes on for a 17th of its length; the KL of their distributions to those of
 * the full cache.
 */
#include "train/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_BUDGETS = 5, N_FORMS = KEPT_N_SEARCHED };
/* Tokens at the end of a document that are scored. */
static int scored(const kept_train_job *j)
{
    return j->length / 17;
}

static const double budget[N_BUDGETS] = {50, 25, 12.5, 6.25, 3.125};

typedef struct splits {
    double *kl[2]; /* [N_BUDGETS][N_FORMS] sums over documents; the second of those held out */
    double *n[2];  /* [1] documents */
    kept_strategy *strategy[N_BUDGETS * N_FORMS];
    float *full; /* [scored][n_vocab] logits of the full cache */
} splits;

static void close_split(kept_train_job *j)
{
    splits *s = j->own;
    for (int i = 0; s && i < N_BUDGETS * N_FORMS; i++)
        kept_strategy_free(s->strategy[i]);
    if (s)
        free(s->full);
    free(s);
}

static kept_status open_split(kept_train_job *j, kept_error *err)
{
    static const char *const name[2][2] = {{"kl", "n"}, {"held-kl", "held-n"}};
    splits *s = j->own = kept_calloc(1, sizeof *s);
    bool ok = s != NULL;
    for (int i = 0; i < 2 && s; i++) {
        s->kl[i] = kept_train_state(j, name[i][0], N_BUDGETS * N_FORMS, sizeof(double));
        s->n[i] = kept_train_state(j, name[i][1], 1, sizeof(double));
        ok = ok && s->kl[i] && s->n[i];
    }
    if (s)
        s->full = kept_calloc((size_t)scored(j) * (size_t)j->info->n_vocab, sizeof *s->full);
    if (!ok || !s->full)
        return kept_fail(err, KEPT_NOMEM, "no memory for logits");
    for (int i = 0; i < N_BUDGETS * N_FORMS; i++) {
        char spec[64];
        const int k = kept_searched_codec[i % N_FORMS];
        snprintf(spec, sizeof spec, "snapkv+store(k=%s)@%.9g%%", kept_codec_get(k)->name,
                 budget[i / N_FORMS]);
        kept_status st = kept_strategy_parse(spec, &s->strategy[i], err);
        st = st ? st : kept_strategy_fits(s->strategy[i], j->head_size, err);
        if (st)
            return st;
    }
    return KEPT_OK;
}

/* Logits of the scored tokens of a document over what seq holds. Borrowed. */
static kept_status go_on(kept_train_job *j, kept_seq *seq, const int32_t *tokens,
                         const float **logits, kept_error *err)
{
    const kept_item it = {.seq = seq,
                          .tokens = tokens + j->length - scored(j),
                          .n_tokens = scored(j),
                          .n_logits = scored(j),
                          .prefill = true};
    const kept_status st = kept_engine_forward(j->engine, &it, 1, err);
    *logits = st ? NULL : kept_engine_logits(j->engine);
    return st;
}

/* One sequence that goes on from base under a strategy (NULL: full). */
static kept_status branch(kept_train_job *j, kept_seq *base, const kept_strategy *strategy,
                          const int32_t *tokens, double *kl, kept_error *err)
{
    splits *s = j->own;
    const size_t n = (size_t)scored(j) * (size_t)j->info->n_vocab;
    const float *logits = NULL;
    kept_seq *seq = NULL;
    kept_status st = kept_seq_fork(base, strategy, NULL, j->o->seed, &seq, err);
    if (!st)
        st = kept_seq_end_prefill(seq, err);
    if (!st)
        st = go_on(j, seq, tokens, &logits, err);
    if (!st && strategy)
        *kl += kept_fit_kl(s->full, logits, scored(j), j->info->n_vocab);
    else if (!st)
        memcpy(s->full, logits, n * sizeof *logits);
    kept_seq_free(seq);
    return st;
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    splits *s = j->own;
    kept_capture cap = {0};
    kept_seq *base = NULL;
    double kl[N_BUDGETS * N_FORMS] = {0};
    (void)i;
    kept_status st = kept_strategy_needs(s->strategy[0], &cap, err);
    if (!st)
        st = kept_seq_new(j->engine, NULL, &cap, j->o->seed, &base, err);
    if (!st)
        st = kept_train_feed(j, base, tokens, j->length - scored(j), err);
    if (!st)
        st = kept_train_tick(j, 0.3, err);
    if (!st)
        st = branch(j, base, NULL, tokens, NULL, err);
    for (int k = 0; k < N_BUDGETS * N_FORMS && !st; k++) {
        st = branch(j, base, s->strategy[k], tokens, &kl[k], err);
        if (!st)
            st = kept_train_tick(j, 0.3 + 0.7 * (k + 1) / (N_BUDGETS * N_FORMS + 1), err);
    }
    kept_seq_free(base);
    for (int k = 0; k < N_BUDGETS * N_FORMS && !st; k++)
        s->kl[held][k] += kl[k];
    *s->n[held] += !st;
    return st;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    const splits *s = j->own;
    double kl[N_BUDGETS * N_FORMS];
    for (int k = 0; k < N_BUDGETS * N_FORMS; k++)
        kl[k] = s->kl[0][k] / fmax(1, *s->n[0]);
    kept_status st = kept_train_put(out, "budget", budget, N_BUDGETS, err);
    if (!st)
        st = kept_train_put(out, "kl", kl, N_BUDGETS * N_FORMS, err);
    for (int b = 0; b < N_BUDGETS && !st; b++) {
        int best = 0;
        char key[40];
        for (int f = 1; f < N_FORMS; f++)
            best = kl[b * N_FORMS + f] < kl[b * N_FORMS + best] ? f : best;
        snprintf(key, sizeof key, "best-at-%.9g", budget[b]);
        st =
            kept_train_note(out, err, key, "%s: KL %.4f, f16 %.4f; held out %.4f, f16 %.4f",
                            kept_codec_get(kept_searched_codec[best])->name, kl[b * N_FORMS + best],
                            kl[b * N_FORMS], s->kl[1][b * N_FORMS + best] / fmax(1, *s->n[1]),
                            s->kl[1][b * N_FORMS] / fmax(1, *s->n[1]));
    }
    return st;
}

const kept_trainer kept_trainer_split = {
    .kind = {.name = "split",
             .calibrates = true,
             .reads_text = true,
             .summary = "how a budget is best split between eviction and bits: KL of snapkv in "
                        "every form at five budgets",
             .paper = "",
             .deviations = "",
             .n_tokens = 3264,
             .length = 1088},
    .n_held = 1,
    .n_seqs = 2,
    .open = open_split,
    .document = document,
    .finish = finish,
    .close = close_split,
};
