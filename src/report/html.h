/* html: what the files that make the page of `kept report` share. Private.
 *
 *   page.c          the page's own files, compiled in
 *   html.c          the skeleton with its parts filled in
 *   html_verdict.c  what the comparison says, in words
 *   html_table.c    tables of rows, and what can be filtered
 *   html_command.c  the commands of the study
 *   html_plots.c    the figures, and which command gives what a figure lacks
 *   html_robust.c   the figures of robustness, where there is something to compare
 *   html_data.c     what plots and downloads are made of, as JSON in the page
 *   html_prompts.c  from the study: prompts as text, and which tokens of them were kept
 *
 * Everything that comes from a result goes through kept_html_text or kept_html_json: text of a
 * strategy or of a prompt never becomes markup or script. */
#ifndef REPORT_HTML_H
#define REPORT_HTML_H

#include "bench/run.h"
#include "report/view.h"

typedef enum kept_page_file {
    KEPT_PAGE_HTML,
    KEPT_PAGE_CSS,
    KEPT_PAGE_SCRIPT,
    KEPT_PAGE_CHARTS,
    KEPT_PAGE_NOTICES,
    KEPT_PAGE_PLOTS
} kept_page_file;
const char *kept_page_part(kept_page_file part, size_t *n);

/* A page (report.h) and where its cells and the comparison's rows are. */
typedef struct kept_html {
    const json_t *result, *comparison, *prompts, *robust;
    const char *source;
    int n_tasks, n_variants;
    const json_t **cell; /* [n_tasks][n_variants], NULL: none */
    const json_t **row;  /* the same of the comparison */
} kept_html;

/* Cell or row of the comparison of a task and a variant, NULL: none. */
const json_t *kept_html_cell(const kept_html *p, double task, double variant);
const json_t *kept_html_verdict(const kept_html *p, double task, double variant);

/* Text as HTML, also inside of quoted attributes. */
void kept_html_text(FILE *out, const char *s);
/* JSON that is safe inside of a script element. NOMEM. */
kept_status kept_html_json(FILE *out, const json_t *x, int digits);

/* The strategy of a variant as the user wrote it, without its budget, and the budget. Borrowed. */
typedef struct kept_spec_parts {
    const char *stem, *budget;
    int stem_len; /* bytes of stem; budget is "" for none */
} kept_spec_parts;
kept_spec_parts kept_html_spec(const json_t *variant);
bool kept_html_same_stem(const json_t *a, const json_t *b);

void kept_html_write_verdict(const kept_html *p, FILE *out);
void kept_html_write_facts(const kept_html *p, FILE *out);
kept_status kept_html_write_tables(const kept_html *p, FILE *out);
void kept_html_write_filters(const kept_html *p, FILE *out);
void kept_html_write_command(const kept_html *p, FILE *out);
typedef struct kept_html_figure {
    const char *id, *title, *caption;
    const char *needs; /* options of kept run that give it data */
    const char *size;  /* class: a third of the width, half, all of it */
} kept_html_figure;
/* Its element; text (NULL: none) is unfolded below it. */
void kept_html_write_figure(const kept_html_figure *f, bool has_data, const char *text, FILE *out);
void kept_html_write_plots(const kept_html *p, FILE *out);
/* The section and the link to it: nothing where no view of robustness has data. */
void kept_html_write_robust(const kept_html *p, FILE *out);
void kept_html_write_robust_link(const kept_html *p, FILE *out);
/* What its figures are drawn from. A new reference. */
json_t *kept_html_robust(const kept_html *p);
void kept_html_write_flips(const kept_html *p, FILE *out);
/* All JSON of the page. NOMEM. */
kept_status kept_html_write_data(const kept_html *p, FILE *out);
/* Mean scores by depth of the evidence as columns; ladders of budgets and where each falls off. */
json_t *kept_html_depths(const json_t *result);
json_t *kept_html_ladders(const kept_html *p);

#endif
