/* kept selftest: a run whose outcome is known. */
#include "bench/run.h"
#include "bench/selftest.h"
#include "cli/catalogue.h"
#include "cli/cli.h"
#include "cli/progress.h"

#include <string.h>

#define CONTROL "window@8%" /* forgets nearly all of the prompt, the needle with it */
#define MARGIN  0.05

static const char help[] =
    "usage: kept selftest [--model NAME|FILE.gguf] [--samples N] [--length N] [--quick]\n"
    "Would kept notice? A needle test with a strategy that must lose, " CONTROL ".\n"
    "  same       the full cache beside itself differs by exactly 0\n"
    "  threads    another number of threads changes no bit (not with --quick)\n"
    "  control    the strategy that must lose is called worse\n"
    "  doctored   results that were changed by hand are refused\n\n"
    "  --model NAME|FILE   [smollm2-135m]\n"
    "  --samples N         [8]      --length N   tokens of a sample [384]\n"
    "  --quick             leave out the second run\n\n"
    "Exit code 0 if all of it holds, 1 if not.\n\n"
    "example\n"
    "  kept selftest --quick\n";

typedef struct selftest_args {
    const char *model;
    int64_t samples, length;
    bool quick;
} selftest_args;

/* An exit code, or -1: go on. */
static int parse(selftest_args *s, int argc, char **argv)
{
    static const kept_flag flags[] = {
        {"model", true}, {"samples", true}, {"length", true}, {"quick", false}};
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, 4)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD)
            return kept_usage("selftest", "unexpected argument '%s'", a.value);
        if (f == 0)
            s->model = a.value;
        else if (f == 3)
            s->quick = true;
        if (f == KEPT_ARG_ERROR ||
            (f == 1 && !kept_args_int(&a, "samples", 6, 10000, &s->samples)) ||
            (f == 2 && !kept_args_int(&a, "length", 256, 1 << 20, &s->length)))
            return KEPT_EXIT_USAGE;
    }
    return -1;
}

static kept_status run_once(const selftest_args *a, const char *path, int n_threads, json_t **doc,
                            kept_error *err)
{
    static const char *const specs[] = {CONTROL};
    kept_progress p;
    kept_progress_start(&p, false);
    const kept_task_options task = {
        .name = "niah_single", .length = (int)a->length, .n_samples = (int)a->samples, .seed = 1};
    const kept_run_options o = {.model_path = path,
                                .model_name = a->model,
                                .specs = specs,
                                .n_specs = 1,
                                .tasks = &task,
                                .n_tasks = 1,
                                .auto_chat = true,
                                .n_threads = n_threads,
                                .seed = 1,
                                .progress = kept_progress_show,
                                .ctx = &p};
    kept_status s = kept_run(&o, doc, err);
    kept_progress_wipe(&p);
    return s;
}

static int print_checks(const json_t *checks)
{
    const json_t *c;
    size_t i;
    int code = KEPT_EXIT_OK;
    json_array_foreach(checks, i, c)
    {
        const bool ok = json_is_true(json_object_get(c, "ok"));
        printf("%-4s %-17s %s\n", ok ? "ok" : "FAIL", json_string_value(json_object_get(c, "name")),
               json_string_value(json_object_get(c, "what")));
        code = ok ? code : KEPT_EXIT_FAILED;
    }
    return code;
}

int kept_cmd_selftest(int argc, char **argv)
{
    selftest_args a = {.model = "smollm2-135m", .samples = 8, .length = 384};
    char path[4096];
    json_t *doc = NULL, *again = NULL, *checks = NULL;
    kept_error err = {.text = ""};
    int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    if (kept_model_path(a.model, path, sizeof path))
        return kept_failed("selftest", "model %s is not here yet; try 'kept pull %s'", a.model,
                           a.model);
    kept_catch_signals();
    kept_status s = run_once(&a, path, 0, &doc, &err);
    if (!s && !a.quick)
        s = run_once(&a, path, 1, &again, &err);
    if (!s)
        s = kept_selftest_judge(doc, CONTROL, MARGIN, &checks, &err);
    if (!s && again)
        s = kept_selftest_again(doc, again, checks, &err);
    code = s ? kept_failed("selftest", "%s", err.text) : print_checks(checks);
    json_decref(doc);
    json_decref(again);
    json_decref(checks);
    return code;
}
