/* kl: divergence of two next-token distributions from their logits.
 *
 * KL(p||q) = sum_i p_i (a_i - b_i) - log Z_a + log Z_b, with a, b the logits minus their maxima.
 * One pass finds the maxima, one computes both partition sums and the weighted difference.
 * Everything after loading is double, so the result needs no error discussion: the exp below is
 * good to 1e-14 relative, and equal inputs cancel exactly because both sides take the same
 * operations. Sums of log p run over 50,000 to 250,000 entries for every variant and step, hence
 * the loops over fixed LANES, which compilers turn into vector code without being allowed to
 * reorder additions, and the AVX2 copy of the same source.
 */
#include "bench/stats.h"

#include <math.h>
#include <string.h>

#define LANES 8
#define BLOCK 64 /* a multiple of LANES, small enough for the first-level cache */

/* exp(x) for -700 <= x <= 0: x = k ln 2 + r, |r| <= ln 2 / 2, Taylor polynomial of degree 11 in r
 * (remainder below 7e-15), 2^k through the exponent bits. k comes from adding 1.5 * 2^52, which
 * rounds to an integer and leaves it in the low bits. exp(0) is exactly 1. */
static inline __attribute__((always_inline)) double exp_negative(double x)
{
    const double magic = 0x1.8p52;
    const double t = x * 0x1.71547652b82fep0 + magic;
    const double k = t - magic;
    const double r = (x - k * 0x1.62e42fee00000p-1) - k * 0x1.a39ef35793c76p-33;
    double p = 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r + 1;
    p = p * r + 1;
    int64_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (int64_t)((uint64_t)(bits + 1023) << 52);
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

/* Sums over all tokens but the top one, whose term is exactly 1: kept apart it cannot swallow the
 * digits of a small -log p. */
typedef struct kl_sums {
    double base, other; /* sum of exp(logit - max) */
    double cross;       /* sum of exp(base logit - max) * (shifted base - shifted other logit) */
} kl_sums;

/* Both sides of one comparison. */
typedef struct kl_pair {
    const float *base, *other; /* [n] logits */
    int n;
    int top_base, top_other; /* where the maxima are */
} kl_pair;

/* One block. Three loops because a clamp beside the exp makes compilers branch around it. */
static inline __attribute__((always_inline)) void
block_terms(const float *x, double top, int n, double *restrict shifted, double *restrict terms)
{
    for (int j = 0; j < n; j++) {
        const double a = (double)x[j] - top;
        shifted[j] = a < -700 ? -700 : a;
    }
    for (int j = 0; j < n; j++)
        terms[j] = exp_negative(shifted[j]);
}

static inline __attribute__((always_inline)) kl_sums sum_body(const kl_pair *k)
{
    double sb[LANES] = {0}, so[LANES] = {0}, sc[LANES] = {0};
    double a[BLOCK], b[BLOCK], ea[BLOCK], eb[BLOCK];
    const double max_base = k->base[k->top_base], max_other = k->other[k->top_other];
    for (int i = 0; i < k->n; i += BLOCK) {
        const int m = k->n - i < BLOCK ? k->n - i : BLOCK;
        block_terms(k->base + i, max_base, m, a, ea);
        block_terms(k->other + i, max_other, m, b, eb);
        for (int j = m; j < BLOCK; j++)
            a[j] = b[j] = ea[j] = eb[j] = 0;
        if (k->top_base >= i && k->top_base < i + m)
            ea[k->top_base - i] = 0;
        if (k->top_other >= i && k->top_other < i + m)
            eb[k->top_other - i] = 0;
        for (int j = 0; j < BLOCK; j += LANES)
            for (int l = 0; l < LANES; l++) {
                sb[l] += ea[j + l];
                so[l] += eb[j + l];
                sc[l] += ea[j + l] * (a[j + l] - b[j + l]);
            }
    }
    kl_sums s = {0, 0, 0};
    for (int l = 0; l < LANES; l++) {
        s.base += sb[l];
        s.other += so[l];
        s.cross += sc[l];
    }
    return s;
}

static kl_sums sum_plain(const kl_pair *k)
{
    return sum_body(k);
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2,fma"))) static kl_sums sum_avx2(const kl_pair *k)
{
    return sum_body(k);
}
#endif

static kl_sums sum_any(const kl_pair *k)
{
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return sum_avx2(k);
#endif
    return sum_plain(k);
}

/* Index of the largest value, the lowest one of equals. */
static int argmax(const float *x, int n)
{
    float top[2 * LANES];
    for (int l = 0; l < 2 * LANES; l++)
        top[l] = x[0];
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int l = 0; l < 2 * LANES; l++)
            top[l] = x[i + l] > top[l] ? x[i + l] : top[l];
    float best = top[0];
    for (int l = 1; l < 2 * LANES; l++)
        best = top[l] > best ? top[l] : best;
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    for (i = 0; i < n; i++)
        if (x[i] == best)
            return i;
    return 0; /* only NaN */
}

kept_kl kept_kl_logits(const float *base, const float *other, int n_vocab, int32_t true_token)
{
    kept_kl out = {.kl = NAN, .nll_base = NAN, .nll_other = NAN, .top1 = false};
    if (n_vocab <= 0)
        return out;
    const kl_pair k = {base, other, n_vocab, argmax(base, n_vocab), argmax(other, n_vocab)};
    const double max_base = base[k.top_base], max_other = other[k.top_other];
    const kl_sums s = sum_any(&k);
    const double log_base = log1p(s.base), log_other = log1p(s.other);
    const double at_top = max_other - other[k.top_base]; /* the top token's term of cross */
    const double kl = (s.cross + at_top) / (1 + s.base) - log_base + log_other;
    out.kl = kl < 0 ? 0 : kl; /* rounding only; NaN stays */
    out.top1 = k.top_base == k.top_other;
    if (true_token >= 0 && true_token < n_vocab) {
        out.nll_base = log_base + (max_base - base[true_token]);
        out.nll_other = log_other + (max_other - other[true_token]);
    }
    return out;
}
