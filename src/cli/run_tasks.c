/* run_tasks: the tasks of `kept run`: names, the set `ruler`, and which file each one reads. */
#include "cli/cli.h"
#include "cli/run_args.h"

#include <stdlib.h>
#include <string.h>

/* RULER's 13 tasks by its names. */
static const char *const ruler[] = {"niah_single_1",
                                    "niah_single_2",
                                    "niah_single_3",
                                    "niah_multikey_1",
                                    "niah_multikey_2",
                                    "niah_multikey_3",
                                    "niah_multivalue",
                                    "niah_multiquery",
                                    "vt",
                                    "cwe",
                                    "fwe",
                                    "qa_1",
                                    "qa_2"};

/* What a task reads (task.h) and the flag that brings it. */
static const struct input {
    const char *reads, *flag;
    size_t at;
} inputs[] = {
    {"essay", "haystack", offsetof(kept_run_args, haystack)},
    {"words", "words", offsetof(kept_run_args, words)},
    {"squad", "squad", offsetof(kept_run_args, squad)},
    {"hotpot", "hotpot", offsetof(kept_run_args, hotpot)},
    {"nolima", "nolima", offsetof(kept_run_args, nolima)},
    {"text", "text", offsetof(kept_run_args, text)},
    {"jsonl", "jsonl", offsetof(kept_run_args, jsonl)},
};

static const struct input *input_of(const char *task, bool *needed)
{
    const char *reads = kept_task_reads(task, needed);
    for (size_t i = 0; reads && i < sizeof inputs / sizeof *inputs; i++)
        if (!strcmp(reads, inputs[i].reads))
            return &inputs[i];
    return NULL;
}

static const char *file_of(const kept_run_args *a, const struct input *in)
{
    return in ? *(const char *const *)(const void *)((const char *)a + in->at) : NULL;
}

/* Puts RULER's tasks in place of the word "ruler"; those whose file is missing are named on stderr.
 */
static int expand_ruler(kept_run_args *a)
{
    kept_list all = {0};
    bool ok = true, off = false;
    for (int i = 0; i < a->tasks.n && ok; i++) {
        if (strcmp(a->tasks.text[i], "ruler") != 0) {
            ok = kept_list_add(&all, a->tasks.text[i]);
            continue;
        }
        for (size_t k = 0; k < sizeof ruler / sizeof *ruler && ok; k++) {
            bool needed;
            const struct input *in = input_of(ruler[k], &needed);
            if (!needed || file_of(a, in)) {
                ok = kept_list_add(&all, ruler[k]);
            } else if (!a->quiet) {
                fprintf(stderr, "%s %s (--%s FILE)",
                        off ? "," : "kept run: without their files off:", ruler[k], in->flag);
                off = true;
            }
        }
    }
    if (off)
        fputs("\n", stderr);
    kept_list_clear(&a->tasks);
    a->tasks = all;
    return ok ? -1 : kept_failed("run", "out of memory");
}

static int check_task(const kept_run_args *a, const char *name)
{
    bool needed;
    int n;
    const char *const *names = kept_task_names(&n);
    int code = kept_one_of("task", name, names, n);
    const struct input *in = code < 0 ? input_of(name, &needed) : NULL;
    if (in && needed && !file_of(a, in))
        return kept_usage("run", "task %s needs --%s FILE", name, in->flag);
    return code;
}

/* A file given is a task asked for. */
static int complete(kept_run_args *a)
{
    bool none = !a->tasks.n && !a->nolima, ok = true;
    if (a->nolima && !kept_list_has(&a->tasks, "nolima"))
        ok = kept_list_add(&a->tasks, "nolima");
    if (ok && a->jsonl && !kept_list_has(&a->tasks, "jsonl"))
        ok = kept_list_add(&a->tasks, "jsonl");
    if (ok && none && !a->jsonl)
        ok = kept_list_add(&a->tasks, "niah_single");
    if (ok && a->text && !kept_list_has(&a->tasks, "text") && !kept_list_has(&a->tasks, "stream"))
        ok = kept_list_add(&a->tasks, "text");
    return ok ? -1 : kept_failed("run", "out of memory");
}

int kept_run_tasks_complete(kept_run_args *a)
{
    static const char *const secrets[] = {"word", "number", "uuid"};
    static const char *const modes[] = {"gold", "own", "requests"};
    int code = complete(a);
    if (code < 0)
        code = expand_ruler(a);
    for (int i = 0; code < 0 && i < a->tasks.n; i++)
        code = check_task(a, a->tasks.text[i]);
    if (code < 0 && a->key)
        code = kept_one_of("key", a->key, secrets, 3);
    if (code < 0 && a->value)
        code = kept_one_of("value", a->value, secrets, 3);
    if (code < 0 && a->turns)
        code = kept_one_of("turns", a->turns, modes, 3);
    int n;
    const char *const *kinds = kept_perturb_names(&n);
    if (code < 0 && a->perturb)
        code = kept_one_of("perturb", a->perturb, kinds, n);
    if (a->perturb && !strcmp(a->perturb, "none"))
        a->perturb = NULL;
    return code;
}

int kept_run_tasks_set(kept_run_args *a)
{
    a->task_options = kept_calloc((size_t)a->tasks.n, sizeof *a->task_options);
    if (!a->task_options)
        return kept_failed("run", "out of memory");
    for (int i = 0; i < a->tasks.n; i++) {
        const char *name = a->tasks.text[i];
        bool needed, jsonl = !strcmp(name, "jsonl"),
                     niah = !strncmp(name, "niah", 4) || !strncmp(name, "facts", 5);
        const bool score = !strcmp(name, "text") || !strcmp(name, "stream");
        kept_turn_mode mode = KEPT_TURNS_GOLD;
        if (a->turns)
            (void)kept_turn_mode_parse(a->turns, &mode);
        a->task_options[i] = (kept_task_options){
            .name = name,
            .length = a->length ? (int)a->length
                      : jsonl   ? 0
                                : 2048,
            .n_samples = (int)a->samples,
            .seed = (uint64_t)a->seed,
            .file = file_of(a, input_of(name, &needed)),
            .haystack = strcmp(name, "nolima") ? NULL : a->haystack,
            .key = niah ? a->key : NULL,
            .value = niah ? a->value : NULL,
            .n_keys = (int)a->keys,
            .n_values = (int)a->values,
            .n_queries = (int)a->queries,
            .digits = (int)a->digits,
            .score_tokens = (int)a->score_tokens,
            .chat = a->chat && !score,
            .query_aware = a->query_aware && !score,
            .ruler_compat = a->ruler_compat,
            .perturb = a->perturb,
            .turns = mode,
        };
    }
    return -1;
}
