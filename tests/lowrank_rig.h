/* lowrank_rig: heads of four layers with random orthonormal directions, and rotary embedding by its
 * definition in double. */
#ifndef TESTS_LOWRANK_RIG_H
#define TESTS_LOWRANK_RIG_H

#include "kern/impl.h"
#include "kern/lowrank_stands.h"
#include "test.h"

enum { P64 = 64, MOST = KEPT_MAX_HEAD_SIZE, HIGH = 5000 };

static uint64_t seed = 3;
static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 40) / 8388608.0 - 1;
}

/* Directions of `layers` layers that are orthonormal over all of them: Gram-Schmidt in double. */
static void make_directions(int D, int layers, float *const out[])
{
    const int n = D * layers;
    double *u = malloc((size_t)D * (size_t)n * sizeof *u);
    for (int i = 0; i < D; i++) {
        double *row = u + i * n, square = 0;
        for (int d = 0; d < n; d++)
            row[d] = uniform();
        for (int k = 0; k < i; k++) {
            double dot = 0;
            for (int d = 0; d < n; d++)
                dot += row[d] * u[k * n + d];
            for (int d = 0; d < n; d++)
                row[d] -= dot * u[k * n + d];
        }
        for (int d = 0; d < n; d++)
            square += row[d] * row[d];
        for (int d = 0; d < n; d++) {
            row[d] /= sqrt(square);
            out[d / D][i * D + d % D] = (float)row[d];
        }
    }
    free(u);
}

typedef struct rig {
    int D, n_rope;
    bool neox;
    float freq[MOST / 2];
    kept_turns *turns;
    float u[4][KEPT_N_BASES][2][MOST * MOST]; /* of four layers */
    kept_low low[4];
} rig;

static rig the;

/* What stands for keys of all layers for the codecs that turn keys. */
static void make_stands(void)
{
    for (int c = 0; c < KEPT_N_CODECS; c++) {
        const int basis = kept_codec_get(c)->basis, q = kept_codec_get(c)->quarters - 1;
        const int g = kept_codec_layers((kept_codecs){(uint8_t)c, (uint8_t)c});
        if (!basis || !kept_low_is_turned(c, false) || the.low[0].stands[basis][q])
            continue;
        for (int l = 0; l < 4; l += g) {
            const float *u[4];
            kept_stands *out[4];
            for (int i = 0; i < g; i++)
                u[i] = the.u[l + i][basis][0];
            CHECK(kept_stands_new(g, u, the.D, kept_codec_channels(c, the.D), out));
            for (int i = 0; i < g; i++)
                the.low[l + i].stands[basis][q] = out[i];
        }
    }
}

static inline void start(int D, int n_rope, bool neox)
{
    the.D = D;
    the.n_rope = n_rope;
    the.neox = neox;
    for (int j = 0; j < n_rope / 2; j++)
        the.freq[j] = (float)pow(10000, -2.0 * j / n_rope);
    the.turns = kept_turns_new(the.freq, n_rope, neox, D, HIGH);
    CHECK(the.turns != NULL);
    for (int b = KEPT_BASIS_LOW; b < KEPT_N_BASES; b++)
        for (int v = 0; v < 2; v++) {
            const int g = b == KEPT_BASIS_PAIR ? 2 : b == KEPT_BASIS_QUAD ? 4 : 1;
            for (int l = 0; l < 4; l += g) {
                float *at[4];
                for (int i = 0; i < g; i++)
                    at[i] = the.u[l + i][b][v];
                make_directions(D, g, at);
            }
            for (int l = 0; l < 4; l++) {
                (v ? the.low[l].v : the.low[l].k)[b] = the.u[l][b][v];
                the.low[l].turns = the.turns;
            }
        }
    make_stands();
}

static inline void stop(void)
{
    for (int l = 0; l < 4; l++)
        for (int i = 0; i < KEPT_N_BASES * 4; i++) {
            free((kept_stands *)(uintptr_t)the.low[l].stands[i / 4][i % 4]);
            the.low[l].stands[i / 4][i % 4] = NULL;
        }
    kept_turns_free(the.turns);
}

/* Channel of place i, and the vector's turn by pos, both by the definition of rotary embedding. */
static inline int channel(int i)
{
    const int half = the.n_rope / 2;
    return the.neox || i >= the.n_rope ? i : i < half ? 2 * i : 2 * (i - half) + 1;
}

static inline void turn(double *x, int32_t pos, int sign)
{
    for (int j = 0; j < the.n_rope / 2; j++) {
        const int a = the.neox ? j : 2 * j, b = the.neox ? j + the.n_rope / 2 : 2 * j + 1;
        const double t = sign * (double)pos * (double)the.freq[j], x0 = x[a], x1 = x[b];
        x[a] = cos(t) * x0 - sin(t) * x1;
        x[b] = sin(t) * x0 + cos(t) * x1;
    }
}

#endif
