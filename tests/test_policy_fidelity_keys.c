/* Fidelity of scores that read keys and values alone: what an eviction keeps of every head equals a
 * plain double-precision reading of the published formula, written here without any help from
 * src/policy.
 */
#include "rows_rig.h"

static void pagedeviction(const world *w, int l, int h, double *out)
{
    for (int t = 0; t < w->n; t++) {
        double k = norm(row(w, rig_k(&w->r, l, h), t), w->d);
        double v = norm(row(w, rig_v(&w->r, l, h), t), w->d);
        out[t] = fmin(v / fmax(k, 0x1p-126), 3.4028234663852886e38);
    }
}

static void cur(const world *w, int l, int h, double *out)
{
    int window = (int)option(w, 0), of = (int)option(w, 1);
    double all = 0;
    for (int t = 0; t < w->n; t++) {
        double part[2], first = t / window * window;
        for (int x = 0; x < 2; x++) {
            const float *rows = x ? rig_v(&w->r, l, h) : rig_k(&w->r, l, h);
            double sum = 0;
            for (int i = (int)first; i < w->n && i < first + window; i++)
                sum += pow(norm(row(w, rows, i), w->d), 2);
            part[x] = sum > 0 ? pow(norm(row(w, rows, t), w->d), 2) / sum : 0;
        }
        out[t] = of == 0 ? part[0] * part[1] : of == 3 ? (part[0] + part[1]) / 2 : part[of - 1];
        all += out[t];
    }
    for (int t = 0; t < w->n && all > 0; t++)
        out[t] /= all;
}

/* Softmax over a partition of deviations over channels that vary in the next one. */
static void lag_part(const world *w, const float *x, int first, int lag, double *out)
{
    double sum = 0;
    for (int t = first; t < first + lag; t++) {
        double y[MAX_D], mean = 0, var = 0;
        int n = 0;
        for (int c = 0; c < w->d; c++) {
            double low = INFINITY, high = -INFINITY;
            for (int i = first + lag; i < first + 2 * lag; i++) {
                low = fmin(low, row(w, x, i)[c]);
                high = fmax(high, row(w, x, i)[c]);
            }
            if (high > low)
                mean += y[n++] = (row(w, x, t)[c] - low) / (high - low);
        }
        mean /= fmax(n, 1);
        for (int c = 0; c < n; c++)
            var += (y[c] - mean) * (y[c] - mean);
        sum += out[t] = exp(n > 1 ? sqrt(var / (n - 1)) : 0);
    }
    for (int t = first; t < first + lag; t++)
        out[t] /= sum;
}

static void lagkv(const world *w, int l, int h, double *out)
{
    int sinks = (int)option(w, 0), lag = (int)option(w, 1), first = sinks;
    double key[MAX_N], value[MAX_N], both[MAX_N];
    for (int t = 0; t < w->n; t++) {
        out[t] = 1;
        if (w->n < sinks + 2 * lag && t >= sinks)
            out[t] = (double)(t - sinks) / (w->n - sinks);
    }
    for (; w->n >= sinks + 2 * lag && first + 2 * lag <= w->n; first += lag) {
        lag_part(w, rig_k(&w->r, l, h), first, lag, key);
        lag_part(w, rig_v(&w->r, l, h), first, lag, value);
        for (int t = first; t < first + lag; t++)
            both[t] = (key[t] + value[t]) / 2;
        for (int t = first; t < first + lag; t++) {
            int below = 0; /* equal: as floats are */
            for (int i = first; i < first + lag; i++) {
                bool equal = fabs(both[i] - both[t]) < 1e-13;
                below += equal ? i < t : both[i] < both[t];
            }
            out[t] = option(w, 2) != 0 ? both[t] : (double)below / lag;
        }
    }
}

static void leverage(world *w, int l, int h, double *out)
{
    static double y[MAX_N * MAX_D], map[MAX_D * MAX_D];
    double mean[MAX_D] = {0}, weight[MAX_N], open = 0;
    int sketch = (int)option(w, 0), k = sketch && sketch < w->d ? sketch : w->d;
    const uint64_t seed[3] = {1, 0, (uint64_t)l}; /* of the rig, of its first eviction */
    uint64_t from = kept_hash64(seed, sizeof seed, 0) + (uint64_t)h;
    turn_back(w, l, h);
    for (int i = 0; i < k * w->d && k < w->d; i++)
        map[i] = kept_normal(from, (uint64_t)i) / sqrt(k);
    for (int t = 0; t < w->n; t++) {
        weight[t] = !guarded(w, t);
        open += weight[t];
        for (int c = 0; c < w->d; c++)
            mean[c] += weight[t] * w->key0[t][c];
    }
    for (int t = 0; t < w->n; t++)
        for (int i = 0; i < k; i++) {
            y[t * k + i] = k == w->d ? w->key0[t][i] - mean[i] / open : 0;
            for (int c = 0; c < w->d && k < w->d; c++)
                y[t * k + i] += (w->key0[t][c] - mean[c] / open) * map[i * w->d + c];
        }
    quadratic(w, y, k, weight, 0.01, out);
    z_scores(w, out, false);
}

static void non_causal(world *w, int l, int h, double *out)
{
    double x[MAX_N];
    for (int t = 0; t < w->n; t++)
        x[t] =
            rig_mass(&w->r, 0, l, h)[t] / (double)w->g * norm(row(w, rig_v(&w->r, l, h), t), w->d);
    for (int t = 0; t < w->n; t++)
        for (int i = t - 1; i <= t + 1; i++)
            out[t] += i >= 0 && i < w->n ? x[i] / 3 : 0;
    z_scores(w, out, false);
}

static void compactor(world *w, int l, int h, double *out)
{
    double other[MAX_N] = {0}, blend = option(w, 2);
    if (blend < 0)
        blend = 1 - (double)w->share / w->n;
    leverage(w, l, h, out);
    w->slack = TOLERANCE; /* of the sum; what leverage loses is in more */
    non_causal(w, l, h, other);
    for (int t = 0; t < w->n; t++)
        out[t] = blend * out[t] + other[t];
}

static void score_head(world *w, int l, int h, double *out)
{
    const char *name = w->s->part[KEPT_AXIS_SCORE]->name;
    if (!strcmp(name, "pagedeviction"))
        pagedeviction(w, l, h, out);
    else if (!strcmp(name, "cur"))
        cur(w, l, h, out);
    else if (!strcmp(name, "lagkv"))
        lagkv(w, l, h, out);
    else if (!strcmp(name, "leverage"))
        leverage(w, l, h, out);
    else if (!strcmp(name, "non-causal"))
        non_causal(w, l, h, out);
    else if (!strcmp(name, "compactor"))
        compactor(w, l, h, out);
    else
        CHECK(false);
}

/* ---- cases --------------------------------------------------------------------------------- */

static const char *const scores[] = {"pagedeviction",
                                     "cur",
                                     "cur(window=7,of=mean)",
                                     "cur(window=256,of=key)",
                                     "cur(of=value)",
                                     "lagkv",
                                     "lagkv(sinks=0,lag=16)",
                                     "lagkv(sinks=5,lag=21,cross=on)",
                                     "leverage",
                                     "leverage(sketch=0)",
                                     "non-causal",
                                     "compactor",
                                     "compactor(sketch=20,blend=0.5)"};
enum { N_SCORES = sizeof scores / sizeof *scores };

static void test_d64_g1(void)
{
    over_patterns(scores, N_SCORES, 64, 1, (const int[]){1, 64, 129}, score_head);
}
static void test_d64_g3(void)
{
    over_patterns(scores, N_SCORES, 64, 3, (const int[]){5, 63, 128}, score_head);
}
static void test_d128_g8(void)
{
    over_patterns(scores, N_SCORES, 128, 8, (const int[]){2, 32, 65}, score_head);
}

/* Whole partitions of the default size, and what follows the last one. */
static void test_lagkv_default(void)
{
    for (int kind = 0; kind < N_PATTERNS; kind++)
        for (int n = 258; n <= 264; n += 2) /* 260 are enough */
            run((pattern)kind, "lagkv", n, 64, 1, score_head);
}

/* The numbers behind sketches: moments of a normal distribution, and no pattern from one number or
 * one seed to the next. */
static void test_normal(void)
{
    enum { N = 40000 };
    double moment[5] = {0}, next = 0, other = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = kept_normal(7, i);
        for (int k = 1; k < 5; k++)
            moment[k] += pow(x, k) / N;
        next += x * kept_normal(7, i + 1) / N;
        other += x * kept_normal(8, i) / N;
    }
    CHECK(fabs(moment[1]) < 0.025 && fabs(moment[2] - 1) < 0.035);
    CHECK(fabs(moment[3]) < 0.1 && fabs(moment[4] - 3) < 0.25);
    CHECK(fabs(next) < 0.025 && fabs(other) < 0.025);
}

int main(void)
{
    RUN(test_d64_g1);
    RUN(test_d64_g3);
    RUN(test_d128_g8);
    RUN(test_lagkv_default);
    RUN(test_normal);
    TEST_END();
}
