/* persistence: Scissorhands, arXiv 2305.17118: tokens that mattered to recent queries will matter
 * again. A query that sees t tokens holds those important that get at least 1/t of its attention;
 * kind=count adds up, over a history of the last `window` queries, how often the token was,
 * kind=sum what attention it got. A query that lies a queries back counts decay^a.
 *
 * Deviations: the attention of a query is first aggregated over the query heads of the KV head
 * (gqa), over the slots that are live now; the history is 64 queries long (the paper: 400), because
 * it costs slots times queries.
 */
#include "kept/policy.h"

#include <string.h>

enum { WINDOW, KIND, DECAY };
enum { COUNT, SUM };

static int recent(const double *options)
{
    return (int)options[WINDOW];
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    /* 1/t of the attention of all query heads together, where gqa sums over them */
    float heads = v->grouping.gqa == KEPT_GQA_SUM ? (float)v->group : 1;
    memset(out, 0, (size_t)h->n * sizeof *out);
    for (int t = 0, seen = 0; t < v->n_recent; t++) {
        const float *p = h->prob + ((size_t)t * (size_t)v->group) * (size_t)h->n;
        while (seen < h->n && h->pos[seen] <= v->next_pos - v->n_recent + t)
            seen++;
        kept_group(v, p, v->group, h->n, h->n, v->scratch);
        for (int i = 0; i < seen; i++) {
            float x = v->scratch[i];
            /* oldest first: every step back multiplies once more */
            out[i] = out[i] * (float)v->options[DECAY] +
                     (v->options[KIND] == SUM ? x : (float)(x * (float)seen >= heads));
        }
    }
}

static const char *const kinds[] = {"count", "sum", NULL};
static const kept_option options[] = {
    {"window", 64, 1, KEPT_MAX_RECENT, true, NULL, "last queries that make the history"},
    {"kind", COUNT, 0, 1, true, kinds, "how often the token was important, or its attention"},
    {"decay", 1, 0, 1, false, NULL, "what a query counts, relative to the next one"},
    KEPT_GROUP_OPTIONS(KEPT_GQA_MEAN, KEPT_POOL_NONE, 1),
};

const kept_score kept_score_persistence = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "persistence",
             .summary = "how often the token was important to the last window queries",
             .paper = "arXiv 2305.17118",
             .deviations = "the attention of the query heads of a KV head is averaged first; a "
                           "history of 64 queries (the paper: 400), because it costs slots times "
                           "queries",
             .options = options,
             .n_options = 7},
    .needs = KEPT_NEED_KEYS,
    .recent = recent,
    .grouped = true,
    .comparable = true,
    .score = score,
};
