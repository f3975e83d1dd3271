/* summary: chunk summaries. A dropped token joins the kept token nearest by position, which becomes
 * the mean of all that joined it, weighted by how many tokens each stands for:
 *
 *     c = sum c_i    k = sum c_i k_i / c    v = sum c_i v_i / c    bias = log c
 *
 * The bias gives it the weight of c tokens in the softmax: summaries of equal tokens change
 * nothing. A summary that is dropped later joins another with its count: chunks become coarser
 * chunks.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { SPAN, KEYS, COUNT, GUARDED };
enum { BEFORE_ROTATION, ROTATED, OWN };

static void join(float *row, const float *from, int size, float own, float weight)
{
    for (int d = 0; d < size; d++)
        row[d] = own * row[d] + weight * from[d];
}

static void divide(float *row, int size, float by)
{
    for (int d = 0; d < size; d++)
        row[d] /= by;
}

static void merge(const kept_view *v, const kept_merging *m)
{
    const kept_view_head *h = &v->heads[m->head];
    const int size = v->head_size, keys = (int)v->options[KEYS];
    const float *from_key = keys == BEFORE_ROTATION ? h->key0 : h->key;
    float *key = keys == BEFORE_ROTATION ? m->key0 : m->key, *sum = m->work;
    memset(sum, 0, (size_t)m->n_kept * sizeof *sum);
    kept_merge_neighbour(v, m, (int)v->options[SPAN], v->options[GUARDED] != 0, m->to);
    for (int g = 0; g < m->n_gone; g++) {
        const int j = m->to[g], place = m->gone[g];
        const size_t to = (size_t)j * (size_t)size, from = (size_t)place * (size_t)size;
        if (j < 0)
            continue;
        const float own = sum[j] > 0 ? 1 : expf(m->old_bias[m->kept[j]]);
        const float count = expf(m->old_bias[place]);
        if (keys != OWN)
            join(key + to, from_key + from, size, own, count);
        join(m->value + to, h->value + from, size, own, count);
        sum[j] += (sum[j] > 0 ? 0 : own) + count;
    }
    for (int j = 0; j < m->n_kept; j++) {
        if (!(sum[j] > 0))
            continue;
        if (keys != OWN)
            divide(key + (size_t)j * (size_t)size, size, sum[j]);
        divide(m->value + (size_t)j * (size_t)size, size, sum[j]);
        if (v->options[COUNT] != 0)
            m->bias[j] = logf(sum[j]);
    }
}

static bool biases(const double *options)
{
    return options[COUNT] != 0;
}

static const char *const key_names[] = {"unrotated", "rotated", "own", NULL};
static const kept_option options[] = {
    {"span", 0, 0, 1048576, true, NULL,
     "positions of a chunk: a token joins the nearest kept one of its chunk; 0: the nearest of "
     "all"},
    {"keys", BEFORE_ROTATION, 0, 2, true, key_names,
     "mean of keys before rotation, turned to the position of the kept one; of keys as stored; or "
     "its own key"},
    {"count", 1, 0, 1, true, kept_off_on, "a summary weighs as many tokens as it stands for"},
    {"guarded", 0, 0, 1, true, kept_off_on, "protected tokens take part too"},
};

const kept_merge kept_merge_summary = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "summary",
             .summary = "chunk summaries: means of the tokens around each kept one, with counts",
             .paper = "",
             .deviations = "",
             .options = options,
             .n_options = 4},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 | KEPT_NEED_VALUES,
    .biases = biases,
    .merge = merge,
};
