/* classes: where an answer comes from, told from its words alone: copied from the context, its own,
 * or none given. A definition of ours: benchmarks that ask for these classes do not fix one. */
#include "task/metric.h"

#include <stdlib.h>
#include <string.h>

#define GRAM 3   /* words that must stand in the context in this order */
#define NEAR 0.8 /* share of them that makes a copy */

const char *kept_answer_class_name(kept_answer_class c)
{
    static const char *const names[] = {"novel", "near-copy", "abstain"};
    return names[c];
}

/* Words in lower case between single blanks, one before and one after; bytes of other alphabets are
 * letters. malloc'ed, NULL: out of memory. */
static char *plain_words(const char *text, size_t *len)
{
    char *out = malloc(strlen(text) + 3);
    size_t n = 0;
    if (!out)
        return NULL;
    out[n++] = ' ';
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        const bool upper = *s >= 'A' && *s <= 'Z';
        const bool word =
            upper || (*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || *s >= 128;
        if (word)
            out[n++] = (char)(upper ? *s + 32 : *s);
        else if (out[n - 1] != ' ' && *s != '\'')
            out[n++] = ' ';
    }
    if (out[n - 1] != ' ')
        out[n++] = ' ';
    out[n] = '\0';
    *len = n;
    return out;
}

static bool abstains(const char *words, size_t len)
{
    static const char *const says[] = {
        " dont know ",     " do not know ",   " not mentioned ",    " no information ",
        " cannot answer ", " cant answer ",   " unanswerable ",     " not provided ",
        " not specified ", " unable to ",     " cannot determine ", " not enough information ",
        " not stated ",    " i am not sure ", " im not sure ",
    };
    for (size_t i = 0; i < sizeof says / sizeof *says; i++)
        if (strstr(words, says[i]))
            return true;
    return len < 2; /* no word at all */
}

/* Share of the runs of GRAM words (all words, where there are fewer) that the context has. */
static double copied(char *answer, size_t len, const char *context)
{
    size_t at[GRAM + 1]; /* blanks before the run's words, and the one after */
    int n = 0, runs = 0, hits = 0;
    for (size_t i = 0; i < len; i++) {
        if (answer[i] != ' ')
            continue;
        if (n == GRAM + 1) {
            memmove(at, at + 1, GRAM * sizeof *at);
            n--;
        }
        at[n++] = i;
        const bool last = i + 1 == len;
        if (n < GRAM + 1 && !last)
            continue;
        if (n < GRAM + 1 && runs)
            continue;
        const char after = answer[i + 1];
        answer[i + 1] = '\0';
        runs++;
        hits += strstr(context, answer + at[0]) != NULL;
        answer[i + 1] = after;
    }
    return runs ? (double)hits / runs : 0;
}

kept_status kept_answer_classify(const char *answer, const char *context, kept_answer_class *out,
                                 kept_error *err)
{
    size_t n = 0, n_context = 0;
    char *a = plain_words(answer, &n), *c = plain_words(context, &n_context);
    kept_status s = a && c ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory for an answer");
    if (!s)
        *out = abstains(a, n)            ? KEPT_ANSWER_ABSTAIN
               : copied(a, n, c) >= NEAR ? KEPT_ANSWER_NEAR_COPY
                                         : KEPT_ANSWER_NOVEL;
    free(a);
    free(c);
    return s;
}
