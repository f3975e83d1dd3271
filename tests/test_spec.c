/* Specs: round trips over the registry, error positions and suggestions, budgets, and the table of
 * docs/strategies.md, which must agree with the registry word for word. `test_spec --rows` prints
 * the table as it should be.
 */
#include "policy/parts.h"
#include "policy/spec.h"
#include "test.h"

#ifndef KEPT_ROOT
#define KEPT_ROOT "."
#endif

/* Two strategies that act alike. */
static bool equal(const kept_strategy *a, const kept_strategy *b)
{
    if (a->budget_kind != b->budget_kind || a->budget != b->budget)
        return false;
    if (a->n_states != b->n_states)
        return false;
    for (int i = 0; i < a->n_states; i++)
        if (!equal(a->state[i], b->state[i]))
            return false;
    for (int x = 0; x < KEPT_N_AXES; x++) {
        if (a->part[x] != b->part[x])
            return false;
        for (int i = 0; i < a->part[x]->n_options; i++)
            if (a->option[x][i] != b->option[x][i])
                return false;
    }
    return true;
}

static void check_round_trip(const char *spec)
{
    kept_strategy *s = NULL, *again = NULL;
    kept_error err = {"", 0};
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        test_failed = 1;
        return;
    }
    const char *printed[] = {kept_strategy_name(s), kept_strategy_resolved(s)};
    for (int i = 0; i < 2; i++) {
        CHECK_INT(kept_strategy_parse(printed[i], &again, &err), KEPT_OK);
        if (again) {
            CHECK(equal(s, again));
            CHECK_STR(kept_strategy_name(again), kept_strategy_name(s));
            CHECK_STR(kept_strategy_resolved(again), kept_strategy_resolved(s));
        }
        kept_strategy_free(again);
    }
    kept_strategy_free(s);
}

static void check_spelling(const char *spec, const char *name, const char *resolved)
{
    kept_strategy *s = NULL;
    kept_error err = {"", 0};
    CHECK_INT(kept_strategy_parse(spec, &s, &err), KEPT_OK);
    if (!s) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        return;
    }
    CHECK_STR(kept_strategy_name(s), name);
    if (resolved)
        CHECK_STR(kept_strategy_resolved(s), resolved);
    kept_strategy_free(s);
    check_round_trip(spec);
}

/* spec is refused at character `at`, and the text says `part`. */
static void check_error(const char *spec, int at, const char *part)
{
    kept_strategy *s = (kept_strategy *)(void *)&at;
    kept_error err = {"", -2};
    kept_status st = kept_strategy_parse(spec, &s, &err);
    if (st != KEPT_ARGUMENT || s || err.at != at || !strstr(err.text, part) ||
        strchr(err.text, '\n')) {
        fprintf(stderr, "\"%s\": status %d at %d, expected %d; \"%s\" should say \"%s\"\n", spec,
                st, err.at, at, err.text, part);
        test_failed = 1;
    }
    CHECK_INT(kept_strategy_parse(spec, &s, NULL), KEPT_ARGUMENT);
}

/* Appends a part with option `k` at one end of its range (or choice 1), all others at default, or
 * at 1 where they must be given. */
static void write_option(char *spec, size_t cap, const char *name, const kept_option *o, int n,
                         int k, bool high)
{
    char number[KEPT_SPEC_NUMBER];
    const char *open = "(";
    size_t used = strlen(spec);
    snprintf(spec + used, cap - used, "%s", name);
    for (int i = 0; i < n; i++) {
        double x = i != k ? 1 : high ? o[i].max : o[i].min;
        if (i != k && !isnan(o[i].value))
            continue;
        used = strlen(spec);
        snprintf(spec + used, cap - used, "%s%s=%s", open, o[i].name,
                 o[i].choices ? o[i].choices[(int)x] : kept_spec_write(x, number));
        open = ",";
    }
    used = strlen(spec);
    snprintf(spec + used, cap - used, "%s", *open == ',' ? ")" : "");
}

/* "random+PART@7%"; a score stands alone, a part with states has specs in place of a score. */
static void write_part(char *spec, size_t cap, const kept_part *p, int k, bool high)
{
    const kept_controller *c = (const kept_controller *)(const void *)p;
    bool states = p->axis == KEPT_AXIS_CONTROLLER && c->states;
    snprintf(spec, cap, "%s", p->axis == KEPT_AXIS_SCORE || states ? "" : "random+");
    write_option(spec, cap, p->name, p->options, p->n_options, k, high);
    for (int i = 0; states && c->states[i]; i++) {
        size_t n = strlen(spec);
        bool open = n && spec[n - 1] == ')';
        n -= open; /* goes on inside the brackets */
        snprintf(spec + n, cap - n, "%s%s=%s)", open ? "," : "(", c->states[i],
                 i ? "h2o+decode" : "full");
    }
    snprintf(spec + strlen(spec), cap - strlen(spec), "%s",
             p == &kept_score_full.part ? "" : "@7%");
}

static void test_every_part(void)
{
    for (int i = 0; i < kept_part_count(); i++) {
        const kept_part *p = kept_part_at(i);
        CHECK_INT(p->abi, KEPT_POLICY_ABI);
        CHECK(p->n_options <= KEPT_MAX_OPTIONS);
        CHECK(kept_part_find(p->axis, p->name) == p);
        for (int k = 0; k <= p->n_options; k++)
            for (int high = 0; high < 2; high++) {
                char spec[300] = "";
                write_part(spec, sizeof spec, p, k, high);
                /* The lowest threshold that is high leaves none that is lower than it but 0. */
                if (strstr(spec, "high=0") || strstr(spec, "low=1048576"))
                    continue;
                /* Nor does a ladder have a rung that is wider than the one before. */
                if (strstr(spec, "=f16") && strspn(strchr(spec, '(') + 1, "oml"))
                    continue;
                check_round_trip(spec);
            }
    }
    for (int i = 0; i < kept_recipe_count(); i++) {
        const kept_recipe *r = kept_recipe_at(i);
        for (int k = 0; k <= r->n_options; k++)
            for (int high = 0; high < 2; high++) {
                char spec[300] = "";
                const bool codec = !strncmp(r->spec, "store(", 6) || !strncmp(r->spec, "park(", 5);
                snprintf(spec, sizeof spec, "%s", codec ? "full+" : "");
                write_option(spec, sizeof spec, r->name, r->options, r->n_options, k, high);
                const char *budget = strstr(r->spec, "waterfill") ? "@12%" : "@512";
                if (!codec)
                    snprintf(spec + strlen(spec), sizeof spec - strlen(spec), "%s", budget);
                check_round_trip(spec);
            }
    }
}

static void test_required_option(void)
{
    check_error("kvzap-threshold@50%", 15, "needs at=NUMBER");
    check_error("kvzap-threshold(recent=9)@50%", 25, "needs at=NUMBER");
    check_round_trip("kvzap-threshold(at=-7.5)@100%");
}

static void test_names_are_unique(void)
{
    const char *name[160];
    int n = 0;
    for (int i = 0; i < kept_part_count(); i++)
        name[n++] = kept_part_at(i)->name;
    for (int i = 0; i < kept_recipe_count(); i++)
        name[n++] = kept_recipe_at(i)->name;
    for (int i = 0; i < n; i++) {
        CHECK_INT(strspn(name[i], "abcdefghijklmnopqrstuvwxyz0123456789-"), strlen(name[i]));
        for (int j = 0; j < i; j++)
            CHECK(strcmp(name[i], name[j]));
    }
}

static void test_defaults_are_in_range(void)
{
    for (int i = 0; i < kept_part_count(); i++)
        for (int k = 0; k < kept_part_at(i)->n_options; k++) {
            const kept_option *o = &kept_part_at(i)->options[k];
            CHECK(o->value >= o->min && o->value <= o->max);
            CHECK(!o->integer || o->value == floor(o->value));
            int n = 0;
            while (o->choices && o->choices[n])
                n++;
            CHECK(!o->choices || (o->integer && o->min == 0 && o->max == n - 1));
        }
}

static void test_spellings(void)
{
    check_spelling("full", "full", "full");
    check_spelling("h2o@20%", "h2o@20%",
                   "h2o(norm=off,gqa=sum,pool=none,kernel=1,pool-first=off)+unweighted+tokens+"
                   "uniform+protect(sinks=4,recent=32,first=0,last=0,"
                   "template=off)+prefill+original+drop+f16+fixed+all@20%");
    check_spelling("decode(every=16)+slot+ada+snapkv(window=64,pool=avg)@64MiB",
                   "snapkv(window=64,pool=avg)+ada+decode(every=16)+slot@64MiB",
                   "snapkv(window=64,gqa=sum,pool=avg,kernel=7,pool-first=off)+unweighted+tokens+"
                   "ada(alpha=0.2)+protect("
                   "sinks=4,recent=32,first=0,last=0,template=off)"
                   "+decode(every=16,slack=0)+slot+drop+f16+fixed+all@64MiB");
    check_spelling("window@512", "recency+protect(sinks=0,recent=0)@512", NULL);
    check_spelling("streaming@512", "recency+protect(recent=0)+slot@512", NULL);
    check_spelling("streaming(position=original,sinks=8)+decode(every=16)@512",
                   "recency+protect(sinks=8,recent=0)+decode(every=16)@512", NULL);
    check_spelling("quest(pages=8)+full", "full+quest(pages=8)",
                   "full+quest(share=0.125,pages=8,skip=2,gqa=max,every=1)");
    check_spelling("full+all", "full", "full");
    check_spelling("rocketkv@25%", "snapkv(kernel=63)+rocket(share=0.25)@25%", NULL);
    check_spelling("pyramidkv@12.5%", "snapkv+pyramid@12.5%", NULL);
    check_spelling("adakv+chunks@128", "snapkv+ada+chunks@128", NULL);
    check_spelling("observed-attention@1%", "h2o(norm=on)@1%", NULL);
    check_spelling("ada-expected-attention@1%", "expected-attention(epsilon=0.01)+ada@1%", NULL);
    check_spelling("knorm+prefill+original+uniform+protect(sinks=4)@10.0%", "knorm@10%", NULL);
}

#define H2O(schedule)                                                                              \
    "h2o(norm=off,gqa=sum,pool=none,kernel=1,pool-first=off)+unweighted+tokens+uniform+"           \
    "protect(sinks=4,recent=32,first=0,last=0,"                                                    \
    "template=off)+" schedule "+original+drop+f16+"                                                \
    "fixed"

/* Thresholds that are not written are the signal's; what a state leaves open comes from outside; a
 * budget that all states share stands outside. */
static void test_states(void)
{
    check_spelling("adaptive(calm=full,tight=h2o)@25%", "adaptive(calm=full,tight=h2o)@25%",
                   "adaptive(signal=pressure,high=0.9,low=0.75,every=16,hold=32,sinks=4,window=64,"
                   "calm=full,tight=" H2O("prefill") ")+all@25%");
    check_spelling("adaptive(tight=h2o@25%,signal=entropy,low=0.125,calm=full)+decode(every=8)",
                   "adaptive(signal=entropy,low=0.125,calm=full,tight=h2o+decode(every=8))@25%",
                   "adaptive(signal=entropy,high=0.5,low=0.125,every=16,hold=32,sinks=4,window=64,"
                   "calm=full,tight=" H2O("decode(every=8,slack=0)") ")+all@25%");
    check_spelling("quest(share=0.5)+adaptive(calm=full,tight=h2o)@25%",
                   "adaptive(calm=full,tight=h2o)+quest(share=0.5)@25%", NULL);
    check_spelling("adaptive(signal=kl,high=0.05,calm=knorm@512,tight=pyramidkv)@10%",
                   "adaptive(signal=kl,calm=knorm@512,tight=snapkv+pyramid@10%)", NULL);
    check_spelling("chunks+adaptive(calm=h2o+slot,tight=h2o+decode@5%)@1MiB",
                   "adaptive(calm=h2o+chunks+slot@1MiB,tight=h2o+decode@5%)", NULL);
    check_spelling("adaptive(calm=streaming(sinks=8,position=original)+fixed@64,tight=window)@64",
                   "adaptive(calm=recency+protect(sinks=8,recent=0),"
                   "tight=recency+protect(sinks=0,recent=0))@64",
                   NULL);
    check_spelling("h2o+balance(every=16,floor=12.5)@25%", "h2o+balance(floor=12.5)@25%",
                   "h2o(norm=off,gqa=sum,pool=none,kernel=1,pool-first=off)+unweighted+tokens+"
                   "uniform+protect(sinks=4,recent=32,first=0,"
                   "last=0,template=off)+prefill+"
                   "original+drop+f16+balance(signal=entropy,floor=12.5,every=16)+all@25%");
}

static void test_state_errors(void)
{
    check_error("adaptive@5%", 0, "needs a spec for its state 'calm'");
    check_error("adaptive(calm=full)@5%", 0, "needs a spec for its state 'tight'");
    check_error("adaptive(calm=full,tigth=h2o)@5%", 19, "did you mean 'tight'?");
    check_error("adaptive(calm=full,calm=h2o)@5%", 19, "given twice");
    check_error("adaptive(calm=full,tight=h20)@5%", 25, "did you mean 'h2o'?");
    check_error("adaptive(calm=full,tight=)@5%", 25, "name of a part");
    check_error("adaptive(signal=presure,calm=full,tight=h2o)@5%", 16, "did you mean 'pressure'?");
    check_error("adaptive(calm=full,tight=full)", 0, "would never evict");
    check_error("adaptive(calm=full@5%,tight=h2o)@5%", 18, "takes no budget");
    check_error("adaptive(calm=full,tight=h2o)", 28, "needs a budget");
    check_error("adaptive(calm=full,tight=h2o@0%)", 29, "above 0 and at most 100, not '0%'");
    check_error("adaptive(calm=full,tight=h2o@5x)", 30, "budget");
    check_error("adaptive(calm=full,tight=h2o@5%", 31, "expected ',' or ')'");
    check_error("adaptive(calm=full,tight=h2o@5%@6%)", 31, "end of the spec after its budget");
    check_error("adaptive(calm=full,tight=h2o@5%)@6%", 32, "no state of 'adaptive' takes this");
    check_error("adaptive(calm=full,tight=h2o)+h2o@5%", 30, "takes its scores from its states");
    check_error("adaptive(calm=full,tight=h2o+decode)+chunks@5%", 37, "takes 'chunks'");
    check_error("adaptive(calm=full,tight=h2o+balance)@5%", 29, "controls a state");
    check_error("adaptive(calm=full,tight=adaptive(calm=full,tight=h2o))@5%", 25,
                "controls a state");
    check_error("adaptive(low=0.95,calm=full,tight=h2o)@5%", 0, "low must not be above high");
    check_error("full+balance", 5, "takes no controller such as 'balance'");
}

static void test_budgets(void)
{
    static const struct {
        const char *spec, *name;
        kept_budget_kind kind;
        double value;
    } row[] = {
        {"knorm@100%", "knorm@100%", KEPT_BUDGET_PERCENT, 100},
        {"knorm@0.1%", "knorm@0.1%", KEPT_BUDGET_PERCENT, 0.1},
        {"knorm@33.333333333333%", "knorm@33.333333333333%", KEPT_BUDGET_PERCENT, 33.333333333333},
        {"knorm@1", "knorm@1", KEPT_BUDGET_TOKENS, 1},
        {"knorm@1000000", "knorm@1000000", KEPT_BUDGET_TOKENS, 1000000},
        {"knorm@1B", "knorm@1B", KEPT_BUDGET_BYTES, 1},
        {"knorm@4096B", "knorm@4KiB", KEPT_BUDGET_BYTES, 4096},
        {"knorm@1.5GiB", "knorm@1536MiB", KEPT_BUDGET_BYTES, 1610612736},
        {"knorm@1M", "knorm@1000000B", KEPT_BUDGET_BYTES, 1000000},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        kept_strategy *s = NULL;
        CHECK_INT(kept_strategy_parse(row[i].spec, &s, NULL), KEPT_OK);
        if (!s)
            continue;
        CHECK_INT(s->budget_kind, row[i].kind);
        CHECK(s->budget == row[i].value);
        CHECK_STR(s->name, row[i].name);
        kept_strategy_free(s);
        check_round_trip(row[i].spec);
    }
}

static void test_budget_slots(void)
{
    static const struct {
        const char *spec;
        int64_t slots; /* of 30 layers x 3 heads of 64, 1001 tokens */
    } row[] = {
        {"knorm@20%", 18018},
        {"knorm@1%", 900},
        {"knorm@29%", 26126},
        {"knorm@100%", 90090},
        {"knorm@512", 46080},
        {"knorm@1MiB", 4096},
        {"knorm@1023B", 3},
        {"knorm@256B", 1},
        {"knorm@255B", 0},
        {"knorm@12.5%", 11261},
        {"full", 90090},
        {"adaptive(calm=h2o@50%,tight=h2o@20%)", 45045}, /* what it may hold at most */
        {"adaptive(calm=full,tight=h2o)@20%", 90090},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        kept_strategy *s = NULL;
        CHECK_INT(kept_strategy_parse(row[i].spec, &s, NULL), KEPT_OK);
        if (s)
            CHECK_INT(kept_strategy_budget_slots(s, 30, 3, 64, 1001), row[i].slots);
        kept_strategy_free(s);
    }
}

static void test_errors(void)
{
    check_error("", 0, "expected the name of a part");
    check_error("snapk@20%", 0, "unknown part 'snapk' at character 0: did you mean 'snapkv'?");
    check_error("h2o+adda@20%", 4, "did you mean 'ada'?");
    check_error("pyramidkw@20%", 0, "did you mean 'pyramidkv'?");
    check_error("SnapKV@20%", 0, "did you mean 'snapkv'?");
    check_error("zzzzzzzzzzzz@20%", 0, "unknown part 'zzzzzzzzzzzz'");
    check_error("h2o +ada@20%", 3, "expected '+', '@' or the end at character 3, not ' '");
    check_error("h2o+@20%", 4, "expected the name of a part");
    check_error("+h2o@20%", 0, "expected the name of a part");
    check_error("h2o\n@20%", 3, "byte 0x0a");
    check_error("h2o\xff@20%", 3, "byte 0xff");
    check_error("snapkv(windo=3)@20%", 7, "unknown option of 'snapkv' 'windo'");
    check_error("snapkv(windo=3)@20%", 7, "did you mean 'window'?");
    check_error("snapkv(pool=mean)@20%", 12, "choice of option 'pool'");
    check_error("snapkv(pool=)@20%", 12, "expected one of");
    check_error("snapkv(window=0)@20%", 14, "integer in 1..65536");
    check_error("snapkv(window=1.5)@20%", 14, "not '1.5'");
    check_error("snapkv(window=65537)@20%", 14, "integer in 1..65536");
    check_error("expected-attention(epsilon=1.5)@20%", 27, "a number in 0..1");
    check_error("snapkv(window=-1)@20%", 14, "not '-1'");
    check_error("snapkv(window=1e3)@20%", 14, "not '1e3'");
    check_error("snapkv(window=)@20%", 14, "expected a number");
    check_error("snapkv(window=32", 16, "expected ',' or ')'");
    check_error("snapkv(window@20%", 13, "expected '='");
    check_error("snapkv()@20%", 7, "expected an option name");
    check_error("snapkv(window=3,window=4)@20%", 16, "given twice");
    check_error("random(seed=1)@20%", 7, "there are none");
    check_error("h2o+snapkv@20%", 4, "sets the score, which 'h2o' at character 0 set already");
    check_error("window+protect@20%", 7,
                "'protect' at character 7 sets the protection, which "
                "'window'");
    check_error("streaming+original@512", 10, "sets the position");
    check_error("ada+pyramidkv@512", 4, "'pyramidkv' at character 4 sets the allocator");
    check_error("ada@20%", 0, "no score");
    check_error("h2o", 3, "'h2o' needs a budget");
    check_error("pyramidkv", 9, "'pyramidkv' needs a budget");
    check_error("full@20%", 4, "no budget");
    check_error("full+decode", 5, "no schedule");
    check_error("full+ada", 5, "no allocator");
    check_error("h2o@", 4, "expected a budget");
    check_error("h2o@0%", 4, "above 0 and at most 100");
    check_error("h2o@100.1%", 4, "above 0 and at most 100");
    check_error("h2o@%", 4, "percent");
    check_error("h2o@0", 4, "integer in 1..");
    check_error("h2o@1.5", 4, "integer in 1..");
    check_error("h2o@99999999999", 4, "integer in 1..");
    check_error("h2o@0MiB", 4, "bytes");
    check_error("h2o@64Mi8", 6, "budget");
    check_error("h2o@MiB", 4, "expected a budget");
    check_error("h2o@20%+ada", 7, "end of the spec after its budget");
    check_error("h2o@20%%", 4, "percent");
    check_error("h2o(norm=on)x@20%", 12, "expected '+', '@' or the end");
}

static void test_long_input(void)
{
    static char spec[10000];
    kept_strategy *s;
    kept_error err;
    memset(spec, 'a', sizeof spec - 1);
    CHECK_INT(kept_strategy_parse(spec, &s, &err), KEPT_ARGUMENT);
    spec[4000] = 0;
    CHECK_INT(kept_strategy_parse(spec, &s, &err), KEPT_ARGUMENT);
    for (int i = 0; i + 4 < 4000; i += 4)
        memcpy(spec + i, "h2o+", 4);
    CHECK_INT(kept_strategy_parse(spec, &s, &err), KEPT_ARGUMENT);
    CHECK_INT(kept_strategy_parse(NULL, &s, &err), KEPT_ARGUMENT);
}

static void test_needs(void)
{
    const char *const spec[] = {"h2o@5%",          "tova@5%",  "snapkv@5%", "snapkv(window=64)@5%",
                                "h2o(norm=on)@9%", "knorm@5%", "full"};
    kept_strategy *s[8];
    kept_capture cap;
    kept_error err;
    for (int i = 0; i < 7; i++)
        CHECK_INT(kept_strategy_parse(spec[i], &s[i], NULL), KEPT_OK);
    CHECK_INT(kept_capture_union((const kept_strategy *const *)s, 7, &cap, &err), KEPT_OK);
    CHECK_INT(cap.n_planes, 4);
    CHECK(cap.plane[0].window == 1 && cap.plane[1].window == 32 && cap.plane[2].window == 64);
    CHECK_INT(cap.plane[3].window, INT32_MAX);
    CHECK(!cap.query_stats);
    for (int i = 0; cap.n_planes < KEPT_MAX_CAPTURED; i++)
        CHECK_INT(kept_capture_add(&cap, (kept_plane){.window = 1000 + i}, &err), KEPT_OK);
    CHECK_INT(kept_strategy_parse("snapkv(window=8)@5%", &s[7], NULL), KEPT_OK);
    CHECK_INT(kept_strategy_needs(s[7], &cap, &err), KEPT_ARGUMENT);
    for (int i = 0; i < 8; i++)
        kept_strategy_free(s[i]);
    CHECK_INT(kept_strategy_parse("expected-attention@5%", &s[0], NULL), KEPT_OK);
    CHECK_INT(kept_capture_union((const kept_strategy *const *)s, 1, &cap, &err), KEPT_OK);
    CHECK(cap.n_planes == 0 && cap.query_stats);
    kept_strategy_free(s[0]);
}

/* A sequence records what any of its states needs, and what the signal reads. */
static void test_needs_of_states(void)
{
    kept_strategy *s = NULL;
    kept_capture cap = {0};
    kept_error err;
    CHECK_INT(kept_strategy_parse(
                  "adaptive(signal=entropy,calm=snapkv,tight=expected-attention)@5%", &s, &err),
              KEPT_OK);
    CHECK_INT(kept_strategy_needs(s, &cap, &err), KEPT_OK);
    CHECK(cap.n_planes == 2 && cap.plane[0].window == 1 && cap.plane[1].window == 32);
    CHECK(cap.query_stats && kept_strategy_needs_of(s) & KEPT_NEED_QUERIES);
    kept_strategy_free(s);
}

static void check_schedule(const char *spec, bool chunks, int every, bool moves)
{
    kept_strategy *s = NULL;
    CHECK_INT(kept_strategy_parse(spec, &s, NULL), KEPT_OK);
    CHECK_INT(kept_strategy_acts_on_chunks(s), chunks);
    CHECK_INT(kept_strategy_decode_every(s), every);
    CHECK_INT(kept_strategy_moves_keys(s), moves);
    kept_strategy_free(s);
}

static void test_schedules(void)
{
    check_schedule("full", false, 0, false);
    check_schedule("h2o@5%", false, 0, false);
    check_schedule("h2o+decode@5%", false, 1, false);
    check_schedule("h2o+decode(every=16)@5%", false, 16, false);
    check_schedule("h2o+chunks+slot@5%", true, 0, true);
    check_schedule("h2o+chunks(decode=4)@5%", true, 4, false);
    check_schedule("adaptive(calm=h2o+chunks,tight=h2o+slot)@5%", true, 0, true);
}

/* ---- docs ---------------------------------------------------------------------------------- */

static void put(char *row, const char *text)
{
    strncat(row, text, 4095 - strlen(row));
}

static void put_options(char *row, const kept_option *o, int n)
{
    char a[KEPT_SPEC_NUMBER], b[KEPT_SPEC_NUMBER], c[KEPT_SPEC_NUMBER], text[200];
    for (int i = 0; i < n; i++) {
        if (o[i].choices) {
            snprintf(text, sizeof text, "%s%s=%s", i ? "; " : "", o[i].name,
                     o[i].choices[(int)o[i].value]);
            put(row, text);
            for (int k = 0; o[i].choices[k]; k++) {
                put(row, k ? ", " : " (");
                put(row, o[i].choices[k]);
            }
            put(row, ")");
        } else {
            snprintf(text, sizeof text, "%s%s=%s (%s to %s)", i ? "; " : "", o[i].name,
                     isnan(o[i].value) ? "?" : kept_spec_write(o[i].value, a),
                     kept_spec_write(o[i].min, b), kept_spec_write(o[i].max, c));
            put(row, text);
        }
        put(row, ": ");
        put(row, o[i].help);
    }
}

static void put_needs(char *row, const kept_part *p)
{
    kept_profile profile;
    kept_part_profile(p, NULL, &profile);
    put(row, profile.needs);
    put(row, " | ");
    if (*profile.family)
        put(row, profile.cost);
    if (*profile.state)
        put(row, "; ");
    put(row, profile.state);
}

/* Row i of the table: parts first, then recipes. */
static bool write_row(int i, char row[4096])
{
    const kept_part *p = kept_part_at(i);
    const kept_recipe *r = kept_recipe_at(i - kept_part_count());
    if (!p && !r)
        return false;
    const char *const cell[] = {p ? p->name : r->name, p ? kept_axis_name(p->axis) : "recipe",
                                p ? p->summary : r->summary};
    strcpy(row, "| `");
    put(row, cell[0]);
    put(row, "` | ");
    put(row, cell[1]);
    put(row, " | ");
    put(row, cell[2]);
    if (r) {
        put(row, ": `");
        put(row, r->spec);
        put(row, "`");
    }
    put(row, " | ");
    put_options(row, p ? p->options : r->options, p ? p->n_options : r->n_options);
    put(row, " | ");
    put(row, p ? p->paper : r->paper);
    put(row, " | ");
    put(row, p ? p->deviations : r->deviations);
    put(row, " | ");
    if (p)
        put_needs(row, p);
    else
        put(row, " | ");
    put(row, " |");
    return true;
}

static void test_docs_agree(void)
{
    static char line[8192], row[4096];
    FILE *f = fopen(KEPT_ROOT "/docs/strategies.md", "r");
    int i = 0;
    CHECK(f != NULL);
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        if (strncmp(line, "| `", 3))
            continue;
        line[strcspn(line, "\n")] = 0;
        CHECK(write_row(i++, row));
        CHECK_STR(line, row);
    }
    fclose(f);
    CHECK_INT(i, kept_part_count() + kept_recipe_count());
}

int main(int argc, char **argv)
{
    static char row[4096];
    if (argc > 1 && !strcmp(argv[1], "--rows")) {
        for (int i = 0; write_row(i, row); i++)
            puts(row);
        return 0;
    }
    RUN(test_every_part);
    RUN(test_required_option);
    RUN(test_names_are_unique);
    RUN(test_defaults_are_in_range);
    RUN(test_spellings);
    RUN(test_states);
    RUN(test_state_errors);
    RUN(test_budgets);
    RUN(test_budget_slots);
    RUN(test_errors);
    RUN(test_long_input);
    RUN(test_needs);
    RUN(test_needs_of_states);
    RUN(test_schedules);
    RUN(test_docs_agree);
    TEST_END();
}
