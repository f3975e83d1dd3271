/* Fidelity: for every score and allocator, what an eviction keeps equals a plain double-precision
 * reading of the published formula, written here without any help from src/policy. Attention masses
 * come from full causal attention in double over the test's own queries and keys.
 *
 * Where the two sets differ, every token in question must lie within TOLERANCE (relative) of the
 * threshold, and exact ties must follow the rule (later position, earlier head): that is asserted.
 */
#include "policy_rig.h"

#define L         2
#define H         2
#define MAX_N     200
#define MAX_D     128
#define MAX_G     8
#define TOLERANCE 1e-6

typedef enum pattern { RANDOM, HEAVY, TIES, CONSTANT, N_PATTERNS } pattern;

typedef struct world {
    rig r;
    int n, d, g;
    double mass[3][L][H][MAX_N]; /* windows 1, 32, all; summed over the group */
    double *q;                   /* [L][H][G][n][D] */
    const kept_strategy *s;
    double score[L][H][MAX_N];
    bool expect[L][H][MAX_N], kept[L][H][MAX_N];
    bool guard[MAX_N];
} world;

/* ---- input --------------------------------------------------------------------------------- */

static double *query(const world *w, int l, int h, int g, int t)
{
    return w->q +
           ((((size_t)l * H + (size_t)h) * (size_t)w->g + (size_t)g) * (size_t)w->n + (size_t)t) *
               (size_t)w->d;
}

static void make_row(kept_rng *rng, pattern kind, int t, bool is_key, double *row, int d)
{
    bool heavy = kind == HEAVY && t % 17 == 3;
    kept_rng fixed;
    kept_rng_init(&fixed, (uint64_t)(t * 7 % 5) + (is_key ? 100 : 200));
    for (int i = 0; i < d; i++) {
        double x = kind == TIES ? kept_rng_normal(&fixed) : kept_rng_normal(rng);
        if (kind == CONSTANT)
            x = 0.5;
        if (kind == HEAVY && !is_key)
            x += 0.5;
        row[i] = rig_round(heavy && is_key ? 0.5 * x + 0.5 : x);
    }
}

static void fill_stats(world *w, int l, int h, int g)
{
    size_t at = ((size_t)l * H + (size_t)h) * (size_t)w->g + (size_t)g, d = (size_t)w->d;
    float *mean = w->r.q_mean + at * d, *cov = w->r.q_cov + at * d * d;
    static double sum[MAX_D];
    for (size_t i = 0; i < d; i++) {
        sum[i] = 0;
        for (int t = 0; t < w->n; t++)
            sum[i] += query(w, l, h, g, t)[i] / w->n;
        mean[i] = (float)sum[i];
    }
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j <= i; j++) {
            double c = 0;
            for (int t = 0; t < w->n; t++) {
                const double *q = query(w, l, h, g, t);
                c += (q[i] - sum[i]) * (q[j] - sum[j]) / w->n;
            }
            cov[i * d + j] = cov[j * d + i] = (float)c;
        }
}

/* Full causal attention of one query head, column sums over the three windows. */
static void attend(world *w, int l, int h, int g)
{
    const float *k = rig_k(&w->r, l, h);
    double p[MAX_N];
    for (int t = 0; t < w->n; t++) {
        const double *q = query(w, l, h, g, t);
        double top = -1e300, sum = 0;
        for (int i = 0; i <= t; i++) {
            p[i] = 0;
            for (int d = 0; d < w->d; d++)
                p[i] += q[d] * k[(size_t)i * (size_t)w->d + (size_t)d];
            p[i] /= sqrt(w->d);
            top = p[i] > top ? p[i] : top;
        }
        for (int i = 0; i <= t; i++)
            sum += p[i] = exp(p[i] - top);
        for (int i = 0; i <= t; i++) {
            w->mass[2][l][h][i] += p[i] / sum;
            w->mass[1][l][h][i] += t >= w->n - 32 ? p[i] / sum : 0;
            w->mass[0][l][h][i] += t == w->n - 1 ? p[i] / sum : 0;
        }
    }
}

static world *make(pattern kind, int n, int d, int g, bool stats)
{
    world *w = kept_calloc(1, sizeof *w);
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(n * 1000 + d + g) + (uint64_t)kind);
    w->r = rig_new(L, H, g, d, n);
    w->n = n;
    w->d = d;
    w->g = g;
    w->q = kept_calloc((size_t)(L * H * g) * (size_t)n * (size_t)d, sizeof *w->q);
    double row[MAX_D];
    for (int l = 0; l < L; l++)
        for (int h = 0; h < H; h++) {
            for (int t = 0; t < n; t++) {
                for (int part = 0; part < 2; part++) {
                    float *to = (part ? rig_v : rig_k)(&w->r, l, h) + (size_t)t * (size_t)d;
                    make_row(&rng, kind, t, part == 0, row, d);
                    for (int i = 0; i < d; i++)
                        to[i] = (float)row[i];
                }
                for (int x = 0; x < g; x++)
                    make_row(&rng, kind, t, false, query(w, l, h, x, t), d);
            }
            for (int x = 0; x < g; x++) {
                attend(w, l, h, x);
                if (stats)
                    fill_stats(w, l, h, x);
            }
            for (int p = 0; p < 3; p++)
                for (int t = 0; t < n; t++)
                    rig_mass(&w->r, p, l, h)[t] = (float)w->mass[p][l][h][t];
        }
    rig_pool(&w->r);
    return w;
}

static void drop(world *w)
{
    rig_free(&w->r);
    free(w->q);
    free(w);
}

/* ---- the formulas -------------------------------------------------------------------------- */

static double norm(const float *x, int d)
{
    double s = 0;
    for (int i = 0; i < d; i++)
        s += (double)x[i] * x[i];
    return sqrt(s);
}

/* arXiv 2404.14469: votes of the window over the prefix, 1-D pooling with padding kernel/2. */
static void snapkv(world *w, int l, int h, int kernel, bool max)
{
    int edge = w->n - 32 > 0 ? w->n - 32 : 0;
    for (int i = 0; i < w->n; i++) {
        double best = -1, sum = 0;
        for (int j = i - kernel / 2; j <= i + kernel / 2; j++)
            if (j >= 0 && j < w->n && (j < edge) == (i < edge)) {
                best = fmax(best, w->mass[1][l][h][j]);
                sum += w->mass[1][l][h][j];
            }
        w->score[l][h][i] = max ? best : sum / kernel;
    }
}

/* arXiv 2504.15364 */
static void keydiff(world *w, int l, int h)
{
    double mean[MAX_D] = {0}, length = 0;
    for (int i = 0; i < w->n; i++) {
        const float *k = rig_k(&w->r, l, h) + i * w->d;
        for (int d = 0; d < w->d; d++)
            mean[d] += k[d] / norm(k, w->d) / w->n;
    }
    for (int d = 0; d < w->d; d++)
        length += mean[d] * mean[d];
    for (int i = 0; i < w->n; i++) {
        const float *k = rig_k(&w->r, l, h) + i * w->d;
        double dot = 0;
        for (int d = 0; d < w->d; d++)
            dot += mean[d] * k[d];
        w->score[l][h][i] = -dot / (sqrt(length) * norm(k, w->d));
    }
}

/* arXiv 2510.00636, one query head: R is averaged position by position, S' = R S R^T in full. */
static void expect_one(world *w, int l, int h, int g, const double *rotation, double *out)
{
    int d = w->d;
    size_t at = ((size_t)l * H + (size_t)h) * (size_t)w->g + (size_t)g;
    const float *mean = w->r.q_mean + at * (size_t)d;
    const float *cov = w->r.q_cov + at * (size_t)(d * d);
    static double half[MAX_D * MAX_D], s[MAX_D * MAX_D], mu[MAX_D];
    memset(half, 0, sizeof half);
    memset(s, 0, sizeof s);
    memset(mu, 0, sizeof mu);
    for (int i = 0; i < d; i++)
        for (int a = 0; a < d; a++) {
            double x = rotation[i * d + a];
            if (x == 0)
                continue;
            mu[i] += x * mean[a];
            for (int j = 0; j < d; j++)
                half[i * d + j] += x * cov[a * d + j];
        }
    for (int j = 0; j < d; j++)
        for (int b = 0; b < d; b++) {
            double x = rotation[j * d + b];
            for (int i = 0; i < d && x != 0; i++)
                s[i * d + j] += half[i * d + b] * x;
        }
    double top = -1e300, sum = 0;
    for (int t = 0; t < w->n; t++) {
        const float *k = rig_k(&w->r, l, h) + t * d;
        out[t] = 0;
        for (int i = 0; i < d; i++) {
            double y = 0;
            for (int j = 0; j < d; j++)
                y += s[i * d + j] * k[j];
            out[t] += mu[i] * k[i] / sqrt(d) + y * k[i] / (2 * d);
        }
        top = fmax(top, out[t]);
    }
    for (int t = 0; t < w->n; t++)
        sum += out[t] = exp(out[t] - top);
    for (int t = 0; t < w->n; t++)
        out[t] /= sum;
}

static void expected_attention(world *w, int l, int h, double epsilon, bool values)
{
    static double rotation[MAX_D * MAX_D], p[MAX_N];
    int d = w->d, half = d / 2;
    memset(rotation, 0, sizeof rotation);
    for (int j = 0; j < half; j++) /* pairs (j, j + D/2): the rig's rope_neox */
        for (int t = w->n; t < w->n + 512; t++) {
            double c = cos(t * (double)w->r.freq[j]) / 512, s = sin(t * (double)w->r.freq[j]) / 512;
            rotation[j * d + j] += c;
            rotation[j * d + j + half] -= s;
            rotation[(j + half) * d + j] += s;
            rotation[(j + half) * d + j + half] += c;
        }
    for (int t = 0; t < w->n; t++)
        w->score[l][h][t] = epsilon;
    for (int g = 0; g < w->g; g++) {
        expect_one(w, l, h, g, rotation, p);
        for (int t = 0; t < w->n; t++)
            w->score[l][h][t] += p[t] / w->g;
    }
    for (int t = 0; t < w->n && values; t++)
        w->score[l][h][t] *= norm(rig_v(&w->r, l, h) + t * d, d);
}

static void score_head(world *w, const char *name, int l, int h)
{
    double *out = w->score[l][h];
    if (!strcmp(name, "snapkv"))
        snapkv(w, l, h, 7, true);
    else if (!strcmp(name, "snapkv(kernel=5,pool=avg)"))
        snapkv(w, l, h, 5, false);
    else if (!strcmp(name, "keydiff"))
        keydiff(w, l, h);
    else if (!strncmp(name, "expected", 8))
        expected_attention(w, l, h, strstr(name, "epsilon=0.01") ? 0.01 : 0, !strstr(name, "off"));
    else
        for (int i = 0; i < w->n; i++) {
            if (!strcmp(name, "recency"))
                out[i] = i;
            else if (!strcmp(name, "h2o"))
                out[i] = w->mass[2][l][h][i];
            else if (!strcmp(name, "h2o(norm=on)"))
                out[i] = w->mass[2][l][h][i] / (w->n - i);
            else if (!strcmp(name, "tova"))
                out[i] = (w->mass[0][l][0][i] + w->mass[0][l][1][i]) / (H * w->g);
            else if (!strcmp(name, "knorm"))
                out[i] = -norm(rig_k(&w->r, l, h) + i * w->d, w->d);
        }
}

/* ---- the budget ---------------------------------------------------------------------------- */

typedef struct token {
    int l, h, i;
    double value;
} token;

/* Larger value first; then the earlier head, then the later position. */
static int better(const void *x, const void *y)
{
    const token *a = x, *b = y;
    if (a->value != b->value)
        return a->value > b->value ? -1 : 1;
    if (a->l * H + a->h != b->l * H + b->h)
        return a->l * H + a->h - b->l * H - b->h;
    return b->i - a->i;
}

/* Mean and deviation of a head's candidates; deviation 0 where it is only rounding. */
static void moments(const world *w, int l, int h, double *mean, double *deviation)
{
    double n = 0, var = 0;
    *mean = 0;
    for (int i = 0; i < w->n; i++)
        if (!w->guard[i]) {
            *mean += w->score[l][h][i];
            n++;
        }
    *mean /= fmax(n, 1);
    for (int i = 0; i < w->n; i++)
        if (!w->guard[i])
            var += (w->score[l][h][i] - *mean) * (w->score[l][h][i] - *mean) / n;
    *deviation = sqrt(var) > 1e-12 * fabs(*mean) ? sqrt(var) : 0;
}

/* The candidates of some heads; z: their values as z-scores, for scores without a common scale. */
static int candidates(const world *w, int l0, int l1, int h0, int h1, bool z, token *t)
{
    int n = 0;
    for (int l = l0; l < l1; l++)
        for (int h = h0; h < h1; h++) {
            double mean = 0, deviation = 1;
            if (z)
                moments(w, l, h, &mean, &deviation);
            for (int i = 0; i < w->n; i++)
                if (!w->guard[i])
                    t[n++] = (token){l, h, i,
                                     deviation > 0 ? (w->score[l][h][i] - mean) / deviation : 0};
        }
    return n;
}

/* One list over layers [l0, l1): `floor_` best of each head first, then the best of all. */
static void compete(world *w, int l0, int l1, int slots, int floor_, bool z)
{
    static token t[L * H * MAX_N];
    int taken[L][H] = {{0}}, n = candidates(w, l0, l1, 0, H, z, t);
    qsort(t, (size_t)n, sizeof *t, better);
    for (int round = 0; round < 2; round++)
        for (int k = 0; k < n && slots > 0; k++) {
            bool *in = &w->expect[t[k].l][t[k].h][t[k].i];
            if (*in || (round == 0 && taken[t[k].l][t[k].h] >= floor_))
                continue;
            *in = true;
            taken[t[k].l][t[k].h]++;
            slots--;
        }
}

static void best_of_head(world *w, int l, int h, int slots)
{
    static token t[MAX_N];
    int n = candidates(w, l, l + 1, h, h + 1, false, t);
    qsort(t, (size_t)n, sizeof *t, better);
    memset(w->expect[l][h], 0, sizeof w->expect[l][h]);
    for (int k = 0; k < slots && k < n; k++)
        w->expect[l][h][t[k].i] = true;
}

/* Pours `slots` over heads in proportion to share, capped; then largest remainders. */
static void pour(double share[L][H], int slots, int cap, int keep[L][H])
{
    double real[L][H] = {{0}}, left = slots;
    for (int round = 0; round < 100 && left > 1e-9; round++) {
        double open = 0, poured = 0;
        for (int i = 0; i < L * H; i++)
            open += real[i / H][i % H] < cap ? share[i / H][i % H] : 0;
        for (int i = 0; i < L * H && open > 0; i++) {
            double *x = &real[i / H][i % H],
                   add = fmin(cap - *x, left * share[i / H][i % H] / open);
            if (*x < cap) {
                *x += add;
                poured += add;
            }
        }
        left -= poured;
    }
    for (int i = 0; i < L * H; i++)
        slots -= keep[i / H][i % H] = (int)floor(real[i / H][i % H] + 1e-9);
    for (; slots > 0; slots--) {
        int best = -1;
        double most = 1e-9;
        for (int i = 0; i < L * H; i++)
            if (real[i / H][i % H] - keep[i / H][i % H] > most + 1e-9) {
                most = real[i / H][i % H] - keep[i / H][i % H];
                best = i;
            }
        if (best < 0)
            break;
        keep[best / H][best % H]++;
    }
}

/* What the strategy should keep of w, into w->expect. open: slots left after protection. */
static void expect(world *w, const char *alloc, int open, bool z, bool shared)
{
    int cap = 0, keep[L][H];
    double share[L][H];
    for (int i = 0; i < w->n; i++)
        cap += !w->guard[i];
    memset(w->expect, 0, sizeof w->expect);
    if (!strncmp(alloc, "global", 6)) {
        compete(w, 0, L, open, strcmp(alloc, "global") ? (int)(0.5 * open / (L * H)) : 0, z);
    } else if (!strcmp(alloc, "ada")) {
        for (int l = 0; l < L; l++) {
            int slots = open / L + (l < open % L);
            compete(w, l, l + 1, slots, (int)floor(0.2 * slots / H), z);
        }
    } else {
        double low = strcmp(alloc, "pyramid") ? 0.5 : 1 / 20.0, high = 2 - low;
        for (int i = 0; i < L * H; i++)
            share[i / H][i % H] =
                strncmp(alloc, "pyramid", 7) ? 1 : high - (i / H) * (high - low) / (L - 1);
        pour(share, open, cap, keep);
        for (int i = 0; i < L * H; i++)
            best_of_head(w, i / H, i % H, keep[i / H][i % H]);
    }
    for (int l = 0, spare = 0; l < L && shared; l++) {
        int sum = 0;
        for (int h = 0; h < H; h++)
            for (int i = 0; i < w->n; i++)
                sum += w->expect[l][h][i];
        for (int h = 0; h < H; h++)
            best_of_head(w, l, h, sum / H);
        spare += sum % H;
        CHECK(spare < H || l == L - 1);
        if (spare >= H) /* a whole token more: layer 0 comes first, and it has room */
            for (int h = 0; h < H; h++) {
                int n = 0;
                for (int i = 0; i < w->n; i++)
                    n += w->expect[0][h][i];
                best_of_head(w, 0, h, n + 1);
            }
    }
}

/* ---- comparison ---------------------------------------------------------------------------- */

/* Sets over heads that compete with each other: layers [l0, l1), heads [h0, h1). */
static void compare(const world *w, int l0, int l1, int h0, int h1, bool z)
{
    static token t[L * H * MAX_N];
    int n = candidates(w, l0, l1, h0, h1, z, t), expected = 0, kept = 0, off = 0;
    double least = INFINITY, most = -INFINITY; /* of what only one side keeps */
    bool only_us = false, only_them = false;
    for (int k = 0; k < n; k++) {
        bool e = w->expect[t[k].l][t[k].h][t[k].i], s = w->kept[t[k].l][t[k].h][t[k].i];
        expected += e;
        kept += s;
        if (e == s)
            continue;
        off++;
        only_us |= s;
        only_them |= e;
        least = fmin(least, t[k].value);
        most = fmax(most, t[k].value);
    }
    CHECK_INT(kept, expected);
    if (off) {
        double scale = fmax(fabs(least), fabs(most)) + (z ? 1 : 0);
        if (!(only_us && only_them && most - least <= TOLERANCE * scale && most > least)) {
            fprintf(stderr, "%d tokens differ, from %.17g to %.17g\n", off, least, most);
            test_failed = 1;
        }
    }
}

static void run(world *w, const char *score, const char *alloc, const char *protect, int percent)
{
    char spec[300];
    snprintf(spec, sizeof spec, "%s+%s%s@%d%%", score, alloc, protect, percent);
    kept_strategy *s = rig_parse(spec);
    uint64_t ns = 0;
    int before = test_failed, n_guard = 0, sinks = *protect ? 0 : 4, recent = *protect ? 0 : 32;
    int total = percent * L * H * w->n / 100;
    bool z = !kept_strategy_score(s)->comparable, shared = !strcmp(score, "tova");
    test_failed = 0;
    for (int i = 0; i < w->n; i++)
        n_guard += w->guard[i] = i < sinks || i >= w->n - recent;
    CHECK(n_guard * L * H <= total);
    for (int l = 0; l < L; l++)
        for (int h = 0; h < H; h++)
            score_head(w, score, l, h);
    expect(w, alloc, total - n_guard * L * H, z, shared);
    w->r.cache = rig_cache(&w->r, w->n, 11);
    kept_evict e = rig_evict(&w->r, w->r.cache, w->n);
    CHECK_INT(kept_strategy_evict(s, &e, w->r.work, &ns, &ns, NULL), KEPT_OK);
    for (int l = 0; l < L; l++)
        for (int h = 0; h < H; h++) {
            uint8_t live[MAX_N];
            rig_live(&w->r, w->r.cache, l, h, live);
            for (int i = 0; i < w->n; i++) {
                w->kept[l][h][i] = live[i] && !w->guard[i];
                CHECK(!w->guard[i] || live[i]);
            }
        }
    kept_cache_free(w->r.cache);
    w->r.cache = NULL;
    if (!strncmp(alloc, "global", 6) && !shared) {
        compare(w, 0, L, 0, H, z);
    } else {
        for (int l = 0; l < L; l++)
            if (!strcmp(alloc, "ada") && !shared)
                compare(w, l, l + 1, 0, H, z);
            else
                for (int h = 0; h < H; h++)
                    compare(w, l, l + 1, h, h + 1, false);
    }
    if (test_failed)
        fprintf(stderr, "  with %s, n=%d D=%d G=%d\n", spec, w->n, w->d, w->g);
    test_failed |= before;
    kept_strategy_free(s);
}

static const char *const scores[] = {"recency", "h2o",    "h2o(norm=on)",
                                     "tova",    "snapkv", "snapkv(kernel=5,pool=avg)",
                                     "knorm",   "keydiff"};
static const char *const allocs[] = {"uniform", "pyramid", "pyramid(beta=2)",
                                     "ada",     "global",  "global(alpha=0.5)"};
static const char *const expected[] = {"expected-attention", "expected-attention(epsilon=0.01)",
                                       "expected-attention(values=off)"};

/* Every score with every allocator, lengths around the edges of pages. */
static void over_patterns(int d, int g, const int lengths[3])
{
    for (int x = 0; x < 3; x++)
        for (int kind = 0; kind < N_PATTERNS; kind++) {
            world *w = make((pattern)kind, lengths[x], d, g, false);
            for (size_t i = 0; i < sizeof scores / sizeof *scores; i++)
                for (size_t j = 0; j < sizeof allocs / sizeof *allocs; j++) {
                    run(w, scores[i], allocs[j], "", 80);
                    run(w, scores[i], allocs[j], "+protect(sinks=0,recent=0)", 37);
                }
            drop(w);
        }
}

static void test_d64_g1(void)
{
    over_patterns(64, 1, (const int[]){64, 65, 129});
}
static void test_d64_g3(void)
{
    over_patterns(64, 3, (const int[]){63, 127, 128});
}
static void test_d128_g8(void)
{
    over_patterns(128, 8, (const int[]){63, 64, 65});
}

static void over_expected(int n, int d, int g)
{
    for (int kind = 0; kind < N_PATTERNS; kind++) {
        world *w = make((pattern)kind, n, d, g, true);
        for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
            for (size_t j = 0; j < sizeof allocs / sizeof *allocs; j++)
                run(w, expected[i], allocs[j], j % 2 ? "" : "+protect(sinks=0,recent=0)", 75);
        drop(w);
    }
}

static void test_expected_attention(void)
{
    over_expected(63, 64, 1);
    over_expected(129, 64, 3);
    over_expected(65, 128, 3);
}

int main(void)
{
    RUN(test_d64_g1);
    RUN(test_d64_g3);
    RUN(test_d128_g8);
    RUN(test_expected_attention);
    TEST_END();
}
