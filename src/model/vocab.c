/* vocab: text to tokens and back, by libllama on the same file. The only file that calls libllama.
 *
 * libllama opens the file a second time, metadata only. Its asserts on bad input abort the process
 * and its exceptions would cross a C frame, so what could raise either is refused by gguf_check.c
 * or checked here before the call.
 */
#include "model/model.h"

#include <limits.h>
#include <llama.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void be_silent(enum ggml_log_level level, const char *text, void *user)
{
    (void)level, (void)text, (void)user;
}

static void start(void)
{
    llama_log_set(be_silent, NULL);
    ggml_log_set(be_silent, NULL);
    ggml_backend_load_all();
    llama_backend_init();
}

void kept_ggml_start(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
}

kept_status kept_vocab_open(struct kept_model *m, kept_error *err)
{
    struct llama_model_params p = llama_model_default_params();
    p.vocab_only = true;
    m->vocab = llama_model_load_from_file(m->path, p);
    if (!m->vocab)
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "libllama cannot read the tokenizer of %.200s: its kind or its "
                         "pre-tokenizer may be newer than the installed libllama",
                         m->path);
    const struct llama_vocab *v = llama_model_get_vocab(m->vocab);
    if (llama_vocab_n_tokens(v) != m->info.n_vocab)
        return kept_fail(err, KEPT_FORMAT, "the tokenizer has %d tokens, the model %d",
                         llama_vocab_n_tokens(v), m->info.n_vocab);
    return KEPT_OK;
}

void kept_vocab_free(struct kept_model *m)
{
    if (m->vocab)
        llama_model_free(m->vocab);
    m->vocab = NULL;
}

/* BOS is put in front here and not by libllama, which would append EOS as well where the file asks
 * for it, and aborts if the token is not there. */
kept_status kept_tokenize(const kept_model *m, const char *text, size_t len, bool bos, bool special,
                          int32_t *tokens, int cap, int *n)
{
    const struct llama_vocab *v = llama_model_get_vocab(m->vocab);
    *n = 0;
    if (len > INT_MAX / 2 || cap < 0 || (cap > 0 && !tokens) || (len > 0 && !text))
        return KEPT_ARGUMENT;
    int32_t first = bos && llama_vocab_get_add_bos(v) ? llama_vocab_bos(v) : -1;
    int used = 0;
    if (first >= 0) {
        if (cap > 0)
            tokens[0] = first;
        used = 1;
    }
    int room = cap > used ? cap - used : 0;
    int32_t got = len == 0 ? 0
                           : llama_tokenize(v, text, (int32_t)len, room ? tokens + used : NULL,
                                            room, false, special);
    if (got == INT32_MIN)
        return KEPT_ARGUMENT;
    *n = used + (got < 0 ? -got : got);
    return *n > cap ? KEPT_ARGUMENT : KEPT_OK;
}

/* Whether the tokenizer puts a blank in front of a text, which then is not part of it. */
static bool adds_blank(const struct kept_model *m)
{
    char value[8];
    if (llama_model_meta_val_str(m->vocab, "tokenizer.ggml.add_space_prefix", value, sizeof value) >
        0)
        return strcmp(value, "true") == 0;
    return llama_vocab_type(llama_model_get_vocab(m->vocab)) == LLAMA_VOCAB_TYPE_SPM;
}

/* The text of a token, at most room bytes of it, into buf. Returns its whole length. */
static size_t put_piece(const struct llama_vocab *v, int32_t token, bool strip, bool special,
                        char *buf, int32_t room)
{
    int32_t got = llama_token_to_piece(v, token, buf, room, strip, special);
    if (got >= 0)
        return (size_t)got;
    char *all = malloc((size_t)-got);
    if (!all)
        return 0;
    got = llama_token_to_piece(v, token, all, -got, strip, special);
    if (got > 0)
        memcpy(buf, all, (size_t)(got < room ? got : room));
    free(all);
    return got > 0 ? (size_t)got : 0;
}

/* Pieces one after the other, and not llama_detokenize: for some models that one also removes
 * blanks before punctuation, so that the text is not the one the tokens were made of. */
size_t kept_detokenize(const kept_model *m, const int32_t *tokens, int n, bool special, char *buf,
                       size_t cap)
{
    const struct llama_vocab *v = llama_model_get_vocab(m->vocab);
    size_t len = 0, room = cap ? cap - 1 : 0;
    char none;
    /* without BOS in front the first word is the first token, whose blank goes */
    int first = n > 0 && !special && tokens[0] == llama_vocab_bos(v) ? 1 : 0;
    for (int i = first; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= m->info.n_vocab)
            continue;
        size_t left = len < room ? room - len : 0;
        len += put_piece(v, tokens[i], i == first && adds_blank(m), special,
                         left ? buf + len : &none, left < INT_MAX ? (int32_t)left : INT_MAX);
    }
    if (cap)
        buf[len < room ? len : room] = 0;
    return len;
}

bool kept_token_is_end(const kept_model *m, int32_t token)
{
    return token >= 0 && token < m->info.n_vocab &&
           llama_vocab_is_eog(llama_model_get_vocab(m->vocab), token);
}

int32_t kept_token_bos(const kept_model *m)
{
    return llama_vocab_bos(llama_model_get_vocab(m->vocab));
}

kept_status kept_chat_messages(const kept_model *m, const kept_message *messages, int n_messages,
                               bool header, char *buf, size_t cap, size_t *n, kept_error *err)
{
    const char *tmpl = llama_model_chat_template(m->vocab, NULL);
    *n = 0;
    if (cap)
        buf[0] = 0;
    bool whole = n_messages >= 1 && n_messages <= 4096;
    for (int i = 0; whole && i < n_messages; i++)
        whole = messages[i].role && messages[i].content;
    if (!whole)
        return kept_fail(err, KEPT_ARGUMENT, "a chat needs messages with a role and content");
    if (!tmpl)
        return kept_fail(err, KEPT_UNSUPPORTED, "%s has no chat template: give plain text instead",
                         m->info.name);
    struct llama_chat_message *msg = kept_calloc((size_t)n_messages, sizeof *msg);
    if (!msg)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a chat");
    for (int i = 0; i < n_messages; i++)
        msg[i] = (struct llama_chat_message){messages[i].role, messages[i].content};
    kept_status st = KEPT_OK;
    char *all = NULL;
    int32_t need = llama_chat_apply_template(tmpl, msg, (size_t)n_messages, header, NULL, 0);
    if (need < 0)
        st = kept_fail(err, KEPT_UNSUPPORTED,
                       "libllama does not know the chat template of %s: give plain text instead",
                       m->info.name);
    else if (!(all = malloc((size_t)need + 1)))
        st = kept_fail(err, KEPT_NOMEM, "out of memory for a chat of %d bytes", need);
    if (st)
        goto out;
    need = llama_chat_apply_template(tmpl, msg, (size_t)n_messages, header, all, need);
    *n = (size_t)need;
    if (cap) {
        size_t keep = *n < cap - 1 ? *n : cap - 1;
        memcpy(buf, all, keep);
        buf[keep] = 0;
    }
out:
    free(all);
    free(msg);
    return st;
}

kept_status kept_chat_format(const kept_model *m, const char *system, const char *user, char *buf,
                             size_t cap, size_t *n, kept_error *err)
{
    const kept_message message[2] = {{"system", system}, {"user", user}};
    *n = 0;
    if (!user)
        return kept_fail(err, KEPT_ARGUMENT, "a chat needs a user message");
    return kept_chat_messages(m, message + !system, system ? 2 : 1, true, buf, cap, n, err);
}
