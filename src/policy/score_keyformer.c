/* keyformer: Keyformer, arXiv 2403.09054: attention received, from softmax((x + z) / tau) instead
 * of softmax(x): x the logits of a query, z Gumbel noise of the token, which stands for what the
 * eviction hides from the softmax, and tau a temperature that rises with the decode steps, as more
 * and more is hidden: tau = first + (last - first) * min(1, step / steps).
 *
 * Deviations: what the last `window` queries say is added up, not all of them since the start:
 * noise and temperature change the softmax itself, which attention mass does not remember. The
 * noise of a token is drawn anew at every eviction, one for all of these queries.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { WINDOW, FIRST, LAST, STEPS };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

/* Adds softmax((x + noise) / tau) over the first n tokens to sum. row [n]: work. */
static void add(const float *p, const float *noise, int n, double tau, float *row, float *sum)
{
    float top = -INFINITY, total = 0, part = (float)(1 / tau);
    for (int i = 0; i < n; i++) {
        /* ln p is x without the query's constant; what underflowed lies far below the rest */
        row[i] = ((p[i] > 0 ? logf(p[i]) : -104.0f) + noise[i]) * part;
        top = row[i] > top ? row[i] : top;
    }
    for (int i = 0; i < n; i++)
        total += row[i] = expf(row[i] - top);
    for (int i = 0; i < n; i++)
        sum[i] += row[i] / total;
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t n = (size_t)h->n;
    float *sum = v->scratch, *noise = sum + (size_t)v->group * n, *row = noise + n;
    memset(sum, 0, (size_t)v->group * n * sizeof *sum);
    for (int i = 0; i < h->n; i++)
        noise[i] = (float)-log(-log(kept_noise(v, head, h->pos[i])));
    for (int t = 0, seen = 0; t < v->n_recent; t++) {
        int step = v->n_steps - (v->n_recent - 1 - t);
        double part = step > 0 ? fmin(1, step / v->options[STEPS]) : 0;
        double tau = v->options[FIRST] + (v->options[LAST] - v->options[FIRST]) * part;
        while (seen < h->n && h->pos[seen] <= v->next_pos - v->n_recent + t)
            seen++;
        for (int g = 0; g < v->group; g++)
            add(h->prob + ((size_t)t * (size_t)v->group + (size_t)g) * n, noise, seen, tau, row,
                sum + (size_t)g * n);
    }
    kept_group(v, sum, v->group, h->n, h->n, out);
}

static const kept_option options[] = {
    {"window", 32, 1, KEPT_MAX_RECENT, true, NULL, "last queries that vote"},
    {"first", 1, 0.01, 100, false, NULL, "temperature while the prompt is read"},
    {"last", 2, 0.01, 100, false, NULL, "temperature after so many decode steps"},
    {"steps", 256, 1, 1048576, true, NULL, "decode steps until the last temperature"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_SUM, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_keyformer = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "keyformer",
             .summary = "attention of recent queries under Gumbel noise and a rising temperature",
             .paper = "arXiv 2403.09054",
             .deviations = "adds up the last window queries (the paper: all); the noise of a token "
                           "is drawn anew at every eviction; summed over the query heads of a KV "
                           "head; the temperature rises over 256 steps (the paper: as many as are "
                           "generated)",
             .options = options,
             .n_options = 8},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .score = score,
};
