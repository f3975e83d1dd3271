/* advise on documents made here: what is taken, what is refused, what would change it. */
#include "bench/advise.h"
#include "bench/run.h"
#include "test.h"

#include <math.h>

static const char *const names[] = {"full", "full (again)", "streaming@50%", "streaming@20%",
                                    "window@20%"};
enum { N_ROWS = 5, LENGTH = 4096 };

typedef double (*score_of)(int i, int v);

/* A model of 30 layers, 3 KV heads of size 64; two tasks that score alike. */
static json_t *make(int n, int n_tasks, score_of score)
{
    json_t *doc =
        json_pack("{s:s,s:i,s:s,s:{s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i},s:{s:i},s:[],s:[],s:"
                  "[]}",
                  "schema", KEPT_RESULT_SCHEMA, "version", KEPT_RESULT_VERSION, "kept", "0",
                  "model", "sha256", "m", "asked", "it's a.gguf", "n_layers", 30, "n_heads", 9,
                  "n_kv_heads", 3, "head_size", 64, "sliding_window", 0, "n_windowed_layers", 0,
                  "options", "chunk", 512, "tasks", "variants", "samples");
    for (int t = 0; t < n_tasks; t++)
        json_array_append_new(json_object_get(doc, "tasks"),
                              json_pack("{s:s,s:s,s:s,s:i,s:i,s:b}", "label", t ? "vt()" : "cwe()",
                                        "name", t ? "vt" : "cwe", "kind", "generate", "length",
                                        LENGTH, "seed", 1, "chat", 1));
    for (int v = 0; v < N_ROWS; v++)
        json_array_append_new(json_object_get(doc, "variants"),
                              json_pack("{s:s,s:s,s:s,s:s}", "name", names[v], "canonical",
                                        names[v], "resolved", v < 2 ? "full" : names[v], "role",
                                        v == 0   ? "reference"
                                        : v == 1 ? "floor"
                                                 : "strategy"));
    for (int i = 0; i < n * n_tasks; i++) {
        char hash[20];
        snprintf(hash, sizeof hash, "%016x", i * 7919 + 5);
        json_t *s =
            json_pack("{s:i,s:i,s:s,s:i,s:i,s:[],s:[s]}", "task", i / n, "index", i % n, "hash",
                      hash, "n_prefix", LENGTH - 96, "n_suffix", 30, "outcomes", "answers", "yes");
        for (int v = 0; v < N_ROWS; v++)
            json_array_append_new(
                json_object_get(s, "outcomes"),
                json_pack("{s:i,s:b,s:f,s:f,s:[f],s:[i],s:f,s:s,s:[],s:n,s:f,s:f,s:f,s:{s:[iiii],s:"
                          "[iiii]}}",
                          "variant", v, "failed", 0, "kv_bytes", 1000.0 - 100 * v, "meta_bytes",
                          0.0, "kl", 0.0, "top1", 1, "score", score(i % n, v), "text", "", "tokens",
                          "diverged", "prefill_ns", 1e9, "score_ns", 4e6, "compact_ns", 6e6,
                          "speed", "step_ns", 10000000 - v, 10000000, 10000000, 10000000,
                          "full_step_ns", 20000000, 20000000, 20000000, 20000000));
        json_array_append_new(json_object_get(doc, "samples"), s);
    }
    json_object_set_new(doc, "cells", kept_result_cells(doc));
    return doc;
}

/* streaming loses nothing, window three of ten. */
static double scores(int i, int v)
{
    return v == 4 ? i % 10 >= 3 : 1;
}

static double small_is_bad(int i, int v)
{
    return v >= 3 ? i % 10 >= 3 : 1;
}

static double all_bad(int i, int v)
{
    return v >= 2 ? i % 10 >= 3 : 1;
}

static const double both[] = {1, 1};

static kept_advise_options ask(const json_t *doc, double margin)
{
    return (kept_advise_options){.doc = doc,
                                 .name = "s.db",
                                 .is_study = true,
                                 .weight = both,
                                 .gate = {.margin = margin, .nll = 0.01},
                                 .level = 0.95,
                                 .batch = 1};
}

static json_t *advise(const kept_advise_options *o)
{
    json_t *out = NULL;
    kept_error err = {.text = ""};
    if (kept_advise(o, &out, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    return out;
}

static const char *text(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static const char *pick(const json_t *advice)
{
    return text(json_object_get(advice, "pick"), "name");
}

static double number(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

/* Whether "what would change it" names this row under something that begins so; "": none. */
static const char *change(const json_t *advice, const char *if_)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(advice, "changes"), i,
                       c) if (!strncmp(text(c, "if"), if_, strlen(if_)))
    {
        const json_t *p = json_object_get(c, "pick");
        return json_is_null(p) ? "nothing" : json_string_value(p);
    }
    return "";
}

static void the_smallest_that_holds(void)
{
    json_t *doc = make(400, 2, scores);
    kept_advise_options o = ask(doc, 0.02);
    json_t *a = advise(&o);
    CHECK_STR(text(a, "verdict"), "advice");
    CHECK_STR(pick(a), "streaming@20%");
    CHECK_STR(text(json_object_get(a, "runner_up"), "name"), "streaming@50%");
    CHECK_STR(change(a, "--gate -1pt"), "full");
    /* 2 x 30 layers x 3 heads x 64 x 2 bytes a token, a fifth of 4096 of them; besides at most a
     * page per head and bookkeeping */
    const double least = 2.0 * 30 * 3 * 64 * 2 * LENGTH / 5;
    const double bytes = number(json_object_get(a, "pick"), "bytes");
    CHECK(bytes >= least && bytes < least * 1.12);
    CHECK_NEAR(number(json_object_get(a, "pick"), "tpot_ms"), 10, 0.1);
    CHECK_NEAR(number(json_object_get(a, "pick"), "ttft_ms"), 1010, 1e-6);
    json_decref(a);
    o.gate.margin = 0.5; /* the window loses 30 points */
    o.prefer = KEPT_PREFER_QUALITY;
    a = advise(&o);
    CHECK_STR(pick(a), "full");
    json_decref(a);
    json_decref(doc);
}

/* The full cache does not fit, then what is left of it does not. */
static void memory_filters(void)
{
    json_t *doc = make(400, 2, small_is_bad);
    kept_advise_options o = ask(doc, 0.02);
    const double full = 2.0 * 30 * 3 * 64 * 2 * LENGTH;
    o.prefer = KEPT_PREFER_QUALITY;
    o.batch = 8;
    o.weights = 1000000;
    o.memory = (uint64_t)(9 * full) + o.weights;
    json_t *a = advise(&o);
    CHECK_STR(pick(a), "full");
    CHECK_STR(change(a, "20% less memory"), "streaming@50%");
    CHECK_INT(number(json_object_get(a, "pick"), "sequences"), 8);
    json_decref(a);
    o.memory = (uint64_t)(6 * full) + o.weights;
    a = advise(&o);
    CHECK_STR(pick(a), "streaming@50%");
    CHECK(number(json_object_get(a, "pick"), "peak_bytes") < 6 * full);
    CHECK_STR(change(a, "50% more memory"), "");
    CHECK_STR(change(a, "50% less memory"), "nothing");
    json_decref(a);
    o.memory = (uint64_t)(2 * full);
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "none");
    CHECK(json_is_null(json_object_get(a, "pick")));
    json_decref(a);
    o.memory = 0;
    o.gate.tpot_ms = 15; /* the full cache takes 20 */
    a = advise(&o);
    CHECK_STR(pick(a), "streaming@50%");
    CHECK_STR(change(a, "no limit"), "full");
    json_decref(a);
    json_decref(doc);
}

static void thin_evidence_is_refused(void)
{
    json_t *doc = make(30, 2, scores);
    kept_advise_options o = ask(doc, 0.02);
    json_t *a = advise(&o);
    CHECK_STR(text(a, "verdict"), "thin");
    const json_t *todo = json_array_get(json_object_get(a, "todo"), 0);
    const double more = number(todo, "more");
    char want[64];
    snprintf(want, sizeof want, "--samples %.0f", 30 + more);
    CHECK(more > 0 && strstr(text(todo, "command"), want) != NULL);
    CHECK(strstr(text(todo, "command"),
                 "kept run --model 'it'\\''s a.gguf' --study s.db --strategy streaming@") ==
          text(todo, "command"));
    CHECK(strstr(text(todo, "command"), "--task cwe --length 4096") != NULL);
    json_decref(a);
    o.prefer = KEPT_PREFER_QUALITY; /* nothing smaller was asked for */
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "advice");
    CHECK_STR(pick(a), "full");
    json_decref(a);
    o = ask(doc, 0.2);
    o.context = 100000;
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "thin");
    todo = json_array_get(json_object_get(a, "todo"), 0);
    CHECK(strstr(text(todo, "command"), "--length 100000") != NULL);
    json_decref(a);
    /* Never a length that the model was not made for; nothing where all of it was measured. */
    json_t *model = json_object_get(doc, "model");
    json_object_set_new(model, "n_ctx_train", json_integer(8192));
    a = advise(&o);
    todo = json_array_get(json_object_get(a, "todo"), 0);
    CHECK(strstr(text(todo, "command"), "--length 8192") != NULL);
    CHECK(strstr(text(todo, "why"), "made for 8192") != NULL);
    json_decref(a);
    json_object_set_new(model, "n_ctx_train", json_integer(4096));
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "thin");
    todo = json_array_get(json_object_get(a, "todo"), 0);
    CHECK(json_is_null(json_object_get(todo, "command")));
    CHECK(strstr(text(todo, "why"), "--context 4096") != NULL);
    json_decref(a);
    json_object_del(model, "n_ctx_train");
    json_decref(doc);
    doc = make(400, 1, all_bad); /* every strategy is worse: the full cache is the advice */
    o = ask(doc, 0.02);
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "advice");
    CHECK_STR(pick(a), "full");
    json_decref(a);
    json_t *none = NULL;
    kept_error err;
    static const double zero[] = {0, 0};
    o.weight = zero;
    CHECK_INT(kept_advise(&o, &none, &err), KEPT_ARGUMENT);
    json_decref(doc);
}

static void what_is_not_judged_is_named(void)
{
    json_t *doc = make(400, 1, scores);
    kept_advise_options o = ask(doc, 0.02);
    kept_error err;
    CHECK_INT(kept_gate_parse("-2pt, slope by turn -1pt, TPOT p99 40ms, phase of the moon", true,
                              &o.gate, &err),
              KEPT_OK);
    json_t *a = advise(&o);
    const json_t *list = json_object_get(json_object_get(a, "asked"), "not_judged");
    CHECK_INT(json_array_size(list), 3);
    CHECK_STR(text(json_array_get(list, 0), "clause"), "slope by turn -1pt");
    CHECK_STR(text(json_array_get(list, 0), "judged_by"), "kept study show --columns turns");
    CHECK_STR(text(json_array_get(list, 1), "clause"), "TPOT p99 40ms");
    CHECK(strstr(text(json_array_get(list, 1), "judged_by"), "--columns speed"));
    CHECK_STR(text(json_array_get(list, 2), "judged_by"), "nothing of kept");
    json_decref(a);
    json_decref(doc);
}

/* 0.999^2994 > 0.05 >= 0.999^2995 */
static void zero_regressions(void)
{
    json_t *doc = make(2995, 1, scores);
    kept_advise_options o = ask(doc, KEPT_ZERO_RATE);
    o.gate.zero = true;
    json_t *a = advise(&o);
    CHECK_STR(text(a, "verdict"), "advice");
    CHECK_STR(pick(a), "streaming@20%");
    json_decref(a);
    json_decref(doc);
    doc = make(2990, 1, scores);
    o.doc = doc;
    a = advise(&o);
    CHECK_STR(text(a, "verdict"), "thin");
    CHECK_INT(number(json_array_get(json_object_get(a, "todo"), 0), "more"), 5);
    json_decref(a);
    json_decref(doc);
}

static void gates(void)
{
    static const struct {
        const char *text;
        double margin, relative, ttft, tpot, length;
        bool zero;
    } good[] = {{"-1pt", 0.01, 0, 0, 0, 0, false},
                {"2pt", 0.02, 0, 0, 0, 0, false},
                {"97% of full, output length at most 110% of full", 0.5, 0.03, 0, 0, 1.1, false},
                {"97%", 0.5, 0.03, 0, 0, 0, false},
                {"-3pt, TTFT 2s, TPOT 40ms", 0.03, 0, 2000, 40, 0, false},
                {"zero regressions", 0.001, 0, 0, 0, 0, true}};
    static const char *const bad[] = {"lots", "1kg",    "TPOT p99", "-1pt,,",
                                      "101%", "TTFT 5", "nanpt",    "TTFT -2s"};
    kept_error err;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        kept_gate g = {.margin = 0.5};
        CHECK_INT(kept_gate_parse(good[i].text, false, &g, &err), KEPT_OK);
        CHECK_NEAR(g.margin, good[i].margin, 1e-12);
        CHECK_NEAR(g.relative, good[i].relative, 1e-12);
        CHECK_NEAR(g.ttft_ms, good[i].ttft, 1e-9);
        CHECK_NEAR(g.tpot_ms, good[i].tpot, 1e-9);
        CHECK_NEAR(g.length_ratio, good[i].length, 1e-12);
        CHECK(g.zero == good[i].zero && !*g.rest);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        kept_gate g = {.margin = 0.5};
        CHECK_INT(kept_gate_parse(bad[i], false, &g, &err), KEPT_ARGUMENT);
    }
    kept_gate g = {.margin = 0.5};
    CHECK_INT(kept_gate_parse("-1pt, slope by turn -1pt, TTFT 500ms", true, &g, &err), KEPT_OK);
    CHECK_STR(g.rest, "slope by turn -1pt");
    CHECK_NEAR(g.ttft_ms, 500, 1e-9);
}

int main(void)
{
    RUN(the_smallest_that_holds);
    RUN(memory_filters);
    RUN(thin_evidence_is_refused);
    RUN(what_is_not_judged_is_named);
    RUN(zero_regressions);
    RUN(gates);
    TEST_END();
}
