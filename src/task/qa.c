/* qa: RULER's questions about documents: qa_1 from SQuAD's dev-v2.0.json, qa_2 from HotpotQA's
 * dev distractor file, which the user brings. Documents are a question's own ones, then those of
 * the same article, then others at random, shuffled.
 */
#include "task/parts.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SPANS 64

typedef struct question {
    char *text, **answers;
    int n_answers;
    int *doc; /* [n_own + n_more] documents: its own first, then those of the same article */
    int n_own, n_more;
} question;

struct kept_qa {
    char **docs; /* [n_docs] different ones, sorted */
    int n_docs;
    question *questions; /* [n_questions] */
    int n_questions;
};

void kept_qa_close(kept_task *t)
{
    struct kept_qa *q = t->qa;
    if (!q)
        return;
    for (int i = 0; i < q->n_docs; i++)
        free(q->docs[i]);
    for (int i = 0; i < q->n_questions; i++) {
        question *x = &q->questions[i];
        for (int a = 0; a < x->n_answers; a++)
            free(x->answers[a]);
        free(x->answers);
        free(x->doc);
        free(x->text);
    }
    free(q->docs);
    free(q->questions);
    free(q);
    t->qa = NULL;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int find_doc(const struct kept_qa *q, const char *text)
{
    char *const *hit = bsearch(&text, q->docs, (size_t)q->n_docs, sizeof *q->docs, compare_texts);
    return hit ? (int)(hit - q->docs) : -1;
}

static bool add_doc(struct kept_qa *q, int *cap, char *text)
{
    if (q->n_docs == *cap) {
        const int more = *cap ? 2 * *cap : 1024;
        char **docs = realloc(q->docs, (size_t)more * sizeof *docs);
        if (docs) {
            q->docs = docs;
            *cap = more;
        }
    }
    if (!text || q->n_docs == *cap) {
        free(text);
        return false;
    }
    q->docs[q->n_docs++] = text;
    return true;
}

static void sort_docs(struct kept_qa *q)
{
    int n = 0;
    if (q->n_docs) /* qsort takes no NULL, though there is nothing to sort */
        qsort(q->docs, (size_t)q->n_docs, sizeof *q->docs, compare_texts);
    for (int i = 0; i < q->n_docs; i++)
        if (n && !strcmp(q->docs[i], q->docs[n - 1]))
            free(q->docs[i]);
        else
            q->docs[n++] = q->docs[i];
    q->n_docs = n;
}

/* A question with room for its documents. */
static question *add_question(struct kept_qa *q, const json_t *text, int n_answers, int n_docs)
{
    question *more = realloc(q->questions, ((size_t)q->n_questions + 1) * sizeof *more);
    if (!more)
        return NULL;
    q->questions = more;
    question *x = &q->questions[q->n_questions++];
    *x = (question){.text = strdup(json_string_value(text)),
                    .answers = kept_calloc((size_t)n_answers, sizeof *x->answers),
                    .doc = kept_calloc((size_t)n_docs, sizeof *x->doc)};
    return x->text && x->answers && x->doc ? x : NULL;
}

static kept_status add_answer(question *x, const json_t *answer)
{
    if (!json_string_length(answer))
        return KEPT_FORMAT;
    if (!(x->answers[x->n_answers] = strdup(json_string_value(answer))))
        return KEPT_NOMEM;
    x->n_answers++;
    return KEPT_OK;
}

static kept_status squad_question(struct kept_qa *q, const json_t *article, const json_t *own,
                                  const json_t *qa)
{
    const json_t *text = json_object_get(qa, "question"), *answers = json_object_get(qa, "answers");
    const json_t *p, *a;
    size_t i;
    if (json_is_true(json_object_get(qa, "is_impossible")))
        return KEPT_OK;
    if (!json_is_string(text) || !json_array_size(answers))
        return KEPT_FORMAT;
    question *x =
        add_question(q, text, (int)json_array_size(answers), (int)json_array_size(article) + 1);
    if (!x)
        return KEPT_NOMEM;
    json_array_foreach(answers, i, a)
    {
        const kept_status st = add_answer(x, json_object_get(a, "text"));
        if (st)
            return st;
    }
    x->doc[x->n_own++] = find_doc(q, json_string_value(json_object_get(own, "context")));
    json_array_foreach(article, i, p)
    {
        const int d = find_doc(q, json_string_value(json_object_get(p, "context")));
        if (d != x->doc[0])
            x->doc[x->n_own + x->n_more++] = d;
    }
    return KEPT_OK;
}

static kept_status read_squad(struct kept_qa *q, const json_t *root, int most)
{
    const json_t *data = json_object_get(root, "data"), *d, *p, *qa;
    size_t i, j, k;
    int cap = 0;
    kept_status st = json_array_size(data) ? KEPT_OK : KEPT_FORMAT;
    json_array_foreach(data, i, d)
    {
        json_array_foreach(json_object_get(d, "paragraphs"), j, p)
        {
            const char *text = json_string_value(json_object_get(p, "context"));
            if (!text)
                return KEPT_FORMAT;
            if (!add_doc(q, &cap, strdup(text)))
                return KEPT_NOMEM;
        }
    }
    if (!st)
        sort_docs(q);
    json_array_foreach(data, i, d)
    {
        const json_t *article = json_object_get(d, "paragraphs");
        json_array_foreach(article, j, p)
        {
            json_array_foreach(json_object_get(p, "qas"), k, qa)
            {
                if (!st && q->n_questions < most)
                    st = squad_question(q, article, p, qa);
            }
        }
    }
    return st;
}

/* "title\nsentences" */
static char *hotpot_doc(const json_t *pair)
{
    const json_t *sentence;
    size_t i;
    kept_buf b = {0};
    const char *title = json_string_value(json_array_get(pair, 0));
    kept_buf_puts(&b, title ? title : "");
    kept_buf_puts(&b, "\n");
    json_array_foreach(json_array_get(pair, 1), i, sentence) if (json_is_string(sentence))
        kept_buf_puts(&b, json_string_value(sentence));
    if (b.failed || !title)
        kept_buf_free(&b);
    return b.s;
}

static kept_status hotpot_question(struct kept_qa *q, const json_t *d)
{
    const json_t *docs = json_object_get(d, "context"), *text = json_object_get(d, "question");
    const json_t *pair;
    size_t i;
    if (!json_is_string(text) || !json_array_size(docs))
        return KEPT_FORMAT;
    question *x = add_question(q, text, 1, (int)json_array_size(docs));
    if (!x)
        return KEPT_NOMEM;
    json_array_foreach(docs, i, pair)
    {
        char *doc = hotpot_doc(pair);
        if (!doc)
            return KEPT_FORMAT;
        const int found = find_doc(q, doc);
        free(doc);
        bool known = false;
        for (int k = 0; k < x->n_own; k++)
            known = known || x->doc[k] == found;
        if (!known)
            x->doc[x->n_own++] = found;
    }
    return add_answer(x, json_object_get(d, "answer"));
}

static kept_status read_hotpot(struct kept_qa *q, const json_t *root, int most)
{
    const json_t *d, *pair;
    size_t i, j;
    int cap = 0;
    kept_status st = json_is_array(root) && json_array_size(root) ? KEPT_OK : KEPT_FORMAT;
    json_array_foreach(root, i, d)
    {
        json_array_foreach(json_object_get(d, "context"), j, pair)
        {
            char *doc = hotpot_doc(pair);
            if (!doc)
                return KEPT_FORMAT;
            if (!add_doc(q, &cap, doc))
                return KEPT_NOMEM;
        }
    }
    if (!st)
        sort_docs(q);
    json_array_foreach(root, i, d) if (!st && q->n_questions < most) st = hotpot_question(q, d);
    return st;
}

/* ---- samples --------------------------------------------------------------------------------- */

static const char qa_rule[] = "Answer the question based on the given documents. Only give me the "
                              "answer and do not output any other words.";

/* Picks n documents of a question into pick: its own, then the article's, then any. */
static void pick_docs(const struct kept_qa *q, const question *x, kept_rng *rng, int n, int *pick)
{
    int have = x->n_own;
    memcpy(pick, x->doc, (size_t)x->n_own * sizeof *pick);
    const int room = n - have, more = x->n_more < room ? x->n_more : room;
    int left = x->n_more;
    /* Sampling without replacement: each of the article's is taken with the share still needed. */
    for (int i = 0, need = more; i < x->n_more && need; i++, left--)
        if ((int)kept_rng_below(rng, (uint32_t)left) < need) {
            pick[have++] = x->doc[x->n_own + i];
            need--;
        }
    left = q->n_docs - have;
    for (int d = 0; d < q->n_docs && have < n; d++) {
        bool taken = false;
        for (int i = 0; i < x->n_own + x->n_more && !taken; i++)
            taken = x->doc[i] == d;
        if (taken)
            continue;
        if ((int)kept_rng_below(rng, (uint32_t)left) < n - have)
            pick[have++] = d;
        left--;
    }
}

/* Marks the references in s[begin..end) of the context. */
static void mark(kept_turn *turn, const char *s, size_t begin, size_t end)
{
    for (int a = 0; a < turn->n_answers; a++) {
        const char *answer = turn->answers[a];
        const size_t n = strlen(answer);
        if (!strcmp(answer, "yes") || !strcmp(answer, "no"))
            continue; /* not a place in a document */
        const char *hit = memmem(s + begin, end - begin, answer, n);
        if (hit && turn->n_evidence < MAX_SPANS)
            turn->evidence[turn->n_evidence++] =
                (kept_span_chars){(size_t)(hit - s), (size_t)(hit - s) + n};
    }
}

static int compare_spans(const void *a, const void *b)
{
    const kept_span_chars *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Documents in their order, and where the question's own came to stand. */
static bool write_docs(const struct kept_qa *q, const question *x, const int *pick,
                       const int *order, int n, kept_buf *out, kept_sample *sample)
{
    kept_turn *turn = sample->turns;
    int own_at = n;
    sample->pieces = kept_calloc((size_t)n, sizeof *sample->pieces);
    if (!sample->pieces)
        return false;
    for (int i = 0; i < n; i++) {
        char head[40];
        snprintf(head, sizeof head, "%sDocument %d:\n", i ? "\n\n" : "", i + 1);
        kept_buf_puts(out, head);
        const size_t begin = out->n;
        kept_buf_puts(out, q->docs[pick[order[i]]]);
        sample->pieces[sample->n_pieces++] = (kept_piece){begin, out->n, order[i] < x->n_own};
        if (order[i] >= x->n_own || out->failed)
            continue;
        own_at = i < own_at ? i : own_at;
        mark(turn, out->s, begin, out->n);
    }
    qsort(turn->evidence, (size_t)turn->n_evidence, sizeof *turn->evidence, compare_spans);
    turn->depth = x->n_own == 1 ? (double)own_at / n : -1;
    return !out->failed;
}

static bool fill(const question *x, kept_sample *out)
{
    kept_turn *turn = out->turns;
    kept_buf ask = {0};
    kept_buf_puts(&ask, "\n\n");
    kept_buf_puts(&ask, qa_rule);
    kept_buf_puts(&ask, "\n\nQuestion: ");
    kept_buf_puts(&ask, x->text);
    turn->question = ask.s;
    turn->answer_prefix = strdup(" Answer:");
    turn->answers = kept_calloc((size_t)x->n_answers, sizeof *turn->answers);
    turn->evidence = kept_calloc(MAX_SPANS, sizeof *turn->evidence);
    turn->metric = KEPT_METRIC_ANY;
    turn->max_new_tokens = 32;
    if (ask.failed || !turn->answer_prefix || !turn->answers || !turn->evidence)
        return false;
    for (; turn->n_answers < x->n_answers; turn->n_answers++)
        if (!(turn->answers[turn->n_answers] = strdup(x->answers[turn->n_answers])))
            return false;
    return true;
}

kept_status kept_qa_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    const struct kept_qa *q = t->qa;
    const question *x = &q->questions[i];
    int n = x->n_own + units - 1;
    n = n > q->n_docs ? q->n_docs : n;
    *out = (kept_sample){0};
    kept_rng rng;
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    int *pick = kept_calloc((size_t)n, sizeof *pick),
        *order = kept_calloc((size_t)n, sizeof *order);
    kept_buf b = {0};
    bool ok = pick && order && !kept_sample_new_turns(out, 1) && fill(x, out);
    if (ok) {
        pick_docs(q, x, &rng, n, pick);
        kept_task_shuffle(t, &rng, order, n);
        kept_buf_puts(&b, qa_rule);
        kept_buf_puts(&b, "\n\nThe following are given documents.\n\n");
        ok = write_docs(q, x, pick, order, n, &b, out);
        out->context = b.s;
    }
    free(pick);
    free(order);
    if (ok)
        return KEPT_OK;
    kept_sample_clear(out);
    return kept_fail(err, KEPT_NOMEM, "out of memory building sample %d of %s", i, t->label);
}

kept_status kept_qa_read(kept_task *t, const char *text, size_t n, bool squad, kept_error *err)
{
    json_error_t e;
    json_t *root = json_loadb(text, n, 0, &e);
    if (!root)
        return kept_fail(err, KEPT_FORMAT, "%s line %d: %s", t->file, e.line, e.text);
    t->qa = kept_calloc(1, sizeof *t->qa);
    const kept_status st = !t->qa  ? KEPT_NOMEM
                           : squad ? read_squad(t->qa, root, t->n_samples)
                                   : read_hotpot(t->qa, root, t->n_samples);
    json_decref(root);
    if (st == KEPT_NOMEM)
        return kept_fail(err, st, "out of memory reading %s", t->file);
    if (st || t->qa->n_questions < 1)
        return kept_fail(err, KEPT_FORMAT, "%s is not %s", t->file,
                         squad ? "SQuAD 2.0 as dev-v2.0.json is"
                               : "HotpotQA as hotpot_dev_distractor_v1.json is");
    t->n_samples = t->qa->n_questions;
    return KEPT_OK;
}

kept_status kept_qa_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    const char *slash = strrchr(t->file, '/');
    kept_task_set_label(t, slash ? slash + 1 : t->file);
    kept_status st = kept_buf_read_file(t->file, &t->text, err);
    if (!st)
        st = kept_qa_read(t, t->text.s ? t->text.s : "", t->text.n,
                          !strcmp(t->type->reads, "squad"), err);
    kept_buf_free(&t->text);
    return st ? st : kept_size_find(t, err);
}
