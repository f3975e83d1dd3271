/* html_command: the commands that make the same study: one for all tasks whose other options are
 * equal. Folders of files are left out, for a page is passed on; SHA-256 says which file it was.
 */
#include "report/html.h"

#include "task/task.h"

#include <stdlib.h>
#include <string.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A word of a shell, in quotes if it needs them. */
static void write_word(FILE *out, const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-+=:,./@%";
    if (*s && strspn(s, plain) == strlen(s)) {
        fputs(s, out);
        return;
    }
    fputc('\'', out);
    for (; *s; s++)
        fputs(*s == '\'' ? "'\\''" : (char[2]){*s, 0}, out);
    fputc('\'', out);
}

static void write_count(FILE *out, const json_t *o, const char *key, const char *flag)
{
    const double x = kept_view_number(o, key);
    if (x > 0)
        fprintf(out, " --%s %.0f", flag, x);
}

static void write_choice(FILE *out, const json_t *o, const char *key, const char *usual)
{
    const char *s = kept_view_text(o, key);
    if (*s && strcmp(s, usual)) {
        fprintf(out, " --%s ", key);
        write_word(out, s);
    }
}

/* All options of a task but its name. Text in memory, NULL: out of memory. */
static char *flags_of(const json_t *task)
{
    static const char *const counts[][2] = {
        {"length", "length"},   {"n_samples", "samples"}, {"seed", "seed"},    {"n_keys", "keys"},
        {"n_values", "values"}, {"n_queries", "queries"}, {"digits", "digits"}};
    char *text = NULL;
    size_t n;
    bool needed;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return NULL;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        write_count(f, task, counts[i][0], counts[i][1]);
    write_choice(f, task, "key", "");
    write_choice(f, task, "value", "");
    write_choice(f, task, "turns", "gold");
    write_choice(f, task, "perturb", "");
    if (!kept_view_generate(task))
        write_count(f, task, "score_tokens", "score-tokens");
    else if (!kept_view_true(task, "chat"))
        fputs(" --raw", f);
    fputs(kept_view_true(task, "query_aware") ? " --query-aware" : "", f);
    fputs(kept_view_true(task, "ruler_compat") ? " --ruler-compat" : "", f);
    const char *reads = kept_task_reads(kept_view_text(task, "name"), &needed);
    const char *file = kept_view_text(task, "file");
    if (reads && *file) {
        fprintf(f, " --%s ", strcmp(reads, "essay") ? reads : "haystack");
        write_word(f, base_name(file));
    }
    if (*kept_view_text(task, "haystack")) {
        fputs(" --haystack ", f);
        write_word(f, base_name(kept_view_text(task, "haystack")));
    }
    if (fclose(f)) {
        free(text);
        return NULL;
    }
    return text;
}

/* The first variant with this strategy (or this budget) that comes before v, -1: v is the first. */
static int seen_before(const json_t *variants, int v, bool budget)
{
    const json_t *own = kept_view_at(variants, v);
    for (int w = 2; w < v; w++) {
        const json_t *other = kept_view_at(variants, w);
        if (budget ? !strcmp(kept_html_spec(own).budget, kept_html_spec(other).budget)
                   : kept_html_same_stem(own, other))
            return w;
    }
    return -1;
}

/* Lists "a,b" of the parts that no earlier variant has; how many there are. */
static int write_parts(const kept_html *p, bool budget, FILE *f)
{
    const json_t *variants = json_object_get(p->result, "variants");
    int n = 0;
    for (int v = 2; v < p->n_variants; v++) {
        const kept_spec_parts x = kept_html_spec(kept_view_at(variants, v));
        if (seen_before(variants, v, budget) >= 0)
            continue;
        fputs(n++ ? "," : "", f);
        fprintf(f, "%.*s", budget ? 1000 : x.stem_len, budget ? x.budget : x.stem);
    }
    return n;
}

static void write_names(const kept_html *p, FILE *f)
{
    const json_t *variants = json_object_get(p->result, "variants");
    for (int v = 2; v < p->n_variants; v++)
        fprintf(f, "%s%s", v > 2 ? "," : "", kept_view_text(kept_view_at(variants, v), "name"));
}

/* Strategies times budgets where that is what there is, else one by one. */
static void write_strategies(const kept_html *p, FILE *out)
{
    char *text[3] = {NULL, NULL, NULL};
    size_t n[3];
    FILE *f[3];
    int count[2] = {0, 0};
    for (int i = 0; i < 3; i++)
        f[i] = open_memstream(&text[i], &n[i]);
    for (int i = 0; i < 2; i++)
        count[i] = f[i] ? write_parts(p, i, f[i]) : 0;
    if (f[2])
        write_names(p, f[2]);
    for (int i = 0; i < 3; i++)
        if (f[i] && fclose(f[i]))
            count[0] = -1;
    const bool grid = count[1] > 1 && count[0] * count[1] == p->n_variants - 2;
    if (count[0] > 0 && text[grid ? 0 : 2]) {
        fputs(" \\\n  --strategy ", out);
        write_word(out, text[grid ? 0 : 2]);
    }
    if (grid && text[1]) {
        fputs(" --budget ", out);
        write_word(out, text[1]);
    }
    for (int i = 0; i < 3; i++)
        free(text[i]);
}

static void write_common(const kept_html *p, FILE *out)
{
    const json_t *o = json_object_get(p->result, "options");
    const char *model = kept_view_text(json_object_get(p->result, "model"), "asked");
    fputs("kept run --study ", out);
    write_word(out, p->source && *p->source ? p->source : "study.db");
    fputs(" --model ", out);
    write_word(out, base_name(model));
    write_strategies(p, out);
    fputs(" \\\n ", out);
    write_count(out, o, "chunk", "chunk");
    write_count(out, o, "threads", "threads");
    write_count(out, o, "pool_asked", "pool");
    write_count(out, o, "speed_samples", "speed-samples");
    write_count(out, o, "speed_steps", "speed-steps");
    write_choice(out, o, "isa", "");
}

/* Commands as plain text. */
static void write_commands(const kept_html *p, FILE *out)
{
    const json_t *tasks = json_object_get(p->result, "tasks");
    const size_t n = json_array_size(tasks);
    char **flags = kept_calloc(n + 1, sizeof *flags);
    for (size_t t = 0; flags && t < n; t++)
        flags[t] = flags_of(json_array_get(tasks, t));
    for (size_t t = 0; flags && t < n; t++) {
        bool done = !flags[t];
        for (size_t k = 0; k < t && !done; k++)
            done = flags[k] && !strcmp(flags[k], flags[t]);
        if (done)
            continue;
        write_common(p, out);
        fprintf(out, "%s \\\n  --task ", flags[t]);
        const char *lead = "";
        for (size_t k = t; k < n; k++)
            if (flags[k] && !strcmp(flags[k], flags[t])) {
                fputs(lead, out);
                write_word(out, kept_view_text(json_array_get(tasks, k), "name"));
                lead = ",";
            }
        fputc('\n', out);
    }
    for (size_t t = 0; flags && t < n; t++)
        free(flags[t]);
    free(flags);
}

static void write_hashes(const kept_html *p, FILE *out)
{
    const json_t *m = json_object_get(p->result, "model"), *task;
    size_t t;
    fputs("<ul class=\"small\">\n<li>model ", out);
    kept_html_text(out, kept_view_text(m, "file"));
    fprintf(out, ", SHA-256 <code>%.64s</code></li>\n", kept_view_text(m, "sha256"));
    json_array_foreach(json_object_get(p->result, "tasks"), t, task)
    {
        if (!*kept_view_text(task, "file_sha256"))
            continue;
        fputs("<li>", out);
        kept_html_text(out, base_name(kept_view_text(task, "file")));
        fputs(", SHA-256 <code>", out);
        kept_html_text(out, kept_view_text(task, "file_sha256"));
        fputs("</code></li>\n", out);
    }
    fputs("</ul>\n", out);
}

void kept_html_write_command(const kept_html *p, FILE *out)
{
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    if (!f)
        return;
    write_commands(p, f);
    if (!fclose(f)) {
        fputs("<pre id=\"command\" tabindex=\"0\">", out);
        kept_html_text(out, text);
        fputs("</pre>\n", out);
    }
    free(text);
    write_hashes(p, out);
}
