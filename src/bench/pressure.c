/* pressure: serving. See pressure.h; what is said of it afterwards is in pressure_cells.c. */
#include "bench/pressure.h"
#include "bench/doc.h"
#include "bench/job.h"

#include "policy/strategy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum fate { WAITING, ANSWERING, SERVED, REFUSED, DROPPED, FAILED } fate;

static const char *const fate_names[] = {"waiting", "answering", "served",
                                         "refused", "dropped",   "failed"};

/* One prompt of a task: what it asks and what became of it in the group being served. */
typedef struct request {
    kept_sample sample;
    kept_tokens tokens;
    kept_seq *seq;
    fate fate;
    kept_account after; /* right after its eviction */
    int32_t next, *answer;
    int n_new;
    double score;
    char why[200];
} request;

typedef struct serving {
    kept_job *job;
    kept_engine *engine; /* the job's, or one with room for a full sequence */
    const kept_strategy *strategy;
    request *all; /* [n] of the group */
    int n, n_lanes;
    kept_item *items; /* [n] */
    int *who;         /* [n] */
    uint64_t peak_bytes, decode_ns;
    int decoded;
} serving;

/* ---- one request ---------------------------------------------------------------------------- */

static void end(request *r, fate how, const char *why)
{
    r->fate = how;
    snprintf(r->why, sizeof r->why, "%.*s", (int)sizeof r->why - 1, why);
    kept_seq_free(r->seq);
    r->seq = NULL;
}

static void note_peak(serving *v)
{
    kept_pool_account p;
    kept_engine_pool(v->engine, &p);
    const uint64_t used = (p.n_pages - p.n_free_pages) * p.page_bytes;
    v->peak_bytes = used > v->peak_bytes ? used : v->peak_bytes;
}

static kept_status pass(serving *v, const kept_item *items, int n, kept_error *why)
{
    kept_status s = kept_engine_forward(v->engine, items, n, why);
    int tokens = 0;
    for (int i = 0; i < n; i++)
        tokens += items[i].n_tokens;
    note_peak(v);
    return s ? s : kept_job_tick(v->job, tokens);
}

/* Tokens of a prompt or a question, in pieces; logits of the last. */
static kept_status read_tokens(serving *v, request *r, const int32_t *tokens, int n, bool prompt,
                               kept_error *why)
{
    kept_status s = KEPT_OK;
    for (int at = 0, k; !s && at < n; at += k) {
        k = n - at < v->job->chunk ? n - at : v->job->chunk;
        const kept_item item = {.seq = r->seq,
                                .tokens = tokens + at,
                                .n_tokens = k,
                                .n_logits = !prompt && at + k == n,
                                .n_after = prompt ? n - at - k : 0,
                                .prefill = prompt};
        s = pass(v, &item, 1, why);
    }
    return s;
}

static bool take_next(serving *v, request *r, const float *logits)
{
    r->next = kept_argmax(logits, v->job->info->n_vocab);
    return r->next >= 0;
}

/* A prompt comes: reads it, evicts, reads the question. */
static kept_status admit(serving *v, request *r, kept_error *err)
{
    const kept_tokens *t = &r->tokens;
    const kept_strategy *st = v->strategy;
    kept_error why = {.text = ""};
    const uint64_t seed = kept_hash64(t->hash, strlen(t->hash), v->job->o->seed);
    kept_status s = kept_seq_new(v->engine, st, NULL, seed, &r->seq, &why);
    if (!s)
        s = kept_seq_hint(r->seq, 0); /* a question may ask for any token: control.c */
    if (!s)
        s = kept_tell_tokens(r->seq, t, st && kept_strategy_reads_marks(st), &why);
    if (!s && st && kept_strategy_when(st).layers)
        s = kept_seq_prefill(r->seq, t->prefix, t->n_prefix, v->job->chunk, 0, &why);
    else if (!s)
        s = read_tokens(v, r, t->prefix, t->n_prefix, true, &why);
    if (!s)
        s = kept_seq_end_prefill(r->seq, &why);
    if (!s)
        kept_seq_account(r->seq, &r->after);
    if (!s)
        s = read_tokens(v, r, t->suffix, t->n_suffix, false, &why);
    note_peak(v);
    if (s == KEPT_CANCELLED)
        return s;
    if (s == KEPT_FULL)
        end(r, REFUSED, why.text);
    else if (s)
        end(r, FAILED, why.text);
    else if (!take_next(v, r, kept_engine_logits(v->engine)))
        end(r, FAILED, "the model's output is not finite");
    else
        r->fate = ANSWERING;
    return s == KEPT_NOMEM ? kept_fail(err, s, "%s", why.text) : KEPT_OK;
}

/* ---- all that are there --------------------------------------------------------------------- */

/* The next token of everybody who goes on, for one pass. */
static int collect(serving *v)
{
    int n = 0;
    for (int i = 0; i < v->n; i++) {
        request *r = &v->all[i];
        if (r->fate != ANSWERING)
            continue;
        const bool over = kept_token_is_end(v->job->model, r->next);
        if (!over && r->n_new < r->sample.turns[0].max_new_tokens)
            r->answer[r->n_new++] = r->next;
        if (over || r->n_new >= r->sample.turns[0].max_new_tokens) {
            end(r, SERVED, "");
            continue;
        }
        v->who[n] = i;
        v->items[n++] =
            (kept_item){.seq = r->seq, .tokens = &r->next, .n_tokens = 1, .n_logits = 1};
    }
    return n;
}

/* Who came last goes first. */
static void drop_youngest(serving *v, int *n, const char *why)
{
    if (*n)
        end(&v->all[v->who[--*n]], DROPPED, why);
}

static kept_status answer(serving *v, kept_error *err)
{
    const uint64_t start = kept_clock_ns();
    kept_status s = KEPT_OK;
    for (int n; !s && (n = collect(v)) > 0;) {
        kept_error why = {.text = ""};
        while (n && (s = pass(v, v->items, n, &why)) == KEPT_FULL)
            drop_youngest(v, &n, why.text);
        if (s && s != KEPT_FULL)
            return kept_fail(err, s, "%s", why.text);
        s = KEPT_OK;
        v->decoded += n;
        const float *logits = n ? kept_engine_logits(v->engine) : NULL;
        for (int i = 0; i < n; i++)
            if (!take_next(v, &v->all[v->who[i]],
                           logits + (size_t)i * (size_t)v->job->info->n_vocab))
                end(&v->all[v->who[i]], FAILED, "the model's output is not finite");
    }
    v->decode_ns += kept_clock_ns() - start;
    return s;
}

static kept_status score(serving *v, request *r, kept_error *err)
{
    const kept_turn *t = &r->sample.turns[0];
    const kept_reference ref = {t->answers, t->n_answers, t->labels, t->n_labels};
    const size_t len = kept_detokenize(v->job->model, r->answer, r->n_new, false, NULL, 0);
    char *text = kept_calloc(len + 1, 1);
    if (!text)
        return kept_fail(err, KEPT_NOMEM, "out of memory for an answer");
    kept_detokenize(v->job->model, r->answer, r->n_new, false, text, len + 1);
    r->score = r->fate == SERVED ? kept_metric_score(t->metric, text, &ref) : 0;
    free(text);
    return KEPT_OK;
}

/* One group, start to end. */
static kept_status serve(serving *v, kept_error *err)
{
    kept_status s = KEPT_OK;
    v->peak_bytes = v->decode_ns = 0;
    v->decoded = 0;
    for (int i = 0; i < v->n; i++) {
        v->all[i].fate = WAITING;
        v->all[i].n_new = 0;
        v->all[i].score = 0;
        v->all[i].after = (kept_account){0};
    }
    for (int i = 0; !s && i < v->n; i++)
        s = admit(v, &v->all[i], err);
    if (!s)
        s = answer(v, err);
    for (int i = 0; i < v->n; i++) {
        kept_seq_free(v->all[i].seq);
        v->all[i].seq = NULL;
        s = s ? s : score(v, &v->all[i], err);
    }
    return s;
}

/* ---- the whole ------------------------------------------------------------------------------ */

typedef struct place {
    int task, variant, sequences, first; /* variant -1: alone, with room */
} place;

static kept_status record(const serving *v, const place *at, json_t *list, kept_error *err)
{
    for (int i = 0; i < v->n; i++) {
        const request *r = &v->all[i];
        const int asked = r->tokens.n_prefix + r->tokens.n_suffix;
        json_t *o = json_object();
        json_object_set_new(o, "task", json_integer(at->task));
        json_object_set_new(o, "variant", json_integer(at->variant));
        json_object_set_new(o, "sequences", json_integer(at->sequences));
        json_object_set_new(o, "index", json_integer(at->first + i));
        json_object_set_new(o, "hash", json_string(r->tokens.hash));
        json_object_set_new(o, "fate", json_string(fate_names[r->fate]));
        json_object_set_new(o, "why", kept_doc_clean(r->why));
        json_object_set_new(o, "score", json_real(r->score));
        json_object_set_new(o, "n_tokens", json_integer(asked));
        json_object_set_new(o, "n_new", json_integer(r->n_new));
        json_object_set_new(o, "held_bytes",
                            json_integer((json_int_t)(r->after.kv_bytes + r->after.meta_bytes)));
        json_object_set_new(o, "n_evicted", json_integer((json_int_t)r->after.n_evicted));
        if (!i) { /* of the group */
            json_object_set_new(o, "peak_bytes", json_integer((json_int_t)v->peak_bytes));
            json_object_set_new(o, "decode_ns", json_integer((json_int_t)v->decode_ns));
            json_object_set_new(o, "decoded", json_integer(v->decoded));
        }
        if (json_array_append_new(list, o))
            return kept_fail(err, KEPT_NOMEM, "out of memory for results");
    }
    return KEPT_OK;
}

static void requests_free(request *r, int n)
{
    for (int i = 0; r && i < n; i++) {
        kept_seq_free(r[i].seq);
        free(r[i].answer);
        kept_tokens_clear(&r[i].tokens);
        kept_sample_clear(&r[i].sample);
    }
    free(r);
}

static kept_status requests_new(kept_job *j, int t, int n, request **out, kept_error *err)
{
    kept_task *task = j->tasks[t].task;
    request *r = *out = kept_calloc((size_t)n, sizeof *r);
    kept_status s = r ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    for (int i = 0; !s && i < n; i++) {
        s = kept_task_get(task, i, &r[i].sample, err);
        if (!s && (r[i].sample.n_turns != 1 || r[i].sample.turns[0].metric == KEPT_METRIC_CHOICE))
            s = kept_fail(err, KEPT_ARGUMENT,
                          "%s: memory pressure takes tasks with one question for each prompt whose "
                          "answer is generated",
                          kept_task_label(task));
        if (!s)
            s = kept_task_tokenize(task, i, &r[i].sample, &r[i].tokens, err);
        const int room = s ? 0 : r[i].sample.turns[0].max_new_tokens;
        if (!s && !(r[i].answer = kept_calloc((size_t)room + 1, sizeof *r[i].answer)))
            s = kept_fail(err, KEPT_NOMEM, "out of memory");
    }
    return s;
}

/* Every group of `sequences` prompts of a task under one strategy. */
static kept_status serve_all(serving *v, request *r, int n, place at, json_t *list, kept_error *err)
{
    kept_job *j = v->job;
    kept_status s = KEPT_OK;
    for (at.first = 0; !s && at.first + at.sequences <= n; at.first += at.sequences) {
        v->all = r + at.first;
        v->n = at.sequences;
        j->part = 0;
        j->weight = 0;
        for (int i = 0; i < v->n; i++)
            j->weight += v->all[i].tokens.n_prefix + v->all[i].tokens.n_suffix;
        snprintf(j->what, sizeof j->what, "%.40s, %d sequences, %.30s",
                 kept_task_label(j->tasks[at.task].task), at.sequences,
                 at.variant < 0 ? "full, with room" : j->variants[at.variant].name);
        s = serve(v, err);
        if (!s)
            s = record(v, &at, list, err);
        j->done += j->weight;
    }
    return s;
}

static int rounded(int n, int group)
{
    return (n + group - 1) / group * group;
}

static kept_status one_task(const kept_pressure_options *o, kept_job *j, kept_engine *roomy, int t,
                            json_t *list, kept_error *err)
{
    const int n = j->tasks[t].n_samples;
    int most = 1;
    request *r = NULL;
    for (int k = 0; k < o->n; k++)
        most = o->sequences[k] > most ? o->sequences[k] : most;
    serving v = {.job = j,
                 .engine = roomy,
                 .items = kept_calloc((size_t)most, sizeof *v.items),
                 .who = kept_calloc((size_t)most, sizeof *v.who)};
    kept_status s =
        v.items && v.who ? requests_new(j, t, n, &r, err) : kept_fail(err, KEPT_NOMEM, "no memory");
    if (!s)
        s = serve_all(&v, r, n, (place){.task = t, .variant = -1, .sequences = 1}, list, err);
    v.engine = j->engine;
    for (int k = 0; k < o->n; k++)
        for (int x = 0; !s && x < j->n_variants; x++) {
            if (x == KEPT_VARIANT_FLOOR)
                continue;
            v.strategy = j->variants[x].strategy;
            const int want = rounded(o->run->tasks[t].n_samples, o->sequences[k]);
            const place at = {.task = t, .variant = x, .sequences = o->sequences[k]};
            s = serve_all(&v, r, want < n ? want : n, at, list, err);
        }
    requests_free(r, n);
    free(v.items);
    free(v.who);
    return s;
}

/* The same tasks with prompts for whole groups of every size. */
static kept_status open_job(const kept_pressure_options *o, kept_run_options *run,
                            kept_task_options *tasks, kept_job *j, kept_error *err)
{
    int most = 1;
    for (int k = 0; k < o->n; k++)
        most = o->sequences[k] > most ? o->sequences[k] : most;
    for (int t = 0; t < run->n_tasks; t++) {
        tasks[t] = o->run->tasks[t];
        for (int k = 0; k < o->n; k++) {
            const int want = rounded(o->run->tasks[t].n_samples, o->sequences[k]);
            tasks[t].n_samples = want > tasks[t].n_samples ? want : tasks[t].n_samples;
        }
    }
    run->tasks = tasks;
    run->speed_samples = 0;
    run->sink = NULL;
    run->dump_kept = NULL;
    j->o = run;
    j->more_seqs = most;
    j->bandwidth = NAN;
    return kept_job_open(j, err);
}

static kept_status open_roomy(const kept_job *j, kept_engine **out, kept_error *err)
{
    const kept_engine_options e = {.n_threads = j->o->n_threads,
                                   .max_tokens = j->max_tokens,
                                   .max_batch_tokens = j->max_batch,
                                   .max_seqs = 2,
                                   .isa = j->o->isa};
    return kept_engine_new(j->model, &e, out, err);
}

kept_status kept_pressure(const kept_pressure_options *o, json_t **out, kept_error *err)
{
    kept_run_options run = *o->run;
    kept_job j = {0};
    kept_engine *roomy = NULL;
    json_t *doc = NULL, *list = json_array();
    kept_task_options *tasks = kept_calloc((size_t)run.n_tasks + 1, sizeof *tasks);
    kept_status s = KEPT_OK;
    *out = NULL;
    if (!run.pool_bytes || o->n < 1)
        s = kept_fail(err, KEPT_ARGUMENT, "memory pressure wants a cap and numbers of sequences");
    else if (!tasks || !list)
        s = kept_fail(err, KEPT_NOMEM, "out of memory");
    if (!s)
        s = open_job(o, &run, tasks, &j, err);
    if (!s)
        s = open_roomy(&j, &roomy, err);
    if (!s && !(doc = kept_result_head(&j, err)))
        s = KEPT_NOMEM;
    for (int t = 0; !s && t < run.n_tasks; t++)
        s = j.tasks[t].kind == KEPT_TASK_GENERATE
                ? KEPT_OK
                : kept_fail(err, KEPT_ARGUMENT, "%s: memory pressure takes tasks with answers",
                            kept_task_label(j.tasks[t].task));
    j.total *= o->n * (j.n_variants - 1) + 1; /* about: for the progress line */
    for (int t = 0; !s && t < run.n_tasks; t++)
        s = one_task(o, &j, roomy, t, list, err);
    if (!s) {
        json_object_set_new(doc, "schema", json_string(KEPT_PRESSURE_SCHEMA));
        json_object_set_new(doc, "partial", json_false());
        json_object_set_new(doc, "cap_bytes", json_integer((json_int_t)run.pool_bytes));
        json_object_set(doc, "requests", list);
        json_t *cells = kept_pressure_cells(doc);
        if (!cells || json_object_set_new(doc, "cells", cells))
            s = kept_fail(err, KEPT_NOMEM, "out of memory for results");
        else
            *out = json_incref(doc);
    }
    json_decref(doc);
    json_decref(list);
    kept_engine_free(roomy);
    if (j.o)
        kept_job_close(&j);
    free(tasks);
    return s;
}
