/* gguf_meta: the values in a file's metadata that libllama's tokenizer loader takes on trust.
 *
 * Found by reading that loader for asserts and for exceptions that can leave llama_tokenize:
 *   - two tokens with the same text fail an assert in the loader;
 *   - a SentencePiece vocabulary without a token for some byte throws out of llama_tokenize;
 *   - a byte token whose text is not "<0xHH>" throws in the loader, with no hint why;
 *   - the pre-tokenizer "whitespace" aborts on two blanks in a row;
 *   - a very long token makes the piece cache grow with the square of its length.
 * The rest it would refuse by itself, but here the message says which key is wrong.
 */
#include "model/gguf_index.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKEN  4096
#define MAX_SQUARE (UINT64_C(1) << 30) /* sum of squared token lengths */

enum { ANY = GGUF_TYPE_COUNT };

/* Keys read by name; item ANY: checked elsewhere. */
static const struct {
    const char *key;
    enum gguf_type type, item;
} known[] = {
    {"general.architecture", GGUF_TYPE_STRING, GGUF_TYPE_STRING},
    {"general.name", GGUF_TYPE_STRING, GGUF_TYPE_STRING},
    {"general.file_type", GGUF_TYPE_UINT32, GGUF_TYPE_UINT32},
    {"split.count", GGUF_TYPE_UINT16, GGUF_TYPE_UINT16},
    {"tokenizer.chat_template", GGUF_TYPE_STRING, GGUF_TYPE_STRING},
    {"tokenizer.ggml.model", GGUF_TYPE_STRING, GGUF_TYPE_STRING},
    {"tokenizer.ggml.pre", GGUF_TYPE_STRING, GGUF_TYPE_STRING},
    {"tokenizer.ggml.tokens", GGUF_TYPE_ARRAY, GGUF_TYPE_STRING},
    {"tokenizer.ggml.merges", GGUF_TYPE_ARRAY, GGUF_TYPE_STRING},
    {"tokenizer.ggml.scores", GGUF_TYPE_ARRAY, (enum gguf_type)ANY},
    {"tokenizer.ggml.token_type", GGUF_TYPE_ARRAY, GGUF_TYPE_INT32},
    {"tokenizer.ggml.token_type_count", GGUF_TYPE_UINT32, GGUF_TYPE_UINT32},
    {"tokenizer.ggml.add_bos_token", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.add_eos_token", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.add_sep_token", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.add_space_prefix", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.remove_extra_whitespaces", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.normalizer.lowercase", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.normalizer.strip_accents", GGUF_TYPE_BOOL, GGUF_TYPE_BOOL},
    {"tokenizer.ggml.suppress_tokens", GGUF_TYPE_ARRAY, GGUF_TYPE_INT32},
};

static kept_status check_types(const kept_gguf_index *x, kept_error *err)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const kept_gguf_kv *kv = kept_gguf_find(x, known[i].key);
        if (!kv)
            continue;
        bool any = (int)known[i].item == ANY;
        if (kv->type != known[i].type || (!any && kv->item != known[i].item))
            return kept_fail(err, KEPT_FORMAT, "key %s is %s%s, expected %s%s", known[i].key,
                             kv->type == GGUF_TYPE_ARRAY ? "an array of " : "",
                             gguf_type_name(kv->item),
                             known[i].type == GGUF_TYPE_ARRAY ? "an array of " : "",
                             any ? "numbers" : gguf_type_name(known[i].item));
    }
    const kept_gguf_kv *split = kept_gguf_find(x, "split.count");
    uint16_t parts = 0;
    if (split)
        memcpy(&parts, split->data, 2);
    if (parts > 1)
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "the model is split over %u files: merge them with llama-gguf-split",
                         parts);
    return KEPT_OK;
}

/* Every "tokenizer.ggml.*_token_id" must be the id of a token. */
static kept_status check_ids(const kept_gguf_index *x, uint64_t n_tokens, kept_error *err)
{
    static const char head[] = "tokenizer.ggml.", tail[] = "_token_id";
    const size_t nh = sizeof head - 1, nt = sizeof tail - 1;
    for (uint64_t i = 0; i < x->n_kv; i++) {
        const kept_gguf_kv *kv = &x->kv[i];
        if (kv->key.n < nh + nt || memcmp(kv->key.s, head, nh) != 0 ||
            memcmp(kv->key.s + kv->key.n - nt, tail, nt) != 0)
            continue;
        uint32_t id = 0;
        if (kv->type != GGUF_TYPE_UINT32)
            return kept_fail(err, KEPT_FORMAT, "key %.*s is %s, expected u32", (int)kv->key.n,
                             kv->key.s, gguf_type_name(kv->type));
        memcpy(&id, kv->data, 4);
        if (id >= n_tokens)
            return kept_fail(err, KEPT_FORMAT, "key %.*s is %u, but there are only %llu tokens",
                             (int)kv->key.n, kv->key.s, id, (unsigned long long)n_tokens);
    }
    return KEPT_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that "<0xHH>" stands for, or -1. */
static int byte_of(kept_gguf_str s)
{
    if (s.n != 6 || memcmp(s.s, "<0x", 3) != 0 || s.s[5] != '>')
        return -1;
    int hi = hex_digit(s.s[3]), lo = hex_digit(s.s[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* Texts as libllama will see them: cut at a NUL. Fills s[0..count). */
static kept_status check_texts(const kept_gguf_kv *tokens, const kept_gguf_kv *types, bool bytes,
                               kept_gguf_str *s, kept_error *err)
{
    bool have[256] = {false};
    uint64_t square = 0;
    const uint8_t *at = tokens->data;
    for (uint64_t i = 0; i < tokens->count; i++) {
        s[i] = kept_gguf_next_str(&at);
        const void *nul = memchr(s[i].s, 0, s[i].n);
        if (nul)
            s[i].n = (size_t)((const char *)nul - s[i].s);
        square += (uint64_t)s[i].n * s[i].n;
        if (s[i].n > MAX_TOKEN || square > MAX_SQUARE)
            return kept_fail(err, KEPT_FORMAT,
                             "tokenizer.ggml.tokens: token %llu is %zu bytes long",
                             (unsigned long long)i, s[i].n);
        int b = byte_of(s[i]);
        if (b >= 0)
            have[b] = true;
        else if (s[i].n == 1)
            have[(unsigned char)s[i].s[0]] = true;
        int32_t type = 0;
        if (types)
            memcpy(&type, types->data + 4 * i, 4);
        if (type == 6 && b < 0)
            return kept_fail(err, KEPT_FORMAT,
                             "tokenizer.ggml.tokens: byte token %llu is not written <0xHH>",
                             (unsigned long long)i);
    }
    for (int b = 0; b < 256 && bytes; b++)
        if (!have[b])
            return kept_fail(err, KEPT_FORMAT,
                             "tokenizer.ggml.tokens has no token <0x%02X> for that byte", b);
    return KEPT_OK;
}

static kept_status check_tokens(const kept_gguf_kv *tokens, const kept_gguf_kv *types, bool bytes,
                                kept_error *err)
{
    kept_gguf_str *s = kept_calloc((size_t)tokens->count, sizeof *s);
    if (!s)
        return kept_fail(err, KEPT_NOMEM, "out of memory checking %llu tokens",
                         (unsigned long long)tokens->count);
    kept_status status = check_texts(tokens, types, bytes, s, err);
    if (status == KEPT_OK) {
        /* libllama calls token i "[EMPTY_i]" if it has no text, which must not be taken either */
        size_t n = 0;
        bool taken = false;
        for (uint64_t i = 0; i < tokens->count; i++) {
            taken = taken || (s[i].n > 7 && memcmp(s[i].s, "[EMPTY_", 7) == 0);
            if (s[i].n)
                s[n++] = s[i];
        }
        int64_t twice = kept_gguf_duplicate(s, n);
        if (taken && n < tokens->count)
            status = kept_fail(err, KEPT_FORMAT,
                               "tokenizer.ggml.tokens has tokens without text and one \"[EMPTY_\"");
        else if (twice >= 0)
            status = kept_fail(err, KEPT_FORMAT, "tokenizer.ggml.tokens: \"%.*s\" is there twice",
                               s[twice].n < 60 ? (int)s[twice].n : 60, s[twice].s);
        else if (twice == -2)
            status = kept_fail(err, KEPT_NOMEM, "out of memory checking tokens");
    }
    free(s);
    return status;
}

/* Scores and types: one per token, scores finite (they order a heap). */
static kept_status check_columns(const kept_gguf_kv *scores, const kept_gguf_kv *types,
                                 uint64_t n_tokens, kept_error *err)
{
    const kept_gguf_kv *both[2] = {scores, types};
    for (int i = 0; i < 2; i++)
        if (both[i] && both[i]->count != n_tokens)
            return kept_fail(err, KEPT_FORMAT, "key %.*s has %llu elements for %llu tokens",
                             (int)both[i]->key.n, both[i]->key.s,
                             (unsigned long long)both[i]->count, (unsigned long long)n_tokens);
    if (!scores || scores->item == GGUF_TYPE_INT32)
        return KEPT_OK;
    if (scores->item != GGUF_TYPE_FLOAT32)
        return kept_fail(err, KEPT_FORMAT,
                         "key tokenizer.ggml.scores is an array of %s, expected f32",
                         gguf_type_name(scores->item));
    for (uint64_t i = 0; i < n_tokens; i++) {
        float f;
        memcpy(&f, scores->data + 4 * i, 4);
        if (isnan(f))
            return kept_fail(err, KEPT_FORMAT, "tokenizer.ggml.scores: score %llu is not a number",
                             (unsigned long long)i);
    }
    return KEPT_OK;
}

static kept_status check_merges(const kept_gguf_kv *merges, kept_error *err)
{
    if (!merges)
        return kept_fail(err, KEPT_FORMAT,
                         "tokenizer.ggml.merges is missing: convert the model again");
    const uint8_t *at = merges->data;
    for (uint64_t i = 0; i < merges->count; i++) {
        kept_gguf_str s = kept_gguf_next_str(&at);
        const char *blank = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
        if (!blank || blank == s.s + s.n - 1 || s.n > 2 * MAX_TOKEN || memchr(s.s, 0, s.n))
            return kept_fail(err, KEPT_FORMAT,
                             "tokenizer.ggml.merges: merge %llu is not two texts and a blank",
                             (unsigned long long)i);
    }
    return KEPT_OK;
}

static kept_status check_embedding(const kept_gguf_index *x, uint64_t n_tokens, kept_error *err)
{
    for (uint64_t i = 0; i < x->n_tensors; i++) {
        const kept_gguf_tensor *t = &x->tensors[i];
        if (t->name.n == 17 && memcmp(t->name.s, "token_embd.weight", 17) == 0 &&
            (uint64_t)t->ne[1] != n_tokens)
            return kept_fail(err, KEPT_FORMAT, "token_embd.weight has %lld rows for %llu tokens",
                             (long long)t->ne[1], (unsigned long long)n_tokens);
    }
    return KEPT_OK;
}

static bool is_text(const kept_gguf_kv *kv, const char *text)
{
    const uint8_t *at = kv ? kv->data : NULL;
    kept_gguf_str s = kv ? kept_gguf_next_str(&at) : (kept_gguf_str){"", 0};
    return s.n == strlen(text) && memcmp(s.s, text, s.n) == 0;
}

kept_status kept_gguf_check_meta(const kept_gguf_index *x, kept_error *err)
{
    kept_status s = check_types(x, err);
    if (s != KEPT_OK)
        return s;
    const kept_gguf_kv *model = kept_gguf_find(x, "tokenizer.ggml.model");
    const kept_gguf_kv *tokens = kept_gguf_find(x, "tokenizer.ggml.tokens");
    const kept_gguf_kv *types = kept_gguf_find(x, "tokenizer.ggml.token_type");
    if (!kept_gguf_find(x, "general.architecture"))
        return kept_fail(err, KEPT_FORMAT, "general.architecture is missing: not a language model");
    if (!model || !tokens || tokens->count < 1)
        return kept_fail(err, KEPT_FORMAT, "tokenizer.ggml.model or .tokens is missing or empty");
    bool spm = is_text(model, "llama");
    if (!spm && !is_text(model, "gpt2"))
        return kept_fail(
            err, KEPT_UNSUPPORTED,
            "the tokenizer is of another kind than llama (SentencePiece) and gpt2 (BPE)");
    if (!spm && is_text(kept_gguf_find(x, "tokenizer.ggml.pre"), "whitespace"))
        return kept_fail(err, KEPT_UNSUPPORTED, "pre-tokenizer \"whitespace\" is not supported");
    if ((s = check_columns(kept_gguf_find(x, "tokenizer.ggml.scores"), types, tokens->count,
                           err)) ||
        (s = check_tokens(tokens, types, spm, err)) || (s = check_ids(x, tokens->count, err)) ||
        (s = check_embedding(x, tokens->count, err)))
        return s;
    return spm ? KEPT_OK : check_merges(kept_gguf_find(x, "tokenizer.ggml.merges"), err);
}
