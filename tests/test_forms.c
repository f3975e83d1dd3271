/* The codec axis without an engine: spellings, budgets, what cannot be. */
#include "policy/parts.h"
#include "test.h"

static void check_spelling(const char *spec, const char *name, const char *resolved)
{
    kept_strategy *s = NULL, *again = NULL;
    CHECK_INT(kept_strategy_parse(spec, &s, NULL), KEPT_OK);
    if (!s)
        return;
    CHECK_STR(kept_strategy_name(s), name);
    if (resolved)
        CHECK_STR(kept_strategy_resolved(s), resolved);
    CHECK_INT(kept_strategy_parse(kept_strategy_resolved(s), &again, NULL), KEPT_OK);
    CHECK_STR(kept_strategy_name(again), name);
    kept_strategy_free(s);
    kept_strategy_free(again);
}

static void check_error(const char *spec, int at, const char *part)
{
    kept_strategy *s = NULL;
    kept_error err = {"", -2};
    if (kept_strategy_parse(spec, &s, &err) != KEPT_ARGUMENT || err.at != at ||
        !strstr(err.text, part)) {
        fprintf(stderr, "\"%s\": at %d, expected %d; \"%s\" should say \"%s\"\n", spec, err.at, at,
                err.text, part);
        test_failed = 1;
    }
    kept_strategy_free(s);
}

static void test_spellings(void)
{
    check_spelling("full+f16", "full", "full");
    check_spelling("full+q8", "full+store", "full+store(k=q8,v=q8,residual=0,edge=0,edge-as=f16)");
    check_spelling("full+k4v3", "full+store(k=chan4,v=rot3)", NULL);
    check_spelling("chunks+full+kivi2", "full+chunks+store(k=chan2,residual=128)", NULL);
    check_spelling("q4+snapkv@25%", "snapkv+store(k=q4)@25%", NULL);
    check_spelling("full+aged(new=rot4)", "full+aged(new=rot4)",
                   "full+aged(new=rot4,mid=rot4,old=rot4,mid-after=128,old-after=512,in=tokens,"
                   "new-v=rot4,mid-v=rot4,old-v=rot4,edge=0,edge-as=f16)");
    check_spelling("full+aged(mid=chan4,old=chan4,old-v=rot3)", "full+aged(mid=chan4,old-v=rot3)",
                   "full+aged(new=f16,mid=chan4,old=chan4,mid-after=128,old-after=512,in=tokens,"
                   "new-v=f16,mid-v=rot4,old-v=rot3,edge=0,edge-as=f16)");
    check_spelling("rdkv@3%", "snapkv+values+waterfill@3%", NULL);
    check_spelling("ranked(top=q4)+knorm@7%", "knorm+ranked(top=q4)@7%", NULL);
    check_spelling("aging@10%", "recency+protect(recent=0)+aged@10%", NULL);
    check_spelling("full+store(v=rot3,k=q8,edge=2,edge-as=q8)",
                   "full+store(v=rot3,edge=2,edge-as=q8)", NULL);
}

static void test_budgets(void)
{
    static const struct {
        const char *spec;
        int64_t slots; /* of 30 layers x 3 heads of 64, 1001 tokens */
    } row[] = {
        /* A page of 64 slots: 16384 bytes, 8192 + 256 in q8, 4096 + 256 in q4, 2048 + 256 in rot2,
         * 2048 + 512 twice in kivi2. 63 slots of a head, or those of its residual pages and 63,
         * count 256 bytes each. */
        {"knorm+q8@20%", 29617},
        {"knorm+q4@20%", 52156},
        {"knorm+rot2@20%", 93478},
        /* 63 slots f16, two pages of them too, six in q8, the rest q4 */
        {"knorm+aged@20%", 18795},
        {"knorm+aged@60%", 123445},
        {"knorm+kivi2@20%", 21606},
        {"knorm+kivi2@40%", 117702},
        {"knorm+q8@512", 46080},
        /* 63 slots f16, the others in 5 bits */
        {"knorm+calibrated(bits=5)@20%", 45183},
        /* 63 slots f16; q8, rot4 and rot2 a quarter, a half, a quarter, or all rot2 */
        {"knorm+ranked@20%", 47263},
        {"knorm+waterfill@21%", 134534},
        {"full+q8", 90090},
        {"knorm+q8@1023B", 3},
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
    check_error("full+q8@20%", 7, "'full' evicts nothing, so it takes no budget");
    check_error("full+q8+ada", 8, "takes no allocator such as 'ada'");
    check_error("full+q8+decode", 8, "takes no schedule such as 'decode'");
    check_error("full+chunks", 5, "takes no schedule such as 'chunks'");
    check_error("full+q9", 5, "did you mean 'q8'?");
    check_error("full+store(k=q9)", 13, "unknown choice of option 'k' 'q9'");
    check_error("full+store(v=chan4)", 5, "chan4 is for keys; for values use tok4 or tok2");
    check_error("full+q8+q4", 8, "sets the codec, which 'q8' at character 5 set already");
    check_error("snapkv+kivi2@128", 7, "would be packed; use residual=0");
    check_error("snapkv+kivi2+slot@512", 7, "use the position original, or k=rot2");
    check_error("snapkv+rerotated+store(k=chan4)@5%", 17, "use the position original, or k=q4");
    check_error("snapkv+aged@128", 7, "use a smaller mid-after");
    check_error("full+aged(old=q8,mid=q4)", 5, "old=q8 has more bits than mid=q4");
    check_error("full+aged(mid-v=rot3,old-v=q8)", 5, "old-v=q8 has more bits than mid-v=rot3");
    check_error("full+aged(mid-v=chan4)", 16, "choice of option 'mid-v' 'chan4'");
    check_error("snapkv+aged(mid=chan4)+slot@9%", 7, "use the position original, or q4");
    check_error("snapkv+merging+ranked(top=chan4)@9%", 15, "leave it out, or use q4");
    check_error("h2o+ranked(mid-v=f16)@9%", 4, "mid-v=f16 has more bits than top-v=q8");
    check_error("full+aged(in=percent,old-after=101)", 5, "more than 100 percent");
    check_error("full+ranked", 5, "write for example 'snapkv+ranked@25%'");
    check_error("snapkv+ranked(mid=f16)@9%", 7, "mid=f16 has more bits than top=q8");
    check_error("snapkv+layers+ranked@9%", 14, "use the schedule prefill or chunks");
    check_error("snapkv+waterfill@128", 7, "write the budget in %");
    check_error("snapkv+ada+waterfill@9%", 11, "takes no allocator such as 'ada'");
    check_error("h2o+balance+waterfill@9%", 12, "takes no controller such as 'balance'");
    check_error("compactor+waterfill(most=q8,least=f16)@9%", 10, "least=f16 has more bits");
    check_error("snapkv+watterfill@9%", 7, "did you mean 'waterfill'?");
    check_error("full+searched", 5, "write for example 'snapkv+searched@12.5%'");
    check_error("snapkv+searched@64MiB", 7, "look");
    check_error("full+calibrated(bits=17)", 21, "must be a number in 2..16");
    check_error("full+calibrated(most=q9)", 21, "choice of option 'most' 'q9'");
    check_error("full+aged(new=q9)", 14, "choice of option 'new' 'q9'");
    check_error("full+aegd", 5, "did you mean 'aged'?");
    check_error("q8", 0, "names no score");
}

/* searched: the form with the least KL at the nearest budget takes its place, in the resolved
 * spelling too; without a file, or with one of another shape, it is refused. */
static void test_bind(void)
{
    static const float budget[] = {50, 10, 2};
    static const float kl[3][5] = {{5, 1, 2, 3, 4}, {5, 4, 3, 2, 9}, {9, 8, 7, 6, 5}};
    static const struct {
        const char *spec, *says;
    } row[] = {
        {"snapkv+searched@60%", "store(k=q8,v=q8,"},
        {"snapkv+searched@23%", "store(k=q8,v=q8,"},
        {"snapkv+searched@22%", "store(k=rot3,v=rot3"},
        {"snapkv+searched@4%", "(k=rot2,v=rot2"},
        {"snapkv+q4@4%", "store(k=q4,v=q4"},
        {"adaptive(calm=h2o+searched@50%,tight=h2o+q4@9%)",
         "drop+store(k=q8,v=q8,residual=0,edge=0,edge-as=f16)+fixed@50%"},
    };
    char hex[65] = "";
    kept_trained *t = NULL, *odd = NULL;
    kept_error err;
    memset(hex, 'a', 64);
    CHECK_INT(kept_trained_new("split", hex, &t, NULL), KEPT_OK);
    CHECK_INT(kept_trained_new("split", hex, &odd, NULL), KEPT_OK);
    CHECK_INT(kept_trained_put(t, "budget", budget, 3, NULL), KEPT_OK);
    CHECK_INT(kept_trained_put(t, "kl", kl[0], 15, NULL), KEPT_OK);
    CHECK_INT(kept_trained_put(odd, "budget", budget, 3, NULL), KEPT_OK);
    CHECK_INT(kept_trained_put(odd, "kl", kl[0], 12, NULL), KEPT_OK);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        kept_strategy *s = NULL, *again = NULL;
        CHECK_INT(kept_strategy_parse(row[i].spec, &s, NULL), KEPT_OK);
        const bool open = strstr(row[i].spec, "searched") != NULL;
        CHECK_INT(kept_strategy_bind(s, odd, &err), open ? KEPT_ARGUMENT : KEPT_OK);
        CHECK_INT(kept_strategy_bind(s, NULL, &err), open ? KEPT_ARGUMENT : KEPT_OK);
        CHECK_INT(kept_strategy_bind(s, t, &err), KEPT_OK);
        CHECK(!open || strstr(kept_strategy_name(s), "searched"));
        CHECK(strstr(kept_strategy_resolved(s), row[i].says) != NULL);
        CHECK(!strstr(kept_strategy_resolved(s), "searched"));
        CHECK_INT(kept_strategy_parse(kept_strategy_resolved(s), &again, NULL), KEPT_OK);
        if (again)
            CHECK_STR(kept_strategy_resolved(again), kept_strategy_resolved(s));
        CHECK(!kept_codec_trained(s));
        kept_strategy_free(s);
        kept_strategy_free(again);
    }
    kept_trained_free(t);
    kept_trained_free(odd);
}

/* What is known only with the model and the prompt. */
static void test_later_errors(void)
{
    kept_strategy *s = NULL;
    kept_error err;
    CHECK_INT(kept_strategy_parse("full+q4g", &s, NULL), KEPT_OK);
    CHECK_INT(kept_strategy_fits(s, 80, &err), KEPT_UNSUPPORTED);
    CHECK(strstr(err.text, "heads of 80 channels") && strstr(err.text, "use q8"));
    CHECK_INT(kept_strategy_fits(s, 64, &err), KEPT_OK);
    kept_strategy_free(s);
    CHECK_INT(kept_strategy_parse("snapkv+kivi2@10%", &s, NULL), KEPT_OK);
    CHECK_INT(kept_strategy_leaves_some(s, 30, 3, 64, 1001, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "use residual=0"));
    CHECK_INT(kept_strategy_leaves_some(s, 30, 3, 64, 4000, &err), KEPT_OK);
    kept_strategy_free(s);
    CHECK_INT(kept_strategy_parse("rdkv@0.5%", &s, NULL), KEPT_OK);
    CHECK_INT(kept_strategy_leaves_some(s, 30, 3, 64, 1001, &err), KEPT_ARGUMENT);
    CHECK(strstr(err.text, "use a larger one"));
    CHECK_INT(kept_strategy_leaves_some(s, 30, 3, 64, 4000, &err), KEPT_OK);
    kept_strategy_free(s);
}

int main(void)
{
    RUN(test_spellings);
    RUN(test_budgets);
    RUN(test_errors);
    RUN(test_bind);
    RUN(test_later_errors);
    TEST_END();
}
