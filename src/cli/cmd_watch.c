/* kept watch: a study while runs write to it. Only reads. */
#include "cli/cli.h"
#include "cli/progress.h"
#include "report/report.h"
#include "store/watch.h"

#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: kept watch STUDY [--once] [--every S] [--setting N]\n"
    "A study while 'kept run --study' writes to it: samples done, rate, time left where it can be\n"
    "told, widest intervals. It only reads, a moment at a time, and ends when all is done. On a\n"
    "terminal a screen that is drawn anew, else a line whenever something changed.\n\n"
    "  --once        one look, and no rate\n"
    "  --every S     seconds between two looks [2]\n"
    "  --setting N   which, where a study has several [all]\n\n"
    "examples\n"
    "  kept watch s.db\n"
    "  kept watch s.db --every 60 > progress.log &\n";

typedef struct watch_args {
    const char *file;
    int64_t every, setting;
    bool once;
} watch_args;

/* A task's samples over time: a rate is told from three samples on. */
typedef struct pace {
    int first, last;        /* complete at the first step and now */
    double first_s, last_s; /* when that was seen */
    bool begun;
} pace;

static int parse(watch_args *w, int argc, char **argv)
{
    static const kept_flag flags[] = {{"once", false}, {"every", true}, {"setting", true}};
    kept_args a = {argc, argv, 1, false, NULL};
    for (int f; (f = kept_args_next(&a, flags, 3)) != KEPT_ARG_END;) {
        if (f == KEPT_ARG_HELP) {
            fputs(help, stdout);
            return KEPT_EXIT_OK;
        }
        if (f == KEPT_ARG_WORD && w->file)
            return kept_usage("watch", "unexpected argument '%s'", a.value);
        if (f == KEPT_ARG_WORD)
            w->file = a.value;
        w->once |= f == 0;
        if (f == KEPT_ARG_ERROR || (f == 1 && !kept_args_int(&a, "every", 1, 86400, &w->every)) ||
            (f == 2 && !kept_args_int(&a, "setting", 1, INT64_MAX, &w->setting)))
            return KEPT_EXIT_USAGE;
    }
    return w->file ? -1 : kept_usage("watch", "the study is missing");
}

/* A rate counts from the first sample that was seen to end, so that a task's wait for its turn is
 * not in it. */
static void add_paces(json_t *look, pace *paces, size_t n, double now)
{
    json_t *t;
    size_t i;
    json_array_foreach(json_object_get(look, "tasks"), i, t)
    {
        if (i >= n)
            return;
        pace *p = &paces[i];
        const int done = (int)json_integer_value(json_object_get(t, "complete"));
        if (!p->begun || done < p->last) {
            *p = (pace){done, done, NAN, now, true};
        } else if (done > p->last) {
            p->first = isnan(p->first_s) ? done : p->first;
            p->first_s = isnan(p->first_s) ? now : p->first_s;
            p->last = done;
            p->last_s = now;
        }
        if (p->last - p->first >= 3)
            json_object_set_new(t, "per_s",
                                json_real((p->last - p->first) / (p->last_s - p->first_s)));
    }
}

static bool is_done(const json_t *look)
{
    const json_int_t all = json_integer_value(json_object_get(look, "samples"));
    return all && all == json_integer_value(json_object_get(look, "complete"));
}

static void show(const watch_args *w, const json_t *look, const json_t *before, bool screen)
{
    if (w->once) {
        kept_report_watch(look, stdout);
    } else if (screen) {
        fputs("\033[H\033[2J", stdout);
        printf("%s\n", w->file);
        kept_report_watch(look, stdout);
    } else if (!before || !json_equal(json_object_get(look, "outcomes"),
                                      json_object_get(before, "outcomes"))) {
        kept_report_watch_line(look, stdout);
    }
    fflush(stdout);
}

static kept_status watch(const watch_args *a, kept_watch *w, kept_error *err)
{
    enum { MAX_TASKS = 256 };
    pace *paces = kept_calloc(MAX_TASKS, sizeof *paces);
    const bool screen = isatty(STDOUT_FILENO);
    json_t *look = NULL, *before = NULL;
    kept_status s = paces ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory");
    kept_catch_signals();
    for (bool on = true; !s && on;) {
        s = kept_watch_look(w, &look, err);
        if (s)
            break;
        add_paces(look, paces, MAX_TASKS, (double)kept_clock_ns() / 1e9);
        show(a, look, before, screen);
        on = !a->once && !is_done(look) && !ferror(stdout);
        json_decref(before);
        before = look;
        if (on)
            on = poll(NULL, 0, (int)(a->every * 1000)) == 0; /* -1: a signal */
    }
    json_decref(before);
    free(paces);
    return s;
}

int kept_cmd_watch(int argc, char **argv)
{
    watch_args a = {.every = 2};
    kept_watch *w = NULL;
    kept_error err;
    const int code = parse(&a, argc, argv);
    if (code >= 0)
        return code;
    if (!kept_store_is_study(a.file) && !access(a.file, R_OK))
        return kept_failed("watch", "%s: is not a study of kept", a.file);
    kept_status s = kept_watch_open(a.file, a.setting, &w, &err);
    if (!s)
        s = watch(&a, w, &err);
    kept_watch_close(w);
    return s ? kept_failed("watch", "%s", err.text) : KEPT_EXIT_OK;
}
