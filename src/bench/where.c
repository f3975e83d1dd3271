/* where: scored text by the distance from the eviction and by the position in the sequence. Means
 * over tokens of all samples. */
#include "bench/doc.h"
#include "bench/run.h"

#include <math.h>

/* Upper ends of the ranges of positions; tokens are counted from 1. */
static const int position_end[] = {128,  256,   512,   1024,  2048,   4096,
                                   8192, 16384, 32768, 65536, 131072, INT32_MAX};
enum { N_POSITIONS = sizeof position_end / sizeof *position_end };

typedef struct sums {
    double nll, full, kl;
    int n, same;
} sums;

static void add_sample(sums *by, const json_t *sample, const json_t *own, const json_t *full)
{
    const json_t *nll = json_object_get(own, "nll"), *base = json_object_get(full, "nll");
    const json_t *kl = json_object_get(own, "kl"), *top1 = json_object_get(own, "top1");
    const double n_prefix = kept_doc_number(sample, "n_prefix");
    int range = 0;
    for (size_t i = 0; i < json_array_size(nll) && isfinite(n_prefix); i++) {
        const double x = kept_doc_at(nll, i), y = kept_doc_at(base, i), k = kept_doc_at(kl, i);
        /* the first token of the suffix is not scored: number i is the one after it */
        while (n_prefix + (double)i + 2 > position_end[range])
            range++;
        if (!isfinite(x) || !isfinite(y) || !isfinite(k))
            continue;
        by[range].nll += x;
        by[range].full += y;
        by[range].kl += k;
        by[range].same += kept_doc_at(top1, i) > 0;
        by[range].n++;
    }
}

void kept_put_positions(json_t *cell, const json_t *samples, int task, int variant)
{
    sums by[N_POSITIONS] = {0};
    json_t *list = json_array();
    const json_t *s;
    size_t i;
    json_array_foreach(samples, i, s)
    {
        const json_t *own = kept_doc_outcome(s, variant), *full = kept_doc_outcome(s, 0);
        if (kept_doc_number(s, "task") == task && own && full)
            add_sample(by, s, own, full);
    }
    for (int k = 0; k < N_POSITIONS; k++) {
        if (!by[k].n)
            continue;
        json_t *o = json_object();
        json_object_set_new(o, "from", json_integer(k ? position_end[k - 1] + 1 : 1));
        json_object_set_new(o, "to",
                            k + 1 < N_POSITIONS ? json_integer(position_end[k]) : json_null());
        json_object_set_new(o, "n", json_integer(by[k].n));
        kept_doc_put(o, "nll", by[k].nll / by[k].n);
        kept_doc_put(o, "full_nll", by[k].full / by[k].n);
        kept_doc_put(o, "kl", by[k].kl / by[k].n);
        kept_doc_put(o, "top1", (double)by[k].same / by[k].n);
        json_array_append_new(list, o);
    }
    json_object_set_new(cell, "by_position", list);
}
