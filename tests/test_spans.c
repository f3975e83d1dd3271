/* test_spans: pinned spans of the user's prompts and template tokens, from JSONL to positions. */
#include "task/parts.h"

#include "mkgguf.h"
#include "test.h"

#include <unistd.h>

static kept_model *model;
static char *path;

static kept_task *open_line(const char *line, bool chat, kept_error *err)
{
    FILE *f = fopen(path, "wb");
    fputs(line, f);
    fclose(f);
    const kept_task_options o = {
        .name = "jsonl", .file = path, .n_samples = 1, .length = 400, .seed = 1, .chat = chat};
    kept_task *t = NULL;
    CHECK(!kept_task_open(&o, model, &t, err) == (t != NULL));
    return t;
}

#define HEAD                                                                                       \
    "{\"context\":\"The code of Ann is 42. Her dog is Rex.\",\"question\":\"q\",\"answer\":\"a\""

static bool tokens_of(kept_task *t, kept_tokens *k)
{
    kept_error err;
    kept_sample s;
    const bool ok = t && !kept_task_get(t, 0, &s, &err);
    CHECK(ok);
    if (!ok)
        return false;
    CHECK_INT(kept_task_tokenize(t, 0, &s, k, &err), KEPT_OK);
    kept_sample_clear(&s);
    return true;
}

/* The least run of tokens that holds the span: with it the text is there, one token less on either
 * side it is not. */
static void check_pin(const kept_tokens *k, int i, const char *text)
{
    char buf[256];
    const kept_span_tokens x = k->pins[i];
    CHECK(x.begin > 0 && x.end > x.begin && x.end <= k->n_prefix);
    kept_detokenize(model, k->prefix + x.begin - 1, x.end - x.begin + 1, true, buf, sizeof buf);
    CHECK(strstr(buf, text));
    kept_detokenize(model, k->prefix + x.begin - 1, x.end - x.begin, true, buf, sizeof buf);
    CHECK(!strstr(buf, text));
    kept_detokenize(model, k->prefix + x.begin + 1, x.end - x.begin - 1, true, buf, sizeof buf);
    CHECK(!strstr(buf, text));
}

static void pins_become_positions(void)
{
    kept_error err;
    for (int chat = 0; chat < 2; chat++) {
        kept_tokens k = {0};
        kept_task *t = open_line(HEAD ",\"pin\":[\"dog is\",[4,8]]}", chat, &err);
        if (tokens_of(t, &k)) {
            CHECK_INT(k.n_pins, 2);
            check_pin(&k, 0, "dog is");
            check_pin(&k, 1, "code");
        }
        kept_tokens_clear(&k);
        kept_task_close(t);
    }
}

static void template_tokens_are_counted(void)
{
    kept_error err;
    char buf[512];
    kept_tokens k = {0}, raw = {0};
    kept_task *t = open_line(HEAD "}", true, &err), *r;
    if (tokens_of(t, &k)) {
        CHECK(k.n_template > 1 && k.n_template < k.n_prefix);
        kept_detokenize(model, k.prefix, k.n_template, true, buf, sizeof buf);
        CHECK(strstr(buf, "user") && !strstr(buf, "The"));
        kept_detokenize(model, k.prefix + k.n_template - 1, 4, true, buf, sizeof buf);
        CHECK(strstr(buf, "T"));
    }
    r = open_line(HEAD "}", false, &err);
    if (tokens_of(r, &raw))
        CHECK_INT(raw.n_template, 0);
    kept_tokens_clear(&k);
    kept_tokens_clear(&raw);
    kept_task_close(t);
    kept_task_close(r);
}

static void bad_pins(void)
{
    static const struct {
        const char *pin, *says;
    } bad[] = {{"7", "not an array"},
               {"[]", "not an array"},
               {"[3]", "item 1 is neither"},
               {"[[1]]", "item 1 is neither"},
               {"[[1,2.5]]", "item 1 is neither"},
               {"[\"dog\",\"cat\"]", "item 2 does not stand in the context"},
               {"[\"\"]", "item 1 does not stand"},
               {"[[5,5]]", "outside of the context, which has 38 bytes"},
               {"[[-1,5]]", "outside of the context"},
               {"[[0,39]]", "outside of the context"},
               {"[[0,99999999999999999]]", "outside of the context"},
               {"[[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],[0,1],"
                "[0,1],[0,1],[0,1],[0,1]]",
                "not an array of 1 to 16"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char line[400];
        kept_error err = {"", 0};
        snprintf(line, sizeof line, HEAD ",\"pin\":%s}", bad[i].pin);
        CHECK(!open_line(line, false, &err));
        CHECK(strstr(err.text, "line 1") && strstr(err.text, bad[i].says));
    }
}

int main(void)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    char *gguf = mkgguf_temp();
    path = mkgguf_temp();
    if (!gguf || !path || mkgguf_write(gguf, &spec) || kept_model_open(gguf, &model, &err)) {
        fprintf(stderr, "model: %s\n", gguf ? err.text : "no temporary file");
        return 1;
    }
    RUN(pins_become_positions);
    RUN(template_tokens_are_counted);
    RUN(bad_pins);
    unlink(gguf);
    unlink(path);
    free(gguf);
    free(path);
    kept_model_free(model);
    TEST_END();
}
