/* advise_cmd: the command that brings the evidence that is missing. */
#include "bench/advise.h"
#include "bench/doc.h"

#include "task/task.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* 'text' for a shell, if it needs it. */
static void quoted(FILE *out, const char *text)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
    if (*text && !text[strspn(text, plain)]) {
        fputs(text, out);
        return;
    }
    fputc('\'', out);
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fputc(*text, out);
    fputc('\'', out);
}

static void flag(FILE *out, const char *name, const char *value)
{
    if (!*value)
        return;
    fprintf(out, " --%s ", name);
    quoted(out, value);
}

static void count(FILE *out, const char *name, double x)
{
    if (x > 0)
        fprintf(out, " --%s %.0f", name, x);
}

/* All that the task's cells depend on, so that new samples are of the same kind. */
static void put_task(FILE *out, const json_t *task, int length)
{
    static const struct {
        const char *reads, *flag;
    } files[] = {{"essay", "haystack"}, {"words", "words"}, {"squad", "squad"},
                 {"hotpot", "hotpot"},  {"text", "text"},   {"jsonl", "jsonl"},
                 {"nolima", "nolima"}};
    static const struct {
        const char *key, *flag;
    } counts[] = {{"n_keys", "keys"},
                  {"n_values", "values"},
                  {"n_queries", "queries"},
                  {"digits", "digits"},
                  {"seed", "seed"}};
    const char *name = kept_doc_text(task, "name");
    bool needed;
    const char *reads = kept_task_reads(name, &needed);
    flag(out, "task", name);
    for (size_t i = 0; reads && i < sizeof files / sizeof *files; i++)
        if (!strcmp(files[i].reads, reads))
            flag(out, files[i].flag, kept_doc_text(task, "file"));
    flag(out, "haystack", kept_doc_text(task, "haystack"));
    count(out, "length", length ? length : kept_doc_number(task, "length"));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        count(out, counts[i].flag, kept_doc_number(task, counts[i].key));
    flag(out, "key", kept_doc_text(task, "key"));
    flag(out, "value", kept_doc_text(task, "value"));
    if (!strcmp(kept_doc_text(task, "kind"), "score"))
        count(out, "score-tokens", kept_doc_number(task, "score_tokens"));
    else
        fputs(json_is_true(json_object_get(task, "chat")) ? " --chat" : " --raw", out);
    if (strcmp(kept_doc_text(task, "turns"), "gold"))
        flag(out, "turns", kept_doc_text(task, "turns"));
    flag(out, "perturb", kept_doc_text(task, "perturb"));
    if (json_is_true(json_object_get(task, "query_aware")))
        fputs(" --query-aware", out);
    if (json_is_true(json_object_get(task, "ruler_compat")))
        fputs(" --ruler-compat", out);
}

/* Prompts of a file stay what they are when there are more; what is made here is spread anew. */
static double samples_of(const kept_advise_options *o, int task, double more)
{
    const json_t *s;
    size_t i;
    double n = 0;
    json_array_foreach(json_object_get(o->doc, "samples"), i, s) n +=
        kept_doc_number(s, "task") == task;
    return n + more;
}

char *kept_advise_command(const kept_advise_options *o, const char *row, int task, double more,
                          int length)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    const json_t *t = json_array_get(json_object_get(o->doc, "tasks"), (size_t)task);
    if (!out)
        return NULL;
    fputs("kept run", out);
    flag(out, "model", kept_doc_text(json_object_get(o->doc, "model"), "asked"));
    if (o->is_study)
        flag(out, "study", o->name);
    flag(out, "strategy", row);
    put_task(out, t, length);
    fprintf(out, " --samples %.0f", samples_of(o, task, more));
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
