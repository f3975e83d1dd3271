/* directions: makes the engine's pages of coefficients readable, from a trained file "basis". */
#include "kern/lowrank.h"
#include "model/engine.h"

#include <stdlib.h>
#include <string.h>

/* Arrays of the file, by what reads them. */
static const struct {
    const char *name;
    kept_basis basis;
    bool v, turned;
} arrays[] = {
    {"k", KEPT_BASIS_LOW, false, true},      {"v", KEPT_BASIS_LOW, true, false},
    {"flat", KEPT_BASIS_FLAT, false, false}, {"k2", KEPT_BASIS_PAIR, false, true},
    {"v2", KEPT_BASIS_PAIR, true, false},    {"k4", KEPT_BASIS_QUAD, false, true},
    {"v4", KEPT_BASIS_QUAD, true, false},
};
enum { N_ARRAYS = sizeof arrays / sizeof *arrays, N_TURNED = 3 };

struct kept_directions {
    kept_turns *turns;
    uint64_t mark;  /* of all numbers */
    float *placed;  /* [N_TURNED][n_layers][n_heads][D][D]: those of keys in the places of turns */
    kept_low low[]; /* [n_layers * n_heads] */
};

void kept_directions_free(kept_directions *x)
{
    if (x) {
        kept_turns_free(x->turns);
        free(x->placed);
    }
    free(x);
}

/* Points every head to its part of array i; those that are turned are copied to `to` first. */
static void point(kept_directions *x, const kept_trained *t, const kept_model_info *info, int i,
                  float *to)
{
    const size_t D = (size_t)info->head_size, size = D * D;
    size_t n;
    const float *from = kept_trained_array(t, arrays[i].name, &n);
    for (size_t k = 0; k < n && arrays[i].turned; k++)
        to[k] = from[k / D * D + x->turns->order[k % D]];
    for (size_t k = 0; k < n; k++) { /* FNV-1a, a number at a time */
        uint32_t bits;
        memcpy(&bits, &from[k], sizeof bits);
        x->mark = (x->mark ^ bits) * UINT64_C(0x100000001b3);
    }
    for (size_t h = 0; h < n / size; h++) {
        kept_low *low = &x->low[h];
        const float **at = (arrays[i].v ? low->v : low->k) + arrays[i].basis;
        *at = (arrays[i].turned ? to : from) + h * size;
        low->turns = x->turns;
    }
}

kept_status kept_directions_set(kept_engine *e, const kept_trained *t, kept_error *err)
{
    const kept_model *m = e->model;
    const kept_model_info *info = &m->info;
    const size_t heads = (size_t)info->n_layers * (size_t)info->n_kv_heads;
    const size_t size = (size_t)info->head_size * (size_t)info->head_size;
    if (e->directions && e->n_seqs)
        return kept_fail(err, KEPT_ARGUMENT,
                         "another trained file of kind 'basis' while sequences are alive, whose "
                         "pages are read with the first; free them before");
    kept_directions *x = kept_calloc(1, sizeof *x + heads * sizeof *x->low);
    if (x) {
        x->turns =
            kept_turns_new(e->rope_freq, m->n_rope, m->rope_neox, info->head_size, e->max_tokens);
        x->placed = kept_calloc(N_TURNED * heads * size, sizeof *x->placed);
    }
    if (!x || !x->turns || !x->placed) {
        kept_directions_free(x);
        return kept_fail(err, KEPT_NOMEM, "no memory for the directions of keys and values");
    }
    float *to = x->placed;
    x->mark = UINT64_C(0xcbf29ce484222325);
    for (int i = 0; i < N_ARRAYS; i++) {
        point(x, t, info, i, to);
        to += arrays[i].turned ? heads * size : 0;
    }
    kept_pool_set_low(e->pool, x->low);
    kept_directions_free(e->directions);
    e->directions = x;
    return KEPT_OK;
}

uint64_t kept_directions_mark(const kept_engine *e)
{
    return e->directions ? e->directions->mark : 0;
}
