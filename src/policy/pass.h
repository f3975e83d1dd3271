/* pass: one eviction in flight, shared by evict.c (plan, split, apply), layers.c and pass_score.c.
 */
#ifndef POLICY_PASS_H
#define POLICY_PASS_H

#include "policy/parts.h"

/* What one head's kept slots become: rows by number among them. */
typedef struct kept_merged {
    int n;              /* kept slots; 0: nothing was merged */
    float *key, *value; /* [n][D] */
    float *bias;        /* [n] natural log */
    uint8_t *set;       /* [n] bits: what changed */
} kept_merged;
enum { KEPT_MERGED_KEY = 1, KEPT_MERGED_VALUE = 2, KEPT_MERGED_BIAS = 4 };

/* What pages get by what their slots scored: forms_grade.c. Pages of all heads, head by head. */
typedef struct kept_grading {
    float *by_pos;            /* [next_pos] scores of one head */
    int32_t *from;            /* [max_n] order of its slots */
    int *first;               /* [n_all] its first page */
    double *low, *scale;      /* [n_all] what turns its scores into worth */
    double *worth;            /* [pages] mean of the slots */
    int *head;                /* [pages] whose page it is */
    uint8_t *width;           /* [pages] what it gets: a width, or a rung */
    uint8_t *rest;            /* [pages] slots of what is no whole page; 0: it is one */
    uint64_t *step, *sorting; /* [KEPT_GRADE_STEPS * pages] */
} kept_grading;
#define KEPT_GRADE_STEPS 5

/* One eviction. Head i is KV head i % n_heads of layer layer[i / n_heads]. */
typedef struct kept_pass {
    const kept_strategy *s;
    const kept_evict *e;
    const kept_score *score;
    const kept_wrapper *wrap;
    const kept_allocator *alloc;
    const kept_merge *merge;
    int needs;    /* of all parts but the merge together */
    int n_recent; /* queries that heads[].prob holds: the most that one of them wants */
    int merge_needs, merge_recent, merge_plane, merge_rows; /* the same of the merge */
    kept_merged *merged;                                    /* [n_lanes], if there is a merge */
    const kept_trained *trained, *alloc_trained;
    const kept_look *look;        /* shown every head in place of the score; NULL: an eviction */
    int n_layers, n_heads, n_all; /* layers that evict, heads of a layer, heads of all of them */
    int layer[KEPT_MAX_LAYERS];   /* [n_layers] */
    int plane;                    /* first state plane of the score, or -1 */
    int rows;                     /* of it: G if it is split, else 1 */
    int max_n, limit;             /* most slots of a head; most slots protected in a head */
    int64_t n_slots, total;       /* slots live now, slots allowed */
    bool one;                     /* about one slot a head has to go: look for it while it is hot */
    int n_lanes;                  /* layers in work at once; 0: one */
    struct kept_pass *lane;       /* [n_lanes - 1] copies of this with arrays of their own for what
                                     follows from "of one layer" on */
    /* over all heads */
    size_t *at;                       /* [n_all] first slot of the head in the two below */
    float *value;                     /* [n_slots] scores in slot order */
    uint8_t *mask;                    /* [n_slots] 1: protected, later 1: stays */
    float *open;                      /* [n_slots] scores of candidates, if the allocator asks */
    const float **open_of;            /* [n_all] */
    int *n, *n_open, *n_guard, *keep; /* [n_all] */
    int *worst;                       /* [n_all] the slot that goes first, if one is set */
    int *scratch;                     /* [n_all] */
    double *share;                    /* [n_all] */
    double *signal;                   /* [n_all][2] */
    double *cosine;                   /* [n_layers] */
    kept_grading grade;               /* if the codec grades pages */
    /* of one layer */
    kept_view_head *view; /* [n_heads] */
    int32_t *pos, *order; /* [n_heads][max_n] */
    float *mass;          /* [n_heads][rows][n], a head every rows * max_n */
    float *sorted;        /* [n_heads][max_n] scores in the order of positions */
    float **sorted_of;    /* [n_heads] */
    float *weight;        /* [n_heads][max_n] ||W_o v|| */
    uint8_t *guarded;     /* [n_heads][max_n] protected, in the order of positions */
    uint8_t *mark;        /* [n_heads][max_n] classes of tokens, if the sequence has any */
    /* of one head */
    int32_t *slot_pos;             /* [max_n] */
    uint64_t *work;                /* [2 max_n] */
    uint64_t *place;               /* [kept_place_words(next_pos)] if that is not much more */
    float *raw, *key, *key0, *val; /* [max_n][D] */
    float *turns;                  /* [next_pos][n_rope] cosines and minus sines of positions */
    float *query;                  /* [n_recent][G][D] */
    float *prob, *lse;             /* [n_recent][G][max_n], [n_recent][G] */
    float *output;                 /* [n_embd][D] columns of W_o of one query head */
    float *pooled;                 /* [max_n] */
    float *free_;                  /* [(2 + G) max_n + KEPT_SCRATCH] */
    int32_t *kept, *gone, *to;     /* [max_n] places and what a merge keeps of its own */
    float *by_place, *bias;        /* [max_n] */
    float *own;                    /* [3 max_n] of the merge */
} kept_pass;

/* ---- evict.c ---- */
/* Counts slots and the budget. planned: every head's slots; -1: those of the cache. */
void kept_pass_count(kept_pass *p, int planned);
bool kept_pass_is_due(const kept_pass *p);
/* What the strategy needs must be there, and memory for what was counted. ARGUMENT, NOMEM. */
kept_status kept_pass_open(kept_pass *p, kept_evict_work *w, kept_error *err);
/* keep of all heads, once their scores are in. Heads of a layer with the `at` of the layer before
 * share its scores. */
void kept_pass_split(kept_pass *p);

/* ---- pass_memory.c ---- */
/* How many layers are in work at once. The output matrix is there for one layer at a time, so those
 * who read it go one by one; so does who looks. */
void kept_pass_lanes(kept_pass *p);
/* Memory for what was counted, in w. NOMEM. */
kept_status kept_pass_memory(kept_pass *p, kept_evict_work *w, kept_error *err);

/* ---- pass_score.c ---- */
/* Fills value, mask, n_guard, n_open and signal for the heads of the l-th layer that evicts.
 * ARGUMENT: its output matrix cannot be read. */
kept_status kept_pass_score(kept_pass *p, int l, kept_error *err);

/* A view of the l-th layer that shows one head: its slots as they lie in the cache now, with what
 * needs, n_recent and plane of p ask for. Borrowed from p. */
kept_view kept_pass_show(kept_pass *p, int l, int head);

/* ---- forms_grade.c: codecs that grade pages (kept_form_grades) ---- */
/* keep of all heads by water-filling, once their scores are in. */
void kept_grade_split(kept_pass *p);
/* Before and after head i is cut: its scores follow its slots. */
void kept_grade_note(kept_pass *p, int i);
void kept_grade_find(kept_pass *p, int i);
/* After all are cut: slots in the order of their scores, and every page in its form. FULL: some
 * pages are wider. */
kept_status kept_grade_pack(kept_pass *p);

/* ---- merge.c ---- */
/* What head i leaves in its kept slots, into merged; keep [n] by slot. Reads the cache only. */
void kept_merge_head(kept_pass *p, int i, const uint8_t *keep, kept_merged *merged);
/* Drops the other slots of head i, writes merged (NULL: nothing was) and moves keys as the position
 * says. FULL. */
kept_status kept_pass_cut(kept_pass *p, int i, const uint8_t *keep, const kept_merged *merged);

/* ---- pass_view.c: what costs work to show ---- */
void kept_pass_turns(kept_pass *p); /* fills turns */
/* Keys of the head before rotation into key0, from sorted keys. */
void kept_pass_unrotate(kept_pass *p, int layer, int head, const int32_t *order);
/* query, prob and lse of the head; keys are there. */
void kept_pass_probs(kept_pass *p, int layer, int head);
/* weight of the head; values are there, w_o [n_embd][n_heads*G*D]. */
void kept_pass_weight(kept_pass *p, int head, const float *w_o);

/* x, or what takes its place where it is not finite: every score must have a place in the order. */
float kept_pass_bounded(float x);

#endif
