/* tokens: a sample's texts as tokens, and which of them are evidence.
 *
 * Evidence: the text of each prefix token is laid along the prompt, which gives every token its
 * bytes exactly; a token belongs to the evidence if it shares a byte with an evidence span.
 */
#include "task/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static kept_status no_memory(kept_error *err)
{
    return kept_fail(err, KEPT_NOMEM, "out of memory building a prompt");
}

kept_status kept_prompt_tokens(const kept_model *m, const char *text, size_t len, bool bos,
                               bool special, int32_t **out, int *n, kept_error *err)
{
    *out = NULL;
    *n = 0;
    if (len > KEPT_FILE_MAX)
        return kept_fail(err, KEPT_ARGUMENT, "a prompt of %zu bytes is too long", len);
    int cap = (int)len / 2 + 16;
    for (int attempt = 0; attempt < 2; attempt++) {
        int32_t *tokens = kept_calloc((size_t)cap + 1, sizeof *tokens);
        if (!tokens)
            return no_memory(err);
        const kept_status st = kept_tokenize(m, text, len, bos, special, tokens, cap, n);
        if (!st) {
            *out = tokens;
            return KEPT_OK;
        }
        free(tokens);
        if (*n <= cap)
            return kept_fail(err, st, "cannot tokenize a prompt of %zu bytes", len);
        cap = *n;
    }
    return kept_fail(err, KEPT_ARGUMENT, "the tokenizer gives no stable count");
}

/* Whether control tokens in the prompt's text count as such: those of the chat template do, and a
 * raw JSONL prompt may bring its own template. */
static bool parses_special(const kept_task *t)
{
    return t->chat || t->type->open == kept_jsonl_open;
}

/* The labels as they would go on the text before them: after white space or a blank of their own.
 */
static kept_status tokenize_labels(kept_task *t, const kept_turn *turn, bool blank,
                                   kept_turn_tokens *out, kept_error *err)
{
    kept_buf b = {0};
    out->label_end = kept_calloc((size_t)turn->n_labels, sizeof *out->label_end);
    kept_status st = out->label_end ? KEPT_OK : no_memory(err);
    for (int i = 0, all = 0; i < turn->n_labels && !st; i++) {
        int32_t *label = NULL, *more = NULL;
        int n = 0;
        b.n = 0;
        kept_buf_puts(&b, blank ? " " : "");
        kept_buf_puts(&b, turn->labels[i]);
        st = b.failed ? no_memory(err)
                      : kept_prompt_tokens(t->model, b.s, b.n, false, false, &label, &n, err);
        if (!st && !(more = realloc(out->labels, ((size_t)all + (size_t)n + 1) * sizeof *more)))
            st = no_memory(err);
        if (!st) {
            out->labels = more;
            memcpy(more + all, label, (size_t)n * sizeof *more);
            out->label_end[i] = all += n;
            out->longest = n > out->longest ? n : out->longest;
        }
        if (!st && n < 1)
            st = kept_fail(err, KEPT_ARGUMENT, "label %d of a sample of %s is empty", i + 1,
                           t->label);
        free(label);
    }
    kept_buf_free(&b);
    return st;
}

/* Appends the tokens of a text to the suffix. */
static kept_status append(kept_task *t, const char *text, size_t len, kept_tokens *out,
                          kept_error *err)
{
    int32_t *more = NULL;
    int n = 0;
    if (!len)
        return KEPT_OK;
    kept_status st =
        kept_prompt_tokens(t->model, text, len, false, parses_special(t), &more, &n, err);
    int32_t *all =
        st ? NULL : realloc(out->suffix, ((size_t)(out->n_suffix + n) + 1) * sizeof *all);
    if (all) {
        out->suffix = all;
        memcpy(all + out->n_suffix, more, (size_t)n * sizeof *all);
        out->n_suffix += n;
    }
    free(more);
    return st || all ? st : no_memory(err);
}

/* Appends the tokens of turns 1, 2, ... to the suffix. */
static kept_status tokenize_turns(kept_task *t, const kept_sample *s, const kept_prompt *first,
                                  kept_tokens *out, kept_error *err)
{
    kept_status st = KEPT_OK;
    out->turns = kept_calloc((size_t)s->n_turns, sizeof *out->turns);
    if (!out->turns)
        return no_memory(err);
    out->n_turns = s->n_turns;
    out->turns[0].end = out->n_suffix;
    if (s->turns[0].metric == KEPT_METRIC_CHOICE)
        st = tokenize_labels(t, &s->turns[0], first->n && !is_space(first->text[first->n - 1]),
                             &out->turns[0], err);
    for (int k = 1; k < s->n_turns && !st; k++) {
        char *text = NULL;
        size_t len = 0, question = 0;
        const kept_turn *turn = &s->turns[k];
        st = kept_prompt_later(t, s, k, &text, &len, &question, err);
        if (!st)
            st = append(t, text, question, out, err);
        out->turns[k].question = out->n_suffix;
        if (!st)
            st = append(t, text + question, len - question, out, err);
        out->turns[k].end = out->n_suffix;
        if (!st && out->turns[k].question == out->n_suffix)
            st = kept_fail(err, KEPT_ARGUMENT, "turn %d of a sample of %s is empty", k + 1,
                           t->label);
        if (!st && turn->metric == KEPT_METRIC_CHOICE)
            st = tokenize_labels(t, turn, !is_space(text[len - 1]), &out->turns[k], err);
        free(text);
    }
    return st;
}

static kept_status tokenize(kept_task *t, const kept_sample *s, const kept_prompt *p,
                            kept_tokens *out, kept_error *err)
{
    const bool special = parses_special(t);
    kept_status st = kept_prompt_tokens(t->model, p->text, p->split, true, special, &out->prefix,
                                        &out->n_prefix, err);
    if (!st)
        st = kept_prompt_tokens(t->model, p->text + p->split, p->n - p->split, false, special,
                                &out->suffix, &out->n_suffix, err);
    if (st)
        return st;
    /* A template may spell the BOS that the tokenizer also adds. */
    const int32_t bos = kept_token_bos(t->model);
    if (bos >= 0 && out->n_prefix > 1 && out->prefix[0] == bos && out->prefix[1] == bos)
        memmove(out->prefix, out->prefix + 1, (size_t)--out->n_prefix * sizeof *out->prefix);
    /* A step after eviction needs a token to feed. */
    if (out->n_suffix == 0 && out->n_prefix > 1)
        out->suffix[out->n_suffix++] = out->prefix[--out->n_prefix];
    if (out->n_prefix < 1 || out->n_suffix < 1)
        return kept_fail(err, KEPT_ARGUMENT, "a sample of %s is empty", t->label);
    return tokenize_turns(t, s, p, out, err);
}

/* Text of one token where another stands before it: alone, some tokenizers drop its space. Returns
 * its length; longer texts are cut to cap - 1. */
static size_t token_text(const kept_model *m, int32_t anchor, int32_t token, char *buf, size_t cap)
{
    const int32_t pair[2] = {anchor, token};
    const size_t head = kept_detokenize(m, pair, 1, true, buf, cap);
    const size_t both = kept_detokenize(m, pair, 2, true, buf, cap);
    if (both < head || both >= cap)
        return 0;
    memmove(buf, buf + head, both - head + 1);
    return both - head;
}

/* ends[i] = offset in text behind token i of tokens[0..n). false: the tokens do not spell text. */
static bool token_ends(const kept_model *m, const char *text, size_t len, const kept_tokens *k,
                       size_t *ends)
{
    size_t at = 0;
    const int32_t bos = kept_token_bos(m);
    for (int i = 0; i < k->n_prefix; i++) {
        char buf[1024];
        const char *s = buf;
        size_t n = token_text(m, k->prefix[k->n_prefix - 1], k->prefix[i], buf, sizeof buf);
        const bool fits = n <= len - at && !memcmp(text + at, s, n);
        if (!fits && i == 0 && k->prefix[i] == bos)
            n = 0; /* added, not in the text */
        else if (!fits && n && *s == ' ' && n - 1 <= len - at && !memcmp(text + at, s + 1, n - 1))
            n--; /* the space that some tokenizers put before the text */
        else if (!fits)
            return false;
        at += n;
        ends[i] = at;
    }
    return true;
}

static bool in_evidence(const kept_turn *turn, const kept_prompt *p, size_t begin, size_t end)
{
    for (int e = 0; e < turn->n_evidence; e++)
        if (begin < p->context_at + turn->evidence[e].end &&
            end > p->context_at + turn->evidence[e].begin && begin < end)
            return true;
    return false;
}

/* ends: as of token_ends, or NULL: the tokens do not spell the text. */
static kept_status find_evidence(const kept_sample *s, const kept_prompt *p, const size_t *ends,
                                 kept_tokens *out, kept_error *err)
{
    size_t n = (size_t)out->n_prefix;
    bool any = false, ok = true;
    for (int k = 0; k < s->n_turns; k++)
        any = any || s->turns[k].n_evidence > 0;
    if (!any)
        return KEPT_OK;
    out->evidence = kept_calloc(n, sizeof *out->evidence);
    for (int k = 0; k < s->n_turns && ok; k++)
        ok = (out->turns[k].evidence = kept_calloc(n, sizeof *out->evidence));
    if (!out->evidence || !ok)
        return no_memory(err);
    for (int i = 0; i < out->n_prefix && ends; i++) {
        bool hit = false;
        for (int k = 0; k < s->n_turns; k++) {
            if (!in_evidence(&s->turns[k], p, i ? ends[i - 1] : 0, ends[i]))
                continue;
            out->turns[k].evidence[out->turns[k].n_evidence++] = i;
            hit = true;
        }
        if (hit)
            out->evidence[out->n_evidence++] = i;
    }
    return KEPT_OK;
}

static void move_evidence(int32_t *list, int *n, int begin, int n_cut)
{
    int left = 0;
    for (int i = 0; i < *n; i++)
        if (list[i] < begin || list[i] >= begin + n_cut)
            list[left++] = list[i] < begin ? list[i] : list[i] - n_cut;
    *n = left;
}

/* LongBench: a prompt that is too long keeps its first and last halves of the length. */
static kept_status cut_middle(kept_task *t, const kept_sample *s, kept_tokens *k, kept_error *err)
{
    const int room = t->length - kept_task_room(t, s, k);
    if (!s->cut || k->n_prefix <= room)
        return KEPT_OK;
    if (room < 2)
        return kept_fail(err, KEPT_ARGUMENT, "%s: length %d has no room for a context", t->label,
                         t->length);
    const int half = t->length / 2, begin = half < room - 1 ? half : room - 1;
    k->n_cut = k->n_prefix - room;
    memmove(k->prefix + begin, k->prefix + begin + k->n_cut,
            (size_t)(room - begin) * sizeof *k->prefix);
    k->n_prefix = room;
    move_evidence(k->evidence, &k->n_evidence, begin, k->n_cut);
    for (int i = 0; i < k->n_turns; i++)
        move_evidence(k->turns[i].evidence, &k->turns[i].n_evidence, begin, k->n_cut);
    return KEPT_OK;
}

/* What lies where in the prefix: evidence, pins, template. */
static kept_status find_spans(kept_task *t, const kept_sample *s, const kept_prompt *p,
                              kept_tokens *out, kept_error *err)
{
    size_t *ends = kept_calloc((size_t)out->n_prefix, sizeof *ends);
    if (!ends)
        return no_memory(err);
    const bool known = token_ends(t->model, p->text, p->split, out, ends);
    kept_status st = find_evidence(s, p, known ? ends : NULL, out, err);
    if (!st)
        st = kept_spans_place(t, s, p, known ? ends : NULL, out, err);
    free(ends);
    return st;
}

/* The text task: the first `length` tokens of the window, the last score_tokens of them scored. */
static kept_status tokenize_text(kept_task *t, const kept_sample *s, kept_tokens *out,
                                 kept_error *err)
{
    int n = 0;
    kept_status st = kept_prompt_tokens(t->model, s->context, strlen(s->context), true, false,
                                        &out->prefix, &n, err);
    if (st)
        return st;
    if (n < t->length)
        return kept_fail(err, KEPT_ARGUMENT, "a sample of %s has %d tokens, not %d", t->label, n,
                         t->length);
    out->n_suffix = t->score_tokens;
    out->n_prefix = t->length - t->score_tokens;
    out->suffix = kept_calloc((size_t)out->n_suffix, sizeof *out->suffix);
    if (!out->suffix)
        return no_memory(err);
    memcpy(out->suffix, out->prefix + out->n_prefix, (size_t)out->n_suffix * sizeof *out->suffix);
    return KEPT_OK;
}

kept_status kept_task_tokenize(kept_task *t, int i, const kept_sample *s, kept_tokens *out,
                               kept_error *err)
{
    (void)i; /* the same for every index today */
    *out = (kept_tokens){0};
    kept_prompt p = {0};
    kept_status st;
    if (t->type->kind == KEPT_TASK_SCORE) {
        st = tokenize_text(t, s, out, err);
    } else {
        if (t->query_aware && t->turns == KEPT_TURNS_REQUESTS && s->n_turns > 1)
            return kept_fail(err, KEPT_ARGUMENT,
                             "%s: query-aware compression knows one question, not %d requests",
                             t->label, s->n_turns);
        st = kept_prompt_text(t, s, 0, &p, err);
        if (!st)
            st = tokenize(t, s, &p, out, err);
        if (!st)
            st = find_spans(t, s, &p, out, err);
        if (!st)
            st = cut_middle(t, s, out, err);
    }
    free(p.text);
    if (st) {
        kept_tokens_clear(out);
        return st;
    }
    /* Chained, so that the place of the bar is part of the key. */
    uint64_t h = kept_hash64(out->prefix, (size_t)out->n_prefix * sizeof *out->prefix, 0);
    h = kept_hash64(out->suffix, (size_t)out->n_suffix * sizeof *out->suffix, h);
    snprintf(out->hash, sizeof out->hash, "%016llx", (unsigned long long)h);
    return KEPT_OK;
}

int kept_task_room(const kept_task *t, const kept_sample *s, const kept_tokens *k)
{
    int most = 0, answers = 0;
    for (int i = 0; i < s->n_turns; i++) {
        const int begin = i ? k->turns[i - 1].end : 0, room = s->turns[i].max_new_tokens;
        const int before = t->turns == KEPT_TURNS_REQUESTS ? 0
                           : t->turns == KEPT_TURNS_OWN    ? begin + answers
                                                           : begin;
        const int here = before + k->turns[i].end - begin + room;
        most = here > most ? here : most;
        answers += room;
    }
    return s->n_turns ? most : k->n_suffix;
}

kept_status kept_prompt_count(kept_task *t, const kept_sample *s, int *n, kept_error *err)
{
    kept_tokens k = {0};
    kept_prompt p = {0};
    kept_status st = kept_prompt_text(t, s, 0, &p, err);
    if (!st)
        st = tokenize(t, s, &p, &k, err);
    if (!st)
        st = cut_middle(t, s, &k, err);
    *n = k.n_prefix + (st ? 0 : kept_task_room(t, s, &k));
    free(p.text);
    kept_tokens_clear(&k);
    return st;
}

void kept_tokens_clear(kept_tokens *t)
{
    for (int k = 0; k < t->n_turns; k++) {
        free(t->turns[k].evidence);
        free(t->turns[k].labels);
        free(t->turns[k].label_end);
    }
    free(t->turns);
    free(t->prefix);
    free(t->suffix);
    free(t->evidence);
    free(t->pins);
    *t = (kept_tokens){0};
}
