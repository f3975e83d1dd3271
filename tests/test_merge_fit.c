/* Merges that fit: d2o, kvmerger and matching against plain readings in double precision. What a
 * fit finds is held to the conditions that only its minimum meets, and box-bounded least squares to
 * values of SciPy 1.x (scipy.optimize.nnls, lsq_linear). */
#include "merge_rig.h"

/* Means of stored rows with these weights [n] of the slots that join j, against what is there. */
static void check_mean(const world *w, int j, const int *to, const double *weight, double own)
{
    const int D = w->D;
    double k[256], v[256], all = own;
    for (int d = 0; d < D; d++) {
        k[d] = own * key_of(w, j)[d];
        v[d] = own * value_of(w, j)[d];
    }
    for (int e = 0; e < w->r.n; e++)
        for (int d = 0; d < D && to[e] == j; d++) {
            k[d] += weight[e] * key_of(w, e)[d];
            v[d] += weight[e] * value_of(w, e)[d];
            all += d ? 0 : weight[e];
        }
    for (int d = 0; d < D; d++) {
        k[d] /= all;
        v[d] /= all;
    }
    CHECK(near_row(w->now.k + j * D, k, D));
    CHECK(near_row(w->now.v + j * D, v, D));
}

static void check_d2o(world *w, const double *option)
{
    const int n = w->r.n;
    int to[MOST], gone = 0;
    double u[MOST], tau = 0;
    (void)option;
    for (int e = 0; e < n; e++) {
        to[e] = -1;
        for (int j = 0; j < n && !w->now.live[e]; j++) {
            double c = w->now.live[j] ? cosine(key_of(w, j), key_of(w, e), w->D) : -2;
            if (w->now.live[j] && (to[e] < 0 || c > u[e] + 1e-9)) {
                to[e] = j;
                u[e] = c;
            }
        }
        if (to[e] >= 0) {
            tau += u[e];
            gone++;
        }
    }
    for (int e = 0; e < n; e++) {
        to[e] = to[e] >= 0 && u[e] >= tau / gone - 1e-6 ? to[e] : -1;
        u[e] = exp(u[e]);
    }
    for (int j = 0; j < n; j++)
        if (w->now.live[j])
            check_mean(w, j, to, u, exp(1));
}

static void d2o(void)
{
    each_head("h2o+d2o@40%", NULL, check_d2o);
    each_head("recency+d2o@20%", NULL, check_d2o);
}

static void check_kvmerger(world *w, const double *option)
{
    const int n = w->r.n, D = w->D;
    int set[MOST] = {0}, to[MOST];
    double g[MOST], mean[MOST] = {0};
    int count[MOST] = {0};
    for (int i = 1; i < n; i++)
        set[i] = set[i - 1] + (cosine(key_of(w, i), key_of(w, i - 1), D) < option[0]);
    for (int e = 0; e < n; e++) {
        to[e] = -1;
        for (int j = 0; j < n && !w->now.live[e]; j++)
            if (w->now.live[j] && set[j] == set[e] && (to[e] < 0 || abs(j - e) < abs(to[e] - e)))
                to[e] = j;
        if (to[e] < 0)
            continue;
        g[e] = 0;
        for (int d = 0; d < D; d++)
            g[e] += pow((double)key_of(w, to[e])[d] - key_of(w, e)[d], 2);
        mean[to[e]] += sqrt(g[e]);
        count[to[e]]++;
    }
    for (int e = 0; e < n; e++) {
        if (to[e] < 0)
            continue;
        double s = mean[to[e]] / count[to[e]] / sqrt(2);
        g[e] = s > 0 ? exp(-g[e] / (2 * s * s)) : 1;
    }
    for (int j = 0; j < n; j++) {
        if (!w->now.live[j])
            continue;
        check_mean(w, j, to, g, 1);
        CHECK_NEAR(w->now.bias[j], option[1] != 0 ? log(1 + count[j]) : 0, 1e-5);
    }
}

static void kvmerger(void)
{
    each_head("h2o+kvmerger(at=0.1)@40%", (const double[]){0.1, 0}, check_kvmerger);
    each_head("random+kvmerger(at=-0.05,count=on)@30%", (const double[]){-0.05, 1}, check_kvmerger);
}

/* ---- matching ------------------------------------------------------------------------------ */

/* Attention of the latest queries over all n slots, [rows][n]. */
static double *attention(const world *w, int queries)
{
    const rig *r = &w->r;
    double *p = calloc((size_t)(queries * r->group * r->n), sizeof *p);
    for (int t = 0; t < queries; t++)
        for (int g = 0; g < r->group; g++) {
            double *row = p + (t * r->group + g) * r->n, top = -INFINITY, sum = 0;
            const float *q = rig_recent(r, w->l, r->capture.n_recent - queries + t, w->h, g);
            int seen = r->n - queries + t + 1;
            for (int i = 0; i < seen; i++)
                top = fmax(top, row[i] = dot(q, key_of(w, i), w->D) / sqrt(w->D));
            for (int i = 0; i < seen; i++)
                sum += row[i] = exp(row[i] - top);
            for (int i = 0; i < seen; i++)
                row[i] /= sum;
        }
    return p;
}

/* Slope of the square error of the masses along w_j. */
static double slope(const world *w, const double *p, int rows, int j, double *scale)
{
    double sum = 0;
    *scale = 0;
    for (int r = 0; r < rows; r++) {
        double mass = -1;
        for (int i = 0; i < w->r.n; i++)
            mass += w->now.live[i] ? exp(w->now.bias[i]) * p[r * w->r.n + i] : 0;
        sum += p[r * w->r.n + j] * mass;
        *scale += p[r * w->r.n + j];
    }
    return sum;
}

/* The slope of the square error of outputs along a value is that of the ridge. */
static void check_values(const world *w, const double *p, int rows, double ridge)
{
    const int n = w->r.n, D = w->D;
    double *to = calloc((size_t)(rows * n), sizeof *to), *off = calloc((size_t)(rows * D), 8);
    double trace = 0, worst = 0, most = 0;
    for (int r = 0; r < rows; r++) {
        double all = 0;
        for (int i = 0; i < n; i++)
            all += w->now.live[i] ? exp(w->now.bias[i]) * p[r * n + i] : 0;
        for (int i = 0; i < n; i++)
            to[r * n + i] = w->now.live[i] ? exp(w->now.bias[i]) * p[r * n + i] / all : 0;
        for (int i = 0; i < n; i++)
            for (int d = 0; d < D; d++)
                off[r * D + d] +=
                    p[r * n + i] * value_of(w, i)[d] - to[r * n + i] * (double)w->now.v[i * D + d];
        for (int i = 4; i < n - 32; i++)
            trace += to[r * n + i] * to[r * n + i];
    }
    for (int j = 4; j < n - 32; j++)
        for (int d = 0; d < D && w->now.live[j]; d++) {
            double g = 0, moved = (double)w->now.v[j * D + d] - value_of(w, j)[d], sum = 0;
            for (int r = 0; r < rows; r++) {
                g += to[r * n + j] * off[r * D + d];
                sum += to[r * n + j];
            }
            const double pull = ridge * trace / rows, is = w->now.v[j * D + d];
            worst = fmax(worst, (fabs(g - pull * moved) - 5e-4 * pull * fabs(is)) / (sum + 1e-9));
            most = fmax(most, fabs((double)w->now.v[j * D + d]));
        }
    CHECK(worst <= 6e-4 * most + 1e-6); /* values are rounded to F16 */
    free(to), free(off);
}

/* option: queries, ridge. */
static void check_matching(world *w, const double *option)
{
    const int n = w->r.n, rows = (int)option[0] * w->r.group;
    double *p = attention(w, (int)option[0]), scale;
    for (int j = 0; j < n; j++) {
        if (!w->now.live[j])
            continue;
        if (j < 4 || j >= n - 32) { /* protected ones are as they were */
            CHECK(w->now.bias[j] == 0);
            CHECK(!memcmp(w->now.v + j * w->D, value_of(w, j), (size_t)w->D * sizeof(float)));
            continue;
        }
        double g = slope(w, p, rows, j, &scale);
        if (w->now.bias[j] < -2.999)
            CHECK(g >= -2e-3 * scale);
        else if (w->now.bias[j] > 2.999)
            CHECK(g <= 2e-3 * scale);
        else
            CHECK(fabs(g) <= 2e-3 * scale);
        CHECK(fabs(w->now.bias[j]) <= 3.0001);
        CHECK(!memcmp(w->now.k + j * w->D, key_of(w, j), (size_t)w->D * sizeof(float)));
    }
    check_values(w, p, rows, option[1]);
    free(p);
}

static void matching(void)
{
    each_head("h2o+matching(queries=12)@55%", (const double[]){12, 0.01}, check_matching);
    each_head("knorm+matching(queries=5,ridge=0.1)@60%", (const double[]){5, 0.1}, check_matching);
}

/* ---- golden values ------------------------------------------------------------------------- */

static void boxes(void)
{
    static const struct {
        int rows, n, s;
        double range[2], x[7];
    } golden[] = {
        {9, 5, 1, {0, 1e9}, {0, 0.3314969, 0.4668769, 0, 0}},
        {12, 7, 5, {0.05, 0.9}, {0.0601510, 0.1329359, 0.05, 0.05, 0.2060292, 0.3420633, 0.05}},
        {10, 6, 11, {0, 0.4}, {0.1699540, 0, 0.1830250, 0.0698095, 0.3852646, 0.2064421}},
    };
    for (int i = 0; i < 3; i++) {
        const int rows = golden[i].rows, n = golden[i].n, s = golden[i].s;
        float a[7 * 12], b[12], x[7] = {0.3f, 0.3f, 0.3f, 0.3f, 0.3f, 0.3f, 0.3f};
        for (int r = 0; r < rows; r++) {
            b[r] = (float)((r * 11 + s) % 17 / 17.0 - (r % 3 == 0 ? 0.3 : 0));
            for (int j = 0; j < n; j++)
                a[j * rows + r] = (float)((r * 7 + j * 13 + s) * (r + 2 * j + 3) % 31 / 31.0);
        }
        kept_fit_box(n, rows, a, b, golden[i].range, NULL, x);
        for (int j = 0; j < n; j++)
            CHECK_NEAR(x[j], golden[i].x[j], 2e-4);
    }
}

int main(void)
{
    RUN(d2o);
    RUN(kvmerger);
    RUN(matching);
    RUN(boxes);
    TEST_END();
}
