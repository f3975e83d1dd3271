/* test_vocab: the tokenizer, against direct calls of libllama on the same file, on generated models
 * and on the model that the environment variable KEPT_MODEL names. Without it the program runs the
 * generated part and, if that is sound, says that it skipped the rest. */
#include "model/model.h"

#include "mkgguf.h"
#include "test.h"

#include <llama.h>
#include <unistd.h>

static const char *const texts[] = {
    "hello world",
    "The quick brown fox jumps over the lazy dog; 1234567890 times.",
    "  two blanks in front, one behind ",
    "line one\nline two\r\n\ttabbed\n\n\nthree",
    "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x98\x80 na\xc3\xafve",
    "int main(void) { return x[0] != '\\0' ? f(\"a\") : -1; }",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "x",
};
enum { N_TEXTS = sizeof texts / sizeof *texts };

static kept_model *model;
static struct llama_model *oracle;

/* What libllama says with add_special, for models that do not append EOS. */
static void test_tokens_equal_libllama(void)
{
    const struct llama_vocab *v = llama_model_get_vocab(oracle);
    for (int i = 0; i < N_TEXTS; i++)
        for (int flags = 0; flags < 4; flags++) {
            bool bos = flags & 1, special = flags & 2;
            int32_t want[256], got[256];
            int len = (int)strlen(texts[i]), n = -1;
            int n_want = llama_tokenize(v, texts[i], len, want, 256, bos, special);
            CHECK_INT(kept_tokenize(model, texts[i], (size_t)len, bos, special, got, 256, &n),
                      KEPT_OK);
            CHECK_INT(n, n_want);
            CHECK(n != n_want || memcmp(want, got, sizeof *got * (size_t)n) == 0);
        }
}

static void test_too_small_a_buffer(void)
{
    int32_t all[64], few[3] = {-7, -7, -7};
    int n, need;
    size_t len = strlen(texts[1]);
    CHECK_INT(kept_tokenize(model, texts[1], len, true, false, all, 64, &need), KEPT_OK);
    CHECK(need > 3);
    CHECK_INT(kept_tokenize(model, texts[1], len, true, false, few, 2, &n), KEPT_ARGUMENT);
    CHECK_INT(n, need);
    CHECK_INT(few[2], -7);
    CHECK_INT(kept_tokenize(model, texts[1], len, true, false, NULL, 0, &n), KEPT_ARGUMENT);
    CHECK_INT(n, need);
    CHECK_INT(kept_tokenize(model, texts[1], len, true, false, all, need, &n), KEPT_OK);
    CHECK_INT(kept_tokenize(model, "", 0, false, false, all, 64, &n), KEPT_OK);
    CHECK_INT(n, 0);
    CHECK_INT(kept_tokenize(model, NULL, 0, false, false, NULL, 0, &n), KEPT_OK);
}

static void test_round_trip(void)
{
    for (int i = 0; i < N_TEXTS; i++)
        for (int bos = 0; bos < 2; bos++) {
            int32_t t[256];
            char text[1024], cut[128];
            int n;
            CHECK_INT(kept_tokenize(model, texts[i], strlen(texts[i]), bos, false, t, 256, &n),
                      KEPT_OK);
            size_t len = kept_detokenize(model, t, n, false, text, sizeof text);
            CHECK_STR(text, texts[i]);
            CHECK_INT(len, strlen(texts[i]));
            memset(cut, 'Z', sizeof cut);
            CHECK_INT(kept_detokenize(model, t, n, false, cut, 8), len);
            CHECK(cut[8] == 'Z' && cut[sizeof cut - 1] == 'Z' && (len <= 8 || cut[len] == 'Z'));
            CHECK_INT(strlen(cut), len < 7 ? len : 7);
            CHECK(strncmp(cut, text, strlen(cut)) == 0);
            CHECK_INT(kept_detokenize(model, t, n, false, NULL, 0), len);
        }
}

static void test_control_tokens(void)
{
    /* SentencePiece puts a blank in front of every stretch of text between control tokens */
    bool spm = llama_vocab_type(llama_model_get_vocab(oracle)) == LLAMA_VOCAB_TYPE_SPM;
    const char *chat = texts[6];
    int32_t t[64];
    char text[256];
    int n;
    CHECK_INT(kept_tokenize(model, chat, strlen(chat), false, true, t, 64, &n), KEPT_OK);
    kept_detokenize(model, t, n, true, text, sizeof text);
    CHECK_STR(text, spm ? "<|im_start|> user\nhello<|im_end|> \n<|im_start|> assistant\n" : chat);
    kept_detokenize(model, t, n, false, text, sizeof text);
    CHECK_STR(text, spm ? " user\nhello \n assistant\n" : "user\nhello\nassistant\n");
    int ends = 0;
    for (int32_t i = 0; i < model->info.n_vocab; i++) {
        bool end = llama_vocab_is_eog(llama_model_get_vocab(oracle), i);
        CHECK(kept_token_is_end(model, i) == end);
        ends += end;
    }
    CHECK(ends > 0);
    CHECK(!kept_token_is_end(model, -1) && !kept_token_is_end(model, model->info.n_vocab));
    CHECK_INT(kept_token_bos(model), llama_vocab_bos(llama_model_get_vocab(oracle)));
}

static void test_ids_out_of_range(void)
{
    int32_t t[4] = {-1, model->info.n_vocab, INT32_MAX, INT32_MIN};
    char text[16] = "x";
    CHECK_INT(kept_detokenize(model, t, 4, true, text, sizeof text), 0);
    CHECK_STR(text, "");
    CHECK_INT(kept_detokenize(model, t, 0, true, text, sizeof text), 0);
    CHECK_INT(kept_detokenize(model, NULL, 0, true, NULL, 0), 0);
}

static void test_chat(void)
{
    static const char want[] = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi\n"
                               "there<|im_end|>\n<|im_start|>assistant\n";
    char text[256], cut[10];
    size_t n;
    CHECK_INT(kept_chat_format(model, "be brief", "hi\nthere", text, sizeof text, &n, NULL),
              KEPT_OK);
    CHECK_STR(text, want);
    CHECK_INT(n, sizeof want - 1);
    CHECK_INT(kept_chat_format(model, "be brief", "hi\nthere", cut, sizeof cut, &n, NULL), KEPT_OK);
    CHECK_STR(cut, "<|im_star");
    CHECK_INT(n, sizeof want - 1);
    CHECK_INT(kept_chat_format(model, NULL, "hi\nthere", text, sizeof text, &n, NULL), KEPT_OK);
    CHECK_STR(text, want + 38);
    CHECK_INT(kept_chat_format(model, NULL, NULL, text, sizeof text, &n, NULL), KEPT_ARGUMENT);
}

static void run_on(const char *path)
{
    kept_error err = {.text = ""};
    struct llama_model_params p = llama_model_default_params();
    p.vocab_only = true;
    model = NULL;
    if (kept_model_open(path, &model, &err) != KEPT_OK)
        fprintf(stderr, "%s\n", err.text);
    oracle = llama_model_load_from_file(path, p);
    CHECK(model && oracle);
    if (model && oracle) {
        RUN(test_tokens_equal_libllama);
        RUN(test_too_small_a_buffer);
        RUN(test_round_trip);
        RUN(test_control_tokens);
        RUN(test_ids_out_of_range);
        RUN(test_chat);
    }
    kept_model_free(model);
    if (oracle)
        llama_model_free(oracle);
}

static void set_template(struct gguf_context *g, void *user)
{
    if (user)
        gguf_set_val_str(g, "tokenizer.chat_template", user);
    else
        gguf_remove_key(g, "tokenizer.chat_template");
}

static void test_no_chat_template(void)
{
    static char unknown[] = "{{ nothing libllama knows }}";
    for (int i = 0; i < 2; i++) {
        mkgguf_spec s = mkgguf_default("llama");
        s.tweak_keys = set_template;
        s.user = i ? unknown : NULL;
        char *path = mkgguf_temp(), text[64];
        kept_model *m = NULL;
        kept_error err = {.text = ""};
        size_t n;
        CHECK(path && mkgguf_write(path, &s) == 0 && kept_model_open(path, &m, NULL) == KEPT_OK);
        if (m)
            CHECK_INT(kept_chat_format(m, NULL, "hi", text, sizeof text, &n, &err),
                      KEPT_UNSUPPORTED);
        CHECK(strstr(err.text, "template") != NULL);
        kept_model_free(m);
        unlink(path);
        free(path);
    }
}

int main(void)
{
    kept_ggml_start();
    for (int bpe = 0; bpe < 2; bpe++) {
        mkgguf_spec s = mkgguf_default(bpe ? "qwen2" : "llama");
        s.bpe = bpe;
        char *path = mkgguf_temp();
        CHECK(path && mkgguf_write(path, &s) == 0);
        run_on(path);
        unlink(path);
        free(path);
    }
    RUN(test_no_chat_template);
    const char *path = getenv("KEPT_MODEL");
    if (path && access(path, R_OK) == 0)
        run_on(path);
    else if (!test_failed)
        SKIP("the part on a real model: KEPT_MODEL names no readable file");
    TEST_END();
}
