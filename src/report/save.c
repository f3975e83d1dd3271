/* save: the document itself, and writing any view to a file that is either whole or not there. */
#include "report/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Enough to recompute every aggregate to what a table shows and far beyond. */
#define PRECISION 15

kept_status kept_report_json(const json_t *result, FILE *out)
{
    if (json_dumpf(result, out, JSON_INDENT(1) | JSON_REAL_PRECISION(PRECISION)))
        return KEPT_IO;
    return fputc('\n', out) == EOF ? KEPT_IO : KEPT_OK;
}

static kept_status write_view(const json_t *result, const char *format, FILE *f)
{
    if (!strcmp(format, "json"))
        return kept_report_json(result, f);
    if (!strcmp(format, "csv"))
        return kept_report_csv(result, f);
    if (!strcmp(format, "jsonl"))
        return kept_report_jsonl(result, f);
    if (!strcmp(format, "table"))
        return kept_report_table(result, f, NULL);
    return KEPT_ARGUMENT;
}

kept_status kept_report_save(const json_t *result, const char *path, const char *format,
                             kept_error *err)
{
    size_t len = strlen(path) + 32;
    char *temp = kept_calloc(len, 1);
    if (!temp)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    snprintf(temp, len, "%s.%ld.tmp", path, (long)getpid());
    errno = 0;
    FILE *f = fopen(temp, "w");
    kept_status s = f ? write_view(result, format, f) : KEPT_IO;
    int why = errno;
    if (f && fclose(f) && !s) {
        s = KEPT_IO;
        why = errno;
    }
    if (!s && rename(temp, path)) {
        s = KEPT_IO;
        why = errno;
    }
    if (s && f)
        unlink(temp);
    free(temp);
    if (s == KEPT_ARGUMENT)
        return kept_fail(err, s, "unknown format '%s'", format);
    return s ? kept_fail(err, s, "%s: %s", path, why ? strerror(why) : kept_status_text(s)) : s;
}
