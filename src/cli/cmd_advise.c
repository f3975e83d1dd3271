/* kept advise: which strategy, at which budget, from what was measured. */
#include "bench/advise.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "cli/run_args.h"
#include "report/report.h"
#include "store/store.h"

#include <stdlib.h>
#include <string.h>

/* 0, 1 and 2 are answers, as in `kept compare`. */
enum { EXIT_ADVISE_USAGE = 64, EXIT_ADVISE_DATA = 65 };

static const char help[] =
    "usage: kept advise STUDY [options]\n"
    "Which strategy at which budget, from the cells of a study (or a result) and nothing else.\n\n"
    "  --gate LIST        what a row may lose: -1pt, 97% (of the full cache's score), 'zero\n"
    "                     regressions'; and 'TTFT 2s', 'output length at most 110%' [-1pt]\n"
    "  --nll-gate X       the same for NLL, in nats per token [0.01]\n"
    "  --level P          of the one-sided bounds, in percent [95]\n"
    "  --memory SIZE      what there is, weights included\n"
    "  --weights SIZE     bytes of the weights [those of the model that was measured]\n"
    "  --context N        tokens of a sequence [the longest measured]   --batch N  of them [1]\n"
    "  --tpot TIME        at most so long for a token, as 40ms\n"
    "  --task NAME[=W]    only these tasks, with weights; may be given several times [all]\n"
    "  --preset NAME      tasks and gate of a preset ('kept help presets')\n"
    "  --prefer WHAT      of the rows that hold what is asked: memory, quality, speed\n"
    "                     [quality where --memory is given, else memory]\n"
    "  --format table|json  [table]   --setting N  which, where a study has several\n\n"
    "Exit codes: 0 advice, 1 no row holds what is asked, 2 too little is known (it says what to "
    "run),\n64 usage, 65 a file cannot be read.\n\n"
    "examples\n"
    "  kept advise s.db --gate -2pt\n"
    "  kept advise s.db --memory 8GiB --context 8192 --batch 4 --tpot 40ms --preset dialogue\n";

typedef struct advise_args {
    const char *file, *gate, *preset;
    kept_list tasks; /* NAME or NAME=W */
    double nll, level, tpot_ms;
    uint64_t memory, weights;
    int64_t context, batch, setting;
    int prefer; /* -1: by whether there is a memory */
    bool has_weights, json;
} advise_args;

static int usage(const char *what, const char *value)
{
    kept_usage("advise", what, value);
    return EXIT_ADVISE_USAGE;
}

static bool size(const kept_args *a, uint64_t *out)
{
    kept_error err;
    if (!kept_parse_size(a->value, out, &err) && *out > 0 && *out <= INT64_MAX)
        return true;
    kept_usage("advise", "wanted a size such as 8GiB, got '%s'", a->value);
    return false;
}

static bool take_prefer(advise_args *c, const char *value)
{
    static const char *const names[] = {"memory", "quality", "speed"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(value, names[i])) {
            c->prefer = i;
            return true;
        }
    kept_usage("advise", "--prefer is memory, quality or speed, got '%s'", value);
    return false;
}

enum {
    GATE,
    NLL,
    LEVEL,
    MEMORY,
    WEIGHTS,
    CONTEXT,
    BATCH,
    TPOT,
    TASK,
    PRESET,
    PREFER,
    FORMAT,
    SETTING
};

/* "40ms" as the gate's words have it. */
static bool take_tpot(advise_args *c, const char *value)
{
    kept_gate g = {.margin = 0};
    char text[64];
    kept_error err;
    snprintf(text, sizeof text, "TPOT %s", value);
    if (strchr(value, ',') || kept_gate_parse(text, false, &g, &err) || !(g.tpot_ms > 0)) {
        kept_usage("advise", "--tpot wants a time such as 40ms, got '%s'", value);
        return false;
    }
    c->tpot_ms = g.tpot_ms;
    return true;
}

/* False: the message is on stderr. */
static bool take_flag(advise_args *c, kept_args *a, int flag)
{
    switch (flag) {
    case GATE:
        c->gate = a->value;
        return true;
    case NLL:
        return kept_args_number(a, "nll-gate", 0, 100, &c->nll);
    case LEVEL:
        return kept_args_number(a, "level", 50.1, 99.999, &c->level);
    case MEMORY:
        return size(a, &c->memory);
    case WEIGHTS:
        return c->has_weights = size(a, &c->weights);
    case CONTEXT:
        return kept_args_int(a, "context", 1, 1 << 30, &c->context);
    case BATCH:
        return kept_args_int(a, "batch", 1, 1000000, &c->batch);
    case TPOT:
        return take_tpot(c, a->value);
    case TASK:
        return kept_list_split(&c->tasks, a->value);
    case PRESET:
        c->preset = a->value;
        return true;
    case PREFER:
        return take_prefer(c, a->value);
    case FORMAT:
        return kept_args_json(a, &c->json);
    default:
        return kept_args_int(a, "setting", 1, INT64_MAX, &c->setting);
    }
}

/* An exit code, or -1: go on. */
static int parse(advise_args *c, int argc, char **argv)
{
    static const kept_flag flags[] = {
        [GATE] = {"gate", true},       [NLL] = {"nll-gate", true},    [LEVEL] = {"level", true},
        [MEMORY] = {"memory", true},   [WEIGHTS] = {"weights", true}, [CONTEXT] = {"context", true},
        [BATCH] = {"batch", true},     [TPOT] = {"tpot", true},       [TASK] = {"task", true},
        [PRESET] = {"preset", true},   [PREFER] = {"prefer", true},   [FORMAT] = {"format", true},
        [SETTING] = {"setting", true},
    };
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, sizeof flags / sizeof *flags)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD && c->file)
            return usage("unexpected argument '%s'", a.value);
        if (f == KEPT_ARG_WORD)
            c->file = a.value;
        if (f == KEPT_ARG_ERROR || (f >= 0 && !take_flag(c, &a, f)))
            return EXIT_ADVISE_USAGE;
    }
    return c->file ? -1 : usage("%s", "the study is missing");
}

/* ---- tasks and gate ------------------------------------------------------------------------- */

/* Does "niah_single(word,...)", of task niah_single, answer to this name? A label counts too. */
static bool is_named(const json_t *task, const char *name, size_t n)
{
    const char *own = json_string_value(json_object_get(task, "name"));
    const char *label = json_string_value(json_object_get(task, "label"));
    return (own && strlen(own) == n && !strncmp(own, name, n)) ||
           (label && strlen(label) == n && !strncmp(label, name, n));
}

static int no_such_task(const json_t *tasks, const char *name, size_t n)
{
    const char *names[64];
    int count = 0;
    const json_t *t;
    size_t i;
    json_array_foreach(tasks, i, t)
    {
        const char *own = json_string_value(json_object_get(t, "name"));
        own = own ? own : json_string_value(json_object_get(t, "label"));
        if (own && count < 64)
            names[count++] = own;
    }
    const int near = kept_nearest(name, n, names, count);
    if (near >= 0)
        kept_usage("advise", "the study has no task '%.*s', did you mean '%s'?", (int)n, name,
                   names[near]);
    else
        kept_usage("advise", "the study has no task '%.*s'", (int)n, name);
    return EXIT_ADVISE_USAGE;
}

/* Weights of tasks by names; must: a name that no task has is an error. */
static int weigh(const json_t *tasks, const kept_list *names, bool must, double *weight)
{
    const json_t *t;
    size_t k;
    for (int i = 0; i < names->n; i++) {
        const char *text = names->text[i], *equals = strrchr(text, '=');
        const size_t n = equals ? (size_t)(equals - text) : strlen(text);
        char *end = NULL;
        const double w = equals ? strtod(equals + 1, &end) : 1;
        if (equals && (end == equals + 1 || *end || !(w > 0 && w < 1e9)))
            return usage("--task wants NAME or NAME=WEIGHT, got '%s'", text);
        bool found = false;
        json_array_foreach(tasks, k, t) if (is_named(t, text, n))
        {
            weight[k] = w;
            found = true;
        }
        if (!found && must)
            return no_such_task(tasks, text, n);
    }
    return -1;
}

/* The preset's tasks, where none were named, and its gate, where none was given. */
static int take_preset(advise_args *c, const json_t *tasks, kept_gate *gate, double *weight)
{
    kept_list words = {0}, names = {0};
    kept_error err;
    int code = kept_preset_words(c->preset, &words);
    code = code >= 0 ? EXIT_ADVISE_USAGE : code;
    for (int i = 1; code < 0 && i + 1 < words.n; i += 2) {
        if (!strcmp(words.text[i], "--task"))
            (void)kept_list_split(&names, words.text[i + 1]);
        if (!strcmp(words.text[i], "--gate") && !c->gate)
            (void)kept_gate_parse(words.text[i + 1], true, gate, &err);
    }
    if (code < 0 && !c->tasks.n) {
        bool any = false;
        code = weigh(tasks, &names, false, weight);
        for (size_t k = 0; k < json_array_size(tasks); k++)
            any |= weight[k] > 0;
        if (code < 0 && !any) {
            kept_failed("advise",
                        "%s has no task of preset %s; run 'kept run --preset %s --study %s', or "
                        "name tasks with --task",
                        c->file, c->preset, c->preset, c->file);
            code = EXIT_ADVISE_DATA;
        }
    }
    kept_list_clear(&words);
    kept_list_clear(&names);
    return code;
}

static int set_up(advise_args *c, const json_t *doc, kept_gate *gate, double *weight)
{
    const json_t *tasks = json_object_get(doc, "tasks");
    kept_error err;
    int code = -1;
    *gate = (kept_gate){.margin = 0.01, .nll = c->nll};
    if (c->gate && kept_gate_parse(c->gate, false, gate, &err))
        return usage("--gate: %s", err.text);
    if (c->tasks.n)
        code = weigh(tasks, &c->tasks, true, weight);
    if (code < 0 && c->preset)
        code = take_preset(c, tasks, gate, weight);
    else if (code < 0 && !c->tasks.n)
        for (size_t k = 0; k < json_array_size(tasks); k++)
            weight[k] = 1;
    if (c->tpot_ms > 0)
        gate->tpot_ms = c->tpot_ms;
    return code;
}

static int advise(advise_args *c, const json_t *doc, double *weight)
{
    kept_advise_options o = {.doc = doc,
                             .name = c->file,
                             .is_study = kept_store_is_study(c->file),
                             .weight = weight,
                             .level = c->level / 100,
                             .memory = c->memory,
                             .context = (int)c->context,
                             .batch = (int)c->batch};
    const json_t *bytes = json_object_get(json_object_get(doc, "model"), "weight_bytes");
    json_t *out = NULL;
    kept_error err;
    int code = set_up(c, doc, &o.gate, weight);
    if (code >= 0)
        return code;
    o.weights = c->has_weights ? c->weights : (uint64_t)json_integer_value(bytes);
    o.prefer = c->prefer >= 0 ? (kept_prefer)c->prefer
               : c->memory    ? KEPT_PREFER_QUALITY
                              : KEPT_PREFER_MEMORY;
    if (kept_advise(&o, &out, &err)) {
        kept_failed("advise", "%s", err.text);
        return EXIT_ADVISE_DATA;
    }
    const char *verdict = json_string_value(json_object_get(out, "verdict"));
    code = !strcmp(verdict, "advice") ? 0 : !strcmp(verdict, "none") ? 1 : 2;
    if (c->json)
        (void)kept_report_json(out, stdout);
    else
        (void)kept_report_advice(out, stdout);
    json_decref(out);
    return code;
}

int kept_cmd_advise(int argc, char **argv)
{
    advise_args c = {.nll = 0.01, .level = 95, .prefer = -1, .batch = 1};
    json_t *doc = NULL;
    kept_error err;
    int code = parse(&c, argc, argv);
    if (code < 0 && kept_load_result(c.file, c.setting, &doc, &err)) {
        kept_failed("advise", "%s", err.text);
        code = EXIT_ADVISE_DATA;
    }
    double *weight =
        kept_calloc(json_array_size(json_object_get(doc, "tasks")) + 1, sizeof *weight);
    if (code < 0 && !weight)
        code = kept_failed("advise", "out of memory");
    if (code < 0)
        code = advise(&c, doc, weight);
    free(weight);
    json_decref(doc);
    kept_list_clear(&c.tasks);
    return code;
}
