/* html_plots: the figures. A figure without data says which command would give it some. */
#include "report/html.h"

#include <math.h>
#include <string.h>

static bool any_cell(const kept_html *p, const char *key)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(p->result, "cells"), i, c)
    {
        const json_t *x = json_object_get(c, key);
        if (kept_view_number(c, "variant") >= 2 &&
            (json_is_number(x) || json_array_size(x) > 0 || json_object_size(x) > 0))
            return true;
    }
    return false;
}

static bool has_cells(const kept_html *p)
{
    return any_cell(p, "change");
}

static bool has_speed(const kept_html *p)
{
    return any_cell(p, "speed_ratio");
}

static bool has_turns(const kept_html *p)
{
    return any_cell(p, "by_turn");
}

static bool has_distance(const kept_html *p)
{
    return any_cell(p, "by_distance");
}

static bool has_times(const kept_html *p)
{
    return any_cell(p, "prefill_ns");
}

static bool has_depths(const kept_html *p)
{
    const json_t *s;
    size_t i;
    json_array_foreach(json_object_get(p->result, "samples"), i, s)
    {
        if (json_is_number(json_object_get(s, "depth")))
            return true;
    }
    return false;
}

/* Two budgets of one strategy. */
static bool has_ladders(const kept_html *p)
{
    const json_t *variants = json_object_get(p->result, "variants");
    for (int v = 2; v < p->n_variants; v++)
        for (int w = v + 1; w < p->n_variants; w++)
            if (kept_html_same_stem(kept_view_at(variants, v), kept_view_at(variants, w)))
                return true;
    return false;
}

static bool has_maps(const kept_html *p)
{
    return json_array_size(json_object_get(p->prompts, "maps")) > 0;
}

static const struct figure {
    kept_html_figure is;
    bool (*has)(const kept_html *p);
} figures[] = {
    {{"held", "Quality against memory held",
      "Change against the full cache on the same prompts, with 95 % intervals. The line joins rows "
      "that nothing beats in both; dashed: the margin.",
      "--strategy snapkv,h2o --budget 50%,20%", "third"},
     has_cells},
    {{"peak", "Quality against peak memory",
      "The most bytes ever held. A strategy that evicts once the prompt is read has held all of "
      "it.",
      "--strategy snapkv,h2o --budget 50%,20%", "third"},
     has_cells},
    {{"speed", "Quality against decoding speed",
      "Decoding one sequence alone, relative to the full cache timed beside it.",
      "--speed-samples 1", "third"},
     has_speed},
    {{"budget", "What each budget costs",
      "Every strategy from its largest to its smallest budget, with 95 % intervals. A cross marks "
      "the cliff: the largest budget that is told to be worse than the full cache.",
      "--budget 50%,30%,20%,10%", "wide"},
     has_ladders},
    {{"depth", "Where in the prompt the answer stood",
      "Mean score by the depth of the evidence (0 % is the start of the prompt) and prompt length.",
      "--task niah_single --length 2048 --samples 10", "wide"},
     has_depths},
    {{"turn", "Turn by turn",
      "Mean score of the first, second, ... question about one compressed context.",
      "--task facts_sequential", "third"},
     has_turns},
    {{"again", "Asked again",
      "Mean score by how many turns ago the same was asked (new: never before).",
      "--task facts_requery", "third"},
     has_turns},
    {{"distance", "Drift after the eviction",
      "KL divergence from the full cache by tokens after the eviction; lower is closer.",
      "--text FILE --score-tokens 256", "third"},
     has_distance},
    {{"time", "Where the time goes",
      "Reading the prompt (one reading is shared by all rows that do not evict while reading, and "
      "has the same time in each), choosing and moving at the eviction, and decoding.",
      "--speed-samples 1", "wide"},
     has_times},
    {{"map", "What each head kept",
      "One prompt, from its first token to its last; a line per layer and KV head. Marks at the "
      "top "
      "are the evidence.",
      "(a study; results have no kept positions)", "wide"},
     has_maps},
};

void kept_html_write_figure(const kept_html_figure *f, bool has_data, const char *text, FILE *out)
{
    fprintf(out, "<figure id=\"fig-%s\" class=\"%s\">\n<h3>%s</h3>\n", f->id, f->size, f->title);
    if (has_data)
        fprintf(out,
                "<div class=\"plot\" data-plot=\"%s\" role=\"group\" aria-label=\"%s\"></div>\n"
                "<figcaption>%s</figcaption>\n",
                f->id, f->title, f->caption);
    else
        fprintf(out,
                "<p class=\"none\">No data. This gives it some: <code>kept run --study FILE ... "
                "%s</code></p>\n",
                f->needs);
    if (has_data && text) {
        fputs("<details><summary>As text</summary><pre>", out);
        kept_html_text(out, text);
        fputs("</pre></details>\n", out);
    }
    fputs("</figure>\n", out);
}

void kept_html_write_plots(const kept_html *p, FILE *out)
{
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        kept_html_write_figure(&figures[i].is, figures[i].has(p), NULL, out);
}

void kept_html_write_flips(const kept_html *p, FILE *out)
{
    const json_t *r;
    size_t i, n = 0;
    json_array_foreach(json_object_get(p->comparison, "rows"), i, r) n +=
        json_array_size(json_object_get(r, "flips"));
    if (!n)
        fputs("<p class=\"none\">No answer changed its score against the full cache.</p>\n", out);
    else
        fprintf(
            out,
            "<p>%zu answers scored otherwise than the full cache's. Choose one to see its prompt "
            "and what was kept of it.</p>\n<div id=\"flips\"></div>\n",
            n);
    const char *why = kept_view_text(p->prompts, "note");
    if (n && *why) {
        fputs("<p class=\"none\">", out);
        kept_html_text(out, why);
        fputs("</p>\n", out);
    }
}
