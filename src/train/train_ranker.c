/* train_ranker: "ranker": a network per KV head that predicts, from what a slot shows of itself,
 * the attention that the next tokens pay it. What it reads is what the score reads:
 * kept_slot_features of a view that the engine shows. The arrays are described in
 * policy/score_ranker.c.
 *
 * A document is read up to a place that the seed draws and the features of some slots of every head
 * are noted; a quarter more of the document is read, and what its queries paid these slots is the
 * target. Held out, the same is done at three quarters of a document with all slots, and what the
 * best slots by the prediction are paid is compared with what the oracle would have kept, and with
 * what other scores would have.
 */
#include "train/job.h"
#include "train/net.h"

#include "policy/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATE 3e-3
enum { F = KEPT_N_FEATURES, HIDDEN = 16, SLOTS = 768, EPOCHS = 24, N_RIVALS = 4, N_BUDGETS = 2 };
enum { SINKS = 4, RECENT = 32 }; /* as the default protection has them */

/* The ranker comes first; it is looked at as the score of its name, the others likewise. */
static const kept_score *const rival[N_RIVALS] = {&kept_score_ranker, &kept_score_h2o,
                                                  &kept_score_snapkv, &kept_score_random};
static const double budget[N_BUDGETS] = {0.25, 0.125};

typedef struct ranker {
    kept_net net;
    size_t size; /* floats of a head's network */
    const kept_kern *kern;
    kept_trained *file; /* the fitted networks, for held-out documents; NULL: not yet */
    /* state */
    float *mean, *scale; /* [heads][F] */
    float *w, *m1, *m2;  /* [heads][size] */
    float *x, *y;        /* [heads][n_docs][SLOTS][F], [..][SLOTS] */
    double *seen;        /* [heads][5] held out: n, y, y^2, (y - p)^2, sum of Spearman */
    double *kept;        /* [N_BUDGETS][N_RIVALS + 1] future mass kept; last: by the oracle */
    /* of the document in hand */
    float *mass;    /* [heads][length] received so far, then by what came */
    float *score;   /* [N_RIVALS][heads][length] held out */
    int32_t *picks; /* [SLOTS] */
    int doc, n, turn;
    bool held;
    float *work, *grad, *batch;
    int32_t *order;
} ranker;

static size_t n_kv(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads;
}

static size_t kv_of(const kept_view *v, int head)
{
    return (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
}

static bool allocate(kept_train_job *j, ranker *k)
{
    size_t heads = n_kv(j), n = (size_t)j->length, docs = (size_t)j->n_docs;
    return (k->mean = kept_train_state(j, "mean", heads * F, sizeof(float))) &&
           (k->scale = kept_train_state(j, "scale", heads * F, sizeof(float))) &&
           (k->w = kept_train_state(j, "w", heads * k->size, sizeof(float))) &&
           (k->m1 = kept_train_state(j, "m1", heads * k->size, sizeof(float))) &&
           (k->m2 = kept_train_state(j, "m2", heads * k->size, sizeof(float))) &&
           (k->x = kept_train_state(j, "x", heads * docs * SLOTS * F, sizeof(float))) &&
           (k->y = kept_train_state(j, "y", heads * docs * SLOTS, sizeof(float))) &&
           (k->seen = kept_train_state(j, "seen", heads * 5, sizeof(double))) &&
           (k->kept = kept_train_state(j, "kept", N_BUDGETS * (N_RIVALS + 1), sizeof(double))) &&
           (k->mass = kept_calloc(heads * n, sizeof *k->mass)) &&
           (k->score = kept_calloc(N_RIVALS * heads * n, sizeof *k->score)) &&
           (k->picks = kept_calloc(SLOTS, sizeof *k->picks)) &&
           (k->work = kept_calloc(kept_net_work(&k->net), sizeof *k->work)) &&
           (k->grad = kept_calloc(k->size, sizeof *k->grad)) &&
           (k->batch = kept_calloc((size_t)KEPT_NET_BATCH * (F + 1), sizeof *k->batch)) &&
           (k->order = kept_calloc(docs * SLOTS + 4 * n, sizeof *k->order));
}

static kept_status open(kept_train_job *j, kept_error *err)
{
    ranker *k = j->own = kept_calloc(1, sizeof *k);
    if (!k)
        return kept_fail(err, KEPT_NOMEM, "no memory to train");
    k->kern = kept_kern_get(j->o->isa);
    k->net = (kept_net){.n_in = F, .n_hidden = HIDDEN, .n_out = 1, .relu = true};
    k->size = kept_net_size(&k->net);
    return allocate(j, k) ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory to train");
}

static void close_ranker(kept_train_job *j)
{
    ranker *k = j->own;
    if (!k)
        return;
    void *all[] = {k->mass, k->score, k->picks, k->work, k->grad, k->batch, k->order};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    kept_trained_free(k->file);
    free(k);
}

/* ---- a document ------------------------------------------------------------------------------ */

/* What a slot is paid by n_queries queries, as the target: see score_ranker.c. */
static float target(float mass, int n, int group, int n_queries)
{
    return logf(0.05f + mass * (float)n / (float)(group * n_queries));
}

typedef struct noting {
    const ranker *k;
    float *x; /* [SLOTS][F] */
    int next; /* picks are ascending */
} noting;

static void note(void *ctx, int first, int n, const float *x)
{
    noting *t = ctx;
    for (; t->next < SLOTS && t->k->picks[t->next] < first + n; t->next++)
        memcpy(t->x + t->next * F, x + (t->k->picks[t->next] - first) * F, F * sizeof *x);
}

/* Before what comes is read. */
static void see_now(void *ctx, const kept_view *v, int head)
{
    const kept_train_job *j = ctx;
    const ranker *k = j->own;
    const kept_view_head *h = &v->heads[head];
    size_t kv = kv_of(v, head), n = (size_t)j->length;
    memcpy(k->mass + kv * n, h->mass, (size_t)h->n * sizeof *h->mass);
    if (k->held)
        return;
    noting t = {k, k->x + (kv * (size_t)j->n_docs + (size_t)k->doc) * SLOTS * F, 0};
    kept_slot_features(v, head, note, &t);
}

/* After it: mass becomes what came paid. */
static void see_then(void *ctx, const kept_view *v, int head)
{
    const kept_train_job *j = ctx;
    const ranker *k = j->own;
    const kept_view_head *h = &v->heads[head];
    size_t kv = kv_of(v, head), n = (size_t)j->length;
    float *mass = k->mass + kv * n;
    for (int i = 0; i < k->n; i++)
        mass[i] = h->mass[i] - mass[i];
    float *y = k->y + (kv * (size_t)j->n_docs + (size_t)k->doc) * SLOTS;
    for (int i = 0; i < SLOTS && !k->held; i++)
        y[i] = target(mass[k->picks[i]], k->n, v->group, v->next_pos - k->n);
}

static void see_rival(void *ctx, const kept_view *v, int head)
{
    const kept_train_job *j = ctx;
    const ranker *k = j->own;
    kept_view shown = *v;
    shown.trained = k->turn ? NULL : k->file;
    rival[k->turn]->score(
        &shown, head, k->score + ((size_t)k->turn * n_kv(j) + kv_of(v, head)) * (size_t)j->length);
}

/* The slots noted, ascending and distinct (all in turn where there are fewer). */
static void pick(ranker *k, kept_rng *rng)
{
    int n = 0;
    for (int i = 0; i < k->n && n < SLOTS; i++) /* Knuth's algorithm S */
        if (kept_rng_below(rng, (uint32_t)(k->n - i)) < (uint32_t)(SLOTS - n) ||
            k->n - i <= SLOTS - n)
            k->picks[n++] = i;
    for (int i = n; i < SLOTS; i++)
        k->picks[i] = k->picks[n - 1];
}

static kept_status read_on(kept_train_job *j, kept_seq *seq, const int32_t *tokens, kept_error *err)
{
    ranker *k = j->own;
    kept_look now = {.fn = see_now, .ctx = j}, then = {.fn = see_then, .ctx = j};
    kept_look other = {.fn = see_rival, .ctx = j};
    kept_status st = kept_train_feed(j, seq, tokens, k->n, err);
    if (!st)
        st = kept_train_tick(j, 0.6, err);
    for (k->turn = 0; !st && k->held && k->turn < N_RIVALS; k->turn++)
        st = kept_seq_look(seq, rival[k->turn], &other, err);
    if (!st)
        st = kept_seq_look(seq, &kept_score_ranker, &now, err);
    if (!st)
        st = kept_train_feed(j, seq, tokens + k->n, j->length / 4, err);
    if (!st)
        st = kept_seq_look(seq, &kept_score_ranker, &then, err);
    return st;
}

/* ---- held out -------------------------------------------------------------------------------- */

/* Mass of the slots that score [n] keeps of those that compete, for every budget, into *kept. */
static void add_kept(const ranker *k, const float *score, const float *mass, double *kept,
                     int stride)
{
    kept_fit_ranked *r = (kept_fit_ranked *)(void *)k->order;
    int open = k->n - SINKS - RECENT;
    for (int i = 0; i < open; i++)
        r[i] = (kept_fit_ranked){score[SINKS + i], SINKS + i};
    kept_fit_rank(r, open);
    for (int b = 0; b < N_BUDGETS; b++)
        for (int i = 0; i < open && i < (int)(budget[b] * k->n) - SINKS - RECENT; i++)
            kept[b * stride] += (double)mass[r[i].at];
}

static void measure(kept_train_job *j)
{
    ranker *k = j->own;
    size_t n = (size_t)j->length;
    for (size_t kv = 0; kv < n_kv(j); kv++) {
        float *mass = k->mass + kv * n, *said = k->score + kv * n;
        double *s = k->seen + kv * 5;
        if (j->info->windowed[kv / (size_t)j->n_heads])
            continue;
        for (int r = 0; r <= N_RIVALS; r++)
            add_kept(k, r < N_RIVALS ? said + (size_t)r * n_kv(j) * n : mass, mass, k->kept + r,
                     N_RIVALS + 1);
        for (int i = 0; i < k->n; i++) {
            double is = target(mass[i], k->n, j->group, j->length / 4);
            double guess = log((double)said[i]);
            s[0] += 1;
            s[1] += is;
            s[2] += is * is;
            s[3] += (is - guess) * (is - guess);
        }
        s[4] += kept_fit_spearman(mass, said, k->n, k->order) / j->n_held;
    }
}

static kept_status make_file(kept_train_job *j, kept_trained *t, kept_error *err);

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    ranker *k = j->own;
    kept_seq *seq = NULL;
    kept_capture c = {0};
    kept_rng rng;
    kept_status st = KEPT_OK;
    for (int r = 0; !st && r < (held ? N_RIVALS : 1); r++) {
        const kept_strategy as = kept_look_strategy(rival[r]);
        st = kept_strategy_needs(&as, &c, err);
    }
    if (!st && held && !k->file && !(st = kept_trained_new("ranker", j->sha256, &k->file, err)))
        st = make_file(j, k->file, err);
    if (!st)
        st = kept_seq_new(j->engine, NULL, &c, kept_hash64(&i, sizeof i, j->o->seed), &seq, err);
    if (st)
        return st;
    int quarter = j->length / 4;
    kept_rng_init(&rng, kept_hash64(&i, sizeof i, j->o->seed));
    k->doc = i;
    k->held = held;
    k->n = held ? 3 * quarter : quarter + (int)kept_rng_below(&rng, (uint32_t)(2 * quarter + 1));
    pick(k, &rng);
    st = read_on(j, seq, tokens, err);
    if (!st && held)
        measure(j);
    kept_seq_free(seq);
    return st;
}

/* ---- fitting --------------------------------------------------------------------------------- */

static kept_net net_of(const ranker *k, size_t kv)
{
    kept_net net = k->net;
    net.w = k->w + kv * k->size;
    return net;
}

/* Standardises the features of a head in place and starts its network. */
static void start(const kept_train_job *j, size_t kv)
{
    const ranker *k = j->own;
    size_t n = (size_t)j->n_docs * SLOTS;
    float *x = k->x + kv * n * F;
    kept_net net = net_of(k, kv);
    kept_net_init(&net, kept_hash64(&kv, sizeof kv, j->o->seed));
    for (size_t f = 0; f < F; f++) {
        double sum = 0, square = 0;
        for (size_t i = 0; i < n; i++)
            sum += x[i * F + f];
        double mean = sum / (double)n;
        for (size_t i = 0; i < n; i++)
            square += (x[i * F + f] - mean) * (x[i * F + f] - mean);
        double scale = square > 1e-12 * (double)n ? 1 / sqrt(square / (double)n) : 0;
        for (size_t i = 0; i < n; i++)
            x[i * F + f] = (float)((x[i * F + f] - mean) * scale);
        k->mean[kv * F + f] = (float)mean;
        k->scale[kv * F + f] = (float)scale;
    }
    for (size_t i = 0; i < n; i++)
        kept_net_b2(&net)[0] += k->y[kv * n + i] / (float)n;
}

static void pass(const kept_train_job *j, size_t kv, double rate, int epoch)
{
    const ranker *k = j->own;
    int n = j->n_docs * SLOTS, batches = (n + KEPT_NET_BATCH - 1) / KEPT_NET_BATCH;
    kept_net net = net_of(k, kv);
    kept_net_fit fit = {.kern = k->kern,
                        .m1 = k->m1 + kv * k->size,
                        .m2 = k->m2 + kv * k->size,
                        .rate = rate,
                        .step = (int64_t)epoch * batches + 1,
                        .work = k->work,
                        .grad = k->grad};
    const float *x = k->x + kv * (size_t)n * F, *y = k->y + kv * (size_t)n;
    float *to = k->batch + KEPT_NET_BATCH * F;
    for (int at = 0; at < n; at += KEPT_NET_BATCH, fit.step++) {
        int m = n - at < KEPT_NET_BATCH ? n - at : KEPT_NET_BATCH;
        for (int t = 0; t < m; t++) {
            memcpy(k->batch + t * F, x + k->order[at + t] * F, F * sizeof *x);
            to[t] = y[k->order[at + t]];
        }
        kept_net_step(&net, &fit, k->batch, to, m);
    }
}

static kept_status epoch(kept_train_job *j, int i, kept_error *err)
{
    const ranker *k = j->own;
    uint64_t key[2] = {j->o->seed, (uint64_t)i};
    int n = j->n_docs * SLOTS;
    kept_rng rng;
    kept_status st = KEPT_OK;
    kept_rng_init(&rng, kept_hash64(key, sizeof key, 3));
    for (int t = 0; t < n; t++)
        k->order[t] = t;
    for (int t = n - 1; t > 0; t--) {
        int at = (int)kept_rng_below(&rng, (uint32_t)t + 1), x = k->order[t];
        k->order[t] = k->order[at];
        k->order[at] = x;
    }
    for (size_t kv = 0; !st && kv < n_kv(j); kv++) {
        if (j->info->windowed[kv / (size_t)j->n_heads])
            continue;
        if (i == 0)
            start(j, kv);
        pass(j, kv, RATE * 0.5 * (1 + cos(3.14159265358979 * i / EPOCHS)), i);
        if (kv % 16 == 15)
            st = kept_train_tick(j, (double)kv / (double)n_kv(j), err);
    }
    return st;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* The networks that take features as they are. */
static kept_status make_file(kept_train_job *j, kept_trained *t, kept_error *err)
{
    const ranker *k = j->own;
    size_t heads = n_kv(j), n1 = HIDDEN * F;
    float *copy = kept_calloc(2 * heads * k->size, sizeof *copy), *out = copy + heads * k->size;
    kept_status st = copy ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for networks");
    if (!copy)
        return st;
    memcpy(copy, k->w, heads * k->size * sizeof *copy);
    for (size_t kv = 0; kv < heads; kv++) {
        kept_net net = k->net;
        net.w = copy + kv * k->size;
        kept_net_fold(net.w, kept_net_b1(&net), HIDDEN, F, k->mean + kv * F, k->scale + kv * F);
    }
    const struct {
        const char *name;
        size_t at, n;
    } part[] = {
        {"w1", 0, n1}, {"b1", n1, HIDDEN}, {"w2", n1 + HIDDEN, HIDDEN}, {"b2", n1 + 2 * HIDDEN, 1}};
    for (size_t i = 0; !st && i < sizeof part / sizeof *part; i++) {
        for (size_t kv = 0; kv < heads; kv++)
            memcpy(out + kv * part[i].n, copy + kv * k->size + part[i].at, part[i].n * sizeof *out);
        st = kept_trained_put(t, part[i].name, out, heads * part[i].n, err);
    }
    free(copy);
    return st;
}

static kept_status note_kept(const kept_train_job *j, kept_trained *out, kept_error *err)
{
    const ranker *k = j->own;
    kept_status st = KEPT_OK;
    for (int b = 0; !st && b < N_BUDGETS; b++) {
        const double *kept = k->kept + b * (N_RIVALS + 1);
        char key[40], text[200] = "";
        snprintf(key, sizeof key, "held-out-of-oracle-%g", budget[b] * 100);
        for (int r = 0; r < N_RIVALS; r++)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s %.4f", r ? ", " : "",
                     rival[r]->part.name, kept[N_RIVALS] > 0 ? kept[r] / kept[N_RIVALS] : 0);
        st = kept_train_note(out, err, key, "%s", text);
    }
    return st;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    const ranker *k = j->own;
    double r2 = 0, r2_low = 1, rank = 0, rank_low = 1, n = 0;
    for (size_t kv = 0; kv < n_kv(j); kv++) {
        const double *s = k->seen + kv * 5;
        double all = s[2] - s[1] * s[1] / fmax(1, s[0]), own = all > 0 ? 1 - s[3] / all : 0;
        if (s[0] <= 0)
            continue;
        r2 += own;
        rank += s[4];
        r2_low = fmin(r2_low, own);
        rank_low = fmin(rank_low, s[4]);
        n++;
    }
    kept_status st = make_file(j, out, err);
    if (!st)
        st = kept_train_note(out, err, "held-out-r2", "%.4f, the worst head %.4f",
                             n > 0 ? r2 / n : 0, r2_low);
    if (!st)
        st = kept_train_note(out, err, "held-out-spearman", "%.4f, the worst head %.4f",
                             n > 0 ? rank / n : 0, rank_low);
    return st ? st : note_kept(j, out, err);
}

const kept_trainer kept_trainer_ranker = {
    .kind = {.name = "ranker",
             .reads_text = true,
             .summary = "predicts the attention that the next tokens pay a slot, for the score "
                        "ranker",
             .n_tokens = 6144,
             .length = 2048},
    .n_held = 2,
    .n_epochs = EPOCHS,
    .eyes = &kept_score_ranker,
    .open = open,
    .document = document,
    .epoch = epoch,
    .finish = finish,
    .close = close_ranker,
};
