/* spec: text to strategy, by the grammar of strategy.h. Recipes are expanded into their spec and
 * parsed by the same code. Every error points at its character and, where a name is wrong, suggests
 * the nearest one.
 */
#include "policy/spec_parse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPEC  4096
#define MAX_NAMES 512

static bool same(const char *name, const char *word, int n)
{
    return strlen(name) == (size_t)n && !memcmp(name, word, (size_t)n);
}

/* ---- options ------------------------------------------------------------------------------- */

static kept_status parse_choice(kept_parser *p, const kept_option *o, double *value)
{
    int len = kept_spec_word(p->s + p->i), n = 0;
    if (!len)
        return kept_spec_expected(p, "one of the option's choices");
    for (; o->choices[n]; n++)
        if (same(o->choices[n], p->s + p->i, len)) {
            *value = n;
            p->i += len;
            return KEPT_OK;
        }
    char what[64];
    snprintf(what, sizeof what, "choice of option '%.40s'", o->name);
    return kept_spec_unknown(p, what, p->i, len, o->choices, n);
}

static kept_status parse_value(kept_parser *p, const char *part, const kept_option *o,
                               double *value)
{
    if (o->choices)
        return parse_choice(p, o, value);
    int start = p->i, n = 0;
    char low[KEPT_SPEC_NUMBER], high[KEPT_SPEC_NUMBER];
    while (p->s[start + n] == '-' || p->s[start + n] == '.' || kept_spec_word(p->s + start + n))
        n++;
    if (!n)
        return kept_spec_expected(p, "a number");
    p->i += n;
    if (kept_spec_read(p->s + start, (size_t)n, value) && *value >= o->min && *value <= o->max &&
        (!o->integer || *value == floor(*value)))
        return KEPT_OK;
    return kept_fail_at(p->err, KEPT_ARGUMENT, kept_spec_offset(p, start),
                        "option '%s' of '%s' must be %s in %s..%s (at most %d digits), not '%.*s'",
                        o->name, part, o->integer ? "an integer" : "a number",
                        kept_spec_write(o->min, low), kept_spec_write(o->max, high),
                        KEPT_SPEC_DIGITS, n < 40 ? n : 40, p->s + start);
}

/* What may stand in the brackets of a part or recipe. */
typedef struct table {
    const char *owner;
    const kept_option *options;
    int n_options;
    const char *const *states; /* NULL-terminated, or NULL */
    double *value;             /* [n_options] */
    unsigned seen;             /* bits of options, then of states */
} table;

static kept_status parse_state(kept_parser *p, int k);

static kept_status parse_option(kept_parser *p, table *t)
{
    const char *names[KEPT_MAX_OPTIONS + KEPT_MAX_STATES];
    int len = kept_spec_word(p->s + p->i), k = 0, n = 0;
    if (!len)
        return kept_spec_expected(p, "an option name");
    for (; n < t->n_options; n++)
        names[n] = t->options[n].name;
    for (int i = 0; t->states && t->states[i]; i++)
        names[n++] = t->states[i];
    while (k < n && !same(names[k], p->s + p->i, len))
        k++;
    if (k == n) {
        char what[80];
        snprintf(what, sizeof what, "option of '%.48s'", t->owner);
        return kept_spec_unknown(p, what, p->i, len, names, n);
    }
    if (t->seen & 1u << k)
        return kept_fail_at(p->err, KEPT_ARGUMENT, kept_spec_offset(p, p->i),
                            "option '%s' of '%s' is given twice", names[k], t->owner);
    t->seen |= 1u << k;
    p->i += len;
    if (p->s[p->i] != '=')
        return kept_spec_expected(p, "'='");
    p->i++;
    return k < t->n_options ? parse_value(p, t->owner, &t->options[k], &t->value[k])
                            : parse_state(p, k - t->n_options);
}

/* Reads "(a=1,b=2)" if it is there. t->value gets every option, given or default. */
static kept_status parse_options(kept_parser *p, table *t)
{
    for (int i = 0; i < t->n_options; i++)
        t->value[i] = t->options[i].value;
    if (p->s[p->i] == '(') {
        do {
            p->i++;
            kept_status st = parse_option(p, t);
            if (st)
                return st;
        } while (p->s[p->i] == ',');
        if (p->s[p->i] != ')')
            return kept_spec_expected(p, "',' or ')'");
        p->i++;
    }
    return kept_spec_given(t->owner, t->options, t->n_options, t->value, kept_spec_offset(p, p->i),
                           p->err);
}

/* ---- parts and recipes --------------------------------------------------------------------- */

/* by: the recipe whose spec is being read, or NULL. */
static kept_status parse_parts(kept_parser *p, const char *by);

/* Puts a part on its axis. name: what the user wrote for it. */
static kept_status set_part(kept_parser *p, const kept_part *part, const double *value, int at,
                            const char *name)
{
    kept_axis a = part->axis;
    if (p->axis[a].name[0])
        return kept_fail_at(p->err, KEPT_ARGUMENT, kept_spec_offset(p, at),
                            "'%s' at character %d sets the %s, which '%s' at character %d set "
                            "already",
                            name, kept_spec_offset(p, at), kept_axis_name(a), p->axis[a].name,
                            p->axis[a].at);
    snprintf(p->axis[a].name, sizeof p->axis[a].name, "%s", name);
    p->axis[a].at = kept_spec_offset(p, at);
    p->out->part[a] = part;
    memcpy(p->out->option[a], value, (size_t)part->n_options * sizeof *value);
    return KEPT_OK;
}

/* Replaces every $option of the recipe's spec by its value and parses the result. */
static kept_status expand(kept_parser *p, const kept_recipe *r, const double *value, int at)
{
    char spec[512], number[KEPT_SPEC_NUMBER];
    size_t used = 0;
    for (const char *c = r->spec; *c;) {
        const char *piece = c;
        int n = 1;
        if (*c == '$') {
            int len = kept_spec_word(++c), k = 0;
            while (k < r->n_options && !same(r->options[k].name, c, len))
                k++;
            if (k == r->n_options)
                return kept_fail_at(p->err, KEPT_UNSUPPORTED, at, "recipe '%s' is malformed",
                                    r->name);
            piece = r->options[k].choices ? r->options[k].choices[(int)value[k]]
                                          : kept_spec_write(value[k], number);
            n = (int)strlen(piece);
            c += len;
        } else {
            c++;
        }
        if (used + (size_t)n >= sizeof spec)
            return kept_fail_at(p->err, KEPT_UNSUPPORTED, at, "recipe '%s' is too long", r->name);
        memcpy(spec + used, piece, (size_t)n);
        used += (size_t)n;
    }
    spec[used] = 0;
    kept_parser inner = *p;
    inner.s = spec;
    inner.i = 0;
    inner.at = at;
    return parse_parts(&inner, r->name);
}

static kept_status unknown_part(kept_parser *p, int len)
{
    const char *names[MAX_NAMES];
    int n = 0;
    for (int i = 0; i < kept_part_count() && n < MAX_NAMES; i++)
        names[n++] = kept_part_at(i)->name;
    for (int i = 0; i < kept_recipe_count() && n < MAX_NAMES; i++)
        names[n++] = kept_recipe_at(i)->name;
    return kept_spec_unknown(p, "part", p->i, len, names, n);
}

/* The part whose name was just read, with its options. */
static kept_status parse_known(kept_parser *p, const kept_part *part, int at, const char *name)
{
    double value[KEPT_MAX_OPTIONS] = {0};
    const kept_controller *c = kept_spec_controller(part);
    table t = {part->name, part->options, part->n_options, c ? c->states : NULL, value, 0};
    if (c && kept_controller_acts(c) && !p->state)
        return kept_fail_at(p->err, KEPT_ARGUMENT, kept_spec_offset(p, at),
                            "'%s' at character %d controls a state, which must be a strategy of "
                            "its own",
                            part->name, kept_spec_offset(p, at));
    kept_status st = parse_options(p, &t);
    if (st)
        return st;
    for (int i = 0; i < part->n_options; i++)
        if (!(t.seen & 1u << i))
            value[i] = kept_part_fallback(part, value, i);
    const char *wrong = c && c->wrong ? c->wrong(value) : NULL;
    if (wrong)
        return kept_fail_at(p->err, KEPT_ARGUMENT, kept_spec_offset(p, at), "'%s': %s", part->name,
                            wrong);
    return set_part(p, part, value, at, name);
}

static kept_status parse_part(kept_parser *p, const char *by)
{
    double value[KEPT_MAX_OPTIONS] = {0};
    const char *word = p->s + p->i;
    int start = p->i, len = kept_spec_word(word);
    kept_status st;
    if (!len)
        return kept_spec_expected(p, "the name of a part or recipe");
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *part = kept_part_at(i);
        if (!same(part->name, word, len))
            continue;
        p->i += len;
        return parse_known(p, part, start, by ? by : part->name);
    }
    for (int i = 0; i < kept_recipe_count() && !by; i++) {
        const kept_recipe *r = kept_recipe_at(i);
        if (!same(r->name, word, len))
            continue;
        p->i += len;
        table t = {r->name, r->options, r->n_options, NULL, value, 0};
        if ((st = parse_options(p, &t)))
            return st;
        return expand(p, r, value, start);
    }
    return unknown_part(p, len);
}

static kept_status parse_parts(kept_parser *p, const char *by)
{
    for (;; p->i++) {
        kept_status st = parse_part(p, by);
        if (st || p->s[p->i] != '+')
            return st;
    }
}

/* ---- states -------------------------------------------------------------------------------- */

/* Reads the spec of state k, and its budget if it has one, into p->out->state[k]. */
static kept_status parse_state(kept_parser *p, int k)
{
    kept_nested *n = &p->state[k];
    *n = (kept_nested){.budget_at = -1};
    p->out->state[k] = kept_calloc(1, sizeof(kept_strategy));
    if (!p->out->state[k])
        return kept_fail(p->err, KEPT_NOMEM, "out of memory for a strategy");
    kept_parser inner = *p;
    inner.out = p->out->state[k];
    inner.axis = n->axis;
    inner.state = NULL;
    kept_status st = parse_parts(&inner, NULL);
    if (!st && inner.s[inner.i] == '@') {
        n->budget_at = inner.i++;
        st = kept_spec_budget(&inner);
    }
    p->i = n->end = inner.i;
    return st;
}

kept_status kept_strategy_parse(const char *spec, kept_strategy **out, kept_error *err)
{
    kept_owner axis[KEPT_N_AXES] = {{"", 0}};
    kept_nested state[KEPT_MAX_STATES];
    kept_parser p = {.s = spec, .at = -1, .axis = axis, .state = state, .err = err};
    int budget_at = -1;
    kept_status st;
    if (!out)
        return kept_fail(err, KEPT_ARGUMENT, "no place for the strategy");
    *out = NULL;
    if (!spec)
        return kept_fail(err, KEPT_ARGUMENT, "no spec given");
    if (strnlen(spec, MAX_SPEC) == MAX_SPEC)
        return kept_fail_at(err, KEPT_ARGUMENT, MAX_SPEC, "the spec is longer than %d characters",
                            MAX_SPEC - 1);
    p.out = kept_calloc(1, sizeof *p.out);
    if (!p.out)
        return kept_fail(err, KEPT_NOMEM, "out of memory for a strategy");
    if ((st = parse_parts(&p, NULL)))
        goto out;
    if (spec[p.i] == '@') {
        budget_at = p.i++;
        if ((st = kept_spec_budget(&p)))
            goto out;
    } else if (spec[p.i]) {
        st = kept_spec_expected(&p, "'+', '@' or the end");
        goto out;
    }
    st = kept_spec_finish(&p, budget_at);
out:
    if (st)
        kept_strategy_free(p.out);
    else
        *out = p.out;
    return st;
}
