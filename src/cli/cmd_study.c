/* kept study: what a study holds, and its way out and in. */
#include "bench/decay.h"
#include "bench/drift.h"
#include "bench/robust.h"
#include "bench/verify.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "report/report.h"
#include "store/store.h"

#include <string.h>

static const char help[] =
    "usage: kept study ls FILE\n"
    "       kept study export FILE [--format F] [--out PATH] [--setting N]\n"
    "       kept study show FILE [--columns SET] [--setting N]\n"
    "       kept study import FILE RESULT.json...\n"
    "       kept study check FILE\n"
    "A study is the file that 'kept run --study FILE' keeps every finished sample in.\n\n"
    "  ls       settings (model and options), with tasks, strategies and samples\n"
    "  export   all of one setting: json (the document of 'kept run'), csv (a line per row),\n"
    "           jsonl (a line per sample and row), lm-eval (a folder as that harness writes)\n"
    "  show     the table of 'kept run'; --columns: paths (agreement, length and class of "
    "answers),\n"
    "           tokens (llama.cpp's statistics, key tokens), speed (gaps, roofline), turns, "
    "again,\n"
    "           position (NLL), length (score by length, slope, effective length),\n"
    "           perturb (what other words for a question, another layout of a context change),\n"
    "           precision (eviction with packing beyond the sum of both), models (rankings on the\n"
    "           models of the study)\n"
    "  import   adds the samples of results; those that are there already stay\n"
    "  check    verifies the whole file, and brings an older schema up to date\n\n"
    "  --format F     json, csv, jsonl, lm-eval [json]\n"
    "  --out PATH     where to; needed for lm-eval [standard output]\n"
    "  --setting N    which, where a study has several\n\n"
    "examples\n"
    "  kept run --model smollm2-135m --study s.db --samples 200\n"
    "  kept study export s.db --format jsonl --out s.jsonl\n";

typedef struct study_args {
    const char *action, *file, *format, *out, *columns;
    const char *results[64];
    int n_results;
    int64_t setting;
} study_args;

static const char *const actions[] = {"ls", "export", "import", "check", "show"};
static const char *const formats[] = {"json", "csv", "jsonl", "lm-eval"};

static int unknown(const char *what, const char *word, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(word, names[i]))
            return -1;
    int near = kept_nearest(word, strlen(word), names, n);
    if (near >= 0)
        return kept_usage("study", "unknown %s '%s', did you mean '%s'?", what, word, names[near]);
    return kept_usage("study", "unknown %s '%s'", what, word);
}

/* Views that are computed from a whole setting and are no columns of its cells. */
static const struct {
    const char *name;
    kept_status (*make)(const json_t *doc, json_t **out, kept_error *err);
    kept_status (*print)(const json_t *list, FILE *out);
} views[] = {{"length", kept_decay, kept_report_decay},
             {"perturb", kept_drift, kept_report_drift},
             {"precision", kept_precision, kept_report_precision}};
enum { N_VIEWS = sizeof views / sizeof *views };

static int view_of(const char *columns)
{
    for (int i = 0; columns && i < N_VIEWS; i++)
        if (!strcmp(columns, views[i].name))
            return i;
    return -1;
}

static int unknown_columns(const char *columns)
{
    const char *names[32];
    int n;
    const char *const *sets = kept_report_column_sets(&n);
    memcpy(names, sets, (size_t)n * sizeof *names);
    for (int i = 0; i < N_VIEWS; i++)
        names[n++] = views[i].name;
    names[n++] = "models";
    return unknown("set of columns", columns, names, n);
}

static int add_word(study_args *s, const char *word)
{
    if (!s->action)
        s->action = word;
    else if (!s->file)
        s->file = word;
    else if (!strcmp(s->action, "import") && s->n_results < 64)
        s->results[s->n_results++] = word;
    else
        return kept_usage("study", "unexpected argument '%s'", word);
    return -1;
}

/* An exit code, or -1: go on. */
static int parse(study_args *s, int argc, char **argv)
{
    static const kept_flag flags[] = {
        {"format", true}, {"out", true}, {"setting", true}, {"columns", true}};
    kept_args a = {argc, argv, 1, false, NULL};
    int code = -1;
    for (int f; code < 0 && (f = kept_args_next(&a, flags, 4)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_ERROR)
            return KEPT_EXIT_USAGE;
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD)
            code = add_word(s, a.value);
        else if (f == 0)
            s->format = a.value;
        else if (f == 1)
            s->out = a.value;
        else if (f == 3)
            s->columns = a.value;
        else if (!kept_args_int(&a, "setting", 1, INT64_MAX, &s->setting))
            code = KEPT_EXIT_USAGE;
    }
    if (code < 0 && !s->action)
        code = kept_usage("study", "what to do is missing: ls, show, export, import or check");
    if (code < 0)
        code = unknown("action", s->action, actions, 5);
    if (code < 0 && !s->file)
        code = kept_usage("study", "the study's FILE is missing");
    if (code < 0)
        code = unknown("format", s->format, formats, 4);
    if (code < 0 && s->columns)
        code = unknown_columns(s->columns);
    if (code < 0 && !strcmp(s->format, "lm-eval") && !s->out)
        code = kept_usage("study", "--format lm-eval writes a folder: --out FOLDER");
    if (code < 0 && !strcmp(s->action, "import") && !s->n_results)
        code = kept_usage("study", "the result to import is missing");
    return code;
}

static void print_setting(const json_t *g)
{
    const json_t *x;
    size_t i;
    printf("setting %lld  %s  sha256 %.12s  first run %s\n",
           (long long)json_integer_value(json_object_get(g, "id")),
           json_string_value(json_object_get(g, "model")),
           json_string_value(json_object_get(g, "sha256")),
           json_string_value(json_object_get(g, "date")));
    json_array_foreach(json_object_get(g, "tasks"), i, x)
        printf("  task      %s, %lld tokens, %lld samples\n",
               json_string_value(json_object_get(x, "label")),
               (long long)json_integer_value(json_object_get(x, "length")),
               (long long)json_integer_value(json_object_get(x, "samples")));
    json_array_foreach(json_object_get(g, "variants"), i, x)
        printf("  strategy  %s\n", json_string_value(x));
    printf("  %lld outcomes", (long long)json_integer_value(json_object_get(g, "outcomes")));
    const long long claims = json_integer_value(json_object_get(g, "claims"));
    printf(claims ? ", %lld samples being worked on\n" : "\n", claims);
}

static kept_status list(kept_store *s, kept_error *err)
{
    json_t *all = NULL;
    const json_t *g;
    size_t i;
    kept_status st = kept_store_list(s, &all, err);
    json_array_foreach(all, i, g) print_setting(g);
    if (!st && !json_array_size(all))
        printf("the study is empty\n");
    json_decref(all);
    return st;
}

static kept_status export(const study_args *a, kept_store *s, kept_error *err)
{
    json_t *doc = NULL;
    kept_status st = kept_store_export(s, a->setting, &doc, err);
    if (st)
        return st;
    if (!strcmp(a->format, "lm-eval"))
        st = kept_report_lmeval(doc, a->out, err);
    else if (a->out)
        st = kept_report_save(doc, a->out, a->format, err);
    else if (!strcmp(a->format, "csv"))
        (void)kept_report_csv(doc, stdout); /* main looks at stdout itself */
    else if (!strcmp(a->format, "jsonl"))
        (void)kept_report_jsonl(doc, stdout);
    else
        (void)kept_report_json(doc, stdout);
    json_decref(doc);
    return st;
}

static kept_status show_models(kept_store *s, kept_error *err)
{
    json_t *docs[KEPT_MOST_MODELS], *list = NULL;
    int n;
    kept_status st = kept_load_models(s, NULL, docs, &n, err);
    if (!st)
        st = kept_scale(docs, n, &list, err);
    if (!st)
        (void)kept_report_scale(list, stdout);
    for (int i = 0; i < n; i++)
        json_decref(docs[i]);
    json_decref(list);
    return st;
}

static kept_status show(const study_args *a, kept_store *s, kept_error *err)
{
    const int view = view_of(a->columns);
    json_t *doc = NULL, *list = NULL;
    if (a->columns && !strcmp(a->columns, "models"))
        return show_models(s, err);
    kept_status st = kept_store_export(s, a->setting, &doc, err);
    if (!st && view >= 0 && !(st = views[view].make(doc, &list, err)))
        (void)views[view].print(list, stdout);
    else if (!st && a->columns)
        (void)kept_report_columns(doc, a->columns, stdout);
    else if (!st)
        (void)kept_report_table(doc, stdout, NULL);
    json_decref(list);
    json_decref(doc);
    return st;
}

static kept_status import(const study_args *a, kept_store *s, kept_error *err)
{
    kept_status st = KEPT_OK;
    for (int i = 0; !st && i < a->n_results; i++) {
        json_t *doc = NULL;
        kept_error why = {.text = ""};
        int64_t n = 0;
        if ((st = kept_result_load(a->results[i], &doc, err)))
            break;
        st = kept_result_verify(doc, &why);
        if (!st)
            st = kept_store_import(s, doc, &n, &why);
        if (st)
            kept_fail(err, st, "%s: %s", a->results[i], why.text);
        else
            printf("%s: %lld outcomes that were not there\n", a->results[i], (long long)n);
        json_decref(doc);
    }
    return st;
}

int kept_cmd_study(int argc, char **argv)
{
    study_args a = {.format = "json"};
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    const bool shows = !strcmp(a.action, "show");
    const bool reads = shows || !strcmp(a.action, "ls") || !strcmp(a.action, "export");
    const kept_store_mode mode = reads                         ? KEPT_STORE_READ
                                 : !strcmp(a.action, "import") ? KEPT_STORE_CREATE
                                                               : KEPT_STORE_WRITE;
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    kept_status st = kept_store_open(a.file, mode, &s, &err);
    if (!st && !strcmp(a.action, "ls"))
        st = list(s, &err);
    else if (!st && shows)
        st = show(&a, s, &err);
    else if (!st && !strcmp(a.action, "export"))
        st = export(&a, s, &err);
    else if (!st && !strcmp(a.action, "import"))
        st = import(&a, s, &err);
    else if (!st && !(st = kept_store_check(s, &err)))
        printf("%s: whole, schema %d\n", a.file, KEPT_STORE_SCHEMA);
    kept_store_close(s);
    return st == KEPT_ARGUMENT ? kept_usage("study", "%s", err.text)
           : st                ? kept_failed("study", "%s", err.text)
                               : KEPT_EXIT_OK;
}
