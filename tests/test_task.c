/* Needle tasks on models with a SentencePiece and a byte-pair tokenizer, and on the real default
 * model when it is there. Expected texts are written out or rebuilt here from RULER's description.
 */
#include "task_util.h"
#include "test.h"

static const char *const needle_tasks[] = {"niah_single", "niah_multikey", "niah_multikey_2",
                                           "niah_multikey_3", "niah_multivalue"};

/* ---- words ----------------------------------------------------------------------------------- */

static void test_words(void)
{
    static const int least[] = {200, 400};
    for (int noun = 0; noun < 2; noun++) {
        int n;
        const char *const *w = kept_words(noun, &n);
        CHECK(n >= least[noun]);
        for (int i = 0; i < n; i++) {
            CHECK(strspn(w[i], "abcdefghijklmnopqrstuvwxyz") == strlen(w[i]) && strlen(w[i]) > 1);
            CHECK(strlen(w[i]) < 16);
            for (int j = 0; j < i; j++)
                CHECK(strcmp(w[i], w[j]) != 0);
        }
    }
    kept_rng rng;
    kept_rng_init(&rng, 2);
    for (int i = 0; i < 2000; i++) {
        char s[KEPT_SECRET_CAP];
        kept_secret_draw(&rng, KEPT_SECRET_NUMBER, 7, s);
        CHECK(strlen(s) == 7 && strspn(s, "0123456789") == 7 && s[0] != '0');
        kept_secret_draw(&rng, KEPT_SECRET_WORD, 7, s);
        CHECK(strspn(s, "abcdefghijklmnopqrstuvwxyz-") == strlen(s) && strchr(s, '-'));
        kept_secret_draw(&rng, KEPT_SECRET_UUID, 7, s);
        CHECK_INT(strlen(s), 36);
        CHECK(s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-');
        CHECK(s[14] == '4' && strchr("89ab", s[19]));
        CHECK(strspn(s, "0123456789abcdef-") == 36);
        kept_secret_draw(&rng, KEPT_SECRET_NUMBER, 64, s);
        CHECK(strlen(s) == 64 && strspn(s, "0123456789") == 64 && s[0] != '0');
    }
    CHECK_INT(kept_secret_room(KEPT_SECRET_NUMBER, 7), 16);
    CHECK_INT(kept_secret_room(KEPT_SECRET_NUMBER, 64), 147);
}

/* Long answers: every reference has as many digits, and room. */
static void test_digits(void)
{
    kept_task_options o = options("niah_multivalue", 4000, 1);
    o.digits = 64;
    kept_task *t = must_open(&o, models[0]);
    CHECK_STR(kept_task_label(t), "niah_multivalue(word,number,noise,digits=64)");
    kept_sample s;
    must_get(t, 0, &s, NULL);
    for (int i = 0; i < 4; i++)
        CHECK(strlen(s.turns[0].answers[i]) == 64 && strstr(s.context, s.turns[0].answers[i]));
    CHECK_INT(s.turns[0].max_new_tokens, 4 * 147);
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* ---- wording --------------------------------------------------------------------------------- */

#define NOISE                                                                                      \
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"

static void expect_prompt(const kept_task_options *o, int i, const char *want, const char *answer)
{
    kept_task *t = must_open(o, models[1]);
    kept_sample s;
    must_get(t, i, &s, NULL);
    char *prompt;
    size_t split;
    prompt_of(t, &s, &prompt, &split);
    CHECK_STR(prompt, want);
    CHECK_STR(prompt + split, strstr(want, "\nWhat "));
    CHECK_STR(s.turns[0].answers[0], answer);
    CHECK(s.turns[0].metric == KEPT_METRIC_ALL);
    free(prompt);
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* Whole prompts, letter by letter. */
static void test_exact_prompts(void)
{
    kept_task_options o = options("niah_single", 640, 3);
    expect_prompt(&o, 2,
                  "A special magic number is hidden within the following text. Make sure "
                  "to memorize it. I will quiz you about the number afterwards.\n" NOISE
                  "One of the special magic numbers for yellow-fountain is: 7488380.\n" NOISE NOISE
                  "What is the special magic number for yellow-fountain mentioned in the "
                  "provided text? The special magic number for yellow-fountain mentioned "
                  "in the provided text is",
                  "7488380");
    o = options("niah_multikey_3", 900, 3);
    expect_prompt(&o, 0,
                  "A special magic uuid is hidden within the following text. Make sure "
                  "to memorize it. I will quiz you about the uuid afterwards.\n"
                  "One of the special magic uuids for "
                  "8e24ffd5-6b20-4b06-9756-ad4162e2dc79 is: "
                  "c8d77ed7-5510-453d-a1f5-4b37a9ac2c48.\n"
                  "One of the special magic uuids for "
                  "d793a4a6-c719-44ef-8d37-e7f7e2ebdf54 is: "
                  "f4d6ee89-49e2-4945-9a01-7c0f43fc6140.\n"
                  "One of the special magic uuids for "
                  "2b6abcaa-1286-4c78-9381-0851d46ecbbc is: "
                  "e45a199d-bcc4-4fd3-a8ec-60230f0680f0.\n"
                  "One of the special magic uuids for "
                  "3c904919-9fb1-4b40-9f38-3099b7f1d512 is: "
                  "2c938fa0-75af-4465-9531-8016bc917c58.\n"
                  "What is the special magic uuid for "
                  "3c904919-9fb1-4b40-9f38-3099b7f1d512 mentioned in the provided text? "
                  "The special magic uuid for 3c904919-9fb1-4b40-9f38-3099b7f1d512 "
                  "mentioned in the provided text is",
                  "2c938fa0-75af-4465-9531-8016bc917c58");
    o = options("niah_multivalue", 800, 3);
    o.n_values = 2;
    expect_prompt(&o, 2,
                  "Some special magic numbers are hidden within the following text. Make "
                  "sure to memorize it. I will quiz you about the numbers afterwards.\n" NOISE NOISE
                  "One of the special magic numbers for blind-jar is: 5131599.\n" NOISE NOISE
                  "One of the special magic numbers for blind-jar is: 5481276.\n"
                  "What are all the special magic numbers for blind-jar mentioned in the "
                  "provided text? The special magic numbers for blind-jar mentioned in "
                  "the provided text are",
                  "5131599");
}

/* The sample's texts rebuilt from what it says the key and the answers are. */
static void expect_wording(const kept_sample *s, const char *kind, bool plural)
{
    char key[KEPT_SECRET_CAP], want[600], format[600];
    snprintf(format, sizeof format, " The special magic %s%s for %%47s mentioned", kind,
             plural ? "s" : "");
    CHECK_INT(sscanf(s->turns[0].answer_prefix, format, key), 1);
    snprintf(want, sizeof want, " The special magic %s%s for %s mentioned in the provided text %s",
             kind, plural ? "s" : "", key, plural ? "are" : "is");
    CHECK_STR(s->turns[0].answer_prefix, want);
    snprintf(want, sizeof want,
             "\nWhat %s the special magic %s%s for %s mentioned in the provided "
             "text?",
             plural ? "are all" : "is", kind, plural ? "s" : "", key);
    CHECK_STR(s->turns[0].question, want);
    snprintf(want, sizeof want,
             "%s special magic %s%s %s hidden within the following text. Make "
             "sure to memorize it. I will quiz you about the %s%s afterwards.\n",
             plural ? "Some" : "A", kind, plural ? "s" : "", plural ? "are" : "is", kind,
             plural ? "s" : "");
    CHECK(!strncmp(s->context, want, strlen(want)));
    snprintf(want, sizeof want, " for %s is: ", key);
    CHECK_INT(occurrences(s->context, want), s->turns[0].n_answers); /* no distractor has the key */
    CHECK_INT(s->turns[0].n_evidence, s->turns[0].n_answers);
    for (int i = 0; i < s->turns[0].n_answers; i++) {
        snprintf(want, sizeof want, "One of the special magic %ss for %s is: %s.", kind, key,
                 s->turns[0].answers[i]);
        CHECK_INT(occurrences(s->context, want), 1);
        CHECK_INT(occurrences(s->context, s->turns[0].answers[i]), 1);
        bool marked = false;
        for (int e = 0; e < s->turns[0].n_evidence; e++)
            marked |= s->context + s->turns[0].evidence[e].begin == strstr(s->context, want) &&
                      s->turns[0].evidence[e].end - s->turns[0].evidence[e].begin == strlen(want);
        CHECK(marked);
    }
}

static void test_wording(void)
{
    static const char *const kinds[] = {"number", "number", "number", "uuid", "number"};
    static const int needles[] = {1, 4, 0, 0, 4}; /* 0: every line is one */
    for (int k = 0; k < 5; k++) {
        kept_task_options o = options(needle_tasks[k], 3000, 6);
        kept_task *t = must_open(&o, models[0]);
        for (int i = 0; i < 6; i++) {
            kept_sample s;
            must_get(t, i, &s, NULL);
            expect_wording(&s, kinds[k], k == 4);
            CHECK_INT(s.turns[0].n_answers, k == 4 ? 4 : 1);
            const int lines = occurrences(s.context, "\n");
            const int found = occurrences(s.context, "\nOne of the special magic ");
            CHECK_INT(found, needles[k] ? needles[k] : lines);
            CHECK_INT(occurrences(s.context, "\nThe grass is green. The sky is blue. The sun is "
                                             "yellow. Here we go. There and back again."),
                      lines - found);
            CHECK(s.context[strlen(s.context) - 1] == '.');
            kept_sample_clear(&s);
        }
        kept_task_close(t);
    }
    kept_task_options o = options("niah_multikey", 2500, 2);
    o.key = "uuid";
    o.value = "word";
    o.n_keys = 7;
    o.n_values = 2;
    kept_task *t = must_open(&o, models[0]);
    CHECK_STR(kept_task_label(t), "niah_multikey(uuid,word,noise,keys=7,values=2)");
    kept_sample s;
    must_get(t, 1, &s, NULL);
    expect_wording(&s, "word", true);
    CHECK_INT(occurrences(s.context, "One of the special magic words for "), 14);
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* ---- depth, size, evidence ------------------------------------------------------------------- */

static void test_depth(void)
{
    const int n = 23;
    kept_task_options o = options("niah_single", 8000, n);
    kept_task *t = must_open(&o, models[0]);
    int strata[23] = {0};
    double early = 1, late = 0;
    for (int i = 0; i < n; i++) {
        kept_sample s;
        must_get(t, i, &s, NULL);
        CHECK(s.turns[0].depth >= 0 && s.turns[0].depth < 1);
        strata[(int)(s.turns[0].depth * n)]++;
        if (i < 5) {
            early = fmin(early, s.turns[0].depth);
            late = fmax(late, s.turns[0].depth);
        }
        int before = 0, all = occurrences(s.context, "\nThe grass");
        for (const char *p = s.context;
             (p = strstr(p, "\nThe grass")) && p < s.context + s.turns[0].evidence[0].begin; p++)
            before++;
        CHECK_INT(before, floor(s.turns[0].depth * (all + 1)));
        kept_sample_clear(&s);
    }
    for (int i = 0; i < n; i++)
        CHECK_INT(strata[i], 1);
    CHECK(early < 0.25 && late > 0.75); /* a run cut short has covered the range */
    kept_task_close(t);
}

static void check_evidence(const kept_model *m, const kept_sample *s, const kept_tokens *k)
{
    int spans = 0;
    for (int e = 0; e < k->n_evidence;) {
        int end = e + 1;
        while (end < k->n_evidence && k->evidence[end] == k->evidence[end - 1] + 1)
            end++;
        CHECK(k->evidence[e] >= 0 && k->evidence[end - 1] < k->n_prefix);
        const int first = k->evidence[e], n = end - e;
        kept_detokenize(m, k->prefix + first, n, true, text, sizeof text);
        int held = 0;
        size_t inside = 0;
        for (int v = 0; v < s->turns[0].n_evidence; v++) {
            char want[200] = "";
            const size_t len = s->turns[0].evidence[v].end - s->turns[0].evidence[v].begin;
            memcpy(want, s->context + s->turns[0].evidence[v].begin, len);
            held += strstr(text, want) != NULL;
            inside += strstr(text, want) ? len : 0;
        }
        CHECK(held >= 1);
        CHECK(strlen(text) <= inside + 2 + (size_t)held); /* at most a separator on each side */
        /* One token less on either side no longer holds it. */
        kept_detokenize(m, k->prefix + first + 1, n - 1, true, text, sizeof text);
        CHECK(strncmp(text, "One of", 6) != 0 && strncmp(text, " One of", 7) != 0);
        spans += held;
        e = end;
    }
    CHECK_INT(spans, s->turns[0].n_evidence);
}

static void test_fit_and_evidence(void)
{
    static const int lengths[] = {700, 1333, 4096};
    for (int m = 0; m < n_models; m++)
        for (int k = 0; k < 5; k++)
            for (int l = 0; l < 3; l++)
                for (int mode = 0; mode < 4; mode++) {
                    kept_task_options o = options(needle_tasks[k], lengths[l], 3);
                    o.chat = mode & 1;
                    o.query_aware = mode & 2;
                    kept_task *t = NULL;
                    if (kept_task_open(&o, models[m], &t, NULL)) {
                        CHECK(l == 0); /* the letters of the small tokenizers fill 700 tokens */
                        continue;
                    }
                    for (int i = 0; i < 3; i++) {
                        kept_sample s;
                        kept_tokens tok;
                        must_get(t, i, &s, &tok);
                        const int all = tok.n_prefix + tok.n_suffix + s.turns[0].max_new_tokens;
                        CHECK(all <= lengths[l]);
                        CHECK(l == 0 || all >= lengths[l] - 300);
                        check_evidence(models[m], &s, &tok);
                        kept_tokens_clear(&tok);
                        kept_sample_clear(&s);
                    }
                    kept_task_close(t);
                }
}

static void test_deterministic(void)
{
    kept_task_options o = options("niah_multikey", 3000, 8);
    kept_task *a = must_open(&o, models[0]), *b = must_open(&o, models[0]);
    o.seed++;
    kept_task *c = must_open(&o, models[0]);
    char hashes[8][17];
    for (int i = 0; i < 8; i++) {
        kept_sample s, again, other;
        kept_tokens k, ka, ko;
        must_get(a, i, &s, &k);
        must_get(b, 7 - i, &again, NULL); /* another order */
        kept_sample_clear(&again);
        must_get(b, i, &again, &ka);
        must_get(c, i, &other, &ko);
        CHECK_STR(s.context, again.context);
        CHECK_STR(k.hash, ka.hash);
        CHECK(strlen(k.hash) == 16 && strcmp(k.hash, ko.hash) != 0);
        memcpy(hashes[i], k.hash, sizeof k.hash);
        for (int j = 0; j < i; j++)
            CHECK(strcmp(hashes[i], hashes[j]) != 0);
        kept_sample_clear(&s);
        kept_sample_clear(&again);
        kept_sample_clear(&other);
        kept_tokens_clear(&k);
        kept_tokens_clear(&ka);
        kept_tokens_clear(&ko);
    }
    kept_task_close(a);
    kept_task_close(b);
    kept_task_close(c);
}

/* ---- assembly -------------------------------------------------------------------------------- */

static void check_chat_split(const kept_model *m, const char *name, bool query_aware)
{
    kept_task_options o = options(name, 3000, 2);
    o.chat = true;
    o.query_aware = query_aware;
    kept_task *t = must_open(&o, m);
    kept_sample s;
    kept_tokens k;
    must_get(t, 0, &s, &k);
    static char user[1 << 16], want[1 << 16];
    char *prompt;
    size_t n, split;
    kept_error err;
    snprintf(user, sizeof user, "%s%s", s.context, s.turns[0].question);
    CHECK_INT(kept_chat_format(m, NULL, user, want, sizeof want, &n, &err), KEPT_OK);
    CHECK(n < sizeof want && want[n - 1] == '\n');
    snprintf(want + n, sizeof want - n, "%s", s.turns[0].answer_prefix + 1); /* less its space */
    prompt_of(t, &s, &prompt, &split);
    CHECK_STR(prompt, want);
    const char *behind = query_aware
                             ? strstr(want, s.turns[0].question) + strlen(s.turns[0].question)
                             : strstr(want, s.context) + strlen(s.context);
    CHECK_INT(split, behind - want);
    CHECK(query_aware == (strstr(prompt + split, "What is") == NULL));
    CHECK(strstr(prompt + split, "<|im_start|>assistant\nThe special magic") != NULL);
    size_t len = kept_detokenize(m, k.prefix, k.n_prefix, true, text, TEXT);
    const char *from = strstr(text, "<|im_start|>");
    CHECK(from && from - text <= 3); /* BOS */
    CHECK(from && len - (size_t)(from - text) <= split + 2);
    CHECK(strstr(text, s.turns[0].answers[0]) != NULL);
    kept_detokenize(m, k.suffix, k.n_suffix, true, text, TEXT);
    CHECK(strstr(text, "assistant") && strstr(text, "provided text is"));
    CHECK(query_aware == (strstr(text, "What is") == NULL));
    free(prompt);
    kept_tokens_clear(&k);
    kept_sample_clear(&s);
    kept_task_close(t);
}

static void test_assembly(void)
{
    for (int m = 0; m < n_models; m++)
        for (int aware = 0; aware < 2; aware++) {
            check_chat_split(models[m], "niah_single", aware);
            check_chat_split(models[m], "niah_multikey_2", aware);
        }
    kept_task_options o = options("niah_single", 3000, 1);
    o.query_aware = true;
    kept_task *t = must_open(&o, models[0]);
    kept_sample s;
    char *prompt;
    size_t split;
    must_get(t, 0, &s, NULL);
    prompt_of(t, &s, &prompt, &split);
    CHECK_STR(prompt + split, s.turns[0].answer_prefix);
    free(prompt);
    kept_sample_clear(&s);
    kept_task_close(t);
}

/* A suffix is never empty, and templates that strip white space keep their place. */
static void test_odd_prompts(void)
{
    write_file("{\"context\":\"  user \\n\",\"question\":\"\",\"answer\":\"user\"}\n"
               "{\"context\":\"ab<|im_end|>user\",\"question\":\"user\",\"answer\":\"ab\"}\n");
    for (int m = 0; m < n_models; m++)
        for (int mode = 0; mode < 4; mode++) {
            kept_task_options o = options("jsonl", 200, 2);
            o.file = file;
            o.chat = mode & 1;
            o.query_aware = mode & 2;
            kept_task *t = must_open(&o, models[m]);
            for (int i = 0; i < 2; i++) {
                kept_sample s;
                kept_tokens k;
                must_get(t, i, &s, &k);
                CHECK(k.n_prefix >= 1 && k.n_suffix >= 1);
                CHECK(k.n_evidence >= 1);
                kept_detokenize(models[m], k.prefix + k.evidence[0], k.n_evidence, true, text,
                                TEXT);
                CHECK(strstr(text, s.turns[0].answers[0]) != NULL);
                kept_tokens_clear(&k);
                kept_sample_clear(&s);
            }
            kept_task_close(t);
        }
}

int main(void)
{
    if (!task_util_open())
        return 1;
    RUN(test_words);
    RUN(test_digits);
    RUN(test_exact_prompts);
    RUN(test_wording);
    RUN(test_depth);
    RUN(test_fit_and_evidence);
    RUN(test_deterministic);
    RUN(test_assembly);
    RUN(test_odd_prompts);
    task_util_close();
    TEST_END();
}
