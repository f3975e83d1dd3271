/* advise_view: advice as text: what to take, why, what would change it, what is not known. */
#include "report/view.h"

#include <math.h>
#include <string.h>

static const char *size_text(double bytes, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; u < 4 && bytes >= 1024; u++)
        bytes /= 1024;
    if (isfinite(bytes))
        snprintf(buf, 32, u ? "%.*f %s" : "%.*f %s",
                 bytes < 9.995   ? 2
                 : bytes < 99.95 ? 1
                                 : 0,
                 bytes, units[u]);
    else
        snprintf(buf, 32, "n/a");
    return buf;
}

static const char *time_text(double ms, char buf[32])
{
    if (isfinite(ms))
        snprintf(buf, 32, ms < 99.95 ? "%.1f ms" : "%.0f ms", ms);
    else
        snprintf(buf, 32, "n/a");
    return buf;
}

static void print_asked(const json_t *advice, FILE *out)
{
    const json_t *asked = json_object_get(advice, "asked"), *t;
    char buf[32];
    size_t i;
    fprintf(out, "study    %s\nmodel    %s\n", kept_view_text(advice, "study"),
            kept_view_text(json_object_get(advice, "model"), "name"));
    json_array_foreach(json_object_get(asked, "tasks"), i, t) fprintf(
        out, "%s %s, %.0f tokens, weight %.4g\n", i ? "        " : "tasks   ",
        kept_view_text(t, "label"), kept_view_number(t, "length"), kept_view_number(t, "weight"));
    const double relative = kept_view_number(asked, "relative");
    if (kept_view_true(asked, "zero"))
        fprintf(out, "asked    not one sample worse, enough of them to bound that at 0.1%%");
    else if (relative > 0)
        fprintf(out, "asked    %.4g%% of what the full cache scores", 100 * (1 - relative));
    else
        fprintf(out, "asked    at most %.4g pt less score",
                100 * kept_view_number(asked, "margin"));
    fprintf(out, ", %.4g nats more NLL, on every task; one-sided %.4g%%\n",
            kept_view_number(asked, "nll_margin"), 100 * kept_view_number(asked, "level"));
    fprintf(out, "         %.0f sequence%s of %.0f tokens", kept_view_number(asked, "batch"),
            kept_view_number(asked, "batch") == 1 ? "" : "s", kept_view_number(asked, "context"));
    if (kept_view_number(asked, "memory") > 0) {
        fprintf(out, " in %s", size_text(kept_view_number(asked, "memory"), buf));
        fprintf(out, ", %s of it weights", size_text(kept_view_number(asked, "weights"), buf));
    }
    if (kept_view_number(asked, "tpot_ms") > 0)
        fprintf(out, "; at most %s a token", time_text(kept_view_number(asked, "tpot_ms"), buf));
    if (kept_view_number(asked, "ttft_ms") > 0)
        fprintf(out, "; %s to the first", time_text(kept_view_number(asked, "ttft_ms"), buf));
    if (kept_view_number(asked, "length_ratio") > 0)
        fprintf(out, "; answers at most %.0f%% as long",
                100 * kept_view_number(asked, "length_ratio"));
    fprintf(out, "; of what holds: %s first\n", kept_view_text(asked, "prefer"));
    json_array_foreach(json_object_get(asked, "not_judged"), i, t)
        fprintf(out, "         not judged: %s (see %s)\n", kept_view_text(t, "clause"),
                kept_view_text(t, "judged_by"));
}

static void print_reasons(const json_t *advice, const json_t *row, FILE *out)
{
    const json_t *asked = json_object_get(advice, "asked");
    char a[32], b[32];
    const double loss = kept_view_number(row, "loss"), n = kept_view_number(row, "sequences");
    if (kept_view_number(row, "variant") == 0)
        fprintf(out, "  quality  the reference itself: nothing is lost\n");
    else
        fprintf(out, "  quality  non-inferior on every task; at worst %.2f of the margin is used\n",
                loss > 0 ? loss : 0);
    fprintf(out, "  memory   %s held, %s at the peak (planned at this context)",
            size_text(kept_view_number(row, "bytes"), a),
            size_text(kept_view_number(row, "peak_bytes"), b));
    if (isfinite(n))
        fprintf(out, "; %.0f such sequence%s fit", n, n == 1 ? "" : "s");
    fprintf(
        out, "\n  time     %s a token, %s to the first token, alone, at up to %.0f tokens, %s\n",
        time_text(kept_view_number(row, "tpot_ms"), a),
        time_text(kept_view_number(row, "ttft_ms"), b), kept_view_number(advice, "measured_length"),
        kept_view_text(json_object_get(advice, "machine"), "cpu"));
    if (kept_view_number(asked, "context") > kept_view_number(advice, "measured_length"))
        fprintf(out, "  note     quality and time were measured at %.0f tokens, not at %.0f\n",
                kept_view_number(advice, "measured_length"), kept_view_number(asked, "context"));
}

static void print_pick(const json_t *advice, FILE *out)
{
    const json_t *pick = json_object_get(advice, "pick");
    const json_t *second = json_object_get(advice, "runner_up");
    const char *verdict = kept_view_text(advice, "verdict");
    if (!strcmp(verdict, "thin"))
        fprintf(out, "\nadvice   none yet: the evidence is thin.%s%s%s\n",
                json_is_object(pick) ? " Until then " : "", kept_view_text(pick, "name"),
                json_is_object(pick) ? " is all that holds." : "");
    else if (!strcmp(verdict, "none"))
        fprintf(out, "\nadvice   none: no row of this study holds what is asked\n");
    else
        fprintf(out, "\nadvice   %s\n", kept_view_text(pick, "name"));
    if (json_is_object(pick))
        print_reasons(advice, pick, out);
    if (!json_is_object(second))
        return;
    fprintf(out, "runner-up %s\n", kept_view_text(second, "name"));
    print_reasons(advice, second, out);
}

static void print_changes(const json_t *advice, FILE *out)
{
    const json_t *changes = json_object_get(advice, "changes"), *c;
    size_t i;
    if (json_array_size(changes))
        fprintf(out, "\nwhat would change it\n");
    json_array_foreach(changes, i, c)
    {
        const char *pick = json_string_value(json_object_get(c, "pick"));
        fprintf(out, "  with %-28s %s\n", kept_view_text(c, "if"), pick ? pick : "nothing holds");
    }
}

static void print_todo(const json_t *advice, FILE *out)
{
    const json_t *todo = json_object_get(advice, "todo"), *t;
    size_t i;
    if (json_array_size(todo))
        fprintf(out, "\nto run\n");
    json_array_foreach(todo, i, t)
    {
        const char *command = kept_view_text(t, "command");
        fprintf(out, *command ? "  %s:\n    %s\n" : "  %s%s\n", kept_view_text(t, "why"), command);
    }
}

static void print_rows(const json_t *advice, FILE *out)
{
    const json_t *r;
    char a[32], b[32];
    size_t i;
    fprintf(out, "\n  %-28s %-8s %-8s %-8s %10s %10s %10s\n", "row", "quality", "memory", "time",
            "peak", "a token", "at worst");
    json_array_foreach(json_object_get(advice, "rows"), i, r)
    {
        fprintf(out, "  %-28.60s %-8s %-8s %-8s %10s %10s %10.2f\n", kept_view_text(r, "name"),
                kept_view_text(r, "quality"), kept_view_text(r, "memory"),
                kept_view_text(r, "time"), size_text(kept_view_number(r, "peak_bytes"), a),
                time_text(kept_view_number(r, "tpot_ms"), b), kept_view_number(r, "loss"));
    }
    fprintf(out,
            "  quality: the verdicts of 'kept compare --ladder'; at worst: what a row may lose, in "
            "margins, mean over tasks\n");
}

kept_status kept_report_advice(const json_t *advice, FILE *out)
{
    print_asked(advice, out);
    print_pick(advice, out);
    print_changes(advice, out);
    print_todo(advice, out);
    print_rows(advice, out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
