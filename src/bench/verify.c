/* verify: a result document that was edited, cut or mixed is refused before anybody compares with
 * it.
 */
#include "bench/verify.h"
#include "bench/doc.h"

#include "bench/run.h"

#include <errno.h>
#include <math.h>
#include <string.h>

/* Documents are written with 15 digits. */
#define TOLERANCE 1e-9

static bool is_index(const json_t *x, size_t n)
{
    return json_is_integer(x) && json_integer_value(x) >= 0 &&
           json_integer_value(x) < (json_int_t)n;
}

static kept_status check_sample(const json_t *sample, size_t i, size_t n_tasks, size_t n_variants,
                                kept_error *err)
{
    const json_t *o;
    size_t k;
    if (!is_index(json_object_get(sample, "task"), n_tasks) ||
        !is_index(json_object_get(sample, "index"), (size_t)INT32_MAX) ||
        !json_is_string(json_object_get(sample, "hash")) ||
        !json_is_array(json_object_get(sample, "outcomes")))
        return kept_fail(err, KEPT_FORMAT,
                         "sample %zu of the result has no task, index, hash or "
                         "outcomes",
                         i);
    json_array_foreach(json_object_get(sample, "outcomes"), k, o)
    {
        if (!is_index(json_object_get(o, "variant"), n_variants))
            return kept_fail(err, KEPT_FORMAT,
                             "sample %zu of the result names a row that there is "
                             "not",
                             i);
    }
    return KEPT_OK;
}

kept_status kept_result_check(const json_t *doc, kept_error *err)
{
    const char *schema = json_string_value(json_object_get(doc, "schema"));
    const json_t *samples = json_object_get(doc, "samples"), *sample;
    const size_t n_tasks = json_array_size(json_object_get(doc, "tasks"));
    const size_t n_variants = json_array_size(json_object_get(doc, "variants"));
    size_t i;
    if (!schema || strcmp(schema, KEPT_RESULT_SCHEMA))
        return kept_fail(err, KEPT_FORMAT, "is not a result of kept run");
    if (kept_doc_number(doc, "version") != KEPT_RESULT_VERSION)
        return kept_fail(err, KEPT_FORMAT,
                         "is a result of version %.0f, this kept reads version %d",
                         kept_doc_number(doc, "version"), KEPT_RESULT_VERSION);
    if (!n_tasks || n_variants < 2 || n_variants > KEPT_MAX_ROWS || !json_is_array(samples))
        return kept_fail(err, KEPT_FORMAT, "a result without tasks, rows or samples");
    json_array_foreach(samples, i, sample)
    {
        kept_status s = check_sample(sample, i, n_tasks, n_variants, err);
        if (s)
            return s;
    }
    return KEPT_OK;
}

static bool same_value(const json_t *a, const json_t *b)
{
    const json_t *x_of;
    const char *key;
    size_t i;
    if (json_is_array(a) && json_array_size(a) == json_array_size(b)) {
        json_array_foreach(a, i, x_of) if (!same_value(x_of, json_array_get(b, i))) return false;
        return true;
    }
    if (json_is_object(a) && json_is_object(b)) {
        json_object_foreach((json_t *)(uintptr_t)a, key,
                            x_of) if (!same_value(x_of, json_object_get(b, key))) return false;
        return true;
    }
    if (!json_is_number(a) || !json_is_number(b))
        return json_equal(a, b) || (!a && json_is_null(b)) || (!b && json_is_null(a));
    const double x = json_number_value(a), y = json_number_value(b);
    return fabs(x - y) <= TOLERANCE * fmax(1, fmax(fabs(x), fabs(y)));
}

/* What another version may compute in another way: all else is sums and means. */
static bool is_inference(const char *key)
{
    static const char *const keys[] = {"score_low",  "score_high", "change_low", "change_high",
                                       "bound_low",  "bound_high", "p",          "p_holm",
                                       "n_clusters", "front"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(key, keys[i]))
            return true;
    return false;
}

/* Every number of `have` that `want` has too, so that an older document may lack what is new. */
static kept_status same_cell(const json_t *doc, const json_t *have, const json_t *want,
                             kept_error *err)
{
    const json_t *variants = json_object_get(doc, "variants"), *x;
    const char *key, *by = json_string_value(json_object_get(doc, "kept"));
    const bool other = !by || strcmp(by, kept_version());
    json_object_foreach((json_t *)(uintptr_t)have, key, x)
    {
        const json_t *y = json_object_get(want, key);
        if (!y || same_value(x, y) || (other && is_inference(key)))
            continue;
        const json_t *v =
            json_array_get(variants, (size_t)json_integer_value(json_object_get(want, "variant")));
        const char *name = json_string_value(json_object_get(v, "name"));
        return kept_fail(err, KEPT_FORMAT,
                         "was changed by hand: '%s' of %s is not what its samples say", key,
                         name ? name : "a row");
    }
    return KEPT_OK;
}

static kept_status floor_is_zero(const json_t *cells, kept_error *err)
{
    const json_t *c;
    size_t i;
    json_array_foreach(cells, i, c)
    {
        if (kept_doc_number(c, "variant") != 1 || kept_doc_number(c, "failed") > 0)
            continue;
        if (kept_doc_number(c, "kl") > 0 || fabs(kept_doc_number(c, "change")) > 0)
            return kept_fail(err, KEPT_FORMAT,
                             "the full cache differs from itself: this result proves nothing");
    }
    return KEPT_OK;
}

kept_status kept_result_verify(const json_t *doc, kept_error *err)
{
    kept_status s = kept_result_check(doc, err);
    if (s)
        return s;
    json_t *want = kept_result_cells(doc);
    const json_t *have = json_object_get(doc, "cells"), *c;
    size_t i;
    if (!want)
        return kept_fail(err, KEPT_NOMEM, "out of memory for statistics");
    if (have && json_array_size(have) != json_array_size(want))
        s = kept_fail(err, KEPT_FORMAT, "was changed by hand: it has %zu cells, its samples %zu",
                      json_array_size(have), json_array_size(want));
    json_array_foreach(have, i, c) if (!s) s = same_cell(doc, c, json_array_get(want, i), err);
    if (!s)
        s = floor_is_zero(want, err);
    json_decref(want);
    return s;
}

kept_status kept_result_load(const char *path, json_t **doc, kept_error *err)
{
    json_error_t e;
    kept_error why;
    *doc = NULL;
    FILE *f = fopen(path, "rb");
    if (!f)
        return kept_fail(err, KEPT_IO, "%s: %s", path, strerror(errno));
    json_t *x = json_loadf(f, 0, &e);
    fclose(f);
    if (!x)
        return kept_fail(err, KEPT_FORMAT, "%s: line %d: %s", path, e.line, e.text);
    kept_status s = kept_result_check(x, &why);
    if (s) {
        json_decref(x);
        return kept_fail(err, s, "%s: %s", path, why.text);
    }
    *doc = x;
    return KEPT_OK;
}
