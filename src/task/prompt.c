/* prompt: from a sample to the tokens that are compressed (prefix) and those that come after
 * (suffix).
 *
 *   raw    context | question answer_prefix          then  answer question answer_prefix ...
 *   chat   head context | question tail answer_prefix  then  answer between question tail ...
 *
 * What follows "then" is a later turn of a conversation. A request is what stands right of the bar
 * with its own question.
 *
 * head and tail are what the chat template puts around a user message. The bar moves behind the
 * question when it is compressed too (query_aware). Prefix and suffix are tokenized apart, as they
 * would arrive apart; so no token spans the bar.
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

/* A formatted chat in malloc'd memory, with the next assistant header. */
static kept_status format_chat(const kept_model *m, const kept_message *messages, int n_messages,
                               char **out, size_t *n, kept_error *err)
{
    size_t cap = 1024;
    for (int i = 0; i < n_messages; i++)
        cap += strlen(messages[i].content);
    for (int attempt = 0; attempt < 2; attempt++) {
        char *buf = malloc(cap);
        if (!buf)
            return no_memory(err);
        const kept_status st = kept_chat_messages(m, messages, n_messages, true, buf, cap, n, err);
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
    kept_status st = format_chat(t->model, &(kept_message){"user", "x"}, 1, &x, &nx, err);
    if (!st)
        st = format_chat(t->model, &(kept_message){"user", "y"}, 1, &y, &ny, err);
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

static kept_status build_raw(const kept_task *t, const char *context, const kept_turn *turn,
                             kept_prompt *p, kept_error *err)
{
    kept_buf b = {0};
    kept_buf_puts(&b, context);
    p->split = b.n;
    kept_buf_puts(&b, turn->question);
    p->split = t->query_aware ? b.n : p->split;
    kept_buf_puts(&b, turn->answer_prefix);
    p->context_at = 0;
    p->text = b.s;
    p->n = b.n;
    return b.failed ? no_memory(err) : KEPT_OK;
}

/* After a header that ends in white space the prefix' own leading space would be a second one. */
static void add_answer_prefix(kept_buf *out, const char *answer)
{
    while (out->n && is_space(out->s[out->n - 1]) && is_space(*answer))
        answer++;
    kept_buf_puts(out, answer);
}

static kept_status build_chat(const kept_task *t, const char *context, const kept_turn *turn,
                              kept_prompt *p, kept_error *err)
{
    const size_t n_context = strlen(context);
    kept_buf user = {0}, out = {0};
    kept_buf_puts(&user, context);
    kept_buf_puts(&user, turn->question);
    kept_status st = user.failed ? no_memory(err) : KEPT_OK;
    if (!st)
        st = format_chat(t->model, &(kept_message){"user", user.s ? user.s : ""}, 1, &out.s, &out.n,
                         err);
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
    add_answer_prefix(&out, turn->answer_prefix);
    p->text = out.s;
    p->n = out.n;
    st = out.failed ? no_memory(err) : KEPT_OK;
out:
    kept_buf_free(&user);
    if (st)
        kept_buf_free(&out);
    return st;
}

kept_status kept_prompt_text(const kept_task *t, const kept_sample *s, int turn, kept_prompt *p,
                             kept_error *err)
{
    return t->chat && !s->raw ? build_chat(t, s->context, &s->turns[turn], p, err)
                              : build_raw(t, s->context, &s->turns[turn], p, err);
}

kept_status kept_prompt_build(const kept_task *t, const kept_sample *s, char **text, size_t *split,
                              kept_error *err)
{
    kept_prompt p = {0};
    const kept_status st = kept_prompt_text(t, s, 0, &p, err);
    *text = st ? NULL : p.text;
    *split = p.split;
    return st;
}

/* ---- later turns ----------------------------------------------------------------------------- */

/* What the template puts after an assistant's text, with the next question. */
static kept_status add_chat_question(const kept_task *t, const char *question, kept_buf *out,
                                     kept_error *err)
{
    char *head = NULL, *all = NULL;
    size_t n_head = 0, n_all = 0;
    const kept_message messages[] = {{"user", "x"}, {"assistant", "a"}, {"user", question}};
    kept_status st = format_chat(t->model, messages, 1, &head, &n_head, err);
    if (!st)
        st = format_chat(t->model, messages, 3, &all, &n_all, err);
    size_t at = n_head;
    if (!st) {
        while (at < n_all && is_space(all[at]))
            at++;
        if (n_all < n_head || memcmp(head, all, n_head) != 0 || at >= n_all || all[at] != 'a')
            st = kept_fail(err, KEPT_UNSUPPORTED,
                           "the chat template writes earlier turns differently; use --raw");
        else
            kept_buf_add(out, all + at + 1, n_all - at - 1);
    }
    free(head);
    free(all);
    return st;
}

/* The answer that a conversation with gold answers goes on with. */
static void add_gold(const kept_turn *turn, kept_buf *out)
{
    const size_t n = strlen(turn->answer_prefix);
    const int all = turn->metric == KEPT_METRIC_ALL ? turn->n_answers : turn->n_answers > 0;
    if (n && !is_space(turn->answer_prefix[n - 1]))
        kept_buf_puts(out, " ");
    for (int i = 0; i < all; i++) {
        kept_buf_puts(out, i ? ", " : "");
        kept_buf_puts(out, turn->answers[i]);
    }
}

kept_status kept_prompt_later(const kept_task *t, const kept_sample *s, int k, char **text,
                              size_t *n, size_t *question, kept_error *err)
{
    const kept_turn *turn = &s->turns[k];
    kept_buf b = {0};
    kept_status st = KEPT_OK;
    *question = 0;
    if (t->turns == KEPT_TURNS_REQUESTS) {
        kept_prompt p = {0};
        st = kept_prompt_text(t, s, k, &p, err);
        if (!st)
            kept_buf_add(&b, p.text + p.split, p.n - p.split);
        free(p.text);
    } else {
        if (t->turns == KEPT_TURNS_GOLD)
            add_gold(&s->turns[k - 1], &b);
        *question = b.n;
        if (t->chat && !s->raw) {
            st = add_chat_question(t, turn->question, &b, err);
            if (!st)
                add_answer_prefix(&b, turn->answer_prefix);
        } else {
            kept_buf_puts(&b, is_space(*turn->question) ? "" : "\n");
            kept_buf_puts(&b, turn->question);
            kept_buf_puts(&b, turn->answer_prefix);
        }
    }
    if (!st && b.failed)
        st = no_memory(err);
    if (st)
        kept_buf_free(&b);
    *text = b.s;
    *n = b.n;
    return st;
}
