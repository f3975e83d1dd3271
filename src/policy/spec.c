/* spec: text to strategy, by the grammar of strategy.h. Recipes are expanded into their spec and
 * parsed by the same code. Every error points at its character and, where a name is wrong, suggests
 * the nearest one.
 */
#include "policy/spec.h"

#include "policy/parts.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPEC   4096
#define MAX_BYTES  1125899906842624.0 /* 2^50 */
#define MAX_TOKENS 2147483647.0
#define MAX_NAMES  512

typedef struct owner {
    char name[48]; /* part or recipe that filled the axis, "" while it is open */
    int at;
} owner;

/* The spec of a controller's state, until what it leaves open is known. */
typedef struct nested {
    owner axis[KEPT_N_AXES];
    int budget_at, end; /* its '@', or -1; the character after it */
} nested;

/* A piece of the text being read, with what is known so far. */
typedef struct parser {
    const char *s; /* the text */
    int i;         /* next character */
    int at;        /* -1, or the offset that errors point at: inside an expanded recipe */
    kept_strategy *out;
    owner *axis;   /* [KEPT_N_AXES] */
    nested *state; /* [KEPT_MAX_STATES]; NULL: this is the spec of a state */
    kept_error *err;
} parser;

static int offset(const parser *p, int i)
{
    return p->at >= 0 ? p->at : i;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static int word_length(const char *s)
{
    int n = 0;
    while (is_word(s[n]))
        n++;
    return n;
}

static bool same(const char *name, const char *word, int n)
{
    return strlen(name) == (size_t)n && !memcmp(name, word, (size_t)n);
}

/* "unknown WHAT 'word' at character N: did you mean 'x'?" over names[0..n). */
static kept_status unknown(const parser *p, const char *what, int at, int len,
                           const char *const *names, int n)
{
    char word[41];
    int m = len < 40 ? len : 40;
    for (int i = 0; i < m; i++)
        word[i] = (char)tolower((unsigned char)p->s[at + i]);
    word[m] = 0;
    int near = kept_nearest(word, (size_t)m, names, n);
    at = offset(p, at);
    if (near >= 0)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "unknown %s '%s' at character %d: did you mean '%s'?", what, word, at,
                            names[near]);
    char list[320] = "";
    for (int i = 0; i < n; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
    }
    return kept_fail_at(p->err, KEPT_ARGUMENT, at, "unknown %s '%s' at character %d%s%s", what,
                        word, at, n ? "; there are: " : ": there are none", list);
}

static kept_status expected(const parser *p, const char *what)
{
    unsigned char c = (unsigned char)p->s[p->i];
    int at = offset(p, p->i);
    if (!c)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "expected %s at character %d, but the spec ends here", what, at);
    if (isprint(c) && c < 128)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at, "expected %s at character %d, not '%c'",
                            what, at, c);
    return kept_fail_at(p->err, KEPT_ARGUMENT, at, "expected %s at character %d, not byte 0x%02x",
                        what, at, c);
}

/* ---- options ------------------------------------------------------------------------------- */

static kept_status parse_choice(parser *p, const kept_option *o, double *value)
{
    int len = word_length(p->s + p->i), n = 0;
    if (!len)
        return expected(p, "one of the option's choices");
    for (; o->choices[n]; n++)
        if (same(o->choices[n], p->s + p->i, len)) {
            *value = n;
            p->i += len;
            return KEPT_OK;
        }
    char what[64];
    snprintf(what, sizeof what, "choice of option '%.40s'", o->name);
    return unknown(p, what, p->i, len, o->choices, n);
}

static kept_status parse_value(parser *p, const char *part, const kept_option *o, double *value)
{
    if (o->choices)
        return parse_choice(p, o, value);
    int start = p->i, n = 0;
    char low[KEPT_SPEC_NUMBER], high[KEPT_SPEC_NUMBER];
    while (p->s[start + n] == '-' || p->s[start + n] == '.' || is_word(p->s[start + n]))
        n++;
    if (!n)
        return expected(p, "a number");
    p->i += n;
    if (kept_spec_read(p->s + start, (size_t)n, value) && *value >= o->min && *value <= o->max &&
        (!o->integer || *value == floor(*value)))
        return KEPT_OK;
    return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, start),
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

static kept_status parse_state(parser *p, int k);

static kept_status parse_option(parser *p, table *t)
{
    const char *names[KEPT_MAX_OPTIONS + KEPT_MAX_STATES];
    int len = word_length(p->s + p->i), k = 0, n = 0;
    if (!len)
        return expected(p, "an option name");
    for (; n < t->n_options; n++)
        names[n] = t->options[n].name;
    for (int i = 0; t->states && t->states[i]; i++)
        names[n++] = t->states[i];
    while (k < n && !same(names[k], p->s + p->i, len))
        k++;
    if (k == n) {
        char what[80];
        snprintf(what, sizeof what, "option of '%.48s'", t->owner);
        return unknown(p, what, p->i, len, names, n);
    }
    if (t->seen & 1u << k)
        return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, p->i),
                            "option '%s' of '%s' is given twice", names[k], t->owner);
    t->seen |= 1u << k;
    p->i += len;
    if (p->s[p->i] != '=')
        return expected(p, "'='");
    p->i++;
    return k < t->n_options ? parse_value(p, t->owner, &t->options[k], &t->value[k])
                            : parse_state(p, k - t->n_options);
}

/* Reads "(a=1,b=2)" if it is there. t->value gets every option, given or default. */
static kept_status parse_options(parser *p, table *t)
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
            return expected(p, "',' or ')'");
        p->i++;
    }
    return kept_spec_given(t->owner, t->options, t->n_options, t->value, offset(p, p->i), p->err);
}

/* ---- parts and recipes --------------------------------------------------------------------- */

/* by: the recipe whose spec is being read, or NULL. */
static kept_status parse_parts(parser *p, const char *by);

/* Puts a part on its axis. name: what the user wrote for it. */
static kept_status set_part(parser *p, const kept_part *part, const double *value, int at,
                            const char *name)
{
    kept_axis a = part->axis;
    if (p->axis[a].name[0])
        return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, at),
                            "'%s' at character %d sets the %s, which '%s' at character %d set "
                            "already",
                            name, offset(p, at), kept_axis_name(a), p->axis[a].name, p->axis[a].at);
    snprintf(p->axis[a].name, sizeof p->axis[a].name, "%s", name);
    p->axis[a].at = offset(p, at);
    p->out->part[a] = part;
    memcpy(p->out->option[a], value, (size_t)part->n_options * sizeof *value);
    return KEPT_OK;
}

/* Replaces every $option of the recipe's spec by its value and parses the result. */
static kept_status expand(parser *p, const kept_recipe *r, const double *value, int at)
{
    char spec[512], number[KEPT_SPEC_NUMBER];
    size_t used = 0;
    for (const char *c = r->spec; *c;) {
        const char *piece = c;
        int n = 1;
        if (*c == '$') {
            int len = word_length(++c), k = 0;
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
    parser inner = *p;
    inner.s = spec;
    inner.i = 0;
    inner.at = at;
    return parse_parts(&inner, r->name);
}

static kept_status unknown_part(parser *p, int len)
{
    const char *names[MAX_NAMES];
    int n = 0;
    for (int i = 0; i < kept_part_count() && n < MAX_NAMES; i++)
        names[n++] = kept_part_at(i)->name;
    for (int i = 0; i < kept_recipe_count() && n < MAX_NAMES; i++)
        names[n++] = kept_recipe_at(i)->name;
    return unknown(p, "part", p->i, len, names, n);
}

static const kept_controller *controller_of(const kept_part *part)
{
    return part->axis == KEPT_AXIS_CONTROLLER ? (const kept_controller *)(const void *)part : NULL;
}

/* The part whose name was just read, with its options. */
static kept_status parse_known(parser *p, const kept_part *part, int at, const char *name)
{
    double value[KEPT_MAX_OPTIONS] = {0};
    const kept_controller *c = controller_of(part);
    table t = {part->name, part->options, part->n_options, c ? c->states : NULL, value, 0};
    if (c && kept_controller_acts(c) && !p->state)
        return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, at),
                            "'%s' at character %d controls a state, which must be a strategy of "
                            "its own",
                            part->name, offset(p, at));
    kept_status st = parse_options(p, &t);
    if (st)
        return st;
    for (int i = 0; i < part->n_options; i++)
        if (!(t.seen & 1u << i))
            value[i] = kept_part_fallback(part, value, i);
    const char *wrong = c && c->wrong ? c->wrong(value) : NULL;
    if (wrong)
        return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, at), "'%s': %s", part->name, wrong);
    return set_part(p, part, value, at, name);
}

static kept_status parse_part(parser *p, const char *by)
{
    double value[KEPT_MAX_OPTIONS] = {0};
    const char *word = p->s + p->i;
    int start = p->i, len = word_length(word);
    kept_status st;
    if (!len)
        return expected(p, "the name of a part or recipe");
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

static kept_status parse_parts(parser *p, const char *by)
{
    for (;; p->i++) {
        kept_status st = parse_part(p, by);
        if (st || p->s[p->i] != '+')
            return st;
    }
}

/* ---- budget -------------------------------------------------------------------------------- */

/* Reads a budget up to the end of the text, or of the state. */
static kept_status parse_budget(parser *p)
{
    kept_strategy *s = p->out;
    const char *text = p->s + p->i;
    size_t n = strcspn(text, p->state ? "" : ",)"), plain = strspn(text, "0123456789.");
    const int shown = n < 40 ? (int)n : 40, at = offset(p, p->i);
    char copy[48];
    uint64_t bytes;
    kept_error why;
    if (!n)
        return expected(p, "a budget such as 20%, 512 or 64MiB");
    for (size_t i = 0; i < n; i++)
        if (text[i] != '%' && text[i] != '.' && !isalnum((unsigned char)text[i])) {
            p->i += (int)i;
            return expected(p, "the end of the spec after its budget");
        }
    p->i += (int)n;
    if (text[n - 1] == '%') {
        s->budget_kind = KEPT_BUDGET_PERCENT;
        if (kept_spec_read(text, n - 1, &s->budget) && s->budget > 0 && s->budget <= 100)
            return KEPT_OK;
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "a budget in percent must be above 0 and at most 100, not '%.*s'",
                            shown, text);
    }
    if (plain == n) {
        s->budget_kind = KEPT_BUDGET_TOKENS;
        if (kept_spec_read(text, n, &s->budget) && s->budget >= 1 && s->budget <= MAX_TOKENS &&
            s->budget == floor(s->budget))
            return KEPT_OK;
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "a budget in tokens must be an integer in 1..2147483647, not '%.*s' "
                            "(20%% is a share, 64MiB a size)",
                            shown, text);
    }
    if (!plain || n >= sizeof copy) {
        p->i -= (int)n;
        return expected(p, "a budget such as 20%, 512 or 64MiB");
    }
    memcpy(copy, text, n);
    copy[n] = 0;
    if (plain == n - 1 && copy[plain] == 'B')
        copy[plain] = 0; /* "4096B": only the unit tells bytes from tokens */
    if (kept_parse_size(copy, &bytes, &why))
        return kept_fail_at(p->err, KEPT_ARGUMENT, at + (p->at < 0 && why.at > 0 ? why.at : 0),
                            "budget: %s", why.text);
    s->budget_kind = KEPT_BUDGET_BYTES;
    s->budget = (double)bytes;
    if (bytes < 1 || s->budget > MAX_BYTES)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "a budget in bytes must be in 1..2^50, not '%.*s'", shown, text);
    return KEPT_OK;
}

/* ---- states -------------------------------------------------------------------------------- */

/* Reads the spec of state k, and its budget if it has one, into p->out->state[k]. */
static kept_status parse_state(parser *p, int k)
{
    nested *n = &p->state[k];
    *n = (nested){.budget_at = -1};
    p->out->state[k] = kept_calloc(1, sizeof(kept_strategy));
    if (!p->out->state[k])
        return kept_fail(p->err, KEPT_NOMEM, "out of memory for a strategy");
    parser inner = *p;
    inner.out = p->out->state[k];
    inner.axis = n->axis;
    inner.state = NULL;
    kept_status st = parse_parts(&inner, NULL);
    if (!st && inner.s[inner.i] == '@') {
        n->budget_at = inner.i++;
        st = parse_budget(&inner);
    }
    p->i = n->end = inner.i;
    return st;
}

/* ---- whole specs --------------------------------------------------------------------------- */

/* The score has a value term and the weight axis would add another. */
static bool weighs_twice(const kept_strategy *s)
{
    const kept_score *score = kept_strategy_score(s);
    if (!score->weighs_values || s->part[KEPT_AXIS_WEIGHT] != &kept_part_values)
        return false;
    for (int i = 0; i < score->part.n_options; i++)
        if (!strcmp(score->part.options[i].name, "values"))
            return s->option[KEPT_AXIS_SCORE][i] != 0;
    return true;
}

static void set_default(kept_strategy *s, kept_axis a)
{
    s->part[a] = kept_part_default(a);
    for (int i = 0; i < s->part[a]->n_options; i++)
        s->option[a][i] = s->part[a]->options[i].value;
}

/* Fills the axes that were not named and checks what parts say about each other. */
static kept_status finish_plain(parser *p, int budget_at)
{
    kept_strategy *s = p->out;
    bool full = s->part[KEPT_AXIS_SCORE] == &kept_score_full.part;
    if (!s->part[KEPT_AXIS_SCORE])
        return kept_fail_at(p->err, KEPT_ARGUMENT, 0,
                            "the spec names no score; write 'full', or for example "
                            "'snapkv+ada@20%%'");
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_N_AXES; a++) {
        if (s->part[a]) {
            if (full && kept_axis_evicts((kept_axis)a))
                return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[a].at,
                                    "'full' evicts nothing, so it takes no %s such as '%s'",
                                    kept_axis_name((kept_axis)a), p->axis[a].name);
            continue;
        }
        set_default(s, (kept_axis)a);
    }
    if (weighs_twice(s))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_WEIGHT].at,
                            "'%s' weighs scores by values itself; leave '%s' out or turn the "
                            "score's own option values off",
                            p->axis[KEPT_AXIS_SCORE].name, p->axis[KEPT_AXIS_WEIGHT].name);
    kept_error why;
    if (!full && kept_strategy_check(s, &why))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_SCHEDULE].at, "%s", why.text);
    if (full && budget_at >= 0)
        return kept_fail_at(p->err, KEPT_ARGUMENT, budget_at,
                            "'full' evicts nothing, so it takes no budget");
    if (!full && budget_at < 0)
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i,
                            "'%s' needs a budget: append @20%% (of the full cache's bytes), @512 "
                            "(tokens per KV head) or @64MiB",
                            p->axis[KEPT_AXIS_SCORE].name);
    return kept_spec_print(s, p->err);
}

/* Finishes state k with what the spec around it says. taken: axes that some state took from there,
 * and in [KEPT_N_AXES] the budget. */
static kept_status finish_state(parser *p, int k, int budget_at, bool *taken)
{
    nested *n = &p->state[k];
    kept_strategy *s = p->out, *t = s->state[k];
    parser inner = *p;
    bool full = t->part[KEPT_AXIS_SCORE] == &kept_score_full.part;
    inner.i = n->end;
    inner.out = t;
    inner.axis = n->axis;
    if (t->part[KEPT_AXIS_READ])
        return kept_fail_at(p->err, KEPT_ARGUMENT, n->axis[KEPT_AXIS_READ].at,
                            "'%s' holds in every state, so it belongs behind the brackets of '%s'",
                            n->axis[KEPT_AXIS_READ].name, p->axis[KEPT_AXIS_CONTROLLER].name);
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_AXIS_CONTROLLER && !full; a++)
        if (!t->part[a] && s->part[a]) {
            t->part[a] = s->part[a];
            memcpy(t->option[a], s->option[a], sizeof t->option[a]);
            n->axis[a] = p->axis[a];
            taken[a] = true;
        }
    if (!full && n->budget_at < 0 && budget_at >= 0) {
        t->budget_kind = s->budget_kind;
        t->budget = s->budget;
        n->budget_at = budget_at;
        taken[KEPT_N_AXES] = true;
    }
    return finish_plain(&inner, n->budget_at);
}

/* Parts and budget become those of the last state that evicts: see strategy.h. */
static kept_status finish_states(parser *p, const kept_controller *c, int budget_at)
{
    kept_strategy *s = p->out;
    const owner *by = &p->axis[KEPT_AXIS_CONTROLLER];
    const kept_strategy *last = NULL;
    bool taken[KEPT_N_AXES + 1] = {false};
    if (s->part[KEPT_AXIS_SCORE])
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_SCORE].at,
                            "'%s' takes its scores from its states, so '%s' belongs into one of "
                            "them",
                            by->name, p->axis[KEPT_AXIS_SCORE].name);
    for (int k = 0; c->states[k]; k++) {
        if (!s->state[k])
            return kept_fail_at(p->err, KEPT_ARGUMENT, by->at,
                                "'%s' needs a spec for its state '%s', as in %s=full", by->name,
                                c->states[k], c->states[k]);
        kept_status st = finish_state(p, k, budget_at, taken);
        if (st)
            return st;
        s->n_states = k + 1;
        last = kept_strategy_is_full(s->state[k]) ? last : s->state[k];
    }
    if (!last)
        return kept_fail_at(p->err, KEPT_ARGUMENT, by->at,
                            "every state of '%s' is 'full': it would never evict", by->name);
    for (int a = KEPT_AXIS_SCORE; a < KEPT_AXIS_CONTROLLER; a++) {
        if (s->part[a] && !taken[a])
            return kept_fail_at(
                p->err, KEPT_ARGUMENT, p->axis[a].at,
                "no state of '%s' takes '%s': each has a %s of its own or is 'full'", by->name,
                p->axis[a].name, kept_axis_name((kept_axis)a));
        s->part[a] = last->part[a];
        memcpy(s->option[a], last->option[a], sizeof s->option[a]);
    }
    if (budget_at >= 0 && !taken[KEPT_N_AXES])
        return kept_fail_at(p->err, KEPT_ARGUMENT, budget_at,
                            "no state of '%s' takes this budget: each has its own or is 'full'",
                            by->name);
    s->budget_kind = last->budget_kind;
    s->budget = last->budget;
    if (!s->part[KEPT_AXIS_READ])
        set_default(s, KEPT_AXIS_READ);
    return kept_spec_print(s, p->err);
}

static kept_status finish(parser *p, int budget_at)
{
    const kept_part *part = p->out->part[KEPT_AXIS_CONTROLLER];
    const kept_controller *c = part ? controller_of(part) : NULL;
    return c && c->states ? finish_states(p, c, budget_at) : finish_plain(p, budget_at);
}

kept_status kept_strategy_parse(const char *spec, kept_strategy **out, kept_error *err)
{
    owner axis[KEPT_N_AXES] = {{"", 0}};
    nested state[KEPT_MAX_STATES];
    parser p = {.s = spec, .at = -1, .axis = axis, .state = state, .err = err};
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
        if ((st = parse_budget(&p)))
            goto out;
    } else if (spec[p.i]) {
        st = expected(&p, "'+', '@' or the end");
        goto out;
    }
    st = finish(&p, budget_at);
out:
    if (st)
        kept_strategy_free(p.out);
    else
        *out = p.out;
    return st;
}
