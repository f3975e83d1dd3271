/* spans: what the strategies of a sample may be told of its tokens: pinned spans of the context,
 * and which tokens are the chat template's.
 */
#include "task/parts.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static kept_status bad_pin(int number, size_t i, const char *what, kept_error *err)
{
    return kept_fail(err, KEPT_FORMAT, "line %d: \"pin\", item %zu %s", number, i + 1, what);
}

/* One item of "pin": [begin, end] in bytes of the context, or a text: the first place where it
 * stands. */
static kept_status read_pin(const json_t *v, size_t i, int number, kept_sample *s, kept_error *err)
{
    const size_t len = strlen(s->context);
    kept_span_chars *pin = &s->pins[s->n_pins];
    if (json_is_string(v)) {
        const char *hit = json_string_length(v) ? strstr(s->context, json_string_value(v)) : NULL;
        if (!hit)
            return bad_pin(number, i, "does not stand in the context", err);
        *pin = (kept_span_chars){(size_t)(hit - s->context), 0};
        pin->end = pin->begin + json_string_length(v);
    } else {
        const json_int_t begin = json_integer_value(json_array_get(v, 0));
        const json_int_t end = json_integer_value(json_array_get(v, 1));
        if (json_array_size(v) != 2 || !json_is_integer(json_array_get(v, 0)) ||
            !json_is_integer(json_array_get(v, 1)))
            return bad_pin(number, i, "is neither a text nor [begin, end]", err);
        if (begin < 0 || end <= begin || (uint64_t)end > len)
            return kept_fail(err, KEPT_FORMAT,
                             "line %d: \"pin\", item %zu is outside of the context, which has %zu "
                             "bytes",
                             number, i + 1, len);
        *pin = (kept_span_chars){(size_t)begin, (size_t)end};
    }
    s->n_pins++;
    return KEPT_OK;
}

kept_status kept_pins_read(const json_t *o, int number, kept_sample *s, kept_error *err)
{
    const json_t *v = json_object_get(o, "pin");
    if (!v)
        return KEPT_OK;
    const size_t n = json_array_size(v);
    if (!json_is_array(v) || n < 1 || n > KEPT_MAX_SAMPLE_PINS)
        return kept_fail(err, KEPT_FORMAT,
                         "line %d: \"pin\" is not an array of 1 to %d texts or [begin, end]",
                         number, KEPT_MAX_SAMPLE_PINS);
    s->pins = kept_calloc(n, sizeof *s->pins);
    if (!s->pins)
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    kept_status st = KEPT_OK;
    for (size_t i = 0; i < n && !st; i++)
        st = read_pin(json_array_get(v, i), i, number, s, err);
    return st;
}

/* Tokens of prefix that share a byte with [begin, end) of the prompt. */
static kept_span_tokens tokens_of(const kept_tokens *k, const size_t *ends, size_t begin,
                                  size_t end)
{
    kept_span_tokens x = {-1, 0};
    begin = begin > end ? 0 : begin; /* its first bytes were stripped by the template */
    for (int i = 0; i < k->n_prefix; i++) {
        const size_t from = i ? ends[i - 1] : 0;
        if (from >= end || ends[i] <= begin || from == ends[i])
            continue;
        x.begin = x.begin < 0 ? i : x.begin;
        x.end = i + 1;
    }
    return x;
}

kept_status kept_spans_place(const kept_task *t, const kept_sample *s, const kept_prompt *p,
                             const size_t *ends, kept_tokens *out, kept_error *err)
{
    if (s->n_pins && !ends)
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "%s: the tokens do not spell the text, so nothing can be pinned",
                         t->label);
    while (t->chat && !s->raw && ends && out->n_template < out->n_prefix &&
           ends[out->n_template] <= t->chat_begin)
        out->n_template++;
    if (!s->n_pins)
        return KEPT_OK;
    out->pins = kept_calloc((size_t)s->n_pins, sizeof *out->pins);
    if (!out->pins)
        return kept_fail(err, KEPT_NOMEM, "out of memory for pinned spans");
    for (int i = 0; i < s->n_pins; i++) {
        out->pins[out->n_pins] =
            tokens_of(out, ends, p->context_at + s->pins[i].begin, p->context_at + s->pins[i].end);
        out->n_pins += out->pins[out->n_pins].begin >= 0;
    }
    return KEPT_OK;
}
