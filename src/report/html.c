/* html: the page's skeleton is page/page.html, where @@NAME@@ stands for what is made here. */
#include "report/html.h"

#include <stdlib.h>
#include <string.h>

void kept_html_text(FILE *out, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(*s, out);
        }
    }
}

kept_status kept_html_json(FILE *out, const json_t *x, int digits)
{
    char *text = json_dumps(x, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
    if (!text)
        return KEPT_NOMEM;
    /* "<" is all that could end the element or begin a comment, and stands in strings only. */
    for (const char *at = text, *hit; *at; at = hit + 1) {
        hit = strchr(at, '<');
        fwrite(at, 1, hit ? (size_t)(hit - at) : strlen(at), out);
        if (!hit)
            break;
        fputs("\\u003c", out);
    }
    free(text);
    return KEPT_OK;
}

kept_spec_parts kept_html_spec(const json_t *variant)
{
    const char *spec = kept_view_text(variant, "name"), *at = strrchr(spec, '@');
    if (!at || strpbrk(at, "+,()")) { /* the budget is not at the end: in a canonical spec it is */
        spec = kept_view_text(variant, "canonical");
        at = strrchr(spec, '@');
    }
    const size_t len = at ? (size_t)(at - spec) : strlen(spec);
    return (kept_spec_parts){spec, at ? at + 1 : spec + len, (int)len};
}

bool kept_html_same_stem(const json_t *a, const json_t *b)
{
    const kept_spec_parts x = kept_html_spec(a), y = kept_html_spec(b);
    return x.stem_len == y.stem_len && !memcmp(x.stem, y.stem, (size_t)x.stem_len);
}

static void write_file(FILE *out, kept_page_file part)
{
    size_t n;
    const char *text = kept_page_part(part, &n);
    fwrite(text, 1, n, out);
}

/* A number that no text of the study can know, for the policy that lets only our scripts run: it
 * depends on what was measured. */
static void write_nonce(const kept_html *p, FILE *out)
{
    char *text = json_dumps(json_object_get(p->result, "cells"), JSON_COMPACT), hex[65];
    kept_sha256(text ? text : "", text ? strlen(text) : 0, hex);
    free(text);
    fprintf(out, "%.32s", hex);
}

static void write_title(const kept_html *p, FILE *out)
{
    kept_html_text(out, kept_view_text(json_object_get(p->result, "model"), "name"));
}

/* Its own scope: the script's top level has names of one letter. */
static void write_plots_script(FILE *out)
{
    fputs("(function(){", out);
    write_file(out, KEPT_PAGE_PLOTS);
    fputs("\n})();", out);
}

static kept_status write_part(const kept_html *p, const char *name, size_t n, FILE *out)
{
    static const struct {
        const char *name;
        void (*write)(const kept_html *p, FILE *out);
    } parts[] = {
        {"title", write_title},
        {"nonce", write_nonce},
        {"facts", kept_html_write_facts},
        {"verdict", kept_html_write_verdict},
        {"filters", kept_html_write_filters},
        {"plots", kept_html_write_plots},
        {"robust", kept_html_write_robust},
        {"robust_link", kept_html_write_robust_link},
        {"flips", kept_html_write_flips},
        {"command", kept_html_write_command},
    };
    static const struct {
        const char *name;
        kept_page_file part;
    } files[] = {{"css", KEPT_PAGE_CSS},
                 {"script", KEPT_PAGE_SCRIPT},
                 {"charts", KEPT_PAGE_CHARTS},
                 {"notices", KEPT_PAGE_NOTICES}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strlen(parts[i].name) == n && !memcmp(parts[i].name, name, n)) {
            parts[i].write(p, out);
            return KEPT_OK;
        }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strlen(files[i].name) == n && !memcmp(files[i].name, name, n)) {
            write_file(out, files[i].part);
            return KEPT_OK;
        }
    if (n == 6 && !memcmp(name, "tables", n))
        return kept_html_write_tables(p, out);
    if (n == 4 && !memcmp(name, "data", n))
        return kept_html_write_data(p, out);
    if (n == 4 && !memcmp(name, "vega", n))
        write_plots_script(out);
    return KEPT_OK;
}

static kept_status write_page(const void *ctx, FILE *out)
{
    const kept_html *p = ctx;
    size_t n;
    const char *at = kept_page_part(KEPT_PAGE_HTML, &n);
    kept_status s = KEPT_OK;
    while (!s) {
        const char *mark = strstr(at, "@@"), *end = mark ? strstr(mark + 2, "@@") : NULL;
        fwrite(at, 1, end ? (size_t)(mark - at) : strlen(at), out);
        if (!end)
            break;
        s = write_part(p, mark + 2, (size_t)(end - mark - 2), out);
        at = end + 2;
    }
    return s ? s : ferror(out) ? KEPT_IO : KEPT_OK;
}

static const json_t *at(const kept_html *p, const json_t **table, double t, double v)
{
    return t >= 0 && t < p->n_tasks && v >= 0 && v < p->n_variants
               ? table[(int)t * p->n_variants + (int)v]
               : NULL;
}

const json_t *kept_html_cell(const kept_html *p, double task, double variant)
{
    return at(p, p->cell, task, variant);
}

const json_t *kept_html_verdict(const kept_html *p, double task, double variant)
{
    return at(p, p->row, task, variant);
}

/* Fills a table from a list whose items name their task and variant by these members. */
static void fill(const kept_html *p, const json_t **table, const json_t *list,
                 const char *const keys[2])
{
    const json_t *x;
    size_t i;
    json_array_foreach(list, i, x)
    {
        const double t = kept_view_number(x, keys[0]), v = kept_view_number(x, keys[1]);
        if (t >= 0 && t < p->n_tasks && v >= 0 && v < p->n_variants)
            table[(int)t * p->n_variants + (int)v] = x;
    }
}

kept_status kept_report_page(const kept_page *page, const char *path, kept_error *err)
{
    static const char *const of_cell[] = {"task", "variant"};
    static const char *const of_row[] = {"task_index", "after_index"};
    kept_html p = {.result = page->result,
                   .comparison = page->comparison,
                   .prompts = page->prompts,
                   .robust = page->robust,
                   .source = page->source};
    kept_status s = kept_page_ready(err);
    if (s)
        return s;
    p.n_tasks = (int)json_array_size(json_object_get(p.result, "tasks"));
    p.n_variants = (int)json_array_size(json_object_get(p.result, "variants"));
    const size_t n = (size_t)p.n_tasks * (size_t)p.n_variants + 1;
    p.cell = kept_calloc(n, sizeof *p.cell);
    p.row = kept_calloc(n, sizeof *p.row);
    if (p.cell && p.row) {
        const kept_view_writer w = {write_page, &p};
        fill(&p, p.cell, json_object_get(p.result, "cells"), of_cell);
        fill(&p, p.row, json_object_get(p.comparison, "rows"), of_row);
        s = kept_view_save(path, &w, err);
    } else {
        s = kept_fail(err, KEPT_NOMEM, "out of memory for the page");
    }
    free(p.cell);
    free(p.row);
    return s;
}
