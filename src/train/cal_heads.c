/* cal_heads: tables of heads: "duo" (which need the whole cache), "headkv" (which look things up)
 * and "lu-kv" (how much of the future each keeps at which budget). One number, or row, per KV head.
 */
#include "train/job.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static size_t n_kv(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads;
}

static size_t kv_of(const kept_view *v, int head)
{
    return (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
}

static int recent_512(const double *options)
{
    (void)options;
    return 512;
}

/* ---- duo ------------------------------------------------------------------------------------
 * The paper trains a gate per head so that outputs with some heads reduced to sinks and a window
 * stay the same, on prompts with passkeys to repeat. Here each head is reduced alone, in closed
 * form: alpha is the share of its output (mean square over the queries of a passage that the
 * document has seen before) that is lost. */

enum { DUO_SINKS = 64, DUO_WINDOW = 256 };

static const kept_score duo_eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "duo"},
                                    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
                                    .recent = recent_512};

enum { ROWS = 64 };

typedef struct duo {
    double *lost, *all; /* [n_layers][n_heads] squares */
    double *held_lost;  /* the same of held-out documents */
    double *held_all;
    bool held;
    int n_recent; /* queries of the repeated passage */
    /* products of ROWS queries at once; n = length */
    float *turned;      /* [D][n] values of the head */
    float *query;       /* [ROWS][D] */
    int32_t *pos;       /* [ROWS] */
    float *full, *kept; /* [ROWS][n] probabilities, those of slots that stay */
    float *out;         /* [2][ROWS][D] */
} duo;

static kept_status open_duo(kept_train_job *j, kept_error *err)
{
    duo *d = j->own = kept_calloc(1, sizeof *d);
    size_t n = (size_t)j->length, D = (size_t)j->head_size;
    if (d) {
        d->lost = kept_train_state(j, "lost", n_kv(j), sizeof(double));
        d->all = kept_train_state(j, "all", n_kv(j), sizeof(double));
        d->held_lost = kept_train_state(j, "held-lost", n_kv(j), sizeof(double));
        d->held_all = kept_train_state(j, "held-all", n_kv(j), sizeof(double));
        d->turned = kept_calloc(D * n, sizeof *d->turned);
        d->query = kept_calloc(ROWS * D, sizeof *d->query);
        d->pos = kept_calloc(ROWS, sizeof *d->pos);
        d->full = kept_calloc(2 * ROWS * n, sizeof *d->full);
        d->out = kept_calloc(2 * ROWS * D, sizeof *d->out);
        d->kept = d->full ? d->full + ROWS * n : NULL;
    }
    return d && d->lost && d->all && d->held_lost && d->held_all && d->turned && d->query &&
                   d->pos && d->full && d->out
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "no memory for heads");
}

static void close_duo(kept_train_job *j)
{
    duo *d = j->own;
    if (!d)
        return;
    free(d->turned);
    free(d->query);
    free(d->pos);
    free(d->full);
    free(d->out);
    free(d);
}

static void close_own(kept_train_job *j)
{
    free(j->own);
}

/* Logits p [n] of a query at pos become its causal softmax; q [n] that of the slots that stay in a
 * streaming head, with the same normaliser. Returns the sum of q. */
static double soft_max(const kept_view_head *h, int32_t pos, float scale, float *p, float *q)
{
    double sum = 0, mass = 0;
    float top = -INFINITY;
    int seen = 0;
    for (; seen < h->n && h->pos[seen] <= pos; seen++) {
        p[seen] *= scale;
        top = fmaxf(top, p[seen]);
    }
    for (int i = 0; i < seen; i++)
        sum += p[i] = expf(p[i] - top);
    for (int i = 0; i < h->n; i++) {
        bool stays = h->pos[i] < DUO_SINKS || h->pos[i] > pos - DUO_WINDOW;
        p[i] = i < seen ? (float)(p[i] / sum) : 0;
        q[i] = stays ? p[i] : 0;
        mass += q[i];
    }
    return mass;
}

/* Adds what m query rows lose to *lost, and the squares of their outputs to *all. */
static void reduce(const duo *d, const kept_view *v, const kept_view_head *h, int m, double *lost,
                   double *all)
{
    int D = v->head_size, n = h->n;
    double mass[ROWS];
    kept_dots(v, m, n, D, d->query, h->key, d->full, n);
    for (int r = 0; r < m; r++)
        mass[r] = soft_max(h, d->pos[r], v->attn_scale, d->full + (size_t)r * (size_t)n,
                           d->kept + (size_t)r * (size_t)n);
    kept_dots(v, m, D, n, d->full, d->turned, d->out, D);
    kept_dots(v, m, D, n, d->kept, d->turned, d->out + ROWS * D, D);
    for (int r = 0; r < m; r++)
        for (int k = 0; k < D; k++) {
            double whole = d->out[r * D + k], part = d->out[(ROWS + r) * D + k];
            part = mass[r] > 0 ? part / mass[r] : 0;
            *lost += (whole - part) * (whole - part);
            *all += whole * whole;
        }
}

static void see_duo(void *ctx, const kept_view *v, int head)
{
    const duo *d = ctx;
    const kept_view_head *h = &v->heads[head];
    size_t kv = kv_of(v, head), D = (size_t)v->head_size, n = (size_t)h->n;
    double *lost = (d->held ? d->held_lost : d->lost) + kv;
    double *all = (d->held ? d->held_all : d->all) + kv;
    int m = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < D; k++)
            d->turned[k * n + i] = h->value[i * D + k];
    /* Every fourth query is enough: neighbours look at the same things. */
    for (int t = v->n_recent - d->n_recent; t < v->n_recent; t += 4)
        for (int g = 0; g < v->group; g++) {
            size_t row = (size_t)t * (size_t)v->group + (size_t)g;
            memcpy(d->query + (size_t)m * D, h->query + row * D, D * sizeof *d->query);
            d->pos[m++] = v->next_pos - v->n_recent + t;
            if (m == ROWS) {
                reduce(d, v, h, m, lost, all);
                m = 0;
            }
        }
    if (m)
        reduce(d, v, h, m, lost, all);
}

static kept_status document_duo(kept_train_job *j, int i, bool held, const int32_t *tokens,
                                kept_error *err)
{
    duo *d = j->own;
    kept_seq *seq;
    kept_rng rng;
    int n = j->length / 4 < 512 ? j->length / 4 : 512;
    kept_rng_init(&rng, kept_hash64(&i, sizeof i, j->o->seed));
    int from = (int)kept_rng_below(&rng, (uint32_t)(j->length / 2 - n + 1));
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    d->held = held;
    d->n_recent = n;
    st = kept_train_feed(j, seq, tokens, j->length - n, err);
    if (!st)
        st = kept_train_feed(j, seq, tokens + from, n, err);
    if (!st)
        st = kept_train_tick(j, 0.5, err);
    if (!st)
        st = kept_train_look(j, seq, true, see_duo, d, err);
    kept_seq_free(seq);
    return st;
}

static kept_status finish_duo(kept_train_job *j, kept_trained *out, kept_error *err)
{
    duo *d = j->own;
    float *a = kept_calloc(4 * n_kv(j) + 1, sizeof *a), *b = a ? a + n_kv(j) : NULL;
    if (!a)
        return kept_fail(err, KEPT_NOMEM, "no memory for heads");
    for (size_t h = 0; h < n_kv(j); h++) {
        d->lost[h] = d->all[h] > 0 ? fmin(1, d->lost[h] / d->all[h]) : 0;
        a[h] = (float)d->lost[h];
        b[h] = d->held_all[h] > 0 ? (float)fmin(1, d->held_lost[h] / d->held_all[h]) : 0;
    }
    int32_t *work = kept_calloc(4 * n_kv(j) + 1, sizeof *work);
    kept_status st = work ? kept_train_put(out, "alpha", d->lost, n_kv(j), err) : KEPT_NOMEM;
    if (!st)
        st = kept_train_note(out, err, "held-out-spearman", "%.4f",
                             kept_fit_spearman(a, b, (int)n_kv(j), work));
    free(a);
    free(work);
    return st;
}

const kept_trainer kept_trainer_duo = {
    .kind = {.name = "duo",
             .calibrates = true,
             .reads_text = true,
             .summary = "how much of its output each KV head loses with sinks and a window alone",
             .paper = "arXiv 2410.10819",
             .deviations = "each head is reduced alone and its loss measured; the paper optimises "
                           "all gates together. Documents repeat a passage of theirs instead of "
                           "passkeys",
             .n_tokens = 6144,
             .length = 2048},
    .n_held = 2,
    .eyes = &duo_eyes,
    .open = open_duo,
    .document = document_duo,
    .finish = finish_duo,
    .close = close_duo,
};

/* ---- headkv ---------------------------------------------------------------------------------
 * The retrieval score of a query head: the attention that it pays the needle while the answer to a
 * needle prompt is read, as far as these tokens are among the `needle's length` most attended ones.
 * Needles come from the task of the same kind, under seeds of their own. */

static int recent_64(const double *options)
{
    (void)options;
    return 64;
}

static const kept_score headkv_eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "headkv"},
                                       .needs = KEPT_NEED_KEYS,
                                       .recent = recent_64};

typedef struct headkv {
    double *score, *held; /* [n_layers][n_heads][G] sums */
    double *to;           /* of the document in hand */
    const kept_tokens *tokens;
    int n_answer;
} headkv;

static kept_status open_headkv(kept_train_job *j, kept_error *err)
{
    headkv *k = j->own = kept_calloc(1, sizeof *k);
    size_t n = n_kv(j) * (size_t)j->group;
    if (k) {
        k->score = kept_train_state(j, "score", n, sizeof(double));
        k->held = kept_train_state(j, "held", n, sizeof(double));
    }
    return k && k->score && k->held ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for heads");
}

static int compare_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* Share of row p [n] that lies on the evidence, where it is among the row's m largest; scratch [n].
 */
static double on_needle(const float *p, int n, const int32_t *evidence, int m, float *scratch)
{
    double sum = 0;
    m = m < n ? m : n;
    memcpy(scratch, p, (size_t)n * sizeof *p);
    qsort(scratch, (size_t)n, sizeof *scratch, compare_float);
    for (int i = 0; i < m; i++)
        if (evidence[i] < n && p[evidence[i]] >= scratch[m - 1])
            sum += p[evidence[i]];
    return sum;
}

static void see_headkv(void *ctx, const kept_view *v, int head)
{
    headkv *k = ctx;
    const kept_view_head *h = &v->heads[head];
    int from = v->n_recent - k->n_answer;
    for (int t = from; t < v->n_recent; t++)
        for (int g = 0; g < v->group; g++) {
            size_t row = (size_t)t * (size_t)v->group + (size_t)g;
            k->to[kv_of(v, head) * (size_t)v->group + (size_t)g] +=
                on_needle(h->prob + row * (size_t)h->n, h->n, k->tokens->evidence,
                          k->tokens->n_evidence, v->scratch) /
                k->n_answer;
        }
}

static kept_status read_needle(kept_train_job *j, const kept_tokens *t, const char *answer,
                               kept_error *err)
{
    headkv *k = j->own;
    kept_seq *seq = NULL;
    int32_t *words = NULL;
    int n = 0;
    kept_status st =
        kept_prompt_tokens(j->model, answer, strlen(answer), false, false, &words, &n, err);
    if (!st && (n < 1 || t->n_evidence < 1))
        st = kept_fail(err, KEPT_ARGUMENT, "the tokenizer does not spell the needles");
    if (!st)
        st = kept_train_seq(j, &seq, err);
    /* The query before a token of the answer looks for it: the last token of the prompt does, the
     * last one of the answer does not. */
    k->tokens = t;
    k->n_answer = n < 64 ? n : 64;
    if (!st)
        st = kept_train_feed(j, seq, t->prefix, t->n_prefix, err);
    if (!st)
        st = kept_train_feed(j, seq, t->suffix, t->n_suffix, err);
    if (!st && n > 1)
        st = kept_train_feed(j, seq, words, k->n_answer - 1, err);
    if (!st)
        st = kept_train_look(j, seq, false, see_headkv, k, err);
    if (seq)
        kept_seq_free(seq);
    free(words);
    return st;
}

static kept_status document_headkv(kept_train_job *j, int i, bool held, const int32_t *none,
                                   kept_error *err)
{
    headkv *k = j->own;
    uint64_t key[3] = {j->o->seed, held, 0x6865616465726bu};
    kept_task_options o = {.name = "niah_multikey",
                           .length = j->length,
                           .n_samples = 1 << 20,
                           .seed = kept_hash64(key, sizeof key, 0)};
    kept_task *task = NULL;
    kept_sample sample = {0};
    kept_tokens tokens = {0};
    (void)none;
    k->to = held ? k->held : k->score;
    kept_status st = kept_task_open(&o, j->model, &task, err);
    if (!st)
        st = kept_task_get(task, i, &sample, err);
    if (!st)
        st = kept_task_tokenize(task, i, &sample, &tokens, err);
    if (!st)
        st = read_needle(j, &tokens, sample.turns[0].answers[0], err);
    kept_tokens_clear(&tokens);
    kept_sample_clear(&sample);
    kept_task_close(task);
    return st;
}

static kept_status finish_headkv(kept_train_job *j, kept_trained *out, kept_error *err)
{
    headkv *k = j->own;
    size_t G = (size_t)j->group;
    float *x = kept_calloc(2 * n_kv(j) + 1, sizeof *x), *y = x ? x + n_kv(j) : NULL;
    double *score = kept_calloc(n_kv(j) + 1, sizeof *score);
    int32_t *work = kept_calloc(4 * n_kv(j) + 1, sizeof *work);
    kept_status st = KEPT_NOMEM;
    for (size_t i = 0; x && score && work && i < n_kv(j); i++) {
        for (size_t g = 0; g < G; g++) {
            score[i] += k->score[i * G + g] / (double)(G * (size_t)j->n_docs);
            y[i] += (float)k->held[i * G + g];
        }
        x[i] = (float)score[i];
        st = KEPT_OK;
    }
    if (st)
        kept_fail(err, st, "no memory for heads");
    if (!st)
        st = kept_train_put(out, "score", score, n_kv(j), err);
    if (!st)
        st = kept_train_note(out, err, "held-out-spearman", "%.4f",
                             kept_fit_spearman(x, y, (int)n_kv(j), work));
    free(x);
    free(score);
    free(work);
    return st;
}

const kept_trainer kept_trainer_headkv = {
    .kind = {.name = "headkv",
             .calibrates = true,
             .summary = "how much each KV head looks at a needle while the answer is read",
             .paper = "arXiv 2410.19258",
             .deviations = "needles of niah_multikey (three distractors) in place of the paper's "
                           "reasoning prompts; scores of query heads are averaged",
             .n_tokens = 6144,
             .length = 1024},
    .n_held = 4,
    .eyes = &headkv_eyes,
    .open = open_headkv,
    .document = document_headkv,
    .finish = finish_headkv,
    .close = close_own,
};
