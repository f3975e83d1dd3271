/* selftest: would this program notice? A run with a strategy that must fail is judged, and so are
 * copies of its result that were changed by hand. */
#ifndef BENCH_SELFTEST_H
#define BENCH_SELFTEST_H

#include "base/base.h"

#include <jansson.h>

/* The checks that a result with one answered task, the two full caches and one control row must
 * pass:
 * [{"name", "ok", "what"}]. control: name of the row that must be called worse at margin (0.05 is 5
 * points). FORMAT: it is no result; ARGUMENT: it has no such row; NOMEM. */
kept_status kept_selftest_judge(const json_t *doc, const char *control, double margin,
                                json_t **checks, kept_error *err);
/* The same run again, as with another number of threads: adds the check that no sample differs. */
kept_status kept_selftest_again(const json_t *doc, const json_t *again, json_t *checks,
                                kept_error *err);

#endif
