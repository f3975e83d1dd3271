/* test_stop: a run that stops at verdicts, on a random model that never answers: no difference is
 * the truth, and how many samples that takes is counted with the bets alone.
 */
#include "bench/run.h"
#include "bench/stats.h"
#include "mkgguf.h"
#include "report/report.h"
#include "store/store.h"
#include "test.h"

#include <unistd.h>

enum { MOST = 24 };

static char *model_path;

static json_t *run(double margin, const kept_run_sink *sink)
{
    static const char *const specs[] = {"window@50%"};
    kept_task_options tasks[2] = {
        {.name = "niah_single", .length = 500, .n_samples = MOST, .seed = 3},
        {.name = "niah_multikey", .length = 900, .n_samples = 5, .seed = 3}};
    const kept_run_options o = {.model_path = model_path,
                                .specs = specs,
                                .n_specs = 1,
                                .tasks = tasks,
                                .n_tasks = 2,
                                .n_threads = 1,
                                .seed = 7,
                                .chunk = 256,
                                .stop_margin = margin,
                                .sink = sink};
    kept_error err = {.text = ""};
    json_t *r = NULL;
    if (kept_run(&o, &r, &err))
        printf("# %s\n", err.text);
    return r;
}

/* Samples with a difference of 0 until the bet is won; two rows share 5 %. */
static int needed(double margin)
{
    kept_capital c = kept_capital_new();
    while (kept_capital_add(&c, 0, margin, 0.05 / 2) == KEPT_INCONCLUSIVE)
        ;
    return c.settled_at;
}

static int count(const json_t *doc, int task)
{
    const json_t *s;
    size_t i;
    int n = 0;
    json_array_foreach(json_object_get(doc, "samples"), i, s) n +=
        json_integer_value(json_object_get(s, "task")) == task;
    return n;
}

static int integer(const json_t *o, const char *key)
{
    return (int)json_integer_value(json_object_get(o, key));
}

static void check(const json_t *doc, int want)
{
    const json_t *s = json_object_get(doc, "sequential"), *t = json_object_get(s, "tasks");
    CHECK_INT(count(doc, 0), want);
    CHECK_INT(count(doc, 1), 5); /* too few for a verdict */
    CHECK_INT(integer(json_array_get(t, 0), "n"), want);
    CHECK(json_is_true(json_object_get(json_array_get(t, 0), "settled")));
    CHECK(json_is_false(json_object_get(json_array_get(t, 1), "settled")));
    const json_t *r = json_array_get(json_object_get(s, "rows"), 0);
    CHECK_STR(json_string_value(json_object_get(r, "verdict")), "non-inferior");
    CHECK_INT(integer(r, "after"), want);
    CHECK(json_is_false(json_object_get(doc, "partial")));
}

static void stops_at_the_verdict(void)
{
    const int want = needed(0.4);
    CHECK(want > 5 && want < MOST);
    json_t *doc = run(0.4, NULL), *all = run(0, NULL);
    CHECK(doc && all);
    check(doc, want);
    CHECK_INT(count(all, 0), MOST); /* without it: all, and nothing is said */
    CHECK(!json_object_get(all, "sequential"));
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    CHECK_INT(kept_report_sequential(doc, out), KEPT_OK);
    fclose(out);
    CHECK(strstr(text, "every row settled after") && strstr(text, "some row open after 5 of 5"));
    free(text);
    json_decref(doc);
    json_decref(all);
}

/* A study goes on to the same verdict from the samples that it has; ranks are refused. */
static void a_study_goes_on(void)
{
    char path[] = "/tmp/kept-stop-XXXXXX";
    const int fd = mkstemp(path);
    kept_store *s = NULL;
    kept_error err;
    CHECK(fd >= 0);
    close(fd);
    for (int again = 0; again < 2; again++) {
        CHECK_INT(kept_store_open(path, KEPT_STORE_CREATE, &s, &err), KEPT_OK);
        json_t *doc = run(0.4, kept_store_sink(s, 0, 1));
        CHECK_INT(kept_store_n_found(s), again ? needed(0.4) + 5 : 0);
        check(doc, needed(0.4));
        json_decref(doc);
        kept_store_close(s);
    }
    CHECK_INT(kept_store_open(path, KEPT_STORE_CREATE, &s, &err), KEPT_OK);
    CHECK(run(0.4, kept_store_sink(s, 0, 2)) == NULL);
    kept_store_close(s);
    unlink(path);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    model_path = mkgguf_temp();
    spec.n_ctx = 2048;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    RUN(stops_at_the_verdict);
    RUN(a_study_goes_on);
    unlink(model_path);
    free(model_path);
    TEST_END();
}
