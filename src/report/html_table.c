/* html_table: the tables of the terminal with their verdicts, what can be filtered, and the command
 * that makes the same study.
 */
#include "report/html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables --------------------------------------------------------------------------------- */

static void write_verdict(const kept_html *p, int task, const kept_row *r, FILE *out)
{
    const json_t *v = kept_html_verdict(p, task, r->variant);
    const char *text = kept_view_text(v, "verdict");
    const double more = kept_view_number(v, "more");
    if (!v)
        fputs("<td></td>", out);
    else if (!strcmp(text, "non-inferior"))
        fputs("<td class=\"good\">&#10003; as good</td>", out);
    else if (!strcmp(text, "worse"))
        fputs("<td class=\"bad\">&#10007; worse</td>", out);
    else if (isfinite(more) && more < 1e7)
        fprintf(out, "<td class=\"open\">? needs %.0f more</td>", more);
    else
        fputs("<td class=\"open\">? at the margin</td>", out);
}

static void write_row(const kept_html *p, int task, const kept_row *r, int n_columns, FILE *out)
{
    const json_t *variant =
        kept_view_at(json_object_get(p->result, "variants"), (double)r->variant);
    const kept_spec_parts spec = kept_html_spec(variant);
    fprintf(out, "<tr data-variant=\"%d\"%s>", r->variant,
            kept_view_true(r->cell, "front") ? " class=\"front\"" : "");
    fprintf(out, "<th scope=\"row\">%s",
            kept_view_true(r->cell, "front") ? "<span class=\"star\">*</span>" : "");
    kept_html_text(out, r->variant < 2 ? r->name : spec.stem_len ? r->name : "?");
    fputs("</th>", out);
    write_verdict(p, task, r, out);
    for (int k = 0; k < n_columns; k++) {
        fputs("<td>", out);
        kept_html_text(out, strcmp(r->text[k], "n/a") ? r->text[k] : "\xe2\x80\x93");
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

static void write_head(const kept_column *columns, int n, FILE *out)
{
    fputs("<thead><tr><th scope=\"col\">strategy</th><th scope=\"col\">verdict</th>", out);
    for (int k = 0; k < n; k++) {
        const char *a = columns[k].head[0], *b = columns[k].head[1];
        const size_t len = strlen(a);
        const bool joined = len && (a[len - 1] == '-' || !strcmp(b, "%"));
        fputs("<th scope=\"col\">", out);
        fprintf(out, "%.*s", (int)(len && a[len - 1] == '-' ? len - 1 : len), a);
        fputs(len && *b && !joined ? " " : "", out);
        kept_html_text(out, b);
        fputs("</th>", out);
    }
    fputs("</tr></thead>\n", out);
}

static void write_conditions(const json_t *task, double n, FILE *out)
{
    fputs("<h3>", out);
    kept_html_text(out, kept_view_text(task, "label"));
    fprintf(out, "</h3>\n<p>%.0f samples of %.0f tokens%s; %s.</p>\n", n,
            kept_view_number(task, "length"), kept_view_true(task, "chat") ? ", chat template" : "",
            !kept_view_generate(task) ? "the text goes on after the eviction, token by token"
            : kept_view_true(task, "query_aware")
                ? "<b>query-aware</b>: strategies saw the question before they evicted"
                : "the question arrives after the eviction");
}

static kept_status write_task(const kept_html *p, int t, const json_t *task, FILE *out)
{
    const bool generate = kept_view_generate(task);
    int n_columns, n = 0;
    const kept_column *columns = kept_view_columns(generate, &n_columns);
    kept_row *rows = kept_view_rows(p->result, t, &n);
    char text[400];
    if (!rows)
        return KEPT_NOMEM;
    const double samples = n ? kept_view_number(rows[0].cell, "n") : 0;
    fprintf(out, "<section class=\"rows\" data-task=\"%d\">\n", t);
    write_conditions(task, samples, out);
    if (samples > 0) {
        fputs("<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"rows\">"
              "<table>\n",
              out);
        write_head(columns, n_columns, out);
        fputs("<tbody>\n", out);
        for (int i = 0; i < n; i++)
            if (kept_view_number(rows[i].cell, "n") > 0)
                write_row(p, t, &rows[i], n_columns, out);
        fputs("</tbody></table></div>\n<p class=\"small\">* no other row is both smaller and "
              "better. ",
              out);
        kept_view_resolution(generate, (int)samples, text, sizeof text);
        kept_html_text(out, text);
        fputs("</p>\n", out);
    } else {
        fputs("<p class=\"none\">No sample of this task is finished.</p>\n", out);
    }
    fputs("</section>\n", out);
    free(rows);
    return KEPT_OK;
}

static kept_status write_legend(const json_t *tasks, FILE *out)
{
    bool seen[2] = {false, false};
    const json_t *task;
    char *text = NULL;
    size_t n, i;
    json_array_foreach(tasks, i, task) seen[kept_view_generate(task)] = true;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return KEPT_NOMEM;
    kept_view_legend(f, NULL, seen[1], seen[0]);
    const bool bad = fclose(f) != 0;
    if (!bad) {
        fputs("<details><summary>What the columns mean</summary><pre>", out);
        kept_html_text(out, text);
        fputs("</pre></details>\n", out);
    }
    free(text);
    return bad ? KEPT_NOMEM : KEPT_OK;
}

kept_status kept_html_write_tables(const kept_html *p, FILE *out)
{
    const json_t *tasks = json_object_get(p->result, "tasks"), *task;
    kept_status s = KEPT_OK;
    size_t t;
    json_array_foreach(tasks, t, task) if (!s) s = write_task(p, (int)t, task, out);
    return s ? s : write_legend(tasks, out);
}

/* ---- filters -------------------------------------------------------------------------------- */

/* One checkbox for each value that no earlier variant has. */
static void write_boxes(const kept_html *p, const char *name, bool budget, FILE *out)
{
    const json_t *variants = json_object_get(p->result, "variants"), *v;
    size_t i, k;
    json_array_foreach(variants, i, v)
    {
        const kept_spec_parts x = kept_html_spec(v);
        bool seen = strcmp(kept_view_text(v, "role"), "strategy") != 0;
        for (k = 0; k < i && !seen; k++) {
            const json_t *before = json_array_get(variants, k);
            const kept_spec_parts y = kept_html_spec(before);
            seen =
                !strcmp(kept_view_text(before, "role"), "strategy") &&
                (budget ? !strcmp(x.budget, y.budget)
                        : x.stem_len == y.stem_len && !memcmp(x.stem, y.stem, (size_t)x.stem_len));
        }
        if (seen)
            continue;
        char text[512];
        snprintf(text, sizeof text, "%.*s", budget ? 500 : x.stem_len, budget ? x.budget : x.stem);
        fprintf(out, "<label><input type=\"checkbox\" name=\"%s\" checked value=\"", name);
        kept_html_text(out, text);
        fputs("\"><span>", out);
        kept_html_text(out, *text ? text : "none");
        fputs("</span></label>\n", out);
    }
}

void kept_html_write_filters(const kept_html *p, FILE *out)
{
    const json_t *task;
    size_t t;
    fputs("<div class=\"field\"><label for=\"task\">Task</label><select id=\"task\">\n", out);
    json_array_foreach(json_object_get(p->result, "tasks"), t, task)
    {
        fprintf(out, "<option value=\"%zu\">", t);
        kept_html_text(out, kept_view_text(task, "label"));
        fprintf(out, ", %.0f tokens</option>\n", kept_view_number(task, "length"));
    }
    fputs("</select></div>\n<fieldset id=\"budgets\"><legend>Budget</legend>\n", out);
    write_boxes(p, "budget", true, out);
    fputs("</fieldset>\n<fieldset id=\"strategies\"><legend>Strategy</legend>\n", out);
    write_boxes(p, "strategy", false, out);
    fputs("</fieldset>\n", out);
}
