/* test_adaptive: controllers inside the engine. A hint forces states, so that what each state must
 * hold is known; replays follow a log without looking at a signal; two sequences live in a pool
 * that cannot hold both; a shared budget is counted slot by slot while others move it.
 */
#include "engine_util.h"
#include "mkgguf.h"
#include "policy/strategy.h"
#include "test.h"

#include <unistd.h>

enum { N_PROMPT = 300, N_DECODE = 120, CAP = 1024, LAYERS = 3, HEADS = 2, ALL = LAYERS * HEADS };

static kept_model *model;
static int n_vocab;
static int32_t *tokens; /* [N_PROMPT + N_DECODE] */

static util_run start(size_t pool_bytes)
{
    util_run r = {.n_vocab = n_vocab};
    kept_engine_options o = {
        .n_threads = 1, .max_tokens = CAP, .max_seqs = 8, .pool_bytes = pool_bytes};
    if (kept_engine_new(model, &o, &r.engine, &r.err)) {
        fprintf(stderr, "engine: %s\n", r.err.text);
        exit(1);
    }
    return r;
}

static kept_strategy *parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err;
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

static kept_seq *new_seq(util_run *r, const kept_strategy *st, uint64_t seed)
{
    kept_seq *s = NULL;
    if (kept_seq_new(r->engine, st, NULL, seed, &s, &r->err)) {
        fprintf(stderr, "sequence: %s\n", r->err.text);
        exit(1);
    }
    return s;
}

/* A sequence that has read the first n tokens; hint < 0: none. */
static kept_seq *ready(util_run *r, const kept_strategy *st, int n, double hint)
{
    kept_seq *s = new_seq(r, st, 1);
    if (hint >= 0)
        CHECK_INT(kept_seq_hint(s, hint), KEPT_OK);
    CHECK_INT(util_prefill(r, s, tokens, n, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r->err), KEPT_OK);
    return s;
}

static int64_t live(const kept_seq *s)
{
    int64_t n = 0;
    for (int i = 0; i < ALL; i++)
        n += kept_seq_positions(s, i / HEADS, i % HEADS, NULL, 0);
    return n;
}

static bool same_sets(const kept_seq *a, const kept_seq *b)
{
    for (int i = 0; i < ALL; i++) {
        int32_t x[CAP], y[CAP];
        int n = kept_seq_positions(a, i / HEADS, i % HEADS, x, CAP);
        if (kept_seq_positions(b, i / HEADS, i % HEADS, y, CAP) != n ||
            memcmp(x, y, (size_t)n * sizeof *x))
            return false;
    }
    return true;
}

static kept_status step(util_run *r, kept_seq *s, int t)
{
    kept_item it = {.seq = s, .tokens = tokens + N_PROMPT + t, .n_tokens = 1, .n_logits = 1};
    return kept_engine_forward(r->engine, &it, 1, &r->err);
}

static void finish(util_run *r, kept_strategy *st)
{
    kept_engine_free(r->engine);
    kept_strategy_free(st);
}

/* ---- states -------------------------------------------------------------------------------- */

/* Sinks, the latest tokens and pins are there whatever the state holds. */
static void check_protected(const kept_seq *s)
{
    int n = kept_seq_n_tokens(s);
    for (int i = 0; i < ALL; i++) {
        int32_t pos[CAP];
        int m = kept_seq_positions(s, i / HEADS, i % HEADS, pos, CAP), found = 0;
        for (int k = 0; k < m; k++)
            found += pos[k] < 4 || pos[k] >= n - 16 || (pos[k] >= 100 && pos[k] < 110);
        CHECK_INT(found, 4 + 16 + 10);
    }
}

/* In every state the budget is met to the slot: 40 % of 300 tokens calm, 20 % tight, and back to
 * calm nothing is evicted until 40 % is reached again. */
static void budgets_in_every_state(void)
{
    kept_strategy *st =
        parse("adaptive(signal=task,every=1,hold=0,calm=h2o@40%,tight=knorm+ada@20%)"
              "+decode(every=1)+protect(recent=16)");
    util_run r = start(0);
    kept_seq *s = new_seq(&r, st, 1);
    kept_decision log[CAP];
    int64_t in[2];
    CHECK_INT(kept_seq_hint(s, 0), KEPT_OK);
    CHECK_INT(kept_seq_pin(s, 100, 110), KEPT_OK);
    CHECK_INT(util_prefill(&r, s, tokens, N_PROMPT, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(s, &r.err), KEPT_OK);
    int64_t calm = ALL * N_PROMPT * 40 / 100, tight = ALL * N_PROMPT * 20 / 100, want = calm;
    CHECK_INT(live(s), calm);
    for (int t = 0; t < 110; t++) {
        double hint = t >= 30 && t < 40;
        CHECK_INT(kept_seq_hint(s, hint), KEPT_OK);
        CHECK_INT(step(&r, s, t), KEPT_OK);
        if (hint > 0 || t == 40) /* the schedule acts before its state is left */
            want = tight;
        else
            want = want + ALL < calm ? want + ALL : calm;
        CHECK_INT(live(s), want);
        check_protected(s);
    }
    CHECK(want == calm); /* it has grown back: 60 tokens since */
    int n = kept_seq_decisions(s, log, CAP);
    CHECK_INT(n, 111); /* one when the prompt was in */
    for (int i = 0; i < n && i < CAP; i++) {
        CHECK_INT(log[i].at, N_PROMPT + i);
        CHECK_INT(log[i].state, i > 30 && i <= 40);
        CHECK_INT(log[i].slots, log[i].state ? tight : calm);
        CHECK(log[i].signal == log[i].state);
    }
    CHECK_INT(kept_seq_state_tokens(s, in, 2), 2);
    CHECK_INT(in[0], 100);
    CHECK_INT(in[1], 10);
    kept_seq_free(s);
    finish(&r, st);
}

/* A state acts as its spec does alone: tight from the start equals the fixed strategy, calm = full
 * equals the full cache, to the bit. */
static void states_equal_their_specs(void)
{
    static const char *const spec[] = {"adaptive(signal=task,calm=full,tight=snapkv+decode)@25%",
                                       "snapkv+decode@25%", "full"};
    for (int tight = 0; tight < 2; tight++) {
        kept_strategy *st = parse(spec[0]), *alone = parse(spec[tight ? 1 : 2]);
        util_run r = start((size_t)64 << 20);
        kept_seq *s = ready(&r, st, N_PROMPT, tight), *t = ready(&r, alone, N_PROMPT, -1);
        size_t n = (size_t)50 * (size_t)n_vocab;
        float *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
        CHECK(same_sets(s, t));
        CHECK_INT(util_decode(&r, s, tokens + N_PROMPT, 50, a), KEPT_OK);
        CHECK_INT(util_decode(&r, t, tokens + N_PROMPT, 50, b), KEPT_OK);
        CHECK(same_sets(s, t));
        CHECK(!memcmp(a, b, n * sizeof *a));
        CHECK(tight ? live(s) < ALL * N_PROMPT / 3 : live(s) == ALL * (N_PROMPT + 50));
        free(a);
        free(b);
        kept_seq_free(s);
        kept_seq_free(t);
        kept_strategy_free(alone);
        finish(&r, st);
    }
}

/* What is gone is gone: back in full, the tokens dropped before stay away and no more go. */
static void going_back_only_stops(void)
{
    kept_strategy *st = parse("adaptive(signal=task,every=2,hold=8,calm=full,tight=knorm)@25%");
    util_run r = start(0);
    kept_seq *s = ready(&r, st, N_PROMPT, 1);
    int64_t budget = ALL * N_PROMPT / 4;
    CHECK_INT(live(s), budget);
    CHECK_INT(kept_seq_hint(s, 0), KEPT_OK);
    for (int t = 0; t < 20; t++)
        CHECK_INT(step(&r, s, t), KEPT_OK);
    CHECK_INT(live(s), budget + 20 * ALL);
    CHECK_INT(kept_seq_hint(s, 1), KEPT_OK);
    for (int t = 20; t < 24; t++)
        CHECK_INT(step(&r, s, t), KEPT_OK);
    CHECK(live(s) <= budget + 2 * ALL); /* cut when it switched, then grown again */
    kept_seq_free(s);
    finish(&r, st);
}

/* ---- replay -------------------------------------------------------------------------------- */

/* A run whose states follow the attention entropy of the model, then a replay of its log under
 * thresholds that would never switch: the same sets at every step. */
static void replay_is_the_same(void)
{
    kept_strategy *probe = parse("adaptive(signal=entropy,every=1,calm=full,tight=h2o)@50%");
    kept_decision log[CAP];
    util_run r = start((size_t)64 << 20);
    kept_seq *s = ready(&r, probe, N_PROMPT, -1);
    double mean = 0;
    for (int t = 0; t < 40; t++)
        CHECK_INT(step(&r, s, t), KEPT_OK);
    int n = kept_seq_decisions(s, log, CAP);
    for (int i = 0; i < n; i++)
        mean += log[i].signal / n;
    CHECK(mean > 0 && mean < 1);
    kept_seq_free(s);
    char spec[300];
    snprintf(spec, sizeof spec,
             "adaptive(signal=entropy,every=1,hold=3,high=%.6f,low=%.6f,calm=h2o+slot@60%%,"
             "tight=random+decode(every=5)@30%%)",
             mean, mean);
    kept_strategy *st = parse(spec);
    kept_strategy *never =
        parse("adaptive(signal=entropy,every=7,high=1000,low=0,calm=h2o+slot@60%,"
              "tight=random+decode(every=5)@30%)");
    kept_seq *a = ready(&r, st, N_PROMPT, -1);
    int n_switches = 0;
    for (int t = 0; t < N_DECODE; t++)
        CHECK_INT(step(&r, a, t), KEPT_OK);
    n = kept_seq_decisions(a, log, CAP);
    for (int i = 1; i < n; i++)
        n_switches += log[i].state != log[i - 1].state;
    CHECK(n == N_DECODE + 1 && n_switches >= 2);
    kept_seq *b = new_seq(&r, never, 1), *c = ready(&r, st, N_PROMPT, -1);
    CHECK_INT(kept_seq_replay(b, log, n, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, b, tokens, N_PROMPT, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(b, &r.err), KEPT_OK);
    for (int t = 0; t < N_DECODE; t++) {
        CHECK(same_sets(b, c));
        CHECK_INT(step(&r, b, t), KEPT_OK);
        CHECK_INT(step(&r, c, t), KEPT_OK);
    }
    CHECK(same_sets(a, b) && same_sets(a, c));
    kept_decision again[CAP];
    CHECK_INT(kept_seq_decisions(b, again, CAP), n);
    for (int i = 0; i < n; i++)
        CHECK(again[i].at == log[i].at && again[i].state == log[i].state);
    /* Without the log it goes another way, so the comparison can fail. */
    kept_seq *d = ready(&r, never, N_PROMPT, -1);
    for (int t = 0; t < N_DECODE; t++)
        CHECK_INT(step(&r, d, t), KEPT_OK);
    CHECK(!same_sets(a, d));
    kept_seq *all[] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        kept_seq_free(all[i]);
    kept_strategy_free(never);
    kept_strategy_free(probe);
    finish(&r, st);
}

static void bad_logs_are_refused(void)
{
    kept_strategy *st = parse("adaptive(calm=full,tight=h2o)@50%"), *fixed = parse("h2o@50%");
    util_run r = start(0);
    kept_seq *s = new_seq(&r, st, 1), *f = new_seq(&r, fixed, 1);
    const kept_decision good = {.at = 5, .state = 1};
    const kept_decision bad[] = {{.at = 5, .state = 2}, {.at = 5, .state = -1}, {.at = 4}};
    CHECK_INT(kept_seq_replay(s, &good, 1, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_replay(f, &good, 1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_replay(s, &bad[0], 1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_replay(s, &bad[1], 1, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_replay(s, (const kept_decision[]){good, bad[2]}, 2, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_hint(s, 1.5), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_hint(s, NAN), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_decisions(f, NULL, 0), 0);
    CHECK_INT(kept_seq_state_tokens(f, NULL, 0), 0);
    CHECK_STR(kept_strategy_state_name(st, 1), "tight");
    CHECK(!kept_strategy_state_name(st, 2) && !kept_strategy_state_name(fixed, 0));
    kept_seq_free(s);
    kept_seq_free(f);
    kept_strategy_free(fixed);
    kept_strategy *ahead = parse("adaptive(calm=full,tight=kvzip)@50%");
    CHECK_INT(kept_seq_new(r.engine, ahead, NULL, 1, &s, &r.err), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "extra forward passes"));
    kept_strategy_free(ahead);
    finish(&r, st);
}

/* A fork under the same strategy goes on as the sequence itself would. */
static void forks_go_on(void)
{
    kept_strategy *st = parse("adaptive(signal=task,every=3,hold=9,calm=full,tight=h2o)@30%");
    util_run r = start((size_t)64 << 20);
    kept_seq *s = ready(&r, st, N_PROMPT, 0), *f = NULL;
    for (int t = 0; t < 10; t++) {
        CHECK_INT(kept_seq_hint(s, t > 3), KEPT_OK);
        CHECK_INT(step(&r, s, t), KEPT_OK);
    }
    CHECK_INT(kept_seq_fork(s, st, NULL, 1, &f, &r.err), KEPT_OK);
    CHECK_INT(kept_seq_decisions(f, NULL, 0), kept_seq_decisions(s, NULL, 0));
    for (int t = 10; t < 40; t++) {
        CHECK_INT(kept_seq_hint(s, t < 20), KEPT_OK);
        CHECK_INT(kept_seq_hint(f, t < 20), KEPT_OK);
        CHECK_INT(step(&r, s, t), KEPT_OK);
        CHECK_INT(step(&r, f, t), KEPT_OK);
        CHECK(same_sets(s, f));
    }
    kept_decision a[CAP], b[CAP];
    int n = kept_seq_decisions(s, a, CAP);
    CHECK_INT(kept_seq_decisions(f, b, CAP), n);
    CHECK(!memcmp(a, b, (size_t)n * sizeof *a));
    kept_seq_free(s);
    kept_seq_free(f);
    finish(&r, st);
}

/* ---- signals of the engine ----------------------------------------------------------------- */

/* Two sequences that cannot both be full in their pool. Full ones fail; adaptive ones shrink and go
 * on, and the pressure in their logs is that of the pool. */
static bool both_decode(const char *spec, bool check_log)
{
    kept_strategy *st = parse(spec);
    size_t page = (size_t)64 * 64 * 4;
    util_run r = start(page * ALL * 11); /* a prompt is 5 pages a head, both with all decoded 14 */
    kept_seq *s[2];
    kept_status status = KEPT_OK;
    kept_decision log[CAP];
    for (int i = 0; i < 2; i++)
        s[i] = ready(&r, st, N_PROMPT, -1);
    for (int t = 0; t < N_DECODE && !status; t++) {
        kept_item it[2];
        for (int i = 0; i < 2; i++)
            it[i] = (kept_item){.seq = s[i], .tokens = tokens + N_PROMPT + t, .n_tokens = 1};
        status = kept_engine_forward(r.engine, it, 2, &r.err);
        kept_pool_account a;
        kept_engine_pool(r.engine, &a);
        int n = kept_seq_decisions(s[0], log, CAP);
        /* The second of the batch may have shrunk since. */
        double used = 1 - (double)a.n_free_pages / (double)a.n_pages;
        CHECK(!check_log || log[n - 1].signal >= used - 1e-12);
        CHECK(!check_log || log[n - 1].signal <= 1);
    }
    if (check_log) {
        int64_t in[2];
        CHECK_INT(kept_seq_state_tokens(s[0], in, 2), 2);
        CHECK(in[1] > 0);
        CHECK_INT(in[0] + in[1], N_DECODE);
    }
    for (int i = 0; i < 2; i++)
        kept_seq_free(s[i]);
    finish(&r, st);
    return status == KEPT_OK;
}

static void pressure_makes_room(void)
{
    CHECK(!both_decode("full", false));
    CHECK(!both_decode("adaptive(high=1,every=1,calm=full,tight=h2o)@25%", false));
    CHECK(both_decode("adaptive(every=1,hold=4,calm=full,tight=h2o+decode)@25%", true));
}

static double divergence(const float *p, const float *q)
{
    double sum_p = 0, sum_q = 0, kl = 0;
    for (int i = 0; i < n_vocab; i++) {
        sum_p += exp((double)p[i]);
        sum_q += exp((double)q[i]);
    }
    for (int i = 0; i < n_vocab; i++)
        kl += exp((double)p[i]) / sum_p * ((double)p[i] - log(sum_p) - (double)q[i] + log(sum_q));
    return kl;
}

/* KL against the full cache beside it, as the logits of both say. */
static void kl_needs_a_reference(void)
{
    kept_strategy *st = parse("adaptive(signal=kl,every=1,hold=0,high=1000,low=0.5,calm=full,"
                              "tight=window)@30%");
    util_run r = start((size_t)64 << 20);
    kept_seq *s = ready(&r, st, N_PROMPT, -1), *full = ready(&r, NULL, N_PROMPT, -1);
    kept_decision log[CAP];
    CHECK_INT(step(&r, s, 0), KEPT_ARGUMENT);
    CHECK(strstr(r.err.text, "kept_seq_set_reference"));
    CHECK_INT(kept_seq_set_reference(s, s, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_set_reference(full, s, &r.err), KEPT_ARGUMENT);
    CHECK_INT(kept_seq_set_reference(s, full, &r.err), KEPT_OK);
    for (int t = 0; t < 20; t++) {
        kept_item it[2] = {
            {.seq = s, .tokens = tokens + N_PROMPT + t, .n_tokens = 1, .n_logits = 1},
            {.seq = full, .tokens = tokens + N_PROMPT + t, .n_tokens = 1, .n_logits = 1}};
        CHECK_INT(kept_engine_forward(r.engine, it, 2, &r.err), KEPT_OK);
        const float *q = kept_engine_logits(r.engine), *p = q + n_vocab;
        double kl = divergence(p, q);
        int n = kept_seq_decisions(s, log, CAP);
        CHECK_INT(n, t + 1); /* none when the prompt was in: nothing to compare */
        CHECK_NEAR(log[n - 1].signal, kl, 1e-6 + 1e-4 * kl);
        CHECK(t < 2 ? true : kl > 1e-6); /* tight after the first step, where both were full */
    }
    CHECK(log[0].state == 1 && log[0].signal < 1e-6);
    /* Another token: no longer the same text, so nothing is decided. */
    int n = kept_seq_decisions(s, log, CAP);
    for (int t = 0; t < 3; t++) {
        kept_item it[2] = {{.seq = s, .tokens = tokens + t, .n_tokens = 1, .n_logits = 1},
                           {.seq = full, .tokens = tokens + t + !t, .n_tokens = 1, .n_logits = 1}};
        CHECK_INT(kept_engine_forward(r.engine, it, 2, &r.err), KEPT_OK);
    }
    CHECK_INT(kept_seq_decisions(s, log, CAP), n);
    kept_seq_free(full);
    CHECK_INT(step(&r, s, 40), KEPT_ARGUMENT);
    kept_seq_free(s);
    finish(&r, st);
}

/* ---- a shared budget ----------------------------------------------------------------------- */

static kept_decision last_of(const kept_seq *s)
{
    kept_decision log[CAP];
    int n = kept_seq_decisions(s, log, CAP);
    CHECK(n > 0 && n <= CAP);
    return log[n > 0 ? n - 1 : 0];
}

/* Sequences of several lengths under one strategy: after every pass what they may hold adds up to
 * what they brought, nobody is below its floor, and nobody holds more but what grew since. */
static void balance_is_exact(void)
{
    kept_strategy *st = parse("h2o+balance(floor=60,every=4)@25%");
    static const int length[] = {300, 120, 300, 64};
    util_run r = start((size_t)64 << 20);
    kept_seq *s[4];
    int64_t own[4], total = 0;
    bool moved = false;
    for (int i = 0; i < 4; i++) {
        own[i] = (int64_t)ALL * length[i] * 25 / 100;
        total += own[i];
        s[i] = new_seq(&r, st, 1);
        CHECK_INT(util_prefill(&r, s[i], tokens + 7 * i, length[i], 128, NULL), KEPT_OK);
        CHECK_INT(kept_seq_end_prefill(s[i], &r.err), KEPT_OK);
        int64_t sum = 0, held = 0, brought = 0;
        for (int j = 0; j <= i; j++) {
            sum += last_of(s[j]).slots;
            held += live(s[j]);
            brought += own[j];
        }
        CHECK_INT(sum, brought);
        CHECK(held <= brought);
    }
    int n = 4;
    for (int t = 0; t < 100; t++) {
        if (t == 50) { /* one leaves: the others have their own sum again at the next split */
            kept_seq_free(s[3]);
            total -= own[3];
            n = 3;
        }
        kept_item it[4];
        for (int i = 0; i < n; i++)
            it[i] = (kept_item){.seq = s[i], .tokens = tokens + i + t, .n_tokens = 1};
        CHECK_INT(kept_engine_forward(r.engine, it, n, &r.err), KEPT_OK);
        if (t == 50 || t == 51)
            continue;
        int64_t sum = 0;
        for (int i = 0; i < n; i++) {
            kept_decision d = last_of(s[i]);
            sum += d.slots;
            CHECK(d.slots >= own[i] * 60 / 100);
            CHECK(live(s[i]) <= d.slots + (t % 4 + 1) * ALL);
            CHECK(t % 4 != 3 || live(s[i]) <= d.slots);
            moved |= d.slots != own[i];
        }
        CHECK_INT(sum, total);
    }
    CHECK(moved);
    for (int i = 0; i < n; i++)
        kept_seq_free(s[i]);
    finish(&r, st);
}

/* Who attends more widely gets more: with the task's hint as signal the order is known. */
static void balance_follows_the_signal(void)
{
    kept_strategy *st = parse("h2o+balance(signal=task,floor=10,every=2)@25%");
    util_run r = start((size_t)64 << 20);
    kept_seq *s[3];
    for (int i = 0; i < 3; i++)
        s[i] = ready(&r, st, N_PROMPT, i / 2.0);
    for (int t = 0; t < 40; t++) {
        kept_item it[3];
        for (int i = 0; i < 3; i++)
            it[i] = (kept_item){.seq = s[i], .tokens = tokens + N_PROMPT + t, .n_tokens = 1};
        CHECK_INT(kept_engine_forward(r.engine, it, 3, &r.err), KEPT_OK);
    }
    /* 450 each, floor 45: beyond it 1215 in proportion 1 : 1/2 : 0, but no more than can be used.
     */
    int64_t slots[3];
    for (int i = 0; i < 3; i++)
        slots[i] = last_of(s[i]).slots;
    CHECK_INT(slots[0] + slots[1] + slots[2], 3 * 450);
    CHECK(slots[0] > slots[1] && slots[1] > slots[2]);
    CHECK_INT(slots[2], 45);
    CHECK(live(s[2]) <= 45);
    for (int i = 0; i < 3; i++)
        kept_seq_free(s[i]);
    finish(&r, st);
}

/* What others made it do, a sequence does again alone by its log. */
static void balance_replays(void)
{
    kept_strategy *st = parse("h2o+balance(signal=task,floor=10,every=3)@25%");
    util_run r = start((size_t)64 << 20);
    kept_seq *s[2] = {ready(&r, st, N_PROMPT, 0.3), ready(&r, st, 200, 0)}, *again;
    for (int t = 0; t < 60; t++) {
        kept_item it[2];
        for (int i = 0; i < 2; i++)
            it[i] = (kept_item){.seq = s[i], .tokens = tokens + N_PROMPT + t, .n_tokens = 1};
        CHECK_INT(kept_seq_hint(s[0], t < 20 ? 0.1 : 0.9), KEPT_OK);
        CHECK_INT(kept_engine_forward(r.engine, it, 2, &r.err), KEPT_OK);
    }
    kept_decision log[CAP];
    int n = kept_seq_decisions(s[0], log, CAP);
    again = new_seq(&r, st, 1);
    CHECK_INT(kept_seq_replay(again, log, n, &r.err), KEPT_OK);
    CHECK_INT(util_prefill(&r, again, tokens, N_PROMPT, 128, NULL), KEPT_OK);
    CHECK_INT(kept_seq_end_prefill(again, &r.err), KEPT_OK);
    kept_seq *pad = ready(&r, NULL, 64, -1); /* as many rows in a batch: the same bits */
    for (int t = 0; t < 60; t++) {
        kept_item it[2] = {{.seq = again, .tokens = tokens + N_PROMPT + t, .n_tokens = 1},
                           {.seq = pad, .tokens = tokens + N_PROMPT + t, .n_tokens = 1}};
        CHECK_INT(kept_engine_forward(r.engine, it, 2, &r.err), KEPT_OK);
    }
    CHECK(same_sets(s[0], again));
    CHECK_INT(kept_seq_decisions(again, NULL, 0), n);
    kept_seq_free(s[0]);
    kept_seq_free(s[1]);
    kept_seq_free(again);
    kept_seq_free(pad);
    finish(&r, st);
}

int main(void)
{
    kept_error err;
    mkgguf_spec spec = mkgguf_default("llama");
    spec.n_ctx = CAP;
    spec.qk_gain = 3;
    char *path = mkgguf_temp();
    if (!path || mkgguf_write(path, &spec) || kept_model_open(path, &model, &err)) {
        fprintf(stderr, "no model\n");
        return 1;
    }
    n_vocab = kept_model_get_info(model)->n_vocab;
    tokens = util_tokens(N_PROMPT + N_DECODE, n_vocab, 11);
    RUN(budgets_in_every_state);
    RUN(states_equal_their_specs);
    RUN(going_back_only_stops);
    RUN(replay_is_the_same);
    RUN(bad_logs_are_refused);
    RUN(forks_go_on);
    RUN(pressure_makes_room);
    RUN(kl_needs_a_reference);
    RUN(balance_is_exact);
    RUN(balance_follows_the_signal);
    RUN(balance_replays);
    free(tokens);
    kept_model_free(model);
    unlink(path);
    free(path);
    TEST_END();
}
