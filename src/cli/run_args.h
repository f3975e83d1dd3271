/* run_args: the arguments of `kept run`, turned into the options of kept_run. */
#ifndef CLI_RUN_ARGS_H
#define CLI_RUN_ARGS_H

#include "bench/pressure.h"

#include <stdio.h>

typedef struct kept_list {
    char **text; /* [n], owned */
    int n;
} kept_list;

enum { KEPT_MOST_PRESSURES = 16 };

typedef struct kept_run_args {
    kept_list strategies, budgets, tasks; /* as written */
    kept_list specs;                      /* strategies crossed with budgets */
    kept_list trained;                    /* files */
    const char *model, *jsonl, *text, *haystack, *key, *value, *isa, *dump, *out, *format, *words,
        *squad, *hotpot, *nolima, *turns, *study, *preset, *gate, *perturb;
    int64_t length, samples, seed, threads, keys, values, queries, digits, score_tokens, chunk,
        speed_samples, speed_steps, max_new;
    double stop; /* points */
    uint64_t pool;
    bool chat, raw, query_aware, quiet, ruler_compat;
    kept_list pressure;                              /* as written */
    int sequences[KEPT_MOST_PRESSURES], n_sequences; /* of --pressure */
    kept_list preset_words;                          /* flags and values of the preset */
    bool from_preset[64]; /* by flag: the list is the preset's until the user gives one */
    char model_path[4096], trained_dir[4096];
    kept_task_options *task_options; /* [tasks.n] */
} kept_run_args;

/* An exit code, or -1: go on. Clear it in any case. */
int kept_run_args_parse(kept_run_args *a, int argc, char **argv);
void kept_run_args_clear(kept_run_args *a);
/* Appends the parts of text between commas outside parentheses. False: out of memory. */
bool kept_list_split(kept_list *l, const char *text);
void kept_list_clear(kept_list *l);
bool kept_list_add(kept_list *l, const char *text); /* false: out of memory */
bool kept_list_has(const kept_list *l, const char *text);
/* An exit code after a message that suggests the nearest name, or -1: value is one of names. */
int kept_one_of(const char *flag, const char *value, const char *const *names, int n);

/* ---- preset.c ---- */
/* Words "--flag", "value", ... of a preset into out. An exit code after a message, or -1. */
int kept_preset_words(const char *name, kept_list *out);
void kept_preset_print(FILE *out); /* names with the first line of each */

/* ---- run_tasks.c ---- */
/* Fills in and checks what tasks are run, then their options. An exit code, or -1: go on. */
int kept_run_tasks_complete(kept_run_args *a);
int kept_run_tasks_set(kept_run_args *a);

#endif
