/* test_q4_1: a model of Q4_1 weights, which are multiplied as Q4_0 and a constant a block. Against
 * libllama on the same weights as F32, where nothing is rounded: no further from that than
 * libllama is with the Q4_1 weights. And bit-identical for any chunk, for one token too. */
#include "engine_util.h"
#include "mkgguf.h"
#include "model/model.h"
#include "test.h"

#include <unistd.h>

enum { N_PREFILL = 120, N_ALL = 140 };

static char *file, *exact; /* the model, and its weights as F32 */
static kept_model *model;
static int32_t *tokens;
static int n_vocab;

/* The model at from with every matrix as F32, at to. */
static bool write_exact(const char *from, const char *to)
{
    struct ggml_context *data = NULL;
    struct gguf_init_params p = {.no_alloc = false, .ctx = &data};
    struct gguf_context *g = gguf_init_from_file(from, p), *out = gguf_init_empty();
    struct ggml_init_params big = {.mem_size = (size_t)64 << 20};
    struct ggml_context *c = ggml_init(big);
    bool ok = g && out && c;
    if (ok)
        gguf_set_kv(out, g);
    for (struct ggml_tensor *t = ok ? ggml_get_first_tensor(data) : NULL; t;
         t = ggml_get_next_tensor(data, t)) {
        if (gguf_find_tensor(g, t->name) < 0)
            continue; /* the blob that holds all data */
        struct ggml_tensor *x = ggml_new_tensor(c, GGML_TYPE_F32, GGML_MAX_DIMS, t->ne);
        ggml_set_name(x, t->name);
        if (t->type == GGML_TYPE_F32)
            memcpy(x->data, t->data, ggml_nbytes(t));
        else
            ggml_get_type_traits(t->type)->to_float(t->data, x->data, ggml_nelements(t));
        gguf_add_tensor(out, x);
    }
    ok = ok && gguf_write_to_file(out, to, false);
    gguf_free(g);
    gguf_free(out);
    ggml_free(data);
    ggml_free(c);
    return ok;
}

static float *rows(void)
{
    return malloc((size_t)N_ALL * (size_t)n_vocab * sizeof(float));
}

static float *by_libllama(const char *path)
{
    struct llama_model *m = llama_model_load_from_file(path, llama_model_default_params());
    float *out = rows();
    CHECK(m && util_llama(m, tokens, N_PREFILL, N_ALL, true, NULL, NULL, out));
    llama_model_free(m);
    return out;
}

static float *by_kept(int chunk)
{
    util_run r = {.n_vocab = n_vocab};
    kept_seq *s = NULL;
    float *out = rows();
    kept_engine_options o = {.n_threads = 2,
                             .max_tokens = 256,
                             .max_batch_tokens = 256,
                             .max_seqs = 1,
                             .pool_bytes = (size_t)64 << 20};
    CHECK_INT(kept_engine_new(model, &o, &r.engine, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, NULL, 1, &s, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, tokens, N_ALL, chunk, out), KEPT_OK);
    kept_seq_free(s);
    kept_engine_free(r.engine);
    return out;
}

static void weights_are_split(void)
{
    const kept_layer *l = &model->layers[1];
    CHECK_INT(l->down.w->type, GGML_TYPE_Q4_0);
    CHECK(l->down.shift && l->down.shift->ne[0] == 64 && l->down.shift->ne[1] == 576);
    CHECK(l->q.shift && l->q.shift->ne[0] == 32); /* 18 blocks a row */
    /* what reads weights reads the file's */
    float *w = malloc(sizeof *w * 576 * 576);
    CHECK(kept_weights_read(model, l->o.w, w));
    free(w);
}

static void as_close_as_libllama(void)
{
    float *truth = by_libllama(exact), *theirs = by_libllama(file), *ours = by_kept(N_ALL);
    const util_diff a = util_compare(truth, theirs, N_PREFILL, n_vocab),
                    b = util_compare(truth, ours, N_PREFILL, n_vocab);
    printf(
        "# from unrounded products: libllama rms %.4f argmax %d/%d, kept rms %.4f argmax %d/%d\n",
        a.rel_rms, a.same_argmax, a.n, b.rel_rms, b.same_argmax, b.n);
    CHECK(a.rel_rms > 0 && b.rel_rms <= 1.1 * a.rel_rms);
    CHECK(b.same_argmax >= a.same_argmax - a.n / 20);
    free(truth);
    free(theirs);
    free(ours);
}

static void chunks_do_not_matter(void)
{
    static const int chunk[] = {64, 37, 5, 2, 1};
    float *whole = by_kept(N_ALL);
    for (size_t i = 0; i < sizeof chunk / sizeof *chunk; i++) {
        float *out = by_kept(chunk[i]);
        CHECK_INT(memcmp(whole, out, (size_t)N_ALL * (size_t)n_vocab * sizeof *out), 0);
        free(out);
    }
    free(whole);
}

int main(void)
{
    mkgguf_spec s = mkgguf_default("llama");
    kept_error err = {.text = "no temporary file"};
    s.type = GGML_TYPE_Q4_1;
    s.n_layers = 2;
    s.n_embd = 576;
    s.n_heads = 9;
    s.n_kv_heads = 3;
    s.n_ff = 1536;
    file = mkgguf_temp();
    exact = mkgguf_temp();
    llama_backend_init();
    if (!file || !exact || mkgguf_write(file, &s) || !write_exact(file, exact) ||
        kept_model_open(file, &model, &err)) {
        fprintf(stderr, "model: %s\n", err.text);
        return 1;
    }
    n_vocab = kept_model_get_info(model)->n_vocab;
    tokens = util_tokens(N_ALL, n_vocab, 7);
    RUN(weights_are_split);
    RUN(as_close_as_libllama);
    RUN(chunks_do_not_matter);
    kept_model_free(model);
    unlink(file);
    unlink(exact);
    free(file);
    free(exact);
    free(tokens);
    TEST_END();
}
