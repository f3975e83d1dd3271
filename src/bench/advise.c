/* advise: the choice among rows, and what would change it. See advise.h. */
#include "bench/advise.h"
#include "bench/doc.h"

#include <stdlib.h>
#include <string.h>

/* Evidence of shorter prompts than half the context says little about it. */
#define REACH 2

static bool holds(const kept_advised *a)
{
    return a->quality == KEPT_HOLDS && a->memory == KEPT_HOLDS && a->time == KEPT_HOLDS;
}

/* Nothing speaks against it, and something is not known yet. */
static bool is_open(const kept_advised *a)
{
    return !holds(a) && a->quality != KEPT_FAILS && a->memory != KEPT_FAILS &&
           a->time != KEPT_FAILS;
}

/* The best row for which `fits` says yes, besides `not`; -1: none. */
static int best(const kept_advised *rows, int n, bool (*fits)(const kept_advised *), int not,
                kept_prefer prefer)
{
    int found = -1;
    for (int i = 0; i < n; i++)
        if (i != not &&fits(&rows[i]) &&
            (found < 0 || kept_advise_better(&rows[i], &rows[found], prefer)))
            found = i;
    return found;
}

/* Open, and what was measured so far does not speak against it. */
static bool is_promising(const kept_advised *a)
{
    return is_open(a) && a->promising;
}

/* The open row whose verdict is nearest; those that may hold come first. */
static int nearest_open(const kept_advised *rows, int n, kept_prefer prefer)
{
    int found = -1;
    for (int i = 0; i < n; i++) {
        const kept_advised *a = &rows[i], *b = found < 0 ? NULL : &rows[found];
        if (!is_open(a))
            continue;
        const bool nearer =
            b && (a->more < b->more || (a->more == b->more && kept_advise_better(a, b, prefer)));
        if (!b || (a->promising != b->promising ? a->promising : nearer))
            found = i;
    }
    return found;
}

static json_t *holds_json(kept_holds h)
{
    return json_string(h == KEPT_HOLDS ? "yes" : h == KEPT_FAILS ? "no" : "unknown");
}

static json_t *row_json(const kept_advise_options *o, const kept_advised *a)
{
    const json_t *v = json_array_get(json_object_get(o->doc, "variants"), (size_t)a->variant);
    json_t *r = json_object();
    json_object_set_new(r, "variant", json_integer(a->variant));
    json_object_set_new(r, "name", json_string(a->name));
    json_object_set(r, "resolved", json_object_get(v, "resolved"));
    json_object_set_new(r, "quality", holds_json(a->quality));
    json_object_set_new(r, "memory", holds_json(a->memory));
    json_object_set_new(r, "time", holds_json(a->time));
    kept_doc_put(r, "loss", a->loss);
    kept_doc_put(r, "more", a->quality == KEPT_UNKNOWN ? a->more : 0);
    kept_doc_put(r, "bytes", a->bytes);
    kept_doc_put(r, "peak_bytes", a->peak);
    json_object_set_new(r, "sequences", a->widest < 0 ? json_null() : json_integer(a->widest));
    kept_doc_put(r, "tpot_ms", a->tpot_ms);
    kept_doc_put(r, "ttft_ms", a->ttft_ms);
    kept_doc_put(r, "length_ratio", a->length_ratio);
    return r;
}

/* ---- what would change it ------------------------------------------------------------------- */

static void add_change(json_t *list, const char *if_, const kept_advised *rows, int now, int then)
{
    if (now == then)
        return;
    json_t *c = json_object();
    json_object_set_new(c, "if", json_string(if_));
    json_object_set_new(c, "pick", then < 0 ? json_null() : json_string(rows[then].name));
    json_array_append_new(list, c);
}

/* The same question under other options; -1: no row holds. */
static kept_status pick_under(const kept_advise_options *o, int *pick, kept_error *err)
{
    kept_advised *rows = NULL;
    json_t *verdicts = NULL;
    int n;
    kept_status s = kept_advise_rows(o, &rows, &n, &verdicts, err);
    *pick = s ? -1 : best(rows, n, holds, -1, o->prefer);
    free(rows);
    json_decref(verdicts);
    return s;
}

/* Other margins, stricter and looser; the nearest one on either side that changes the choice. */
static kept_status other_gates(const kept_advise_options *o, const kept_advised *rows, int now,
                               json_t *list, kept_error *err)
{
    static const double points[] = {0.005, 0.01, 0.02, 0.03, 0.05, 0.1};
    enum { N = sizeof points / sizeof *points };
    const double margin = o->gate.relative > 0 ? o->gate.relative : o->gate.margin;
    kept_status s = KEPT_OK;
    for (int side = -1; side <= 1; side += 2)
        for (int k = 0; !s && k < N; k++) {
            const double m = points[side < 0 ? N - 1 - k : k];
            int then;
            if ((m - margin) * side < 1e-9)
                continue;
            kept_advise_options x = *o;
            x.gate.zero = false;
            x.gate.relative = 0;
            x.gate.margin = m;
            x.gate.nll = margin > 0 ? o->gate.nll * m / margin : o->gate.nll;
            s = pick_under(&x, &then, err);
            char text[48];
            snprintf(text, sizeof text, "--gate -%gpt", 100 * m);
            if (!s && then != now)
                add_change(list, text, rows, now, then);
            if (!s && then != now)
                break;
        }
    return s;
}

/* Memory and time only filter: no verdict has to be made again. */
static void other_limits(const kept_advise_options *o, const kept_advised *rows, int n, int now,
                         json_t *list)
{
    static const double parts[] = {0.8, 0.5, 1.25, 2};
    kept_advised *x = kept_calloc((size_t)n + 1, sizeof *x);
    const double left = o->memory > o->weights ? (double)(o->memory - o->weights) : 0;
    bool told[2] = {false, false};
    for (size_t k = 0; x && o->memory && k < sizeof parts / sizeof *parts; k++) {
        char text[64];
        memcpy(x, rows, (size_t)n * sizeof *x);
        for (int i = 0; i < n; i++)
            x[i].memory = isnan(x[i].peak)               ? KEPT_UNKNOWN
                          : x[i].peak <= parts[k] * left ? KEPT_HOLDS
                                                         : KEPT_FAILS;
        const int then = best(x, n, holds, -1, o->prefer);
        snprintf(text, sizeof text, "%.0f%% %s memory for caches", 100 * fabs(parts[k] - 1),
                 parts[k] < 1 ? "less" : "more");
        if (then != now && !told[parts[k] > 1])
            add_change(list, text, rows, now, then);
        told[parts[k] > 1] |= then != now;
    }
    if (x && (o->gate.tpot_ms > 0 || o->gate.ttft_ms > 0 || o->gate.length_ratio > 0)) {
        memcpy(x, rows, (size_t)n * sizeof *x);
        for (int i = 0; i < n; i++)
            x[i].time = KEPT_HOLDS;
        add_change(list, "no limit on time and length", rows, now,
                   best(x, n, holds, -1, o->prefer));
    }
    free(x);
}

/* ---- what to run ---------------------------------------------------------------------------- */

/* length < 0: there is no command. */
static void add_todo(const kept_advise_options *o, json_t *list, const char *why,
                     const kept_advised *a, int task, double more, int length)
{
    json_t *t = json_object();
    char *command = length < 0 ? NULL : kept_advise_command(o, a->name, task, more, length);
    json_object_set_new(t, "why", json_string(why));
    json_object_set_new(t, "row", json_string(a->name));
    kept_doc_put(t, "more", more);
    json_object_set_new(t, "command", command ? json_string(command) : json_null());
    json_array_append_new(list, t);
    free(command);
}

static int first_task(const kept_advise_options *o)
{
    for (size_t t = 0; t < json_array_size(json_object_get(o->doc, "tasks")); t++)
        if (o->weight[t] > 0)
            return (int)t;
    return 0;
}

/* What would tell of an open row: samples on each task that lacks them, and timing. */
static void open_todo(const kept_advise_options *o, const kept_advised *a, const json_t *verdicts,
                      json_t *list)
{
    char why[256];
    const json_t *r;
    size_t i;
    json_array_foreach(json_object_get(verdicts, "rows"), i, r)
    {
        const double need = kept_doc_number(r, "need");
        const int task = (int)kept_doc_number(r, "task_index");
        if (strcmp(kept_doc_text(r, "after"), a->name) ||
            kept_doc_number(r, "holds") != KEPT_UNKNOWN)
            continue;
        if (need > 0)
            snprintf(why, sizeof why, "%.100s%s on %.100s: about %.0f more samples for a verdict",
                     a->name, a->promising ? "" : " (so far it looks worse)",
                     kept_doc_text(r, "task"), need);
        else
            snprintf(why, sizeof why,
                     "%.100s on %.100s: sits at the margin, which another --gate settles and more "
                     "samples may not",
                     a->name, kept_doc_text(r, "task"));
        add_todo(o, list, why, a, task, need > 0 ? need : 0, 0);
    }
    if (a->time != KEPT_UNKNOWN)
        return;
    snprintf(why, sizeof why, "%.100s: was not timed (add --speed-samples N)", a->name);
    add_todo(o, list, why, a, first_task(o), 0, 0);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static int longest(const kept_advise_options *o)
{
    const json_t *s;
    double most = 0;
    size_t i;
    json_array_foreach(json_object_get(o->doc, "samples"), i, s)
    {
        const double t = kept_doc_number(s, "task");
        const double n = kept_doc_number(s, "n_prefix") + kept_doc_number(s, "n_suffix");
        if (t >= 0 && o->weight[(size_t)t] > 0 && n > most)
            most = n;
    }
    json_array_foreach(json_object_get(o->doc, "tasks"), i,
                       s) if (o->weight[i] > 0 && kept_doc_number(s, "length") > most) most =
        kept_doc_number(s, "length");
    return most > 1 ? (int)most : 1;
}

/* Clauses of a preset's gate that nothing here judges, and what shows what they ask. */
static json_t *not_judged(const kept_advise_options *o)
{
    static const char *const shows[][2] = {
        {"slope by turn", "kept study show --columns turns"},
        {"any tenth of the depth", "the map by length and depth of kept report"},
        {"TPOT p99", "gaps between tokens, kept study show --columns speed"}};
    json_t *list = json_array();
    for (const char *at = o->gate.rest; *at;) {
        const size_t n = strcspn(at, ",");
        const char *by = "nothing of kept";
        for (size_t k = 0; k < sizeof shows / sizeof *shows; k++)
            if (!strncmp(at, shows[k][0], strlen(shows[k][0])))
                by = shows[k][1];
        json_array_append_new(list, json_pack("{s:s%,s:s}", "clause", at, n, "judged_by", by));
        at += n + strspn(at + n, ", ");
    }
    return list;
}

static void put_asked(const kept_advise_options *o, json_t *doc, int measured)
{
    static const char *const prefer[] = {"memory", "quality", "speed"};
    const json_t *t;
    json_t *asked = json_object(), *tasks = json_array();
    size_t i;
    kept_doc_put(asked, "margin", o->gate.margin);
    kept_doc_put(asked, "relative", o->gate.relative > 0 ? o->gate.relative : NAN);
    json_object_set_new(asked, "zero", json_boolean(o->gate.zero));
    kept_doc_put(asked, "nll_margin", o->gate.nll);
    kept_doc_put(asked, "level", o->level);
    kept_doc_put(asked, "ttft_ms", o->gate.ttft_ms > 0 ? o->gate.ttft_ms : NAN);
    kept_doc_put(asked, "tpot_ms", o->gate.tpot_ms > 0 ? o->gate.tpot_ms : NAN);
    kept_doc_put(asked, "length_ratio", o->gate.length_ratio > 0 ? o->gate.length_ratio : NAN);
    json_object_set_new(asked, "not_judged", not_judged(o));
    json_object_set_new(asked, "memory",
                        o->memory ? json_integer((json_int_t)o->memory) : json_null());
    json_object_set_new(asked, "weights", json_integer((json_int_t)o->weights));
    json_object_set_new(asked, "context", json_integer(o->context));
    json_object_set_new(asked, "batch", json_integer(o->batch));
    json_object_set_new(asked, "prefer", json_string(prefer[o->prefer]));
    json_array_foreach(json_object_get(o->doc, "tasks"), i, t) if (o->weight[i] > 0)
        json_array_append_new(
            tasks, json_pack("{s:O,s:O?,s:f}", "label", json_object_get(t, "label"), "length",
                             json_object_get(t, "length"), "weight", o->weight[i]));
    json_object_set_new(asked, "tasks", tasks);
    json_object_set_new(doc, "asked", asked);
    json_object_set_new(doc, "measured_length", json_integer(measured));
    json_object_set(doc, "machine", json_object_get(o->doc, "machine"));
    json_object_set(doc, "model", json_object_get(o->doc, "model"));
}

typedef struct outcome {
    const kept_advised *rows;
    const json_t *verdicts;
    int n, pick;
} outcome;

/* The length at which more of a context that is out of reach can be measured, and why that one: no
 * task is longer than what the model was made for. -1: nothing longer can be. */
static int reachable(const kept_advise_options *o, int measured, char *why, size_t cap)
{
    const double n = kept_doc_number(json_object_get(o->doc, "model"), "n_ctx_train");
    const int trained = n >= 1 && n < INT32_MAX ? (int)n : INT32_MAX;
    if (measured >= trained)
        snprintf(why, cap,
                 "nothing can be measured at %d tokens, the model was made for %d; --context %d "
                 "asks what is known",
                 o->context, trained, trained);
    else if (o->context > trained)
        snprintf(why, cap, "nothing was measured near %d tokens; the model was made for %d",
                 o->context, trained);
    else
        snprintf(why, cap, "nothing was measured at %d tokens or near it", o->context);
    return measured >= trained ? -1 : o->context > trained ? trained : o->context;
}

/* Whether the pick may stand, and what is to run if not; the open row that would take its place. */
static void conclude(const kept_advise_options *o, const outcome *x, int measured, json_t *doc)
{
    json_t *todo = json_array();
    const bool far = o->context / REACH > measured;
    const kept_advised *pick = x->pick < 0 ? NULL : &x->rows[x->pick];
    const int open = nearest_open(x->rows, x->n, o->prefer);
    const int rival = best(x->rows, x->n, is_promising, -1, o->prefer);
    /* The full cache for want of evidence is no advice where something smaller was asked for. */
    const bool by_default =
        pick && pick->variant == 0 && open >= 0 && o->prefer != KEPT_PREFER_QUALITY;
    const bool thin = far || by_default || (!pick && open >= 0);
    char why[160];
    if (far) {
        const int length = reachable(o, measured, why, sizeof why);
        add_todo(o, todo, why, pick ? pick : &x->rows[x->n - 1], first_task(o), 0, length);
    } else if (thin) {
        open_todo(o, &x->rows[open], x->verdicts, todo);
    }
    const bool told = thin && !far && rival == open;
    if (rival >= 0 && !far && !told &&
        (thin || kept_advise_better(&x->rows[rival], pick, o->prefer)))
        open_todo(o, &x->rows[rival], x->verdicts, todo);
    json_object_set_new(doc, "verdict", json_string(thin ? "thin" : pick ? "advice" : "none"));
    json_object_set_new(doc, "todo", todo);
}

kept_status kept_advise(const kept_advise_options *asked, json_t **out, kept_error *err)
{
    kept_advise_options x = *asked;
    kept_advised *rows = NULL;
    json_t *verdicts = NULL, *changes = json_array(), *all = json_array();
    int n = 0;
    *out = NULL;
    const int measured = longest(&x);
    x.context = x.context > 0 ? x.context : measured;
    x.batch = x.batch > 0 ? x.batch : 1;
    kept_status s = kept_advise_rows(&x, &rows, &n, &verdicts, err);
    const int pick = s ? -1 : best(rows, n, holds, -1, x.prefer);
    const int second = pick < 0 ? -1 : best(rows, n, holds, pick, x.prefer);
    if (!s)
        s = other_gates(&x, rows, pick, changes, err);
    if (!s) {
        other_limits(&x, rows, n, pick, changes);
        *out = json_object();
        json_object_set_new(*out, "schema", json_string("kept-advice"));
        json_object_set_new(*out, "version", json_integer(1));
        json_object_set_new(*out, "study", json_string(x.name));
        put_asked(&x, *out, measured);
        const outcome found = {rows, verdicts, n, pick};
        conclude(&x, &found, measured, *out);
        for (int i = 0; i < n; i++)
            json_array_append_new(all, row_json(&x, &rows[i]));
        json_object_set_new(*out, "pick", pick < 0 ? json_null() : row_json(&x, &rows[pick]));
        json_object_set_new(*out, "runner_up",
                            second < 0 ? json_null() : row_json(&x, &rows[second]));
        json_object_set(*out, "changes", changes);
        json_object_set(*out, "rows", all);
        json_object_set(*out, "verdicts", json_object_get(verdicts, "rows"));
    }
    free(rows);
    json_decref(verdicts);
    json_decref(changes);
    json_decref(all);
    return s;
}
