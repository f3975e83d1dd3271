/* Caches with pages of coefficients (kern/lowrank.h): what packing, eviction, compaction and forks
 * leave of every slot, against projections in double, and the account; pages that layers share. */
#include "cache/cache.h"
#include "lowrank_rig.h"

/* The projection of n layers' vectors x [n][D] on the first r directions, in double, in place. */
static void project(int codec, bool v, int first, int n, int32_t pos, double *x)
{
    const int D = the.D, r = kept_codec_channels(codec, D), basis = kept_codec_get(codec)->basis;
    const bool turned = !v && basis != KEPT_BASIS_FLAT;
    double c[MOST] = {0};
    for (int l = 0; l < n && turned; l++)
        turn(x + l * D, pos, -1);
    for (int i = 0; i < r; i++)
        for (int l = 0; l < n; l++)
            for (int d = 0; d < D; d++)
                c[i] += (double)the.u[first + l][basis][v][i * D + d] *
                        x[l * D + (turned ? channel(d) : d)];
    for (int l = 0; l < n; l++) {
        double y[MOST] = {0};
        for (int i = 0; i < r; i++)
            for (int d = 0; d < D; d++)
                y[turned ? channel(d) : d] += c[i] * (double)the.u[first + l][basis][v][i * D + d];
        memcpy(x + l * D, y, (size_t)D * sizeof *y);
        if (turned)
            turn(x + l * D, pos, 1);
    }
}

/* ---- caches --------------------------------------------------------------------------------- */

enum { SLOTS = 330, LAYERS = 4 };

typedef struct held {
    kept_pool *pool;
    kept_cache *c;
    float k[LAYERS][SLOTS * 64], v[LAYERS][SLOTS * 64];
} held;

static void check_account(const kept_cache *c)
{
    uint64_t kv, meta;
    kept_account a;
    kept_cache_walk(c, &kv, &meta);
    kept_cache_account(c, &a);
    CHECK_INT(a.kv_bytes, kv);
    CHECK_INT(a.meta_bytes, meta);
}

/* A cache of four layers of one head; slot t of layer l at position 3 t. */
static held *fill_cache(void)
{
    held *x = calloc(1, sizeof *x);
    start(64, 64, true);
    CHECK_INT(kept_pool_new(64, 80, 80, &x->pool, NULL), KEPT_OK);
    kept_pool_set_low(x->pool, the.low);
    CHECK_INT(kept_cache_new(x->pool, kept_kern_get(NULL), LAYERS, 1, 0, SLOTS, &x->c, NULL),
              KEPT_OK);
    for (int l = 0; l < LAYERS; l++) {
        CHECK_INT(kept_cache_reserve(x->c, l, 0, SLOTS), KEPT_OK);
        for (int t = 0; t < SLOTS; t++) {
            float *k = x->k[l] + t * 64, *v = x->v[l] + t * 64;
            for (int d = 0; d < 64; d++) { /* exact in F16 */
                k[d] = (float)(rint(256 * uniform()) / 256);
                v[d] = (float)(rint(256 * uniform()) / 256);
            }
            kept_cache_put(x->c, l, 0, t, k, v, 3 * t);
        }
        kept_cache_commit(x->c, l, 0, SLOTS);
    }
    return x;
}

static void empty_cache(held *x)
{
    kept_cache_free(x->c);
    kept_pool_free(x->pool);
    free(x);
    stop();
}

/* Every slot of a layer is its projection, or, where its page never was packed, itself. */
static void check_slots(const held *x, const kept_cache *c, int layer, kept_codecs form)
{
    static float k[SLOTS * 64], v[SLOTS * 64];
    int32_t pos[SLOTS];
    const int n = kept_cache_n(c, layer, 0), g = kept_codec_layers(form), first = layer / g * g;
    kept_cache_read(c, layer, 0, pos, k, v);
    for (int i = 0; i < n; i++)
        for (int h = 0; h < 2; h++) {
            const int t = pos[i] / 3;
            double y[4 * 64], packed = 0, plain = 0, length = 0;
            for (int l = 0; l < g; l++)
                for (int d = 0; d < 64; d++)
                    y[l * 64 + d] = (double)(h ? x->v : x->k)[first + l][t * 64 + d];
            project(h ? form.v : form.k, h, first, g, pos[i], y);
            for (int d = 0; d < 64; d++) {
                const double is = (double)(h ? v : k)[i * 64 + d];
                const double a = is - y[(layer - first) * 64 + d];
                const double b = is - (double)(h ? x->v : x->k)[layer][t * 64 + d];
                packed += a * a;
                plain += b * b;
                length += is * is;
            }
            /* Rounded to F16 thrice at most: coefficients, a copy, coefficients again. */
            CHECK(sqrt(packed / length) < 2e-3 || (t >= SLOTS / P64 * P64 && plain == 0));
        }
}

static void evicted(void)
{
    static const kept_codecs forms[] = {
        {KEPT_LOW50, KEPT_LOW50}, {KEPT_LOW25, KEPT_LOW75}, {KEPT_FLAT50, KEPT_LOW50}};
    for (int f = 0; f < 3; f++) {
        held *x = fill_cache();
        kept_cache *fork;
        for (int l = 0; l < LAYERS; l++)
            CHECK_INT(kept_cache_pack(x->c, l, 0, forms[f], 0, NULL), KEPT_OK);
        check_account(x->c);
        kept_account a;
        kept_cache_account(x->c, &a);
        const size_t full = SLOTS / P64, page = kept_codec_page_bytes(forms[f], 64);
        CHECK_INT(a.kv_bytes, LAYERS * (full * page + kept_page_bytes(64)));
        CHECK_INT(kept_cache_fork(x->c, 0, NULL, &fork, NULL), KEPT_OK);
        for (int round = 0; round < 6; round++)
            for (int l = 0; l < LAYERS; l++) {
                uint8_t keep[SLOTS];
                for (int i = 0; i < SLOTS; i++)
                    keep[i] = uniform() < 0.7;
                CHECK_INT(kept_cache_retain(x->c, l, 0, keep), KEPT_OK);
                check_slots(x, x->c, l, forms[f]);
                CHECK_INT(kept_cache_pack(x->c, l, 0, forms[f], 0, NULL), KEPT_OK);
                check_slots(x, x->c, l, forms[f]);
                check_slots(x, fork, l, forms[f]);
                check_account(x->c);
                check_account(fork);
            }
        for (int l = 0; l < LAYERS; l++)
            CHECK_INT(kept_cache_n(fork, l, 0), SLOTS);
        kept_cache_free(fork);
        empty_cache(x);
    }
}

static void shared(void)
{
    static const kept_codecs forms[] = {{KEPT_PAIR50, KEPT_PAIR50}, {KEPT_QUAD75, KEPT_QUAD75}};
    for (int f = 0; f < 2; f++) {
        held *x = fill_cache();
        kept_cache *fork;
        kept_account a;
        kept_pool_account pool;
        const int g = kept_codec_layers(forms[f]);
        const size_t full = SLOTS / P64, page = kept_codec_page_bytes(forms[f], 64);
        for (int l = 0; l < LAYERS; l += g)
            CHECK_INT(kept_cache_pack_joint(x->c, l, 0, forms[f], 0), KEPT_OK);
        check_account(x->c);
        kept_cache_account(x->c, &a);
        const size_t bytes = LAYERS / g * full * page + LAYERS * kept_page_bytes(64);
        CHECK_INT(a.kv_bytes, bytes);
        kept_pool_get_account(x->pool, &pool); /* and nowhere else are they held */
        CHECK_INT(pool.n_pages - pool.n_free_pages,
                  (bytes + kept_page_bytes(64) - 1) / kept_page_bytes(64));
        for (int l = 0; l < LAYERS; l++) {
            check_slots(x, x->c, l, forms[f]);
            CHECK_INT(kept_cache_pages(x->c, l, 0)[2], kept_cache_pages(x->c, l / g * g, 0)[2]);
        }
        CHECK_INT(kept_cache_fork(x->c, 0, NULL, &fork, NULL), KEPT_OK);
        /* A slot leaves one layer: that layer gets its own, the others and the fork stay. */
        uint8_t keep[SLOTS];
        memset(keep, 1, sizeof keep);
        keep[70] = keep[5] = 0;
        CHECK_INT(kept_cache_retain(x->c, 1, 0, keep), KEPT_OK);
        CHECK_INT(kept_cache_n(x->c, 1, 0), SLOTS - 2);
        for (int l = 0; l < LAYERS; l++) {
            check_slots(x, x->c, l, forms[f]);
            check_slots(x, fork, l, forms[f]);
        }
        check_account(x->c);
        check_account(fork);
        kept_cache_free(fork);
        empty_cache(x);
    }
}

int main(void)
{
    RUN(evicted);
    RUN(shared);
    TEST_END();
}
