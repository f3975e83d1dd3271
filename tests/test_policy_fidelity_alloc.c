/* Allocators that split by entropy, variance, cosine, thresholds or tables, against a naive reading
 * of the formula of each in double precision: which part every layer or head is due, poured out by
 * an algorithm of the test's own (sorted break points), rounded by largest remainder.
 */
#include "trained_rig.h"

#define L   4
#define H   3
#define ALL (L * H)
#define N   90
#define T   8
#define G   3

typedef struct world {
    int layer[L], n[ALL], guard[ALL], scratch[ALL];
    float value[ALL][N];
    const float *score[ALL];
    double signal[2 * ALL], cosine[L], share[ALL], option[KEPT_MAX_OPTIONS];
    kept_split s;
} world;

static const kept_allocator *find(const char *name)
{
    const kept_part *p = kept_part_find(KEPT_AXIS_ALLOCATOR, name);
    CHECK(p != NULL);
    return p ? (const kept_allocator *)(const void *)p : NULL;
}

static void fill(world *w, const kept_allocator *a, kept_rng *rng)
{
    w->s = (kept_split){.n_layers = L,
                        .n_heads = H,
                        .layer = w->layer,
                        .n = w->n,
                        .score = w->score,
                        .n_protected = w->guard,
                        .signal = w->signal,
                        .cosine = w->cosine,
                        .options = w->option,
                        .n_tokens = N + 10,
                        .scratch = w->scratch,
                        .share = w->share};
    for (int k = 0; k < a->part.n_options; k++)
        w->option[k] = a->part.options[k].value;
    int64_t most = 0;
    for (int i = 0; i < ALL; i++) {
        w->n[i] = 20 + (int)kept_rng_below(rng, N - 20);
        w->guard[i] = (int)kept_rng_below(rng, 10);
        most += w->n[i] + w->guard[i];
        w->score[i] = w->value[i];
        double peak = 1 + 6 * kept_rng_unit(rng); /* some heads are sharp, some are flat */
        for (int k = 0; k < N; k++)
            w->value[i][k] = (float)pow(kept_rng_unit(rng), peak);
        w->signal[2 * i] = kept_rng_unit(rng);
        w->signal[2 * i + 1] = kept_rng_unit(rng);
    }
    for (int l = 0; l < L; l++) {
        w->layer[l] = l;
        w->cosine[l] = kept_rng_unit(rng);
    }
    w->s.total = (int64_t)((0.1 + 0.8 * kept_rng_unit(rng)) * (double)most);
}

static int64_t open_of(const world *w)
{
    int64_t left = w->s.total;
    for (int i = 0; i < ALL; i++)
        left -= w->guard[i];
    return left > 0 ? left : 0;
}

/* ---- pouring: holders rise in proportion to due[], each from under[] below the ground to cap[] --
 */

static double at_level(double due, double under, double cap, double level)
{
    double x = level * due - under;
    return x < 0 ? 0 : x > cap ? cap : x;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between two neighbouring break points the total is a straight line, so the level is solved for.
 */
static double solve(int n, const double *due, const double *under, const double *cap, double slots)
{
    double point[2 * ALL + 1], low = 0, sum_low = 0;
    int m = 0;
    for (int i = 0; i < n; i++) {
        point[m++] = under[i] / due[i];
        point[m++] = (under[i] + cap[i]) / due[i];
    }
    qsort(point, (size_t)m, sizeof *point, by_value);
    for (int k = 0; k < m; k++) {
        double sum = 0;
        for (int i = 0; i < n; i++)
            sum += at_level(due[i], under[i], cap[i], point[k]);
        if (sum >= slots && sum > sum_low)
            return low + (point[k] - low) * (slots - sum_low) / (sum - sum_low);
        low = point[k];
        sum_low = sum;
    }
    return low;
}

/* What everybody gets in whole slots; ties in the remainder go to the first. False: a tie that
 * double precision cannot tell (then nothing can be expected to the slot). */
static bool pour(int n, const double *due, const double *under, const double *cap, int64_t slots,
                 int *keep)
{
    double level = solve(n, due, under, cap, (double)slots), rest[ALL];
    bool given[ALL] = {false};
    int64_t left = slots;
    for (int i = 0; i < n; i++) {
        double x = at_level(due[i], under[i], cap[i], level);
        keep[i] = (int)floor(x + 1e-9);
        rest[i] = x - keep[i];
        left -= keep[i];
    }
    for (; left > 0; left--) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (!given[i] && keep[i] < cap[i] && (best < 0 || rest[i] > rest[best] + 1e-9))
                best = i;
        if (best < 0)
            return true;
        for (int i = 0; i < n; i++)
            if (i != best && !given[i] && fabs(rest[i] - rest[best]) < 1e-7)
                return false;
        given[best] = true;
        keep[best]++;
    }
    return true;
}

/* Slots of layers by their due, protected ones included, then what is open in each. */
static bool pour_layers(const world *w, const double *due, int *open)
{
    double under[L], cap[L];
    for (int l = 0; l < L; l++) {
        under[l] = cap[l] = 0;
        for (int h = 0; h < H; h++) {
            under[l] += w->guard[l * H + h];
            cap[l] += w->n[l * H + h];
        }
    }
    return pour(L, due, under, cap, open_of(w), open);
}

/* Heads [first, first + n) are filled slot by slot, the emptiest (the first of those) next. */
static void fill_up(const world *w, int first, int n, const int *cap, int64_t slots, int *keep)
{
    for (int i = first; i < first + n; i++)
        keep[i] = 0;
    for (; slots > 0; slots--) {
        int best = -1;
        for (int i = first; i < first + n; i++)
            if (keep[i] < cap[i] &&
                (best < 0 || keep[i] + w->guard[i] < keep[best] + w->guard[best]))
                best = i;
        if (best < 0)
            return;
        keep[best]++;
    }
}

/* ---- what each is due ----------------------------------------------------------------------- */

static bool expect_cake(const world *w, int *keep)
{
    double due[L], tau1 = w->option[1], tau2 = w->option[2];
    int open[L];
    for (int l = 0; l < L; l++) {
        double entropy = 0, variance = 0;
        for (int h = 0; h < H; h++) {
            entropy += w->signal[2 * (l * H + h)];
            variance += w->signal[2 * (l * H + h) + 1];
        }
        due[l] = pow(entropy, 1 / tau1) * pow(variance, 1 / tau2);
    }
    bool sure = pour_layers(w, due, open);
    for (int l = 0; l < L; l++)
        fill_up(w, l * H, H, w->n, open[l], keep);
    return sure;
}

/* The best `slots` of heads [first, first + n) in one list, floor_ of each head's best first. */
static void compete(const world *w, int first, int n, int64_t slots, int floor_, int *keep)
{
    bool taken[ALL][N] = {{false}};
    for (int i = first; i < first + n; i++) {
        int least = floor_ < w->n[i] ? floor_ : w->n[i];
        for (keep[i] = 0; keep[i] < least; keep[i]++) {
            int best = -1;
            for (int k = 0; k < w->n[i]; k++)
                if (!taken[i][k] && (best < 0 || w->value[i][k] > w->value[i][best]))
                    best = k;
            taken[i][best] = true;
            slots--;
        }
    }
    for (; slots > 0; slots--) {
        int bi = -1, bk = 0;
        for (int i = first; i < first + n; i++)
            for (int k = 0; k < w->n[i]; k++)
                if (!taken[i][k] && (bi < 0 || w->value[i][k] > w->value[bi][bk]))
                    bi = i, bk = k;
        if (bi < 0)
            return;
        taken[bi][bk] = true;
        keep[bi]++;
    }
}

static bool expect_lava(const world *w, int *keep)
{
    double due[L];
    int open[L];
    for (int l = 0; l < L; l++) {
        double sum = 0, entropy = 0;
        int n = 0;
        for (int i = l * H; i < (l + 1) * H; i++)
            for (int k = 0; k < w->n[i]; k++, n++)
                sum += w->value[i][k];
        for (int i = l * H; i < (l + 1) * H; i++)
            for (int k = 0; k < w->n[i]; k++)
                if (w->value[i][k] > 0)
                    entropy -= w->value[i][k] / sum * log(w->value[i][k] / sum);
        due[l] = entropy / log(n);
    }
    bool sure = pour_layers(w, due, open);
    for (int l = 0; l < L; l++)
        compete(w, l * H, H, open[l], (int)(w->option[0] * open[l] / H), keep);
    return sure;
}

/* All ways to give each layer one of three groups; the one with the least scatter whose groups do
 * not interleave is what cutting the sorted cosines finds. */
static bool expect_squeeze(const world *w, int *keep)
{
    double best = INFINITY, due[L], p = w->option[0];
    int group[L], best_group[L] = {0}, open[L];
    for (int code = 0; code < 81; code++) {
        double mean[3] = {0}, sum = 0;
        int n[3] = {0};
        for (int l = 0, c = code; l < L; l++, c /= 3) {
            mean[group[l] = c % 3] += w->cosine[l];
            n[group[l]]++;
        }
        for (int l = 0; l < L; l++)
            sum += pow(w->cosine[l] - mean[group[l]] / n[group[l]], 2);
        bool ordered = n[0] && n[1] && n[2];
        for (int a = 0; a < L; a++)
            for (int b = 0; b < L; b++)
                ordered &= group[a] >= group[b] || w->cosine[a] < w->cosine[b];
        if (ordered && sum < best) {
            best = sum;
            memcpy(best_group, group, sizeof group);
        }
    }
    int n_top = 0;
    for (int l = 0; l < L; l++)
        n_top += best_group[l] == 2;
    for (int l = 0; l < L; l++)
        due[l] = best_group[l] == 2 ? p : (L - p * n_top) / (L - n_top);
    bool sure = pour_layers(w, due, open);
    for (int l = 0; l < L; l++)
        fill_up(w, l * H, H, w->n, open[l], keep);
    return sure;
}

static bool expect_simlayer(const world *w, int *keep)
{
    int cap[ALL];
    for (int l = 0; l < L; l++) {
        double mean = 0;
        for (int h = 0; h < H; h++)
            mean += w->signal[2 * (l * H + h)] / H;
        for (int i = l * H; i < (l + 1) * H; i++) {
            double window = w->option[1] + w->option[2] - w->guard[i];
            cap[i] = mean > w->option[0] && window < w->n[i] ? (int)window : w->n[i];
        }
    }
    fill_up(w, 0, ALL, cap, open_of(w), keep);
    return true;
}

static bool expect_threshold(const world *w, int *keep)
{
    int64_t passed = 0;
    for (int i = 0; i < ALL; i++) {
        keep[i] = 0;
        for (int k = 0; k < w->n[i]; k++)
            keep[i] += w->value[i][k] >= w->option[0];
        passed += keep[i];
    }
    if (passed > open_of(w))
        compete(w, 0, ALL, open_of(w), 0, keep);
    return true;
}

/* Slots of a head, best first, until they carry `part` of its score. */
static int cover(const world *w, int i, double part)
{
    double sorted[N], sum = 0, carried = 0;
    for (int k = 0; k < w->n[i]; k++)
        sum += sorted[k] = w->value[i][k];
    qsort(sorted, (size_t)w->n[i], sizeof *sorted, by_value);
    int n = 0;
    while (n < w->n[i] && carried < part * sum * (1 - 1e-12))
        carried += sorted[w->n[i] - ++n];
    return n;
}

static bool expect_coverage(const world *w, int *keep)
{
    double due[ALL], under[ALL] = {0}, cap[ALL];
    int64_t wanted = 0;
    for (int i = 0; i < ALL; i++) {
        due[i] = keep[i] = cover(w, i, w->option[0]);
        cap[i] = w->n[i];
        wanted += keep[i];
    }
    return wanted <= open_of(w) || pour(ALL, due, under, cap, open_of(w), keep);
}

static bool expect_zigzag(const world *w, int *keep)
{
    double lmba[L], due[L], sum = 0, least = w->option[1];
    int open[L];
    for (int l = 0; l < L; l++) {
        lmba[l] = 0;
        for (int h = 0; h < H; h++)
            lmba[l] += (double)cover(w, l * H + h, w->option[0]) / H;
        sum += lmba[l];
    }
    for (int l = 0; l < L; l++)
        due[l] = least / L + (1 - least) * lmba[l] / sum;
    bool sure = pour_layers(w, due, open);
    for (int l = 0; l < L; l++)
        fill_up(w, l * H, H, w->n, open[l], keep);
    return sure;
}

static const float *table(const world *w, const char *name)
{
    size_t n;
    return kept_trained_array(w->s.trained, name, &n);
}

static bool expect_headkv(const world *w, int *keep)
{
    const float *score = table(w, "score");
    double due[ALL], under[ALL] = {0}, cap[ALL], sum = 0, beta = w->option[0];
    for (int i = 0; i < ALL; i++)
        sum += score[i];
    for (int i = 0; i < ALL; i++) {
        double even = 1; /* a head's even share, in units of itself; the pool has ALL / beta */
        due[i] = even - even / beta + ALL / beta * score[i] / sum;
        cap[i] = w->n[i];
    }
    return pour(ALL, due, under, cap, open_of(w), keep);
}

static bool expect_duo(const world *w, int *keep)
{
    const float *alpha = table(w, "alpha");
    int window[ALL];
    bool whole[ALL] = {false};
    int64_t left = open_of(w);
    for (int i = 0; i < ALL; i++) {
        double x = w->option[0] + w->option[1] - w->guard[i];
        window[i] = x < 0 ? 0 : x < w->n[i] ? (int)x : w->n[i];
    }
    fill_up(w, 0, ALL, window, left, keep);
    for (int i = 0; i < ALL; i++)
        left -= keep[i];
    for (int turn = 0; turn < ALL && left > 0; turn++) {
        int best = -1;
        for (int i = 0; i < ALL; i++)
            if (!whole[i] && (best < 0 || alpha[i] > alpha[best]))
                best = i;
        whole[best] = true;
        for (; left > 0 && keep[best] < w->n[best]; left--)
            keep[best]++;
    }
    return true;
}

static bool expect_lu_kv(const world *w, int *keep)
{
    const float *ratio = table(w, "ratio"), *part = table(w, "keep");
    double f = (double)w->s.total / (ALL * (double)w->s.n_tokens), due[ALL], under[ALL] = {0};
    double cap[ALL];
    for (int i = 0; i < ALL; i++) {
        double x0 = 0, y0 = 0, x1 = 1, y1 = 1;
        for (int r = 0; r < 4; r++)
            if (ratio[r] < f)
                x0 = ratio[r], y0 = part[r * ALL + i];
        for (int r = 3; r >= 0; r--)
            if (ratio[r] >= f)
                x1 = ratio[r], y1 = part[r * ALL + i];
        due[i] = fmax(0, (y0 + (y1 - y0) * (f - x0) / (x1 - x0)) * w->s.n_tokens - w->guard[i]);
        due[i] = fmax(due[i], 1e-12);
        cap[i] = w->n[i];
    }
    return pour(ALL, due, under, cap, open_of(w), keep);
}

/* ---- comparing ------------------------------------------------------------------------------ */

typedef bool expect_fn(const world *w, int *keep);

static void compare(const char *name, expect_fn *expect, const double *options)
{
    static world w;
    const kept_allocator *a = find(name);
    kept_rng rng;
    kept_rng_init(&rng, 11);
    int n_sure = 0;
    const rig like = {.n_layers = L, .n_heads = H};
    for (int round = 0; a && round < 200; round++) {
        int keep[ALL], want[ALL];
        fill(&w, a, &rng);
        for (int k = 0; options && k < a->part.n_options; k++)
            w.option[k] = options[k];
        kept_trained *t = a->trained ? rig_table(a->trained, &like, (uint64_t)round + 1) : NULL;
        w.s.trained = t;
        bool sure = expect(&w, want);
        a->split(&w.s, keep);
        for (int i = 0; i < ALL; i++) {
            if (sure && keep[i] != want[i])
                fprintf(stderr, "%s, round %d, head %d\n", name, round, i);
            CHECK(keep[i] <= want[i] + (sure ? 0 : 1) && keep[i] >= want[i] - (sure ? 0 : 1));
        }
        n_sure += sure;
        kept_trained_free(t);
    }
    printf("# %s: %d of 200 splits to the slot\n", name, n_sure);
    CHECK(n_sure > 50); /* splits that two equal remainders leave open are held to one slot */
}

static void test_by_layer(void)
{
    compare("cake", expect_cake, NULL);
    compare("cake", expect_cake, (const double[]){32, 1.6, 0.4});
    compare("lava", expect_lava, NULL);
    compare("squeeze", expect_squeeze, NULL);
    compare("zigzag", expect_zigzag, NULL);
    compare("zigzag", expect_zigzag, (const double[]){0.5, 0.6});
}

static void test_by_data(void)
{
    compare("simlayer", expect_simlayer, (const double[]){0.5, 4, 30, 1});
    compare("threshold", expect_threshold, (const double[]){0.3});
    compare("threshold", expect_threshold, (const double[]){0.9});
    compare("coverage", expect_coverage, NULL);
    compare("coverage", expect_coverage, (const double[]){0.3});
}

static void test_by_table(void)
{
    compare("headkv", expect_headkv, NULL);
    compare("duo", expect_duo, (const double[]){4, 20});
    compare("lu-kv", expect_lu_kv, NULL);
}

/* ---- what cake and simlayer observe ---------------------------------------------------------- */

static void test_observe(void)
{
    static float prob[T * G * N], scratch[4 * N];
    int32_t pos[N];
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int i = 0; i < N; i++)
        pos[i] = i < 3 ? i : i + 7; /* something was evicted before */
    for (int r = 0; r < T * G; r++) {
        double sum = 0, x[N];
        for (int i = 0; i < N; i++)
            sum += x[i] = pos[i] <= N + 7 - T + r / G ? exp(3 * kept_rng_normal(&rng)) : 0;
        for (int i = 0; i < N; i++)
            prob[r * N + i] = (float)(x[i] / sum);
    }
    const kept_view_head head = {.n = N, .pos = pos, .prob = prob};
    const kept_view v = {.n_heads = 1,
                         .group = G,
                         .n_recent = T,
                         .next_pos = N + 7,
                         .heads = &head,
                         .scratch = scratch};
    double got[2] = {0, 0}, entropy = 0, variance = 0, lazy = 0;
    find("cake")->observe(&v, 0, (const double[]){T, 1, 1}, got);
    for (int g = 0; g < G; g++)
        for (int i = 0; i < N && pos[i] < v.next_pos - T; i++) {
            double mean = 0;
            for (int t = 0; t < T; t++)
                mean += prob[(t * G + g) * N + i] / (double)T;
            for (int t = 0; t < T; t++) {
                double p = prob[(t * G + g) * N + i];
                variance += (p - mean) * (p - mean) / T;
                entropy -= p > 0 ? p * log(p) : 0;
            }
        }
    CHECK_NEAR(got[0], entropy, 1e-4 * entropy);
    CHECK_NEAR(got[1], variance, 1e-3 * variance);
    got[0] = got[1] = 0;
    find("simlayer")->observe(&v, 0, (const double[]){0.9, 4, 20, T}, got);
    for (int r = 0; r < T * G; r++)
        for (int i = 0; i < N; i++)
            if (pos[i] < 4 || pos[i] >= v.next_pos - 20)
                lazy += prob[r * N + i] / (double)(T * G);
    CHECK_NEAR(got[0], lazy, 1e-6);
}

/* ---- the score of corm, by the votes --------------------------------------------------------- */

static void test_corm(void)
{
    static float prob[T * G * N];
    int32_t pos[N];
    float out[N];
    kept_rng rng;
    kept_rng_init(&rng, 9);
    for (int i = 0; i < N; i++)
        pos[i] = i;
    for (int r = 0; r < T * G * N; r++)
        prob[r] = (float)(2 * kept_rng_unit(&rng) / N);
    const kept_view_head head = {.n = N, .pos = pos, .prob = prob};
    const kept_view v = {.n_heads = 1, .group = G, .n_recent = T, .next_pos = N, .heads = &head};
    const kept_part *p = kept_part_find(KEPT_AXIS_SCORE, "corm");
    ((const kept_score *)(const void *)p)->score(&v, 0, out);
    for (int i = 0; i < N; i++) {
        int votes = 0;
        for (int t = 0; t < T; t++) {
            int sees = N - T + t + 1; /* of all N, the query of token N - T + t */
            for (int g = 0; g < G && i < sees; g++)
                votes += (double)prob[(t * G + g) * N + i] >= 1.0 / sees;
        }
        CHECK_NEAR(out[i], votes, 0);
    }
}

int main(void)
{
    RUN(test_by_layer);
    RUN(test_by_data);
    RUN(test_by_table);
    RUN(test_observe);
    RUN(test_corm);
    TEST_END();
}
