/* question: FINCH, TACL 2024 (Corallo and Papotti): what the tokens of the question, the last
 * `window` of the prompt, attend to. A query that sees t tokens gives each 1/t on average, so the
 * attention of each query is multiplied by t before it is summed.
 *
 * Deviations: the paper finds the question behind a delimiter, here `window` says how long it is;
 * re-rotated keys are the position axis' business (the recipe finch has them).
 */
#include "kept/policy.h"

#include <string.h>

enum { WINDOW };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    size_t n = (size_t)h->n;
    float *sum = v->scratch; /* [G][n] */
    int old = 0;
    memset(sum, 0, (size_t)v->group * n * sizeof *sum);
    while (old < h->n && h->pos[old] < v->next_pos - v->n_recent)
        old++;
    for (int t = 0, seen = old; t < v->n_recent; t++) {
        while (seen < h->n && h->pos[seen] <= v->next_pos - v->n_recent + t)
            seen++;
        for (int g = 0; g < v->group; g++) {
            const float *p = h->prob + ((size_t)t * (size_t)v->group + (size_t)g) * n;
            for (int i = 0; i < seen; i++)
                sum[(size_t)g * n + (size_t)i] += p[i] * (float)seen;
        }
    }
    kept_group(v, sum, v->group, h->n, old, out);
}

static const kept_option options[] = {
    {"window", 64, 1, KEPT_MAX_RECENT, true, NULL, "tokens of the question at the end"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_MEAN, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_question = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "question",
             .summary = "attention of the question, each query's times the tokens it sees",
             .paper = "FINCH, TACL 2024",
             .deviations = "the question is the last window tokens (the paper: what follows a "
                           "delimiter); says nothing new where no question stands there",
             .options = options,
             .n_options = 5},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .score = score,
};
