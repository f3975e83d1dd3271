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

/* A piece of the text being read, with what is known so far. */
typedef struct parser {
    const char *s; /* the text */
    int i;         /* next character */
    int at;        /* -1, or the offset that errors point at: inside an expanded recipe */
    kept_strategy *out;
    owner *axis; /* [KEPT_N_AXES] */
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

static kept_status parse_option(parser *p, const char *part, const kept_option *options,
                                int n_options, unsigned *seen, double *value)
{
    const char *names[KEPT_MAX_OPTIONS];
    int len = word_length(p->s + p->i), k = 0;
    if (!len)
        return expected(p, "an option name");
    while (k < n_options && !same(options[k].name, p->s + p->i, len))
        k++;
    if (k == n_options) {
        char what[80];
        for (int i = 0; i < n_options; i++)
            names[i] = options[i].name;
        snprintf(what, sizeof what, "option of '%.48s'", part);
        return unknown(p, what, p->i, len, names, n_options);
    }
    if (*seen & 1u << k)
        return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, p->i),
                            "option '%s' of '%s' is given twice", options[k].name, part);
    *seen |= 1u << k;
    p->i += len;
    if (p->s[p->i] != '=')
        return expected(p, "'='");
    p->i++;
    return parse_value(p, part, &options[k], &value[k]);
}

/* An option whose default is not a number must be given. */
static kept_status check_given(parser *p, const char *part, const kept_option *options,
                               int n_options, const double *value)
{
    char low[KEPT_SPEC_NUMBER], high[KEPT_SPEC_NUMBER];
    for (int i = 0; i < n_options; i++)
        if (isnan(value[i]))
            return kept_fail_at(p->err, KEPT_ARGUMENT, offset(p, p->i),
                                "'%s' needs %s=NUMBER in %s..%s: %s", part, options[i].name,
                                kept_spec_write(options[i].min, low),
                                kept_spec_write(options[i].max, high), options[i].help);
    return KEPT_OK;
}

/* Reads "(a=1,b=2)" if it is there. value [n_options] gets every option, given or default. */
static kept_status parse_options(parser *p, const char *part, const kept_option *options,
                                 int n_options, double *value)
{
    unsigned seen = 0;
    for (int i = 0; i < n_options; i++)
        value[i] = options[i].value;
    if (p->s[p->i] != '(')
        return check_given(p, part, options, n_options, value);
    do {
        p->i++;
        kept_status st = parse_option(p, part, options, n_options, &seen, value);
        if (st)
            return st;
    } while (p->s[p->i] == ',');
    if (p->s[p->i] != ')')
        return expected(p, "',' or ')'");
    p->i++;
    return check_given(p, part, options, n_options, value);
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
        if ((st = parse_options(p, part->name, part->options, part->n_options, value)))
            return st;
        return set_part(p, part, value, start, by ? by : part->name);
    }
    for (int i = 0; i < kept_recipe_count() && !by; i++) {
        const kept_recipe *r = kept_recipe_at(i);
        if (!same(r->name, word, len))
            continue;
        p->i += len;
        if ((st = parse_options(p, r->name, r->options, r->n_options, value)))
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

static kept_status parse_budget(parser *p)
{
    kept_strategy *s = p->out;
    const char *text = p->s + p->i;
    size_t n = strlen(text), plain = strspn(text, "0123456789.");
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
    if (text[n - 1] == '%') {
        s->budget_kind = KEPT_BUDGET_PERCENT;
        if (kept_spec_read(text, n - 1, &s->budget) && s->budget > 0 && s->budget <= 100)
            return KEPT_OK;
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i,
                            "a budget in percent must be above 0 and at most 100, not '%.40s'",
                            text);
    }
    if (plain == n) {
        s->budget_kind = KEPT_BUDGET_TOKENS;
        if (kept_spec_read(text, n, &s->budget) && s->budget >= 1 && s->budget <= MAX_TOKENS &&
            s->budget == floor(s->budget))
            return KEPT_OK;
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i,
                            "a budget in tokens must be an integer in 1..2147483647, not '%.40s' "
                            "(20%% is a share, 64MiB a size)",
                            text);
    }
    if (!plain || n >= sizeof copy)
        return expected(p, "a budget such as 20%, 512 or 64MiB");
    memcpy(copy, text, n + 1);
    if (plain == n - 1 && copy[plain] == 'B')
        copy[plain] = 0; /* "4096B": only the unit tells bytes from tokens */
    if (kept_parse_size(copy, &bytes, &why))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i + (why.at > 0 ? why.at : 0), "budget: %s",
                            why.text);
    s->budget_kind = KEPT_BUDGET_BYTES;
    s->budget = (double)bytes;
    if (bytes < 1 || s->budget > MAX_BYTES)
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i,
                            "a budget in bytes must be in 1..2^50, not '%.40s'", text);
    return KEPT_OK;
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

/* Fills the axes that were not named and checks what parts say about each other. */
static kept_status finish(parser *p, int budget_at)
{
    kept_strategy *s = p->out;
    bool full = s->part[KEPT_AXIS_SCORE] == &kept_score_full.part;
    if (!s->part[KEPT_AXIS_SCORE])
        return kept_fail_at(p->err, KEPT_ARGUMENT, 0,
                            "the spec names no score; write 'full', or for example "
                            "'snapkv+ada@20%%'");
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_N_AXES; a++) {
        const kept_part *part = kept_part_default((kept_axis)a);
        if (s->part[a]) {
            if (full)
                return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[a].at,
                                    "'full' evicts nothing, so it takes no %s such as '%s'",
                                    kept_axis_name((kept_axis)a), p->axis[a].name);
            continue;
        }
        s->part[a] = part;
        for (int i = 0; i < part->n_options; i++)
            s->option[a][i] = part->options[i].value;
    }
    if (weighs_twice(s))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_WEIGHT].at,
                            "'%s' weighs scores by values itself; leave '%s' out or turn the "
                            "score's own option values off",
                            p->axis[KEPT_AXIS_SCORE].name, p->axis[KEPT_AXIS_WEIGHT].name);
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

kept_status kept_strategy_parse(const char *spec, kept_strategy **out, kept_error *err)
{
    owner axis[KEPT_N_AXES] = {{"", 0}};
    parser p = {.s = spec, .at = -1, .axis = axis, .err = err};
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

void kept_strategy_free(kept_strategy *s)
{
    free(s);
}
const char *kept_strategy_name(const kept_strategy *s)
{
    return s->name;
}
const char *kept_strategy_resolved(const kept_strategy *s)
{
    return s->resolved;
}
