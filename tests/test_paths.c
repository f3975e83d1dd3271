/* test_paths: statistics of a row's tokens against values computed with NumPy from llama.cpp's
 * formulas (mean_and_uncertainty, covariance and percentile of tools/perplexity), and trajectories
 * by hand.
 */
#include "bench/run.h"
#include "test.h"

#include <math.h>

enum { N = 40 };
/* rng = numpy.random.default_rng(5); own = rng.gamma(2, 1, N); full = abs(own + rng.normal(0, .3,
 * N)); kl = rng.gamma(.5, .1, N); same = rng.random(N) < .8, rounded to six places */
static const double own[N] = {0.830947, 1.366155, 3.60556,  1.050166, 2.044193, 0.710398, 1.942547,
                              1.560934, 0.979111, 0.904976, 1.586542, 2.253413, 0.318129, 0.694086,
                              0.494732, 1.618233, 0.646835, 0.617478, 1.974033, 3.680027, 0.189161,
                              0.610586, 1.723632, 1.383117, 3.242627, 2.812577, 1.274513, 4.32381,
                              7.189661, 3.012861, 0.99979,  4.088507, 1.922481, 2.583363, 1.477605,
                              1.803238, 3.111215, 0.547213, 3.25264,  0.7011};
static const double full[N] = {0.957286, 1.049703, 3.223937, 1.234364, 1.685181, 0.613667, 1.940519,
                               1.427333, 0.962883, 1.306608, 1.431474, 1.875621, 0.232895, 0.632656,
                               0.389055, 1.69776,  0.507562, 0.473886, 1.757638, 3.524099, 0.237229,
                               0.49648,  1.753765, 1.953473, 3.386362, 2.33975,  1.794572, 4.428153,
                               6.907237, 3.284976, 1.005087, 3.903941, 1.732428, 2.285333, 1.492041,
                               2.123883, 3.013699, 0.67346,  3.815334, 0.336723};
static const double kl[N] = {0.088836, 0.036505, 0.025136, 0.000153, 0.004564, 0.00024,  0.037547,
                             0.012215, 0.017367, 0.085123, 0.014115, 0.011671, 0.00532,  0.025516,
                             0.028759, 0.000185, 0.02277,  4e-05,    0.024072, 0.065175, 0.032192,
                             0.03981,  0.030868, 0.003652, 0.070483, 0.00864,  2.8e-05,  0.130191,
                             0.054525, 0.00043,  0.051828, 0.030427, 0.007527, 0.20501,  0.066127,
                             0.003741, 0.000861, 0.0,      0.004608, 0.037643};
static const double same[N] = {0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0,
                               1.0, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0,
                               1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0};

static const struct {
    const char *key;
    double value;
} golden[] = {
    {"ppl", 6.54175056407729},
    {"ppl_se", 1.45225503358045},
    {"full_ppl", 6.3420453383834},
    {"full_ppl_se", 1.39089981997938},
    {"correlation", 0.982700015689367},
    {"ln_ratio", 0.0310034750000003},
    {"ln_ratio_se", 0.0411312657277481},
    {"ratio", 1.03148908830488},
    {"ratio_se", 0.0424264517863406},
    {"difference", 0.199705225693888},
    {"difference_se", 0.271393379826989},
    {"kl_mean", 0.0320975},
    {"kl_se", 0.00645683412630489},
    {"dp_mean", -0.0100290455969032},
    {"dp_se", 0.00986511316836763},
    {"dp_rms", 0.0624185838572783},
    {"dp_rms_se", 0.0103064678456863},
    {"kl_max", 0.20501},
    {"kl_p99_9", 0.202092059},
    {"kl_p99", 0.17583059},
    {"kl_p95", 0.0909037499999999},
    {"kl_p90", 0.071947},
    {"kl_median", 0.023421},
    {"kl_p10", 0.0001818},
    {"kl_p5", 3.94e-05},
    {"kl_p1", 1.092e-05},
    {"kl_p0_1", 1.092e-06},
    {"kl_min", 0},
    {"dp_max", 0.133814754222829},
    {"dp_p99_9", 0.133017350859206},
    {"dp_p99", 0.125840720586601},
    {"dp_p95", 0.109232478858395},
    {"dp_p90", 0.0598357736117449},
    {"dp_median", -0.00440947456965886},
    {"dp_p10", -0.068992501713703},
    {"dp_p5", -0.0838593986274566},
    {"dp_p1", -0.170053796099395},
    {"dp_p0_1", -0.213265913395235},
    {"dp_min", -0.218067259761439},
    {"same_top", 0.75},
    {"same_top_se", 0.0693375245281536},
};

static json_t *reals(const double *x, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real(x[i]));
    return list;
}

static void test_kl_stats(void)
{
    json_t *samples = json_array(), *cell = json_object();
    for (int half = 0; half < 2; half++) {
        const int at = half * N / 2;
        json_array_append_new(samples,
                              json_pack("{s:i, s:[{s:i, s:o}, {s:i, s:o, s:o, s:o}]}", "task", 3,
                                        "outcomes", "variant", 0, "nll", reals(full + at, N / 2),
                                        "variant", 2, "nll", reals(own + at, N / 2), "kl",
                                        reals(kl + at, N / 2), "top1", reals(same + at, N / 2)));
    }
    CHECK(kept_put_kl_stats(cell, samples, 3, 2));
    const json_t *o = json_object_get(cell, "kl_stats");
    CHECK_INT(json_integer_value(json_object_get(o, "n")), N);
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        const double x = json_number_value(json_object_get(o, golden[i].key));
        if (fabs(x - golden[i].value) > 1e-11 * (1 + fabs(golden[i].value)))
            fprintf(stderr, "%s\n", golden[i].key);
        CHECK_NEAR(x, golden[i].value, 1e-11 * (1 + fabs(golden[i].value)));
    }
    CHECK(kept_put_kl_stats(cell, samples, 4, 2)); /* another task has none */
    CHECK(json_is_null(json_object_get(cell, "kl_stats")));
    json_decref(samples);
    json_decref(cell);
}

/* What does not differ has no error, not the rounding of two variances: documents are checked by
 * computing this again from numbers that were printed. */
static void test_no_difference(void)
{
    json_t *cell = json_object();
    json_t *samples =
        json_pack("[{s:i, s:[{s:i, s:o}, {s:i, s:o, s:o, s:o}]}]", "task", 0, "outcomes", "variant",
                  0, "nll", reals(full, N), "variant", 1, "nll", reals(full, N), "kl",
                  reals(same, N), "top1", reals(same, N));
    CHECK(kept_put_kl_stats(cell, samples, 0, 1));
    const json_t *o = json_object_get(cell, "kl_stats");
    CHECK_NEAR(json_number_value(json_object_get(o, "difference_se")), 0, 0);
    CHECK_NEAR(json_number_value(json_object_get(o, "ratio_se")), 0, 0);
    json_decref(samples);
    json_decref(cell);
}

/* Key: more than 2 nats dearer with the short context, and less than 2 with the long one. */
static void test_key_tokens(void)
{
    static const double brief[] = {5, 5, 1, 3.5, 9}, base[] = {1, 2.5, 0.5, 1.5, 0.5};
    static const double row[] = {2, 2, 2, 2, 4};
    json_t *cell = json_object();
    json_t *samples = json_pack("[{s:i, s:o, s:[{s:i, s:o}, {s:i, s:o}]}]", "task", 0, "short_nll",
                                reals(brief, 5), "outcomes", "variant", 0, "nll", reals(base, 5),
                                "variant", 2, "nll", reals(row, 5));
    CHECK(kept_put_kl_stats(cell, samples, 0, 2));
    const json_t *o = json_object_get(cell, "key_tokens"); /* tokens 0 and 4 */
    CHECK_INT(json_integer_value(json_object_get(o, "n")), 2);
    CHECK_NEAR(json_number_value(json_object_get(o, "nll")), 3, 1e-12);
    CHECK_NEAR(json_number_value(json_object_get(o, "full_nll")), 0.75, 1e-12);
    CHECK_NEAR(json_number_value(json_object_get(o, "ppl")), exp(3), 1e-9);
    json_decref(samples);
    json_decref(cell);
}

static json_t *answer(int variant, const char *tokens, bool ended)
{
    json_t *o = json_pack("{s:i, s:b, s:b, s:o}", "variant", variant, "failed", 0, "ended",
                          (int)ended, "tokens", json_loads(tokens, 0, NULL));
    return o;
}

static void test_trajectory(void)
{
    static const struct {
        const char *full, *own;
        bool full_ended, own_ended;
    } pairs[] = {
        {"[1,2,3,4]", "[1,2,3,4]", true, true},   /* identical */
        {"[1,2,3,4]", "[1,2,9,4,5]", true, true}, /* after 2 of 5 */
        {"[1,2]", "[1,2]", true, false},          /* goes on where the other ends: after 2 */
        {"[]", "[]", true, true},                 /* identical */
        {"[7]", "[]", true, true},                /* at once */
    };
    json_t *samples = json_array(), *cell = json_object();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        json_array_append_new(samples, json_pack("{s:i, s:[o, o]}", "task", 0, "outcomes",
                                                 answer(0, pairs[i].full, pairs[i].full_ended),
                                                 answer(2, pairs[i].own, pairs[i].own_ended)));
    kept_put_trajectory(cell, samples, 0, 2);
    const json_t *o = json_object_get(cell, "trajectory");
    CHECK_INT(json_integer_value(json_object_get(o, "n")), 5);
    CHECK_NEAR(json_number_value(json_object_get(o, "identical")), 2 / 5.0, 1e-12);
    CHECK_NEAR(json_number_value(json_object_get(o, "prefix_match")), (1 + 0.4 + 1 + 1 + 0) / 5,
               1e-12);
    CHECK_NEAR(json_number_value(json_object_get(o, "first_divergence")), 4 / 3.0, 1e-12);
    CHECK_NEAR(json_number_value(json_object_get(o, "length_ratio")), 11 / 11.0, 1e-12);
    CHECK_INT(json_integer_value(json_object_get(o, "longer")), 1);
    CHECK_INT(json_integer_value(json_object_get(o, "shorter")), 1);
    CHECK_INT(json_integer_value(json_object_get(o, "cut")), 1);
    json_decref(samples);
    json_decref(cell);
}

int main(void)
{
    RUN(test_kl_stats);
    RUN(test_no_difference);
    RUN(test_key_tokens);
    RUN(test_trajectory);
    TEST_END();
}
