/* net: the contracts are in net.h. Columns of a batch lie KEPT_NET_BATCH apart in work, so that the
 * products of both directions are rows against rows. */
#include "train/net.h"

#include "base/base.h"
#include "train/job.h"

#include <math.h>
#include <string.h>

enum { B = KEPT_NET_BATCH };

static size_t n_w1(const kept_net *net)
{
    return (size_t)net->n_hidden * (size_t)net->n_in;
}

static size_t n_w2(const kept_net *net)
{
    return (size_t)net->n_out * (size_t)net->n_hidden;
}

size_t kept_net_size(const kept_net *net)
{
    return n_w1(net) + (size_t)net->n_hidden + n_w2(net) + (size_t)net->n_out;
}

float *kept_net_b1(const kept_net *net)
{
    return net->w + n_w1(net);
}

float *kept_net_w2(const kept_net *net)
{
    return kept_net_b1(net) + net->n_hidden;
}

float *kept_net_b2(const kept_net *net)
{
    return kept_net_w2(net) + n_w2(net);
}

void kept_net_init(const kept_net *net, uint64_t seed)
{
    kept_rng rng;
    kept_rng_init(&rng, seed);
    memset(net->w, 0, kept_net_size(net) * sizeof *net->w);
    for (size_t i = 0; i < n_w1(net); i++)
        net->w[i] = (float)(kept_rng_normal(&rng) * sqrt(2.0 / net->n_in));
    for (size_t i = 0; i < n_w2(net); i++)
        kept_net_w2(net)[i] = (float)(kept_rng_normal(&rng) * sqrt(1.0 / net->n_hidden));
}

size_t kept_net_work(const kept_net *net)
{
    /* z and f(z), errors, x turned */
    return (size_t)B * (size_t)(2 * net->n_hidden + net->n_out + net->n_in);
}

static float act(const kept_net *net, float z)
{
    if (net->relu)
        return z > 0 ? z : 0;
    return 0.5f * z * (1 + erff(z * 0.70710678f));
}

static float slope(const kept_net *net, float z)
{
    if (net->relu)
        return z > 0 ? 1 : 0;
    return 0.5f * (1 + erff(z * 0.70710678f)) + z * 0.39894228f * expf(-0.5f * z * z);
}

/* z, a [n_hidden][B], out [n_out][B] of n rows. */
static void forward(const kept_net *net, const kept_kern *kern, const float *x, int n, float *z,
                    float *a, float *out)
{
    kern->dots(net->n_hidden, n, net->n_in, net->w, x, z, B);
    for (int j = 0; j < net->n_hidden; j++)
        for (int t = 0; t < n; t++) {
            z[j * B + t] += kept_net_b1(net)[j];
            a[j * B + t] = act(net, z[j * B + t]);
        }
    for (int o = 0; o < net->n_out; o++) {
        const float *w = kept_net_w2(net) + o * net->n_hidden;
        for (int t = 0; t < n; t++)
            out[o * B + t] = kept_net_b2(net)[o];
        for (int j = 0; j < net->n_hidden; j++)
            for (int t = 0; t < n; t++)
                out[o * B + t] += w[j] * a[j * B + t];
    }
}

void kept_net_run(const kept_net *net, const kept_kern *kern, const float *x, int n, float *y,
                  float *work)
{
    float *z = work, *a = z + net->n_hidden * B, *out = a + net->n_hidden * B;
    forward(net, kern, x, n, z, a, out);
    for (int t = 0; t < n; t++)
        for (int o = 0; o < net->n_out; o++)
            y[t * net->n_out + o] = out[o * B + t];
}

/* The last layer's gradient; z becomes the error of the hidden layer. */
static void backward(const kept_net *net, const float *error, int n, float *z, const float *a,
                     float *grad)
{
    float *b1 = grad + n_w1(net), *w2 = b1 + net->n_hidden, *b2 = w2 + n_w2(net);
    for (int o = 0; o < net->n_out; o++) {
        b2[o] = 0;
        for (int t = 0; t < n; t++)
            b2[o] += error[o * B + t];
    }
    for (int j = 0; j < net->n_hidden; j++) {
        float back[B] = {0};
        for (int o = 0; o < net->n_out; o++) {
            float sum = 0, w = kept_net_w2(net)[o * net->n_hidden + j];
            for (int t = 0; t < n; t++) {
                sum += error[o * B + t] * a[j * B + t];
                back[t] += error[o * B + t] * w;
            }
            w2[o * net->n_hidden + j] = sum;
        }
        b1[j] = 0;
        for (int t = 0; t < n; t++) {
            z[j * B + t] = back[t] * slope(net, z[j * B + t]);
            b1[j] += z[j * B + t];
        }
    }
}

double kept_net_gradient(const kept_net *net, const kept_net_fit *fit, const float *x,
                         const float *y, int n)
{
    float *z = fit->work, *a = z + net->n_hidden * B, *error = a + net->n_hidden * B;
    float *turned = error + net->n_out * B;
    double loss = 0;
    forward(net, fit->kern, x, n, z, a, error);
    for (int o = 0; o < net->n_out; o++)
        for (int t = 0; t < n; t++) {
            float *e = &error[o * B + t];
            *e -= y[t * net->n_out + o];
            loss += (double)*e * (double)*e / n;
            *e *= 2.0f / (float)n;
        }
    backward(net, error, n, z, a, fit->grad);
    for (int i = 0; i < net->n_in; i++)
        for (int t = 0; t < B; t++) /* zeros beyond n: whole vectors are multiplied */
            turned[i * B + t] = t < n ? x[t * net->n_in + i] : 0;
    for (int j = 0; j < net->n_hidden; j++)
        memset(z + j * B + n, 0, (size_t)(B - n) * sizeof *z);
    fit->kern->dots(net->n_hidden, net->n_in, B, z, turned, fit->grad, net->n_in);
    return loss;
}

double kept_net_step(const kept_net *net, const kept_net_fit *fit, const float *x, const float *y,
                     int n)
{
    double loss = kept_net_gradient(net, fit, x, y, n);
    kept_fit_adam(net->w, fit->grad, fit->m1, fit->m2, kept_net_size(net), fit->rate, fit->step);
    return loss;
}

void kept_net_fold(float *w1, float *b1, int n_rows, int n_in, const float *mean,
                   const float *scale)
{
    for (int j = 0; j < n_rows; j++) {
        float *w = w1 + (size_t)j * (size_t)n_in;
        double sum = 0;
        for (int i = 0; i < n_in; i++) {
            w[i] *= scale[i];
            sum += (double)w[i] * (double)mean[i];
        }
        b1[j] -= (float)sum;
    }
}
