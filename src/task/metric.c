/* metric: the table of metrics. Sources: RULER's evaluate, LongBench's metrics.py and eval.py,
 * BABILong's compare_answers, InfiniteBench's compute_scores, SCBench's eval_utils; as published,
 * with ASCII letters, digits and white space only where Python knows more.
 */
#include "task/metric.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* One byte as RULER compares it: control characters are newlines, ASCII letters lower case. */
static char folded(char c)
{
    const unsigned char u = (unsigned char)c;
    if (u < 0x20)
        return '\n';
    return u >= 'A' && u <= 'Z' ? (char)(u + 32) : c;
}

static bool is_strippable(char c)
{
    return folded(c) == '\n' || c == ' ';
}

static bool contains(const char *text, size_t n, const char *needle)
{
    const size_t m = strlen(needle);
    for (size_t i = 0; i + m <= n; i++) {
        size_t j = 0;
        /* Only the output is cleaned, so a reference with a tab never matches, as in RULER. */
        while (j < m && folded(text[i + j]) ==
                            ((unsigned char)needle[j] < 0x20 ? needle[j] : folded(needle[j])))
            j++;
        if (j == m)
            return true;
    }
    return false;
}

double kept_score_match(const char *output, char *const *answers, int n_answers, bool any)
{
    if (!output || n_answers < 1)
        return 0;
    size_t n = strlen(output);
    while (n && is_strippable(output[n - 1]))
        n--;
    while (n && is_strippable(*output)) {
        output++;
        n--;
    }
    int hits = 0;
    for (int i = 0; i < n_answers; i++)
        hits += contains(output, n, answers[i]);
    return any ? hits > 0 : (double)hits / n_answers;
}

/* ---- token F1 -------------------------------------------------------------------------------- */

/* LongBench's normalize_answer: lower case, no ASCII punctuation, no articles; the words stand
 * in the returned memory one after the other, each ended by NUL. Returns their number, -1: none. */
static int words_of(const char *s, char **out)
{
    char *to = *out = malloc(strlen(s) + 2);
    int n = 0;
    if (!to)
        return -1;
    for (size_t i = 0; s[i];) {
        char *begin = to;
        for (; s[i] && !is_space(s[i]); i++)
            if (!ispunct((unsigned char)s[i]) || (unsigned char)s[i] >= 0x80)
                *to++ = lower(s[i]);
        *to = 0;
        if (to == begin || !strcmp(begin, "a") || !strcmp(begin, "an") || !strcmp(begin, "the")) {
            to = begin;
        } else {
            to++;
            n++;
        }
        i += s[i] != 0;
    }
    return n;
}

double kept_f1(const char *output, const char *answer)
{
    char *a = NULL, *b = NULL;
    const int na = words_of(output, &a), nb = words_of(answer, &b);
    int same = 0;
    bool *used = nb > 0 ? kept_calloc((size_t)nb, sizeof *used) : NULL;
    const char *word = a;
    for (int i = 0; i < na && used; i++, word += strlen(word) + 1) {
        const char *other = b;
        for (int j = 0; j < nb; j++, other += strlen(other) + 1)
            if (!used[j] && !strcmp(word, other)) {
                used[j] = true;
                same++;
                break;
            }
    }
    free(used);
    free(a);
    free(b);
    if (!same)
        return 0;
    const double p = (double)same / na, r = (double)same / nb;
    return 2 * p * r / (p + r);
}

/* ---- integers -------------------------------------------------------------------------------- */

/* Share of the runs of digits in output that are digit for digit `gold`. */
static double share_of_numbers(const char *output, const char *gold, size_t n_gold)
{
    int all = 0, right = 0;
    for (const char *s = output; *s;) {
        const size_t n = strspn(s, "0123456789");
        if (n) {
            all++;
            right += n == n_gold && !memcmp(s, gold, n);
        }
        s += n ? n : 1;
    }
    return all ? (double)right / all : 0;
}

static double score_count(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    return share_of_numbers(output, answer, strlen(answer));
}

static double score_retrieval(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    static const char word[] = "Paragraph ";
    for (const char *s = answer; (s = strstr(s, word));) {
        s += sizeof word - 1;
        const size_t n = strspn(s, "0123456789");
        if (n)
            return share_of_numbers(output, s, n);
    }
    return 0;
}

static double score_number(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    output += strcspn(output, "0123456789");
    answer += strcspn(answer, "0123456789");
    const size_t n = strspn(output, "0123456789"), m = strspn(answer, "0123456789");
    return n && n == m && !memcmp(output, answer, n);
}

/* ---- others ---------------------------------------------------------------------------------- */

static double score_f1(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    return kept_f1(output, answer);
}

static double score_rouge(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    return kept_rouge_l(output, answer);
}

/* Python's loop removes from the list that it walks, so the class after a removed one is not
 * looked at; that decides scores, so it is kept. */
static double score_class(const char *output, const char *answer, const kept_reference *r)
{
    int named = 0, *list = kept_calloc((size_t)r->n_labels + 1, sizeof *list);
    if (!list)
        return 0;
    for (int i = 0; i < r->n_labels; i++)
        if (strstr(output, r->labels[i]))
            list[named++] = i;
    for (int i = 0; i < named; i++) {
        const char *label = r->labels[list[i]];
        if (!strstr(answer, label) || !strcmp(answer, label))
            continue;
        named--;
        memmove(list + i, list + i + 1, (size_t)(named - i) * sizeof *list);
    }
    bool found = false;
    for (int i = 0; i < named; i++)
        found |= !strcmp(answer, r->labels[list[i]]);
    free(list);
    return found ? 1.0 / named : 0;
}

/* The first line that holds none of ` # //; rounded to a percent, halves to even, as fuzzywuzzy. */
static double score_edit(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    double score = 0;
    while (*output == '\n')
        output++;
    char *text = strdup(output);
    for (char *line = text; line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = 0;
        if (!strpbrk(line, "`#") && !strstr(line, "//")) {
            score = *line && *answer ? nearbyint(100 * kept_difflib_ratio(line, answer)) / 100
                                     : !*line && !*answer;
            break;
        }
        line = end ? end + 1 : NULL;
    }
    free(text);
    return score;
}

static double score_exact(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    size_t n = strlen(output), m = strlen(answer);
    for (; n && is_space(*output); output++)
        n--;
    for (; m && is_space(*answer); answer++)
        m--;
    while (n && is_space(output[n - 1]))
        n--;
    while (m && is_space(answer[m - 1]))
        m--;
    return n == m && !memcmp(output, answer, n);
}

/* BABILong: of the labels, first sentence and line, the question's own words left out by the reader
 * that made the labels; the reference is there and no other label is. */
static double score_label(const char *output, const char *answer, const kept_reference *r)
{
    char *first = strdup(output);
    if (!first)
        return 0;
    char *line = first;
    while (is_space(*line))
        line++;
    line[strcspn(line, "\n.")] = 0;
    bool right = kept_score_match(line, (char *const[]){(char *)(uintptr_t)answer}, 1, true) > 0;
    for (int i = 0; i < r->n_labels && right; i++)
        if (!kept_score_match(answer, r->labels + i, 1, true))
            right = !kept_score_match(line, r->labels + i, 1, true);
    free(first);
    return right;
}

/* The letter that is chosen: after "The correct answer is ", in parentheses or not, asterisks
 * ignored (LongBench v2); otherwise a single letter A to Z that begins the output. */
static char letter_of(const char *s)
{
    static const char phrase[] = "The correct answer is ";
    char *clean = strdup(s);
    size_t n = 0;
    if (!clean)
        return 0;
    for (; *s; s++)
        if (*s != '*')
            clean[n++] = *s;
    clean[n] = 0;
    const char *at = strstr(clean, phrase);
    at = at ? at + sizeof phrase - 1 : clean;
    while (is_space(*at) || *at == '(')
        at++;
    const char c = *at, after = c ? at[1] : 0;
    free(clean);
    return c >= 'A' && c <= 'Z' && !isalnum((unsigned char)after) ? c : 0;
}

static double score_letter(const char *output, const char *answer, const kept_reference *r)
{
    (void)r;
    const char c = letter_of(output);
    return c && c == letter_of(answer);
}

/* ---- table ----------------------------------------------------------------------------------- */

typedef double score_fn(const char *output, const char *answer, const kept_reference *r);

static const struct entry {
    score_fn *score; /* best over references; NULL: string match */
    bool first_line; /* LongBench: lstrip('\n').split('\n')[0] */
} metrics[KEPT_N_METRICS] = {
    [KEPT_METRIC_ALL] = {NULL, false},
    [KEPT_METRIC_ANY] = {NULL, false},
    [KEPT_METRIC_F1] = {score_f1, false},
    [KEPT_METRIC_F1_LINE] = {score_f1, true},
    [KEPT_METRIC_ROUGE_L] = {score_rouge, false},
    [KEPT_METRIC_ROUGE_L_LINE] = {score_rouge, true},
    [KEPT_METRIC_CLASS] = {score_class, true},
    [KEPT_METRIC_COUNT] = {score_count, false},
    [KEPT_METRIC_RETRIEVAL] = {score_retrieval, false},
    [KEPT_METRIC_EDIT] = {score_edit, false},
    [KEPT_METRIC_EXACT] = {score_exact, false},
    [KEPT_METRIC_LABEL] = {score_label, false},
    [KEPT_METRIC_NUMBER] = {score_number, false},
    [KEPT_METRIC_LETTER] = {score_letter, false},
    [KEPT_METRIC_CHOICE] = {score_exact, false},
};

static const char *const metric_names[KEPT_N_METRICS] = {
    "all",       "any",  "f1",    "f1-line", "rouge-l", "rouge-l-line", "class", "count",
    "retrieval", "edit", "exact", "label",   "number",  "letter",       "choice"};

const char *const *kept_metric_names(int *n)
{
    *n = KEPT_N_METRICS;
    return metric_names;
}

bool kept_metric_parse(const char *name, kept_metric *out)
{
    for (int i = 0; i < KEPT_N_METRICS; i++)
        if (!strcmp(name, metric_names[i])) {
            *out = (kept_metric)i;
            return true;
        }
    return false;
}

double kept_metric_score(kept_metric m, const char *output, const kept_reference *r)
{
    const struct entry *e = &metrics[m];
    if (!output || r->n_answers < 1)
        return 0;
    if (!e->score)
        return kept_score_match(output, r->answers, r->n_answers, m == KEPT_METRIC_ANY);
    char *line = NULL;
    if (e->first_line) {
        output += strspn(output, "\n");
        line = strndup(output, strcspn(output, "\n"));
        if (!line)
            return 0;
        output = line;
    }
    double best = 0;
    for (int i = 0; i < r->n_answers; i++)
        best = fmax(best, e->score(output, r->answers[i], r));
    free(line);
    return best;
}
