/* error: status names and texts from the one list in kept.h, and the filling of kept_error.
 *
 * The text of an error is one line whatever was formatted into it (file names and model strings
 * may hold newlines), so that a caller can print it without thinking.
 */
#include "base/base.h"

#include <stdio.h>

const char *kept_status_name(kept_status s)
{
    switch (s) {
#define STATUS_NAME(name, text)                                                                    \
    case KEPT_##name:                                                                              \
        return #name;
        KEPT_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "UNKNOWN";
}

const char *kept_status_text(kept_status s)
{
    switch (s) {
#define STATUS_TEXT(name, text)                                                                    \
    case KEPT_##name:                                                                              \
        return text;
        KEPT_STATUS_LIST(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "unknown status";
}

const char *kept_version(void)
{
    return KEPT_VERSION;
}

static void fill(kept_error *err, int at, const char *fmt, va_list args)
{
    if (!err)
        return;
    err->at = at;
    if (vsnprintf(err->text, sizeof err->text, fmt, args) < 0)
        err->text[0] = 0;
    for (char *c = err->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

kept_status kept_fail(kept_error *err, kept_status s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, -1, fmt, args);
    va_end(args);
    return s;
}

kept_status kept_fail_at(kept_error *err, kept_status s, int at, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fill(err, at, fmt, args);
    va_end(args);
    return s;
}
