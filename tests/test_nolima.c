/* test_nolima: a needle set of two needles as NoLiMa's files are: every sample is one of the
 * prompts that a list written by hand has, at its depth, and what is no needle set is refused with
 * its place.
 */
#include "task_util.h"
#include "test.h"

static const char set[] =
    "[{\"id\": \"1\", \"reasoning_type\": \"x\", \"system_prompt\": \"Be brief.\","
    "  \"needle\": \"Then {CHAR} moved next to {1}.\","
    "  \"task_template\": \"Read:\\n\\n{haystack}\\n\\nUse it. Question: {question}\\n Name "
    "only.\","
    "  \"questions\": {\"onehop\": \"Who has been in {2}?\", \"twohop\": \"Who saw {3} {x}?\"},"
    "  \"character_set\": [\"Yuki\", \"Stuart\", \"Mandy\"],"
    "  \"tests\": {\"T1\": {\"input_args\": [\"the old opera\", \"Dresden\", \"Saxony\"]},"
    "             \"T2\": {\"input_args\": [\"the Kiasma\", \"Helsinki\", \"Uusimaa\"]}}},"
    " {\"needle\": \"{CHAR} cannot eat {1}.\", \"task_template\": \"{haystack}\\nQ {question}\","
    "  \"questions\": {\"onehop\": \"What is bad for {CHAR}?\"}, \"character_set\": [\"Ann\"],"
    "  \"tests\": {\"T1\": {\"input_args\": [\"fish\"], \"gold_answers\": [\"cod\", \"fish\"]}}}]";

static const struct prompt {
    const char *needle, *head, *question, *answer;
} prompts[] = {
    {"Then %s moved next to the old opera.", "Be brief.\n\nRead:\n\n",
     "\n\nUse it. Question: Who has been in Dresden?\n Name only.", NULL},
    {"Then %s moved next to the old opera.", "Be brief.\n\nRead:\n\n",
     "\n\nUse it. Question: Who saw Saxony {x}?\n Name only.", NULL},
    {"Then %s moved next to the Kiasma.", "Be brief.\n\nRead:\n\n",
     "\n\nUse it. Question: Who has been in Helsinki?\n Name only.", NULL},
    {"Then %s moved next to the Kiasma.", "Be brief.\n\nRead:\n\n",
     "\n\nUse it. Question: Who saw Uusimaa {x}?\n Name only.", NULL},
    {"%s cannot eat fish.", "", "\nQ What is bad for Ann?", "cod"},
};
static const char *const people[] = {"Yuki", "Stuart", "Mandy", "Ann"};
enum { N_PROMPTS = 5, N_PEOPLE = 4 };

/* Which prompt a sample is, and of whom; -1: none of them. */
static int which(const kept_sample *s, int *who)
{
    const kept_turn *t = &s->turns[0];
    for (int p = 0; p < N_PROMPTS; p++)
        for (*who = 0; *who < N_PEOPLE; ++*who) {
            char line[200];
            snprintf(line, sizeof line, prompts[p].needle, people[*who]);
            const char *answer = prompts[p].answer ? prompts[p].answer : people[*who];
            const size_t n = strlen(line);
            if (!strcmp(t->question, prompts[p].question) && !strcmp(t->answers[0], answer) &&
                !strncmp(s->context, prompts[p].head, strlen(prompts[p].head)) &&
                t->evidence[0].end - t->evidence[0].begin == n &&
                !strncmp(s->context + t->evidence[0].begin, line, n))
                return p;
        }
    return -1;
}

static void check_samples(const char *haystack)
{
    enum { N = 20 };
    write_file(set);
    kept_task_options o = options("nolima", 1200, N);
    o.file = file;
    o.haystack = haystack;
    for (int m = 0; m < n_models; m++) {
        int seen[N_PROMPTS] = {0}, of[N_PEOPLE] = {0};
        kept_task *t = must_open(&o, models[m]);
        CHECK_STR(kept_task_label(t), haystack ? "nolima(essay)" : "nolima(noise)");
        for (int i = 0; i < N; i++) {
            kept_sample s, again;
            kept_tokens k;
            int who = 0;
            must_get(t, i, &s, &k);
            const int p = which(&s, &who);
            CHECK(p >= 0 && s.n_turns == 1);
            seen[p >= 0 ? p : 0]++;
            of[who % N_PEOPLE]++;
            CHECK(s.turns[0].metric == KEPT_METRIC_ANY);
            CHECK_INT(s.turns[0].n_answers, p == 4 ? 2 : 1);
            CHECK(k.n_evidence > 0);
            CHECK(k.n_prefix + k.n_suffix + s.turns[0].max_new_tokens <= 1200);
            const double all = (double)strlen(s.context);
            CHECK_NEAR((double)s.turns[0].evidence[0].begin / all, s.turns[0].depth, 0.12);
            must_get(t, i, &again, NULL);
            CHECK_STR(again.context, s.context);
            kept_sample_clear(&again);
            kept_sample_clear(&s);
            kept_tokens_clear(&k);
        }
        for (int p = 0; p < N_PROMPTS; p++)
            CHECK_INT(seen[p], N / N_PROMPTS); /* all before any comes again */
        CHECK(of[0] && of[1] && of[2] && of[3]);
        kept_task_close(t);
    }
}

static void in_noise(void)
{
    check_samples(NULL);
}

static void in_prose(void)
{
    char path[] = "/tmp/kept-nolima-XXXXXX";
    const int fd = mkstemp(path);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    CHECK(f != NULL);
    for (int i = 0; f && i < 400; i++)
        fprintf(f, "Number %d came by and went on.\n", i);
    if (f)
        fclose(f);
    check_samples(path);
    remove(path);
}

static void refused(const char *json, const char *want)
{
    kept_task_options o = options("nolima", 1200, 2);
    kept_task *t = NULL;
    kept_error err = {.text = ""};
    o.file = file;
    write_file(json);
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), KEPT_FORMAT);
    if (!strstr(err.text, want))
        printf("# '%s' has no '%s'\n", err.text, want);
    CHECK(strstr(err.text, want));
}

/* What may be missing: a template, and characters where every test has answers of its own. */
static void what_may_be_missing(void)
{
    write_file(
        "[{\"id\": \"0401\", \"reasoning_type\": \"w\", \"system_prompt\": \"\","
        "  \"needle\": \"The car by {1} is red.\", \"questions\": {\"onehop\": \"What "
        "colour is in {2}?\"}, \"distractors\": {\"onehop\": \"x\"}, \"tests\": {\"T1_C02\": "
        "{\"input_args\": [\"the Kiasma\", \"Helsinki\"], \"gold_answers\": [\"red\"]}}},"
        " {\"needle\": \"{CHAR} sings.\", \"questions\": {\"onehop\": \"Who?\"},"
        "  \"character_set\": [\"Yuki\"], \"tests\": {\"T1\": {\"input_args\": [\"x\"],"
        "  \"gold_answers\": \"\"}}}]");
    kept_task_options o = options("nolima", 600, 2);
    o.file = file;
    kept_task *t = must_open(&o, models[0]);
    int seen[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        kept_sample s;
        must_get(t, i, &s, NULL);
        const int k = strstr(s.context, "Yuki sings.") != NULL;
        seen[k]++;
        CHECK(k || strstr(s.context, "The car by the Kiasma is red."));
        CHECK(strstr(s.turns[0].question, k ? "Who?" : "What colour is in Helsinki?"));
        CHECK_INT(s.turns[0].n_answers, 1);
        CHECK_STR(s.turns[0].answers[0], k ? "Yuki" : "red");
        kept_sample_clear(&s);
    }
    CHECK(seen[0] == 1 && seen[1] == 1);
    kept_task_close(t);
}

#define ITEM(more) "[{\"needle\": \"{CHAR} x.\", " more "}]"
#define TEMPLATE   "\"task_template\": \"{haystack} {question}\", "
#define CHARACTERS "\"character_set\": [\"A\"], "

static void bad_sets(void)
{
    refused("{", ":1:");
    refused("{}", "is no needle set");
    refused("[3]", "element 1 has no \"needle\"");
    refused(ITEM("\"task_template\": \"{question} {haystack}\""), "before {question}");
    refused(ITEM(TEMPLATE "\"character_set\": [1]"), "element 1 has no \"character_set\"");
    refused(ITEM(TEMPLATE CHARACTERS "\"questions\": []"), "no \"questions\"");
    refused(ITEM(TEMPLATE CHARACTERS "\"questions\": {\"a\": \"b\"}"), "no \"tests\"");
    refused(ITEM(TEMPLATE CHARACTERS "\"questions\": {\"a\": \"b\"}, \"tests\": {\"t\": {}}"),
            "input_args");
    refused(ITEM(TEMPLATE CHARACTERS "\"questions\": {\"a\": 1}, \"tests\": {\"t\": "
                                     "{\"input_args\": [\"x\"]}}"),
            "question that is no text");
    refused(ITEM(TEMPLATE CHARACTERS "\"questions\": {\"a\": \"b\"}, \"tests\": {\"t\": "
                                     "{\"input_args\": [\"x\"], \"gold_answers\": [2]}}"),
            "gold_answers");
}

int main(void)
{
    if (!task_util_open())
        SKIP("no room for temporary models");
    RUN(in_noise);
    RUN(in_prose);
    RUN(what_may_be_missing);
    RUN(bad_sets);
    task_util_close();
    TEST_END();
}
