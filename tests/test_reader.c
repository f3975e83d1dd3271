/* test_reader: files of other benchmarks and the forms of our own. Expected prompts are written out
 * from what the benchmarks publish (LongBench's dataset2prompt.json, LongBench v2's 0shot.txt,
 * RULER's records), with | where the question begins.
 */
#include "task/reader.h"
#include "task_util.h"
#include "test.h"

static const struct known {
    const char *reader, *line, *prompt, *answer;
    kept_metric metric;
    int room;
} known[] = {
    {"ruler",
     "{\"index\":3,\"input\":\"<u>A special magic number is hidden.\\nHay.\\nWhat is the special "
     "magic number for x-y mentioned?</u>\",\"outputs\":[\"1234567\"],\"length\":99,"
     "\"answer_prefix\":\" The special magic number is\"}",
     "<u>A special magic number is hidden.\nHay.|\nWhat is the special magic number for x-y "
     "mentioned?</u> The special magic number is",
     "1234567", KEPT_METRIC_ALL, 128},
    {"ruler",
     "{\"index\":0,\"input\":\"Answer the question based on the given documents. Only.\\n\\n"
     "Document 1:\\nQ\\nQuestion: not this\\n\\nAnswer the question based on the given documents. "
     "Only.\\n\\nQuestion: Who?\",\"outputs\":[\"Ann\",\"Bob\"],\"length\":9,\"answer_prefix\":"
     "\" Answer:\"}",
     "Answer the question based on the given documents. Only.\n\nDocument 1:\nQ\nQuestion: not "
     "this|\n\nAnswer the question based on the given documents. Only.\n\nQuestion: Who? Answer:",
     "Ann", KEPT_METRIC_ANY, 32},
    {"longbench",
     "{\"input\":\"Who?\",\"context\":\"Passage 1:\\nAnn.\",\"answers\":[\"Ann\"],\"length\":5,"
     "\"dataset\":\"hotpotqa\",\"language\":\"en\",\"all_classes\":null,\"_id\":\"1\"}",
     "Answer the question based on the given passages. Only give me the answer and do not output "
     "any other words.\n\nThe following are given passages.\nPassage 1:\nAnn.|\n\nAnswer the "
     "question based on the given passages. Only give me the answer and do not output any other "
     "words.\n\nQuestion: Who?\nAnswer:",
     "Ann", KEPT_METRIC_F1, 32},
    {"longbench",
     "{\"input\":\"Question: What is x?\\nType:\",\"context\":\"Question: a\\nType: "
     "Food\",\"answers\""
     ":[\"Food\"],\"length\":5,\"dataset\":\"trec\",\"all_classes\":[\"Food\",\"Place\"]}",
     "Please determine the type of the question below. Here are some examples of questions.\n\n"
     "Question: a\nType: Food|\nQuestion: What is x?\nType:",
     "Food", KEPT_METRIC_CLASS, 64},
    {"longbench",
     "{\"input\":\"\",\"context\":\"int x = {1};\\n\",\"answers\":[\"int y;\"],\"length\":5,"
     "\"dataset\":\"lcc\",\"all_classes\":null}",
     "Please complete the code given below. \nint x = {1};\n|Next line of code:\n", "int y;",
     KEPT_METRIC_EDIT, 64},
    {"longbench-v2",
     "{\"_id\":\"a\",\"question\":\"Which?\",\"choice_A\":\"one\",\"choice_B\":\"two\",\"choice_"
     "C\":"
     "\"three\",\"choice_D\":\"four\",\"answer\":\"C\",\"context\":\"Long.\",\"difficulty\":"
     "\"easy\"}",
     "Please read the following text and answer the question below.\n\n<text>\nLong.\n</text>|\n\n"
     "What is the correct answer to this question: Which?\nChoices:\n(A) one\n(B) two\n(C) three\n"
     "(D) four\n\nFormat your response as follows: \"The correct answer is (insert answer here)\".",
     "C", KEPT_METRIC_LETTER, 128},
    {"scbench",
     "{\"id\":1,\"context\":\"{\\\"k\\\": \\\"v\\\"}\",\"multi_turns\":[{\"input\":\"Key: k\","
     "\"answer\":\"v\"},{\"input\":\"Key: l\",\"answer\":[\"w\",\"x\"]}]}",
     "{\"k\": \"v\"}|\n\nKey: k", "v", KEPT_METRIC_ANY, 150},
    {"longmemeval",
     "{\"question_id\":\"q\",\"question\":\"Where?\",\"answer\":\"Rome\",\"question_date\":\"May\","
     "\"haystack_dates\":[\"April\"],\"haystack_sessions\":[[{\"role\":\"user\",\"content\":\"Hi\"}"
     ","
     "{\"role\":\"assistant\",\"content\":\"In Rome.\",\"has_answer\":true}]]}",
     "### Session 1 (April)\nuser: Hi\nassistant: In Rome.\n|\n\nAnswer from the chat history "
     "above. Current date: May\nQuestion: Where?\nAnswer:",
     "Rome", KEPT_METRIC_ANY, 64},
    {"babilong",
     "{\"input\":\"Mary went to the garden.\",\"question\":\"Where is "
     "Mary?\",\"target\":\"garden\"}",
     "I will give you context with the facts hidden in some random text and a question. You need "
     "to answer the question based only on the information from the facts.\n\nMary went to the "
     "garden.|\n\nQuestion: Where is Mary?\nAnswer with one word.",
     "garden", KEPT_METRIC_LABEL, 20},
    {"infinitebench",
     "{\"id\":0,\"context\":\"The pass key is 71432.\",\"input\":\"What is the pass "
     "key?\",\"answer\":"
     "[\"71432\"],\"options\":[]}",
     "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
     "I will quiz you about the important information.\n\nThe pass key is 71432.|\n\nWhat is the "
     "pass key?\n\nThe pass key is",
     "71432", KEPT_METRIC_NUMBER, 6},
    {"infinitebench",
     "{\"id\":0,\"context\":\"A tale.\",\"input\":\"Who?\",\"answer\":[\"Bo\"],\"options\":[\"Al\","
     "\"Bo\"]}",
     "Read the text below and answer the question.\n\nA tale.|\n\nWho?\nOnly one of the following "
     "options is correct.\nA. Al\nB. Bo\nAnswer:",
     "B", KEPT_METRIC_LETTER, 40},
    {"kvpress",
     "{\"context\":\"Text. \",\"question\":\"Q?\\n\",\"answer_prefix\":\"A: \",\"answer\":[\"1\","
     "\"2\"],\"max_new_tokens\":17,\"task\":\"niah_multivalue\"}",
     "Text. |Q?\nA: ", "1", KEPT_METRIC_ALL, 17},
    {"lm-eval",
     "{\"doc_id\":0,\"doc\":{},\"target\":\"42\",\"arguments\":{\"gen_args_0\":{\"arg_0\":\"Some "
     "text.\\n\\nQ: What?\\nA:\",\"arg_1\":{\"until\":[\"\\n\"]}}}}",
     "Some text.|\n\nQ: What?\nA:", "42", KEPT_METRIC_ANY, 64},
    {"lm-eval",
     "{\"doc_id\":0,\"doc\":{},\"target\":1,\"arguments\":[[\"Text.\\n\\nIt is\",\" "
     "red\"],[\"Text.\\n"
     "\\nIt is\",\" blue\"]]}",
     "Text.|\n\nIt is", "blue", KEPT_METRIC_CHOICE, 64},
    {"", "{\"prompt\":\"Facts.\\nMore facts.\\nWhat now?\\n\",\"answer\":7}",
     "Facts.\nMore facts.|\nWhat now?\n", "7", KEPT_METRIC_ANY, 32},
    {"",
     "{\"context\":\"C\",\"turns\":[{\"question\":\"1?\",\"answer\":\"x\",\"metric\":\"f1\"},{"
     "\"question\""
     ":\"2?\",\"answers\":[\"y\"],\"metric\":\"choice\",\"labels\":[\"y\",\"z\"]}]}",
     "C|\n1?", "x", KEPT_METRIC_F1, 32},
};

static void parse(const char *line, kept_sample *s)
{
    kept_error err;
    if (kept_jsonl_parse(line, strlen(line), 1, models[1], s, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
}

static void test_known(void)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const struct known *k = &known[i];
        kept_sample s;
        json_t *o = json_loads(k->line, 0, NULL);
        const kept_reader *r = kept_reader_find(o);
        CHECK_STR(r ? r->name : "", k->reader);
        json_decref(o);
        parse(k->line, &s);
        char got[2000];
        snprintf(got, sizeof got, "%s|%s%s", s.context, s.turns[0].question,
                 s.turns[0].answer_prefix);
        CHECK_STR(got, k->prompt);
        CHECK_STR(s.turns[0].answers[0], k->answer);
        CHECK_INT(s.turns[0].metric, k->metric);
        CHECK_INT(s.turns[0].max_new_tokens, k->room);
        kept_sample_clear(&s);
    }
}

static void test_parts(void)
{
    kept_sample s;
    parse(known[6].line, &s); /* turns, each with its references */
    CHECK_INT(s.n_turns, 2);
    CHECK_STR(s.turns[1].question, "\n\nKey: l");
    CHECK_INT(s.turns[1].n_answers, 2);
    CHECK_INT(s.turns[0].n_evidence, 1);
    CHECK_INT(s.turns[1].n_evidence, 0);
    CHECK(s.cut && !s.raw);
    kept_sample_clear(&s);
    parse(known[7].line, &s); /* evidence is the turn that has the answer */
    CHECK_INT(s.turns[0].n_evidence, 1);
    CHECK(!strncmp(s.context + s.turns[0].evidence[0].begin, "assistant: In Rome.", 19));
    kept_sample_clear(&s);
    parse(known[8].line, &s); /* labels of the reference's kind */
    CHECK_INT(s.turns[0].n_labels, 6);
    CHECK_STR(s.turns[0].labels[5], "office");
    kept_sample_clear(&s);
    parse(known[3].line, &s);
    CHECK(s.raw && s.turns[0].n_labels == 2);
    kept_sample_clear(&s);
    parse(known[13].line, &s);
    CHECK_STR(s.turns[0].labels[0], "red");
    kept_sample_clear(&s);
    parse(known[15].line, &s);
    CHECK_INT(s.n_turns, 2);
    CHECK(s.turns[1].metric == KEPT_METRIC_CHOICE && s.turns[1].n_labels == 2);
    kept_sample_clear(&s);
}

/* Earlier messages are the context, as the template writes them; the last one is the question. */
static void test_messages(void)
{
    kept_sample s;
    parse("{\"messages\":[{\"role\":\"system\",\"content\":\"Be "
          "brief.\"},{\"role\":\"user\",\"content\":"
          "\"Code "
          "42.\"},{\"role\":\"assistant\",\"content\":\"Yes.\"},{\"role\":\"user\",\"content\":"
          "\"Which code?\"}],\"answer\":\"42\"}",
          &s);
    char all[1000];
    snprintf(all, sizeof all, "%s%s", s.context, s.turns[0].question);
    CHECK_STR(all,
              "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nCode 42.<|im_end|>\n"
              "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nWhich code?<|im_end|>\n"
              "<|im_start|>assistant\n");
    CHECK(!strncmp(s.turns[0].question, "Which code?", 11) && s.raw);
    kept_sample_clear(&s);
}

static void test_refused(void)
{
    static const char *const bad[][2] = {
        {"{\"input\":\"\",\"context\":\"c\",\"answers\":[\"a\"],\"length\":5,\"dataset\":"
         "\"dureader\"}",
         "data set dureader is not read here"},
        {"{\"context\":\"c\",\"multi_turns\":[]}", "does not have 1 to 256 elements"},
        {"{\"doc_id\":0,\"arguments\":{},\"target\":\"x\"}", "hold no prompt"},
        {"{\"id\":0,\"context\":\"A\",\"input\":\"Who?\",\"answer\":[\"C\"],\"options\":[\"Al\"]}",
         "the answer is none of the options"},
        {"{\"input\":\"\",\"context\":\"\",\"answers\":[],\"length\":5,\"dataset\":\"lcc\"}",
         "an answer"},
        {"{\"context\":\"a\",\"question\":\"q\",\"answer_prefix\":\"\",\"answer\":\"x\","
         "\"max_new_tokens\":0}",
         "\"max_new_tokens\" is not 1 to 4096"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kept_sample s;
        kept_error err = {"", 0};
        CHECK_INT(kept_jsonl_parse(bad[i][0], strlen(bad[i][0]), 4, models[1], &s, &err),
                  KEPT_FORMAT);
        CHECK(strstr(err.text, bad[i][1]) && strstr(err.text, "line 4"));
    }
}

/* An array as a file, and a context that is too long: first and last half of the length stay. */
static void test_array_and_cut(void)
{
    char line[9000], words[6000] = "";
    for (int i = 0; i < 400; i++)
        snprintf(words + strlen(words), 16, "word%d ", i);
    snprintf(
        line, sizeof line,
        " [ {\"id\":1,\"context\":\"a, [b] \\\"{\",\"multi_turns\":[{\"input\":\"i\",\"answer\":"
        "\"x\"}]},\n {\"id\":2,\"context\":\"%s\",\"multi_turns\":[{\"input\":\"Last?\",\"answer\":"
        "\"word399\"},{\"input\":\"First?\",\"answer\":\"word200\"}]}]\n",
        words);
    write_file(line);
    kept_task_options o = options("jsonl", 700, 10);
    o.file = file;
    kept_task *t = must_open(&o, models[1]);
    CHECK_INT(kept_task_n_samples(t), 2);
    kept_sample s;
    kept_tokens k;
    must_get(t, 0, &s, &k);
    CHECK_STR(s.context, "a, [b] \"{");
    CHECK_INT(k.n_cut, 0);
    kept_tokens_clear(&k);
    kept_sample_clear(&s);
    must_get(t, 1, &s, &k);
    int32_t *whole;
    int n;
    kept_error err;
    CHECK(!kept_prompt_tokens(models[1], s.context, strlen(s.context), true, false, &whole, &n,
                              &err));
    CHECK_INT(k.n_prefix + kept_task_room(t, &s, &k), 700);
    CHECK_INT(k.n_prefix + k.n_cut, n);
    for (int i = 0; i < k.n_prefix; i++)
        CHECK_INT(k.prefix[i], i < 350 ? whole[i] : whole[i + k.n_cut]);
    /* The end is still marked where it now stands, the middle is gone. */
    CHECK(k.turns[0].n_evidence > 0 && k.evidence[0] >= 350);
    kept_detokenize(models[1], k.prefix + k.evidence[0], k.n_evidence, true, text, TEXT);
    CHECK(strstr(text, "word399") != NULL);
    CHECK_INT(k.turns[1].n_evidence, 0);
    free(whole);
    kept_tokens_clear(&k);
    kept_sample_clear(&s);
    kept_task_close(t);
}

int main(void)
{
    if (!task_util_open())
        return 1;
    RUN(test_known);
    RUN(test_parts);
    RUN(test_messages);
    RUN(test_refused);
    RUN(test_array_and_cut);
    task_util_close();
    TEST_END();
}
