/* run: opens everything, loops over tasks and samples, and closes everything again. The document
 * is complete after every sample, so that a run that is cancelled leaves a valid partial result.
 */
#include "bench/job.h"
#include "bench/kerncheck.h"
#include "bench/stop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CHUNK        512
#define SPEED_STEPS  16
#define STREAM_BYTES ((size_t)256 << 20) /* more than caches hold; read three times */

static kept_status open_engine(kept_job *j, kept_error *err)
{
    kept_engine_options e = {
        .n_threads = j->o->n_threads,
        .pool_bytes = j->pool_bytes,
        .max_tokens = j->max_prefix + j->echo_room > j->max_tokens ? j->max_prefix + j->echo_room
                                                                   : j->max_tokens,
        .max_batch_tokens = j->max_batch,
        /* and copies that answer; the shared prefix, two copies for timing, one spare */
        .max_seqs = j->n_variants * (1 + j->max_levels) + 4 + j->more_seqs,
        .isa = j->o->isa,
    };
    return kept_engine_new(j->model, &e, &j->engine, err);
}

kept_status kept_job_open(kept_job *j, kept_error *err)
{
    const kept_run_options *o = j->o;
    if (o->n_tasks < 1)
        return kept_fail(err, KEPT_ARGUMENT, "no task to run");
    j->chunk = o->chunk > 0 ? o->chunk : CHUNK;
    j->speed_steps = o->speed_steps > 0 ? o->speed_steps + o->speed_steps % 2 : SPEED_STEPS;
    kept_status s =
        kept_prepare_variants(j, err); /* first: a wrong spec should not wait for a load */
    if (!s)
        s = kept_model_open(o->model_path, &j->model, err);
    if (s)
        return s;
    j->info = kept_model_get_info(j->model);
    j->max_batch = j->chunk > CHUNK ? j->chunk : CHUNK;
    s = kept_prepare_trained(j, err);
    if (!s)
        s = kept_prepare_tasks(j, err);
    if (!s)
        s = kept_prepare_pool(j, err);
    if (!s)
        s = open_engine(j, err);
    if (!s)
        s = kept_lend_trained(j, err);
    if (!s && o->dump_kept)
        s = kept_dump_open(j, &j->dump, err);
    return s;
}

void kept_job_close(kept_job *j)
{
    kept_dump_abandon(j->dump);
    kept_stop_free(j->stop);
    kept_engine_free(j->engine);
    kept_trained_close(j);
    for (int t = 0; j->tasks && t < j->o->n_tasks; t++) {
        kept_task_close(j->tasks[t].task);
        free(j->tasks[t].weight);
        free(j->tasks[t].hash);
    }
    free(j->tasks);
    for (int v = 0; v < j->n_variants; v++)
        kept_strategy_free(j->variants[v].strategy);
    free(j->variants);
    kept_model_free(j->model);
}

/* Aggregates and the marks that say whether the run is whole. */
static kept_status finish(kept_job *j, json_t *doc, bool partial, kept_error *err)
{
    uint64_t since = kept_clock_ns();
    json_t *cells = kept_result_cells(doc);
    kept_job_clock(j, KEPT_PHASE_STATS, &since);
    json_t *times = kept_result_times(j);
    if (!cells || !times || json_object_set_new(doc, "cells", cells) ||
        json_object_set_new(doc, "times", times) ||
        json_object_set_new(doc, "partial", json_boolean(partial)))
        return kept_fail(err, KEPT_NOMEM, "out of memory for results");
    return KEPT_OK;
}

/* Only where speed is asked for; a machine that cannot say has no roof. */
static void measure_bandwidth(kept_job *j)
{
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    kept_error err;
    j->bandwidth = NAN;
    if (j->o->speed_samples > 0 &&
        kept_read_bandwidth(j->o->n_threads > 0 ? j->o->n_threads : (int)n_cpus, STREAM_BYTES,
                            &j->bandwidth, &err))
        j->bandwidth = NAN;
    FILE *f = fopen("/proc/self/clear_refs", "w"); /* its buffers are no part of the run's peak */
    if (f) {
        fputs("5", f);
        fclose(f);
    }
}

kept_status kept_run(const kept_run_options *o, json_t **result, kept_error *err)
{
    kept_job j = {.o = o};
    json_t *doc = NULL, *samples = json_array();
    *result = NULL;
    uint64_t start = kept_clock_ns();
    kept_status s = kept_job_open(&j, err);
    if (s)
        goto out;
    j.start_ns = start;
    kept_energy_start(&j.energy, KEPT_POWERCAP);
    measure_bandwidth(&j);
    kept_job_clock(&j, KEPT_PHASE_OPEN, &start);
    doc = kept_result_head(&j, err);
    if (!doc || !samples || json_object_set(doc, "samples", samples)) {
        s = doc ? kept_fail(err, KEPT_NOMEM, "out of memory for results") : KEPT_NOMEM;
        goto out;
    }
    s = kept_run_sweep(&j, doc, samples, err);
    if (s && s != KEPT_CANCELLED)
        goto out;
    bool partial = s == KEPT_CANCELLED;
    if (j.stop)
        json_object_set_new(doc, "sequential", kept_stop_json(j.stop, &j));
    kept_status end = finish(&j, doc, partial, err);
    if (!end && j.dump) {
        end = kept_dump_close(j.dump, !partial, err);
        j.dump = NULL;
    }
    if (end) {
        s = end;
        goto out;
    }
    if (partial)
        kept_fail(err, s, "stopped after %zu samples", json_array_size(samples));
    *result = json_incref(doc);
out:
    json_decref(doc);
    json_decref(samples);
    kept_job_close(&j);
    return s;
}
