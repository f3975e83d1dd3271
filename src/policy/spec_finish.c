/* spec_finish: what is not named, and what parts say about each other. */
#include "policy/spec_parse.h"

#include <string.h>

/* The score has a value term and the weight axis would add another. */
static bool weighs_twice(const kept_strategy *s)
{
    const kept_score *score = kept_strategy_score(s);
    if (!score->weighs_values || s->part[KEPT_AXIS_WEIGHT] != &kept_part_values)
        return false;
    for (int i = 0; i < score->part.n_options; i++)
        if (!strcmp(score->part.options[i].name, "values"))
            return s->option[KEPT_AXIS_SCORE][i] != 0;
    return true;
}

static void set_default(kept_strategy *s, kept_axis a)
{
    s->part[a] = kept_part_default(a);
    for (int i = 0; i < s->part[a]->n_options; i++)
        s->option[a][i] = s->part[a]->options[i].value;
}

/* What may stand beside "full": what is not about eviction, and when the prompt is packed. */
static bool full_takes(const kept_strategy *s, kept_axis a)
{
    const kept_part *when = s->part[KEPT_AXIS_SCHEDULE];
    return !kept_axis_evicts(a) ||
           (a == KEPT_AXIS_SCHEDULE && kept_strategy_packs(s) &&
            (when == &kept_part_prefill || when == &kept_part_chunks || when == &kept_part_layers));
}

/* Fills the axes that were not named and checks what parts say about each other. */
static kept_status finish_plain(kept_parser *p, int budget_at)
{
    kept_strategy *s = p->out;
    bool full = s->part[KEPT_AXIS_SCORE] == &kept_score_full.part;
    if (!s->part[KEPT_AXIS_SCORE])
        return kept_fail_at(p->err, KEPT_ARGUMENT, 0,
                            "the spec names no score; write 'full', or for example "
                            "'snapkv+ada@20%%'");
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_N_AXES; a++) {
        if (s->part[a]) {
            if (full && !full_takes(s, (kept_axis)a))
                return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[a].at,
                                    "'full' evicts nothing, so it takes no %s such as '%s'",
                                    kept_axis_name((kept_axis)a), p->axis[a].name);
            continue;
        }
        set_default(s, (kept_axis)a);
    }
    if (weighs_twice(s))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_WEIGHT].at,
                            "'%s' weighs scores by values itself; leave '%s' out or turn the "
                            "score's own option values off",
                            p->axis[KEPT_AXIS_SCORE].name, p->axis[KEPT_AXIS_WEIGHT].name);
    kept_error why;
    if (kept_form_check(s, &why))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_CODEC].at, "%s", why.text);
    if (!full && kept_strategy_check(s, &why))
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_SCHEDULE].at, "%s", why.text);
    if (full && budget_at >= 0)
        return kept_fail_at(p->err, KEPT_ARGUMENT, budget_at,
                            "'full' evicts nothing, so it takes no budget");
    if (!full && budget_at < 0)
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->i,
                            "'%s' needs a budget: append @20%% (of the full cache's bytes), @512 "
                            "(tokens per KV head) or @64MiB",
                            p->axis[KEPT_AXIS_SCORE].name);
    return kept_spec_print(s, p->err);
}

/* Finishes state k with what the spec around it says. taken: axes that some state took from there,
 * and in [KEPT_N_AXES] the budget. */
static kept_status finish_state(kept_parser *p, int k, int budget_at, bool *taken)
{
    kept_nested *n = &p->state[k];
    kept_strategy *s = p->out, *t = s->state[k];
    kept_parser inner = *p;
    bool full = t->part[KEPT_AXIS_SCORE] == &kept_score_full.part;
    inner.i = n->end;
    inner.out = t;
    inner.axis = n->axis;
    if (t->part[KEPT_AXIS_READ])
        return kept_fail_at(p->err, KEPT_ARGUMENT, n->axis[KEPT_AXIS_READ].at,
                            "'%s' holds in every state, so it belongs behind the brackets of '%s'",
                            n->axis[KEPT_AXIS_READ].name, p->axis[KEPT_AXIS_CONTROLLER].name);
    if (t->part[KEPT_AXIS_REST])
        return kept_fail_at(p->err, KEPT_ARGUMENT, n->axis[KEPT_AXIS_REST].at,
                            "a sequence for which '%s' decides cannot be parked; leave '%s' out",
                            p->axis[KEPT_AXIS_CONTROLLER].name, n->axis[KEPT_AXIS_REST].name);
    for (int a = KEPT_AXIS_SCORE + 1; a < KEPT_AXIS_CONTROLLER && !full; a++)
        if (!t->part[a] && s->part[a]) {
            t->part[a] = s->part[a];
            memcpy(t->option[a], s->option[a], sizeof t->option[a]);
            n->axis[a] = p->axis[a];
            taken[a] = true;
        }
    if (!full && n->budget_at < 0 && budget_at >= 0) {
        t->budget_kind = s->budget_kind;
        t->budget = s->budget;
        n->budget_at = budget_at;
        taken[KEPT_N_AXES] = true;
    }
    return finish_plain(&inner, n->budget_at);
}

/* Parts and budget become those of the last state that evicts: see strategy.h. */
static kept_status finish_states(kept_parser *p, const kept_controller *c, int budget_at)
{
    kept_strategy *s = p->out;
    const kept_owner *by = &p->axis[KEPT_AXIS_CONTROLLER];
    const kept_strategy *last = NULL;
    bool taken[KEPT_N_AXES + 1] = {false};
    if (s->part[KEPT_AXIS_SCORE])
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_SCORE].at,
                            "'%s' takes its scores from its states, so '%s' belongs into one of "
                            "them",
                            by->name, p->axis[KEPT_AXIS_SCORE].name);
    for (int k = 0; c->states[k]; k++) {
        if (!s->state[k])
            return kept_fail_at(p->err, KEPT_ARGUMENT, by->at,
                                "'%s' needs a spec for its state '%s', as in %s=full", by->name,
                                c->states[k], c->states[k]);
        kept_status st = finish_state(p, k, budget_at, taken);
        if (st)
            return st;
        s->n_states = k + 1;
        last = kept_strategy_is_full(s->state[k]) ? last : s->state[k];
    }
    if (!last)
        return kept_fail_at(p->err, KEPT_ARGUMENT, by->at,
                            "every state of '%s' is 'full': it would never evict", by->name);
    for (int a = KEPT_AXIS_SCORE; a < KEPT_AXIS_CONTROLLER; a++) {
        if (s->part[a] && !taken[a])
            return kept_fail_at(
                p->err, KEPT_ARGUMENT, p->axis[a].at,
                "no state of '%s' takes '%s': each has a %s of its own or is 'full'", by->name,
                p->axis[a].name, kept_axis_name((kept_axis)a));
        s->part[a] = last->part[a];
        memcpy(s->option[a], last->option[a], sizeof s->option[a]);
    }
    if (budget_at >= 0 && !taken[KEPT_N_AXES])
        return kept_fail_at(p->err, KEPT_ARGUMENT, budget_at,
                            "no state of '%s' takes this budget: each has its own or is 'full'",
                            by->name);
    s->budget_kind = last->budget_kind;
    s->budget = last->budget;
    if (!s->part[KEPT_AXIS_READ])
        set_default(s, KEPT_AXIS_READ);
    if (s->part[KEPT_AXIS_REST])
        return kept_fail_at(p->err, KEPT_ARGUMENT, p->axis[KEPT_AXIS_REST].at,
                            "a sequence for which '%s' decides cannot be parked, so leave '%s' "
                            "out, or use one of its states alone",
                            by->name, p->axis[KEPT_AXIS_REST].name);
    set_default(s, KEPT_AXIS_REST);
    return kept_spec_print(s, p->err);
}

kept_status kept_spec_finish(kept_parser *p, int budget_at)
{
    const kept_part *part = p->out->part[KEPT_AXIS_CONTROLLER];
    const kept_controller *c = part ? kept_spec_controller(part) : NULL;
    return c && c->states ? finish_states(p, c, budget_at) : finish_plain(p, budget_at);
}
