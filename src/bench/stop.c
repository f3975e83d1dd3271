/* stop: see stop.h. */
#include "bench/stop.h"
#include "bench/doc.h"
#include "bench/pairs.h"
#include "bench/stats.h"

#include <stdlib.h>

#define LEVEL 0.95

struct kept_stop {
    double margin, alpha; /* alpha: of each row on each task */
    int n_tasks, n_rows;  /* strategies */
    kept_capital *row;    /* [n_tasks][n_rows] */
    int *n;               /* [n_tasks] samples looked at */
    bool *answered;       /* [n_tasks] */
};

kept_stop *kept_stop_new(const kept_job *j)
{
    kept_stop *s = kept_calloc(1, sizeof *s);
    const size_t n_tasks = (size_t)j->o->n_tasks;
    const size_t n_rows = (size_t)(j->n_variants - KEPT_FIRST_VARIANT);
    if (!s)
        return NULL;
    s->margin = j->o->stop_margin;
    s->n_tasks = (int)n_tasks;
    s->n_rows = (int)n_rows;
    s->row = kept_calloc(n_tasks * n_rows + 1, sizeof *s->row);
    s->n = kept_calloc(n_tasks, sizeof *s->n);
    s->answered = kept_calloc(n_tasks, sizeof *s->answered);
    if (!s->row || !s->n || !s->answered) {
        kept_stop_free(s);
        return NULL;
    }
    size_t hypotheses = 0;
    for (size_t t = 0; t < n_tasks; t++) {
        s->answered[t] = j->tasks[t].kind == KEPT_TASK_GENERATE;
        hypotheses += s->answered[t] ? n_rows : 0;
    }
    for (size_t i = 0; i < n_tasks * n_rows; i++)
        s->row[i] = kept_capital_new();
    s->alpha = (1 - LEVEL) / (double)(hypotheses ? hypotheses : 1);
    return s;
}

void kept_stop_free(kept_stop *s)
{
    if (!s)
        return;
    free(s->row);
    free(s->n);
    free(s->answered);
    free(s);
}

void kept_stop_take(kept_stop *s, const json_t *sample)
{
    const double t = kept_doc_number(sample, "task");
    const json_t *full = kept_doc_outcome(sample, KEPT_VARIANT_FULL);
    if (!(t >= 0 && t < s->n_tasks) || !s->answered[(int)t] || !full)
        return;
    s->n[(int)t]++;
    for (int r = 0; r < s->n_rows; r++) {
        const json_t *o = kept_doc_outcome(sample, KEPT_FIRST_VARIANT + r);
        const double diff = o ? kept_outcome_value(o, true) - kept_outcome_value(full, true) : NAN;
        if (isfinite(diff))
            (void)kept_capital_add(&s->row[(int)t * s->n_rows + r], diff, s->margin, s->alpha);
    }
}

bool kept_stop_settled(const kept_stop *s, int task)
{
    if (!s || !s->answered[task] || !s->n_rows)
        return false;
    for (int r = 0; r < s->n_rows; r++)
        if (s->row[task * s->n_rows + r].verdict == KEPT_INCONCLUSIVE)
            return false;
    return true;
}

json_t *kept_stop_json(const kept_stop *s, const kept_job *j)
{
    json_t *o = json_object(), *tasks = json_array(), *rows = json_array();
    json_object_set_new(o, "margin", json_real(s->margin));
    json_object_set_new(o, "level", json_real(LEVEL));
    for (int t = 0; t < s->n_tasks; t++) {
        if (!s->answered[t])
            continue;
        json_array_append_new(tasks,
                              json_pack("{s:i,s:i,s:i,s:b}", "task", t, "n", s->n[t], "of",
                                        j->tasks[t].n_samples, "settled", kept_stop_settled(s, t)));
        for (int r = 0; r < s->n_rows; r++) {
            const kept_capital *c = &s->row[t * s->n_rows + r];
            json_array_append_new(
                rows, json_pack("{s:i,s:i,s:s,s:i}", "task", t, "variant", KEPT_FIRST_VARIANT + r,
                                "verdict", kept_verdict_text(c->verdict), "after", c->settled_at));
        }
    }
    json_object_set_new(o, "tasks", tasks);
    json_object_set_new(o, "rows", rows);
    return o;
}
