/* html_verdict: the comparison in plain words. Every number and every verdict is one of the
 * comparison's (docs/statistics.md) or of a cell; this file chooses and counts, no more.
 */
#include "report/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef enum standing { NOT_RUN, AS_GOOD, OPEN, WORSE } standing;

/* A strategy at a budget over all tasks that it was run on. */
typedef struct overall {
    standing standing; /* that of its worst task */
    int n_tasks, n_open;
    double held_pct,
        more; /* mean over tasks; most samples that a task still needs, NAN: no number */
} overall;

typedef struct summary {
    overall row[KEPT_MAX_ROWS];
    int n_rows, n_tasks, count[WORSE + 1];
    int best;    /* the smallest that is as good on all tasks; -1: none */
    int nearest; /* the open row that needs the fewest samples; -1: none */
    int least;   /* fewest samples of a task */
} summary;

static standing standing_of(const json_t *row)
{
    const char *v = kept_view_text(row, "verdict");
    return !strcmp(v, "non-inferior") ? AS_GOOD : !strcmp(v, "worse") ? WORSE : OPEN;
}

static void add_row(const kept_html *p, summary *s, const json_t *r)
{
    const int v = (int)kept_view_number(r, "after_index");
    const standing now = standing_of(r);
    const double n = kept_view_number(r, "n");
    overall *o = &s->row[v];
    const json_t *cell = kept_html_cell(p, kept_view_number(r, "task_index"), v);
    o->standing = now > o->standing ? now : o->standing;
    o->held_pct += kept_view_number(cell, "held_pct");
    o->n_tasks++;
    if (now == OPEN) {
        const double more = kept_view_number(r, "more");
        o->more = o->n_open++ ? fmax(o->more, more) + 0 * (o->more + more) : more;
    }
    s->n_rows = v + 1 > s->n_rows ? v + 1 : s->n_rows;
    s->least = s->least < 0 || n < s->least ? (int)n : s->least;
}

static void summarise(const kept_html *p, summary *s)
{
    const json_t *r;
    size_t i;
    memset(s, 0, sizeof *s);
    s->best = s->nearest = s->least = -1;
    json_array_foreach(json_object_get(p->comparison, "rows"), i, r) add_row(p, s, r);
    for (int v = 0; v < s->n_rows; v++)
        s->n_tasks = s->row[v].n_tasks > s->n_tasks ? s->row[v].n_tasks : s->n_tasks;
    for (int v = 0; v < s->n_rows; v++) {
        overall *o = &s->row[v];
        o->held_pct /= o->n_tasks ? o->n_tasks : 1;
        s->count[o->standing]++;
        if (o->n_tasks < s->n_tasks) /* not on every task: cannot be the answer */
            continue;
        if (o->standing == AS_GOOD && (s->best < 0 || o->held_pct < s->row[s->best].held_pct))
            s->best = v;
        if (o->standing == OPEN && isfinite(o->more) &&
            (s->nearest < 0 || o->more < s->row[s->nearest].more))
            s->nearest = v;
    }
}

static void write_name(const kept_html *p, int v, FILE *out)
{
    fputs("<b class=\"spec\">", out);
    kept_html_text(out,
                   kept_view_text(kept_view_at(json_object_get(p->result, "variants"), v), "name"));
    fputs("</b>", out);
}

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

static void write_margin(const kept_html *p, FILE *out)
{
    const double points = 100 * kept_view_number(p->comparison, "margin");
    fprintf(out, "%.4g point%s of score or %.4g nats per token", points, points == 1 ? "" : "s",
            kept_view_number(p->comparison, "nll_margin"));
}

static void write_headline(const kept_html *p, const summary *s, FILE *out)
{
    if (s->best >= 0) {
        fputs(
            "<p class=\"headline good\"><span class=\"mark\" aria-hidden=\"true\">&#10003;</span> ",
            out);
        write_name(p, s->best, out);
        fprintf(out, " is as good as the full cache, with %.0f&nbsp;%% of its memory.</p>\n",
                s->row[s->best].held_pct);
    } else if (s->count[OPEN]) {
        fputs("<p class=\"headline open\"><span class=\"mark\" aria-hidden=\"true\">?</span> "
              "Nothing here is shown to be as good as the full cache, and for ",
              out);
        fprintf(out, "%d of %d rows these samples are too few to tell.</p>\n", s->count[OPEN],
                s->count[OPEN] + s->count[WORSE]);
    } else {
        fprintf(
            out,
            "<p class=\"headline bad\"><span class=\"mark\" aria-hidden=\"true\">&#10007;</span> "
            "Everything here is worse than the full cache%s.</p>\n",
            s->n_tasks > 1 ? " on at least one task" : "");
    }
}

static void write_reason(const kept_html *p, const summary *s, FILE *out)
{
    const int n = (int)json_array_size(json_object_get(p->comparison, "rows"));
    fputs("<p>&ldquo;As good&rdquo; means: ", out);
    fprintf(out, "with %.4g&nbsp;%% confidence it loses less than ",
            100 * kept_view_number(p->comparison, "level"));
    write_margin(p, out);
    fprintf(out, " on the same prompts%s.", s->n_tasks > 1 ? ", on every task" : "");
    if (n > 1)
        fprintf(out, " The %d verdicts of this page are corrected for their number (Holm).", n);
    fputs("</p>\n", out);
    if (s->nearest >= 0 && s->best < 0) {
        fputs("<p>Nearest to a verdict: ", out);
        write_name(p, s->nearest, out);
        fprintf(out, " (%.0f&nbsp;%% of the memory) would need about %.0f more samples.</p>\n",
                s->row[s->nearest].held_pct, s->row[s->nearest].more);
    }
}

static void write_counts(const summary *s, FILE *out)
{
    static const struct {
        standing which;
        const char *style, *text, *of_several;
    } kinds[] = {{AS_GOOD, "good", "as good as full", " on every task"},
                 {OPEN, "open", "cannot be told", ""},
                 {WORSE, "bad", "worse than full", " on a task or more"}};
    fputs("<ul class=\"counts\">", out);
    for (int i = 0; i < 3; i++)
        fprintf(out, "<li class=\"%s\"><b>%d</b> %s%s</li>", kinds[i].style,
                s->count[kinds[i].which], kinds[i].text, s->n_tasks > 1 ? kinds[i].of_several : "");
    fputs("</ul>\n", out);
}

/* The smallest that is as good, for each task. */
static void write_tasks(const kept_html *p, FILE *out)
{
    const json_t *task, *r, *tasks = json_object_get(p->result, "tasks");
    size_t t, i;
    if (json_array_size(tasks) < 2)
        return;
    fputs("<ul class=\"by-task\">\n", out);
    json_array_foreach(tasks, t, task)
    {
        double least = HUGE_VAL;
        int best = -1, n = 0, bad = 0;
        json_array_foreach(json_object_get(p->comparison, "rows"), i, r)
        {
            if (kept_view_number(r, "task_index") != (double)t)
                continue;
            const double v = kept_view_number(r, "after_index");
            const double held = kept_view_number(kept_html_cell(p, (double)t, v), "held_pct");
            n++;
            bad += standing_of(r) == WORSE;
            if (standing_of(r) == AS_GOOD && held < least) {
                least = held;
                best = (int)v;
            }
        }
        if (!n)
            continue;
        fputs("<li><span class=\"task\">", out);
        kept_html_text(out, kept_view_text(task, "label"));
        fprintf(out, "</span>, %.0f tokens: ", kept_view_number(task, "length"));
        if (best >= 0) {
            write_name(p, best, out);
            fprintf(out, " is as good with %.0f&nbsp;%%", least);
        } else {
            fputs("none is shown to be as good", out);
        }
        fprintf(out, "; %d of %d worse</li>\n", bad, n);
    }
    fputs("</ul>\n", out);
}

/* The full cache against itself. */
static void write_floor(const kept_html *p, FILE *out)
{
    const json_t *c;
    double most = 0;
    int n = 0;
    size_t i;
    json_array_foreach(json_object_get(p->result, "cells"), i, c)
    {
        const double change = fabs(kept_view_number(c, "change"));
        const double kl = kept_view_number(c, "kl_max");
        if (kept_view_number(c, "variant") != 1 || !(kept_view_number(c, "n") > 0))
            continue;
        n++;
        most = fmax(most, fmax(change > 0 ? change : 0, kl > 0 ? kl : 0));
    }
    if (n && most > 0)
        fputs("<p class=\"warn\">The full cache run twice differs from itself: smaller differences "
              "on this page mean nothing.</p>\n",
              out);
    else if (n)
        fputs("<p>The full cache run twice differs from itself by exactly 0.</p>\n", out);
}

void kept_html_write_verdict(const kept_html *p, FILE *out)
{
    summary *s = kept_calloc(1, sizeof *s);
    if (kept_view_true(p->result, "partial"))
        fputs("<p class=\"warn\">Not everything that was begun is finished: the same command again "
              "goes on.</p>\n",
              out);
    if (s && json_array_size(json_object_get(p->comparison, "rows"))) {
        summarise(p, s);
        write_headline(p, s, out);
        write_counts(s, out);
        write_reason(p, s, out);
        write_tasks(p, out);
        if (s->least < 60)
            fprintf(out,
                    "<p>The smallest task has %d sample%s. <code>kept power</code> says how many a "
                    "verdict takes.</p>\n",
                    s->least, plural(s->least));
        fputs("<p>For a limit of your own on memory or time: <code>kept advise ", out);
        kept_html_text(out, p->source ? p->source : "STUDY");
        fputs(" --memory 8GiB --tpot 40ms</code></p>\n", out);
    } else {
        fputs("<p class=\"headline open\">No strategy has a finished sample yet, so there is "
              "nothing to say.</p>\n",
              out);
    }
    write_floor(p, out);
    free(s);
}

static void fact(FILE *out, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void fact(FILE *out, const char *name, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fprintf(out, "<div><dt>%s</dt><dd>", name);
    kept_html_text(out, text);
    fputs("</dd></div>\n", out);
}

void kept_html_write_facts(const kept_html *p, FILE *out)
{
    const json_t *m = json_object_get(p->result, "model"),
                 *x = json_object_get(p->result, "machine");
    const json_t *v;
    int n_strategies = 0;
    size_t i;
    json_array_foreach(json_object_get(p->result, "variants"), i, v) n_strategies +=
        !strcmp(kept_view_text(v, "role"), "strategy");
    fact(out, "Model", "%s, %s weights, SHA-256 %.12s", kept_view_text(m, "name"),
         kept_view_text(m, "weight_type"), kept_view_text(m, "sha256"));
    fact(out, "Machine", "%s, %s kernels, %.0f threads", kept_view_text(x, "cpu"),
         kept_view_text(x, "isa"), kept_view_number(x, "threads"));
    fact(out, "Evidence", "%zu task%s, %d strategies with their budgets, %zu samples",
         json_array_size(json_object_get(p->result, "tasks")),
         plural((int)json_array_size(json_object_get(p->result, "tasks"))), n_strategies,
         json_array_size(json_object_get(p->result, "samples")));
    fact(out, "Study", "%s, begun %.10s, kept %s", p->source ? p->source : "",
         kept_view_text(p->result, "date"), kept_view_text(p->result, "kept"));
}
