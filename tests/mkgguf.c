/* mkgguf: see mkgguf.h. Tensors are made one after the other from one random stream, so leaving one
 * out changes those behind it; a spec is a whole. */
#include "mkgguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct maker {
    const mkgguf_spec *s;
    struct ggml_context *ctx;
    struct gguf_context *g;
    kept_rng rng;
    float *row; /* scratch for one tensor */
} maker;

mkgguf_spec mkgguf_default(const char *arch)
{
    bool gemma = strcmp(arch, "gemma3") == 0, qwen2 = strcmp(arch, "qwen2") == 0;
    return (mkgguf_spec){.arch = arch,
                         .n_layers = gemma ? 7 : 3,
                         .n_embd = 128,
                         .n_ff = 192,
                         .n_heads = qwen2 ? 2 : 4,
                         .n_kv_heads = qwen2 ? 1 : 2,
                         .head_size = 64,
                         .n_vocab = 512,
                         .n_ctx = 4096,
                         .type = GGML_TYPE_F32,
                         .tied = gemma,
                         .seed = 1,
                         .sliding_window = gemma ? 32 : 0};
}

char *mkgguf_temp(void)
{
    const char *dir = getenv("TMPDIR");
    char path[512];
    snprintf(path, sizeof path, "%.400s/kept-test-XXXXXX", dir && *dir ? dir : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0)
        return NULL;
    close(fd);
    return strdup(path);
}

/* ne1 = 0: a vector of F32. spread 0: values near 1, as norms are. */
static void add(maker *m, const char *name, int64_t ne0, int64_t ne1, float spread)
{
    int64_t rows = ne1 ? ne1 : 1;
    enum ggml_type type = ne1 ? m->s->type : GGML_TYPE_F32;
    struct ggml_tensor *t =
        ne1 ? ggml_new_tensor_2d(m->ctx, type, ne0, ne1) : ggml_new_tensor_1d(m->ctx, type, ne0);
    ggml_set_name(t, name);
    for (int64_t i = 0; i < ne0 * rows; i++) {
        float x = (float)kept_rng_normal(&m->rng);
        m->row[i] = spread > 0 ? spread * x : 1 + 0.1f * x;
    }
    if (type == GGML_TYPE_F32)
        memcpy(t->data, m->row, sizeof *m->row * (size_t)(ne0 * rows));
    else
        ggml_quantize_chunk(type, m->row, t->data, 0, rows, ne0, NULL);
    if (!m->s->tweak_tensor || m->s->tweak_tensor(t, m->s->user))
        gguf_add_tensor(m->g, t);
}

static void add_layer(maker *m, int i)
{
    const mkgguf_spec *s = m->s;
    bool gemma3 = strcmp(s->arch, "gemma3") == 0, qwen2 = strcmp(s->arch, "qwen2") == 0;
    bool qk_norm = gemma3 || strcmp(s->arch, "qwen3") == 0;
    int64_t e = s->n_embd, d = s->head_size, nq = d * s->n_heads, nk = d * s->n_kv_heads;
    float se = 1.6f / sqrtf((float)e), sq = se * (s->qk_gain > 0 ? s->qk_gain : 1);
    char n[64];
#define NAME(x) (snprintf(n, sizeof n, "blk.%d." x, i), n)
    add(m, NAME("attn_norm.weight"), e, 0, 0);
    add(m, NAME("attn_q.weight"), e, nq, sq);
    add(m, NAME("attn_k.weight"), e, nk, sq);
    add(m, NAME("attn_v.weight"), e, nk, se);
    if (qwen2) {
        add(m, NAME("attn_q.bias"), nq, 0, 0.3f);
        add(m, NAME("attn_k.bias"), nk, 0, 0.3f);
        add(m, NAME("attn_v.bias"), nk, 0, 0.3f);
    }
    if (qk_norm) {
        add(m, NAME("attn_q_norm.weight"), d, 0, 0);
        add(m, NAME("attn_k_norm.weight"), d, 0, 0);
    }
    add(m, NAME("attn_output.weight"), nq, e, 1.6f / sqrtf((float)nq));
    if (gemma3)
        add(m, NAME("post_attention_norm.weight"), e, 0, 0);
    add(m, NAME("ffn_norm.weight"), e, 0, 0);
    add(m, NAME("ffn_gate.weight"), e, s->n_ff, se);
    add(m, NAME("ffn_up.weight"), e, s->n_ff, se);
    add(m, NAME("ffn_down.weight"), s->n_ff, e, 1.6f / sqrtf((float)s->n_ff));
    if (gemma3)
        add(m, NAME("post_ffw_norm.weight"), e, 0, 0);
#undef NAME
}

static void set_u32(maker *m, const char *suffix, int v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", m->s->arch, suffix);
    gguf_set_val_u32(m->g, key, (uint32_t)v);
}

static void set_f32(maker *m, const char *suffix, float v)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", m->s->arch, suffix);
    gguf_set_val_f32(m->g, key, v);
}

static void set_sizes(maker *m)
{
    const mkgguf_spec *s = m->s;
    gguf_set_val_str(m->g, "general.architecture", s->arch);
    gguf_set_val_str(m->g, "general.name", "random test model");
    set_u32(m, "context_length", s->n_ctx);
    set_u32(m, "embedding_length", s->n_embd);
    set_u32(m, "block_count", s->n_layers);
    set_u32(m, "feed_forward_length", s->n_ff);
    set_u32(m, "attention.head_count", s->n_heads);
    set_f32(m, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (s->sliding_window)
        set_u32(m, "attention.sliding_window", s->sliding_window);
    if (s->rope_scaling > 0)
        set_f32(m, "rope.scaling.factor", s->rope_scaling);
    if (s->sparse)
        return;
    set_u32(m, "attention.head_count_kv", s->n_kv_heads);
    set_u32(m, "attention.key_length", s->head_size);
    set_u32(m, "attention.value_length", s->head_size);
    set_u32(m, "rope.dimension_count", s->head_size);
    set_f32(m, "rope.freq_base", 100000);
    set_u32(m, "vocab_size", s->n_vocab);
}

/* "\xe2\x96\x81" is the blank of SentencePiece. Longer words score better. */
#define BLANK "\xe2\x96\x81"
static const char *const words[] = {
    BLANK,         BLANK "the", BLANK "he", BLANK "h", "he", "ll",  "llo",   "hello",
    BLANK "hello", "lo",        "wo",       "ld",      "or", "wor", "world", BLANK "world",
    BLANK "wor",   BLANK "w",   BLANK "wo", "user",    "us", "er",  "ass",   "ant"};
enum { N_WORDS = sizeof words / sizeof *words };

typedef char token_text[32];

static void spm_token(int i, char *b, float *score, int32_t *type)
{
    enum { BYTES = 3, CHAT = BYTES + 256, WORDS = CHAT + 2, ASCII = WORDS + N_WORDS };
    *score = 0;
    *type = 1;
    if (i < BYTES) {
        strcpy(b, i == 0 ? "<unk>" : i == 1 ? "<s>" : "</s>");
        *type = i == 0 ? 2 : 3;
    } else if (i < CHAT) {
        sprintf(b, "<0x%02X>", i - BYTES);
        *type = 6;
    } else if (i < WORDS) {
        strcpy(b, i == CHAT ? "<|im_start|>" : "<|im_end|>");
        *type = 3;
    } else if (i < ASCII) {
        strcpy(b, words[i - WORDS]);
        *score = -(float)(i - WORDS) - 1;
    } else if (i < ASCII + 94) {
        b[0] = (char)(33 + i - ASCII);
        b[1] = 0;
        *score = -1000;
    } else {
        sprintf(b, BLANK "tok%d", i);
        *score = -(float)i;
    }
}

/* GPT-2 writes byte b as a printable letter: itself where it is one, else the next from U+0100 on.
 */
static void byte_letter(int b, char *out)
{
    int c = b, next = 0x100;
    for (int i = 0; i <= b; i++) {
        bool self = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
        c = self ? i : next++;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        out[1] = 0;
    } else {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        out[2] = 0;
    }
}

static const char *const merges[] = {"h e", "l l", "he ll", "hell o",
                                     "w o", "r l", "wo rl", "worl d"};
enum { N_MERGES = sizeof merges / sizeof *merges };

static void bpe_token(int i, char *b, int32_t *type)
{
    enum { BYTES = 3, MERGED = BYTES + 256 };
    *type = 1;
    if (i < BYTES) {
        strcpy(b, i == 0 ? "<|endoftext|>" : i == 1 ? "<|im_start|>" : "<|im_end|>");
        *type = 3;
    } else if (i < MERGED) {
        byte_letter(i - BYTES, b);
    } else if (i < MERGED + N_MERGES) {
        const char *m = merges[i - MERGED];
        for (; *m; m++)
            if (*m != ' ')
                *b++ = *m;
        *b = 0;
    } else {
        sprintf(b, "tok%d", i);
    }
}

static int set_tokenizer(maker *m)
{
    int n = m->s->n_vocab;
    token_text *text = calloc((size_t)n, sizeof *text);
    const char **ptr = calloc((size_t)n, sizeof *ptr);
    float *score = calloc((size_t)n, sizeof *score);
    int32_t *type = calloc((size_t)n, sizeof *type);
    bool ok = text && ptr && score && type;
    for (int i = 0; ok && i < n; i++) {
        if (m->s->bpe)
            bpe_token(i, text[i], &type[i]);
        else
            spm_token(i, text[i], &score[i], &type[i]);
        ptr[i] = text[i];
    }
    if (ok) {
        gguf_set_val_str(m->g, "tokenizer.ggml.model", m->s->bpe ? "gpt2" : "llama");
        gguf_set_arr_str(m->g, "tokenizer.ggml.tokens", ptr, (size_t)n);
        gguf_set_arr_data(m->g, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, type, (size_t)n);
        gguf_set_val_u32(m->g, "tokenizer.ggml.bos_token_id", 1);
        gguf_set_val_u32(m->g, "tokenizer.ggml.eos_token_id", 2);
        if (m->s->bpe) {
            gguf_set_val_str(m->g, "tokenizer.ggml.pre", "gpt-2");
            gguf_set_arr_str(m->g, "tokenizer.ggml.merges", (const char **)(uintptr_t)merges,
                             N_MERGES);
        } else {
            gguf_set_arr_data(m->g, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, score, (size_t)n);
            gguf_set_val_u32(m->g, "tokenizer.ggml.unknown_token_id", 0);
        }
        gguf_set_val_str(
            m->g, "tokenizer.chat_template",
            "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' "
            "+ message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
    }
    free(text);
    free(ptr);
    free(score);
    free(type);
    return ok ? 0 : -1;
}

static void add_tensors(maker *m)
{
    const mkgguf_spec *s = m->s;
    float se = 1 / sqrtf((float)s->n_embd);
    add(m, "token_embd.weight", s->n_embd, s->n_vocab, se);
    add(m, "output_norm.weight", s->n_embd, 0, 0);
    if (!s->tied)
        add(m, "output.weight", s->n_embd, s->n_vocab, se);
    if (s->rope_factors)
        add(m, "rope_freqs.weight", s->head_size / 2, 0, 0);
    for (int i = 0; i < s->n_layers; i++)
        add_layer(m, i);
}

int mkgguf_write(const char *path, const mkgguf_spec *s)
{
    size_t e = (size_t)s->n_embd, a = (size_t)s->head_size * (size_t)(s->n_heads + s->n_kv_heads);
    size_t embd = e * (size_t)s->n_vocab, ff = e * (size_t)s->n_ff;
    size_t layer = 2 * e * a + 3 * ff + 8 * (e + a) + 4096;
    size_t tensors = 4 + 20 * (size_t)s->n_layers;
    size_t most = embd > ff ? embd : ff;
    most = (most > e * a ? most : e * a) + a + e;
    struct ggml_init_params p = {.mem_size = 4 * (2 * embd + layer * (size_t)s->n_layers) +
                                             tensors * (ggml_tensor_overhead() + 64) + 65536};
    maker m = {.s = s, .ctx = ggml_init(p), .g = gguf_init_empty(), .row = malloc(4 * most)};
    int rc = -1;
    if (m.ctx && m.g && m.row && s->n_vocab >= 400) {
        kept_rng_init(&m.rng, s->seed);
        set_sizes(&m);
        if (set_tokenizer(&m) == 0) {
            if (s->tweak_keys)
                s->tweak_keys(m.g, s->user);
            add_tensors(&m);
            rc = gguf_write_to_file(m.g, path, false) ? 0 : -1;
        }
    }
    free(m.row);
    gguf_free(m.g);
    ggml_free(m.ctx);
    return rc;
}
