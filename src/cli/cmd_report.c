/* kept report: a study as one HTML file. */
#include "bench/compare.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/load.h"
#include "model/model.h"
#include "report/report.h"
#include "store/store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char help[] =
    "usage: kept report FILE [-o PAGE.html] [options]\n"
    "One HTML page that needs nothing else: the verdict in words, tables, plots, the answers that\n"
    "changed with what was kept of their prompts, the data, and the commands that make it again.\n"
    "FILE is a study, or a result (.json), which has no prompts.\n\n"
    "  -o, --out PATH    where to [report.html]\n"
    "  --margin PT       how much worse in score still counts as good, in points [1]\n"
    "  --nll-margin X    the same for NLL, in nats per token [0.01]\n"
    "  --level P         of the one-sided bounds, in percent [95]\n"
    "  --model FILE      whose vocabulary the study's prompts are read with [the study's model]\n"
    "  --setting N       which setting, where a study has several\n\n"
    "Verdicts are those of 'kept compare FILE --common' with the same margins.\n\n"
    "examples\n"
    "  kept report s.db -o s.html\n"
    "  kept report s.db --margin 2\n";

typedef struct report_args {
    const char *file, *out, *model;
    double margin, nll_margin, level;
    int64_t setting;
} report_args;

/* False: the message is on stderr. */
static bool take_flag(report_args *r, kept_args *a, int flag)
{
    switch (flag) {
    case 0:
        r->out = a->value;
        return true;
    case 1:
        return kept_args_number(a, "margin", 0, 100, &r->margin);
    case 2:
        return kept_args_number(a, "nll-margin", 0, 100, &r->nll_margin);
    case 3:
        return kept_args_number(a, "level", 50.1, 99.999, &r->level);
    case 4:
        r->model = a->value;
        return true;
    default:
        return kept_args_int(a, "setting", 1, INT64_MAX, &r->setting);
    }
}

/* An exit code, or -1: go on. */
static int parse(report_args *r, int argc, char **argv)
{
    static const kept_flag flags[] = {{"out", true},   {"margin", true}, {"nll-margin", true},
                                      {"level", true}, {"model", true},  {"setting", true}};
    static char out[] = "--out";
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-o"))
            argv[i] = out;
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, sizeof flags / sizeof *flags)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD && r->file)
            return kept_usage("report", "unexpected argument '%s'", a.value);
        if (f == KEPT_ARG_WORD)
            r->file = a.value;
        else if (f == KEPT_ARG_ERROR || !take_flag(r, &a, f))
            return KEPT_EXIT_USAGE;
    }
    return r->file ? -1 : kept_usage("report", "the study's FILE is missing");
}

/* Every strategy against the full cache; *out NULL: nothing to compare yet. */
static kept_status compare(const report_args *r, const json_t *doc, json_t **out, kept_error *err)
{
    const kept_compare_options o = {.before = doc,
                                    .after = doc,
                                    .before_name = r->file,
                                    .after_name = r->file,
                                    .margin = r->margin / 100,
                                    .nll_margin = r->nll_margin,
                                    .level = r->level / 100,
                                    .common = true};
    const kept_status s = kept_compare(&o, out, err);
    return s == KEPT_ARGUMENT ? KEPT_OK : s;
}

/* The vocabulary of the model that was run, NULL with the reason in why. */
static kept_model *open_vocabulary(const report_args *r, const json_t *doc, kept_error *why)
{
    const json_t *m = json_object_get(doc, "model");
    const char *asked = json_string_value(json_object_get(m, "asked"));
    const char *want = json_string_value(json_object_get(m, "sha256"));
    const char *name = r->model ? r->model : asked ? asked : "";
    char path[4096], hex[65];
    kept_model *model = NULL;
    kept_error err = {.text = ""};
    if (kept_model_path(name, path, sizeof path) || kept_vocab_load(path, &model, &err)) {
        kept_fail(why, KEPT_NOT_FOUND, "the model %s cannot be read%s%s; --model FILE names it",
                  name, *err.text ? ": " : "", err.text);
        return NULL;
    }
    if (!kept_model_sha256(model, hex, why) && want && !strcmp(hex, want))
        return model;
    kept_fail(why, KEPT_ARGUMENT, "%s is another model than the study's (SHA-256 %.12s)", name,
              want ? want : "");
    kept_model_free(model);
    return NULL;
}

/* What only a study has; *out NULL for a result. */
static kept_status read_prompts(const report_args *r, const json_t *doc, const json_t *comparison,
                                json_t **out, kept_error *err)
{
    kept_error why = {.text = ""};
    kept_page_study study = {.setting = r->setting};
    *out = NULL;
    if (!kept_store_is_study(r->file) || !comparison)
        return KEPT_OK;
    kept_status s = kept_store_open(r->file, KEPT_STORE_READ, &study.store, err);
    if (s)
        return s;
    kept_model *model = open_vocabulary(r, doc, &why);
    if (!model && r->model) {
        s = kept_fail(err, KEPT_NOT_FOUND, "%s", why.text);
    } else {
        study.model = model;
        study.note = model
                         ? NULL
                         : "Prompts are left out: the model's file, whose vocabulary they are read "
                           "with, was not there when this page was made (--model FILE).";
        if (!model)
            fprintf(stderr, "kept report: no prompts in the page: %s\n", why.text);
        s = kept_page_prompts(&study, doc, comparison, out, err);
    }
    kept_model_free(model);
    kept_store_close(study.store);
    return s;
}

/* The views of robustness, of the other models of the study too. */
static kept_status read_robust(const report_args *r, json_t *doc, json_t **out, kept_error *err)
{
    json_t *docs[KEPT_MOST_MODELS];
    int n = 0;
    kept_store *store = NULL;
    kept_status s = KEPT_OK;
    if (kept_store_is_study(r->file)) {
        s = kept_store_open(r->file, KEPT_STORE_READ, &store, err);
        if (!s)
            s = kept_load_models(store, doc, docs, &n, err);
        kept_store_close(store);
    } else {
        docs[n++] = json_incref(doc);
    }
    if (!s)
        s = kept_robust(docs, n, out, err);
    for (int i = 0; i < n; i++)
        json_decref(docs[i]);
    return s;
}

static void say_size(const char *path, const json_t *doc)
{
    struct stat st;
    char size[32];
    if (stat(path, &st))
        return;
    printf("%s: %s, %zu rows from %zu samples; open it in a browser\n", path,
           kept_format_decimal((double)st.st_size, size, sizeof size),
           json_array_size(json_object_get(doc, "cells")),
           json_array_size(json_object_get(doc, "samples")));
}

int kept_cmd_report(int argc, char **argv)
{
    report_args r = {.out = "report.html", .margin = 1, .nll_margin = 0.01, .level = 95};
    int code = parse(&r, argc, argv);
    if (code >= 0)
        return code;
    json_t *doc = NULL, *comparison = NULL, *prompts = NULL, *robust = NULL;
    kept_error err = {.text = ""};
    const char *slash = strrchr(r.file, '/');
    kept_status s = kept_page_ready(&err);
    if (!s)
        s = kept_load_result(r.file, r.setting, &doc, &err);
    if (!s)
        s = compare(&r, doc, &comparison, &err);
    if (!s)
        s = read_prompts(&r, doc, comparison, &prompts, &err);
    if (!s)
        s = read_robust(&r, doc, &robust, &err);
    const kept_page page = {.result = doc,
                            .comparison = comparison,
                            .prompts = prompts,
                            .robust = robust,
                            .source = slash ? slash + 1 : r.file};
    if (!s)
        s = kept_report_page(&page, r.out, &err);
    if (!s)
        say_size(r.out, doc);
    json_decref(doc);
    json_decref(comparison);
    json_decref(prompts);
    json_decref(robust);
    return s == KEPT_ARGUMENT ? kept_usage("report", "%s", err.text)
           : s                ? kept_failed("report", "%s", err.text)
                              : KEPT_EXIT_OK;
}
