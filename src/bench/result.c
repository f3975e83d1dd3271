/* result: the document's head and the record of one sample as JSON (docs/result-format.md). What
 * was not measured is null, never 0.
 */
#include "bench/doc.h"
#include "bench/job.h"

#include "policy/strategy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *real(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *integer(uint64_t x)
{
    return json_integer((json_int_t)x);
}

/* Length of the well-formed UTF-8 sequence at s, 0 if it is not one. */
static int utf8_length(const unsigned char *s)
{
    int n = *s < 0x80                 ? 1
            : *s >= 0xc2 && *s < 0xe0 ? 2
            : *s >= 0xe0 && *s < 0xf0 ? 3
            : *s >= 0xf0 && *s < 0xf5 ? 4
                                      : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f) || (*s == 0xf0 && s[1] < 0x90) ||
        (*s == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

json_t *kept_doc_clean(const char *s)
{
    json_t *out = NULL;
    const unsigned char *in = (const unsigned char *)(s ? s : "");
    char *clean = kept_calloc(strlen((const char *)in) + 1, 3);
    char *to = clean;
    for (; clean && *in;) {
        int n = utf8_length(in);
        memcpy(to, n ? (const char *)in : "\xef\xbf\xbd", (size_t)(n ? n : 3));
        to += n ? n : 3;
        in += n ? n : 1;
    }
    if (clean)
        out = json_stringn(clean, (size_t)(to - clean));
    free(clean);
    return out;
}

static json_t *text(const char *s)
{
    return kept_doc_clean(s);
}

/* ---- head ----------------------------------------------------------------------------------- */

static json_t *model_json(kept_job *j, kept_error *err)
{
    const kept_model_info *m = j->info;
    char hex[65];
    int n_windowed = 0;
    if (kept_model_sha256(j->model, hex, err))
        return NULL;
    for (int l = 0; l < m->n_layers; l++)
        n_windowed += m->windowed[l];
    const char *path = j->o->model_path, *slash = strrchr(path, '/');
    json_t *o = json_object();
    json_object_set_new(o, "asked", text(j->o->model_name ? j->o->model_name : path));
    json_object_set_new(o, "file", text(slash ? slash + 1 : path));
    json_object_set_new(o, "name", text(m->name));
    json_object_set_new(o, "sha256", json_string(hex));
    json_object_set_new(o, "arch", text(m->arch));
    json_object_set_new(o, "weight_type", text(m->weight_type));
    json_object_set_new(o, "buffers", text(m->buffers));
    json_object_set_new(o, "n_params", integer(m->n_params));
    json_object_set_new(o, "weight_bytes", integer(m->weight_bytes));
    json_object_set_new(o, "n_layers", json_integer(m->n_layers));
    json_object_set_new(o, "n_heads", json_integer(m->n_heads));
    json_object_set_new(o, "n_kv_heads", json_integer(m->n_kv_heads));
    json_object_set_new(o, "head_size", json_integer(m->head_size));
    json_object_set_new(o, "n_vocab", json_integer(m->n_vocab));
    json_object_set_new(o, "n_ctx_train", json_integer(m->n_ctx_train));
    json_object_set_new(o, "sliding_window", json_integer(m->sliding_window));
    json_object_set_new(o, "n_windowed_layers", json_integer(n_windowed));
    return o;
}

static json_t *options_json(const kept_job *j)
{
    const kept_run_options *o = j->o;
    json_t *r = json_object(), *specs = json_array();
    for (int i = 0; i < o->n_specs; i++)
        json_array_append_new(specs, text(o->specs[i]));
    json_object_set_new(r, "specs", specs);
    json_object_set_new(r, "seed", integer(o->seed));
    json_object_set_new(r, "threads", json_integer(o->n_threads));
    json_object_set_new(r, "chunk", json_integer(j->chunk));
    json_object_set_new(r, "max_batch_tokens", json_integer(j->max_batch));
    json_object_set_new(r, "max_tokens", json_integer(j->max_tokens));
    json_object_set_new(r, "pool_bytes", integer(j->pool_bytes));
    json_object_set_new(r, "pool_asked", integer(o->pool_bytes));
    json_object_set_new(r, "speed_samples", json_integer(o->speed_samples));
    json_object_set_new(r, "speed_steps", json_integer(j->speed_steps));
    json_object_set_new(r, "preset", o->preset ? text(o->preset) : json_null());
    json_object_set_new(r, "gate", o->gate ? text(o->gate) : json_null());
    json_object_set_new(r, "isa", o->isa ? text(o->isa) : json_null());
    return r;
}

static json_t *variants_json(const kept_job *j)
{
    static const char *const roles[] = {"reference", "floor", "strategy"};
    json_t *list = json_array();
    for (int v = 0; v < j->n_variants; v++) {
        const kept_strategy *s = j->variants[v].strategy;
        json_t *o = json_object();
        json_object_set_new(o, "name", text(j->variants[v].name));
        json_object_set_new(o, "role",
                            json_string(roles[v < KEPT_FIRST_VARIANT ? v : KEPT_FIRST_VARIANT]));
        json_object_set_new(o, "canonical", text(s ? kept_strategy_name(s) : "full"));
        json_object_set_new(o, "resolved", text(s ? kept_strategy_resolved(s) : "full"));
        json_object_set_new(o, "own_prefill", json_boolean(j->variants[v].own_prefill));
        json_t *files = json_array();
        for (int i = 0; i < KEPT_TRAINED_PARTS && s; i++) {
            const char *sha256 = kept_trained_sha256(j, kept_strategy_trained(s, i));
            if (sha256)
                json_array_append_new(files, json_string(sha256));
        }
        json_object_set_new(o, "trained", files);
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *optional(const char *s)
{
    return s ? text(s) : json_null();
}

static json_t *tasks_json(const kept_job *j)
{
    json_t *list = json_array();
    for (int t = 0; t < j->o->n_tasks; t++) {
        const kept_task_options *p = &j->tasks[t].options;
        bool generate = j->tasks[t].kind == KEPT_TASK_GENERATE;
        json_t *o = json_object();
        json_object_set_new(o, "label", text(kept_task_label(j->tasks[t].task)));
        json_object_set_new(o, "kind", json_string(generate ? "generate" : "score"));
        json_object_set_new(o, "name", optional(p->name));
        json_object_set_new(o, "length", json_integer(p->length));
        json_object_set_new(o, "n_samples", json_integer(j->tasks[t].n_samples));
        json_object_set_new(o, "seed", integer(p->seed));
        json_object_set_new(o, "file", optional(p->file));
        json_object_set_new(o, "file_sha256",
                            optional(*j->tasks[t].file_sha256 ? j->tasks[t].file_sha256 : NULL));
        if (p->haystack) /* left out where there is none: older studies go on */
            json_object_set_new(o, "haystack", text(p->haystack));
        json_object_set_new(o, "key", optional(p->key));
        json_object_set_new(o, "value", optional(p->value));
        json_object_set_new(o, "n_keys", json_integer(p->n_keys));
        json_object_set_new(o, "n_values", json_integer(p->n_values));
        json_object_set_new(o, "n_queries", json_integer(p->n_queries));
        json_object_set_new(o, "digits", json_integer(p->digits));
        json_object_set_new(o, "ruler_compat", json_boolean(p->ruler_compat));
        json_object_set_new(o, "turns", json_string(kept_turn_mode_name(p->turns)));
        json_object_set_new(o, "score_tokens", json_integer(p->score_tokens));
        json_object_set_new(o, "chat", json_boolean(p->chat));
        json_object_set_new(o, "query_aware", json_boolean(p->query_aware));
        if (p->perturb && generate) /* left out where there is none: older studies go on */
            json_object_set_new(o, "perturb", text(p->perturb));
        json_array_append_new(list, o);
    }
    return list;
}

json_t *kept_result_head(kept_job *j, kept_error *err)
{
    char date[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_t *model = model_json(j, err);
    if (!model)
        return NULL;
    json_t *doc = json_object();
    json_object_set_new(doc, "schema", json_string(KEPT_RESULT_SCHEMA));
    json_object_set_new(doc, "version", json_integer(KEPT_RESULT_VERSION));
    json_object_set_new(doc, "kept", json_string(kept_version()));
    json_object_set_new(doc, "date", json_string(date));
    json_object_set_new(doc, "partial", json_true());
    json_object_set_new(doc, "model", model);
    json_t *machine = kept_machine_json(kept_engine_isa(j->engine), j->o->n_threads);
    json_object_set_new(machine, "read_bytes_per_s", real(j->bandwidth));
    json_object_set_new(doc, "machine", machine);
    json_object_set_new(doc, "options", options_json(j));
    json_object_set_new(doc, "trained", kept_trained_json(j));
    json_object_set_new(doc, "variants", variants_json(j));
    json_object_set_new(doc, "tasks", tasks_json(j));
    return doc;
}

/* Most memory that the process ever held, from /proc; NAN: not told. */
static double peak_memory(void)
{
    char line[256];
    double kib = NAN;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6))
            kib = strtod(line + 6, NULL);
    if (f)
        fclose(f);
    return 1024 * kib;
}

json_t *kept_result_times(kept_job *j)
{
    static const char *const phases[KEPT_N_PHASES] = {
        "open_ns", "prefill_ns", "fork_ns", "speed_ns", "answer_ns", "store_ns", "stats_ns"};
    kept_engine_times t;
    kept_pool_account p;
    kept_engine_get_times(j->engine, &t);
    kept_engine_pool(j->engine, &p);
    json_t *o = json_object();
    json_object_set_new(o, "wall_ns", integer(kept_clock_ns() - j->start_ns));
    for (int i = 0; i < KEPT_N_PHASES; i++)
        json_object_set_new(o, phases[i], integer(j->phase_ns[i]));
    json_object_set_new(o, "forward_ns", integer(t.forward_ns));
    json_object_set_new(o, "attention_ns", integer(t.attention_ns));
    json_object_set_new(o, "policy_ns", integer(t.policy_ns));
    json_object_set_new(o, "n_forwards", integer(t.n_forwards));
    json_object_set_new(o, "n_tokens", integer(t.n_tokens));
    json_object_set_new(o, "page_bytes", integer(p.page_bytes));
    json_object_set_new(o, "pool_pages", integer(p.n_pages));
    json_object_set_new(o, "pool_peak_pages", integer(p.peak_pages));
    json_object_set_new(o, "huge_bytes", integer(p.huge_bytes));
    json_object_set_new(o, "process_peak_bytes", real(peak_memory()));
    json_object_set_new(o, "energy_j", real(kept_energy_read(&j->energy)));
    return o;
}

/* ---- sample --------------------------------------------------------------------------------- */

static json_t *reals(const double *x, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, real(x[i]));
    return list;
}

static json_t *speed_json(const kept_outcome *o)
{
    if (!o->n_steps)
        return json_null();
    json_t *s = json_object(), *own = json_array(), *full = json_array();
    for (int i = 0; i < o->n_steps; i++) {
        json_array_append_new(own, integer(o->step_ns[i]));
        json_array_append_new(full, integer(o->full_ns[i]));
    }
    json_object_set_new(s, "step_ns", own);
    json_object_set_new(s, "full_step_ns", full);
    return s;
}

static void set_bytes(json_t *r, const kept_outcome *o)
{
    json_object_set_new(r, "kv_bytes", integer(o->after.kv_bytes));
    json_object_set_new(r, "meta_bytes", integer(o->after.meta_bytes));
    json_object_set_new(r, "kv_bits",
                        o->after.kv_numbers
                            ? real(8.0 * (double)o->after.kv_bytes / (double)o->after.kv_numbers)
                            : json_null());
    json_object_set_new(r, "peak_bytes", integer(o->last.peak_bytes));
    json_object_set_new(r, "byte_steps", real(o->last.byte_steps));
    json_object_set_new(r, "read_bytes",
                        o->last.n_reads ? real((double)o->last.read_bytes / (double)o->last.n_reads)
                                        : json_null());
    const uint64_t at_rest[] = {o->parked_bytes, o->park_ns, o->resume_ns};
    const char *const names[] = {"parked_bytes", "park_ns", "resume_ns"};
    for (int i = 0; i < 3; i++)
        json_object_set_new(r, names[i], o->parked_bytes ? integer(at_rest[i]) : json_null());
    json_object_set_new(r, "n_evicted", integer(o->last.n_evicted));
    json_object_set_new(r, "prefill_ns", integer(o->prefill_ns));
    json_object_set_new(r, "score_ns", integer(o->last.score_ns));
    json_object_set_new(r, "compact_ns", integer(o->last.compact_ns));
    json_object_set_new(r, "evidence_recall", real(o->evidence));
    json_object_set_new(r, "evidence_any", real(o->evidence_any));
    json_object_set_new(r, "mass_recall", o->n_mass ? real(o->mass / o->n_mass) : json_null());
    json_object_set_new(r, "mass_recall_core",
                        o->n_mass ? real(o->mass_core / o->n_mass) : json_null());
    json_object_set_new(r, "oracle_regret", o->n_mass ? real(o->regret) : json_null());
}

static void set_reply(json_t *r, const kept_reply *a, const char *context)
{
    kept_answer_class class;
    json_t *tokens = json_array();
    for (int i = 0; i < a->n_new; i++)
        json_array_append_new(tokens, json_integer(a->tokens[i]));
    json_object_set_new(r, "tokens", tokens);
    json_object_set_new(r, "text", text(a->text));
    json_object_set_new(r, "ended", json_boolean(a->ended));
    json_object_set_new(r, "score", json_real(a->score));
    if (context && !kept_answer_classify(a->text ? a->text : "", context, &class, NULL))
        json_object_set_new(r, "class", json_string(kept_answer_class_name(class)));
    json_object_set_new(r, "diverged", a->diverged < 0 ? json_null() : json_integer(a->diverged));
}

/* The first turn's answer stands in the outcome itself; turns has all where there are several. */
static void set_answer(json_t *r, const kept_work *w, const kept_outcome *o)
{
    set_reply(r, &o->replies[0], w->sample.context);
    json_object_set_new(r, "score", json_real(o->score));
    if (w->sample.n_turns < 2)
        return;
    json_t *turns = json_array();
    for (int k = 0; k < w->sample.n_turns; k++) {
        json_t *t = json_object();
        set_reply(t, &o->replies[k], w->sample.context);
        json_object_set_new(t, "evidence_recall", real(o->replies[k].evidence));
        json_array_append_new(turns, t);
    }
    json_object_set_new(r, "turns", turns);
}

static json_t *outcome_json(const kept_work *w, int v)
{
    const kept_outcome *o = &w->out[v];
    json_t *r = json_object(), *top1 = json_array();
    json_object_set_new(r, "variant", json_integer(v));
    json_object_set_new(r, "failed", json_boolean(o->failed));
    if (o->failed)
        json_object_set_new(r, "why", text(o->why));
    set_bytes(r, o);
    for (int i = 0; i < o->n_scored; i++)
        json_array_append_new(top1, json_integer(o->top1[i]));
    json_object_set_new(r, "kl", reals(o->kl, o->n_scored));
    json_object_set_new(r, "top1", top1);
    if (w->job->tasks[w->task].kind == KEPT_TASK_GENERATE)
        set_answer(r, w, o);
    else
        json_object_set_new(r, "nll", reals(o->nll, o->n_scored));
    json_object_set_new(r, "speed", speed_json(o));
    json_object_set_new(r, "control", kept_control_json(o->seq, w->job->variants[v].strategy));
    return r;
}

static json_t *answers_json(const kept_turn *t)
{
    json_t *answers = json_array();
    for (int i = 0; i < t->n_answers; i++)
        json_array_append_new(answers, text(t->answers[i]));
    return answers;
}

static json_t *depth_json(const kept_turn *t)
{
    return t->depth < 0 ? json_null() : real(t->depth);
}

static json_t *turns_json(const kept_sample *s)
{
    int n;
    const char *const *metrics = kept_metric_names(&n);
    json_t *turns = json_array();
    for (int k = 0; k < s->n_turns; k++) {
        const kept_turn *t = &s->turns[k];
        json_t *o = json_object();
        json_object_set_new(o, "answers", answers_json(t));
        json_object_set_new(o, "metric", json_string(metrics[t->metric]));
        json_object_set_new(o, "depth", depth_json(t));
        json_object_set_new(o, "again", t->again ? json_integer(t->again) : json_null());
        json_array_append_new(turns, o);
    }
    return turns;
}

/* Ascending positions as [begin, end) pairs. */
static json_t *runs_json(const int32_t *at, int n)
{
    json_t *list = json_array();
    for (int i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && at[k] == at[k - 1] + 1;)
            k++;
        json_array_append_new(list, json_pack("[ii]", at[i], at[k - 1] + 1));
    }
    return list;
}

json_t *kept_result_sample(const kept_work *w)
{
    json_t *r = json_object(), *list = json_array();
    const char *own = w->sample.context ? w->sample.context : "";
    const char *context =
        w->sample.plain ? w->sample.plain : own; /* laid out otherwise: the same */
    char cluster[17];
    snprintf(cluster, sizeof cluster, "%016llx",
             (unsigned long long)kept_hash64(context, strlen(context), 1));
    for (int v = 0; v < w->job->n_variants; v++)
        if (!w->out[v].skip)
            json_array_append_new(list, outcome_json(w, v));
    const kept_turn *first = w->sample.n_turns ? w->sample.turns : &(kept_turn){.depth = -1};
    json_object_set_new(r, "task", json_integer(w->task));
    json_object_set_new(r, "index", json_integer(w->index));
    json_object_set_new(r, "hash", json_string(w->tokens.hash));
    json_object_set_new(r, "cluster", json_string(cluster));
    json_object_set_new(r, "n_prefix", json_integer(w->n_prefix));
    json_object_set_new(r, "n_suffix", json_integer(w->n_suffix));
    if (w->short_nll)
        json_object_set_new(r, "short_nll", reals(w->short_nll, w->n_suffix - 1));
    json_object_set_new(r, "n_cut", json_integer(w->tokens.n_cut));
    json_object_set_new(r, "n_evidence", json_integer(w->tokens.n_evidence));
    json_object_set_new(r, "evidence", runs_json(w->tokens.evidence, w->tokens.n_evidence));
    json_object_set_new(r, "depth", depth_json(first));
    json_object_set_new(r, "answers", answers_json(first));
    if (w->sample.n_turns > 1)
        json_object_set_new(r, "turns", turns_json(&w->sample));
    json_object_set_new(r, "outcomes", list);
    return r;
}
