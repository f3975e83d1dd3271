/* pass: one eviction in flight, shared by evict.c (plan, split, apply) and pass_score.c. */
#ifndef POLICY_PASS_H
#define POLICY_PASS_H

#include "policy/parts.h"

/* One eviction. Head i is KV head i % n_heads of layer layer[i / n_heads]. */
typedef struct kept_pass {
    const kept_strategy *s;
    const kept_evict *e;
    const kept_score *score;
    const kept_allocator *alloc;
    int n_layers, n_heads, n_all; /* layers that evict, heads of a layer, heads of all of them */
    int layer[KEPT_MAX_LAYERS];   /* [n_layers] */
    int plane;                    /* first state plane of the score, or -1 */
    int rows;                     /* of it: G if it is split, else 1 */
    int max_n, limit;             /* most slots of a head; most slots protected in a head */
    int64_t n_slots, total;       /* slots live now, slots allowed */
    /* over all heads */
    size_t *at;                       /* [n_all] first slot of the head in the two below */
    float *value;                     /* [n_slots] scores in slot order */
    uint8_t *mask;                    /* [n_slots] 1: protected, later 1: stays */
    float *open;                      /* [n_slots] scores of candidates, if the allocator asks */
    const float **open_of;            /* [n_all] */
    int *n, *n_open, *n_guard, *keep; /* [n_all] */
    int *scratch;                     /* [n_all] */
    double *share;                    /* [n_all] */
    /* of one layer */
    kept_view_head *view; /* [n_heads] */
    int32_t *pos, *order; /* [n_heads][max_n] */
    float *mass;          /* [n_heads][max_n] */
    /* of one head */
    int32_t *slot_pos;      /* [max_n] */
    uint64_t *work;         /* [2 max_n] */
    float *raw, *key, *val; /* [max_n][D] */
    float *sorted;          /* [max_n] */
    float *free_;           /* [max_n + KEPT_SCRATCH] */
} kept_pass;

/* Fills value, mask, n_guard and n_open for the heads of the l-th layer that evicts. */
void kept_pass_score(kept_pass *p, int l);

/* x, or what takes its place where it is not finite: every score must have a place in the order. */
float kept_pass_bounded(float x);

#endif
