/* cal_bits: how much the model minds each form of every KV head, for the codec `calibrated`.
 *
 * A layer: the KL of a text's last 16th to the full cache when the pages of that layer alone are
 * stored as rot3. Keys, or values, of a head: their part of that, by the squares of what the
 * outputs of its last queries lose with them alone in a form, over the exact cache, beside the sum
 * of what keys and values of all heads of the layer lose in rot3.
 */
#include "train/job.h"

#include "model/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_FORMS = 4, QUERIES = 64, P64 = KEPT_PAGE_SLOTS };
static const uint8_t form[N_FORMS] = {KEPT_Q8, KEPT_ROT4, KEPT_ROT3, KEPT_ROT2};

static int last_queries(const double *options)
{
    (void)options;
    return QUERIES;
}

static const kept_score eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "bits"},
                                .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
                                .recent = last_queries};

typedef struct bits {
    double *lost[2]; /* [2][N_FORMS][n_layers][n_heads] squares, of keys and of values; the second
                        of documents held out */
    double *kl[2];   /* [n_layers] sums over documents */
    double *n[2];    /* [1] documents */
    float *full;     /* [tail][n_vocab] logits of the full cache */
    bool held;
    float *key, *turned;    /* [n][D], [D][n] of the head as it is stored; n = length */
    float *row;             /* [P64][D] values of a page, or queries */
    float *prob;            /* [QUERIES][n] */
    float *exact, *out;     /* [G][QUERIES][D], [QUERIES][D] */
    uint8_t *page, *packed; /* F16 pages */
} bits;

static int tail(const kept_train_job *j)
{
    return j->length / 16;
}

static size_t n_kv(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads;
}

static void close_bits(kept_train_job *j)
{
    bits *b = j->own;
    if (!b)
        return;
    free(b->key);
    free(b->turned);
    free(b->row);
    free(b->full);
    free(b->prob);
    free(b->exact);
    free(b->out);
    free(b->page);
    free(b->packed);
    free(b);
}

static kept_status open_bits(kept_train_job *j, kept_error *err)
{
    static const char *const name[2][3] = {{"lost", "kl", "n"}, {"held-lost", "held-kl", "held-n"}};
    const size_t n = (size_t)j->length, D = (size_t)j->head_size;
    bool ok = true;
    bits *b = j->own = kept_calloc(1, sizeof *b);
    for (int i = 0; i < 2 && b; i++) {
        b->lost[i] = kept_train_state(j, name[i][0], 2 * N_FORMS * n_kv(j), sizeof(double));
        b->kl[i] = kept_train_state(j, name[i][1], (size_t)j->n_layers, sizeof(double));
        b->n[i] = kept_train_state(j, name[i][2], 1, sizeof(double));
        ok = ok && b->lost[i] && b->kl[i] && b->n[i];
    }
    if (b) {
        b->key = kept_calloc(n * D, sizeof *b->key);
        b->turned = kept_calloc(n * D, sizeof *b->turned);
        b->row = kept_calloc(P64 * D, sizeof *b->row);
        b->prob = kept_calloc(QUERIES * n, sizeof *b->prob);
        b->exact = kept_calloc((size_t)j->group * QUERIES * D, sizeof *b->exact);
        b->out = kept_calloc(QUERIES * D, sizeof *b->out);
        b->full = kept_calloc((size_t)tail(j) * (size_t)j->info->n_vocab, sizeof *b->full);
        b->page = kept_aligned(64, kept_page_bytes((int)D));
        b->packed = kept_aligned(64, kept_page_bytes((int)D));
    }
    return b && ok && b->key && b->turned && b->row && b->prob && b->exact && b->out && b->full &&
                   b->page && b->packed
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "no memory for what heads lose");
}

/* Keys and values of the head, its full pages in that form. */
static void store(const bits *b, const kept_view *v, const kept_view_head *h, kept_codecs c)
{
    const int D = v->head_size;
    const kept_packed to = {.at = b->packed, .c = c, .head_size = D};
    memcpy(b->key, h->key, (size_t)h->n * (size_t)D * sizeof *b->key);
    for (int at = 0; at < h->n; at += P64) {
        const int m = h->n - at < P64 ? h->n - at : P64;
        const float *value = h->value + (size_t)at * (size_t)D;
        if (m == P64 && !kept_codec_is_f16(c)) {
            for (int i = 0; i < P64; i++)
                v->kern->put(b->page, D, i, h->key + (size_t)(at + i) * (size_t)D,
                             value + (size_t)i * (size_t)D);
            kept_codec_pack(to, b->page);
            kept_codec_read(to, 0, P64, b->key + (size_t)at * (size_t)D, b->row);
            value = b->row;
        }
        for (int i = 0; i < m; i++)
            for (int d = 0; d < D; d++)
                b->turned[(size_t)d * (size_t)h->n + (size_t)(at + i)] = value[i * D + d];
    }
}

/* Logits become the causal softmax of the query at position pos. */
static void soft_max(const kept_view_head *h, int32_t pos, float scale, float *x)
{
    double sum = 0;
    float top = -INFINITY;
    int seen = 0;
    for (; seen < h->n && h->pos[seen] <= pos; seen++)
        top = fmaxf(top, x[seen] *= scale);
    for (int i = 0; i < seen; i++)
        sum += x[i] = expf(x[i] - top);
    for (int i = 0; i < h->n; i++)
        x[i] = i < seen ? (float)(x[i] / sum) : 0;
}

/* Outputs of the recent queries of query head g over what is stored, [n_recent][D] into out. */
static void attend(const bits *b, const kept_view *v, const kept_view_head *h, int g, float *out)
{
    const size_t D = (size_t)v->head_size, n = (size_t)h->n;
    for (int t = 0; t < v->n_recent; t++) /* rows of a query head lie apart */
        memcpy(b->row + (size_t)t * D, h->query + ((size_t)t * (size_t)v->group + (size_t)g) * D,
               D * sizeof *b->row);
    kept_dots(v, v->n_recent, h->n, v->head_size, b->row, b->key, b->prob, h->n);
    for (int t = 0; t < v->n_recent; t++)
        soft_max(h, v->next_pos - v->n_recent + t, v->attn_scale, b->prob + (size_t)t * n);
    kept_dots(v, v->n_recent, v->head_size, h->n, b->prob, b->turned, out, v->head_size);
}

static void see(void *ctx, const kept_view *v, int head)
{
    const bits *b = ctx;
    const kept_view_head *h = &v->heads[head];
    const size_t D = (size_t)v->head_size, m = (size_t)v->n_recent * D;
    const size_t kv = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    const size_t all = (size_t)v->n_layers * (size_t)v->n_heads;
    store(b, v, h, (kept_codecs){KEPT_F16, KEPT_F16});
    for (int g = 0; g < v->group; g++) {
        float *exact = b->exact + (size_t)g * QUERIES * D;
        attend(b, v, h, g, exact);
    }
    for (int f = 0; f < 2 * N_FORMS; f++) {
        const uint8_t codec = form[f % N_FORMS];
        double lost = 0;
        store(b, v, h,
              f < N_FORMS ? (kept_codecs){codec, KEPT_F16} : (kept_codecs){KEPT_F16, codec});
        for (int g = 0; g < v->group; g++) {
            const float *exact = b->exact + (size_t)g * QUERIES * D;
            attend(b, v, h, g, b->out);
            for (size_t i = 0; i < m; i++)
                lost += pow((double)exact[i] - (double)b->out[i], 2);
        }
        b->lost[b->held][(size_t)f * all + kv] += lost;
    }
}

/* The text goes on from base, with a layer in rot3 (-1: the full cache). */
static kept_status branch(kept_train_job *j, kept_seq *base, int layer, const int32_t *tokens,
                          kept_error *err)
{
    bits *b = j->own;
    kept_seq *seq = NULL;
    kept_status st = kept_seq_fork(base, NULL, NULL, j->o->seed, &seq, err);
    for (int h = 0; h < j->n_heads && layer >= 0 && !st; h++)
        if (kept_cache_pack(seq->cache, layer, h, (kept_codecs){KEPT_ROT3, KEPT_ROT3}, 0, NULL))
            st = kept_fail(err, KEPT_FULL, "no room for packed pages");
    kept_item it = {.seq = seq,
                    .tokens = tokens + j->length - tail(j),
                    .n_tokens = tail(j),
                    .n_logits = tail(j),
                    .prefill = true};
    if (!st)
        st = kept_engine_forward(j->engine, &it, 1, err);
    const float *logits = st ? NULL : kept_engine_logits(j->engine);
    if (!st && layer < 0)
        memcpy(b->full, logits, (size_t)tail(j) * (size_t)j->info->n_vocab * sizeof *logits);
    else if (!st)
        b->kl[b->held][layer] += kept_fit_kl(b->full, logits, tail(j), j->info->n_vocab);
    kept_seq_free(seq);
    return st;
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    bits *b = j->own;
    kept_seq *seq;
    (void)i;
    b->held = held;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    st = kept_train_feed(j, seq, tokens, j->length - tail(j), err);
    if (!st)
        st = kept_train_tick(j, 0.3, err);
    if (!st)
        st = kept_train_look(j, seq, true, see, b, err);
    for (int l = -1; l < j->n_layers && !st; l++) {
        if (l < 0 || !j->info->windowed[l])
            st = branch(j, seq, l, tokens, err);
        if (!st)
            st = kept_train_tick(j, 0.4 + 0.6 * (l + 1) / (j->n_layers + 1), err);
    }
    *b->n[held] += !st;
    kept_seq_free(seq);
    return st;
}

/* What heads lose with keys, or from f = N_FORMS on with values, in a form, in nats: [n_layers]
 * [n_heads] into x. Returns the sum. */
static double losses(const kept_train_job *j, int side, size_t f, float *x)
{
    enum { REFERENCE = 2 }; /* rot3 */
    const bits *b = j->own;
    const size_t heads = (size_t)j->n_heads, all = n_kv(j);
    double sum = 0;
    for (size_t l = 0; l < (size_t)j->n_layers; l++) {
        const double kl = b->kl[side][l] / fmax(1, *b->n[side]);
        double layer = 0;
        for (size_t h = 0; h < heads; h++)
            layer += b->lost[side][REFERENCE * all + l * heads + h] +
                     b->lost[side][(N_FORMS + REFERENCE) * all + l * heads + h];
        for (size_t h = l * heads; h < (l + 1) * heads; h++) {
            x[h] = layer > 0 ? (float)(kl * b->lost[side][f * all + h] / layer) : 0;
            sum += x[h];
        }
    }
    return sum;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    const size_t all = n_kv(j);
    float *x = kept_calloc(2 * all + 1, sizeof *x), *y = x ? x + all : NULL;
    int32_t *work = kept_calloc(4 * all + 1, sizeof *work);
    kept_status st = x && work ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for heads");
    for (size_t f = 0; f < 2 * N_FORMS && !st; f++) {
        const double sum = losses(j, 0, f, x);
        char name[16], key[40];
        snprintf(name, sizeof name, "%c-%s", f < N_FORMS ? 'k' : 'v',
                 kept_codec_get(form[f % N_FORMS])->name);
        losses(j, 1, f, y);
        st = kept_trained_put(out, name, x, all, err);
        snprintf(key, sizeof key, "lost-%s", name);
        if (!st)
            st = kept_train_note(out, err, key, "%.6f", sum);
        snprintf(key, sizeof key, "held-out-spearman-%s", name);
        if (!st)
            st = kept_train_note(out, err, key, "%.4f", kept_fit_spearman(x, y, (int)all, work));
    }
    free(x);
    free(work);
    return st;
}

const kept_trainer kept_trainer_bits = {
    .kind =
        {.name = "bits",
         .calibrates = true,
         .reads_text = true,
         .summary =
             "what the output loses with keys or values of each KV head in q8, rot4, rot3, rot2",
         .paper = "",
         .deviations = "",
         .n_tokens = 4096,
         .length = 1024},
    .n_held = 2,
    .n_seqs = 2,
    .eyes = &eyes,
    .open = open_bits,
    .document = document,
    .finish = finish,
    .close = close_bits,
};
