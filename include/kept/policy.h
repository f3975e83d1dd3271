/* kept/policy.h: all that the author of a score or an allocator includes.
 *
 * A strategy is one part from each axis (kept_axis below) and a budget. The engine owns state,
 * protection, top-k, compaction and byte accounting; a score only says which slots matter more. A
 * score cannot evict a protected slot, overrun a budget, leak state between sequences or forget to
 * free: it is a pure function of the view it is given.
 *
 * To add one: src/policy/score_NAME.c, one line in src/policy/parts.h, one row in
 * docs/strategies.md. Nothing else: help, tests and the parser read the tables.
 */
#ifndef KEPT_POLICY_H
#define KEPT_POLICY_H

#include "kept/kept.h"
#include "kept/trained.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KEPT_POLICY_ABI  5
#define KEPT_MAX_OPTIONS 16

typedef enum kept_axis {
    KEPT_AXIS_SCORE,
    KEPT_AXIS_WEIGHT,  /* what a score is multiplied by */
    KEPT_AXIS_WRAPPER, /* what is made of the scores of a layer's heads */
    KEPT_AXIS_ALLOCATOR,
    KEPT_AXIS_PROTECTION,
    KEPT_AXIS_SCHEDULE,
    KEPT_AXIS_POSITION,
    KEPT_AXIS_MERGE,      /* what becomes of the slots that are dropped */
    KEPT_AXIS_CODEC,      /* what a slot is stored as */
    KEPT_AXIS_CONTROLLER, /* which of the above now */
    KEPT_AXIS_READ,       /* which of the pages held a decode step attends to */
    KEPT_AXIS_REST,       /* what a sequence is at rest: kept/park.h */
    KEPT_N_AXES
} kept_axis;

/* One option of a part. A value is a double; an option with choices (NULL-terminated) holds the
 * index of the choice and is written by its name. */
typedef struct kept_option {
    const char *name;
    double value, min, max; /* default (NAN: it must be given) and inclusive range */
    bool integer;
    const char *const *choices;
    const char *help;
} kept_option;

/* What every part of every axis says about itself. */
typedef struct kept_part {
    int abi; /* KEPT_POLICY_ABI */
    kept_axis axis;
    const char *name;           /* unique over all axes and recipes; [a-z0-9-]+ */
    const char *summary;        /* one line */
    const char *paper;          /* citation, "" if none */
    const char *deviations;     /* every difference from the paper, "" if none */
    const kept_option *options; /* [n_options] */
    int n_options;
    /* Default of option i where it follows from other options; NULL: those of the table. */
    double (*fallback)(const double *options, int i);
} kept_part;

/* One KV head as a score sees it: live slots in ascending order of original position. What is not
 * asked for is NULL. Keys, values, prob and weight are filled for the head asked only; wrappers see
 * weight of all heads. */
typedef struct kept_view_head {
    int n;                /* live slots, protected ones included */
    const int32_t *pos;   /* [n] original positions, ascending */
    const uint8_t *guard; /* [n] 1: protected, stays whatever its score */
    const uint8_t *mark;  /* [n] kept_class of the token; NULL: all are text */
    const float *mass;    /* [n] the plane that the score asked for; [G][n] if it is split */
    const float *key;     /* [n][D] keys as stored (rotated): KEPT_NEED_KEYS */
    const float *key0;    /* [n][D] keys before rotation: KEPT_NEED_KEYS0 */
    const float *value;   /* [n][D] values: KEPT_NEED_VALUES */
    const float *q_mean;  /* [G][D] mean of pre-rotation queries: KEPT_NEED_QUERIES */
    const float *q_cov;   /* [G][D][D] their covariance: KEPT_NEED_QUERIES */
    const float *query;   /* [n_recent][G][D] rotated queries of the last n_recent tokens, oldest
                             first, not scaled: if recent asks */
    /* [n_recent][G][n] their attention, by the last model.attn_scale: a causal softmax over the
     * slots that are live now. p = exp(logit - lse). */
    const float *prob;
    const float *lse;    /* [n_recent][G] log of the sum of exp(logit), natural */
    const float *weight; /* [n] mean over the query heads of ||W_o v||_1: KEPT_NEED_OUTPUT */
} kept_view_head;

/* How scores of query heads become one score per KV head: the options of KEPT_GROUP_OPTIONS. */
typedef enum kept_gqa { KEPT_GQA_SUM, KEPT_GQA_MEAN, KEPT_GQA_MAX } kept_gqa;
typedef enum kept_pool_kind { KEPT_POOL_NONE, KEPT_POOL_MAX, KEPT_POOL_AVG } kept_pool_kind;
typedef struct kept_grouping {
    kept_gqa gqa;
    kept_pool_kind pool;
    int kernel;      /* tokens pooled, centred, stride 1 */
    bool pool_first; /* pool each query head, then aggregate */
} kept_grouping;

/* Everything borrowed for the length of one call. */
typedef struct kept_view {
    int layer, n_layers;
    int n_heads;                 /* KV heads of the layer */
    int group;                   /* G, query heads per KV head */
    int head_size;               /* D */
    int n_recent;                /* queries that heads[].query and prob hold (fewer than asked for
                                    while the sequence is shorter) */
    int32_t next_pos;            /* tokens seen = position of the next token */
    int32_t n_steps;             /* of them decoded, not read as part of the prompt */
    int32_t rope_back;           /* the next token's rotary position is next_pos - rope_back; the
                                    helpers below know */
    int share;                   /* unprotected slots that the head asked (wrappers: the first) may
                                    keep if all heads hold the same */
    const kept_view_head *heads; /* [n_heads] */
    const double *options;       /* [n_options] resolved values, in the order of the option table */
    kept_grouping grouping;      /* if the score has these options */
    const kept_trained *trained; /* the file of the kind that the part names, or NULL */
    float attn_scale;            /* softmax scale, usually 1/sqrt(D) */
    uint64_t seed;               /* differs by sequence, layer and number of evictions so far */
    /* Rotary embedding: channel pair j turns by pos * rope_freq[j] radians. Pairs are (2j, 2j+1),
     * or (j, j + n_rope/2) when rope_neox; channels from n_rope on do not turn. */
    const float *rope_freq; /* [n_rope/2] */
    int n_rope;
    bool rope_neox;
    float *scratch; /* [2 n + G n + KEPT_SCRATCH] floats, n of the longest head, uninitialised */
    const struct kept_kern *kern; /* for kept_dots */
    float *pooled;                /* [n] of kept_group */
    uint64_t *work;               /* [2 n] of kept_pick */
} kept_view;

/* c[i*ldc + j] = sum_d a[i*k + d] * b[j*k + d], i < m, j < n: rows of k floats against rows of k
 * floats, by the engine's kernels. The same rows give the same bits wherever they stand. */
KEPT_API void kept_dots(const kept_view *v, int m, int n, int k, const float *a, const float *b,
                        float *c, int ldc);
/* Makes out [n] of x [rows][n]: pools and aggregates as v->grouping says. rows = G, or 1: the sum
 * over the query heads, where aggregation has happened. Slots [0, edge) and [edge, n) are pooled
 * apart. Beyond an end, avg counts zeros (the divisor is always kernel) and max counts nothing. out
 * must not overlap x. */
KEPT_API void kept_group(const kept_view *v, const float *x, int rows, int n, int edge, float *out);

/* Marks the `count` best unprotected slots of a head by score [n] (the later position on ties) and
 * the protected ones: mask[i] = 1, all others 0. */
KEPT_API void kept_pick(const kept_view *v, int head, const float *score, int count, uint8_t *mask);
/* A random number in (0, 1) for every head and position, drawn anew at every eviction. */
KEPT_API double kept_noise(const kept_view *v, int head, int32_t pos);

/* For scores that look ahead: writes the mean over positions [from, from + n) of the rotary factors
 * exp(i (pos - rope_back) rope_freq[j]) to re, im [n_rope/2]; n = 1 gives those of one position. */
KEPT_API void kept_rope_mean(const kept_view *v, double from, double n, float *re, float *im);
/* Turns one vector by such factors, in place; its D channels lie `stride` floats apart. */
KEPT_API void kept_rope_turn(const kept_view *v, const float *re, const float *im, float *x,
                             int stride);

#define KEPT_SCRATCH 262144 /* floats in view.scratch beyond what depends on n */

enum { /* needs */
       KEPT_NEED_KEYS = 1,
       KEPT_NEED_VALUES = 2,
       KEPT_NEED_QUERIES = 4,
       KEPT_NEED_KEYS0 = 8,
       KEPT_NEED_OUTPUT = 16, /* heads[].weight; refused where W_o cannot be read */
       KEPT_NEED_COSINE = 32  /* allocators: kept_split.cosine */
};

/* Which plane a score reads as heads[].mass, from its resolved options. */
typedef kept_plane kept_plane_of(const double *options);
/* How many recent queries it reads; 0: none. At most KEPT_MAX_RECENT. */
typedef int kept_recent_of(const double *options);
#define KEPT_MAX_RECENT 512

/* A score. Larger means: keep. Values must be finite; ties keep the later position. */
typedef struct kept_score {
    kept_part part;
    int needs;
    int (*needs_of)(const double *options); /* in place of needs, where options decide; or NULL */
    kept_plane_of *plane;                   /* NULL: none */
    kept_recent_of *recent;                 /* NULL: none */
    const char *trained; /* kind of trained file that view.trained must be, NULL: none */
    bool (*uses_trained)(const double *options); /* NULL: always, if trained is set */
    bool grouped;                                /* the last four options are KEPT_GROUP_OPTIONS */
    /* Reads every slot by itself (and, if layer_shared, with the same place of other heads): slots
     * may then come in any order, which saves sorting them, unless the options pool. */
    bool any_order;
    bool layer_shared;  /* one score per token and layer: every head keeps the same tokens */
    bool comparable;    /* values of different heads share a scale, so allocators may mix them */
    bool weighs_values; /* has a value term of its own: the weight axis is refused, unless an option
                           "values" of the score turns it off */
    /* Writes score[0..n) for KV head `head` of the view, n = heads[head].n. */
    void (*score)(const kept_view *v, int head, float *score);
} kept_score;

/* Options of every score that is made of attention, with the defaults its paper has. They must be
 * the last four of its table, and kept_score.grouped set. */
#define KEPT_GROUP_OPTIONS(gqa, pool, kernel)                                                      \
    {"gqa", gqa, 0, 2, true, kept_gqa_names, "query heads of a KV head: sum, mean or max"},        \
        {"pool", pool, 0, 2, true, kept_pool_names, "how neighbouring tokens are pooled"},         \
        {"kernel", kernel, 1, 1023, true, NULL, "tokens pooled together, 1: no pooling"},          \
    {                                                                                              \
        "pool-first", 0, 0, 1, true, kept_off_on, "pool each query head, then aggregate"           \
    }
extern KEPT_API const char *const kept_gqa_names[];  /* "sum", "mean", "max", NULL */
extern KEPT_API const char *const kept_pool_names[]; /* "none", "max", "avg", NULL */
extern KEPT_API const char *const kept_off_on[];     /* "off", "on", NULL */
/* True if these options (the four of KEPT_GROUP_OPTIONS) need one row per query head: max over
 * query heads, or max pooling before aggregation. For kept_plane.split. */
KEPT_API bool kept_group_splits(const double *four);

/* A wrapper: rewrites the scores of all heads of one layer, after weights. */
typedef struct kept_wrapper {
    kept_part part;
    int needs; /* KEPT_NEED_OUTPUT or 0 */
    bool layer_shared;
    /* score[h] is [heads[h].n]. NULL: leaves scores as they are. */
    void (*wrap)(const kept_view *v, float *const *score);
} kept_wrapper;

/* What an allocator splits: how many unprotected slots each head may keep. */
typedef struct kept_split {
    int n_layers, n_heads;     /* layers that take part, KV heads in each */
    const int *layer;          /* [n_layers] their numbers in the model, ascending */
    const int *n;              /* [n_layers][n_heads] unprotected live slots */
    const float *const *score; /* [n_layers][n_heads] -> [n] their scores (only if needs_scores) */
    const int *n_protected;    /* [n_layers][n_heads] protected live slots (kept anyway) */
    const double *signal;      /* [n_layers][n_heads][2] what observe wrote, or NULL */
    const double *cosine;      /* [n_layers] KEPT_NEED_COSINE */
    const kept_trained *trained; /* of the kind that the allocator names, or NULL */
    int64_t total;               /* slots all heads together may keep, protected ones included */
    int32_t n_tokens;            /* slots of a head in the full cache */
    const double *options;
    int *scratch;  /* [n_layers * n_heads] of kept_split_shares, and the allocator's besides */
    double *share; /* [n_layers * n_heads] for the allocator's own use */
} kept_split;

/* An allocator. Writes keep[n_layers][n_heads] with 0 <= keep <= n and
 * sum(keep + n_protected) <= max(total, sum n_protected); leaves no slot unused while some head
 * still has candidates, unless it is data-dependent. */
typedef struct kept_allocator {
    kept_part part;
    int needs; /* KEPT_NEED_KEYS, VALUES, QUERIES, COSINE: what observe and split read */
    kept_recent_of *recent;
    const char *trained;
    bool needs_scores;
    bool falling;        /* of each head from the best candidate to the worst; with needs_scores */
    bool data_dependent; /* may hold less than the budget, which is only a bound: it is asked at
                            every eviction, also where the budget is met */
    /* Layer by layer, as a layer-major prefill cuts: what a layer keeps depends on the candidates'
     * counts and on its own scores alone (layerwise), or layers seen so far may be cut again when
     * the next one arrives (cascades). Neither: refused in that schedule. */
    bool layerwise, cascades, even_layers; /* the last: every layer gets the same */
    /* Looks at one head while its view is there (options: the allocator's own; view.n_recent and
     * trained are those it asked for); split.signal keeps what it writes. NULL: none. */
    void (*observe)(const kept_view *v, int head, const double *options, double signal[2]);
    void (*split)(const kept_split *s, int *keep);
} kept_allocator;

/* For allocators. What they split: total less all protected slots, at least 0. */
KEPT_API int64_t kept_split_open(const kept_split *s);
/* Splits the open slots in proportion to share [n_layers*n_heads] >= 0, by largest remainder (the
 * earlier head on ties); caps each head at its candidates and hands what is over to the others in
 * proportion, to heads without a share last. share may be s->share. */
KEPT_API void kept_split_shares(const kept_split *s, const double *share, int *keep);
/* Gives `slots` to heads [first, first + n) by their scores: all candidates of these heads in one
 * list, the best ones kept, the earlier head on ties. On entry keep[first..] holds what each head
 * gets at least (its own best); these must not sum to more than slots. */
KEPT_API void kept_split_top(const kept_split *s, int first, int n, int64_t slots, int *keep);
/* Gives `slots` to heads [first, first + n) evenly, protected slots included: all rise to one
 * level, each to cap[i] at most; what is left over goes to the earlier heads. cap may be s->n or
 * s->scratch, not keep; all three are indexed as in s. */
KEPT_API void kept_split_fill(const kept_split *s, int first, int n, const int *cap, int64_t slots,
                              int *keep);
/* Splits the slots over layers in proportion to share [n_layers], protected slots included: layer l
 * holds level * share[l], at least its protected slots and at most all of its slots. Writes what it
 * may keep besides the protected ones: open[l] for kept_split_top or kept_split_fill inside the
 * layer. Rounding and zeros as in kept_split_shares. A share that is negative or not finite counts
 * as 0; evenly if all are 0. */
KEPT_API void kept_split_layers(const kept_split *s, const double *share, int *open);
/* The fewest candidates of head i that together carry `part` (0..1) of its score; scores of a head
 * that has negative ones count from its lowest. */
KEPT_API int kept_split_cover(const kept_split *s, int i, double part);
/* Row `row` of array `name` [n_rows][model layers][n_heads] of s->trained: the entry of head h of
 * the l-th layer that takes part is [s->layer[l] * n_heads + h]. NULL: no such array, or one that
 * does not cover these layers. Entries may be anything. */
KEPT_API const float *kept_split_table(const kept_split *s, const char *name, int row, int n_rows);

#ifdef __cplusplus
}
#endif

#include "kept/algebra.h"
#include "kept/merge.h"

#endif
