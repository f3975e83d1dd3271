/* park_lossy: what park_lossy.c (which slots, their rows, reading and writing) and park_basis.c
 * (bases and rates) share. */
#ifndef MODEL_PARK_LOSSY_H
#define MODEL_PARK_LOSSY_H

#include "model/park_io.h"

/* K or V of one head. */
typedef struct kept_half {
    int n; /* lossy rows; 0: the slots stay as they are */
    int r; /* components held */
    float step, rms;
    const float *given; /* [D][D] calibrated components, NULL: the sequence's own are stored */
    float *mean;        /* [D] */
    float *basis;       /* [D][D] orthonormal; scratch where they are given */
    int8_t *stored;     /* [D][D] what basis is made of */
    double *var;        /* [D] of the components */
} kept_half;

typedef struct kept_lossy {
    kept_seq *s;
    const kept_rest *rest;
    int n_kv, d;
    kept_half *halves; /* [n_layers * n_kv * 2] */
    float *numbers;    /* what their pointers point into */
    struct kept_rates *rates;
    uint8_t **out; /* [n_layers] sections; reading: where they are */
    size_t *size;
    atomic_bool failed, bad; /* no memory; not what was written */
} kept_lossy;

/* The rows of a half, keys turned to position 0, finite: x [n][D], slot [n]; returns n. */
int kept_lossy_rows(const kept_lossy *j, int layer, int h, bool v, float *x, int32_t *slot);

/* Bases and variances of half i: for kept_engine_each. */
void kept_lossy_model(void *job, int lane, int i);
/* The first n rows of f->stored to orthonormal ones of basis, one after the other: what comes first
 * does not depend on what follows. A row that adds nothing is 0. */
void kept_lossy_basis(kept_half *f, int n, int d);
struct kept_rates *kept_rates_new(void); /* NULL: out of memory */
/* Steps and components of all halves that take `bits` bits, as far as is known. */
void kept_lossy_fit(kept_lossy *j, double bits);

#endif
