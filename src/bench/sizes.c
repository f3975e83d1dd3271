/* sizes: see sizes.h. One text for each task: [[hash, n_prefix, n_suffix, after, n_new, levels],
 * ...]. */
#include "bench/sizes.h"

#include <stdlib.h>
#include <string.h>

#define FORMAT 2 /* grows when the list above, or what is in it, changes its meaning */

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

char *kept_sizes_key(kept_job *j, const kept_run_task *t, kept_error *err)
{
    const kept_task_options *o = &t->options;
    char model[65];
    if (kept_model_sha256(j->model, model, err))
        return NULL;
    json_t *key =
        json_pack("[i,s,s,o,i,i,I,s,o,o,i,i,i,i,i,b,b,b,s,o]", FORMAT, kept_version(), model,
                  text_or_null(o->name), o->length, o->n_samples, (json_int_t)o->seed,
                  t->file_sha256, text_or_null(o->key), text_or_null(o->value), o->n_keys,
                  o->n_values, o->n_queries, o->digits, o->score_tokens, o->chat, o->query_aware,
                  o->ruler_compat, kept_turn_mode_name(o->turns), text_or_null(o->perturb));
    char *text = key ? json_dumps(key, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(key);
    if (!text)
        kept_fail(err, KEPT_NOMEM, "out of memory");
    return text;
}

/* False: not what this file writes. */
static bool read_one(const json_t *x, kept_sample_size *s)
{
    const char *hash = json_string_value(json_array_get(x, 0));
    int *to[5] = {&s->n_prefix, &s->n_suffix, &s->after, &s->n_new, &s->levels};
    if (!hash || strlen(hash) != sizeof s->hash - 1 || json_array_size(x) != 6)
        return false;
    memcpy(s->hash, hash, sizeof s->hash);
    for (size_t i = 0; i < 5; i++) {
        const json_t *n = json_array_get(x, i + 1);
        if (!json_is_integer(n) || json_integer_value(n) < 0 || json_integer_value(n) > INT32_MAX)
            return false;
        *to[i] = (int)json_integer_value(n);
    }
    return true;
}

kept_status kept_sizes_recall(const kept_job *j, const char *key, kept_sample_size **out, int *n,
                              kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    char *text = NULL;
    *out = NULL;
    *n = 0;
    if (!sink || !sink->recall)
        return KEPT_OK;
    kept_status st = sink->recall(sink->ctx, key, &text, err);
    json_t *list = !st && text ? json_loads(text, 0, NULL) : NULL;
    const size_t size = json_array_size(list);
    kept_sample_size *all = size ? kept_calloc(size, sizeof *all) : NULL;
    for (size_t i = 0; all && i < size; i++)
        if (!read_one(json_array_get(list, i), &all[i])) {
            free(all); /* damaged: as if it were not there */
            all = NULL;
        }
    *out = all;
    *n = all ? (int)size : 0;
    json_decref(list);
    free(text);
    return st;
}

kept_status kept_sizes_remember(const kept_job *j, const char *key, const kept_sample_size *size,
                                int n, kept_error *err)
{
    const kept_run_sink *sink = j->o->sink;
    if (!sink || !sink->remember)
        return KEPT_OK;
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_pack("[s,i,i,i,i,i]", size[i].hash, size[i].n_prefix,
                                              size[i].n_suffix, size[i].after, size[i].n_new,
                                              size[i].levels));
    char *text = json_dumps(list, JSON_COMPACT);
    kept_status st = text ? sink->remember(sink->ctx, key, text, err)
                          : kept_fail(err, KEPT_NOMEM, "out of memory");
    free(text);
    json_decref(list);
    return st;
}
