/* ruler: RULER's variable tracking (vt), common words (cwe) and frequent words (fwe), by its
 * constructions; docs/tasks.md lists what differs.
 *
 *   vt    one chain of five variables hidden in noise, after a solved example of at most 500 tokens
 *   cwe   a numbered list in which ten words are frequent, after a solved short one
 *   fwe   made-up words whose counts fall as rank^-2; the most frequent is "...", the answer is the
 *         next three
 */
#include "task/parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOISE                                                                                      \
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
#define CHAIN   5
#define COMMON  10
#define LETTERS 6 /* of a coded word */

static kept_status no_memory(const kept_task *t, int i, kept_sample *out, kept_error *err)
{
    kept_sample_clear(out);
    return kept_fail(err, KEPT_NOMEM, "out of memory building sample %d of %s", i, t->label);
}

/* One turn with the texts and room for n answers. */
static bool set_turn(kept_sample *out, kept_buf *context, const char *question, const char *prefix,
                     int n_answers)
{
    if (context->failed || kept_sample_new_turns(out, 1)) {
        kept_buf_free(context);
        return false;
    }
    kept_turn *turn = out->turns;
    out->context = context->s;
    turn->question = strdup(question);
    turn->answer_prefix = strdup(prefix);
    turn->answers = kept_calloc((size_t)n_answers, sizeof *turn->answers);
    return turn->question && turn->answer_prefix && turn->answers;
}

static bool add_answer(kept_turn *turn, const char *s)
{
    turn->answers[turn->n_answers] = strdup(s);
    return turn->answers[turn->n_answers++];
}

static void draw_letters(kept_rng *rng, char first, int n, char *out)
{
    for (int i = 0; i < n; i++)
        out[i] = (char)(first + kept_rng_below(rng, 26));
    out[n] = 0;
}

/* ---- vt -------------------------------------------------------------------------------------- */

typedef struct chain {
    char name[CHAIN][8], line[CHAIN][32], value[8];
    int at[CHAIN]; /* ascending: lines of noise before each */
} chain;

static void draw_chain(kept_rng *rng, int letters, int n_noise, chain *c)
{
    snprintf(c->value, sizeof c->value, "%u", 10000u + kept_rng_below(rng, 89999));
    for (int k = 0; k < CHAIN; k++) {
        for (bool fresh = false; !fresh;) {
            draw_letters(rng, 'A', letters, c->name[k]);
            fresh = true;
            for (int j = 0; j < k; j++)
                fresh = fresh && strcmp(c->name[j], c->name[k]) != 0;
        }
        if (k)
            snprintf(c->line[k], sizeof *c->line, "VAR %s = VAR %s ", c->name[k], c->name[k - 1]);
        else
            snprintf(c->line[k], sizeof *c->line, "VAR %s = %s", c->name[k], c->value);
    }
    /* CHAIN different places of n_noise, each equally likely (Floyd), sorted. */
    for (int k = 0, top = n_noise - CHAIN; k < CHAIN; k++, top++) {
        int place = (int)kept_rng_below(rng, (uint32_t)top + 1), i = k;
        for (int j = 0; j < k; j++)
            place = c->at[j] == place ? top : place;
        for (; i > 0 && c->at[i - 1] > place; i--)
            c->at[i] = c->at[i - 1];
        c->at[i] = place;
    }
}

#define VT_HEAD                                                                                    \
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
#define VT_ASK "\nQuestion: Find all variables that are assigned the value %s in the text above."
#define VT_ANSWER                                                                                  \
    " Answer: According to the chain(s) of variable assignment in the text above, 5 variables "    \
    "are assigned the value %s, they are: "

/* Lines joined by spaces, as RULER joins them; spans (CHAIN of them) may be NULL. */
static void write_chain(const chain *c, int n_noise, kept_buf *out, kept_span_chars *spans)
{
    const size_t start = out->n;
    for (int i = 0, k = 0; i < n_noise; i++) {
        for (; k < CHAIN && c->at[k] == i; k++) {
            kept_buf_puts(out, out->n > start ? " " : "");
            if (spans)
                spans[k] = (kept_span_chars){out->n, out->n + strlen(c->line[k])};
            kept_buf_puts(out, c->line[k]);
        }
        kept_buf_puts(out, out->n > start ? " " NOISE : NOISE);
    }
}

/* A solved task, with blank lines after it. */
static void write_example(kept_rng *rng, int n_noise, kept_buf *out)
{
    char line[256];
    chain c;
    draw_chain(rng, 3, n_noise, &c);
    kept_buf_puts(out, VT_HEAD);
    write_chain(&c, n_noise, out, NULL);
    snprintf(line, sizeof line, VT_ASK, c.value);
    kept_buf_puts(out, line);
    snprintf(line, sizeof line, VT_ANSWER, c.value);
    kept_buf_puts(out, line);
    for (int k = 0; k < CHAIN; k++) {
        kept_buf_puts(out, " ");
        kept_buf_puts(out, c.name[k]);
    }
    kept_buf_puts(out, "\n\n\n\n");
}

kept_status kept_vt_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    kept_rng rng;
    chain c;
    char ask[128], answer[256];
    kept_buf context = {0};
    const int n_noise = units + CHAIN; /* every line of the chain stands before its own */
    *out = (kept_sample){0};
    kept_span_chars *spans = kept_calloc(CHAIN, sizeof *spans);
    if (!spans)
        return no_memory(t, i, out, err);
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    write_example(&rng, t->example_units, &context);
    draw_chain(&rng, 5, n_noise, &c);
    kept_buf_puts(&context, VT_HEAD);
    write_chain(&c, n_noise, &context, spans);
    snprintf(ask, sizeof ask, VT_ASK, c.value);
    snprintf(answer, sizeof answer, VT_ANSWER, c.value);
    bool ok = set_turn(out, &context, ask, answer, CHAIN);
    for (int k = 0; k < CHAIN && ok; k++)
        ok = add_answer(out->turns, c.name[k]);
    if (!ok) {
        free(spans);
        return no_memory(t, i, out, err);
    }
    out->turns->evidence = spans;
    out->turns->n_evidence = CHAIN;
    out->turns->depth = (double)c.at[0] / n_noise;
    out->turns->max_new_tokens = 30;
    return KEPT_OK;
}

kept_status kept_vt_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    kept_task_set_label(t, "chains=1,hops=4,noise");
    /* As RULER: lines in steps of five while the example, with 30 tokens to spare, takes at most
     * 500. One step is needed whatever it takes. */
    kept_status st = KEPT_OK;
    t->example_units = CHAIN;
    for (int units = CHAIN; !st; units += 5) {
        kept_rng rng;
        kept_buf text = {0};
        int32_t *tokens = NULL;
        int n = 0;
        kept_rng_init(&rng, t->seed);
        write_example(&rng, units, &text);
        st = text.failed
                 ? kept_fail(err, KEPT_NOMEM, "out of memory opening task vt")
                 : kept_prompt_tokens(t->model, text.s, text.n, false, false, &tokens, &n, err);
        free(tokens);
        kept_buf_free(&text);
        if (st || n + 30 > 500)
            break;
        t->example_units = units;
    }
    return st ? st : kept_size_find(t, err);
}

/* ---- cwe ------------------------------------------------------------------------------------- */

#define CWE_HEAD                                                                                   \
    "Below is a numbered list of words. In these words, some appear more often than others. "      \
    "Memorize the ones that appear most often.\n"
#define CWE_ASK    "\nQuestion: What are the 10 most common words in the above list?"
#define CWE_ANSWER " Answer: The top 10 words that appear most often in the list are:"

/* n different words: single ones in random order while they last, then pairs. [n] malloc'd. */
static bool draw_words(kept_task *t, kept_rng *rng, int n, char (*out)[KEPT_SECRET_CAP])
{
    const int n_list = t->n_words;
    int *order = kept_calloc((size_t)n_list, sizeof *order);
    if (!order)
        return false;
    kept_shuffle(rng, order, n_list);
    for (int i = 0; i < n && i < n_list; i++) {
        const char *w = t->words[order[i]];
        snprintf(out[i], KEPT_SECRET_CAP, "%.*s", (int)strcspn(w, "\r\n"), w);
    }
    free(order);
    /* Pairs are drawn without replacement by walking all of them with a step that has no factor in
     * common with their number. */
    int n_adjectives, n_nouns;
    const char *const *adjective = kept_words(false, &n_adjectives);
    const char *const *noun = kept_words(true, &n_nouns);
    const uint32_t all = (uint32_t)(n_adjectives * n_nouns), prime = 1000003;
    uint32_t at = kept_rng_below(rng, all);
    for (int i = n_list; i < n; i++) {
        at = (at + prime) % all;
        snprintf(out[i], KEPT_SECRET_CAP, "%s-%s", adjective[at / (uint32_t)n_nouns],
                 noun[at % (uint32_t)n_nouns]);
    }
    return true;
}

/* The list of the first COMMON words often and of the others seldom. */
static bool write_list(const kept_task *t, kept_rng *rng, char (*words)[KEPT_SECRET_CAP], int n,
                       const int repeats[2], kept_buf *out)
{
    const int all = COMMON * repeats[0] + (n - COMMON) * repeats[1];
    int *order = kept_calloc((size_t)all, sizeof *order);
    if (!order)
        return false;
    kept_task_shuffle(t, rng, order, all);
    for (int i = 0; i < all; i++) {
        /* RULER's list before the shuffle is the common words again and again, then the others. */
        const int k = order[i] - COMMON * repeats[0];
        char line[KEPT_SECRET_CAP + 32];
        snprintf(line, sizeof line, "%s%d. %s", i ? " " : "", i + 1,
                 words[k < 0 ? order[i] % COMMON : COMMON + k % (n - COMMON)]);
        kept_buf_puts(out, line);
    }
    free(order);
    return true;
}

kept_status kept_cwe_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    static const int repeats[2][2][2] = {{{3, 1}, {6, 1}}, {{10, 3}, {30, 3}}};
    const bool longer = t->length >= 4096;
    const int n_example = longer ? 40 : 20, n = COMMON + units;
    *out = (kept_sample){0};
    kept_rng rng;
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    char(*words)[KEPT_SECRET_CAP] =
        kept_calloc((size_t)(n > n_example ? n : n_example), sizeof *words);
    kept_buf context = {0};
    kept_buf_puts(&context, CWE_HEAD);
    bool ok = words && draw_words(t, &rng, n_example, words) &&
              write_list(t, &rng, words, n_example, repeats[longer][0], &context);
    kept_buf_puts(&context, CWE_ASK CWE_ANSWER);
    for (int k = 0; k < COMMON && ok; k++) {
        char line[KEPT_SECRET_CAP + 32];
        snprintf(line, sizeof line, "%s%d. %s", k ? " " : "", k + 1, words[k]);
        kept_buf_puts(&context, line);
    }
    kept_buf_puts(&context, "\n" CWE_HEAD);
    ok = ok && draw_words(t, &rng, n, words) &&
         write_list(t, &rng, words, n, repeats[longer][1], &context);
    ok = set_turn(out, &context, CWE_ASK, CWE_ANSWER, COMMON) && ok;
    for (int k = 0; k < COMMON && ok; k++)
        ok = add_answer(out->turns, words[k]);
    free(words);
    if (!ok)
        return no_memory(t, i, out, err);
    out->turns->max_new_tokens = 120;
    return KEPT_OK;
}

/* Lines of the user's word list into t->words. */
static kept_status read_words(kept_task *t, kept_error *err)
{
    kept_status st = kept_buf_read_file(t->file, &t->text, err);
    if (st)
        return st;
    size_t lines = 1;
    for (size_t k = 0; k < t->text.n; k++)
        lines += t->text.s[k] == '\n';
    t->words = kept_calloc(lines, sizeof *t->words);
    if (!t->words)
        return kept_fail(err, KEPT_NOMEM, "out of memory reading %s", t->file);
    for (const char *s = t->text.n ? t->text.s : ""; *s;) {
        const size_t n = strcspn(s, "\r\n");
        if (n && n < KEPT_SECRET_CAP)
            t->words[t->n_words++] = s;
        s += n + (s[n] != 0);
    }
    if (t->n_words < 2 * COMMON)
        return kept_fail(err, KEPT_FORMAT, "%s holds %d words, one a line; at least %d are needed",
                         t->file, t->n_words, 2 * COMMON);
    return KEPT_OK;
}

kept_status kept_cwe_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    kept_status st = KEPT_OK;
    if (t->file) {
        st = read_words(t, err);
    } else {
        int n_adjectives, n_nouns;
        const char *const *adjective = kept_words(false, &n_adjectives);
        const char *const *noun = kept_words(true, &n_nouns);
        t->words = kept_calloc((size_t)(n_adjectives + n_nouns), sizeof *t->words);
        if (!t->words)
            return kept_fail(err, KEPT_NOMEM, "out of memory opening task cwe");
        memcpy(t->words, noun, (size_t)n_nouns * sizeof *noun);
        t->n_words = n_nouns;
        for (int k = 0; k < n_adjectives; k++) { /* some words are both */
            bool known = false;
            for (int j = 0; j < n_nouns && !known; j++)
                known = !strcmp(noun[j], adjective[k]);
            if (!known)
                t->words[t->n_words++] = adjective[k];
        }
    }
    kept_task_set_label(t, t->length >= 4096 ? "30,3" : "6,1");
    return st ? st : kept_size_find(t, err);
}

/* ---- fwe ------------------------------------------------------------------------------------- */

#define ZETA_2 1.6449340668482264 /* pi^2 / 6 */

static const char fwe_head[] =
    "Read the following coded text and track the frequency of each coded word. Find the three most "
    "frequently appeared coded words. ";
static const char fwe_ask[] =
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three "
    "most frequently appeared words in the above coded text?";
static const char fwe_answer[] =
    " Answer: According to the coded text above, the three most frequently appeared words are:";

static int compare_words(const void *a, const void *b)
{
    return memcmp(a, b, LETTERS);
}

/* n different coded words in random order. */
static void draw_vocabulary(kept_rng *rng, int n, char (*out)[LETTERS + 1])
{
    int distinct = 0;
    while (distinct < n) {
        for (int i = distinct; i < n; i++)
            draw_letters(rng, 'a', LETTERS, out[i]);
        qsort(out, (size_t)n, sizeof *out, compare_words);
        distinct = 1;
        for (int i = 1; i < n; i++)
            if (strcmp(out[i], out[distinct - 1]) != 0)
                memmove(out[distinct++], out[i], sizeof *out);
    }
    for (int i = n - 1; i > 0; i--) {
        char tmp[LETTERS + 1];
        const uint32_t j = kept_rng_below(rng, (uint32_t)i + 1);
        memcpy(tmp, out[i], sizeof tmp);
        memmove(out[i], out[j], sizeof tmp);
        memcpy(out[j], tmp, sizeof tmp);
    }
}

/* Item of rank 0, 1, ... for each of the words that n ask for; returns how many those are. */
static int fill_ranks(int n, int n_vocabulary, int *rank)
{
    int all = 0;
    for (int k = 0; k < n_vocabulary; k++) {
        const int count = (int)(n * pow(k + 1, -2) / ZETA_2);
        for (int c = 0; c < count; c++)
            rank[all++] = k;
    }
    return all;
}

kept_status kept_fwe_build(kept_task *t, int i, int units, kept_sample *out, kept_error *err)
{
    const int n_vocabulary = t->length < 50 * 5 ? 4 : (t->length - 50) / 50;
    const int n = 73 + units; /* fewer words do not tell ranks 4 and 5 apart */
    *out = (kept_sample){0};
    kept_rng rng;
    kept_rng_init(&rng, kept_task_sample_seed(t, i));
    char(*word)[LETTERS + 1] = kept_calloc((size_t)n_vocabulary, sizeof *word);
    int *rank = kept_calloc((size_t)n, sizeof *rank),
        *order = kept_calloc((size_t)n, sizeof *order);
    kept_buf context = {0};
    bool ok = word && rank && order;
    if (ok) {
        draw_vocabulary(&rng, n_vocabulary, word);
        strcpy(word[0], "...");
        const int all = fill_ranks(n, n_vocabulary, rank);
        kept_task_shuffle(t, &rng, order, all);
        kept_buf_puts(&context, fwe_head);
        for (int k = 0; k < all; k++) {
            kept_buf_puts(&context, k ? " " : "");
            kept_buf_puts(&context, word[rank[order[k]]]);
        }
        ok = set_turn(out, &context, fwe_ask, fwe_answer, 3);
    }
    for (int k = 1; k < 4 && ok; k++)
        ok = add_answer(out->turns, word[k]);
    free(word);
    free(rank);
    free(order);
    if (!ok)
        return no_memory(t, i, out, err);
    out->turns->max_new_tokens = 50;
    return KEPT_OK;
}

kept_status kept_fwe_open(kept_task *t, const kept_task_options *o, kept_error *err)
{
    (void)o;
    kept_task_set_label(t, "alpha=2");
    return kept_size_find(t, err);
}
