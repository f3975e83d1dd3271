/* task: the list of tasks, checking of options, and RULER's string match. Adding a task: its open
 * and get functions and one line in `types`.
 */
#include "task/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEEDLE kept_needle_open, kept_needle_get

static const kept_task_type types[] = {
    {"niah_single", KEPT_TASK_GENERATE, NEEDLE, KEPT_HAY_NOISE, KEPT_SECRET_WORD,
     KEPT_SECRET_NUMBER, 1, 1},
    {"niah_multikey", KEPT_TASK_GENERATE, NEEDLE, KEPT_HAY_NOISE, KEPT_SECRET_WORD,
     KEPT_SECRET_NUMBER, 4, 1},
    {"niah_multikey_2", KEPT_TASK_GENERATE, NEEDLE, KEPT_HAY_NEEDLE, KEPT_SECRET_WORD,
     KEPT_SECRET_NUMBER, 1, 1},
    {"niah_multikey_3", KEPT_TASK_GENERATE, NEEDLE, KEPT_HAY_NEEDLE, KEPT_SECRET_UUID,
     KEPT_SECRET_UUID, 1, 1},
    {"niah_multivalue", KEPT_TASK_GENERATE, NEEDLE, KEPT_HAY_NOISE, KEPT_SECRET_WORD,
     KEPT_SECRET_NUMBER, 1, 4},
    {"text", KEPT_TASK_SCORE, kept_text_open, kept_text_get, 0, 0, 0, 0, 0},
    {"jsonl", KEPT_TASK_GENERATE, kept_jsonl_open, kept_jsonl_get, 0, 0, 0, 0, 0},
};
enum { N_TYPES = sizeof types / sizeof *types };

static const kept_task_type *find_type(const char *name, kept_error *err)
{
    const char *names[N_TYPES];
    for (int i = 0; i < N_TYPES; i++) {
        names[i] = types[i].name;
        if (name && !strcmp(name, names[i]))
            return &types[i];
    }
    const int near = name ? kept_nearest(name, strlen(name), names, N_TYPES) : -1;
    if (near >= 0)
        kept_fail(err, KEPT_ARGUMENT, "unknown task \"%s\"; did you mean \"%s\"?", name,
                  names[near]);
    else
        kept_fail(err, KEPT_ARGUMENT,
                  "unknown task \"%s\"; tasks are niah_single, niah_multikey, niah_multikey_2, "
                  "niah_multikey_3, niah_multivalue, text and jsonl",
                  name ? name : "");
    return NULL;
}

static kept_status check_length(kept_task *t, const kept_task_options *o, kept_error *err)
{
    const int trained = kept_model_get_info(t->model)->n_ctx_train;
    t->length = o->length;
    if (o->length == 0 && t->type->open == kept_jsonl_open && trained > 0)
        t->length = trained;
    if (t->length < 1)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: length must be at least 1, not %d",
                         t->type->name, o->length);
    if (trained > 0 && t->length > trained)
        return kept_fail(err, KEPT_ARGUMENT,
                         "task %s: length %d is beyond the %d tokens this model was trained for",
                         t->type->name, t->length, trained);
    if (o->n_samples < 1)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: needs at least one sample, not %d",
                         t->type->name, o->n_samples);
    return KEPT_OK;
}

kept_status kept_task_open(const kept_task_options *o, const kept_model *model, kept_task **out,
                           kept_error *err)
{
    *out = NULL;
    const kept_task_type *type = find_type(o->name, err);
    if (!type)
        return KEPT_ARGUMENT;
    kept_task *t = kept_calloc(1, sizeof *t);
    if (!t)
        return kept_fail(err, KEPT_NOMEM, "out of memory opening task %s", type->name);
    t->type = type;
    t->model = model;
    t->n_samples = o->n_samples;
    t->seed = o->seed;
    t->score_tokens = o->score_tokens;
    /* A scored text is no conversation: it stays as it is. */
    t->chat = o->chat && type->kind == KEPT_TASK_GENERATE;
    t->query_aware = o->query_aware && type->kind == KEPT_TASK_GENERATE;
    kept_status st = check_length(t, o, err);
    if (!st && o->file && !(t->file = strdup(o->file)))
        st = kept_fail(err, KEPT_NOMEM, "out of memory opening task %s", type->name);
    if (!st && t->chat)
        st = kept_prompt_open(t, err);
    if (!st)
        st = type->open(t, o, err);
    if (st) {
        kept_task_close(t);
        return st;
    }
    *out = t;
    return KEPT_OK;
}

void kept_task_close(kept_task *t)
{
    if (!t)
        return;
    kept_buf_free(&t->text);
    free(t->file);
    free(t->line);
    free(t->line_number);
    free(t);
}

kept_task_kind kept_task_get_kind(const kept_task *t)
{
    return t->type->kind;
}

const char *kept_task_label(const kept_task *t)
{
    return t->label;
}

int kept_task_n_samples(const kept_task *t)
{
    return t->n_samples;
}

kept_status kept_task_get(kept_task *t, int i, kept_sample *out, kept_error *err)
{
    *out = (kept_sample){.depth = -1};
    if (i < 0 || i >= t->n_samples)
        return kept_fail(err, KEPT_ARGUMENT, "task %s has samples 0 to %d, not %d", t->label,
                         t->n_samples - 1, i);
    const kept_status st = t->type->get(t, i, out, err);
    if (st)
        kept_sample_clear(out);
    return st;
}

void kept_sample_clear(kept_sample *s)
{
    free(s->context);
    free(s->question);
    free(s->answer_prefix);
    for (int i = 0; s->answers && i < s->n_answers; i++)
        free(s->answers[i]);
    free(s->answers);
    free(s->evidence);
    *s = (kept_sample){.depth = -1};
}

static int gcd(int a, int b)
{
    while (b) {
        const int r = a % b;
        a = b;
        b = r;
    }
    return a;
}

double kept_task_sweep(const kept_task *t, int i)
{
    const int n = t->n_samples;
    int step = (int)(0.6180339887498949 * n);
    step = step < 1 ? 1 : step;
    while (gcd(step, n) != 1)
        step++;
    const uint64_t first = kept_hash64("sweep", 5, t->seed) % (uint64_t)n;
    const uint64_t stratum = (first + (uint64_t)i * (uint64_t)step) % (uint64_t)n;
    kept_rng rng;
    kept_rng_init(&rng, kept_hash64("jitter", 6, kept_task_sample_seed(t, i)));
    return ((double)stratum + kept_rng_unit(&rng)) / n;
}

uint64_t kept_task_sample_seed(const kept_task *t, int i)
{
    const unsigned char index[4] = {(unsigned char)i, (unsigned char)(i >> 8),
                                    (unsigned char)(i >> 16), (unsigned char)(i >> 24)};
    return kept_hash64(index, sizeof index,
                       kept_hash64(t->type->name, strlen(t->type->name), t->seed));
}

void kept_task_set_label(kept_task *t, const char *what)
{
    snprintf(t->label, sizeof t->label, "%s(%.*s)", t->type->name, 100, what);
}

/* ---- string match ---------------------------------------------------------------------------- */

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
