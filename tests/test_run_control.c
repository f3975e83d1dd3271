/* test_run_control: controllers in a whole run on a small random model: what their rows record,
 * what a plain reading of the records gives for the shares of states, and that they are printed. */
#include "bench/run.h"
#include "mkgguf.h"
#include "report/report.h"
#include "test.h"

#include <unistd.h>

static char *model_path, *text_path;
static const char *const specs[] = {
    "adaptive(signal=task,every=4,hold=0,calm=full,tight=h2o+decode(every=2))@25%",
    "adaptive(signal=kl,every=2,hold=4,high=0.000001,low=0.0000001,calm=full,tight=window)@25%",
    "h2o+balance(every=4)@25%",
    "h2o@25%",
};
enum { N_SPECS = 4, TASK = 2, KL, BALANCE, FIXED, SCORED = 40 };

static json_t *result;

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_t *run(void)
{
    kept_task_options tasks[2] = {{.name = "niah_single", .length = 700, .n_samples = 2, .seed = 3},
                                  {.name = "text",
                                   .length = 400,
                                   .n_samples = 3,
                                   .seed = 3,
                                   .file = text_path,
                                   .score_tokens = SCORED}};
    kept_run_options o = {.model_path = model_path,
                          .specs = specs,
                          .n_specs = N_SPECS,
                          .tasks = tasks,
                          .n_tasks = 2,
                          .n_threads = 1,
                          .seed = 7,
                          .chunk = 128,
                          .speed_samples = 1,
                          .speed_steps = 4};
    kept_error err = {.text = ""};
    json_t *r = NULL;
    if (kept_run(&o, &r, &err))
        fprintf(stderr, "kept_run: %s\n", err.text);
    return r;
}

/* Calls f for every outcome of a variant. */
static void each(int variant, void (*f)(const json_t *sample, const json_t *outcome))
{
    const json_t *s, *o;
    size_t i, k;
    json_array_foreach(json_object_get(result, "samples"), i, s)
        json_array_foreach(json_object_get(s, "outcomes"), k, o)
    {
        CHECK(json_is_false(json_object_get(o, "failed")));
        if (number(o, "variant") == variant)
            f(s, o);
    }
}

static const json_t *cell(int task, int variant)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(result, "cells"), i,
                       c) if (number(c, "task") == task &&
                              number(c, "variant") == variant) return c;
    return NULL;
}

static json_int_t at(const json_t *decision, size_t i)
{
    return json_integer_value(json_array_get(decision, i));
}

static void nothing_decided(const json_t *sample, const json_t *o)
{
    (void)sample;
    CHECK(json_is_null(json_object_get(o, "control")));
}

static void others_have_none(void)
{
    each(0, nothing_decided);
    each(1, nothing_decided);
    each(FIXED, nothing_decided);
    for (int t = 0; t < 2; t++)
        CHECK(json_is_null(json_object_get(cell(t, FIXED), "control")));
}

/* Text is tight from its first token on, a question calm to the end. */
static void follows_task(const json_t *sample, const json_t *o)
{
    const json_t *c = json_object_get(o, "control"), *states = json_object_get(c, "states");
    const json_t *list = json_object_get(c, "decisions");
    int text = number(sample, "task") == 1;
    double fed = number(states, "calm") + number(states, "tight");
    CHECK_INT(number(states, text ? "calm" : "tight"), 0);
    CHECK(json_array_size(list) > 1);
    CHECK(!text || (fed == SCORED - 1 && json_array_size(list) == 1 + (size_t)fed / 4));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *d = json_array_get(list, i);
        CHECK_INT(json_array_size(d), 4);
        /* A question arrives in one piece, text token by token. */
        CHECK(!text || at(d, 0) == (json_int_t)number(sample, "n_prefix") + 4 * (json_int_t)i);
        CHECK_INT(at(d, 1), text);
        CHECK(at(d, 2) == 0 ? !text : text);
        CHECK(json_number_value(json_array_get(d, 3)) == text);
    }
    CHECK((number(o, "n_evicted") > 0) == text);
}

static void task_decides(void)
{
    each(TASK, follows_task);
    CHECK(number(json_object_get(json_object_get(cell(1, TASK), "control"), "states"), "tight") ==
          1);
}

/* On text every signal is the KL that the row's own comparison has for the same token, and tight
 * follows calm: thresholds this low are passed as soon as anything is gone. */
static void signal_is_kl(const json_t *sample, const json_t *o)
{
    const json_t *list = json_object_get(json_object_get(o, "control"), "decisions"), *d;
    const json_t *kl = json_object_get(o, "kl");
    size_t i;
    CHECK(json_array_size(list) > 0);
    if (number(sample, "task") == 0)
        return;
    json_array_foreach(list, i, d)
    {
        size_t token = (size_t)(at(d, 0) - (json_int_t)number(sample, "n_prefix")) - 1;
        double x = json_number_value(json_array_get(kl, token));
        CHECK(token < json_array_size(kl));
        CHECK_NEAR(json_number_value(json_array_get(d, 3)), x, 1e-6 + 1e-4 * x);
    }
    CHECK_INT(at(json_array_get(list, 0), 1), 1);
}

static void kl_is_the_rows_own(void)
{
    each(KL, signal_is_kl);
}

/* Shares and switches of a cell, counted here from the records. */
static double calm, tight, n_switches, n_decisions, n_samples;

static void count(const json_t *sample, const json_t *o)
{
    const json_t *c = json_object_get(o, "control"), *list = json_object_get(c, "decisions"), *d;
    size_t i;
    json_int_t last = 0;
    if (number(sample, "task") != 1)
        return;
    calm += number(json_object_get(c, "states"), "calm");
    tight += number(json_object_get(c, "states"), "tight");
    n_samples++;
    json_array_foreach(list, i, d)
    {
        n_switches += at(d, 1) != last;
        last = at(d, 1);
        n_decisions++;
    }
}

static void cells_match_records(void)
{
    const json_t *c = json_object_get(cell(1, KL), "control");
    each(KL, count);
    CHECK(calm > 0 && tight > 0 && n_switches > n_samples);
    CHECK_NEAR(number(json_object_get(c, "states"), "calm"), calm / (calm + tight), 1e-12);
    CHECK_NEAR(number(json_object_get(c, "states"), "tight"), tight / (calm + tight), 1e-12);
    CHECK_NEAR(number(c, "switches"), n_switches / n_samples, 1e-12);
    CHECK_NEAR(number(c, "decisions"), n_decisions / n_samples, 1e-12);
}

/* Alone, a sequence keeps its own budget, although a copy of it was timed beside it. */
static void keeps_its_own(const json_t *sample, const json_t *o)
{
    const json_t *c = json_object_get(o, "control"), *d;
    const int heads = 3 * 2; /* layers, KV heads */
    size_t i;
    CHECK_INT(json_object_size(json_object_get(c, "states")), 0);
    json_array_foreach(json_object_get(c, "decisions"), i, d)
        CHECK_INT(at(d, 2), (json_int_t)(number(sample, "n_prefix") * heads * 25 / 100));
    CHECK(i > 1);
}

static void balance_alone(void)
{
    each(BALANCE, keeps_its_own);
}

static void speed_was_measured(void)
{
    for (int v = TASK; v <= FIXED; v++)
        CHECK(number(cell(0, v), "n_speed_steps") == 4);
}

static void shares_are_printed(void)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    CHECK_INT(kept_report_table(result, f, NULL), KEPT_OK);
    fclose(f);
    char want[200];
    snprintf(want, sizeof want,
             "  states   %s: calm 0%%, tight 100%% of decode steps; 1.0 switches", specs[0]);
    CHECK(text && strstr(text, want));
    snprintf(want, sizeof want,
             "  states   %s: calm 100%%, tight 0%% of decode steps; 0.0 switches", specs[0]);
    CHECK(text && strstr(text, want));
    CHECK(text && !strstr(text, "states   h2o@25%"));
    free(text);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    model_path = mkgguf_temp();
    text_path = mkgguf_temp();
    spec.n_ctx = 2048;
    spec.qk_gain = 3;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    FILE *f = fopen(text_path, "w");
    for (int i = 0; f && i < 200; i++)
        fprintf(f, "Line %d says that %d is a number. ", i, i * 7919 % 1000);
    if (f)
        fclose(f);
    result = run();
    CHECK(result != NULL);
    if (result) {
        RUN(others_have_none);
        RUN(task_decides);
        RUN(kl_is_the_rows_own);
        RUN(cells_match_records);
        RUN(balance_alone);
        RUN(speed_was_measured);
        RUN(shares_are_printed);
    }
    json_decref(result);
    unlink(model_path);
    unlink(text_path);
    free(model_path);
    free(text_path);
    TEST_END();
}
