/* test_metric: outputs against references. Golden values come from the packages and benchmark code
 * that the metrics are ported from, run in a throw-away environment:
 *
 *   pip install rouge==1.0.1 fuzzywuzzy==0.18.0      (without python-Levenshtein: difflib's path)
 *   Rouge().get_scores([out], [ref], avg=True)["rouge-l"]["f"]; any exception: 0
 *   fuzz.ratio(line, ref) / 100; difflib.SequenceMatcher(None, out, ref).ratio()
 *   f1 and class: LongBench's qa_f1_score and classification_score as published
 *
 * The other metrics' values follow from their definitions by hand.
 */
#include "task/metric.h"
#include "task/task.h"
#include "test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct pair {
    const char *output, *answer;
    double a, b;
} words[] = {
    /* clang-format off */
    /* f1, rouge-l */
    {"The cat sat on the mat. It was a sunny day.",
     "A cat sat on a mat in the sun. The day was sunny.", 0.82352941176470595, 0.666666661701389},
    {"the quick brown fox jumps over the lazy dog", "The lazy dog. The quick fox. jumps",
     0.83333333333333326, 0.71428570938775515},
    {"Paris", "It is Paris, the capital.", 0.40000000000000002, 0},
    {"It is Paris, the capital.", "Paris", 0.40000000000000002, 0},
    {"...", "The cat sat on the mat. It was a sunny day.", 0, 0},
    {"The cat sat on the mat. It was a sunny day.", "...", 0, 0},
    {"", "The cat sat on the mat. It was a sunny day.", 0, 0},
    {"Hello. ", "The cat sat on the mat. It was a sunny day.", 0, 0},
    {"The cat sat on the mat. It was a sunny day.", "Hello. ", 0, 0},
    {"café crème. thé",
     "The café serves crème brûlée.", 0.5714285714285715, 0.49999999531250006},
    {"police killed the gunman. the gunman was shot", "the gunman police killed. shot was he",
     0.83333333333333337, 0.76923076426035508},
    {"the gunman police killed. shot was he", "police killed the gunman. the gunman was shot",
     0.83333333333333337, 0.46153845656804732},
    {"gamma beta theta theta delta. alpha eta alpha epsilon delta beta alpha. a. eta eta a theta a "
     "delta theta alpha a beta epsilon. zeta a eta delta the theta",
     "a alpha eta gamma zeta. a. gamma eta alpha epsilon the eta gamma alpha a a a the epsilon the "
     "alpha a a delta alpha zeta delta eta zeta alpha the zeta alpha gamma gamma a epsilon. beta. "
     "alpha epsilon beta gamma beta epsilon gamma epsilon zeta beta. eta delta epsilon a the alpha "
     "eta. gamma a a a a",
     0.54545454545454541, 0.94736841606648214},
    {"a alpha eta gamma zeta. a. gamma eta alpha epsilon the eta gamma alpha a a a the epsilon the "
     "alpha a a delta alpha zeta delta eta zeta alpha the zeta alpha gamma gamma a epsilon. beta. "
     "alpha epsilon beta gamma beta epsilon gamma epsilon zeta beta. eta delta epsilon a the alpha "
     "eta. gamma a a a a",
     "gamma beta theta theta delta. alpha eta alpha epsilon delta beta alpha. a. eta eta a theta a "
     "delta theta alpha a beta epsilon. zeta a eta delta the theta",
     0.54545454545454541, 0.94736841606648214},
    /* clang-format on */
};
static const struct pair lines[] = {
    /* edit, difflib */
    {"    return a + b", "return a+b", 0.77000000000000002, 0.76923076923076927},
    {"# comment\n  // c\nint x = foo(bar);", "int x = foo(baz, 1);", 0.85999999999999999,
     0.59259259259259256},
    {"```\nfor i in range(10):\n  pass", "for (i = 0; i < 10; i++)", 0.51000000000000001,
     0.40740740740740738},
    {"", "    return a + b", 0, 0},
    {"", "", 1, 1},
    {"    return a + b", "", 0, 0},
    {"the value of the parameter is set by the caller in the function that follows and then it is "
     "passed on to the next one, where it is read again and again until nothing of it is left and "
     "the loop ends with a value that the caller knows. abcdefg",
     "the parameter's value is set by a caller in a function that is shown below and passed on to "
     "the next, which reads it again and again until nothing is left of it; then the loop ends "
     "with the value the caller knew from the start, as ever. hijk",
     0.48999999999999999, 0.49377593360995853},
    {"the parameter's value is set by a caller in a function that is shown below and passed on to "
     "the next, which reads it again and again until nothing is left of it; then the loop ends "
     "with the value the caller knew from the start, as ever. hijk",
     "the value of the parameter is set by the caller in the function that follows and then it is "
     "passed on to the next one, where it is read again and again until nothing of it is left and "
     "the loop ends with a value that the caller knows. abcdefg",
     0.10000000000000001, 0.1037344398340249},
    {"return a+b", "return a+b", 1, 1},
};

static double score(kept_metric m, const char *output, const char *answer)
{
    char *list[1] = {strdup(answer)};
    const kept_reference r = {list, 1, NULL, 0};
    const double x = kept_metric_score(m, output, &r);
    free(list[0]);
    return x;
}

static void test_words(void)
{
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        CHECK_NEAR(kept_f1(words[i].output, words[i].answer), words[i].a, 1e-15);
        CHECK_NEAR(kept_rouge_l(words[i].output, words[i].answer), words[i].b, 1e-15);
        CHECK_NEAR(score(KEPT_METRIC_F1, words[i].output, words[i].answer), words[i].a, 1e-15);
        CHECK_NEAR(score(KEPT_METRIC_ROUGE_L, words[i].output, words[i].answer), words[i].b, 1e-15);
    }
    CHECK_NEAR(score(KEPT_METRIC_F1_LINE, "\n\nParis is it\nand more", "Paris"), 0.5, 1e-15);
    CHECK_NEAR(score(KEPT_METRIC_F1, "\n\nParis is it\nand more", "Paris"), 1 / 3.0, 1e-15);
}

static void test_edit(void)
{
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        CHECK_NEAR(score(KEPT_METRIC_EDIT, lines[i].output, lines[i].answer), lines[i].a, 1e-15);
        CHECK_NEAR(kept_difflib_ratio(lines[i].output, lines[i].answer), lines[i].b, 1e-15);
    }
    /* "x" * 300 + "abc" against "abc" + "x" * 250 + "q": x is too popular to anchor a match. */
    char a[304], b[260];
    memset(a, 'x', 300);
    strcpy(a + 300, "abc");
    memset(b, 'x', 253);
    memcpy(b, "abc", 3);
    strcpy(b + 253, "q");
    CHECK_NEAR(kept_difflib_ratio(a, b), 0.010771992818671455, 1e-15);
    CHECK_NEAR(kept_difflib_ratio(b, a), 0.010771992818671455, 1e-15);
}

static void test_class(void)
{
    static char l[][24] = {"Food",       "Food group", "Group",
                           "Other food", "Place",      "Food group leader"};
    char *labels[] = {l[0], l[1], l[2], l[3], l[4], l[5]};
    static const struct {
        const char *output;
        char answer[24];
        double want;
    } cases[] = {
        {"Food", "Food", 1},
        {"Food group", "Food group", 1},
        {"Type: Food group leader", "Food group leader", 0.5},
        {"Food, Place", "Place", 0.5},
        {"Place or Group or Food group", "Food group", 0.33333333333333331},
        {"none", "Food", 0},
        {"Food group leader", "Food", 0.33333333333333331},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char answer[24], *list[1] = {answer};
        strcpy(answer, cases[i].answer);
        const kept_reference r = {list, 1, labels, 6};
        CHECK_NEAR(kept_metric_score(KEPT_METRIC_CLASS, cases[i].output, &r), cases[i].want, 1e-15);
    }
}

static void test_by_hand(void)
{
    static const struct {
        kept_metric m;
        const char *output, *answer;
        double want;
    } cases[] = {
        {KEPT_METRIC_COUNT, "There are 7, or 12 or 7.", "7", 2 / 3.0},
        {KEPT_METRIC_COUNT, "none", "7", 0},
        {KEPT_METRIC_COUNT, "07", "7", 0}, /* compared as text */
        {KEPT_METRIC_RETRIEVAL, "Paragraph 12 and 3", "Paragraph 12", 0.5},
        {KEPT_METRIC_RETRIEVAL, "12", "Paragraph 12", 1},
        {KEPT_METRIC_RETRIEVAL, "12", "12", 0}, /* LongBench's references say Paragraph */
        {KEPT_METRIC_NUMBER, "The key is 41829. No, 7", "41829", 1},
        {KEPT_METRIC_NUMBER, "418290", "41829", 0},
        {KEPT_METRIC_NUMBER, "nothing", "41829", 0},
        {KEPT_METRIC_EXACT, " Paris\n", "Paris", 1},
        {KEPT_METRIC_EXACT, "paris", "Paris", 0},
        {KEPT_METRIC_LETTER, "**The correct answer is (B)**", "B", 1},
        {KEPT_METRIC_LETTER, "Well. The correct answer is C, as", "C", 1},
        {KEPT_METRIC_LETTER, "B. because", "B", 1},
        {KEPT_METRIC_LETTER, "Because", "B", 0},
        {KEPT_METRIC_LETTER, "I think B", "B", 0},
        {KEPT_METRIC_ALL, "it is PARIS", "Paris", 1},
        {KEPT_METRIC_CHOICE, "yes", "yes", 1},
        {KEPT_METRIC_F1, NULL, "x", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        CHECK_NEAR(score(cases[i].m, cases[i].output, cases[i].answer), cases[i].want, 1e-15);
}

/* The reference and no other label, in the first sentence. */
static void test_label(void)
{
    char kitchen[] = "kitchen", garden[] = "garden", hall[] = "hallway";
    char *labels[] = {kitchen, garden, hall}, *answers[] = {garden};
    const kept_reference r = {answers, 1, labels, 3};
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_LABEL, " In the Garden. Not the kitchen.", &r), 1, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_LABEL, "garden or kitchen", &r), 0, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_LABEL, "nowhere", &r), 0, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_LABEL, "garden\nkitchen", &r), 1, 0);
}

/* The best reference counts, except where the metric is a mean over them. */
static void test_references(void)
{
    char a[] = "red fox", b[] = "blue", *two[] = {a, b};
    const kept_reference r = {two, 2, NULL, 0};
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_F1, "blue", &r), 1, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_ALL, "blue", &r), 0.5, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_ANY, "blue", &r), 1, 0);
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_EXACT, "blue ", &r), 1, 0);
    const kept_reference none = {two, 0, NULL, 0};
    CHECK_NEAR(kept_metric_score(KEPT_METRIC_F1, "blue", &none), 0, 0);
}

static void test_names(void)
{
    int n;
    const char *const *names = kept_metric_names(&n);
    CHECK_INT(n, KEPT_N_METRICS);
    for (int i = 0; i < n; i++) {
        kept_metric m;
        CHECK(kept_metric_parse(names[i], &m) && (int)m == i);
    }
    kept_metric m;
    CHECK(!kept_metric_parse("bleu", &m));
}

static void answers_have_classes(void)
{
    static const char context[] =
        "The special magic number for red-fox is 1234567, said Ana's aunt.";
    static const struct {
        const char *answer;
        kept_answer_class want;
    } cases[] = {
        {"1234567", KEPT_ANSWER_NEAR_COPY},
        {"123456", KEPT_ANSWER_NOVEL}, /* no word of it, though its letters are there */
        {" Red Fox is: 1234567!", KEPT_ANSWER_NEAR_COPY},
        {"magic red number", KEPT_ANSWER_NOVEL}, /* in another order */
        {"The special magic number for blue-fox is 7654321", KEPT_ANSWER_NOVEL}, /* 3 runs of 7 */
        {"the special magic number for red fox is 99", KEPT_ANSWER_NEAR_COPY},   /* 6 of 7 */
        {"ANAS AUNT", KEPT_ANSWER_NEAR_COPY},
        {"", KEPT_ANSWER_ABSTAIN},
        {" .,!\n", KEPT_ANSWER_ABSTAIN},
        {"I don't know.", KEPT_ANSWER_ABSTAIN},
        {"It is not\nmentioned in the text", KEPT_ANSWER_ABSTAIN},
    };
    kept_error err;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kept_answer_class got;
        CHECK_INT(kept_answer_classify(cases[i].answer, context, &got, &err), KEPT_OK);
        CHECK_STR(kept_answer_class_name(got), kept_answer_class_name(cases[i].want));
    }
}

static void questions_said_otherwise(void)
{
    static const char question[] = "What is the Special number for red-walrus? Tell me.\nThanks";
    static const char *const want[][2] = {
        {"none", question},
        {"case", "what is the special number for red-walrus? tell me.\nthanks"},
        {"punctuation", "What is the Special number for red-walrus Tell me\nThanks"},
        {"typo", "What is the Spceial number for red-walrus? Tell me.\nThanks"},
        {"layout", "What is the Special number for red-walrus?\nTell me.\n\nThanks"},
        {"context-lines", question}, /* the context's layout: tests/test_rearrange.c */
        {"context-order", question},
        {"context-places", question},
    };
    kept_error err;
    char *out = NULL;
    int n;
    (void)kept_perturb_names(&n);
    CHECK_INT(n, sizeof want / sizeof *want);
    for (int i = 0; i < n; i++) {
        CHECK_INT(kept_perturb(want[i][0], question, &out, &err), KEPT_OK);
        CHECK_STR(out, want[i][1]);
        free(out);
        CHECK_INT(kept_perturb(want[i][0], "", &out, &err), KEPT_OK);
        CHECK_STR(out, "");
        free(out);
    }
    CHECK_INT(kept_perturb("typos", question, &out, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "did you mean 'typo'") != NULL);
}

int main(void)
{
    RUN(test_words);
    RUN(test_edit);
    RUN(test_class);
    RUN(test_by_hand);
    RUN(test_label);
    RUN(test_references);
    RUN(test_names);
    RUN(questions_said_otherwise);
    RUN(answers_have_classes);
    TEST_END();
}
