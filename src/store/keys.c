/* keys: what makes two runs the same setting, two tasks the same task, two variants the same
 * variant. Options are left out by name and kept by default, so that an option that is new here
 * starts new cells instead of mixing.
 */
#include "store/db.h"

#include <stdlib.h>
#include <string.h>

char *kept_canonical(const json_t *x)
{
    return json_dumps(x, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
}

static void copy(json_t *to, const json_t *from, const char *const *names, int n)
{
    for (int i = 0; i < n; i++) {
        json_t *x = json_object_get(from, names[i]);
        json_object_set_new(to, names[i], x ? json_deep_copy(x) : json_null());
    }
}

/* Text of x without these members; x is not changed. */
static char *without(const json_t *x, const char *const *names, int n)
{
    json_t *y = json_copy((json_t *)(uintptr_t)x); /* jansson's json_copy takes no const */
    for (int i = 0; y && i < n; i++)
        json_object_del(y, names[i]);
    char *text = y ? kept_canonical(y) : NULL;
    json_decref(y);
    return text;
}

char *kept_setting_key(const json_t *head)
{
    static const char *const of_head[] = {"version", "kept"}, *const of_model[] = {"sha256"};
    static const char *const of_machine[] = {"isa", "ggml"};
    /* What a run sizes by its other tasks and strategies. */
    static const char *const sizes[] = {"specs", "max_tokens", "max_batch_tokens", "pool_bytes"};
    json_t *key = json_object(), *options = json_object_get(head, "options");
    json_t *kept = options ? json_copy(options) : json_object();
    copy(key, head, of_head, 2);
    copy(key, json_object_get(head, "model"), of_model, 1);
    copy(key, json_object_get(head, "machine"), of_machine, 2);
    for (int i = 0; i < 4; i++)
        json_object_del(kept, sizes[i]);
    json_object_set_new(key, "options", kept);
    char *text = kept_canonical(key);
    json_decref(key);
    return text;
}

char *kept_task_key(const json_t *task)
{
    /* The file counts by what is in it, not by where it lies. */
    static const char *const names[] = {"n_samples", "file"};
    return without(task, names, json_is_string(json_object_get(task, "file_sha256")) ? 2 : 1);
}

char *kept_variant_key(const json_t *variant)
{
    static const char *const names[] = {"name", "canonical"};
    return without(variant, names, 2);
}
