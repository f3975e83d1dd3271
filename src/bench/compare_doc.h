/* compare_doc: what a comparison says besides its rows. Private to src/bench. */
#ifndef BENCH_COMPARE_DOC_H
#define BENCH_COMPARE_DOC_H

#include "bench/compare.h"

/* The document of n comparisons whose corrected rows are there; apart: of several results, which
 * rows tell by their number. A new reference. */
json_t *kept_compare_document(const kept_compare_options *o, int n, const json_t *rows, bool apart);

#endif
