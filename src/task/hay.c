/* hay: the text in which needles are hidden, as pieces with a gap before, between and after them.
 * Noise and essay follow RULER's constructions; docs/tasks.md lists the differences.
 */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

/* RULER's filler, which is that of the older passkey test. */
static const char noise_line[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

#define LONG_SENTENCE 80 /* words after which a gap is made in text without full stops */

void kept_hay_clear(kept_hay *h)
{
    kept_buf_free(&h->text);
    free(h->at);
    *h = (kept_hay){0};
}

kept_status kept_hay_add(kept_hay *h, const char *s, size_t n)
{
    if (h->n + 2 > h->cap) {
        const int cap = h->cap ? 2 * h->cap : 64;
        size_t *at = realloc(h->at, (size_t)cap * sizeof *at);
        if (!at)
            return KEPT_NOMEM;
        h->at = at;
        h->cap = cap;
        h->at[0] = 0;
    }
    kept_buf_add(&h->text, s, n);
    h->at[++h->n] = h->text.n;
    return h->text.failed ? KEPT_NOMEM : KEPT_OK;
}

kept_status kept_hay_noise(kept_hay *h, int n_units)
{
    h->sep = '\n';
    kept_status st = KEPT_OK;
    for (int i = 0; i < n_units && !st; i++)
        st = kept_hay_add(h, noise_line, sizeof noise_line - 1);
    return st;
}

static void mark_piece(kept_sample *s, size_t begin, size_t end, bool fact)
{
    s->pieces[s->n_pieces++] = (kept_piece){begin, end, fact};
}

bool kept_hay_merge(const kept_hay *h, int n_gaps, kept_hay_line *lines, int n, kept_buf *out,
                    kept_sample *sample)
{
    const size_t start = out->n;
    sample->pieces = kept_calloc((size_t)h->n + (size_t)n + 1, sizeof *sample->pieces);
    for (int gap = 0; gap <= h->n && sample->pieces; gap++) {
        for (int k = 0; k < n; k++) {
            const int at = (int)(lines[k].depth * n_gaps);
            if ((at < h->n ? at : h->n) != gap)
                continue;
            kept_buf_add(out, &h->sep, out->n > start);
            lines[k].span.begin = out->n;
            kept_buf_puts(out, lines[k].text);
            lines[k].span.end = out->n;
            mark_piece(sample, lines[k].span.begin, out->n, true);
        }
        if (gap < h->n) {
            kept_buf_add(out, &h->sep, out->n > start);
            const size_t begin = out->n;
            kept_buf_add(out, h->text.s + h->at[gap], h->at[gap + 1] - h->at[gap]);
            mark_piece(sample, begin, out->n, false);
        }
    }
    return sample->pieces;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

void kept_hay_normalise(kept_buf *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n; i++) {
        if (!is_space(text->s[i]))
            text->s[n++] = text->s[i];
        else if (n && text->s[n - 1] != ' ')
            text->s[n++] = ' ';
    }
    if (n && text->s[n - 1] == ' ')
        n--;
    text->n = n;
    if (text->s)
        text->s[n] = 0;
}

/* Length of the closing quote or bracket that ends at text[i), 0 if there is none. */
static size_t closing_length(const char *text, size_t i)
{
    if (i >= 1 && memchr("\"')]", text[i - 1], 4))
        return 1;
    if (i >= 3 &&
        (!memcmp(text + i - 3, "\xe2\x80\x9d", 3) || !memcmp(text + i - 3, "\xe2\x80\x99", 3)))
        return 3; /* curly quotes */
    return 0;
}

bool kept_hay_sentence_end(const char *text, size_t i)
{
    for (size_t step; (step = closing_length(text, i)) > 0;)
        i -= step;
    return i > 0 && (text[i - 1] == '.' || text[i - 1] == '!' || text[i - 1] == '?');
}

kept_status kept_hay_essay(kept_hay *h, const char *essay, size_t len, size_t start, int n_units)
{
    h->sep = ' ';
    size_t at = start < len ? start : 0;
    while (at > 0 && at < len && !(essay[at - 1] == ' ' && kept_hay_sentence_end(essay, at - 1)))
        at++;
    at = at < len ? at : 0;
    kept_buf piece = {0};
    kept_status st = KEPT_OK;
    int words = 0;
    for (int left = n_units; left > 0 && !st; left--) {
        const char *space = memchr(essay + at, ' ', len - at);
        const size_t end = space ? (size_t)(space - essay) : len;
        if (piece.n)
            kept_buf_add(&piece, " ", 1);
        kept_buf_add(&piece, essay + at, end - at);
        words++;
        if (piece.failed)
            st = KEPT_NOMEM;
        else if (left == 1 || end == len || words == LONG_SENTENCE ||
                 kept_hay_sentence_end(essay, end)) {
            st = kept_hay_add(h, piece.s, piece.n);
            piece.n = 0;
            words = 0;
        }
        at = end < len ? end + 1 : 0;
    }
    kept_buf_free(&piece);
    return st;
}

kept_status kept_hay_read_essay(kept_task *t, const char *path, kept_error *err)
{
    t->needle.hay = KEPT_HAY_ESSAY;
    t->probe = 128; /* words */
    kept_status st = kept_buf_read_file(path, &t->text, err);
    if (st)
        return st;
    kept_hay_normalise(&t->text);
    if (!t->text.n)
        return kept_fail(err, KEPT_FORMAT, "%s holds no text", path);
    return KEPT_OK;
}
