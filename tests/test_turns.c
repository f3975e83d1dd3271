/* test_turns: several turns in a run. What every variant answers in every turn is compared with one
 * sequence that is fed the same tokens by hand, for conversations with gold and own answers, for
 * requests, and for choices by likelihood.
 */
#include "bench/run.h"
#include "mkgguf.h"
#include "test.h"

#include <unistd.h>

static char *model_path, *jsonl_path;
static const char *const specs[] = {"h2o@40%", "knorm@128", "tova+decode(every=4)@40%"};
enum { N_SPECS = 3, N_ROWS = N_SPECS + 2, N_TURNS = 3, CHUNK = 100 };

static kept_task_options task_of(kept_turn_mode mode)
{
    return (kept_task_options){.name = "jsonl",
                               .length = 900,
                               .n_samples = 2,
                               .seed = 3,
                               .file = jsonl_path,
                               .turns = mode};
}

static json_t *run(kept_turn_mode mode, int n_threads)
{
    const kept_task_options task = task_of(mode);
    const kept_run_options o = {.model_path = model_path,
                                .specs = specs,
                                .n_specs = N_SPECS,
                                .tasks = &task,
                                .n_tasks = 1,
                                .n_threads = n_threads,
                                .seed = 7,
                                .chunk = CHUNK};
    json_t *r = NULL;
    kept_error err = {.text = ""};
    if (kept_run(&o, &r, &err))
        fprintf(stderr, "kept_run: %s\n", err.text);
    CHECK(r != NULL);
    return r;
}

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static const json_t *reply(const json_t *r, int sample, int variant, int turn)
{
    const json_t *s = json_array_get(json_object_get(r, "samples"), (size_t)sample);
    const json_t *o = json_array_get(json_object_get(s, "outcomes"), (size_t)variant);
    return json_array_get(json_object_get(o, "turns"), (size_t)turn);
}

/* ---- by hand --------------------------------------------------------------------------------- */

typedef struct hand {
    kept_model *model;
    kept_engine *engine;
    kept_task *task;
    kept_sample sample;
    kept_tokens tokens;
} hand;

static hand by_hand(kept_turn_mode mode, int sample)
{
    hand h = {0};
    const kept_engine_options e = {.n_threads = 1, .max_tokens = 900};
    const kept_task_options o = task_of(mode);
    kept_error err = {.text = ""};
    if (kept_model_open(model_path, &h.model, &err) ||
        kept_engine_new(h.model, &e, &h.engine, &err) ||
        kept_task_open(&o, h.model, &h.task, &err) ||
        kept_task_get(h.task, sample, &h.sample, &err) ||
        kept_task_tokenize(h.task, sample, &h.sample, &h.tokens, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return h;
}

static void hand_free(hand *h)
{
    kept_tokens_clear(&h->tokens);
    kept_sample_clear(&h->sample);
    kept_task_close(h->task);
    kept_engine_free(h->engine);
    kept_model_free(h->model);
}

/* Feeds n tokens; the most likely next one, or -1 if none were fed. */
static int32_t feed(hand *h, kept_seq *s, const int32_t *tokens, int n)
{
    const float *x = NULL;
    for (int i = 0; i < n; i += 64) {
        kept_item item = {
            .seq = s, .tokens = tokens + i, .n_tokens = n - i < 64 ? n - i : 64, .n_logits = 1};
        CHECK_INT(kept_engine_forward(h->engine, &item, 1, NULL), KEPT_OK);
        x = kept_engine_logits(h->engine);
    }
    int32_t best = 0;
    for (int i = 1; x && i < kept_model_get_info(h->model)->n_vocab; i++)
        best = x[i] > x[best] ? i : best;
    return x ? best : -1;
}

static kept_seq *start(hand *h, const char *spec, kept_strategy **strategy)
{
    kept_seq *s = NULL;
    *strategy = NULL;
    CHECK_INT(spec ? kept_strategy_parse(spec, strategy, NULL) : KEPT_OK, KEPT_OK);
    CHECK_INT(kept_seq_new(h->engine, *strategy, NULL, 1, &s, NULL), KEPT_OK);
    for (int at = 0; at < h->tokens.n_prefix; at += CHUNK) {
        int n = h->tokens.n_prefix - at < CHUNK ? h->tokens.n_prefix - at : CHUNK;
        kept_item item = {
            .seq = s, .tokens = h->tokens.prefix + at, .n_tokens = n, .prefill = true};
        item.n_after = h->tokens.n_prefix - (at + n);
        CHECK_INT(kept_engine_forward(h->engine, &item, 1, NULL), KEPT_OK);
    }
    CHECK_INT(kept_seq_end_prefill(s, NULL), KEPT_OK);
    return s;
}

/* Greedy answer of turn k after `next`, appended to the sequence; compared with the run's. */
static void decode(hand *h, kept_seq *s, int k, int32_t next, const json_t *want)
{
    const json_t *list = json_object_get(want, "tokens");
    int n = 0;
    for (; n < h->sample.turns[k].max_new_tokens && !kept_token_is_end(h->model, next); n++) {
        CHECK_INT(json_integer_value(json_array_get(list, (size_t)n)), next);
        if (n + 1 == h->sample.turns[k].max_new_tokens)
            break; /* the last one is not fed */
        next = feed(h, s, &next, 1);
    }
    CHECK_INT(json_array_size(list),
              n + (n < h->sample.turns[k].max_new_tokens && !kept_token_is_end(h->model, next)));
}

/* Every turn of one variant from the beginning, on a fresh sequence. The run's own answers stand in
 * the cache in a conversation with own ones. */
static void check_turn(hand *h, kept_turn_mode mode, const json_t *r, int variant, int k)
{
    kept_strategy *strategy;
    kept_seq *s = start(h, variant < 2 ? NULL : specs[variant - 2], &strategy);
    int32_t next = -1;
    for (int j = 0; j <= k; j++) {
        const int begin = j ? h->tokens.turns[j - 1].end : 0, end = h->tokens.turns[j].end;
        if (mode == KEPT_TURNS_REQUESTS && j < k)
            continue;
        if (mode == KEPT_TURNS_OWN && j > 0) {
            const json_t *list = json_object_get(reply(r, 1, variant, j - 1), "tokens");
            for (size_t i = 0; i < json_array_size(list); i++) {
                const int32_t token = (int32_t)json_integer_value(json_array_get(list, i));
                feed(h, s, &token, 1);
            }
        }
        const int question = h->tokens.turns[j].question; /* the answer before arrives apart */
        if (j)
            feed(h, s, h->tokens.suffix + begin, question - begin);
        next = feed(h, s, h->tokens.suffix + (j ? question : 0), end - (j ? question : 0));
    }
    decode(h, s, k, next, reply(r, 1, variant, k));
    kept_seq_free(s);
    kept_strategy_free(strategy);
}

static void check_mode(kept_turn_mode mode)
{
    json_t *r = run(mode, 1);
    hand h = by_hand(mode, 1);
    for (int k = 0; k < N_TURNS; k++)
        for (int v = 0; v < N_ROWS; v++)
            if (v != 1)
                check_turn(&h, mode, r, v, k);
    hand_free(&h);
    /* The floor is exact in every turn. */
    for (int k = 0; k < N_TURNS; k++)
        CHECK(json_is_null(json_object_get(reply(r, 0, 1, k), "diverged")));
    const json_t *c = json_array_get(json_object_get(r, "cells"), 1);
    CHECK(number(c, "change") == 0 && number(c, "kl_max") == 0);
    json_decref(r);
}

static void gold_answers(void)
{
    check_mode(KEPT_TURNS_GOLD);
}
static void own_answers(void)
{
    check_mode(KEPT_TURNS_OWN);
}
static void requests(void)
{
    check_mode(KEPT_TURNS_REQUESTS);
}

/* Cells by turn, from the samples alone; the score of a sample is the mean of its turns. */
static void aggregates(void)
{
    json_t *r = run(KEPT_TURNS_GOLD, 2);
    for (int v = 0; v < N_ROWS; v++) {
        const json_t *c = json_array_get(json_object_get(r, "cells"), (size_t)v);
        const json_t *by_turn = json_object_get(c, "by_turn");
        double all = 0;
        CHECK_INT(json_array_size(by_turn), N_TURNS);
        for (int k = 0; k < N_TURNS; k++) {
            const json_t *t = json_array_get(by_turn, (size_t)k);
            double mean =
                (number(reply(r, 0, v, k), "score") + number(reply(r, 1, v, k), "score")) / 2;
            CHECK_NEAR(number(t, "score"), mean, 1e-12);
            CHECK_INT(number(t, "turn"), k + 1);
            CHECK_INT(number(t, "n"), 2);
            all += mean / N_TURNS;
            double recall = number(reply(r, 0, v, k), "evidence_recall");
            CHECK(v < 2 ? recall == 1 : recall >= 0 && recall <= 1);
        }
        CHECK_NEAR(number(c, "score"), all, 1e-12);
    }
    json_decref(r);
}

/* Log-likelihoods of labels, in double precision, one fresh sequence each. */
static void choice(void)
{
    static const char line[] =
        "{\"context\":\"%s\",\"turns\":[{\"question\":\"Which?\",\"answer\":\"box\",\"metric\":"
        "\"choice\","
        "\"labels\":[\"the item number\",\"box\",\"a\"]},{\"question\":\"And?\",\"answer\":\"a\","
        "\"metric\":\"choice\",\"labels\":[\"a\",\"number\"]}]}\n";
    char context[800] = "";
    for (int k = 0; k < 12; k++)
        snprintf(context + strlen(context), 64, "The box number %d holds item %d. ", k, k * 31);
    FILE *f = fopen(jsonl_path, "w");
    for (int i = 0; i < 2; i++)
        fprintf(f, line, context);
    fclose(f);
    json_t *r = run(KEPT_TURNS_REQUESTS, 1);
    hand h = by_hand(KEPT_TURNS_REQUESTS, 0);
    for (int v = 0; v < 3; v++) {
        for (int k = 0; k < 2; k++) {
            const kept_turn_tokens *t = &h.tokens.turns[k];
            const int n_vocab = kept_model_get_info(h.model)->n_vocab;
            double best = -INFINITY;
            int chosen = 0;
            for (int l = 0; l < h.sample.turns[k].n_labels; l++) {
                kept_strategy *strategy;
                kept_seq *s = start(&h, v < 2 ? NULL : specs[v - 2], &strategy);
                const int begin = k ? h.tokens.turns[k - 1].end : 0;
                feed(&h, s, h.tokens.suffix + begin, t->end - begin);
                double sum = 0;
                for (int i = l ? t->label_end[l - 1] : 0; i < t->label_end[l]; i++) {
                    const float *x = kept_engine_logits(h.engine);
                    double z = 0;
                    for (int w = 0; w < n_vocab; w++)
                        z += exp((double)x[w] - (double)x[t->labels[i]]);
                    sum -= log(z);
                    if (i + 1 < t->label_end[l])
                        feed(&h, s, t->labels + i, 1);
                }
                chosen = sum > best ? l : chosen;
                best = sum > best ? sum : best;
                kept_seq_free(s);
                kept_strategy_free(strategy);
            }
            CHECK_STR(json_string_value(json_object_get(reply(r, 0, v, k), "text")),
                      h.sample.turns[k].labels[chosen]);
            CHECK(number(reply(r, 0, v, k), "score") ==
                  !strcmp(h.sample.turns[k].labels[chosen], h.sample.turns[k].answers[0]));
        }
    }
    hand_free(&h);
    json_decref(r);
}

static void write_inputs(void)
{
    FILE *f = fopen(jsonl_path, "w");
    for (int i = 0; f && i < 2; i++) {
        fprintf(f, "{\"context\": \"");
        for (int k = 0; k < 12; k++)
            fprintf(f, "The box number %d holds item %d. ", k, k * 31 + i);
        fprintf(f, "\", \"turns\": [");
        for (int k = 0; k < N_TURNS; k++)
            fprintf(f,
                    "%s{\"question\": \"What is in box %d?\", \"answer_prefix\": \"Item\", "
                    "\"answer\": \"%d\", \"max_new_tokens\": 5}",
                    k ? "," : "", 3 + k, (3 + k) * 31 + i);
        fprintf(f, "]}\n");
    }
    if (f)
        fclose(f);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    model_path = mkgguf_temp();
    jsonl_path = mkgguf_temp();
    spec.n_ctx = 2048;
    spec.qk_gain = 3;
    if (mkgguf_write(model_path, &spec))
        SKIP("no room for a temporary model");
    write_inputs();
    RUN(gold_answers);
    RUN(own_answers);
    RUN(requests);
    RUN(aggregates);
    RUN(choice);
    unlink(model_path);
    unlink(jsonl_path);
    free(model_path);
    free(jsonl_path);
    TEST_END();
}
