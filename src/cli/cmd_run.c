/* kept run: the main job on the command line: progress, Ctrl-C, and where the result goes.
 *
 * The result goes to stdout in --format. With --out it goes to that file, in the format of its
 * extension, and stdout has the table as well.
 */
#include "bench/run.h"
#include "cli/cli.h"
#include "cli/progress.h"
#include "cli/run_args.h"
#include "report/report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int columns_of_stdout(void)
{
    struct winsize w;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) || w.ws_col < 60)
        return 0;
    return w.ws_col;
}

static const char *format_of_file(const kept_run_args *a)
{
    const char *dot = strrchr(a->out, '.');
    if (dot && !strcmp(dot, ".json"))
        return "json";
    if (dot && !strcmp(dot, ".csv"))
        return "csv";
    if (dot && !strcmp(dot, ".txt"))
        return "table";
    return strcmp(a->format, "table") ? a->format : "json";
}

/* main checks stdout itself, so a failing write to it is not looked at here. */
static int show(const kept_run_args *a, const json_t *result)
{
    const char *no_colour = getenv("NO_COLOR");
    kept_view_options view = {
        .colour = isatty(STDOUT_FILENO) && !(no_colour && *no_colour),
        .columns = columns_of_stdout(),
    };
    kept_error err;
    if (a->out || !strcmp(a->format, "table"))
        (void)kept_report_table(result, stdout, &view);
    else if (!strcmp(a->format, "csv"))
        (void)kept_report_csv(result, stdout);
    else
        (void)kept_report_json(result, stdout);
    if (a->out && kept_report_save(result, a->out, format_of_file(a), &err))
        return kept_failed("run", "%s", err.text);
    return KEPT_EXIT_OK;
}

static int run(const kept_run_args *a)
{
    kept_progress p;
    kept_progress_start(&p, a->quiet);
    kept_run_options o = {
        .model_path = a->model_path,
        .model_name = a->model,
        .specs = (const char *const *)a->specs.text,
        .n_specs = a->specs.n,
        .tasks = a->task_options,
        .n_tasks = a->tasks.n,
        .auto_chat = !a->chat && !a->raw,
        .n_threads = (int)a->threads,
        .seed = (uint64_t)a->seed,
        .chunk = (int)a->chunk,
        .speed_samples = (int)a->speed_samples,
        .speed_steps = (int)a->speed_steps,
        .pool_bytes = (size_t)a->pool,
        .isa = a->isa ? a->isa : getenv("KEPT_ISA"),
        .dump_kept = a->dump,
        .trained = (const char *const *)a->trained.text,
        .n_trained = a->trained.n,
        .trained_dir = *a->trained_dir ? a->trained_dir : NULL,
        .progress = kept_progress_show,
        .ctx = &p,
    };
    json_t *result = NULL;
    kept_error err = {.text = ""};
    kept_status s = kept_run(&o, &result, &err);
    kept_progress_wipe(&p);
    int code = s == KEPT_ARGUMENT ? KEPT_EXIT_USAGE : s ? KEPT_EXIT_FAILED : KEPT_EXIT_OK;
    if (result) {
        int shown = show(a, result);
        code = code ? code : shown;
        json_decref(result);
    }
    if (s)
        kept_failed("run", "%s", *err.text ? err.text : kept_status_text(s));
    return code;
}

int kept_cmd_run(int argc, char **argv)
{
    kept_run_args a;
    int code = kept_run_args_parse(&a, argc, argv);
    if (code < 0) {
        kept_catch_signals();
        code = run(&a);
    }
    kept_run_args_clear(&a);
    return code;
}
