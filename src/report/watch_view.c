/* watch_view: one look at a study as text: a screen, or one line. */
#include "report/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BAR = 24, MAX_WIDE = 8 };

static void left_text(double seconds, char buf[32])
{
    if (!isfinite(seconds))
        snprintf(buf, 32, "n/a");
    else if (seconds < 90)
        snprintf(buf, 32, "about %.0f s", seconds);
    else if (seconds < 5400)
        snprintf(buf, 32, "about %.0f min", seconds / 60);
    else
        snprintf(buf, 32, "about %.1f h", seconds / 3600);
}

/* What is left at the rates seen; only if every task that is not done has one. */
static double seconds_left(const json_t *look, const char **not_begun)
{
    const json_t *t;
    double sum = 0;
    size_t i;
    *not_begun = NULL;
    json_array_foreach(json_object_get(look, "tasks"), i, t)
    {
        const double left = kept_view_number(t, "samples") - kept_view_number(t, "complete");
        const double rate = kept_view_number(t, "per_s");
        if (left <= 0)
            continue;
        if (!(rate > 0) && !*not_begun)
            *not_begun = kept_view_text(t, "label");
        sum += rate > 0 ? left / rate : NAN;
    }
    return sum;
}

static void print_head(const json_t *look, FILE *out)
{
    const char *not_begun;
    char left[32];
    const double all = seconds_left(look, &not_begun), claims = kept_view_number(look, "claims");
    const bool done = kept_view_number(look, "complete") == kept_view_number(look, "samples");
    fprintf(out, "%.0f of %.0f samples, %.0f of %.0f cells filled in",
            kept_view_number(look, "complete"), kept_view_number(look, "samples"),
            kept_view_number(look, "outcomes"), kept_view_number(look, "outcomes_wanted"));
    if (claims > 0)
        fprintf(out, "; %.0f being worked on", claims);
    left_text(all, left);
    if (done)
        fprintf(out, "; complete");
    else if (isfinite(all))
        fprintf(out, "; %s left", left);
    else if (not_begun)
        fprintf(out, "; time left not told: too little seen of %.60s", not_begun);
}

typedef struct wide {
    const json_t *cell, *task;
    double width; /* of a score: in points of a hundred; of NLL: in hundredths of a nat */
} wide;

static int by_width(const void *a, const void *b)
{
    const wide *x = a, *y = b;
    return (x->width < y->width) - (x->width > y->width);
}

/* The widest intervals first; malloc'ed. */
static wide *widest(const json_t *look, int *n)
{
    const json_t *t, *c;
    size_t i, k, most = 0;
    json_array_foreach(json_object_get(look, "tasks"), i, t) most +=
        json_array_size(json_object_get(t, "cells"));
    wide *w = kept_calloc(most + 1, sizeof *w);
    *n = 0;
    json_array_foreach(json_object_get(look, "tasks"), i, t)
        json_array_foreach(json_object_get(t, "cells"), k, c)
    {
        const double x = kept_view_number(c, "high") - kept_view_number(c, "low");
        if (w && !strcmp(kept_view_text(c, "role"), "strategy") && isfinite(x))
            w[(*n)++] = (wide){c, t, 100 * x};
    }
    if (w)
        qsort(w, (size_t)*n, sizeof *w, by_width);
    return w;
}

static void print_wide(const wide *w, FILE *out)
{
    const bool score = !strcmp(kept_view_text(w->task, "kind"), "score");
    const double unit = score ? 1 : 100;
    fprintf(out, score ? "%+.3f (%+.3f..%+.3f)" : "%+.1f (%+.1f..%+.1f)",
            unit * kept_view_number(w->cell, "change"), unit * kept_view_number(w->cell, "low"),
            unit * kept_view_number(w->cell, "high"));
}

void kept_report_watch_line(const json_t *look, FILE *out)
{
    int n;
    wide *w = widest(look, &n);
    print_head(look, out);
    if (w && n) {
        fprintf(out, "; widest: %.60s on %.60s ", kept_view_text(w->cell, "name"),
                kept_view_text(w->task, "label"));
        print_wide(w, out);
    }
    fputc('\n', out);
    free(w);
}

static void print_task(const json_t *t, FILE *out)
{
    const double all = kept_view_number(t, "samples"), done = kept_view_number(t, "complete");
    const double rate = kept_view_number(t, "per_s");
    const int filled = all > 0 ? (int)(BAR * done / all) : 0;
    double failed = 0;
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(t, "cells"), i, c) failed += kept_view_number(c, "failed");
    fprintf(out, "  [%.*s%*s] %5.0f/%-5.0f", filled, "########################", BAR - filled, "",
            done, all);
    if (rate > 0)
        fprintf(out, " %8.3g/min", 60 * rate);
    else
        fprintf(out, " %8s    ", "");
    fprintf(out, "  %.60s, %.0f tokens", kept_view_text(t, "label"), kept_view_number(t, "length"));
    if (failed > 0)
        fprintf(out, ", %.0f FAILED", failed);
    fputc('\n', out);
}

void kept_report_watch(const json_t *look, FILE *out)
{
    const json_t *t;
    size_t i;
    int n;
    double setting = 0;
    wide *w = widest(look, &n);
    print_head(look, out);
    fputs("\n\n", out);
    json_array_foreach(json_object_get(look, "tasks"), i, t)
    {
        if (kept_view_number(t, "setting") != setting)
            fprintf(out, "setting %.0f, %s\n", kept_view_number(t, "setting"),
                    kept_view_text(t, "model"));
        setting = kept_view_number(t, "setting");
        print_task(t, out);
    }
    if (n)
        fprintf(out, "\nwidest intervals of the change against full (95%%, samples taken as "
                     "independent)\n");
    for (int k = 0; w && k < n && k < MAX_WIDE; k++) {
        fprintf(out, "  %-32.60s %-32.60s n %4.0f  ", kept_view_text(w[k].cell, "name"),
                kept_view_text(w[k].task, "label"), kept_view_number(w[k].cell, "n"));
        print_wide(&w[k], out);
        fputc('\n', out);
    }
    free(w);
}
