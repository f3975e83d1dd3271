/* spec_print: the canonical and the fully resolved spelling of a strategy. */
#include "policy/spec.h"

#include "policy/parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool kept_spec_read(const char *text, size_t n, double *value)
{
    static const double ten[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    uint64_t digits = 0;
    int n_digits = 0, n_fraction = 0;
    bool point = false, negative = n > 0 && text[0] == '-';
    for (size_t i = negative; i < n; i++) {
        if (text[i] == '.') {
            if (point || n_digits == 0)
                return false;
            point = true;
        } else if (text[i] >= '0' && text[i] <= '9') {
            if (++n_digits > KEPT_SPEC_DIGITS)
                return false;
            digits = digits * 10 + (uint64_t)(text[i] - '0');
            n_fraction += point;
        } else {
            return false;
        }
    }
    if (n_digits == 0 || (point && n_fraction == 0))
        return false;
    /* Both operands are exact, so the quotient is the double nearest to the decimal. */
    *value = (double)digits / ten[n_fraction];
    if (negative && digits)
        *value = -*value;
    return true;
}

const char *kept_spec_write(double value, char buf[KEPT_SPEC_NUMBER])
{
    const char *sign = value < 0 ? "-" : "";
    double scale = 1;
    int n_fraction = 0;
    value = fabs(value);
    while (n_fraction < KEPT_SPEC_DIGITS && nearbyint(value * scale) / scale != value) {
        scale *= 10;
        n_fraction++;
    }
    uint64_t digits = (uint64_t)nearbyint(value * scale), unit = (uint64_t)scale;
    if (n_fraction)
        snprintf(buf, KEPT_SPEC_NUMBER, "%s%" PRIu64 ".%0*" PRIu64, sign, digits / unit, n_fraction,
                 digits % unit);
    else
        snprintf(buf, KEPT_SPEC_NUMBER, "%s%" PRIu64, sign, digits);
    return buf;
}

kept_status kept_spec_given(const char *owner, const kept_option *o, int n, const double *value,
                            int at, kept_error *err)
{
    char low[KEPT_SPEC_NUMBER], high[KEPT_SPEC_NUMBER];
    for (int i = 0; i < n; i++)
        if (isnan(value[i]))
            return kept_fail_at(err, KEPT_ARGUMENT, at, "'%s' needs %s=NUMBER in %s..%s: %s", owner,
                                o[i].name, kept_spec_write(o[i].min, low),
                                kept_spec_write(o[i].max, high), o[i].help);
    return KEPT_OK;
}

/* ---- names --------------------------------------------------------------------------------- */

typedef struct text {
    char *buf;
    size_t cap, len; /* len >= cap: it did not fit */
} text;

static void put(text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    size_t room = t->len < t->cap ? t->cap - t->len : 0;
    int n = vsnprintf(room ? t->buf + t->len : NULL, room, fmt, ap);
    va_end(ap);
    t->len += n > 0 ? (size_t)n : 0;
}

/* Every option if all, else those that differ from their default. Returns what the next one begins
 * with: "(" or ",". */
static const char *put_options(text *t, const kept_part *part, const double *value, bool all)
{
    char number[KEPT_SPEC_NUMBER];
    const char *open = "(";
    for (int i = 0; i < part->n_options; i++) {
        const kept_option *o = &part->options[i];
        if (!all && value[i] == kept_part_fallback(part, value, i))
            continue;
        put(t, "%s%s=%s", open, o->name,
            o->choices ? o->choices[(int)value[i]] : kept_spec_write(value[i], number));
        open = ",";
    }
    return open;
}

static void put_part(text *t, const kept_part *part, const double *value, bool all)
{
    put(t, "%s", part->name);
    if (*put_options(t, part, value, all) == ',')
        put(t, ")");
}

static bool is_default(const kept_strategy *s, kept_axis a)
{
    if (s->part[a] != kept_part_default(a))
        return false;
    for (int i = 0; i < s->part[a]->n_options; i++)
        if (s->option[a][i] != kept_part_fallback(s->part[a], s->option[a], i))
            return false;
    return true;
}

static void put_budget(text *t, const kept_strategy *s)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB"};
    char number[KEPT_SPEC_NUMBER];
    double value = s->budget;
    int unit = 0;
    switch (s->budget_kind) {
    case KEPT_BUDGET_NONE:
        return;
    case KEPT_BUDGET_PERCENT:
        put(t, "@%s%%", kept_spec_write(value, number));
        return;
    case KEPT_BUDGET_TOKENS:
        put(t, "@%s", kept_spec_write(value, number));
        return;
    case KEPT_BUDGET_BYTES:
        for (; unit < 3 && fmod(value, 1024) == 0; unit++)
            value /= 1024;
        put(t, "@%s%s", kept_spec_write(value, number), units[unit]);
        return;
    }
}

/* state: s is a state of a controller, which has no way of reading of its own. */
static void put_parts(text *t, const kept_strategy *s, bool state, bool all)
{
    put_part(t, s->part[KEPT_AXIS_SCORE], s->option[KEPT_AXIS_SCORE], all);
    /* The full cache evicts nothing: few other axes apply to it. Being awake is not spelled out. */
    const bool full = kept_strategy_is_full(s);
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_N_AXES; a++)
        if (kept_strategy_takes(s, (kept_axis)a) && !(state && a == KEPT_AXIS_READ) &&
            ((all && !full && a != KEPT_AXIS_REST) || !is_default(s, (kept_axis)a))) {
            put(t, "+");
            put_part(t, s->part[a], s->option[a], all);
        }
}

/* True if every state that evicts has the budget of s. */
static bool shares_budget(const kept_strategy *s)
{
    for (int k = 0; k < s->n_states; k++)
        if (!kept_strategy_is_full(s->state[k]) &&
            (s->state[k]->budget_kind != s->budget_kind || s->state[k]->budget != s->budget))
            return false;
    return true;
}

/* The controller with the specs of its states; a budget that all have in common stands outside. */
static void put_states(text *t, const kept_strategy *s, bool all)
{
    const kept_controller *c = kept_strategy_controller(s);
    const bool shared = shares_budget(s);
    put(t, "%s", c->part.name);
    const char *open = put_options(t, &c->part, s->option[KEPT_AXIS_CONTROLLER], all);
    for (int k = 0; k < s->n_states; k++, open = ",") {
        put(t, "%s%s=", open, c->states[k]);
        put_parts(t, s->state[k], true, all);
        if (!shared)
            put_budget(t, s->state[k]);
    }
    put(t, ")");
    if (all || !is_default(s, KEPT_AXIS_READ)) {
        put(t, "+");
        put_part(t, s->part[KEPT_AXIS_READ], s->option[KEPT_AXIS_READ], all);
    }
    if (shared)
        put_budget(t, s);
}

static kept_status print(const kept_strategy *s, bool all, char *buf, size_t cap, kept_error *err)
{
    text t = {buf, cap, 0};
    if (s->n_states) {
        put_states(&t, s, all);
    } else {
        put_parts(&t, s, false, all);
        put_budget(&t, s);
    }
    if (t.len >= cap)
        return kept_fail(err, KEPT_ARGUMENT, "the spec is too long to be written out (%zu > %zu)",
                         t.len, cap - 1);
    return KEPT_OK;
}

kept_status kept_spec_print(kept_strategy *s, kept_error *err)
{
    kept_status st = print(s, false, s->name, sizeof s->name, err);
    return st ? st : print(s, true, s->resolved, sizeof s->resolved, err);
}
