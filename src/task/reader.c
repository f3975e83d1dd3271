/* reader: from an object of a benchmark's file to a sample, by what its reader says. */
#include "task/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- detection ------------------------------------------------------------------------------- */

static bool has_keys(const json_t *o, const char *keys)
{
    for (const char *k = keys; *k;) {
        const size_t n = strcspn(k, ",["), all = strcspn(k, ",");
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)n, k);
        const json_t *v = json_object_get(o, name);
        if (!v || (n < all && !json_is_array(v)))
            return false;
        k += all + (k[all] == ',');
    }
    return true;
}

static bool holds(const json_t *o, const char *where)
{
    if (!where)
        return true;
    const size_t n = strcspn(where, "=~");
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)n, where);
    const char *text = json_string_value(json_object_get(o, name));
    return text &&
           (where[n] == '=' ? !strcmp(text, where + n + 1) : strstr(text, where + n + 1) != NULL);
}

const kept_reader *kept_reader_find(const json_t *o)
{
    const kept_reader *r;
    for (int i = 0; (r = kept_reader_at(i)); i++)
        if (has_keys(o, r->keys) && holds(o, r->where))
            return r;
    return NULL;
}

/* ---- mapping --------------------------------------------------------------------------------- */

/* The template with members of o in place of {key}; a member that is no text stands for nothing. */
static char *render(const char *template, const json_t *o)
{
    kept_buf b = {0};
    kept_buf_puts(&b, "");
    for (const char *s = template ? template : ""; *s;) {
        const size_t n = strcspn(s, "{"), end = s[n] ? strcspn(s + n, "}") : 0;
        char name[64];
        kept_buf_add(&b, s, n);
        s += n;
        if (!*s)
            break;
        snprintf(name, sizeof name, "%.*s", (int)end - 1, s + 1);
        const char *text = json_string_value(json_object_get(o, name));
        kept_buf_puts(&b, text ? text : "");
        s += end + 1;
    }
    if (b.failed)
        kept_buf_free(&b);
    return b.s;
}

static kept_status read_labels(const kept_reader *r, const json_t *o, int number, kept_turn *turn,
                               kept_error *err)
{
    if (!r->labels || *r->labels != '=')
        return r->labels ? kept_read_labels(json_object_get(o, r->labels), number, turn, err)
                         : KEPT_OK;
    json_t *list = json_array();
    for (const char *s = r->labels + 1; *s;) {
        const size_t n = strcspn(s, ",");
        json_array_append_new(list, json_stringn(s, n));
        s += n + (s[n] == ',');
    }
    const kept_status st = kept_read_labels(list, number, turn, err);
    json_decref(list);
    return st;
}

static kept_status map_turn(const kept_reader *r, const json_t *o, int number, kept_turn *turn,
                            kept_error *err)
{
    turn->question = render(r->question, o);
    turn->answer_prefix = render(r->prefix, o);
    turn->metric = r->metric;
    turn->max_new_tokens = r->max_new;
    if (!turn->question || !turn->answer_prefix)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    kept_status st =
        r->answers ? kept_read_answers(json_object_get(o, r->answers), number, turn, err) : KEPT_OK;
    return st ? st : read_labels(r, o, number, turn, err);
}

static kept_status split(const kept_reader *r, int number, kept_sample *out, kept_error *err)
{
    char *question = NULL;
    kept_status st = kept_split_question(out->context, r->split, &question, err);
    if (!st && *out->turns->question) {
        const size_t n = strlen(question), m = strlen(out->turns->question);
        char *both = realloc(question, n + m + 1);
        if (!both)
            st = kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
        else
            memcpy((question = both) + n, out->turns->question, m + 1);
    }
    if (st) {
        free(question);
        return st;
    }
    free(out->turns->question);
    out->turns->question = question;
    return KEPT_OK;
}

kept_status kept_reader_map(const kept_reader *r, const json_t *o, int number, kept_sample *out,
                            kept_error *err)
{
    const json_t *turns = r->turns ? json_object_get(o, r->turns) : NULL;
    const size_t n = r->turns ? json_array_size(turns) : 1;
    if (n < 1 || n > 256)
        return kept_fail(err, KEPT_FORMAT, "line %d: \"%s\" does not have 1 to 256 elements",
                         number, r->turns);
    if (kept_sample_new_turns(out, (int)n) || !(out->context = render(r->context, o)))
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    out->raw = r->raw;
    kept_status st = KEPT_OK;
    for (size_t k = 0; k < n && !st; k++)
        st = map_turn(r, turns ? json_array_get(turns, k) : o, number, &out->turns[k], err);
    if (!st && r->finish)
        st = r->finish(o, number, out, err);
    if (!st && !*out->context)
        st = kept_fail(err, KEPT_FORMAT, "line %d: the context of this %s sample is empty", number,
                       r->name);
    if (!st && r->split)
        st = split(r, number, out, err);
    for (int k = 0; k < out->n_turns && !st; k++)
        if (!out->turns[k].evidence)
            st = kept_find_evidence(out->context, &out->turns[k], number, err);
    return st;
}
