/* ranker: a small network of each KV head predicts the attention that the next tokens pay a slot
 * from what is known of it now (kept_slot_features). No published method; trained for a model by
 * `kept train ranker`, on text that goes on after the cache is looked at.
 *
 * Trained kind "ranker", for every layer and KV head: x' the features, y = b2 + w2 max(0, w1 x' +
 * b1), the logarithm of 0.05 + the mean attention probability of a coming query as a multiple of an
 * even share. The score is exp(y), so that heads can be compared. Without arrays that fit it is 0.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { F = KEPT_N_FEATURES, MOST = 64 };

typedef struct net {
    const kept_view *v;
    const float *w1, *b1, *w2, *b2; /* [hidden][F], [hidden], [hidden], [1] */
    int hidden;
    float *out;
} net;

static kept_plane plane(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = INT32_MAX};
}

static int recent(const double *options)
{
    (void)options;
    return 32;
}

/* The arrays of one head. False: they do not fit the view. */
static bool find(net *f, const kept_view *v, int head)
{
    size_t heads = (size_t)v->n_layers * (size_t)v->n_heads, n[4] = {0};
    size_t at = (size_t)v->layer * (size_t)v->n_heads + (size_t)head;
    if (!v->trained)
        return false;
    f->w1 = kept_trained_array(v->trained, "w1", &n[0]);
    f->b1 = kept_trained_array(v->trained, "b1", &n[1]);
    f->w2 = kept_trained_array(v->trained, "w2", &n[2]);
    f->b2 = kept_trained_array(v->trained, "b2", &n[3]);
    size_t hidden = n[1] / heads;
    if (n[3] != heads || hidden < 1 || hidden > MOST || n[1] != heads * hidden || n[2] != n[1] ||
        n[0] != n[1] * F)
        return false;
    f->w1 += at * hidden * F;
    f->b1 += at * hidden;
    f->w2 += at * hidden;
    f->b2 += at;
    f->hidden = (int)hidden;
    return true;
}

static void predict(void *ctx, int first, int n, const float *x)
{
    const net *f = ctx;
    float z[MOST * KEPT_FEATURE_BLOCK];
    float *y = f->out + first;
    kept_dots(f->v, f->hidden, n, F, f->w1, x, z, KEPT_FEATURE_BLOCK);
    for (int i = 0; i < n; i++)
        y[i] = f->b2[0];
    for (int k = 0; k < f->hidden; k++)
        for (int i = 0; i < n; i++) {
            float a = z[k * KEPT_FEATURE_BLOCK + i] + f->b1[k];
            y[i] += a > 0 ? f->w2[k] * a : 0;
        }
    for (int i = 0; i < n; i++)
        y[i] = expf(fminf(80, y[i]));
}

static void score(const kept_view *v, int head, float *out)
{
    net f = {.v = v, .out = out};
    memset(out, 0, (size_t)v->heads[head].n * sizeof *out);
    if (find(&f, v, head))
        kept_slot_features(v, head, predict, &f);
}

const kept_score kept_score_ranker = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "ranker",
             .summary = "attention that the next tokens will pay, predicted from what a slot shows",
             .paper = "",
             .deviations = ""},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .plane = plane,
    .recent = recent,
    .trained = "ranker",
    .comparable = true,
    .score = score,
};
