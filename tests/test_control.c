/* test_control: controllers alone. Hysteresis against a state machine written from its description,
 * signals and divergence against double-precision readings of their formulas over a cache, and
 * splits of a shared budget against what they promise and, where caps do not bind, a plain split.
 */
#include "policy_rig.h"

static double option_of(const kept_strategy *s, const char *name)
{
    const kept_part *p = s->part[KEPT_AXIS_CONTROLLER];
    for (int i = 0; i < p->n_options; i++)
        if (!strcmp(p->options[i].name, name))
            return s->option[KEPT_AXIS_CONTROLLER][i];
    return NAN;
}

/* ---- hysteresis ---------------------------------------------------------------------------- */

/* The rule in words: tight while the signal is on its tight side of the farther threshold, not more
 * often than every `hold` steps; the first switch may come at once. */
static void check_hysteresis(const char *spec, bool below, uint64_t seed)
{
    kept_strategy *s = rig_parse(spec);
    const kept_controller *c = kept_strategy_controller(s);
    const double *options = s->option[KEPT_AXIS_CONTROLLER];
    double high = option_of(s, "high"), low = option_of(s, "low");
    kept_control_state at = KEPT_CONTROL_START;
    kept_rng r;
    bool tight = false, ever = false;
    int last = 0, n_switches = 0, n_kept_by_hold = 0, n_between = 0;
    double x = (high + low) / 2;
    kept_rng_init(&r, seed);
    for (int t = 1; t <= 4000; t++) {
        x += (kept_rng_unit(&r) - 0.5) * (high - low);
        x = fmin(fmax(x, low - 0.3 * (high - low)), high + 0.3 * (high - low));
        at.since++;
        int next = c->next(options, &at, x);
        bool enter = below ? x < low : x > high, leave = below ? x > high : x < low;
        bool want = enter ? true : leave ? false : tight;
        bool held = ever && t - last < (int)option_of(s, "hold");
        n_kept_by_hold += held && want != tight;
        n_between += !enter && !leave;
        if (want != tight && !held) {
            tight = want;
            ever = true;
            last = t;
            n_switches++;
        }
        CHECK_INT(next, tight);
        if (next != at.state)
            at = (kept_control_state){next, 0};
    }
    /* The walk must have tried every rule. */
    CHECK(n_switches > 10 && n_between > 100);
    CHECK(option_of(s, "hold") < 2 || n_kept_by_hold > 0);
    kept_strategy_free(s);
}

static void test_hysteresis(void)
{
    check_hysteresis("adaptive(calm=full,tight=h2o)@5%", false, 1);
    check_hysteresis("adaptive(hold=0,calm=full,tight=h2o)@5%", false, 2);
    check_hysteresis("adaptive(signal=entropy,hold=5,calm=full,tight=h2o)@5%", true, 3);
    check_hysteresis("adaptive(signal=window-ratio,low=0.25,calm=full,tight=h2o)@5%", false, 4);
    check_hysteresis("adaptive(signal=kl,high=3,hold=100,calm=full,tight=h2o)@5%", true, 5);
}

/* On a threshold nothing happens; both sides of it switch. */
static void test_thresholds(void)
{
    kept_strategy *s = rig_parse("adaptive(hold=0,high=0.5,low=0.25,calm=full,tight=h2o)@5%");
    const kept_controller *c = kept_strategy_controller(s);
    const double *options = s->option[KEPT_AXIS_CONTROLLER];
    kept_control_state calm = {0, 9}, tight = {1, 9};
    CHECK_INT(c->next(options, &calm, 0.5), 0);
    CHECK_INT(c->next(options, &calm, nextafter(0.5, 1)), 1);
    CHECK_INT(c->next(options, &tight, 0.25), 1);
    CHECK_INT(c->next(options, &tight, nextafter(0.25, 0)), 0);
    kept_strategy_free(s);
}

/* ---- signals ------------------------------------------------------------------------------- */

enum { N = 200 };

static rig make(uint64_t seed)
{
    rig r = rig_new(3, 2, 2, 64, N);
    kept_rng rng;
    kept_rng_init(&rng, seed);
    r.windowed[1] = true;
    for (int p = 0; p < r.n_state; p++)
        for (int l = 0; l < r.n_layers; l++)
            for (int h = 0; h < r.n_heads; h++)
                for (int i = 0; i < N; i++) {
                    double x = exp(4 * kept_rng_normal(&rng));
                    rig_mass(&r, p, l, h)[i] = kept_rng_below(&rng, 4) ? (float)(x * 1e-3) : 0;
                }
    rig_pool(&r);
    r.cache = rig_cache(&r, N, 77);
    return r;
}

static kept_signal_view view_of(const rig *r)
{
    return (kept_signal_view){.used = 0.25,
                              .hint = 0.5,
                              .kl = 0.125,
                              .pool = r->pool,
                              .cache = r->cache,
                              .n_layers = r->n_layers,
                              .windowed = r->windowed,
                              .n_heads = r->n_heads,
                              .next_pos = N + 50,
                              .sinks = 3,
                              .window = 150};
}

/* live NULL: all. */
static double naive_entropy(const rig *r, int layer, int head, const uint8_t *live, int seen)
{
    const float *m = rig_mass(r, 0, layer, head);
    double sum = 0, h = 0;
    for (int i = 0; i < N; i++)
        sum += live && !live[i] ? 0 : m[i];
    for (int i = 0; i < N; i++)
        if ((!live || live[i]) && m[i] > 0)
            h -= m[i] / sum * log(m[i] / sum);
    return h / log(seen);
}

static void test_entropy(void)
{
    rig r = make(1);
    kept_signal_view v = view_of(&r);
    double sum = 0;
    for (int l = 0; l < 3; l += 2)
        for (int h = 0; h < 2; h++)
            sum += naive_entropy(&r, l, h, NULL, N + 50);
    CHECK_NEAR(kept_signal_at(KEPT_SIGNAL_entropy)->read(&v), sum / 4, 1e-5);
    /* Of what is live. */
    uint8_t keep[N], live[N];
    for (int i = 0; i < N; i++)
        keep[i] = i % 3 == 0;
    sum = 0;
    for (int l = 0; l < 3; l += 2)
        for (int h = 0; h < 2; h++) {
            CHECK_INT(kept_cache_retain(r.cache, l, h, keep), KEPT_OK);
            rig_live(&r, r.cache, l, h, live);
            sum += naive_entropy(&r, l, h, live, N + 50);
        }
    CHECK_NEAR(kept_signal_at(KEPT_SIGNAL_entropy)->read(&v), sum / 4, 1e-5);
    rig_free(&r);
}

/* Evenly spread attention over all that was seen is 1, on one token 0. */
static void test_entropy_ends(void)
{
    rig r = make(2);
    kept_signal_view v = view_of(&r);
    const kept_signal *s = kept_signal_at(KEPT_SIGNAL_entropy);
    v.next_pos = N;
    for (int l = 0; l < 3; l++)
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < N; i++)
                kept_cache_set_state(r.cache, l, h, 0, i, 0.01f);
    CHECK_NEAR(s->read(&v), 1, 1e-5);
    for (int l = 0; l < 3; l++)
        for (int h = 0; h < 2; h++)
            for (int i = 0; i < N; i++)
                kept_cache_set_state(r.cache, l, h, 0, i, i == 70 ? 2 : 0);
    CHECK_NEAR(s->read(&v), 0, 1e-6);
    for (int l = 0; l < 3; l++)
        for (int h = 0; h < 2; h++)
            kept_cache_set_state(r.cache, l, h, 0, 70, 0);
    CHECK(isnan(s->read(&v)));
    rig_free(&r);
}

static void test_window_ratio(void)
{
    rig r = make(3);
    kept_signal_view v = view_of(&r);
    double ratio = 0;
    for (int l = 0; l < 3; l += 2)
        for (int h = 0; h < 2; h++) {
            double all = 0, in = 0;
            for (int i = 0; i < N; i++) {
                double m = rig_mass(&r, 0, l, h)[i];
                all += m;
                in += i < 3 || i >= N + 50 - 150 ? m : 0;
            }
            ratio += in / all / 4;
        }
    CHECK(ratio > 0.05 && ratio < 0.95);
    CHECK_NEAR(kept_signal_at(KEPT_SIGNAL_window_ratio)->read(&v), ratio, 1e-6);
    rig_free(&r);
}

static void test_plain_signals(void)
{
    rig r = make(4);
    kept_signal_view v = view_of(&r);
    CHECK(kept_signal_at(KEPT_SIGNAL_pressure)->read(&v) == 0.25);
    CHECK(kept_signal_at(KEPT_SIGNAL_task)->read(&v) == 0.5);
    CHECK(kept_signal_at(KEPT_SIGNAL_kl)->read(&v) == 0.125);
    CHECK(!kept_signal_at(KEPT_N_SIGNALS) && !kept_signal_at(-1));
    for (int i = 0; i < KEPT_N_SIGNALS; i++) {
        CHECK_STR(kept_signal_at(i)->name, kept_signal_names[i]);
        CHECK(kept_signal_at(i)->low <= kept_signal_at(i)->high);
    }
    rig_free(&r);
}

static void test_kl(void)
{
    enum { V = 3000 };
    static float p[V], q[V];
    kept_rng r;
    kept_rng_init(&r, 5);
    for (int round = 0; round < 4; round++) {
        double scale = pow(10, round - 2), sum_p = 0, sum_q = 0, kl = 0;
        for (int i = 0; i < V; i++) {
            p[i] = (float)(3 * kept_rng_normal(&r));
            q[i] = p[i] + (float)(scale * kept_rng_normal(&r));
        }
        for (int i = 0; i < V; i++) {
            sum_p += exp((double)p[i]);
            sum_q += exp((double)q[i]);
        }
        for (int i = 0; i < V; i++)
            kl +=
                exp((double)p[i]) / sum_p * ((double)p[i] - log(sum_p) - (double)q[i] + log(sum_q));
        CHECK_NEAR(kept_control_kl(p, q, V), kl, 1e-6 + 1e-5 * kl);
    }
    CHECK(kept_control_kl(p, p, V) < 1e-9);
    for (int i = 0; i < V; i++)
        q[i] = p[i] + 100; /* the same distribution */
    CHECK_NEAR(kept_control_kl(p, q, V), 0, 1e-4);
    q[7] = NAN;
    CHECK(isnan(kept_control_kl(p, q, V)));
}

/* ---- shared budgets ------------------------------------------------------------------------ */

enum { MEMBERS = 12 };

static void split(const kept_strategy *s, const kept_member *m, int n, int64_t *slots)
{
    double scratch[MEMBERS];
    kept_strategy_controller(s)->share(s->option[KEPT_AXIS_CONTROLLER], m, n, slots, scratch);
}

static double wanted(const kept_strategy *s, double x)
{
    return kept_strategy_signal(s)->tight_below ? x : 1 - x;
}

/* Random groups: the total is exact, nobody is below the floor, and who could use no more is the
 * only one who is not above others in proportion. */
static void check_shares(const char *spec, uint64_t seed)
{
    kept_strategy *s = rig_parse(spec);
    double floor_part = option_of(s, "floor") / 100;
    kept_rng r;
    kept_rng_init(&r, seed);
    for (int round = 0; round < 2000; round++) {
        kept_member m[MEMBERS];
        int64_t slots[MEMBERS], own = 0, sum = 0;
        int n = 1 + (int)kept_rng_below(&r, MEMBERS);
        bool tightly = kept_rng_below(&r, 2);
        for (int i = 0; i < n; i++) {
            m[i].own = kept_rng_below(&r, 100000);
            m[i].cap = tightly ? kept_rng_below(&r, 200000) : 1 << 30;
            m[i].signal = kept_rng_below(&r, 9) ? kept_rng_unit(&r) : NAN;
            own += m[i].own;
        }
        split(s, m, n, slots);
        for (int i = 0; i < n; i++) {
            sum += slots[i];
            CHECK(slots[i] >= (int64_t)ceil((double)m[i].own * floor_part));
        }
        CHECK_INT(sum, own);
        for (int i = 0; i < n && !tightly; i++)
            for (int j = 0; j < n; j++) {
                if (isnan(m[i].signal) || isnan(m[j].signal) || m[i].own < 1000 || m[j].own < 1000)
                    continue;
                /* Beyond the floors, slots per own slot are as the signals. */
                double a = (double)slots[i] / (double)m[i].own - floor_part;
                double b = (double)slots[j] / (double)m[j].own - floor_part;
                double tol = 4.0 / 1000;
                CHECK(fabs(a * wanted(s, m[j].signal) - b * wanted(s, m[i].signal)) <= tol);
            }
        if (test_failed) {
            fprintf(stderr, "  %s, round %d\n", spec, round);
            break;
        }
    }
    kept_strategy_free(s);
}

static void test_shares(void)
{
    check_shares("h2o+balance@25%", 1);
    check_shares("h2o+balance(floor=0)@25%", 2);
    check_shares("h2o+balance(signal=window-ratio,floor=12.5)@25%", 3);
    check_shares("h2o+balance(floor=100)@25%", 4);
}

/* What one cannot use goes to the others as far as they can, in proportion. */
static void test_caps(void)
{
    kept_strategy *s = rig_parse("h2o+balance(floor=0)@25%");
    int64_t slots[3];
    const kept_member m[3] = {{100, 40, 0.5}, {100, 1000, 0.25}, {100, 1000, 0.25}};
    split(s, m, 3, slots);
    CHECK_INT(slots[0], 40);
    CHECK_INT(slots[1], 130);
    CHECK_INT(slots[2], 130);
    /* All full: what is over stays where it came from. */
    const kept_member few[2] = {{100, 10, 0.9}, {300, 10, 0.1}};
    split(s, few, 2, slots);
    CHECK_INT(slots[0] + slots[1], 400);
    CHECK_INT(slots[0], 105);
    CHECK_INT(slots[1], 295);
    /* Nobody says anything: all keep their own. */
    const kept_member mute[2] = {{100, 1000, NAN}, {300, 1000, NAN}};
    split(s, mute, 2, slots);
    CHECK_INT(slots[0], 100);
    CHECK_INT(slots[1], 300);
    kept_strategy_free(s);
}

int main(void)
{
    RUN(test_hysteresis);
    RUN(test_thresholds);
    RUN(test_entropy);
    RUN(test_entropy_ends);
    RUN(test_window_ratio);
    RUN(test_plain_signals);
    RUN(test_kl);
    RUN(test_shares);
    RUN(test_caps);
    TEST_END();
}
