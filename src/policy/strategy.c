/* strategy: what a strategy needs from the engine, when it acts and how much it may hold. */
#include "policy/parts.h"

#include <math.h>
#include <string.h>

kept_status kept_strategy_needs(const kept_strategy *s, kept_capture *cap, kept_error *err)
{
    const kept_score *score = kept_strategy_score(s);
    int window = score->mass_window ? score->mass_window(s->option[KEPT_AXIS_SCORE]) : 0, i = 0;
    cap->query_stats |= (score->needs & KEPT_NEED_QUERIES) != 0;
    if (!window)
        return KEPT_OK;
    while (i < cap->n_mass && cap->window[i] < window)
        i++;
    if (i < cap->n_mass && cap->window[i] == window)
        return KEPT_OK;
    if (cap->n_mass == KEPT_MAX_MASS)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' needs a mass window of its own, but %d different windows are "
                         "captured already; use fewer window sizes together",
                         s->name, KEPT_MAX_MASS);
    memmove(&cap->window[i + 1], &cap->window[i], (size_t)(cap->n_mass - i) * sizeof window);
    cap->window[i] = window;
    cap->n_mass++;
    return KEPT_OK;
}

kept_status kept_capture_union(const kept_strategy *const *s, int n, kept_capture *out,
                               kept_error *err)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < n; i++) {
        kept_status st = s[i] ? kept_strategy_needs(s[i], out, err) : KEPT_OK;
        if (st)
            return st;
    }
    return KEPT_OK;
}

bool kept_strategy_acts_on_chunks(const kept_strategy *s)
{
    return !kept_strategy_is_full(s) && s->part[KEPT_AXIS_SCHEDULE] == &kept_part_chunks;
}

int kept_strategy_decode_every(const kept_strategy *s)
{
    const double *option = s->option[KEPT_AXIS_SCHEDULE];
    if (kept_strategy_is_full(s))
        return 0;
    if (s->part[KEPT_AXIS_SCHEDULE] == &kept_part_decode)
        return (int)option[KEPT_DECODE_EVERY];
    if (s->part[KEPT_AXIS_SCHEDULE] == &kept_part_chunks)
        return (int)option[KEPT_CHUNKS_DECODE];
    return 0;
}

bool kept_strategy_moves_keys(const kept_strategy *s)
{
    return !kept_strategy_is_full(s) && s->part[KEPT_AXIS_POSITION] == &kept_part_slot;
}

int64_t kept_strategy_budget_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                                   int32_t full_tokens)
{
    int64_t heads = (int64_t)n_layers * n_heads, full = heads * full_tokens;
    switch (s->budget_kind) {
    case KEPT_BUDGET_NONE:
        break;
    case KEPT_BUDGET_PERCENT: /* the product first: it is exact for whole percents */
        return (int64_t)floor(s->budget * (double)full / 100);
    case KEPT_BUDGET_TOKENS:
        return (int64_t)s->budget * heads;
    case KEPT_BUDGET_BYTES: /* a slot is K and V in two bytes per channel */
        return (int64_t)floor(s->budget / (4.0 * head_size));
    }
    return full;
}
