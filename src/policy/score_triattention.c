/* triattention: arXiv 2604.04921: what queries at a distance will pay a key, from the mean m_f (a
 * complex number per channel pair f, before rotation) and the mean length a_f of each query head's
 * pairs, measured once per model: with k_f the key before rotation,
 *
 *     sum_f |m_f| |k_f| cos(w_f D + arg(m_f conj k_f)) + sum_f (a_f - |m_f|) |k_f|,
 *
 * averaged over distances D = age + {1, 2, 4, .. horizon}, age counted from the last token;
 * z-scores over the tokens of a query head, and the largest over query heads.
 *
 * The first sum is Re sum_f (m_f e^(i w_f D) conj k_f), and k_f is the stored key turned back, so
 * it is the inner product of the stored key with the mean turned to the future positions.
 */
#include "kept/policy.h"

#include <math.h>
#include <string.h>

enum { HORIZON, NORM, BLOCK = 64 };

/* Channels of pair f. */
static void pair(const kept_view *v, int f, int *a, int *b)
{
    bool halves = v->rope_neox && f < v->n_rope / 2;
    *a = halves ? f : 2 * f;
    *b = halves ? f + v->n_rope / 2 : 2 * f + 1;
}

/* Mean of rotary factors over the positions that future queries stand at. */
static void look_ahead(const kept_view *v, float *re, float *im)
{
    float one_re[256], one_im[256];
    int half = v->n_rope / 2, n = 0;
    memset(re, 0, 256 * sizeof *re);
    memset(im, 0, 256 * sizeof *im);
    for (double d = 1; d <= v->options[HORIZON]; d *= 2, n++) {
        kept_rope_mean(v, v->next_pos - 1 + d, 1, one_re, one_im);
        for (int f = 0; f < half; f++) {
            re[f] += one_re[f];
            im[f] += one_im[f];
        }
    }
    for (int f = 0; f < half; f++) {
        re[f] /= (float)n;
        im[f] /= (float)n;
    }
}

/* u [G][D]: means turned ahead; rest [G][D/2]: a - |m|. */
static void prepare(const kept_view *v, const float *mean, const float *modulus, float *u,
                    float *rest)
{
    float re[256], im[256];
    int size = v->head_size, half = size / 2, a, b;
    look_ahead(v, re, im);
    memcpy(u, mean, (size_t)(v->group * size) * sizeof *u);
    for (int g = 0; g < v->group; g++, u += size) {
        for (int f = 0; f < half; f++) {
            pair(v, f, &a, &b);
            rest[g * half + f] = modulus[g * half + f] - hypotf(u[a], u[b]);
        }
        kept_rope_turn(v, re, im, u, 1);
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int size = v->head_size, half = size / 2, a, b;
    const float *mean = kept_view_trained(v, "mean", v->group * size, head);
    const float *modulus = kept_view_trained(v, "modulus", v->group * half, head);
    float *row = v->scratch, *u = row + (size_t)v->group * (size_t)h->n;
    float *rest = u + v->group * size, length[256];
    memset(out, 0, (size_t)h->n * sizeof *out);
    if (!mean || !modulus)
        return;
    prepare(v, mean, modulus, u, rest);
    for (int i = 0; i < h->n; i++) {
        const float *k = h->key + (size_t)i * (size_t)size;
        for (int f = 0; f < half; f++) {
            pair(v, f, &a, &b);
            length[f] = sqrtf(k[a] * k[a] + k[b] * k[b]);
        }
        for (int g = 0; g < v->group; g++)
            row[(size_t)g * (size_t)h->n + (size_t)i] =
                kept_dot(k, u + g * size, size) + kept_dot(length, rest + g * half, half);
    }
    for (int g = 0; g < v->group; g++, row += h->n) {
        if (v->options[NORM] != 0)
            kept_standardize(row, h->n, NULL);
        for (int i = 0; i < h->n; i++)
            out[i] = g && out[i] > row[i] ? out[i] : row[i];
    }
}

static const kept_option options[] = {
    {"horizon", 65536, 1, 1048576, true, NULL, "the largest of the distances 1, 2, 4, ..."},
    {"norm", 1, 0, 1, true, kept_off_on, "z-scores per query head before the largest is taken"},
};

const kept_score kept_score_triattention = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "triattention",
             .summary = "attention that mean queries pay from some distance",
             .paper = "arXiv 2604.04921",
             .deviations = "keys stand where position=slot has moved them; the paper evicts every "
                           "128 steps and keeps the prompt and the last 128 tokens",
             .options = options,
             .n_options = 2},
    .needs = KEPT_NEED_KEYS,
    .trained = "triattention",
    .score = score,
};
