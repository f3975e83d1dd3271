/* perturb: the same question said a little otherwise. The context stays as it is, and so does what
 * is evicted where the question comes afterwards. Words with digits or hyphens, which may be keys
 * that are looked up, are never touched by `typo`. The names that begin with "context" are those of
 * rearrange.c, which leaves questions alone. */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

enum { TYPO_EVERY = 3, TYPO_LEAST = 5 };

static const char *const names[] = {"none",   "case",          "punctuation",   "typo",
                                    "layout", "context-lines", "context-order", "context-places"};
enum { N_NAMES = sizeof names / sizeof *names };

const char *const *kept_perturb_names(int *n)
{
    *n = N_NAMES;
    return names;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static void put_case(kept_buf *b, const char *s)
{
    for (; *s; s++) {
        const char c = *s >= 'A' && *s <= 'Z' ? (char)(*s + 32) : *s;
        kept_buf_add(b, &c, 1);
    }
}

static void put_unpunctuated(kept_buf *b, const char *s)
{
    for (; *s; s++)
        if (!strchr(".,?!:;", *s))
            kept_buf_add(b, s, 1);
}

/* Every third long word of letters alone gets two letters in its middle swapped. */
static void put_typos(kept_buf *b, const char *s)
{
    int n_long = 0;
    while (*s) {
        const size_t gap = strspn(s, " \t\r\n");
        kept_buf_add(b, s, gap);
        s += gap;
        const size_t n = strcspn(s, " \t\r\n");
        size_t letters = 0;
        while (letters < n && is_letter(s[letters]))
            letters++;
        const bool word = letters >= TYPO_LEAST && strcspn(s, "-0123456789") >= n;
        const size_t at = letters / 2;
        if (word && n_long++ % TYPO_EVERY == 0 && s[at] != s[at - 1]) {
            kept_buf_add(b, s, at - 1);
            kept_buf_add(b, s + at, 1);
            kept_buf_add(b, s + at - 1, 1);
            kept_buf_add(b, s + at + 1, n - at - 1);
        } else {
            kept_buf_add(b, s, n);
        }
        s += n;
    }
}

/* A line of its own for every sentence, and a blank one between lines. */
static void put_layout(kept_buf *b, const char *s)
{
    for (; *s; s++) {
        kept_buf_add(b, s, 1);
        if (*s == '\n' && s[1] != '\n')
            kept_buf_add(b, s, 1);
        if (strchr(".?!", *s) && s[1] == ' ') {
            kept_buf_puts(b, "\n");
            s++;
        }
    }
}

kept_status kept_perturb(const char *kind, const char *question, char **out, kept_error *err)
{
    static void (*const put[N_NAMES])(kept_buf *, const char *) = {
        kept_buf_puts, put_case,      put_unpunctuated, put_typos,
        put_layout,    kept_buf_puts, kept_buf_puts,    kept_buf_puts};
    kept_buf b = {0};
    *out = NULL;
    for (int i = 0; i < N_NAMES; i++)
        if (!strcmp(kind, names[i])) {
            kept_buf_add(&b, "", 0);
            put[i](&b, question);
            if (!b.s && !b.failed)
                b.s = strdup("");
            if (b.failed || !b.s)
                return kept_fail(err, KEPT_NOMEM, "out of memory for a question");
            *out = b.s;
            return KEPT_OK;
        }
    const int near = kept_nearest(kind, strlen(kind), names, N_NAMES);
    return near >= 0 ? kept_fail(err, KEPT_ARGUMENT, "no perturbation '%s', did you mean '%s'?",
                                 kind, names[near])
                     : kept_fail(err, KEPT_ARGUMENT, "no perturbation '%s'", kind);
}

kept_status kept_perturb_sample(const kept_task *t, int i, kept_sample *s, kept_error *err)
{
    if (!strncmp(t->perturb, "context-", 8))
        return kept_rearrange(t, i, s, err);
    for (int k = 0; k < s->n_turns; k++) {
        kept_turn *turn = &s->turns[k];
        char *question = NULL;
        const char *plain = turn->question ? turn->question : "";
        const kept_status st = kept_perturb(t->perturb, plain, &question, err);
        if (st)
            return st;
        free(turn->question);
        turn->question = question;
    }
    return KEPT_OK;
}
