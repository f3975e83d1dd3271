/* pressure_view: many sequences under one cap (bench/pressure.h), as text and as CSV. */
#include "report/view.h"

#include <math.h>
#include <string.h>

#define MIB (1024.0 * 1024)

static const char *row_name(const json_t *doc, const json_t *cell)
{
    const double v = kept_view_number(cell, "variant");
    return v < 0 ? "full, alone with room"
                 : kept_view_text(kept_view_at(json_object_get(doc, "variants"), v), "name");
}

static void print_cell(const json_t *doc, const json_t *c, FILE *out)
{
    const double n = kept_view_number(c, "n"), p = kept_view_number(c, "p");
    const double change = 100 * kept_view_number(c, "change");
    char lost[16] = "-", mark[24] = "";
    if (kept_view_number(c, "tokens_lost") > 0)
        snprintf(lost, sizeof lost, "%.1f%%",
                 100 * kept_view_number(c, "tokens_lost") / kept_view_number(c, "tokens"));
    if (kept_view_number(c, "variant") >= 0)
        snprintf(mark, sizeof mark, "%+.1f%s", change, p < 0.05 ? "!" : "");
    fprintf(out, "  %4.0f  %-30.60s %4.0f/%-4.0f %4.0f %4.0f %6s  %5.1f %3.0f-%-3.0f %8s",
            kept_view_number(c, "sequences"), row_name(doc, c), kept_view_number(c, "served"), n,
            kept_view_number(c, "refused") + kept_view_number(c, "failed"),
            kept_view_number(c, "dropped"), lost, 100 * kept_view_number(c, "score"),
            100 * kept_view_number(c, "score_low"), 100 * kept_view_number(c, "score_high"), mark);
    if (isfinite(kept_view_number(c, "held_bytes")))
        fprintf(out, " %7.2f", kept_view_number(c, "held_bytes") / MIB);
    else
        fprintf(out, " %7s", "-");
    fprintf(out, " %7.2f", kept_view_number(c, "peak_bytes") / MIB);
    if (isfinite(kept_view_number(c, "tokens_per_s")))
        fprintf(out, " %6.1f\n", kept_view_number(c, "tokens_per_s"));
    else
        fprintf(out, " %6s\n", "-");
}

kept_status kept_report_pressure(const json_t *doc, FILE *out)
{
    const json_t *task, *c;
    size_t t, i;
    fprintf(out, "model  %s\ncap    %.2f MiB of pages for all sequences together\n",
            kept_view_text(json_object_get(doc, "model"), "name"),
            kept_view_number(doc, "cap_bytes") / MIB);
    json_array_foreach(json_object_get(doc, "tasks"), t, task)
    {
        double last = NAN;
        fprintf(out, "\n%s, %.0f tokens\n", kept_view_text(task, "label"),
                kept_view_number(task, "length"));
        fprintf(out, "  %4s  %-30s %9s %4s %4s %6s  %5s %7s %8s %7s %7s %6s\n", "seqs", "strategy",
                "served   ", "ref.", "drop", "lost", "score", "95%", "vs alone", "held", "peak",
                "tok/s");
        json_array_foreach(json_object_get(doc, "cells"), i, c)
        {
            if (kept_view_number(c, "task") != (double)t)
                continue;
            if (isfinite(last) && last != kept_view_number(c, "sequences"))
                fputc('\n', out);
            last = kept_view_number(c, "sequences");
            print_cell(doc, c, out);
        }
    }
    fputs("\nref., drop: prompts that found no room when they came; answers broken off, the "
          "youngest first. Both score 0\n"
          "lost: tokens of prompts, questions and answers that were not served; vs alone: points "
          "against the full\ncache with room for each prompt, the same prompts, ! p < 0.05 per "
          "row. held: MiB of a sequence after its\nprompt; peak: of the pages of all. 95% speaks "
          "of prompts: who fits follows from sizes and order, not chance\n",
          out);
    return ferror(out) ? KEPT_IO : KEPT_OK;
}

kept_status kept_report_pressure_csv(const json_t *doc, FILE *out)
{
    static const char *const keys[] = {
        "sequences",    "n",          "groups",      "served",      "refused",   "dropped",
        "failed",       "tokens",     "tokens_lost", "score",       "score_low", "score_high",
        "served_score", "change",     "change_low",  "change_high", "p",         "held_bytes",
        "n_evicted",    "peak_bytes", "tokens_per_s"};
    const json_t *c;
    size_t i;
    fputs("task,row,cap_bytes", out);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        fprintf(out, ",%s", keys[k]);
    fputc('\n', out);
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        const json_t *task =
            kept_view_at(json_object_get(doc, "tasks"), kept_view_number(c, "task"));
        kept_view_csv(out, kept_view_text(task, "label"));
        fputc(',', out);
        kept_view_csv(out, row_name(doc, c));
        fprintf(out, ",%.0f", kept_view_number(doc, "cap_bytes"));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const double x = kept_view_number(c, keys[k]);
            if (isfinite(x))
                fprintf(out, ",%.10g", x);
            else
                fputc(',', out);
        }
        fputc('\n', out);
    }
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
