/* sweep: which samples are run. Without a sink all of them; with one, what it does not have yet;
 * what other processes work on is waited for at the end, and taken over should they die. The first
 * sample of every task comes before the second of any: a run that is stopped early has as many of
 * each, so that no task's intervals stay wide while others' are narrow. Results list them by task.
 */
#include "bench/job.h"

#include <stdlib.h>
#include <time.h>

#define WAIT_NS 100000000 /* between two looks at what others work on */

static kept_status keep(json_t *samples, json_t *one, kept_error *err)
{
    return json_array_append_new(samples, one)
               ? kept_fail(err, KEPT_NOMEM, "out of memory for results")
               : KEPT_OK;
}

/* Samples of the task that has most. */
static int most_samples(const kept_job *j)
{
    int n = 0;
    for (int t = 0; t < j->o->n_tasks; t++)
        n = n > j->tasks[t].n_samples ? n : j->tasks[t].n_samples;
    return n;
}

static kept_status run_round(kept_job *j, int i, json_t *by_task, kept_error *err)
{
    for (int t = 0; t < j->o->n_tasks; t++) {
        json_t *one = NULL;
        if (i >= j->tasks[t].n_samples)
            continue;
        kept_status s = kept_run_sample(j, t, i, NULL, &one, err);
        if (!s)
            s = keep(json_array_get(by_task, (size_t)t), one, err);
        if (s)
            return s;
    }
    return KEPT_OK;
}

static kept_status sweep_all(kept_job *j, json_t *samples, kept_error *err)
{
    json_t *by_task = json_array();
    kept_status s = KEPT_OK;
    for (int t = 0; t < j->o->n_tasks && !s; t++)
        s = keep(by_task, json_array(), err);
    for (int i = 0, n = most_samples(j); i < n && !s; i++)
        s = run_round(j, i, by_task, err);
    for (int t = 0; t < j->o->n_tasks && by_task; t++)
        if (json_array_extend(samples, json_array_get(by_task, (size_t)t)) && !s)
            s = kept_fail(err, KEPT_NOMEM, "out of memory for results");
    json_decref(by_task);
    return s;
}

static json_t *prompts(const kept_job *j)
{
    json_t *list = json_array();
    for (int t = 0; t < j->o->n_tasks; t++) {
        json_t *of = json_array();
        for (int i = 0; i < j->tasks[t].n_samples; i++)
            json_array_append_new(of, json_string(j->tasks[t].hash[i]));
        json_array_append_new(list, of);
    }
    return list;
}

typedef struct sweep {
    bool *done;  /* [samples of all tasks] needs no further look */
    bool *lacks; /* [n_variants] */
    int n_run, n_busy;
} sweep;

static kept_status visit(kept_job *j, sweep *w, int t, int i, int at, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    kept_take what;
    uint64_t since = kept_clock_ns();
    kept_status s = sink->take(sink->ctx, t, i, &what, w->lacks, err);
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    if (s)
        return s;
    if (what == KEPT_TAKE_BUSY) {
        w->n_busy++;
        return KEPT_OK;
    }
    w->done[at] = true;
    if (what == KEPT_TAKE_DONE) {
        j->done += j->tasks[t].weight[i];
        return KEPT_OK;
    }
    json_t *one = NULL;
    s = kept_run_sample(j, t, i, w->lacks, &one, err);
    json_decref(one);
    w->n_run++;
    if (s)
        sink->drop(sink->ctx, t, i);
    return s;
}

/* Every sample that is not done, first those of this rank, then the others'. */
static kept_status pass(kept_job *j, sweep *w, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    const int n_ranks = sink->n_ranks > 1 ? sink->n_ranks : 1;
    const int most = most_samples(j);
    w->n_run = w->n_busy = 0;
    for (int r = 0; r < n_ranks; r++) {
        const int rank = (sink->rank + r) % n_ranks;
        for (int i = 0, at = 0; i < most; i++)
            for (int t = 0; t < j->o->n_tasks; t++) {
                if (i >= j->tasks[t].n_samples)
                    continue;
                const int k = at++;
                if (w->done[k] || k % n_ranks != rank)
                    continue;
                kept_status s = visit(j, w, t, i, k, err);
                if (s)
                    return s;
            }
    }
    return KEPT_OK;
}

static kept_status passes(kept_job *j, sweep *w, kept_error *err)
{
    for (;;) {
        kept_status s = pass(j, w, err);
        if (s || !w->n_busy)
            return s;
        if (w->n_run)
            continue;
        const struct timespec wait = {.tv_nsec = WAIT_NS};
        snprintf(j->what, sizeof j->what, "waiting for other processes: %d samples", w->n_busy);
        j->weight = j->part = 0;
        if ((s = kept_job_tick(j, 0)))
            return s;
        nanosleep(&wait, NULL);
    }
}

static kept_status collect(kept_job *j, json_t *samples, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    for (int t = 0; t < j->o->n_tasks; t++)
        for (int i = 0; i < j->tasks[t].n_samples; i++) {
            json_t *one = NULL;
            kept_status s = sink->get(sink->ctx, t, i, &one, err);
            if (!s && one)
                s = keep(samples, one, err);
            if (s)
                return s;
        }
    return KEPT_OK;
}

kept_status kept_run_sweep(kept_job *j, const json_t *head, json_t *samples, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    if (!sink)
        return sweep_all(j, samples, err);
    size_t n = 0;
    for (int t = 0; t < j->o->n_tasks; t++)
        n += (size_t)j->tasks[t].n_samples;
    sweep w = {.done = kept_calloc(n, 1), .lacks = kept_calloc((size_t)j->n_variants, 1)};
    json_t *hashes = prompts(j);
    kept_status s = KEPT_NOMEM, end;
    int done;
    uint64_t since = kept_clock_ns();
    if (w.done && w.lacks && hashes)
        s = sink->begin(sink->ctx, head, hashes, &done, err);
    else
        kept_fail(err, s, "out of memory for results");
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    if (!s && j->o->resumed)
        j->o->resumed(j->o->ctx, done, (int)n);
    if (!s)
        s = passes(j, &w, err);
    since = kept_clock_ns();
    if ((!s || s == KEPT_CANCELLED) && (end = collect(j, samples, err)))
        s = end;
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    free(w.done);
    free(w.lacks);
    json_decref(hashes);
    return s;
}
