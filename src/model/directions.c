/* directions: makes pages readable that need what lies beside them: coefficients, from a trained
 * file "basis", and calibrated levels, from one of kind "nuq". */
#include "kern/lowrank_stands.h"
#include "kern/nuq.h"
#include "model/work.h"

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
    uint64_t mark;     /* of all numbers, and of what pages make of them; 0: there are none */
    uint64_t nuq_mark; /* of calibrated levels */
    float *placed; /* [N_TURNED][n_layers][n_heads][D][D]: those of keys in the places of turns */
    float *norms;  /* [2][n_layers][n_heads][D]: k-zero and k-scale in the places of turns */
    struct kept_nuq *nuq; /* [n_heads] */
    size_t n_heads;       /* of all layers */
    kept_low low[];
};

/* Pages hold channels of projections (kern/lowrank.h) since this number: FNV-1a begins with it. */
#define STANDS UINT64_C(0x9e3779b97f4a7c15)

void kept_directions_free(kept_directions *x)
{
    if (x) {
        for (size_t h = 0; h < x->n_heads; h++)
            for (int i = 0; i < KEPT_N_BASES * 4; i++)
                free((kept_stands *)(uintptr_t)x->low[h].stands[i / 4][i % 4]);
        kept_turns_free(x->turns);
        free(x->placed);
        free(x->norms);
        free(x->nuq);
    }
    free(x);
}

static uint64_t mark_of(uint64_t mark, const float *x, size_t n)
{
    for (size_t k = 0; k < n; k++) { /* FNV-1a, a number at a time */
        uint32_t bits;
        memcpy(&bits, &x[k], sizeof bits);
        mark = (mark ^ bits) * UINT64_C(0x100000001b3);
    }
    return mark;
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
    x->mark = mark_of(x->mark, from, n);
    for (size_t h = 0; h < n / size; h++) {
        kept_low *low = &x->low[h];
        const float **at = (arrays[i].v ? low->v : low->k) + arrays[i].basis;
        *at = (arrays[i].turned ? to : from) + h * size;
        low->turns = x->turns;
    }
}

#define SEED UINT64_C(0xcbf29ce484222325)

static bool add_basis(kept_directions *x, const kept_trained *t, const kept_model_info *info)
{
    const size_t heads = (size_t)info->n_layers * (size_t)info->n_kv_heads;
    const size_t size = (size_t)info->head_size * (size_t)info->head_size;
    float *to = x->placed = kept_calloc(N_TURNED * heads * size, sizeof *x->placed);
    x->mark = STANDS;
    for (int i = 0; i < N_ARRAYS && to; i++) {
        point(x, t, info, i, to);
        to += arrays[i].turned ? heads * size : 0;
    }
    return to != NULL;
}

static bool add_nuq(kept_directions *x, const kept_trained *t, const kept_model_info *info)
{
    static const char *const norm[] = {"k-zero", "k-scale"};
    static const char *const level[2][2][2] = {{{"k3", "k4"}, {"k3s", "k4s"}},
                                               {{"v3", "v4"}, {"v3s", "v4s"}}};
    const size_t heads = (size_t)info->n_layers * (size_t)info->n_kv_heads;
    const size_t D = (size_t)info->head_size;
    size_t n;
    x->norms = kept_calloc(2 * heads * D, sizeof *x->norms);
    x->nuq = kept_calloc(heads, sizeof *x->nuq);
    if (!x->norms || !x->nuq)
        return false;
    x->nuq_mark = SEED;
    for (size_t i = 0; i < 2; i++) {
        const float *from = kept_trained_array(t, norm[i], &n);
        float *to = x->norms + i * heads * D;
        for (size_t k = 0; k < n; k++) {
            const float y = from[k / D * D + x->turns->order[k % D]];
            to[k] = i && !(y > 1e-6f) ? 1e-6f : y; /* nobody divides by less */
        }
        x->nuq_mark = mark_of(x->nuq_mark, from, n);
    }
    for (int i = 0; i < 8; i++) {
        const int v = i / 4, sparse = i / 2 % 2, four = i % 2;
        const float *from = kept_trained_array(t, level[v][sparse][four], &n);
        for (size_t h = 0; h < heads; h++)
            x->nuq[h].level[v][sparse][four] = from + h * (n / heads);
        x->nuq_mark = mark_of(x->nuq_mark, from, n);
    }
    for (size_t h = 0; h < heads; h++) {
        x->nuq[h].zero = x->norms + h * D;
        x->nuq[h].scale = x->norms + (heads + h) * D;
        x->low[h].turns = x->turns;
        x->low[h].nuq = &x->nuq[h];
    }
    return true;
}

kept_status kept_directions_set(kept_engine *e, const kept_trained *t, kept_error *err)
{
    const kept_model *m = e->model;
    const kept_model_info *info = &m->info;
    const size_t heads = (size_t)info->n_layers * (size_t)info->n_kv_heads;
    const char *kind = kept_trained_kind(t);
    const kept_trained *basis = strcmp(kind, "basis") ? kept_hidden_file(e, "basis") : t;
    const kept_trained *nuq = strcmp(kind, "nuq") ? kept_hidden_file(e, "nuq") : t;
    if (e->directions && e->n_seqs)
        return kept_fail(err, KEPT_ARGUMENT,
                         "another trained file of kind '%s' while sequences are alive, whose "
                         "pages are read with the first; free them before",
                         kind);
    kept_directions *x = kept_calloc(1, sizeof *x + heads * sizeof *x->low);
    if (x) {
        x->n_heads = heads;
        x->turns =
            kept_turns_new(e->rope_freq, m->n_rope, m->rope_neox, info->head_size, e->max_tokens);
    }
    if (!x || !x->turns || (basis && !add_basis(x, basis, info)) ||
        (nuq && !add_nuq(x, nuq, info))) {
        kept_directions_free(x);
        return kept_fail(err, KEPT_NOMEM, "no memory for what pages of kind '%s' are read with",
                         kind);
    }
    kept_pool_set_low(e->pool, x->low);
    kept_directions_free(e->directions);
    e->directions = x;
    return KEPT_OK;
}

/* What stands for keys of one head of the group of n layers that starts at layer. */
static bool make_stands(kept_directions *x, const kept_model_info *info, int codec, const int at[3])
{
    const kept_codec_info *f = kept_codec_get(codec);
    const int layer = at[0], n = at[1], h = at[2];
    const float *u[KEPT_JOINT_LAYERS];
    kept_stands *out[KEPT_JOINT_LAYERS];
    for (int k = 0; k < n; k++)
        u[k] = x->low[(layer + k) * info->n_kv_heads + h].k[f->basis];
    if (!kept_stands_new(n, u, info->head_size, kept_codec_channels(codec, info->head_size), out))
        return false;
    for (int k = 0; k < n; k++)
        x->low[(layer + k) * info->n_kv_heads + h].stands[f->basis][f->quarters - 1] = out[k];
    return true;
}

kept_status kept_directions_need(const kept_engine *e, kept_codecs form, kept_error *err)
{
    const kept_model_info *info = &e->model->info;
    kept_directions *x = e->directions;
    if (!x || !kept_codec_get(form.k)->basis || !kept_low_is_turned(form.k, false))
        return KEPT_OK;
    const int g = kept_codec_layers(form);
    for (int l = 0; l < info->n_layers; l += g)
        for (int h = 0; h < info->n_kv_heads; h++)
            if (!kept_low_stands(&x->low[l * info->n_kv_heads + h], form.k) &&
                !make_stands(x, info, form.k,
                             (const int[3]){l, kept_min(g, info->n_layers - l), h}))
                return kept_fail(err, KEPT_NOMEM, "no memory for the directions of keys");
    return KEPT_OK;
}

kept_status kept_directions_for(const kept_engine *e, const kept_strategy *s, kept_error *err)
{
    const int n = e->model->info.n_layers;
    kept_status st = KEPT_OK;
    for (int i = 0; s && i < s->n_states && !st; i++)
        st = kept_directions_for(e, s->state[i], err);
    for (int l = 0; s && !s->n_states && l < n && !st; l++)
        st = kept_directions_need(e, kept_strategy_form(s, l, n), err);
    return st;
}

uint64_t kept_directions_mark(const kept_engine *e)
{
    return e->directions ? e->directions->mark : 0;
}

uint64_t kept_directions_mark_of(const kept_engine *e, kept_codecs form)
{
    if (!kept_codec_has_nuq(form))
        return kept_directions_mark(e);
    return e->directions ? e->directions->nuq_mark : 0;
}
