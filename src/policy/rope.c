/* rope: what scores need to look ahead: rotary factors averaged over positions. */
#include "kept/policy.h"

#include <math.h>

void kept_rope_mean(const kept_view *v, double from, double n, float *re, float *im)
{
    for (int j = 0; j < v->n_rope / 2; j++) {
        /* A geometric sum: exp(i w (from + (n-1)/2)) sin(n w/2) / (n sin(w/2)). */
        double w = v->rope_freq[j], half = sin(w / 2);
        double angle = (from - v->rope_back + (n - 1) / 2) * w;
        double size = fabs(half) < 1e-12 ? 1 : sin(n * w / 2) / (n * half);
        re[j] = (float)(size * cos(angle));
        im[j] = (float)(size * sin(angle));
    }
}

void kept_rope_turn(const kept_view *v, const float *re, const float *im, float *x, int stride)
{
    for (int j = 0; j < v->n_rope / 2; j++) {
        float *a = x + (v->rope_neox ? j : 2 * j) * stride;
        float *b = x + (v->rope_neox ? j + v->n_rope / 2 : 2 * j + 1) * stride, old = *a;
        *a = re[j] * old - im[j] * *b;
        *b = im[j] * old + re[j] * *b;
    }
}
