/* kept/policy.h: all that the author of a score or an allocator includes.
 *
 * A strategy is one part from each axis (score, allocator, protection, schedule, position) and a
 * budget. The engine owns state, protection, top-k, compaction and byte accounting; a score only
 * says which slots matter more. A score cannot evict a protected slot, overrun a budget, leak state
 * between sequences or forget to free: it is a pure function of the view it is given.
 *
 * To add one: src/policy/score_NAME.c, one line in src/policy/parts.h, one row in
 * docs/strategies.md. Nothing else: help, tests and the parser read the tables.
 */
#ifndef KEPT_POLICY_H
#define KEPT_POLICY_H

#include "kept/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KEPT_POLICY_ABI  1
#define KEPT_MAX_OPTIONS 8

typedef enum kept_axis {
    KEPT_AXIS_SCORE,
    KEPT_AXIS_ALLOCATOR,
    KEPT_AXIS_PROTECTION,
    KEPT_AXIS_SCHEDULE,
    KEPT_AXIS_POSITION,
    KEPT_N_AXES
} kept_axis;

/* One option of a part. A value is a double; an option with choices (NULL-terminated) holds the
 * index of the choice and is written by its name. */
typedef struct kept_option {
    const char *name;
    double value, min, max; /* default and inclusive range */
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
} kept_part;

/* One KV head as a score sees it: live slots in ascending order of original position. */
typedef struct kept_view_head {
    int n;               /* live slots, protected ones included */
    const int32_t *pos;  /* [n] original positions, ascending */
    const float *mass;   /* [n] this score's mass plane, or NULL */
    const float *key;    /* [n][D] keys as stored (rotated), if KEPT_NEED_KEYS */
    const float *value;  /* [n][D] values, if KEPT_NEED_VALUES */
    const float *q_mean; /* [G][D] mean of pre-rotation queries, if KEPT_NEED_QUERIES */
    const float *q_cov;  /* [G][D][D] their covariance, if KEPT_NEED_QUERIES */
} kept_view_head;

/* Everything borrowed for the length of one call. */
typedef struct kept_view {
    int layer, n_layers;
    int n_heads;                 /* KV heads of the layer */
    int group;                   /* G, query heads per KV head */
    int head_size;               /* D */
    int32_t next_pos;            /* tokens seen = position of the next token */
    const kept_view_head *heads; /* [n_heads]; keys and values are filled for the head asked only */
    const double *options;       /* [n_options] resolved values, in the order of the option table */
    uint64_t seed;               /* differs by sequence, layer and number of evictions so far */
    /* Rotary embedding: channel pair j turns by pos * rope_freq[j] radians. Pairs are (2j, 2j+1),
     * or (j, j + n_rope/2) when rope_neox; channels from n_rope on do not turn. */
    const float *rope_freq; /* [n_rope/2] */
    int n_rope;
    bool rope_neox;
    float *scratch; /* [n + KEPT_SCRATCH] floats of the head asked, uninitialised */
} kept_view;

/* For scores that look ahead: writes the mean over positions [from, from + n) of the rotary factors
 * exp(i pos rope_freq[j]) to re, im [n_rope/2]; n = 1 gives those of one position. */
KEPT_API void kept_rope_mean(const kept_view *v, double from, double n, float *re, float *im);
/* Turns one vector by such factors, in place; its D channels lie `stride` floats apart. */
KEPT_API void kept_rope_turn(const kept_view *v, const float *re, const float *im, float *x,
                             int stride);

#define KEPT_SCRATCH 262144 /* floats in view.scratch beyond n */

enum { /* kept_score.needs */
       KEPT_NEED_KEYS = 1,
       KEPT_NEED_VALUES = 2,
       KEPT_NEED_QUERIES = 4
};

/* A score. Larger means: keep. Values must be finite; ties keep the later position. */
typedef struct kept_score {
    kept_part part;
    int needs;
    /* Window of the mass plane wanted (see kept_capture): 0 none, INT32_MAX all queries. NULL:
     * none. It is a function because it may be an option. */
    int (*mass_window)(const double *options);
    bool layer_shared; /* the score is one per token and layer: every head keeps the same tokens */
    bool comparable;   /* values of different heads share a scale, so allocators may mix them */
    /* Writes score[0..n) for KV head `head` of the view, n = heads[head].n. */
    void (*score)(const kept_view *v, int head, float *score);
} kept_score;

/* What an allocator splits: how many unprotected slots each head may keep. */
typedef struct kept_split {
    int n_layers, n_heads;     /* layers that take part, KV heads in each */
    const int *n;              /* [n_layers][n_heads] unprotected live slots */
    const float *const *score; /* [n_layers][n_heads] -> [n] their scores (only if needs_scores) */
    const int *n_protected;    /* [n_layers][n_heads] protected live slots (kept anyway) */
    int64_t total;             /* slots all heads together may keep, protected ones included */
    const double *options;
    int *scratch;  /* [n_layers * n_heads] of kept_split_shares */
    double *share; /* [n_layers * n_heads] for the allocator's own use */
} kept_split;

/* An allocator. Writes keep[n_layers][n_heads] with 0 <= keep <= n and
 * sum(keep + n_protected) <= max(total, sum n_protected); leaves no slot unused while some head
 * still has candidates. */
typedef struct kept_allocator {
    kept_part part;
    bool needs_scores;
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

#ifdef __cplusplus
}
#endif
#endif
