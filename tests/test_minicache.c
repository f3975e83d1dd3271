/* Pages of two layers that share directions (MiniCache, arXiv 2405.14366; kern/slerp.h): packing
 * against the paper's formula in double, attention of every level against a reading of the layout,
 * what caches hold, which layers do it. */
#include "cache/cache.h"
#include "kern/slerp.h"
#include "policy/strategy.h"
#include "test.h"

enum { P64 = 64, MOST = KEPT_MAX_HEAD_SIZE };

static uint64_t seed = 9;
static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 40) / 8388608.0 - 1;
}

static double length(const float *x, int D)
{
    double sum = 0;
    for (int d = 0; d < D; d++)
        sum += (double)x[d] * (double)x[d];
    return sqrt(sum);
}

static double angle(const float *a, const float *b, int D)
{
    double dot = 0;
    for (int d = 0; d < D; d++)
        dot += (double)a[d] * (double)b[d];
    return acos(fmax(-1, fmin(1, dot / length(a, D) / length(b, D))));
}

/* b is a, turned away from it a little more from slot to slot; some slots are special. */
static void make(int D, float *a, float *b)
{
    for (int s = 0; s < P64; s++) {
        const double apart = 0.2 + 0.03 * (double)(s * 37 % P64), scale = 1 + s % 5;
        for (int d = 0; d < D; d++) {
            a[s * D + d] = (float)uniform();
            b[s * D + d] = (float)(scale * ((double)a[s * D + d] + apart * uniform()));
        }
    }
    for (int d = 0; d < D; d++) {
        b[3 * D + d] = 2 * a[3 * D + d]; /* the same direction */
        b[4 * D + d] = -a[4 * D + d];    /* the opposite one */
        a[5 * D + d] = 0;                /* none */
        a[6 * D + d] = b[6 * D + d] = 0;
    }
}

static void formula(void)
{
    const int sizes[] = {16, 64, 80, 128};
    for (int i = 0; i < 4; i++)
        for (int v = 0; v < 2; v++) {
            const int D = sizes[i];
            static float a[P64 * MOST], b[P64 * MOST], is[2][P64 * MOST];
            uint8_t *half = aligned_alloc(64, kept_slerp_bytes(D));
            make(D, a, b);
            kept_slerp_pack(half, v, D, a, b);
            kept_slerp_read(half, v, D, 0, is[0]);
            kept_slerp_read(half, v, D, 1, is[1]);
            for (int s = 0; s < P64; s++) {
                const float *x = a + s * D, *y = b + s * D;
                const double la = length(x, D), lb = length(y, D),
                             w = la && lb ? angle(x, y, D) : 0;
                int wider = 0;
                for (int k = 0; k < P64; k++)
                    wider += k != 5 && k != 6 && k != s && angle(a + k * D, b + k * D, D) > w;
                for (int d = 0; d < D; d++) {
                    const double p = la ? (double)x[d] / la : 0, q = lb ? (double)y[d] / lb : 0;
                    double e[2] = {p, q};
                    if (wider >= KEPT_SLERP_APART)
                        e[0] = e[1] = w > 1e-6
                                          ? sin(0.4 * w) / sin(w) * p + sin(0.6 * w) / sin(w) * q
                                      : !la ? q
                                            : p;
                    CHECK_NEAR(is[0][s * D + d], la * e[0], 1e-3 * la + 1e-7);
                    CHECK_NEAR(is[1][s * D + d], lb * e[1], 1e-3 * lb + 1e-7);
                }
            }
            free(half);
        }
}

/* ---- attention ------------------------------------------------------------------------------ */

enum { PAGES = 3, GROUP = 3, MOST_Q = 5 };
static const kept_codecs form[PAGES] = {
    {KEPT_MINI, KEPT_MINI}, {KEPT_F16, KEPT_F16}, {KEPT_MINI, KEPT_MINI}};
static float keys[PAGES * P64 * MOST], values[PAGES * P64 * MOST];

/* Pages [PAGES][room] of random vectors, and what they hold for layer 7. */
static void fill(int D, uint8_t *pool, size_t room)
{
    static float a[2][P64 * MOST], b[2][P64 * MOST];
    uint8_t *two[2];
    for (int l = 0; l < 2; l++)
        two[l] = aligned_alloc(64, kept_page_bytes(D));
    for (int p = 0; p < PAGES; p++) {
        const kept_packed page = {
            .at = pool + (size_t)p * room, .c = form[p], .head_size = D, .layer = 7};
        make(D, a[0], b[0]);
        make(D, a[1], b[1]);
        for (int s = 0; s < P64; s++) {
            kept_kern_get("ref")->put(two[0], D, s, a[0] + s * D, a[1] + s * D);
            kept_kern_get("ref")->put(two[1], D, s, b[0] + s * D, b[1] + s * D);
        }
        if (kept_codec_is_f16(form[p]))
            memcpy(page.at, two[1], kept_page_bytes(D));
        else
            kept_codec_pack_joint(page, 2, (const kept_low *const[2]){NULL, NULL},
                                  (const uint8_t *const *)two);
        kept_codec_read(page, 0, P64, keys + p * P64 * D, values + p * P64 * D);
    }
    free(two[0]);
    free(two[1]);
}

/* n_q queries of a table against them. */
static void check_attend(const kept_kern *kern, int D, const uint8_t *pool, size_t room, int n_q)
{
    static float q[MOST_Q * GROUP * MOST], acc[MOST_Q * GROUP * MOST];
    float m[MOST_Q * GROUP], l[MOST_Q * GROUP];
    const int32_t ids[PAGES] = {0, 1, 2};
    for (int d = 0; d < n_q * GROUP * D; d++)
        q[d] = (float)uniform();
    const kept_attn_tile t = {.head_size = D,
                              .group = GROUP,
                              .n_q = n_q,
                              .q = q,
                              .q_stride_t = (size_t)(GROUP * D),
                              .q_stride_g = (size_t)D,
                              .scale = 0.2f,
                              .pool = pool,
                              .page_bytes = room,
                              .pages = ids,
                              .n_pages = PAGES,
                              .codec = form,
                              .visible = PAGES * P64 - n_q + 1,
                              .layer = 7,
                              .m = m,
                              .l = l,
                              .acc = acc};
    kern->attend(&t);
    for (int r = 0; r < n_q * GROUP; r++) {
        double out[MOST] = {0}, sum = 0;
        for (int s = 0; s < PAGES * P64 - n_q + 1 + r / GROUP; s++) {
            double x = 0;
            for (int d = 0; d < D; d++)
                x += (double)q[r * D + d] * (double)keys[s * D + d];
            x = exp2(0.2 * x);
            sum += x;
            for (int d = 0; d < D; d++)
                out[d] += x * (double)values[s * D + d];
        }
        for (int d = 0; d < D; d++)
            CHECK_NEAR(acc[r * D + d] / l[r], out[d] / sum, 1e-4); /* values: up to 10 */
    }
}

static void attention(void)
{
    const char *level[5];
    const int n_levels = kept_kern_levels(level, 5), sizes[] = {64, 80, 128};
    for (int i = 0; i < 3; i++) {
        const size_t room = 2 * kept_slerp_bytes(sizes[i]);
        uint8_t *pool = aligned_alloc(64, PAGES * room);
        fill(sizes[i], pool, room);
        for (int n = 0; n < n_levels; n++)
            for (int n_q = 1; n_q <= MOST_Q; n_q += 4)
                check_attend(kept_kern_get(level[n]), sizes[i], pool, room, n_q);
        free(pool);
    }
}

/* ---- caches and layers ---------------------------------------------------------------------- */

enum { LAYERS = 7, SLOTS = 150 };

static void cached(void)
{
    static float k[LAYERS][SLOTS * P64], v[LAYERS][SLOTS * P64], is[2][SLOTS * P64];
    kept_pool *pool;
    kept_cache *c;
    kept_strategy *st = NULL;
    kept_account a;
    uint64_t kv, meta;
    CHECK_INT(kept_pool_new(64, 60, 60, &pool, NULL), KEPT_OK);
    CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), LAYERS, 1, 0, SLOTS, &c, NULL), KEPT_OK);
    for (int l = 0; l < LAYERS; l++) {
        CHECK_INT(kept_cache_reserve(c, l, 0, SLOTS), KEPT_OK);
        for (int t = 0; t < SLOTS; t++) {
            for (int d = 0; d < 64; d++) {
                k[l][t * 64 + d] = (float)uniform();
                v[l][t * 64 + d] = (float)uniform();
            }
            kept_cache_put(c, l, 0, t, k[l] + t * 64, v[l] + t * 64, t);
        }
        kept_cache_commit(c, l, 0, SLOTS);
    }
    CHECK_INT(kept_strategy_parse("full+minicache", &st, NULL), KEPT_OK);
    CHECK(!kept_strategy_trained(st, 2));
    const kept_packing p = {
        .cache = c, .n_layers = LAYERS, .n_heads = 1, .to = LAYERS, .head_size = 64, .group = 1};
    CHECK_INT(kept_strategy_pack(st, &p), KEPT_OK);
    kept_cache_walk(c, &kv, &meta);
    kept_cache_account(c, &a);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
    /* Of layers 0 to 6, 4 and 5 are a pair of the deeper half, and 6 has no other one. */
    CHECK_INT(kv,
              5 * 3 * kept_page_bytes(64) + 2 * kept_page_bytes(64) + 2 * 2 * kept_slerp_bytes(64));
    CHECK_INT(kv, kept_strategy_bytes(st, LAYERS, 1, 64, LAYERS * SLOTS));
    for (int l = 0; l < LAYERS; l++) {
        const bool pair = l == 4 || l == 5;
        double error = 0, square = 0;
        CHECK_INT(kept_cache_pages(c, l, 0)[1] == kept_cache_pages(c, 4, 0)[1], pair);
        kept_cache_read(c, l, 0, NULL, is[0], is[1]);
        for (int t = 0; t < SLOTS; t++) {
            CHECK_NEAR(length(is[0] + t * 64, 64), length(k[l] + t * 64, 64), 4e-3);
            CHECK_NEAR(length(is[1] + t * 64, 64), length(v[l] + t * 64, 64), 4e-3);
            for (int d = 0; d < 64; d++) {
                error += pow((double)is[0][t * 64 + d] - (double)k[l][t * 64 + d], 2);
                square += pow((double)k[l][t * 64 + d], 2);
            }
        }
        CHECK(pair ? error / square > 0.1 : error / square < 1e-6);
    }
    kept_strategy_free(st);
    kept_cache_free(c);
    kept_pool_free(pool);
}

static void refused(void)
{
    kept_strategy *s = NULL;
    kept_error err;
    CHECK_INT(kept_strategy_parse("snapkv+minicache@50%", &s, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "use full, or k=low50") != NULL);
    CHECK_INT(kept_strategy_parse("full+store(k=mini,v=pair50)", &s, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "use v=mini") != NULL);
    CHECK_INT(kept_strategy_parse("full+store(k=pair50,v=mini)", &s, &err), KEPT_ARGUMENT);
}

int main(void)
{
    RUN(formula);
    RUN(attention);
    RUN(cached);
    RUN(refused);
    TEST_END();
}
