/* cur: CurDKV, arXiv 2509.15038: squared lengths stand in for leverage, ||k||^2 and ||v||^2, each
 * divided by its sum in a window of tokens, multiplied, and divided by the sum over the head.
 *
 * Windows are stretches of `window` live tokens from the first one on, the last may be shorter. A
 * window of zeros scores 0. The reference code's other choices are the option of.
 */
#include "kept/policy.h"

#include <string.h>

enum { WINDOW, OF };
enum { PRODUCT, KEY, VALUE, MEAN };

/* Adds or multiplies into out [n] the squared lengths of rows over their windows' sums. */
static void local(const kept_view *v, const float *x, int n, bool multiply, float *out)
{
    int window = (int)v->options[WINDOW], size = v->head_size;
    float *square = v->scratch;
    for (int i = 0; i < n; i++, x += size)
        square[i] = kept_dot(x, x, size);
    for (int i = 0; i < n; i += window) {
        int end = n - i < window ? n : i + window;
        double sum = 0;
        for (int k = i; k < end; k++)
            sum += square[k];
        for (int k = i; k < end; k++) {
            float part = sum > 0 ? (float)(square[k] / sum) : 0;
            out[k] = multiply ? out[k] * part : out[k] + part;
        }
    }
}

static void score(const kept_view *v, int head, float *out)
{
    const kept_view_head *h = &v->heads[head];
    int of = (int)v->options[OF];
    double sum = 0;
    memset(out, 0, (size_t)h->n * sizeof *out);
    if (of != VALUE)
        local(v, h->key, h->n, false, out);
    if (of != KEY)
        local(v, h->value, h->n, of == PRODUCT, out);
    for (int i = 0; i < h->n; i++)
        sum += out[i];
    for (int i = 0; i < h->n && sum > 0; i++)
        out[i] = (float)(out[i] / sum);
}

static const char *const kinds[] = {"product", "key", "value", "mean", NULL};
static const kept_option options[] = {
    {"window", 16, 1, 65536, true, NULL, "tokens among which lengths are compared"},
    {"of", PRODUCT, 0, MEAN, true, kinds, "product or mean of key and value, or one of them"},
};

const kept_score kept_score_cur = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_SCORE,
             .name = "cur",
             .summary = "squared lengths of key and value, as shares of a small window",
             .paper = "arXiv 2509.15038",
             .deviations = "squared lengths in place of leverage, as the paper's code; windows are "
                           "of live tokens; without the random projection",
             .options = options,
             .n_options = 2},
    .needs = KEPT_NEED_KEYS | KEPT_NEED_VALUES,
    .comparable = true,
    .weighs_values = true,
    .score = score,
};
