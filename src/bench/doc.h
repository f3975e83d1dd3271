/* doc: reading and writing the members of a result document (docs/result-format.md). */
#ifndef BENCH_DOC_H
#define BENCH_DOC_H

#include <jansson.h>
#include <math.h>
#include <stdbool.h>

/* NAN: not there, or no number. */
static inline double kept_doc_number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}
static inline double kept_doc_at(const json_t *list, size_t i)
{
    const json_t *x = json_array_get(list, i);
    return json_is_number(x) ? json_number_value(x) : NAN;
}
/* "": not there, or no text. */
static inline const char *kept_doc_text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}
/* Neither has it, or both the same. */
static inline bool kept_doc_same(const json_t *a, const json_t *b, const char *key)
{
    const json_t *x = json_object_get(a, key), *y = json_object_get(b, key);
    return x == y || json_equal(x, y);
}
/* null where x is not finite. */
static inline void kept_doc_put(json_t *o, const char *key, double x)
{
    json_object_set_new(o, key, isfinite(x) ? json_real(x) : json_null());
}
/* What a sample says of a variant; NULL: nothing. Outcomes mostly stand in the place of their
 * number; without that look a study of many rows would be searched rows times rows. */
static inline const json_t *kept_doc_outcome(const json_t *sample, int variant)
{
    const json_t *list = json_object_get(sample, "outcomes"), *o;
    size_t i;
    o = variant >= 0 ? json_array_get(list, (size_t)variant) : NULL;
    if (o && kept_doc_number(o, "variant") == variant)
        return o;
    json_array_foreach(list, i, o)
    {
        if (kept_doc_number(o, "variant") == variant)
            return o;
    }
    return NULL;
}

/* Text as JSON; bytes that are not UTF-8 (an answer cut inside a character) become U+FFFD. NULL s:
 * "". NULL: out of memory. result.c. */
json_t *kept_doc_clean(const char *s);

#endif
