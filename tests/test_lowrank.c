/* Pages of coefficients along directions of a head (kern/lowrank.h), of one layer and of a group:
 *   directions  against an SVD by NumPy 2, whose numbers stand here
 *   attention   of every level against a reading in double of what the pages hold
 *   refused     what cannot be */
#include "attend_rig.h"
#include "policy/strategy.h"
#include "train/basis.h"

/* ---- directions ----------------------------------------------------------------------------- */

/* numpy.linalg.svd of X [12][8], and of its first four columns: row 5 of the best approximation
 * of rank r, and the squares that are lost. */
static const struct {
    int layers, r;
    double lost, row[8], square[4];
} want[] = {
    {1,
     2,
     7.73471205809,
     {-0.6729657599, 0.9016349598, -0.5821026278, 0.6288742567},
     {18.1595906295, 7.4181973124, 4.37970978474, 3.35500227334}},
    {1,
     3,
     3.35500227334,
     {-0.8445904224, 0.8607099281, -0.7655524111, 0.3340860998},
     {18.1595906295, 7.4181973124, 4.37970978474, 3.35500227334}},
    {2,
     2,
     24.3223515689,
     {-1.132965765, 1.0626586, -0.5248548813, 0.3682345052, -0.1829605802, 0.8500255987,
      -0.6377231218, 0.885998205},
     {23.2609876208, 19.6041608103, 7.83313412231, 6.25589561801}},
    {2,
     3,
     16.4892174466,
     {-1.285809483, 1.056031511, -0.2856403195, 0.3297006802, -0.1101116222, 1.005594802,
      -0.4835290214, 0.8329979556},
     {23.2609876208, 19.6041608103, 7.83313412231, 6.25589561801}},
};

static void golden(void)
{
    enum { N = 12, D = 4 };
    double x[N][2 * D], sum[2 * D][2 * D] = {{0}};
    for (int t = 0; t < N; t++)
        for (int i = 0; i < 2 * D; i++)
            x[t][i] =
                (double)((t * 7 + i % D * 5 + i / D * 3) % 11 - 5) / 4 + t * (i % D) % 3 * .25;
    for (int i = 0; i < 2 * D; i++)
        for (int k = 0; k < 2 * D; k++)
            for (int t = 0; t < N; t++)
                sum[i][k] += x[t][i] * x[t][k];
    for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
        const int n = want[k].layers * D, r = want[k].r;
        float u[2 * D * D];
        double energy[D] = {0}, lost = 0;
        CHECK(kept_basis_directions(sum[0], 2 * D, D, want[k].layers, u, energy));
        for (int i = 0; i < D; i++)
            CHECK_NEAR(energy[i], want[k].square[i], 1e-9 * want[k].square[0]);
        for (int t = 0; t < N; t++)
            for (int d = 0; d < n; d++) {
                double y = 0;
                for (int i = 0; i < r; i++) {
                    double c = 0;
                    for (int e = 0; e < n; e++)
                        c += (double)u[(e / D * D + i) * D + e % D] * x[t][e];
                    y += c * (double)u[(d / D * D + i) * D + d % D];
                }
                lost += (x[t][d] - y) * (x[t][d] - y);
                if (t == 5)
                    CHECK_NEAR(y, want[k].row[d], 1e-6);
            }
        CHECK_NEAR(lost, want[k].lost, 1e-5);
    }
}

/* Coefficient i of slot s, from an f16 half by the layout that codec.h gives; from a q8 one as its
 * codec reads it (test_kern_codec has the oracle of that). */
static double coefficient(const uint8_t *half, int codec, bool v, int s, int i)
{
    const int r = kept_codec_channels(codec, the.D);
    if (kept_codec_get(codec)->inner == KEPT_F16) {
        const kept_f16 *c = (const kept_f16 *)(const void *)half;
        const int b = i / 64 * 64, w = r - b < 64 ? r - b : 64;
        return (double)kept_f16_to_f32(
            c[v ? 64 * b + s * w + i - b : (s / 32 * r + i) * 32 + s % 32]);
    }
    float row[MOST];
    const size_t k = kept_codec_half_bytes(KEPT_Q8, false, r);
    const kept_packed p = {
        .at = (uint8_t *)(uintptr_t)(v ? half - k : half), .c = {KEPT_Q8, KEPT_Q8}, .head_size = r};
    kept_codec_read(p, s, 1, v ? NULL : row, v ? row : NULL);
    return (double)row[i];
}

/* ---- what pages hold ------------------------------------------------------------------------ */

/* The directions' sums [r] that have the channels which pages of a codec hold are those channels
 * times this [r][r]: the inverse of the directions there, by elimination. */
static const double *unmix(int codec, int layer)
{
    static double a[MOST * MOST], inverse[MOST * MOST];
    static int of[3];
    static float mark;
    const int D = the.D, r = kept_codec_channels(codec, D), basis = kept_codec_get(codec)->basis;
    const int g = kept_codec_layers((kept_codecs){(uint8_t)codec, (uint8_t)codec});
    const int first = layer / g * g;
    if (of[0] == codec && of[1] == first && of[2] == D && mark == the.u[first][basis][0][0])
        return inverse;
    memset(inverse, 0, sizeof inverse);
    for (int l = first; l < first + g; l++) {
        const kept_stands *x = kept_low_stands(&the.low[l], codec);
        for (int k = 0; k < x->n_own; k++)
            for (int i = 0; i < r; i++)
                a[x->from[k] * r + i] = (double)the.u[l][basis][0][i * D + x->own[k]];
    }
    for (int i = 0; i < r; i++)
        inverse[i * r + i] = 1;
    for (int k = 0; k < r; k++) {
        int best = k;
        for (int i = k; i < r; i++)
            best = fabs(a[i * r + k]) > fabs(a[best * r + k]) ? i : best;
        for (int j = 0; j < r; j++) {
            const double p = a[k * r + j], q = inverse[k * r + j];
            a[k * r + j] = a[best * r + j];
            a[best * r + j] = p;
            inverse[k * r + j] = inverse[best * r + j];
            inverse[best * r + j] = q;
        }
        const double pivot = a[k * r + k];
        for (int j = 0; j < r; j++) {
            a[k * r + j] /= pivot;
            inverse[k * r + j] /= pivot;
        }
        for (int i = 0; i < r; i++) {
            const double f = a[i * r + k];
            for (int j = 0; j < r && i != k && f != 0; j++) {
                a[i * r + j] -= f * a[k * r + j];
                inverse[i * r + j] -= f * inverse[k * r + j];
            }
        }
    }
    of[0] = codec;
    of[1] = first;
    of[2] = D;
    mark = the.u[first][basis][0][0];
    return inverse;
}

/* What slot s of a packed half is, in double. layer: who reads it. Of turned keys the one vector
 * along the directions that has the channels which the page holds. */
static void expand(const uint8_t *half, int codec, bool v, int layer, int s, int32_t pos, double *x)
{
    const int D = the.D, r = kept_codec_channels(codec, D), basis = kept_codec_get(codec)->basis;
    const float *u = the.u[layer][basis][v];
    const bool turned = !v && basis != KEPT_BASIS_FLAT;
    const double *a = turned ? unmix(codec, layer) : NULL;
    double c[MOST];
    for (int d = 0; d < D; d++)
        x[d] = 0;
    for (int i = 0; i < r; i++)
        c[i] = coefficient(half, codec, v, s, i);
    for (int i = 0; i < r; i++) {
        double sum = turned ? 0 : c[i];
        for (int k = 0; k < r && turned; k++)
            sum += a[i * r + k] * c[k];
        for (int d = 0; d < D; d++)
            x[turned ? channel(d) : d] += sum * (double)u[i * D + d];
    }
    if (turned)
        turn(x, pos, 1);
}

/* ---- attention ------------------------------------------------------------------------------ */

enum { PAGES = 5 };
static const kept_codecs mixes[][PAGES] = {
    {{KEPT_LOW50, KEPT_LOW50},
     {KEPT_LOW50, KEPT_LOW50},
     {KEPT_LOW50, KEPT_LOW50},
     {KEPT_LOW50, KEPT_LOW50},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_LOW100, KEPT_LOW100},
     {KEPT_LOW100, KEPT_LOW100},
     {KEPT_F16, KEPT_F16},
     {KEPT_LOW100, KEPT_LOW100},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_LOW75, KEPT_LOW25},
     {KEPT_LOW75, KEPT_LOW25},
     {KEPT_LOW25, KEPT_LOW75},
     {KEPT_LOW75, KEPT_LOW25},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_LOW75Q8, KEPT_LOW75Q8},
     {KEPT_LOW50Q8, KEPT_LOW50Q8},
     {KEPT_LOW25Q8, KEPT_LOW25Q8},
     {KEPT_LOW25Q8, KEPT_LOW25},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_FLAT75, KEPT_LOW75},
     {KEPT_FLAT50, KEPT_LOW50},
     {KEPT_FLAT50, KEPT_F16},
     {KEPT_FLAT25, KEPT_LOW25},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_PAIR50, KEPT_PAIR50},
     {KEPT_PAIR100, KEPT_PAIR100},
     {KEPT_QUAD75, KEPT_QUAD75},
     {KEPT_QUAD25, KEPT_QUAD25},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_LOW50, KEPT_LOW50},
     {KEPT_Q8, KEPT_Q8},
     {KEPT_LOW50, KEPT_Q8},
     {KEPT_F16, KEPT_LOW50},
     {KEPT_F16, KEPT_F16}},
    {{KEPT_F16, KEPT_Q4},
     {KEPT_LOW50, KEPT_LOW50},
     {KEPT_LOW50, KEPT_LOW75},
     {KEPT_Q4, KEPT_Q4},
     {KEPT_F16, KEPT_F16}},
};

/* Random pages in these forms, slots in no order, and what they hold. Layer 1 reads. */
static void fill(pages *x, const kept_codecs *form)
{
    const int D = the.D;
    const size_t size = kept_page_bytes(D);
    uint8_t *f16[4];
    x->form = form;
    x->n = PAGES;
    for (int l = 0; l < 4; l++)
        f16[l] = aligned_alloc(64, size);
    for (int i = 0; i < PAGES; i++) {
        const kept_low *low[4];
        const int g = kept_codec_layers(form[i]);
        kept_packed to = {.at = x->at + (size_t)i * size,
                          .c = form[i],
                          .head_size = D,
                          .low = &the.low[1],
                          .pos = x->pos[i]};
        x->id[i] = i;
        x->slot_pos[i] = x->pos[i];
        for (int s = 0; s < P64; s++) {
            /* In some pages they follow each other, as they do until something is evicted. */
            x->pos[i][s] = i % 2 ? 37 + 1013 * i + s : (int32_t)((uniform() + 1) / 2 * HIGH);
            for (int l = 0; l < 4; l++) {
                float k[MOST], v[MOST];
                for (int d = 0; d < D; d++) {
                    k[d] = (float)uniform();
                    v[d] = (float)uniform();
                }
                kept_kern_get("ref")->put(f16[l], D, s, k, v);
            }
        }
        for (int l = 0; l < 4; l++)
            low[l] = &the.low[l];
        if (g > 1)
            kept_codec_pack_joint(to, g, low, (const uint8_t *const *)f16);
        else if (kept_codec_is_f16(form[i]))
            memcpy(to.at, f16[0], size);
        else
            kept_codec_pack(to, f16[0]);
        for (int s = 0; s < P64; s++)
            for (int v = 0; v < 2; v++) {
                const int codec = v ? form[i].v : form[i].k;
                double *row = (v ? x->v : x->k) + (i * P64 + s) * D;
                float y[MOST];
                if (kept_codec_get(codec)->basis) {
                    expand(to.at + (v ? kept_codec_half_bytes(form[i].k, false, D) : 0), codec, v,
                           1, s, x->pos[i][s], row);
                    continue;
                }
                kept_codec_read(to, s, 1, v ? NULL : y, v ? y : NULL);
                for (int d = 0; d < D; d++)
                    row[d] = (double)y[d];
            }
    }
    for (int l = 0; l < 4; l++)
        free(f16[l]);
}

static void attention(void)
{
    static const struct {
        int D, n_rope;
        bool neox;
    } shape[] = {{64, 64, true}, {64, 64, false}, {128, 96, true}, {256, 256, true}};
    const char *level[5];
    const int n_levels = kept_kern_levels(level, 5);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        start(shape[i].D, shape[i].n_rope, shape[i].neox);
        const size_t room = (size_t)(PAGES * P64 * the.D);
        pages x = {.at = aligned_alloc(64, PAGES * kept_page_bytes(the.D)),
                   .k = malloc(room * sizeof(double)),
                   .v = malloc(room * sizeof(double))};
        for (size_t c = 0; c < sizeof mixes / sizeof *mixes; c++) {
            const bool rounds = c == 3 || c >= 6; /* integers: queries and weights are rounded */
            fill(&x, mixes[c]);
            for (int k = 0; k < n_levels; k++)
                for (int q = 1; q <= MOST_Q; q += 4)
                    for (int g = 1; g <= 7; g += 3) {
                        const double e = worst(kept_kern_get(level[k]), &x, g, q, rounds);
                        if (e > (rounds ? 0.02 : 2e-5))
                            fprintf(stderr, "  %s, D %d, mix %zu, group %d, %d queries: %g\n",
                                    level[k], the.D, c, g, q, e);
                        CHECK(e <= (rounds ? 0.02 : 2e-5));
                    }
        }
        free(x.at);
        free(x.k);
        free(x.v);
        stop();
    }
}

/* All directions lose nothing but rounding. */
static void full_rank(void)
{
    start(64, 64, false);
    uint8_t *f16 = aligned_alloc(64, kept_page_bytes(64)), *page = aligned_alloc(64, 1 << 15);
    int32_t pos[P64];
    float k[P64 * 64], v[P64 * 64], was[2][P64 * 64];
    for (int s = 0; s < P64; s++) {
        pos[s] = (s * 4241 + 17) % HIGH;
        for (int d = 0; d < 64; d++) {
            k[d] = (float)uniform() * 8;
            v[d] = (float)uniform();
        }
        kept_kern_get("ref")->put(f16, 64, s, k, v);
    }
    const kept_packed p = {.at = page,
                           .c = {KEPT_LOW100, KEPT_LOW100},
                           .head_size = 64,
                           .low = &the.low[0],
                           .pos = pos};
    CHECK_INT(kept_codec_page_bytes(p.c, 64), kept_page_bytes(64));
    kept_codec_pack(p, f16);
    kept_codec_read(p, 0, P64, k, v);
    kept_kern_get("ref")->get(f16, 64, 0, P64, was[0], was[1]);
    for (int s = 0; s < P64; s++) {
        double length[2] = {0}, error[2] = {0};
        for (int d = 0; d < 64; d++)
            for (int h = 0; h < 2; h++) {
                const double x = (double)was[h][s * 64 + d], y = (double)(h ? v : k)[s * 64 + d];
                length[h] += x * x;
                error[h] += (x - y) * (x - y);
            }
        CHECK(sqrt(error[0] / length[0]) < 6e-4 && sqrt(error[1] / length[1]) < 6e-4);
    }
    free(f16);
    free(page);
    stop();
}

/* ---- what cannot be ------------------------------------------------------------------------- */

static void refuse(const char *spec, const char *says)
{
    kept_strategy *s = NULL;
    kept_error err = {0};
    CHECK_INT(kept_strategy_parse(spec, &s, &err), KEPT_ARGUMENT);
    if (!strstr(err.text, says))
        fprintf(stderr, "  %s: %s\n", spec, err.text);
    CHECK(strstr(err.text, says) != NULL);
    kept_strategy_free(s);
}

static void refused(void)
{
    kept_strategy *s;
    kept_error err;
    refuse("snapkv+palu50+slot@512", "use the position original, or k=q8");
    refuse("full+store(k=low50,v=flat50)", "is for keys; for values use low50");
    refuse("full+store(k=low50,v=chan4)", "is for keys; for values use tok4 or tok2");
    refuse("full+store(k=low50,v=thin50)", "is for keys; for values use f16");
    refuse("full+store(k=pair50,v=q8)", "use v=pair50");
    refuse("full+store(k=pair50,edge=1)", "use edge=0, or k=low50");
    refuse("snapkv+xkv50@50%", "use full, or k=low50");
    CHECK_INT(kept_strategy_parse("full+palu50", &s, &err), KEPT_OK);
    CHECK_STR(kept_strategy_trained(s, 2), "basis");
    CHECK_INT(kept_strategy_fits(s, 64, &err), KEPT_OK);
    CHECK_INT(kept_strategy_fits(s, 16, &err), KEPT_UNSUPPORTED); /* 8 of 16 */
    CHECK(strstr(err.text, "multiple of 16") != NULL);
    kept_strategy_free(s);
}

int main(void)
{
    RUN(golden);
    RUN(attention);
    RUN(full_rank);
    RUN(refused);
    TEST_END();
}
