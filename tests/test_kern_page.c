/* Pages, conversions, outer products and dispatch of every level this CPU runs. Bit copies and
 * roundings are exact; outer is compared with double at 1e-5 of the sum of magnitudes. */
#include "test.h"
#include "kern/kern.h"

static const int sizes[] = {16, 64, 80, 96, 112, 128, 256};
static uint64_t seed = 7;

static uint32_t bits(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 32);
}
static float noise(void)
{
    return (float)((double)bits() / 2147483648.0 - 1.0);
}

static float from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* Element of slot s, channel d, by the layout stated in kern.h. */
static size_t k_at(int D, int s, int d)
{
    return (size_t)((s / 32 * D + d) * 32 + s % 32);
}
static size_t v_at(int D, int s, int d)
{
    int b = d / 64, w = D - 64 * b < 64 ? D - 64 * b : 64;

    return (size_t)(64 * D + 64 * 64 * b + s * w + d % 64);
}

/* Every finite value survives; halfway points go to the even neighbour, others to the nearer. */
static void conversions(void)
{
    int bad = 0;

    for (int h = 0; h < 0x7c00; h++) {
        int e = h >> 10, m = h & 1023;
        double x = e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        double next = h == 0x7bff ? 65536 : x + ldexp(1, (e ? e : 1) - 25);
        float mid = (float)((x + next) / 2);

        bad += (double)kept_f16_to_f32((kept_f16)h) != x;
        bad += (double)kept_f16_to_f32((kept_f16)(h | 0x8000)) != -x;
        bad += kept_f32_to_f16((float)x) != h || kept_f32_to_f16((float)-x) != (h | 0x8000);
        bad += kept_f32_to_f16(mid) != (h % 2 ? h + 1 : h);
        bad += kept_f32_to_f16(nextafterf(mid, 0)) != h;
        bad += kept_f32_to_f16(nextafterf(mid, 1e9f)) != h + 1;
    }
    CHECK_INT(bad, 0);
    CHECK_INT(kept_f32_to_f16(INFINITY), 0x7c00);
    CHECK_INT(kept_f32_to_f16(-1e30f), 0xfc00);
    CHECK(isinf(kept_f16_to_f32(0xfc00)) && isnan(kept_f16_to_f32(0x7c01)));
    CHECK((kept_f32_to_f16(NAN) & 0x7fff) > 0x7c00);
}

/* Values of every kind: ordinary, any bits at all, halfway points, F16 denormals, overflow. */
static float any_value(int i)
{
    switch (i % 5) {
    case 0:
        return from_bits(bits());
    case 1:
        return from_bits((bits() & 0x807fe000) | 0x3f801000);
    case 2:
        return noise() * 6e-5f;
    case 3:
        return noise() * 1e5f;
    default:
        return noise();
    }
}

static void put_and_get(void)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8);

    for (int z = 0; z < 7; z++) {
        int D = sizes[z], bad = 0;
        size_t page = kept_page_bytes(D), all = (size_t)(64 * D);
        kept_f16 *p = aligned_alloc(64, page + 64), *q = aligned_alloc(64, page + 64);
        float *x = malloc(2 * all * 4), *y = malloc((2 * all + 1) * 4);

        memset(p, 0xa5, page + 64);
        for (size_t i = 0; i < 2 * all; i++)
            x[i] = any_value((int)i);
        for (int s = 0; s < 64; s++) /* the expected page, written by the layout */
            for (int d = 0; d < D; d++) {
                p[k_at(D, s, d)] = kept_f32_to_f16(x[s * D + d]);
                p[v_at(D, s, d)] = kept_f32_to_f16(x[all + (size_t)(s * D + d)]);
            }
        for (int level = 0; level < n; level++) {
            const kept_kern *k = kept_kern_get(names[level]);

            memset(q, 0xa5, page + 64);
            for (int s = 63; s >= 0; s--)
                k->put((uint8_t *)q, D, s, x + s * D, x + all + (size_t)(s * D));
            CHECK(!memcmp(p, q, page + 64));
            for (int s = 0; s < 64; s += 7) {
                int m = 64 - s < 1 + s ? 64 - s : 1 + s;

                y[2 * m * D] = 42;
                k->get((uint8_t *)p, D, s, m, y, s % 2 ? y + m * D : NULL);
                if (s % 2 == 0)
                    k->get((uint8_t *)p, D, s, m, NULL, y + m * D);
                for (int i = 0; i < m * D; i++) {
                    float a = kept_f16_to_f32(p[k_at(D, s + i / D, i % D)]);
                    float b = kept_f16_to_f32(p[v_at(D, s + i / D, i % D)]);

                    bad += memcmp(&a, &y[i], 4) || memcmp(&b, &y[m * D + i], 4);
                }
                CHECK(y[2 * m * D] == 42);
            }
        }
        CHECK_INT(bad, 0);
        free(p), free(q), free(x), free(y);
    }
}

static void moves(void)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8);

    for (int level = 0; level < n; level++) {
        for (int z = 0; z < 7; z++) {
            int D = sizes[z], bad = 0;
            size_t m = kept_page_bytes(D) / 2;
            kept_f16 *p = malloc(3 * m * 2);

            for (size_t i = 0; i < 3 * m; i++)
                p[i] = (kept_f16)bits();
            for (int i = 0; i < 40; i++) {
                int dst = (int)(bits() % 64), src = (int)(bits() % 64);
                kept_f16 *to = p + 2 * m, *from = i % 3 ? p : to;

                memcpy(p + m, to, m * 2); /* the expected page */
                for (int d = 0; d < D; d++) {
                    p[m + k_at(D, dst, d)] = from[k_at(D, src, d)];
                    p[m + v_at(D, dst, d)] = from[v_at(D, src, d)];
                }
                kept_kern_get(names[level])
                    ->move((uint8_t *)to, dst, (const uint8_t *)from, src, D);
                bad += memcmp(p + m, to, m * 2) != 0;
            }
            CHECK_INT(bad, 0);
            free(p);
        }
    }
}

static void outer_one(const kept_kern *k, int D, int n)
{
    size_t stride = (size_t)D + 3, all = (size_t)(D * D);
    float *x = malloc(((size_t)n * stride + 1) * 4), *mean = malloc(((size_t)D + 1) * 4);
    float *cov = malloc((all + 1) * 4);
    int bad = 0;

    for (size_t i = 0; i < (size_t)n * stride; i++)
        x[i] = noise();
    for (size_t i = 0; i <= all; i++)
        cov[i] = (float)(i % 13);
    for (int i = 0; i <= D; i++)
        mean[i] = (float)i;
    k->outer(n, D, x, stride, mean, cov);
    CHECK(cov[all] == (float)(all % 13) && mean[D] == (float)D);
    for (int i = 0; i < D; i++) {
        double m = i;

        for (int t = 0; t < n; t++)
            m += x[(size_t)t * stride + (size_t)i];
        bad += !(fabs(m - mean[i]) <= 1e-5 * (n + i));
        for (int j = 0; j < D; j++) {
            double c = (i * D + j) % 13, all_of = c;

            for (int t = 0; t < n; t++) {
                double y =
                    (double)x[(size_t)t * stride + (size_t)i] * x[(size_t)t * stride + (size_t)j];

                c += y;
                all_of += fabs(y);
            }
            bad += !(fabs(c - cov[i * D + j]) <= 1e-5 * all_of);
        }
    }
    CHECK_INT(bad, 0);
    free(x), free(mean), free(cov);
}

/* Every level against double, and equal bits for equal rows wherever they stand. */
static void dots_one(const kept_kern *kern, int m, int n, int k)
{
    size_t lda = (size_t)k, ldc = (size_t)n + 3;
    float *a = calloc((size_t)m * lda + 1, 4), *b = calloc((size_t)n * lda + 1, 4);
    float *c = calloc((size_t)m * ldc, 4);

    for (size_t i = 0; i < (size_t)m * lda; i++)
        a[i] = noise();
    for (size_t i = 0; i < (size_t)n * lda; i++)
        b[i] = noise();
    if (n > 1)
        memcpy(b + (size_t)(n - 1) * lda, b, lda * 4);
    for (size_t i = 0; i < (size_t)m * ldc; i++)
        c[i] = 7;
    kern->dots(m, n, k, a, b, c, (int)ldc);
    for (int i = 0; i < m; i++) {
        const float *row = c + (size_t)i * ldc;

        CHECK(row[0] == row[n - 1]);
        CHECK(row[n] == 7 && row[n + 2] == 7);
        for (int j = 0; j < n; j++) {
            double sum = 0, size = 1e-30;

            for (size_t d = 0; d < lda; d++) {
                double x = (double)a[(size_t)i * lda + d] * b[(size_t)j * lda + d];

                sum += x;
                size += fabs(x);
            }
            CHECK(fabs(row[j] - sum) <= 1e-5 * size);
        }
    }
    free(a), free(b), free(c);
}

static void rows_against_rows(void)
{
    static const int shapes[][3] = {{1, 1, 1},    {1, 17, 64},  {4, 32, 64},  {5, 33, 128},
                                    {3, 100, 80}, {7, 31, 300}, {9, 65, 576}, {2, 16, 512}};
    const char *names[8];
    int levels = kept_kern_levels(names, 8);

    for (int l = 0; l < levels; l++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            dots_one(kept_kern_get(names[l]), shapes[i][0], shapes[i][1], shapes[i][2]);
}

static void outer_products(void)
{
    const char *names[8];
    int levels = kept_kern_levels(names, 8);

    for (int level = 0; level < levels; level++)
        for (int z = 0; z < 7; z++)
            for (int n = 0; n < 40; n += 13)
                outer_one(kept_kern_get(names[level]), sizes[z], n);
}

static void dispatch(void)
{
    const char *names[8];
    int n = kept_kern_levels(names, 8);

    static const char *const known[] = {"ref", "avx2", "avx2vnni", "avx512", "avx512vnni"};
    size_t at = 0;

    CHECK(n >= 1);
    CHECK_STR(names[0], "ref");
    for (int i = 0; i < n; i++) { /* of those that there are, in rising order */
        const kept_kern *k = kept_kern_get(names[i]);

        while (at < sizeof known / sizeof *known && strcmp(known[at], names[i]) != 0)
            at++;
        CHECK(at++ < sizeof known / sizeof *known);
        CHECK(k != NULL);
        CHECK_STR(k->name, names[i]);
        CHECK(k->attend && k->combine && k->mass && k->put && k->move && k->get && k->outer &&
              k->dots);
    }
    CHECK_INT(kept_kern_levels(names, 1), 1);
    CHECK(kept_kern_get(NULL) == kept_kern_get("") && kept_kern_get(NULL) != NULL);
    CHECK(kept_kern_get("avx") == NULL && kept_kern_get("AVX2") == NULL);
}

int main(void)
{
    RUN(dispatch);
    RUN(conversions);
    RUN(put_and_get);
    RUN(moves);
    RUN(outer_products);
    RUN(rows_against_rows);
    kept_kern_enter(); /* flushing denormals must not change what a page holds */
    RUN(put_and_get);
    TEST_END();
}
