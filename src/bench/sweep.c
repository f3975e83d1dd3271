/* sweep: which samples are run, and in which order: the first of every task, then the second of
 * every task, and so on, so that a run that is stopped early has as many of each, and what is known
 * least is what gets a sample next. With a sink what it does not have yet; what other processes
 * work on is waited for at the end, and taken over should they die.
 */
#include "bench/job.h"
#include "bench/stop.h"

#include <stdlib.h>
#include <time.h>

#define WAIT_NS 100000000 /* between two looks at what others work on */

typedef struct place {
    int task, index;
} place;

/* All samples in the order in which they are run: [*n], the caller frees it. NULL: no memory. */
static place *places(const kept_job *j, size_t *n)
{
    int most = 0;
    *n = 0;
    for (int t = 0; t < j->o->n_tasks; t++) {
        *n += (size_t)j->tasks[t].n_samples;
        most = j->tasks[t].n_samples > most ? j->tasks[t].n_samples : most;
    }
    place *list = kept_calloc(*n + 1, sizeof *list);
    size_t at = 0;
    for (int k = 0; list && k < most; k++)
        for (int t = 0; t < j->o->n_tasks; t++)
            if (k < j->tasks[t].n_samples)
                list[at++] = (place){t, k};
    return list;
}

/* A seeded order of the samples of each task: what comes next says nothing about depths. */
static bool shuffle(const kept_job *j, place *list, size_t n)
{
    for (int t = 0; t < j->o->n_tasks; t++) {
        const int m = j->tasks[t].n_samples;
        int *order = kept_calloc((size_t)m + 1, sizeof *order);
        kept_rng rng;
        if (!order)
            return false;
        kept_rng_init(&rng, kept_hash64(&t, sizeof t, j->o->seed));
        for (int i = 0; i < m; i++) {
            const int k = (int)kept_rng_below(&rng, (uint32_t)i + 1);
            order[i] = order[k];
            order[k] = i;
        }
        for (size_t i = 0; i < n; i++)
            if (list[i].task == t)
                list[i].index = order[list[i].index];
        free(order);
    }
    return true;
}

/* A task whose rows all have their verdicts needs no more samples. */
static bool is_enough(kept_job *j, place p)
{
    if (!kept_stop_settled(j->stop, p.task))
        return false;
    j->done += j->tasks[p.task].weight[p.index];
    return true;
}

static size_t offset_of(const kept_job *j, int task)
{
    size_t at = 0;
    for (int t = 0; t < task; t++)
        at += (size_t)j->tasks[t].n_samples;
    return at;
}

static kept_status sweep_all(kept_job *j, const place *list, size_t n, json_t *samples,
                             kept_error *err)
{
    json_t **have = kept_calloc(n + 1, sizeof(json_t *)); /* as the document has them */
    kept_status s = have ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory for results");
    for (size_t k = 0; !s && k < n; k++) {
        const place p = list[k];
        json_t **one = &have[offset_of(j, p.task) + (size_t)p.index];
        if (is_enough(j, p))
            continue;
        s = kept_run_sample(j, p.task, p.index, NULL, one, err);
        if (!s && j->stop)
            kept_stop_take(j->stop, *one);
    }
    for (size_t i = 0; have && i < n; i++)
        if (have[i] && json_array_append_new(samples, have[i]) && !s)
            s = kept_fail(err, KEPT_NOMEM, "out of memory for results");
    free(have);
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
    place *list; /* [n] */
    size_t n;
    bool *done;  /* [n] needs no further look */
    bool *lacks; /* [n_variants] */
    int n_run, n_busy;
} sweep;

/* What the study has of a sample, for the verdicts. */
static kept_status look(kept_job *j, place p, kept_error *err)
{
    json_t *one = NULL;
    kept_status s =
        j->stop ? j->o->sink->get(j->o->sink->ctx, p.task, p.index, &one, err) : KEPT_OK;
    if (!s && one)
        kept_stop_take(j->stop, one);
    json_decref(one);
    return s;
}

static kept_status visit(kept_job *j, sweep *w, size_t at, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    const place p = w->list[at];
    kept_take what;
    if ((w->done[at] = is_enough(j, p)))
        return KEPT_OK;
    uint64_t since = kept_clock_ns();
    kept_status s = sink->take(sink->ctx, p.task, p.index, &what, w->lacks, err);
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    if (s)
        return s;
    if (what == KEPT_TAKE_BUSY) {
        w->n_busy++;
        return KEPT_OK;
    }
    w->done[at] = true;
    if (what == KEPT_TAKE_DONE) {
        j->done += j->tasks[p.task].weight[p.index];
        return look(j, p, err);
    }
    json_t *one = NULL;
    s = kept_run_sample(j, p.task, p.index, w->lacks, &one, err);
    json_decref(one);
    w->n_run++;
    if (s)
        sink->drop(sink->ctx, p.task, p.index);
    return s ? s : look(j, p, err);
}

/* Every sample that is not done, first those of this rank, then the others'. */
static kept_status pass(kept_job *j, sweep *w, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    const size_t n_ranks = sink->n_ranks > 1 ? (size_t)sink->n_ranks : 1;
    w->n_run = w->n_busy = 0;
    for (size_t r = 0; r < n_ranks; r++) {
        const size_t rank = ((size_t)sink->rank + r) % n_ranks;
        for (size_t at = rank; at < w->n; at += n_ranks) {
            kept_status s = w->done[at] ? KEPT_OK : visit(j, w, at, err);
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
            if (!s && one && json_array_append_new(samples, one))
                s = kept_fail(err, KEPT_NOMEM, "out of memory for results");
            if (s)
                return s;
        }
    return KEPT_OK;
}

static kept_status sweep_study(kept_job *j, sweep *w, const json_t *head, json_t *samples,
                               kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    w->done = kept_calloc(w->n + 1, 1);
    w->lacks = kept_calloc((size_t)j->n_variants, 1);
    json_t *hashes = prompts(j);
    kept_status s = KEPT_NOMEM, end;
    int done;
    uint64_t since = kept_clock_ns();
    if (w->done && w->lacks && hashes)
        s = sink->begin(sink->ctx, head, hashes, &done, err);
    else
        kept_fail(err, s, "out of memory for results");
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    if (!s && j->o->resumed)
        j->o->resumed(j->o->ctx, done, (int)w->n);
    if (!s)
        s = passes(j, w, err);
    since = kept_clock_ns();
    if ((!s || s == KEPT_CANCELLED) && (end = collect(j, samples, err)))
        s = end;
    kept_job_clock(j, KEPT_PHASE_STORE, &since);
    free(w->done);
    free(w->lacks);
    json_decref(hashes);
    return s;
}

kept_status kept_run_sweep(kept_job *j, const json_t *head, json_t *samples, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    if (j->o->stop_margin > 0 && sink && sink->n_ranks > 1)
        return kept_fail(err, KEPT_ARGUMENT, "stopping at verdicts (--stop) is for one process");
    sweep w = {.n = 0};
    w.list = places(j, &w.n);
    const bool stops = j->o->stop_margin > 0;
    kept_status s =
        w.list && (!stops || shuffle(j, w.list, w.n)) && (!stops || (j->stop = kept_stop_new(j)))
            ? KEPT_OK
            : kept_fail(err, KEPT_NOMEM, "out of memory for results");
    if (!s)
        s = sink ? sweep_study(j, &w, head, samples, err) : sweep_all(j, w.list, w.n, samples, err);
    free(w.list);
    return s;
}
