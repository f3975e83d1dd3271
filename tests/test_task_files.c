/* Tasks that read files, what is refused, and the string match. */
#include "task_util.h"
#include "test.h"

/* ---- essay ----------------------------------------------------------------------------------- */

static void test_essay(void)
{
    write_file("Alpha  one\ntwo three. \"Beta four?\" Gamma five\tsix! Delta v1.5 seven.");
    static const char *const sentences[] = {"Alpha one two three.", "\"Beta four?\"",
                                            "Gamma five six!", "Delta v1.5 seven."};
    kept_task_options o = options("niah_multikey", 2400, 12);
    o.file = file;
    kept_task *t = must_open(&o, models[0]);
    CHECK_STR(kept_task_label(t), "niah_multikey(word,number,essay)");
    int first[4] = {0};
    for (int i = 0; i < 12; i++) {
        kept_sample s;
        must_get(t, i, &s, NULL);
        CHECK_INT(occurrences(s.context, "One of the special magic numbers for "), 4);
        /* Without its needles it is the sentences in turn, cut at a word at the very end. */
        const char *p = strchr(s.context, '\n') + 1;
        int next = -1, count = 0;
        while (*p) {
            if (!strncmp(p, "One of the special", 18)) {
                p = strstr(p, " is: ") + 5 + 8;
            } else {
                for (int k = 0; k < 4 && next < 0; k++)
                    next = !strncmp(p, sentences[k], strlen(sentences[k])) ? k : -1;
                CHECK(next >= 0);
                if (next < 0)
                    break;
                first[next] += count++ == 0;
                size_t len = strlen(sentences[next]), got = strcspn(p, ".!?");
                (void)got;
                if (strncmp(p, sentences[next], len) != 0) { /* the cut one */
                    len = 0;
                    while (p[len] && p[len] == sentences[next][len])
                        len++;
                    CHECK(len > 0);
                    len -= p[len] && p[len - 1] == ' '; /* a needle follows it */
                    CHECK(!p[len] || !strncmp(p + len, " One of", 7));
                }
                p += len;
                next = (next + 1) % 4;
            }
            CHECK(*p == ' ' || !*p);
            p += *p == ' ';
        }
        CHECK(count > 20);
        kept_sample_clear(&s);
    }
    CHECK((first[0] > 0) + (first[1] > 0) + (first[2] > 0) + (first[3] > 0) >= 3);
    kept_task_close(t);
}

/* Text without a full stop still has gaps: one at least every 80 words. */
static void test_essay_without_stops(void)
{
    char words[9001] = "";
    for (int i = 0; i < 3000; i++)
        memcpy(words + 3 * i, "la ", 4);
    write_file(words);
    kept_task_options o = options("niah_single", 6000, 6);
    o.file = file;
    kept_task *t = must_open(&o, models[0]);
    for (int i = 0; i < 6; i++) {
        kept_sample s;
        must_get(t, i, &s, NULL);
        const double head = strchr(s.context, '\n') - s.context, all = strlen(s.context) - head;
        CHECK_NEAR(((double)s.turns[0].evidence[0].begin - head) / all, s.turns[0].depth, 0.06);
        kept_sample_clear(&s);
    }
    kept_task_close(t);
}

static void test_text(void)
{
    char essay[20000] = "";
    size_t n = 0;
    for (int i = 0; i < 400; i++)
        n += (size_t)snprintf(essay + n, sizeof essay - n,
                              "Sentence %d is here, \xc3\xa9t\xc3\xa9.%s", i, i % 5 ? " " : "\n");
    write_file(essay);
    for (int m = 0; m < n_models; m++) {
        kept_task_options o = options("text", 900, 8);
        o.file = file;
        o.score_tokens = 33;
        o.chat = true; /* has no effect on texts */
        kept_task *t = must_open(&o, models[m]);
        CHECK(kept_task_get_kind(t) == KEPT_TASK_SCORE);
        size_t least = n, most = 0;
        for (int i = 0; i < 8; i++) {
            kept_sample s;
            kept_tokens k;
            must_get(t, i, &s, &k);
            CHECK_INT(k.n_prefix, 900 - 33);
            CHECK_INT(k.n_suffix, 33);
            CHECK_INT(k.n_evidence, 0);
            CHECK(!strncmp(s.context, "Sentence ", 9) && !s.n_turns);
            const char *at = strstr(essay, s.context);
            CHECK(at);
            const size_t begin = at ? (size_t)(at - essay) : 0;
            least = begin < least ? begin : least;
            most = begin > most ? begin : most;
            /* prefix and suffix are the text's own tokens */
            size_t len = kept_detokenize(models[m], k.prefix, k.n_prefix, false, text, TEXT);
            kept_detokenize(models[m], k.suffix, k.n_suffix, false, text + len, TEXT - len);
            const char *got = strstr(text, "Sentence ");
            CHECK(got && got - text <= 1);
            CHECK(got && !strncmp(got, s.context, 400));
            kept_tokens_clear(&k);
            kept_sample_clear(&s);
        }
        CHECK(most > least + 1000);
        kept_task_close(t);
    }
}

/* A stream is scored from its 129th token on, whatever --score-tokens says. */
static void test_stream(void)
{
    char essay[20000] = "";
    for (int i = 0; i < 400; i++)
        snprintf(essay + strlen(essay), 40, "Sentence %d is here. ", i);
    write_file(essay);
    kept_task_options o = options("stream", 900, 2);
    o.file = file;
    o.score_tokens = 64;
    kept_task *t = must_open(&o, models[0]);
    kept_sample s;
    kept_tokens k;
    must_get(t, 1, &s, &k);
    CHECK_INT(k.n_prefix, 128);
    CHECK_INT(k.n_suffix, 900 - 128);
    kept_tokens_clear(&k);
    kept_sample_clear(&s);
    kept_task_close(t);
}

static void expect_error(kept_task_options o, kept_status want, const char *message)
{
    kept_error err = {"", 0};
    kept_task *t = NULL;
    CHECK_INT(kept_task_open(&o, models[0], &t, &err), want);
    CHECK(!t);
    if (!strstr(err.text, message))
        CHECK_STR(err.text, message);
}

static void test_errors(void)
{
    kept_task_options o = options("niah_singel", 1000, 1);
    expect_error(o, KEPT_ARGUMENT, "did you mean \"niah_single\"");
    o.name = "quite another";
    expect_error(o, KEPT_ARGUMENT, "kept run --help");
    expect_error(options("niah_single", 0, 1), KEPT_ARGUMENT, "length must be at least 1");
    expect_error(options("niah_single", 99999, 1), KEPT_ARGUMENT, "beyond the 8192 tokens");
    expect_error(options("niah_single", 100, 1), KEPT_ARGUMENT, "is too short, it needs");
    expect_error(options("niah_single", 1000, 0), KEPT_ARGUMENT, "at least one sample");
    expect_error(options("text", 1000, 1), KEPT_ARGUMENT, "needs a file");
    expect_error(options("jsonl", 1000, 1), KEPT_ARGUMENT, "needs a file");
    o = options("niah_single", 1000, 1);
    o.key = "colour";
    expect_error(o, KEPT_ARGUMENT, "key \"colour\" is none of word, number, uuid");
    o.key = NULL;
    o.n_keys = 100000;
    o.n_values = 100000;
    expect_error(o, KEPT_ARGUMENT, "are not between 1 and");
    o = options("niah_single", 1000, 1);
    o.file = "/nonexistent/file";
    expect_error(o, KEPT_IO, "cannot open /nonexistent/file");
    o.file = "/";
    expect_error(o, KEPT_IO, "/");
    o.file = file;
    write_file(" \n ");
    expect_error(o, KEPT_FORMAT, "holds no text");
    write_file("fine\nbad \xed\xa0\x80 surrogate");
    expect_error(o, KEPT_FORMAT, "line 2: not UTF-8");
    o.name = "text";
    write_file("too few words");
    expect_error(o, KEPT_ARGUMENT, "fewer than the length 1000");
    o.score_tokens = 1000;
    expect_error(o, KEPT_ARGUMENT, "cannot score 1000 tokens");
    kept_sample s;
    o = options("niah_single", 2000, 2);
    kept_task *t = must_open(&o, models[0]);
    CHECK_INT(kept_task_get(t, 2, &s, NULL), KEPT_ARGUMENT);
    CHECK_INT(kept_task_get(t, -1, &s, NULL), KEPT_ARGUMENT);
    kept_task_close(t);
    kept_task_close(NULL);
}

/* ---- scoring --------------------------------------------------------------------------------- */

static void test_score_match(void)
{
    char *one[] = {"1234567"}, *two[] = {"Paris", "big city"}, *lines[] = {"a\nb"},
         *tab[] = {"a\tb"};
    CHECK_NEAR(kept_score_match(" is: 1234567.", one, 1, false), 1, 0);
    CHECK_NEAR(kept_score_match("12345678", one, 1, false), 1, 0); /* substring, as RULER */
    CHECK_NEAR(kept_score_match("123456", one, 1, false), 0, 0);
    CHECK_NEAR(kept_score_match("pARIS is it", two, 2, false), 0.5, 0);
    CHECK_NEAR(kept_score_match("pARIS is it", two, 2, true), 1, 0);
    CHECK_NEAR(kept_score_match("a BIG CITY: Paris", two, 2, false), 1, 0);
    CHECK_NEAR(kept_score_match("none", two, 2, true), 0, 0);
    CHECK_NEAR(kept_score_match("xa\tbx", lines, 1, false), 1, 0); /* control -> newline */
    CHECK_NEAR(kept_score_match("xa\tbx", tab, 1, false), 0, 0);
    char *space[] = {" 5"};
    CHECK_NEAR(kept_score_match(" 5", space, 1, false), 0, 0); /* stripped first */
    CHECK_NEAR(kept_score_match("x 5\n", space, 1, false), 1, 0);
    CHECK_NEAR(kept_score_match("", one, 1, true), 0, 0);
    CHECK_NEAR(kept_score_match(NULL, one, 1, true), 0, 0);
    CHECK_NEAR(kept_score_match("x", NULL, 0, true), 0, 0);
}

int main(void)
{
    if (!task_util_open())
        return 1;
    RUN(test_essay);
    RUN(test_essay_without_stops);
    RUN(test_text);
    RUN(test_stream);
    RUN(test_errors);
    RUN(test_score_match);
    task_util_close();
    TEST_END();
}
