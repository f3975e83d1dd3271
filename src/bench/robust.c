/* robust: all views of robustness together. See robust.h. */
#include "bench/robust.h"
#include "bench/decay.h"
#include "bench/drift.h"

kept_status kept_robust(json_t *const *docs, int n, json_t **out, kept_error *err)
{
    static const char *const names[] = {"precision", "length", "perturb"};
    kept_status (*const make[])(const json_t *, json_t **, kept_error *) = {kept_precision,
                                                                            kept_decay, kept_drift};
    json_t *list = NULL;
    *out = json_object();
    kept_status s = *out ? kept_scale(docs, n, &list, err) : KEPT_NOMEM;
    json_object_set_new(*out, "models", list);
    for (int i = 0; i < 3 && !s; i++) {
        list = NULL;
        s = make[i](docs[0], &list, err);
        json_object_set_new(*out, names[i], list);
    }
    if (s) {
        json_decref(*out);
        *out = NULL;
    }
    return s;
}
