/* reader_table: the readers. Prompts are the benchmarks' own where they publish them. */
#include "task/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what templates cannot say --------------------------------------------------------------- */

/* Room and metric of RULER's tasks follow from the wording. */
static kept_status finish_ruler(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    static const struct {
        const char *part;
        int room;
    } rooms[] = {{"special magic ", 128},
                 {"chain(s) of variable assignment", 30},
                 {"top 10 words that appear", 120},
                 {"10 most common words", 120},
                 {"track the frequency of each coded word", 50}};
    (void)o;
    (void)number;
    (void)err;
    kept_turn *t = out->turns;
    t->metric = KEPT_METRIC_ALL;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (strstr(out->context, rooms[i].part)) {
            t->max_new_tokens = rooms[i].room;
            return KEPT_OK;
        }
    t->metric = KEPT_METRIC_ANY;
    t->max_new_tokens = 32;
    return KEPT_OK;
}

static kept_status finish_kvpress(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    kept_turn *t = out->turns;
    const json_t *room = json_object_get(o, "max_new_tokens");
    const char *task = json_string_value(json_object_get(o, "task"));
    const json_int_t n = json_integer_value(room);
    if (!json_is_integer(room) || n < 1 || n > 4096)
        return kept_fail(err, KEPT_FORMAT, "line %d: \"max_new_tokens\" is not 1 to 4096", number);
    t->max_new_tokens = (int)n;
    const bool all = json_is_array(json_object_get(o, "answer")) && !(task && strstr(task, "qa"));
    t->metric = all ? KEPT_METRIC_ALL : KEPT_METRIC_ANY;
    return KEPT_OK;
}

/* The label set that the reference is of, without what the question names. */
static kept_status finish_babilong(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    static const char *const sets[][9] = {
        {"bathroom", "bedroom", "garden", "hallway", "kitchen", "office", NULL},
        {"Fred", "Jeff", "Bill", "Mary", "Julie", NULL},
        {"apple", "football", "milk", NULL},
        {"yes", "no", "maybe", NULL},
        {"none", "one", "two", "three", NULL}};
    const char *question = json_string_value(json_object_get(o, "question"));
    kept_turn *t = out->turns;
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        bool is_of = false;
        for (int k = 0; sets[i][k]; k++)
            is_of = is_of || !strcmp(sets[i][k], t->answers[0]);
        if (!is_of)
            continue;
        json_t *list = json_array();
        for (int k = 0; sets[i][k]; k++)
            if (!question || !strstr(question, sets[i][k]) || !strcmp(sets[i][k], t->answers[0]))
                json_array_append_new(list, json_string(sets[i][k]));
        const kept_status st = kept_read_labels(list, number, t, err);
        json_decref(list);
        return st;
    }
    return KEPT_OK;
}

/* Options as lettered choices; the reference becomes its letter. */
static kept_status finish_infinite(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    const json_t *options = json_object_get(o, "options"), *x;
    kept_turn *t = out->turns;
    size_t i;
    char letter[2] = "";
    kept_buf b = {0};
    if (!json_array_size(options))
        return KEPT_OK;
    kept_buf_puts(&b, t->question);
    kept_buf_puts(&b, "\nOnly one of the following options is correct.");
    json_array_foreach(options, i, x)
    {
        char head[8];
        snprintf(head, sizeof head, "\n%c. ", (char)('A' + i % 26));
        kept_buf_puts(&b, head);
        kept_buf_puts(&b, json_is_string(x) ? json_string_value(x) : "");
        if (!*letter && json_is_string(x) && !strcmp(json_string_value(x), t->answers[0]))
            *letter = (char)('A' + i % 26);
    }
    if (b.failed || !*letter) {
        const bool failed = b.failed;
        kept_buf_free(&b);
        return failed ? kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number)
                      : kept_fail(err, KEPT_FORMAT, "line %d: the answer is none of the options",
                                  number);
    }
    free(t->question);
    t->question = b.s;
    free(t->answers[0]);
    t->answers[0] = strdup(letter);
    t->metric = KEPT_METRIC_LETTER;
    return t->answers[0] ? KEPT_OK : kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
}

/* Sessions one after the other; the turns that have the answer are the evidence. */
static kept_status finish_memory(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    enum { MOST = 256 };
    const json_t *sessions = json_object_get(o, "haystack_sessions"), *session, *message;
    const json_t *dates = json_object_get(o, "haystack_dates");
    kept_turn *t = out->turns;
    kept_buf b = {0};
    size_t i, k;
    t->evidence = kept_calloc(MOST, sizeof *t->evidence);
    json_array_foreach(sessions, i, session)
    {
        char head[96];
        const char *date = json_string_value(json_array_get(dates, i));
        snprintf(head, sizeof head, "%s### Session %zu (%.40s)\n", i ? "\n" : "", i + 1,
                 date ? date : "");
        kept_buf_puts(&b, head);
        json_array_foreach(session, k, message)
        {
            const char *role = json_string_value(json_object_get(message, "role"));
            const char *content = json_string_value(json_object_get(message, "content"));
            const size_t begin = b.n;
            kept_buf_puts(&b, role ? role : "");
            kept_buf_puts(&b, ": ");
            kept_buf_puts(&b, content ? content : "");
            if (json_is_true(json_object_get(message, "has_answer")) && t->evidence &&
                t->n_evidence < MOST)
                t->evidence[t->n_evidence++] = (kept_span_chars){begin, b.n};
            kept_buf_puts(&b, "\n");
        }
    }
    if (b.failed || !t->evidence) {
        kept_buf_free(&b);
        return kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    }
    free(out->context);
    out->context = b.s ? b.s : strdup("");
    if (t->n_evidence)
        t->depth = (double)t->evidence[0].begin / (double)b.n;
    return KEPT_OK;
}

/* The request as it was sent: {"gen_args_0": {"arg_0": prompt, ...}} or [[prompt, ...]]. Several
 * with a text as second argument are choices, of which target is the index or the text. */
static kept_status finish_lm_eval(const json_t *o, int number, kept_sample *out, kept_error *err)
{
    const json_t *args = json_object_get(o, "arguments"), *target = json_object_get(o, "target");
    kept_turn *t = out->turns;
    json_t *labels = json_array();
    const char *prompt = NULL;
    kept_status st = KEPT_OK;
    for (int i = 0; i < 64; i++) {
        char key[32];
        snprintf(key, sizeof key, "gen_args_%d", i);
        const json_t *one =
            json_is_array(args) ? json_array_get(args, (size_t)i) : json_object_get(args, key);
        const json_t *text =
            json_is_array(one) ? json_array_get(one, 0) : json_object_get(one, "arg_0");
        const json_t *second =
            json_is_array(one) ? json_array_get(one, 1) : json_object_get(one, "arg_1");
        if (!json_is_string(text))
            break;
        prompt = prompt ? prompt : json_string_value(text);
        const char *label = json_string_value(second);
        if (label)
            json_array_append_new(labels, json_string(label + strspn(label, " ")));
    }
    if (!prompt)
        st = kept_fail(err, KEPT_FORMAT, "line %d: \"arguments\" hold no prompt", number);
    free(out->context);
    out->context = strdup(prompt ? prompt : "");
    if (!st && !out->context)
        st = kept_fail(err, KEPT_NOMEM, "out of memory at line %d", number);
    if (!st && json_array_size(labels) > 1) {
        t->metric = KEPT_METRIC_CHOICE;
        st = kept_read_labels(labels, number, t, err);
        if (json_is_integer(target))
            target = json_array_get(labels, (size_t)json_integer_value(target));
    }
    if (!st)
        st = kept_read_answers(target, number, t, err);
    json_decref(labels);
    return st;
}

static kept_status finish_unknown_longbench(const json_t *o, int number, kept_sample *out,
                                            kept_error *err)
{
    (void)out;
    return kept_fail(
        err, KEPT_FORMAT,
        "line %d: LongBench's data set %.40s is not read here (the Chinese ones need a "
        "word segmenter)",
        number, json_string_value(json_object_get(o, "dataset")));
}

/* ---- table ----------------------------------------------------------------------------------- */

#define PASSAGES                                                                                   \
    "Answer the question based on the given passages. Only give me the answer and do not output "  \
    "any other words."
#define LONGBENCH(set, Context, Question, Metric, Room)                                            \
    .name = "longbench", .keys = "context,input,answers[],dataset,length",                         \
    .where = "dataset=" set, .context = (Context), .question = (Question), .answers = "answers",   \
    .metric = KEPT_METRIC_##Metric, .max_new = (Room), .cut = true
#define LONGBENCH_QA(set)                                                                          \
    LONGBENCH(set, PASSAGES "\n\nThe following are given passages.\n{context}",                    \
              "\n\n" PASSAGES "\n\nQuestion: {input}\nAnswer:", F1, 32)
#define NARRATIVE                                                                                  \
    "as concisely as you can, using a single phrase if possible. Do not provide any explanation."
#define SCIENTIFIC                                                                                 \
    "as concisely as you can, using a single phrase or sentence if possible. If the question "     \
    "cannot be answered based on the information in the article, write \"unanswerable\". If the "  \
    "question is a yes/no question, answer \"yes\", \"no\", or \"unanswerable\". Do not provide "  \
    "any explanation."
#define INFINITE(Where, Context, Prefix, Metric, Room)                                             \
    .name = "infinitebench", .keys = "id,context,input,answer,options[]", .where = (Where),        \
    .context = (Context), .question = "\n\n{input}", .prefix = (Prefix), .answers = "answer",      \
    .metric = KEPT_METRIC_##Metric, .max_new = (Room), .cut = true
#define HIDDEN                                                                                     \
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. " \
    "I will quiz you about the important information.\n\n{context}"

static const kept_reader readers[] = {
    {.name = "ruler",
     .keys = "index,input,outputs[],length",
     .context = "{input}",
     .prefix = "{answer_prefix}",
     .split = "\n\nAnswer the question based on the given documents.\1\nWhat is the special magic "
              "\1\nWhat are all the special magic \1\nQuestion: ",
     .answers = "outputs",
     .raw = true,
     .finish = finish_ruler},
    {LONGBENCH("narrativeqa",
               "You are given a story, which can be either a novel or a movie script, and a "
               "question. Answer the question " NARRATIVE "\n\nStory: {context}",
               "\n\nNow, answer the question based on the story " NARRATIVE
               "\n\nQuestion: {input}\n\nAnswer:",
               F1, 128)},
    {LONGBENCH("qasper",
               "You are given a scientific article and a question. Answer the question " SCIENTIFIC
               "\n\nArticle: {context}",
               "\n\n Answer the question based on the above article " SCIENTIFIC
               "\n\nQuestion: {input}\n\nAnswer:",
               F1, 128)},
    {LONGBENCH("multifieldqa_en", "Read the following text and answer briefly.\n\n{context}",
               "\n\nNow, answer the following question based on the above text, only give me the "
               "answer and do not output any other words.\n\nQuestion: {input}\nAnswer:",
               F1, 64)},
    {LONGBENCH_QA("hotpotqa")},
    {LONGBENCH_QA("2wikimqa")},
    {LONGBENCH_QA("musique")},
    {LONGBENCH("gov_report",
               "You are given a report by a government agency. Write a one-page summary of the "
               "report.\n\nReport:\n{context}",
               "\n\nNow, write a one-page summary of the report.\n\nSummary:", ROUGE_L, 512)},
    {LONGBENCH("qmsum",
               "You are given a meeting transcript and a query containing a question or "
               "instruction. Answer the query in one or more sentences.\n\nTranscript:\n{context}",
               "\n\nNow, answer the query based on the above meeting transcript in one or more "
               "sentences.\n\nQuery: {input}\nAnswer:",
               ROUGE_L, 512)},
    {LONGBENCH("multi_news",
               "You are given several news passages. Write a one-page summary of all news. "
               "\n\nNews:\n{context}",
               "\n\nNow, write a one-page summary of all the news.\n\nSummary:", ROUGE_L, 512)},
    {LONGBENCH("trec",
               "Please determine the type of the question below. Here are some examples of "
               "questions.\n\n{context}",
               "\n{input}", CLASS, 64),
     .labels = "all_classes", .raw = true},
    {LONGBENCH("triviaqa",
               "Answer the question based on the given passage. Only give me the answer and do not "
               "output any other words. The following are some examples.\n\n{context}",
               "\n\n{input}", F1_LINE, 32),
     .raw = true},
    {LONGBENCH("samsum",
               "Summarize the dialogue into a few short sentences. The following are some "
               "examples.\n\n{context}",
               "\n\n{input}", ROUGE_L_LINE, 128),
     .raw = true},
    {LONGBENCH("passage_count",
               "There are some paragraphs below sourced from Wikipedia. Some of them may be "
               "duplicates. Please carefully read these paragraphs and determine how many unique "
               "paragraphs there are after removing duplicates. In other words, how many "
               "non-repeating paragraphs are there in total?\n\n{context}",
               "\n\nPlease enter the final count of unique paragraphs after removing duplicates. "
               "The output format should only contain the number, such as 1, 2, 3, and so on.\n\n"
               "The final answer is: ",
               COUNT, 32)},
    {LONGBENCH("passage_retrieval_en",
               "Here are 30 paragraphs from Wikipedia, along with an abstract. Please determine "
               "which paragraph the abstract is from.\n\n{context}",
               "\n\nThe following is an abstract.\n\n{input}\n\nPlease enter the number of the "
               "paragraph that the abstract is from. The answer format must be like \"Paragraph "
               "1\", \"Paragraph 2\", etc.\n\nThe answer is: ",
               RETRIEVAL, 32)},
    {LONGBENCH("lcc", "Please complete the code given below. \n{context}", "Next line of code:\n",
               EDIT, 64),
     .raw = true},
    {LONGBENCH("repobench-p", "Please complete the code given below. \n{context}",
               "{input}Next line of code:\n", EDIT, 64),
     .raw = true},
    {.name = "longbench",
     .keys = "context,input,answers[],dataset,length",
     .context = "{context}",
     .answers = "answers",
     .finish = finish_unknown_longbench},
    {.name = "longbench-v2",
     .keys = "question,choice_A,choice_B,choice_C,choice_D,answer,context",
     .context = "Please read the following text and answer the question below.\n\n<text>\n{context}"
                "\n</text>",
     .question = "\n\nWhat is the correct answer to this question: {question}\nChoices:\n"
                 "(A) {choice_A}\n(B) {choice_B}\n(C) {choice_C}\n(D) {choice_D}\n\nFormat your "
                 "response as follows: \"The correct answer is (insert answer here)\".",
     .answers = "answer",
     .metric = KEPT_METRIC_LETTER,
     .max_new = 128,
     .cut = true},
    {.name = "scbench",
     .keys = "context,multi_turns[]",
     .context = "{context}",
     .question = "\n\n{input}",
     .answers = "answer",
     .metric = KEPT_METRIC_ANY,
     .max_new = 150,
     .turns = "multi_turns",
     .cut = true},
    {.name = "longmemeval",
     .keys = "question,answer,haystack_sessions[]",
     .question = "\n\nAnswer from the chat history above. Current date: {question_date}\n"
                 "Question: {question}\nAnswer:",
     .answers = "answer",
     .metric = KEPT_METRIC_ANY,
     .max_new = 64,
     .cut = true,
     .finish = finish_memory},
    {.name = "babilong",
     .keys = "input,question,target",
     .context = "I will give you context with the facts hidden in some random text and a question. "
                "You need to answer the question based only on the information from the facts.\n\n"
                "{input}",
     .question = "\n\nQuestion: {question}\nAnswer with one word.",
     .answers = "target",
     .metric = KEPT_METRIC_LABEL,
     .max_new = 20,
     .cut = true,
     .finish = finish_babilong},
    {INFINITE("input~pass key", HIDDEN, "\n\nThe pass key is", NUMBER, 6)},
    {INFINITE("input~sequence of digits", HIDDEN, "\n\nThe sequence of digits is", NUMBER, 12)},
    {INFINITE("input~Key:",
              "Extract the value corresponding to the specified key in the JSON object below.\n\n"
              "{context}",
              NULL, ANY, 50)},
    {INFINITE(NULL, "Read the text below and answer the question.\n\n{context}", "\nAnswer:", F1,
              40),
     .finish = finish_infinite},
    {.name = "kvpress",
     .keys = "context,question,answer_prefix,answer,max_new_tokens",
     .context = "{context}",
     .question = "{question}",
     .prefix = "{answer_prefix}",
     .answers = "answer",
     .finish = finish_kvpress},
    {.name = "lm-eval",
     .keys = "doc_id,arguments,target",
     .context = "{}",
     .split = "\n\n",
     .metric = KEPT_METRIC_ANY,
     .max_new = 64,
     .raw = true,
     .finish = finish_lm_eval},
};

const kept_reader *kept_reader_at(int i)
{
    return i >= 0 && i < (int)(sizeof readers / sizeof *readers) ? &readers[i] : NULL;
}
