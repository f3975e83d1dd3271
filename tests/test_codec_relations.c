/* What is known of codecs: which loses more on keys with outlier channels. That the values read
 * here are what is stored is tested in test_kern_codec. */
#include "test.h"
#include "kern/kern.h"

static uint64_t seed = 7;
static double uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}
static float gauss(void)
{
    double u = uniform() + 1e-12, v = uniform();

    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* Mean KL of attention over the keys a codec holds to that over the keys packed, for keys with a
 * few channels of their own offset and size, as trained models have them. */
static double key_kl(int codec)
{
    const kept_codecs c = {(uint8_t)codec, KEPT_Q8};
    uint8_t *f16 = aligned_alloc(64, kept_page_bytes(128)),
            *page = aligned_alloc(64, kept_page_bytes(128));
    float *was = malloc(64 * 128 * sizeof *was), *is = malloc(64 * 128 * sizeof *is);
    double kl = 0;
    float k[128], v[128] = {0};

    seed = 99;
    for (int s = 0; s < 64; s++) {
        for (int d = 0; d < 128; d++)
            k[d] = d % 40 == 7 ? 8 + 2 * gauss() : gauss();
        kept_kern_get("ref")->put(f16, 128, s, k, v);
    }
    kept_codec_pack((kept_packed){.at = page, .c = c, .head_size = 128}, f16);
    kept_codec_read((kept_packed){.at = f16, .head_size = 128}, 0, 64, was, NULL);
    kept_codec_read((kept_packed){.at = page, .c = c, .head_size = 128}, 0, 64, is, NULL);
    for (int q = 0; q < 50; q++) {
        double a[64], b[64], sum_a = 0, sum_b = 0;

        for (int d = 0; d < 128; d++)
            k[d] = gauss();
        for (int s = 0; s < 64; s++) {
            a[s] = b[s] = 0;
            for (int d = 0; d < 128; d++) {
                a[s] += (double)k[d] * (double)was[s * 128 + d];
                b[s] += (double)k[d] * (double)is[s * 128 + d];
            }
            sum_a += a[s] = exp(a[s] / sqrt(128));
            sum_b += b[s] = exp(b[s] / sqrt(128));
        }
        for (int s = 0; s < 64; s++)
            kl += a[s] / sum_a * log(a[s] / sum_a / (b[s] / sum_b)) / 50;
    }
    free(f16), free(page), free(was), free(is);
    return kl;
}

static void relations(void)
{
    double kl[KEPT_N_PLAIN];

    for (int i = KEPT_Q8; i < KEPT_N_PLAIN; i++) {
        kl[i] = key_kl(i);
        printf("# keys with outlier channels: %s KL %.2g\n", kept_codec_get(i)->name, kl[i]);
    }
    CHECK(20 * kl[KEPT_Q8] < kl[KEPT_Q4]);
    CHECK(kl[KEPT_Q4] < kl[KEPT_Q4G]); /* rotation, at fewer bits, against groups of 32 */
    CHECK(kl[KEPT_ROT4] < kl[KEPT_ROT3] && kl[KEPT_ROT3] < kl[KEPT_ROT2]);
    CHECK(kl[KEPT_THIN75] < kl[KEPT_THIN50] && kl[KEPT_THIN50] < kl[KEPT_THIN25]);
    CHECK(kl[KEPT_CHAN2] < kl[KEPT_TOK2] && kl[KEPT_CHAN4] < kl[KEPT_TOK4]);
}

int main(void)
{
    RUN(relations);
    TEST_END();
}
