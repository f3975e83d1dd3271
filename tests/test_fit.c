/* test_fit: the numerics of the trainers against values that NumPy 2.4 and SciPy 1.17 gave for the
 * same numbers: eigenvectors (linalg.eigh), a positive definite system (linalg.cho_solve), ranks
 * (stats.spearmanr), ridge regression (linalg.solve of its normal equations), a network with GELU
 * (special.ndtr) and its gradient by central differences, three steps of Adam. */
#include "base/base.h"
#include "test.h"
#include "train/job.h"
#include "train/net.h"

static const double psd[] = {
    8.140987, 0.850222, 1.487041,  -0.061739, -1.989844, 0.850222,  8.650969,  2.666309, 2.397491,
    0.81236,  1.487041, 2.666309,  7.227797,  0.223571,  -3.180683, -0.061739, 2.397491, 0.223571,
    6.591801, 2.537058, -1.989844, 0.81236,   -3.180683, 2.537058,  5.27893};
static const double principal[] = {0.4648648985151829, 0.5541232467464612, 0.6112970732247305,
                                   0.11721235226658683, -0.29904047600055905};
static const double rhs[] = {-1.547, 0.859,  0.119, -0.641, 2.0,
                             0.762,  -1.199, 0.075, 0.577,  -0.189};
static const double solved[] = {-0.07668667500856925, 0.036949154343482206, 0.3700304991201358,
                                -0.4199412558056258,  0.7690487476508341,   0.10414488903771464,
                                -0.21216269971151644, 0.05788111203018569,  0.16734757991001764,
                                -0.009449732050971047};
static const float ridge_x[] = {0.683f,  -0.067f, 0.667f,  1.439f,  -0.676f, 0.203f,
                                -0.463f, 0.127f,  -1.187f, -0.579f, -0.196f, 0.899f,
                                1.145f,  -1.324f, -0.795f, 0.647f,  -1.992f, -0.463f,
                                -0.097f, 1.257f,  0.689f,  -0.327f, -0.369f, -0.25f};
static const float ridge_y[] = {1.524f,  -0.428f, -0.304f, 0.353f, -0.121f, -0.197f,
                                -1.114f, -0.012f, -0.444f, 1.166f, 0.653f,  -0.024f,
                                0.668f,  -0.34f,  1.052f,  -0.005f};
static const double ridge_w[] = {0.15522780622365398, 0.17404229817165306, 0.011151637923497906,
                                 0.24044249292173078, -0.1264099472815159, -0.1667460832251516};
static const double ridge_b[] = {0.262567789328565, -0.0655862841986087};
static const float net_w[] = {0.583f,  -1.291f, 0.347f,  -1.688f, -2.035f, -0.304f, -0.9f,
                              0.164f,  2.245f,  -0.832f, -0.624f, 0.205f,  0.493f,  -0.176f,
                              -0.206f, 0.702f,  0.52f,   -1.034f, -0.079f, 0.035f,  -1.054f,
                              0.26f,   -0.858f, 0.972f,  0.193f,  0.089f};
static const double net_gelu_y[] = {0.8355427379810647,   -1.3083981788943377, 1.5045462265074094,
                                    -2.206760227928701,   -0.4078845083217754, 0.9572973346143668,
                                    -0.44069256259105166, -0.8964079578125981, 0.8642920361822477,
                                    -2.194506928747039};
static const double net_gelu_grad[] = {
    4.14655788,  -3.47741034, -0.29824542, -0.76473907, 1.23752763, 0.10673908, -0.10861122,
    -0.00536981, 0.44199145,  -2.02585177, 1.84300419,  -0.3065651, 3.91462825, -0.97528285,
    0.52569043,  -1.69619397, 2.84574245,  0.42771179,  0.37368312, 0.38356047, -6.40441959,
    -0.73636641, -0.83979154, -0.63538313, 1.12592157,  -2.61231038};
static const double net_relu_y[] = {0.7800878119999999,  -1.453079092,        1.37604888,
                                    -2.3089490759999998, -0.5122550430000001, 1.016289496,
                                    -0.5204407280000001, -0.9551783620000005, 0.7009088749999994,
                                    -2.028930624};
static const double net_relu_grad[] = {
    3.82055504,  -3.21431687, -0.30788765, -0.85705885, 1.17080824,  -0.01012993, 0.07977837,
    -0.08491479, 0.52447812,  -1.69163807, 1.78029659,  -0.17362031, 3.85539563,  -0.86138857,
    0.68025711,  -1.52727436, 2.52809557,  0.48813163,  0.34826508,  0.33018461,  -6.50505693,
    -1.06333631, -1.1411501,  -0.84645826, 0.91333992,  -2.64473906};
static const float adam_grad[] = {-0.591f, -0.119f, -1.998f, -1.131f, 0.363f, -2.129f,
                                  0.847f,  -1.746f, 0.757f,  -0.845f, 0.779f, 0.131f};
static const double adam_w[] = {0.5080470191965792, -0.9742344968650093, 2.013476793950109,
                                0.2771147274092187};

enum { D = 5, RIDGE_N = 8 };

static void principal_direction(void)
{
    double x[D], work[D];
    kept_fit_principal(psd, D, x, work);
    double sign = x[0] < 0 ? -1 : 1;
    for (int i = 0; i < D; i++)
        CHECK_NEAR(sign * x[i], principal[i], 1e-9);
    double zero[4] = {0};
    kept_fit_principal(zero, 2, x, work); /* some unit vector */
    CHECK_NEAR(x[0] * x[0] + x[1] * x[1], 1, 1e-9);
}

static void positive_definite_system(void)
{
    double a[D * D], b[2 * D];
    memcpy(a, psd, sizeof a);
    memcpy(b, rhs, sizeof b);
    CHECK(kept_fit_cholesky(a, D, b, 2));
    for (int i = 0; i < 2 * D; i++)
        CHECK_NEAR(b[i], solved[i], 1e-12);
    double bad[4] = {1, 0, 2, 1}; /* eigenvalues 3 and -1 */
    CHECK(!kept_fit_cholesky(bad, 2, b, 1));
    double nan[1] = {NAN};
    CHECK(!kept_fit_cholesky(nan, 1, b, 1));
}

static void rank_correlation(void)
{
    const float a[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5}, b[] = {2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4};
    const float same[11] = {0};
    int32_t work[44];
    CHECK_NEAR(kept_fit_spearman(a, b, 11, work), 0.1384567651467695, 1e-12);
    CHECK_NEAR(kept_fit_spearman(a, a, 11, work), 1, 1e-12);
    CHECK(kept_fit_spearman(a, same, 11, work) == 0);
}

static void ridge_regression(void)
{
    double a[10] = {0}, b[8] = {0}, work[16];
    float w[6], bias[2], scratch[KEPT_NET_BATCH * 7];
    const kept_ridge r = {.n_in = 3, .n_out = 2, .a = a, .b = b};
    CHECK_INT(kept_ridge_size(3), 10);
    /* in two parts: sums do not care */
    kept_ridge_add(&r, kept_kern_get(NULL), ridge_x, ridge_y, 3, scratch);
    kept_ridge_add(&r, kept_kern_get(NULL), ridge_x + 9, ridge_y + 6, RIDGE_N - 3, scratch);
    CHECK(kept_ridge_solve(&r, 0.05, w, bias, work));
    for (int i = 0; i < 6; i++)
        CHECK_NEAR(w[i], ridge_w[i], 1e-6);
    for (int i = 0; i < 2; i++)
        CHECK_NEAR(bias[i], ridge_b[i], 1e-6);
}

/* More rows and channels than a block has, against sums in double. */
static void ridge_of_many(void)
{
    enum { N = 300, K = 150 };
    static float x[N * K], y[N], work[KEPT_NET_BATCH * (2 * K + 1)];
    static double a[(K + 1) * (K + 2) / 2], b[K + 1];
    const kept_ridge r = {.n_in = K, .n_out = 1, .a = a, .b = b};
    kept_rng rng;
    kept_rng_init(&rng, 3);
    for (int i = 0; i < N * K; i++)
        x[i] = (float)kept_rng_normal(&rng);
    for (int i = 0; i < N; i++)
        y[i] = (float)kept_rng_normal(&rng);
    kept_ridge_add(&r, kept_kern_get(NULL), x, y, N, work);
    for (int i = 0, at = 0; i <= K; i++)
        for (int k = 0; k <= i; k++) {
            double sum = 0;
            for (int t = 0; t < N; t++)
                sum += (i < K ? (double)x[t * K + i] : 1) * (k < K ? (double)x[t * K + k] : 1);
            CHECK_NEAR(a[at++], sum, 1e-3);
        }
    for (int i = 0; i < K; i++) {
        double sum = 0;
        for (int t = 0; t < N; t++)
            sum += (double)x[t * K + i] * (double)y[t];
        CHECK_NEAR(b[i], sum, 1e-3);
    }
}

static void network(void)
{
    float w[26], y[10], work[KEPT_NET_BATCH * 13], grad[26];
    for (int relu = 0; relu < 2; relu++) {
        const kept_net net = {.n_in = 3, .n_hidden = 4, .n_out = 2, .relu = relu, .w = w};
        const double *is = relu ? net_relu_y : net_gelu_y;
        const double *slope = relu ? net_relu_grad : net_gelu_grad;
        const kept_net_fit fit = {.kern = kept_kern_get(NULL), .work = work, .grad = grad};
        memcpy(w, net_w, sizeof w);
        CHECK_INT(kept_net_size(&net), 26);
        CHECK(kept_net_work(&net) <= sizeof work / sizeof *work);
        kept_net_run(&net, fit.kern, ridge_x, 5, y, work);
        for (int i = 0; i < 10; i++)
            CHECK_NEAR(y[i], is[i], 2e-6);
        double loss = kept_net_gradient(&net, &fit, ridge_x, ridge_y, 5);
        CHECK_NEAR(loss, relu ? 5.179635515328568 : 5.345429300389385, 1e-5);
        for (int i = 0; i < 26; i++)
            CHECK_NEAR(grad[i], slope[i], 2e-5);
    }
}

static void adam(void)
{
    float w[] = {0.5f, -1, 2, 0.25f}, m1[4] = {0}, m2[4] = {0};
    for (int t = 0; t < 3; t++)
        kept_fit_adam(w, adam_grad + 4 * t, m1, m2, 4, 0.01, t + 1);
    for (int i = 0; i < 4; i++)
        CHECK_NEAR(w[i], adam_w[i], 1e-6);
}

/* A network of standardised input, folded, says the same of the input itself. */
static void folded(void)
{
    float w[26], y[10], z[15], yy[10], work[KEPT_NET_BATCH * 13];
    const float mean[] = {2, -1, 0.5f}, scale[] = {3, 0.25f, 1};
    kept_net net = {.n_in = 3, .n_hidden = 4, .n_out = 2, .w = w};
    memcpy(w, net_w, sizeof w);
    for (int i = 0; i < 15; i++)
        z[i] = (ridge_x[i] - mean[i % 3]) * scale[i % 3];
    kept_net_run(&net, kept_kern_get(NULL), z, 5, y, work);
    kept_net_fold(w, kept_net_b1(&net), 4, 3, mean, scale);
    kept_net_run(&net, kept_kern_get(NULL), ridge_x, 5, yy, work);
    for (int i = 0; i < 10; i++)
        CHECK_NEAR(y[i], yy[i], 1e-5);
}

int main(void)
{
    RUN(principal_direction);
    RUN(positive_definite_system);
    RUN(rank_correlation);
    RUN(ridge_regression);
    RUN(ridge_of_many);
    RUN(network);
    RUN(adam);
    RUN(folded);
    TEST_END();
}
