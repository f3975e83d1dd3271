/* What is known of codecs, on the default model and a passage of the text: KL to the full cache's
 * next-token distributions over the tokens that follow a packed prompt. docs/strategies.md has the
 * same relations over more text; here they must hold with room to spare. */
#include "engine_util.h"
#include "policy/strategy.h"
#include "test.h"
#include "train/job.h"

#include <unistd.h>

enum { PROMPT = 256, TAIL = 24, ALL = PROMPT + TAIL, AT = 200000, BYTES = 4000 };

static kept_model *model;
static kept_engine *engine;
static kept_seq *base;
static int32_t tokens[BYTES];
static int n_vocab;
static float *full;

/* Logits of the tail after the prompt of base, stored as the spec says (NULL: as it is). */
static bool read_tail(const char *spec, float *out)
{
    kept_strategy *st = NULL;
    kept_seq *s = NULL;
    kept_error err = {"", 0};
    bool ok = !spec || !kept_strategy_parse(spec, &st, &err);
    ok = ok && !kept_seq_fork(base, st, NULL, 1, &s, &err) && !kept_seq_end_prefill(s, &err);
    const kept_item it = {
        .seq = s, .tokens = tokens + PROMPT, .n_tokens = TAIL, .n_logits = TAIL, .prefill = true};
    ok = ok && !kept_engine_forward(engine, &it, 1, &err);
    if (ok)
        memcpy(out, kept_engine_logits(engine), (size_t)TAIL * (size_t)n_vocab * sizeof *out);
    else
        fprintf(stderr, "%s: %s\n", spec ? spec : "full", err.text);
    kept_seq_free(s);
    kept_strategy_free(st);
    return ok;
}

static double kl(const char *spec)
{
    float *out = malloc((size_t)TAIL * (size_t)n_vocab * sizeof *out);
    double x = NAN;
    CHECK(out != NULL);
    if (out && read_tail(spec, out))
        x = kept_fit_kl(full, out, TAIL, n_vocab);
    printf("# %-28s KL %.4f\n", spec, x);
    CHECK(isfinite(x));
    free(out);
    return x;
}

static void bits(void)
{
    const double q8 = kl("full+q8"), q4 = kl("full+q4"), rot2 = kl("full+rot2");
    CHECK(q8 < q4 / 2 && q4 < rot2 / 2);
    CHECK(q4 < kl("full+q4g")); /* rotated, at fewer bits */
    CHECK(kl("full+minicache") > rot2);
}

static void channels(void)
{
    CHECK(2 * kl("full+store(k=chan2,v=q8)") < kl("full+store(k=tok2,v=q8)"));
}

static void keys_and_values(void)
{
    CHECK(kl("full+store(k=rot2,v=q8)") > kl("full+store(k=q8,v=rot2)"));
}

/* The passage at byte AT of the text. */
static bool read_text(const char *path)
{
    static char text[BYTES + 1];
    FILE *f = fopen(path, "rb");
    int n = 0;
    const bool ok = f && !fseek(f, AT, SEEK_SET) && fread(text, 1, BYTES, f) == BYTES;
    if (f)
        fclose(f);
    return ok && !kept_tokenize(model, text, BYTES, true, false, tokens, BYTES, &n) && n >= ALL;
}

int main(void)
{
    const char *path = getenv("KEPT_MODEL"), *text = getenv("KEPT_TEXT");
    const kept_engine_options o = {.n_threads = 1,
                                   .max_tokens = ALL,
                                   .max_batch_tokens = 128,
                                   .max_seqs = 3,
                                   .pool_bytes = 64 << 20};
    kept_error err = {"", 0};
    if (!path || !text || access(path, R_OK) || access(text, R_OK))
        SKIP("the default model or the text is not there (KEPT_MODEL, KEPT_TEXT)");
    if (kept_model_open(path, &model, &err) || kept_engine_new(model, &o, &engine, &err) ||
        kept_seq_new(engine, NULL, NULL, 1, &base, &err) || !read_text(text) ||
        kept_seq_prefill(base, tokens, PROMPT, 128, 0, &err)) {
        fprintf(stderr, "%s: %s\n", path, err.text);
        return 1;
    }
    n_vocab = kept_model_get_info(model)->n_vocab;
    full = malloc((size_t)TAIL * (size_t)n_vocab * sizeof *full);
    if (!full || !read_tail(NULL, full))
        return 1;
    RUN(bits);
    RUN(channels);
    RUN(keys_and_values);
    free(full);
    kept_seq_free(base);
    kept_engine_free(engine);
    kept_model_free(model);
    TEST_END();
}
