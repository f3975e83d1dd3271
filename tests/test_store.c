/* The store: a run on a study gives the document that it gives without one, whatever kills it in
 * between, however many processes work on it, and nothing of another kind gets into its cells. */
#include "bench/keptmap.h"
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
    static const char *const keys[] = {"date",       "times", "prefill_ns",   "score_ns",
                                       "compact_ns", "speed", "tokens_per_s", "full_tokens_per_s",
                                       "speed_ratio"};
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

static void equals_base(json_t *doc)
{
    strip_times(doc);
    CHECK(doc && json_equal(json_object_get(doc, "samples"), json_object_get(base, "samples")));
    CHECK(doc && json_equal(json_object_get(doc, "cells"), json_object_get(base, "cells")));
    CHECK(doc && json_equal(json_object_get(doc, "variants"), json_object_get(base, "variants")));
    json_decref(doc);
}

/* One number of a study, by a query of its own. */
static long long ask(const char *path, const char *sql)
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

static void a_study_changes_nothing(void)
{
    counts c = {0};
    fresh();
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, 0);
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, N_SAMPLES);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome"), N_SAMPLES * (N_SPECS + 2));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM claim"), 0);
}

static void a_stopped_run_goes_on(void)
{
    counts c = {.stop_at = 60};
    fresh();
    json_t *part = run_on(study_path, options(N_SAMPLES), &c, KEPT_CANCELLED);
    const size_t n = json_array_size(json_object_get(part, "samples"));
    CHECK(n > 0 && n < N_SAMPLES);
    json_decref(part);
    c = (counts){0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, n);
}

/* ---- other processes ------------------------------------------------------------------------ */

static pid_t start(const char *how)
{
    pid_t pid = fork();
    if (!pid) {
        execl(self, self, how, model_path, jsonl_path, study_path, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static int wait_for(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void sleep_ms(int ms)
{
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
}

/* Killed at moments that move through all that a run does. */
static void killed_again_and_again(void)
{
    int rc = -1, kills = 0;
    long long before = 0;
    fresh();
    for (int ms = 40; rc != 0 && kills < 60; ms += 13) {
        pid_t pid = start("run");
        sleep_ms(ms);
        kills += kill(pid, SIGKILL) == 0;
        rc = wait_for(pid);
        CHECK(rc == 0 || rc == -SIGKILL);
        const long long now = ask(study_path, "SELECT count(*) FROM outcome");
        CHECK(now >= before || before == 0);
        CHECK(now <= 0 || now % (N_SPECS + 2) == 0); /* a sample is stored whole */
        before = now > 0 ? now : before;
    }
    CHECK_INT(rc, 0);
    printf("# killed %d times\n", kills);
    CHECK(kills > 3);
    counts c = {0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, N_SAMPLES);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM claim"), 0);
}

static void two_processes_share_a_study(void)
{
    fresh();
    pid_t a = start("run"), b = start("run");
    CHECK_INT(wait_for(a), 0);
    CHECK_INT(wait_for(b), 0);
    printf("# samples of each process: %lld and %lld\n",
           ask(study_path, "SELECT count(*) FROM sample WHERE run = 1"),
           ask(study_path, "SELECT count(*) FROM sample WHERE run = 2"));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM run"), 2);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM setting"), 1);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome"), N_SAMPLES * (N_SPECS + 2));
    /* no sample was done by both: all its outcomes are of one run */
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome o JOIN sample s ON s.id = o.sample "
                              "WHERE o.run <> s.run"),
              0);
    counts c = {0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, N_SAMPLES);
}

/* A claim of a process elsewhere is respected until it ends. */
static void claims_end(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    ask(study_path, "DELETE FROM outcome");
    ask(study_path, "INSERT INTO claim SELECT 1, 1, 'elsewhere 1 1', strftime('%s', 'now') + 2");
    equals_base((json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK)),
                 run_on(study_path, options(N_SAMPLES), &c, KEPT_OK)));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM claim"), 0);
}

/* ---- what is the same and what is not ------------------------------------------------------- */

static void wider_runs_keep_what_is_there(void)
{
    counts c = {0};
    fresh();
    json_t *two = run_on(study_path, options(2), &c, KEPT_OK);
    kept_run_options o = options(3);
    o.n_specs = N_SPECS + 1;
    json_t *three = run_on(study_path, o, &c, KEPT_OK);
    CHECK_INT(c.resumed, 0); /* every sample lacks something */
    CHECK_INT(ask(study_path, "SELECT count(*) FROM setting"), 1);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM task"), 1);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome"), 3 * (N_SPECS + 3));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome WHERE run = 2"), 2 + N_SPECS + 3);
    for (size_t i = 0; i < 2; i++) {
        const json_t *a = json_array_get(json_object_get(two, "samples"), i);
        const json_t *b = json_array_get(json_object_get(three, "samples"), i);
        for (size_t v = 0; v < N_SPECS + 2; v++) /* times included: it was not run again */
            CHECK(json_equal(json_array_get(json_object_get(a, "outcomes"), v),
                             json_array_get(json_object_get(b, "outcomes"), v)));
        CHECK_INT(json_array_size(json_object_get(b, "outcomes")), N_SPECS + 3);
    }
    json_decref(two);
    json_decref(three);
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

static void other_options_are_other_cells(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    kept_run_options o = options(2);
    o.seed = 8;
    json_decref(run_on(study_path, o, &c, KEPT_OK));
    CHECK_INT(c.resumed, 0);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM setting"), 2);
    o = options(2);
    o.chunk = 100;
    json_decref(run_on(study_path, o, &c, KEPT_OK));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM setting"), 3);
    o = options(2);
    task.length = 401;
    json_decref(run_on(study_path, o, &c, KEPT_OK));
    CHECK_INT(c.resumed, 0);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM task WHERE setting = 1"), 2);
    write_prompts(1);
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    write_prompts(0);
    CHECK_INT(c.resumed, 0);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM task WHERE setting = 1"), 3);
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    CHECK_INT(c.resumed, 2);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM outcome"), 5 * 2 * (N_SPECS + 2));
    kept_store *s = NULL;
    kept_error err;
    json_t *doc = NULL;
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_ARGUMENT); /* which of three? */
    CHECK_INT(kept_store_export(s, 9, &doc, &err), KEPT_ARGUMENT);
    CHECK_INT(kept_store_export(s, 2, &doc, &err), KEPT_OK);
    CHECK_INT(json_array_size(json_object_get(doc, "samples")), 2);
    json_decref(doc);
    kept_store_close(s);
}

static void a_full_cache_that_changed_is_noticed(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(1), &c, KEPT_OK));
    ask(study_path, "UPDATE outcome SET json = json_set(json, '$.tokens', json('[1,2]')) "
                    "WHERE cell = (SELECT min(id) FROM cell)");
    kept_run_options o = options(1);
    o.n_specs = N_SPECS + 1;
    json_decref(run_on(study_path, o, &c, KEPT_FORMAT));
}

/* ---- documents and maps --------------------------------------------------------------------- */

static void documents_go_out_and_in(void)
{
    counts c = {0};
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    json_t *doc = NULL, *again = NULL;
    int64_t n = -1;
    fresh();
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_OK);
    kept_store_close(s);
    CHECK(json_is_false(json_object_get(doc, "partial")));
    fresh();
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_CREATE, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_OK);
    CHECK_INT(n, 3 * (N_SPECS + 2));
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_OK);
    CHECK_INT(n, 0);
    CHECK_INT(kept_store_export(s, 0, &again, &err), KEPT_OK);
    CHECK(json_equal(json_object_get(doc, "samples"), json_object_get(again, "samples")));
    CHECK(json_equal(json_object_get(doc, "cells"), json_object_get(again, "cells")));
    json_object_set_new(doc, "version", json_integer(99));
    CHECK_INT(kept_store_import(s, doc, &n, &err), KEPT_FORMAT);
    kept_store_close(s);
    json_decref(doc);
    json_decref(again);
    /* What came in is what a run would have stored: it has nothing left to do. */
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    CHECK_INT(c.resumed, 3);
}

static void maps_hold_what_was_kept(void)
{
    counts c = {0};
    kept_store *s = NULL;
    uint8_t *map = NULL;
    size_t bytes = 0;
    int layers = 0, heads = 0, seen = 0, kept = 0;
    static bool alive[4096];
    fresh();
    json_t *doc = run_on(study_path, options(1), &c, KEPT_OK);
    const json_t *v = json_array_get(json_object_get(doc, "variants"), 2);
    const json_t *sample = json_array_get(json_object_get(doc, "samples"), 0);
    const json_t *o = json_array_get(json_object_get(sample, "outcomes"), 2);
    const char *label = json_string_value(
        json_object_get(json_array_get(json_object_get(doc, "tasks"), 0), "label"));
    const int n_prefix = (int)json_integer_value(json_object_get(sample, "n_prefix"));
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, NULL), KEPT_OK);
    CHECK_INT(kept_store_map(s, 1, label, 0, json_string_value(json_object_get(v, "resolved")),
                             &map, &bytes, NULL),
              KEPT_OK);
    CHECK_INT(kept_store_map(s, 1, label, 5, "full", &map, &bytes, NULL), KEPT_NOT_FOUND);
    CHECK_INT(kept_store_map(s, 1, label, 0, json_string_value(json_object_get(v, "resolved")),
                             &map, &bytes, NULL),
              KEPT_OK);
    CHECK_INT(kept_map_shape(map, bytes, &layers, &heads, NULL), KEPT_OK);
    CHECK(layers == 3 && heads == 2);
    for (int l = 0; l < layers; l++)
        for (int h = 0; h < heads; h++) {
            CHECK_INT(kept_map_head(map, bytes, l, h, alive, 4096, &seen, NULL), KEPT_OK);
            CHECK_INT(seen, n_prefix);
            for (int p = 0; p < 4096; p++)
                kept += alive[p];
            for (int p = 0; p < 4; p++)
                CHECK(alive[p] && alive[seen - 1 - p] && !alive[seen + p]);
        }
    CHECK_INT(kept, 6 * n_prefix - json_integer_value(json_object_get(o, "n_evicted")));
    CHECK_INT(kept_map_head(map, bytes, 3, 0, alive, 4096, &seen, NULL), KEPT_ARGUMENT);
    for (size_t cut = 0; cut < bytes; cut += 3)
        CHECK(kept_map_head(map, cut, 2, 1, alive, 4096, &seen, NULL) == KEPT_FORMAT);
    free(map);
    kept_store_close(s);
    json_decref(doc);
}

/* ---- files that are not what they should be ------------------------------------------------- */

static void expect_open(kept_store_mode mode, kept_status want, const char *text)
{
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    CHECK_INT(kept_store_open(study_path, mode, &s, &err), want);
    if (!strstr(err.text, text) || strchr(err.text, '\n'))
        fprintf(stderr, "message: %s\n", err.text);
    CHECK(strstr(err.text, text) != NULL);
    CHECK(strchr(err.text, '\n') == NULL);
    kept_store_close(s);
}

static void bad_files_are_refused(void)
{
    counts c = {0};
    fresh();
    expect_open(KEPT_STORE_READ, KEPT_IO, "No such file");
    FILE *f = fopen(study_path, "w");
    for (int i = 0; f && i < 3000; i++)
        fputs("not a study ", f);
    if (f)
        fclose(f);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "is not a study");
    fresh();
    sqlite3 *db = NULL;
    CHECK_INT(sqlite3_open(study_path, &db), SQLITE_OK);
    CHECK_INT(sqlite3_exec(db, "CREATE TABLE other(x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "is not a study");
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    ask(study_path, "PRAGMA user_version = 99");
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "newer kept");
    fresh();
    json_decref(run_on(study_path, options(3), &c, KEPT_OK));
    const long long pages = ask(study_path, "PRAGMA page_count"), size = 4096;
    f = fopen(study_path, "r+");
    for (long long p = 3; f && p < pages; p += 2) {
        fseek(f, (long)(p * size + 8), SEEK_SET);
        for (int i = 0; i < 600; i++)
            fputc(i * 37 & 255, f);
    }
    if (f)
        fclose(f);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "damaged");
    CHECK_INT(truncate(study_path, (long)(size * pages / 2 + 100)), 0);
    expect_open(KEPT_STORE_CREATE, KEPT_FORMAT, "damaged");
}

static void a_full_disk_loses_nothing(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(2), &c, KEPT_OK));
    CHECK_INT(wait_for(start("full-disk")), 0);
    const long long stored = ask(study_path, "SELECT count(*) FROM outcome");
    CHECK(stored >= 2 * (N_SPECS + 2) && stored < N_SAMPLES * (N_SPECS + 2));
    CHECK_INT(ask(study_path, "SELECT count(*) FROM pragma_quick_check WHERE quick_check = 'ok'"),
              1);
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed * (N_SPECS + 2), stored);
}

static void a_read_only_file_is_refused(void)
{
    counts c = {0};
    fresh();
    json_decref(run_on(study_path, options(1), &c, KEPT_OK));
    chmod(study_path, 0444);
    CHECK_INT(wait_for(start("read-only")), 0);
}

/* A file that version 1 of the schema wrote, by the first kept that had one. */
static void schema_1_becomes_this_one(void)
{
    const char *source = getenv("KEPT_SOURCE");
    char path[4096];
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    json_t *doc = NULL;
    fresh();
    snprintf(path, sizeof path, "%s/tests/data/study-schema-1.db", source ? source : ".");
    FILE *in = fopen(path, "rb"), *out = fopen(study_path, "wb");
    CHECK(in && out);
    for (int ch; in && out && (ch = fgetc(in)) != EOF;)
        fputc(ch, out);
    if (in)
        fclose(in);
    if (out)
        fclose(out);
    CHECK_INT(ask(study_path, "PRAGMA user_version"), 1);
    expect_open(KEPT_STORE_READ, KEPT_FORMAT, "has schema 1");
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_WRITE, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_OK);
    CHECK_INT(json_array_size(json_object_get(doc, "samples")), 2);
    CHECK_INT(json_array_size(json_object_get(doc, "variants")), 3);
    const json_t *cell = json_array_get(json_object_get(doc, "cells"), 2);
    CHECK_INT(json_integer_value(json_object_get(cell, "n")), 2);
    CHECK(json_number_value(json_object_get(cell, "n_evicted")) > 0);
    CHECK_INT(kept_store_check(s, &err), KEPT_OK);
    kept_store_close(s);
    json_decref(doc);
    CHECK_INT(ask(study_path, "PRAGMA user_version"), KEPT_STORE_SCHEMA);
    CHECK_INT(ask(study_path, "SELECT count(*) FROM kept_map"), 0);
}

/* ---- as another process --------------------------------------------------------------------- */

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

int main(int argc, char **argv)
{
    if (argc > 4)
        return child(argv);
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
    RUN(a_study_changes_nothing);
    RUN(a_stopped_run_goes_on);
    RUN(killed_again_and_again);
    RUN(two_processes_share_a_study);
    RUN(claims_end);
    RUN(wider_runs_keep_what_is_there);
    RUN(other_options_are_other_cells);
    RUN(a_full_cache_that_changed_is_noticed);
    RUN(documents_go_out_and_in);
    RUN(maps_hold_what_was_kept);
    RUN(bad_files_are_refused);
    RUN(a_full_disk_loses_nothing);
    RUN(a_read_only_file_is_refused);
    RUN(schema_1_becomes_this_one);
    fresh();
    unlink(model_path);
    unlink(jsonl_path);
    TEST_END();
}
