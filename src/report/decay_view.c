/* decay_view: how scores hold over length, and where prompts are perturbed, as text. */
#include "report/view.h"

#include <math.h>
#include <string.h>

static void print_heads(const json_t *row, FILE *out)
{
    const json_t *p;
    size_t i;
    fprintf(out, "  %-32s", "score in % by tokens");
    json_array_foreach(json_object_get(row, "points"), i, p)
        fprintf(out, " %7.0f", kept_view_number(p, "length"));
    fprintf(out, "  %s\n", "per doubling, of full      effective");
}

static void print_row(const json_t *row, FILE *out)
{
    const json_t *p;
    size_t i;
    const double longest = kept_view_number(row, "effective_length");
    fprintf(out, "  %-32.60s", kept_view_text(row, "row"));
    json_array_foreach(json_object_get(row, "points"), i, p)
        fprintf(out, " %7.1f", 100 * kept_view_number(p, "score"));
    fprintf(out, "  %+6.1f (%+.1f..%+.1f)", 100 * kept_view_number(row, "slope"),
            100 * kept_view_number(row, "slope_low"), 100 * kept_view_number(row, "slope_high"));
    if (isfinite(longest))
        fprintf(out, "  %8.0f\n", longest);
    else
        fprintf(out, "  %8s\n", "none");
}

kept_status kept_report_decay(const json_t *list, FILE *out)
{
    const json_t *row;
    const char *task = "";
    size_t i;
    json_array_foreach(list, i, row)
    {
        if (strcmp(task, kept_view_text(row, "task"))) {
            fprintf(out, "%s%s\n", i ? "\n" : "", kept_view_text(row, "task"));
            print_heads(row, out);
        }
        task = kept_view_text(row, "task");
        print_row(row, out);
    }
    fputs(
        json_array_size(list)
            ? "\nper doubling: points of the share of full's score that a doubling of the length "
              "costs, 95%\neffective: the longest up to which at least 85% of full's score at the "
              "shortest is held\n"
            : "no answered task of this setting was run at two lengths\n",
        out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}

kept_status kept_report_drift(const json_t *list, FILE *out)
{
    const json_t *r;
    size_t i;
    if (json_array_size(list))
        fprintf(out, "%-24s %-14s %-28s %5s %6s %8s %8s %8s %18s\n", "task", "perturbed", "row",
                "n", "moved", "drift", "full's", "excess", "95%");
    json_array_foreach(list, i, r) fprintf(
        out, "%-24.40s %-14s %-28.60s %5.0f %6.0f %+8.1f %+8.1f %+8.1f %+8.1f ..%+8.1f\n",
        kept_view_text(r, "task"), kept_view_text(r, "perturb"), kept_view_text(r, "row"),
        kept_view_number(r, "n"), kept_view_number(r, "moved"), 100 * kept_view_number(r, "drift"),
        100 * kept_view_number(r, "full_drift"), 100 * kept_view_number(r, "excess"),
        100 * kept_view_number(r, "low"), 100 * kept_view_number(r, "high"));
    fputs(json_array_size(list)
              ? "\ndrift: points of score that the perturbation changes; excess: beyond what it "
                "changes in the full\ncache, sample by sample\n"
              : "no answered task of this setting was run plain and with --perturb\n",
          out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
