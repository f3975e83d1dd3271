/* save: the document itself, and writing any view to a file that is either whole or not there. */
#include "bench/pressure.h"
#include "report/view.h"

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

typedef struct view {
    const json_t *result;
    const char *format;
} view;

static kept_status write_view(const void *ctx, FILE *f)
{
    const view *v = ctx;
    if (!strcmp(v->format, "json"))
        return kept_report_json(v->result, f);
    if (!strcmp(kept_view_text(v->result, "schema"), KEPT_PRESSURE_SCHEMA))
        return strcmp(v->format, "csv") ? kept_report_pressure(v->result, f)
                                        : kept_report_pressure_csv(v->result, f);
    if (!strcmp(v->format, "csv"))
        return kept_report_csv(v->result, f);
    if (!strcmp(v->format, "jsonl"))
        return kept_report_jsonl(v->result, f);
    if (!strcmp(v->format, "table"))
        return kept_report_table(v->result, f, NULL);
    return KEPT_ARGUMENT;
}

kept_status kept_view_save(const char *path, const kept_view_writer *w, kept_error *err)
{
    size_t len = strlen(path) + 32;
    char *temp = kept_calloc(len, 1);
    if (!temp)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    snprintf(temp, len, "%s.%ld.tmp", path, (long)getpid());
    errno = 0;
    FILE *f = fopen(temp, "w");
    kept_status s = f ? w->write(w->ctx, f) : KEPT_IO;
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
    if (s == KEPT_IO)
        return kept_fail(err, s, "%s: %s", path, why ? strerror(why) : kept_status_text(s));
    return s ? kept_fail(err, s, "%s: %s", path, kept_status_text(s)) : s;
}

kept_status kept_report_save(const json_t *result, const char *path, const char *format,
                             kept_error *err)
{
    const view v = {result, format};
    const kept_view_writer w = {write_view, &v};
    kept_status s = kept_view_save(path, &w, err);
    return s == KEPT_ARGUMENT ? kept_fail(err, s, "unknown format '%s'", format) : s;
}
