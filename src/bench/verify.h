/* verify: is this a result document, and does it still say what its samples say? */
#ifndef BENCH_VERIFY_H
#define BENCH_VERIFY_H

#include "base/base.h"

#include <jansson.h>

/* Schema, version, and that every index names something. FORMAT, with what is wrong. */
kept_status kept_result_check(const json_t *doc, kept_error *err);
/* kept_result_check, and besides: the cells are those of the samples (of a document that another
 * version wrote: sums and means, not intervals and tests), and the floor shows no difference.
 * FORMAT names the first figure that is not what the samples say. NOMEM. */
kept_status kept_result_verify(const json_t *doc, kept_error *err);
/* Reads a document from a file and checks it. IO, FORMAT. */
kept_status kept_result_load(const char *path, json_t **doc, kept_error *err);

#endif
