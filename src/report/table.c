/* table: the result as text for a person. Per task: the conditions, the rows (the full cache first,
 * then the rows nothing beats in both bytes and quality, then the rest), and what the number of
 * samples can and cannot tell. Columns are as wide as their content; a strategy name too long for
 * the line has a line of its own.
 */
#include "report/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 120

typedef struct table {
    const json_t *result, *task;
    FILE *out;
    const kept_view_options *o;
    bool generate;
    const kept_column *columns;
    int n_columns, n_rows, name_width, width[KEPT_VIEW_COLUMNS]; /* -1: left out */
    kept_row *rows;                                              /* [n_rows] */
} table;

/* ---- layout --------------------------------------------------------------------------------- */

static void widen(int *width, const char *text)
{
    int n = (int)strlen(text);
    *width = n > *width ? n : *width;
}

static void lay_out(table *t)
{
    int rest = (t->o && t->o->columns > 0 ? t->o->columns : COLUMNS) - 2;
    for (int k = 0; k < t->n_columns; k++) {
        t->width[k] = -1;
        if (!kept_view_shows(&t->columns[k], json_object_get(t->result, "cells")))
            continue;
        t->width[k] = 0;
        widen(&t->width[k], t->columns[k].head[0]);
        widen(&t->width[k], t->columns[k].head[1]);
        for (int i = 0; i < t->n_rows; i++)
            widen(&t->width[k], t->rows[i].text[k]);
        rest -= t->width[k] + 1;
    }
    t->name_width = 8;
    for (int i = 0; i < t->n_rows; i++)
        if ((int)strlen(t->rows[i].name) <= rest)
            widen(&t->name_width, t->rows[i].name);
}

static void print_heads(const table *t)
{
    for (int line = 0; line < 2; line++) {
        fprintf(t->out, "  %-*s", t->name_width, line ? "strategy" : "");
        for (int k = 0; k < t->n_columns; k++)
            if (t->width[k] >= 0)
                fprintf(t->out, " %*s", t->width[k], t->columns[k].head[line]);
        fputc('\n', t->out);
    }
}

/* The first column; a name too long for it takes a line of its own. */
static void print_name(const table *t, const char *name, bool front)
{
    bool fits = (int)strlen(name) <= t->name_width;
    fprintf(t->out, "%c %-*s", front ? '*' : ' ', fits ? t->name_width : 0, name);
    if (!fits)
        fprintf(t->out, "\n  %*s", t->name_width, "");
}

static void print_row(const table *t, const kept_row *r)
{
    bool front = kept_view_true(r->cell, "front");
    bool bold = front && t->o && t->o->colour;
    fputs(bold ? "\033[1m" : "", t->out);
    print_name(t, r->name, front);
    for (int k = 0; k < t->n_columns; k++)
        if (t->width[k] >= 0)
            fprintf(t->out, " %*s", t->width[k], r->text[k]);
    fputs(bold ? "\033[0m\n" : "\n", t->out);
}

/* Teacher forcing: does the loss grow with the distance from the eviction? */
static void print_distances(const table *t)
{
    const json_t *first = NULL, *d;
    size_t i;
    if (t->n_rows)
        first = json_object_get(t->rows[0].cell, "by_distance");
    if (json_array_size(first) < 2)
        return;
    fprintf(t->out, "\n  %-*s  top-1%% by tokens after the eviction\n  %-*s", t->name_width, "",
            t->name_width, "strategy");
    json_array_foreach(first, i, d)
    {
        char range[40];
        double to = kept_view_number(d, "to");
        if (isfinite(to))
            snprintf(range, sizeof range, "%.0f-%.0f", kept_view_number(d, "from"), to);
        else
            snprintf(range, sizeof range, ">%.0f", kept_view_number(d, "from") - 1);
        fprintf(t->out, " %7s", range);
    }
    fputc('\n', t->out);
    for (int r = 0; r < t->n_rows; r++) {
        print_name(t, t->rows[r].name, false);
        json_array_foreach(json_object_get(t->rows[r].cell, "by_distance"), i, d)
            fprintf(t->out, " %7.1f", 100 * kept_view_number(d, "top1"));
        fputc('\n', t->out);
    }
}

/* Ranges of a list of members from..to as headings. */
static void print_ranges(const table *t, const json_t *list)
{
    const json_t *d;
    size_t i;
    json_array_foreach(list, i, d)
    {
        char range[40];
        double from = kept_view_number(d, "from"), to = kept_view_number(d, "to");
        if (!isfinite(to))
            snprintf(range, sizeof range, ">%.0f", from - 1);
        else if (from == to)
            snprintf(range, sizeof range, from ? "%.0f" : "new", from);
        else
            snprintf(range, sizeof range, "%.0f-%.0f", from, to);
        fprintf(t->out, " %5s", range);
    }
}

/* Several turns: does the answer get worse from turn to turn, and where it is asked again? */
static void print_turns(const table *t)
{
    const json_t *first = t->n_rows ? t->rows[0].cell : NULL, *d;
    const json_t *turns = json_object_get(first, "by_turn");
    const json_t *again = json_object_get(first, "by_again");
    size_t i;
    if (json_array_size(turns) < 2 || json_array_size(turns) > 12)
        return;
    fprintf(t->out, "\n  %-*s  score by turn%*s | by turns since it was asked\n  %-*s",
            t->name_width, "", (int)json_array_size(turns) * 6 - 15, "", t->name_width, "strategy");
    json_array_foreach(turns, i, d) fprintf(t->out, " %5.0f", kept_view_number(d, "turn"));
    fputs(" |", t->out);
    print_ranges(t, again);
    fputc('\n', t->out);
    for (int r = 0; r < t->n_rows; r++) {
        print_name(t, t->rows[r].name, false);
        json_array_foreach(json_object_get(t->rows[r].cell, "by_turn"), i, d)
            fprintf(t->out, " %5.0f", 100 * kept_view_number(d, "score"));
        fputs(" |", t->out);
        json_array_foreach(json_object_get(t->rows[r].cell, "by_again"), i, d)
            fprintf(t->out, " %5.0f", 100 * kept_view_number(d, "score"));
        fputc('\n', t->out);
    }
}

/* ---- words ---------------------------------------------------------------------------------- */

/* The protection all strategies share, "" if they differ. Borrowed from a resolved spec. */
static const char *common_protection(const json_t *result, int *len)
{
    const json_t *v;
    const char *found = NULL;
    size_t i;
    *len = 0;
    json_array_foreach(json_object_get(result, "variants"), i, v)
    {
        const char *p = strstr(kept_view_text(v, "resolved"), "protect(");
        if (i < 2)
            continue;
        int n = p ? (int)strcspn(p, ")") + 1 : 0;
        if (!n || (found && (n != *len || strncmp(p, found, (size_t)n)))) {
            *len = 0;
            return "";
        }
        found = p;
        *len = n;
    }
    return found ? found : "";
}

static void print_run(const json_t *result, FILE *out)
{
    const json_t *m = json_object_get(result, "model"), *c = json_object_get(result, "machine");
    const json_t *o = json_object_get(result, "options");
    int len;
    const char *protect = common_protection(result, &len);
    fprintf(out, "model    %s, %s weights, sha256 %.12s\n", kept_view_text(m, "name"),
            kept_view_text(m, "weight_type"), kept_view_text(m, "sha256"));
    fprintf(out, "machine  %s, %s kernels, %.0f threads\n", kept_view_text(c, "cpu"),
            kept_view_text(c, "isa"), kept_view_number(c, "threads"));
    fprintf(out, "run      seed %.0f, prompt read in chunks of %.0f tokens",
            kept_view_number(o, "seed"), kept_view_number(o, "chunk"));
    if (len)
        fprintf(out, ", every strategy has %.*s\n", len, protect);
    else
        fprintf(out, "; strategies differ in what they protect (see their specs)\n");
}

static void print_conditions(const table *t, double n)
{
    bool aware = kept_view_true(t->task, "query_aware");
    fprintf(t->out, "\n%s: %.0f samples of %.0f tokens%s; ", kept_view_text(t->task, "label"), n,
            kept_view_number(t->task, "length"),
            kept_view_true(t->task, "chat") ? ", chat template" : "");
    if (!t->generate)
        fprintf(t->out, "the text goes on after the eviction, token by token\n");
    else if (aware)
        fprintf(t->out, "QUERY-AWARE: strategies saw the question before they evicted\n");
    else
        fprintf(t->out, "the question arrives after the eviction (query-agnostic)\n");
}

static bool is_zero(const json_t *cell, const char *key)
{
    double x = kept_view_number(cell, key);
    return x == 0 || !isfinite(x);
}

static void print_floor(const table *t)
{
    const json_t *c = t->n_rows > 1 && t->rows[1].variant == 1 ? t->rows[1].cell : NULL;
    if (!c)
        return;
    bool zero = is_zero(c, "change") && is_zero(c, "kl_max") && is_zero(c, "diverged") &&
                is_zero(c, "regressions") && is_zero(c, "improvements");
    fprintf(
        t->out,
        zero ? "  Floor: \"full (again)\", which also carries the probe for mass, differs from "
               "full by "
               "exactly 0.\n"
             : "  FLOOR NOT 0: the full cache run twice differs from itself; smaller differences "
               "mean nothing.\n");
}

static void print_failures(const table *t)
{
    for (int i = 0; i < t->n_rows; i++) {
        double failed = kept_view_number(t->rows[i].cell, "failed");
        if (failed > 0)
            fprintf(t->out, "  FAILED: %s on %.0f of %.0f samples (counted with score 0)\n",
                    t->rows[i].name, failed, kept_view_number(t->rows[i].cell, "n"));
    }
}

/* What a controller did with its row. */
static void print_control(const table *t)
{
    for (int i = 0; i < t->n_rows; i++) {
        json_t *c = json_object_get(t->rows[i].cell, "control");
        json_t *states = json_object_get(c, "states"), *share;
        const char *name, *lead = ": ";
        if (!json_is_object(c))
            continue;
        fprintf(t->out, "  states   %s", t->rows[i].name);
        json_object_foreach(states, name, share)
        {
            fprintf(t->out, "%s%s %.0f%%", lead, name, 100 * json_number_value(share));
            lead = ", ";
        }
        if (json_object_size(states))
            fprintf(t->out, " of decode steps; %.1f switches", kept_view_number(c, "switches"));
        fprintf(t->out, "%s%.1f decisions a sample\n", json_object_size(states) ? ", " : ": ",
                kept_view_number(c, "decisions"));
    }
}

static kept_status print_task(const json_t *result, int task, FILE *out, const kept_view_options *o)
{
    table t = {.result = result, .out = out, .o = o};
    char resolution[400];
    t.task = json_array_get(json_object_get(result, "tasks"), (size_t)task);
    t.generate = !strcmp(kept_view_text(t.task, "kind"), "generate");
    t.columns = kept_view_columns(t.generate, &t.n_columns);
    if (!(t.rows = kept_view_rows(result, task, &t.n_rows)))
        return KEPT_NOMEM;
    double n = t.n_rows ? kept_view_number(t.rows[0].cell, "n") : 0;
    print_conditions(&t, n);
    if (n > 0) {
        lay_out(&t);
        print_heads(&t);
        for (int i = 0; i < t.n_rows; i++)
            print_row(&t, &t.rows[i]);
        if (!t.generate)
            print_distances(&t);
        else
            print_turns(&t);
        fputs("  * no other row is both smaller and better.\n", out);
        print_floor(&t);
        kept_view_resolution(t.generate, (int)n, resolution, sizeof resolution);
        fprintf(out, "  %s\n", resolution);
        print_control(&t);
        print_failures(&t);
    } else {
        fputs("  no sample was finished\n", out);
    }
    free(t.rows);
    return KEPT_OK;
}

static void print_time(const json_t *result, FILE *out)
{
    static const char *const parts[][2] = {{"open_ns", "opening"},
                                           {"prefill_ns", "reading prompts"},
                                           {"fork_ns", "forking and evicting"},
                                           {"speed_ns", "timing"},
                                           {"answer_ns", "answers and comparison"}};
    const json_t *t = json_object_get(result, "times");
    double wall = kept_view_number(t, "wall_ns") / 1e9;
    if (!(wall >= 0))
        return;
    fprintf(out, "took %.1f s", wall);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        fprintf(out, "%s%s %.1f", i ? ", " : ": ", parts[i][1],
                kept_view_number(t, parts[i][0]) / 1e9);
    const double peak = kept_view_number(t, "process_peak_bytes");
    const double joules = kept_view_number(t, "energy_j");
    if (isfinite(peak))
        fprintf(out, "; process peak %.0f MiB", peak / 1048576);
    if (isfinite(joules))
        fprintf(out, "; %.0f J of processor packages, idle included", joules);
    else
        fprintf(out, "; energy n/a");
    fputs("\n", out);
}

kept_status kept_report_table(const json_t *result, FILE *out, const kept_view_options *o)
{
    const json_t *tasks = json_object_get(result, "tasks"), *task;
    bool seen[2] = {false, false};
    size_t i;
    print_run(result, out);
    json_array_foreach(tasks, i, task)
    {
        kept_status s = print_task(result, (int)i, out, o);
        if (s)
            return s;
        seen[!strcmp(kept_view_text(task, "kind"), "generate")] = true;
    }
    if (seen[0] || seen[1])
        fputs("\n", out);
    kept_view_legend(out, json_object_get(result, "cells"), seen[1], seen[0]);
    print_time(result, out);
    if (kept_view_true(result, "partial"))
        fprintf(out, "\nPARTIAL RESULT: the run was stopped after %zu samples.\n",
                json_array_size(json_object_get(result, "samples")));
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
