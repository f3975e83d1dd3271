/* forms_searched: the codec `searched` is an open choice of the form at a budget; a trained file of
 * kind "split" closes it, before anything is held. */
#include "policy/parts.h"
#include "policy/spec.h"

#include <math.h>
#include <string.h>

const uint8_t kept_searched_codec[KEPT_N_SEARCHED] = {KEPT_F16, KEPT_Q8, KEPT_ROT4, KEPT_ROT3,
                                                      KEPT_ROT2};

/* Row of the budget that is nearest in proportion. */
static size_t nearest_row(const float *budget, size_t n, double percent)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (fabs(log(budget[i] / percent)) < fabs(log(budget[best] / percent)))
            best = i;
    return best;
}

static void choose(kept_strategy *s, uint8_t codec)
{
    const kept_part *part = &kept_part_store;
    double *o = s->option[KEPT_AXIS_CODEC];
    s->part[KEPT_AXIS_CODEC] = part;
    for (int i = 0; i < part->n_options; i++)
        o[i] = part->options[i].value;
    o[KEPT_STORE_K] = o[KEPT_STORE_V] = codec;
}

kept_status kept_strategy_bind(kept_strategy *s, const kept_trained *split, kept_error *err)
{
    size_t rows = 0, n = 0;
    char name[sizeof s->name];
    bool bound = false;
    for (int i = 0; i < s->n_states; i++) {
        const bool open = kept_form_is(s->state[i], &kept_part_searched);
        const kept_status st = kept_strategy_bind(s->state[i], split, err);
        if (st)
            return st;
        bound |= open;
    }
    if (kept_form_is(s, &kept_part_searched)) {
        const float *budget = split ? kept_trained_array(split, "budget", &rows) : NULL;
        const float *kl = split ? kept_trained_array(split, "kl", &n) : NULL;
        if (!budget || !kl || !rows || n != rows * KEPT_N_SEARCHED)
            return kept_fail(err, KEPT_ARGUMENT,
                             "'%s' needs a trained file of kind 'split' with %d forms for every "
                             "budget; make it again",
                             s->name, KEPT_N_SEARCHED);
        kl += nearest_row(budget, rows, s->budget) * KEPT_N_SEARCHED;
        int best = 0;
        for (int f = 1; f < KEPT_N_SEARCHED; f++)
            best = kl[f] < kl[best] ? f : best;
        choose(s, kept_searched_codec[best]);
        bound = true;
    }
    if (!bound)
        return KEPT_OK;
    memcpy(name, s->name, sizeof name);
    const kept_status st = kept_spec_print(s, err); /* resolved says what was chosen */
    memcpy(s->name, name, sizeof name);
    return st;
}
