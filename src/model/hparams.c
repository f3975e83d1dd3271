/* hparams: what the graph must know beyond the tensors, read from the metadata.
 *
 * Keys, types and defaults are libllama's. Whatever it would compute differently from our graph
 * (experts, per-layer head counts, scaled rotary embeddings beyond linear, soft-capped logits) is
 * refused by name here, so that a wrong result is never the first sign.
 */
#include "model/model.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Typed look-ups. The first failure sticks: later look-ups return their default, and the caller
 * tests status once at the end of a group. */
typedef struct reader {
    const struct gguf_context *g;
    const char *arch;
    char key[160]; /* the key last looked up, for messages */
    kept_error *err;
    kept_status status;
} reader;

/* Index of "<arch>.<suffix>", or -1 if absent or after a failure. */
static int64_t find(reader *r, const char *suffix)
{
    if (r->status != KEPT_OK)
        return -1;
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, suffix);
    return gguf_find_key(r->g, r->key);
}

static bool has_type(reader *r, int64_t i, enum gguf_type type)
{
    enum gguf_type got = gguf_get_kv_type(r->g, i);
    if (got == type)
        return true;
    r->status =
        kept_fail(r->err, KEPT_FORMAT, "%s is of type %s, expected %s: convert the model again",
                  r->key, gguf_type_name(got), gguf_type_name(type));
    return false;
}

/* required < 0: the key must exist, else it is the default. */
static uint32_t get_u32(reader *r, const char *suffix, int64_t fallback)
{
    int64_t i = find(r, suffix);
    if (i >= 0 && has_type(r, i, GGUF_TYPE_UINT32))
        return gguf_get_val_u32(r->g, i);
    if (i < 0 && r->status == KEPT_OK && fallback < 0)
        r->status =
            kept_fail(r->err, KEPT_FORMAT, "%s is missing: convert the model again", r->key);
    return fallback < 0 ? 0 : (uint32_t)fallback;
}

static float get_f32(reader *r, const char *suffix, float fallback)
{
    int64_t i = find(r, suffix);
    float x = i >= 0 && has_type(r, i, GGUF_TYPE_FLOAT32) ? gguf_get_val_f32(r->g, i) : fallback;
    if (r->status == KEPT_OK && !isfinite(x))
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is missing or not finite", r->key);
    return x;
}

static bool get_bool(reader *r, const char *suffix, bool fallback)
{
    int64_t i = find(r, suffix);
    return i >= 0 && has_type(r, i, GGUF_TYPE_BOOL) ? gguf_get_val_bool(r->g, i) : fallback;
}

static const char *get_str(reader *r, const char *suffix, const char *fallback)
{
    int64_t i = find(r, suffix);
    return i >= 0 && has_type(r, i, GGUF_TYPE_STRING) ? gguf_get_val_str(r->g, i) : fallback;
}

/* A number that may also be one per layer; then all layers must agree. */
static uint32_t get_per_layer(reader *r, const char *suffix, int n_layers, int64_t fallback)
{
    int64_t i = find(r, suffix);
    if (i < 0 || gguf_get_kv_type(r->g, i) != GGUF_TYPE_ARRAY)
        return get_u32(r, suffix, fallback);
    enum gguf_type type = gguf_get_arr_type(r->g, i);
    if ((type != GGUF_TYPE_UINT32 && type != GGUF_TYPE_INT32) ||
        gguf_get_arr_n(r->g, i) != (size_t)n_layers) {
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s must hold %d 32-bit integers, one per layer",
                              r->key, n_layers);
        return 0;
    }
    const uint32_t *v = gguf_get_arr_data(r->g, i);
    for (int l = 1; l < n_layers; l++)
        if (v[l] != v[0]) {
            r->status = kept_fail(r->err, KEPT_UNSUPPORTED,
                                  "%s differs between layers (%u and %u): not supported", r->key,
                                  v[0], v[l]);
            return 0;
        }
    return v[0];
}

static int ranged(reader *r, uint32_t v, int lo, int hi)
{
    if (r->status == KEPT_OK && (v < (uint32_t)lo || v > (uint32_t)hi))
        r->status = kept_fail(r->err, KEPT_UNSUPPORTED, "%s is %u, supported are %d to %d", r->key,
                              v, lo, hi);
    return r->status == KEPT_OK ? (int)v : lo;
}

static void refuse(reader *r, bool bad, const char *what)
{
    if (bad && r->status == KEPT_OK)
        r->status = kept_fail(r->err, KEPT_UNSUPPORTED, "%s: %s is not supported", r->key, what);
}

static void read_sizes(struct kept_model *m, reader *r)
{
    kept_model_info *o = &m->info;
    o->n_ctx_train = ranged(r, get_u32(r, "context_length", -1), 1, INT_MAX);
    o->n_embd = ranged(r, get_u32(r, "embedding_length", -1), 1, 65536);
    o->n_layers = ranged(r, get_u32(r, "block_count", -1), 1, KEPT_MAX_LAYERS);
    m->n_ff = ranged(r, get_per_layer(r, "feed_forward_length", o->n_layers, -1), 1, 1 << 20);
    o->n_heads = ranged(r, get_per_layer(r, "attention.head_count", o->n_layers, -1), 1, 1024);
    o->n_kv_heads =
        ranged(r, get_per_layer(r, "attention.head_count_kv", o->n_layers, o->n_heads), 1, 1024);
    if (r->status == KEPT_OK && o->n_heads % o->n_kv_heads)
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is %d, which does not divide %d query heads",
                              r->key, o->n_kv_heads, o->n_heads);

    uint32_t d = o->n_heads > 0 ? (uint32_t)(o->n_embd / o->n_heads) : 0;
    uint32_t v = get_u32(r, "attention.value_length", d);
    uint32_t k = get_u32(r, "attention.key_length", d);
    if (r->status == KEPT_OK && k != v)
        r->status =
            kept_fail(r->err, KEPT_UNSUPPORTED,
                      "key heads of %u and value heads of %u channels: only equal sizes are "
                      "supported",
                      k, v);
    if (r->status == KEPT_OK && k != 64 && k != 80 && k != 96 && k != 128 && k != 256)
        r->status = kept_fail(r->err, KEPT_UNSUPPORTED,
                              "head size %u is not supported (64, 80, 96, 128 and 256 are)", k);
    o->head_size = (int)k;
    m->norm_eps = get_f32(r, "attention.layer_norm_rms_epsilon", NAN);
    if (r->status == KEPT_OK && m->norm_eps < 0)
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is negative", r->key);
}

static void read_refusals(reader *r)
{
    refuse(r, get_u32(r, "expert_count", 0) != 0, "a mixture of experts");
    refuse(r, get_u32(r, "nextn_predict_layers", 0) != 0,
           "a model with next-token-prediction layers");
    refuse(r, !get_bool(r, "attention.causal", true), "attention that is not causal");
    refuse(r, get_f32(r, "final_logit_softcapping", 0) != 0, "soft-capping of logits");
    refuse(r, get_f32(r, "attn_logit_softcapping", 0) != 0, "soft-capping of attention logits");
    refuse(r, get_f32(r, "attention.max_alibi_bias", 0) != 0, "an ALiBi bias");
    refuse(r, get_f32(r, "attention.clamp_kqv", 0) != 0, "clamping of Q, K and V");
    refuse(r, get_f32(r, "rope.scaling.attn_factor", 1) != 1, "a rotary attention factor");
}

/* Rotary base and scale of the layers that see everything; windowed layers differ in gemma3. */
static void read_rope(struct kept_model *m, reader *r, float *base, float *scale)
{
    int d = m->info.head_size;
    m->n_rope = ranged(r, get_u32(r, "rope.dimension_count", d), 2, d < 2 ? 2 : d);
    refuse(r, m->n_rope % 2 != 0, "an odd number of rotated channels");
    refuse(r, !m->rope_neox && m->n_rope != d, "rotating only a part of each head");
    *base = get_f32(r, "rope.freq_base", 10000);
    if (r->status == KEPT_OK && !(*base > 0))
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is %g, must be positive", r->key, *base);

    float factor = get_f32(r, "rope.scale_linear", 0);
    factor = get_f32(r, "rope.scaling.factor", factor);
    if (r->status == KEPT_OK && factor < 0)
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is negative", r->key);
    *scale = factor == 0 ? 1 : 1 / factor;
    if (r->status == KEPT_OK && !isfinite(*scale))
        r->status = kept_fail(r->err, KEPT_FORMAT, "%s is too small", r->key);
    const char *type = get_str(r, "rope.scaling.type", "linear");
    if (strcmp(type, "none") == 0)
        *scale = 1;
    else if (r->status == KEPT_OK && strcmp(type, "linear") != 0)
        r->status = kept_fail(r->err, KEPT_UNSUPPORTED,
                              "%s: rotary scaling \"%.20s\" is not supported (none and linear are)",
                              r->key, type);
}

/* gemma3: which layers are windowed. The pattern is a period (its last layer sees everything) or
 * one flag per layer. */
static void read_windows(struct kept_model *m, reader *r)
{
    kept_model_info *o = &m->info;
    const char *pattern = "attention.sliding_window_pattern";
    o->sliding_window = ranged(r, get_u32(r, "attention.sliding_window", 0), 0, INT_MAX);
    if (o->sliding_window == 0)
        return;
    refuse(r, get_u32(r, "attention.key_length_swa", o->head_size) != (uint32_t)o->head_size,
           "another head size in windowed layers");
    refuse(r, get_u32(r, "attention.value_length_swa", o->head_size) != (uint32_t)o->head_size,
           "another head size in windowed layers");
    refuse(r, get_u32(r, "rope.dimension_count_swa", m->n_rope) != (uint32_t)m->n_rope,
           "another number of rotated channels in windowed layers");
    int64_t i = find(r, pattern);
    if (i >= 0 && gguf_get_kv_type(r->g, i) == GGUF_TYPE_ARRAY) {
        enum gguf_type type = gguf_get_arr_type(r->g, i);
        bool wide = type == GGUF_TYPE_UINT32 || type == GGUF_TYPE_INT32;
        if ((!wide && type != GGUF_TYPE_BOOL) || gguf_get_arr_n(r->g, i) != (size_t)o->n_layers) {
            r->status = kept_fail(r->err, KEPT_FORMAT, "%s must hold %d flags, one per layer",
                                  r->key, o->n_layers);
            return;
        }
        const void *data = gguf_get_arr_data(r->g, i);
        for (int l = 0; l < o->n_layers; l++)
            o->windowed[l] =
                wide ? ((const uint32_t *)data)[l] != 0 : ((const int8_t *)data)[l] != 0;
        return;
    }
    uint32_t period = get_u32(r, pattern, 6);
    for (int l = 0; l < o->n_layers; l++)
        o->windowed[l] = period == 0 || (uint32_t)l % period < period - 1;
}

static kept_status read_layers(struct kept_model *m, reader *r)
{
    kept_model_info *o = &m->info;
    float base, scale, base_window = 10000;
    read_rope(m, r, &base, &scale);
    if (strcmp(r->arch, "gemma3") == 0) {
        read_windows(m, r);
        if (o->sliding_window > 0)
            base_window = get_f32(r, "rope.freq_base_swa", 10000);
        if (r->status == KEPT_OK && !(base_window > 0))
            r->status = kept_fail(r->err, KEPT_FORMAT, "%s must be positive", r->key);
    }
    if (r->status != KEPT_OK)
        return r->status;
    m->layers = kept_calloc((size_t)o->n_layers, sizeof *m->layers);
    if (!m->layers)
        return kept_fail(r->err, KEPT_NOMEM, "out of memory for %d layers", o->n_layers);
    bool any = false;
    for (int l = 0; l < o->n_layers; l++) {
        any |= o->windowed[l];
        m->layers[l].rope_base = o->windowed[l] ? base_window : base;
        m->layers[l].rope_scale = o->windowed[l] ? 1 : scale;
    }
    if (!any)
        o->sliding_window = 0;
    return KEPT_OK;
}

/* The model's name without control characters, cut to its room. */
static void read_name(struct kept_model *m, const struct gguf_context *g)
{
    int64_t i = gguf_find_key(g, "general.name");
    const char *slash = m->path ? strrchr(m->path, '/') : NULL;
    const char *from = slash ? slash + 1 : m->path ? m->path : "";
    if (i >= 0 && gguf_get_kv_type(g, i) == GGUF_TYPE_STRING && *gguf_get_val_str(g, i))
        from = gguf_get_val_str(g, i);
    size_t n = 0;
    for (; n + 1 < sizeof m->info.name && from[n]; n++)
        m->info.name[n] = (unsigned char)from[n] < 32 || from[n] == 127 ? '?' : from[n];
    m->info.name[n] = 0;
    /* never cut a UTF-8 sequence in two */
    while (from[n] && n > 0 && ((unsigned char)from[n] & 0xC0) == 0x80)
        m->info.name[--n] = 0;
}

kept_status kept_hparams_read(struct kept_model *m, const struct gguf_context *g, kept_error *err)
{
    static const char *const archs[] = {"llama", "qwen2", "qwen3", "gemma3"};
    int64_t i = gguf_find_key(g, "general.architecture");
    if (i < 0 || gguf_get_kv_type(g, i) != GGUF_TYPE_STRING)
        return kept_fail(err, KEPT_FORMAT, "general.architecture is missing: not a language model");
    const char *arch = gguf_get_val_str(g, i);
    size_t a = 0;
    while (a < sizeof archs / sizeof *archs && strcmp(arch, archs[a]) != 0)
        a++;
    if (a == sizeof archs / sizeof *archs)
        return kept_fail(
            err, KEPT_UNSUPPORTED,
            "architecture \"%.40s\" is not supported (llama, qwen2, qwen3, gemma3 are)", arch);
    snprintf(m->info.arch, sizeof m->info.arch, "%s", archs[a]);
    bool gemma = strcmp(m->info.arch, "gemma3") == 0;
    m->rope_neox = strcmp(m->info.arch, "llama") != 0;
    m->gelu = gemma;
    read_name(m, g);

    reader r = {.g = g, .arch = archs[a], .err = err, .status = KEPT_OK};
    read_sizes(m, &r);
    read_refusals(&r);
    kept_status s = read_layers(m, &r);
    if (s != KEPT_OK)
        return s;
    const kept_model_info *o = &m->info;
    /* libllama tells the 27-billion gemma3, which scales by another width, by its layer count. */
    int width = gemma && o->n_layers == 62 ? o->n_embd / o->n_heads : o->head_size;
    m->attn_scale = 1 / sqrtf((float)width);
    m->embd_scale = gemma ? sqrtf((float)o->n_embd) : 1;
    i = gguf_find_key(g, "tokenizer.ggml.tokens");
    if (i < 0 || gguf_get_kv_type(g, i) != GGUF_TYPE_ARRAY || gguf_get_arr_n(g, i) < 1 ||
        gguf_get_arr_n(g, i) > INT_MAX)
        return kept_fail(err, KEPT_FORMAT, "tokenizer.ggml.tokens is missing or empty");
    m->info.n_vocab = (int)gguf_get_arr_n(g, i);
    return KEPT_OK;
}
