/* lu-kv: LU-KV, arXiv 2602.08585: a trained table says which part of its slots each head keeps at
 * each overall part kept. Between the rows of the table parts are interpolated; below the first
 * row they fall to 0, above the last they rise to 1.
 *
 * Trained kind "lu-kv": "ratio" [rows], overall parts kept, ascending, above 0 and at most 1, and
 * "keep" [rows][model layers][n_kv_heads] in 0..1, the parts that heads keep then (protected slots
 * included). Without tables that cover the layers all heads get the same.
 *
 * Deviations: the paper's table has 99 rows for one model; here its size follows from the file.
 */
#include "kept/policy.h"

#include <math.h>

/* Part kept by entry `at` of row r; the rows before and after the table are 0 and 1. */
static double part(const kept_split *s, int r, int rows, int at)
{
    if (r < 0 || r >= rows)
        return r < 0 ? 0 : 1;
    double x = kept_split_table(s, "keep", r, rows)[at];
    return x > 0 ? fmin(x, 1) : 0;
}

static void split(const kept_split *s, int *keep)
{
    int n = s->n_layers * s->n_heads, r = 0;
    size_t n_rows = 0;
    double full = (double)n * s->n_tokens, f = full > 0 ? fmin(1, (double)s->total / full) : 1;
    const float *ratio = s->trained ? kept_trained_array(s->trained, "ratio", &n_rows) : NULL;
    int rows = n_rows < 100000 ? (int)n_rows : 0;
    bool known = ratio && rows && kept_split_table(s, "keep", 0, rows);
    while (known && r < rows && !(ratio[r] >= f))
        r++;
    double low = known && r > 0 ? ratio[r - 1] : 0, high = known && r < rows ? ratio[r] : 1;
    double w = high > low ? fmin(1, fmax(0, (f - low) / (high - low))) : 1;
    for (int i = 0; i < n; i++) {
        double k = f;
        if (known) {
            int at = s->layer[i / s->n_heads] * s->n_heads + i % s->n_heads;
            k = (1 - w) * part(s, r - 1, rows, at) + w * part(s, r, rows, at);
        }
        s->share[i] = fmax(0, k * s->n_tokens - s->n_protected[i]);
    }
    kept_split_shares(s, s->share, keep);
}

const kept_allocator kept_alloc_lu_kv = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_ALLOCATOR,
             .name = "lu-kv",
             .summary = "a table says which part of its slots each head keeps at each budget",
             .paper = "arXiv 2602.08585",
             .deviations = "rows as many as the file has; parts between them are interpolated"},
    .trained = "lu-kv",
    .layerwise = true,
    .split = split,
};
