/* selftest: the negative control, the A/A, and doctored copies. */
#include "bench/selftest.h"
#include "bench/doc.h"

#include "bench/compare.h"
#include "bench/pairs.h"
#include "bench/run.h"
#include "bench/verify.h"

#include <math.h>
#include <string.h>

static void add(json_t *checks, const char *name, bool ok, const char *what)
{
    json_array_append_new(checks,
                          json_pack("{s:s,s:b,s:s}", "name", name, "ok", (int)ok, "what", what));
}

/* A/A: every figure that may differ is exactly zero. */
static void check_floor(const json_t *doc, json_t *checks)
{
    const json_t *c = json_array_get(json_object_get(doc, "cells"), 1);
    const bool ok = kept_doc_number(c, "n") > 0 && kept_doc_number(c, "kl_max") == 0 &&
                    kept_doc_number(c, "change") == 0 && kept_doc_number(c, "regressions") == 0 &&
                    kept_doc_number(c, "improvements") == 0 && kept_doc_number(c, "top1") == 1 &&
                    kept_doc_number(c, "failed") == 0;
    char what[160];
    snprintf(what, sizeof what, "the full cache beside itself: KL at most %g, %g flips, n = %g",
             kept_doc_number(c, "kl_max"),
             kept_doc_number(c, "regressions") + kept_doc_number(c, "improvements"),
             kept_doc_number(c, "n"));
    add(checks, "same", ok, what);
}

static kept_status check_control(const json_t *doc, const char *control, double margin,
                                 json_t *checks, kept_error *err)
{
    const kept_compare_options o = {.before = doc,
                                    .after = doc,
                                    .before_name = "full",
                                    .after_name = "control",
                                    .after_row = control,
                                    .margin = margin,
                                    .nll_margin = 0.01,
                                    .level = 0.95};
    json_t *c = NULL;
    kept_status s = kept_compare(&o, &c, err);
    if (s)
        return s;
    const json_t *r = json_array_get(json_object_get(c, "rows"), 0);
    const char *verdict = json_string_value(json_object_get(r, "verdict"));
    char what[200];
    snprintf(what, sizeof what, "%.60s scores %.0f%% where the full cache scores %.0f%%: %s",
             control, 100 * kept_doc_number(r, "after_value"),
             100 * kept_doc_number(r, "before_value"), verdict);
    add(checks, "control", !strcmp(verdict, kept_verdict_text(KEPT_WORSE)), what);
    json_decref(c);
    return KEPT_OK;
}

static json_t *outcome(json_t *doc, size_t sample, size_t variant)
{
    return json_array_get(
        json_object_get(json_array_get(json_object_get(doc, "samples"), sample), "outcomes"),
        variant);
}

/* What a copy looks like once somebody improved it. */
static void improve_cell(json_t *doc, int row)
{
    json_object_set_new(json_array_get(json_object_get(doc, "cells"), (size_t)row), "score",
                        json_real(1));
}

static void improve_samples(json_t *doc, int row)
{
    for (size_t i = 0; i < json_array_size(json_object_get(doc, "samples")); i++)
        json_object_set_new(outcome(doc, i, (size_t)row), "score", json_real(1));
}

static void spoil_floor(json_t *doc, int row)
{
    (void)row;
    json_object_set_new(outcome(doc, 0, 1), "kl", json_pack("[f]", 0.01));
    json_object_set_new(doc, "cells", kept_result_cells(doc));
}

static void cut_sample(json_t *doc, int row)
{
    (void)row;
    json_array_remove(json_object_get(doc, "samples"), 0);
}

static kept_status check_doctored(const json_t *doc, int row, json_t *checks, kept_error *err)
{
    static const struct {
        const char *name;
        void (*change)(json_t *doc, int row);
    } crimes[] = {{"doctored-cell", improve_cell},
                  {"doctored-samples", improve_samples},
                  {"doctored-floor", spoil_floor},
                  {"doctored-cut", cut_sample}};
    for (size_t i = 0; i < sizeof crimes / sizeof *crimes; i++) {
        json_t *copy = json_deep_copy(doc);
        kept_error why = {.text = "nothing was noticed"};
        if (!copy)
            return kept_fail(err, KEPT_NOMEM, "out of memory");
        crimes[i].change(copy, row);
        const bool caught = kept_result_verify(copy, &why) == KEPT_FORMAT;
        add(checks, crimes[i].name, caught, why.text);
        json_decref(copy);
    }
    return KEPT_OK;
}

kept_status kept_selftest_judge(const json_t *doc, const char *control, double margin,
                                json_t **checks, kept_error *err)
{
    *checks = json_array();
    kept_error why;
    kept_status s = kept_result_check(doc, err);
    const int row = s ? -1 : kept_row_find(doc, control);
    if (!s && row < 2)
        s = kept_fail(err, KEPT_ARGUMENT, "there is no row '%s'", control);
    if (!s) {
        const bool whole = !kept_result_verify(doc, &why);
        add(*checks, "whole", whole, whole ? "the cells are what the samples say" : why.text);
        check_floor(doc, *checks);
        s = check_control(doc, control, margin, *checks, err);
    }
    if (!s)
        s = check_doctored(doc, row, *checks, err);
    if (s) {
        json_decref(*checks);
        *checks = NULL;
    }
    return s;
}

kept_status kept_selftest_again(const json_t *doc, const json_t *again, json_t *checks,
                                kept_error *err)
{
    const json_t *v;
    size_t i;
    int n = 0, differ = 0;
    json_array_foreach(json_object_get(doc, "variants"), i, v)
    {
        kept_pairs p;
        kept_status s = kept_pairs_find(doc, 0, (int)i, again, 0, (int)i, &p, err);
        if (s)
            return s;
        differ += p.n_only_before + p.n_only_after;
        for (int k = 0; k < p.n; k++, n++) {
            const bool same = json_equal(json_object_get(p.pair[k].before, "tokens"),
                                         json_object_get(p.pair[k].after, "tokens")) &&
                              json_equal(json_object_get(p.pair[k].before, "kl"),
                                         json_object_get(p.pair[k].after, "kl"));
            differ += !same;
        }
        kept_pairs_clear(&p);
    }
    char what[120];
    snprintf(what, sizeof what, "another number of threads: %d of %d outcomes differ", differ, n);
    add(checks, "threads", n > 0 && !differ, what);
    return KEPT_OK;
}
