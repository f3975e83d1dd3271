/* task: the list of tasks and checking of options. Adding a task: its functions and one line in
 * `types`.
 */
#include "task/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZED(Open, Build, Probe)                                                                  \
    .open = (Open), .get = kept_size_get, .build = (Build), .probe = (Probe)
#define NEEDLE(Hay, Key, Value, Keys, Values, Queries)                                             \
    SIZED(kept_needle_open, kept_needle_build, 8),                                                 \
        .hay = KEPT_HAY_##Hay, .key = KEPT_SECRET_##Key, .value = KEPT_SECRET_##Value,             \
        .n_keys = (Keys), .n_values = (Values), .n_queries = (Queries)

#define FACTS(Keys, Turns)                                                                         \
    SIZED(kept_facts_open, kept_facts_build, 8),                                                   \
        .key = KEPT_SECRET_WORD, .value = KEPT_SECRET_NUMBER, .n_keys = (Keys), .n_values = 1,     \
        .n_queries = (Turns)

static const kept_task_type types[] = {
    /* RULER's names and settings */
    {"niah_single_1", NEEDLE(NOISE, WORD, NUMBER, 1, 1, 1)},
    {"niah_single_2", .reads = "essay", .needed = true, NEEDLE(ESSAY, WORD, NUMBER, 1, 1, 1)},
    {"niah_single_3", .reads = "essay", .needed = true, NEEDLE(ESSAY, WORD, UUID, 1, 1, 1)},
    {"niah_multikey_1", .reads = "essay", .needed = true, NEEDLE(ESSAY, WORD, NUMBER, 4, 1, 1)},
    {"niah_multikey_2", NEEDLE(NEEDLE, WORD, NUMBER, 1, 1, 1)},
    {"niah_multikey_3", NEEDLE(NEEDLE, UUID, UUID, 1, 1, 1)},
    {"niah_multivalue", .reads = "essay", NEEDLE(NOISE, WORD, NUMBER, 1, 4, 1)},
    {"niah_multiquery", .reads = "essay", NEEDLE(NOISE, WORD, NUMBER, 4, 1, 4)},
    {"vt", SIZED(kept_vt_open, kept_vt_build, 8)},
    {"cwe", .reads = "words", SIZED(kept_cwe_open, kept_cwe_build, 8)},
    {"fwe", SIZED(kept_fwe_open, kept_fwe_build, 256)},
    {"qa_1", .reads = "squad", .needed = true, SIZED(kept_qa_open, kept_qa_build, 4)},
    {"qa_2", .reads = "hotpot", .needed = true, SIZED(kept_qa_open, kept_qa_build, 4)},
    {"nolima", .reads = "nolima", .needed = true, SIZED(kept_nolima_open, kept_nolima_build, 8)},
    /* the same with noise unless there is an essay */
    {"niah_single", .reads = "essay", NEEDLE(NOISE, WORD, NUMBER, 1, 1, 1)},
    {"niah_multikey", .reads = "essay", NEEDLE(NOISE, WORD, NUMBER, 4, 1, 1)},
    /* access patterns over one table of facts */
    {"facts_sequential", .reads = "essay", FACTS(16, 8)},
    {"facts_hotspot", .reads = "essay", FACTS(16, 8)},
    {"facts_periodic", .reads = "essay", FACTS(16, 8)},
    {"facts_requery", .reads = "essay", FACTS(16, 8)},
    {"facts_random", .reads = "essay", FACTS(16, 8)},
    {"facts_update", .reads = "essay", FACTS(16, 8)},
    {"text", KEPT_TASK_SCORE, "text", true, .open = kept_text_open, .get = kept_text_get},
    {"stream", KEPT_TASK_SCORE, "text", true, .open = kept_text_open, .get = kept_text_get},
    {"jsonl", .reads = "jsonl", .needed = true, .open = kept_jsonl_open, .get = kept_jsonl_get},
};
enum { N_TYPES = sizeof types / sizeof *types };

const char *const *kept_task_names(int *n)
{
    static const char *names[N_TYPES];
    for (int i = 0; i < N_TYPES; i++)
        names[i] = types[i].name;
    *n = N_TYPES;
    return names;
}

const kept_task_type *kept_task_type_of(const char *name)
{
    for (int i = 0; i < N_TYPES; i++)
        if (name && !strcmp(name, types[i].name))
            return &types[i];
    return NULL;
}

const char *kept_task_reads(const char *name, bool *needed)
{
    const kept_task_type *type = kept_task_type_of(name);
    *needed = type && type->needed;
    return type ? type->reads : NULL;
}

static const kept_task_type *find_type(const char *name, kept_error *err)
{
    const kept_task_type *type = kept_task_type_of(name);
    int n;
    const char *const *names = kept_task_names(&n);
    if (type)
        return type;
    const int near = name ? kept_nearest(name, strlen(name), names, n) : -1;
    if (near >= 0)
        kept_fail(err, KEPT_ARGUMENT, "unknown task \"%s\"; did you mean \"%s\"?", name,
                  names[near]);
    else
        kept_fail(err, KEPT_ARGUMENT, "unknown task \"%s\"; 'kept run --help' lists the tasks",
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

/* A scored text has no question. */
static kept_status set_perturb(kept_task *t, const kept_task_options *o, kept_error *err)
{
    int n;
    const char *const *names = kept_perturb_names(&n);
    char *probe = NULL;
    if (!o->perturb || t->type->kind != KEPT_TASK_GENERATE)
        return KEPT_OK;
    const kept_status st = kept_perturb(o->perturb, "", &probe, err);
    free(probe);
    for (int i = 1; !st && i < n; i++) /* 0: none */
        if (!strcmp(o->perturb, names[i]))
            t->perturb = names[i];
    return st;
}

/* Whether the first sample can be perturbed is known before any work. */
static kept_status try_perturb(kept_task *t, kept_error *err)
{
    const size_t n = strlen(t->label);
    kept_sample s;
    const kept_status st = kept_task_get(t, 0, &s, err);
    kept_sample_clear(&s);
    snprintf(t->label + n, sizeof t->label - n, "+%s", t->perturb);
    return st;
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
    t->compat = o->ruler_compat;
    t->turns = o->turns;
    t->probe = type->probe;
    /* A scored text is no conversation: it stays as it is. */
    t->chat = o->chat && type->kind == KEPT_TASK_GENERATE;
    t->query_aware = o->query_aware && type->kind == KEPT_TASK_GENERATE;
    kept_status st = set_perturb(t, o, err);
    if (!st)
        st = check_length(t, o, err);
    if (!st && o->file && !(t->file = strdup(o->file)))
        st = kept_fail(err, KEPT_NOMEM, "out of memory opening task %s", type->name);
    if (!st && type->needed && !t->file)
        st = kept_fail(err, KEPT_ARGUMENT, "task %s needs a file (%s)", type->name, type->reads);
    if (!st && t->chat)
        st = kept_prompt_open(t, err);
    if (!st)
        st = type->open(t, o, err);
    if (!st && t->perturb)
        st = try_perturb(t, err);
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
    kept_qa_close(t);
    kept_nolima_close(t);
    free(t->words);
    free(t->file);
    free(t->line);
    free(t->line_end);
    free(t->line_number);
    free(t);
}

kept_task_kind kept_task_get_kind(const kept_task *t)
{
    return t->type->kind;
}

static const char *const mode_names[] = {"gold", "own", "requests"};

const char *kept_turn_mode_name(kept_turn_mode mode)
{
    return mode_names[mode];
}

bool kept_turn_mode_parse(const char *name, kept_turn_mode *out)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, mode_names[i])) {
            *out = (kept_turn_mode)i;
            return true;
        }
    return false;
}

kept_turn_mode kept_task_turn_mode(const kept_task *t)
{
    return t->turns;
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
    *out = (kept_sample){0};
    if (i < 0 || i >= t->n_samples)
        return kept_fail(err, KEPT_ARGUMENT, "task %s has samples 0 to %d, not %d", t->label,
                         t->n_samples - 1, i);
    kept_status st = t->type->get(t, i, out, err);
    if (!st && t->perturb)
        st = kept_perturb_sample(t, i, out, err);
    if (st)
        kept_sample_clear(out);
    return st;
}

kept_status kept_sample_new_turns(kept_sample *s, int n)
{
    s->turns = kept_calloc((size_t)n, sizeof *s->turns);
    if (!s->turns)
        return KEPT_NOMEM;
    s->n_turns = n;
    for (int i = 0; i < n; i++)
        s->turns[i].depth = -1;
    return KEPT_OK;
}

static void free_texts(char **text, int n)
{
    for (int i = 0; text && i < n; i++)
        free(text[i]);
    free(text);
}

void kept_sample_clear(kept_sample *s)
{
    for (int i = 0; i < s->n_turns; i++) {
        kept_turn *t = &s->turns[i];
        free(t->question);
        free(t->answer_prefix);
        free_texts(t->answers, t->n_answers);
        free_texts(t->labels, t->n_labels);
        free(t->evidence);
    }
    free(s->turns);
    free(s->pins);
    free(s->pieces);
    free(s->plain);
    free(s->context);
    *s = (kept_sample){0};
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
