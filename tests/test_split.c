/* Contracts of every allocator of the registry on splits alone: bounds, exact totals, determinism,
 * what layerwise and cascades promise, and relations between allocators that hold by construction.
 * Only test_relations and the scale test know names.
 */
#include "trained_rig.h"

#define MAX_LAYERS 6
#define MAX_HEADS  4
#define MAX_N      80
#define ALL        (MAX_LAYERS * MAX_HEADS)

typedef struct world {
    int layer[MAX_LAYERS], n[ALL], guard[ALL], scratch[ALL];
    float value[ALL][MAX_N];
    const float *score[ALL];
    double signal[2 * ALL], cosine[MAX_LAYERS], share[ALL], option[KEPT_MAX_OPTIONS];
    kept_trained *table;
    bool odd; /* signals that are no sums of anything */
    kept_split s;
} world;

static double any_number(kept_rng *rng)
{
    static const double odd[] = {0, -1, 1e300, 1e-300};
    switch (kept_rng_below(rng, 8)) {
    case 0:
        return NAN;
    case 1:
        return INFINITY;
    case 2:
        return odd[kept_rng_below(rng, 4)];
    default:
        return kept_rng_unit(rng);
    }
}

static int falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

static void fill_scores(world *w, kept_rng *rng)
{
    int kind = (int)kept_rng_below(rng, 5);
    for (int i = 0; i < ALL; i++) {
        w->score[i] = w->value[i];
        for (int k = 0; k < MAX_N; k++)
            w->value[i][k] = kind == 0   ? 0
                             : kind == 1 ? (float)kept_rng_below(rng, 3) - 1
                             : kind == 2 ? (float)kept_rng_unit(rng)
                             : kind == 3 ? 3e38f * (float)(kept_rng_unit(rng) - 0.5)
                                         : (float)kept_rng_normal(rng) * 1e3f;
    }
}

static void fill_counts(world *w, kept_rng *rng, bool even)
{
    kept_split *s = &w->s;
    int64_t most = 10;
    for (int i = 0; i < s->n_layers * s->n_heads; i++) {
        w->n[i] = even ? 70 : (int)kept_rng_below(rng, MAX_N);
        w->guard[i] = even ? 5 : (int)kept_rng_below(rng, 20);
        most += w->n[i] + w->guard[i];
    }
    s->total = kept_rng_below(rng, 8) ? kept_rng_below(rng, (uint32_t)most) : 0;
    s->n_tokens = even ? 75 : 40 + (int)kept_rng_below(rng, 100);
}

/* A table of the kind that a reads: sound, too short, with odd numbers, or none. */
static void fill_table(world *w, const kept_allocator *a, kept_rng *rng)
{
    static const char *const names[] = {"alpha", "score", "keep", "ratio"};
    int kind = (int)kept_rng_below(rng, 6), n_layers = w->layer[w->s.n_layers - 1] + 1;
    w->table = NULL;
    if (!a->trained || kind == 0)
        return;
    if (kind > 2) {
        n_layers -= kind == 3;
        w->table = rig_table(
            a->trained, &(rig){.n_layers = n_layers ? n_layers : 1, .n_heads = w->s.n_heads}, 1);
        return;
    }
    CHECK_INT(kept_trained_new(a->trained, RIG_MODEL, &w->table, NULL), KEPT_OK);
    for (int i = 0; i < 4; i++) {
        float x[4 * 2 * ALL];
        size_t n = i == 3 ? 4 : (size_t)(n_layers * w->s.n_heads) * (i == 2 ? 4 : 1);
        for (size_t k = 0; k < n; k++)
            x[k] = (float)any_number(rng);
        CHECK_INT(kept_trained_put(w->table, names[i], x, n, NULL), KEPT_OK);
    }
}

static void fill(world *w, const kept_allocator *a, kept_rng *rng, bool even)
{
    kept_split *s = &w->s;
    *s = (kept_split){.n_layers = 1 + (int)kept_rng_below(rng, MAX_LAYERS),
                      .n_heads = 1 + (int)kept_rng_below(rng, MAX_HEADS),
                      .layer = w->layer,
                      .n = w->n,
                      .score = w->score,
                      .n_protected = w->guard,
                      .signal = w->signal,
                      .cosine = w->cosine,
                      .options = w->option,
                      .scratch = w->scratch,
                      .share = w->share};
    bool odd = w->odd = kept_rng_below(rng, 2);
    for (int l = 0, at = 0; l < MAX_LAYERS; l++) {
        at += (int)kept_rng_below(rng, 2);
        w->layer[l] = at++;
        w->cosine[l] = odd ? any_number(rng) : kept_rng_unit(rng);
    }
    for (int i = 0; i < 2 * ALL; i++)
        w->signal[i] = odd ? any_number(rng) : kept_rng_unit(rng);
    for (int k = 0; k < a->part.n_options; k++) {
        const kept_option *o = &a->part.options[k];
        w->option[k] = kept_rng_below(rng, 2) ? o->value : kept_rng_below(rng, 2) ? o->min : o->max;
    }
    fill_scores(w, rng);
    fill_counts(w, rng, even);
    for (int i = 0; i < ALL && a->falling; i++)
        qsort(w->value[i], (size_t)w->n[i], sizeof(float), falling);
    fill_table(w, a, rng);
    s->trained = w->table;
}

static int64_t sum_of(const int *x, int n)
{
    int64_t sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void check_split(const kept_allocator *a, const world *w, const int *keep)
{
    const kept_split *s = &w->s;
    int n = s->n_layers * s->n_heads;
    int64_t guarded = sum_of(w->guard, n), candidates = sum_of(w->n, n), kept = sum_of(keep, n);
    int64_t open = s->total > guarded ? s->total - guarded : 0;
    int64_t most = open < candidates ? open : candidates;
    for (int i = 0; i < n; i++)
        CHECK(keep[i] >= 0 && keep[i] <= w->n[i]);
    CHECK(kept <= most);
    CHECK(kept == most || a->data_dependent);
}

/* ---- what layerwise and cascades promise ---------------------------------------------------- */

/* Every other layer shown as layer l, as a layer-major prefill does: layer l keeps the same. */
static void check_layerwise(const kept_allocator *a, const world *w, const int *keep)
{
    static world x;
    int H = w->s.n_heads, again[ALL];
    for (int l = 0; l < w->s.n_layers; l++) {
        x = *w;
        for (int i = 0; i < w->s.n_layers * H; i++) {
            int from = l * H + i % H;
            x.score[i] = w->value[from];
            x.signal[2 * i] = w->signal[2 * from];
            x.signal[2 * i + 1] = w->signal[2 * from + 1];
        }
        x.s.layer = x.layer;
        x.s.score = x.score;
        x.s.signal = x.signal;
        a->split(&x.s, again);
        CHECK(!memcmp(again + l * H, keep + l * H, (size_t)H * sizeof *keep));
    }
}

/* Without the last layer, the others keep as much or more, but for rounding: a slot less of the
 * least that every head gets can fall to one head. */
static void check_cascade(const kept_allocator *a, const world *w, const int *keep)
{
    kept_split s = w->s;
    int before[ALL];
    if (--s.n_layers < 1)
        return;
    a->split(&s, before);
    for (int i = 0; i < s.n_layers * s.n_heads; i++)
        CHECK(before[i] + s.n_layers * s.n_heads >= keep[i]);
}

/* ---- all allocators ------------------------------------------------------------------------ */

static void split_once(const kept_allocator *a, kept_rng *rng)
{
    static world w;
    int keep[ALL], again[ALL];
    bool even = kept_rng_below(rng, 2);
    fill(&w, a, rng, even);
    memset(keep, 0x55, sizeof keep);
    memset(again, 0xaa, sizeof again);
    a->split(&w.s, keep);
    check_split(a, &w, keep);
    memset(w.scratch, 0x33, sizeof w.scratch);
    a->split(&w.s, again);
    int n = w.s.n_layers * w.s.n_heads;
    CHECK(!memcmp(keep, again, (size_t)n * sizeof *keep));
    CHECK(n == ALL || again[n] == (int)0xaaaaaaaa);
    if (a->layerwise && even)
        check_layerwise(a, &w, keep);
    if (a->cascades && even && !w.odd)
        check_cascade(a, &w, keep);
    /* Scores four times as large say the same, unless they are compared with a number. */
    for (int i = 0; i < n; i++)
        for (int k = 0; k < MAX_N; k++)
            w.value[i][k] *= fabsf(w.value[i][k]) < 1e30f ? 4 : 1;
    if (a != &kept_alloc_threshold && fabsf(w.value[0][0]) < 1e30f) {
        a->split(&w.s, again);
        for (int i = 0; i < n; i++)
            CHECK(abs(again[i] - keep[i]) <= 1);
    }
    kept_trained_free(w.table);
}

static void test_contracts(void)
{
    for (int i = 0; i < kept_part_count(); i++)
        if (kept_part_at(i)->axis == KEPT_AXIS_ALLOCATOR) {
            kept_rng rng;
            kept_rng_init(&rng, 3);
            int before = test_failed;
            test_failed = 0;
            for (int k = 0; k < 1500 && !test_failed; k++)
                split_once((const kept_allocator *)(const void *)kept_part_at(i), &rng);
            if (test_failed)
                fprintf(stderr, "  with %s\n", kept_part_at(i)->name);
            test_failed |= before;
        }
}

/* ---- relations between allocators ----------------------------------------------------------- */

/* Sum of what is kept of scores sorted in falling order. */
static double mass(const world *w, const int *keep)
{
    double sum = 0;
    for (int i = 0; i < w->s.n_layers * w->s.n_heads; i++)
        for (int k = 0; k < keep[i]; k++)
            sum += w->value[i][k];
    return sum;
}

static void test_relations(void)
{
    static world w;
    kept_rng rng;
    kept_rng_init(&rng, 8);
    for (int turn = 0; turn < 500 && !test_failed; turn++) {
        int a[ALL], b[ALL], n;
        fill(&w, &kept_alloc_uniform, &rng, true);
        n = w.s.n_layers * w.s.n_heads;
        for (int i = 0; i < n; i++) {
            for (int k = 0; k < MAX_N; k++)
                w.value[i][k] = (float)(kept_rng_unit(&rng) * exp(2.0 * (i % 5)));
            qsort(w.value[i], (size_t)w.n[i], sizeof(float), falling);
        }
        w.s.total = (int64_t)n * (5 + (int)kept_rng_below(&rng, 70));
        kept_alloc_uniform.split(&w.s, a);
        double even = mass(&w, a);
        for (int i = 0; i < n; i++)
            CHECK_INT(a[i], w.s.total / n - 5);
        /* A slope of nothing is no slope. */
        w.option[0] = 1;
        kept_alloc_pyramid.split(&w.s, b);
        CHECK(!memcmp(a, b, (size_t)n * sizeof *a));
        kept_alloc_headkv.split(&w.s, b); /* no table */
        CHECK(!memcmp(a, b, (size_t)n * sizeof *a));
        /* Competition holds no less than an even split, and more of it no less than less of it. */
        w.option[0] = kept_rng_unit(&rng);
        kept_alloc_ada.split(&w.s, b);
        double ada = mass(&w, b);
        CHECK(ada >= even * (1 - 1e-12));
        w.option[0] = 0;
        kept_alloc_ada.split(&w.s, b);
        CHECK(mass(&w, b) >= ada * (1 - 1e-12));
        kept_alloc_global.split(&w.s, a);
        CHECK(mass(&w, a) >= mass(&w, b) * (1 - 1e-12));
        kept_trained_free(w.table);
    }
}

int main(void)
{
    RUN(test_contracts);
    RUN(test_relations);
    TEST_END();
}
