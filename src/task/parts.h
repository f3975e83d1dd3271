/* parts: what the task files share and nobody else includes.
 *
 *   task.c    list of tasks, options, open/get/close
 *   metric.c  outputs against references; similar.c: ROUGE-L and difflib
 *   words.c   keys and values
 *   hay.c     haystacks in pieces between which needles go
 *   size.c    samples of a wanted length
 *   needle.c  RULER's needle tasks
 *   ruler.c   RULER's variable tracking and word counting; shuffle.c: its fixed order
 *   qa.c      RULER's questions about documents
 *   nolima.c  questions without a word of their answer
 *   facts.c   access patterns over one table of facts
 *   reader.c  what other benchmarks' files mean
 *   prompt.c  sample -> text of every turn
 *   tokens.c  those texts -> prefix, suffix and evidence tokens
 *   perturb.c the same questions said otherwise
 *   rearrange.c  the same contexts laid out otherwise
 *   text.c    windows of the user's text
 *   jsonl.c   the user's prompts
 *   buf.c     growing text, files
 */
#ifndef TASK_PARTS_H
#define TASK_PARTS_H

#include "task/task.h"

/* ---- buf.c ---- */
/* Growing text, NUL-terminated once something was added. After an allocation fails, adding does
 * nothing and failed stays set: check once at the end. */
typedef struct kept_buf {
    char *s;
    size_t n, cap;
    bool failed;
} kept_buf;
void kept_buf_add(kept_buf *b, const char *s, size_t n);
void kept_buf_puts(kept_buf *b, const char *s);
void kept_buf_free(kept_buf *b);
/* Whole file of valid UTF-8 without NUL bytes, at most KEPT_FILE_MAX bytes, a byte order mark
 * dropped. IO: cannot be read. FORMAT: names the line of the first bad byte. */
#define KEPT_FILE_MAX ((size_t)1 << 30)
kept_status kept_buf_read_file(const char *path, kept_buf *out, kept_error *err);
/* Offset of the first byte of s[0..n) that is no UTF-8 text (NUL counts as such), or n. */
size_t kept_utf8_check(const char *s, size_t n);

/* ---- words.c ---- */
typedef enum kept_secret_kind {
    KEPT_SECRET_WORD,   /* adjective-noun */
    KEPT_SECRET_NUMBER, /* seven digits, or as many as are asked for */
    KEPT_SECRET_UUID    /* version 4 */
} kept_secret_kind;
#define KEPT_SECRET_CAP 72
bool kept_secret_kind_parse(const char *name, kept_secret_kind *out);
const char *kept_secret_kind_name(kept_secret_kind kind);
#define KEPT_DIGITS     7
#define KEPT_MAX_DIGITS 64
void kept_secret_draw(kept_rng *rng, kept_secret_kind kind, int digits, char out[KEPT_SECRET_CAP]);
/* Tokens that one such value may take in an answer. */
int kept_secret_room(kept_secret_kind kind, int digits);
const char *const *kept_words(bool noun, int *n); /* the lists, for tests */

/* ---- hay.c ---- */
typedef enum kept_hay_kind {
    KEPT_HAY_NOISE, /* unit: the five-sentence line */
    KEPT_HAY_ESSAY, /* unit: a word; pieces are sentences */
    KEPT_HAY_NEEDLE /* unit: a distractor needle on its own line */
} kept_hay_kind;

/* Piece i is text.s[at[i] .. at[i+1]); pieces are joined by sep. */
typedef struct kept_hay {
    kept_buf text;
    size_t *at; /* [n + 1] */
    int n, cap;
    char sep;
} kept_hay;
void kept_hay_clear(kept_hay *h);
/* Each adds the pieces of n_units units to an empty h. NOMEM. */
kept_status kept_hay_noise(kept_hay *h, int n_units);
kept_status kept_hay_add(kept_hay *h, const char *s, size_t n);
/* essay is normalised text; the window starts at the first sentence at or after start (wrapping)
 * and repeats the essay when it is too short. */
kept_status kept_hay_essay(kept_hay *h, const char *essay, size_t len, size_t start, int n_units);
/* A line to hide: merge says where it came to stand in out. */
typedef struct kept_hay_line {
    char text[4 * KEPT_SECRET_CAP];
    double depth; /* 0..1 of n_gaps places; lines of one place stand in their order */
    kept_span_chars span;
} kept_hay_line;
/* Pieces of the sample become those of the haystack and the lines, which are facts. False: out of
 * memory. */
bool kept_hay_merge(const kept_hay *h, int n_gaps, kept_hay_line *lines, int n, kept_buf *out,
                    kept_sample *sample);
/* Runs of white space become one space, ends are stripped; in place. */
void kept_hay_normalise(kept_buf *text);
/* Whether text[i] (a space) ends a sentence: . ! or ? before it, closing quotes allowed between. */
bool kept_hay_sentence_end(const char *text, size_t i);

/* ---- the task object ---- */
typedef struct kept_needle_plan {
    kept_hay_kind hay;
    kept_secret_kind key, value;
    int n_keys, n_values;
    int n_queries; /* keys asked for */
    int digits;    /* of numbers */
} kept_needle_plan;

typedef struct kept_task_type kept_task_type;
struct kept_task {
    const kept_task_type *type;
    const kept_model *model; /* borrowed */
    char *file;              /* copy of options.file or NULL */
    char label[128];
    const char *perturb; /* NULL: none */
    int length, n_samples, score_tokens;
    uint64_t seed;
    bool chat, query_aware, compat;
    kept_turn_mode turns;
    size_t chat_begin;  /* where the user's text begins in a formatted chat prompt */
    kept_buf text;      /* essay, text or JSONL file */
    int probe;          /* units that are enough to measure what one costs */
    int units;          /* size.c: units that fit sample 0 */
    double unit_tokens; /* tokens that one unit costs, measured */
    kept_needle_plan needle;
    int period;         /* facts_periodic */
    int example_units;  /* vt: lines of noise in the example */
    const char **words; /* cwe: [n_words] each ends with NUL or newline */
    int n_words;
    struct kept_qa *qa; /* qa.c */
    struct kept_nolima *nolima;
    double token_bytes; /* text: bytes of one token, measured */
    size_t last_start;  /* text: latest byte from which a whole window follows */
    size_t *line;       /* jsonl: [n_samples] offsets of lines in text, and of their ends */
    size_t *line_end;
    int *line_number; /* jsonl: [n_samples], from 1 */
};

/* Sample i with so many units of filler, >= 1. NOMEM. */
typedef kept_status kept_build_fn(kept_task *t, int i, int units, kept_sample *out,
                                  kept_error *err);

struct kept_task_type {
    const char *name;
    kept_task_kind kind;
    const char *reads; /* what options.file is, NULL: nothing */
    bool needed;       /* there is no sample without that file */
    kept_status (*open)(kept_task *t, const kept_task_options *o, kept_error *err);
    kept_status (*get)(kept_task *t, int i, kept_sample *out, kept_error *err);
    kept_build_fn *build; /* tasks that are sized */
    int probe;            /* the first kept_task.probe */
    /* needle tasks */
    kept_hay_kind hay; /* NOISE: an essay when a file is given */
    kept_secret_kind key, value;
    int n_keys, n_values, n_queries;
};

const kept_task_type *kept_task_type_of(const char *name); /* NULL: there is none */

/* Position of sample i in a sweep of [0, 1): n strata, each drawn once, in an order that covers the
 * range early (multiples of the golden section), jittered inside the stratum. */
double kept_task_sweep(const kept_task *t, int i);
/* Seed of everything random in sample i. */
uint64_t kept_task_sample_seed(const kept_task *t, int i);
void kept_task_set_label(kept_task *t, const char *what); /* "NAME(what)" */

/* ---- size.c ---- */
/* Finds t->units: as many as fit t->length in sample 0. ARGUMENT: not even one does. */
kept_status kept_size_find(kept_task *t, kept_error *err);
/* get of sized tasks: a sample that overflows is built again with fewer units. */
kept_status kept_size_get(kept_task *t, int i, kept_sample *out, kept_error *err);

/* ---- shuffle.c ---- */
/* What CPython's random.Random(42).shuffle makes of 0..n-1, which is the order of everything that
 * RULER shuffles: order[k] is the item that ends at place k. */
void kept_shuffle_fixed(int *order, int n);
void kept_shuffle(kept_rng *rng, int *order, int n);
/* The one that t asks for; order is filled. */
void kept_task_shuffle(const kept_task *t, kept_rng *rng, int *order, int n);

/* Prose in t->text, white space collapsed. FORMAT: there is none. */
kept_status kept_hay_read_essay(kept_task *t, const char *path, kept_error *err);

/* ---- perturb.c, rearrange.c ---- */
/* What t->perturb makes of sample i, which is as the task made it. ARGUMENT: there is no other
 * layout of its context. NOMEM. */
kept_status kept_perturb_sample(const kept_task *t, int i, kept_sample *s, kept_error *err);
kept_status kept_rearrange(const kept_task *t, int i, kept_sample *s, kept_error *err);

/* ---- tasks ---- */
kept_status kept_needle_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_build_fn kept_needle_build, kept_facts_build, kept_vt_build, kept_cwe_build, kept_fwe_build,
    kept_qa_build, kept_nolima_build;
kept_status kept_facts_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_vt_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_cwe_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_fwe_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_qa_open(kept_task *t, const kept_task_options *o, kept_error *err);
/* The questions and documents of a file's text into t->qa; n_samples becomes theirs. FORMAT, NOMEM.
 */
kept_status kept_qa_read(kept_task *t, const char *text, size_t n, bool squad, kept_error *err);
void kept_qa_close(kept_task *t);
kept_status kept_nolima_open(kept_task *t, const kept_task_options *o, kept_error *err);
/* The needles of a file's text into t->nolima. FORMAT, NOMEM. */
kept_status kept_nolima_read(kept_task *t, const char *text, size_t n, kept_error *err);
void kept_nolima_close(kept_task *t);
kept_status kept_text_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_text_get(kept_task *t, int i, kept_sample *out, kept_error *err);
kept_status kept_jsonl_open(kept_task *t, const kept_task_options *o, kept_error *err);
kept_status kept_jsonl_get(kept_task *t, int i, kept_sample *out, kept_error *err);
/* One line of JSONL as a sample; number is the line's for messages. m: formats a line's messages;
 * NULL: they are refused. FORMAT, NOMEM. */
kept_status kept_jsonl_parse(const char *line, size_t n, int number, const kept_model *m,
                             kept_sample *out, kept_error *err);

/* ---- prompt.c ---- */
/* Finds chat_begin. UNSUPPORTED: the model has no usable chat template. */
kept_status kept_prompt_open(kept_task *t, kept_error *err);
/* A prompt as text. Byte i of the context stands at text[context_at + i]; context_at may be
 * "negative" (it wraps) when the template strips leading space. */
typedef struct kept_prompt {
    char *text;
    size_t n, split, context_at;
} kept_prompt;
/* The prompt with one turn's question. */
kept_status kept_prompt_text(const kept_task *t, const kept_sample *s, int turn, kept_prompt *p,
                             kept_error *err);
/* What is fed for turn k >= 1, as text in malloc'd memory; *question: where in it the answer before
 * ends. */
kept_status kept_prompt_later(const kept_task *t, const kept_sample *s, int k, char **text,
                              size_t *n, size_t *question, kept_error *err);
/* The first turn's prompt as one string (malloc) and where the suffix begins in it. */
kept_status kept_prompt_build(const kept_task *t, const kept_sample *s, char **text, size_t *split,
                              kept_error *err);

/* ---- spans.c ---- */
/* Reads "pin" of a JSONL object into s, whose context is there. FORMAT, NOMEM. */
struct json_t;
kept_status kept_pins_read(const struct json_t *o, int number, kept_sample *s, kept_error *err);
/* Fills pins and n_template of out. ends[i]: offset in the prompt's text behind token i of prefix;
 * NULL: the tokens do not spell it. UNSUPPORTED: then nothing can be pinned. */
kept_status kept_spans_place(const kept_task *t, const kept_sample *s, const kept_prompt *p,
                             const size_t *ends, kept_tokens *out, kept_error *err);

/* ---- tokens.c ---- */
/* Tokens of a sample's prompt and the answer's room: n_prefix + n_suffix + max_new_tokens. */
kept_status kept_prompt_count(kept_task *t, const kept_sample *s, int *n, kept_error *err);
/* Tokens of text[0..len) in malloc'd memory of at least *n + 1 ids. */
kept_status kept_prompt_tokens(const kept_model *m, const char *text, size_t len, bool bos,
                               bool special, int32_t **out, int *n, kept_error *err);

#endif
