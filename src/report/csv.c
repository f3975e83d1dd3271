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
    "kv_bits",
    "peak_bytes",
    "byte_steps",
    "held_pct",
    "kv_pct",
    "peak_pct",
    "byte_steps_pct",
    "read_bytes",
    "read_pct",
    "parked_bytes",
    "parked_pct",
    "park_ns",
    "resume_ns",
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
    "roofline_share",
    "predicted_speed_up",
};
/* Figures inside a member; the column is called "member.figure". */
static const char *const nested[][2] = {
    {"kl_stats", "ln_ratio"},
    {"kl_stats", "ln_ratio_se"},
    {"kl_stats", "kl_mean"},
    {"kl_stats", "kl_se"},
    {"kl_stats", "kl_median"},
    {"kl_stats", "kl_p99"},
    {"kl_stats", "kl_max"},
    {"kl_stats", "dp_rms"},
    {"kl_stats", "same_top"},
    {"key_tokens", "n"},
    {"key_tokens", "nll"},
    {"key_tokens", "full_nll"},
    {"trajectory", "identical"},
    {"trajectory", "prefix_match"},
    {"trajectory", "first_divergence"},
    {"trajectory", "length_ratio"},
    {"trajectory", "longer"},
    {"trajectory", "shorter"},
    {"trajectory", "cut"},
    {"itl_gap", "mean_ns"},
    {"itl_gap", "p50_ns"},
    {"itl_gap", "p90_ns"},
    {"itl_gap", "p99_ns"},
    {"itl_gap", "max_ns"},
};
enum { N_NESTED = sizeof nested / sizeof *nested };
/* Lists: the column has "key:value" between semicolons. */
static const char *const lists[][3] = {{"by_turn", "turn", "score"},
                                       {"by_again", "to", "score"},
                                       {"by_distance", "to", "nll"},
                                       {"by_position", "to", "nll"}};
enum { N_LISTS = sizeof lists / sizeof *lists };

enum { N_FIGURES = sizeof figures / sizeof *figures };

void kept_view_csv(FILE *out, const char *s)
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

static void print_figure(FILE *out, double x)
{
    if (x == x)
        fprintf(out, ",%.15g", x);
    else
        fputc(',', out);
}

/* The last range of a list has no end: "inf". */
static void print_list(FILE *out, const json_t *cell, const char *const list[3])
{
    const json_t *x;
    size_t i;
    fputc(',', out);
    json_array_foreach(json_object_get(cell, list[0]), i, x)
    {
        const double key = kept_view_number(x, list[1]), value = kept_view_number(x, list[2]);
        fputs(i ? ";" : "", out);
        if (key == key)
            fprintf(out, "%.0f:", key);
        else
            fputs("inf:", out);
        if (value == value)
            fprintf(out, "%.15g", value);
    }
}

kept_status kept_report_csv(const json_t *result, FILE *out)
{
    const json_t *tasks = json_object_get(result, "tasks"), *c;
    const json_t *variants = json_object_get(result, "variants");
    size_t i;
    fputs("task,length,query_aware,strategy,resolved,front", out);
    for (int k = 0; k < N_FIGURES; k++)
        fprintf(out, ",%s", figures[k]);
    for (int k = 0; k < N_NESTED; k++)
        fprintf(out, ",%s.%s", nested[k][0], nested[k][1]);
    for (int k = 0; k < N_LISTS; k++)
        fprintf(out, ",%s.%s", lists[k][0], lists[k][2]);
    fputc('\n', out);
    json_array_foreach(json_object_get(result, "cells"), i, c)
    {
        const json_t *task = kept_view_at(tasks, kept_view_number(c, "task"));
        const json_t *v = kept_view_at(variants, kept_view_number(c, "variant"));
        kept_view_csv(out, kept_view_text(task, "label"));
        fprintf(out, ",%.0f,%d,", kept_view_number(task, "length"),
                kept_view_true(task, "query_aware"));
        kept_view_csv(out, kept_view_text(v, "name"));
        fputc(',', out);
        kept_view_csv(out, kept_view_text(v, "resolved"));
        fprintf(out, ",%d", kept_view_true(c, "front"));
        for (int k = 0; k < N_FIGURES; k++)
            print_figure(out, kept_view_number(c, figures[k]));
        for (int k = 0; k < N_NESTED; k++)
            print_figure(out, kept_view_number(json_object_get(c, nested[k][0]), nested[k][1]));
        for (int k = 0; k < N_LISTS; k++)
            print_list(out, c, lists[k]);
        fputc('\n', out);
    }
    return ferror(out) ? KEPT_IO : KEPT_OK;
}
