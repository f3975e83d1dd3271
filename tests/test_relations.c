/* test_relations: what is known to hold between strategies, on a real model and a needle that the
 * full cache finds: KEPT_MODEL, four prompts of 400 tokens, half of the bytes held. */
#include "bench/run.h"
#include "test.h"

enum { WINDOW = 2, RANDOM, SNAPKV, KVZIP, ORACLE, N_ROWS, N_SAMPLES = 4, TOKENS = 400 };
static const char *const specs[] = {"window@50%", "random@50%", "snapkv@50%", "kvzip@50%",
                                    "oracle@50%"};
static json_t *agnostic, *aware;

static json_t *run(bool query_aware)
{
    const kept_task_options task = {.name = "niah_single",
                                    .length = TOKENS,
                                    .n_samples = N_SAMPLES,
                                    .seed = 1,
                                    .query_aware = query_aware};
    const kept_run_options o = {.model_path = getenv("KEPT_MODEL"),
                                .model_name = "real",
                                .specs = query_aware ? specs + 2 : specs,
                                .n_specs = query_aware ? 1 : 5,
                                .tasks = &task,
                                .n_tasks = 1,
                                .auto_chat = true,
                                .n_threads = 2,
                                .seed = 1};
    json_t *r = NULL;
    kept_error err = {.text = ""};
    if (kept_run(&o, &r, &err))
        fprintf(stderr, "kept_run: %s\n", err.text);
    return r;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static const json_t *sample(const json_t *r, int i)
{
    return json_array_get(json_object_get(r, "samples"), (size_t)i);
}

static double outcome(const json_t *r, int i, int row, const char *key)
{
    return number(json_array_get(json_object_get(sample(r, i), "outcomes"), (size_t)row), key);
}

static double mean(const json_t *r, int row, const char *key)
{
    double sum = 0;
    for (int i = 0; i < N_SAMPLES; i++)
        sum += outcome(r, i, row, key) / N_SAMPLES;
    return sum;
}

/* Everything below compares with this. */
static void the_full_cache_finds_it(void)
{
    CHECK_NEAR(mean(agnostic, 0, "score"), 1, 0);
    CHECK_NEAR(mean(aware, 0, "score"), 1, 0);
}

/* What has left a window is lost, whole and in every head; what is in it is not. */
static void a_window_loses_what_leaves_it(void)
{
    int n_lost = 0, n_held = 0;
    for (int i = 0; i < N_SAMPLES; i++) {
        double depth = number(sample(agnostic, i), "depth");
        double held = outcome(agnostic, i, WINDOW, "evidence_recall");
        if (depth < 0.4) {
            CHECK_NEAR(held, 0, 0);
            CHECK_NEAR(outcome(agnostic, i, WINDOW, "score"), 0, 0);
            n_lost++;
        }
        if (depth > 0.6) {
            CHECK_NEAR(held, 1, 0);
            n_held++;
        }
    }
    CHECK(n_lost > 0 && n_held > 0);
}

/* Random choice holds a needle in proportion to what it holds: of n tokens 36 are protected, of the
 * others as many stay as fit into half of all. */
static void random_holds_its_share(void)
{
    for (int i = 0; i < N_SAMPLES; i++) {
        double n = number(sample(agnostic, i), "n_prefix");
        if (number(sample(agnostic, i), "depth") > 0.9)
            continue; /* in the protected window */
        CHECK_NEAR(outcome(agnostic, i, RANDOM, "evidence_recall"), (n / 2 - 36) / (n - 36), 0.04);
    }
}

/* Repeating the context looks at everything in it; the last queries looked at what they liked. */
static void repetition_keeps_what_snapkv_loses(void)
{
    CHECK(mean(agnostic, KVZIP, "score") >= 0.75);
    CHECK(mean(agnostic, KVZIP, "score") > mean(agnostic, SNAPKV, "score"));
}

static void the_question_tells_snapkv_what_to_keep(void)
{
    CHECK(mean(aware, 2, "score") >= mean(agnostic, SNAPKV, "score"));
    CHECK(mean(aware, 2, "evidence_recall") > mean(agnostic, SNAPKV, "evidence_recall"));
}

static void nobody_regrets_less_than_the_oracle(void)
{
    for (int row = WINDOW; row < ORACLE; row++)
        CHECK(mean(agnostic, ORACLE, "oracle_regret") < mean(agnostic, row, "oracle_regret"));
}

int main(void)
{
    if (!getenv("KEPT_MODEL"))
        SKIP("no model: set KEPT_MODEL");
    agnostic = run(false);
    aware = run(true);
    if (!agnostic || !aware)
        return 1;
    RUN(the_full_cache_finds_it);
    RUN(a_window_loses_what_leaves_it);
    RUN(random_holds_its_share);
    RUN(repetition_keeps_what_snapkv_loses);
    RUN(the_question_tells_snapkv_what_to_keep);
    RUN(nobody_regrets_less_than_the_oracle);
    json_decref(agnostic);
    json_decref(aware);
    TEST_END();
}
