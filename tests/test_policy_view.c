/* What a view shows, against a naive reading in double precision: a probe takes the place of a
 * strategy's score and looks at everything that a score may ask for. The order of slots is not that
 * of positions, some slots have gone and keys have moved before.
 */
#include "policy_rig.h"

#define L      2
#define H      2
#define MAX_N  300
#define RECENT 17

static struct {
    const rig *r;
    int n, calls, share;
    double moved[MAX_N]; /* shift of the key of each position */
    bool gone[MAX_N];
} world;

static bool near(double a, double b, double tol)
{
    return fabs(a - b) <= tol * (1 + fabs(b));
}

/* Channel pair j of x turned by angle(pos): the rig's layout is neox. */
static void turn(const float *x, double pos, double *out)
{
    const rig *r = world.r;
    int half = r->head_size / 2;
    for (int j = 0; j < half; j++) {
        double a = pos * r->freq[j], c = cos(a), s = sin(a);
        out[j] = x[j] * c - x[j + half] * s;
        out[j + half] = x[j] * s + x[j + half] * c;
    }
}

static void check_keys(const kept_view *v, const kept_view_head *h, int head)
{
    const rig *r = world.r;
    int size = r->head_size;
    double x[128];
    for (int i = 0; i < h->n; i++) {
        const float *stored = rig_k(r, v->layer, head) + (size_t)h->pos[i] * (size_t)size;
        turn(stored, -(h->pos[i] + world.moved[h->pos[i]]), x);
        for (int d = 0; d < size; d++) {
            CHECK(h->key[i * size + d] == stored[d]);
            CHECK(near(h->key0[i * size + d], x[d], 2e-5));
        }
        CHECK(!memcmp(h->value + (size_t)i * (size_t)size,
                      rig_v(r, v->layer, head) + (size_t)h->pos[i] * (size_t)size,
                      (size_t)size * sizeof(float)));
    }
}

static void check_row(const kept_view *v, const kept_view_head *h, int head, int t, int g)
{
    const rig *r = world.r;
    const float *q = rig_recent(r, v->layer, t, head, g);
    double logit[MAX_N], top = -INFINITY, sum = 0;
    int at = t * r->group + g, size = r->head_size;
    for (int i = 0; i < h->n; i++) {
        double dot = 0;
        for (int d = 0; d < size; d++)
            dot += (double)q[d] * h->key[i * size + d];
        bool sees = h->pos[i] <= world.n - RECENT + t;
        logit[i] = sees ? dot / sqrt(size) : -INFINITY;
        top = fmax(top, logit[i]);
    }
    for (int i = 0; i < h->n; i++)
        sum += exp(logit[i] - top);
    CHECK(near(h->lse[at], top + log(sum), 1e-5));
    CHECK(!memcmp(h->query + (size_t)at * (size_t)size, q, (size_t)size * sizeof *q));
    for (int i = 0; i < h->n; i++)
        CHECK_NEAR(h->prob[(size_t)at * (size_t)h->n + (size_t)i], exp(logit[i] - top) / sum, 1e-5);
}

static void check_weight(const kept_view *v, const kept_view_head *h, int head)
{
    const rig *r = world.r;
    int size = r->head_size, wide = H * r->group * size;
    const float *w = rig_w_o((void *)(uintptr_t)r, v->layer);
    for (int i = 0; i < h->n; i++) {
        double sum = 0;
        for (int g = 0; g < r->group; g++)
            for (int e = 0; e < RIG_EMBD; e++) {
                double dot = 0;
                for (int d = 0; d < size; d++)
                    dot += (double)w[e * wide + (head * r->group + g) * size + d] *
                           h->value[i * size + d];
                sum += fabs(dot);
            }
        CHECK(near(h->weight[i], sum / r->group, 1e-4));
    }
}

static void probe(const kept_view *v, int head, float *score)
{
    const rig *r = world.r;
    const kept_view_head *h = &v->heads[head];
    int n = 0;
    world.calls++;
    CHECK_INT(v->n_recent, RECENT);
    CHECK_INT(v->next_pos, world.n);
    CHECK_INT(v->share, world.share);
    CHECK(v->grouping.gqa == KEPT_GQA_MAX && v->grouping.kernel == 9 && v->options[0] == 2);
    for (int pos = 0; pos < world.n; pos++) {
        if (world.gone[pos])
            continue;
        CHECK_INT(h->pos[n], pos);
        CHECK_INT(h->guard[n], pos < 4 || pos >= world.n - 8);
        n++;
    }
    CHECK_INT(h->n, n);
    for (int g = 0; g < r->group; g++)
        for (int i = 0; i < n; i++)
            CHECK(h->mass[g * n + i] == rig_mass(r, g, v->layer, head)[h->pos[i]]);
    check_keys(v, h, head);
    for (int t = 0; t < RECENT; t++)
        for (int g = 0; g < r->group; g++)
            check_row(v, h, head, t, g);
    check_weight(v, h, head);
    CHECK(v->heads[1 - head].key == NULL && v->heads[1 - head].mass != NULL);
    size_t q = (size_t)((v->layer * H + head) * r->group * r->head_size);
    CHECK(h->q_mean == r->q_mean + q && h->q_cov == r->q_cov + q * (size_t)r->head_size);
    for (int i = 0; i < n; i++)
        score[i] = (float)h->pos[i];
}

static kept_plane plane_of(const double *options)
{
    (void)options;
    return (kept_plane){.kind = KEPT_PLANE_MASS, .window = 32, .split = true};
}
static int recent_of(const double *options)
{
    (void)options;
    return RECENT;
}
static const kept_option options[] = {{"x", 2, 0, 9, true, NULL, ""},
                                      KEPT_GROUP_OPTIONS(KEPT_GQA_MAX, KEPT_POOL_AVG, 9)};
static const kept_score probe_score = {.part = {.abi = KEPT_POLICY_ABI,
                                                .axis = KEPT_AXIS_SCORE,
                                                .name = "probe",
                                                .options = options,
                                                .n_options = 5},
                                       .needs = KEPT_NEED_KEYS | KEPT_NEED_KEYS0 |
                                                KEPT_NEED_VALUES | KEPT_NEED_OUTPUT |
                                                KEPT_NEED_QUERIES,
                                       .plane = plane_of,
                                       .recent = recent_of,
                                       .grouped = true,
                                       .comparable = true,
                                       .score = probe};

static void randomise(rig *r, uint64_t seed)
{
    kept_rng rng;
    kept_rng_init(&rng, seed);
    size_t rows = (size_t)(L * H) * (size_t)r->n, size = (size_t)r->head_size;
    size_t stats = (size_t)(L * H * r->group) * size;
    for (size_t i = 0; i < rows * size; i++) {
        r->k[i] = rig_round(kept_rng_normal(&rng));
        r->v[i] = rig_round(kept_rng_normal(&rng));
    }
    for (size_t i = 0; i < (size_t)r->n_state * rows; i++)
        r->mass[i] = (float)kept_rng_unit(&rng);
    for (size_t i = 0; i < stats * RECENT; i++)
        r->recent[i] = (float)kept_rng_normal(&rng);
    for (size_t i = 0; i < stats * RIG_EMBD; i++)
        r->w_o[i] = (float)kept_rng_normal(&rng);
}

/* Drops every seventh position, and says that keys of some others have moved. */
static void disturb(rig *r, int n)
{
    uint8_t keep[MAX_N];
    int32_t pos[MAX_N];
    for (int i = 0; i < n; i++) {
        world.gone[i] = i % 7 == 5 && i < n - 8;
        world.moved[i] = i % 5 == 1 && n - i > 3 ? 3 : 0;
    }
    for (int l = 0; l < L; l++)
        for (int h = 0; h < H; h++) {
            kept_cache_read(r->cache, l, h, pos, NULL, NULL);
            for (int i = 0; i < n; i++) {
                keep[i] = !world.gone[pos[i]];
                kept_cache_set_state(r->cache, l, h, r->n_state, i, (float)world.moved[pos[i]]);
            }
            CHECK_INT(kept_cache_retain(r->cache, l, h, keep), KEPT_OK);
        }
}

static void look(int n, int group, int size, const char *isa)
{
    kept_strategy *s = rig_parse("knorm+values(kind=output)+protect(sinks=4,recent=8)@50%");
    uint64_t ns = 0;
    s->part[KEPT_AXIS_SCORE] = &probe_score.part;
    for (int i = 0; i < probe_score.part.n_options; i++)
        s->option[KEPT_AXIS_SCORE][i] = options[i].value;
    rig r = rig_new(L, H, group, size, n);
    rig_needs(&r, s);
    CHECK_INT(r.n_state, group);
    randomise(&r, (uint64_t)n);
    rig_pool(&r);
    r.cache = rig_cache(&r, n, 11);
    world.r = &r;
    world.n = n;
    world.calls = 0;
    world.share = n / 2 - 12;
    disturb(&r, n);
    kept_evict e = rig_evict(&r, r.cache, n);
    e.kern = kept_kern_get(isa);
    CHECK_INT(kept_strategy_evict(s, &e, r.work, &ns, &ns, NULL), KEPT_OK);
    CHECK_INT(world.calls, L * H);
    rig_free(&r);
    kept_strategy_free(s);
}

static void test_views(void)
{
    look(64, 1, 64, "ref");
    look(150, 3, 64, "ref");
    look(129, 8, 128, "ref");
    look(290, 2, 64, "ref");
    for (int i = 0; i < 2; i++) {
        const char *isa = i ? "avx512" : "avx2";
        if (kept_kern_get(isa)) {
            look(65, 3, 128, isa);
            look(290, 1, 64, isa);
        }
    }
}

int main(void)
{
    RUN(test_views);
    TEST_END();
}
