/* Thin keys (ThinK, arXiv 2407.21018): the channels that a head keeps, against the paper's formula
 * read naively in double: the length of a channel's queries in the last window times that of its
 * keys. In the engine: test_codec_axis. */
#include "policy/parts.h"
#include "test.h"

enum { D = 64, HEADS = 2, G = 3, WINDOW = 32, SLOTS = 200, PAGES = SLOTS / 64 };

static uint64_t seed = 5;
static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / 8388608.0f - 1;
}

/* Is `list` [r] what the formula says? Products that are equal but for rounding may change places.
 */
static void check_head(const float *keys, const float *queries, int head, const uint8_t *list,
                       int r)
{
    double product[D], least = INFINITY, most = 0;
    bool in[D] = {false};
    for (int d = 0; d < D; d++) {
        double q = 0, k = 0;
        for (int t = 0; t < WINDOW; t++)
            for (int g = 0; g < G; g++) {
                const double x = queries[((t * HEADS + head) * G + g) * D + d];
                q += x * x;
            }
        for (int s = 0; s < 64 * PAGES; s++)
            k += (double)keys[s * D + d] * keys[s * D + d];
        product[d] = sqrt(q) * sqrt(k);
    }
    for (int i = 0; i < r; i++)
        in[list[i]] = true;
    for (int d = 0; d < D; d++) {
        least = in[d] ? fmin(least, product[d]) : least;
        most = in[d] ? most : fmax(most, product[d]);
    }
    CHECK(least >= most * (1 - 1e-6));
}

static const float *recent(void *ctx, int *n)
{
    *n = WINDOW;
    return ctx;
}

static void channels(void)
{
    static const struct {
        const char *spec;
        int codec;
    } row[] = {{"full+think75", KEPT_THIN75},
               {"full+think50", KEPT_THIN50},
               {"full+think25", KEPT_THIN25}};
    static float keys[HEADS][SLOTS * D], queries[WINDOW * HEADS * G * D];
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        kept_pool *pool;
        kept_cache *c;
        kept_strategy *s;
        CHECK_INT(kept_pool_new(D, 40, 40, &pool, NULL), KEPT_OK);
        CHECK_INT(kept_cache_new(pool, kept_kern_get(NULL), 1, HEADS, 0, SLOTS, &c, NULL), KEPT_OK);
        CHECK_INT(kept_strategy_parse(row[i].spec, &s, NULL), KEPT_OK);
        for (int k = 0; k < WINDOW * HEADS * G * D; k++)
            queries[k] = uniform() * (float)(1 + k % D % 7);
        for (int h = 0; h < HEADS; h++) {
            CHECK_INT(kept_cache_reserve(c, 0, h, SLOTS), KEPT_OK);
            for (int t = 0; t < SLOTS; t++) {
                float v[D] = {0}, *k = &keys[h][t * D];
                for (int d = 0; d < D; d++) /* multiples of 2^-8: exact in F16 */
                    k[d] = rintf(256 * uniform()) / 256 * (float)(1 + (d + h) % 5);
                kept_cache_put(c, 0, h, t, k, v, t);
            }
            kept_cache_commit(c, 0, h, SLOTS);
        }
        const kept_packing p = {.cache = c,
                                .n_layers = 1,
                                .n_heads = HEADS,
                                .to = 1,
                                .head_size = D,
                                .group = G,
                                .recent = recent,
                                .ctx = queries};
        CHECK_INT(kept_strategy_pack(s, &p), KEPT_OK);
        const int r = kept_codec_channels(row[i].codec, D);
        for (int h = 0; h < HEADS; h++)
            for (int k = 0; k < PAGES; k++) {
                const kept_packed page = kept_pool_get_page(pool, kept_cache_pages(c, 0, h)[k]);
                CHECK_INT(page.c.k, row[i].codec);
                check_head(keys[h], queries, h, kept_codec_channels_of(page.at, page.c.k, D), r);
            }
        kept_strategy_free(s);
        kept_cache_free(c);
        kept_pool_free(pool);
    }
}

static void refused(void)
{
    kept_strategy *s = NULL;
    kept_error err;
    CHECK_INT(kept_strategy_parse("snapkv+think50+slot@512", &s, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "use the position original, or k=q8") != NULL);
    CHECK_INT(kept_strategy_parse("full+store(k=q8,v=thin50)", &s, &err), KEPT_ARGUMENT);
    /* Heads of 16 channels: a half is no multiple of 16. */
    CHECK_INT(kept_strategy_parse("full+think50", &s, &err), KEPT_OK);
    CHECK_INT(kept_strategy_fits(s, 16, &err), KEPT_UNSUPPORTED);
    kept_strategy_free(s);
}

int main(void)
{
    RUN(channels);
    RUN(refused);
    TEST_END();
}
