/* html_robust: the figures of robustness (bench/robust.h): on other models, in other precisions,
 * over length, with perturbed prompts. */
#include "report/html.h"

#include <stdlib.h>
#include <string.h>

#define MOST_BYTES 150000 /* of one view in a page of 3 MB */

static const struct view {
    kept_html_figure is;
    kept_status (*print)(const json_t *list, FILE *out);
} views[] = {
    {{"models", "On other models",
      "Rank of every strategy on each model of the study, by its change against that model's full "
      "cache; 1 is best. Lines that cross: what is best here is not there.",
      "--model ANOTHER", "wide"},
     kept_report_scale},
    {{"length", "As contexts grow",
      "Score by the length of the prompt. Dashed: 85 % of what the full cache scores at the "
      "shortest; a strategy's effective length is the longest at which it is still above.",
      "--length 4096", "wide"},
     kept_report_decay},
    {{"precision", "Eviction together with packing",
      "What both cost beyond the sum of what each costs, sample by sample, with 95 % intervals; at "
      "0 they do not touch each other, on the worse side they make each other worse.",
      "--strategy 'h2o,h2o+q4,full+q4' --budget 512", "half"},
     kept_report_precision},
    {{"perturb", "Prompts said or laid out otherwise",
      "What a perturbation of the prompts changes in a row beyond what it changes in the full "
      "cache, sample by sample, with 95 % intervals.",
      "--perturb typo", "half"},
     kept_report_drift},
};
enum { N_VIEWS = sizeof views / sizeof *views };

static bool has(const kept_html *p, int i)
{
    return json_array_size(json_object_get(p->robust, views[i].is.id)) > 0;
}

static bool has_any(const kept_html *p)
{
    for (int i = 0; i < N_VIEWS; i++)
        if (has(p, i))
            return true;
    return false;
}

/* What `kept study show FILE --columns` prints; malloc'ed, NULL: no memory for it. */
static char *text_of(const kept_html *p, int i)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = has(p, i) ? open_memstream(&text, &n) : NULL;
    if (!f)
        return NULL;
    (void)views[i].print(json_object_get(p->robust, views[i].is.id), f);
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

void kept_html_write_robust_link(const kept_html *p, FILE *out)
{
    if (has_any(p))
        fputs(" <a href=\"#robust\">Robustness</a>", out);
}

void kept_html_write_robust(const kept_html *p, FILE *out)
{
    if (!has_any(p))
        return;
    fputs("<section id=\"robust\">\n<h2>Robustness</h2>\n"
          "<p>Does what the rows say hold elsewhere?</p>\n<div class=\"figures\">\n",
          out);
    for (int i = 0; i < N_VIEWS; i++) {
        char *text = text_of(p, i);
        kept_html_write_figure(&views[i].is, has(p, i), text, out);
        free(text);
    }
    fputs("</div>\n</section>\n", out);
}

json_t *kept_html_robust(const kept_html *p)
{
    json_t *all = json_object();
    for (int i = 0; i < N_VIEWS; i++) {
        json_t *list = json_object_get(p->robust, views[i].is.id);
        const bool small =
            list && json_dumpb(list, NULL, 0, JSON_COMPACT | JSON_REAL_PRECISION(5)) <= MOST_BYTES;
        json_object_set_new(all, views[i].is.id, small ? json_incref(list) : json_array());
    }
    return all;
}
