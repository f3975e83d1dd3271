/* size: how many units of filler make a sample of the wanted length, in the model's own tokens.
 */
#include "task/parts.h"

#include <math.h>

static kept_status count(kept_task *t, int i, int n_units, int *n, kept_error *err)
{
    kept_sample s = {0};
    kept_status st = t->type->build(t, i, n_units, &s, err);
    if (!st)
        st = kept_prompt_count(t, &s, n, err);
    kept_sample_clear(&s);
    return st;
}

kept_status kept_size_get(kept_task *t, int i, kept_sample *out, kept_error *err)
{
    int units = t->units;
    for (;;) {
        int n = 0;
        kept_status st = t->type->build(t, i, units, out, err);
        if (!st)
            st = kept_prompt_count(t, out, &n, err);
        if (st || n <= t->length)
            return st;
        kept_sample_clear(out);
        if (units == 1)
            return kept_fail(err, KEPT_ARGUMENT, "sample %d of %s needs %d tokens, more than %d", i,
                             t->label, n, t->length);
        const int fewer = 1 + (int)((n - t->length) / t->unit_tokens);
        units = fewer < units ? units - fewer : 1;
    }
}

/* Largest number of units for which sample 0 fits, up to half a percent of the length. Tokenizing
 * is the cost, so the search interpolates; the bracket [low fits, high does not] bounds it. */
kept_status kept_size_find(kept_task *t, kept_error *err)
{
    const int probe = t->probe;
    int least, n;
    kept_status st = count(t, 0, 1, &least, err);
    if (!st)
        st = count(t, 0, 1 + probe, &n, err);
    if (st)
        return st;
    if (least > t->length)
        return kept_fail(err, KEPT_ARGUMENT, "task %s: length %d is too short, it needs %d tokens",
                         t->label, t->length, least);
    int low = 1, high = INT32_MAX, n_low = least;
    double slope = fmax((double)(n - least) / probe, 0.1);
    for (int step = 0; step < 40 && high - low > 1; step++) {
        const int room = t->length - n_low;
        if (room <= slope || (step > 0 && room <= t->length / 200))
            break;
        int u = low + (int)(room / slope);
        u = u >= high ? low + (high - low) / 2 : u;
        u = u <= low ? low + 1 : u;
        st = count(t, 0, u, &n, err);
        if (st)
            return st;
        if (n == n_low)
            break; /* there is no more filler */
        slope = fmax((double)(n - n_low) / (u - low), 0.1);
        if (n <= t->length) {
            low = u;
            n_low = n;
        } else {
            high = u;
        }
    }
    t->units = low;
    t->unit_tokens = low > 1 ? fmax((double)(n_low - least) / (low - 1), 0.1) : slope;
    return KEPT_OK;
}
