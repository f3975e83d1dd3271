/* prompt: from a sample to the tokens that are compressed (prefix) and those that come after
 * (suffix).
 *
 *   raw    context | question answer_prefix
 *   chat   head context | question tail answer_prefix
 *
 * head and tail are what the chat template puts around a user message. The bar moves behind the
 * question when it is compressed too (query_aware). Prefix and suffix are tokenized apart, as they
 * would arrive apart; so no token spans the bar.
 *
 * Evidence: the text of each prefix token is laid along the prompt, which gives every token its
 * bytes exactly; a token belongs to the evidence if it shares a byte with an evidence span.
 */
#include "task/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static kept_status no_memory(kept_error *err)
{
    return kept_fail(err, KEPT_NOMEM, "out of memory building a prompt");
}

/* A formatted chat in malloc'd memory. */
static kept_status format_chat(const kept_model *m, const char *user, char **out, size_t *n,
                               kept_error *err)
{
    size_t cap = strlen(user) + 1024;
    for (int attempt = 0; attempt < 2; attempt++) {
        char *buf = malloc(cap);
        if (!buf)
            return no_memory(err);
        const kept_status st = kept_chat_format(m, NULL, user, buf, cap, n, err);
        if (!st && *n < cap) {
            *out = buf;
            return KEPT_OK;
        }
        free(buf);
        if (st)
            return st;
        cap = *n + 1;
    }
    return kept_fail(err, KEPT_UNSUPPORTED, "the chat template gives no stable length");
}

/* The templates of two messages that differ from their first byte on differ where messages begin.
 */
kept_status kept_prompt_open(kept_task *t, kept_error *err)
{
    char *x = NULL, *y = NULL;
    size_t nx = 0, ny = 0;
    kept_status st = format_chat(t->model, "x", &x, &nx, err);
    if (!st)
        st = format_chat(t->model, "y", &y, &ny, err);
    if (!st) {
        size_t i = 0;
        while (i < nx && i < ny && x[i] == y[i])
            i++;
        t->chat_begin = i;
        if (i >= nx || i >= ny || x[i] != 'x' || y[i] != 'y')
            st = kept_fail(err, KEPT_UNSUPPORTED, "the chat template leaves out the message");
    }
    free(x);
    free(y);
    return st;
}

/* A prompt as text. Byte i of the context stands at text[context_at + i]; context_at may be
 * "negative" (it wraps) when the template strips leading space. */
typedef struct prompt {
    char *text;
    size_t n, split, context_at;
} prompt;

static kept_status build_raw(const kept_task *t, const kept_sample *s, prompt *p, kept_error *err)
{
    kept_buf b = {0};
    kept_buf_puts(&b, s->context);
    p->split = b.n;
    kept_buf_puts(&b, s->question);
    p->split = t->query_aware ? b.n : p->split;
    kept_buf_puts(&b, s->answer_prefix);
    p->context_at = 0;
    p->text = b.s;
    p->n = b.n;
    return b.failed ? no_memory(err) : KEPT_OK;
}

static kept_status build_chat(const kept_task *t, const kept_sample *s, prompt *p, kept_error *err)
{
    const size_t n_context = strlen(s->context);
    kept_buf user = {0}, out = {0};
    kept_buf_puts(&user, s->context);
    kept_buf_puts(&user, s->question);
    kept_status st = user.failed ? no_memory(err) : KEPT_OK;
    if (!st)
        st = format_chat(t->model, user.s, &out.s, &out.n, err);
    if (st)
        goto out;
    out.cap = out.n + 1;
    /* Some templates strip the message. */
    size_t begin = 0, end = user.n;
    if (out.n < t->chat_begin + user.n || memcmp(out.s + t->chat_begin, user.s, user.n) != 0) {
        while (begin < end && is_space(user.s[begin]))
            begin++;
        while (end > begin && is_space(user.s[end - 1]))
            end--;
    }
    if (out.n < t->chat_begin + (end - begin) ||
        memcmp(out.s + t->chat_begin, user.s + begin, end - begin) != 0) {
        st = kept_fail(err, KEPT_UNSUPPORTED, "the chat template changes the message's text");
        goto out;
    }
    p->context_at = t->chat_begin - begin;
    size_t split = t->query_aware || n_context > end ? end : n_context;
    split = split < begin ? begin : split;
    p->split = t->chat_begin + (split - begin);
    /* After a header that ends in white space the prefix' own leading space would be a second one.
     */
    const char *answer = s->answer_prefix;
    while (out.n && is_space(out.s[out.n - 1]) && is_space(*answer))
        answer++;
    kept_buf_puts(&out, answer);
    p->text = out.s;
    p->n = out.n;
    st = out.failed ? no_memory(err) : KEPT_OK;
out:
    kept_buf_free(&user);
    if (st)
        kept_buf_free(&out);
    return st;
}

static kept_status build(const kept_task *t, const kept_sample *s, prompt *p, kept_error *err)
{
    return t->chat ? build_chat(t, s, p, err) : build_raw(t, s, p, err);
}

kept_status kept_prompt_build(const kept_task *t, const kept_sample *s, char **text, size_t *split,
                              kept_error *err)
{
    prompt p = {0};
    const kept_status st = build(t, s, &p, err);
    *text = st ? NULL : p.text;
    *split = p.split;
    return st;
}

kept_status kept_prompt_tokens(const kept_model *m, const char *text, size_t len, bool bos,
                               bool special, int32_t **out, int *n, kept_error *err)
{
    *out = NULL;
    *n = 0;
    if (len > KEPT_FILE_MAX)
        return kept_fail(err, KEPT_ARGUMENT, "a prompt of %zu bytes is too long", len);
    int cap = (int)len / 2 + 16;
    for (int attempt = 0; attempt < 2; attempt++) {
        int32_t *tokens = kept_calloc((size_t)cap + 1, sizeof *tokens);
        if (!tokens)
            return no_memory(err);
        const kept_status st = kept_tokenize(m, text, len, bos, special, tokens, cap, n);
        if (!st) {
            *out = tokens;
            return KEPT_OK;
        }
        free(tokens);
        if (*n <= cap)
            return kept_fail(err, st, "cannot tokenize a prompt of %zu bytes", len);
        cap = *n;
    }
    return kept_fail(err, KEPT_ARGUMENT, "the tokenizer gives no stable count");
}

/* Whether control tokens in the prompt's text count as such: those of the chat template do, and a
 * raw JSONL prompt may bring its own template. */
static bool parses_special(const kept_task *t)
{
    return t->chat || t->type->open == kept_jsonl_open;
}

static kept_status tokenize(kept_task *t, const prompt *p, kept_tokens *out, kept_error *err)
{
    const bool special = parses_special(t);
    kept_status st = kept_prompt_tokens(t->model, p->text, p->split, true, special, &out->prefix,
                                        &out->n_prefix, err);
    if (!st)
        st = kept_prompt_tokens(t->model, p->text + p->split, p->n - p->split, false, special,
                                &out->suffix, &out->n_suffix, err);
    if (st)
        return st;
    /* A template may spell the BOS that the tokenizer also adds. */
    const int32_t bos = kept_token_bos(t->model);
    if (bos >= 0 && out->n_prefix > 1 && out->prefix[0] == bos && out->prefix[1] == bos)
        memmove(out->prefix, out->prefix + 1, (size_t)--out->n_prefix * sizeof *out->prefix);
    /* A step after eviction needs a token to feed. */
    if (out->n_suffix == 0 && out->n_prefix > 1)
        out->suffix[out->n_suffix++] = out->prefix[--out->n_prefix];
    if (out->n_prefix < 1 || out->n_suffix < 1)
        return kept_fail(err, KEPT_ARGUMENT, "a sample of %s is empty", t->label);
    return KEPT_OK;
}

/* Text of one token where another stands before it: alone, some tokenizers drop its space. Returns
 * its length; longer texts are cut to cap - 1. */
static size_t token_text(const kept_model *m, int32_t anchor, int32_t token, char *buf, size_t cap)
{
    const int32_t pair[2] = {anchor, token};
    const size_t head = kept_detokenize(m, pair, 1, true, buf, cap);
    const size_t both = kept_detokenize(m, pair, 2, true, buf, cap);
    if (both < head || both >= cap)
        return 0;
    memmove(buf, buf + head, both - head + 1);
    return both - head;
}

/* ends[i] = offset in text behind token i of tokens[0..n). false: the tokens do not spell text. */
static bool token_ends(const kept_model *m, const char *text, size_t len, const kept_tokens *k,
                       size_t *ends)
{
    size_t at = 0;
    const int32_t bos = kept_token_bos(m);
    for (int i = 0; i < k->n_prefix; i++) {
        char buf[1024];
        const char *s = buf;
        size_t n = token_text(m, k->prefix[k->n_prefix - 1], k->prefix[i], buf, sizeof buf);
        const bool fits = n <= len - at && !memcmp(text + at, s, n);
        if (!fits && i == 0 && k->prefix[i] == bos)
            n = 0; /* added, not in the text */
        else if (!fits && n && *s == ' ' && n - 1 <= len - at && !memcmp(text + at, s + 1, n - 1))
            n--; /* the space that some tokenizers put before the text */
        else if (!fits)
            return false;
        at += n;
        ends[i] = at;
    }
    return true;
}

static kept_status find_evidence(kept_task *t, const kept_sample *s, const prompt *p,
                                 kept_tokens *out, kept_error *err)
{
    if (s->n_evidence < 1)
        return KEPT_OK;
    size_t *ends = kept_calloc((size_t)out->n_prefix, sizeof *ends);
    out->evidence = kept_calloc((size_t)out->n_prefix, sizeof *out->evidence);
    if (!ends || !out->evidence) {
        free(ends);
        return no_memory(err);
    }
    size_t begin = 0;
    const bool known = token_ends(t->model, p->text, p->split, out, ends);
    for (int i = 0; i < out->n_prefix && known; begin = ends[i++])
        for (int e = 0; e < s->n_evidence; e++)
            if (begin < p->context_at + s->evidence[e].end &&
                ends[i] > p->context_at + s->evidence[e].begin && begin < ends[i]) {
                out->evidence[out->n_evidence++] = i;
                break;
            }
    free(ends);
    return KEPT_OK;
}

/* The text task: the first `length` tokens of the window, the last score_tokens of them scored. */
static kept_status tokenize_text(kept_task *t, const kept_sample *s, kept_tokens *out,
                                 kept_error *err)
{
    int n = 0;
    kept_status st = kept_prompt_tokens(t->model, s->context, strlen(s->context), true, false,
                                        &out->prefix, &n, err);
    if (st)
        return st;
    if (n < t->length)
        return kept_fail(err, KEPT_ARGUMENT, "a sample of %s has %d tokens, not %d", t->label, n,
                         t->length);
    out->n_suffix = t->score_tokens;
    out->n_prefix = t->length - t->score_tokens;
    out->suffix = kept_calloc((size_t)out->n_suffix, sizeof *out->suffix);
    if (!out->suffix)
        return no_memory(err);
    memcpy(out->suffix, out->prefix + out->n_prefix, (size_t)out->n_suffix * sizeof *out->suffix);
    return KEPT_OK;
}

kept_status kept_task_tokenize(kept_task *t, int i, const kept_sample *s, kept_tokens *out,
                               kept_error *err)
{
    (void)i; /* the same for every index today */
    *out = (kept_tokens){0};
    prompt p = {0};
    kept_status st;
    if (t->type->kind == KEPT_TASK_SCORE) {
        st = tokenize_text(t, s, out, err);
    } else {
        st = build(t, s, &p, err);
        if (!st)
            st = tokenize(t, &p, out, err);
        if (!st)
            st = find_evidence(t, s, &p, out, err);
    }
    free(p.text);
    if (st) {
        kept_tokens_clear(out);
        return st;
    }
    /* Chained, so that the place of the bar is part of the key. */
    uint64_t h = kept_hash64(out->prefix, (size_t)out->n_prefix * sizeof *out->prefix, 0);
    h = kept_hash64(out->suffix, (size_t)out->n_suffix * sizeof *out->suffix, h);
    snprintf(out->hash, sizeof out->hash, "%016llx", (unsigned long long)h);
    return KEPT_OK;
}

kept_status kept_prompt_count(kept_task *t, const kept_sample *s, int *n, kept_error *err)
{
    kept_tokens k = {0};
    prompt p = {0};
    kept_status st = build(t, s, &p, err);
    if (!st)
        st = tokenize(t, &p, &k, err);
    *n = k.n_prefix + k.n_suffix + s->max_new_tokens;
    free(p.text);
    kept_tokens_clear(&k);
    return st;
}

void kept_tokens_clear(kept_tokens *t)
{
    free(t->prefix);
    free(t->suffix);
    free(t->evidence);
    *t = (kept_tokens){0};
}
