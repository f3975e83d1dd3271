/* facts: one table of facts (a needle sentence each) in a haystack, asked for turn by turn in an
 * order that is an access pattern of serving:
 *
 *   facts_sequential   in document order                   what a sliding window likes
 *   facts_hotspot      Zipf (exponent 1) over the facts    what frequency likes
 *   facts_periodic     a cycle of a few facts              the worst case of recency
 *   facts_requery      half the turns ask, half ask again  what was asked is needed later
 *   facts_random       uniformly                           history says nothing
 *   facts_update       some facts are stated twice, the later one holds
 *
 * All draws but the haystack's are made before it, so a sample keeps its facts when it shrinks.
 */
#include "task/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FACTS      512
#define MAX_TURNS      256
#define DEFAULT_PERIOD 4

typedef struct table {
    int n;        /* facts */
    int n_lines;  /* n, and one more for each that is updated */
    double start; /* 0..1: where an essay begins */
    char (*key)[KEPT_SECRET_CAP], (*value)[KEPT_SECRET_CAP]; /* [n]; the value that holds */
    kept_hay_line *lines; /* [2 * n] line k of fact k, the later one if it is updated */
    int *asked;           /* [n_queries] */
} table;

static void table_free(table *x)
{
    free(x->key);
    free(x->value);
    free(x->lines);
    free(x->asked);
}

static void draw_distinct(kept_rng *rng, kept_secret_kind kind, int digits,
                          char (*list)[KEPT_SECRET_CAP], int n)
{
    for (bool fresh = false; !fresh;) {
        kept_secret_draw(rng, kind, digits, list[n]);
        fresh = true;
        for (int i = 0; i < n && fresh; i++)
            fresh = strcmp(list[i], list[n]) != 0;
    }
}

static bool is_pattern(const kept_task *t, const char *name)
{
    return !strcmp(t->type->name + strlen("facts_"), name);
}

/* An index with probability proportional to 1 / (index + 1). */
static int draw_zipf(kept_rng *rng, int n)
{
    double all = 0;
    for (int i = 0; i < n; i++)
        all += 1.0 / (i + 1);
    double x = kept_rng_unit(rng) * all;
    for (int i = 0; i < n; i++)
        if ((x -= 1.0 / (i + 1)) < 0)
            return i;
    return n - 1;
}

/* Which fact each turn asks for; facts are numbered in document order. */
static bool draw_asked(const kept_task *t, kept_rng *rng, table *x)
{
    const int n_turns = t->needle.n_queries, n = x->n;
    int *order = kept_calloc((size_t)(n > n_turns ? n : n_turns), sizeof *order);
    int *again = kept_calloc((size_t)n_turns, sizeof *again);
    if (order && again) {
        kept_shuffle(rng, order, n);
        kept_shuffle(rng, again, (n_turns + 1) / 2);
    }
    for (int k = 0; k < n_turns && order && again; k++) {
        const int half = (n_turns + 1) / 2;
        if (is_pattern(t, "sequential"))
            x->asked[k] = k % n;
        else if (is_pattern(t, "hotspot"))
            x->asked[k] = order[draw_zipf(rng, n)];
        else if (is_pattern(t, "periodic"))
            x->asked[k] = order[k % t->period];
        else if (is_pattern(t, "requery")) /* every second-half turn asks what a first one did */
            x->asked[k] = order[(k < half ? k : again[k - half]) % n];
        else
            x->asked[k] = (int)kept_rng_below(rng, (uint32_t)n);
    }
    free(again);
    free(order);
    return order && again;
}

static void write_fact(const kept_task *t, const char *key, const char *value, bool now,
                       kept_hay_line *out)
{
    snprintf(out->text, sizeof out->text, "One of the special magic %ss for %s is%s: %s.",
             kept_secret_kind_name(t->needle.value), key, now ? " now" : "", value);
}

/* Facts lie evenly, each at a random place of its share; of an updated one that is where it is
 * first stated, and it is stated again in the last third. */
static bool draw_table(kept_task *t, int i, table *x)
{
    const kept_needle_plan *p = &t->needle;
    const bool update = is_pattern(t, "update");
    kept_rng rng;
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    x->n = p->n_keys;
    x->key = kept_calloc((size_t)x->n, sizeof *x->key);
    x->value = kept_calloc((size_t)x->n * 2, sizeof *x->value);
    x->lines = kept_calloc((size_t)x->n * 2, sizeof *x->lines);
    x->asked = kept_calloc((size_t)p->n_queries, sizeof *x->asked);
    if (!x->key || !x->value || !x->lines || !x->asked)
        return false;
    x->start = kept_rng_unit(&rng);
    for (int k = 0; k < x->n; k++)
        draw_distinct(&rng, p->key, p->digits, x->key, k);
    for (int k = 0; k < 2 * x->n; k++) /* those behind n are the ones that hold no more */
        draw_distinct(&rng, p->value, p->digits, x->value, k);
    x->n_lines = x->n;
    for (int k = 0; k < x->n; k++) {
        const double depth = (k + kept_rng_unit(&rng)) / x->n, later = kept_rng_unit(&rng);
        const bool stale = update && k % 2 == 0;
        x->lines[k].depth = stale ? (2 + later) / 3 : depth * (update ? 2.0 / 3 : 1);
        write_fact(t, x->key[k], x->value[k], stale, &x->lines[k]);
        if (!stale)
            continue;
        kept_hay_line *old = &x->lines[x->n_lines++];
        old->depth = depth * 2 / 3;
        write_fact(t, x->key[k], x->value[x->n + k], false, old);
    }
    return draw_asked(t, &rng, x);
}

static kept_status draw_hay(kept_task *t, const table *x, int units, kept_hay *hay)
{
    return t->needle.hay == KEPT_HAY_NOISE
               ? kept_hay_noise(hay, units)
               : kept_hay_essay(hay, t->text.s, t->text.n, (size_t)(x->start * (double)t->text.n),
                                units);
}

static bool fill_turn(const kept_task *t, const table *x, int k, kept_sample *out)
{
    const char *kind = kept_secret_kind_name(t->needle.value);
    const char *latest = is_pattern(t, "update") ? "latest " : "";
    const int fact = x->asked[k];
    kept_turn *turn = &out->turns[k];
    char line[256];
    snprintf(line, sizeof line,
             "\nWhat is the %sspecial magic %s for %s mentioned in the provided text?", latest,
             kind, x->key[fact]);
    turn->question = strdup(line);
    snprintf(line, sizeof line, " The %sspecial magic %s for %s mentioned in the provided text is",
             latest, kind, x->key[fact]);
    turn->answer_prefix = strdup(line);
    turn->answers = kept_calloc(1, sizeof *turn->answers);
    turn->evidence = kept_calloc(1, sizeof *turn->evidence);
    if (!turn->question || !turn->answer_prefix || !turn->answers || !turn->evidence ||
        !(turn->answers[0] = strdup(x->value[fact])))
        return false;
    turn->n_answers = turn->n_evidence = 1;
    turn->evidence[0] = x->lines[fact].span;
    turn->depth = x->lines[fact].depth;
    turn->max_new_tokens = kept_secret_room(t->needle.value, t->needle.digits);
    for (int before = k - 1; before >= 0 && !turn->again; before--)
        turn->again = x->asked[before] == fact ? k - before : 0;
    return true;
}

kept_status kept_facts_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    table x = {0};
    kept_hay hay = {0};
    kept_buf context = {0};
    char line[256];
    *out = (kept_sample){0};
    bool ok = draw_table(t, i, &x) && !draw_hay(t, &x, units, &hay) &&
              !kept_sample_new_turns(out, t->needle.n_queries);
    if (ok) {
        const char *kind = kept_secret_kind_name(t->needle.value);
        snprintf(line, sizeof line,
                 "Some special magic %ss are hidden within the following text. Make sure to "
                 "memorize it. I will quiz you about the %ss afterwards.\n",
                 kind, kind);
        kept_buf_puts(&context, line);
        ok = kept_hay_merge(&hay, hay.n + 1, x.lines, x.n_lines, &context, out);
        out->context = context.s;
        ok = ok && !context.failed;
    }
    for (int k = 0; k < out->n_turns && ok; k++)
        ok = fill_turn(t, &x, k, out);
    kept_hay_clear(&hay);
    table_free(&x);
    if (ok)
        return KEPT_OK;
    kept_sample_clear(out);
    return kept_fail(err, KEPT_NOMEM, "out of memory building sample %d of %s", i, t->label);
}

static kept_status read_kind(const char *name, kept_secret_kind *out, kept_error *err)
{
    if (!name || kept_secret_kind_parse(name, out))
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT, "\"%s\" is none of word, number, uuid", name);
}

kept_status kept_facts_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    const kept_task_type *type = t->type;
    kept_needle_plan *p = &t->needle;
    *p = (kept_needle_plan){
        .hay = KEPT_HAY_NOISE, .key = type->key, .value = type->value, .n_values = 1};
    kept_status st = read_kind(o->key, &p->key, err);
    if (!st)
        st = read_kind(o->value, &p->value, err);
    if (st)
        return st;
    p->digits = o->digits ? o->digits : KEPT_DIGITS;
    if (p->digits < KEPT_DIGITS || p->digits > KEPT_MAX_DIGITS)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: numbers have %d to %d digits, not %d",
                         type->name, KEPT_DIGITS, KEPT_MAX_DIGITS, p->digits);
    p->n_keys = o->n_keys ? o->n_keys : type->n_keys;
    p->n_queries = o->n_queries ? o->n_queries : type->n_queries;
    t->period = o->n_values ? o->n_values : DEFAULT_PERIOD;
    if (p->n_keys < 2 || p->n_keys > MAX_FACTS || p->n_queries < 1 || p->n_queries > MAX_TURNS)
        return kept_fail(err, KEPT_ARGUMENT,
                         "task %s: %d facts and %d turns are not 2 to %d and 1 to %d", type->name,
                         p->n_keys, p->n_queries, MAX_FACTS, MAX_TURNS);
    if (t->period < 1 || t->period > p->n_keys)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: a cycle of %d facts is not 1 to %d",
                         type->name, t->period, p->n_keys);
    if (t->file && (st = kept_hay_read_essay(t, t->file, err)))
        return st;
    char what[96];
    int n = snprintf(what, sizeof what, "facts=%d,turns=%d,%s,%s", p->n_keys, p->n_queries,
                     p->hay == KEPT_HAY_NOISE ? "noise" : "essay", kept_turn_mode_name(t->turns));
    if (is_pattern(t, "periodic"))
        snprintf(what + n, sizeof what - (size_t)n, ",period=%d", t->period);
    kept_task_set_label(t, what);
    return kept_size_find(t, err);
}
