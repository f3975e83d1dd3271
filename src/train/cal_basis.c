/* cal_basis: directions for low rank (kern/lowrank.h): of every KV head, those along which its keys
 * and values have most of their square, for a layer alone and for two and four adjacent layers
 * together.
 *
 * A document's keys and values are kept for four layers; when the last of them has been seen, their
 * products are summed: [4 D][4 D] for a KV head and a group. Directions are eigenvectors of blocks
 * of these sums. Nothing is centred: a mean is one more direction, mostly the first.
 */
#include "base/linalg.h"
#include "kern/lowrank.h"
#include "train/basis.h"
#include "train/job.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = KEPT_JOINT_LAYERS };

static const kept_score eyes = {
    .part = {.abi = KEPT_POLICY_ABI, .name = "vectors"},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
};

typedef struct sums {
    double *joint[2]; /* keys before rotation, values: [groups][n_heads][GROUP * D][GROUP * D] */
    double *flat;     /* keys as they are: [n_layers][n_heads][D][D] */
    float *row[2];    /* [n_heads][length][GROUP * D] of the group being read, not kept */
} sums;

static kept_status open(kept_train_job *j, kept_error *err)
{
    const size_t D = (size_t)j->head_size, H = (size_t)j->n_heads, L = (size_t)j->n_layers;
    const size_t side = GROUP * D, groups = (L + GROUP - 1) / GROUP;
    sums *s = j->own = kept_calloc(1, sizeof *s);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "no memory for sums of keys and values");
    bool ok = (s->flat = kept_train_state(j, "flat", L * H * D * D, sizeof *s->flat)) != NULL;
    for (int i = 0; i < 2; i++) {
        s->joint[i] = kept_train_state(j, i ? "values" : "keys", groups * H * side * side,
                                       sizeof *s->joint[i]);
        s->row[i] = kept_calloc(H * (size_t)j->length * side, sizeof *s->row[i]);
        ok &= s->joint[i] && s->row[i];
    }
    return ok ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for sums of keys and values");
}

static void close(kept_train_job *j)
{
    sums *s = j->own;
    for (int i = 0; s && i < 2; i++)
        free(s->row[i]);
    free(s);
}

/* out[side][side] += x'x of n rows, the lower half. Eight rows are summed in float first, which is
 * exact enough and twice as fast. */
static void add_products(const float *x, int n, size_t side, double *out)
{
    for (int t = 0; t < n; t += 8) {
        const int m = n - t < 8 ? n - t : 8;
        for (size_t i = 0; i < side; i++) {
            float part[GROUP * KEPT_MAX_HEAD_SIZE] = {0};
            for (int k = 0; k < m; k++) {
                const float *row = x + (size_t)(t + k) * side, y = row[i];
                for (size_t d = 0; d <= i; d++)
                    part[d] += y * row[d];
            }
            for (size_t d = 0; d <= i; d++)
                out[i * side + d] += (double)part[d];
        }
    }
}

/* A document as it is looked at: slots, and the group of layers that s->row is of. */
typedef struct seen {
    kept_train_job *j;
    int n, group;
} seen;

/* The group has been seen. */
static void close_group(const seen *x)
{
    const kept_train_job *j = x->j;
    const sums *s = j->own;
    const size_t H = (size_t)j->n_heads, side = GROUP * (size_t)j->head_size;
    for (size_t h = 0; h < H && x->n; h++)
        for (int i = 0; i < 2; i++) {
            float *row = s->row[i] + h * (size_t)j->length * side;
            add_products(row, x->n, side, s->joint[i] + ((size_t)x->group * H + h) * side * side);
            memset(row, 0, (size_t)x->n * side * sizeof *row);
        }
}

static void see(void *ctx, const kept_view *v, int head)
{
    seen *x = ctx;
    const kept_train_job *j = x->j;
    const sums *s = j->own;
    const kept_view_head *h = &v->heads[head];
    const size_t D = (size_t)v->head_size, side = GROUP * D;
    const size_t cell = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    if (v->layer / GROUP != x->group)
        close_group(x);
    x->group = v->layer / GROUP;
    x->n = h->n;
    add_products(h->key, h->n, D, s->flat + cell * D * D);
    for (int i = 0; i < 2; i++) {
        float *row =
            s->row[i] + (size_t)head * (size_t)j->length * side + (size_t)(v->layer % GROUP) * D;
        for (size_t t = 0; t < (size_t)h->n; t++)
            memcpy(row + t * side, (i ? h->value : h->key0) + t * D, D * sizeof *row);
    }
}

static kept_status document(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err)
{
    kept_seq *seq;
    seen x = {j, 0, 0};
    (void)i, (void)held;
    kept_status st = kept_train_seq(j, &seq, err);
    if (st)
        return st;
    st = kept_train_feed(j, seq, tokens, j->length, err);
    if (!st)
        st = kept_train_look(j, seq, false, see, &x, err);
    if (!st)
        close_group(&x);
    kept_seq_free(seq);
    return st ? st : kept_train_tick(j, 1, err);
}

/* ---- directions ----------------------------------------------------------------------------- */

bool kept_basis_directions(const double *sum, int stride, int D, int n, float *out, double *energy)
{
    const size_t side = (size_t)n * (size_t)D, d = (size_t)D;
    double *a = malloc(side * side * sizeof *a), *w = malloc(side * sizeof *w);
    bool ok = a && w;
    for (size_t i = 0; ok && i < side; i++)
        for (size_t k = 0; k <= i; k++)
            a[i * side + k] = sum[i * (size_t)stride + k];
    ok = ok && kept_eigen_symmetric((int)side, a, w);
    for (size_t i = 0; ok && i < d; i++) {
        const double *u = a + i * side;
        size_t top = 0;
        for (size_t k = 1; k < side; k++)
            top = fabs(u[k]) > fabs(u[top]) ? k : top;
        for (size_t k = 0; k < side; k++)
            out[(k / d * d + i) * d + k % d] = (float)(u[top] < 0 ? -u[k] : u[k]);
        energy[i] += w[i] > 0 ? w[i] : 0;
    }
    free(a);
    free(w);
    return ok;
}

/* What one array holds: directions of groups of so many layers. */
typedef struct kind {
    const char *name;
    int values, layers; /* layers 0: flat */
} kind;

static const kind kinds[] = {{"k", 0, 1},  {"v", 1, 1},  {"flat", 0, 0}, {"k2", 0, 2},
                             {"v2", 1, 2}, {"k4", 0, 4}, {"v4", 1, 4}};

static double trace(const double *sum, size_t stride, size_t n)
{
    double t = 0;
    for (size_t i = 0; i < n; i++)
        t += sum[i * stride + i];
    return t;
}

/* The array of one kind into out [n_layers][n_heads][D][D], and into share[4] what of all squares
 * the first four, ..., one quarters of the directions hold. part [GROUP][D][D]: scratch. */
static bool fill(const kept_train_job *j, const kind *k, float *part, float *out, double share[4])
{
    const sums *s = j->own;
    const size_t D = (size_t)j->head_size, H = (size_t)j->n_heads, side = GROUP * D;
    const int step = k->layers ? k->layers : 1;
    double energy[KEPT_MAX_HEAD_SIZE] = {0}, all = 0;
    for (int l = 0; l < j->n_layers; l += step)
        for (size_t h = 0; h < H; h++) {
            const int n = l + step <= j->n_layers ? step : j->n_layers - l;
            const size_t group = (size_t)(l / GROUP) * H + h, first = (size_t)(l % GROUP) * D;
            const size_t stride = k->layers ? side : D;
            const double *sum =
                k->layers ? s->joint[k->values] + group * side * side + first * side + first
                          : s->flat + ((size_t)l * H + h) * D * D;
            if (!kept_basis_directions(sum, (int)stride, (int)D, n, part, energy))
                return false;
            for (int i = 0; i < n; i++)
                memcpy(out + ((size_t)(l + i) * H + h) * D * D, part + (size_t)i * D * D,
                       D * D * sizeof *out);
            all += trace(sum, stride, (size_t)n * D);
        }
    for (int q = 0; q < 4; q++) {
        share[q] = 0;
        for (size_t i = 0; i < D * (size_t)(4 - q) / 4; i++)
            share[q] += all > 0 ? energy[i] / all : 0;
    }
    return true;
}

static kept_status finish(kept_train_job *j, kept_trained *out, kept_error *err)
{
    const size_t size = (size_t)j->head_size * (size_t)j->head_size;
    const size_t cells = (size_t)j->n_layers * (size_t)j->n_heads;
    float *part = malloc(GROUP * size * sizeof *part), *x = malloc(cells * size * sizeof *x);
    kept_status st = part && x ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "no memory for directions");
    for (size_t i = 0; !st && i < sizeof kinds / sizeof *kinds; i++) {
        char key[32];
        double share[4];
        if (!fill(j, &kinds[i], part, x, share)) {
            st = kept_fail(err, KEPT_NOMEM, "eigenvectors of '%s' were not found", kinds[i].name);
            break;
        }
        st = kept_trained_put(out, kinds[i].name, x, cells * size, err);
        snprintf(key, sizeof key, "energy-%s", kinds[i].name);
        if (!st)
            st = kept_train_note(out, err, key, "%.4f %.4f %.4f %.4f", share[0], share[1], share[2],
                                 share[3]);
    }
    free(part);
    free(x);
    return st;
}

const kept_trainer kept_trainer_basis = {
    .kind =
        {.name = "basis",
         .calibrates = true,
         .reads_text = true,
         .summary = "directions that keys and values have most of their square along, for low rank",
         .paper = "arXiv 2407.21118 (Palu), 2503.18893 (xKV)",
         .deviations =
             "of what the cache holds, not of weights and inputs, which is the same minimum; of "
             "every KV head by itself; of text, where xKV decomposes each prompt; the same rank "
             "for every layer",
         .n_tokens = 10240,
         .length = 1024},
    .eyes = &eyes,
    .open = open,
    .document = document,
    .finish = finish,
    .close = close,
};
