/* load: a result from wherever it is kept. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "bench/robust.h"
#include "store/store.h"

#include <jansson.h>

/* A result file, checked to be what its samples say, or a setting of a study (0: its only one). The
 * message names the file. */
kept_status kept_load_result(const char *path, int64_t setting, json_t **doc, kept_error *err);

/* The latest setting of every model of a study, `own` first where it is one of them already (NULL:
 * none). Fills docs[0..*n), new references. */
kept_status kept_load_models(kept_store *s, json_t *own, json_t *docs[KEPT_MOST_MODELS], int *n,
                             kept_error *err);

#endif
