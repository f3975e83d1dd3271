/* spec_words: names, messages and budgets of a spec. */
#include "policy/spec_parse.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_BYTES  1125899906842624.0 /* 2^50 */
#define MAX_TOKENS 2147483647.0

int kept_spec_offset(const kept_parser *p, int i)
{
    return p->at >= 0 ? p->at : i;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

int kept_spec_word(const char *s)
{
    int n = 0;
    while (is_word(s[n]))
        n++;
    return n;
}

kept_status kept_spec_unknown(const kept_parser *p, const char *what, int at, int len,
                              const char *const *names, int n)
{
    char word[41];
    int m = len < 40 ? len : 40;
    for (int i = 0; i < m; i++)
        word[i] = (char)tolower((unsigned char)p->s[at + i]);
    word[m] = 0;
    int near = kept_nearest(word, (size_t)m, names, n);
    at = kept_spec_offset(p, at);
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

kept_status kept_spec_expected(const kept_parser *p, const char *what)
{
    unsigned char c = (unsigned char)p->s[p->i];
    int at = kept_spec_offset(p, p->i);
    if (!c)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at,
                            "expected %s at character %d, but the spec ends here", what, at);
    if (isprint(c) && c < 128)
        return kept_fail_at(p->err, KEPT_ARGUMENT, at, "expected %s at character %d, not '%c'",
                            what, at, c);
    return kept_fail_at(p->err, KEPT_ARGUMENT, at, "expected %s at character %d, not byte 0x%02x",
                        what, at, c);
}

/* ---- budget -------------------------------------------------------------------------------- */

kept_status kept_spec_budget(kept_parser *p)
{
    kept_strategy *s = p->out;
    const char *text = p->s + p->i;
    size_t n = strcspn(text, p->state ? "" : ",)"), plain = strspn(text, "0123456789.");
    const int shown = n < 40 ? (int)n : 40, at = kept_spec_offset(p, p->i);
    char copy[48];
    uint64_t bytes;
    kept_error why;
    if (!n)
        return kept_spec_expected(p, "a budget such as 20%, 512 or 64MiB");
    for (size_t i = 0; i < n; i++)
        if (text[i] != '%' && text[i] != '.' && !isalnum((unsigned char)text[i])) {
            p->i += (int)i;
            return kept_spec_expected(p, "the end of the spec after its budget");
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
        return kept_spec_expected(p, "a budget such as 20%, 512 or 64MiB");
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
