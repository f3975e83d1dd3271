/* nolima: questions that share no word with what answers them (NoLiMa, arXiv 2502.05167), from the
 * needle set that the user brings: an array of
 *
 *   {"needle": "... {CHAR} ... {1} ...", "task_template": "... {haystack} ... {question} ...",
 *    "system_prompt": "", "questions": {"onehop": "... {2} ...", ...}, "character_set": ["Yuki",
 * ...], "tests": {"T01": {"input_args": ["...", ...], "gold_answers": ["..."]}, ...}}
 *
 * {1}, {2}, ... are input_args in order, {CHAR} is one of the characters, the answer unless there
 * are gold_answers; task_template may be missing, character_set where no test needs one. A sample
 * is one question of one test of one needle, in a seeded order that comes to all of them before any
 * comes again, with a character of its own; docs/tasks.md says what differs from the benchmark.
 */
#include "task/parts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 65536
#define ROOM 32 /* tokens of an answer */

typedef struct ask {
    const json_t *item, *test; /* of root */
    const char *question;
} ask;

struct kept_nolima {
    json_t *root;
    ask *asks; /* [n] */
    int n;
    int *order; /* [n] */
};

void kept_nolima_close(kept_task *t)
{
    if (!t->nolima)
        return;
    json_decref(t->nolima->root);
    free(t->nolima->asks);
    free(t->nolima->order);
    free(t->nolima);
    t->nolima = NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

static kept_status refuse(const kept_task *t, int item, const char *what, kept_error *err)
{
    return kept_fail(err, KEPT_FORMAT, "%s: element %d %s", t->file, item + 1, what);
}

/* Text with {CHAR} and {1}, {2}, ... in their places; what is no such mark stays. */
static bool fill_in(kept_buf *b, const char *text, const char *who, const json_t *args)
{
    kept_buf_puts(b, "");
    for (const char *s = text; *s;) {
        const size_t n = strcspn(s, "{");
        kept_buf_add(b, s, n);
        s += n;
        if (!*s)
            break;
        char *end = NULL;
        const long k = s[1] >= '1' && s[1] <= '9' ? strtol(s + 1, &end, 10) : 0;
        const char *arg = k > 0 && *end == '}' && k <= MOST
                              ? json_string_value(json_array_get(args, (size_t)k - 1))
                              : NULL;
        if (!strncmp(s, "{CHAR}", 6)) {
            kept_buf_puts(b, who);
            s += 6;
        } else if (arg) {
            kept_buf_puts(b, arg);
            s = end + 1;
        } else {
            kept_buf_add(b, s++, 1);
        }
    }
    return !b->failed;
}

static bool is_list_of_texts(const json_t *list)
{
    const json_t *x;
    size_t i;
    json_array_foreach(list, i, x)
    {
        if (!json_is_string(x) || !*json_string_value(x))
            return false;
    }
    return json_array_size(list) > 0;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

/* The benchmark has a template of its own for needles without one; this is ours. */
static const char default_template[] =
    "Here is a part of a book:\n\n{haystack}\n\nAnswer by what it says, or by what follows from it "
    "without doubt.\n\nQuestion: {question}\n\nGive the answer alone, in a few words.";

static const char *template_of(const json_t *item)
{
    const char *own = text_of(item, "task_template");
    return *own ? own : default_template;
}

/* NULL: the character is the answer. */
static const json_t *gold_of(const json_t *test)
{
    const json_t *gold = json_object_get(test, "gold_answers");
    const bool none = json_is_null(gold) || (json_is_string(gold) && !json_string_length(gold)) ||
                      (json_is_array(gold) && !json_array_size(gold));
    return none ? NULL : gold;
}

/* Needles that name nobody have no characters, and tests with answers of their own. */
static bool names_somebody(const json_t *item)
{
    const json_t *test;
    const char *key;
    bool gold = true;
    json_object_foreach((json_t *)(uintptr_t)json_object_get(item, "tests"), key, test)
    {
        gold = gold && gold_of(test);
    }
    return !gold || strstr(text_of(item, "needle"), "{CHAR}");
}

/* One needle: what every sample of it rests on. */
static kept_status check_item(const kept_task *t, int i, const json_t *item, kept_error *err)
{
    const char *template = template_of(item), *needle = text_of(item, "needle");
    const char *hay = strstr(template, "{haystack}");
    if (!*needle)
        return refuse(t, i, "has no \"needle\"", err);
    const char *mark = strstr(template, "{question}");
    if (!hay || !mark || mark < hay)
        return refuse(t, i, "has a \"task_template\" without {haystack} before {question}", err);
    if (names_somebody(item) && !is_list_of_texts(json_object_get(item, "character_set")))
        return refuse(t, i, "has no \"character_set\" of texts", err);
    if (!json_object_size(json_object_get(item, "questions")))
        return refuse(t, i, "has no \"questions\"", err);
    if (!json_object_size(json_object_get(item, "tests")))
        return refuse(t, i, "has no \"tests\"", err);
    return KEPT_OK;
}

static kept_status check_test(const kept_task *t, int i, const json_t *test, kept_error *err)
{
    const json_t *gold = gold_of(test);
    if (!is_list_of_texts(json_object_get(test, "input_args")))
        return refuse(t, i, "has a test without \"input_args\" of texts", err);
    if (gold && !json_is_string(gold) && !is_list_of_texts(gold))
        return refuse(t, i, "has \"gold_answers\" that are no texts", err);
    return KEPT_OK;
}

static kept_status add_asks(kept_task *t, int i, json_t *item, kept_error *err)
{
    struct kept_nolima *q = t->nolima;
    const char *key, *kind;
    json_t *test, *question;
    kept_status st = check_item(t, i, item, err);
    if (st)
        return st;
    json_object_foreach(json_object_get(item, "tests"), key, test)
    {
        if ((st = check_test(t, i, test, err)))
            return st;
        json_object_foreach(json_object_get(item, "questions"), kind, question)
        {
            if (!json_is_string(question) || !*json_string_value(question))
                return refuse(t, i, "has a question that is no text", err);
            if (q->n == MOST)
                return refuse(t, i, "is one of too many", err);
            q->asks[q->n++] = (ask){item, test, json_string_value(question)};
        }
    }
    return KEPT_OK;
}

kept_status kept_nolima_read(kept_task *t, const char *text, size_t n, kept_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, n, 0, &why), *item;
    size_t i;
    t->nolima = kept_calloc(1, sizeof *t->nolima);
    if (t->nolima) {
        t->nolima->root = root;
        t->nolima->asks = kept_calloc(MOST, sizeof *t->nolima->asks);
        t->nolima->order = kept_calloc(MOST, sizeof *t->nolima->order);
    }
    if (!t->nolima || !t->nolima->asks || !t->nolima->order) {
        if (!t->nolima)
            json_decref(root);
        return kept_fail(err, KEPT_NOMEM, "out of memory reading %s", t->file);
    }
    if (!root)
        return kept_fail(err, KEPT_FORMAT, "%s:%d: %.160s", t->file, why.line, why.text);
    if (!json_array_size(root))
        return kept_fail(err, KEPT_FORMAT,
                         "%s is no needle set of NoLiMa, an array of needles with their tests",
                         t->file);
    kept_status st = KEPT_OK;
    json_array_foreach(root, i, item)
    {
        if (!st)
            st = add_asks(t, (int)i, item, err);
    }
    kept_rng rng;
    kept_rng_init(&rng, kept_hash64("nolima", 6, t->seed));
    kept_shuffle(&rng, t->nolima->order, t->nolima->n);
    return st;
}

/* ---- samples --------------------------------------------------------------------------------- */

/* What is asked, and whom it is about. */
static bool fill_answers(kept_turn *turn, const json_t *test, const char *who)
{
    const json_t *gold = gold_of(test);
    const size_t n = json_is_array(gold) ? json_array_size(gold) : 1;
    turn->answers = kept_calloc(n, sizeof *turn->answers);
    for (size_t k = 0; turn->answers && k < n; k++) {
        const char *text = json_is_array(gold)    ? json_string_value(json_array_get(gold, k))
                           : json_is_string(gold) ? json_string_value(gold)
                                                  : who;
        if (!(turn->answers[k] = strdup(text)))
            return false;
        turn->n_answers++;
    }
    return turn->answers;
}

/* The template in two parts: before the haystack, and behind it with the question in its place. */
static bool fill_turn(kept_sample *out, const ask *a, const char *who, const json_t *args,
                      kept_buf *head)
{
    kept_turn *turn = &out->turns[0];
    const char *system = text_of(a->item, "system_prompt");
    const char *template = template_of(a->item);
    const char *hay = strstr(template, "{haystack}"), *mark = strstr(template, "{question}");
    const char *tail = hay + strlen("{haystack}");
    kept_buf b = {0};
    kept_buf_puts(head, system);
    kept_buf_puts(head, *system ? "\n\n" : "");
    kept_buf_add(head, template, (size_t)(hay - template));
    kept_buf_add(&b, tail, (size_t)(mark - tail));
    fill_in(&b, a->question, who, args);
    kept_buf_puts(&b, mark + strlen("{question}"));
    turn->question = b.s;
    turn->answer_prefix = strdup("");
    turn->evidence = kept_calloc(1, sizeof *turn->evidence);
    turn->metric = KEPT_METRIC_ANY;
    turn->max_new_tokens = ROOM;
    return !b.failed && b.s && turn->answer_prefix && turn->evidence && !head->failed &&
           fill_answers(turn, a->test, who);
}

static kept_status draw_hay(kept_task *t, double start, int units, kept_hay *hay)
{
    return t->text.n ? kept_hay_essay(hay, t->text.s, t->text.n,
                                      (size_t)(start * (double)t->text.n), units)
                     : kept_hay_noise(hay, units);
}

kept_status kept_nolima_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    const struct kept_nolima *q = t->nolima;
    const ask *a = &q->asks[q->order[i % q->n]];
    const json_t *people = json_object_get(a->item, "character_set");
    const json_t *args = json_object_get(a->test, "input_args");
    kept_rng rng;
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    const double start = kept_rng_unit(&rng);
    const uint32_t person = kept_rng_below(&rng, (uint32_t)json_array_size(people));
    const char *name = json_string_value(json_array_get(people, person)), *who = name ? name : "";
    kept_hay hay = {0};
    kept_buf context = {0}, needle = {0};
    kept_hay_line line = {.depth = kept_task_sweep(t, i)};
    *out = (kept_sample){0};
    bool ok =
        !kept_sample_new_turns(out, 1) && fill_in(&needle, text_of(a->item, "needle"), who, args);
    if (ok && needle.n >= sizeof line.text) {
        kept_buf_free(&needle);
        kept_sample_clear(out);
        return kept_fail(err, KEPT_FORMAT, "%s: a needle has %zu bytes, more than %zu", t->file,
                         needle.n, sizeof line.text - 1);
    }
    if (ok)
        snprintf(line.text, sizeof line.text, "%s", needle.s);
    ok = ok && fill_turn(out, a, who, args, &context) && !draw_hay(t, start, units, &hay);
    if (ok) {
        ok = kept_hay_merge(&hay, hay.n + 1, &line, 1, &context, out);
        out->context = context.s;
        out->turns[0].evidence[0] = line.span;
        out->turns[0].n_evidence = 1;
        out->turns[0].depth = line.depth;
        ok = ok && !context.failed;
    } else {
        kept_buf_free(&context);
    }
    kept_buf_free(&needle);
    kept_hay_clear(&hay);
    if (ok)
        return KEPT_OK;
    kept_sample_clear(out);
    return kept_fail(err, KEPT_NOMEM, "out of memory building sample %d of %s", i, t->label);
}

kept_status kept_nolima_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    kept_buf set = {0};
    kept_status st = kept_buf_read_file(t->file, &set, err);
    if (!st)
        st = kept_nolima_read(t, set.s ? set.s : "", set.n, err);
    kept_buf_free(&set);
    if (!st && o->haystack)
        st = kept_hay_read_essay(t, o->haystack, err);
    if (st)
        return st;
    kept_task_set_label(t, o->haystack ? "essay" : "noise");
    return kept_size_find(t, err);
}
