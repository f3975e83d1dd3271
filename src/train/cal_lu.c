/* cal_lu: "lu-kv", arXiv 2602.08585: how many slots each head should keep at each budget, from what
 * the future pays them.
 *
 * A document is read up to three quarters. The slots of every head are ranked by
 * expected-attention; the rest of the document is read, and what its queries paid the first k slots
 * of the ranking is the head's utility of keeping k. Of the mean curves the concave hull is taken,
 * and for each share kept the slots go where the hull is steepest.
 */
#include "train/job.h"

#include "policy/parts.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CUTS = 100 };

static kept_plane all_mass(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = INT_MAX};
}

static const kept_score eyes = {.part = {.abi = KEPT_POLICY_ABI, .name = "lu-kv"},
                                .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES | KEPT_NEED_QUERIES,
                                .plane = all_mass};

typedef struct lu {
    double *gain,
        *held_gain; /* [n_layers][n_heads][CUTS] what each per cent of the slots is paid */
    double *to;
    float *score, *mass; /* [n_layers][n_heads][n] at three quarters */
    int32_t *order;      /* [n] */
    int n;
    bool after;
} lu;

static size_t n_kv(const kept_train_job *j)
{
    return (size_t)j->n_layers * (size_t)j->n_heads;
}

static kept_status open_lu(kept_train_job *j, kept_error *err)
{
    lu *u = j->own = kept_calloc(1, sizeof *u);
    if (!u)
        return kept_fail(err, KEPT_NOMEM, "no memory for heads");
    u->n = j->length * 3 / 4;
    u->gain = kept_train_state(j, "gain", n_kv(j) * CUTS, sizeof(double));
    u->held_gain = kept_train_state(j, "held-gain", n_kv(j) * CUTS, sizeof(double));
    u->score = kept_calloc(n_kv(j) * (size_t)u->n, sizeof *u->score);
    u->mass = kept_calloc(n_kv(j) * (size_t)u->n, sizeof *u->mass);
    u->order = kept_calloc((size_t)u->n * 2, sizeof *u->order);
    return u->gain && u->held_gain && u->score && u->mass && u->order
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "no memory for heads");
}

static void close_lu(kept_train_job *j)
{
    lu *u = j->own;
    if (!u)
        return;
    free(u->score);
    free(u->mass);
    free(u->order);
    free(u);
}

/* Hands the future mass of the head's slots to the cuts that its ranking puts them in. */
static void add_gains(lu *u, const kept_view_head *h, size_t kv)
{
    kept_fit_ranked *r = (kept_fit_ranked *)(void *)u->order;
    const float *score = u->score + kv * (size_t)u->n, *mass = u->mass + kv * (size_t)u->n;
    double *gain = u->to + kv * CUTS;
    for (int i = 0; i < u->n; i++)
        r[i] = (kept_fit_ranked){score[i], i};
    kept_fit_rank(r, u->n);
    for (int i = 0; i < u->n; i++)
        gain[(int64_t)i * CUTS / u->n] += (double)h->mass[r[i].at] - (double)mass[r[i].at];
}

static void see(void *ctx, const kept_view *v, int head)
{
    lu *u = ctx;
    const kept_view_head *h = &v->heads[head];
    const kept_score *base = &kept_score_expected_attention;
    size_t kv = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    double options[KEPT_MAX_OPTIONS];
    kept_view shown = *v;
    if (u->after) {
        add_gains(u, h, kv);
        return;
    }
    for (int i = 0; i < base->part.n_options; i++)
        options[i] = base->part.options[i].value;
    shown.options = options;
    base->score(&shown, head, u->score + kv * (size_t)u->n);
    memcpy(u->mass + kv * (size_t)u->n, h->mass, (size_t)u->n * sizeof *u->mass);
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    lu *u = j->own;
    kept_seq *seq;
    (void)i;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    u->to = held ? u->held_gain : u->gain;
    u->after = false;
    st = kept_train_feed(j, seq, tokens, u->n, err);
    if (!st)
        st = kept_train_look(j, seq, false, see, u, err);
    if (!st)
        st = kept_train_tick(j, 0.7, err);
    if (!st)
        st = kept_train_feed(j, seq, tokens + u->n, j->length - u->n, err);
    u->after = true;
    if (!st)
        st = kept_train_look(j, seq, false, see, u, err);
    kept_seq_free(seq);
    return st;
}

/* Slopes of the smallest concave curve above the one of these slopes, in place. */
static void hull(double *gain)
{
    int start[CUTS + 1], n = 0; /* runs of equal slope */
    for (int i = 0; i < CUTS; i++) {
        int from = i;
        double mean = gain[i];
        for (; n && mean > gain[start[n - 1]]; from = start[--n])
            mean = (mean * (i + 1 - from) + gain[start[n - 1]] * (from - start[n - 1])) /
                   (i + 1 - start[n - 1]);
        for (int k = from; k <= i; k++)
            gain[k] = mean;
        start[n++] = from;
    }
}

typedef struct slice {
    double gain;
    int32_t head, cut;
} slice;

/* Steepest first; among equals the earlier cut, then the earlier head. */
static int compare_slice(const void *a, const void *b)
{
    const slice *x = a, *y = b;
    if (x->gain != y->gain)
        return (x->gain < y->gain) - (x->gain > y->gain);
    return x->cut != y->cut ? (x->cut > y->cut) - (x->cut < y->cut)
                            : (x->head > y->head) - (x->head < y->head);
}

/* Fills keep [99][n] from hulls: row r is what heads keep of their slots when r + 1 per cent of all
 * slots are kept. Heads of windowed layers have no slots to keep. */
static bool spread(const kept_train_job *j, const double *gain, float *keep)
{
    size_t n = n_kv(j), m = 0;
    slice *s = kept_calloc(n * CUTS + 1, sizeof *s);
    if (!s)
        return false;
    for (size_t h = 0; h < n; h++)
        for (int c = 0; c < CUTS && !j->info->windowed[h / (size_t)j->n_heads]; c++)
            s[m++] = (slice){gain[h * CUTS + (size_t)c], (int32_t)h, c};
    qsort(s, m, sizeof *s, compare_slice);
    for (size_t r = 1; r < CUTS; r++)
        for (size_t i = 0; i < m / CUTS * r; i++)
            keep[(r - 1) * n + (size_t)s[i].head] += 1.0f / CUTS;
    free(s);
    return true;
}

/* Share of the future mass that heads keep with row `percent` of the table, and with equal parts.
 */
static void measure(const kept_train_job *j, const double *gain, const float *keep, size_t percent,
                    double *ours, double *even)
{
    size_t n = n_kv(j);
    double all = 0;
    *ours = *even = 0;
    for (size_t h = 0; h < n; h++)
        for (size_t c = 0; c < CUTS; c++) {
            double g = gain[h * CUTS + c], own = keep[(percent - 1) * n + h] * CUTS + 0.5;
            all += g;
            *even += c < percent ? g : 0;
            *ours += c < (size_t)own ? g : 0;
        }
    *ours /= all > 0 ? all : 1;
    *even /= all > 0 ? all : 1;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    lu *u = j->own;
    size_t n = n_kv(j);
    float *keep = kept_calloc(n * (CUTS - 1) + 1, sizeof *keep), ratio[CUTS - 1];
    for (size_t h = 0; h < n; h++)
        hull(u->gain + h * CUTS);
    for (int r = 1; r < CUTS; r++)
        ratio[r - 1] = (float)r / CUTS;
    kept_status st = keep && spread(j, u->gain, keep)
                         ? kept_trained_put(out, "keep", keep, n * (CUTS - 1), err)
                         : kept_fail(err, KEPT_NOMEM, "no memory for shares");
    if (!st)
        st = kept_trained_put(out, "ratio", ratio, CUTS - 1, err);
    for (size_t r = 25; !st && r <= 50; r += 25) {
        double ours, even;
        char key[40];
        measure(j, u->held_gain, keep, r, &ours, &even);
        snprintf(key, sizeof key, "held-out-future-mass-%zu", r);
        st = kept_train_note(out, err, key, "%.4f, uniform %.4f", ours, even);
    }
    free(keep);
    return st;
}

const kept_trainer kept_trainer_lu_kv = {
    .kind = {.name = "lu-kv",
             .calibrates = true,
             .reads_text = true,
             .summary = "what share of its slots each head keeps, for every budget, by what the "
                        "future pays",
             .paper = "arXiv 2602.08585",
             .deviations =
                 "utility is attention mass of the text that follows; the published table "
                 "is for another model and its procedure is not public",
             .n_tokens = 6144,
             .length = 2048},
    .n_held = 2,
    .eyes = &eyes,
    .open = open_lu,
    .document = document,
    .finish = finish,
    .close = close_lu,
};
