/* text: nearest name for error messages, and sizes in and out. Nothing here depends on the locale:
 * numbers are parsed and printed with integers only.
 */
#include "base/base.h"

#include <stdio.h>
#include <string.h>

#define MAX_WORD 64 /* longer words and names have no neighbours */

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : (unsigned char)c;
}

static int min_int(int a, int b)
{
    return a < b ? a : b;
}

/* Case-insensitive edit distance with swaps of neighbours (Damerau-Levenshtein, each part edited at
 * most once). Three rolling rows: row i-2 is needed for the swap. */
static int distance(const char *a, size_t n, const char *b, size_t m)
{
    int rows[3][MAX_WORD + 1];
    for (size_t j = 0; j <= m; j++)
        rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = rows[i % 3], *prev = rows[(i - 1) % 3], *swap = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            const int ca = lower(a[i - 1]), cb = lower(b[j - 1]);
            now[j] = min_int(min_int(now[j - 1], prev[j]) + 1, prev[j - 1] + (ca != cb));
            if (i > 1 && j > 1 && ca == lower(b[j - 2]) && cb == lower(a[i - 2]))
                now[j] = min_int(now[j], swap[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

int kept_nearest(const char *word, size_t len, const char *const *names, int n)
{
    if (len > MAX_WORD)
        return -1;
    int best = -1, best_distance = 1 + (int)(len / 3) + 1;
    for (int i = 0; i < n; i++) {
        const size_t m = strlen(names[i]);
        if (m > MAX_WORD)
            continue;
        const int d = distance(word, len, names[i], m);
        if (d < best_distance) {
            best = i;
            best_distance = d;
        }
    }
    return best;
}

/* Multiplier of a unit suffix, 0 if it is none. */
static uint64_t unit_of(const char *s)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        {"", 1},           {"K", 1000},       {"KB", 1000},       {"Ki", 1u << 10},
        {"KiB", 1u << 10}, {"M", 1000000},    {"MB", 1000000},    {"Mi", 1u << 20},
        {"MiB", 1u << 20}, {"G", 1000000000}, {"GB", 1000000000}, {"Gi", 1u << 30},
        {"GiB", 1u << 30},
    };
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (!strcmp(s, units[i].name))
            return units[i].bytes;
    return 0;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads digits at *s, at most 19 of them, so that the value fits 64 bits. Returns their number. */
static int read_digits(const char **s, uint64_t *value)
{
    const char *begin = *s;
    *value = 0;
    while (is_digit(**s) && *s - begin < 19)
        *value = *value * 10 + (uint64_t)(*(*s)++ - '0');
    return (int)(*s - begin);
}

kept_status kept_parse_size(const char *text, uint64_t *bytes, kept_error *err)
{
    if (!text || !bytes)
        return kept_fail(err, KEPT_ARGUMENT, "no size given");
    uint64_t whole, part = 0, scale = 1;
    const char *s = text;
    if (!read_digits(&s, &whole))
        return kept_fail_at(err, KEPT_ARGUMENT, 0,
                            "size '%.40s' does not start with a digit; write 512, 1.5G or 64MiB",
                            text);
    if (is_digit(*s))
        return kept_fail_at(err, KEPT_ARGUMENT, (int)(s - text), "size '%.40s' is too large", text);
    if (*s == '.') {
        s++;
        /* Nine digits keep part * unit below 2^64. */
        const int n = read_digits(&s, &part);
        if (n < 1 || n > 9 || is_digit(*s))
            return kept_fail_at(err, KEPT_ARGUMENT, (int)(s - text),
                                "size '%.40s' needs one to nine digits after the point", text);
        for (int i = 0; i < n; i++)
            scale *= 10;
    }
    const uint64_t unit = unit_of(s);
    if (!unit || (unit == 1 && scale > 1))
        return kept_fail_at(err, KEPT_ARGUMENT, (int)(s - text),
                            "size '%.40s' needs a unit of K, M, G (1000) or Ki, Mi, Gi (1024), "
                            "optionally with B, or whole bytes",
                            text);
    const uint64_t extra = part * unit / scale;
    if (whole > (UINT64_MAX - extra) / unit)
        return kept_fail_at(err, KEPT_ARGUMENT, 0, "size '%.40s' is too large", text);
    *bytes = whole * unit + extra;
    return KEPT_OK;
}

const char *kept_format_bytes(uint64_t bytes, char *buf, size_t cap)
{
    static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(buf, cap, "%u B", (unsigned)bytes);
        return buf;
    }
    unsigned k = 1;
    while (k < 6 && bytes >> (10 * k) >= 1024)
        k++;
    for (;; k++) {
        const unsigned shift = 10 * k;
        uint64_t whole = bytes >> shift, rest = bytes & ((UINT64_C(1) << shift) - 1);
        /* 20 bits of the rest are enough for two digits and cannot overflow. */
        rest = shift > 20 ? rest >> (shift - 20) : rest << (20 - shift);
        unsigned cents = (unsigned)((rest * 100 + (1u << 19)) >> 20);
        if (cents == 100) {
            whole++;
            cents = 0;
        }
        if (whole >= 1024 && k < 6)
            continue; /* rounded up to the next unit */
        snprintf(buf, cap, "%u.%02u %s", (unsigned)whole, cents, names[k - 1]);
        return buf;
    }
}
