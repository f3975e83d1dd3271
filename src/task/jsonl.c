/* jsonl: the user's prompts, one JSON object per line; docs/tasks.md has the schema. Every line
 * that will be used is parsed and counted when the task opens, so that a bad line 900 fails at once
 * and not after hours.
 */
#include "task/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_NEW_TOKENS 32
#define MAX_NEW_TOKENS     4096
#define MAX_ANSWERS        64
#define MAX_SPANS          64
#define MAX_TURNS          256
#define MAX_MESSAGES       4096

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

/* A text, or a whole number as text; an array of 1 to MAX_ANSWERS of them. */
static kept_status read_texts(const json_t *v, const char *what, char ***out, int *n_out,
                              int number, kept_error *err)
{
    const bool many = json_is_array(v);
    const size_t n = many ? json_array_size(v) : 1;
    if (n < 1 || n > MAX_ANSWERS)
        return kept_fail(err, KEPT_FORMAT, "line %d: %s are not 1 to %d", number, what,
                         MAX_ANSWERS);
    char **list = *out = kept_calloc(n, sizeof *list);
    if (!list)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = many ? json_array_get(v, i) : v;
        char text[32];
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(x));
        if (!json_is_integer(x) && !json_string_length(x))
            return kept_fail(err, KEPT_FORMAT,
                             "line %d: %s must be a string of at least one character or a whole "
                             "number",
                             number, what);
        list[i] = strdup(json_is_integer(x) ? text : json_string_value(x));
        if (!list[i])
            return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
        *n_out = (int)i + 1;
    }
    return KEPT_OK;
}

kept_status kept_read_answers(const json_t *v, int number, kept_turn *out, kept_error *err)
{
    return read_texts(v, "an answer", &out->answers, &out->n_answers, number, err);
}

kept_status kept_read_labels(const json_t *v, int number, kept_turn *out, kept_error *err)
{
    return read_texts(v, "a label", &out->labels, &out->n_labels, number, err);
}

static kept_status read_answers(const json_t *o, int number, kept_turn *out, kept_error *err)
{
    const json_t *one = json_object_get(o, "answer"), *many = json_object_get(o, "answers");
    if (!one == !many)
        return kept_fail(err, KEPT_FORMAT, "line %d: needs either \"answer\" or \"answers\"",
                         number);
    if (one && json_is_array(one))
        return kept_fail(err, KEPT_FORMAT, "line %d: \"answer\" is an array; it may be \"answers\"",
                         number);
    if (many && !json_array_size(many))
        return kept_fail(err, KEPT_FORMAT,
                         "line %d: \"answers\" is not an array of 1 to %d strings", number,
                         MAX_ANSWERS);
    return kept_read_answers(one ? one : many, number, out, err);
}

/* "match" is the older name of the two metrics that it knows. */
static kept_status read_metric(const json_t *o, int number, kept_turn *out, kept_error *err)
{
    const json_t *match = json_object_get(o, "match"), *metric = json_object_get(o, "metric");
    const json_t *labels = json_object_get(o, "labels");
    const char *how = match ? json_string_value(match) : "any";
    if (!how || (strcmp(how, "any") != 0 && strcmp(how, "all") != 0))
        return kept_fail(err, KEPT_FORMAT, "line %d: \"match\" is neither \"any\" nor \"all\"",
                         number);
    const char *name = metric ? json_string_value(metric) : how;
    if (!name || !kept_metric_parse(name, &out->metric)) {
        int n;
        const char *const *names = kept_metric_names(&n);
        const int near = name ? kept_nearest(name, strlen(name), names, n) : -1;
        return kept_fail(err, KEPT_FORMAT, "line %d: \"metric\" is none that there is%s%s%s",
                         number, near < 0 ? "" : "; did you mean \"", near < 0 ? "" : names[near],
                         near < 0 ? "" : "\"?");
    }
    const bool needs = out->metric == KEPT_METRIC_CLASS || out->metric == KEPT_METRIC_LABEL ||
                       out->metric == KEPT_METRIC_CHOICE;
    if (needs && !json_is_array(labels))
        return kept_fail(err, KEPT_FORMAT, "line %d: metric \"%s\" needs \"labels\"", number, name);
    return labels ? kept_read_labels(labels, number, out, err) : KEPT_OK;
}

static kept_status read_options(const json_t *o, int number, kept_turn *out, kept_error *err)
{
    const json_t *room = json_object_get(o, "max_new_tokens");
    out->max_new_tokens = DEFAULT_NEW_TOKENS;
    if (room) {
        const json_int_t n = json_integer_value(room);
        if (!json_is_integer(room) || n < 1 || n > MAX_NEW_TOKENS)
            return kept_fail(err, KEPT_FORMAT,
                             "line %d: \"max_new_tokens\" is not a whole number from 1 to %d",
                             number, MAX_NEW_TOKENS);
        out->max_new_tokens = (int)n;
    }
    return read_metric(o, number, out, err);
}

static int compare_spans(const void *a, const void *b)
{
    const kept_span_chars *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Every place where an answer stands in the context, the first MAX_SPANS of each answer's turn. */
kept_status kept_find_evidence(const char *context, kept_turn *s, int number, kept_error *err)
{
    /* A letter, a class or a text of one's own words stands nowhere in particular. */
    const bool places = s->metric == KEPT_METRIC_ALL || s->metric == KEPT_METRIC_ANY ||
                        s->metric == KEPT_METRIC_F1 || s->metric == KEPT_METRIC_F1_LINE ||
                        s->metric == KEPT_METRIC_EXACT || s->metric == KEPT_METRIC_NUMBER;
    if (!places)
        return KEPT_OK;
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

kept_status kept_split_question(char *context, const char *split, char **question, kept_error *err)
{
    char *at = NULL;
    for (const char *part = split; part && *part && !at;) {
        const size_t n = strcspn(part, "\1"), len = strlen(context);
        for (size_t i = len; i-- > 0 && !at;)
            if (i + n <= len && !memcmp(context + i, part, n))
                at = context + i;
        part += n + (part[n] != 0);
    }
    if (!at || at == context) {
        size_t end = strlen(context);
        while (end && is_space(context[end - 1]))
            end--;
        while (end && context[end - 1] != '\n')
            end--;
        at = end > 1 ? context + end - 1 : NULL;
    }
    *question = strdup(at ? at : "");
    if (!*question)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a question");
    if (at)
        *at = 0;
    return KEPT_OK;
}

static kept_status read_turn(const json_t *o, bool question, int number, kept_turn *turn,
                             kept_error *err)
{
    kept_status st = read_string(o, "question", question ? NULL : "", number, &turn->question, err);
    if (!st)
        st = read_string(o, "answer_prefix", "", number, &turn->answer_prefix, err);
    if (!st)
        st = read_answers(o, number, turn, err);
    return st ? st : read_options(o, number, turn, err);
}

static kept_status read_turns(const json_t *o, bool question, int number, kept_sample *out,
                              kept_error *err)
{
    const json_t *turns = json_object_get(o, "turns");
    const size_t n = turns ? json_array_size(turns) : 1;
    if (n < 1 || n > MAX_TURNS)
        return kept_fail(err, KEPT_FORMAT, "line %d: \"turns\" is not an array of 1 to %d objects",
                         number, MAX_TURNS);
    if (kept_sample_new_turns(out, (int)n))
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    kept_status st = KEPT_OK;
    for (size_t k = 0; k < n && !st; k++)
        st = read_turn(turns ? json_array_get(turns, k) : o, turns || question, number,
                       &out->turns[k], err);
    return st;
}

/* Earlier messages in the model's template are the context, the last user's is the question. */
static kept_status read_messages(const json_t *list, const kept_model *m, int number,
                                 kept_sample *out, char **question, kept_error *err)
{
    const size_t n = json_array_size(list);
    const json_t *x;
    size_t i, len = 0;
    if (!m || n < 1 || n > MAX_MESSAGES)
        return kept_fail(err, KEPT_FORMAT, "line %d: \"messages\" is not an array of 1 to %d",
                         number, MAX_MESSAGES);
    kept_message *messages = kept_calloc(n, sizeof *messages);
    char *text = NULL;
    kept_status st = messages ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    json_array_foreach(list, i, x) if (!st) messages[i] =
        (kept_message){json_string_value(json_object_get(x, "role")),
                       json_string_value(json_object_get(x, "content"))};
    const char *asked = st ? NULL : messages[n - 1].content;
    if (!st && (!asked || !*asked || !messages[n - 1].role || strcmp(messages[n - 1].role, "user")))
        st = kept_fail(err, KEPT_FORMAT, "line %d: the last message is not a user's", number);
    if (!st)
        st = kept_chat_messages(m, messages, (int)n, true, NULL, 0, &len, err);
    if (!st && !(text = malloc(len + 1)))
        st = kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    if (!st)
        st = kept_chat_messages(m, messages, (int)n, true, text, len + 1, &len, err);
    char *at = NULL;
    for (char *hit = text; !st && (hit = strstr(hit, asked)); hit++)
        at = hit;
    if (!st && (!at || at == text))
        st = kept_fail(err, KEPT_UNSUPPORTED, "the chat template changes the message's text");
    if (!st && !(*question = strdup(at)))
        st = kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    if (!st) {
        *at = 0;
        out->context = text;
        out->raw = true;
        text = NULL;
    }
    free(text);
    free(messages);
    return st;
}

/* Our own format: context with a question or turns, a prompt, or messages. */
static kept_status read_object(const json_t *o, const kept_model *m, int number, kept_sample *out,
                               kept_error *err)
{
    const json_t *prompt = json_object_get(o, "prompt"), *list = json_object_get(o, "messages");
    char *asked = NULL;
    const bool whole = prompt || list;
    kept_status st = KEPT_OK;
    if (whole && (json_object_get(o, "context") || json_object_get(o, "turns") || (prompt && list)))
        return kept_fail(
            err, KEPT_FORMAT,
            "line %d: only one of \"context\", \"prompt\" and \"messages\"; \"turns\" go "
            "with a context",
            number);
    if (list)
        st = read_messages(list, m, number, out, &asked, err);
    else
        st = read_string(o, prompt ? "prompt" : "context", NULL, number, &out->context, err);
    if (!st && prompt)
        st = kept_split_question(out->context, NULL, &asked, err);
    if (!st && !*out->context)
        st = kept_fail(err, KEPT_FORMAT, "line %d: \"%s\" is empty", number,
                       prompt ? "prompt" : "context");
    if (!st)
        st = kept_pins_read(o, number, out, err);
    if (!st)
        st = read_turns(o, !whole, number, out, err);
    if (!st && whole) {
        free(out->turns->question);
        out->turns->question = asked;
        asked = NULL;
    }
    free(asked);
    for (int k = 0; k < out->n_turns && !st && !whole; k++) {
        kept_turn *turn = &out->turns[k];
        st = separate(*turn->question ? turn->question : out->context, &turn->answer_prefix, number,
                      err);
        if (!st)
            st = separate(out->context, &turn->question, number, err);
    }
    for (int k = 0; k < out->n_turns && !st; k++)
        st = kept_find_evidence(out->context, &out->turns[k], number, err);
    return st;
}

kept_status kept_jsonl_parse(const char *line, size_t n, int number, const kept_model *m,
                             kept_sample *out, kept_error *err)
{
    *out = (kept_sample){0};
    json_error_t e;
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, &e);
    if (!o)
        return kept_fail(err, KEPT_FORMAT, "line %d, column %d: %s", number, e.column, e.text);
    kept_status st;
    const kept_reader *r = json_is_object(o) ? kept_reader_find(o) : NULL;
    if (!json_is_object(o))
        st = kept_fail(err, KEPT_FORMAT, "line %d: not a JSON object", number);
    else if (r)
        st = kept_reader_map(r, o, number, out, err);
    else
        st = read_object(o, m, number, out, err);
    out->cut = r && r->cut;
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

/* End of the line at `at`, or of the array's element that begins there. */
static size_t end_of(const kept_buf *b, size_t at, bool array)
{
    int depth = 0;
    bool text = false;
    if (!array) {
        const char *end = memchr(b->s + at, '\n', b->n - at);
        return end ? (size_t)(end - b->s) : b->n;
    }
    for (; at < b->n; at++) {
        const char c = b->s[at];
        if (text && c == '\\')
            at++;
        else if (c == '"')
            text = !text;
        else if (!text && (c == '{' || c == '['))
            depth++;
        else if (!text && (c == '}' || c == ']') && --depth < 0)
            return at;
        else if (!text && c == ',' && !depth)
            return at;
    }
    return b->n;
}

/* Fills line, line_end and line_number with the first lines, or elements of an array that the file
 * is, which are not blank; n_samples becomes theirs. */
static kept_status index_lines(kept_task *t, kept_error *err)
{
    const kept_buf *b = &t->text;
    const size_t cap = (size_t)t->n_samples < b->n + 1 ? (size_t)t->n_samples : b->n + 1;
    size_t n = 0, at = 0;
    int number = 1;
    while (at < b->n && is_space(b->s[at]))
        at++;
    const bool array = at < b->n && b->s[at] == '[';
    t->line = kept_calloc(cap, sizeof *t->line);
    t->line_end = kept_calloc(cap, sizeof *t->line_end);
    t->line_number = kept_calloc(cap, sizeof *t->line_number);
    if (!t->line || !t->line_end || !t->line_number)
        return kept_fail(err, KEPT_NOMEM, "out of memory reading %s", t->file);
    for (at = array ? at + 1 : 0; at < b->n && n < cap; number++) {
        const size_t end = end_of(b, at, array);
        if (!is_blank(b->s + at, end - at)) {
            t->line[n] = at;
            t->line_end[n] = end;
            t->line_number[n++] = number;
        }
        if (array && end < b->n && b->s[end] != ',')
            break;
        at = end + 1;
    }
    if (!n)
        return kept_fail(err, KEPT_FORMAT, "%s holds no samples", t->file);
    t->n_samples = (int)n;
    return KEPT_OK;
}

kept_status kept_jsonl_get(kept_task *t, int i, kept_sample *out, kept_error *err)
{
    kept_error line;
    const kept_status st = kept_jsonl_parse(t->text.s + t->line[i], t->line_end[i] - t->line[i],
                                            t->line_number[i], t->model, out, &line);
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
    const char *slash = strrchr(t->file, '/');
    kept_task_set_label(t, slash ? slash + 1 : t->file);
    kept_status st = kept_buf_read_file(t->file, &t->text, err);
    if (!st)
        st = index_lines(t, err);
    for (int i = 0; i < t->n_samples && !st && !o->sized; i++)
        st = check_sample(t, i, err);
    return st;
}
