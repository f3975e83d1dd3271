/* load: a result from a file of either kind. */
#include "cli/load.h"

#include "bench/verify.h"
#include "store/store.h"

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
