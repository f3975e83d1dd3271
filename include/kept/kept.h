/* kept: real KV-cache eviction and compression for GGUF models, measured beside the full cache.
 *
 * The objects, outermost first:
 *   kept_model     a GGUF file: weights, hyper-parameters, tokenizer. Read-only once open.
 *   kept_strategy  a resolved point in the space of cache strategies ("snapkv(window=32)+ada@25%").
 *   kept_engine    a model made runnable: page pool, threads, graph. One thread at a time may call
 * it. kept_seq       one sequence: its tokens' cache, its strategy, its account. Belongs to one
 * engine. kept_batch     what one forward pass computes: any mix of prefill chunks and single
 * tokens.
 *
 * Conventions. Fallible functions return kept_status and, where they take a kept_error, leave one
 * line there that says what, where and what to do; err may be NULL. Whoever calls new/open/parse/
 * fork calls free/close; free(NULL) is fine. Everything const is borrowed. The library never
 * prints, never exits and never reads the environment. Bytes are bytes (MiB = 2^20), times are
 * nanoseconds of CLOCK_MONOTONIC, tokens are int32_t ids of the model's vocabulary.
 */
#ifndef KEPT_KEPT_H
#define KEPT_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KEPT_API __attribute__((visibility("default")))
#else
#define KEPT_API
#endif

#define KEPT_VERSION "0.1.0"

/* ---- status ------------------------------------------------------------------------------- */

/* One list makes the enum, the names and the texts. */
#define KEPT_STATUS_LIST(X)                                                                        \
    X(OK, "ok")                                                                                    \
    X(NOMEM, "out of memory")                                                                      \
    X(ARGUMENT, "invalid argument")                                                                \
    X(IO, "input/output error")                                                                    \
    X(FORMAT, "malformed file")                                                                    \
    X(UNSUPPORTED, "not supported")                                                                \
    X(FULL, "page pool exhausted")                                                                 \
    X(NOT_FOUND, "not found")                                                                      \
    X(CANCELLED, "cancelled")

typedef enum kept_status {
#define KEPT_STATUS_ENUM(name, text) KEPT_##name,
    KEPT_STATUS_LIST(KEPT_STATUS_ENUM)
#undef KEPT_STATUS_ENUM
} kept_status;

typedef struct kept_error {
    char text[480]; /* one line, no newline, NUL-terminated */
    int at;         /* offset of the offending character in the parsed text, or -1 */
} kept_error;

KEPT_API const char *kept_status_name(kept_status s); /* "FORMAT" */
KEPT_API const char *kept_status_text(kept_status s); /* "malformed file" */
KEPT_API const char *kept_version(void);              /* KEPT_VERSION of the linked library */

/* ---- model -------------------------------------------------------------------------------- */

#define KEPT_MAX_LAYERS 256

typedef struct kept_model kept_model;

typedef struct kept_model_info {
    char arch[16];        /* "llama", "qwen2", "qwen3", "gemma3" */
    char name[96];        /* general.name, or the file's base name */
    char weight_type[24]; /* type of the largest share of weight bytes, e.g. "q4_1" */
    int n_layers;
    int n_heads;    /* query heads per layer */
    int n_kv_heads; /* KV heads per layer; n_heads % n_kv_heads == 0 */
    int head_size;  /* 64, 80, 96, 128 or 256; same for K and V */
    int n_embd;
    int n_vocab;
    int n_ctx_train;                /* the context length the file declares */
    int sliding_window;             /* tokens a windowed layer sees, 0 = no windowed layers */
    bool windowed[KEPT_MAX_LAYERS]; /* [n_layers] layer attends only to the last sliding_window */
    char buffers[96]; /* where weights lie: "CPU 60.1 MiB, CPU_REPACK 33.7 MiB"; part of results,
                         because repacked weights run other kernels */
    uint64_t n_params;
    uint64_t weight_bytes; /* sum of tensor bytes in the file */
    uint64_t file_bytes;
} kept_model_info;

/* Opens PATH. Everything in the file is bounds-checked before ggml or libllama sees it.
 * IO: cannot be read. FORMAT: truncated or inconsistent. UNSUPPORTED: a sound file of an
 * architecture, head size or tensor type that kept does not run; err names it. */
KEPT_API kept_status kept_model_open(const char *path, kept_model **out, kept_error *err);
KEPT_API void kept_model_free(kept_model *m);
KEPT_API const kept_model_info *kept_model_get_info(const kept_model *m);
/* Lower-case hexadecimal SHA-256 of the file into hex[65]; reads the whole file on first use. */
KEPT_API kept_status kept_model_sha256(kept_model *m, char hex[65], kept_error *err);

/* Tokenizes text[0..len). special: parse control-token texts as such; bos: prepend BOS where the
 * model wants one. Writes at most cap ids and sets *n to the number needed; n > cap is ARGUMENT. */
KEPT_API kept_status kept_tokenize(const kept_model *m, const char *text, size_t len, bool bos,
                                   bool special, int32_t *tokens, int cap, int *n);
/* Text of tokens[0..n), control tokens left out unless special. Returns the length without NUL;
 * at most cap-1 bytes are written and the buffer is always NUL-terminated when cap > 0. */
KEPT_API size_t kept_detokenize(const kept_model *m, const int32_t *tokens, int n, bool special,
                                char *buf, size_t cap);
KEPT_API bool kept_token_is_end(const kept_model *m, int32_t token); /* any end-of-generation id */
KEPT_API int32_t kept_token_bos(const kept_model *m);                /* -1: the model has none */

typedef struct kept_message {
    const char *role, *content; /* role: "system", "user" or "assistant" */
} kept_message;
/* Formats messages with the model's chat template; header: the next assistant message is begun.
 * Returns the length needed (as snprintf) through *n. UNSUPPORTED: no template, or one libllama
 * does not know. ARGUMENT: n_messages is not 1 to 4096, or one has no role or content. */
KEPT_API kept_status kept_chat_messages(const kept_model *m, const kept_message *messages,
                                        int n_messages, bool header, char *buf, size_t cap,
                                        size_t *n, kept_error *err);
/* The same of one user message up to the assistant header; system may be NULL. */
KEPT_API kept_status kept_chat_format(const kept_model *m, const char *system, const char *user,
                                      char *buf, size_t cap, size_t *n, kept_error *err);

/* ---- strategy ------------------------------------------------------------------------------ */

typedef struct kept_strategy kept_strategy;

/* Parses a spec such as "h2o@20%", "streaming(sinks=4)@512", "snapkv(window=32)+ada@64MiB",
 * "full". Parts are joined by '+' in any order, each at most once per axis; recipes expand.
 * ARGUMENT: err->at points at the character, err->text suggests the nearest name. */
KEPT_API kept_status kept_strategy_parse(const char *spec, kept_strategy **out, kept_error *err);
KEPT_API void kept_strategy_free(kept_strategy *s);
/* Canonical spelling: axis order, only options that differ from their default, the budget last.
 * Parsing it again gives an equal strategy. Owned by s. */
KEPT_API const char *kept_strategy_name(const kept_strategy *s);
/* Fully resolved spelling, every default written out. Owned by s. */
KEPT_API const char *kept_strategy_resolved(const kept_strategy *s);

/* ---- engine -------------------------------------------------------------------------------- */

typedef struct kept_engine kept_engine;
typedef struct kept_seq kept_seq;
typedef struct kept_engine_options {
    int n_threads;     /* 0: all processors */
    size_t pool_bytes; /* K/V pages preallocated; 0: enough for one full sequence of max_tokens */
    int max_tokens;    /* longest sequence, prompt and output; 0: the model's context */
    int max_batch_tokens; /* tokens in one forward pass; 0: 512 */
    int max_seqs;         /* sequences alive at once; 0: 64 */
    const char *isa; /* NULL: best; "ref", "avx2", "avx2vnni", "avx512", "avx512vnni": force it */
} kept_engine_options;

/* model must outlive the engine. NOMEM, UNSUPPORTED (isa not on this CPU), ARGUMENT. */
KEPT_API kept_status kept_engine_new(kept_model *model, const kept_engine_options *options,
                                     kept_engine **out, kept_error *err);
KEPT_API void kept_engine_free(kept_engine *e); /* after all of its sequences */
KEPT_API const char *kept_engine_isa(const kept_engine *e);

/* ---- sequences ------------------------------------------------------------------------------ */

/* What a sequence records while it runs, beyond K, V and positions. A plane holds one value per
 * slot (split: one per slot and query head of the KV head). Attention probability is summed over
 * the query heads of the KV head unless the plane is split. */
typedef enum kept_plane_kind {
    /* Sum of the attention probability that the slot received over the plane's window of most
     * recent queries (INT32_MAX: all queries so far). A finite window tumbles: when it is full the
     * next query starts a new one. */
    KEPT_PLANE_MASS,
    KEPT_PLANE_FUTURE,    /* the same sum over the queries of a look-ahead: kept_seq_foresee */
    KEPT_PLANE_ECHO,      /* maximum over all queries that repeat the context: kept_seq_echo */
    KEPT_PLANE_ECHO_PLUS, /* the same of p / ||x||, x the hidden state of the query's token */
    /* Column sums of softmax(q k / sqrt(D)) inside blocks of `window` positions without a causal
     * mask (arXiv 2507.08143). A block that forward passes cut is scored part by part: a token
     * alone has 1 per query head. 0 in windowed layers. */
    KEPT_PLANE_LOCAL,
    KEPT_PLANE_PREDICTED /* what the trained file "kvzap" says of the token's hidden state */
} kept_plane_kind;
typedef struct kept_plane {
    kept_plane_kind kind;
    int window; /* queries of a MASS plane, positions of a LOCAL block; 0 for the others */
    bool split; /* one value per query head; MASS only */
} kept_plane;

#define KEPT_MAX_CAPTURED 12
typedef struct kept_capture {
    int n_planes;
    kept_plane plane[KEPT_MAX_CAPTURED]; /* ascending by kind, window, split; distinct */
    int n_recent;      /* rotated queries of the last n_recent tokens, per query head */
    bool query_stats;  /* mean and covariance of pre-rotation queries, per query head */
    bool layer_cosine; /* mean cosine between the input of a layer and that plus its attention */
} kept_capture;

/* Adds plane p to c, in its place. ARGUMENT: more than KEPT_MAX_CAPTURED distinct planes. */
KEPT_API kept_status kept_capture_add(kept_capture *c, kept_plane p, kept_error *err);
/* Index of plane p in c, or -1. */
KEPT_API int kept_capture_find(const kept_capture *c, kept_plane p);
/* The union of what the strategies need, for a prefix that all of them will fork.
 * ARGUMENT: more than KEPT_MAX_CAPTURED distinct planes. */
KEPT_API kept_status kept_capture_union(const kept_strategy *const *s, int n, kept_capture *out,
                                        kept_error *err);

/* A new empty sequence. strategy NULL: full cache. capture NULL: exactly what strategy needs. The
 * strategy is borrowed and must outlive the sequence. seed feeds random strategies. ARGUMENT: among
 * others, strategy reads a trained file that e was not lent (kept_engine_add_trained). */
KEPT_API kept_status kept_seq_new(kept_engine *e, const kept_strategy *strategy,
                                  const kept_capture *capture, uint64_t seed, kept_seq **out,
                                  kept_error *err);
/* A copy of src under another strategy. Pages are shared by reference count until one side
 * changes them; only the state that strategy needs is copied. extra: captured besides (NULL: none).
 * ARGUMENT: strategy needs what src did not capture, and is not that of src, which is done. */
KEPT_API kept_status kept_seq_fork(kept_seq *src, const kept_strategy *strategy,
                                   const kept_capture *extra, uint64_t seed, kept_seq **out,
                                   kept_error *err);
KEPT_API void kept_seq_free(kept_seq *s);

/* Positions [begin, end) may never be evicted from s (at most 16 spans; FULL beyond). ARGUMENT: not
 * a span, or beyond the engine's max_tokens. */
KEPT_API kept_status kept_seq_pin(kept_seq *s, int begin, int end);

/* What a token is, as the owner of the sequence knows it. Strategies may protect or demote a class
 * (protect(template=keep|demote)); scores see it. */
typedef enum kept_class {
    KEPT_CLASS_TEXT,    /* what nobody marked */
    KEPT_CLASS_TEMPLATE /* chat template: system prompt, role markers, boilerplate */
} kept_class;
/* Positions [begin, end) of s are of that class, whether they are in the cache yet or not; forks
 * whose strategy looks at classes inherit it. ARGUMENT: not a span, or beyond the engine's
 * max_tokens. NOMEM. */
KEPT_API kept_status kept_seq_mark(kept_seq *s, int begin, int end, kept_class what);

/* Reads a prompt, or the next part of one that is not layer by layer: n tokens, `chunk` at a time
 * (0: max_batch_tokens), with logits of the last n_logits of them (at most a chunk's). Not needed
 * but for the schedule "layers", where it goes layer by layer through an empty sequence and cuts
 * each layer that it has passed; the hidden states between layers, n times n_embd floats, and the
 * scores held count in peak_bytes. kept_seq_end_prefill follows in either case. ARGUMENT, NOMEM,
 * FULL; if that happens layer by layer, s is good for nothing but kept_seq_free. */
KEPT_API kept_status kept_seq_prefill(kept_seq *s, const int32_t *tokens, int n, int chunk,
                                      int n_logits, kept_error *err);
/* Tells s that its prefill is over: strategies evict now (but those of schedule "pressure"). */
KEPT_API kept_status kept_seq_end_prefill(kept_seq *s, kept_error *err);
/* Tells s that a turn (a question and its answer) is over: strategies of schedule "turns" evict
 * now, a percentage being of all tokens seen; others do nothing. */
KEPT_API kept_status kept_seq_end_turn(kept_seq *s, kept_error *err);

/* Fills the FUTURE plane of s: a fork of it reads tokens[0..n) (what will come: the question and
 * the answer) and what its queries pay each slot of s is summed. s itself does not change
 * otherwise. For the oracle score only. ARGUMENT: s does not capture it. FULL as for forward. */
KEPT_API kept_status kept_seq_foresee(kept_seq *s, const int32_t *tokens, int n, kept_error *err);
/* Fills the ECHO planes of s (arXiv 2505.23416): forks of s are asked to repeat the context,
 * chunk by chunk. kept_seq_end_prefill calls it by itself where a strategy needs it and it was not
 * done; call it on a prefix before forking so that all forks share the work. The time it took
 * counts as score_ns of s and of its forks that capture the planes. ARGUMENT: s does not capture
 * it. */
KEPT_API kept_status kept_seq_echo(kept_seq *s, kept_error *err);
/* Tokens beyond a context of n that a fork which repeats it holds at most: an engine whose
 * sequences echo needs max_tokens of n and that many, and pages for them. */
KEPT_API int kept_echo_room(int n);

KEPT_API int kept_seq_n_tokens(const kept_seq *s); /* tokens seen = position of the next token */
/* Live slots of a KV head, and their original positions in slot order (not sorted). Returns the
 * number of slots; writes at most cap positions. */
KEPT_API int kept_seq_positions(const kept_seq *s, int layer, int kv_head, int32_t *pos, int cap);
/* A captured plane, in slot order; a split one as [G][cap]. Returns the number of slots, or -1: not
 * captured. */
KEPT_API int kept_seq_plane(const kept_seq *s, int layer, int kv_head, kept_plane plane, float *out,
                            int cap);

/* Bytes of K/V that a full cache of n tokens of this model holds as exact slots (no page
 * rounding; windowed layers hold at most their window). */
KEPT_API uint64_t kept_full_kv_bytes(const kept_model_info *info, int n_tokens);

typedef struct kept_item {
    kept_seq *seq;
    const int32_t *tokens; /* [n_tokens] */
    int n_tokens;          /* >= 1 */
    int n_logits;          /* logits wanted for the last n_logits tokens, 0..n_tokens */
    int n_after;           /* prefill tokens of this prompt still to come; 0 when decoding */
    bool prefill; /* true: part of a prompt; false: a decode step (schedules count these) */
} kept_item;

/* One forward pass over items[0..n_items), each a different sequence. Afterwards each sequence has
 * grown and its schedule may have evicted. FULL: the pool could not hold the new tokens. Before
 * that, sequences of schedule "pressure" (of this batch or not) are cut to their budgets, the one
 * that holds most of its budget first, until the pass fits; if it never does, they stay cut, and no
 * sequence has grown. An eviction that needs to copy shared pages while none is free is put off
 * to the sequence's next pass. ARGUMENT: too many tokens, a sequence too long, a token id out of
 * range. */
KEPT_API kept_status kept_engine_forward(kept_engine *e, const kept_item *items, int n_items,
                                         kept_error *err);
/* Logits of the last forward pass, [sum of n_logits][n_vocab], items in order, tokens ascending.
 * Owned by the engine, valid until its next forward pass. */
KEPT_API const float *kept_engine_logits(const kept_engine *e);

#ifdef __cplusplus
}
#endif

#include "kept/control.h"
#include "kept/meter.h" /* and park.h */

#endif
