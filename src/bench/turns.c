/* turns: what a row's turns say: accuracy by turn, and by how many turns ago the same was asked.
 * Means over samples; the sample stays the unit of intervals and tests, for its turns share a
 * context. A failed outcome scores 0 in every turn.
 */
#include "bench/run.h"
#include "bench/doc.h"

#include <math.h>
#include <stdlib.h>

#define MAX_TURNS 256

/* Upper ends of the ranges of distance; 0: asked for the first time. */
static const int again_end[] = {0, 1, 2, 4, 8, INT32_MAX};
enum { N_AGAIN = sizeof again_end / sizeof *again_end };

typedef struct sums {
    double score, full, evidence;
    int n, n_evidence;
} sums;

static double score_of(const json_t *outcome, size_t turn)
{
    const json_t *t = json_array_get(json_object_get(outcome, "turns"), turn);
    double x = kept_doc_number(t, "score");
    return json_is_true(json_object_get(outcome, "failed")) || !isfinite(x) ? 0 : x;
}

static void add(sums *s, const json_t *own, const json_t *full, size_t turn)
{
    double evidence =
        kept_doc_number(json_array_get(json_object_get(own, "turns"), turn), "evidence_recall");
    s->n++;
    s->score += score_of(own, turn);
    s->full += score_of(full, turn);
    if (isfinite(evidence)) {
        s->evidence += evidence;
        s->n_evidence++;
    }
}

static json_t *sums_json(const sums *s)
{
    json_t *o = json_object();
    json_object_set_new(o, "n", json_integer(s->n));
    json_object_set_new(o, "score", json_real(s->score / s->n));
    json_object_set_new(o, "full_score", json_real(s->full / s->n));
    json_object_set_new(o, "evidence_recall",
                        s->n_evidence ? json_real(s->evidence / s->n_evidence) : json_null());
    return o;
}

static void put(json_t *cell, const sums *by_turn, const sums *by_again)
{
    json_t *turns = json_array(), *again = json_array();
    for (int k = 0; k < MAX_TURNS; k++) {
        if (!by_turn[k].n)
            continue;
        json_t *o = sums_json(&by_turn[k]);
        json_object_set_new(o, "turn", json_integer(k + 1));
        json_array_append_new(turns, o);
    }
    for (int k = 0; k < N_AGAIN; k++) {
        if (!by_again[k].n)
            continue;
        json_t *o = sums_json(&by_again[k]);
        json_object_set_new(o, "from", json_integer(k ? again_end[k - 1] + 1 : 0));
        json_object_set_new(o, "to", k + 1 < N_AGAIN ? json_integer(again_end[k]) : json_null());
        json_array_append_new(again, o);
    }
    json_object_set_new(cell, "by_turn", turns);
    json_object_set_new(cell, "by_again", again);
}

void kept_put_turns(json_t *cell, const json_t *samples, int task, int variant)
{
    sums by_turn[MAX_TURNS] = {0}, by_again[N_AGAIN] = {0};
    const json_t *s, *t;
    size_t i, k;
    bool any = false;
    json_array_foreach(samples, i, s)
    {
        const json_t *own = kept_doc_outcome(s, variant), *full = kept_doc_outcome(s, 0);
        if (kept_doc_number(s, "task") != task || !own || !full)
            continue;
        json_array_foreach(json_object_get(s, "turns"), k, t)
        {
            const double again = kept_doc_number(t, "again");
            int range = 0;
            while (isfinite(again) && again > again_end[range])
                range++;
            if (k < MAX_TURNS)
                add(&by_turn[k], own, full, k);
            add(&by_again[range], own, full, k);
            any = true;
        }
    }
    if (any)
        put(cell, by_turn, by_again);
}
