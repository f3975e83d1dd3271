/* util: usage errors, argument parsing and number formats that the subcommands share. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FLAGS    64
#define WRAP_COLUMNS 78

/* ---- messages ------------------------------------------------------------------------------ */

static void print_message(const char *command, const char *fmt, va_list ap)
{
    fflush(stdout); /* on a terminal, what was printed comes before the complaint about it */
    fprintf(stderr, "kept %s: ", command);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
}

int kept_usage(const char *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_message(command, fmt, ap);
    va_end(ap);
    fprintf(stderr, "Try 'kept %s --help'.\n", command);
    return KEPT_EXIT_USAGE;
}

int kept_failed(const char *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_message(command, fmt, ap);
    va_end(ap);
    return KEPT_EXIT_FAILED;
}

/* A caret is only as good as the line above it: control bytes and other scripts break the count. */
static bool is_plain(const char *s)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || (unsigned char)s[i] > 0x7e)
            return false;
    return n > 0 && n <= 200;
}

int kept_usage_spec(const char *command, const char *spec, const kept_error *err)
{
    fflush(stdout);
    fprintf(stderr, "kept %s: %s\n", command, err->text);
    if (err->at >= 0 && is_plain(spec) && (size_t)err->at <= strlen(spec))
        fprintf(stderr, "  %s\n  %*s^\n", spec, err->at, "");
    fprintf(stderr, "Try 'kept ls' and 'kept help spec'.\n");
    return KEPT_EXIT_USAGE;
}

/* ---- arguments ----------------------------------------------------------------------------- */

static int unknown_flag(const kept_args *a, const char *name, size_t len, const kept_flag *flags,
                        int n_flags)
{
    const char *names[MAX_FLAGS];
    int n = 0;
    for (; n < n_flags && n < MAX_FLAGS - 1; n++)
        names[n] = flags[n].name;
    names[n++] = "help";
    int near = kept_nearest(name, len, names, n);
    if (near >= 0)
        kept_usage(a->argv[0], "unknown option '--%.*s', did you mean '--%s'?", (int)len, name,
                   names[near]);
    else
        kept_usage(a->argv[0], "unknown option '--%.*s'", (int)len, name);
    return KEPT_ARG_ERROR;
}

static int long_flag(kept_args *a, const char *text, const kept_flag *flags, int n_flags)
{
    const char *equals = strchr(text, '=');
    size_t len = equals ? (size_t)(equals - text) : strlen(text);
    for (int i = 0; i < n_flags; i++) {
        if (strlen(flags[i].name) != len || memcmp(flags[i].name, text, len))
            continue;
        if (!flags[i].value && equals) {
            kept_usage(a->argv[0], "--%s takes no value", flags[i].name);
            return KEPT_ARG_ERROR;
        }
        if (flags[i].value && !equals && a->next >= a->argc) {
            kept_usage(a->argv[0], "--%s needs a value", flags[i].name);
            return KEPT_ARG_ERROR;
        }
        a->value = !flags[i].value ? NULL : equals ? equals + 1 : a->argv[a->next++];
        return i;
    }
    return unknown_flag(a, text, len, flags, n_flags);
}

int kept_args_next(kept_args *a, const kept_flag *flags, int n_flags)
{
    if (a->next >= a->argc)
        return KEPT_ARG_END;
    const char *text = a->argv[a->next++];
    if (a->only_words || text[0] != '-' || text[1] == '\0') {
        a->value = text;
        return KEPT_ARG_WORD;
    }
    if (!strcmp(text, "--")) {
        a->only_words = true;
        return kept_args_next(a, flags, n_flags);
    }
    if (!strcmp(text, "-h") || !strcmp(text, "--help"))
        return KEPT_ARG_HELP;
    if (text[1] == '-')
        return long_flag(a, text + 2, flags, n_flags);
    kept_usage(a->argv[0], "unknown option '%s'", text);
    return KEPT_ARG_ERROR;
}

bool kept_args_int(const kept_args *a, const char *name, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    long long v = strtoll(a->value, &end, 10);
    if (errno || end == a->value || *end || isspace((unsigned char)a->value[0]) || v < min ||
        v > max) {
        kept_usage(a->argv[0], "--%s wants a whole number from %lld to %lld, got '%s'", name,
                   (long long)min, (long long)max, a->value);
        return false;
    }
    *out = v;
    return true;
}

bool kept_args_numbers(const kept_args *a, const char *name, const double range[2], double *out,
                       int cap, int *n)
{
    const char *text = a->value;
    for (*n = 0; *n < cap;) {
        char *end;
        const double x = strtod(text, &end);
        if (end == text || !(x >= range[0] && x <= range[1]))
            break;
        out[(*n)++] = x;
        end += !strncmp(end, "pt", 2) ? 2 : *end == '%';
        if (!*end)
            return true;
        if (*end != ',')
            break;
        text = end + 1;
    }
    char what[32] = "a number";
    if (cap > 1)
        snprintf(what, sizeof what, "up to %d numbers", cap);
    kept_usage(a->argv[0], "--%s wants %s from %g to %g, got '%s'", name, what, range[0], range[1],
               a->value);
    return false;
}

bool kept_args_number(const kept_args *a, const char *name, double min, double max, double *out)
{
    const double range[2] = {min, max};
    double x;
    int n;
    if (!kept_args_numbers(a, name, range, &x, 1, &n))
        return false;
    *out = x;
    return true;
}

bool kept_args_json(const kept_args *a, bool *json)
{
    *json = !strcmp(a->value, "json");
    if (*json || !strcmp(a->value, "table"))
        return true;
    kept_usage(a->argv[0], "--format is 'table' or 'json', got '%s'", a->value);
    return false;
}

/* ---- output -------------------------------------------------------------------------------- */

/* Length of what must stay on one line: a word, or a part of a spec that is too long for a line. */
static size_t unbroken(const char *text, int room)
{
    size_t len = strcspn(text, " \n"), part = 0;
    if (len <= (size_t)room)
        return len;
    for (size_t i = 1; i < len && i < (size_t)room; i++)
        if (text[i] == '+')
            part = i;
    return part ? part : len;
}

void kept_print_wrapped(FILE *out, int indent, const char *lead, const char *text)
{
    int column = fprintf(out, "%s", lead);
    for (; column < indent; column++)
        fputc(' ', out);
    bool first = true, glued = false;
    while (*text) {
        size_t len = unbroken(text, WRAP_COLUMNS - indent);
        if (!first && column + !glued + (int)len > WRAP_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        column += fprintf(out, "%s%.*s", first || glued ? "" : " ", (int)len, text);
        first = false;
        text += len;
        size_t blanks = strspn(text, " \n");
        glued = !blanks;
        text += blanks;
    }
    fputc('\n', out);
}

const char *kept_format_decimal(double bytes, char *buf, size_t cap)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    int u = 0;
    double v = bytes;
    /* 999.5 rounds to "1000", which the next unit says better. */
    for (; u < 6 && v >= 999.5; u++)
        v /= 1000;
    int digits = u == 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
    snprintf(buf, cap, "%.*f %s", digits, v, units[u]);
    return buf;
}
