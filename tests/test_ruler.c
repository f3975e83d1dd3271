/* test_ruler: RULER's other tasks. What a sample must be is read back from its text by the
 * published construction; orders are compared with what CPython's shuffle gives.
 */
#include "task_util.h"
#include "test.h"

/* The fuzzer's entry is called here with mutations, so that every test run has some fuzzing. */
#include "fuzz/fuzz_qa.c"

/* import random; l = list(range(n)); random.Random(42).shuffle(l) */
static void test_fixed_order(void)
{
    static const int ten[] = {7, 3, 2, 8, 5, 6, 9, 4, 0, 1};
    /* l.index(0), which is where RULER's qa_1 has its gold document */
    static const int gold[][2] = {{20, 18},  {25, 22},  {30, 27},  {60, 26},
                                  {120, 84}, {250, 88}, {500, 308}};
    static int order[500];
    kept_shuffle_fixed(order, 10);
    for (int i = 0; i < 10; i++)
        CHECK_INT(order[i], ten[i]);
    for (size_t k = 0; k < sizeof gold / sizeof *gold; k++) {
        kept_shuffle_fixed(order, gold[k][0]);
        CHECK_INT(order[gold[k][1]], 0);
    }
}

static void check_size(const kept_sample *s, const kept_tokens *k, int length, int slack)
{
    const int all = k->n_prefix + k->n_suffix + s->turns[0].max_new_tokens;
    CHECK(all <= length && all >= length - slack);
    CHECK_INT(s->n_turns, 1);
    CHECK_INT(k->turns[0].end, k->n_suffix);
}

/* ---- vt -------------------------------------------------------------------------------------- */

static const char vt_head[] =
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n";

/* The chain that begins with `value` in text[0..end): names into name, where the lines stand. */
static int follow(const char *from, const char *end, const char *value, char name[8][8])
{
    char want[64];
    int n = 0;
    const char *at = from;
    for (; n < 8; n++) {
        const char *hit = NULL;
        for (const char *p = at; (p = strstr(p, "VAR ")) && p < end && !hit; p++) {
            const size_t len = strcspn(p + 4, " ");
            snprintf(want, sizeof want, n ? " = VAR %s " : " = %s ", n ? name[n - 1] : value);
            if (!strncmp(p + 4 + len, want, strlen(want))) {
                snprintf(name[n], 8, "%.*s", (int)len, p + 4);
                hit = p;
            }
        }
        if (!hit)
            break;
        at = hit + 4; /* the lines of a chain stand in order */
    }
    return n;
}

static void check_vt(const kept_sample *s, int *example_lines)
{
    static const char noise[] = "The grass is green. The sky is blue. The sun is yellow. Here we "
                                "go. There and back again.\n";
    char value[16] = "", question[200], prefix[300], name[8][8];
    const kept_turn *t = &s->turns[0];
    const char *body = strstr(s->context + 1, vt_head);
    CHECK(!strncmp(s->context, vt_head, strlen(vt_head)) && body &&
          !strncmp(body - 4, "\n\n\n\n", 4));
    CHECK_INT(sscanf(t->question, "\nQuestion: Find all variables that are assigned the value %15s",
                     value),
              1);
    snprintf(question, sizeof question,
             "\nQuestion: Find all variables that are assigned the value %s in the text above.",
             value);
    CHECK_STR(t->question, question);
    snprintf(
        prefix, sizeof prefix,
        " Answer: According to the chain(s) of variable assignment in the text above, 5 variables "
        "are assigned the value %s, they are: ",
        value);
    CHECK_STR(t->answer_prefix, prefix);
    CHECK_INT(follow(body, body + strlen(body), value, name), 5);
    CHECK_INT(t->n_answers, 5);
    CHECK_INT(t->n_evidence, 5);
    for (int i = 0; i < 5 && i < t->n_answers; i++) {
        CHECK_STR(t->answers[i], name[i]);
        CHECK(strlen(name[i]) == 5 && strspn(name[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5);
        CHECK(!strncmp(s->context + t->evidence[i].begin, "VAR ", 4));
        CHECK(!strncmp(s->context + t->evidence[i].begin + 4, name[i], 5));
    }
    /* Nothing but noise and the chain is there, and the example has the same shape. */
    char example_value[16] = "", solved[64];
    const char *ask = strstr(s->context, "assigned the value ");
    CHECK(ask && ask < body && sscanf(ask, "assigned the value %15s", example_value) == 1);
    CHECK_INT(follow(s->context, ask, example_value, name), 5);
    snprintf(solved, sizeof solved, "they are:  %s %s %s %s %s\n", name[0], name[1], name[2],
             name[3], name[4]);
    CHECK(strstr(s->context, solved) && strlen(name[4]) == 3);
    int lines = 0;
    for (const char *p = s->context; (p = strstr(p, noise)) && p < body; p++)
        lines++;
    CHECK_INT(lines % 5, 0);
    *example_lines = lines;
    CHECK(s->context[strlen(s->context) - 1] == '\n' && strlen(body) > 500);
}

static void test_vt(void)
{
    for (int m = 0; m < n_models; m++) {
        kept_task_options o = options("vt", 6000, 4);
        kept_task *t = must_open(&o, models[m]);
        char seen[4][16];
        for (int i = 0; i < 4; i++) {
            kept_sample s;
            kept_tokens k;
            int lines, n = 0;
            int32_t *tokens = NULL;
            kept_error err;
            must_get(t, i, &s, &k);
            check_size(&s, &k, 6000, 200);
            check_vt(&s, &lines);
            CHECK(s.turns[0].metric == KEPT_METRIC_ALL && s.turns[0].max_new_tokens == 30);
            /* The example takes at most 500 tokens with 30 to spare, five more lines would not. */
            const size_t len = (size_t)(strstr(s.context + 1, vt_head) - s.context);
            CHECK(!kept_prompt_tokens(models[m], s.context, len, false, false, &tokens, &n, &err));
            CHECK((n + 30 <= 505 || lines == 5) && n + 30 + (n * 5) / lines > 480);
            free(tokens);
            snprintf(seen[i], sizeof *seen, "%s", s.turns[0].answers[0]);
            for (int j = 0; j < i; j++)
                CHECK(strcmp(seen[i], seen[j]) != 0);
            kept_tokens_clear(&k);
            kept_sample_clear(&s);
        }
        kept_task_close(t);
    }
}

/* ---- cwe ------------------------------------------------------------------------------------- */

typedef struct counted {
    char word[KEPT_SECRET_CAP];
    int n, first;
} counted;

static counted table[4000];

/* Reads "1. a 2. b ..." up to a newline into the table; returns the number of different words. */
static int count_list(const char *p, int *n_items)
{
    int n = 0, number, used, i = 0;
    char word[KEPT_SECRET_CAP];
    while (*p && *p != '\n' && sscanf(p, "%d. %47s%n", &number, word, &used) == 2) {
        CHECK_INT(number, ++i);
        int k = 0;
        while (k < n && strcmp(table[k].word, word))
            k++;
        if (k == n) {
            table[n] = (counted){.first = i};
            snprintf(table[n++].word, sizeof word, "%s", word);
        }
        table[k].n++;
        p += used;
        p += *p == ' ';
    }
    CHECK(*p == '\n');
    *n_items = i;
    return n;
}

static void check_cwe(const kept_sample *s, int often, int seldom, int ex_often, int ex_seldom,
                      int ex_words)
{
    static const char head[] =
        "Below is a numbered list of words. In these words, some appear more often than others. "
        "Memorize the ones that appear most often.\n";
    static const char ask[] = "\nQuestion: What are the 10 most common words in the above list?";
    static const char answer[] =
        " Answer: The top 10 words that appear most often in the list are:";
    const kept_turn *t = &s->turns[0];
    int n_items, n, n_often = 0;
    CHECK_STR(t->question, ask);
    CHECK_STR(t->answer_prefix, answer);
    CHECK(!strncmp(s->context, head, strlen(head)));
    n = count_list(s->context + strlen(head), &n_items);
    CHECK_INT(n, ex_words);
    CHECK_INT(n_items, 10 * ex_often + (ex_words - 10) * ex_seldom);
    const char *solved = strstr(s->context, answer) + strlen(answer), *body = strstr(solved, head);
    CHECK(!strncmp(solved, "1. ", 3) && body && body[-1] == '\n');
    for (int k = 0; k < n; k++)
        n_often += table[k].n == ex_often && strstr(solved, table[k].word) < body;
    CHECK(n_often >= 10); /* a word that is part of another may be found too */
    /* The list ends where the context does. */
    static char list[1 << 18];
    snprintf(list, sizeof list, "%s\n", body + strlen(head));
    n = count_list(list, &n_items);
    CHECK_INT(n_items, 10 * often + (n - 10) * seldom);
    CHECK_INT(t->n_answers, 10);
    for (int k = 0, hits = 0; k < n; k++) {
        bool asked = false;
        for (int a = 0; a < t->n_answers; a++)
            asked |= !strcmp(t->answers[a], table[k].word);
        CHECK_INT(table[k].n, asked ? often : seldom);
        hits += asked;
        CHECK(k + 1 < n || hits == 10);
    }
}

/* Where the first common word stands first: one place in RULER's layout, not in ours. */
static void check_places(kept_task *t, bool compat)
{
    int place[3], n_items;
    for (int i = 0; i < 3; i++) {
        kept_sample s;
        kept_error err;
        static char list[1 << 18];
        CHECK_INT(kept_cwe_build(t, i, 90, &s, &err), KEPT_OK);
        snprintf(list, sizeof list, "%s\n", strrchr(s.context, '\n') + 1);
        const int n = count_list(list, &n_items);
        place[i] = 0;
        for (int k = 0; k < n; k++)
            if (!strcmp(table[k].word, s.turns[0].answers[0]))
                place[i] = table[k].first;
        CHECK(place[i] > 0);
        kept_sample_clear(&s);
    }
    CHECK(compat == (place[0] == place[1] && place[1] == place[2]));
}

static void test_cwe(void)
{
    kept_task_options o = options("cwe", 3900, 3);
    for (int longer = 0; longer < 2; longer++)
        for (int compat = 0; compat < 2; compat++) {
            o.length = longer ? 7000 : 3900;
            o.ruler_compat = compat;
            kept_task *t = must_open(&o, models[n_models - 1]);
            for (int i = 0; i < 3; i++) {
                kept_sample s;
                kept_tokens k;
                must_get(t, i, &s, &k);
                check_size(&s, &k, o.length, 300);
                if (longer)
                    check_cwe(&s, 30, 3, 10, 3, 40);
                else
                    check_cwe(&s, 6, 1, 3, 1, 20);
                kept_tokens_clear(&k);
                kept_sample_clear(&s);
            }
            check_places(t, compat);
            kept_task_close(t);
        }
    write_file("one\r\ntwo\r\nthree\n");
    o.file = file;
    kept_task *t = NULL;
    kept_error err;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_FORMAT);
    CHECK(strstr(err.text, "holds 3 words, one a line; at least 20"));
}

/* Words of the user's list come first. */
static void test_cwe_words(void)
{
    char list[4000] = "";
    size_t n = 0;
    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "w%d\r\n", i);
    write_file(list);
    kept_task_options o = options("cwe", 3900, 1);
    o.file = file;
    kept_task *t = must_open(&o, models[0]);
    kept_sample s;
    must_get(t, 0, &s, NULL);
    for (int a = 0; a < 10; a++)
        CHECK(s.turns[0].answers[a][0] == 'w' && atoi(s.turns[0].answers[a] + 1) < 300);
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* ---- fwe ------------------------------------------------------------------------------------- */

static void check_fwe(const kept_sample *s, int length)
{
    static const char head[] =
        "Read the following coded text and track the frequency of each coded word. Find the three "
        "most frequently appeared coded words. ";
    const kept_turn *t = &s->turns[0];
    CHECK_STR(t->question, "\nQuestion: Do not provide any explanation. Please ignore the dots "
                           "'....'. What are the three most frequently appeared words in the above "
                           "coded text?");
    CHECK_STR(t->answer_prefix, " Answer: According to the coded text above, the three most "
                                "frequently appeared words are:");
    CHECK(!strncmp(s->context, head, strlen(head)));
    memset(table, 0, sizeof table);
    int n = 0, all = 0, dots = 0;
    char *copy = strdup(s->context + strlen(head));
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " "), all++) {
        if (!strcmp(w, "...")) {
            dots++;
            continue;
        }
        CHECK(strlen(w) == 6 && strspn(w, "abcdefghijklmnopqrstuvwxyz") == 6);
        int k = 0;
        while (k < n && strcmp(table[k].word, w))
            k++;
        snprintf(table[k].word, KEPT_SECRET_CAP, "%s", w);
        table[k].n++;
        n += k == n;
    }
    free(copy);
    CHECK(n <= (length - 50) / 50 - 1);
    CHECK_NEAR((double)dots / all, 0.62, 0.04); /* 6 / pi^2 of the words, before rounding down */
    /* Some number of words N gives all counts: floor(N / (k^2 zeta(2))). */
    int total = (int)(dots * 1.6449340668482264), counts[4] = {0};
    for (int rank = 1; rank < 4; rank++)
        for (int k = 0; k < n; k++)
            if (!strcmp(table[k].word, t->answers[rank - 1]))
                counts[rank] = table[k].n;
    bool fits = false;
    for (int more = 0; more < 3 && !fits; more++) {
        fits = (int)((total + more) / 1.6449340668482264) == dots;
        for (int rank = 1; rank < 4; rank++)
            fits &= (int)((total + more) / ((rank + 1) * (rank + 1) * 1.6449340668482264)) ==
                    counts[rank];
    }
    CHECK(fits);
    for (int k = 0; k < n; k++)
        CHECK(table[k].n < counts[3] || !strcmp(table[k].word, t->answers[0]) ||
              !strcmp(table[k].word, t->answers[1]) || !strcmp(table[k].word, t->answers[2]));
}

static void test_fwe(void)
{
    for (int m = 0; m < n_models; m++) {
        kept_task_options o = options("fwe", 5000, 3);
        kept_task *t = must_open(&o, models[m]);
        for (int i = 0; i < 3; i++) {
            kept_sample s;
            kept_tokens k;
            must_get(t, i, &s, &k);
            check_size(&s, &k, 5000, 300);
            check_fwe(&s, 5000);
            kept_tokens_clear(&k);
            kept_sample_clear(&s);
        }
        kept_task_close(t);
    }
}

/* ---- qa -------------------------------------------------------------------------------------- */

static const char squad[] =
    "{\"version\":\"v2.0\",\"data\":[{\"title\":\"A\",\"paragraphs\":["
    "{\"context\":\"Alpha is red.\",\"qas\":["
    "{\"question\":\"What is blank?\",\"is_impossible\":true,\"answers\":[]},"
    "{\"question\":\"What is Alpha?\",\"is_impossible\":false,\"answers\":[{\"text\":\"red\"},"
    "{\"text\":\"is red\"}]}]},"
    "{\"context\":\"Beta is blue.\",\"qas\":[{\"question\":\"What is "
    "Beta?\",\"is_impossible\":false,"
    "\"answers\":[{\"text\":\"blue\"}]}]},{\"context\":\"Gamma is here.\",\"qas\":[]}]},"
    "{\"title\":\"B\",\"paragraphs\":[{\"context\":\"Delta is lost.\",\"qas\":[]},"
    "{\"context\":\"Delta is lost.\",\"qas\":[]},{\"context\":\"Omega is old.\",\"qas\":[]}]}]}";

static kept_sample qa_sample(const char *task, const char *content, int i, int units, bool compat)
{
    write_file(content);
    kept_task_options o = options(task, 4000, 9);
    o.file = file;
    o.ruler_compat = compat;
    kept_task *t = must_open(&o, models[0]);
    kept_sample s = {0};
    kept_error err;
    CHECK_INT(kept_task_n_samples(t), 2);
    CHECK_INT(kept_qa_build(t, i, units, &s, &err), KEPT_OK);
    kept_task_close(t);
    return s;
}

static void test_qa_squad(void)
{
    kept_sample s = qa_sample("qa_1", squad, 0, 3, true);
    int order[3];
    kept_shuffle_fixed(order, 3); /* 0, 2, 1 or so: the question's own document is item 0 */
    /* Three documents of the article, its own first before the shuffle. */
    CHECK(strstr(s.context, "Alpha") && strstr(s.context, "Beta") && strstr(s.context, "Gamma"));
    CHECK(!strstr(s.context, "Delta") && !strstr(s.context, "Omega"));
    char want[64];
    for (int i = 0; i < 3; i++)
        if (order[i] == 0) {
            snprintf(want, sizeof want, "Document %d:\nAlpha is red.", i + 1);
            CHECK(strstr(s.context, want) != NULL);
            CHECK_NEAR(s.turns[0].depth, i / 3.0, 1e-12);
        }
    const kept_turn *t = &s.turns[0];
    CHECK(!strncmp(
        s.context,
        "Answer the question based on the given documents. Only give me the answer and do "
        "not output any other words.\n\nThe following are given documents.\n\nDocument 1:\n",
        150));
    CHECK_STR(t->question, "\n\nAnswer the question based on the given documents. Only give me the "
                           "answer and do not output any other words.\n\nQuestion: What is Alpha?");
    CHECK_STR(t->answer_prefix, " Answer:");
    CHECK(t->metric == KEPT_METRIC_ANY && t->max_new_tokens == 32);
    CHECK_INT(t->n_answers, 2);
    CHECK_STR(t->answers[1], "is red");
    CHECK_INT(t->n_evidence, 2);
    CHECK(!strncmp(s.context + t->evidence[0].begin, "is red", 6));
    CHECK(!strncmp(s.context + t->evidence[1].begin, "red", 3));
    kept_sample_clear(&s);
    /* More than there are: every document once. */
    s = qa_sample("qa_1", squad, 1, 50, false);
    CHECK_INT(occurrences(s.context, "Document "), 5);
    CHECK_INT(occurrences(s.context, "Delta"), 1);
    kept_sample_clear(&s);
    s = qa_sample("qa_1", squad, 1, 4, false);
    CHECK(strstr(s.context, "Alpha") && strstr(s.context, "Gamma"));
    CHECK_INT(occurrences(s.context, "Delta") + occurrences(s.context, "Omega"), 1);
    kept_sample_clear(&s);
}

static void test_qa_hotpot(void)
{
    static const char hotpot[] =
        "[{\"question\":\"Who?\",\"answer\":\"Ann\",\"context\":[[\"T1\",[\"Ann is\",\" in.\"]],"
        "[\"T2\",[\"Bob.\"]]]},"
        "{\"question\":\"So?\",\"answer\":\"yes\",\"context\":[[\"T2\",[\"Bob.\"]],"
        "[\"T2\",[\"Bob.\"]],[\"T3\",[\"yes, yes\"]]]}]";
    kept_sample s = qa_sample("qa_2", hotpot, 0, 1, false);
    CHECK(strstr(s.context, ":\nT1\nAnn is in.") && strstr(s.context, ":\nT2\nBob."));
    CHECK_INT(occurrences(s.context, "Document "), 2);
    CHECK_INT(s.turns[0].n_evidence, 1);
    kept_sample_clear(&s);
    s = qa_sample("qa_2", hotpot, 1, 2, false);
    CHECK_INT(occurrences(s.context, "Document "), 3);
    CHECK_INT(s.turns[0].n_evidence, 0); /* yes stands for no place */
    kept_sample_clear(&s);
}

static void test_qa_errors(void)
{
    static const char *const bad[] = {"{", "[]", "{\"data\":[{\"paragraphs\":[{}]}]}",
                                      "{\"data\":[]}",
                                      "{\"data\":[{\"paragraphs\":[{\"context\":\"x\"}]}]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int hotpot = 0; hotpot < 2; hotpot++) {
            kept_task_options o = options(hotpot ? "qa_2" : "qa_1", 2000, 1);
            kept_task *t = NULL;
            kept_error err;
            write_file(bad[i]);
            o.file = file;
            CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_FORMAT);
            CHECK(strstr(err.text, file) != NULL);
        }
    kept_task_options o = options("qa_1", 2000, 1);
    kept_task *t = NULL;
    kept_error err;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_ARGUMENT);
    CHECK_STR(err.text, "task qa_1 needs a file (squad)");
}

static void test_qa_mutations(void)
{
    static const char hotpot[] = "[{\"question\":\"Who?\",\"answer\":\"Ann\",\"context\":[[\"T1\","
                                 "[\"Ann is\",\" in.\"]],[\"T2\",[\"Bob.\"]]]}]";
    static const char bytes[] = "{}[]\":,\\0a\x01";
    kept_rng rng;
    kept_rng_init(&rng, 4);
    for (int i = 0; i < 6000; i++) {
        char line[2048];
        const char *from = i % 2 ? squad : hotpot;
        const size_t n = strlen(from);
        memcpy(line, from, n);
        for (uint32_t k = kept_rng_below(&rng, 3); k < 3; k++)
            line[kept_rng_below(&rng, (uint32_t)n)] = bytes[kept_rng_below(&rng, sizeof bytes - 1)];
        LLVMFuzzerTestOneInput((const uint8_t *)line, n);
    }
}

/* ---- needles --------------------------------------------------------------------------------- */

static void test_multiquery(void)
{
    kept_task_options o = options("niah_multiquery", 4000, 2);
    kept_task *t = must_open(&o, models[0]);
    kept_sample s;
    must_get(t, 1, &s, NULL);
    const kept_turn *q = &s.turns[0];
    char key[4][KEPT_SECRET_CAP], want[400];
    CHECK_INT(q->n_answers, 4);
    CHECK_INT(sscanf(q->question,
                     "\nWhat are all the special magic numbers for %47[^,], %47[^,], "
                     "%47[^,], and %47s mentioned in the provided text?",
                     key[0], key[1], key[2], key[3]),
              4);
    snprintf(want, sizeof want,
             " The special magic numbers for %s, %s, %s, and %s mentioned in the provided text are",
             key[0], key[1], key[2], key[3]);
    CHECK_STR(q->answer_prefix, want);
    for (int i = 0; i < 4; i++) {
        snprintf(want, sizeof want, "One of the special magic numbers for %s is: %s.", key[i],
                 q->answers[i]);
        CHECK_INT(occurrences(s.context, want), 1);
    }
    CHECK(!strncmp(s.context, "Some special magic numbers are hidden", 37));
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* In RULER's layout an essay's needles stand at sentences floor(n * d / 100) for d of 40 points, in
 * an order that is the same in every sample, with room for 128 tokens. */
static void test_compat_needles(void)
{
    char essay[40000] = "";
    size_t n = 0;
    for (int i = 0; i < 900; i++)
        n += (size_t)snprintf(essay + n, sizeof essay - n, "S%d is here now. ", i);
    write_file(essay);
    kept_task_options o = options("niah_multikey_1", 4000, 6);
    o.file = file;
    o.ruler_compat = true;
    kept_task *t = must_open(&o, models[0]);
    for (int i = 0; i < 6; i++) {
        kept_sample s;
        must_get(t, i, &s, NULL);
        CHECK_INT(s.turns[0].max_new_tokens, 128);
        CHECK(strstr(s.context, "afterwards.\nS0 is") || strstr(s.context, "S0 is here now. "));
        const int sentences = occurrences(s.context, " is here now.");
        int before = 0;
        const char *needle = s.context + s.turns[0].evidence[0].begin;
        for (const char *p = s.context; (p = strstr(p, " is here now.")) && p < needle; p++)
            before++;
        bool point = false;
        for (int d = 0; d < 40; d++)
            for (int cut = 0; cut < 2; cut++) /* the last sentence may be cut */
                point |= before == (int)((sentences + cut) * (round(d * 100.0 / 39) / 100));
        CHECK(point);
        /* The asked key is item 0 of random.Random(42).shuffle([0, 1, 2, 3]) = [2, 1, 3, 0]. */
        int needles_before = 0;
        for (const char *p = s.context; (p = strstr(p, "One of the special")) && p < needle; p++)
            needles_before++;
        CHECK_INT(needles_before, 3);
        kept_sample_clear(&s);
    }
    kept_task_close(t);
}

int main(void)
{
    if (!task_util_open())
        return 1;
    RUN(test_fixed_order);
    RUN(test_vt);
    RUN(test_cwe);
    RUN(test_cwe_words);
    RUN(test_fwe);
    RUN(test_qa_squad);
    RUN(test_qa_hotpot);
    RUN(test_qa_errors);
    RUN(test_qa_mutations);
    RUN(test_multiquery);
    RUN(test_compat_needles);
    task_util_close();
    TEST_END();
}
