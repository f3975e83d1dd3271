/* pressure_cells: one aggregate per task, number of sequences and row, from nothing but the
 * requests. A request that was not served scores 0. Changes are against the full cache with room,
 * on the same prompts.
 */
#include "bench/doc.h"
#include "bench/pressure.h"
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL 0.95

typedef struct sums {
    int n, served, refused, dropped, failed, groups, n_scored;
    double tokens, lost, score, served_score, held, evicted, peak, decoded, decode_ns;
    int admitted;
    double *diff; /* [n] */
} sums;

static void count_fate(sums *s, const json_t *r)
{
    const char *fate = kept_doc_text(r, "fate");
    const double tokens = kept_doc_number(r, "n_tokens") + kept_doc_number(r, "n_new");
    const bool served = !strcmp(fate, "served");
    s->served += served;
    s->refused += !strcmp(fate, "refused");
    s->dropped += !strcmp(fate, "dropped");
    s->failed += !strcmp(fate, "failed");
    s->tokens += tokens;
    s->lost += served ? 0 : tokens;
    s->score += kept_doc_number(r, "score");
    s->served_score += served ? kept_doc_number(r, "score") : 0;
    if (kept_doc_number(r, "held_bytes") > 0) {
        s->admitted++;
        s->held += kept_doc_number(r, "held_bytes");
        s->evicted += kept_doc_number(r, "n_evicted");
    }
}

static void add(sums *s, const json_t *r, const json_t *alone)
{
    s->diff[s->n++] = kept_doc_number(r, "score") - kept_doc_number(alone, "score");
    count_fate(s, r);
    if (json_object_get(r, "decode_ns")) {
        s->groups++;
        s->peak = fmax(s->peak, kept_doc_number(r, "peak_bytes"));
        s->decoded += kept_doc_number(r, "decoded");
        s->decode_ns += kept_doc_number(r, "decode_ns");
    }
}

static json_t *cell_of(const sums *s, int task, int variant, int sequences, const kept_change *c)
{
    json_t *o = json_object();
    const kept_interval w = kept_wilson(s->score, s->n, LEVEL);
    json_object_set_new(o, "task", json_integer(task));
    json_object_set_new(o, "variant", json_integer(variant));
    json_object_set_new(o, "sequences", json_integer(sequences));
    json_object_set_new(o, "n", json_integer(s->n));
    json_object_set_new(o, "groups", json_integer(s->groups));
    json_object_set_new(o, "served", json_integer(s->served));
    json_object_set_new(o, "refused", json_integer(s->refused));
    json_object_set_new(o, "dropped", json_integer(s->dropped));
    json_object_set_new(o, "failed", json_integer(s->failed));
    json_object_set_new(o, "tokens", json_integer((json_int_t)s->tokens));
    json_object_set_new(o, "tokens_lost", json_integer((json_int_t)s->lost));
    kept_doc_put(o, "score", s->score / s->n);
    kept_doc_put(o, "score_low", w.low);
    kept_doc_put(o, "score_high", w.high);
    kept_doc_put(o, "served_score", s->served ? s->served_score / s->served : NAN);
    kept_doc_put(o, "change", c->mean);
    kept_doc_put(o, "change_low", c->interval.low);
    kept_doc_put(o, "change_high", c->interval.high);
    kept_doc_put(o, "p", c->p);
    kept_doc_put(o, "held_bytes", s->admitted ? s->held / s->admitted : NAN);
    kept_doc_put(o, "n_evicted", s->admitted ? s->evicted / s->admitted : NAN);
    kept_doc_put(o, "peak_bytes", s->peak);
    kept_doc_put(o, "tokens_per_s", s->decode_ns > 0 ? 1e9 * s->decoded / s->decode_ns : NAN);
    return o;
}

/* Where a request stands in its document: task, variant, sequences. */
static bool is_at(const json_t *r, int task, int variant, int sequences)
{
    return kept_doc_number(r, "task") == task && kept_doc_number(r, "variant") == variant &&
           kept_doc_number(r, "sequences") == sequences;
}

/* The same prompt alone, with room: by task and index. */
static const json_t *alone_of(const json_t *alone, const json_t *r)
{
    char key[48];
    snprintf(key, sizeof key, "%.0f/%.0f", kept_doc_number(r, "task"), kept_doc_number(r, "index"));
    return json_object_get(alone, key);
}

static json_t *index_alone(const json_t *requests)
{
    json_t *out = json_object(), *r;
    size_t i;
    char key[48];
    json_array_foreach((json_t *)(uintptr_t)requests, i, r)
    {
        if (!(kept_doc_number(r, "variant") < 0))
            continue;
        snprintf(key, sizeof key, "%.0f/%.0f", kept_doc_number(r, "task"),
                 kept_doc_number(r, "index"));
        json_object_set(out, key, r);
    }
    return out;
}

/* A cell begins where the requests change place. false: out of memory. */
static bool add_cell(const json_t *requests, size_t *at, const json_t *alone, json_t *cells)
{
    const json_t *first = json_array_get(requests, *at);
    const int task = (int)kept_doc_number(first, "task");
    const int variant = (int)kept_doc_number(first, "variant");
    const int sequences = (int)kept_doc_number(first, "sequences");
    size_t end = *at;
    while (end < json_array_size(requests) &&
           is_at(json_array_get(requests, end), task, variant, sequences))
        end++;
    sums s = {.diff = kept_calloc(end - *at + 1, sizeof *s.diff)};
    kept_change c;
    bool ok = s.diff;
    for (; ok && *at < end; ++*at) {
        const json_t *r = json_array_get(requests, *at);
        add(&s, r, alone_of(alone, r));
    }
    const kept_paired x = {s.diff, NULL, s.n, true};
    ok = ok && !kept_change_of(&x, 0, LEVEL, &c, NULL) &&
         !json_array_append_new(cells, cell_of(&s, task, variant, sequences, &c));
    free(s.diff);
    return ok;
}

json_t *kept_pressure_cells(const json_t *doc)
{
    const json_t *requests = json_object_get(doc, "requests");
    json_t *cells = json_array(), *alone = index_alone(requests);
    bool ok = cells && alone;
    for (size_t at = 0; ok && at < json_array_size(requests);)
        ok = add_cell(requests, &at, alone, cells);
    json_decref(alone);
    if (!ok) {
        json_decref(cells);
        return NULL;
    }
    return cells;
}
