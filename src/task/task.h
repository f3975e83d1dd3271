/* task: where samples come from. A task yields samples of text; kept_task_tokenize turns one into
 * the tokens of a model with the boundary that everything rests on: `prefix` is what is prefilled
 * and compressed, `suffix` is what arrives after eviction (query-agnostic, the default). With
 * query-aware compression the question is part of the prefix and the row is marked.
 *
 *   niah_single                        RULER niah_single_1, with a file _2, with value uuid _3
 *   niah_multikey, _2, _3              RULER niah_multikey_1 (distractors), _2 and _3 (every line
 *                                      is a distractor; word -> number and uuid -> uuid)
 *   niah_multivalue                    one key with four values, all asked for
 *   text                               prefix-evict-score on the user's text
 *   jsonl                              the user's own prompts
 *
 * docs/tasks.md has the constructions, the JSONL schema and what differs from RULER.
 */
#ifndef TASK_TASK_H
#define TASK_TASK_H

#include "base/base.h"

typedef enum kept_task_kind {
    KEPT_TASK_GENERATE, /* greedy answer, scored against references */
    KEPT_TASK_SCORE     /* teacher-forced text: NLL, KL, top-1 */
} kept_task_kind;

typedef struct kept_span_chars {
    size_t begin, end; /* byte offsets into context */
} kept_span_chars;

/* One sample as text. Owned; kept_sample_clear frees. */
typedef struct kept_sample {
    /* A raw prompt is context, question and answer_prefix, concatenated as they are. */
    char *context;       /* what is compressed; KEPT_TASK_SCORE: at least `length` tokens of text */
    char *question;      /* what is asked afterwards ("" for KEPT_TASK_SCORE) */
    char *answer_prefix; /* what the model continues, after the assistant header if chat */
    char **answers;      /* [n_answers] references */
    int n_answers;
    bool any_answer; /* false: mean over references (RULER "all"); true: any one is enough */
    kept_span_chars *evidence; /* [n_evidence] where the answers stand in context */
    int n_evidence;
    int max_new_tokens;
    double depth; /* 0..1 position of the first needle or answer, -1 if not meaningful */
} kept_sample;
void kept_sample_clear(kept_sample *s);

typedef struct kept_task_options {
    const char *name; /* one of the list above */
    int length;       /* tokens of the whole sample, answer included (jsonl: a limit; 0: model's) */
    int n_samples;    /* >= 1 */
    uint64_t seed;
    const char *file; /* text: the text; jsonl: the samples; niah: essay haystack (NULL: noise;
                       * niah_multikey_2 and _3 have none and do not read it) */
    const char *key, *value; /* niah: "word" "number" "uuid"; NULL: the task's RULER default */
    int n_keys, n_values; /* niah: 0: the task's default (multikey 4 keys, multivalue 4 values) */
    int score_tokens;     /* text: tokens scored after the prefix (default 64) */
    bool chat;            /* wrap in the model's chat template; text: no effect */
    bool query_aware;     /* the question is compressed with the context; text: no effect */
} kept_task_options;

typedef struct kept_task kept_task;
/* Checks options, opens files, sizes the haystack with the model's tokenizer so that every sample
 * fits length. The model is borrowed. ARGUMENT names the nearest task, or what does not fit (length
 * beyond the model's included); IO/FORMAT name file and line; UNSUPPORTED: chat without template.
 */
kept_status kept_task_open(const kept_task_options *o, const kept_model *model, kept_task **out,
                           kept_error *err);
void kept_task_close(kept_task *t);
kept_task_kind kept_task_get_kind(const kept_task *t);
const char *kept_task_label(const kept_task *t); /* "niah_single(word,number,noise)", for rows */
int kept_task_n_samples(const kept_task *t);     /* jsonl: at most what the file has */
/* Sample i, the same for the same options and tokenizer whatever was asked before. On failure *out
 * is cleared. */
kept_status kept_task_get(kept_task *t, int i, kept_sample *out, kept_error *err);

/* One sample as tokens. */
typedef struct kept_tokens {
    int32_t *prefix;   /* [n_prefix] prefilled, then compressed; BOS first if the model has one */
    int n_prefix;      /* >= 1 */
    int32_t *suffix;   /* [n_suffix] question and answer prefix; text task: the tokens to score */
    int n_suffix;      /* >= 1 */
    int32_t *evidence; /* [n_evidence] positions in prefix, ascending, of tokens that share a byte
                        * with an evidence span; none if the tokens do not spell the text */
    int n_evidence;
    char hash[17]; /* 64-bit hash of prefix+suffix tokens, hexadecimal: pairing key */
} kept_tokens;
kept_status kept_task_tokenize(kept_task *t, int i, const kept_sample *s, kept_tokens *out,
                               kept_error *err);
void kept_tokens_clear(kept_tokens *t);

/* RULER string match: mean over references of case-insensitive (ASCII) substring hit (any: 1 if
 * any), after control characters became newlines and the ends were stripped. 0..1. */
double kept_score_match(const char *output, char *const *answers, int n_answers, bool any);

#endif
