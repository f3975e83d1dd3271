/* reader: what the files of other benchmarks mean, as one table. A line (or element of an array) is
 * taken by the first reader whose keys it has; the reader's templates say which of its texts are
 * context, question and answer prefix. docs/tasks.md lists them with their sources.
 */
#ifndef TASK_READER_H
#define TASK_READER_H

#include "task/parts.h"

#include <jansson.h>

typedef struct kept_reader kept_reader;
struct kept_reader {
    const char *name;
    const char *keys;  /* "a,b[]": members it must have; [] an array */
    const char *where; /* NULL, "key=value" or "key~part of its text" */
    /* {key} stands for the member's text. split: where context is all there is, its last
     * occurrence begins the question; several are separated by \1. */
    const char *context, *question, *prefix, *split;
    const char *answers; /* member: a text, a number or an array of them */
    const char *labels;  /* NULL, a member that is an array, or "=a,b,c" */
    kept_metric metric;
    int max_new;
    const char *turns; /* NULL, or the member whose elements have question and answers */
    bool cut;          /* a prompt that is too long loses its middle, as its benchmark does */
    bool raw;          /* never in a chat template */
    /* What templates cannot say: called after them. NULL: nothing. */
    kept_status (*finish)(const json_t *o, int number, kept_sample *out, kept_error *err);
};

/* NULL: no reader knows it; it is in our own format or an error. */
const kept_reader *kept_reader_find(const json_t *o);
const kept_reader *kept_reader_at(int i); /* NULL behind the last */
/* The object as a sample. FORMAT, NOMEM; number is the line's for messages. */
kept_status kept_reader_map(const kept_reader *r, const json_t *o, int number, kept_sample *out,
                            kept_error *err);

/* ---- jsonl.c: parts of it that readers use ---- */
/* References of a turn from a text, a number or an array of them. FORMAT. */
kept_status kept_read_answers(const json_t *v, int number, kept_turn *out, kept_error *err);
kept_status kept_read_labels(const json_t *v, int number, kept_turn *out, kept_error *err);
/* Marks every place where an answer stands in the context. */
kept_status kept_find_evidence(const char *context, kept_turn *t, int number, kept_error *err);
/* Cuts context before the last of the parts of split; nothing is found: before its last line, if
 * that is not all. The rest becomes *question (malloc). */
kept_status kept_split_question(char *context, const char *split, char **question, kept_error *err);

#endif
