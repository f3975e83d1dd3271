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
#include "store/store.h"

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

static void show_pressure(const kept_run_args *a, const json_t *doc)
{
    if (a->out || !strcmp(a->format, "table"))
        (void)kept_report_pressure(doc, stdout);
    else if (!strcmp(a->format, "csv"))
        (void)kept_report_pressure_csv(doc, stdout);
    else
        (void)kept_report_json(doc, stdout);
}

static void show_table(const json_t *result, const kept_view_options *view)
{
    (void)kept_report_table(result, stdout, view);
    (void)kept_report_sequential(result, stdout);
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
    if (a->n_sequences)
        show_pressure(a, result);
    else if (a->out || !strcmp(a->format, "table"))
        show_table(result, &view);
    else if (!strcmp(a->format, "csv"))
        (void)kept_report_csv(result, stdout);
    else
        (void)kept_report_json(result, stdout);
    if (a->out && kept_report_save(result, a->out, format_of_file(a), &err))
        return kept_failed("run", "%s", err.text);
    return KEPT_EXIT_OK;
}

/* Number of a variable that a launcher of parallel programs sets; -1: none does. */
static int launched(const char *const *names)
{
    for (; *names; names++) {
        const char *text = getenv(*names);
        if (text && *text >= '0' && *text <= '9')
            return atoi(text);
    }
    return -1;
}

/* Which of how many processes of one mpirun or srun this is. They need no messages: the study is
 * where they meet. */
static void find_rank(int *rank, int *n_ranks)
{
    static const char *const ranks[] = {"OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID", NULL};
    static const char *const sizes[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS", NULL};
    *rank = launched(ranks);
    *n_ranks = launched(sizes);
    if (*rank < 0 || *n_ranks < 1 || *rank >= *n_ranks) {
        *rank = 0;
        *n_ranks = 1;
    }
}

static void say_resumed(void *ctx, int done, int total)
{
    const kept_progress *p = ctx;
    if (!p->quiet && done)
        fprintf(stderr, "kept run: going on with the study: %d of %d samples are there\n", done,
                total);
}

static kept_run_options options_of(const kept_run_args *a, kept_progress *p)
{
    return (kept_run_options){
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
        .stop_margin = a->stop / 100,
        .preset = a->preset,
        .gate = a->gate,
        .dump_kept = a->dump,
        .trained = (const char *const *)a->trained.text,
        .n_trained = a->trained.n,
        .trained_dir = *a->trained_dir ? a->trained_dir : NULL,
        .progress = kept_progress_show,
        .resumed = say_resumed,
        .ctx = p,
    };
}

/* kept run with --pressure. */
static kept_status run_pressure(const kept_run_args *a, const kept_run_options *o, json_t **result,
                                kept_error *err)
{
    const kept_pressure_options p = {o, a->sequences, a->n_sequences};
    return kept_pressure(&p, result, err);
}

static int run(const kept_run_args *a)
{
    kept_progress p;
    kept_progress_start(&p, a->quiet);
    kept_run_options o = options_of(a, &p);
    json_t *result = NULL;
    kept_store *store = NULL;
    kept_error err = {.text = ""};
    int rank = 0, n_ranks = 1;
    kept_status s = KEPT_OK;
    if (a->study) {
        find_rank(&rank, &n_ranks);
        s = kept_store_open(a->study, KEPT_STORE_CREATE, &store, &err);
    }
    if (s)
        return kept_failed("run", "%s", err.text);
    o.sink = store ? kept_store_sink(store, rank, n_ranks) : NULL;
    p.quiet |= rank > 0;
    p.show &= rank == 0;
    s = a->n_sequences ? run_pressure(a, &o, &result, &err) : kept_run(&o, &result, &err);
    kept_progress_wipe(&p);
    kept_store_close(store);
    int code = s == KEPT_ARGUMENT ? KEPT_EXIT_USAGE : s ? KEPT_EXIT_FAILED : KEPT_EXIT_OK;
    if (result) {
        int shown = rank ? KEPT_EXIT_OK : show(a, result); /* the first process speaks for all */
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
