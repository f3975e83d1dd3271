/* lowdirs: rows of normal numbers, made orthonormal by Gram-Schmidt in double. */
#include "bench/lowdirs.h"
#include "kern/lowrank_stands.h"

#include <math.h>
#include <stdlib.h>

/* D directions that are orthonormal over n layers: out[l] [D][D] is the part of layer l. */
static kept_status directions(kept_rng *r, int D, int n, float *const *out)
{
    const int N = n * D;
    double *u = malloc((size_t)D * (size_t)N * sizeof *u);
    if (!u)
        return KEPT_NOMEM;
    for (int i = 0; i < D; i++) {
        double *row = u + (size_t)i * (size_t)N, square = 0;
        for (int j = 0; j < N; j++)
            row[j] = kept_rng_normal(r);
        for (int k = 0; k < i; k++) {
            const double *other = u + (size_t)k * (size_t)N;
            double dot = 0;
            for (int j = 0; j < N; j++)
                dot += row[j] * other[j];
            for (int j = 0; j < N; j++)
                row[j] -= dot * other[j];
        }
        for (int j = 0; j < N; j++)
            square += row[j] * row[j];
        for (int j = 0; j < N; j++) {
            row[j] /= sqrt(square);
            out[j / D][i * D + j % D] = (float)row[j];
        }
    }
    free(u);
    return KEPT_OK;
}

static kept_status fill(kept_lowdirs *x, uint64_t seed)
{
    static const int layers[KEPT_N_BASES] = {0, 1, 1, 2, 4};
    const size_t size = (size_t)x->D * (size_t)x->D;
    float *at = x->u;
    kept_rng r;
    kept_status st = KEPT_OK;
    kept_rng_init(&r, seed);
    for (int i = 2 * KEPT_BASIS_LOW; i < 2 * KEPT_N_BASES && !st; i++) {
        const int basis = i / 2;
        float *out[KEPT_JOINT_LAYERS];
        for (int l = 0; l < layers[basis]; l++, at += size) {
            out[l] = at;
            (i % 2 ? x->low[l].v : x->low[l].k)[basis] = at;
        }
        st = directions(&r, x->D, layers[basis], out);
    }
    return st;
}

/* Levels that stand closer about 0, as calibrated ones do, over channels of unlike mean and size.
 */
static void fill_levels(kept_lowdirs *x, uint64_t seed)
{
    kept_rng r;
    kept_rng_init(&r, seed);
    for (int d = 0; d < x->D; d++) {
        x->zero[d] = (float)(kept_rng_normal(&r) / 4);
        x->scale[d] = (float)(0.5 + kept_rng_unit(&r));
    }
    for (int four = 0; four < 2; four++) {
        const int n = four ? 16 : 8;
        for (int c = 0; c < n; c++) {
            const double y = 2 * (c + 0.5) / n - 1;
            x->level[four][c] = (float)(1.5 * y * (1 + y * y));
        }
        for (int i = 0; i < 4; i++)
            x->nuq.level[i / 2][i % 2][four] = x->level[four];
    }
    x->nuq.zero = x->zero;
    x->nuq.scale = x->scale;
    for (int l = 0; l < KEPT_JOINT_LAYERS; l++)
        x->low[l].nuq = &x->nuq;
}

kept_status kept_lowdirs_new(int head_size, int max_pos, uint64_t seed, kept_lowdirs **out,
                             kept_error *err)
{
    const size_t D = (size_t)head_size;
    float freq[KEPT_MAX_HEAD_SIZE / 2];
    kept_lowdirs *x = kept_calloc(1, sizeof *x);
    *out = NULL;
    for (size_t j = 0; j < D / 2; j++)
        freq[j] = (float)pow(10000, -2.0 * (double)j / (double)D);
    if (x) {
        x->D = head_size;
        x->turns = kept_turns_new(freq, head_size, true, head_size, max_pos);
        x->u = kept_calloc(2 * (1 + 1 + 2 + 4) * D * D, sizeof *x->u);
    }
    if (!x || !x->turns || !x->u || fill(x, seed)) {
        kept_lowdirs_free(x);
        return kept_fail(err, KEPT_NOMEM, "no memory for random directions");
    }
    for (int l = 0; l < KEPT_JOINT_LAYERS; l++)
        x->low[l].turns = x->turns;
    fill_levels(x, seed);
    *out = x;
    return KEPT_OK;
}

kept_status kept_lowdirs_need(kept_lowdirs *x, kept_codecs form, kept_error *err)
{
    const kept_codec_info *f = kept_codec_get(form.k);
    const int n = kept_codec_layers(form);
    const float *u[KEPT_JOINT_LAYERS];
    kept_stands *out[KEPT_JOINT_LAYERS];
    if (!f->basis || !kept_low_is_turned(form.k, false) || kept_low_stands(&x->low[0], form.k))
        return KEPT_OK;
    for (int l = 0; l < n; l++)
        u[l] = x->low[l].k[f->basis];
    if (!kept_stands_new(n, u, x->D, kept_codec_channels(form.k, x->D), out))
        return kept_fail(err, KEPT_NOMEM, "no memory for random directions");
    for (int l = 0; l < n; l++)
        x->low[l].stands[f->basis][f->quarters - 1] = out[l];
    return KEPT_OK;
}

void kept_lowdirs_free(kept_lowdirs *x)
{
    if (!x)
        return;
    for (int i = 0; i < KEPT_JOINT_LAYERS * KEPT_N_BASES * 4; i++)
        free((kept_stands *)(uintptr_t)x->low[i / 4 / KEPT_N_BASES]
                 .stands[i / 4 % KEPT_N_BASES][i % 4]);
    kept_turns_free(x->turns);
    free(x->u);
    free(x);
}
