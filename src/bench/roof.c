/* roof: how near a row's decoding is to what the memory allows, and what eviction can bring at
 * most. A step reads all weights and all that the cache holds: time at least (weights + held) /
 * bandwidth. The weights count whole, also where an embedding table is read by rows; the share is
 * then a little too high. */
#include "bench/doc.h"
#include "bench/run.h"
#include "bench/stats.h"

#include <math.h>

#define ENOUGH 1000 /* gaps below which a 99th percentile is noise */

/* Gaps between tokens, pooled over samples: eviction makes spikes that a mean hides. */
void kept_put_gaps(json_t *cell, double *step_ns, int n)
{
    double sum = 0;
    if (!n) {
        json_object_set_new(cell, "itl_gap", json_null());
        return;
    }
    json_t *o = json_object();
    for (int i = 0; i < n; i++)
        sum += step_ns[i];
    json_object_set_new(o, "n", json_integer(n));
    kept_doc_put(o, "mean_ns", sum / n);
    kept_doc_put(o, "p50_ns", kept_quantile(step_ns, n, 0.5));
    kept_doc_put(o, "p90_ns", kept_quantile(step_ns, n, 0.9));
    kept_doc_put(o, "p99_ns", n >= ENOUGH ? kept_quantile(step_ns, n, 0.99) : NAN);
    kept_doc_put(o, "max_ns", kept_quantile(step_ns, n, 1));
    json_object_set_new(cell, "itl_gap", o);
}

void kept_put_roof(const json_t *result, const json_t *full, json_t *cell)
{
    const double weights = kept_doc_number(json_object_get(result, "model"), "weight_bytes");
    const double bandwidth =
        kept_doc_number(json_object_get(result, "machine"), "read_bytes_per_s");
    const double held = kept_doc_number(cell, "held_bytes");
    const double least_s = (weights + held) / bandwidth;
    kept_doc_put(cell, "roofline_share", least_s * kept_doc_number(cell, "tokens_per_s"));
    kept_doc_put(cell, "predicted_speed_up",
                 (weights + kept_doc_number(full, "held_bytes")) / (weights + held));
}
