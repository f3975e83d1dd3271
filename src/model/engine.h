/* engine: what graph.c, attend.c, seq.c and engine.c share. Not for other layers.
 *
 * A forward pass. engine.c checks the batch, reserves slots in every cache and lays the work out
 * (kept_work_prepare). graph.c has a ggml graph for that number of tokens and logits; its custom
 * nodes call attend.c on every thread. The graph never contains a cache length, so the graph of a
 * decode step is built once and reused.
 *
 * Work units of one layer (attend.c). An item of one token is cut by (KV head, segment): partial
 * softmaxes that the merge node folds in order. An item of more tokens is cut by (KV head, group of
 * queries): each unit walks all segments of its queries in the same order. Both give a row the same
 * bits. Units are handed out dynamically; each writes only its own place, so results do not depend
 * on the number of threads.
 */
#ifndef MODEL_ENGINE_H
#define MODEL_ENGINE_H

#include "cache/cache.h"
#include "model/ahead.h"
#include "model/model.h"
#include "policy/strategy.h"

#include <stdatomic.h>

#define KEPT_MAX_PINS    16
#define KEPT_MAX_TRAINED 16
#define KEPT_GRAPHS      4 /* graphs kept for reuse */
#define KEPT_STATS_SKIP  4 /* queries at positions below this are left out of query statistics */

/* Sums for query statistics of all layers of one sequence. */
typedef struct kept_stats {
    int64_t count; /* queries summed */
    float *sum;    /* [n_layers][n_heads][D] */
    float *outer;  /* [n_layers][n_heads][D][D] */
} kept_stats;

typedef struct kept_control kept_control;
typedef struct kept_sharing kept_sharing;
typedef struct kept_directions kept_directions;

struct kept_seq {
    kept_engine *engine;
    const kept_strategy *whole; /* what it was made with; NULL: full */
    const kept_strategy
        *strategy;               /* in force now: whole, or a state of its controller; NULL: full */
    const kept_strategy *named;  /* what it was made with, as it is written; NULL: full */
    const kept_strategy *read;   /* its part of axis read is in force; NULL: reads all */
    float skip_v;                /* share of weights below which values are left out; 0: none */
    _Atomic uint64_t read_bytes; /* by decode steps */
    uint64_t n_reads;            /* such steps */
    kept_cache *cache;
    kept_capture capture;           /* the first planes of the cache: kept_capture_state */
    int counted[KEPT_MAX_CAPTURED]; /* queries in the plane's current window */
    int rope_plane;                 /* plane of rotation shifts, or -1 */
    int bias_plane;                 /* plane of biases, or -1: no slot has one */
    kept_stats *stats;              /* NULL: not captured */
    float *recent;                  /* [n_layers][n_recent][n_heads][D] rotated queries, those of
                                       position p at p % n_recent; NULL: not captured */
    double *cosine;                 /* [n_layers] sums over n_tokens; NULL: not captured */
    int *trimmed;                   /* [n_layers] leading pages dropped from windowed layers */
    int32_t n_tokens;
    int32_t full_tokens; /* prompt length once prefill ended, else 0 */
    int32_t n_after;     /* prompt tokens still to come, as the last item said */
    int32_t rope_back;   /* the next token's rotary position is n_tokens less this */
    int64_t left;        /* slots that the last eviction left */
    int steps;           /* decode tokens since the last eviction */
    uint64_t seed, round, score_ns, compact_ns;
    kept_span pins[KEPT_MAX_PINS];
    int n_pins;
    uint8_t *marks;   /* [max_tokens] kept_class of positions, or NULL */
    bool done;        /* its strategy evicts no more and what it recorded is gone */
    bool shed;        /* cut in this pass, for want of pages */
    bool layered;     /* its prompt was cut while it was read */
    bool keep_planes; /* planes were asked for besides the strategy's own */
    bool shift_lost;  /* keys have moved and the plane that says how far is gone */
    bool pack_owed;   /* pages that should be packed are not: the pool was full */
    bool in_batch;
    uint64_t extra_bytes; /* held beside the cache, as the cache was told */
    /* ahead.c */
    int32_t *log;          /* [max_tokens] tokens seen; NULL unless an echo plane is captured */
    int32_t echoed;        /* tokens that the echo planes know of; 0: not echoed */
    uint64_t ahead_ns;     /* time of an echo that no eviction has made use of yet */
    uint64_t ahead_bytes;  /* most that the echo held besides, for the peak of forks */
    bool foreseen;         /* the future plane is filled */
    bool echoing;          /* a fork that repeats: its echo planes take maxima now */
    bool scratch;          /* a fork of the engine's own */
    kept_seq *next;        /* in engine.seqs; scratch forks are in no list */
    uint64_t history;      /* of the tokens seen: the same for the same tokens only */
    kept_control *control; /* control.c; NULL: its controller decides nothing */
};

/* One batch item as the nodes see it. */
typedef struct kept_job {
    kept_seq *seq;
    int tok0, n;                    /* rows [tok0, tok0+n) of the batch */
    int32_t pos0;                   /* position of the first */
    bool decodes;                   /* one token that is not part of a prompt */
    int counted[KEPT_MAX_CAPTURED]; /* trailing queries of this item that each plane counts */
    bool reset[KEPT_MAX_CAPTURED];  /* the plane starts a new window with this item */
    /* A unit sums mass in n_vecs vectors of slots; those of plane i start at vec[i], -1: none. */
    int vec[KEPT_MAX_CAPTURED], n_vecs;
} kept_job;

typedef struct kept_node {
    kept_engine *engine;
    int layer;
} kept_node;

enum { /* what some sequence of the batch records, so that the graph must offer it */
       KEPT_GRAPH_STATS = 1,
       KEPT_GRAPH_COSINE = 2,
       KEPT_GRAPH_HIDDEN = 4,
       KEPT_GRAPH_READ = 8 /* chooses the pages it reads */
};

/* A batch and the layers [from, to) that it goes through. */
typedef struct kept_shape {
    int n_tokens, n_out, records, from, to;
} kept_shape;

typedef struct kept_graph {
    kept_shape shape;
    uint64_t used; /* for least recently used */
    void *mem;
    struct ggml_context *ctx;
    struct ggml_cgraph *gf;
    ggml_gallocr_t alloc;
    struct ggml_tensor *tokens, *pos, *rope_pos, *out_ids, *logits;
    struct ggml_tensor *in, *hidden; /* what enters and leaves a part of the layers */
} kept_graph;

/* Offsets of one layer's work: index j*n_kv_heads + h over jobs and KV heads. */
typedef struct kept_layer_work {
    int *unit;        /* [n_jobs*H + 1] first unit */
    size_t *part;     /* [n_jobs*H] first partial (float offset), single-token jobs */
    size_t *prob;     /* [n_jobs*H] probabilities (f16 offset), single-token jobs with mass */
    size_t *prob_max; /* [n_jobs*H] float offset */
    size_t *vec;      /* [n_jobs*H] mass vectors (float offset), longer jobs with mass */
    size_t *read;     /* [n_jobs*H] list of the pages it reads; SIZE_MAX: all */
    int *chosen;      /* [n_jobs*H] layer that chose last in this pass, -1: none did */
    int *chosen_of;   /* [n_jobs*H] pages that it chose from */
} kept_layer_work;

struct kept_engine {
    kept_model *model;
    const kept_kern *kern;
    kept_pool *pool;
    int n_threads, max_tokens, max_batch, max_seqs, n_seqs;
    kept_seq *seqs;        /* the n_seqs live sequences, newest first */
    kept_sharing *sharing; /* control.c: scratch for shared budgets, NULL until one is */
    ggml_backend_t backend;
    struct ggml_threadpool *threadpool;
    void (*threadpool_free)(struct ggml_threadpool *);
    kept_node *nodes;       /* [n_layers] */
    struct kept_each *each; /* each.c */
    kept_graph graphs[KEPT_GRAPHS];
    uint64_t graph_clock;
    /* the batch in flight */
    kept_job *jobs; /* [max_seqs] */
    int n_jobs;
    kept_layer_work work; /* of the layer being computed: laid out by its store node */
    atomic_int *next_attend, *next_merge; /* [n_layers] unit counters */
    float *parts, *vecs, *prob_maxes;
    kept_f16 *probs;
    int32_t *reads, *chosen;
    size_t parts_cap, vecs_cap, prob_maxes_cap, probs_cap, reads_cap, chosen_cap; /* elements */
    size_t chosen_stride; /* entries of a cell in chosen */
    kept_f16 *tile_prob;  /* [n_threads][tile_prob_size] */
    float *tile_buf;      /* [n_threads][tile_buf_size] */
    size_t tile_prob_size, tile_buf_size;
    /* inputs and outputs */
    int32_t *tok_buf, *pos_buf, *out_buf; /* [max_batch] */
    int32_t *rope_buf;                    /* [max_batch] rotary positions of layers that evict */
    float *logits;                        /* [max_batch_out][n_vocab] */
    size_t logits_cap;                    /* floats */
    kept_evict_work *evict_work;
    float *mean_buf, *cov_buf; /* query statistics handed to a policy */
    float *recent_buf;         /* recent queries, oldest first */
    size_t recent_cap;         /* floats */
    float *cosines;            /* [n_layers][max_batch] of this batch */
    double *cosine_buf;        /* [n_layers] means handed to a policy */
    float *w_o;                /* [n_embd][n_heads*D] of layer w_o_layer */
    int w_o_layer;
    float *rope_freq;     /* [n_rope/2] */
    uint8_t *keep_buf;    /* [max_tokens + KEPT_PAGE_SLOTS] */
    int32_t *pos_scratch; /* [n_threads][KEPT_SEG_PAGES * KEPT_PAGE_SLOTS] */
    int32_t *pack_work;   /* [max_tokens + KEPT_PAGE_SLOTS] of who packs */
    const kept_trained *trained[KEPT_MAX_TRAINED]; /* lent by kept_engine_add_trained */
    int n_trained;
    kept_directions *directions; /* of trained files "basis" and "nuq", or NULL */
    /* hidden.c */
    kept_hidden_fn *tap;
    void *tap_ctx;
    float *predict; /* [n_threads][predict_size] */
    size_t predict_size;
    float *local; /* [n_threads] scratch of attention inside blocks: local.c */
    int local_most;
    float *inv_norm; /* [max_batch] 1 / length of the layer's input, for ECHO_PLUS */
    kept_engine_times times;
    _Atomic uint64_t busy_ns;
};

/* Rotary frequencies of a layer: out [n_rope/2]. engine.c. */
void kept_rope_freq(const struct kept_model *m, int layer, float *out);

/* ---- graph.c ---- */
/* A graph for this batch shape, built or reused. NULL: out of memory. */
kept_graph *kept_graph_get(kept_engine *e, const kept_shape *shape);
void kept_graph_clear(kept_graph *g);

/* ---- attend.c: custom nodes, called on every thread ---- */
void kept_node_store(struct ggml_tensor *dst, int ith, int nth, void *node);
void kept_node_attend(struct ggml_tensor *dst, int ith, int nth, void *node);
void kept_node_merge(struct ggml_tensor *dst, int ith, int nth, void *node);
/* ---- read.c ---- */
/* Notes for the pages of s->cache, where s reads by them. FULL, NOMEM. */
kept_status kept_read_new(kept_seq *s, kept_error *err);
/* The k largest of score [n], the later of equal ones, ascending by index. work [n]. */
void kept_read_pick(const float *score, int n, int k, float *work, int32_t *list);
/* Node over rotated queries, between store and attend: lists the pages that cells read. */
void kept_node_select(struct ggml_tensor *dst, int ith, int nth, void *node);

/* ---- capture.c: what sequences record besides state planes ---- */
/* Can a sequence of this strategy record cap? UNSUPPORTED, ARGUMENT: with one line that says why
 * not. */
kept_status kept_record_check(const kept_engine *e, const kept_strategy *s, const kept_capture *cap,
                              kept_error *err);
/* Allocates what s->capture asks for, with what src has recorded so far (NULL: nothing). ARGUMENT:
 * src did not record it. Tells s->cache the bytes. */
kept_status kept_record_new(kept_seq *s, const kept_seq *src, kept_error *err);
void kept_record_free(kept_seq *s);       /* the cache is told by who calls it */
int kept_record_graph(const kept_seq *s); /* KEPT_GRAPH_* that s needs */
/* Fills the fields of x that come from here. They are the engine's and hold until it is called for
 * another sequence. NOMEM. */
kept_status kept_record_show(kept_seq *s, kept_evict *x, kept_error *err);
/* After a pass through layers [from, to), before s->n_tokens grows. */
void kept_record_commit(kept_seq *s, const kept_job *job, int from, int to);
/* Inside nodes, on every thread: queries before and after rotation. */
void kept_record_stats(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth);
void kept_record_recent(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth);
/* Node over the input of a layer and that plus its attention, both [n_embd][n_tokens]. */
void kept_node_cosine(struct ggml_tensor *dst, int ith, int nth, void *node);
void kept_record_engine_free(kept_engine *e);

/* ---- work.c ---- */
/* Allocates offsets and scratch for e's limits. */
kept_status kept_work_new(kept_engine *e, kept_error *err);
void kept_work_free(kept_engine *e);
/* Resets counters and grows scratch for the batch in e->jobs, so that nodes allocate nothing. */
kept_status kept_work_prepare(kept_engine *e, kept_error *err);

/* Keys of s were renumbered by `back` positions: its recent queries turn with them. */
void kept_record_turn(kept_seq *s, int32_t back);

/* ---- engine.c ---- */
/* Layers [from, to) of a forward pass. */
typedef struct kept_range {
    int from, to;
    float *hidden; /* [n_tokens][n_embd]: what enters layer `from`, then what leaves layer `to` - 1;
                      NULL: all layers, from tokens to logits */
} kept_range;
/* kept_engine_forward through these layers only. Those of other layers hold what they held; after a
 * part nothing is evicted. */
kept_status kept_engine_pass(kept_engine *e, const kept_item *items, int n_items,
                             const kept_range *range, kept_error *err);

/* ---- schedule.c ---- */
/* What s lends for one eviction. full_tokens: what a full cache holds at the point the budget
 * refers to. */
kept_evict kept_seq_lend(kept_seq *s, int32_t full_tokens);
/* After new tokens in layers [from, to): what no coming query sees leaves windowed layers. */
kept_status kept_seq_trim(kept_seq *s, int from, int to);
/* After a forward pass: schedules, windowed layers. */
kept_status kept_seq_after(kept_seq *s, const kept_item *item, kept_error *err);
/* If the strategy of s will not act again: gives back what it remembered. */
void kept_seq_forget(kept_seq *s);
typedef struct kept_held {
    int layers;    /* that evict */
    int64_t slots; /* live in all of their heads */
    int longest;   /* live slots of the longest head */
} kept_held;
kept_held kept_seq_held(const kept_seq *s);
/* A pass finds the pool short. Cuts the sequence of schedule "pressure" that holds most of its
 * budget to it, each once since begin (of equal ones the older). False: there is none left to cut.
 */
void kept_seq_shed_begin(kept_engine *e);
bool kept_seq_shed(kept_engine *e, kept_error *err);

/* ---- seq.c ---- */
/* A fork of the engine's own, which no limit counts: planes as for kept_cache_fork. */
kept_status kept_seq_scratch(kept_seq *src, const kept_capture *cap, const int *planes,
                             kept_seq **out, kept_error *err);
void kept_seq_scratch_free(kept_seq *s);
/* Cuts s to the budget of what is in force now; full_tokens: what '%' refers to. FULL: put off. */
kept_status kept_seq_evict(kept_seq *s, int32_t full_tokens, kept_error *err);
/* Makes room for evictions of s by `what`, however long s grows. */
kept_status kept_seq_reserve(kept_seq *s, const kept_strategy *what, kept_error *err);
/* s held that many bytes besides for a moment: they count in its peak. */
void kept_seq_note_held(kept_seq *s, uint64_t more);

/* ---- pack.c ---- */
/* Packs what the strategy in force stores in another form, in layers [from, to). fresh: tokens
 * that came since, 0: look at every page. */
void kept_seq_pack(kept_seq *s, int from, int to, int fresh);
void kept_seq_pack_after(kept_seq *s, const kept_item *item); /* after a pass, if it is time */

/* ---- ahead.c ---- */
/* Whether a sequence of this strategy (NULL: full) may record `want` and has the trained files it
 * reads. ARGUMENT: with one line that says why not. */
kept_status kept_ahead_check(const kept_engine *e, const kept_strategy *strategy,
                             const kept_capture *want, kept_error *err);
/* Allocates and frees what s holds for its planes, and the engine's scratch, and tells s->cache.
 * from: the sequence forked, or NULL. NOMEM. */
kept_status kept_ahead_new(kept_seq *s, const kept_seq *from, kept_error *err);
void kept_ahead_free(kept_seq *s);
/* Before an eviction: fills what must be filled. ARGUMENT: nobody foresaw. */
kept_status kept_ahead_ready(kept_seq *s, kept_error *err);

/* ---- control.c ---- */
/* Can a sequence of s (NULL: full) be controlled as s says? ARGUMENT. */
kept_status kept_control_check(const kept_strategy *s, kept_error *err);
/* What s needs to be controlled, if its strategy says so; from: the sequence forked, or NULL. Puts
 * the first state in force. NOMEM. */
kept_status kept_control_new(kept_seq *s, const kept_seq *from, kept_error *err);
void kept_control_free(kept_seq *s); /* and no sequence refers to s any more */
void kept_control_engine_free(kept_engine *e);
/* The prompt is in: decides for the first time. The caller evicts by what is in force then. */
kept_status kept_control_start(kept_seq *s, kept_error *err);
/* Follows the decisions of a log that are due; nothing without a log. */
kept_status kept_control_follow(kept_seq *s, kept_error *err);
/* Before a pass. ARGUMENT: a signal has nothing to look at. */
kept_status kept_control_check_item(const kept_item *item, kept_error *err);
/* After a pass, when its sequences have done what their schedules say. */
kept_status kept_control_after(kept_engine *e, const kept_item *items, int n_items,
                               kept_error *err);
/* Slots that s may hold in place of its strategy's budget; 0: that budget. */
int64_t kept_control_slots(const kept_seq *s);
/* ---- local.c: planes of attention inside blocks ---- */
/* Makes room for what cap says. NOMEM. */
kept_status kept_local_new(kept_engine *e, const kept_capture *cap, kept_error *err);
/* Inside the attend node, on every thread: q after rotation. */
void kept_record_local(kept_engine *e, int layer, const struct ggml_tensor *q, int ith, int nth);

/* ---- directions.c ---- */
/* Lends the pool what a trained file "basis" or "nuq" says, beside what it has of the other kind.
 * ARGUMENT: sequences still read with another. */
kept_status kept_directions_set(kept_engine *e, const kept_trained *t, kept_error *err);
void kept_directions_free(kept_directions *x);
/* Prepares them for pages of that form, or of any form of a strategy (NULL: none): before there is
 * one. Nothing to do where no file was lent. NOMEM. */
kept_status kept_directions_need(const kept_engine *e, kept_codecs form, kept_error *err);
kept_status kept_directions_for(const kept_engine *e, const kept_strategy *s, kept_error *err);
/* Tells the directions of one file from those of another; 0: there are none. */
uint64_t kept_directions_mark(const kept_engine *e);
/* The same of what pages of that form are read with. */
uint64_t kept_directions_mark_of(const kept_engine *e, kept_codecs form);

/* ---- each.c ---- */
/* Prepares kept_engine_each: a graph of one node that every thread works on. */
kept_status kept_each_new(kept_engine *e, kept_error *err);
void kept_each_free(kept_engine *e);
/* kept_evict.each of an engine, between forward passes. */
void kept_engine_each(void *engine, int n, kept_each_fn *fn, void *arg);

/* ---- hidden.c ---- */
/* Checks a trained file of kind "kvzap" and makes room for it. ARGUMENT: it does not fit. */
kept_status kept_hidden_trained(kept_engine *e, const kept_trained *t, kept_error *err);
/* What the engine was lent of a kind. NULL: nothing. */
const kept_trained *kept_hidden_file(const kept_engine *e, const char *kind);
int kept_hidden_graph(const kept_seq *s); /* KEPT_GRAPH_* that s needs in the coming pass */
/* Node over what enters a layer and the same normalised, both [n_embd][n_tokens]. */
void kept_node_hidden(struct ggml_tensor *dst, int ith, int nth, void *node);

#endif
