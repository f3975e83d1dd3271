/* csv: one line per cell, full precision, every figure of the document's "cells" that is a number;
 * empty where not measured. RFC 4180 quoting. */
#include "report/view.h"

#include <string.h>

static const char *const figures[] = {
    "n",
    "failed",
    "held_bytes",
    "kv_bytes",
    "meta_bytes",
    "peak_bytes",
    "byte_steps",
    "held_pct",
    "kv_pct",
    "peak_pct",
    "byte_steps_pct",
    "read_bytes",
    "read_pct",
    "n_evicted",
    "score",
    "score_low",
    "score_high",
    "change",
    "change_low",
    "change_high",
    "bound_low",
    "bound_high",
    "p",
    "p_holm",
    "n_pairs",
    "n_clusters",
    "regressions",
    "improvements",
    "n_new",
    "diverged",
    "nll",
    "full_nll",
    "ppl",
    "full_ppl",
    "kl",
    "kl_max",
    "top1",
    "n_positions",
    "mass_recall",
    "mass_recall_core",
    "oracle_regret",
    "evidence_recall",
    "evidence_any",
    "prefill_ns",
    "score_ns",
    "compact_ns",
    "tokens_per_s",
    "full_tokens_per_s",
    "speed_ratio",
    "n_speed_steps",
};
enum { N_FIGURES = sizeof figures / sizeof *figures };

static void print_text(FILE *out, const char *s)
{
    if (!strpbrk(s, ",\"\r\n")) {
        fputs(s, out);
        return;
    }
    fputc('"', out);
    for (; *s; s++) {
        if (*s == '"')
            fputc('"', out);
        fputc(*s, out);
    }
    fputc('"', out);
}

kept_status kept_report_csv(const json_t *result, FILE *out)
{
    const json_t *tasks = json_object_get(result, "tasks"), *c;
    const json_t *variants = json_object_get(result, "variants");
    size_t i;
    fputs("task,length,query_aware,strategy,resolved,front", out);
    for (int k = 0; k < N_FIGURES; k++)
        fprintf(out, ",%s", figures[k]);
    fputc('\n', out);
    json_array_foreach(json_object_get(result, "cells"), i, c)
    {
        const json_t *task = kept_view_at(tasks, kept_view_number(c, "task"));
        const json_t *v = kept_view_at(variants, kept_view_number(c, "variant"));
        print_text(out, kept_view_text(task, "label"));
        fprintf(out, ",%.0f,%d,", kept_view_number(task, "length"),
                kept_view_true(task, "query_aware"));
        print_text(out, kept_view_text(v, "name"));
        fputc(',', out);
        print_text(out, kept_view_text(v, "resolved"));
        fprintf(out, ",%d", kept_view_true(c, "front"));
        for (int k = 0; k < N_FIGURES; k++) {
            double x = kept_view_number(c, figures[k]);
            if (x == x)
                fprintf(out, ",%.15g", x);
            else
                fputc(',', out);
        }
        fputc('\n', out);
    }
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
