/* load: a result from a file of either kind. */
#include "cli/load.h"

#include "bench/verify.h"

#include <string.h>

kept_status kept_load_result(const char *path, int64_t setting, json_t **doc, kept_error *err)
{
    kept_store *s = NULL;
    kept_error why = {.text = ""};
    *doc = NULL;
    if (kept_store_is_study(path)) {
        kept_status st = kept_store_open(path, KEPT_STORE_READ, &s, err);
        if (!st)
            st = kept_store_export(s, setting, doc, err);
        kept_store_close(s);
        return st;
    }
    kept_status st = kept_result_load(path, doc, err);
    if (st || !(st = kept_result_verify(*doc, &why)))
        return st;
    json_decref(*doc);
    *doc = NULL;
    return kept_fail(err, st, "%s: %s", path, why.text);
}

kept_status kept_load_models(kept_store *s, json_t *own, json_t *docs[KEPT_MOST_MODELS], int *n,
                             kept_error *err)
{
    json_t *all = NULL, *seen = json_object();
    kept_status st = kept_store_list(s, &all, err);
    *n = 0;
    if (own) {
        const char *sha =
            json_string_value(json_object_get(json_object_get(own, "model"), "sha256"));
        json_object_set_new(seen, sha ? sha : "", json_true());
        docs[(*n)++] = json_incref(own);
    }
    for (size_t i = json_array_size(all); !st && i-- > 0 && *n < KEPT_MOST_MODELS;) {
        const json_t *g = json_array_get(all, i);
        const char *sha = json_string_value(json_object_get(g, "sha256"));
        if (!sha || json_object_get(seen, sha))
            continue;
        json_object_set_new(seen, sha, json_true());
        st = kept_store_export(s, json_integer_value(json_object_get(g, "id")), &docs[*n], err);
        *n += !st;
    }
    json_decref(all);
    json_decref(seen);
    return st;
}
