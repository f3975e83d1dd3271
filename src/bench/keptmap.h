/* keptmap: which positions every head held right after the eviction, in few bytes.
 *
 *   version (1), layers, heads, then for each layer and head: tokens seen, n runs, and the lengths
 * of the runs, evicted and kept in turn, evicted first; all as LEB128
 *
 * A window is two runs; a scattered choice takes about a byte for each change between the two. */
#ifndef BENCH_KEPTMAP_H
#define BENCH_KEPTMAP_H

#include "base/base.h"

/* Of a sequence. *map: malloc'ed, the caller's. NOMEM. */
kept_status kept_map_of(const kept_seq *seq, const kept_model_info *m, uint8_t **map, size_t *bytes,
                        kept_error *err);
/* Layers and heads of a map. FORMAT: it is none. */
kept_status kept_map_shape(const uint8_t *map, size_t bytes, int *n_layers, int *n_heads,
                           kept_error *err);
typedef struct kept_map_run {
    int layer, head, seen;
    int begin, end; /* kept positions [begin, end) */
} kept_map_run;
/* Every run of kept positions, head by head; each head comes once with an empty run first. FORMAT.
 */
kept_status kept_map_runs(const uint8_t *map, size_t bytes,
                          void (*take)(void *ctx, const kept_map_run *run), void *ctx,
                          kept_error *err);
/* Which of the first cap positions a head holds: alive [cap]. *seen: tokens seen. ARGUMENT: no such
 * head; FORMAT. */
kept_status kept_map_head(const uint8_t *map, size_t bytes, int layer, int head, bool *alive,
                          int cap, int *seen, kept_error *err);

#endif
