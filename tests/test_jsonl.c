/* JSONL tasks: schema, messages with line numbers, evidence, and 20,000 mutated lines. */
#include "task/parts.h"

#include "mkgguf.h"
#include "test.h"

#include <unistd.h>

/* The fuzzer's entry is called here with mutations, so that every test run has some fuzzing. */
#include "fuzz/fuzz_jsonl.c"

static kept_model *model;
static char *path;

static void write_file(const char *text)
{
    FILE *f = fopen(path, "wb");
    fwrite(text, 1, strlen(text), f);
    fclose(f);
}

static kept_task *open_text(const char *text, int n_samples, int length, kept_error *err)
{
    write_file(text);
    const kept_task_options o = {
        .name = "jsonl", .file = path, .n_samples = n_samples, .length = length, .seed = 1};
    kept_task *t = NULL;
    const kept_status st = kept_task_open(&o, model, &t, err);
    CHECK(!st == (t != NULL));
    return t;
}

static void test_samples(void)
{
    kept_error err;
    kept_task *t = open_text("\n  \r\n"
                             "{\"context\": \"The code of Ann is 42. So 42.\", \"question\": "
                             "\"Which code?\", \"answer_prefix\": \"Code:\", \"answer\": \"42\", "
                             "\"id\": 7}\r\n"
                             "\n"
                             "{\"context\":\"a \\u00e9 b\\n\",\"question\":\"q\",\"answers\":"
                             "[\"b\",\"\\u00e9\"],\"max_new_tokens\":5,\"match\":\"all\"}",
                             9, 300, &err);
    CHECK(t);
    if (!t)
        return;
    CHECK_INT(kept_task_n_samples(t), 2);
    CHECK(kept_task_get_kind(t) == KEPT_TASK_GENERATE);
    kept_sample s;
    CHECK_INT(kept_task_get(t, 0, &s, &err), KEPT_OK);
    CHECK_STR(s.context, "The code of Ann is 42. So 42.");
    CHECK_STR(s.turns[0].question, "\nWhich code?");
    CHECK_STR(s.turns[0].answer_prefix, "\nCode:");
    CHECK_INT(s.turns[0].n_answers, 1);
    CHECK_STR(s.turns[0].answers[0], "42");
    CHECK(s.turns[0].metric == KEPT_METRIC_ANY);
    CHECK_INT(s.turns[0].max_new_tokens, 32);
    CHECK_INT(s.turns[0].n_evidence, 2);
    CHECK_INT(s.turns[0].evidence[0].begin, 19);
    CHECK_INT(s.turns[0].evidence[1].end, 28);
    CHECK_NEAR(s.turns[0].depth, 19 / 29.0, 1e-12);
    kept_tokens k;
    CHECK_INT(kept_task_tokenize(t, 0, &s, &k, &err), KEPT_OK);
    char text[64];
    kept_detokenize(model, k.prefix + k.evidence[0], 2, true, text, sizeof text);
    CHECK(k.n_evidence >= 2 && strstr(text, "42"));
    kept_tokens_clear(&k);
    kept_sample_clear(&s);
    CHECK_INT(kept_task_get(t, 1, &s, &err), KEPT_OK);
    CHECK_STR(s.context, "a \xc3\xa9 b\n");
    CHECK_STR(s.turns[0].question, "q");
    CHECK_STR(s.turns[0].answer_prefix, "");
    CHECK(s.turns[0].metric == KEPT_METRIC_ALL);
    CHECK_INT(s.turns[0].max_new_tokens, 5);
    CHECK_INT(s.turns[0].n_evidence, 2);
    CHECK_INT(s.turns[0].evidence[0].begin, 2);
    CHECK_INT(s.turns[0].evidence[0].end, 4);
    kept_sample_clear(&s);
    CHECK_INT(kept_task_get(t, 2, &s, &err), KEPT_ARGUMENT);
    kept_task_close(t);
    t = open_text("{\"context\":\"aaaaa\",\"question\":\"\",\"answer\":\"aa\"}", 1, 300, &err);
    CHECK_INT(kept_task_get(t, 0, &s, &err), KEPT_OK);
    CHECK_INT(s.turns[0].n_evidence, 2); /* found ones do not overlap */
    CHECK_INT(s.turns[0].evidence[1].begin, 2);
    kept_sample_clear(&s);
    kept_task_close(t);
    t = open_text("{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\"}\n{broken", 1, 300, &err);
    CHECK(t); /* lines beyond n_samples are not looked at */
    kept_task_close(t);
}

#define GOOD "{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\"}\n"

static void test_messages(void)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "holds no samples"},
        {"\n \n", "holds no samples"},
        {GOOD "\n{\"context\":\"c\",\n", " line 3, column"},
        {GOOD "[1]", " line 2: not a JSON object"},
        {"{\"question\":\"q\",\"answer\":\"a\"}", " line 1: \"context\" is missing"},
        {"{\"context\":\"\",\"question\":\"q\",\"answer\":\"a\"}", " line 1: \"context\" is empty"},
        {"{\"context\":\"c\",\"answer\":\"a\"}", " line 1: \"question\" is missing"},
        {"{\"context\":3,\"question\":\"q\",\"answer\":\"a\"}", "\"context\" is not a string"},
        {"{\"context\":\"c\",\"question\":\"q\"}", "needs either \"answer\" or \"answers\""},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"answers\":[\"b\"]}",
         "needs either \"answer\" or \"answers\""},
        {"{\"context\":\"c\",\"question\":\"q\",\"answers\":[]}", "\"answers\" is not an array"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answers\":\"a\"}", "\"answers\" is not an array"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answers\":[\"a\",true]}",
         "an answer must be a string"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"\"}", "an answer must be a string"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"max_new_tokens\":0}",
         "\"max_new_tokens\" is not a whole number"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"max_new_tokens\":1.5}",
         "\"max_new_tokens\" is not a whole number"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"match\":\"some\"}",
         "\"match\" is neither"},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"metric\":\"rouge\"}",
         "did you mean \"rouge-l\""},
        {"{\"context\":\"c\",\"question\":\"q\",\"answer\":\"a\",\"metric\":\"choice\"}",
         "metric \"choice\" needs \"labels\""},
        {"{\"context\":\"c\",\"turns\":[]}", "\"turns\" is not an array of 1 to 256"},
        {"{\"context\":\"c\",\"turns\":[{\"answer\":\"a\"}]}", "\"question\" is missing"},
        {"{\"prompt\":\"c\",\"context\":\"c\",\"answer\":\"a\"}", "only one of"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}],\"answer\":\"a\"}",
         "the last message is not a user's"},
        {"{\"context\":\"c\",\"context\":\"d\",\"question\":\"q\",\"answer\":\"a\"}", " line 1"},
        {GOOD "{\"context\":\"\xff\",\"question\":\"q\",\"answer\":\"a\"}", " line 2: not UTF-8"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kept_error err = {"", 0};
        kept_task *t = open_text(bad[i].text, 10, 300, &err);
        CHECK(!t);
        if (!strstr(err.text, bad[i].message) || !strstr(err.text, path))
            CHECK_STR(err.text, bad[i].message);
        kept_task_close(t);
    }
}

static void test_too_long(void)
{
    char text[2048] = GOOD GOOD "\n{\"context\":\"";
    for (int i = 0; i < 200; i++)
        strcat(text, "z ");
    strcat(text, "\",\"question\":\"q\",\"answer\":\"a\",\"max_new_tokens\":11}\n");
    kept_error err;
    kept_task *t = open_text(text, 10, 100, &err);
    CHECK(!t);
    CHECK(strstr(err.text, " line 4: ") && strstr(err.text, "answer's 11"));
    CHECK(strstr(err.text, "more than the length 100"));
    /* The count in the message is the real one. */
    const char *at = strstr(err.text, " line 4: ");
    const int need = at ? atoi(at + 9) : 0;
    kept_task_close(t);
    t = open_text(text, 10, need, &err);
    CHECK(t);
    kept_task_close(t);
    t = open_text(text, 10, need - 1, &err);
    CHECK(!t);
    t = open_text(text, 10, 0, &err); /* 0: the model's own limit, 2048 */
    CHECK(t);
    kept_task_close(t);
}

static void test_mutations(void)
{
    static const char plain[] =
        "{\"context\":\"The code of Ann is 42. So 42.\",\"question\":\"Which?\",\"answer\":\"42\"}";
    static const char full[] =
        "{\"context\":\"a \\u00e9 b\",\"question\":\"q\",\"answers\":[\"b\",\"\\u00e9\"],"
        "\"max_new_tokens\":5,\"match\":\"all\",\"answer_prefix\":\"x\"}";
    static const char nested[] =
        "\n{\"id\":[[{}]],\"context\":\"aaaa\",\"question\":\"\",\"answer\":\"a\"}\n";
    static const char *const seeds[] = {plain, full, nested};
    static const char alphabet[] = "{}[]\":,\\u0e\xc3\xa9 \n.!?a\"2null";
    kept_rng rng;
    kept_rng_init(&rng, 9);
    for (int round = 0; round < 20000; round++) {
        uint8_t buf[512];
        const char *seed = seeds[round % 3];
        size_t n = strlen(seed);
        memcpy(buf, seed, n);
        for (uint32_t m = 1 + kept_rng_below(&rng, 4); m > 0; m--) {
            const size_t at = kept_rng_below(&rng, (uint32_t)n);
            const uint32_t how = kept_rng_below(&rng, 4);
            if (how == 0) {
                buf[at] = (uint8_t)kept_rng_below(&rng, 256);
            } else if (how == 1) {
                buf[at] = (uint8_t)alphabet[kept_rng_below(&rng, sizeof alphabet - 1)];
            } else if (how == 2 && n > 2) {
                memmove(buf + at, buf + at + 1, --n - at);
            } else if (n < sizeof buf - 1) {
                memmove(buf + at + 1, buf + at, n++ - at);
                buf[at] = (uint8_t)alphabet[kept_rng_below(&rng, sizeof alphabet - 1)];
            }
        }
        LLVMFuzzerTestOneInput(buf, n);
    }
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
}

int main(void)
{
    mkgguf_spec spec = mkgguf_default("llama");
    spec.n_ctx = 2048;
    char *gguf = mkgguf_temp();
    path = mkgguf_temp();
    kept_error err;
    if (!gguf || !path || mkgguf_write(gguf, &spec) || kept_model_open(gguf, &model, &err)) {
        fprintf(stderr, "cannot make a model: %s\n", err.text);
        return 1;
    }
    RUN(test_samples);
    RUN(test_messages);
    RUN(test_too_long);
    RUN(test_mutations);
    kept_model_free(model);
    unlink(gguf);
    unlink(path);
    free(gguf);
    free(path);
    TEST_END();
}
