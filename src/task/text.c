/* text: prefix-evict-score. A sample is a window of `length` tokens of the user's text: the prefix
 * is prefilled and compressed, the last score_tokens are fed one by one and scored against what the
 * full cache says (teacher forcing). Windows start at sentences, spread over the file like depths
 * in the needle tasks; in a short file they overlap. The text is taken as it is.
 */
#include "task/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SCORE   64
#define STREAM_START    128  /* tokens of a stream that are read before the first is scored */
#define SENTENCE_SEARCH 2000 /* bytes looked through for the start of a sentence */
#define SPARE           16   /* tokens beyond the window, for merges at its cut ends */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_boundary(const kept_buf *b, size_t i)
{
    return i >= b->n || ((unsigned char)b->s[i] & 0xc0) != 0x80;
}

static bool starts_sentence(const kept_buf *b, size_t i)
{
    if (i == 0)
        return true;
    if (!is_space(b->s[i - 1]) || is_space(b->s[i]))
        return false;
    size_t end = i, newlines = 0;
    while (end && is_space(b->s[end - 1]))
        newlines += b->s[--end] == '\n';
    return newlines > 1 || kept_hay_sentence_end(b->s, end);
}

/* First start of a sentence in [from, limit], else of a word, else of a character. */
static size_t find_start(const kept_buf *b, size_t from, size_t limit)
{
    size_t word = SIZE_MAX;
    limit = limit - from > SENTENCE_SEARCH ? from + SENTENCE_SEARCH : limit;
    for (size_t i = from; i <= limit; i++) {
        if (starts_sentence(b, i))
            return i;
        if (word == SIZE_MAX && is_space(b->s[i - 1]) && !is_space(b->s[i]))
            word = i;
    }
    if (word != SIZE_MAX)
        return word;
    while (from > 0 && !is_boundary(b, from))
        from--;
    return from;
}

static kept_status count(const kept_task *t, size_t begin, size_t end, int *n, kept_error *err)
{
    int32_t *tokens;
    const kept_status st =
        kept_prompt_tokens(t->model, t->text.s + begin, end - begin, true, false, &tokens, n, err);
    free(tokens);
    return st;
}

/* The shortest tail that holds a window, found by growing it: everything before may start one. */
static kept_status find_last_start(kept_task *t, kept_error *err)
{
    const kept_buf *b = &t->text;
    size_t tail = (size_t)t->length * 2;
    for (;;) {
        size_t begin = tail < b->n ? b->n - tail : 0;
        while (begin && !is_boundary(b, begin))
            begin--;
        int n;
        const kept_status st = count(t, begin, b->n, &n, err);
        if (st)
            return st;
        const int want = t->length + (begin ? SPARE : 0);
        if (n >= want) {
            t->last_start = begin;
            t->token_bytes = (double)(b->n - begin) / n;
            return KEPT_OK;
        }
        if (!begin)
            return kept_fail(err, KEPT_ARGUMENT, "%s has %d tokens, fewer than the length %d",
                             t->file, n, t->length);
        const double more = n > 0 ? 1.05 * want / n : 2;
        tail = (size_t)((double)tail * (more < 2 ? more : 2)) + 16;
    }
}

kept_status kept_text_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    const bool stream = !strcmp(t->type->name, "stream");
    if (stream)
        t->score_tokens = t->length - STREAM_START;
    else if (t->score_tokens == 0)
        t->score_tokens = DEFAULT_SCORE;
    if (t->score_tokens < 1 || t->score_tokens >= t->length)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: cannot score %d tokens of a length of %d",
                         t->type->name, t->score_tokens, t->length);
    const char *slash = strrchr(t->file, '/');
    char what[96];
    snprintf(what, sizeof what, "%.60s,score=%d", slash ? slash + 1 : t->file, t->score_tokens);
    kept_task_set_label(t, what);
    kept_status st = kept_buf_read_file(t->file, &t->text, err);
    return st ? st : find_last_start(t, err);
}

kept_status kept_text_get(kept_task *t, int i, kept_sample *out, kept_error *err)
{
    const kept_buf *b = &t->text;
    const size_t from = (size_t)(kept_task_sweep(t, i) * (double)(t->last_start + 1));
    const size_t begin = find_start(b, from < t->last_start ? from : t->last_start, t->last_start);
    double bytes = (t->length + SPARE) * t->token_bytes * 1.1 + 64;
    size_t end;
    for (;;) {
        end = bytes < (double)(b->n - begin) ? begin + (size_t)bytes : b->n;
        while (!is_boundary(b, end))
            end++;
        int n;
        const kept_status st = count(t, begin, end, &n, err);
        if (st)
            return st;
        if (end == b->n || n >= t->length + SPARE)
            break;
        bytes *= 1.3;
    }
    out->context = strndup(b->s + begin, end - begin);
    if (!out->context)
        return kept_fail(err, KEPT_NOMEM, "out of memory building sample %d of %s", i, t->label);
    return KEPT_OK;
}
