/* test_real: on real models, quantised as people run them, our argmax equals libllama's wherever
 * libllama is sure: where its top-2 gap exceeds twice the difference between its own two attention
 * paths over the vocabulary at that position. Models: KEPT_MODEL and the catalogue's others beside
 * it, if pulled. */
#include "engine_util.h"
#include "test.h"

#include <libgen.h>
#include <unistd.h>

enum { N = 512, WANT = 200 };

/* Enough ordinary prose for N tokens in any tokenizer. */
static const char prose[] =
    "The harbour master kept two books. In the first he wrote what the captains told him: the name "
    "of the ship, the port she had left, her cargo, and the weather on the way. In the second he "
    "wrote what he saw with his own eyes: how deep she lay in the water, how clean her decks were, "
    "and whether the crew sang. Over the years he found that the second book was the better one. A "
    "captain who had lost a mast would speak of a light breeze, but the splinters were there for "
    "anyone to count. One winter a young clerk came to help him, and asked why he did not burn the "
    "first book, since it was full of lies. The old man thought about it for a while. He said that "
    "a lie is also a measurement, if you know what to hold it against. Then he showed the clerk a "
    "page from eleven years before. On the left stood the words of a captain who had carried wine "
    "from the south, and on the right the marks that the old man had made that evening with his "
    "pencil. The two did not agree in a single line. But at the bottom of the right page there was "
    "a small drawing of a bird, and under it the date. The clerk looked at the drawing for a long "
    "time. Birds like that, he said, do not live in the south at all. No, said the harbour master, "
    "they live on the northern cliffs, and they only rest on a ship that has come past them. So "
    "the "
    "wine had never seen the south. It had been made in a cellar three days away, and the captain "
    "had been paid twice for it. What happened to him, asked the clerk. Nothing happened to him, "
    "said the old man, but from that day I wrote everything down twice, and I have slept well. In "
    "the spring the clerk began a third book, in which he wrote only the differences between the "
    "other two. It was the thinnest of the three, and after some years it was the only one that "
    "the merchants of the town would pay to read. When the harbour master died, they found that he "
    "had left the house to the clerk, and the boat to his sister, and the two books to nobody.";

static int argmax(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* The largest value other than that at `best`. */
static float second(const float *x, int n, int best)
{
    float s = -INFINITY;
    for (int i = 0; i < n; i++)
        s = i != best && x[i] > s ? x[i] : s;
    return s;
}

static void compare(const char *path)
{
    kept_model *m = NULL;
    kept_error err;
    if (kept_model_open(path, &m, &err)) {
        fprintf(stderr, "%s: %s\n", path, err.text);
        CHECK(false);
        return;
    }
    const kept_model_info *info = kept_model_get_info(m);
    const int v = info->n_vocab;
    int32_t tokens[2048];
    int n = 0;
    char text[2 * sizeof prose + 1]; /* told twice, so that every tokenizer makes N tokens of it */
    snprintf(text, sizeof text, "%s %s", prose, prose);
    CHECK_INT(kept_tokenize(m, text, strlen(text), true, false, tokens, 2048, &n), KEPT_OK);
    CHECK(n >= N);
    util_run r = {.n_vocab = v};
    kept_engine_options o = {.n_threads = 2, .max_tokens = 512, .max_batch_tokens = 64};
    kept_seq *s = NULL;
    CHECK_INT(kept_engine_new(m, &o, &r.engine, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, NULL, 1, &s, &r.err), KEPT_OK);
    const size_t bytes = (size_t)N * (size_t)v * sizeof(float);
    float *own = malloc(bytes), *on = malloc(bytes), *off = malloc(bytes);
    CHECK_INT(util_prefill(&r, s, tokens, N, 64, own), KEPT_OK);
    struct llama_model *lm = llama_model_load_from_file(path, llama_model_default_params());
    CHECK(lm && util_llama(lm, tokens, N, N, true, NULL, NULL, on));
    CHECK(lm && util_llama(lm, tokens, N, N, false, NULL, NULL, off));
    int sure = 0, equal = 0, all = 0;
    for (int i = 0; i < N; i++) {
        const float *a = on + (size_t)i * (size_t)v, *b = off + (size_t)i * (size_t)v;
        const int best = argmax(a, v), mine = argmax(own + (size_t)i * (size_t)v, v);
        float noise = 0;
        for (int j = 0; j < v; j++)
            noise = fmaxf(noise, fabsf(a[j] - b[j]));
        all += best == mine;
        if (a[best] - second(a, v, best) > noise) {
            sure++;
            equal += best == mine;
        }
    }
    printf("# %s %s: libllama is sure at %d of %d positions, equal %d; of all positions %d\n",
           info->arch, info->weight_type, sure, N, equal, all);
    CHECK(sure >= WANT);
    CHECK_INT(equal, sure);
    free(own);
    free(on);
    free(off);
    llama_model_free(lm);
    kept_seq_free(s);
    kept_engine_free(r.engine);
    kept_model_free(m);
}

static const char *default_model;
static void smollm2(void)
{
    compare(default_model);
}

static char other[4096];
static void other_model(void)
{
    compare(other);
}

int main(void)
{
    default_model = getenv("KEPT_MODEL");
    if (!default_model || access(default_model, R_OK))
        SKIP("the default model is not there (KEPT_MODEL)");
    llama_backend_init();
    RUN(smollm2);
    static const char *const names[] = {"qwen2.5-coder-0.5b", "gemma3-270m", "qwen2.5-coder-1.5b"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char dir[2048];
        snprintf(dir, sizeof dir, "%s", default_model);
        snprintf(other, sizeof other, "%s/%s.gguf", dirname(dir), names[i]);
        if (access(other, R_OK))
            printf("skip %s is not pulled\n", names[i]);
        else
            RUN(other_model);
    }
    TEST_END();
}
