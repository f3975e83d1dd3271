/* run_args: parsing and checking what `kept run` is told, before anything slow begins. */
#include "cli/run_args.h"

#include "cli/catalogue.h"
#include "cli/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char default_strategies[] =
    "streaming,h2o,tova,snapkv,pyramidkv,snapkv+ada,knorm,keydiff,expected-attention,h2o+ada,"
    "random,window";
static const char default_budgets[] = "50%,20%";

/* ---- lists ---------------------------------------------------------------------------------- */

static bool list_add(kept_list *l, const char *text, size_t len)
{
    char **bigger = realloc(l->text, (size_t)(l->n + 1) * sizeof *bigger);
    if (!bigger)
        return false;
    l->text = bigger;
    l->text[l->n] = strndup(text, len);
    return l->text[l->n++];
}

bool kept_list_add(kept_list *l, const char *text)
{
    return list_add(l, text, strlen(text));
}

bool kept_list_has(const kept_list *l, const char *text)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->text[i], text))
            return true;
    return false;
}

bool kept_list_split(kept_list *l, const char *text)
{
    while (text) {
        size_t len = 0;
        for (int depth = 0; text[len] && (text[len] != ',' || depth > 0); len++)
            depth += (text[len] == '(') - (text[len] == ')');
        if (len && !list_add(l, text, len))
            return false;
        text = text[len] ? text + len + 1 : NULL;
    }
    return true;
}

void kept_list_clear(kept_list *l)
{
    for (int i = 0; i < l->n; i++)
        free(l->text[i]);
    free(l->text);
    *l = (kept_list){0};
}

void kept_run_args_clear(kept_run_args *a)
{
    kept_list_clear(&a->strategies);
    kept_list_clear(&a->budgets);
    kept_list_clear(&a->tasks);
    kept_list_clear(&a->specs);
    kept_list_clear(&a->trained);
    kept_list_clear(&a->preset_words);
    kept_list_clear(&a->pressure);
    free(a->task_options);
}

/* ---- flags ---------------------------------------------------------------------------------- */

typedef enum flag_kind { LIST, FILES, TEXT, NUMBER, REAL, SIZE, SWITCH } flag_kind;

#define AT(field) offsetof(kept_run_args, field)

static const struct flag_target {
    flag_kind kind;
    size_t at;
    int64_t min, max;
} targets[] = {
    {TEXT, AT(model), 0, 0},
    {LIST, AT(strategies), 0, 0},
    {LIST, AT(budgets), 0, 0},
    {LIST, AT(tasks), 0, 0},
    {NUMBER, AT(length), 32, 1 << 24},
    {NUMBER, AT(samples), 1, 1000000},
    {NUMBER, AT(seed), 0, INT64_MAX},
    {NUMBER, AT(threads), 0, 512},
    {SWITCH, AT(chat), 0, 0},
    {SWITCH, AT(raw), 0, 0},
    {SWITCH, AT(query_aware), 0, 0},
    {TEXT, AT(key), 0, 0},
    {TEXT, AT(value), 0, 0},
    {NUMBER, AT(keys), 1, 1000},
    {NUMBER, AT(values), 1, 1000},
    {TEXT, AT(haystack), 0, 0},
    {TEXT, AT(text), 0, 0},
    {TEXT, AT(jsonl), 0, 0},
    {NUMBER, AT(score_tokens), 2, 65536},
    {NUMBER, AT(chunk), 16, 65536},
    {SIZE, AT(pool), 0, 0},
    {NUMBER, AT(speed_samples), 0, 1000000},
    {NUMBER, AT(speed_steps), 2, 4096},
    {TEXT, AT(isa), 0, 0},
    {TEXT, AT(dump), 0, 0},
    {TEXT, AT(out), 0, 0},
    {TEXT, AT(format), 0, 0},
    {SWITCH, AT(quiet), 0, 0},
    {FILES, AT(trained), 0, 0},
    {NUMBER, AT(queries), 1, 1000},
    {NUMBER, AT(digits), 7, 64},
    {TEXT, AT(words), 0, 0},
    {TEXT, AT(squad), 0, 0},
    {TEXT, AT(hotpot), 0, 0},
    {TEXT, AT(turns), 0, 0},
    {SWITCH, AT(ruler_compat), 0, 0},
    {TEXT, AT(study), 0, 0},
    {TEXT, AT(preset), 0, 0},
    {TEXT, AT(gate), 0, 0},
    {TEXT, AT(perturb), 0, 0},
    {LIST, AT(pressure), 0, 0},
    {TEXT, AT(nolima), 0, 0},
    {REAL, AT(stop), 0, 99},
};

static const kept_flag flags[] = {
    {"model", true},     {"strategy", true},      {"budget", true},       {"task", true},
    {"length", true},    {"samples", true},       {"seed", true},         {"threads", true},
    {"chat", false},     {"raw", false},          {"query-aware", false}, {"key", true},
    {"value", true},     {"keys", true},          {"values", true},       {"haystack", true},
    {"text", true},      {"jsonl", true},         {"score-tokens", true}, {"chunk", true},
    {"pool", true},      {"speed-samples", true}, {"speed-steps", true},  {"isa", true},
    {"dump-kept", true}, {"out", true},           {"format", true},       {"quiet", false},
    {"trained", true},   {"queries", true},       {"digits", true},       {"words", true},
    {"squad", true},     {"hotpot", true},        {"turns", true},        {"ruler-compat", false},
    {"study", true},     {"preset", true},        {"gate", true},         {"perturb", true},
    {"pressure", true},  {"nolima", true},        {"stop", true},
};
enum { N_FLAGS = sizeof flags / sizeof *flags };
_Static_assert(N_FLAGS <= sizeof((kept_run_args *)0)->from_preset, "room for every flag");
_Static_assert(N_FLAGS == sizeof targets / sizeof *targets, "one target per flag");

static const char help[] =
    "usage: kept run --model NAME|FILE.gguf [options]\n"
    "Runs cache strategies beside the full cache: memory, quality and speed in one table.\n\n"
    "  --strategy SPEC,...    strategies ('kept ls' lists them, 'kept help spec' the grammar); "
    "'all'\n"
    "  --budget B,...         for specs without @: 20%, 512 (tokens per head), 64MiB [50%,20%]\n"
    "  --task T,...           'ruler' for its 13 or single ones; 'kept help tasks' has them all,\n"
    "                         the files they read, their options and modes of several turns\n"
    "  --preset NAME          tasks, patterns, lengths and budgets of an application\n"
    "  --jsonl FILE           your own prompts, one JSON object per line\n"
    "  --text FILE            score how well the text goes on after eviction (--score-tokens N)\n"
    "  --length N             tokens of a sample [2048]   --samples N   per task [8]; --stop PT "
    "ends "
    "a\n                         task before that once every row has a verdict at this margin\n"
    "  --chat | --raw         with, without the chat template [with, where the model has one]\n"
    "  --perturb KIND         questions said or contexts laid out otherwise ('kept help tasks')\n"
    "  --query-aware          strategies see the question before they evict (rows are marked)\n"
    "  --pool SIZE            pages of K/V; with --pressure N,... a hard cap for N prompts at "
    "once\n"
    "  --seed N  --threads N  --chunk N  --isa LEVEL  --speed-samples N [1]  --speed-steps N [16]\n"
    "  --study FILE           keeps every sample: run it again to go on, or wider; 'kept study'\n"
    "  --out FILE             result as .json, .csv or .txt    --format table|json|csv   on "
    "stdout\n"
    "  --trained FILE         what a strategy needs trained, of 'kept train' or 'kept calibrate'\n"
    "                         [from the cache; may be given several times]\n"
    "  --dump-kept FILE       which positions every head kept  --quiet   no progress line\n\n"
    "examples\n"
    "  kept run --model smollm2 --strategy 'h2o,snapkv+ada' --budget 20% --out r.json\n"
    "  kept run --model my.gguf --jsonl prompts.jsonl --strategy 'streaming(sinks=4)@512'\n";

/* An exit code, or -1. */
static int set_flag(kept_run_args *r, kept_args *a, int i)
{
    char *field = (char *)r + targets[i].at;
    kept_error err;
    switch (targets[i].kind) {
    case LIST:
        if (r->from_preset[i])
            kept_list_clear((kept_list *)(void *)field);
        r->from_preset[i] = false;
        return kept_list_split((kept_list *)(void *)field, a->value)
                   ? -1
                   : kept_failed("run", "out of memory");
    case FILES:
        return list_add((kept_list *)(void *)field, a->value, strlen(a->value))
                   ? -1
                   : kept_failed("run", "out of memory");
    case TEXT:
        *(const char **)(void *)field = a->value;
        return -1;
    case NUMBER:
        return kept_args_int(a, flags[i].name, targets[i].min, targets[i].max,
                             (int64_t *)(void *)field)
                   ? -1
                   : KEPT_EXIT_USAGE;
    case REAL:
        return kept_args_number(a, flags[i].name, (double)targets[i].min, (double)targets[i].max,
                                (double *)(void *)field)
                   ? -1
                   : KEPT_EXIT_USAGE;
    case SIZE:
        if (kept_parse_size(a->value, (uint64_t *)(void *)field, &err))
            return kept_usage("run", "--%s: %s", flags[i].name, err.text);
        return -1;
    case SWITCH:
        *(bool *)field = true;
        return -1;
    }
    return -1;
}

static int parse_flags(kept_run_args *r, int argc, char **argv)
{
    kept_args a = {argc, argv, 1, false, NULL};
    for (;;) {
        int i = kept_args_next(&a, flags, N_FLAGS), code = -1;
        if (i == KEPT_ARG_END)
            return -1;
        if (i == KEPT_ARG_ERROR)
            return KEPT_EXIT_USAGE;
        if (i == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (i >= 0)
            code = set_flag(r, &a, i);
        else if (!r->model)
            r->model = a.value;
        else
            code = kept_usage("run", "unexpected argument '%s'", a.value);
        if (code >= 0)
            return code;
    }
}

/* The preset's flags first, so that what the user gives beside it stands. */
static int apply_preset(kept_run_args *r, int argc, char **argv)
{
    const char *name = NULL;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--preset") && i + 1 < argc)
            name = argv[i + 1];
        else if (!strncmp(argv[i], "--preset=", 9))
            name = argv[i] + 9;
    int code = name ? kept_preset_words(name, &r->preset_words) : -1;
    if (!name || code >= 0)
        return code;
    code = parse_flags(r, r->preset_words.n, r->preset_words.text);
    for (int i = 0; i < N_FLAGS; i++)
        r->from_preset[i] = targets[i].kind == LIST;
    return code;
}

/* ---- checks --------------------------------------------------------------------------------- */

int kept_one_of(const char *flag, const char *value, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(value, names[i]))
            return -1;
    int near = kept_nearest(value, strlen(value), names, n);
    if (near >= 0)
        return kept_usage("run", "unknown %s '%s', did you mean '%s'?", flag, value, names[near]);
    return kept_usage("run", "unknown %s '%s'", flag, value);
}

static int check_names(const kept_run_args *a)
{
    static const char *const formats[] = {"table", "json", "csv"};
    int code = kept_one_of("format", a->format, formats, 3);
    if (code < 0 && a->chat && a->raw)
        code = kept_usage("run", "--chat and --raw exclude each other");
    return code;
}

/* Numbers of sequences, and what does not go with them. */
static int check_pressure(kept_run_args *a)
{
    a->n_sequences = a->pressure.n;
    if (a->pressure.n > KEPT_MOST_PRESSURES)
        return kept_usage("run", "--pressure takes at most %d numbers", KEPT_MOST_PRESSURES);
    for (int i = 0; i < a->pressure.n; i++) {
        const char *text = a->pressure.text[i];
        char *end;
        const long n = strtol(text, &end, 10);
        if (*end || n < 1 || n > KEPT_MOST_SEQUENCES)
            return kept_usage("run", "--pressure wants whole numbers from 1 to %d, got '%s'",
                              KEPT_MOST_SEQUENCES, text);
        a->sequences[i] = (int)n;
    }
    if (a->pressure.n && !a->pool)
        return kept_usage("run", "--pressure wants --pool SIZE, the cap that all sequences share");
    if (a->pressure.n && (a->study || a->dump))
        return kept_usage("run", "--pressure goes without --study and --dump-kept");
    return -1;
}

/* ---- strategies ----------------------------------------------------------------------------- */

/* Parses one spec now, so that a typing error does not wait for the model. */
static int add_spec(kept_run_args *a, const char *spec)
{
    kept_strategy *s;
    kept_error err;
    if (kept_strategy_parse(spec, &s, &err))
        return kept_usage_spec("run", spec, &err);
    kept_strategy_free(s);
    return list_add(&a->specs, spec, strlen(spec)) ? -1 : kept_failed("run", "out of memory");
}

/* A spec that is one without a budget: it evicts nothing. */
static bool is_whole(const char *spec)
{
    kept_strategy *s;
    if (kept_strategy_parse(spec, &s, NULL))
        return false;
    kept_strategy_free(s);
    return true;
}

static int cross_budgets(kept_run_args *a)
{
    int code = -1;
    if (!a->strategies.n || kept_list_has(&a->strategies, "all"))
        if (!kept_list_split(&a->strategies, default_strategies))
            return kept_failed("run", "out of memory");
    if (!a->budgets.n && !kept_list_split(&a->budgets, default_budgets))
        return kept_failed("run", "out of memory");
    for (int i = 0; code < 0 && i < a->strategies.n; i++) {
        const char *spec = a->strategies.text[i];
        if (!strcmp(spec, "all"))
            continue;
        if (strchr(spec, '@') || is_whole(spec)) {
            code = add_spec(a, spec);
            continue;
        }
        for (int b = 0; code < 0 && b < a->budgets.n; b++) {
            char whole[512];
            if (snprintf(whole, sizeof whole, "%s@%s", spec, a->budgets.text[b]) >=
                (int)sizeof whole)
                return kept_usage("run", "a strategy is too long");
            code = add_spec(a, whole);
        }
    }
    return code;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Minutes of work must not end at a folder that cannot be written. */
static int check_writable(const char *path)
{
    char folder[4096];
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!path)
        return -1;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (slash == path)
        strcpy(folder, "/");
    if (access(folder, W_OK))
        return kept_failed("run", "%s: the folder cannot be written to", path);
    return -1;
}

static int find_model(kept_run_args *a)
{
    if (!a->model)
        return kept_usage("run", "--model NAME|FILE.gguf is missing");
    switch (kept_model_path(a->model, a->model_path, sizeof a->model_path)) {
    case KEPT_OK:
        return -1;
    case KEPT_NOT_FOUND:
        return kept_failed("run", "model %s is not here yet; try 'kept pull %s'", a->model,
                           a->model);
    default:
        return kept_usage("run", "the model's path is too long");
    }
}

/* Without a cache folder only --trained FILE is looked at. */
static void find_trained_dir(kept_run_args *a)
{
    if (kept_cache_folder("trained", a->trained_dir, sizeof a->trained_dir))
        a->trained_dir[0] = '\0';
}

int kept_run_args_parse(kept_run_args *a, int argc, char **argv)
{
    *a = (kept_run_args){.samples = 8,
                         .seed = 1,
                         .score_tokens = 64,
                         .chunk = 512,
                         .speed_samples = 1,
                         .speed_steps = 16,
                         .format = "table"};
    int code = apply_preset(a, argc, argv);
    if (code < 0)
        code = parse_flags(a, argc, argv);
    if (code < 0)
        code = kept_run_tasks_complete(a);
    if (code < 0)
        code = check_names(a);
    if (code < 0)
        code = check_pressure(a);
    if (code < 0)
        code = cross_budgets(a);
    if (code < 0)
        code = kept_run_tasks_set(a);
    if (code < 0)
        code = find_model(a);
    if (code < 0)
        code = check_writable(a->out);
    if (code < 0)
        code = check_writable(a->dump);
    if (code < 0 && a->study && a->dump)
        code = kept_usage("run", "--study holds the kept positions, --dump-kept goes without it");
    find_trained_dir(a);
    return code;
}
