/* pairs: matches samples by the hash of their prompts' tokens. */
#include "bench/pairs.h"
#include "bench/doc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

double kept_outcome_value(const json_t *o, bool generate)
{
    const json_t *nll = json_object_get(o, "nll"), *x;
    const bool failed = !json_is_false(json_object_get(o, "failed"));
    double sum = 0;
    size_t i;
    if (generate)
        return failed ? 0 : kept_doc_number(o, "score");
    json_array_foreach(nll, i, x) sum += json_is_number(x) ? json_number_value(x) : NAN;
    return failed || !json_array_size(nll) ? NAN : sum / (double)json_array_size(nll);
}

int kept_row_find(const json_t *doc, const char *name)
{
    static const char *const keys[] = {"name", "canonical", "resolved"};
    const json_t *v;
    size_t i;
    for (int k = 0; k < 3; k++)
        json_array_foreach(json_object_get(doc, "variants"), i, v)
        {
            if (!strcmp(kept_doc_text(v, keys[k]), name))
                return (int)i;
        }
    return -1;
}

/* "HASH#k" of the k-th sample with this hash; seen: hash -> how often so far. */
static void key_of(json_t *seen, const json_t *sample, char key[64])
{
    const char *hash = kept_doc_text(sample, "hash");
    const json_int_t k = json_integer_value(json_object_get(seen, hash));
    json_object_set_new(seen, hash, json_integer(k + 1));
    snprintf(key, 64, "%.40s#%lld", hash, (long long)k);
}

/* Outcomes of a row on a task by key. */
static json_t *by_key(const json_t *doc, int task, int variant)
{
    json_t *out = json_object(), *seen = json_object();
    const json_t *sample;
    size_t i;
    char key[64];
    json_array_foreach(json_object_get(doc, "samples"), i, sample)
    {
        const json_t *o =
            kept_doc_number(sample, "task") == task ? kept_doc_outcome(sample, variant) : NULL;
        if (!o)
            continue;
        key_of(seen, sample, key);
        json_object_set(out, key, (json_t *)(uintptr_t)o);
    }
    json_decref(seen);
    return out;
}

static int cluster_of(json_t *ids, const json_t *sample)
{
    const char *name = kept_doc_text(sample, "cluster");
    name = *name ? name : kept_doc_text(sample, "hash");
    json_t *id = json_object_get(ids, name);
    if (!id) {
        id = json_integer((json_int_t)json_object_size(ids));
        json_object_set_new(ids, name, id);
    }
    return (int)json_integer_value(id);
}

kept_status kept_pairs_find(const json_t *a, int ta, int va, const json_t *b, int tb, int vb,
                            kept_pairs *out, kept_error *err)
{
    const size_t n = json_array_size(json_object_get(b, "samples"));
    json_t *before = by_key(a, ta, va), *seen = json_object(), *ids = json_object();
    const json_t *sample;
    size_t i;
    char key[64];
    *out = (kept_pairs){.pair = kept_calloc(n + 1, sizeof *out->pair)};
    if (!out->pair || !before || !seen || !ids) {
        json_decref(before);
        json_decref(seen);
        json_decref(ids);
        return kept_fail(err, KEPT_NOMEM, "out of memory for pairs");
    }
    json_array_foreach(json_object_get(b, "samples"), i, sample)
    {
        const json_t *o =
            kept_doc_number(sample, "task") == tb ? kept_doc_outcome(sample, vb) : NULL;
        if (!o)
            continue;
        key_of(seen, sample, key);
        const json_t *other = json_object_get(before, key);
        if (other)
            out->pair[out->n++] = (kept_pair){sample, other, o, cluster_of(ids, sample)};
        else
            out->n_only_after++;
    }
    out->n_only_before = (int)json_object_size(before) - out->n;
    json_decref(before); /* outcomes live on in the documents */
    json_decref(seen);
    json_decref(ids);
    return KEPT_OK;
}

void kept_pairs_clear(kept_pairs *p)
{
    free(p->pair);
    *p = (kept_pairs){0};
}

size_t kept_spec_stem(const char *spec)
{
    const char *at = strrchr(spec, '@');
    return at ? (size_t)(at - spec) : strlen(spec);
}

double kept_held_pct(const json_t *doc, int task, int variant)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(doc, "cells"), i, c)
    {
        if (kept_doc_number(c, "task") == task && kept_doc_number(c, "variant") == variant)
            return kept_doc_number(c, "held_pct");
    }
    return NAN;
}
