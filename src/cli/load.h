/* load: a result from wherever it is kept. */
#ifndef CLI_LOAD_H
#define CLI_LOAD_H

#include "base/base.h"

#include <jansson.h>

/* A result file, checked to be what its samples say, or a setting of a study (0: its only one). The
 * message names the file. */
kept_status kept_load_result(const char *path, int64_t setting, json_t **doc, kept_error *err);

#endif
