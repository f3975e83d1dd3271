/* store_rig: what the tests of the store share: a small model, prompts, runs on a study here and as
 * other processes, and a query that is not the store's. */
#ifndef TESTS_STORE_RIG_H
#define TESTS_STORE_RIG_H

#include "mkgguf.h"
#include "store/store.h"
#include "test.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *model_path, *jsonl_path, *study_path;
static const char *self;
static const char *const specs[] = {"h2o@25%", "random@25%", "knorm+chunks@25%", "window@30%"};
enum { N_SPECS = 3, N_SAMPLES = 10 };

static kept_task_options task;

static kept_run_options options(int n_samples)
{
    task = (kept_task_options){
        .name = "jsonl", .length = 400, .n_samples = n_samples, .seed = 3, .file = jsonl_path};
    return (kept_run_options){.model_path = model_path,
                              .model_name = "random",
                              .specs = specs,
                              .n_specs = N_SPECS,
                              .tasks = &task,
                              .n_tasks = 1,
                              .n_threads = 1,
                              .seed = 7,
                              .chunk = 120};
}

typedef struct counts {
    int resumed, calls, stop_at;
} counts;

static bool progress(void *ctx, double done, const char *what)
{
    counts *c = ctx;
    (void)done;
    (void)what;
    return !c->stop_at || ++c->calls < c->stop_at;
}

static void resumed(void *ctx, int done, int total)
{
    ((counts *)ctx)->resumed = done;
    CHECK(done <= total);
}

static json_t *run_on(const char *path, kept_run_options o, counts *c, kept_status want)
{
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    json_t *doc = NULL;
    o.progress = progress;
    o.resumed = resumed;
    o.ctx = c;
    kept_status st = path ? kept_store_open(path, KEPT_STORE_CREATE, &s, &err) : KEPT_OK;
    if (!st) {
        o.sink = s ? kept_store_sink(s, 0, 1) : NULL;
        st = kept_run(&o, &doc, &err);
    }
    kept_store_close(s);
    if (st != want)
        fprintf(stderr, "%s\n", err.text);
    CHECK_INT(st, want);
    return doc;
}

static void strip_times(json_t *x)
{
    static const char *const keys[] = {
        "date",        "times",   "prefill_ns",     "score_ns",
        "compact_ns",  "speed",   "tokens_per_s",   "full_tokens_per_s",
        "speed_ratio", "itl_gap", "roofline_share", "read_bytes_per_s"};
    json_t *v;
    const char *key;
    void *next;
    size_t i;
    if (json_is_object(x)) {
        for (i = 0; i < sizeof keys / sizeof *keys; i++)
            json_object_del(x, keys[i]);
        json_object_foreach_safe(x, next, key, v) strip_times(v);
    } else if (json_is_array(x)) {
        json_array_foreach(x, i, v) strip_times(v);
    }
}

static json_t *base; /* without a study, times stripped */

static inline void equals_base(json_t *doc)
{
    strip_times(doc);
    CHECK(doc && json_equal(json_object_get(doc, "samples"), json_object_get(base, "samples")));
    CHECK(doc && json_equal(json_object_get(doc, "cells"), json_object_get(base, "cells")));
    CHECK(doc && json_equal(json_object_get(doc, "variants"), json_object_get(base, "variants")));
    json_decref(doc);
}

/* One number of a study, by a query of its own. */
static inline long long ask(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;
    long long x = -1;
    if (!sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL)) {
        sqlite3_busy_timeout(db, 5000);
        if (!sqlite3_prepare_v2(db, sql, -1, &q, NULL) && sqlite3_step(q) == SQLITE_ROW)
            x = sqlite3_column_int64(q, 0);
    }
    sqlite3_finalize(q);
    sqlite3_close(db);
    return x;
}

static void fresh(void)
{
    char journal[512];
    snprintf(journal, sizeof journal, "%s-journal", study_path);
    unlink(study_path);
    unlink(journal);
}

static void write_prompts(int change)
{
    FILE *f = fopen(jsonl_path, "w");
    for (int i = 0; f && i < N_SAMPLES; i++) {
        fprintf(f, "{\"context\": \"");
        for (int k = 0; k < 10; k++)
            fprintf(f, "The box number %d holds item %d. ", k, k * 31 + i + (i == 1 ? change : 0));
        fprintf(f,
                "\", \"question\": \"What is in box 3?\", \"answers\": [\"%d\"], "
                "\"max_new_tokens\": 6}\n",
                93 + i);
    }
    if (f)
        fclose(f);
}

static inline pid_t start(const char *how)
{
    pid_t pid = fork();
    if (!pid) {
        execl(self, self, how, model_path, jsonl_path, study_path, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static inline int wait_for(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline void sleep_ms(int ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

static int child(char **argv)
{
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    counts c = {0};
    model_path = argv[2];
    jsonl_path = argv[3];
    study_path = argv[4];
    if (!strcmp(argv[1], "read-only")) {
        if (!geteuid() && setuid(65534)) /* the superuser may write to anything */
            return 0;
        kept_status st = kept_store_open(study_path, KEPT_STORE_WRITE, &s, &err);
        return !(st == KEPT_IO && strstr(err.text, "cannot be written"));
    }
    if (!strcmp(argv[1], "full-disk")) {
        const struct stat st = {0};
        struct stat now = st;
        stat(study_path, &now);
        const rlim_t most = (rlim_t)now.st_size + 12288;
        const struct rlimit limit = {most, most};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_IO));
        return test_failed;
    }
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    return test_failed;
}

/* Inputs and the document without a study; 77 if there is no room. */
static int rig_open(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    counts c = {0};
    self = "/proc/self/exe";
    model_path = mkgguf_temp();
    jsonl_path = mkgguf_temp();
    study_path = mkgguf_temp();
    spec.n_ctx = 2048;
    spec.qk_gain = 3;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    write_prompts(0);
    base = run_on(NULL, options(N_SAMPLES), &c, KEPT_OK);
    strip_times(base);
    return 0;
}

static void rig_close(void)
{
    fresh();
    unlink(model_path);
    unlink(jsonl_path);
}

#endif
