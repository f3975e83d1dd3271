/* task_util: see task_util.h. */
#include "task_util.h"

#include "mkgguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

kept_model *models[MAX_MODELS];
int n_models;
char *file;
char text[TEXT];

void write_file(const char *s)
{
    FILE *f = fopen(file, "wb");
    fwrite(s, 1, strlen(s), f);
    fclose(f);
}

kept_task_options options(const char *name, int length, int n)
{
    return (kept_task_options){.name = name, .length = length, .n_samples = n, .seed = 7};
}

kept_task *must_open(const kept_task_options *o, const kept_model *m)
{
    kept_task *t = NULL;
    kept_error err;
    if (kept_task_open(o, m, &t, &err)) {
        fprintf(stderr, "cannot open %s: %s\n", o->name, err.text);
        exit(1);
    }
    return t;
}

void must_get(kept_task *t, int i, kept_sample *s, kept_tokens *k)
{
    kept_error err;
    if (kept_task_get(t, i, s, &err) || (k && kept_task_tokenize(t, i, s, k, &err))) {
        fprintf(stderr, "sample %d of %s: %s\n", i, kept_task_label(t), err.text);
        exit(1);
    }
}

int occurrences(const char *where, const char *what)
{
    int n = 0;
    for (const char *p = where; (p = strstr(p, what)); p++)
        n++;
    return n;
}

void prompt_of(kept_task *t, const kept_sample *s, char **out, size_t *split)
{
    kept_error err;
    if (kept_prompt_build(t, s, out, split, &err)) {
        fprintf(stderr, "%s: %s\n", kept_task_label(t), err.text);
        exit(1);
    }
}

static bool add_model(const char *path)
{
    kept_error err = {"", 0};
    if (kept_model_open(path, &models[n_models], &err)) {
        fprintf(stderr, "%s: %s\n", path, err.text);
        return false;
    }
    n_models++;
    return true;
}

bool task_util_open(void)
{
    bool ok = true;
    file = mkgguf_temp();
    for (int bpe = 0; bpe < 2; bpe++) {
        mkgguf_spec spec = mkgguf_default(bpe ? "qwen2" : "llama");
        spec.n_ctx = 8192;
        spec.bpe = bpe;
        char *path = mkgguf_temp();
        ok = ok && path && !mkgguf_write(path, &spec) && add_model(path);
        if (path)
            unlink(path);
        free(path);
    }
    if (getenv("KEPT_MODEL"))
        ok = ok && add_model(getenv("KEPT_MODEL"));
    return ok && file;
}

void task_util_close(void)
{
    for (int i = 0; i < n_models; i++)
        kept_model_free(models[i]);
    unlink(file);
    free(file);
}
