/* sample: one sample of one task. The prefix is prefilled once and forked for every strategy that
 * can share it; a strategy that evicts between prefill chunks has its own prefill. Whatever goes
 * wrong for one variant is that variant's failure; the sample goes on with the others.
 */
#include "bench/job.h"
#include "bench/keptmap.h"

#include "policy/strategy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

kept_status kept_job_tick(kept_job *j, double units)
{
    j->part += units;
    if (j->part > j->weight)
        j->part = j->weight;
    double done = j->total > 0 ? (j->done + j->part) / j->total : 0;
    if (j->o->sink)
        j->o->sink->alive(j->o->sink->ctx);
    if (j->o->progress && !j->o->progress(j->o->ctx, done < 1 ? done : 1, j->what))
        return KEPT_CANCELLED;
    return KEPT_OK;
}

void kept_job_clock(kept_job *j, kept_phase phase, uint64_t *since)
{
    uint64_t now = kept_clock_ns();
    j->phase_ns[phase] += now - *since;
    *since = now;
}

static void free_seqs(kept_outcome *o)
{
    kept_seq_free(o->seq);
    o->seq = NULL;
    while (o->n_trunks)
        kept_seq_free(o->trunk[--o->n_trunks]);
}

void kept_outcome_fail(kept_outcome *o, const char *why)
{
    if (!o->failed)
        snprintf(o->why, sizeof o->why, "%.*s", (int)sizeof o->why - 1, why);
    o->failed = true;
    o->active = false;
    kept_seq *held = o->n_trunks ? o->trunk[0] : o->seq;
    if (held)
        kept_seq_account(held, &o->last);
    free_seqs(o);
}

/* Random strategies draw from this: the same for all variants, so that budgets are nested, and the
 * same whatever other tasks and samples the run has. */
static uint64_t sample_seed(const kept_work *w)
{
    return kept_hash64(w->tokens.hash, strlen(w->tokens.hash), w->job->o->seed);
}

kept_status kept_tell_tokens(kept_seq *seq, const kept_tokens *t, bool marks, kept_error *err)
{
    kept_status s = KEPT_OK;
    for (int i = 0; i < t->n_pins && !s; i++)
        s = kept_seq_pin(seq, t->pins[i].begin, t->pins[i].end);
    if (!s && marks && t->n_template)
        s = kept_seq_mark(seq, 0, t->n_template, KEPT_CLASS_TEMPLATE);
    return s ? kept_fail(err, s, "pinned spans or template tokens do not fit the sequence")
             : KEPT_OK;
}

static kept_status tell(const kept_work *w, kept_seq *seq, kept_error *err)
{
    bool marks = false;
    for (int v = 0; v < w->job->n_variants; v++) {
        const kept_strategy *st = w->job->variants[v].strategy;
        marks |= st && kept_strategy_reads_marks(st);
    }
    return kept_tell_tokens(seq, &w->tokens, marks, err);
}

static kept_status prefill(kept_work *w, kept_seq *seq, kept_error *err)
{
    int chunk = w->job->chunk;
    kept_status told = tell(w, seq, err);
    if (told)
        return told;
    for (int at = 0; at < w->n_prefix; at += chunk) {
        int n = w->n_prefix - at < chunk ? w->n_prefix - at : chunk;
        kept_item item = {.seq = seq,
                          .tokens = w->tokens.prefix + at,
                          .n_tokens = n,
                          .n_after = w->n_prefix - at - n,
                          .prefill = true};
        kept_status s = kept_engine_forward(w->job->engine, &item, 1, err);
        if (!s)
            s = kept_job_tick(w->job, n);
        if (s)
            return s;
    }
    return KEPT_OK;
}

/* A prompt that a strategy reads layer by layer. */
static kept_status prefill_whole(kept_work *w, kept_seq *seq, kept_error *err)
{
    kept_status s = tell(w, seq, err);
    if (!s)
        s = kept_seq_prefill(seq, w->tokens.prefix, w->n_prefix, w->job->chunk, 0, err);
    return s ? s : kept_job_tick(w->job, w->n_prefix);
}

/* Parks a sequence whose strategy says so and wakes it, as between two turns. */
static bool rest(kept_work *w, int v, kept_error *err)
{
    kept_outcome *o = &w->out[v];
    const kept_strategy *by = w->job->variants[v].strategy;
    void *data = NULL;
    size_t n = 0;
    if (!by || !kept_strategy_rest(by).parks)
        return true;
    const uint64_t t0 = kept_clock_ns();
    if (kept_seq_park(o->seq, &data, &n, err))
        return false;
    const uint64_t t1 = kept_clock_ns();
    o->seq = NULL;
    const kept_status s = kept_seq_resume(w->job->engine, by, data, n, &o->seq, err);
    o->resume_ns = kept_clock_ns() - t1;
    o->park_ns = t1 - t0;
    o->parked_bytes = n;
    free(data);
    return !s;
}

/* The prompt is in: evicts and takes the measurements that belong to this moment. */
static kept_status settle(kept_work *w, int v, kept_error *err)
{
    kept_outcome *o = &w->out[v];
    kept_error why;
    if (kept_control_tell(w, v, o->seq, w->out[KEPT_VARIANT_FULL].seq, &why) ||
        kept_seq_end_prefill(o->seq, &why) || !rest(w, v, &why)) {
        kept_outcome_fail(o, why.text);
        return KEPT_OK;
    }
    o->active = true;
    kept_seq_account(o->seq, &o->after);
    o->evidence = kept_measure_evidence(w, v, &o->evidence_any);
    if (w->job->o->sink) {
        kept_status s = kept_map_of(o->seq, w->job->info, &o->map, &o->map_bytes, err);
        if (s)
            return s;
    }
    return w->job->dump ? kept_dump_write(w->job->dump, w, v, err) : KEPT_OK;
}

static kept_status fork_all(kept_work *w, kept_seq *base, uint64_t prefill_ns, kept_error *err)
{
    kept_job *j = w->job;
    kept_capture probe = {.n_planes = 1, .plane = {KEPT_PROBE}};
    for (int v = 0; v < j->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        if (j->variants[v].own_prefill || o->skip)
            continue;
        const kept_capture *extra = v == KEPT_VARIANT_FLOOR && j->probe ? &probe : NULL;
        kept_error why;
        o->prefill_ns = prefill_ns;
        if (kept_seq_fork(base, j->variants[v].strategy, extra, sample_seed(w), &o->seq, &why)) {
            kept_outcome_fail(o, why.text);
            continue;
        }
        kept_status s = settle(w, v, err);
        if (s)
            return s;
    }
    return KEPT_OK;
}

static kept_status shared_prefill(kept_work *w, kept_error *err)
{
    kept_job *j = w->job;
    kept_seq *base = NULL;
    kept_error why = {.text = ""};
    uint64_t start = kept_clock_ns(), since = start;
    kept_status s = kept_seq_new(j->engine, NULL, &j->capture, sample_seed(w), &base, &why);
    if (!s)
        s = prefill(w, base, &why);
    kept_job_clock(j, KEPT_PHASE_PREFILL, &since);
    if (s == KEPT_FULL || s == KEPT_NOMEM) {
        for (int v = 0; v < j->n_variants; v++)
            if (!j->variants[v].own_prefill)
                kept_outcome_fail(&w->out[v], why.text);
        s = KEPT_OK;
    } else if (s) {
        kept_fail(err, s, "%s", why.text);
    } else {
        const uint64_t prefill_ns = since - start;
        s = kept_look_ahead(w, base, err);
        if (!s)
            s = fork_all(w, base, prefill_ns, err);
    }
    kept_seq_free(base);
    kept_job_clock(j, KEPT_PHASE_FORK, &since);
    return s;
}

static kept_status own_prefills(kept_work *w, kept_error *err)
{
    kept_job *j = w->job;
    for (int v = 0; v < j->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        if (!j->variants[v].own_prefill || o->skip)
            continue;
        kept_error why = {.text = ""};
        uint64_t start = kept_clock_ns(), since = start;
        kept_status s =
            kept_seq_new(j->engine, j->variants[v].strategy, NULL, sample_seed(w), &o->seq, &why);
        if (!s)
            s = j->variants[v].whole ? prefill_whole(w, o->seq, &why) : prefill(w, o->seq, &why);
        kept_job_clock(j, KEPT_PHASE_PREFILL, &since);
        o->prefill_ns = since - start;
        if (s == KEPT_CANCELLED)
            return s;
        if (s)
            kept_outcome_fail(o, why.text);
        else if ((s = settle(w, v, err)))
            return s;
    }
    return KEPT_OK;
}

static void work_clear(kept_work *w)
{
    for (int v = 0; w->out && v < w->job->n_variants; v++) {
        kept_outcome *o = &w->out[v];
        free_seqs(o);
        for (int k = 0; o->replies && k < w->sample.n_turns; k++) {
            free(o->replies[k].tokens);
            free(o->replies[k].text);
        }
        free(o->replies);
        free(o->choice);
        free(o->kl);
        free(o->nll);
        free(o->top1);
        free(o->step_ns);
        free(o->full_ns);
        free(o->map);
    }
    void *blocks[] = {w->short_nll, w->out,         w->reference, w->feed,   w->items,
                      w->who,       w->pos,         w->mass,      w->by_pos, w->share,
                      w->core,      w->evidence_at, w->paid};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        free(blocks[i]);
    kept_tokens_clear(&w->tokens);
    kept_sample_clear(&w->sample);
}

static bool replies_init(const kept_work *w, kept_outcome *o)
{
    const int n = w->sample.n_turns;
    int n_labels = 0;
    o->replies = kept_calloc((size_t)n + 1, sizeof *o->replies);
    for (int k = 0; o->replies && k < n; k++) {
        const kept_turn *t = &w->sample.turns[k];
        int room = t->max_new_tokens > 0 ? t->max_new_tokens : 1;
        if (t->metric == KEPT_METRIC_CHOICE) {
            n_labels = t->n_labels > n_labels ? t->n_labels : n_labels;
            room = w->tokens.turns[k].longest;
        }
        o->replies[k].diverged = -1;
        o->replies[k].evidence = NAN;
        if (!(o->replies[k].tokens = kept_calloc((size_t)room, sizeof *o->replies[k].tokens)))
            return false;
    }
    if (n_labels)
        o->choice = kept_calloc((size_t)n_labels, sizeof *o->choice);
    return o->replies && (!n_labels || o->choice);
}

/* Arrays of every variant, for the whole sample. */
static bool outcomes_init(kept_work *w)
{
    int n = w->job->n_variants;
    w->out = kept_calloc((size_t)n, sizeof *w->out);
    for (int v = 0; w->out && v < n; v++) {
        kept_outcome *o = &w->out[v];
        o->evidence = o->evidence_any = o->regret = NAN;
        o->kl = kept_calloc((size_t)w->n_suffix, sizeof *o->kl);
        o->nll = kept_calloc((size_t)w->n_suffix, sizeof *o->nll);
        o->top1 = kept_calloc((size_t)w->n_suffix, sizeof *o->top1);
        o->step_ns = kept_calloc((size_t)w->job->speed_steps, sizeof *o->step_ns);
        o->full_ns = kept_calloc((size_t)w->job->speed_steps, sizeof *o->full_ns);
        if (!replies_init(w, o) || !o->kl || !o->nll || !o->top1 || !o->step_ns || !o->full_ns)
            return false;
    }
    return w->out;
}

static bool arrays_init(kept_work *w)
{
    size_t n = (size_t)w->job->n_variants, len = (size_t)w->job->max_tokens;
    w->reference = kept_calloc((size_t)w->job->info->n_vocab, sizeof *w->reference);
    w->feed = kept_calloc(n, sizeof *w->feed);
    w->items = kept_calloc(n, sizeof *w->items);
    w->who = kept_calloc(n, sizeof *w->who);
    w->share = kept_calloc(n, sizeof *w->share);
    w->core = kept_calloc(n, sizeof *w->core);
    w->pos = kept_calloc(len, sizeof *w->pos);
    w->mass = kept_calloc(len, sizeof *w->mass);
    w->by_pos = kept_calloc(len, sizeof *w->by_pos);
    w->evidence_at = kept_calloc((size_t)w->n_prefix, sizeof *w->evidence_at);
    w->paid = kept_calloc((size_t)w->job->info->n_layers * (size_t)w->job->info->n_kv_heads *
                              (size_t)w->n_prefix,
                          sizeof *w->paid);
    if (!w->reference || !w->feed || !w->items || !w->who || !w->share || !w->core || !w->pos ||
        !w->mass || !w->by_pos || !w->evidence_at)
        return false;
    for (int p = 0; p < w->n_prefix; p++)
        w->evidence_at[p] = -1;
    kept_measure_set_evidence(w, w->tokens.evidence, w->tokens.n_evidence);
    return true;
}

static kept_status work_init(kept_work *w, kept_error *err)
{
    kept_task *t = w->job->tasks[w->task].task;
    kept_status s = kept_task_get(t, w->index, &w->sample, err);
    if (!s)
        s = kept_task_tokenize(t, w->index, &w->sample, &w->tokens, err);
    if (s)
        return s;
    if (strcmp(w->tokens.hash, w->job->tasks[w->task].hash[w->index]))
        return kept_fail(err, KEPT_FORMAT,
                         "%s: sample %d has another prompt than the study says; was the program "
                         "changed? Use another study file",
                         kept_task_label(t), w->index);
    w->n_prefix = w->tokens.n_prefix;
    w->suffix = w->tokens.suffix;
    w->n_suffix = w->tokens.n_suffix;
    if (w->n_prefix < 1 || w->n_suffix < 1)
        return kept_fail(err, KEPT_ARGUMENT, "%s: sample %d has fewer than two tokens",
                         kept_task_label(t), w->index);
    return outcomes_init(w) && arrays_init(w)
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "out of memory for sample %d", w->index);
}

static kept_status to_sink(kept_work *w, const json_t *sample, kept_error *err)
{
    const size_t n = (size_t)w->job->n_variants;
    const uint8_t **map = kept_calloc(n, sizeof *map);
    size_t *bytes = kept_calloc(n, sizeof *bytes);
    kept_status s = KEPT_NOMEM;
    for (size_t v = 0; map && bytes && v < n; v++) {
        map[v] = w->out[v].map;
        bytes[v] = w->out[v].map_bytes;
    }
    kept_run_extra extra = {w->tokens.prefix,
                            w->suffix,
                            w->n_prefix,
                            w->n_suffix,
                            w->job->n_variants,
                            (const uint8_t *const *)map,
                            bytes};
    uint64_t since = kept_clock_ns();
    if (map && bytes)
        s = w->job->o->sink->put(w->job->o->sink->ctx, sample, &extra, err);
    else
        kept_fail(err, s, "out of memory for a result");
    kept_job_clock(w->job, KEPT_PHASE_STORE, &since);
    free(map);
    free(bytes);
    return s;
}

kept_status kept_run_sample(kept_job *j, int task, int index, const bool *lacks, json_t **json,
                            kept_error *err)
{
    kept_work w = {.job = j, .task = task, .index = index};
    kept_run_task *t = &j->tasks[task];
    j->part = 0;
    j->weight = t->weight[index];
    snprintf(j->what, sizeof j->what, "%.60s, sample %d of %d", kept_task_label(t->task), index + 1,
             t->n_samples);
    kept_status s = work_init(&w, err);
    for (int v = KEPT_FIRST_VARIANT; !s && lacks && v < j->n_variants; v++)
        w.out[v].skip = !lacks[v];
    if (!s)
        s = shared_prefill(&w, err);
    if (!s)
        s = own_prefills(&w, err);
    uint64_t since = kept_clock_ns();
    if (!s && index < j->o->speed_samples)
        s = kept_measure_speed(&w);
    kept_job_clock(j, KEPT_PHASE_SPEED, &since);
    if (!s)
        s = t->kind == KEPT_TASK_GENERATE ? kept_answer_generate(&w, err)
                                          : kept_answer_score(&w, err);
    if (!s)
        s = kept_measure_regret(&w, err);
    kept_job_clock(j, KEPT_PHASE_ANSWER, &since);
    for (int v = 0; !s && v < j->n_variants; v++)
        if (w.out[v].seq)
            kept_seq_account(w.out[v].seq, &w.out[v].last);
    (void)kept_energy_read(&j->energy); /* before a counter wraps */
    if (!s && !(*json = kept_result_sample(&w)))
        s = kept_fail(err, KEPT_NOMEM, "out of memory for a result");
    if (!s && j->o->sink && (s = to_sink(&w, *json, err))) {
        json_decref(*json);
        *json = NULL;
    }
    if (!s)
        j->done += j->weight;
    work_clear(&w);
    return s;
}
