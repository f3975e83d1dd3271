/* test_robust: rankings on several models and eviction with precision, on results made by hand.
 * Numbers of Kendall's tau, its exact p and ranks are SciPy's:
 *   stats.kendalltau(x, y, method='exact'); stats.rankdata(-x)
 */
#include "bench/robust.h"
#include "bench/run.h"
#include "bench/stats.h"
#include "report/report.h"
#include "test.h"

enum { ROWS = 7, N = 16 };

/* Changes of seven rows on three models, in points. */
static const double change[3][ROWS] = {{-2.5, -12.5, 0, -50, -87.5, -37.5, -5},
                                       {0, -25, -12.5, -62.5, -75, -30, -6.25},
                                       {-40, -10, -20, -5, 0, -15, -60}};

static double number(const json_t *o, const char *key)
{
    const json_t *x = json_object_get(o, key);
    return json_is_number(x) ? json_number_value(x) : NAN;
}

static json_t *model_doc(int m, const double *points, int n_rows)
{
    json_t *doc =
        json_pack("{s:{s:s,s:s,s:i},s:[{s:s,s:s,s:i}],s:[],s:[]}", "model", "name",
                  m ? "large" : "small", "sha256", m ? "b" : "a", "n_params", 1000000, "tasks",
                  "label", "niah", "kind", "generate", "length", 2048, "variants", "cells");
    for (int v = 0; v < n_rows + 2; v++) {
        char name[16];
        snprintf(name, sizeof name, "row%d@20%%", v);
        json_array_append_new(json_object_get(doc, "variants"),
                              json_pack("{s:s,s:s}", "name", name, "canonical", name));
        json_array_append_new(json_object_get(doc, "cells"),
                              json_pack("{s:i,s:i,s:i,s:f}", "task", 0, "variant", v, "n", 8,
                                        "change", v < 2 ? 0.0 : points[v - 2] / 100));
    }
    return doc;
}

static void exact_p(void)
{
    const double up[4] = {1, 2, 3, 4}, x3[3] = {1, 2, 3}, y3[3] = {1, 3, 2};
    double x[12], y[12] = {1, 0, 2, 4, 3, 5, 7, 6, 8, 11, 10, 9};
    for (int i = 0; i < 12; i++)
        x[i] = i;
    CHECK_NEAR(kept_kendall_p(change[0], change[1], ROWS), 0.010714285714285714, 1e-14);
    CHECK_NEAR(kept_kendall_p(change[0], change[2], ROWS), 0.06904761904761905, 1e-14);
    CHECK_NEAR(kept_kendall_p(change[1], change[2], ROWS), 0.010714285714285714, 1e-14);
    CHECK_NEAR(kept_kendall_p(x, y, 12), 4.4129288920955584e-05, 1e-16);
    CHECK_NEAR(kept_kendall_p(up, up, 4), 0.08333333333333333, 1e-15);
    CHECK_NEAR(kept_kendall_p(x3, y3, 3), 1, 0);
    y[3] = y[4];
    CHECK(isnan(kept_kendall_p(x, y, 12)));
    CHECK(isnan(kept_kendall_p(x, x, 1)));
}

static void rankings(void)
{
    json_t *docs[3], *list = NULL;
    kept_error err;
    for (int m = 0; m < 3; m++)
        docs[m] = model_doc(m, change[m], ROWS);
    CHECK_INT(kept_scale(docs, 3, &list, &err), KEPT_OK);
    CHECK_INT(json_array_size(list), 1);
    const json_t *g = json_array_get(list, 0), *tau = json_object_get(g, "tau");
    CHECK_INT(json_array_size(json_object_get(g, "rows")), ROWS);
    CHECK_INT(json_array_size(tau), 3);
    static const double want[3] = {0.8095238095238096, -0.6190476190476191, -0.8095238095238096};
    for (size_t i = 0; i < 3; i++)
        CHECK_NEAR(number(json_array_get(tau, i), "tau"), want[i], 1e-12);
    CHECK_NEAR(number(json_array_get(tau, 1), "p"), 0.06904761904761905, 1e-12);
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    CHECK_INT(kept_report_scale(list, out), KEPT_OK);
    fclose(out);
    CHECK(strstr(text, "Kendall's tau A, B: +0.81 over 7 rows, p 0.0107"));
    free(text);
    json_decref(list);
    for (int m = 0; m < 3; m++)
        json_decref(docs[m]);
    /* Ties share the mean rank: 0, -25, -25, -62.5, -75 are 1, 2.5, 2.5, 4, 5. */
    static const double tied[5] = {0, -25, -25, -62.5, -75}, ranks[5] = {1, 2.5, 2.5, 4, 5};
    docs[0] = model_doc(0, tied, 5);
    docs[1] = model_doc(1, change[0], ROWS);
    CHECK_INT(kept_scale(docs, 2, &list, &err), KEPT_OK);
    const json_t *rows = json_object_get(json_array_get(list, 0), "rows");
    CHECK_INT(json_array_size(rows), 5); /* those that both have */
    for (size_t i = 0; i < json_array_size(rows); i++)
        CHECK_NEAR(
            json_number_value(json_array_get(json_object_get(json_array_get(rows, i), "rank"), 0)),
            ranks[i], 0);
    json_decref(list);
    CHECK_INT(kept_scale(docs, 1, &list, &err), KEPT_OK); /* one model: nothing to compare */
    CHECK_INT(json_array_size(list), 0);
    json_decref(list);
    json_decref(docs[0]);
    json_decref(docs[1]);
}

/* Scores of four rows on N samples: full, S, S+C, full+C; generated, and summed by hand below. */
static double score_of(int row, int i)
{
    const int lost = row == 0 ? 0 : row == 1 ? i % 4 == 0 : row == 3 ? i % 8 == 1 : i % 2 == 0;
    return 1 - lost;
}

static void interaction(void)
{
    static const char *const specs[] = {"full",
                                        "full",
                                        "h2o(x=1)+prefill+f16+all@512",
                                        "h2o(x=1)+prefill+store(k=q4,v=q4)+all@512",
                                        "full+store(k=q4,v=q4)",
                                        "h2o(x=2)+prefill+store(k=q4,v=q4)+all@512",
                                        "h2o(x=1)+prefill+store(k=q4,v=q4)+all@256"};
    static const int row_of[] = {0, 0, 1, 2, 3, 2, 2};
    json_t *doc = json_pack("{s:[{s:s,s:s}],s:[],s:[]}", "tasks", "label", "niah", "kind",
                            "generate", "variants", "samples");
    for (int v = 0; v < 7; v++)
        json_array_append_new(json_object_get(doc, "variants"),
                              json_pack("{s:s,s:s}", "name", specs[v], "resolved", specs[v]));
    double sum = 0;
    for (int i = 0; i < N; i++) {
        json_t *list = json_array();
        for (int v = 0; v < 7; v++)
            json_array_append_new(list, json_pack("{s:i,s:b,s:f}", "variant", v, "failed", 0,
                                                  "score", score_of(row_of[v], i)));
        json_array_append_new(json_object_get(doc, "samples"),
                              json_pack("{s:i,s:o}", "task", 0, "outcomes", list));
        sum += score_of(2, i) - score_of(1, i) - score_of(3, i) + score_of(0, i);
    }
    json_t *out = NULL;
    kept_error err;
    CHECK_INT(kept_precision(doc, &out, &err), KEPT_OK);
    CHECK_INT(json_array_size(out), 1); /* another option or budget is no pair */
    const json_t *r = json_array_get(out, 0);
    CHECK_STR(json_string_value(json_object_get(r, "packed")), specs[3]);
    CHECK_INT(number(r, "n"), N);
    CHECK_NEAR(number(r, "evict"), -0.25, 1e-12);
    CHECK_NEAR(number(r, "pack"), -0.125, 1e-12);
    CHECK_NEAR(number(r, "both"), -0.5, 1e-12);
    CHECK_NEAR(number(r, "interaction"), sum / N, 1e-12);
    CHECK_NEAR(sum / N, -0.125, 1e-12);
    CHECK(number(r, "low") < -0.125 && number(r, "high") > -0.125);
    json_decref(out);
    json_decref(doc);
}

/* Additive effects have no interaction: of 400 made studies the 95 % interval misses 0 in few. */
static void additive_covers_zero(void)
{
    enum { STUDIES = 400, M = 24 };
    static const char *const specs[] = {"full", "full", "h2o+f16@9", "h2o+q4@9", "full+q4"};
    kept_rng rng;
    int missed = 0;
    kept_rng_init(&rng, 11);
    for (int k = 0; k < STUDIES; k++) {
        json_t *doc = json_pack("{s:[{s:s,s:s}],s:[],s:[]}", "tasks", "label", "t", "kind", "score",
                                "variants", "samples");
        for (int v = 0; v < 5; v++)
            json_array_append_new(json_object_get(doc, "variants"),
                                  json_pack("{s:s,s:s}", "name", specs[v], "resolved", specs[v]));
        for (int i = 0; i < M; i++) {
            const double base = 3 + kept_rng_normal(&rng), e = 0.3 + 0.1 * kept_rng_normal(&rng);
            const double q = 0.1 + 0.1 * kept_rng_normal(&rng);
            const double nll[5] = {base, base, base + e, base + e + q + 0.1 * kept_rng_normal(&rng),
                                   base + q + 0.1 * kept_rng_normal(&rng)};
            json_t *list = json_array();
            for (int v = 0; v < 5; v++)
                json_array_append_new(
                    list, json_pack("{s:i,s:b,s:[f]}", "variant", v, "failed", 0, "nll", nll[v]));
            json_array_append_new(json_object_get(doc, "samples"),
                                  json_pack("{s:i,s:o}", "task", 0, "outcomes", list));
        }
        json_t *out = NULL;
        CHECK_INT(kept_precision(doc, &out, NULL), KEPT_OK);
        const json_t *r = json_array_get(out, 0);
        CHECK(number(r, "low") <= number(r, "interaction") &&
              number(r, "interaction") <= number(r, "high"));
        missed += number(r, "low") > 0 || number(r, "high") < 0;
        json_decref(out);
        json_decref(doc);
    }
    printf("# 95%% intervals of an interaction that is not there miss it in %d of %d\n", missed,
           STUDIES);
    CHECK(missed >= 8 && missed <= 34); /* 20 expected, standard deviation 4.4 */
}

int main(void)
{
    RUN(exact_p);
    RUN(rankings);
    RUN(interaction);
    RUN(additive_covers_zero);
    TEST_END();
}
