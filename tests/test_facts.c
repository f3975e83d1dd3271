/* test_facts: access patterns over one table of facts, read back from the samples: which fact every
 * turn asks for, in which order of the document, and what overrides what.
 */
#include "task_util.h"
#include "test.h"

typedef struct asked {
    int rank[64]; /* place in the document of each turn's fact */
    int n;
} asked;

static const char *key_of(const kept_turn *t, char key[KEPT_SECRET_CAP])
{
    const char *at = strstr(t->question, " for ");
    snprintf(key, KEPT_SECRET_CAP, "%.*s", at ? (int)strcspn(at + 5, " ") : 0, at ? at + 5 : "");
    return key;
}

/* Facts in document order; checks that every turn's answer and evidence are what the text says. */
static asked read_sample(const kept_sample *s, bool update)
{
    static char keys[512][KEPT_SECRET_CAP];
    asked a = {.n = s->n_turns};
    int n_keys = 0;
    for (const char *p = s->context; (p = strstr(p, "One of the special magic numbers for "));
         p++) {
        char key[KEPT_SECRET_CAP];
        int k = 0;
        snprintf(key, sizeof key, "%.*s", (int)strcspn(p + 37, " "), p + 37);
        while (k < n_keys && strcmp(keys[k], key))
            k++;
        CHECK(k == n_keys || update);
        if (k == n_keys)
            memcpy(keys[n_keys++], key, sizeof key);
    }
    for (int i = 0; i < s->n_turns; i++) {
        const kept_turn *t = &s->turns[i];
        char key[KEPT_SECRET_CAP], want[300];
        a.rank[i] = 0;
        while (a.rank[i] < n_keys && strcmp(keys[a.rank[i]], key_of(t, key)))
            a.rank[i]++;
        CHECK(a.rank[i] < n_keys);
        snprintf(want, sizeof want,
                 " The %sspecial magic number for %s mentioned in the provided text is",
                 update ? "latest " : "", key);
        CHECK_STR(t->answer_prefix, want);
        CHECK_INT(t->n_answers, 1);
        CHECK_INT(t->n_evidence, 1);
        /* The last line about the key has the answer. */
        const char *last = NULL;
        snprintf(want, sizeof want, "One of the special magic numbers for %s is", key);
        for (const char *p = s->context; (p = strstr(p, want)); p++)
            last = p;
        CHECK(last == s->context + t->evidence[0].begin);
        CHECK(last && strstr(last, t->answers[0]) < s->context + t->evidence[0].end);
        int again = 0;
        for (int j = i - 1; j >= 0 && !again; j--)
            again = a.rank[j] == a.rank[i] ? i - j : 0;
        CHECK_INT(t->again, again);
    }
    return a;
}

static void each(const char *name, int n_keys, int n_turns, int period,
                 void check(const asked *, int n_keys))
{
    kept_task_options o = options(name, 5000, 6);
    o.n_keys = n_keys;
    o.n_queries = n_turns;
    o.n_values = period;
    kept_task *t = must_open(&o, models[0]);
    for (int i = 0; i < 6; i++) {
        kept_sample s;
        kept_tokens k;
        must_get(t, i, &s, &k);
        CHECK_INT(s.n_turns, n_turns);
        CHECK_INT(k.n_turns, n_turns);
        CHECK(k.n_prefix + kept_task_room(t, &s, &k) <= 5000);
        CHECK(k.n_prefix + kept_task_room(t, &s, &k) > 4500);
        const asked a = read_sample(&s, !strcmp(name, "facts_update"));
        check(&a, n_keys);
        kept_tokens_clear(&k);
        kept_sample_clear(&s);
    }
    kept_task_close(t);
}

static void check_sequential(const asked *a, int n_keys)
{
    for (int i = 0; i < a->n; i++)
        CHECK_INT(a->rank[i], i % n_keys);
}

static void check_periodic(const asked *a, int n_keys)
{
    (void)n_keys;
    for (int i = 0; i < a->n; i++)
        for (int j = 0; j < i; j++)
            CHECK((a->rank[i] == a->rank[j]) == ((i - j) % 3 == 0));
}

static void check_requery(const asked *a, int n_keys)
{
    (void)n_keys;
    const int half = (a->n + 1) / 2;
    for (int i = 0; i < a->n; i++) {
        int before = 0;
        for (int j = 0; j < i; j++)
            before += a->rank[j] == a->rank[i];
        CHECK_INT(before, i >= half);
    }
}

static int hot[64], spread[64];

static void check_hotspot(const asked *a, int n_keys)
{
    int count[64] = {0}, most = 0;
    (void)n_keys;
    for (int i = 0; i < a->n; i++)
        most = ++count[a->rank[i]] > most ? count[a->rank[i]] : most;
    hot[0] += most;
}

static void check_random(const asked *a, int n_keys)
{
    (void)n_keys;
    for (int i = 0; i < a->n; i++)
        spread[a->rank[i]]++;
}

static void check_nothing(const asked *a, int n_keys)
{
    (void)a;
    (void)n_keys;
}

static void test_patterns(void)
{
    each("facts_sequential", 5, 8, 0, check_sequential);
    each("facts_periodic", 6, 8, 3, check_periodic);
    each("facts_requery", 16, 8, 0, check_requery);
    each("facts_update", 8, 8, 0, check_nothing);
    each("facts_hotspot", 8, 24, 0, check_hotspot);
    /* The hottest of 8 is asked for with probability 1 / H(8) = 0.37; the most of 24 is above. */
    CHECK(hot[0] / 6.0 > 7 && hot[0] / 6.0 < 14);
    each("facts_random", 8, 24, 0, check_random);
    for (int k = 0; k < 8; k++)
        CHECK(spread[k] > 5 && spread[k] < 36); /* 144 draws: 18 each, sd 4 */
}

/* Gold turns carry the answer before; requests do not; both place the answer prefix after a chat
 * header. */
static void test_turn_texts(void)
{
    for (int mode = 0; mode < 3; mode++)
        for (int chat = 0; chat < 2; chat++) {
            kept_task_options o = options("facts_sequential", 3000, 1);
            o.n_keys = 4;
            o.n_queries = 3;
            o.chat = chat;
            o.turns = (kept_turn_mode)mode;
            kept_task *t = must_open(&o, models[1]);
            kept_sample s;
            kept_tokens k;
            must_get(t, 0, &s, &k);
            char want[2000], head[200];
            snprintf(head, sizeof head, chat ? "<|im_end|>\n<|im_start|>assistant\n%s" : " %s",
                     s.turns[1].answer_prefix + 1);
            const char *gold = mode == KEPT_TURNS_GOLD ? s.turns[0].answers[0] : "";
            if (chat && mode != KEPT_TURNS_REQUESTS)
                snprintf(want, sizeof want, "%s%s<|im_end|>\n<|im_start|>user\n%s%s",
                         *gold ? " " : "", gold, s.turns[1].question, head);
            else
                snprintf(want, sizeof want, "%s%s%s%s", *gold ? " " : "", gold, s.turns[1].question,
                         head);
            kept_detokenize(models[1], k.suffix + k.turns[0].end, k.turns[1].end - k.turns[0].end,
                            true, text, TEXT);
            CHECK_STR(text, want);
            kept_detokenize(models[1], k.suffix + k.turns[0].end,
                            k.turns[1].question - k.turns[0].end, true, text, TEXT);
            char answer[100];
            snprintf(answer, sizeof answer, "%s%s", *gold ? " " : "", gold);
            CHECK_STR(text, answer);
            kept_tokens_clear(&k);
            kept_sample_clear(&s);
            kept_task_close(t);
        }
}

static void test_refused(void)
{
    kept_task *t = NULL;
    kept_error err;
    kept_task_options o = options("facts_periodic", 3000, 1);
    o.n_values = 99;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "a cycle of 99 facts"));
    o.n_values = 0;
    o.n_queries = 1000;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_ARGUMENT);
    o.n_queries = 4;
    o.turns = KEPT_TURNS_REQUESTS;
    o.query_aware = true;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_OK);
    kept_sample s;
    kept_tokens k;
    CHECK_INT(kept_task_get(t, 0, &s, &err), KEPT_OK);
    CHECK_INT(kept_task_tokenize(t, 0, &s, &k, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "knows one question"));
    kept_sample_clear(&s);
    kept_task_close(t);
}

int main(void)
{
    if (!task_util_open())
        return 1;
    RUN(test_patterns);
    RUN(test_turn_texts);
    RUN(test_refused);
    task_util_close();
    TEST_END();
}
