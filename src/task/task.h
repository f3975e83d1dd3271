/* task: where samples come from. A task yields samples of text; kept_task_tokenize turns one into
 * the tokens of a model with the boundary that everything rests on: `prefix` is what is prefilled
 * and compressed, `suffix` is what arrives after eviction (query-agnostic, the default). With
 * query-aware compression the question is part of the prefix and the row is marked.
 *
 * kept_task_names lists the tasks; docs/tasks.md has their constructions, the JSONL schema and what
 * differs from RULER.
 */
#ifndef TASK_TASK_H
#define TASK_TASK_H

#include "base/base.h"
#include "task/metric.h"

typedef enum kept_task_kind {
    KEPT_TASK_GENERATE, /* greedy answers, scored against references */
    KEPT_TASK_SCORE     /* teacher-forced text: NLL, KL, top-1 */
} kept_task_kind;

typedef struct kept_span_chars {
    size_t begin, end; /* byte offsets into context */
} kept_span_chars;

/* One question about the context. Every sample that is answered has at least one. */
typedef struct kept_turn {
    char *question;      /* what is asked */
    char *answer_prefix; /* what the model continues, after the assistant header if chat */
    char **answers;      /* [n_answers] references */
    int n_answers;
    char **labels; /* [n_labels] classes or choices of metrics that have some */
    int n_labels;
    kept_metric metric;        /* how the output is compared with the references */
    kept_span_chars *evidence; /* [n_evidence] where the answers stand in context */
    int n_evidence;
    int max_new_tokens;
    double depth; /* 0..1 position of the first needle or answer, -1 if not meaningful */
    int again;    /* turns since the same was asked before, 0: never */
} kept_turn;

/* What a later turn finds in the cache. */
typedef enum kept_turn_mode {
    KEPT_TURNS_GOLD,    /* a conversation; earlier questions with their references as answers */
    KEPT_TURNS_OWN,     /* a conversation; earlier questions with what the model answered */
    KEPT_TURNS_REQUESTS /* the compressed context alone: every turn begins where the first did */
} kept_turn_mode;
const char *kept_turn_mode_name(kept_turn_mode mode); /* "gold", "own", "requests" */
bool kept_turn_mode_parse(const char *name, kept_turn_mode *out);

/* A part of the context that may stand elsewhere (kept_perturb_names): a line, a sentence, a
 * document. */
typedef struct kept_piece {
    size_t begin, end; /* byte offsets into context */
    bool fact;         /* false: it only fills */
} kept_piece;

/* One sample as text. Owned; kept_sample_clear frees. */
typedef struct kept_sample {
    kept_piece *pieces; /* [n_pieces] ascending, where the task knows them, as they stood at first
                         */
    int n_pieces;
    char *plain;           /* the context before it was laid out otherwise; NULL: it was not */
    kept_span_chars *pins; /* [n_pins] spans of context that may not be evicted */
    int n_pins;
    /* A raw prompt is context, question and answer_prefix, concatenated as they are. */
    char *context;    /* what is compressed; KEPT_TASK_SCORE: at least `length` tokens of text */
    kept_turn *turns; /* [n_turns]; none if KEPT_TASK_SCORE */
    int n_turns;
    bool raw; /* not put in a chat template: it has its own or none */
    bool cut; /* too long a context loses its middle, as its benchmark's does */
} kept_sample;
void kept_sample_clear(kept_sample *s);
/* n empty turns with depth -1 and metric "all". NOMEM. */
kept_status kept_sample_new_turns(kept_sample *s, int n);

typedef struct kept_task_options {
    const char *name; /* one of kept_task_names */
    int length;       /* tokens of the whole sample, answer included (jsonl: a limit; 0: model's) */
    int n_samples;    /* >= 1 */
    uint64_t seed;
    const char *file;     /* text: the text; jsonl: the samples; niah: essay haystack (NULL: noise;
                           * niah_multikey_2 and _3 have none and do not read it); cwe: words; qa_1:
                           * SQuAD; qa_2: HotpotQA; nolima: its needle set */
    const char *haystack; /* nolima: prose around the needle, NULL: noise */
    const char *key, *value; /* niah: "word" "number" "uuid"; NULL: the task's RULER default */
    int n_keys, n_values, n_queries; /* niah: 0: the task's default */
    int digits;                      /* niah, facts: digits of numbers, 7 to 64 (0: 7) */
    int score_tokens;                /* text: tokens scored after the prefix (default 64) */
    bool chat;                       /* wrap in the model's chat template; text: no effect */
    bool query_aware;  /* the question is compressed with the context; text: no effect */
    bool ruler_compat; /* RULER's fixed layout and its room for answers */
    kept_turn_mode turns;
    const char *perturb; /* one of kept_perturb_names; NULL: none */
    bool sized;          /* samples are known to fit: opening need not count their tokens (jsonl) */
} kept_task_options;

typedef struct kept_task kept_task;
/* Checks options, opens files, sizes the haystack with the model's tokenizer so that every sample
 * fits length. The model is borrowed. ARGUMENT names the nearest task, or what does not fit (length
 * beyond the model's included); IO/FORMAT name file and line; UNSUPPORTED: chat without template.
 */
kept_status kept_task_open(const kept_task_options *o, const kept_model *model, kept_task **out,
                           kept_error *err);
void kept_task_close(kept_task *t);
const char *const *kept_task_names(int *n);
/* What task `name` reads from options.file: "essay", "words", "squad", "hotpot", "text", "jsonl" or
 * NULL for nothing; *needed: it cannot do without. NULL also if there is no such task. */
const char *kept_task_reads(const char *name, bool *needed);
/* "none"; ways to say a question otherwise; and "context-...", ways to lay out the context
 * otherwise, which leave questions as they are. */
const char *const *kept_perturb_names(int *n);
/* A question said otherwise, malloc'ed. ARGUMENT: no such kind. NOMEM. */
kept_status kept_perturb(const char *kind, const char *question, char **out, kept_error *err);
kept_task_kind kept_task_get_kind(const kept_task *t);
kept_turn_mode kept_task_turn_mode(const kept_task *t);
const char *kept_task_label(const kept_task *t); /* "niah_single(word,number,noise)", for rows */
int kept_task_n_samples(const kept_task *t);     /* jsonl: at most what the file has */
/* Sample i, the same for the same options and tokenizer whatever was asked before. On failure *out
 * is cleared. */
kept_status kept_task_get(kept_task *t, int i, kept_sample *out, kept_error *err);

typedef struct kept_span_tokens {
    int begin, end; /* positions [begin, end) */
} kept_span_tokens;
#define KEPT_MAX_SAMPLE_PINS 16 /* as many as a sequence takes */

/* Where one turn stands in kept_tokens. */
typedef struct kept_turn_tokens {
    int end;           /* the turn's tokens of suffix end here; they begin where the last end */
    int question;      /* the question's begin here; before it the gold answer of the turn before */
    int32_t *evidence; /* [n_evidence] as kept_tokens.evidence, of this turn */
    int n_evidence;
    /* Metric "choice": the labels one after the other; label i ends at label_end[i]. */
    int32_t *labels;
    int *label_end; /* [n_labels] */
    int longest;    /* tokens of the longest label */
} kept_turn_tokens;

/* One sample as tokens. */
typedef struct kept_tokens {
    int32_t *prefix; /* [n_prefix] prefilled, then compressed; BOS first if the model has one */
    int n_prefix;    /* >= 1 */
    /* [n_suffix] question and answer prefix of every turn, one after the other. In a conversation
     * with gold answers a later turn's tokens begin with the answer before it. text task: the
     * tokens to score. */
    int32_t *suffix;
    int n_suffix;            /* >= 1 */
    kept_turn_tokens *turns; /* [n_turns] as in the sample */
    int n_turns;
    int32_t *evidence; /* [n_evidence] positions in prefix, ascending, of tokens that share a byte
                        * with an evidence span of any turn; none if the tokens do not spell the
                        * text */
    int n_evidence;
    int n_cut;              /* tokens cut out of the middle of the prefix */
    kept_span_tokens *pins; /* [n_pins] tokens of prefix that share a byte with a pinned span */
    int n_pins;
    int n_template; /* leading tokens of prefix that are the chat template's: system prompt, header
                     */
    char hash[17];  /* 64-bit hash of prefix+suffix tokens, hexadecimal: pairing key */
} kept_tokens;
kept_status kept_task_tokenize(kept_task *t, int i, const kept_sample *s, kept_tokens *out,
                               kept_error *err);
void kept_tokens_clear(kept_tokens *t);
/* Most tokens that a sequence holds after the prefix while the turns are answered. */
int kept_task_room(const kept_task *t, const kept_sample *s, const kept_tokens *k);

#endif
