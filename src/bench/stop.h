/* stop: no more samples of a task once every row of it has a verdict. Private to src/bench. */
#ifndef BENCH_STOP_H
#define BENCH_STOP_H

#include "bench/job.h"

typedef struct kept_stop kept_stop;

/* For the options' stop_margin, which is > 0; level as everywhere. Rows share it equally, tasks
 * included. NULL: out of memory. */
kept_stop *kept_stop_new(const kept_job *j);
void kept_stop_free(kept_stop *s); /* NULL is fine */
void kept_stop_take(kept_stop *s, const json_t *sample);
/* Whether task t is answered and no row of it is open. NULL s: never. */
bool kept_stop_settled(const kept_stop *s, int task);
/* Member "sequential" of a result: docs/result-format.md. */
json_t *kept_stop_json(const kept_stop *s, const kept_job *j);

#endif
