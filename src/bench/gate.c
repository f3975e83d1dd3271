/* gate: the words of --gate and of a preset's gate. */
#include "bench/advise.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A number and what follows it, blanks skipped; false: no number. */
static bool number(const char *text, double *x, const char **unit)
{
    char *end;
    *x = strtod(text, &end);
    if (end == text || !(*x == *x))
        return false;
    while (*end == ' ')
        end++;
    *unit = end;
    return true;
}

static bool begins(const char **text, const char *word)
{
    const size_t n = strlen(word);
    if (strncmp(*text, word, n))
        return false;
    *text += n;
    while (**text == ' ')
        (*text)++;
    return true;
}

/* Milliseconds of "40ms" or "2s"; false: neither. */
static bool milliseconds(const char *text, double *out)
{
    const char *unit;
    double x;
    if (!number(text, &x, &unit) || !(x > 0) || (strcmp(unit, "ms") && strcmp(unit, "s")))
        return false;
    *out = strcmp(unit, "ms") ? 1000 * x : x;
    return true;
}

static bool quality(const char *text, kept_gate *g)
{
    const char *unit;
    double x;
    if (!strcmp(text, "zero") || !strcmp(text, "zero regressions")) {
        g->zero = true;
        g->margin = KEPT_ZERO_RATE;
        return true;
    }
    if (!number(text, &x, &unit))
        return false;
    if (!strcmp(unit, "pt") || !*unit) {
        g->margin = (x < 0 ? -x : x) / 100;
        g->relative = 0;
        return g->margin <= 1;
    }
    if (*unit != '%' || (strcmp(unit, "%") && strcmp(unit, "% of full")) || !(x > 0 && x < 100))
        return false;
    g->relative = 1 - x / 100;
    return true;
}

static bool clause(const char *text, kept_gate *g)
{
    const char *at = text, *unit;
    double x;
    if (begins(&at, "TTFT"))
        return milliseconds(at, &g->ttft_ms);
    if (begins(&at, "TPOT"))
        return milliseconds(at, &g->tpot_ms);
    if (begins(&at, "output length at most")) {
        if (!number(at, &x, &unit) || *unit != '%' || !(x > 0))
            return false;
        g->length_ratio = x / 100;
        return true;
    }
    return quality(at, g);
}

kept_status kept_gate_parse(const char *text, bool rest, kept_gate *out, kept_error *err)
{
    char one[128];
    while (*text) {
        size_t n = strcspn(text, ",");
        const char *from = text;
        text += n + (text[n] == ',');
        while (n && isspace((unsigned char)*from)) {
            from++;
            n--;
        }
        snprintf(one, sizeof one, "%.*s", (int)n, from);
        if (clause(one, out))
            continue;
        if (!rest)
            return kept_fail(err, KEPT_ARGUMENT,
                             "'%s' is no gate; wanted -1pt, 97%%, 'zero regressions', 'TTFT "
                             "500ms', 'TPOT 40ms' or 'output length at most 110%%'",
                             one);
        const size_t have = strlen(out->rest);
        snprintf(out->rest + have, sizeof out->rest - have, "%s%s", have ? ", " : "", one);
    }
    return KEPT_OK;
}
