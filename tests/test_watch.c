/* watch: what is told while others write is what the cells of the study say, and the writers end
 * with the document that they have without anyone looking on. */
#include "store/watch.h"
#include "store_rig.h"

#include <math.h>

static json_t *look_at(kept_watch *w)
{
    kept_error err = {.text = ""};
    json_t *look = NULL;
    if (kept_watch_look(w, &look, &err)) {
        fprintf(stderr, "%s\n", err.text);
        test_failed = 1;
    }
    return look;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static void equal(double a, double b)
{
    CHECK((isnan(a) && isnan(b)) || fabs(a - b) < 1e-9);
}

/* Every cell against those that a result has. */
static void same_cells(const json_t *look, const json_t *cells)
{
    const json_t *t = json_array_get(json_object_get(look, "tasks"), 0), *c;
    size_t i;
    CHECK_INT(json_array_size(json_object_get(t, "cells")), json_array_size(cells));
    json_array_foreach(json_object_get(t, "cells"), i, c)
    {
        const json_t *want = json_array_get(cells, i);
        equal(number(c, "n"), number(want, "n"));
        equal(number(c, "failed"), number(want, "failed"));
        equal(number(c, "value"), number(want, "score"));
        if (i == 0)
            continue;
        equal(number(c, "change"), number(want, "change"));
        equal(number(c, "low"), number(want, "change_low")); /* flips, no shared context */
        equal(number(c, "high"), number(want, "change_high"));
    }
}

static void a_finished_study(void)
{
    counts c = {0};
    kept_watch *w = NULL;
    kept_error err = {.text = ""};
    fresh();
    json_t *doc = run_on(study_path, options(N_SAMPLES), &c, KEPT_OK);
    CHECK_INT(kept_watch_open(study_path, 0, &w, &err), KEPT_OK);
    json_t *look = look_at(w);
    CHECK_INT(number(look, "complete"), N_SAMPLES);
    CHECK_INT(number(look, "samples"), N_SAMPLES);
    CHECK_INT(number(look, "outcomes"), N_SAMPLES * (N_SPECS + 2));
    same_cells(look, json_object_get(doc, "cells"));
    json_decref(look);
    json_decref(doc);
    /* One strategy more: every sample lacks it until the run has come by. */
    kept_run_options o = options(N_SAMPLES);
    o.n_specs = N_SPECS + 1;
    c = (counts){.stop_at = 12};
    json_decref(run_on(study_path, o, &c, KEPT_CANCELLED));
    look = look_at(w);
    const long long there = ask(study_path, "SELECT count(*) FROM outcome");
    CHECK(number(look, "complete") < N_SAMPLES);
    CHECK_INT(number(look, "outcomes"), there);
    CHECK_INT(number(look, "outcomes_wanted"), N_SAMPLES * (N_SPECS + 3));
    json_decref(look);
    c = (counts){0};
    doc = run_on(study_path, o, &c, KEPT_OK);
    look = look_at(w);
    CHECK_INT(number(look, "complete"), N_SAMPLES);
    same_cells(look, json_object_get(doc, "cells"));
    json_decref(look);
    json_decref(doc);
    kept_watch_close(w);
}

/* Looks without a pause while two processes write. */
static void writers_are_not_disturbed(void)
{
    counts c = {.stop_at = 30};
    kept_watch *w = NULL;
    kept_error err = {.text = ""};
    int n_looks = 0, n_steps = 0;
    double before = -1;
    fresh();
    json_decref(run_on(study_path, options(N_SAMPLES), &c, KEPT_CANCELLED));
    CHECK_INT(kept_watch_open(study_path, 0, &w, &err), KEPT_OK);
    const pid_t pid[2] = {start("run"), start("run")};
    while (before < N_SAMPLES && n_looks < 1000000) {
        json_t *look = look_at(w);
        const double now = number(look, "complete");
        json_decref(look);
        CHECK(now >= before);
        n_steps += now > before;
        before = now;
        n_looks++;
    }
    CHECK_INT(wait_for(pid[0]), 0);
    CHECK_INT(wait_for(pid[1]), 0);
    printf("# %d looks, %d steps seen\n", n_looks, n_steps);
    CHECK(n_steps > 2);
    c = (counts){0};
    equals_base(run_on(study_path, options(N_SAMPLES), &c, KEPT_OK));
    CHECK_INT(c.resumed, N_SAMPLES);
    kept_watch_close(w);
}

static void what_is_no_study(void)
{
    kept_watch *w = NULL;
    kept_error err = {.text = ""};
    CHECK_INT(kept_watch_open(jsonl_path, 0, &w, &err), KEPT_FORMAT);
    CHECK(!w);
    fresh();
    CHECK_INT(kept_watch_open(study_path, 0, &w, &err), KEPT_IO);
    kept_watch_close(NULL);
}

int main(int argc, char **argv)
{
    if (argc > 4)
        return child(argv);
    if (rig_open())
        return 77;
    RUN(a_finished_study);
    RUN(writers_are_not_disturbed);
    RUN(what_is_no_study);
    rig_close();
    TEST_END();
}
