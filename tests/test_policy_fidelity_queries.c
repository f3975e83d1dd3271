/* Fidelity of scores that read keys and what is known of queries, from the sequence or from trained
 * files: what an eviction keeps of every head equals a plain double-precision reading of the
 * published formula, written here without any help from src/policy.
 */
#include "rows_rig.h"

static void q_filters(const world *w, int l, int h, double *out)
{
    size_t size;
    const float *f = kept_trained_array(w->r.trained[0], "filter", &size);
    for (int t = 0; t < w->n; t++)
        for (int c = 0; c < w->d; c++)
            out[t] += (double)f[(l * H + h) * w->d + c] * row(w, rig_k(&w->r, l, h), t)[c];
}

/* Mean rotation of the next 512 positions, as a matrix. */
static void rotation_ahead(const world *w, double *m)
{
    int d = w->d, half = d / 2;
    memset(m, 0, sizeof(double) * MAX_D * MAX_D);
    for (int j = 0; j < half; j++)
        for (int t = w->n; t < w->n + 512; t++) {
            double c = cos(t * (double)w->r.freq[j]) / 512, s = sin(t * (double)w->r.freq[j]) / 512;
            m[j * d + j] += c;
            m[j * d + j + half] -= s;
            m[(j + half) * d + j] += s;
            m[(j + half) * d + j + half] += c;
        }
}

static void capkv(world *w, int l, int h, double *out)
{
    static double m[MAX_D * MAX_D], y[MAX_N * MAX_D];
    int d = w->d;
    if (l + h == 0)
        rotation_ahead(w, m);
    for (int t = 0; t < w->n; t++)
        for (int c = 0; c < d; c++)
            y[t * d + c] = row(w, rig_v(&w->r, l, h), t)[c];
    for (int g = 0; g < w->g; g++) {
        const float *mean = w->r.q_mean + ((l * H + h) * w->g + g) * d;
        double mu[MAX_D] = {0}, weight[MAX_N], part[MAX_N], length = 0;
        for (int i = 0; i < d; i++) {
            for (int j = 0; j < d; j++)
                mu[i] += m[i * d + j] * mean[j];
            length += mu[i] * mu[i];
        }
        for (int t = 0; t < w->n; t++) {
            const float *k = row(w, rig_k(&w->r, l, h), t);
            double dot = 0, both = norm(k, d) * sqrt(length);
            for (int i = 0; i < d; i++)
                dot += mu[i] * k[i];
            weight[t] = exp(option(w, 0) * (both > 0 ? dot / both : 0));
        }
        quadratic(w, y, d, weight, 1, part);
        for (int t = 0; t < w->n; t++)
            out[t] += weight[t] * part[t] / w->g;
    }
}

static void triattention(world *w, int l, int h, double *out)
{
    size_t size;
    const float *mean = kept_trained_array(w->r.trained[0], "mean", &size);
    const float *modulus = kept_trained_array(w->r.trained[0], "modulus", &size);
    int half = w->d / 2;
    turn_back(w, l, h);
    for (int g = 0; g < w->g; g++) {
        const float *m = mean + ((l * H + h) * w->g + g) * w->d;
        const float *a = modulus + ((l * H + h) * w->g + g) * half;
        double s[MAX_N] = {0};
        for (int t = 0; t < w->n; t++)
            for (int f = 0; f < half; f++) {
                double kr = w->key0[t][f], ki = w->key0[t][f + half], k = hypot(kr, ki);
                double mr = m[f], mi = m[f + half], size_m = hypot(mr, mi), n = 0, sum = 0;
                double phase = atan2(mi * kr - mr * ki, mr * kr + mi * ki); /* of m conj k */
                for (double ahead = 1; ahead <= option(w, 0); ahead *= 2, n++)
                    sum += cos(w->r.freq[f] * (w->n - 1 - t + ahead) + phase);
                s[t] += size_m * k * sum / n + (a[f] - size_m) * k;
            }
        if (option(w, 1) != 0)
            z_scores(w, s, true);
        for (int t = 0; t < w->n; t++)
            out[t] = g ? fmax(out[t], s[t]) : s[t];
    }
}

static void calibrated(const world *w, int l, int h, double *out)
{
    static double m[MAX_D * MAX_D], half[MAX_D * MAX_D], s[MAX_D * MAX_D];
    size_t size;
    int d = w->d;
    const float *means = kept_trained_array(w->r.trained[0], "mean", &size);
    const float *covs = kept_trained_array(w->r.trained[0], "cov", &size);
    if (l + h == 0)
        rotation_ahead(w, m);
    for (int g = 0; g < w->g; g++) {
        int at = (l * H + h) * w->g + g;
        double mu[MAX_D] = {0}, e[MAX_N] = {0}, top = -INFINITY, sum = 0;
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) {
                mu[i] += m[i * d + j] * means[at * d + j];
                half[i * d + j] = 0;
                for (int c = 0; c < d; c++)
                    half[i * d + j] += m[i * d + c] * covs[((size_t)at * d + c) * d + j];
            }
        for (int i = 0; i < d; i++)
            for (int j = 0; j < d; j++) {
                s[i * d + j] = 0;
                for (int c = 0; c < d; c++)
                    s[i * d + j] += half[i * d + c] * m[j * d + c];
            }
        for (int t = 0; t < w->n; t++) {
            const float *k = row(w, rig_k(&w->r, l, h), t);
            for (int i = 0; i < d; i++) {
                e[t] += mu[i] * k[i] / sqrt(d);
                for (int j = 0; j < d; j++)
                    e[t] += k[i] * s[i * d + j] * k[j] / (2 * d);
            }
            top = fmax(top, e[t]);
        }
        for (int t = 0; t < w->n; t++)
            sum += exp(e[t] - top);
        for (int t = 0; t < w->n; t++)
            out[t] += exp(e[t] - top) / sum / w->g;
    }
    for (int t = 0; t < w->n; t++)
        out[t] *= norm(row(w, rig_v(&w->r, l, h), t), d);
}

static void score_head(world *w, int l, int h, double *out)
{
    const char *name = w->s->part[KEPT_AXIS_SCORE]->name;
    if (!strcmp(name, "q-filters"))
        q_filters(w, l, h, out);
    else if (!strcmp(name, "capkv"))
        capkv(w, l, h, out);
    else if (!strcmp(name, "triattention"))
        triattention(w, l, h, out);
    else if (!strcmp(name, "expected-attention"))
        calibrated(w, l, h, out);
    else
        CHECK(false);
}

/* ---- cases --------------------------------------------------------------------------------- */

static const char *const scores[] = {"q-filters", "capkv", "triattention",
                                     "triattention(horizon=100,norm=off)"};

static void test_d64_g1(void)
{
    over_patterns(scores, 4, 64, 1, (const int[]){1, 64, 129}, score_head);
}
static void test_d64_g3(void)
{
    over_patterns(scores, 4, 64, 3, (const int[]){5, 63, 128}, score_head);
}
static void test_d128_g8(void)
{
    over_patterns(scores, 4, 128, 8, (const int[]){2, 32, 65}, score_head);
}
static void test_calibrated(void)
{
    run(RANDOM, "expected-attention(statistics=calibrated)", 65, 64, 3, score_head);
    run(HEAVY, "expected-attention(statistics=calibrated)", 128, 64, 1, score_head);
    run(TIES, "expected-attention(statistics=calibrated)", 63, 128, 1, score_head);
}

int main(void)
{
    RUN(test_d64_g1);
    RUN(test_d64_g3);
    RUN(test_d128_g8);
    RUN(test_calibrated);
    TEST_END();
}
