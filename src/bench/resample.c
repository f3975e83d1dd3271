/* resample: the bootstrap of means over clusters, of many rows at once. What is drawn depends on
 * nothing but the seed and the number of clusters, so rows that have equally many are walked side
 * by side: one draw adds a line of sums, one of each row. A row's own additions keep their order,
 * so it has the same bits in any company.
 */
#include "bench/stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDE = 8 }; /* rows walked together: the two sums of each stay in vector registers */

/* Clusters of up to WIDE rows, interleaved; rows that are not there are zeros. */
typedef struct rows {
    double *sum, *count; /* [g][WIDE] */
    double *means;       /* [WIDE][rounds] */
    double *room;        /* [2 * g] */
    int g;
    bool weighted; /* some cluster has not one member */
} rows;

/* Means of g clusters drawn with replacement. Two draws from 64 bits: an index is off by at most
 * g / 2^32 of its probability. wide is a constant where this is inlined. */
static inline void draw(const rows *x, size_t rounds, uint64_t seed, const size_t wide)
{
    const uint64_t g = (uint64_t)x->g;
    kept_rng rng;
    kept_rng_init(&rng, seed);
    for (size_t r = 0; r < rounds; r++) {
        /* Two sums, or each addition waits for the one before it. */
        double s[2][WIDE] = {{0}}, k[WIDE] = {0};
        for (int i = 0; i < x->g; i += 2) {
            const uint64_t bits = kept_rng_u64(&rng);
            const size_t a = ((bits & UINT32_MAX) * g >> 32) * WIDE;
            const size_t b = ((bits >> 32) * g >> 32) * WIDE;
            const bool both = i + 1 < x->g;
            for (size_t w = 0; w < wide; w++)
                s[0][w] += x->sum[a + w];
            for (size_t w = 0; both && w < wide; w++)
                s[1][w] += x->sum[b + w];
            for (size_t w = 0; x->weighted && w < wide; w++)
                k[w] += x->count[a + w] + (both ? x->count[b + w] : 0);
        }
        for (size_t w = 0; w < wide; w++)
            x->means[w * rounds + r] = (s[0][w] + s[1][w]) / (x->weighted ? k[w] : x->g);
    }
}

static void draw_means(const rows *x, int n, size_t rounds, uint64_t seed)
{
    if (n == 1)
        draw(x, rounds, seed, 1);
    else
        draw(x, rounds, seed, WIDE);
}

/* The share left in each tail. */
static double expanded_tail(double level, int g)
{
    const double p = 1 - (1 - fmin(fmax(level, 0), 1)) / 2;
    return kept_normal_cdf(-sqrt(g / (g - 1.0)) * kept_t_quantile(p, g - 1));
}

/* Hoare 1961: the k-th smallest to x[k], none larger before it and none smaller behind it. */
static void select_at(double *x, int n, int k)
{
    for (int low = 0, high = n - 1; low < high;) {
        const double pivot = x[low + (high - low) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (x[i] < pivot)
                i++;
            while (x[j] > pivot)
                j--;
            if (i > j)
                break;
            const double t = x[i];
            x[i++] = x[j];
            x[j--] = t;
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            return;
    }
}

/* Type 7, as kept_quantile, of which it has the bits; four of them take less than sorting does. */
static double quantile(double *x, int n, double q)
{
    const double h = (n - 1) * fmin(fmax(q, 0), 1);
    const int i = (int)h;
    select_at(x, n, i);
    if (i + 1 >= n || h <= i)
        return x[i];
    double next = x[i + 1];
    for (int k = i + 2; k < n; k++)
        next = x[k] < next ? x[k] : next;
    return x[i] + (h - i) * (next - x[i]);
}

static void take_percentiles(double *means, int rounds, int g, const double level[2],
                             kept_interval out[2])
{
    for (int i = 0; i < 2; i++) {
        const double tail = expanded_tail(level[i], g);
        out[i] = (kept_interval){quantile(means, rounds, tail), quantile(means, rounds, 1 - tail)};
    }
}

static int count_clusters(const kept_paired *x)
{
    int g = 0;
    for (int i = 0; x->cluster && i < x->n; i++)
        g = x->cluster[i] + 1 > g ? x->cluster[i] + 1 : g;
    return x->cluster ? g : x->n;
}

static void put_row(const rows *r, int w, const kept_paired *row)
{
    const size_t g = (size_t)r->g;
    memset(r->room, 0, 2 * g * sizeof *r->room);
    kept_gather_clusters(row->diff, row->cluster, row->n, r->room, r->room + g);
    for (size_t c = 0; c < g; c++) {
        r->sum[c * WIDE + (size_t)w] = r->room[c];
        r->count[c * WIDE + (size_t)w] = r->room[g + c];
    }
}

/* Up to WIDE rows that go with row `first` and are not done yet; marks them done. */
static int company(const kept_paired *x, int n_rows, const int *g, bool *done, int first, int *who)
{
    int n = 0;
    for (int i = first; i < n_rows && n < WIDE; i++) {
        if (done[i] || g[i] != g[first] || (g[i] < x[i].n) != (g[first] < x[first].n))
            continue;
        done[i] = true;
        who[n++] = i;
    }
    return n;
}

void kept_bootstrap_rows(const kept_paired *x, int n_rows, int rounds, uint64_t seed,
                         const double level[2], kept_interval (*out)[2])
{
    const size_t n = n_rows > 0 ? (size_t)n_rows : 1, m = rounds > 0 ? (size_t)rounds : 1;
    int *g = kept_calloc(n, sizeof *g), most = 1, who[WIDE];
    bool *done = kept_calloc(n, sizeof *done);
    for (int i = 0; i < n_rows; i++) {
        out[i][0] = out[i][1] = (kept_interval){NAN, NAN};
        if (g)
            g[i] = count_clusters(&x[i]);
        most = g && g[i] > most ? g[i] : most;
    }
    const size_t line = (size_t)most * WIDE;
    double *block = kept_calloc(2 * line + WIDE * m + 2 * (size_t)most, sizeof *block);
    for (int i = 0; g && done && block && i < n_rows; i++) {
        if (done[i] || g[i] < 2)
            continue;
        rows r = {block, block + line, block + 2 * line, block + 2 * line + WIDE * m,
                  g[i],  g[i] < x[i].n};
        const int k = company(x, n_rows, g, done, i, who);
        memset(block, 0, 2 * line * sizeof *block);
        for (int w = 0; w < k; w++)
            put_row(&r, w, &x[who[w]]);
        draw_means(&r, k, m, seed);
        for (int w = 0; w < k; w++)
            take_percentiles(r.means + (size_t)w * m, (int)m, g[i], level, out[who[w]]);
    }
    free(block);
    free(done);
    free(g);
}

void kept_bootstrap(const kept_paired *x, int rounds, uint64_t seed, const double level[2],
                    kept_interval out[2])
{
    kept_interval one[1][2];
    kept_bootstrap_rows(x, 1, rounds, seed, level, one);
    out[0] = one[0][0];
    out[1] = one[0][1];
}
