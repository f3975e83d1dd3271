/* fuzz_jsonl: any bytes as lines of a JSONL task, and as an essay. Whatever parses must be a sample
 * whose spans lie inside its context.
 */
#include "task/parts.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check_turn(const kept_turn *t, size_t len)
{
    require(t->question && t->answer_prefix);
    require(t->n_answers >= 1 && t->max_new_tokens >= 1);
    for (int i = 0; i < t->n_answers; i++)
        require(t->answers[i][0] != 0);
    for (int i = 0; i < t->n_evidence; i++) {
        require(t->evidence[i].begin < t->evidence[i].end && t->evidence[i].end <= len);
        require(i == 0 || t->evidence[i - 1].begin <= t->evidence[i].begin);
    }
    require(t->depth >= -1 && t->depth <= 1);
}

static void check_sample(const kept_sample *s)
{
    const size_t len = strlen(s->context);
    require(len > 0 && s->n_turns >= 1);
    for (int k = 0; k < s->n_turns; k++) {
        const kept_turn *t = &s->turns[k];
        const kept_reference r = {t->answers, t->n_answers, t->labels, t->n_labels};
        check_turn(t, len);
        for (int m = 0; m < KEPT_N_METRICS && len < 300; m++) {
            const double score = kept_metric_score((kept_metric)m, s->context, &r);
            require(score >= 0 && score <= 1);
        }
    }
}

static void check_essay(const uint8_t *data, size_t n)
{
    kept_buf text = {0};
    kept_hay hay = {0};
    kept_buf_add(&text, (const char *)data, n);
    kept_hay_normalise(&text);
    if (text.n && kept_utf8_check(text.s, text.n) == text.n) {
        const size_t start = (size_t)data[0] * text.n / 256;
        require(!kept_hay_essay(&hay, text.s, text.n, start, 1 + data[n - 1] % 64));
        require(hay.n >= 1 && hay.at[hay.n] == hay.text.n);
        for (int i = 0; i < hay.n; i++)
            require(hay.at[i] < hay.at[i + 1]);
    }
    kept_hay_clear(&hay);
    kept_buf_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n > 1 << 16)
        return 0;
    for (size_t at = 0, end; at < n; at = end + 1) {
        const uint8_t *newline = memchr(data + at, '\n', n - at);
        end = newline ? (size_t)(newline - data) : n;
        kept_sample s;
        kept_error err;
        if (!kept_jsonl_parse((const char *)data + at, end - at, 1, NULL, &s, &err))
            check_sample(&s);
        else
            require(err.text[0] != 0);
        kept_sample_clear(&s);
    }
    if (n)
        check_essay(data, n);
    return 0;
}
