/* What running many cells at once saves: 20 strategies x 5 budgets on one task, from one prefill a
 * prompt and in one batch, against the same cells one by one, each with a prefill of its own (what
 * a tool that patches one method into a model has to do). Of the cells alone, --alone are run,
 * spread over all of them, and their mean stands for the rest. Every run, alone or not, carries the
 * full cache as its reference; the time to load the model is taken off both.
 *
 * Also what the store and the statistics take of that run. Bars: 25 times, 1 %. Exit 77 without a
 * model; with --strict 1 if a bar is missed. */
#include "bench/run.h"
#include "kept/kept.h"
#include "store/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const strategies[] = {
    "streaming",   "random",       "knorm",     "keydiff", "lagkv",  "pagedeviction",
    "cur",         "leverage",     "h2o",       "tova",    "snapkv", "nacl",
    "keyformer",   "corm",         "pyramidkv", "adakv",   "dropkv", "expected-attention",
    "snapkv+cake", "snapkv+global"};
static const char *const budgets[] = {"75%", "50%", "25%", "12.5%", "6.25%"};
enum {
    STRATEGIES = sizeof strategies / sizeof *strategies,
    BUDGETS = sizeof budgets / sizeof *budgets,
    CELLS = STRATEGIES * BUDGETS
};

typedef struct setup {
    const char *path;
    int length, samples, alone, threads;
    bool strict;
    char spec[CELLS][64];
} setup;

static void die(const char *what, const kept_error *err)
{
    fprintf(stderr, "bench_sweep: %s: %s\n", what, err->text);
    exit(1);
}

/* A sink that passes everything on and counts the time that takes. */
typedef struct timed {
    const kept_run_sink *to;
    uint64_t ns;
} timed;

static kept_status begin(void *ctx, const json_t *head, const json_t *prompts, int *done,
                         kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->begin(t->to->ctx, head, prompts, done, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

static kept_status take(void *ctx, int task, int index, kept_take *what, bool *lacks,
                        kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->take(t->to->ctx, task, index, what, lacks, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

static kept_status put(void *ctx, const json_t *sample, const kept_run_extra *extra,
                       kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->put(t->to->ctx, sample, extra, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

static void drop(void *ctx, int task, int index)
{
    timed *t = ctx;
    t->to->drop(t->to->ctx, task, index);
}

static void alive(void *ctx)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    t->to->alive(t->to->ctx);
    t->ns += kept_clock_ns() - t0;
}

static kept_status get(void *ctx, int task, int index, json_t **sample, kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->get(t->to->ctx, task, index, sample, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

static kept_status recall(void *ctx, const char *key, char **text, kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->recall(t->to->ctx, key, text, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

static kept_status keep(void *ctx, const char *key, const char *text, kept_error *err)
{
    timed *t = ctx;
    const uint64_t t0 = kept_clock_ns();
    const kept_status st = t->to->remember(t->to->ctx, key, text, err);
    t->ns += kept_clock_ns() - t0;
    return st;
}

/* Seconds of one run of these specs; the document into *doc if wanted. */
static double run(const setup *s, const char *const *specs, int n, const kept_run_sink *sink,
                  json_t **doc)
{
    kept_error err;
    json_t *result = NULL;
    const kept_task_options task = {
        .name = "niah_single", .length = s->length, .n_samples = s->samples, .seed = 1};
    const kept_run_options o = {.model_path = s->path,
                                .model_name = "model",
                                .specs = specs,
                                .n_specs = n,
                                .tasks = &task,
                                .n_tasks = 1,
                                .auto_chat = true,
                                .n_threads = s->threads,
                                .seed = 1,
                                .sink = sink};
    const uint64_t t0 = kept_clock_ns();
    if (kept_run(&o, &result, &err))
        die("run", &err);
    const double wall = (double)(kept_clock_ns() - t0) / 1e9;
    if (doc)
        *doc = result;
    else
        json_decref(result);
    return wall;
}

static double load_time(const setup *s)
{
    kept_error err;
    kept_model *m;
    const uint64_t t0 = kept_clock_ns();
    if (kept_model_open(s->path, &m, &err))
        die("model", &err);
    const double wall = (double)(kept_clock_ns() - t0) / 1e9;
    kept_model_free(m);
    return wall;
}

static int failures(const json_t *doc)
{
    const json_t *sample, *outcome;
    size_t i, k;
    int n = 0;
    json_array_foreach(json_object_get(doc, "samples"), i, sample)
        json_array_foreach(json_object_get(sample, "outcomes"), k, outcome) n +=
        json_integer_value(json_object_get(outcome, "failed")) != 0;
    return n;
}

static double together(const setup *s, double load, double *store, double *statistics)
{
    const char *specs[CELLS];
    char dir[] = "/tmp/kept-bench-sweep-XXXXXX", path[64];
    kept_error err;
    kept_store *study;
    json_t *doc;
    for (int i = 0; i < CELLS; i++)
        specs[i] = s->spec[i];
    if (!mkdtemp(dir)) {
        perror("bench_sweep: /tmp");
        exit(1);
    }
    snprintf(path, sizeof path, "%s/study.db", dir);
    if (kept_store_open(path, KEPT_STORE_CREATE, &study, &err))
        die("study", &err);
    timed t = {.to = kept_store_sink(study, 0, 1)};
    const kept_run_sink *to = t.to;
    const kept_run_sink sink = {.ctx = &t,
                                .begin = begin,
                                .take = take,
                                .put = put,
                                .drop = drop,
                                .alive = to->alive ? alive : NULL,
                                .get = get,
                                .recall = to->recall ? recall : NULL,
                                .remember = to->remember ? keep : NULL,
                                .rank = to->rank,
                                .n_ranks = to->n_ranks};
    const double wall = run(s, specs, CELLS, &sink, &doc) - load;
    const uint64_t t0 = kept_clock_ns();
    json_decref(kept_result_cells(doc));
    *statistics = (double)(kept_clock_ns() - t0) / 1e9 / wall;
    *store = (double)t.ns / 1e9 / wall;
    if (failures(doc)) {
        fprintf(stderr, "bench_sweep: %d outcomes failed; the times say nothing\n", failures(doc));
        exit(1);
    }
    json_decref(doc);
    kept_store_close(study);
    unlink(path);
    rmdir(dir);
    return wall;
}

static bool verdict(const char *what, double value, const char *sign, double bar)
{
    const bool met = *sign == '>' ? value >= bar : value <= bar;
    printf("%s %s: %.2f (bar: %s= %g)\n", met ? "PASS" : "FAIL", what, value, sign, bar);
    return met;
}

static int number(const char *text, int low)
{
    const int n = atoi(text);
    if (n < low) {
        fprintf(stderr, "bench_sweep: '%s' is not a number from %d up\n", text, low);
        exit(2);
    }
    return n;
}

static setup read_args(int argc, char **argv)
{
    setup s = {.path = getenv("KEPT_MODEL"), .length = 2048, .samples = 4, .alone = 10};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--strict"))
            s.strict = true;
        else if (i + 1 < argc && !strcmp(argv[i], "--model"))
            s.path = argv[++i];
        else if (i + 1 < argc && !strcmp(argv[i], "--length"))
            s.length = number(argv[++i], 256);
        else if (i + 1 < argc && !strcmp(argv[i], "--samples"))
            s.samples = number(argv[++i], 1);
        else if (i + 1 < argc && !strcmp(argv[i], "--alone"))
            s.alone = number(argv[++i], 1);
        else if (i + 1 < argc && !strcmp(argv[i], "--threads"))
            s.threads = number(argv[++i], 0);
        else {
            fprintf(stderr, "usage: bench_sweep [--model FILE] [--length N] [--samples N] [--alone "
                            "N] [--threads N] [--strict]\n");
            exit(2);
        }
    }
    s.alone = s.alone < CELLS ? s.alone : CELLS;
    for (int i = 0; i < CELLS; i++)
        snprintf(s.spec[i], sizeof s.spec[i], "%s@%s", strategies[i / BUDGETS],
                 budgets[i % BUDGETS]);
    return s;
}

int main(int argc, char **argv)
{
    const setup s = read_args(argc, argv);
    double store, statistics, alone = 0;
    if (!s.path || access(s.path, R_OK)) {
        puts("skip no model; set KEPT_MODEL or --model");
        return 77;
    }
    const double load = load_time(&s);
    const double all = together(&s, load, &store, &statistics);
    for (int i = 0; i < s.alone; i++) {
        const char *spec = s.spec[i * CELLS / s.alone];
        alone += run(&s, &spec, 1, NULL, NULL) - load;
    }
    const double each = alone / s.alone;
    printf("%d strategies x %d budgets, niah_single, %d tokens, %d samples: %.1f s together; alone "
           "%.2f s a cell (mean of %d), %.0f s for all\n",
           STRATEGIES, BUDGETS, s.length, s.samples, all, each, s.alone, each * CELLS);
    bool met = verdict("alone / together", each * CELLS / all, ">", 25);
    met &= verdict("store, % of the run", 100 * store, "<", 1);
    met &= verdict("statistics, % of the run", 100 * statistics, "<", 1);
    return s.strict && !met;
}
