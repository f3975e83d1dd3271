/* compare_view: a comparison as text: verdicts first, then the samples that flipped. */
#include "report/view.h"

#include <math.h>
#include <string.h>

#define ANSWER 48 /* bytes of an answer shown */

/* One line of a text that may hold anything: control bytes as spaces, cut at a character. */
static void short_text(const char *text, char *out, size_t cap)
{
    size_t n = 0;
    while (*text == ' ' || *text == '\n')
        text++;
    for (; text[n] && n + 4 < cap; n++)
        out[n] = (unsigned char)text[n] < 0x20 || text[n] == 0x7f ? ' ' : text[n];
    if (text[n]) {
        while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
            n--;
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n] = '\0';
}

static void write_value(char *buf, size_t cap, double x, bool generate, bool sign)
{
    if (!isfinite(x))
        snprintf(buf, cap, "n/a");
    else if (generate)
        snprintf(buf, cap, sign ? "%+.1f" : "%.1f", 100 * x);
    else
        snprintf(buf, cap, sign ? "%+.4f" : "%.4f", x);
}

static void print_row(const json_t *r, FILE *out)
{
    const bool generate = strcmp(kept_view_text(r, "kind"), "score") != 0;
    char before[24], after[24], change[24], low[24], high[24], more[40] = "";
    write_value(before, sizeof before, kept_view_number(r, "before_value"), generate, false);
    write_value(after, sizeof after, kept_view_number(r, "after_value"), generate, false);
    write_value(change, sizeof change, kept_view_number(r, "change"), generate, true);
    write_value(low, sizeof low, kept_view_number(r, "bound_low"), generate, true);
    write_value(high, sizeof high, kept_view_number(r, "bound_high"), generate, true);
    const bool open = !strcmp(kept_view_text(r, "verdict"), "inconclusive");
    const double need = kept_view_number(r, "more");
    if (open && isfinite(need) && need < 1e7)
        snprintf(more, sizeof more, "  about %.0f more samples", need);
    else if (open)
        snprintf(more, sizeof more, "  no number of samples helps");
    fprintf(out, "  %-13s %-28.60s %5.0f %8s %8s %8s  %8s ..%8s  %3.0f/%.0f%s\n",
            kept_view_text(r, "verdict"), kept_view_text(r, "after"), kept_view_number(r, "n"),
            before, after, change, low, high, kept_view_number(r, "regressions"),
            kept_view_number(r, "improvements"), more);
}

static void print_flip(const json_t *f, FILE *out)
{
    char a[ANSWER], b[ANSWER], want[ANSWER];
    const json_t *before = json_object_get(f, "before"), *after = json_object_get(f, "after");
    const json_t *answer = json_array_get(json_object_get(f, "answers"), 0);
    const double change = kept_view_number(after, "value") - kept_view_number(before, "value");
    short_text(kept_view_text(before, "text"), a, sizeof a);
    short_text(kept_view_true(after, "failed") ? "(failed)" : kept_view_text(after, "text"), b,
               sizeof b);
    short_text(json_is_string(answer) ? json_string_value(answer) : "", want, sizeof want);
    fprintf(out, "    sample %-4.0f %s  \"%s\" -> \"%s\", wanted \"%s\"\n",
            kept_view_number(f, "index"), change < 0 ? "lost  " : "gained", a, b, want);
}

static void print_flips(const json_t *rows, FILE *out, int most)
{
    const json_t *r, *f;
    size_t i, k;
    json_array_foreach(rows, i, r)
    {
        const size_t n = json_array_size(json_object_get(r, "flips"));
        if (!n || most < 1)
            continue;
        fprintf(out, "\n  flips of %s on %s\n", kept_view_text(r, "after"),
                kept_view_text(r, "task"));
        json_array_foreach(json_object_get(r, "flips"), k, f) if (k < (size_t)most)
            print_flip(f, out);
        if (n > (size_t)most)
            fprintf(out, "    and %zu more (--flips N, --format json)\n", n - (size_t)most);
    }
}

static void print_notes(const json_t *notes, FILE *out)
{
    const json_t *note;
    size_t i;
    json_array_foreach(notes, i, note) fprintf(out, "note     %s\n", json_string_value(note));
}

/* What is compared, and how. */
static void print_head(const json_t *comparison, FILE *out)
{
    const json_t *rows = json_object_get(comparison, "rows"), *r;
    size_t i;
    fprintf(out, "before   %s\n", kept_view_text(comparison, "before"));
    json_array_foreach(json_object_get(comparison, "results"), i, r)
    {
        fprintf(out, "after    %s\n", kept_view_text(r, "after"));
        print_notes(json_object_get(r, "notes"), out);
    }
    if (!i)
        fprintf(out, "after    %s\n", kept_view_text(comparison, "after"));
    print_notes(json_object_get(comparison, "notes"), out);
    fprintf(out, "margin   %.4g pt of score, %.4g nats of NLL; bounds are one-sided %.4g%%",
            100 * kept_view_number(comparison, "margin"),
            kept_view_number(comparison, "nll_margin"),
            100 * kept_view_number(comparison, "level"));
    if (json_array_size(rows) > 1)
        fprintf(out, "; %zu verdicts, corrected by Holm%s", json_array_size(rows),
                kept_view_true(comparison, "ladder") ? " over ladders of budgets" : "");
    if (json_array_size(rows) > 1)
        fprintf(out, "\n         more samples: what a verdict takes as one of these, not alone");
    fputc('\n', out);
}

static void print_tau(const json_t *of, const char *name, FILE *out)
{
    const double tau = kept_view_number(of, "kendall_tau");
    if (isfinite(tau))
        fprintf(out, "\nranking  Kendall's tau %.2f between the two results%s%s\n", tau,
                *name ? ": " : "", name);
}

kept_status kept_report_compare(const json_t *comparison, FILE *out, int n_flips)
{
    const json_t *rows = json_object_get(comparison, "rows"), *r;
    const json_t *results = json_object_get(comparison, "results");
    const char *task = "", *file = "";
    size_t i;
    print_head(comparison, out);
    json_array_foreach(rows, i, r)
    {
        const bool same = !strcmp(kept_view_text(r, "before"), kept_view_text(r, "after"));
        const double k = kept_view_number(r, "result");
        const char *of = k >= 0 ? kept_view_text(json_array_get(results, (size_t)k), "after") : "";
        if (strcmp(task, kept_view_text(r, "task")) || strcmp(file, of))
            fprintf(out, "\n%s%s%s, against %s\n  %-13s %-28s %5s %8s %8s %8s  %8s ..%8s  %5s\n",
                    of, *of ? ": " : "", kept_view_text(r, "task"),
                    same ? "the same row" : kept_view_text(r, "before"), "verdict", "row", "n",
                    "before", "after", "change", "lower", "upper", "-/+");
        task = kept_view_text(r, "task");
        file = of;
        print_row(r, out);
    }
    print_flips(rows, out, n_flips);
    print_tau(comparison, "", out);
    json_array_foreach(results, i, r) print_tau(r, kept_view_text(r, "after"), out);
    fprintf(out, "\nverdict  %s\n", kept_view_text(comparison, "verdict"));
    return ferror(out) ? KEPT_IO : KEPT_OK;
}

kept_status kept_report_guarantees(const json_t *list, FILE *out, double epsilon, double delta)
{
    const json_t *ladder, *s;
    size_t i, k;
    fprintf(out,
            "Mean loss at most %.4g points with probability %.4g%%, for prompts drawn as these "
            "were and no others;\neach strategy's statement stands alone.\n",
            100 * epsilon, 100 * (1 - delta));
    json_array_foreach(list, i, ladder)
    {
        const char *best = json_string_value(json_object_get(ladder, "best"));
        fprintf(out, "\n%s on %s: %s\n", kept_view_text(ladder, "strategy"),
                kept_view_text(ladder, "task"), best ? best : "none of these budgets");
        json_array_foreach(json_object_get(ladder, "steps"), k, s) fprintf(
            out, "  %-8s %-28s %5.1f%% held  n %4.0f  loss %5.1f  at most %5.1f\n",
            kept_view_true(s, "accepted") ? "holds" : "not shown", kept_view_text(s, "name"),
            kept_view_number(s, "held_pct"), kept_view_number(s, "n"),
            100 * kept_view_number(s, "loss"), 100 * kept_view_number(s, "bound"));
    }
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
