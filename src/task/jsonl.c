/* jsonl: the user's prompts, one JSON object per line; docs/tasks.md has the schema. Every line
 * that will be used is parsed and counted when the task opens, so that a bad line 900 fails at once
 * and not after hours.
 */
#include "task/parts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NEW_TOKENS 32
#define MAX_NEW_TOKENS     4096
#define MAX_ANSWERS        64
#define MAX_SPANS          64

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* String member as malloc'd text; absent: fallback, or an error if that is NULL. */
static kept_status read_string(const json_t *o, const char *key, const char *fallback, int number,
                               char **out, kept_error *err)
{
    const json_t *v = json_object_get(o, key);
    if (!v && !fallback)
        return kept_fail(err, KEPT_FORMAT, "line %d: \"%s\" is missing", number, key);
    if (v && !json_is_string(v))
        return kept_fail(err, KEPT_FORMAT, "line %d: \"%s\" is not a string", number, key);
    *out = strdup(v ? json_string_value(v) : fallback);
    return *out ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
}

static kept_status add_answer(const json_t *v, int number, kept_turn *out, kept_error *err)
{
    if (!json_is_string(v) || !json_string_length(v))
        return kept_fail(err, KEPT_FORMAT,
                         "line %d: an answer must be a string of at least one "
                         "character",
                         number);
    out->answers[out->n_answers] = strdup(json_string_value(v));
    if (!out->answers[out->n_answers])
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    out->n_answers++;
    return KEPT_OK;
}

static kept_status read_answers(const json_t *o, int number, kept_turn *out, kept_error *err)
{
    const json_t *one = json_object_get(o, "answer"), *many = json_object_get(o, "answers");
    if (!one == !many)
        return kept_fail(err, KEPT_FORMAT, "line %d: needs either \"answer\" or \"answers\"",
                         number);
    const size_t n = one ? 1 : json_array_size(many);
    if (many && (!json_is_array(many) || n < 1 || n > MAX_ANSWERS))
        return kept_fail(err, KEPT_FORMAT,
                         "line %d: \"answers\" is not an array of 1 to %d strings", number,
                         MAX_ANSWERS);
    out->answers = kept_calloc(n, sizeof *out->answers);
    if (!out->answers)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    kept_status st = KEPT_OK;
    for (size_t i = 0; i < n && !st; i++)
        st = add_answer(one ? one : json_array_get(many, i), number, out, err);
    return st;
}

static kept_status read_options(const json_t *o, int number, kept_turn *out, kept_error *err)
{
    const json_t *room = json_object_get(o, "max_new_tokens"), *match = json_object_get(o, "match");
    out->max_new_tokens = DEFAULT_NEW_TOKENS;
    if (room) {
        const json_int_t n = json_integer_value(room);
        if (!json_is_integer(room) || n < 1 || n > MAX_NEW_TOKENS)
            return kept_fail(err, KEPT_FORMAT,
                             "line %d: \"max_new_tokens\" is not a whole number from 1 to %d",
                             number, MAX_NEW_TOKENS);
        out->max_new_tokens = (int)n;
    }
    const char *how = match ? json_string_value(match) : "any";
    if (!how || (strcmp(how, "any") != 0 && strcmp(how, "all") != 0))
        return kept_fail(err, KEPT_FORMAT, "line %d: \"match\" is neither \"any\" nor \"all\"",
                         number);
    out->metric = strcmp(how, "any") ? KEPT_METRIC_ALL : KEPT_METRIC_ANY;
    return KEPT_OK;
}

static int compare_spans(const void *a, const void *b)
{
    const kept_span_chars *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Every place where an answer stands in the context, the first MAX_SPANS of each answer's turn. */
static kept_status find_evidence(const char *context, kept_turn *s, int number, kept_error *err)
{
    s->evidence = kept_calloc(MAX_SPANS, sizeof *s->evidence);
    if (!s->evidence)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    for (int i = 0; i < s->n_answers; i++) {
        const size_t len = strlen(s->answers[i]);
        const char *hit = context;
        while (s->n_evidence < MAX_SPANS && (hit = strstr(hit, s->answers[i]))) {
            const size_t begin = (size_t)(hit - context);
            s->evidence[s->n_evidence++] = (kept_span_chars){begin, begin + len};
            hit += len;
        }
    }
    qsort(s->evidence, (size_t)s->n_evidence, sizeof *s->evidence, compare_spans);
    if (s->n_evidence)
        s->depth = (double)s->evidence[0].begin / (double)strlen(context);
    return KEPT_OK;
}

/* Parts that would run together get a newline: before *part, unless it or what precedes it has
 * white space there. */
static kept_status separate(const char *before, char **part, int number, kept_error *err)
{
    const size_t n = strlen(before), len = strlen(*part);
    if (!n || !len || is_space(before[n - 1]) || is_space(**part))
        return KEPT_OK;
    char *longer = malloc(len + 2);
    if (!longer)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    longer[0] = '\n';
    memcpy(longer + 1, *part, len + 1);
    free(*part);
    *part = longer;
    return KEPT_OK;
}

static kept_status read_object(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    if (!json_is_object(o))
        return kept_fail(err, KEPT_FORMAT, "line %d: not a JSON object", number);
    if (kept_sample_new_turns(out, 1))
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    kept_turn *turn = out->turns;
    kept_status st = read_string(o, "context", NULL, number, &out->context, err);
    if (!st)
        st = read_string(o, "question", NULL, number, &turn->question, err);
    if (!st)
        st = read_string(o, "answer_prefix", "", number, &turn->answer_prefix, err);
    if (!st && !*out->context)
        st = kept_fail(err, KEPT_FORMAT, "line %d: \"context\" is empty", number);
    if (!st)
        st = kept_pins_read(o, number, out, err);
    if (!st)
        st = read_answers(o, number, turn, err);
    if (!st)
        st = read_options(o, number, turn, err);
    if (!st)
        st = separate(*turn->question ? turn->question : out->context, &turn->answer_prefix, number,
                      err);
    if (!st)
        st = separate(out->context, &turn->question, number, err);
    return st ? st : find_evidence(out->context, turn, number, err);
}

kept_status kept_jsonl_parse(const char *line, size_t n, int number, kept_sample *out,
                             kept_error *err)
{
    *out = (kept_sample){0};
    json_error_t e;
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, &e);
    if (!o)
        return kept_fail(err, KEPT_FORMAT, "line %d, column %d: %s", number, e.column, e.text);
    const kept_status st = read_object(o, number, out, err);
    json_decref(o);
    if (st)
        kept_sample_clear(out);
    return st;
}

static bool is_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!is_space(s[i]))
            return false;
    return true;
}

static size_t line_length(const kept_buf *b, size_t at)
{
    const char *end = memchr(b->s + at, '\n', b->n - at);
    return (end ? (size_t)(end - b->s) : b->n) - at;
}

/* Fills line and line_number with the first lines that are not blank; n_samples becomes theirs. */
static kept_status index_lines(kept_task *t, kept_error *err)
{
    const kept_buf *b = &t->text;
    size_t lines = 1;
    for (size_t i = 0; i < b->n; i++)
        lines += b->s[i] == '\n';
    const size_t cap = lines < (size_t)t->n_samples ? lines : (size_t)t->n_samples;
    t->line = kept_calloc(cap, sizeof *t->line);
    t->line_number = kept_calloc(cap, sizeof *t->line_number);
    if (!t->line || !t->line_number)
        return kept_fail(err, KEPT_NOMEM, "out of memory reading %s", t->file);
    size_t n = 0;
    int number = 1;
    for (size_t at = 0; at < b->n && n < cap; number++) {
        const size_t len = line_length(b, at);
        if (!is_blank(b->s + at, len)) {
            t->line[n] = at;
            t->line_number[n++] = number;
        }
        at += len + 1;
    }
    if (!n)
        return kept_fail(err, KEPT_FORMAT, "%s holds no samples", t->file);
    t->n_samples = (int)n;
    return KEPT_OK;
}

kept_status kept_jsonl_get(kept_task *t, int i, kept_sample *out, kept_error *err)
{
    kept_error line;
    const kept_status st = kept_jsonl_parse(
        t->text.s + t->line[i], line_length(&t->text, t->line[i]), t->line_number[i], out, &line);
    return st ? kept_fail(err, st, "%s %s", t->file, line.text) : KEPT_OK;
}

static kept_status check_sample(kept_task *t, int i, kept_error *err)
{
    kept_sample s;
    int n = 0;
    kept_status st = kept_jsonl_get(t, i, &s, err);
    if (!st)
        st = kept_prompt_count(t, &s, &n, err);
    if (!st && n > t->length)
        st = kept_fail(err, KEPT_ARGUMENT,
                       "%s line %d: %d tokens with the answer's %d, more than the length %d",
                       t->file, t->line_number[i], n, s.turns[0].max_new_tokens, t->length);
    kept_sample_clear(&s);
    return st;
}

kept_status kept_jsonl_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    const char *slash = strrchr(t->file, '/');
    kept_task_set_label(t, slash ? slash + 1 : t->file);
    kept_status st = kept_buf_read_file(t->file, &t->text, err);
    if (!st)
        st = index_lines(t, err);
    for (int i = 0; i < t->n_samples && !st; i++)
        st = check_sample(t, i, err);
    return st;
}
