/* control: what controllers did in a run. They are told what a run knows (the kind of task, and the
 * full cache that reads along), and what they decided becomes part of the sample and of its cell.
 */
#include "bench/job.h"

#include "policy/strategy.h"

#include <math.h>
#include <stdlib.h>

/* An answered question may ask for any token; running text goes on from its last ones. */
#define HINT_ANSWER 0
#define HINT_TEXT   1

kept_status kept_control_tell(kept_work *w, int variant, kept_seq *seq, kept_seq *full,
                              kept_error *err)
{
    const bool text = w->job->tasks[w->task].kind == KEPT_TASK_SCORE;
    kept_status s = kept_seq_hint(seq, text ? HINT_TEXT : HINT_ANSWER);
    if (s || variant < KEPT_FIRST_VARIANT || !full)
        return s;
    return kept_seq_set_reference(seq, full, err);
}

static json_t *decisions_json(const kept_seq *seq, int n)
{
    kept_decision *log = kept_calloc((size_t)n + 1, sizeof *log);
    json_t *list = log ? json_array() : NULL;
    if (log)
        kept_seq_decisions(seq, log, n);
    for (int i = 0; list && i < n; i++)
        json_array_append_new(list, json_pack("[i,i,I,f]", log[i].at, log[i].state,
                                              (json_int_t)log[i].slots, log[i].signal));
    free(log);
    return list;
}

json_t *kept_control_json(const kept_seq *seq, const kept_strategy *s)
{
    int64_t tokens[KEPT_MAX_STATES] = {0};
    const int n = seq ? kept_seq_decisions(seq, NULL, 0) : 0;
    if (!n && !(s && s->n_states && seq))
        return json_null();
    json_t *c = json_object(), *states = json_object();
    kept_seq_state_tokens(seq, tokens, KEPT_MAX_STATES);
    for (int i = 0; kept_strategy_state_name(s, i); i++)
        json_object_set_new(states, kept_strategy_state_name(s, i),
                            json_integer((json_int_t)tokens[i]));
    json_object_set_new(c, "states", states);
    json_object_set_new(c, "decisions", decisions_json(seq, n));
    return c;
}

/* ---- cells ---------------------------------------------------------------------------------- */

static int switches(const json_t *decisions)
{
    const json_t *d;
    size_t i;
    json_int_t last = 0;
    int n = 0;
    json_array_foreach(decisions, i, d)
    {
        json_int_t state = json_integer_value(json_array_get(d, 1));
        n += state != last; /* a sequence starts in its first state */
        last = state;
    }
    return n;
}

static const json_t *control_of(const json_t *sample, int task, int variant)
{
    const json_t *o;
    size_t i;
    if (json_integer_value(json_object_get(sample, "task")) != task)
        return NULL;
    json_array_foreach(json_object_get(sample, "outcomes"), i, o)
    {
        const json_t *c = json_object_get(o, "control");
        if (json_integer_value(json_object_get(o, "variant")) == variant)
            return json_is_object(c) ? c : NULL;
    }
    return NULL;
}

json_t *kept_control_cell(const json_t *samples, int task, int variant)
{
    json_t *cell, *shares = json_object();
    const json_t *sample, *x;
    const char *name;
    double all = 0;
    size_t i;
    int n = 0, n_decisions = 0, n_switches = 0;
    json_array_foreach(samples, i, sample)
    {
        const json_t *c = control_of(sample, task, variant);
        json_t *states = json_object_get(c, "states");
        if (!c)
            continue;
        json_object_foreach(states, name, x)
        {
            double sum = json_number_value(json_object_get(shares, name));
            json_object_set_new(shares, name, json_real(sum + json_number_value(x)));
            all += json_number_value(x);
        }
        n_decisions += (int)json_array_size(json_object_get(c, "decisions"));
        n_switches += switches(json_object_get(c, "decisions"));
        n++;
    }
    json_object_foreach(shares, name, x)
        json_real_set((json_t *)(uintptr_t)x, all > 0 ? json_number_value(x) / all : 0);
    if (!n) {
        json_decref(shares);
        return json_null();
    }
    cell = json_object();
    json_object_set_new(cell, "states", shares);
    json_object_set_new(cell, "decisions", json_real((double)n_decisions / n));
    json_object_set_new(cell, "switches", json_real((double)n_switches / n));
    return cell;
}
