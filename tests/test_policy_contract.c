/* Contracts that every score and allocator of the registry must keep. Nothing here knows a name: a
 * new part is tested by being listed.
 */
#include "trained_rig.h"

#define N         150
#define PIN_BEGIN 60
#define PIN_END   63

/* ---- sequences ----------------------------------------------------------------------------- */

typedef enum pattern { RANDOM, CONSTANT, ZERO, HUGE, N_PATTERNS } pattern;

static void fill(rig *r, pattern kind, uint64_t seed)
{
    kept_rng rng;
    kept_rng_init(&rng, seed);
    size_t rows = (size_t)(r->n_layers * r->n_heads) * (size_t)r->n, size = (size_t)r->head_size;
    static const double level[] = {0, 1, 0, 60000};
    for (size_t i = 0; i < rows * size; i++) {
        r->k[i] = rig_round(kind == RANDOM ? kept_rng_normal(&rng) : level[kind]);
        r->v[i] = rig_round(kind == RANDOM ? kept_rng_normal(&rng) : level[kind]);
    }
    rig_fill_captured(r, kind == RANDOM ? &rng : NULL, kind == HUGE ? 1e30f : 0.125f,
                      (float)level[kind]);
    for (int l = 0; l < r->n_layers; l++)
        r->cosine[l] = kind == RANDOM ? 2 * kept_rng_unit(&rng) - 1 : fmin(1, level[kind]);
}

/* A sequence that has captured what spec needs. */
static rig make(pattern kind, int n, const char *spec)
{
    rig r = rig_new(3, 2, 2, 64, n);
    char text[200];
    snprintf(text, sizeof text, "%s@50%%", spec);
    kept_strategy *s = rig_parse(text);
    rig_needs(&r, s);
    rig_lend(&r, s);
    kept_strategy_free(s);
    r.windowed[1] = true;
    fill(&r, kind, 7);
    rig_pool(&r);
    r.cache = rig_cache(&r, n, 0);
    return r;
}

/* A score that takes every weight and is the same in every test with wrappers and weights. */
static bool is_plain(const kept_part *p)
{
    return p == &kept_score_h2o.part || p == &kept_score_knorm.part;
}

/* Every score but full with an allocator that looks at scores and one that does not; two plain ones
 * with every allocator, wrapper and weight. */
static bool is_pair(const kept_part *a, const kept_part *b)
{
    if (a->axis != KEPT_AXIS_SCORE || a == &kept_score_full.part)
        return false;
    if (b == &kept_alloc_uniform.part || b == &kept_alloc_ada.part)
        return true;
    return is_plain(a) && (b->axis == KEPT_AXIS_ALLOCATOR || b->axis == KEPT_AXIS_WRAPPER ||
                           b->axis == KEPT_AXIS_WEIGHT);
}

/* Calls f for every pair: spec is "score+allocator". */
static void each_pair(void (*f)(const char *spec))
{
    for (int i = 0; i < kept_part_count(); i++)
        for (int j = 0; j < kept_part_count(); j++) {
            const kept_part *a = kept_part_at(i), *b = kept_part_at(j);
            char spec[200];
            if (!is_pair(a, b))
                continue;
            snprintf(spec, sizeof spec, "%s+%s", a->name, b->name);
            int before = test_failed;
            test_failed = 0;
            f(spec);
            if (test_failed)
                fprintf(stderr, "  with %s\n", spec);
            test_failed |= before;
        }
}

static kept_status evict(rig *r, const kept_strategy *s, kept_cache *c, uint64_t seed)
{
    static const kept_span pin = {PIN_BEGIN, PIN_END};
    uint64_t score_ns = 0, compact_ns = 0;
    kept_error err = {"", 0};
    kept_evict e = rig_evict(r, c, r->n);
    e.pins = &pin;
    e.n_pins = 1;
    e.seed = seed;
    kept_status st = kept_strategy_evict(s, &e, r->work, &score_ns, &compact_ns, &err);
    if (st)
        fprintf(stderr, "%s: %s\n", kept_strategy_name(s), err.text);
    return st;
}

static int64_t live_slots(const rig *r, const kept_cache *c)
{
    int64_t sum = 0;
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads && !r->windowed[l]; h++)
            sum += kept_cache_n(c, l, h);
    return sum;
}

/* Every live slot still has the key, value and state of its position. */
static void check_rows(const rig *r, const kept_cache *c)
{
    static float k[N * 64], v[N * 64];
    static int32_t pos[N];
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            kept_cache_read(c, l, h, pos, k, v);
            for (int i = 0; i < kept_cache_n(c, l, h); i++) {
                size_t at = (size_t)pos[i] * 64;
                CHECK(!memcmp(k + (size_t)i * 64, rig_k(r, l, h) + at, 64 * sizeof *k));
                CHECK(!memcmp(v + (size_t)i * 64, rig_v(r, l, h) + at, 64 * sizeof *v));
                for (int p = 0; p < r->n_state; p++)
                    CHECK(kept_cache_state(c, l, h, p, i) == rig_mass(r, p, l, h)[pos[i]]);
            }
        }
}

static bool same_sets(const rig *r, const kept_cache *a, const kept_cache *b)
{
    uint8_t x[N], y[N];
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            rig_live(r, a, l, h, x);
            rig_live(r, b, l, h, y);
            if (memcmp(x, y, (size_t)r->n))
                return false;
        }
    return true;
}

/* ---- one eviction -------------------------------------------------------------------------- */

static const char *const budgets[] = {"37%", "50", "33KiB", "100%", "10", "1%", "700B"};
static const char *const endings[] = {"", "+protect(sinks=0,recent=0)",
                                      "+protect(sinks=100,recent=100)",
                                      "+protect(sinks=2,recent=3,first=0.05,last=0.1)"};
enum { N_ENDINGS = sizeof endings / sizeof *endings };

/* The i-th ending: one of these, then "+" each schedule of the registry. False: there are fewer. */
static bool ending(size_t i, char *text, size_t cap)
{
    if (i < N_ENDINGS) {
        snprintf(text, cap, "%s", endings[i]);
        return true;
    }
    i -= N_ENDINGS;
    for (int k = 0; k < kept_part_count(); k++)
        if (kept_part_at(k)->axis == KEPT_AXIS_SCHEDULE && i-- == 0) {
            snprintf(text, cap, "+%s", kept_part_at(k)->name);
            return true;
        }
    return false;
}

/* A strategy, or NULL where the schedule cannot serve its parts: then one line says why not. */
static kept_strategy *try_parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err = {"", 0};
    if (!kept_strategy_parse(spec, &s, &err))
        return s;
    CHECK(strstr(err.text, "use the schedule") && !strchr(err.text, '\n'));
    return NULL;
}

static bool shares_layers(const kept_strategy *s)
{
    return kept_strategy_score(s)->layer_shared || kept_strategy_wrapper(s)->layer_shared;
}

static void check_budget(const rig *r, const kept_cache *c, const kept_strategy *s)
{
    int evicting = (r->n_layers - 1) * r->n_heads, pins = PIN_END - PIN_BEGIN;
    int64_t total = kept_strategy_budget_slots(s, r->n_layers - 1, r->n_heads, 64, r->n);
    int64_t full = (int64_t)evicting * r->n, live = live_slots(r, c);
    int64_t most = total < full ? total : full;
    int64_t slack = shares_layers(s) ? r->n_heads - 1 : 0;
    kept_account a;
    if (most < (int64_t)pins * evicting)
        most = (int64_t)pins * evicting; /* only pins may exceed a budget */
    CHECK(live <= most);
    CHECK(live >= most - slack || total / evicting < pins ||
          kept_strategy_allocator(s)->data_dependent);
    kept_cache_account(c, &a);
    uint64_t page = kept_page_bytes(64), untouched = (uint64_t)((r->n + 63) / 64 * r->n_heads);
    CHECK(a.kv_bytes <=
          (uint64_t)most * 256 + (uint64_t)evicting * (page - 256) + untouched * page);
}

static bool is_protected(const rig *r, int pos, int sinks, int recent)
{
    return pos < sinks || pos >= r->n - recent || (pos >= PIN_BEGIN && pos < PIN_END);
}

static int n_protected(const rig *r, int sinks, int recent)
{
    int n = 0;
    for (int i = 0; i < r->n; i++)
        n += is_protected(r, i, sinks, recent);
    return n;
}

static void check_protected(const rig *r, const kept_cache *c, const kept_strategy *s)
{
    const double *option = s->option[KEPT_AXIS_PROTECTION];
    int evicting = (r->n_layers - 1) * r->n_heads;
    int share =
        (int)(kept_strategy_budget_slots(s, r->n_layers - 1, r->n_heads, 64, r->n) / evicting);
    int sinks = (int)fmin(fmax(option[0], ceil(option[2] * r->n)), r->n);
    int recent = (int)fmin(fmax(option[1], ceil(option[3] * r->n)), r->n);
    uint8_t live[N];
    while (recent > 0 && n_protected(r, sinks, recent) > share)
        recent--;
    while (sinks > 0 && n_protected(r, sinks, recent) > share)
        sinks--;
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            int n = rig_live(r, c, l, h, live), lost = 0;
            for (int i = 0; i < r->n; i++)
                lost += is_protected(r, i, sinks, recent) && !live[i];
            CHECK_INT(lost, 0);
            CHECK(!r->windowed[l] || n == r->n);
        }
}

static void check_shared(const rig *r, const kept_cache *c)
{
    uint8_t a[N], b[N];
    for (int l = 0; l < r->n_layers; l++) {
        rig_live(r, c, l, 0, a);
        for (int h = 1; h < r->n_heads; h++) {
            rig_live(r, c, l, h, b);
            CHECK(!memcmp(a, b, (size_t)r->n));
        }
    }
}

static void one_eviction(const char *pair)
{
    rig r = make(RANDOM, N, pair);
    static size_t turn; /* each pair takes a fifth of the combinations, by turns */
    char end[80];
    for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++)
        for (size_t j = 0; ending(j, end, sizeof end); j++) {
            char spec[300];
            if (turn++ % 5)
                continue;
            snprintf(spec, sizeof spec, "%s%s@%s", pair, end, budgets[i]);
            kept_strategy *s = try_parse(spec);
            if (!s)
                continue;
            kept_cache *again = rig_cache(&r, r.n, 37);
            kept_cache_free(r.cache);
            r.cache = rig_cache(&r, r.n, 0);
            CHECK_INT(evict(&r, s, r.cache, 1), KEPT_OK);
            check_budget(&r, r.cache, s);
            check_protected(&r, r.cache, s);
            check_rows(&r, r.cache);
            if (shares_layers(s))
                check_shared(&r, r.cache);
            /* Same seed, same sets, whatever the order of slots. */
            CHECK_INT(evict(&r, s, again, 1), KEPT_OK);
            CHECK(same_sets(&r, r.cache, again));
            /* Within its budget, a sequence is left alone, unless the data decide. */
            CHECK_INT(evict(&r, s, again, 2), KEPT_OK);
            if (kept_strategy_budget_slots(s, 2, 2, 64, N) >= 4 * (PIN_END - PIN_BEGIN) &&
                !kept_strategy_allocator(s)->data_dependent)
                CHECK(same_sets(&r, r.cache, again));
            kept_cache_free(again);
            kept_strategy_free(s);
            if (test_failed) {
                fprintf(stderr, "  at %s\n", spec);
                goto out;
            }
        }
out:
    rig_unlend(&r);
    rig_free(&r);
}

static void test_one_eviction(void)
{
    each_pair(one_eviction);
}

/* ---- two sequences ------------------------------------------------------------------------- */

static void neighbours(const char *pair)
{
    rig r = make(RANDOM, N, pair);
    int planes[KEPT_MAX_PLANES];
    char spec[300];
    for (int i = 0; i < r.n_state + 2; i++)
        planes[i] = i;
    snprintf(spec, sizeof spec, "%s+slot@30%%", pair);
    kept_strategy *s = rig_parse(spec);
    kept_cache *other = rig_cache(&r, r.n, 0), *fork = NULL, *alone = NULL;
    CHECK_INT(kept_cache_fork(r.cache, r.n_state + 2, planes, &fork, NULL), KEPT_OK);
    CHECK_INT(evict(&r, s, fork, 1), KEPT_OK);
    CHECK(live_slots(&r, fork) < live_slots(&r, r.cache));
    CHECK_INT(live_slots(&r, r.cache), 4 * N);
    CHECK_INT(live_slots(&r, other), 4 * N);
    check_rows(&r, r.cache);
    check_rows(&r, other);
    /* A sequence that shares nothing, evicted after others, ends as the fork did. */
    CHECK_INT(evict(&r, s, other, 9), KEPT_OK);
    kept_cache_free(other);
    alone = rig_cache(&r, r.n, 5);
    CHECK_INT(evict(&r, s, alone, 1), KEPT_OK);
    CHECK(same_sets(&r, fork, alone));
    kept_cache_free(fork);
    kept_cache_free(alone);
    kept_strategy_free(s);
    rig_unlend(&r);
    rig_free(&r);
}

static void test_neighbours(void)
{
    each_pair(neighbours);
}

/* ---- odd sequences ------------------------------------------------------------------------- */

static void odd_input(const char *pair)
{
    static const int lengths[] = {1, 2, 5, 31, 33, 64, 65};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int kind = 0; kind < N_PATTERNS; kind++) {
            rig r = make((pattern)kind, lengths[i], pair);
            char spec[300];
            snprintf(spec, sizeof spec, "%s+slot@50%%", pair);
            kept_strategy *s = rig_parse(spec);
            CHECK_INT(evict(&r, s, r.cache, 1), KEPT_OK);
            int64_t total = kept_strategy_budget_slots(s, 2, 2, 64, r.n);
            int64_t pins = 4 * (r.n > PIN_BEGIN ? (r.n < PIN_END ? r.n : PIN_END) - PIN_BEGIN : 0);
            CHECK(live_slots(&r, r.cache) <= (total > pins ? total : pins));
            CHECK(live_slots(&r, r.cache) + r.n_heads > total ||
                  kept_strategy_allocator(s)->data_dependent);
            kept_strategy_free(s);
            rig_unlend(&r);
            rig_free(&r);
        }
}

static void test_odd_input(void)
{
    each_pair(odd_input);
}

/* Missing state is refused before anything changes. */
static void missing_state(const char *pair)
{
    rig r = make(RANDOM, N, pair);
    char spec[300];
    uint64_t ns = 0;
    kept_error err;
    snprintf(spec, sizeof spec, "%s@30%%", pair);
    kept_strategy *s = rig_parse(spec);
    kept_evict e = rig_evict(&r, r.cache, N);
    kept_capture cap = {0};
    CHECK_INT(kept_strategy_needs(s, &cap, &err), KEPT_OK);
    e.capture.n_planes = 0;
    e.q_mean = NULL;
    e.recent = NULL;
    e.cosine = NULL;
    e.w_o = NULL;
    e.n_trained = 0;
    bool needs = cap.n_planes || cap.query_stats || cap.n_recent || cap.layer_cosine ||
                 kept_strategy_needs_of(s) & KEPT_NEED_OUTPUT || kept_score_trained(s) ||
                 kept_allocator_trained(s);
    CHECK_INT(kept_strategy_evict(s, &e, r.work, &ns, &ns, &err), needs ? KEPT_ARGUMENT : KEPT_OK);
    CHECK_INT(live_slots(&r, r.cache) == 4 * N, needs);
    kept_strategy_free(s);
    rig_unlend(&r);
    rig_free(&r);
}

static void test_missing_state(void)
{
    each_pair(missing_state);
}

/* ---- scores alone -------------------------------------------------------------------------- */

/* What evict.c shows of head h, as far as a test of finite scores needs it: attention as a plain
 * softmax, keys before rotation as stored ones. */
static kept_view_head head_of(const rig *r, int h, const int32_t *pos, float *prob, float *lse)
{
    size_t q = (size_t)(h * r->group) * 64;
    static float query[KEPT_MAX_RECENT * 2 * 64];
    static const uint8_t guard[N];
    for (int t = 0; t < r->capture.n_recent; t++)
        for (int g = 0; g < r->group; g++) {
            size_t row = (size_t)(t * r->group + g);
            double sum = 0, top = -1e300, dot[N];
            memcpy(query + row * 64, rig_recent(r, 0, t, h, g), 64 * sizeof *query);
            for (int i = 0; i < N; i++) {
                dot[i] = 0;
                for (int d = 0; d < 64; d++)
                    dot[i] += query[row * 64 + (size_t)d] * rig_k(r, 0, h)[i * 64 + d] / 8.0;
                top = fmax(top, dot[i]);
            }
            for (int i = 0; i < N; i++)
                sum += exp(dot[i] - top);
            for (int i = 0; i < N; i++)
                prob[row * N + (size_t)i] = (float)(exp(dot[i] - top) / sum);
            lse[row] = (float)(top + log(sum));
        }
    return (kept_view_head){.n = N,
                            .pos = pos,
                            .guard = guard,
                            .mass = rig_mass(r, 0, 0, h),
                            .key = rig_k(r, 0, h),
                            .key0 = rig_k(r, 0, h),
                            .value = rig_v(r, 0, h),
                            .weight = rig_mass(r, 0, 0, h),
                            .query = query,
                            .prob = prob,
                            .lse = lse,
                            .q_mean = r->q_mean + q,
                            .q_cov = r->q_cov + q * 64};
}

static void finite_on(const kept_score *score, pattern kind)
{
    const kept_part *part = &score->part;
    rig r = make(kind, N, part->name);
    float out[N + 1];
    int32_t pos[N];
    double option[KEPT_MAX_OPTIONS];
    float *scratch = rig_array(4 * N + KEPT_SCRATCH), *pooled = rig_array(N);
    uint64_t *work = rig_array(4 * N);
    size_t rows = (size_t)(r.capture.n_recent * r.group);
    float *prob = rig_array(rows * N + 1), *lse = rig_array(rows + 1);
    kept_view_head head[2];
    for (int k = 0; k < part->n_options; k++)
        option[k] = part->options[k].value;
    for (int k = 0; k < N; k++)
        pos[k] = k;
    for (int h = 0; h < 2; h++)
        head[h] = head_of(&r, h, pos, prob, lse);
    kept_view v = {.n_layers = 3,
                   .n_heads = 2,
                   .group = 2,
                   .head_size = 64,
                   .n_recent = r.capture.n_recent,
                   .next_pos = N,
                   .share = N / 2,
                   .attn_scale = 0.125f,
                   .heads = head,
                   .options = option,
                   .rope_freq = r.freq,
                   .n_rope = 64,
                   .scratch = scratch,
                   .pooled = pooled,
                   .work = work,
                   .kern = kept_kern_get("ref"),
                   .trained = r.n_trained ? r.trained[0] : NULL};
    if (score->grouped)
        v.grouping = (kept_grouping){.gqa = (kept_gqa)option[part->n_options - 4],
                                     .pool = (kept_pool_kind)option[part->n_options - 3],
                                     .kernel = (int)option[part->n_options - 2],
                                     .pool_first = option[part->n_options - 1] != 0};
    out[N] = -12345;
    score->score(&v, 1, out);
    for (int k = 0; k < N; k++)
        if (!isfinite(out[k])) {
            fprintf(stderr, "%s, pattern %d: score %d is %g\n", part->name, kind, k, out[k]);
            test_failed = 1;
            break;
        }
    CHECK(out[N] == -12345);
    free(scratch);
    free(pooled);
    free(work);
    free(prob);
    free(lse);
    rig_unlend(&r);
    rig_free(&r);
}

/* Finite scores on every pattern, and nothing written beyond n. */
static void test_scores_are_finite(void)
{
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *part = kept_part_at(i);
        if (part->axis != KEPT_AXIS_SCORE || part == &kept_score_full.part)
            continue;
        for (int kind = 0; kind < N_PATTERNS; kind++)
            finite_on((const kept_score *)(const void *)part, (pattern)kind);
    }
}

int main(void)
{
    RUN(test_scores_are_finite);
    RUN(test_one_eviction);
    RUN(test_neighbours);
    RUN(test_odd_input);
    RUN(test_missing_state);
    TEST_END();
}
