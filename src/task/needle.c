/* needle: RULER's retrieval tasks. A needle sentence gives a key one of its values; the asked keys
 * are the first ones drawn, the other keys are distractors. The wording, the rule that
 * makes it singular and the haystacks are RULER's; docs/tasks.md lists what differs.
 *
 *   context = head + haystack with needles    question = "\nWhat ..."    answer_prefix = " The ..."
 *
 * All random draws of a sample that do not concern the haystack are made before it, so a sample
 * keeps its needles when its haystack is shrunk.
 */
#include "task/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NEEDLES 512

typedef struct needle {
    const char *key, *value;
    double depth; /* 0..1 */
    bool asked;
} needle;

typedef struct draft {
    const kept_needle_plan *plan;
    kept_rng rng;
    char (*keys)[KEPT_SECRET_CAP];   /* [n_keys] */
    char (*values)[KEPT_SECRET_CAP]; /* [n_keys * n_values] */
    needle *needles;                 /* [n_keys * n_values] */
    int n;                           /* n_keys * n_values */
    double start;                    /* 0..1: where an essay window begins */
    kept_hay hay;
    int n_gaps; /* places for needles that depths divide */
} draft;

static void draft_clear(draft *d)
{
    free(d->keys);
    free(d->values);
    free(d->needles);
    kept_hay_clear(&d->hay);
}

/* Draws until the secret differs from list[0..n): at most 512 of 150,000 or more possible ones. */
static void draw_distinct(draft *d, kept_secret_kind kind, char (*list)[KEPT_SECRET_CAP], int n)
{
    for (bool fresh = false; !fresh;) {
        kept_secret_draw(&d->rng, kind, d->plan->digits, list[n]);
        fresh = true;
        for (int i = 0; i < n && fresh; i++)
            fresh = strcmp(list[i], list[n]) != 0;
    }
}

#define RULER_DEPTHS 40

/* RULER's places: needles in the order of one fixed permutation. In an essay at depths drawn
 * without replacement from 40 points, sorted; elsewhere anywhere. */
static kept_status place_as_ruler(draft *d)
{
    int points[RULER_DEPTHS], *order = kept_calloc((size_t)d->n, sizeof *order);
    double *depth = kept_calloc((size_t)d->n, sizeof *depth);
    kept_status st = order && depth ? KEPT_OK : KEPT_NOMEM;
    const bool essay = d->plan->hay == KEPT_HAY_ESSAY && d->n <= RULER_DEPTHS;
    kept_shuffle(&d->rng, points, RULER_DEPTHS);
    for (int k = 0; k < d->n && !st; k++) {
        depth[k] =
            essay ? rint(points[k] * 100.0 / (RULER_DEPTHS - 1)) / 100 : kept_rng_unit(&d->rng);
        for (int i = k; i > 0 && depth[i] < depth[i - 1]; i--) {
            const double x = depth[i];
            depth[i] = depth[i - 1];
            depth[i - 1] = x;
        }
    }
    if (!st)
        kept_shuffle_fixed(order, d->n);
    for (int k = 0; k < d->n && !st; k++)
        d->needles[order[k]].depth = depth[k];
    free(order);
    free(depth);
    return st;
}

static kept_status draw_needles(kept_task *t, int i, draft *d)
{
    const kept_needle_plan *p = &t->needle;
    d->plan = p;
    d->n = p->n_keys * p->n_values;
    d->keys = kept_calloc((size_t)p->n_keys, sizeof *d->keys);
    d->values = kept_calloc((size_t)d->n, sizeof *d->values);
    d->needles = kept_calloc((size_t)d->n, sizeof *d->needles);
    if (!d->keys || !d->values || !d->needles)
        return KEPT_NOMEM;
    kept_rng_init(&d->rng, kept_task_sample_seed(t, i));
    d->start = kept_rng_unit(&d->rng);
    for (int k = 0; k < p->n_keys; k++)
        draw_distinct(d, p->key, d->keys, k);
    const double depth = kept_task_sweep(t, i);
    for (int k = 0; k < d->n; k++) {
        draw_distinct(d, p->value, d->values, k);
        needle *n = &d->needles[k];
        const int n_asked = p->n_queries * p->n_values;
        *n = (needle){d->keys[k / p->n_values], d->values[k], 0, k < n_asked};
        /* The asked values divide the context evenly, the first of them at the swept depth. */
        n->depth = n->asked ? fmod(depth + (double)k / n_asked, 1) : kept_rng_unit(&d->rng);
    }
    return t->compat ? place_as_ruler(d) : KEPT_OK;
}

static int needle_text(const draft *d, const char *key, const char *value, char *out, size_t cap)
{
    return snprintf(out, cap, "One of the special magic %ss for %s is: %s.",
                    kept_secret_kind_name(d->plan->value), key, value);
}

/* Every line a distractor whose key is not a needle's and whose value is not an answer. */
static kept_status hay_needles(draft *d, int n_units)
{
    const kept_needle_plan *p = d->plan;
    d->hay.sep = '\n';
    kept_status st = KEPT_OK;
    for (int i = 0; i < n_units && !st; i++) {
        char key[KEPT_SECRET_CAP], value[KEPT_SECRET_CAP], line[4 * KEPT_SECRET_CAP];
        for (bool fresh = false; !fresh;) {
            kept_secret_draw(&d->rng, p->key, p->digits, key);
            kept_secret_draw(&d->rng, p->value, p->digits, value);
            fresh = true;
            for (int k = 0; k < d->n && fresh; k++)
                fresh = strcmp(d->needles[k].key, key) && strcmp(d->needles[k].value, value);
        }
        st = kept_hay_add(&d->hay, line, (size_t)needle_text(d, key, value, line, sizeof line));
    }
    return st;
}

static kept_status draw_hay(kept_task *t, draft *d, int n_units)
{
    if (t->needle.hay == KEPT_HAY_NOISE)
        return kept_hay_noise(&d->hay, n_units);
    if (t->needle.hay == KEPT_HAY_NEEDLE)
        return hay_needles(d, n_units);
    const size_t start = t->compat ? 0 : (size_t)(d->start * (double)t->text.n);
    return kept_hay_essay(&d->hay, t->text.s, t->text.n, start, n_units);
}

/* Haystack and needles into out; spans of the asked needles, in their order, into evidence. */
static bool merge(const draft *d, kept_buf *out, kept_sample *sample)
{
    kept_turn *turn = sample->turns;
    kept_hay_line *lines = kept_calloc((size_t)d->n, sizeof *lines);
    if (!lines)
        return false;
    for (int k = 0; k < d->n; k++) {
        const needle *n = &d->needles[k];
        needle_text(d, n->key, n->value, lines[k].text, sizeof lines[k].text);
        lines[k].depth = n->depth;
    }
    const bool ok = kept_hay_merge(&d->hay, d->n_gaps, lines, d->n, out, sample);
    for (int k = 0; k < d->n; k++)
        if (d->needles[k].asked)
            turn->evidence[turn->n_evidence++] = lines[k].span;
    free(lines);
    return ok;
}

static int answer_room(const kept_task *t)
{
    const kept_needle_plan *p = &t->needle;
    const int room = kept_secret_room(p->value, p->digits) * p->n_values * p->n_queries;
    return t->compat && room < 128 ? 128 : room;
}

/* "a", "a, and b", "a, b, and c". */
static void write_keys(const draft *d, kept_buf *out)
{
    const int n = d->plan->n_queries;
    for (int k = 0; k < n; k++) {
        kept_buf_puts(out, k == 0 ? "" : k + 1 < n ? ", " : ", and ");
        kept_buf_puts(out, d->keys[k]);
    }
}

/* RULER's template and its singular when one value is asked for: Some -> A, are all -> is, are ->
 * is, numbers -> number. The needles themselves stay plural. */
static kept_status write_texts(const draft *d, kept_sample *out)
{
    const kept_needle_plan *p = d->plan;
    kept_turn *turn = out->turns;
    const bool one = p->n_values * p->n_queries == 1;
    const char *kind = kept_secret_kind_name(p->value), *s = one ? "" : "s";
    kept_buf context = {0}, question = {0}, answer = {0};
    char line[512];
    snprintf(line, sizeof line,
             "%s special magic %s%s %s hidden within the following text. Make sure to memorize it. "
             "I will quiz you about the %s%s afterwards.\n",
             one ? "A" : "Some", kind, s, one ? "is" : "are", kind, s);
    kept_buf_puts(&context, line);
    const bool merged = merge(d, &context, out);
    out->context = context.s;
    snprintf(line, sizeof line, "\nWhat %s the special magic %s%s for ", one ? "is" : "are all",
             kind, s);
    kept_buf_puts(&question, line);
    write_keys(d, &question);
    kept_buf_puts(&question, " mentioned in the provided text?");
    turn->question = question.s;
    snprintf(line, sizeof line, " The special magic %s%s for ", kind, s);
    kept_buf_puts(&answer, line);
    write_keys(d, &answer);
    kept_buf_puts(&answer, " mentioned in the provided text ");
    kept_buf_puts(&answer, one ? "is" : "are");
    turn->answer_prefix = answer.s;
    return !merged || context.failed || question.failed || answer.failed ? KEPT_NOMEM : KEPT_OK;
}

kept_status kept_needle_build(kept_task *t, int i, int n_units, kept_sample *out, kept_error *err)
{
    const kept_needle_plan *p = &t->needle;
    const int n_asked = p->n_queries * p->n_values;
    draft d = {0};
    kept_status st = draw_needles(t, i, &d);
    if (!st)
        st = draw_hay(t, &d, n_units);
    d.n_gaps = d.hay.n + (t->compat ? 0 : 1); /* RULER never puts one last, but at depth 100 */
    if (!st)
        st = kept_sample_new_turns(out, 1);
    kept_turn *turn = out->turns;
    if (!st) {
        turn->answers = kept_calloc((size_t)n_asked, sizeof *turn->answers);
        turn->evidence = kept_calloc((size_t)n_asked, sizeof *turn->evidence);
        turn->depth = 1;
        turn->max_new_tokens = answer_room(t);
        st = turn->answers && turn->evidence ? write_texts(&d, out) : KEPT_NOMEM;
    }
    for (int k = 0; k < n_asked && !st; k++) {
        turn->depth = fmin(turn->depth, d.needles[k].depth);
        if (!(turn->answers[k] = strdup(d.values[k])))
            st = KEPT_NOMEM;
        turn->n_answers = k + 1;
    }
    draft_clear(&d);
    if (st) {
        kept_sample_clear(out);
        return kept_fail(err, st, "out of memory building sample %d of %s", i, t->label);
    }
    return KEPT_OK;
}

static kept_status read_kind(const char *name, const char *what, kept_secret_kind *out,
                             kept_error *err)
{
    if (!name || kept_secret_kind_parse(name, out))
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT, "%s \"%s\" is none of word, number, uuid", what, name);
}

kept_status kept_needle_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    static const char *const hay_names[] = {"noise", "essay", "needle"};
    const kept_task_type *type = t->type;
    kept_needle_plan *p = &t->needle;
    *p = (kept_needle_plan){.hay = type->hay, .key = type->key, .value = type->value};
    kept_status st = read_kind(o->key, "key", &p->key, err);
    if (!st)
        st = read_kind(o->value, "value", &p->value, err);
    if (st)
        return st;
    p->n_keys = o->n_keys ? o->n_keys : type->n_keys;
    p->n_values = o->n_values ? o->n_values : type->n_values;
    p->digits = o->digits ? o->digits : KEPT_DIGITS;
    p->n_queries = o->n_queries ? o->n_queries : type->n_queries;
    if (p->n_keys < p->n_queries && !o->n_keys)
        p->n_keys = p->n_queries;
    if (p->n_keys < 1 || p->n_keys > MAX_NEEDLES || p->n_values < 1 || p->n_values > MAX_NEEDLES ||
        p->n_keys * p->n_values > MAX_NEEDLES)
        return kept_fail(err, KEPT_ARGUMENT,
                         "task %s: %d keys with %d values each are not between 1 and %d needles",
                         type->name, p->n_keys, p->n_values, MAX_NEEDLES);
    if (p->digits < KEPT_DIGITS || p->digits > KEPT_MAX_DIGITS)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: numbers have %d to %d digits, not %d",
                         type->name, KEPT_DIGITS, KEPT_MAX_DIGITS, p->digits);
    if (p->n_queries < 1 || p->n_queries > p->n_keys)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: cannot ask for %d of %d keys", type->name,
                         p->n_queries, p->n_keys);
    if (t->file && (p->hay == KEPT_HAY_NOISE || p->hay == KEPT_HAY_ESSAY))
        st = kept_hay_read_essay(t, t->file, err);
    if (st)
        return st;
    char what[96];
    int n = snprintf(what, sizeof what, "%s,%s,%s", kept_secret_kind_name(p->key),
                     kept_secret_kind_name(p->value), hay_names[p->hay]);
    if (p->n_keys != type->n_keys)
        n += snprintf(what + n, sizeof what - (size_t)n, ",keys=%d", p->n_keys);
    if (p->n_values != type->n_values)
        n += snprintf(what + n, sizeof what - (size_t)n, ",values=%d", p->n_values);
    if (p->digits != KEPT_DIGITS)
        n += snprintf(what + n, sizeof what - (size_t)n, ",digits=%d", p->digits);
    if (p->n_queries != type->n_queries)
        snprintf(what + n, sizeof what - (size_t)n, ",queries=%d", p->n_queries);
    kept_task_set_label(t, what);
    return kept_size_find(t, err);
}
