/* Sequences parked in few bits: what must come back exactly does; the rest is as near as reverse
 * water-filling of the components' variances promises at the rate that was paid, less what a
 * scalar quantiser loses to that bound; keys are un-rotated first; extremes stay finite. */
#include "engine_util.h"
#include "kept/trained.h"
#include "mkgguf.h"
#include "model/engine.h"
#include "test.h"

#include <math.h>
#include <unistd.h>

enum { N = 420, D = 64, LAYERS = 2, HEADS = 2 };

static kept_model *model;
static int32_t *tokens;

/* K and V of every slot, and the positions, of one head. */
typedef struct dump {
    int n;
    int32_t pos[N];
    float x[2][N][D];
} dump;

static void take(const kept_seq *s, int l, int h, dump *d)
{
    d->n = kept_cache_n(s->cache, l, h);
    kept_cache_read(s->cache, l, h, d->pos, d->x[0][0], d->x[1][0]);
}

static kept_seq *begin(util_run *r, const kept_strategy *st)
{
    kept_seq *s = NULL;
    CHECK_INT(kept_seq_new(r->engine, st, NULL, 3, &s, &r->err), KEPT_OK);
    CHECK_INT(util_prefill(r, s, tokens, N, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    return s;
}

static util_run start(void)
{
    util_run r = {.n_vocab = kept_model_get_info(model)->n_vocab};
    kept_engine_options o = {.n_threads = 2, .max_tokens = 512, .pool_bytes = (size_t)32 << 20};
    CHECK_INT(kept_engine_new(model, &o, &r.engine, &r.err), KEPT_OK);
    return r;
}

static kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    CHECK_INT(kept_strategy_parse(spec, &s, NULL), KEPT_OK);
    return s;
}

/* Parks s and wakes it again; returns the bytes between. */
static size_t rest(util_run *r, const kept_strategy *st, kept_seq **s)
{
    void *data = NULL;
    size_t n = 0;
    CHECK_INT(kept_seq_park(*s, &data, &n, &r->err), KEPT_OK);
    *s = NULL;
    CHECK_INT(kept_seq_resume(r->engine, st, data, n, s, &r->err), KEPT_OK);
    free(data);
    return n;
}

/* A key at position pos, turned back to 0: pairs (2j, 2j + 1), theta 100000^(-2j/D). */
static void unturn(const float *key, int32_t pos, double *out)
{
    for (int j = 0; j < D / 2; j++) {
        const double a = pos * pow(100000, -2.0 * j / D);
        out[2 * j] = cos(a) * key[2 * j] + sin(a) * key[2 * j + 1];
        out[2 * j + 1] = cos(a) * key[2 * j + 1] - sin(a) * key[2 * j];
    }
}

static void what_stays_stays(void)
{
    util_run r = start();
    kept_strategy *st = parse("full+park(bits=3,first=5,last=70)");
    kept_seq *s = begin(&r, st);
    static dump before[LAYERS * HEADS], after;
    kept_account a, b;
    kept_seq_account(s, &a);
    for (int i = 0; i < LAYERS * HEADS; i++)
        take(s, i / HEADS, i % HEADS, &before[i]);
    (void)rest(&r, st, &s);
    kept_seq_account(s, &b);
    CHECK_INT(a.kv_bytes, b.kv_bytes);
    CHECK_INT(a.meta_bytes, b.meta_bytes);
    for (int i = 0; i < LAYERS * HEADS; i++) {
        int changed = 0;
        take(s, i / HEADS, i % HEADS, &after);
        CHECK_INT(after.n, before[i].n);
        CHECK(!memcmp(after.pos, before[i].pos, sizeof after.pos));
        for (int v = 0; v < 2; v++)
            for (int k = 0; k < N; k++) {
                const bool same = !memcmp(after.x[v][k], before[i].x[v][k], sizeof after.x[v][k]);
                CHECK(same || (k >= 5 && k < N - 70));
                changed += !same;
            }
        CHECK(changed > 2 * (N - 75) * 9 / 10);
    }
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* Eigenvalues of the symmetric a, by Jacobi's rotations. */
static void jacobi(double a[D][D], double *w)
{
    for (int sweep = 0; sweep < 6; sweep++)
        for (int p = 0; p < D; p++)
            for (int q = p + 1; q < D; q++) {
                if (fabs(a[p][q]) < 1e-300)
                    continue;
                const double t0 = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                const double t = (t0 < 0 ? -1 : 1) / (fabs(t0) + sqrt(t0 * t0 + 1));
                const double c = 1 / sqrt(t * t + 1), s = t * c;
                for (int k = 0; k < D; k++) {
                    const double x = a[k][p], y = a[k][q];
                    a[k][p] = c * x - s * y;
                    a[k][q] = s * x + c * y;
                }
                for (int k = 0; k < D; k++) {
                    const double x = a[p][k], y = a[q][k];
                    a[p][k] = c * x - s * y;
                    a[q][k] = s * x + c * y;
                }
            }
    for (int k = 0; k < D; k++)
        w[k] = a[k][k];
}

/* Variances of components of rows y [n][D], in those of the half. Returns the variance. */
static double spectrum(double (*y)[D], int n, double *w)
{
    static double cov[D][D];
    double mean[D] = {0}, trace = 0;
    memset(cov, 0, sizeof cov);
    for (int i = 0; i < n * D; i++)
        mean[i % D] += y[i / D][i % D] / n;
    for (int i = 0; i < n; i++)
        for (int a = 0; a < D; a++)
            for (int b = 0; b < D; b++)
                cov[a][b] += (y[i][a] - mean[a]) * (y[i][b] - mean[b]) / n;
    for (int a = 0; a < D; a++)
        trace += cov[a][a] / D;
    jacobi(cov, w);
    for (int a = 0; a < D; a++)
        w[a] = fmax(w[a] / trace, 0);
    return trace;
}

/* Least mean distortion of n Gaussian components at `rate` bits each on average. */
static double water(const double *w, int n, double rate)
{
    double low = 1e-12, high = 1e3, distortion = 0;
    for (int i = 0; i < 200; i++) {
        const double level = sqrt(low * high);
        double bits = 0;
        distortion = 0;
        for (int k = 0; k < n; k++) {
            bits += w[k] > level ? 0.5 * log2(w[k] / level) : 0;
            distortion += fmin(w[k], level) / n;
        }
        if (bits / n > rate)
            low = level;
        else
            high = level;
    }
    return distortion;
}

/* Bytes, and the mean square of what changed relative to each half's variance, in *worth the least
 * that the rate allows. */
static size_t measure(util_run *r, double bits, double *error, double *least)
{
    enum { FIRST = 4, LAST = 32, M = N - FIRST - LAST, HALVES = 2 * LAYERS * HEADS };
    static dump before[LAYERS * HEADS], after;
    static double y[M][D], w[HALVES * D], variance[HALVES];
    static bool known; /* the same every time */
    char spec[80];
    snprintf(spec, sizeof spec, "full+park(bits=%g,keys=1,first=%d,last=%d)", bits, FIRST, LAST);
    kept_strategy *st = parse(spec);
    kept_seq *s = begin(r, st);
    for (int i = 0; i < LAYERS * HEADS; i++) {
        take(s, i / HEADS, i % HEADS, &before[i]);
        for (int v = 0; v < 2 && !known; v++) {
            for (int k = 0; k < M; k++) {
                const float *x = before[i].x[v][FIRST + k];
                for (int c = 0; c < D; c++)
                    y[k][c] = x[c];
                if (!v)
                    unturn(x, before[i].pos[FIRST + k], y[k]);
            }
            variance[2 * i + v] = spectrum(y, M, w + (2 * i + v) * D);
        }
    }
    known = true;
    const size_t n = rest(r, st, &s);
    *error = 0;
    for (int i = 0; i < LAYERS * HEADS; i++) {
        take(s, i / HEADS, i % HEADS, &after);
        for (int v = 0; v < 2; v++)
            for (int k = FIRST; k < FIRST + M; k++)
                for (int c = 0; c < D; c++)
                    *error += pow((double)after.x[v][k][c] - before[i].x[v][k][c], 2) /
                              variance[2 * i + v] / ((double)HALVES * M * D);
    }
    *least = water(w, HALVES * D, bits);
    kept_seq_free(s);
    kept_strategy_free(st);
    return n;
}

static void as_near_as_the_rate_allows(void)
{
    util_run r = start();
    double error[4], least[4];
    size_t n[4];
    for (int i = 0; i < 4; i++)
        n[i] = measure(&r, 2 * i + 2, &error[i], &least[i]);
    for (int i = 0; i < 4; i++) {
        /* Bases take 8 D bits and some of each component, of M rows; rounding costs a quarter of a
         * bit; numbers of one class that share their statistics, a half. Each bit is a factor of
         * four. */
        const double lost = 8.0 * D / (N - 36) + 0.75;
        printf("# %d bits: %zu bytes, error %.5f, least %.5f\n", 2 * i + 2, n[i], error[i],
               least[i]);
        CHECK(error[i] > 0.9 * least[i]);
        CHECK(error[i] < least[i] * pow(4, lost));
        CHECK(i == 0 || error[i] < error[i - 1] / 6);
    }
    /* Two bits more for every number: all else is the same. */
    const double two = 2.0 * (N - 36) * D * 2 * LAYERS * HEADS / 8;
    for (int i = 1; i < 4; i++)
        CHECK_NEAR((double)(n[i] - n[i - 1]), two, 0.05 * two);
    kept_engine_free(r.engine);
}

/* Keys that are one vector before rotation are their mean: next to no bits bring them back. */
static void keys_are_unrotated(void)
{
    util_run r = start();
    kept_strategy *st = parse("full+park(bits=0.5,first=0,last=0)");
    kept_seq *s = begin(&r, st);
    static dump after;
    for (int k = 0; k < N; k++) {
        float key[D];
        for (int j = 0; j < D / 2; j++) {
            const double a = k * pow(100000, -2.0 * j / D), x = sin(j + 1.0), y = cos(3.0 * j);
            key[2 * j] = (float)(cos(a) * x - sin(a) * y);
            key[2 * j + 1] = (float)(cos(a) * y + sin(a) * x);
        }
        CHECK_INT(kept_cache_set_row(s->cache, 1, 1, k, key, NULL), KEPT_OK);
    }
    (void)rest(&r, st, &s);
    take(s, 1, 1, &after);
    double worst = 0;
    for (int k = 0; k < N; k++) {
        double x[D];
        unturn(after.x[0][k], k, x);
        for (int j = 0; j < D / 2; j++)
            worst =
                fmax(worst, fmax(fabs(x[2 * j] - sin(j + 1.0)), fabs(x[2 * j + 1] - cos(3.0 * j))));
    }
    CHECK(worst < 3e-3); /* F16 of the key, of the mean, and of the key again */
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void fill(kept_seq *s, int kind)
{
    kept_rng g;
    kept_rng_init(&g, (uint64_t)kind);
    for (int k = 0; k < N; k++) {
        float x[D];
        for (int c = 0; c < D; c++) {
            const float y = (float)kept_rng_normal(&g);
            const float all[] = {0,
                                 3.25f,
                                 k % 2 ? 65504.0f : -65504.0f,
                                 y * 1e-7f,
                                 y,
                                 k == 99 && c == 7 ? INFINITY : y,
                                 k == 99 ? NAN : y};
            x[c] = all[kind];
        }
        if (kind == 4 && k == 200)
            x[5] = 60000;
        CHECK_INT(kept_cache_set_row(s->cache, 0, 0, k, x, x), KEPT_OK);
    }
}

/* Zeros, constants, the ends of F16, denormals, an outlier, an infinity, NaN. */
static void extremes(void)
{
    util_run r = start();
    kept_strategy *st = parse("full+park(bits=6,first=0,last=0)");
    static dump before, after;
    for (int kind = 0; kind < 7; kind++) {
        kept_seq *s = begin(&r, st);
        fill(s, kind);
        take(s, 0, 0, &before);
        (void)rest(&r, st, &s);
        take(s, 0, 0, &after);
        double square = 0, change = 0;
        for (int v = 0; v < 2; v++)
            for (int k = 0; k < N; k++)
                for (int c = 0; c < D; c++) {
                    const double x = before.x[v][k][c], y = after.x[v][k][c];
                    CHECK(isfinite(y) || kind == 2 || kind == 5);
                    if (isfinite(x) && isfinite(y)) {
                        square += x * x;
                        change += (x - y) * (x - y);
                    }
                }
        CHECK(change <= 0.01 * square);
        kept_seq_free(s);
    }
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* Slots that others merged into, with biases; packed pages; keys that moved. */
static void other_strategies(void)
{
    static const char *const specs[] = {
        "snapkv+summary+park(bits=4,keys=1,last=32)@80%",
        "h2o+matching+decode(every=8)+park(bits=4,keys=1,last=32)@80%",
        "h2o+decode(every=4)+slot+park(bits=4,keys=1,last=32)@80%",
        "snapkv+ada+q8+park(bits=4,keys=1,last=32)@90%"};
    for (int i = 0; i < 4; i++) {
        util_run r = start();
        kept_strategy *st = parse(specs[i]);
        kept_seq *s = begin(&r, st);
        static dump before[LAYERS * HEADS], after;
        static float bias[LAYERS * HEADS][N], again[N], out[1 << 14];
        for (int k = 0; k < LAYERS * HEADS; k++) {
            take(s, k / HEADS, k % HEADS, &before[k]);
            if (s->bias_plane >= 0)
                kept_cache_read_state(s->cache, k / HEADS, k % HEADS, s->bias_plane, bias[k]);
        }
        (void)rest(&r, st, &s);
        for (int k = 0; k < LAYERS * HEADS; k++) {
            double square = 0, change = 0;
            take(s, k / HEADS, k % HEADS, &after);
            CHECK_INT(after.n, before[k].n);
            CHECK(!memcmp(after.pos, before[k].pos, (size_t)after.n * sizeof *after.pos));
            for (int c = 0; c < 2 * N * D; c++) {
                if (c / D % N >= after.n)
                    continue;
                const double x = ((const float *)before[k].x)[c], y = ((const float *)after.x)[c];
                square += x * x;
                change += (x - y) * (x - y);
            }
            CHECK(change < 0.1 * square);
            CHECK(i != 3 || change == 0); /* all of its full pages are packed */
            if (s->bias_plane >= 0) {
                kept_cache_read_state(s->cache, k / HEADS, k % HEADS, s->bias_plane, again);
                CHECK(!memcmp(again, bias[k], (size_t)after.n * sizeof *again));
            }
        }
        CHECK(r.n_vocab * 8 <= 1 << 14);
        CHECK_INT(util_decode(&r, s, tokens, 8, out), KEPT_OK);
        kept_seq_free(s);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
    }
}

/* A trained file whose directions are cosines, in an order that `turn` says. */
static kept_trained *directions(int turn)
{
    static const char *const names[] = {"k", "v", "flat", "k2", "v2", "k4", "v4"};
    static float x[LAYERS * HEADS * D * D];
    kept_trained *t = NULL;
    char hex[65];
    for (int i = 0; i < LAYERS * HEADS * D * D; i++) {
        const int k = (i / D + turn) % D, d = i % D;
        x[i] = (float)(cos(acos(-1.0) * (d + 0.5) * k / D) * sqrt((k ? 2.0 : 1.0) / D));
    }
    CHECK_INT(kept_model_sha256(model, hex, NULL), KEPT_OK);
    CHECK_INT(kept_trained_new("basis", hex, &t, NULL), KEPT_OK);
    for (int i = 0; i < 7; i++)
        CHECK_INT(kept_trained_put(t, names[i], x, sizeof x / sizeof *x, NULL), KEPT_OK);
    return t;
}

/* Components of a trained file are not stored with the sequence, and must be the same again. */
static void calibrated_components(void)
{
    static dump before, after;
    util_run r = start(), other = start();
    kept_trained *t = directions(0), *u = directions(1);
    kept_strategy *st = parse("full+park(bits=6,first=0,last=0,basis=calibrated)");
    kept_strategy *own = parse("full+park(bits=6,first=0,last=0)");
    kept_seq *s = NULL;
    void *data = NULL;
    size_t n = 0;
    CHECK_INT(kept_seq_new(r.engine, st, NULL, 1, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "calibrate basis"));
    CHECK_INT(kept_engine_add_trained(r.engine, t, &r.err), KEPT_OK);
    CHECK_INT(kept_engine_add_trained(other.engine, u, &r.err), KEPT_OK);
    s = begin(&r, st);
    take(s, 1, 0, &before);
    CHECK_INT(kept_seq_park(s, &data, &n, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_resume(other.engine, st, data, n, &s, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_resume(r.engine, st, data, n, &s, &r.err), KEPT_OK);
    take(s, 1, 0, &after);
    const float *x = (const float *)before.x, *y = (const float *)after.x;
    double square = 0, change[2] = {0};
    for (int i = 0; i < 2 * N * D; i++) {
        square += pow(x[i], 2);
        change[0] += pow((double)x[i] - y[i], 2);
    }
    kept_seq_free(s);
    s = begin(&r, own);
    (void)rest(&r, own, &s);
    take(s, 1, 0, &after);
    for (int i = 0; i < 2 * N * D; i++)
        change[1] += pow((double)x[i] - y[i], 2);
    CHECK(change[0] > 0 && change[0] < 0.01 * square);
    CHECK(change[0] < change[1]); /* bits that bases do not take are worth more here */
    kept_seq_free(s);
    free(data);
    kept_engine_free(r.engine);
    kept_engine_free(other.engine);
    kept_strategy_free(st);
    kept_strategy_free(own);
    kept_trained_free(t);
    kept_trained_free(u);
}

int main(void)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    char *path = mkgguf_temp();
    spec.n_layers = LAYERS;
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "no model\n");
        return 1;
    }
    CHECK_INT(kept_model_get_info(model)->head_size, D);
    CHECK_INT(kept_model_get_info(model)->n_kv_heads, HEADS);
    tokens = util_tokens(N + 8, kept_model_get_info(model)->n_vocab, 9);
    RUN(what_stays_stays);
    RUN(as_near_as_the_rate_allows);
    RUN(keys_are_unrotated);
    RUN(extremes);
    RUN(other_strategies);
    RUN(calibrated_components);
    unlink(path);
    free(path);
    kept_model_free(model);
    free(tokens);
    TEST_END();
}
