/* test_gguf: models load with the right numbers, and anything wrong in a file gives the right
 * status with one line that names it. Oracle: libllama loading the same file, and ggml's own
 * reader. */
#include "model/model.h"

#include "mkgguf.h"
#include "test.h"

#include <unistd.h>

static void close_spec(kept_model *m, char *path)
{
    kept_model_free(m);
    if (path)
        unlink(path);
    free(path);
}

/* ---- wrong bytes --------------------------------------------------------------------------- */

static uint8_t *file;
static size_t file_bytes;

static void check_line(kept_status got, kept_status want, const kept_error *err, const char *part)
{
    bool line = strstr(err->text, part) && !strchr(err->text, '\n') && err->text[0];
    if (got != want || (got != KEPT_OK && !line)) {
        fprintf(stderr, "expected %s \"%s\", got %s \"%s\"\n", kept_status_name(want), part,
                kept_status_name(got), got ? err->text : "");
        test_failed = 1;
    }
}

/* Checks the file with n bytes at offset at replaced. */
static void patched(size_t at, const void *bytes, size_t n, kept_status want, const char *part)
{
    uint8_t old[64];
    kept_error err = {.text = ""};
    memcpy(old, file + at, n);
    memcpy(file + at, bytes, n);
    kept_status s = kept_gguf_check_mem(file, file_bytes, &err);
    check_line(s, want, &err, part);
    memcpy(file + at, old, n);
}

static void patched_u32(size_t at, uint32_t v, kept_status want, const char *part)
{
    patched(at, &v, 4, want, part);
}

static void patched_u64(size_t at, uint64_t v, kept_status want, const char *part)
{
    patched(at, &v, 8, want, part);
}

/* Offset behind the first occurrence of text. */
static size_t behind(const char *text)
{
    const uint8_t *p = memmem(file, file_bytes, text, strlen(text));
    if (!p) {
        fprintf(stderr, "%s is not in the file\n", text);
        exit(1);
    }
    return (size_t)(p - file) + strlen(text);
}

/* The default, written out: ggml's writer pads to 32 whatever the key says. */
static void align_key(struct gguf_context *g, void *user)
{
    (void)user;
    gguf_set_val_u32(g, "general.alignment", 32);
}

static int load_file(void)
{
    mkgguf_spec s = mkgguf_default("qwen2");
    s.n_layers = 2;
    s.n_embd = 64;
    s.n_heads = 1;
    s.n_kv_heads = 1;
    s.n_ff = 64;
    s.type = GGML_TYPE_Q8_0;
    s.tweak_keys = align_key;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &s) != 0)
        return -1;
    FILE *f = fopen(path, "rb");
    fseek(f, 0, SEEK_END);
    file_bytes = (size_t)ftell(f);
    rewind(f);
    file = malloc(file_bytes);
    size_t got = fread(file, 1, file_bytes, f);
    fclose(f);
    unlink(path);
    free(path);
    kept_error err = {.text = ""};
    if (got == file_bytes && kept_gguf_check_mem(file, file_bytes, &err) == KEPT_OK)
        return 0;
    fprintf(stderr, "%s\n", err.text);
    return -1;
}

static void test_header(void)
{
    patched(0, "GGUX", 4, KEPT_FORMAT, "not a GGUF file");
    patched_u32(4, 1, KEPT_UNSUPPORTED, "version 1");
    patched_u32(4, 4, KEPT_UNSUPPORTED, "version 4");
    patched_u32(4, 0x03000000, KEPT_UNSUPPORTED, "big-endian");
    patched_u32(4, 2, KEPT_OK, "");
    patched_u64(8, 0, KEPT_FORMAT, "counts 0 tensors");
    patched_u64(8, UINT64_MAX, KEPT_FORMAT, "tensors");
    patched_u64(8, 65536, KEPT_FORMAT, "");
    patched_u64(8, UINT64_C(1) << 40, KEPT_FORMAT, "1099511627776 tensors");
    patched_u64(16, UINT64_MAX, KEPT_FORMAT, "keys");
    patched_u64(16, 0, KEPT_FORMAT, "0 keys");
    patched_u64(16, 65536, KEPT_FORMAT, "");
}

static void test_truncation(void)
{
    kept_error err = {.text = ""};
    size_t table = behind("blk.1.ffn_down.weight");
    for (size_t n = 0; n < file_bytes;
         n += n < 600 || (n > table - 400 && n < table + 100) ? 1 : 61) {
        uint8_t *copy = malloc(n ? n : 1); /* exact, so that a sanitizer sees one byte too many */
        memcpy(copy, file, n);
        err.text[0] = 0;
        check_line(kept_gguf_check_mem(copy, n, &err), KEPT_FORMAT, &err, "file ends");
        free(copy);
    }
    kept_gguf_check_mem(file, file_bytes - 10, &err);
    /* the last tensor is a multiple of 64 bytes: nothing behind it may be missing */
    CHECK(strstr(err.text, "10 of ") != NULL);
}

static void test_metadata_bytes(void)
{
    size_t type = behind("tokenizer.ggml.bos_token_id");
    patched(behind("tokenizer.ggml.") - 15, "tokeni\nzer", 10, KEPT_FORMAT, "not printable");
    patched(type - 12, "e", 1, KEPT_FORMAT, "tokenizer.ggml.eos_token_id is there twice");
    patched_u32(type, 99, KEPT_FORMAT, "value type 99");
    patched_u32(type, GGUF_TYPE_INT32, KEPT_FORMAT, "expected u32");
    patched_u32(type, GGUF_TYPE_FLOAT32, KEPT_FORMAT, "expected u32");
    patched_u32(type + 4, 512, KEPT_FORMAT, "only 512 tokens");
    patched_u64(type - 27 - 8, UINT64_MAX, KEPT_FORMAT, "a string of");
    patched_u64(type - 27 - 8, 0, KEPT_FORMAT, "is empty");

    size_t align = behind("general.alignment");
    patched_u32(align + 4, 4, KEPT_FORMAT, "general.alignment is 4");
    patched_u32(align + 4, 0, KEPT_FORMAT, "general.alignment is 0");
    patched_u32(align + 4, 48, KEPT_FORMAT, "general.alignment is 48");
    patched_u32(align + 4, 131072, KEPT_FORMAT, "general.alignment is 131072");
    patched_u32(align + 4, 128, KEPT_FORMAT, "missing");
    patched_u32(align, GGUF_TYPE_INT32, KEPT_FORMAT, "general.alignment is of type i32");

    size_t tokens = behind("tokenizer.ggml.tokens"); /* type array, element type, count */
    patched_u32(tokens + 4, GGUF_TYPE_ARRAY, KEPT_FORMAT, "of type 9");
    patched_u32(tokens + 4, 77, KEPT_FORMAT, "of type 77");
    patched_u64(tokens + 8, UINT64_MAX, KEPT_FORMAT, "an array of");
    patched_u64(tokens + 8, UINT64_MAX / 8 + 2, KEPT_FORMAT, "an array of");
    patched_u64(tokens + 8, UINT64_C(1) << 25, KEPT_FORMAT, "");
    patched_u64(tokens + 16, UINT64_C(1) << 40, KEPT_FORMAT, "a string of");
    size_t scores = behind("tokenizer.ggml.scores");
    patched_u64(scores + 8, UINT64_C(1) << 25, KEPT_FORMAT, "file ends");
    patched_u32(scores + 4, GGUF_TYPE_UINT32, KEPT_FORMAT, "array of u32, expected f32");
    patched_u32(scores + 16, 0x7fc00000, KEPT_FORMAT, "not a number");
    patched_u32(behind("tokenizer.ggml.token_type") + 4, GGUF_TYPE_UINT32, KEPT_FORMAT,
                "array of u32");
}

static void test_tensor_table(void)
{
    size_t at = behind("output_norm.weight"); /* n_dims u32, ne i64[1], type i32, offset u64 */
    patched_u32(at, 0, KEPT_FORMAT, "0 dimensions");
    patched_u32(at, 5, KEPT_FORMAT, "5 dimensions");
    patched_u64(at + 4, 0, KEPT_FORMAT, "dimension 0 is 0");
    patched_u64(at + 4, UINT64_MAX, KEPT_FORMAT, "dimension 0 is -1");
    patched_u64(at + 4, UINT64_C(1) << 62, KEPT_FORMAT, "dimension 0 is");
    patched_u64(at + 4, UINT64_C(1) << 39, KEPT_FORMAT, "file ends");
    patched_u32(at + 12, 4, KEPT_UNSUPPORTED, "type 4");
    patched_u32(at + 12, 31, KEPT_UNSUPPORTED, "type 31");
    patched_u32(at + 12, 9999, KEPT_UNSUPPORTED, "type 9999");
    patched_u32(at + 12, UINT32_MAX, KEPT_UNSUPPORTED, "type -1");
    patched_u64(at + 16, 1, KEPT_FORMAT, "is at offset 1");
    patched_u64(at + 16, UINT64_MAX - 31, KEPT_FORMAT, "is at offset");
    size_t q = behind("blk.0.attn_q.weight"); /* n_dims u32, ne i64[2], ... */
    patched_u64(q + 4, 33, KEPT_FORMAT, "not whole blocks");
    patched_u64(q + 12, UINT64_C(1) << 60, KEPT_FORMAT, "dimension 1");
    patched(behind("blk.1.attn_q.weight") - 15, "0", 1, KEPT_FORMAT,
            "blk.0.attn_q.weight is there twice");
    patched(q - 1, "\x00", 1, KEPT_FORMAT, "not printable");
    patched_u64(q - 19 - 8, 64, KEPT_FORMAT, "a string of 64 bytes");
}

static void test_token_texts(void)
{
    patched(behind("tok401") - 1, "2", 1, KEPT_FORMAT, "is there twice");
    patched(behind("<0x41>") - 6, "<0y41>", 6, KEPT_FORMAT, "byte token 68");
    patched(behind("<0x41>") - 6, "<0xg1>", 6, KEPT_FORMAT, "byte token 68");
    /* the byte's token under another type: then no token stands for byte 0 */
    size_t types = behind("tokenizer.ggml.token_type") + 16;
    uint32_t normal = 1;
    memcpy(file + types + 4 * 3, &normal, 4);
    patched(behind("<0x00>") - 6, "<0y00>", 6, KEPT_FORMAT, "no token <0x00>");
    normal = 6;
    memcpy(file + types + 4 * 3, &normal, 4);
    patched_u32(types + 4 * 400, 6, KEPT_FORMAT, "byte token 400");
    patched(behind("tok402") - 6, "\xff\xfe\xf0\x80\xc0\xaf", 6, KEPT_OK, "");
}

/* ---- wrong keys and tensors ---------------------------------------------------------------- */

/* One change to an otherwise sound file; %s in key stands for the architecture. */
typedef struct edit {
    const char *arch, *key;
    enum { DROP, U32, F32, STR, BOOL, LAYERS } what;
    double number;
    const char *text;
    kept_status status;
    const char *part; /* of the message */
} edit;

static void apply_edit(struct gguf_context *g, void *user)
{
    const edit *e = user;
    char key[128];
    snprintf(key, sizeof key, e->key, e->arch);
    uint32_t per_layer[3] = {2, 2, (uint32_t)e->number};
    switch (e->what) {
    case DROP:
        gguf_remove_key(g, key);
        break;
    case U32:
        gguf_set_val_u32(g, key, (uint32_t)e->number);
        break;
    case F32:
        gguf_set_val_f32(g, key, (float)e->number);
        break;
    case STR:
        gguf_set_val_str(g, key, e->text);
        break;
    case BOOL:
        gguf_set_val_bool(g, key, e->number != 0);
        break;
    case LAYERS:
        gguf_set_arr_data(g, key, GGUF_TYPE_UINT32, per_layer, 3);
        break;
    }
}

static void open_edited(mkgguf_spec *s, kept_status want, const char *part)
{
    char *path = mkgguf_temp();
    kept_model *m = NULL;
    kept_error err = {.text = ""};
    CHECK(path && mkgguf_write(path, s) == 0);
    if (path)
        check_line(kept_model_open(path, &m, &err), want, &err, part);
    CHECK((m != NULL) == (want == KEPT_OK));
    close_spec(m, path);
}

static void test_keys(void)
{
    static const edit edits[] = {
        {"llama", "general.architecture", STR, 0, "bert", KEPT_UNSUPPORTED, "\"bert\""},
        {"llama", "general.architecture", STR, 0, "a\nb", KEPT_UNSUPPORTED, "\"a b\""},
        {"llama", "general.architecture", DROP, 0, 0, KEPT_FORMAT, "general.architecture"},
        {"llama", "general.architecture", U32, 1, 0, KEPT_FORMAT, "general.architecture is u32"},
        {"llama", "general.name", U32, 1, 0, KEPT_FORMAT, "general.name is u32"},
        {"qwen3", "%s.block_count", DROP, 0, 0, KEPT_FORMAT, "qwen3.block_count is missing"},
        {"qwen3", "%s.block_count", F32, 3, 0, KEPT_FORMAT, "expected u32"},
        {"qwen3", "%s.block_count", U32, 0, 0, KEPT_UNSUPPORTED, "qwen3.block_count is 0"},
        {"qwen3", "%s.block_count", U32, 1e6, 0, KEPT_UNSUPPORTED, "1000000"},
        {"qwen3", "%s.block_count", U32, 4, 0, KEPT_FORMAT, "blk.3.attn_norm.weight is missing"},
        {"qwen3", "%s.block_count", U32, 2, 0, KEPT_UNSUPPORTED, "blk.2."},
        {"llama", "%s.embedding_length", U32, 64, 0, KEPT_FORMAT, "token_embd.weight is [128"},
        {"llama", "%s.feed_forward_length", U32, 191, 0, KEPT_FORMAT, "ffn_gate.weight is"},
        {"llama", "%s.attention.head_count", U32, 0, 0, KEPT_UNSUPPORTED, "head_count is 0"},
        {"llama", "%s.attention.head_count", LAYERS, 4, 0, KEPT_UNSUPPORTED, "between layers"},
        {"llama", "%s.attention.head_count_kv", LAYERS, 2, 0, KEPT_OK, ""},
        {"llama", "%s.attention.head_count_kv", U32, 3, 0, KEPT_FORMAT, "does not divide"},
        {"llama", "%s.attention.head_count_kv", U32, 1, 0, KEPT_FORMAT, "attn_k.weight is"},
        {"llama", "%s.attention.key_length", U32, 128, 0, KEPT_UNSUPPORTED, "value heads of 64"},
        {"llama", "%s.attention.layer_norm_rms_epsilon", DROP, 0, 0, KEPT_FORMAT, "epsilon"},
        {"llama", "%s.attention.layer_norm_rms_epsilon", F32, NAN, 0, KEPT_FORMAT, "not finite"},
        {"llama", "%s.attention.causal", BOOL, 0, 0, KEPT_UNSUPPORTED, "not causal"},
        {"llama", "%s.expert_count", U32, 8, 0, KEPT_UNSUPPORTED, "mixture of experts"},
        {"llama", "%s.rope.dimension_count", U32, 32, 0, KEPT_UNSUPPORTED, "part of each head"},
        {"qwen2", "%s.rope.dimension_count", U32, 66, 0, KEPT_UNSUPPORTED, "is 66"},
        {"qwen2", "%s.rope.freq_base", F32, -1, 0, KEPT_FORMAT, "must be positive"},
        {"qwen2", "%s.rope.freq_base", U32, 1, 0, KEPT_FORMAT, "expected f32"},
        {"qwen2", "%s.rope.scaling.type", STR, 0, "yarn", KEPT_UNSUPPORTED, "\"yarn\""},
        {"qwen2", "%s.rope.scaling.type", STR, 0, "none", KEPT_OK, ""},
        {"qwen2", "%s.rope.scaling.factor", F32, -2, 0, KEPT_FORMAT, "negative"},
        {"qwen2", "%s.rope.scaling.attn_factor", F32, 2, 0, KEPT_UNSUPPORTED, "attention factor"},
        {"gemma3", "%s.final_logit_softcapping", F32, 30, 0, KEPT_UNSUPPORTED, "soft-capping"},
        {"gemma3", "%s.attention.sliding_window_pattern", U32, 2, 0, KEPT_OK, ""},
        {"gemma3", "%s.attention.sliding_window_pattern", LAYERS, 1, 0, KEPT_FORMAT, "7 flags"},
        {"gemma3", "%s.attention.key_length_swa", U32, 128, 0, KEPT_UNSUPPORTED, "windowed"},
        {"llama", "tokenizer.ggml.model", STR, 0, "t5", KEPT_UNSUPPORTED, "another kind"},
        {"llama", "tokenizer.ggml.model", DROP, 0, 0, KEPT_FORMAT, "tokenizer.ggml.model"},
        {"llama", "tokenizer.ggml.model", STR, 0, "gpt2", KEPT_FORMAT, "merges is missing"},
        {"llama", "tokenizer.ggml.tokens", DROP, 0, 0, KEPT_FORMAT, "missing"},
        {"llama", "tokenizer.ggml.tokens", U32, 1, 0, KEPT_FORMAT, "expected an array of str"},
        {"llama", "tokenizer.ggml.scores", DROP, 0, 0, KEPT_OK, ""},
        {"llama", "tokenizer.ggml.scores", LAYERS, 1, 0, KEPT_FORMAT, "3 elements for 512"},
        {"llama", "tokenizer.ggml.token_type", DROP, 0, 0, KEPT_OK, ""},
        {"llama", "tokenizer.ggml.add_bos_token", U32, 1, 0, KEPT_FORMAT, "add_bos_token is u32"},
        {"llama", "tokenizer.ggml.padding_token_id", U32, 512, 0, KEPT_FORMAT, "padding_token_id"},
        {"llama", "tokenizer.chat_template", U32, 1, 0, KEPT_FORMAT, "chat_template"},
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        mkgguf_spec s = mkgguf_default(edits[i].arch);
        edit e = edits[i];
        s.tweak_keys = apply_edit;
        s.user = &e;
        open_edited(&s, e.status, e.part);
    }
}

static void two_parts(struct gguf_context *g, void *user)
{
    (void)user;
    gguf_set_val_u16(g, "split.count", 2);
}

static void bad_merges(struct gguf_context *g, void *user)
{
    gguf_set_arr_str(g, "tokenizer.ggml.merges", user, 2);
}

static void set_pre(struct gguf_context *g, void *user)
{
    gguf_set_val_str(g, "tokenizer.ggml.pre", user);
}

static void fewer_tokens(struct gguf_context *g, void *user)
{
    (void)user;
    static char text[300][8];
    const char *ptr[300];
    for (int i = 0; i < 300; i++) {
        snprintf(text[i], sizeof text[i], i < 256 ? "<0x%02X>" : "t%d", i);
        ptr[i] = text[i];
    }
    gguf_set_arr_str(g, "tokenizer.ggml.tokens", ptr, 300);
    gguf_remove_key(g, "tokenizer.ggml.scores");
    gguf_remove_key(g, "tokenizer.ggml.token_type");
}

static void test_tokenizer_arrays(void)
{
    static char future[] = "of-the-future", whitespace[] = "whitespace";
    const char *one_word[2] = {"h e", "hello"}, *open_end[2] = {"h e", "hello "};
    mkgguf_spec s = mkgguf_default("llama");
    s.tweak_keys = two_parts;
    open_edited(&s, KEPT_UNSUPPORTED, "split over 2 files");
    s.tweak_keys = fewer_tokens;
    open_edited(&s, KEPT_FORMAT, "512 rows for 300 tokens");
    s.tweak_keys = NULL;
    s.bpe = true;
    open_edited(&s, KEPT_OK, "");
    s.tweak_keys = bad_merges;
    s.user = one_word;
    open_edited(&s, KEPT_FORMAT, "merge 1");
    s.user = open_end;
    open_edited(&s, KEPT_FORMAT, "merge 1");
    s.tweak_keys = set_pre;
    s.user = future;
    open_edited(&s, KEPT_UNSUPPORTED, "pre-tokenizer");
    s.user = whitespace; /* aborts inside llama_tokenize */
    open_edited(&s, KEPT_UNSUPPORTED, "\"whitespace\"");
}

/* user: "name=new name", "name=" to leave it out, "name!" to make it I32. */
static bool edit_tensor(struct ggml_tensor *t, void *user)
{
    const char *rule = user;
    size_t n = strcspn(rule, "=!");
    if (strlen(t->name) != n || strncmp(t->name, rule, n) != 0)
        return true;
    if (rule[n] == '!')
        t->type = GGML_TYPE_I32;
    else if (rule[n + 1])
        ggml_set_name(t, rule + n + 1);
    else
        return false;
    return true;
}

static void test_tensors(void)
{
    static const struct {
        const char *arch;
        char rule[80];
        kept_status status;
        const char *part;
    } t[] = {
        {"llama", "blk.0.attn_q.weight=blk.0.attn_x.weight", KEPT_FORMAT,
         "blk.0.attn_q.weight is m"},
        {"llama", "blk.1.ffn_up.weight=", KEPT_FORMAT, "blk.1.ffn_up.weight is missing"},
        {"llama", "output_norm.weight=", KEPT_FORMAT, "output_norm.weight is missing"},
        {"llama", "token_embd.weight=", KEPT_FORMAT, "token_embd.weight is missing"},
        {"llama", "output_norm.weight!", KEPT_UNSUPPORTED, "output_norm.weight is of type i32"},
        {"llama", "blk.2.attn_v.weight!", KEPT_UNSUPPORTED, "blk.2.attn_v.weight is of type i32"},
        {"qwen2", "blk.0.attn_q.bias=", KEPT_OK, ""},
        {"qwen2", "blk.0.attn_q.bias=blk.0.attn_output.bias", KEPT_UNSUPPORTED, "attn_output.bias"},
        {"qwen2", "blk.2.attn_q.bias=output.bias", KEPT_UNSUPPORTED, "output.bias is not part"},
        {"qwen3", "blk.2.attn_q_norm.weight=", KEPT_FORMAT, "attn_q_norm.weight is missing"},
        {"gemma3", "blk.0.post_ffw_norm.weight=", KEPT_FORMAT, "post_ffw_norm.weight is missing"},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        mkgguf_spec s = mkgguf_default(t[i].arch);
        char rule[80];
        memcpy(rule, t[i].rule, sizeof rule);
        s.tweak_tensor = edit_tensor;
        s.user = rule;
        open_edited(&s, t[i].status, t[i].part);
    }
    mkgguf_spec s = mkgguf_default("llama");
    s.head_size = 32;
    open_edited(&s, KEPT_UNSUPPORTED, "head size 32");
}

static void test_paths(void)
{
    kept_model *m = NULL;
    kept_error err = {.text = ""};
    check_line(kept_model_open("/nonexistent/x.gguf", &m, &err), KEPT_IO, &err,
               "/nonexistent/x.gguf");
    check_line(kept_model_open("/", &m, &err), KEPT_IO, &err, "not a regular file");
    check_line(kept_model_open("/dev/null", &m, &err), KEPT_IO, &err, "not a regular file");
    char *path = mkgguf_temp();
    check_line(kept_model_open(path, &m, &err), KEPT_FORMAT, &err, "is empty");
    CHECK_INT(kept_model_open(NULL, &m, NULL), KEPT_ARGUMENT);
    CHECK(!m);
    close_spec(NULL, path);
    kept_model_free(NULL);
}

int main(void)
{
    kept_ggml_start();
    if (load_file() != 0) {
        fprintf(stderr, "cannot make the file to break\n");
        return 1;
    }
    RUN(test_header);
    RUN(test_truncation);
    RUN(test_metadata_bytes);
    RUN(test_tensor_table);
    RUN(test_token_texts);
    RUN(test_keys);
    RUN(test_tokenizer_arrays);
    RUN(test_tensors);
    RUN(test_paths);
    free(file);
    TEST_END();
}
