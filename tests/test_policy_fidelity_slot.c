/* Position "slot": after an eviction, attention from the next position must see what it would see
 * if the kept keys had been rotated to cache slots 0, 1, 2, ... from scratch and the query to the
 * slot after them (arXiv 2309.17453), up to the rounding of stored f16 keys.
 */
#include "policy_rig.h"

#define D 64
#define N 200

static bool neox;
static int n_rope;

/* Rotates x [D] by pos in double, in place. */
static void rotate(const rig *r, double *x, int pos)
{
    for (int j = 0; j < n_rope / 2; j++) {
        int a = neox ? j : 2 * j, b = neox ? j + n_rope / 2 : 2 * j + 1;
        double c = cos(pos * (double)r->freq[j]), s = sin(pos * (double)r->freq[j]), xa = x[a];
        x[a] = c * xa - s * x[b];
        x[b] = s * xa + c * x[b];
    }
}

/* raw: keys before rotation [H][N][D]; the rig gets them rotated to their positions, in f16. */
static rig make(double *raw)
{
    rig r = rig_new(1, 2, 1, D, N);
    kept_rng rng;
    kept_rng_init(&rng, 5);
    for (int h = 0; h < 2; h++)
        for (int t = 0; t < N; t++) {
            double x[D], *row = raw + (h * N + t) * D;
            for (int d = 0; d < D; d++)
                x[d] = row[d] = kept_rng_normal(&rng);
            rotate(&r, x, t);
            for (int d = 0; d < D; d++) {
                rig_k(&r, 0, h)[t * D + d] = rig_round(x[d]);
                rig_v(&r, 0, h)[t * D + d] = rig_round(kept_rng_normal(&rng));
            }
            for (int p = 0; p < 3; p++)
                rig_mass(&r, p, 0, h)[t] = (float)kept_rng_unit(&rng);
        }
    rig_pool(&r);
    return r;
}

static void evict(rig *r, const kept_strategy *s, int seen)
{
    uint64_t ns = 0;
    kept_error err = {"", 0};
    kept_evict e = rig_evict(r, r->cache, seen);
    e.rope_neox = neox;
    e.n_rope = n_rope;
    CHECK_INT(kept_strategy_evict(s, &e, r->work, &ns, &ns, &err), KEPT_OK);
}

/* Dot products of random queries at position `seen` with what is stored, against slots from
 * scratch. Returns the largest error, relative to |q||k|. */
static double worst_error(rig *r, const double *raw, int seen)
{
    static float key[N * D];
    static int32_t pos[N];
    kept_rng rng;
    kept_rng_init(&rng, 6);
    double worst = 0;
    for (int h = 0; h < 2; h++) {
        int n = kept_cache_n(r->cache, 0, h);
        kept_cache_read(r->cache, 0, h, pos, key, NULL);
        for (int i = 0; i < n; i++) {
            int rank = 0;
            for (int k = 0; k < n; k++)
                rank += pos[k] < pos[i];
            double q[D], at_pos[D], at_slot[D], k[D], a = 0, b = 0, qq = 0, kk = 0;
            for (int d = 0; d < D; d++) {
                q[d] = at_pos[d] = at_slot[d] = kept_rng_normal(&rng);
                k[d] = raw[(h * N + pos[i]) * D + d];
                qq += q[d] * q[d];
                kk += k[d] * k[d];
            }
            rotate(r, at_pos, seen);
            rotate(r, at_slot, n);
            rotate(r, k, rank);
            for (int d = 0; d < D; d++) {
                a += at_pos[d] * key[i * D + d];
                b += at_slot[d] * k[d];
            }
            worst = fmax(worst, fabs(a - b) / sqrt(qq * kk));
            /* The recorded shift is where the key is now. */
            CHECK_INT(pos[i] + (int)kept_cache_state(r->cache, 0, h, 3, i), seen - n + rank);
        }
    }
    return worst;
}

static void once(const char *spec)
{
    static double raw[2 * N * D];
    rig r = make(raw);
    kept_strategy *s = rig_parse(spec);
    r.cache = rig_cache(&r, N, 0);
    evict(&r, s, N);
    CHECK(kept_cache_n(r.cache, 0, 0) < N);
    /* An f16 component errs by 2^-11 of itself at most, twice; the dot product by less. */
    double error = worst_error(&r, raw, N);
    if (error > 2.0 / 2048)
        fprintf(stderr, "%s: relative error %g\n", spec, error);
    CHECK(error <= 2.0 / 2048);
    kept_strategy_free(s);
    rig_free(&r);
}

static void all_shapes(const char *spec)
{
    for (int i = 0; i < 4; i++) {
        neox = i & 1;
        n_rope = i & 2 ? D / 2 : D;
        once(spec);
    }
}

static void test_streaming(void)
{
    all_shapes("streaming@64");
    all_shapes("streaming(sinks=0)@50%");
    all_shapes("streaming(sinks=1)@7");
}

static void test_scattered(void)
{
    all_shapes("random+slot@40%");
    all_shapes("h2o+ada+slot@40%");
    all_shapes("random+slot+protect(sinks=0,recent=0)@30%"); /* the newest may go as well */
}

/* Token by token at a constant budget: the window never moves, sinks are turned at every step. */
static void test_stream(void)
{
    static double raw[2 * N * D];
    neox = true;
    n_rope = D;
    rig r = make(raw);
    kept_strategy *s = rig_parse("streaming+decode@32");
    double error = 0;
    r.cache = rig_cache(&r, 32, 0);
    for (int t = 32; t < N; t++) {
        rig_append(&r, r.cache, t);
        evict(&r, s, t + 1);
        CHECK_INT(kept_cache_n(r.cache, 0, 0), 32);
        error = fmax(error, worst_error(&r, raw, t + 1));
    }
    CHECK(error <= 10.0 / 2048); /* sinks were rounded 168 times, at random */
    kept_strategy_free(s);
    rig_free(&r);
}

/* original: keys are not touched. */
static void test_original(void)
{
    static double raw[2 * N * D];
    static float key[N * D];
    static int32_t pos[N];
    neox = true;
    n_rope = D;
    rig r = make(raw);
    kept_strategy *s = rig_parse("streaming(position=original)@64");
    r.cache = rig_cache(&r, N, 0);
    evict(&r, s, N);
    for (int h = 0; h < 2; h++) {
        kept_cache_read(r.cache, 0, h, pos, key, NULL);
        CHECK_INT(kept_cache_n(r.cache, 0, h), 64);
        for (int i = 0; i < 64; i++)
            CHECK(!memcmp(key + i * D, rig_k(&r, 0, h) + pos[i] * D, D * sizeof *key));
    }
    kept_strategy_free(s);
    rig_free(&r);
}

int main(void)
{
    RUN(test_streaming);
    RUN(test_scattered);
    RUN(test_stream);
    RUN(test_original);
    TEST_END();
}
