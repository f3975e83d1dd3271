/* Calibrated levels (nuq): what a page holds, read by the layout stated in nuq.h and codec.h, in
 * double; codes are the nearest levels, outliers the numbers that these meet worst; attention of
 * every level of instructions against double over what is held; levels against a naive k-means and
 * the published ones of a Gaussian. */
#include "attend_rig.h"
#include "codec_oracle.h"
#include "kern/nuq.h"
#include "train/nuq.h"

enum { PAGES = 4 };

static const uint8_t nuq[] = {KEPT_NUQ4, KEPT_NUQ3, KEPT_NUQ4S, KEPT_NUQ3S};

/* What a calibration might have found. */
static float zero[MOST], scale[MOST], level[2][2][2][16];
static struct kept_nuq table;

static int by_value(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void make_table(int D)
{
    for (int d = 0; d < D; d++) {
        zero[d] = (float)(d % 9 == 3 ? 5 * uniform() : uniform() / 4);
        scale[d] = (float)(0.2 + fabs(uniform()) * (d % 7 == 2 ? 4 : 1));
    }
    for (int i = 0; i < 8; i++) {
        float *l = level[i / 4][i / 2 % 2][i % 2];
        const int n = i % 2 ? 16 : 8;
        for (int c = 0; c < n; c++)
            l[c] = (float)(2.5 * uniform());
        qsort(l, (size_t)n, sizeof *l, by_value);
        table.level[i / 4][i / 2 % 2][i % 2] = l;
    }
    table.zero = zero;
    table.scale = scale;
    the.low[1].nuq = &table;
}

static double norm(void) /* Box-Muller */
{
    const double u = (uniform() + 1) / 2 + 1e-9, v = uniform();
    return sqrt(-2 * log(u)) * cos(3.14159265358979 * v);
}

/* Rows of keys, by what the table says of channels at position 0, and of values; every 50th number
 * is far out. */
static void fill(uint8_t *f16, int32_t *pos)
{
    const int D = the.D;
    for (int s = 0; s < P64; s++) {
        float k[MOST], v[MOST];
        double x[MOST];
        pos[s] = s == 3 && uniform() < 0.5 ? 0 : 1 + (int32_t)((uniform() + 1) / 2 * (HIGH - 2));
        for (int d = 0; d < D; d++) {
            const int i = (int)(fabs(uniform()) * 50);
            x[channel(d)] = (double)zero[d] + (double)scale[d] * norm() * (i && pos[s] ? 1 : 6);
            v[d] = (float)(norm() * (i == 1 ? 9 : 1));
        }
        turn(x, pos[s], 1);
        for (int d = 0; d < D; d++)
            k[d] = (float)x[d];
        kept_kern_get("ref")->put(f16, D, s, k, v);
    }
}

/* ---- reading a page -------------------------------------------------------------------------- */

static int n_outliers(int codec, int D)
{
    return codec == KEPT_NUQ4S || codec == KEPT_NUQ3S ? (D + 24) / 25 * 16 : 0;
}

/* Codes, without what follows. */
static size_t codes_bytes(int codec, bool v, int D)
{
    const bool three = codec == KEPT_NUQ3 || codec == KEPT_NUQ3S;
    return !three ? (size_t)D * 32
           : v    ? (size_t)D * 24
                  : (size_t)(4 * (D / 16 + (D + 31) / 32) * 64);
}

/* x[64][D]: what a half holds before keys are turned, keys by place; apart: which are outliers. */
static void unturned(const uint8_t *half, int codec, bool v, const int32_t *pos, double *x,
                     uint8_t *apart)
{
    const int D = the.D, bits = codec == KEPT_NUQ4 || codec == KEPT_NUQ4S ? 4 : 3;
    const int n = n_outliers(codec, D);
    const uint16_t *at = (const uint16_t *)(const void *)(half + codes_bytes(codec, v, D));
    const float *l = level[v][n > 0][bits == 4];
    memset(apart, 0, (size_t)(P64 * D));
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++) {
            const double y = (double)l[code_of(half, bits, v, D, s, d)];
            x[s * D + d] = v ? y * bf16_value(at[s]) : (double)zero[d] + (double)scale[d] * y;
        }
    for (int s = 0; s < P64 && !v; s++)
        for (int d = 0; d < D && !pos[s]; d++) {
            x[s * D + d] = f16_value(at[d]);
            apart[s * D + d] = 2;
        }
    at += v ? P64 : D;
    for (int i = 0; i < n; i++) {
        CHECK(at[i] < P64 * D && !apart[at[i]]);
        x[at[i]] = f16_value(at[n + i]);
        apart[at[i]] = 1;
    }
}

/* The same as vectors. */
static void read_nuq(const uint8_t *half, int codec, bool v, const int32_t *pos, double *x)
{
    static uint8_t apart[P64 * MOST];
    const int D = the.D;
    unturned(half, codec, v, pos, x, apart);
    for (int s = 0; s < P64 && !v; s++) {
        double y[MOST];
        for (int d = 0; d < D; d++)
            y[channel(d)] = x[s * D + d];
        turn(y, pos[s], 1);
        memcpy(x + s * D, y, (size_t)D * sizeof *y);
    }
}

static const struct {
    int D, n_rope;
    bool neox;
} shape[] = {{16, 16, true}, {64, 64, false}, {80, 40, true}, {128, 128, true}, {256, 96, false}};

static void begin(size_t i)
{
    the.D = shape[i].D;
    start(shape[i].D, shape[i].n_rope, shape[i].neox);
    make_table(shape[i].D);
}

static kept_packed packed(uint8_t *at, int k, int v, const int32_t *pos)
{
    return (kept_packed){.at = at,
                         .c = {(uint8_t)k, (uint8_t)v},
                         .head_size = the.D,
                         .low = &the.low[1],
                         .pos = pos};
}

/* The numbers of a half before it was packed: was [64][D], keys turned back and by place. */
static void before(const uint8_t *f16, const int32_t *pos, bool v, double *was)
{
    static float f[P64 * MOST];
    const int D = the.D;
    kept_kern_get("ref")->get(f16, D, 0, P64, v ? NULL : f, v ? f : NULL);
    for (int s = 0; s < P64; s++) {
        double x[MOST];
        for (int d = 0; d < D; d++)
            x[d] = (double)f[s * D + d];
        if (!v)
            turn(x, pos[s], -1);
        for (int d = 0; d < D; d++)
            was[s * D + d] = x[v ? d : channel(d)];
    }
}

/* Mean square of a row but for its outliers: what values are multiples of when codes are chosen. */
static double rms_of(const double *x, const uint8_t *apart)
{
    double sum = 0;
    int n = 0;
    for (int d = 0; d < the.D; d++) {
        sum += apart[d] ? 0 : x[d] * x[d];
        n += !apart[d];
    }
    return n ? sqrt(sum / n) : 0;
}

/* Every number is the nearest level (of values: within what fitting the scale changes), outliers
 * are F16, and no number that is not one loses more than one of them would. */
static void check_half(const uint8_t *half, int codec, bool v, const int32_t *pos,
                       const double *was)
{
    static double held[P64 * MOST];
    static uint8_t apart[P64 * MOST];
    const int D = the.D, bits = codec == KEPT_NUQ4 || codec == KEPT_NUQ4S ? 4 : 3;
    const float *l = level[v][n_outliers(codec, D) > 0][bits == 4];
    double least = INFINITY, most = 0, error = 0, square = 0;
    unturned(half, codec, v, pos, held, apart);
    for (int i = 0; i < P64 * D; i++) {
        const int d = i % D;
        const double unit = v ? rms_of(was + i - d, apart + i - d) : (double)scale[d];
        const double off = was[i] - (v ? 0 : (double)zero[d]);
        double best = INFINITY;
        for (int c = 0; c < 1 << bits; c++)
            best = fmin(best, fabs(off - unit * (double)l[c]));
        if (apart[i]) {
            CHECK_NEAR(held[i], was[i], 1e-3 * fabs(was[i]) + 1e-4);
            least = apart[i] == 1 ? fmin(least, best) : least;
            continue;
        }
        most = fmax(most, best);
        error += pow(held[i] - was[i], 2);
        square += best * best;
        if (!v)
            CHECK_NEAR(fabs(held[i] - was[i]), best, 2e-3 * (fabs(was[i]) + 1));
    }
    CHECK(error <= square * 1.02 + 1e-6); /* a fitted scale is no worse */
    if (!v) /* values are chosen by a first scale, which outliers are part of */
        CHECK(least >= most * 0.999 - 1e-3);
}

/* What is read is what is held; a page takes no byte more. */
static void check_page(int codec, const uint8_t *f16, const int32_t *pos)
{
    static double was[P64 * MOST], held[P64 * MOST];
    static float is[P64 * MOST];
    const int D = the.D;
    const size_t bytes = kept_codec_half_bytes(codec, false, D);
    const size_t beside = 4 * (size_t)n_outliers(codec, D);
    uint8_t *page = aligned_alloc(64, 2 * kept_page_bytes(D));
    const kept_packed p = packed(page, codec, codec, pos);
    CHECK_INT(bytes, (codes_bytes(codec, false, D) + 2 * (size_t)D + beside + 63) / 64 * 64);
    CHECK_INT(kept_codec_page_bytes(p.c, D) - bytes,
              (codes_bytes(codec, true, D) + 128 + beside + 63) / 64 * 64);
    memset(page, 0x5a, 2 * kept_page_bytes(D));
    kept_codec_pack(p, f16);
    CHECK_INT(page[kept_codec_page_bytes(p.c, D)], 0x5a);
    for (int v = 0; v < 2; v++) {
        const uint8_t *half = page + (v ? bytes : 0);
        before(f16, pos, v, was);
        check_half(half, codec, v, pos, was);
        kept_codec_read(p, 0, P64, v ? NULL : is, v ? is : NULL);
        read_nuq(half, codec, v, pos, held);
        for (int i = 0; i < P64 * D; i++)
            CHECK_NEAR(is[i], held[i], 2e-4 * (fabs(held[i]) + 2));
    }
    free(page);
}

static void pages_hold_what_they_say(void)
{
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        int32_t pos[P64];
        begin(i);
        uint8_t *f16 = aligned_alloc(64, kept_page_bytes(the.D));
        fill(f16, pos);
        for (size_t c = 0; c < sizeof nuq; c++)
            check_page(nuq[c], f16, pos);
        free(f16);
        stop();
    }
}

/* Constant rows, zeros, the largest numbers, one of them alone, infinities, no numbers, denormals:
 * what is read is finite, and what is 0 everywhere stays 0 in values. */
static void extremes(void)
{
    static const float odd[] = {0, 1, 65504, -65504, INFINITY, -INFINITY, NAN, 6e-8f, 1e-5f};
    begin(1);
    uint8_t *f16 = aligned_alloc(64, kept_page_bytes(64)), *page = aligned_alloc(64, 1 << 15);
    static float k[P64 * 64], v[P64 * 64];
    int32_t pos[P64];
    for (size_t i = 0; i < 2 * sizeof odd / sizeof *odd; i++)
        for (size_t c = 0; c < sizeof nuq; c++) {
            const kept_packed p = packed(page, nuq[c], nuq[c], pos);
            float row[64];
            for (int s = 0; s < P64; s++) {
                for (int d = 0; d < 64; d++)
                    row[d] = i % 2 ? (s == 5 && d == 9 ? odd[i / 2] : 0) : odd[i / 2];
                pos[s] = s * 7;
                kept_kern_get("ref")->put(f16, 64, s, row, row);
            }
            kept_codec_pack(p, f16);
            kept_codec_read(p, 0, P64, k, v);
            for (int x = 0; x < P64 * 64; x++)
                CHECK(isfinite(k[x]) && isfinite(v[x]));
            if (i == 0)
                for (int x = 0; x < P64 * 64; x++)
                    CHECK(v[x] == 0);
            if (i % 2 && c >= 2 && isfinite(odd[i / 2])) /* alone it is an outlier, to F16's end */
                CHECK_NEAR(v[5 * 64 + 9], odd[i / 2], 1e-3 * fabs((double)odd[i / 2]) + 1e-7);
        }
    free(f16);
    free(page);
    stop();
}

/* A row written by itself is that of a packed page, and a moved one the same bits; with outliers
 * rows stay. */
static void rows(void)
{
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        static float k[2][MOST], v[2][MOST];
        int32_t pos[P64], turned[P64];
        begin(i);
        const size_t size = kept_page_bytes(the.D);
        uint8_t *f16 = aligned_alloc(64, size), *a = aligned_alloc(64, size),
                *b = aligned_alloc(64, size);
        fill(f16, pos);
        for (int s = 0; s < P64; s++)
            turned[s] = pos[P64 - 1 - s];
        for (int c = 0; c < 2; c++) {
            const kept_packed p = packed(a, nuq[c], nuq[c], pos),
                              q = packed(b, nuq[c], nuq[c], turned);
            CHECK(kept_codec_has_rows(p.c));
            kept_codec_pack(p, f16);
            memset(b, 0, size);
            for (int s = 0; s < P64; s++) {
                if (s % 2) {
                    kept_kern_get("ref")->get(f16, the.D, s, 1, k[0], v[0]);
                    kept_codec_put(q, P64 - 1 - s, k[0], v[0]);
                } else {
                    kept_codec_move(q, P64 - 1 - s, p, s);
                }
            }
            for (int s = 0; s < P64; s++) {
                kept_codec_read(p, s, 1, k[0], v[0]);
                kept_codec_read(q, P64 - 1 - s, 1, k[1], v[1]);
                CHECK(!memcmp(k[0], k[1], (size_t)the.D * sizeof **k));
                CHECK(!memcmp(v[0], v[1], (size_t)the.D * sizeof **v));
            }
        }
        CHECK(!kept_codec_has_rows((kept_codecs){KEPT_NUQ4S, KEPT_Q8}));
        CHECK(!kept_codec_has_rows((kept_codecs){KEPT_Q8, KEPT_NUQ3S}));
        free(f16);
        free(a);
        free(b);
        stop();
    }
}

/* ---- attention ------------------------------------------------------------------------------- */

static const kept_codecs mixes[][PAGES] = {
    {{KEPT_NUQ4, KEPT_NUQ4},
     {KEPT_NUQ3, KEPT_NUQ3},
     {KEPT_NUQ4S, KEPT_NUQ4S},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_NUQ3S, KEPT_NUQ3S}, {KEPT_NUQ4, KEPT_F16}, {KEPT_F16, KEPT_NUQ4S}, {KEPT_F16, KEPT_F16}},
    {{KEPT_NUQ4S, KEPT_Q4}, {KEPT_ROT4, KEPT_NUQ3}, {KEPT_Q8, KEPT_Q8}, {KEPT_F16, KEPT_F16}},
};

static void fill_pages(pages *x, const kept_codecs *form)
{
    const int D = the.D;
    const size_t size = kept_page_bytes(D);
    uint8_t *f16 = aligned_alloc(64, size);
    x->form = form;
    x->n = PAGES;
    for (int i = 0; i < PAGES; i++) {
        uint8_t *page = x->at + (size_t)i * size;
        x->id[i] = i;
        x->slot_pos[i] = x->pos[i];
        fill(f16, x->pos[i]);
        if (kept_codec_is_f16(form[i]))
            memcpy(page, f16, size);
        else
            kept_codec_pack(packed(page, form[i].k, form[i].v, x->pos[i]), f16);
        for (int v = 0; v < 2; v++) {
            const int codec = v ? form[i].v : form[i].k;
            double *to = (v ? x->v : x->k) + (size_t)(i * P64 * D);
            if (kept_codec_get(codec)->nuq)
                read_nuq(page + (v ? kept_codec_half_bytes(form[i].k, false, D) : 0), codec, v,
                         x->pos[i], to);
            else
                read_half(page, form[i], v, D, to);
        }
    }
    free(f16);
}

static void attention(void)
{
    const char *name[5];
    const int n_levels = kept_kern_levels(name, 5);
    for (size_t i = 1; i < sizeof shape / sizeof *shape; i++) {
        begin(i);
        const size_t room = (size_t)(PAGES * P64 * the.D);
        pages x = {.at = aligned_alloc(64, PAGES * kept_page_bytes(the.D)),
                   .k = malloc(room * sizeof(double)),
                   .v = malloc(room * sizeof(double))};
        for (size_t c = 0; c < sizeof mixes / sizeof *mixes; c++) {
            const double limit = c == 2 ? 0.25 : 1e-3; /* the latter: integers of other codecs */
            fill_pages(&x, mixes[c]);
            for (int k = 0; k < n_levels; k++)
                for (int q = 1; q <= MOST_Q; q += 4)
                    for (int g = 1; g <= 7; g += 3) {
                        const double e = worst(kept_kern_get(name[k]), &x, g, q, true);
                        if (e > limit)
                            fprintf(stderr, "  %s, D %d, mix %zu, group %d, %d queries: %g\n",
                                    name[k], the.D, c, g, q, e);
                        CHECK(e <= limit);
                    }
        }
        free(x.at);
        free(x.k);
        free(x.v);
        stop();
    }
}

/* ---- levels ---------------------------------------------------------------------------------- */

enum { SAMPLES = 4000 };

/* Mean square error of the nearest level, by weight. */
static double loss(const kept_nuq_sample *x, int m, const double *l, int n)
{
    double sum = 0, square = 0;
    for (int i = 0; i < m; i++) {
        double best = INFINITY;
        for (int c = 0; c < n; c++)
            best = fmin(best, pow((double)x[i].y - l[c], 2));
        sum += (double)x[i].weight * best;
        square += (double)x[i].weight * pow((double)x[i].y, 2);
    }
    return sum / square;
}

/* k-means as it is defined: to the nearest, then to the mean, until nothing moves. */
static void naive_means(const kept_nuq_sample *x, int m, double *l, int n)
{
    for (int turns = 0; turns < 500; turns++) {
        double sum[16] = {0}, weight[16] = {0};
        for (int i = 0; i < m; i++) {
            int best = 0;
            for (int c = 1; c < n; c++)
                if (fabs((double)x[i].y - l[c]) < fabs((double)x[i].y - l[best]))
                    best = c;
            sum[best] += (double)x[i].weight * (double)x[i].y;
            weight[best] += (double)x[i].weight;
        }
        for (int c = 0; c < n; c++)
            l[c] = weight[c] > 0 ? sum[c] / weight[c] : l[c];
    }
}

static void levels_are_means(void)
{
    static kept_nuq_sample x[SAMPLES];
    static double work[2 * (SAMPLES + 1)];
    for (int kind = 0; kind < 3; kind++)
        for (int n = 8; n <= 16; n += 8) {
            float l[16];
            double from[16], gauss = 0;
            for (int i = 0; i < SAMPLES; i++) {
                const double y = norm();
                x[i] = (kept_nuq_sample){
                    .y = (float)(kind == 1 ? y * y * y : y + (kind == 2 && i % 3 == 0 ? 4 : 0)),
                    .weight = kind ? (float)(0.1 + fabs(uniform())) : 1,
                    .unit = 1};
            }
            const double lost = kept_nuq_fit(x, SAMPLES, n, 0, l, work);
            for (int c = 0; c < n; c++) {
                from[c] = (double)l[c];
                CHECK(!c || l[c] >= l[c - 1]);
            }
            CHECK_NEAR(lost, loss(x, SAMPLES, from, n), 1e-5);
            naive_means(x, SAMPLES, from, n); /* nothing is left to move */
            for (int c = 0; c < n; c++)
                CHECK_NEAR(from[c], l[c], 2e-2);
            for (int c = 0; c < n; c++) { /* and they beat those of a Gaussian of that deviation */
                from[c] = 0;
                gauss = fmax(gauss, fabs((double)l[c]));
            }
            for (int c = 0; c < n; c++)
                from[c] = gauss * (2 * (c + 0.5) / n - 1); /* evenly spread */
            CHECK(lost < loss(x, SAMPLES, from, n));
            if (kind == 0) /* Max 1960 */
                CHECK_NEAR(lost, n == 8 ? 0.0345 : 0.0095, n == 8 ? 0.002 : 0.001);
        }
}

/* With outliers: those that are far out do not pull levels, and the rest is met better. */
static void outliers_do_not_pull(void)
{
    static kept_nuq_sample x[SAMPLES];
    static double work[2 * (SAMPLES + 1)];
    float with[16], without[16];
    for (int i = 0; i < SAMPLES; i++)
        x[i] = (kept_nuq_sample){
            .y = (float)(norm() * (i % 100 == 7 ? 30 : 1)), .weight = 1, .unit = 1};
    const double all = kept_nuq_fit(x, SAMPLES, 8, 0, without, work);
    const double rest = kept_nuq_fit(x, SAMPLES, 8, 0.0117, with, work);
    CHECK(fabs((double)with[7]) < 4 && fabs((double)without[7]) > 10);
    CHECK(rest < all / 2);
    CHECK(kept_nuq_fit(x, 0, 8, 0, with, work) == 0);
}

int main(void)
{
    RUN(pages_hold_what_they_say);
    RUN(extremes);
    RUN(rows);
    RUN(attention);
    RUN(levels_are_means);
    RUN(outliers_do_not_pull);
    TEST_END();
}
