/* test_run: the main job end to end on a small random model: the floor, determinism, aggregates
 * against a plain reading of the samples, a cancelled run, a pool that is too small, the dump. */
#include "bench/run.h"
#include "mkgguf.h"
#include "test.h"

#include <unistd.h>

static char *model_path, *text_path, *jsonl_path;
static const char *const specs[] = {"h2o@25%",          "snapkv+ada@64",    "random@25%",
                                    "knorm+decode@25%", "knorm+chunks@25%", "full"};
enum {
    N_SPECS = sizeof specs / sizeof *specs,
    N_ROWS = N_SPECS + 1,
    CHUNK = 120 /* the last chunk of the text's prefix is shorter than snapkv's window */
};

static kept_task_options tasks[2];

static kept_run_options options(void)
{
    tasks[0] = (kept_task_options){
        .name = "jsonl", .length = 600, .n_samples = 2, .seed = 3, .file = jsonl_path};
    tasks[1] = (kept_task_options){.name = "text",
                                   .length = 400,
                                   .n_samples = 3,
                                   .seed = 3,
                                   .file = text_path,
                                   .score_tokens = 24};
    return (kept_run_options){.model_path = model_path,
                              .model_name = "random",
                              .specs = specs,
                              .n_specs = N_SPECS,
                              .tasks = tasks,
                              .n_tasks = 2,
                              .n_threads = 1,
                              .seed = 7,
                              .chunk = CHUNK};
}

static json_t *run(const kept_run_options *o, kept_status expected)
{
    json_t *r = NULL;
    kept_error err = {.text = ""};
    kept_status s = kept_run(o, &r, &err);
    if (s != expected)
        fprintf(stderr, "kept_run: %s\n", err.text);
    CHECK_INT(s, expected);
    return r;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static const json_t *cell(const json_t *r, int task, int variant)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(r, "cells"), i,
                       c) if (number(c, "task") == task &&
                              number(c, "variant") == variant) return c;
    return NULL;
}

/* Removes every member that is a time or depends on one. */
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

static json_t *base; /* the result most cases look at */

static void rows_and_records(void)
{
    CHECK_STR(json_string_value(json_object_get(base, "schema")), "kept-result");
    CHECK(json_is_false(json_object_get(base, "partial")));
    CHECK_INT(json_array_size(json_object_get(base, "variants")), N_ROWS);
    CHECK_INT(json_array_size(json_object_get(base, "samples")), 5);
    CHECK_INT(json_array_size(json_object_get(base, "cells")), 2 * N_ROWS);
    for (int t = 0; t < 2; t++) {
        double full = number(cell(base, t, 0), "kv_bytes");
        CHECK(full > 0);
        for (int v = 2; v < N_ROWS; v++) {
            const json_t *c = cell(base, t, v);
            CHECK(number(c, "kv_bytes") < full);
            CHECK(number(c, "n_evicted") > 0);
            CHECK(number(c, "mass_recall") > 0 && number(c, "mass_recall") < 1);
            /* The best choice holds more than this one, no more than all, and at least what an
             * average slot is paid: regret is between these. */
            double best = number(c, "mass_recall") + number(c, "oracle_regret");
            CHECK(number(c, "oracle_regret") > 0 && best < 1 + 1e-9);
            CHECK(best > number(c, "kv_pct") / 100 - 0.15); /* pages are coarser than slots */
            CHECK(number(c, "kl") > 0);
            CHECK_INT(number(c, "failed"), 0);
        }
        /* Evicting between chunks bounds the peak, evicting once does not. */
        double once = number(cell(base, t, 2), "peak_pct");
        CHECK(once > 80 && once < 105);
        CHECK(number(cell(base, t, 6), "peak_pct") < once - 10);
    }
}

static void floor_is_zero(void)
{
    for (int t = 0; t < 2; t++) {
        for (int v = 0; v < 2; v++) {
            const json_t *c = cell(base, t, v);
            CHECK(number(c, "kl") == 0);
            CHECK(number(c, "kl_max") == 0);
            CHECK(number(c, "change") == 0);
            CHECK(number(c, "top1") == 1);
            CHECK(number(c, "mass_recall") == 1);
            CHECK(number(c, "oracle_regret") == 0);
        }
    }
    const json_t *c = cell(base, 0, 1);
    CHECK(number(c, "regressions") == 0 && number(c, "improvements") == 0);
    CHECK(number(c, "diverged") == 0);
}

/* Means computed here from the samples alone. */
static void aggregates_match_samples(void)
{
    for (int v = 0; v < N_ROWS; v++) {
        double kv = 0, score = 0, nll = 0, full_nll = 0, kl = 0;
        int n[2] = {0, 0}, n_kl = 0;
        const json_t *s;
        size_t i;
        json_array_foreach(json_object_get(base, "samples"), i, s)
        {
            const json_t *list = json_object_get(s, "outcomes");
            const json_t *o = json_array_get(list, (size_t)v), *full = json_array_get(list, 0);
            int t = (int)number(s, "task");
            n[t]++;
            if (t == 0) {
                kv += number(o, "kv_bytes");
                score += number(o, "score");
                continue;
            }
            size_t m = json_array_size(json_object_get(o, "nll"));
            double sum = 0, full_sum = 0;
            CHECK_INT(m, 23);
            for (size_t k = 0; k < m; k++) {
                sum += json_number_value(json_array_get(json_object_get(o, "nll"), k));
                full_sum += json_number_value(json_array_get(json_object_get(full, "nll"), k));
                kl += json_number_value(json_array_get(json_object_get(o, "kl"), k));
                n_kl++;
            }
            nll += sum / (double)m;
            full_nll += full_sum / (double)m;
        }
        const json_t *g = cell(base, 0, v), *x = cell(base, 1, v);
        CHECK_NEAR(number(g, "kv_bytes"), kv / n[0], 1e-6);
        CHECK_NEAR(number(g, "score"), score / n[0], 1e-12);
        CHECK_NEAR(number(x, "nll"), nll / n[1], 1e-9);
        CHECK_NEAR(number(x, "ppl"), exp(nll / n[1]), 1e-6);
        CHECK_NEAR(number(x, "change"), (nll - full_nll) / n[1], 1e-9);
        CHECK_NEAR(number(x, "kl"), kl / n_kl, 1e-9);
    }
}

/* Everything but times and thread counts equals the first run. */
static void equal_to_base(int n_threads)
{
    kept_run_options o = options();
    o.n_threads = n_threads;
    o.speed_samples = 1;
    o.speed_steps = 4;
    json_t *again = run(&o, KEPT_OK), *first = json_deep_copy(base);
    json_object_del(json_object_get(first, "machine"), "threads");
    json_object_del(json_object_get(again, "machine"), "threads");
    json_object_del(json_object_get(first, "options"), "threads");
    json_object_del(json_object_get(again, "options"), "threads");
    strip_times(again);
    strip_times(first);
    CHECK(json_equal(first, again));
    json_decref(first);
    json_decref(again);
}

static void same_seed_same_result(void)
{
    equal_to_base(1);
}
static void threads_do_not_matter(void)
{
    equal_to_base(2);
}

static void seed_matters_to_random_only(void)
{
    kept_run_options o = options();
    o.seed = 8;
    json_t *r = run(&o, KEPT_OK);
    CHECK(number(cell(base, 1, 4), "kl") != number(cell(r, 1, 4), "kl"));
    CHECK(number(cell(base, 1, 2), "kl") == number(cell(r, 1, 2), "kl"));
    json_decref(r);
}

static void speed_was_measured(void)
{
    for (int v = 0; v < N_ROWS; v++) {
        CHECK(number(cell(base, 0, v), "tokens_per_s") > 0);
        CHECK(number(cell(base, 0, v), "speed_ratio") > 0);
    }
    CHECK_INT(number(cell(base, 0, 3), "n_speed_steps"), 4);
}

typedef struct by_hand {
    kept_model *model;
    kept_engine *engine;
    kept_tokens tokens;
} by_hand;

static void start_by_hand(by_hand *h)
{
    const kept_engine_options e = {.n_threads = 1, .max_tokens = 600};
    kept_sample sample;
    kept_task *task;
    kept_error err = {.text = ""};
    (void)options();
    if (kept_model_open(model_path, &h->model, &err) ||
        kept_engine_new(h->model, &e, &h->engine, &err) ||
        kept_task_open(&tasks[1], h->model, &task, &err) || kept_task_get(task, 0, &sample, &err) ||
        kept_task_tokenize(task, 0, &sample, &h->tokens, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    kept_sample_clear(&sample);
    kept_task_close(task);
}

/* Negative log-likelihood, in double precision. */
static double nll_of(const float *logits, int n, int32_t token)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - (double)logits[token]);
    return log(sum);
}

/* Sample 0 of the text task through the engine, one sequence, without any of the run's code. */
static void check_by_hand(by_hand *h, const char *spec, int variant)
{
    const json_t *sample = json_array_get(json_object_get(base, "samples"), 2);
    const json_t *o = json_array_get(json_object_get(sample, "outcomes"), (size_t)variant);
    const kept_tokens *t = &h->tokens;
    int n_vocab = kept_model_get_info(h->model)->n_vocab;
    kept_strategy *strategy = NULL;
    kept_seq *seq = NULL;
    CHECK_STR(json_string_value(json_object_get(sample, "hash")), t->hash);
    CHECK_INT(kept_strategy_parse(spec, &strategy, NULL), KEPT_OK);
    CHECK_INT(kept_seq_new(h->engine, strategy, NULL, 1, &seq, NULL), KEPT_OK);
    for (int at = 0; at < t->n_prefix; at += CHUNK) {
        int n = t->n_prefix - at < CHUNK ? t->n_prefix - at : CHUNK;
        kept_item item = {.seq = seq, .tokens = t->prefix + at, .n_tokens = n, .prefill = true};
        item.n_after = t->n_prefix - (at + n);
        CHECK_INT(kept_engine_forward(h->engine, &item, 1, NULL), KEPT_OK);
    }
    CHECK_INT(kept_seq_end_prefill(seq, NULL), KEPT_OK);
    for (int i = 0; i + 1 < t->n_suffix; i++) {
        kept_item item = {.seq = seq, .tokens = t->suffix + i, .n_tokens = 1, .n_logits = 1};
        CHECK_INT(kept_engine_forward(h->engine, &item, 1, NULL), KEPT_OK);
        double mine = nll_of(kept_engine_logits(h->engine), n_vocab, t->suffix[i + 1]);
        const json_t *theirs = json_array_get(json_object_get(o, "nll"), (size_t)i);
        CHECK_NEAR(json_number_value(theirs), mine, 1e-3);
    }
    kept_seq_free(seq);
    kept_strategy_free(strategy);
}

static void equals_single_sequences_by_hand(void)
{
    by_hand h;
    start_by_hand(&h);
    CHECK(h.tokens.n_prefix % CHUNK > 0 && h.tokens.n_prefix % CHUNK < 32);
    check_by_hand(&h, "full", 0);
    for (int v = 2; v < N_ROWS; v++)
        if (v != 4) /* random draws from a seed of the run's own */
            check_by_hand(&h, specs[v - 2], v);
    kept_tokens_clear(&h.tokens);
    kept_engine_free(h.engine);
    kept_model_free(h.model);
}

/* The NLL after the first token and the last eighth of the prefix, fed one by one. */
static void short_context_by_hand(void)
{
    by_hand h;
    start_by_hand(&h);
    const json_t *list =
        json_object_get(json_array_get(json_object_get(base, "samples"), 2), "short_nll");
    const int n = h.tokens.n_prefix / 8, n_vocab = kept_model_get_info(h.model)->n_vocab;
    const int32_t *from = h.tokens.prefix + h.tokens.n_prefix - n;
    kept_seq *seq = NULL;
    CHECK_INT(kept_seq_new(h.engine, NULL, NULL, 1, &seq, NULL), KEPT_OK);
    CHECK_INT(json_array_size(list), h.tokens.n_suffix - 1);
    for (int i = 0; i < n + h.tokens.n_suffix - 1; i++) {
        const int32_t *token = i == 0  ? h.tokens.prefix
                               : i < n ? from + i
                                       : h.tokens.suffix + i - n;
        kept_item item = {.seq = seq, .tokens = token, .n_tokens = 1, .n_logits = 1};
        CHECK_INT(kept_engine_forward(h.engine, &item, 1, NULL), KEPT_OK);
        if (i < n)
            continue;
        double mine = nll_of(kept_engine_logits(h.engine), n_vocab, h.tokens.suffix[i - n + 1]);
        CHECK_NEAR(json_number_value(json_array_get(list, (size_t)(i - n))), mine, 1e-3);
    }
    kept_seq_free(seq);
    kept_tokens_clear(&h.tokens);
    kept_engine_free(h.engine);
    kept_model_free(h.model);
}

/* What a row holds is what it would hold alone: not a byte of it depends on the other rows. */
static void bytes_do_not_depend_on_neighbours(void)
{
    static const char *const keys[] = {"kv_bytes",  "meta_bytes",  "peak_bytes",   "byte_steps",
                                       "n_evicted", "mass_recall", "oracle_regret"};
    for (int v = 2; v < N_ROWS; v++) {
        kept_run_options o = options();
        o.specs = specs + v - 2;
        o.n_specs = 1;
        json_t *alone = run(&o, KEPT_OK);
        for (int t = 0; t < 2; t++)
            for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
                CHECK_NEAR(number(cell(alone, t, 2), keys[k]) / number(cell(base, t, v), keys[k]),
                           1, 1e-6);
                CHECK_NEAR(number(cell(alone, t, 0), keys[k]), number(cell(base, t, 0), keys[k]),
                           1e-6);
            }
        json_decref(alone);
    }
}

static bool stop_in_second(void *ctx, double done, const char *what)
{
    int *calls = ctx;
    *calls += 1;
    CHECK(done >= 0 && done <= 1);
    return !strstr(what, "sample 2");
}

static void cancel_leaves_whole_samples(void)
{
    kept_run_options o = options();
    int calls = 0;
    o.progress = stop_in_second;
    o.ctx = &calls;
    json_t *r = run(&o, KEPT_CANCELLED);
    CHECK(r != NULL);
    CHECK(calls > 1);
    CHECK(json_is_true(json_object_get(r, "partial")));
    /* The first sample of each task, for all tasks go on alike. */
    CHECK_INT(json_array_size(json_object_get(r, "samples")), 2);
    CHECK_INT(number(cell(r, 0, 2), "n"), 1);
    CHECK_INT(number(cell(r, 1, 2), "n"), 1);
    CHECK(json_is_number(json_object_get(cell(r, 1, 2), "nll")));
    json_decref(r);
}

static void small_pool_counts_failures(void)
{
    kept_run_options o = options();
    /* 5 pages of 64 slots for each of 3 x 2 heads: less than a prompt of 376 tokens in full. */
    o.pool_bytes = (size_t)3 * 2 * 5 * 64 * 64 * 4;
    o.tasks = tasks + 1;
    o.n_tasks = 1;
    json_t *r = run(&o, KEPT_OK);
    const json_t *sample = json_array_get(json_object_get(r, "samples"), 0);
    const json_t *first = json_array_get(json_object_get(sample, "outcomes"), 0);
    CHECK(json_string_length(json_object_get(first, "why")) > 0);
    for (int v = 0; v < 6; v++) {
        CHECK_INT(number(cell(r, 0, v), "failed"), 3);
        CHECK_INT(number(cell(r, 0, v), "n"), 3);
        CHECK(json_is_null(json_object_get(cell(r, 0, v), "kl")));
    }
    /* Evicting while reading is what fits: it goes on alone, without a reference. */
    CHECK_INT(number(cell(r, 0, 6), "failed"), 0);
    CHECK(json_is_null(json_object_get(cell(r, 0, 6), "change")));
    json_decref(r);
}

/* Rows that pack and rows that are parked fit the pool that the run makes for them; what they were
 * at rest is in the row, and where every bit comes back nothing has changed. */
static void stored_and_parked(void)
{
    static const char *const some[] = {"full+q4",           "h2o+q4@30%",      "full+q8+chunks",
                                       "full+kvtc(bits=4)", "snapkv+park@60%", "full+park",
                                       "snapkv@60%"};
    kept_run_options o = options();
    o.specs = some;
    o.n_specs = 7;
    o.tasks = tasks + 1;
    o.n_tasks = 1;
    json_t *r = run(&o, KEPT_OK);
    for (int v = 0; v < 9; v++) {
        const bool parks = v >= 5 && v <= 7;
        CHECK_INT(number(cell(r, 0, v), "failed"), 0);
        CHECK(parks == (number(cell(r, 0, v), "parked_bytes") > 0));
        CHECK(parks == (number(cell(r, 0, v), "park_ns") > 0));
        CHECK(parks == (number(cell(r, 0, v), "resume_ns") > 0));
        if (parks)
            CHECK_NEAR(number(cell(r, 0, v), "parked_pct"),
                       100 * number(cell(r, 0, v), "parked_bytes") /
                           number(cell(r, 0, 0), "held_bytes"),
                       0.5);
    }
    CHECK(number(cell(r, 0, 5), "kl") > 0); /* few bits */
    CHECK(number(cell(r, 0, 7), "kl") == 0);
    CHECK(number(cell(r, 0, 6), "kl") == number(cell(r, 0, 8), "kl"));
    CHECK(number(cell(r, 0, 5), "parked_pct") < number(cell(r, 0, 7), "parked_pct"));
    json_decref(r);
}

static void dump_lists_what_is_kept(void)
{
    kept_run_options o = options();
    char *path = mkgguf_temp(), line[65536];
    int n_kept = 0, n_variants = 0, ada = 0;
    bool ended = false;
    o.dump_kept = path;
    o.n_tasks = 1;
    json_decref(run(&o, KEPT_OK));
    FILE *f = fopen(path, "r");
    CHECK(f && fgets(line, sizeof line, f) && !strcmp(line, "kept-positions 1\n"));
    while (f && fgets(line, sizeof line, f)) {
        int task, sample, variant, layer, head, seen, at = 0, n = 0;
        char hash[32];
        n_variants += !strncmp(line, "variant\t", 8);
        ended |= !strcmp(line, "end\tcomplete\n");
        if (sscanf(line, "kept\t%d\t%d\t%31s\t%d\t%d\t%d\t%d\t%n", &task, &sample, hash, &variant,
                   &layer, &head, &seen, &at) < 7)
            continue;
        n_kept++;
        for (char *p = line + at; *p && *p != '\n'; p += *p == ',') {
            long from = strtol(p, &p, 10), to = *p == '-' ? strtol(p + 1, &p, 10) : from;
            CHECK(from <= to && to < seen);
            n += (int)(to - from + 1);
        }
        CHECK(variant < 2 ? n == seen : n < seen);
        ada += variant == 3 && sample == 0 ? n : 0;
    }
    if (f)
        fclose(f);
    CHECK(ended);
    CHECK_INT(n_variants, N_ROWS);
    CHECK_INT(ada, 64 * 3 * 2); /* a budget of 64 per head, split over the heads as ada likes */
    CHECK_INT(n_kept, 2 * N_ROWS * 3 * 2);
    unlink(path);
    free(path);
}

/* Passes over the prefix are run once, for those that ask, and charged to them alone. */
static void passes_are_for_who_asks(void)
{
    static const char *const list[] = {"knorm@25%", "kvzip@25%", "kvzip-plus@25%", "oracle@25%"};
    kept_run_options o = options();
    o.specs = list;
    o.n_specs = 4;
    json_t *r = run(&o, KEPT_OK);
    for (int t = 0; r && t < 2; t++) {
        const json_t *plain = cell(r, t, 2), *oracle = cell(r, t, 5);
        for (int v = 2; v < 6; v++)
            CHECK_INT(number(cell(r, t, v), "failed"), 0);
        for (int v = 3; v < 5; v++) {
            CHECK(number(cell(r, t, v), "score_ns") > 3 * number(plain, "score_ns"));
            CHECK(number(cell(r, t, v), "peak_bytes") > 1.2 * number(plain, "peak_bytes"));
        }
        CHECK(number(oracle, "oracle_regret") < number(plain, "oracle_regret"));
        CHECK(number(oracle, "oracle_regret") < number(cell(r, t, 3), "oracle_regret"));
    }
    json_decref(r);
}

static void wrong_things_are_refused(void)
{
    static const char *const bad[] = {"h2o@20%", "nosuch@20%"};
    kept_run_options o = options();
    json_t *r = NULL;
    kept_error err;
    o.specs = bad;
    o.n_specs = 2;
    CHECK_INT(kept_run(&o, &r, &err), KEPT_ARGUMENT);
    CHECK(!r);
    o = options();
    o.model_path = "/nonexistent.gguf";
    CHECK_INT(kept_run(&o, &r, &err), KEPT_IO);
    CHECK(!r);
    o = options();
    o.n_tasks = 0;
    CHECK_INT(kept_run(&o, &r, &err), KEPT_ARGUMENT);
}

static void write_inputs(void)
{
    FILE *f = fopen(text_path, "w");
    for (int i = 0; f && i < 200; i++)
        fprintf(f, "Line %d says that %d is a number. ", i, i * 7919 % 1000);
    if (f)
        fclose(f);
    f = fopen(jsonl_path, "w");
    for (int i = 0; f && i < 2; i++) {
        fprintf(f, "{\"context\": \"");
        for (int k = 0; k < 12; k++)
            fprintf(f, "The box number %d holds item %d. ", k, k * 31 + i);
        fprintf(f,
                "\", \"question\": \"What is in box 3?\", \"answers\": [\"%d\"], "
                "\"max_new_tokens\": 8}\n",
                93 + i);
    }
    if (f)
        fclose(f);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    model_path = mkgguf_temp();
    text_path = mkgguf_temp();
    jsonl_path = mkgguf_temp();
    spec.n_ctx = 2048;
    spec.qk_gain = 3;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    write_inputs();
    kept_run_options o = options();
    o.speed_samples = 1;
    o.speed_steps = 4;
    base = run(&o, KEPT_OK);
    if (base) {
        RUN(rows_and_records);
        RUN(floor_is_zero);
        RUN(aggregates_match_samples);
        RUN(same_seed_same_result);
        RUN(threads_do_not_matter);
        RUN(seed_matters_to_random_only);
        RUN(speed_was_measured);
        RUN(bytes_do_not_depend_on_neighbours);
        RUN(equals_single_sequences_by_hand);
        RUN(short_context_by_hand);
    }
    RUN(cancel_leaves_whole_samples);
    RUN(small_pool_counts_failures);
    RUN(stored_and_parked);
    RUN(dump_lists_what_is_kept);
    RUN(passes_are_for_who_asks);
    RUN(wrong_things_are_refused);
    json_decref(base);
    unlink(model_path);
    unlink(text_path);
    unlink(jsonl_path);
    free(model_path);
    free(text_path);
    free(jsonl_path);
    TEST_END();
}
