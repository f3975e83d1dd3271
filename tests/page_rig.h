/* page_rig: results made by hand for tests of the page: any number of tasks, rows and samples, with
 * every member that a figure of the page is drawn from. */
#ifndef TESTS_PAGE_RIG_H
#define TESTS_PAGE_RIG_H

#include "bench/compare.h"
#include "bench/robust.h"
#include "bench/run.h"
#include "report/report.h"
#include "test.h"

#include <jansson.h>
#include <time.h>

/* Ends an element, opens one with a script, begins a comment, and quotes. */
#define HOSTILE "</script><img src=x onerror=alert(1)><!--\"'&\\"

typedef struct rig_size {
    int n_stems, n_budgets, n_tasks, n_samples;
    bool hostile;  /* names, answers and texts are HOSTILE */
    int lost_from; /* rows from this one on lose every third sample; others none */
    bool robust; /* task 4 is task 0 perturbed, rows 2 to 4 are one packing, there are two models */
} rig_size;

static json_t *rig_numbers(int n, double from, double step)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real(from + step * i));
    return list;
}

static json_t *rig_ints(int n, int value)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_integer(value));
    return list;
}

static json_t *rig_variants(const rig_size *z)
{
    json_t *list = json_array();
    char name[200], resolved[300];
    for (int v = 0; v < 2 + z->n_stems * z->n_budgets; v++) {
        const int k = v - 2, budget = 80 - 70 * (k % z->n_budgets) / z->n_budgets;
        if (v < 2)
            snprintf(name, sizeof name, "full%s", v ? " (again)" : "");
        else
            snprintf(name, sizeof name, "s%d%s@%d%%", k / z->n_budgets, z->hostile ? HOSTILE : "",
                     budget);
        snprintf(resolved, sizeof resolved, "%s%s", v < 2 ? "" : "protect(sinks=4,recent=32)+",
                 name);
        if (z->robust && v > 1 && v < 5) /* evicted, evicted and packed, packed */
            snprintf(resolved, sizeof resolved, "%s",
                     v == 2   ? "s0+f16+all@512"
                     : v == 3 ? "s0+q4+all@512"
                              : "full+q4");
        json_array_append_new(list, json_pack("{ss ss ss ss s[]}", "name", name, "canonical",
                                              v < 2 ? "full" : name, "resolved",
                                              v < 2 ? "full" : resolved, "role",
                                              v == 0   ? "reference"
                                              : v == 1 ? "floor"
                                                       : "strategy",
                                              "trained"));
    }
    return list;
}

/* Task t: every third is scored text, every fourth has turns. */
static bool rig_scored(int t)
{
    return t % 3 == 2;
}
static bool rig_turns(int t)
{
    return t % 4 == 1 && !rig_scored(t);
}

static json_t *rig_tasks(const rig_size *z)
{
    json_t *list = json_array();
    char label[200];
    for (int t = 0; t < z->n_tasks; t++) {
        snprintf(label, sizeof label, "task%d%s", t, z->hostile ? HOSTILE : "");
        json_array_append_new(list, json_pack("{ss ss ss si si si sb sb ss}", "label", label,
                                              "kind", rig_scored(t) ? "score" : "generate", "name",
                                              rig_scored(t) ? "text" : "niah_single", "length",
                                              1024 << (t % 2), "n_samples", z->n_samples, "seed", 1,
                                              "chat", 0, "query_aware", 0, "turns", "gold"));
        if (z->robust && t == 4)
            json_object_set_new(json_array_get(list, 4), "perturb", json_string("typo"));
    }
    return list;
}

static json_t *rig_answer(const rig_size *z, bool right)
{
    return json_pack("{so ss sb sf sn sf}", "tokens", rig_ints(4, 7), "text",
                     z->hostile ? HOSTILE
                     : right    ? "42"
                                : "17",
                     "ended", 1, "score", right ? 1.0 : 0.0, "diverged", "evidence_recall", 0.5);
}

static json_t *rig_outcome(const rig_size *z, int t, int v, int i)
{
    const double share = v < 2 ? 1 : 0.8 - 0.7 * ((v - 2) % z->n_budgets) / z->n_budgets;
    const bool right = v < 2 || v < z->lost_from || (i + (z->robust && t == 4)) % 3;
    json_t *o = json_pack("{si sb sf si sf sf si sf sf sf}", "variant", v, "failed", 0, "kv_bytes",
                          1e6 * share, "meta_bytes", 1000, "peak_bytes", 1e6, "byte_steps",
                          1e8 * share, "n_evicted", (int)(1000 * (1 - share)), "prefill_ns", 5e9,
                          "score_ns", 4e6, "compact_ns", 3e6);
    const int n = rig_scored(t) ? 40 : 1;
    json_object_set_new(o, "kl", rig_numbers(n, v < 2 ? 0 : 0.1 * v, v < 2 ? 0 : 0.01));
    json_object_set_new(o, "top1", rig_ints(n, 1));
    json_object_set_new(o, "mass_recall", json_real(share));
    json_object_set_new(o, "speed",
                        v ? json_pack("{so so}", "step_ns", rig_numbers(4, 1e6 * share + 1e5, 0),
                                      "full_step_ns", rig_numbers(4, 1.1e6, 0))
                          : json_null());
    if (rig_scored(t)) {
        json_object_set_new(o, "nll", rig_numbers(n, v < 2 ? 2 + 0.01 * i : 2.1 + 0.02 * i, 0.001));
        return o;
    }
    json_t *a = rig_answer(z, right);
    json_object_update(o, a);
    if (rig_turns(t))
        json_object_set_new(o, "turns", json_pack("[OO]", a, a));
    json_decref(a);
    return o;
}

static json_t *rig_samples(const rig_size *z)
{
    json_t *list = json_array();
    const char *answer = z->hostile ? HOSTILE : "42";
    for (int t = 0; t < z->n_tasks; t++)
        for (int i = 0; i < z->n_samples; i++) {
            char hash[20], cluster[20];
            json_t *outcomes = json_array();
            snprintf(hash, sizeof hash, "%08x%08x", t, i);
            snprintf(cluster, sizeof cluster, "%08x%08x", z->robust && t == 4 ? 0 : t, i);
            for (int v = 0; v < 2 + z->n_stems * z->n_budgets; v++)
                json_array_append_new(outcomes, rig_outcome(z, t, v, i));
            json_t *s = json_pack("{si si ss ss si si s[[ii]] s[s] so}", "task", t, "index", i,
                                  "hash", hash, "cluster", cluster, "n_prefix", 12, "n_suffix", 4,
                                  "evidence", 3, 5, "answers", answer, "outcomes", outcomes);
            const double depth = (i + 0.5) / z->n_samples;
            json_object_set_new(s, "depth", rig_scored(t) ? json_null() : json_real(depth));
            if (rig_turns(t))
                json_object_set_new(s, "turns",
                                    json_pack("[{s[s] ss sf sn} {s[s] ss sf si}]", "answers",
                                              answer, "metric", "all", "depth", depth, "again",
                                              "answers", answer, "metric", "all", "depth", depth,
                                              "again", 1));
            json_array_append_new(list, s);
        }
    return list;
}

static json_t *rig_result(const rig_size *z)
{
    json_t *doc = json_pack(
        "{ss si ss ss sb s{ss ss ss ss ss} s{ss ss si} s{si si si si} so so so}", "schema",
        KEPT_RESULT_SCHEMA, "version", KEPT_RESULT_VERSION, "kept", kept_version(), "date",
        "2026-01-02T03:04:05Z", "partial", 0, "model", "asked", "/somewhere/else/tiny.gguf", "file",
        "tiny.gguf", "name", z->hostile ? HOSTILE : "tiny", "sha256", "0123456789abcdef",
        "weight_type", "f32", "machine", "cpu", z->hostile ? HOSTILE : "paper", "isa", "ref",
        "threads", 1, "options", "seed", 1, "chunk", 512, "speed_samples", 1, "speed_steps", 4,
        "variants", rig_variants(z), "tasks", rig_tasks(z), "samples", rig_samples(z));
    json_object_set_new(doc, "cells", kept_result_cells(doc));
    return doc;
}

static json_t *rig_compare(const json_t *doc)
{
    const kept_compare_options o = {.before = doc,
                                    .after = doc,
                                    .before_name = "a",
                                    .after_name = "a",
                                    .margin = 0.01,
                                    .nll_margin = 0.01,
                                    .level = 0.95,
                                    .common = true};
    json_t *out = NULL;
    CHECK_INT(kept_compare(&o, &out, NULL), KEPT_OK);
    return out;
}

/* What kept_page_prompts makes, for task 0 and row 2: 3 layers of 2 heads, a prompt of 12 tokens.
 */
static json_t *rig_prompts(const rig_size *z)
{
    json_t *tokens = json_array();
    for (int i = 0; i < 12; i++)
        json_array_append_new(tokens, json_string(z->hostile ? HOSTILE : " word"));
    char rows[6 * 8 + 1] = "";
    for (int i = 0; i < 48; i++)
        rows[i] = i % 3 ? 'z' : '0';
    return json_pack("{s[{si si si s[[ii]] si si si si ss}] s[{si si si s[[ii]] ss s[{si so}] "
                     "s[{si ss}]}]}",
                     "maps", "task", 0, "index", 0, "variant", 2, "evidence", 3, 5, "lines", 6,
                     "heads", 2, "bins", 8, "seen", 12, "rows", rows, "prompts", "task", 0, "index",
                     0, "n", 12, "evidence", 3, 5, "asked", z->hostile ? HOSTILE : "which?",
                     "parts", "at", 0, "tokens", tokens, "kept", "variant", z->lost_from, "share",
                     "999000459999");
}

/* What kept_robust finds, with a second model that loses from another row on. */
static json_t *rig_robust(const rig_size *z, json_t *doc)
{
    rig_size other = *z;
    other.lost_from = 3;
    json_t *docs[2] = {doc, z->robust ? rig_result(&other) : NULL}, *out = NULL;
    json_t *model = json_object_get(docs[1], "model");
    if (model) {
        json_object_set_new(model, "sha256", json_string("f00d"));
        json_object_set_new(model, "name", json_string(z->hostile ? HOSTILE "2" : "large"));
        json_object_set_new(model, "n_params", json_integer(360000000));
    }
    CHECK_INT(kept_robust(docs, z->robust ? 2 : 1, &out, NULL), KEPT_OK);
    json_decref(docs[1]);
    return out;
}

static double rig_seconds[2]; /* of the result with its statistics; of the page */

/* Writes the page of a rig; its text, malloc'ed, with its length. */
static char *rig_page(const rig_size *z, const char *path, bool with_prompts, size_t *n)
{
    kept_error err = {.text = ""};
    const clock_t start = clock();
    json_t *doc = rig_result(z), *comparison = z->n_stems ? rig_compare(doc) : NULL;
    json_t *prompts = with_prompts ? rig_prompts(z) : NULL, *robust = rig_robust(z, doc);
    const kept_page page = {doc, comparison, prompts, z->hostile ? HOSTILE : "s.db", robust};
    const clock_t made = clock();
    CHECK_INT(kept_report_page(&page, path, &err), KEPT_OK);
    rig_seconds[0] = (double)(made - start) / CLOCKS_PER_SEC;
    rig_seconds[1] = (double)(clock() - made) / CLOCKS_PER_SEC;
    if (*err.text)
        fprintf(stderr, "%s\n", err.text);
    json_decref(doc);
    json_decref(comparison);
    json_decref(prompts);
    json_decref(robust);
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 8 << 20);
    *n = f && text ? fread(text, 1, (8 << 20) - 1, f) : 0;
    if (f)
        fclose(f);
    return text;
}

#endif
