/* test_rearrange: contexts laid out otherwise (--perturb context-*), read back line by line beside
 * the same samples as they were: nothing is lost or added, facts come in their order, and where
 * they stand is told. */
#include "task_util.h"
#include "test.h"

enum { MOST = 2000 };

/* Parts of a text between separators, which are cut out in place. */
static int cut(char *s, const char *between, char **part)
{
    int n = 0;
    for (char *at = s; at && n < MOST;) {
        part[n++] = at;
        at = strstr(at, between);
        if (at) {
            *at = 0;
            at += strlen(between);
        }
    }
    return n;
}

static bool is_fact(const char *line)
{
    return strncmp(line, "One of the special magic", 24) == 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool same_set(char **a, char **b, int n)
{
    char *x[MOST], *y[MOST];
    memcpy(x, a, (size_t)n * sizeof *x);
    memcpy(y, b, (size_t)n * sizeof *y);
    qsort(x, (size_t)n, sizeof *x, by_text);
    qsort(y, (size_t)n, sizeof *y, by_text);
    bool same = true;
    for (int i = 0; i < n; i++)
        same = same && !strcmp(x[i], y[i]);
    return same;
}

/* What must hold whatever the layout: questions and answers stay, every span of evidence covers the
 * same text, and the context as it was is remembered. */
static void check_same(const kept_sample *plain, const kept_sample *s)
{
    CHECK_STR(s->plain, plain->context);
    CHECK(strcmp(s->context, plain->context));
    CHECK_INT(s->n_turns, plain->n_turns);
    for (int k = 0; k < s->n_turns; k++) {
        const kept_turn *a = &plain->turns[k], *b = &s->turns[k];
        CHECK_STR(b->question, a->question);
        CHECK_STR(b->answers[0], a->answers[0]);
        CHECK_INT(b->n_evidence, a->n_evidence);
        size_t first = SIZE_MAX;
        for (int i = 0; i < b->n_evidence; i++) {
            const size_t n = a->evidence[i].end - a->evidence[i].begin;
            CHECK_INT(b->evidence[i].end - b->evidence[i].begin, n);
            CHECK(!strncmp(s->context + b->evidence[i].begin, plain->context + a->evidence[i].begin,
                           n));
            first = b->evidence[i].begin < first ? b->evidence[i].begin : first;
        }
        if (a->depth >= 0)
            CHECK_NEAR(b->depth, (double)first / (double)strlen(s->context), 1e-12);
    }
}

typedef struct two {
    kept_task *plain, *task;
    kept_sample a, b;
} two;

static two open_two(kept_task_options o, const char *kind, int i)
{
    two x = {.plain = must_open(&o, models[0])};
    o.perturb = kind;
    x.task = must_open(&o, models[0]);
    must_get(x.plain, i, &x.a, NULL);
    must_get(x.task, i, &x.b, NULL);
    check_same(&x.a, &x.b);
    return x;
}

static void close_two(two *x)
{
    kept_sample_clear(&x->a);
    kept_sample_clear(&x->b);
    kept_task_close(x->plain);
    kept_task_close(x->task);
}

/* Noise lines: the head stays, each of the other line breaks becomes a blank line. */
static void lines_become_paragraphs(void)
{
    two x = open_two(options("niah_multikey", 2000, 4), "context-lines", 1);
    char *a[MOST], *b[MOST];
    CHECK(strstr(kept_task_label(x.task), "+context-lines"));
    const char *head = strchr(x.b.context, '\n') + 1;
    CHECK(!strncmp(x.a.context, x.b.context, (size_t)(head - x.b.context)) && *head != '\n');
    char *was = strchr(x.a.context, '\n') + 1, *is = strchr(x.b.context, '\n') + 1;
    const int n = cut(was, "\n", a);
    CHECK(n > 20);
    CHECK_INT(cut(is, "\n\n", b), n);
    for (int i = 0; i < n; i++)
        CHECK_STR(b[i], a[i]);
    close_two(&x);
}

/* One needle after k of n lines comes to stand before k of them. */
static void places_are_mirrored(void)
{
    for (int i = 0; i < 4; i++) {
        two x = open_two(options("niah_single", 2000, 4), "context-places", i);
        char *a[MOST], *b[MOST];
        const int n = cut(x.a.context, "\n", a);
        CHECK_INT(cut(x.b.context, "\n", b), n);
        for (int k = 1; k < n; k++)
            CHECK_INT(is_fact(b[k]), is_fact(a[n - k]));
        CHECK(same_set(a, b, n));
        close_two(&x);
    }
}

/* Sixteen facts of which eight are stated again: the numbers of lines between them read backwards,
 * and what is stated later stays later. */
static void facts_keep_their_order(void)
{
    two x = open_two(options("facts_update", 4000, 2), "context-places", 1);
    char *a[MOST], *b[MOST], *fact[MOST];
    int gap[MOST] = {0}, n_facts = 0, k = 0, run = 0;
    const int n = cut(x.a.context, "\n", a);
    CHECK_INT(cut(x.b.context, "\n", b), n);
    for (int i = 1; i < n; i++) {
        if (is_fact(a[i]))
            fact[n_facts++] = a[i];
        else
            gap[n_facts]++;
    }
    CHECK_INT(n_facts, 24);
    for (int i = 1; i < n; i++) {
        if (is_fact(b[i])) {
            CHECK_INT(run, gap[n_facts - k]);
            CHECK_STR(b[i], fact[k]);
            k++;
            run = 0;
        } else {
            run++;
        }
    }
    CHECK_INT(k, n_facts);
    CHECK_INT(run, gap[0]);
    close_two(&x);
}

/* Sentences of an essay change places, needles keep theirs; the order is the sample's own. */
static void order_of_what_fills(void)
{
    char essay[8000] = "";
    for (int i = 0, n = 0; i < 200; i++)
        n += snprintf(essay + n, sizeof essay - (size_t)n, "Sentence %d is here. ", i);
    write_file(essay);
    kept_task_options o = options("niah_multikey", 1500, 4);
    o.file = file;
    two x = open_two(o, "context-order", 2);
    kept_sample again;
    must_get(x.task, 2, &again, NULL);
    CHECK_STR(again.context, x.b.context);
    kept_sample_clear(&again);
    char *a[MOST], *b[MOST];
    int moved = 0;
    char *was = strchr(x.a.context, '\n') + 1, *is = strchr(x.b.context, '\n') + 1;
    CHECK(!strncmp(x.a.context, x.b.context, (size_t)(was - x.a.context)));
    const int n = cut(was, ". ", a);
    CHECK_INT(cut(is, ". ", b), n);
    /* The last sentence of the window may be cut and have no full stop: leave it out. */
    for (int i = 0; i < n; i++) {
        CHECK_INT(is_fact(b[i]), is_fact(a[i]));
        if (is_fact(a[i]))
            CHECK_STR(b[i], a[i]);
        moved += strcmp(a[i], b[i]) != 0;
    }
    CHECK(n > 40 && moved > n / 2);
    close_two(&x);
}

static const char prompts[] =
    "{\"context\":\"Notes of May.\\n\\nAnn has 42 coins.\\n\\nBob is tall.\\nHe sings.\\n\\n"
    "Cid went home.\\n\\nDan is here.\\n\\n\",\"question\":\"What has Ann?\",\"answer\":\"42\","
    "\"pin\":[\"Cid\"]}\n"
    "{\"context\":\"Log\\na 1\\nb 2\\nc 3\\nd 4\",\"question\":\"b?\",\"answer\":\"2\"}\n";

/* The user's prompts: paragraphs, or lines where there are none; the first stays, and so does what
 * stands behind the last. */
static void paragraphs_of_the_user(void)
{
    write_file(prompts);
    kept_task_options o = options("jsonl", 500, 2);
    o.file = file;
    two x = open_two(o, "context-places", 0); /* facts: Ann (evidence), Cid (pin) */
    CHECK_STR(x.b.context, "Notes of May.\n\nBob is tall.\nHe sings.\n\nAnn has 42 coins.\n\n"
                           "Dan is here.\n\nCid went home.\n\n");
    CHECK(!strncmp(x.b.context + x.b.pins[0].begin, "Cid", 3));
    CHECK_INT(x.b.pins[0].end - x.b.pins[0].begin, 3);
    close_two(&x);
    x = open_two(o, "context-places", 1);
    CHECK_STR(x.b.context, "Log\na 1\nc 3\nb 2\nd 4");
    close_two(&x);
    x = open_two(o, "context-lines", 0);
    CHECK_STR(x.b.context, "Notes of May.\n\nAnn has 42 coins.\nBob is tall.\nHe sings.\n"
                           "Cid went home.\nDan is here.\n\n");
    close_two(&x);
    for (int i = 0; i < 2; i++) {
        o.perturb = "context-order";
        kept_task *t = must_open(&o, models[0]);
        kept_sample s;
        must_get(t, i, &s, NULL);
        CHECK(!strncmp(s.context, i ? "Log\n" : "Notes of May.\n\nAnn has 42 coins.\n\n", 4));
        CHECK_INT(s.turns[0].evidence[0].begin, i ? 10 : 23); /* facts stay among their like */
        kept_sample_clear(&s);
        kept_task_close(t);
    }
}

/* Documents keep their numbers; the question's own goes to the mirrored place. */
static void documents(void)
{
    write_file("{\"data\":[{\"title\":\"A\",\"paragraphs\":[{\"context\":\"Alpha is red.\",\"qas\":"
               "[{\"question\":\"Alpha?\",\"is_impossible\":false,\"answers\":[{\"text\":\"red\"}]}"
               "]},{\"context\":\"Beta is blue.\",\"qas\":[]},{\"context\":\"Gamma is it.\","
               "\"qas\":[]},{\"context\":\"Delta is lost.\",\"qas\":[]}]}]}");
    kept_task_options o = options("qa_1", 400, 1);
    int order[4], own = 0;
    o.file = file;
    o.ruler_compat = true; /* its order of four is none that is its own mirror */
    kept_shuffle_fixed(order, 4);
    while (order[own])
        own++;
    two x = open_two(o, "context-places", 0);
    char want[64];
    snprintf(want, sizeof want, "Document %d:\nAlpha is red.", own + 1);
    CHECK(strstr(x.a.context, want));
    snprintf(want, sizeof want, "Document %d:\nAlpha is red.", 4 - own);
    CHECK(strstr(x.b.context, want));
    CHECK(strstr(x.b.context, "Document 1:\n") < strstr(x.b.context, "Document 2:\n") &&
          strstr(x.b.context, "Document 3:\n") < strstr(x.b.context, "Document 4:\n"));
    close_two(&x);
}

static void what_has_no_other_layout(void)
{
    static const struct {
        const char *task, *kind, *says;
    } cases[] = {{"niah_single", "context-order", "--haystack"},
                 {"cwe", "context-lines", "finds no lines"},
                 {"jsonl", "context-places", "finds no lines"},
                 {"niah_single", "context-oder", "did you mean 'context-order'"}};
    write_file("{\"context\":\"one\\n\\ntwo\",\"question\":\"q\",\"answer\":\"two\"}");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kept_task_options o = options(cases[i].task, 2000, 1);
        kept_task *t = NULL;
        kept_error err;
        o.file = strcmp(cases[i].task, "jsonl") ? NULL : file;
        o.perturb = cases[i].kind;
        CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_ARGUMENT);
        if (!strstr(err.text, cases[i].says))
            printf("# '%s' does not say '%s'\n", err.text, cases[i].says);
        CHECK(strstr(err.text, cases[i].says));
        CHECK(!t);
    }
}

int main(void)
{
    if (!task_util_open())
        SKIP("no models");
    RUN(lines_become_paragraphs);
    RUN(places_are_mirrored);
    RUN(facts_keep_their_order);
    RUN(order_of_what_fills);
    RUN(paragraphs_of_the_user);
    RUN(documents);
    RUN(what_has_no_other_layout);
    task_util_close();
    TEST_END();
}
