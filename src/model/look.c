/* look: the strategy that stands for looking at a whole cache with the eyes of one score. */
#include "model/look.h"

#include "policy/parts.h"

#include <string.h>

kept_strategy kept_look_strategy(const kept_score *as)
{
    kept_strategy s = {.budget_kind = KEPT_BUDGET_PERCENT, .budget = 100, .name = "training"};
    for (int a = 0; a < KEPT_N_AXES; a++) {
        s.part[a] = a == KEPT_AXIS_SCORE ? &as->part : kept_part_default((kept_axis)a);
        for (int i = 0; i < s.part[a]->n_options; i++)
            s.option[a][i] = s.part[a]->options[i].value;
    }
    return s;
}

kept_status kept_look_capture(const kept_score *as, kept_capture *out, kept_error *err)
{
    const kept_strategy s = kept_look_strategy(as);
    memset(out, 0, sizeof *out);
    return kept_strategy_needs(&s, out, err);
}
