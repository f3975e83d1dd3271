/* test_model: sound files of all architectures load with the right numbers and the right weights.
 * Oracle: libllama loading the same file, and ggml's own reader. */
#include "model/model.h"

#include "mkgguf.h"
#include "test.h"

#include <llama.h>
#include <unistd.h>

static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};

static void check_against_libllama(const char *path, const kept_model_info *o)
{
    struct llama_model *l = llama_model_load_from_file(path, llama_model_default_params());
    CHECK(l != NULL);
    if (!l)
        return;
    CHECK_INT(o->n_layers, llama_model_n_layer(l));
    CHECK_INT(o->n_heads, llama_model_n_head(l));
    CHECK_INT(o->n_kv_heads, llama_model_n_head_kv(l));
    CHECK_INT(o->n_embd, llama_model_n_embd(l));
    CHECK_INT(o->n_ctx_train, llama_model_n_ctx_train(l));
    CHECK_INT(o->sliding_window, llama_model_n_swa(l));
    CHECK_INT(o->n_params, llama_model_n_params(l));
    CHECK_INT(o->weight_bytes, llama_model_size(l));
    CHECK_INT(o->n_vocab, llama_vocab_n_tokens(llama_model_get_vocab(l)));
    llama_model_free(l);
}

/* Bytes of tensor name in the file, read by ggml. */
static bool same_bytes(struct ggml_context *file, const char *name, const struct ggml_tensor *t)
{
    struct ggml_tensor *f = ggml_get_tensor(file, name);
    return f && t && f->type == t->type && ggml_nbytes(f) == ggml_nbytes(t) &&
           memcmp(f->data, t->data, ggml_nbytes(f)) == 0;
}

static void check_weights(const char *path, const struct kept_model *m)
{
    struct ggml_context *ctx = NULL;
    struct gguf_init_params p = {.no_alloc = false, .ctx = &ctx};
    struct gguf_context *g = gguf_init_from_file(path, p);
    const kept_layer *y = &m->layers[1];
    CHECK(g && same_bytes(ctx, "token_embd.weight", m->tok_embd));
    CHECK(g && same_bytes(ctx, "output_norm.weight", m->output_norm));
    CHECK(g && same_bytes(ctx, "blk.1.attn_k.weight", y->k.w));
    CHECK(g && same_bytes(ctx, "blk.1.attn_output.weight", y->o.w));
    CHECK(g && same_bytes(ctx, "blk.1.ffn_gate.weight", y->gate.w));
    CHECK(g && same_bytes(ctx, "blk.1.ffn_down.weight", y->down.w));
    CHECK(!!y->q_bias == (strcmp(m->info.arch, "qwen2") == 0));
    CHECK(!y->v_bias || same_bytes(ctx, "blk.1.attn_v.bias", y->v_bias));
    CHECK(!y->k_norm || same_bytes(ctx, "blk.1.attn_k_norm.weight", y->k_norm));
    CHECK(!y->ffn_post_norm || same_bytes(ctx, "blk.1.post_ffw_norm.weight", y->ffn_post_norm));
    CHECK(!!y->ffn_post_norm == (strcmp(m->info.arch, "gemma3") == 0));
    CHECK(!m->rope_factors || same_bytes(ctx, "rope_freqs.weight", m->rope_factors));
    gguf_free(g);
    ggml_free(ctx);
}

static kept_model *open_spec(const mkgguf_spec *s, char **path)
{
    kept_model *m = NULL;
    kept_error err = {.text = ""};
    *path = mkgguf_temp();
    CHECK(*path && mkgguf_write(*path, s) == 0);
    if (*path && kept_model_open(*path, &m, &err) != KEPT_OK) {
        fprintf(stderr, "%s: %s\n", s->arch, err.text);
        CHECK(m != NULL);
    }
    return m;
}

static void close_spec(kept_model *m, char *path)
{
    kept_model_free(m);
    if (path)
        unlink(path);
    free(path);
}

static void test_all_architectures_load(void)
{
    for (int a = 0; a < 4; a++) {
        mkgguf_spec s = mkgguf_default(archs[a]);
        s.rope_factors = a == 0;
        char *path;
        kept_model *m = open_spec(&s, &path);
        if (m) {
            const kept_model_info *o = kept_model_get_info(m);
            CHECK_STR(o->arch, archs[a]);
            CHECK_STR(o->name, "random test model");
            CHECK_STR(o->weight_type, "f32");
            CHECK_INT(o->head_size, 64);
            CHECK_INT(m->n_ff, s.n_ff);
            CHECK_INT(m->n_rope, 64);
            CHECK(m->rope_neox == (a != 0));
            CHECK(m->gelu == (a == 3));
            CHECK_NEAR(m->norm_eps, 1e-5, 1e-12);
            CHECK_NEAR(m->attn_scale, 0.125, 1e-7);
            CHECK_NEAR(m->embd_scale, a == 3 ? sqrt(128) : 1, 1e-5);
            CHECK(a != 0 || m->rope_factors);
            CHECK((m->output.w == m->tok_embd) == s.tied);
            check_against_libllama(path, o);
            check_weights(path, m);
        }
        close_spec(m, path);
    }
}

static void test_gemma_windows(void)
{
    mkgguf_spec s = mkgguf_default("gemma3");
    char *path;
    kept_model *m = open_spec(&s, &path);
    for (int l = 0; m && l < 7; l++) {
        CHECK(m->info.windowed[l] == (l != 5)); /* every 6th layer sees everything */
        CHECK_NEAR(m->layers[l].rope_base, l == 5 ? 100000 : 10000, 0);
    }
    CHECK(m && m->info.sliding_window == 32);
    close_spec(m, path);
    s.sliding_window = 0;
    m = open_spec(&s, &path);
    CHECK(m && m->info.sliding_window == 0 && !m->info.windowed[0]);
    close_spec(m, path);
}

static void test_defaults_of_missing_keys(void)
{
    mkgguf_spec s = mkgguf_default("llama");
    s.sparse = true;
    s.n_embd = 256;
    s.n_kv_heads = s.n_heads;
    s.rope_scaling = 4;
    char *path;
    kept_model *m = open_spec(&s, &path);
    if (m) {
        CHECK_INT(m->info.n_kv_heads, 4);
        CHECK_INT(m->info.head_size, 64);
        CHECK_INT(m->n_rope, 64);
        CHECK_NEAR(m->layers[0].rope_base, 10000, 0);
        CHECK_NEAR(m->layers[0].rope_scale, 0.25, 0);
        check_against_libllama(path, &m->info);
    }
    close_spec(m, path);
}

static void test_quantized_types(void)
{
    static const struct {
        enum ggml_type type;
        const char *name;
    } t[] = {{GGML_TYPE_F16, "f16"},   {GGML_TYPE_Q8_0, "q8_0"}, {GGML_TYPE_Q4_0, "q4_0"},
             {GGML_TYPE_Q4_1, "q4_1"}, {GGML_TYPE_Q4_K, "q4_K"}, {GGML_TYPE_Q6_K, "q6_K"}};
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        mkgguf_spec s = mkgguf_default("llama");
        s.type = t[i].type;
        s.n_embd = 256;
        s.n_ff = 256;
        s.tied = i % 2;
        char *path;
        kept_model *m = open_spec(&s, &path);
        if (m) {
            CHECK_STR(m->info.weight_type, t[i].name);
            CHECK(strstr(m->info.buffers, "CPU ") != NULL);
            CHECK_INT(m->output.w->ne[1], s.n_vocab);
            check_against_libllama(path, &m->info);
        }
        close_spec(m, path);
    }
}

/* Blocks as kept_matrix has them against ggml's own reading of Q4_1. The constant is rounded to
 * F16: half a unit in the last of 11 places. */
static void test_q4_1_is_q4_0_and_a_constant(void)
{
    enum { ROWS = 5, COLS = 96, BLOCKS = COLS / KEPT_SPLIT_BLOCK, WIDTH = 32 };
    float x[ROWS * COLS], want[ROWS * COLS], got[ROWS * COLS];
    uint8_t file[ROWS * BLOCKS * 20], weights[ROWS * BLOCKS * 18];
    uint16_t shift[ROWS * WIDTH];
    kept_rng rng;
    kept_rng_init(&rng, 5);
    for (int i = 0; i < ROWS * COLS; i++)
        x[i] = (float)(3 * kept_rng_normal(&rng) + (i / COLS)); /* also far from zero */
    CHECK_INT(ggml_quantize_chunk(GGML_TYPE_Q4_1, x, file, 0, ROWS, COLS, NULL), sizeof file);
    ggml_get_type_traits(GGML_TYPE_Q4_1)->to_float(file, want, ROWS * COLS);
    kept_split_weights(file, (int64_t)ROWS * BLOCKS, weights);
    kept_split_shift(file, ROWS, BLOCKS, WIDTH, shift);
    ggml_get_type_traits(GGML_TYPE_Q4_0)->to_float(weights, got, ROWS * COLS);
    for (int i = 0; i < ROWS * COLS; i++) {
        const float c = ggml_fp16_to_fp32(shift[i / COLS * WIDTH + i % COLS / KEPT_SPLIT_BLOCK]);
        CHECK_NEAR(got[i] + c, want[i], fabsf(c) / 2048 + 1e-6);
    }
    for (int i = 0; i < ROWS * WIDTH; i++)
        CHECK(i % WIDTH < BLOCKS || shift[i] == 0);
}

static void test_sha256_is_cached(void)
{
    mkgguf_spec s = mkgguf_default("llama");
    char *path, one[65], two[65];
    kept_model *m = open_spec(&s, &path);
    if (m) {
        CHECK_INT(kept_model_sha256(m, one, NULL), KEPT_OK);
        unlink(path);
        CHECK_INT(kept_model_sha256(m, two, NULL), KEPT_OK);
        CHECK_STR(one, two);
        CHECK_INT(strlen(one), 64);
    }
    close_spec(m, path);
}

int main(void)
{
    kept_ggml_start();
    RUN(test_all_architectures_load);
    RUN(test_gemma_windows);
    RUN(test_defaults_of_missing_keys);
    RUN(test_quantized_types);
    RUN(test_q4_1_is_q4_0_and_a_constant);
    RUN(test_sha256_is_cached);
    TEST_END();
}
