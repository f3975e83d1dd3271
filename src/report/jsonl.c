/* jsonl: one line for every sample and row: the outcome as it is in the document, with what it is
 * an outcome of beside it. For pandas.read_json(lines=True) and the like. */
#include "report/view.h"

#include <stdlib.h>

static void copy(json_t *to, const char *key, const json_t *from, const char *name)
{
    json_t *x = json_object_get(from, name);
    if (x)
        json_object_set(to, key, x);
}

/* Mean of a list of numbers, NULL where there is none. */
static json_t *mean(const json_t *list)
{
    const json_t *x;
    double sum = 0;
    size_t i, n = 0;
    json_array_foreach(list, i, x)
    {
        if (json_is_number(x)) {
            sum += json_number_value(x);
            n++;
        }
    }
    return n ? json_real(sum / (double)n) : json_null();
}

json_t *kept_view_record(const json_t *result, const json_t *sample, const json_t *outcome)
{
    const json_t *task =
        kept_view_at(json_object_get(result, "tasks"), kept_view_number(sample, "task"));
    const json_t *variant =
        kept_view_at(json_object_get(result, "variants"), kept_view_number(outcome, "variant"));
    static const char *const of_sample[] = {"index",    "hash",       "cluster", "n_prefix",
                                            "n_suffix", "n_evidence", "depth",   "answers"};
    json_t *r = json_object();
    copy(r, "task", task, "label");
    copy(r, "kind", task, "kind");
    copy(r, "length", task, "length");
    copy(r, "strategy", variant, "name");
    copy(r, "resolved", variant, "resolved");
    for (size_t i = 0; i < sizeof of_sample / sizeof *of_sample; i++)
        copy(r, of_sample[i], sample, of_sample[i]);
    json_object_update(r, (json_t *)(uintptr_t)outcome);
    json_object_del(r, "variant");
    json_object_set_new(r, "kl_mean", mean(json_object_get(outcome, "kl")));
    json_object_set_new(r, "nll_mean", mean(json_object_get(outcome, "nll")));
    return r;
}

kept_status kept_report_jsonl(const json_t *result, FILE *out)
{
    const json_t *sample, *outcome;
    size_t i, k;
    json_array_foreach(json_object_get(result, "samples"), i, sample)
    {
        json_array_foreach(json_object_get(sample, "outcomes"), k, outcome)
        {
            json_t *r = kept_view_record(result, sample, outcome);
            const int bad = json_dumpf(r, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
            json_decref(r);
            if (bad || fputc('\n', out) == EOF)
                return KEPT_IO;
        }
    }
    return KEPT_OK;
}
