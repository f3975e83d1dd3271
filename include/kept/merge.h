/* kept/merge.h: what becomes of the slots that are dropped; part of kept/policy.h.
 *
 * A merge part is a pure function of one head as it is before the cut: it says what the kept slots
 * hold afterwards. Which slots stay, and how many bytes that frees, is decided before it is asked
 * and is the same whatever it does. The engine shows the head, writes what changed, and owns F16
 * rounding, shared pages and rotation.
 *
 * A slot may carry a bias: a number that attention adds to all of its logits. A slot that stands
 * for c tokens has log c, so that it gets the weight of c tokens. The bias is state of the sequence
 * (4 bytes a slot, in its account), outlives everything else that a strategy remembers, and goes
 * into scores and attention mass like any logit.
 */
#ifndef KEPT_MERGE_H
#define KEPT_MERGE_H

#include "kept/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One head about to be cut. A place is an index into the arrays of view.heads[head], which are in
 * the order of positions; view.heads[head].guard marks protected slots, which are all kept. */
typedef struct kept_merging {
    int head;              /* KV head of the view; only this one is shown */
    int n_kept, n_gone;    /* both at least 1 */
    const int32_t *kept;   /* [n_kept] places, ascending */
    const int32_t *gone;   /* [n_gone] places, ascending */
    const float *score;    /* [n] by place: what the slots were chosen by, finite */
    const float *old_bias; /* [n] by place, natural log: of earlier merges, 0 without any */
    /* What kept slot number j will hold: rows on entry as they are. Rows that are not changed keep
     * their bits; rows made not finite count as not changed; numbers are cut to the range of F16,
     * biases to -60..60. */
    float *key;   /* [n_kept][D] as stored, rotated; NULL without KEPT_NEED_KEYS */
    float *key0;  /* [n_kept][D] before rotation; a row that changes here takes the place of the
                     row of key, turned to the slot's own position. NULL without KEPT_NEED_KEYS0 */
    float *value; /* [n_kept][D]; NULL without KEPT_NEED_VALUES */
    float *bias;  /* [n_kept] natural log; NULL unless the part has biases */
    int32_t *to;  /* [n_gone] for the part's own use, as are the next and view.scratch */
    float *work;  /* [3 n] */
} kept_merging;

/* The axis. In `merge`, view.options are the part's own, view.n_recent and mass what it asked for;
 * what the score asked for is not there. */
typedef struct kept_merge {
    kept_part part;
    int needs;                                                /* KEPT_NEED_KEYS, KEYS0, VALUES */
    kept_plane_of *plane;                                     /* NULL: none */
    kept_recent_of *recent;                                   /* NULL: none */
    bool (*biases)(const double *options);                    /* NULL: writes none */
    void (*merge)(const kept_view *v, const kept_merging *m); /* NULL: what is dropped is gone */
} kept_merge;

/* For merges: the kept slot (number in kept) whose stored key has the greatest cosine to that of
 * each gone slot, the earliest on ties, and that cosine; zero keys have cosine 0. Needs KEYS, and
 * m->key as it was on entry. Overwrites v->scratch. to and cosine are [n_gone]. */
KEPT_API void kept_merge_nearest(const kept_view *v, const kept_merging *m, int32_t *to,
                                 float *cosine);
/* The kept slot whose position is nearest to that of each gone slot, the earlier on ties, among
 * those of its chunk of `span` positions (0: all); without `guarded` protected slots take nothing.
 * -1: there is none. */
KEPT_API void kept_merge_neighbour(const kept_view *v, const kept_merging *m, int span,
                                   bool guarded, int32_t *to);

/* Which keys a mean is made of: those before rotation, so that the mean has the phase of the kept
 * slot's position; those as stored, whose phases differ; or none: the kept slot keeps its own. */
enum { KEPT_MERGE_UNROTATED, KEPT_MERGE_ROTATED, KEPT_MERGE_OWN };
extern KEPT_API const char *const kept_merge_keys[]; /* "unrotated", "rotated", "own", NULL */
/* Every kept slot j that gone slots join (m->to, -1: none) becomes the mean of itself, with weight
 * own[j] > 0, and of these, with weights w [n_gone] >= 0: values, and keys as said. sum [n_kept]
 * receives the weights added up, 0 where none joined. */
KEPT_API void kept_merge_means(const kept_view *v, const kept_merging *m, int keys,
                               const float *own, const float *w, float *sum);

/* For fits. x [n] becomes what minimises |a x - b| with low <= x <= high, by coordinate descent
 * from the x given; a is [n][rows], one row a coefficient; fixed [n] (or NULL) marks those that
 * stay. b [rows] becomes b - a x. */
KEPT_API void kept_fit_box(int n, int rows, const float *a, float *b, const double range[2],
                           const uint8_t *fixed, float *x);
/* Rows x [n][size] += what is shortest, times ridge, and closest to bringing sum_j p_rj dx_j to off
 * [rows][size]: dx = P' (P P' + ridge t I)^-1 off, where t is the mean of the diagonal of P P'.
 * Rows that are fixed stay. work: rows^2 doubles; off is overwritten. Nothing changes where P P' is
 * not positive definite. */
typedef struct kept_fit {
    int n, rows, size;
    const float *p;       /* [n][rows] */
    const uint8_t *fixed; /* [n] */
} kept_fit;
KEPT_API void kept_fit_rows(const kept_fit *f, double ridge, double *work, float *off, float *x);

#ifdef __cplusplus
}
#endif
#endif
