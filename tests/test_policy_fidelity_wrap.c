/* Fidelity of the wrappers, and of scores that draw: what an eviction keeps equals a plain reading
 * of the published rule, over attention mass that the test makes up. Every sequence is cut twice,
 * so that the second time chunks have holes.
 */
#include "policy_rig.h"

#define H     3
#define MAX_N 200

typedef struct world {
    rig r;
    int n, d, g;
    double base[H][MAX_N], weight[H][MAX_N], score[H][MAX_N];
    uint8_t live[H][MAX_N]; /* before the eviction */
} world;

typedef enum pattern { RANDOM, HEAVY, TIES, CONSTANT, N_PATTERNS } pattern;

/* mean over the query heads of ||W_o v||_1 */
static double output_norm(const world *w, int h, int i)
{
    const float *v = rig_v(&w->r, 0, h) + i * w->d;
    double sum = 0;
    for (int g = 0; g < w->g; g++)
        for (int e = 0; e < RIG_EMBD; e++) {
            double x = 0;
            for (int d = 0; d < w->d; d++)
                x += (double)w->r.w_o[(e * H * w->g + h * w->g + g) * w->d + d] * v[d];
            sum += fabs(x) / w->g;
        }
    return sum;
}

static void fill(world *w, pattern kind)
{
    kept_rng rng;
    kept_rng_init(&rng, (uint64_t)(w->n + w->d) + (uint64_t)kind);
    for (int i = 0; i < RIG_EMBD * H * w->g * w->d; i++)
        w->r.w_o[i] = (float)kept_rng_normal(&rng);
    for (int h = 0; h < H; h++)
        for (int i = 0; i < w->n; i++) {
            double x = kind == CONSTANT ? 0.5
                       : kind == TIES   ? (i * 7 % 5) / 8.0
                                        : kept_rng_unit(&rng);
            x = kind == HEAVY && i % 17 == 3 ? 20 * x : x;
            w->base[h][i] = (double)(rig_mass(&w->r, 0, 0, h)[i] = (float)x);
            for (int d = 0; d < w->d; d++)
                rig_v(&w->r, 0, h)[i * w->d + d] =
                    kind < TIES ? rig_round(kept_rng_normal(&rng)) : 1.0f;
            w->weight[h][i] = output_norm(w, h, i);
            w->live[h][i] = 1;
        }
}

static bool is_guard(const world *w, int i)
{
    return i < 4 || i >= w->n - 8;
}

/* ---- the rules ----------------------------------------------------------------------------- */

/* arXiv 2502.00299, 2509.04377: the mean of the live tokens of a chunk, of all heads or of one. */
static void chunks(world *w, int size, bool layer)
{
    for (int h = 0; h < H; h++)
        for (int i = 0; i < w->n; i++) {
            w->score[h][i] = 0;
            for (int k = layer ? 0 : h; k < (layer ? H : h + 1); k++) {
                double sum = 0, m = 0;
                for (int j = 0; j < w->n; j++)
                    if (j / size == i / size && w->live[k][j]) {
                        sum += w->base[k][j];
                        m++;
                    }
                w->score[h][i] += m > 0 ? (double)(float)(sum / m) : 0;
            }
        }
}

/* The `count` best candidates of one head: more first, the later one on ties. */
static void best(const world *w, int h, const double *score, int count, uint8_t *in)
{
    for (int k = 0; k < count; k++) {
        int top = -1;
        for (int i = 0; i < w->n; i++)
            if (w->live[h][i] && !is_guard(w, i) && !in[i] && (top < 0 || score[i] >= score[top]))
                top = i;
        if (top >= 0)
            in[top] = 1;
    }
}

/* arXiv 2502.03805: half of the budget by score, what is left by (score + 1e-4) ||W_o v||. */
static void critical(world *w, int keep, double first)
{
    for (int h = 0; h < H; h++) {
        uint8_t in[MAX_N] = {0};
        best(w, h, w->base[h], (int)(first * keep), in);
        for (int i = 0; i < w->n; i++)
            w->score[h][i] = in[i] ? 1e9 : (w->base[h][i] + 1e-4) * w->weight[h][i];
    }
}

static void expect(world *w, const char *spec, int keep)
{
    if (strstr(spec, "chunked"))
        chunks(w, strstr(spec, "size=7") ? 7 : 20, true);
    else if (strstr(spec, "blocks"))
        chunks(w, strstr(spec, "size=5") ? 5 : 16, false);
    else
        critical(w, keep, strstr(spec, "first=0.2") ? 0.2 : 0.5);
}

/* ---- comparing ----------------------------------------------------------------------------- */

static void check(world *w, int h, const uint8_t *live, int keep)
{
    uint8_t in[MAX_N] = {0};
    best(w, h, w->score[h], keep, in);
    double least = 1e300;
    for (int i = 0; i < w->n; i++)
        least = in[i] ? fmin(least, w->score[h][i]) : least;
    for (int i = 0; i < w->n; i++) {
        if (!w->live[h][i])
            CHECK(!live[i]);
        else if (is_guard(w, i))
            CHECK(live[i]);
        else if (live[i] != in[i]) /* rounding alone may decide otherwise, where scores differ */
            CHECK(fabs(w->score[h][i] - least) <= 1e-5 * least && w->score[h][i] != least);
    }
}

static void cut(world *w, const char *spec, int slots)
{
    char text[200];
    uint64_t ns = 0;
    uint8_t live[MAX_N];
    kept_error err = {"", 0};
    snprintf(text, sizeof text, "%s+protect(sinks=4,recent=8)@%d", spec, slots);
    kept_strategy *s = rig_parse(text);
    kept_evict e = rig_evict(&w->r, w->r.cache, w->n);
    expect(w, spec, slots - 12);
    CHECK_INT(kept_strategy_evict(s, &e, w->r.work, &ns, &ns, &err), KEPT_OK);
    for (int h = 0; h < H; h++) {
        CHECK_INT(rig_live(&w->r, w->r.cache, 0, h, live), slots);
        check(w, h, live, slots - 12);
        memcpy(w->live[h], live, sizeof live);
    }
    kept_strategy_free(s);
}

static void sequence(const char *spec, pattern kind, int d, int g, int n)
{
    static world w;
    memset(&w, 0, sizeof w);
    w.r = rig_new(1, H, g, d, n);
    w.n = n;
    w.d = d;
    w.g = g;
    kept_strategy *s = rig_parse(strstr(spec, "h2o") ? "h2o@1" : "snapkv@1");
    rig_needs(&w.r, s);
    kept_strategy_free(s);
    fill(&w, kind);
    rig_pool(&w.r);
    w.r.cache = rig_cache(&w.r, n, n / 3);
    cut(&w, spec, n / 2 + 3);
    cut(&w, spec, n / 3);
    rig_free(&w.r);
}

static void all(const char *spec)
{
    static const int shapes[][3] = {{64, 1, 200}, {64, 3, 127}, {128, 8, 65}, {64, 3, 192}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (pattern kind = 0; kind < N_PATTERNS; kind++) {
            int before = test_failed;
            test_failed = 0;
            sequence(spec, kind, shapes[i][0], shapes[i][1], shapes[i][2]);
            if (test_failed)
                fprintf(stderr, "  with %s, pattern %d, n %d\n", spec, (int)kind, shapes[i][2]);
            test_failed |= before;
        }
}

static void test_chunked(void)
{
    all("h2o+chunked");
    all("h2o+chunked(size=7)");
}
static void test_blocks(void)
{
    all("h2o+blocks");
    all("h2o+blocks(size=5)");
}
static void test_critical(void)
{
    all("h2o+critical");
    all("h2o+critical(first=0.2)");
}

/* ---- what is drawn --------------------------------------------------------------------------- */

/* nacl with one slot left to chance: token i must get it with probability softmax(score / T)_i. */
static void test_draw(void)
{
    enum { N = 8, SLOTS = 4, DRAWS = 4000 };
    rig r = rig_new(1, 1, 1, 64, N);
    kept_strategy *s = rig_parse("nacl(random=0.25,temperature=0.5)+protect(sinks=0,recent=0)@4");
    rig_needs(&r, s);
    double sum = 0, sum_log = 0;
    int hits[N] = {0};
    for (int i = 0; i < N; i++)
        rig_mass(&r, 0, 0, 0)[i] = (float)(i < 3 ? 5 : i / 8.0); /* three are chosen */
    for (int i = 3; i < N; i++)
        sum += exp(i / 8.0 / 0.5);
    rig_pool(&r);
    for (int seed = 0; seed < DRAWS; seed++) {
        uint8_t live[N];
        uint64_t ns = 0;
        r.cache = rig_cache(&r, N, 3);
        kept_evict e = rig_evict(&r, r.cache, N);
        e.seed = (uint64_t)seed;
        CHECK_INT(kept_strategy_evict(s, &e, r.work, &ns, &ns, NULL), KEPT_OK);
        CHECK_INT(rig_live(&r, r.cache, 0, 0, live), SLOTS);
        CHECK(live[0] && live[1] && live[2]);
        for (int i = 0; i < N; i++)
            hits[i] += live[i];
        kept_cache_free(r.cache);
        r.cache = NULL;
        const kept_view v = {.seed = (uint64_t)seed};
        double z = -log(-log(kept_noise(&v, seed % 3, seed % 7)));
        sum_log += z / DRAWS;
    }
    for (int i = 3; i < N; i++) {
        double p = exp(i / 8.0 / 0.5) / sum;
        CHECK_NEAR(hits[i] / (double)DRAWS, p, 4.5 * sqrt(p * (1 - p) / DRAWS));
    }
    CHECK_NEAR(sum_log, 0.5772, 0.1); /* mean of Gumbel noise; deviation of it 0.02 */
    kept_strategy_free(s);
    rig_free(&r);
}

int main(void)
{
    RUN(test_chunked);
    RUN(test_blocks);
    RUN(test_critical);
    RUN(test_draw);
    TEST_END();
}
