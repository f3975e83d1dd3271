/* test_graded: pages in forms by what their slots scored: by rank, and by water-filling. The scores
 * are those that a full cache recorded; what each page holds and its form are then found by naive
 * sorting, and for water-filling by bisection over the level of the paper's formula. */
#include "mixed_rig.h"

enum { MAX_HEADS = 8, MAX_PAGES = MOST / P64 + 2 };

/* What the scores say of one head, and what it holds. */
typedef struct head {
    float score[MOST];  /* by position */
    int32_t best[MOST]; /* positions kept, the best first */
    int n;
} head;

static head heads[MAX_HEADS];
static int n_heads;

static const head *sorting;
static int by_score(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const float p = sorting->score[x], q = sorting->score[y];
    return p > q ? -1 : p < q ? 1 : x > y ? -1 : 1;
}

static void sort_best(head *h)
{
    sorting = h;
    qsort(h->best, (size_t)h->n, sizeof *h->best, by_score);
}

/* Scores of st's prompt, as a full cache recorded them; every head keeps everything. */
static void read_scores(util_run *r, const kept_strategy *st)
{
    kept_capture cap = {0};
    kept_seq *s = NULL;
    CHECK_INT(kept_strategy_needs(st, &cap, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_new(r->engine, NULL, &cap, 3, &s, &r->err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(s, tokens, N_PROMPT, CHUNK, 0, &r->err), KEPT_OK);
    n_heads = 0;
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++) {
            head *x = &heads[n_heads++];
            x->n = kept_seq_plane(s, l, h, cap.plane[0], x->score, MOST);
            CHECK_INT(x->n, N_PROMPT);
            for (int i = 0; i < x->n; i++)
                x->best[i] = i;
        }
    kept_seq_free(s);
}

static bool is_protected(int32_t pos)
{
    return pos < 4 || pos >= N_PROMPT - 32;
}

/* The first n of all positions: protected ones, then the best. */
static void keep_best(head *h, int n)
{
    int32_t all[MOST];
    int m = 0;
    h->n = N_PROMPT;
    for (int i = 0; i < N_PROMPT; i++)
        h->best[i] = i;
    sort_best(h);
    for (int first = 1; first >= 0; first--)
        for (int i = 0; i < N_PROMPT; i++)
            if (is_protected(h->best[i]) == first)
                all[m++] = h->best[i];
    memcpy(h->best, all, sizeof all);
    h->n = n;
}

/* Page i of a head holds exactly those positions, in any order. */
static void check_page(const kept_seq *s, int l, int h, int page, const int32_t *want, int n)
{
    static int32_t pos[MOST];
    kept_cache_read(s->cache, l, h, pos, NULL, NULL);
    for (int i = 0; i < n; i++) {
        bool found = false;
        for (int k = page * P64; k < page * P64 + n; k++)
            found |= pos[k] == want[i];
        CHECK(found);
    }
}

/* ---- by rank --------------------------------------------------------------------------------- */

/* form: of keys, of values */
static void check_ranked(const char *parts, const uint8_t form[2][3], double top, double mid,
                         double percent)
{
    char spec[200];
    snprintf(spec, sizeof spec, "%s@%g%%", parts, percent);
    util_run r = start();
    kept_strategy *st = parse(spec);
    read_scores(&r, st);
    kept_seq *s = run(&r, st, 0, NULL);
    for (int i = 0; i < n_heads; i++) {
        head *x = &heads[i];
        const int l = i / info->n_kv_heads, h = i % info->n_kv_heads;
        const int n = kept_cache_n(s->cache, l, h), full = n / P64, rest = n % P64;
        keep_best(x, n);
        sort_best(x);
        check_page(s, l, h, full, x->best, rest); /* the best fill the page that is f16 */
        const int n_top = (int)floor(top * full + 1e-9);
        const int n_mid = (int)floor((top + mid) * full + 1e-9) - n_top;
        for (int k = 0; k < full; k++) {
            check_page(s, l, h, k, x->best + rest + k * P64, P64);
            const int rung = k < n_top ? 0 : k < n_top + n_mid ? 1 : 2;
            CHECK_INT(form_of(s, l, h, k).k, form[0][rung]);
            CHECK_INT(form_of(s, l, h, k).v, form[1][rung]);
        }
    }
    CHECK_INT(kv_bytes(s), kept_strategy_bytes(st, info->n_layers, info->n_kv_heads, D,
                                               (uint64_t)kept_seq_held(s).slots));
    if (test_failed)
        fprintf(stderr, "  with %s\n", spec);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void test_ranked(void)
{
    static const uint8_t usual[2][3] = {{KEPT_Q8, KEPT_ROT4, KEPT_ROT2},
                                        {KEPT_Q8, KEPT_ROT4, KEPT_ROT2}};
    static const uint8_t other[2][3] = {{KEPT_F16, KEPT_Q8, KEPT_Q4}, {KEPT_F16, KEPT_Q8, KEPT_Q4}};
    static const uint8_t apart[2][3] = {{KEPT_Q8, KEPT_CHAN4, KEPT_CHAN4},
                                        {KEPT_ROT4, KEPT_ROT4, KEPT_ROT2}};
    check_ranked("h2o+ranked", usual, 0.25, 0.5, 100);
    check_ranked("h2o+ranked", usual, 0.25, 0.5, 20);
    check_ranked("h2o+ranked(top=f16,mid=q8,low=q4,top-part=0.2,mid-part=0.3)", other, 0.2, 0.3,
                 45);
    check_ranked("h2o+ranked(mid=chan4,top-v=rot4,low-v=rot2)", apart, 0.25, 0.5, 30);
}

/* ---- water-filling --------------------------------------------------------------------------- */

static const int widths[] = {0, 2, 3, 4, 8, 16};
static const uint8_t codec_of[] = {KEPT_F16, KEPT_ROT2, KEPT_ROT3, KEPT_ROT4, KEPT_Q8, KEPT_F16};

static int lag; /* widths that values are narrower than keys */

static bool channel; /* keys of 4 bits and fewer have scales per channel */
static const int channel_widths[] = {0, 2, 4, 4, 8, 16};

static uint8_t key_codec(int width)
{
    static const uint8_t of[] = {KEPT_F16, KEPT_CHAN2, KEPT_CHAN4, KEPT_CHAN4, KEPT_Q8, KEPT_F16};
    return channel ? of[width] : codec_of[width];
}

static uint8_t value_codec(int width)
{
    return codec_of[width > lag ? width - lag : width ? 1 : 0];
}

static double bits_at(int width)
{
    return ((channel ? channel_widths : widths)[width] + widths[width > lag ? width - lag
                                                                : width     ? 1
                                                                            : 0]) /
           2.0;
}

typedef struct group {
    double worth;
    int slots; /* less than a page: f16 or nothing */
    bool stays;
} group;

static group groups[MAX_HEADS][MAX_PAGES];
static int n_groups[MAX_HEADS];

static double bytes_of(const group *g, int width)
{
    if (!width || g->slots < P64)
        return width ? g->slots * 4.0 * D : 0;
    return (double)kept_codec_page_bytes((kept_codecs){key_codec(width), value_codec(width)}, D);
}

/* b = max(0, 1/2 log2(w^power / level)), to the nearest of the widths that it may have. */
static int width_at(const group *g, double log_level, double power, int low, int high)
{
    const double b = fmax(0, (power * log2(g->worth) - log_level) / 2);
    int best = 0;
    for (int w = low; w <= high; w++)
        if (g->slots == P64 && fabs(b - bits_at(w)) < fabs(b - bits_at(best)))
            best = w;
    if (g->slots < P64 && b >= 8)
        best = 5;
    return g->stays && !best ? (g->slots < P64 ? 5 : low) : best;
}

static double total_at(double log_level, double power, int low, int high)
{
    double sum = 0;
    for (int i = 0; i < n_heads; i++)
        for (int k = 0; k < n_groups[i]; k++)
            sum += bytes_of(&groups[i][k], width_at(&groups[i][k], log_level, power, low, high));
    return sum;
}

/* The lowest level that the bytes allow, by bisection. */
static double find_level(double bytes, double power, int low, int high)
{
    double from = -400, to = 400;
    for (int i = 0; i < 200; i++) {
        const double mid = (from + to) / 2;
        *(total_at(mid, power, low, high) > bytes ? &from : &to) = mid;
    }
    return to;
}

/* Groups of a page each of what every head keeps, in the order of best. */
static void make_groups(bool stay)
{
    for (int i = 0; i < n_heads; i++) {
        n_groups[i] = 0;
        for (int at = 0; at < heads[i].n; at += P64) {
            group *g = &groups[i][n_groups[i]++];
            g->slots = heads[i].n - at < P64 ? heads[i].n - at : P64;
            g->worth = 0;
            g->stays = stay || at < 36;
            for (int k = 0; k < g->slots; k++)
                g->worth += (double)heads[i].score[heads[i].best[at + k]] / g->slots;
        }
    }
}

static void check_water(const char *parts, double power, int low, int high, double percent)
{
    char spec[200];
    snprintf(spec, sizeof spec, "%s@%g%%", parts, percent);
    util_run r = start();
    kept_strategy *st = parse(spec);
    read_scores(&r, st);
    kept_seq *s = run(&r, st, 0, NULL);
    const double bytes = percent / 100 * n_heads * N_PROMPT * 4 * D;
    for (int i = 0; i < n_heads; i++)
        keep_best(&heads[i], N_PROMPT);
    make_groups(false);
    double level = find_level(bytes, power, low, high), spent = 0;
    int seen[6] = {0};
    for (int i = 0; i < n_heads; i++) {
        int n = 0;
        for (int k = 0; k < n_groups[i]; k++)
            n += width_at(&groups[i][k], level, power, low, high) ? groups[i][k].slots : 0;
        CHECK_INT(kept_cache_n(s->cache, i / info->n_kv_heads, i % info->n_kv_heads), n);
        keep_best(&heads[i], n);
        sort_best(&heads[i]);
        const int rest = n % P64; /* in the page that fills, and f16 */
        check_page(s, i / info->n_kv_heads, i % info->n_kv_heads, n / P64, heads[i].best, rest);
        spent += rest * 4.0 * D;
        heads[i].n -= rest;
        memmove(heads[i].best, heads[i].best + rest, (size_t)heads[i].n * sizeof(int32_t));
    }
    make_groups(true);
    level = find_level(bytes - spent, power, low, high);
    for (int i = 0; i < n_heads; i++)
        for (int k = 0; k < n_groups[i]; k++) {
            const int l = i / info->n_kv_heads, h = i % info->n_kv_heads;
            const int width = width_at(&groups[i][k], level, power, low, high);
            check_page(s, l, h, k, heads[i].best + k * P64, P64);
            CHECK_INT(form_of(s, l, h, k).k, key_codec(width));
            CHECK_INT(form_of(s, l, h, k).v, value_codec(width));
            spent += bytes_of(&groups[i][k], width);
            seen[width]++;
        }
    CHECK(spent <= bytes);
    CHECK((double)kv_bytes(s) <= spent + n_heads * (double)kept_page_bytes(D));
    printf("# %-60s rot2 %d rot3 %d rot4 %d q8 %d f16 %d\n", spec, seen[1], seen[2], seen[3],
           seen[4], seen[5]);
    if (test_failed)
        fprintf(stderr, "  with %s\n", spec);
    kept_seq_free(s);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

static void test_waterfill(void)
{
    const double percent[] = {4, 12, 30, 70};
    for (int i = 0; i < 4; i++) {
        check_water("h2o+waterfill", 2, 1, 5, percent[i]);
        check_water("h2o+waterfill(most=q8,least=rot3,power=4)", 4, 2, 4, percent[i]);
        lag = 1;
        check_water("h2o+waterfill(lag=1)", 2, 1, 5, percent[i]);
        lag = 0;
        channel = true;
        check_water("h2o+waterfill(keys=channel)", 2, 1, 5, percent[i]);
        channel = false;
    }
}

/* At the edge, of two layers of two, every page is at least what edge-as says. */
static void test_edge(void)
{
    util_run r = start();
    kept_strategy *st = parse("h2o+waterfill(edge=1,edge-as=q8,lag=3)@40%");
    kept_seq *s = run(&r, st, 0, NULL);
    int n = 0;
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++)
            for (int k = 0; k < kept_cache_n(s->cache, l, h) / P64; k++, n++) {
                const kept_codecs c = form_of(s, l, h, k);
                CHECK((c.k == KEPT_Q8 || c.k == KEPT_F16) && (c.v == KEPT_Q8 || c.v == KEPT_F16));
            }
    CHECK(n > 0);
    kept_seq_free(s);
    kept_strategy_free(st);
    check_budget(&r, "h2o+waterfill(edge=1,edge-as=q8,lag=3)", 40);
    kept_engine_free(r.engine);
}

/* One width is eviction alone, of whole pages by their mean, heads against each other: what is kept
 * has the bits of the full cache. */
static void test_one_width(void)
{
    static float k[2][MOST * D], v[2][MOST * D];
    static int32_t pos[MOST];
    util_run r = start();
    kept_strategy *st = parse("h2o+waterfill(most=f16,least=f16)@40%");
    check_water("h2o+waterfill(most=f16,least=f16)", 2, 5, 5, 40);
    kept_seq *full = run(&r, NULL, 0, NULL), *s = run(&r, st, 0, NULL);
    for (int i = 0; i < n_heads; i++) {
        const int l = i / info->n_kv_heads, h = i % info->n_kv_heads;
        kept_cache_read(full->cache, l, h, NULL, k[0], v[0]);
        kept_cache_read(s->cache, l, h, pos, k[1], v[1]);
        for (int n = 0; n < kept_cache_n(s->cache, l, h); n++) {
            CHECK(!memcmp(k[1] + n * D, k[0] + pos[n] * D, D * sizeof(float)));
            CHECK(!memcmp(v[1] + n * D, v[0] + pos[n] * D, D * sizeof(float)));
        }
    }
    kept_seq_free(s);
    kept_seq_free(full);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

/* ---- budgets and schedules ------------------------------------------------------------------- */

static void test_budgets(void)
{
    static const char *const specs[] = {"snapkv+ranked",
                                        "snapkv+ada+ranked(top=f16,mid=q8)",
                                        "knorm+waterfill",
                                        "keydiff+ranked+slot",
                                        "rdkv",
                                        "h2o+waterfill(lag=2)",
                                        "snapkv+ranked(top=chan4,low=chan2,edge=1,edge-as=q8)",
                                        "expected-attention+waterfill(power=1)+chunks"};
    const double percent[] = {6, 25, 60};
    util_run r = start();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (int p = 0; p < 3; p++)
            check_budget(&r, specs[i], percent[p]);
    kept_engine_free(r.engine);
}

/* Graded again and again: logits stay finite, bytes within the budget and what may come between two
 * gradings, and pages never get wider than the form they had. */
static void test_again(void)
{
    static const char *const specs[] = {
        "h2o+waterfill+decode(every=5)@20%",
        "h2o+ranked+decode(every=9)@30%",
        "knorm+waterfill+merging+decode(every=16)@25%",
        "snapkv+ranked+pressure@30%",
        "rdkv+rerotated+decode@15%",
        "adaptive(signal=entropy,calm=full+aged,tight=h2o+waterfill,every=4)@20%",
        "adaptive(signal=entropy,calm=h2o+ranked@60%,tight=h2o+aged(new=rot3)@20%,every=4)"};
    const double part[] = {0.2, 0.3, 0.25, 1, 0.15, 1, 1};
    float *out = calloc((size_t)N_DECODE * (size_t)info->n_vocab, sizeof(float));
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        util_run r = start();
        kept_strategy *st = parse(specs[i]);
        kept_seq *s = run(&r, st, N_DECODE, out);
        const double page = (double)n_heads * (double)kept_page_bytes(D);
        CHECK((double)kv_bytes(s) <= part[i] * n_heads * N_PROMPT * 4 * D + 2 * page);
        for (int k = 0; k < N_DECODE * info->n_vocab; k++)
            CHECK(isfinite(out[k]));
        if (test_failed)
            fprintf(stderr, "  with %s\n", specs[i]);
        kept_seq_free(s);
        kept_strategy_free(st);
        kept_engine_free(r.engine);
    }
    free(out);
}

/* A fork of a full prefix leaves the prefix as it was and has the bits of one that read it. */
static void test_fork(void)
{
    const size_t n = 8 * (size_t)info->n_vocab;
    float *out[2] = {calloc(n, sizeof(float)), calloc(n, sizeof(float))};
    util_run r = start();
    kept_strategy *st = parse("rdkv@15%");
    kept_capture cap = {0};
    kept_seq *base = NULL, *s[2] = {run(&r, st, 8, out[0]), NULL};
    CHECK_INT(kept_strategy_needs(st, &cap, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_new(r.engine, NULL, &cap, 3, &base, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_prefill(base, tokens, N_PROMPT, CHUNK, 0, &r.err), KEPT_OK);
    const uint64_t before = kv_bytes(base);
    CHECK_INT(kept_seq_fork(base, st, NULL, 3, &s[1], &r.err), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s[1], &r.err), KEPT_OK);
    CHECK_INT(util_decode(&r, s[1], tokens + N_PROMPT, 8, out[1]), KEPT_OK);
    CHECK_INT(kv_bytes(base), before);
    CHECK_INT(kv_bytes(s[1]), kv_bytes(s[0]));
    CHECK(!memcmp(out[0], out[1], n * sizeof(float)));
    for (int i = 0; i < 2; i++) {
        kept_seq_free(s[i]);
        free(out[i]);
    }
    kept_seq_free(base);
    kept_strategy_free(st);
    kept_engine_free(r.engine);
}

int main(void)
{
    open_model();
    RUN(test_ranked);
    RUN(test_waterfill);
    RUN(test_edge);
    RUN(test_one_width);
    RUN(test_budgets);
    RUN(test_again);
    RUN(test_fork);
    close_model();
    TEST_END();
}
