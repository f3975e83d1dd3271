/* The store: a run on a study gives the document that it gives without one, whatever kills it in
 * between, however many processes work on it, and nothing of another kind gets into its cells. */
#include "bench/drift.h"
#include "store_rig.h"

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

/* Opens the study at a moment that others open it at, too. */
static int open_at(uint64_t moment)
{
    kept_store *s = NULL;
    kept_error err = {.text = ""};
    while (kept_clock_ns() < moment)
        ;
    kept_status st = kept_store_open(study_path, KEPT_STORE_CREATE, &s, &err);
    if (st)
        fprintf(stderr, "%s\n", err.text);
    kept_store_close(s);
    return st != KEPT_OK;
}

static void many_may_begin_at_once(void)
{
    for (int round = 0; round < 60; round++) {
        pid_t pid[3];
        fresh();
        const uint64_t moment = kept_clock_ns() + 3000000;
        for (int i = 0; i < 3; i++) {
            pid[i] = fork();
            if (!pid[i])
                _exit(open_at(moment + (uint64_t)(i * round) * 20000));
        }
        for (int i = 0; i < 3; i++)
            CHECK_INT(wait_for(pid[i]), 0);
    }
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

/* ---- the program itself, alone and as ranks -------------------------------------------------- */

static pid_t start_kept(const char *launcher, int rank, const char *study, const char *out)
{
    char line[4096], with_study[1200] = "";
    if (study)
        snprintf(with_study, sizeof with_study, "--study '%s'", study);
    snprintf(line, sizeof line,
             "exec %s '%s' run --model '%s' --jsonl '%s' --samples %d --length 400 --chunk 120 "
             "--threads 1 --speed-samples 0 --strategy 'h2o@25%%,random@25%%' %s --format json "
             "--quiet >'%s' "
             "2>/dev/null </dev/null",
             launcher, getenv("KEPT"), model_path, jsonl_path, N_SAMPLES, with_study, out);
    pid_t pid = fork();
    if (!pid) {
        char text[16];
        snprintf(text, sizeof text, "%d", rank);
        if (rank >= 0) {
            setenv("OMPI_COMM_WORLD_RANK", text, 1);
            setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
        }
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(99);
    }
    return pid;
}

static json_t *stripped(const char *path)
{
    json_t *doc = json_load_file(path, 0, NULL);
    strip_times(doc);
    return doc;
}

static void same_bits(const char *a, const char *b)
{
    json_t *x = stripped(a), *y = stripped(b);
    CHECK(x && y && json_equal(json_object_get(x, "samples"), json_object_get(y, "samples")));
    CHECK(x && y && json_equal(json_object_get(x, "cells"), json_object_get(y, "cells")));
    json_decref(x);
    json_decref(y);
}

static void ranks_have_the_bits_of_one_process(void)
{
    char *alone = mkgguf_temp(), *first = mkgguf_temp(), *second = mkgguf_temp();
    struct stat size = {0};
    if (!getenv("KEPT") || access(getenv("KEPT"), X_OK)) {
        printf("skip the program is not here\n");
        return;
    }
    fresh();
    CHECK_INT(wait_for(start_kept("", -1, NULL, alone)), 0);
    pid_t a = start_kept("", 0, study_path, first), b = start_kept("", 1, study_path, second);
    CHECK_INT(wait_for(a), 0);
    CHECK_INT(wait_for(b), 0);
    same_bits(alone, first);
    CHECK(!stat(second, &size) && size.st_size == 0); /* the first rank speaks for all */
    printf("# samples of each rank: %lld and %lld\n",
           ask(study_path, "SELECT count(*) FROM sample WHERE run = 1"),
           ask(study_path, "SELECT count(*) FROM sample WHERE run = 2"));
    char line[2048];
    snprintf(line, sizeof line,
             "'%s' run --model '%s' --jsonl '%s' --samples %d --length 400 --chunk 120 --threads 1 "
             "--speed-samples 0 --strategy 'h2o@25%%,random@25%%' --study '%s' 2>&1 >/dev/null | "
             "grep -q 'going on with the study: %d of %d samples are there'",
             getenv("KEPT"), model_path, jsonl_path, N_SAMPLES, study_path, N_SAMPLES, N_SAMPLES);
    CHECK_INT(system(line), 0);
    if (system("mpirun --version 2>/dev/null | grep -q 'Open MPI'")) {
        printf("skip Open MPI is not here\n");
    } else {
        fresh();
        CHECK_INT(wait_for(start_kept("mpirun --allow-run-as-root --oversubscribe -n 2", -1,
                                      study_path, first)),
                  0);
        same_bits(alone, first);
        CHECK_INT(ask(study_path, "SELECT count(*) FROM run"), 2);
    }
    unlink(alone);
    unlink(first);
    unlink(second);
    free(alone);
    free(first);
    free(second);
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

/* The same contexts laid out otherwise are other prompts of the same clusters, so that drift finds
 * the pairs. */
static void perturbed_contexts_are_paired(void)
{
    counts c = {0};
    kept_store *s = NULL;
    json_t *doc = NULL, *drift = NULL;
    kept_error err = {.text = ""};
    fresh();
    kept_run_options o = options(2);
    task.name = "niah_single";
    task.file = NULL;
    task.length = 1000;
    json_decref(run_on(study_path, o, &c, KEPT_OK));
    task.perturb = "context-places";
    json_decref(run_on(study_path, o, &c, KEPT_OK));
    CHECK_INT(kept_store_open(study_path, KEPT_STORE_READ, &s, &err), KEPT_OK);
    CHECK_INT(kept_store_export(s, 0, &doc, &err), KEPT_OK);
    kept_store_close(s);
    const json_t *list = json_object_get(doc, "samples"), *x, *r;
    const char *hash[2][2] = {{""}}, *cluster[2][2] = {{""}};
    size_t i;
    CHECK_INT(json_array_size(list), 4);
    json_array_foreach(list, i, x)
    {
        const long long t = json_integer_value(json_object_get(x, "task"));
        const long long k = json_integer_value(json_object_get(x, "index"));
        hash[t & 1][k & 1] = json_string_value(json_object_get(x, "hash"));
        cluster[t & 1][k & 1] = json_string_value(json_object_get(x, "cluster"));
    }
    for (int k = 0; k < 2; k++) {
        CHECK(strcmp(hash[0][k], hash[1][k]));
        CHECK_STR(cluster[1][k], cluster[0][k]);
    }
    CHECK_INT(kept_drift(doc, &drift, &err), KEPT_OK);
    CHECK_INT(json_array_size(drift), 1 + N_SPECS);
    json_array_foreach(drift, i, r) CHECK_INT(json_integer_value(json_object_get(r, "n")), 2);
    json_decref(drift);
    json_decref(doc);
}

int main(int argc, char **argv)
{
    if (argc > 4)
        return child(argv);
    if (rig_open())
        return 77;
    RUN(a_study_changes_nothing);
    RUN(a_stopped_run_goes_on);
    RUN(killed_again_and_again);
    RUN(many_may_begin_at_once);
    RUN(two_processes_share_a_study);
    RUN(ranks_have_the_bits_of_one_process);
    RUN(claims_end);
    RUN(wider_runs_keep_what_is_there);
    RUN(other_options_are_other_cells);
    RUN(perturbed_contexts_are_paired);
    RUN(a_full_cache_that_changed_is_noticed);
    rig_close();
    TEST_END();
}
