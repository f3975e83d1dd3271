/* train_kvzap: "kvzap", arXiv 2601.07891: predicts the logarithm of a token's kvzip-plus score in
 * each KV head from the hidden state that the layer makes keys and values of. What the arrays mean
 * is in model/ahead.h.
 *
 * A document is read while its hidden states are tapped, then it is repeated (kept_seq_echo), and
 * what the repetition found is the target. linear: ridge regression in closed form, from sums over
 * all documents. mlp: every document is gone through PASSES times by Adam while it is there, at a
 * rate that falls to 0 over the documents. Channels are standardised by what the first document
 * has, because a few of them are a hundred times as long as the others.
 */
#include "train/job.h"
#include "train/net.h"

#include "model/ahead.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RIDGE 0.01  /* of the rows: channels are of about unit variance */
#define LEAST 1e-9f /* scores below count as this */
#define RATE  2e-3
enum { PASSES = 6, PARTS = 3 };

static kept_plane echo_plus(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_ECHO_PLUS};
}

static const kept_score eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "kvzap"},
                                .plane = echo_plus};

typedef struct kvzap {
    kept_net net; /* of a layer; linear: n_hidden = n_out rows of w1 and b1 alone */
    size_t size;  /* floats of a layer's weights */
    const kept_kern *kern;
    /* state */
    float *mean, *scale; /* [n_layers][n_embd] of the first document */
    float *w;            /* [n_layers][size] */
    float *m1, *m2;      /* mlp: [n_layers][size] */
    int64_t *steps;      /* mlp: [1] batches of a layer so far */
    double *a, *b;       /* linear: [n_layers] of kept_ridge */
    double *seen; /* [n_layers][n_heads][5] held out: n, y, y^2, (y - p)^2, sum of Spearman */
    float *guess; /* [n_layers][n_heads][n_held][length] held out: predictions */
    /* of the document in hand */
    float *x, *y; /* [n_layers][length][n_embd], [n_layers][length][n_heads] */
    float *work, *grad, *batch, *to;
    int32_t *order;
} kvzap;

static bool is_linear(const kept_train_job *j)
{
    return j->variant == 0;
}

static size_t ridge_bytes(const kept_train_job *j)
{
    return (size_t)j->n_layers * kept_ridge_size(j->info->n_embd) * sizeof(double);
}

static bool allocate(kept_train_job *j, kvzap *k)
{
    size_t L = (size_t)j->n_layers, E = (size_t)j->info->n_embd, H = (size_t)j->n_heads;
    size_t n = (size_t)j->length, all = L * k->size;
    bool ok = (k->mean = kept_train_state(j, "mean", L * E, sizeof(float))) &&
              (k->scale = kept_train_state(j, "scale", L * E, sizeof(float))) &&
              (k->w = kept_train_state(j, "w", all, sizeof(float))) &&
              (k->seen = kept_train_state(j, "seen", L * H * 5, sizeof(double))) &&
              (k->guess = kept_train_state(j, "guess", L * H * (size_t)j->n_held * n, 4));
    if (is_linear(j))
        ok = ok && (k->a = kept_train_state(j, "a", ridge_bytes(j) / 8, 8)) &&
             (k->b = kept_train_state(j, "b", L * H * (E + 1), sizeof(double)));
    else
        ok = ok && (k->m1 = kept_train_state(j, "m1", all, sizeof(float))) &&
             (k->m2 = kept_train_state(j, "m2", all, sizeof(float))) &&
             (k->steps = kept_train_state(j, "steps", 1, sizeof *k->steps));
    size_t work = kept_net_work(&k->net), ridge = KEPT_NET_BATCH * (2 * E + 1);
    return ok && (k->x = kept_calloc(L * n * E, sizeof *k->x)) &&
           (k->y = kept_calloc(L * n * H, sizeof *k->y)) &&
           (k->work = kept_calloc(work > ridge ? work : ridge, sizeof *k->work)) &&
           (k->grad = kept_calloc(k->size, sizeof *k->grad)) &&
           (k->batch = kept_calloc(KEPT_NET_BATCH * E, sizeof *k->batch)) &&
           (k->to = kept_calloc(KEPT_NET_BATCH * H, sizeof *k->to)) &&
           (k->order = kept_calloc(4 * n, sizeof *k->order));
}

static kept_status open(kept_train_job *j, kept_error *err)
{
    kvzap *k = j->own = kept_calloc(1, sizeof *k);
    if (is_linear(j) && ridge_bytes(j) > (size_t)1 << 30)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the sums for %d layers of %d channels do not fit a checkpoint; train "
                         "--type mlp",
                         j->n_layers, j->info->n_embd);
    if (!k)
        return kept_fail(err, KEPT_NOMEM, "no memory to train");
    int E = j->info->n_embd, hidden = E / 8 > 8 ? E / 8 : 8;
    k->kern = kept_kern_get(j->o->isa);
    k->net = (kept_net){.n_in = E, .n_hidden = hidden, .n_out = j->n_heads};
    if (is_linear(j))
        k->net.n_hidden = j->n_heads;
    k->size = is_linear(j) ? (size_t)(E + 1) * (size_t)j->n_heads : kept_net_size(&k->net);
    return allocate(j, k) ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory to train");
}

static void close_kvzap(kept_train_job *j)
{
    kvzap *k = j->own;
    if (!k)
        return;
    void *all[] = {k->x, k->y, k->work, k->grad, k->batch, k->to, k->order};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(k);
}

/* ---- a document ------------------------------------------------------------------------------ */

static void tap(void *ctx, const kept_seq *s, int layer, int32_t pos0, int n, const float *x)
{
    const kept_train_job *j = ctx;
    const kvzap *k = j->own;
    size_t E = (size_t)j->info->n_embd;
    (void)s;
    memcpy(k->x + ((size_t)layer * (size_t)j->length + (size_t)pos0) * E, x,
           (size_t)n * E * sizeof *x);
}

static void see(void *ctx, const kept_view *v, int head)
{
    const kept_train_job *j = ctx;
    const kvzap *k = j->own;
    const kept_view_head *h = &v->heads[head];
    float *y = k->y + (size_t)v->layer * (size_t)j->length * (size_t)j->n_heads + head;
    for (int i = 0; i < h->n; i++)
        y[(size_t)i * (size_t)j->n_heads] = logf(fmaxf(h->mass[i], LEAST));
}

static kept_status collect(kept_train_job *j, const int32_t *tokens, kept_error *err)
{
    kept_seq *seq;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    kept_engine_tap(j->engine, tap, j);
    st = kept_train_feed(j, seq, tokens, j->length, err);
    kept_engine_tap(j->engine, NULL, NULL);
    if (!st)
        st = kept_train_tick(j, 0.3, err);
    if (!st)
        st = kept_seq_echo(seq, err);
    if (!st)
        st = kept_train_tick(j, 0.8, err);
    if (!st)
        st = kept_train_look(j, seq, false, see, j, err);
    kept_seq_free(seq);
    return st;
}

/* Mean and 1 / deviation of the channels of layer l, and for mlp where its answers start. */
static void standard(const kept_train_job *j, int l)
{
    const kvzap *k = j->own;
    int E = j->info->n_embd, n = j->length;
    const float *x = k->x + (size_t)l * (size_t)n * (size_t)E;
    float *mean = k->mean + (size_t)l * (size_t)E, *scale = k->scale + (size_t)l * (size_t)E;
    for (int i = 0; i < E; i++) {
        double sum = 0, square = 0;
        for (int t = 0; t < n; t++)
            sum += x[t * E + i];
        mean[i] = (float)(sum / n);
        for (int t = 0; t < n; t++)
            square += (x[t * E + i] - (double)mean[i]) * (x[t * E + i] - (double)mean[i]);
        scale[i] = square > 0 ? (float)(1 / sqrt(square / n)) : 0;
    }
    if (is_linear(j))
        return;
    kept_net net = k->net;
    net.w = k->w + (size_t)l * k->size;
    kept_net_init(&net, kept_hash64(&l, sizeof l, j->o->seed));
    const float *y = k->y + (size_t)l * (size_t)n * (size_t)net.n_out;
    for (int t = 0; t < n; t++)
        for (int h = 0; h < net.n_out; h++)
            kept_net_b2(&net)[h] += y[t * net.n_out + h] / (float)n;
}

/* Rows x [n][E] of layer l, standardised in place. */
static void standardise(const kept_train_job *j, int l)
{
    const kvzap *k = j->own;
    size_t E = (size_t)j->info->n_embd;
    float *x = k->x + (size_t)l * (size_t)j->length * E;
    const float *mean = k->mean + (size_t)l * E, *scale = k->scale + (size_t)l * E;
    for (int t = 0; t < j->length; t++, x += E)
        for (size_t i = 0; i < E; i++)
            x[i] = (x[i] - mean[i]) * scale[i];
}

static void add_linear(const kept_train_job *j, int l)
{
    const kvzap *k = j->own;
    size_t E = (size_t)j->info->n_embd, H = (size_t)j->n_heads, n = (size_t)j->length;
    const kept_ridge r = {.n_in = (int)E,
                          .n_out = (int)H,
                          .a = k->a + (size_t)l * kept_ridge_size((int)E),
                          .b = k->b + (size_t)l * H * (E + 1)};
    kept_ridge_add(&r, k->kern, k->x + (size_t)l * n * E, k->y + (size_t)l * n * H, (int)n,
                   k->work);
}

/* One pass over the document in the order that the seed draws. */
static void add_mlp(const kept_train_job *j, int l, double rate, int64_t step)
{
    const kvzap *k = j->own;
    size_t E = (size_t)j->info->n_embd, H = (size_t)j->n_heads, n = (size_t)j->length;
    const float *x = k->x + (size_t)l * n * E, *y = k->y + (size_t)l * n * H;
    kept_net net = k->net;
    net.w = k->w + (size_t)l * k->size;
    kept_net_fit fit = {.kern = k->kern,
                        .m1 = k->m1 + (size_t)l * k->size,
                        .m2 = k->m2 + (size_t)l * k->size,
                        .rate = rate,
                        .step = step,
                        .work = k->work,
                        .grad = k->grad};
    for (size_t at = 0; at < n; at += KEPT_NET_BATCH, fit.step++) {
        size_t m = n - at < KEPT_NET_BATCH ? n - at : KEPT_NET_BATCH;
        for (size_t t = 0; t < m; t++) {
            size_t from = (size_t)k->order[at + t];
            memcpy(k->batch + t * E, x + from * E, E * sizeof *x);
            memcpy(k->to + t * H, y + from * H, H * sizeof *y);
        }
        kept_net_step(&net, &fit, k->batch, k->to, (int)m);
    }
}

static void shuffle(const kept_train_job *j, int doc, int pass)
{
    const kvzap *k = j->own;
    uint64_t key[3] = {j->o->seed, (uint64_t)doc, (uint64_t)pass};
    kept_rng rng;
    kept_rng_init(&rng, kept_hash64(key, sizeof key, 0));
    for (int i = 0; i < j->length; i++)
        k->order[i] = i;
    for (int i = j->length - 1; i > 0; i--) {
        int at = (int)kept_rng_below(&rng, (uint32_t)i + 1), x = k->order[i];
        k->order[i] = k->order[at];
        k->order[at] = x;
    }
}

static void learn_mlp(const kept_train_job *j, int doc)
{
    const kvzap *k = j->own;
    int batches = (j->length + KEPT_NET_BATCH - 1) / KEPT_NET_BATCH;
    for (int pass = 0; pass < PASSES; pass++) {
        double part = (doc * PASSES + pass + 0.5) / (j->n_docs * PASSES);
        double rate = RATE * 0.5 * (1 + cos(3.14159265358979 * part));
        shuffle(j, doc, pass);
        for (int l = 0; l < j->n_layers; l++)
            if (!j->info->windowed[l])
                add_mlp(j, l, rate, k->steps[0] + 1);
        k->steps[0] += batches;
    }
}

/* ---- what it is worth ------------------------------------------------------------------------ */

/* out [length][n_heads] of layer l with what the file will hold. */
static void predict(const kept_train_job *j, int l, float *out)
{
    const kvzap *k = j->own;
    int E = j->info->n_embd, H = j->n_heads;
    kept_net net = k->net;
    net.w = k->w + (size_t)l * k->size;
    for (int at = 0; at < j->length; at += KEPT_NET_BATCH) {
        int n = j->length - at < KEPT_NET_BATCH ? j->length - at : KEPT_NET_BATCH;
        const float *x = k->x + ((size_t)l * (size_t)j->length + (size_t)at) * (size_t)E;
        float *y = out + at * H;
        if (!is_linear(j)) {
            kept_net_run(&net, k->kern, x, n, y, k->work);
            continue;
        }
        k->kern->dots(n, H, E, x, net.w, y, H);
        for (int i = 0; i < n * H; i++)
            y[i] += kept_net_b1(&net)[i % H];
    }
}

static void measure(const kept_train_job *j, int doc, int l, const float *out, float *pair)
{
    const kvzap *k = j->own;
    int H = j->n_heads, n = j->length;
    const float *y = k->y + (size_t)l * (size_t)n * (size_t)H;
    for (int h = 0; h < H; h++) {
        size_t kv = (size_t)l * (size_t)H + (size_t)h;
        double *s = k->seen + kv * 5;
        for (int t = 0; t < n; t++) {
            double is = y[t * H + h], said = out[t * H + h];
            pair[t] = (float)is;
            pair[n + t] = (float)said;
            s[0] += 1;
            s[1] += is;
            s[2] += is * is;
            s[3] += (is - said) * (is - said);
        }
        s[4] += kept_fit_spearman(pair, pair + n, n, k->order) / j->n_held;
        memcpy(k->guess + (kv * (size_t)j->n_held + (size_t)doc) * (size_t)n, pair + n,
               (size_t)n * sizeof *pair);
    }
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    kept_status st = collect(j, tokens, err);
    size_t n = (size_t)j->length;
    float *out = held ? kept_calloc(n * (size_t)(j->n_heads + 2), sizeof *out) : NULL;
    if (!st && held && !out)
        st = kept_fail(err, KEPT_NOMEM, "no memory for predictions");
    for (int l = 0; !st && l < j->n_layers; l++) {
        if (j->info->windowed[l])
            continue;
        if (held) {
            predict(j, l, out);
            measure(j, i, l, out, out + n * (size_t)j->n_heads);
            continue;
        }
        if (i == 0)
            standard(j, l);
        standardise(j, l);
        if (is_linear(j))
            add_linear(j, l);
    }
    if (!st && !held && !is_linear(j))
        learn_mlp(j, i);
    free(out);
    return st;
}

/* All documents are read: weights that take hidden states as they are. */
static kept_status fit(kept_train_job *j, int epoch, kept_error *err)
{
    kvzap *k = j->own;
    size_t E = (size_t)j->info->n_embd, H = (size_t)j->n_heads;
    double *work = is_linear(j) ? kept_calloc((E + 1) * (E + 1), sizeof *work) : NULL;
    kept_status st = KEPT_OK;
    (void)epoch;
    if (is_linear(j) && !work)
        st = kept_fail(err, KEPT_NOMEM, "no memory for a regression");
    for (int l = 0; !st && l < j->n_layers; l++) {
        kept_net net = k->net;
        net.w = k->w + (size_t)l * k->size;
        const kept_ridge r = {.n_in = (int)E,
                              .n_out = (int)H,
                              .a = is_linear(j) ? k->a + (size_t)l * kept_ridge_size((int)E) : NULL,
                              .b = is_linear(j) ? k->b + (size_t)l * H * (E + 1) : NULL};
        if (j->info->windowed[l])
            continue;
        if (work && !kept_ridge_solve(&r, RIDGE, net.w, kept_net_b1(&net), work))
            st = kept_fail(err, KEPT_ARGUMENT,
                           "the regression of layer %d has no solution: its hidden states are not "
                           "finite",
                           l);
        kept_net_fold(net.w, kept_net_b1(&net), net.n_hidden, (int)E, k->mean + (size_t)l * E,
                      k->scale + (size_t)l * E);
        if (!st && l % 4 == 3)
            st = kept_train_tick(j, (double)l / j->n_layers, err);
    }
    free(work);
    return st;
}

/* ---- the file -------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* What to write as at= so that so much of held-out text stays. */
static kept_status note_thresholds(kept_train_job *j, kept_trained *out, kept_error *err)
{
    kvzap *k = j->own;
    size_t per = (size_t)j->n_heads * (size_t)j->n_held * (size_t)j->length, n = 0;
    static const struct {
        const char *key;
        double part;
    } at[PARTS] = {{"threshold-50", 0.5}, {"threshold-25", 0.25}, {"threshold-12.5", 0.125}};
    kept_status st = KEPT_OK;
    for (int l = 0; l < j->n_layers; l++)
        if (!j->info->windowed[l]) {
            memmove(k->guess + n, k->guess + (size_t)l * per, per * sizeof *k->guess);
            n += per;
        }
    qsort(k->guess, n, sizeof *k->guess, compare);
    for (int i = 0; !st && n && i < PARTS; i++)
        st = kept_train_note(out, err, at[i].key, "%.3f",
                             k->guess[(size_t)((double)n * at[i].part)]);
    return st;
}

static kept_status note_errors(kept_train_job *j, kept_trained *out, kept_error *err)
{
    kvzap *k = j->own;
    size_t heads = (size_t)j->n_layers * (size_t)j->n_heads;
    double r2_sum = 0, r2_low = 1, rank_sum = 0, rank_low = 1, n = 0;
    double *r2 = kept_calloc(2 * heads + 1, sizeof *r2), *rank = r2 ? r2 + heads : NULL;
    if (!r2)
        return kept_fail(err, KEPT_NOMEM, "no memory for heads");
    for (size_t h = 0; h < heads; h++) {
        const double *s = k->seen + h * 5;
        if (j->info->windowed[h / (size_t)j->n_heads] || s[0] <= 0)
            continue;
        double all = s[2] - s[1] * s[1] / s[0];
        r2[h] = all > 0 ? 1 - s[3] / all : 0;
        rank[h] = s[4];
        r2_sum += r2[h];
        rank_sum += rank[h];
        r2_low = r2[h] < r2_low ? r2[h] : r2_low;
        rank_low = rank[h] < rank_low ? rank[h] : rank_low;
        n++;
    }
    kept_status st = kept_train_note(out, err, "held-out-r2", "%.4f, the worst head %.4f",
                                     n > 0 ? r2_sum / n : 0, r2_low);
    if (!st)
        st = kept_train_note(out, err, "held-out-spearman", "%.4f, the worst head %.4f",
                             n > 0 ? rank_sum / n : 0, rank_low);
    if (!st)
        st = kept_train_put(out, "held-out-r2", r2, heads, err);
    if (!st)
        st = kept_train_put(out, "held-out-spearman", rank, heads, err);
    free(r2);
    return st;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    kvzap *k = j->own;
    size_t n1 = (size_t)k->net.n_hidden * (size_t)k->net.n_in;
    kept_status st = kept_train_note(out, err, "type", "%s", j->kind->variant[j->variant]);
    for (int l = 0; !st && l < j->n_layers; l++) {
        const float *w = k->w + (size_t)l * k->size;
        const struct {
            const char *name;
            size_t at, n;
        } part[] = {
            {"w1", 0, n1},
            {"b1", n1, (size_t)k->net.n_hidden},
            {"w2", n1 + (size_t)k->net.n_hidden, (size_t)k->net.n_hidden * (size_t)k->net.n_out},
            {"b2", k->size - (size_t)k->net.n_out, (size_t)k->net.n_out}};
        for (int i = 0; !st && !j->info->windowed[l] && i < (is_linear(j) ? 2 : 4); i++) {
            char name[32];
            snprintf(name, sizeof name, "%s.%d", part[i].name, l);
            st = kept_trained_put(out, name, w + part[i].at, part[i].n, err);
        }
    }
    if (!st)
        st = note_errors(j, out, err);
    return st ? st : note_thresholds(j, out, err);
}

static const char *const variants[] = {"linear", "mlp", NULL};

const kept_trainer kept_trainer_kvzap = {
    .kind = {.name = "kvzap",
             .reads_text = true,
             .has_types = true,
             .summary = "predicts kvzip-plus scores from hidden states, for the score kvzap",
             .paper = "arXiv 2601.07891",
             .deviations = "documents of one text in place of a mix of 1.2 M tokens; the two-layer "
                           "network goes through a document several times while it is there",
             .n_tokens = 5120,
             .length = 1024},
    .n_held = 2,
    .n_epochs = 1,
    .n_more = KEPT_TRAIN_AGAIN,
    .eyes = &eyes,
    .variant = variants,
    .open = open,
    .document = document,
    .epoch = fit,
    .finish = finish,
    .close = close_kvzap,
};
