/* base: published vectors and edge cases. The generator's oracle is the published algorithm written
 * a second time, checked against its published first output. */
#include "test.h"

#include "base/base.h"
#include "base/linalg.h"

#include <math.h>

#include <stdint.h>

static void status_names(void)
{
    CHECK_STR(kept_status_name(KEPT_OK), "OK");
    CHECK_STR(kept_status_name(KEPT_CANCELLED), "CANCELLED");
    CHECK_STR(kept_status_text(KEPT_FULL), "page pool exhausted");
    CHECK_STR(kept_status_name((kept_status)99), "UNKNOWN");
    CHECK_STR(kept_status_text((kept_status)-1), "unknown status");
    CHECK_STR(kept_version(), KEPT_VERSION);
}

static void error_text(void)
{
    kept_error e;
    char big[1000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    CHECK_INT(kept_fail(&e, KEPT_IO, "no %s\nin %d", "file\t1", 3), KEPT_IO);
    CHECK_STR(e.text, "no file 1 in 3");
    CHECK_INT(e.at, -1);
    CHECK_INT(kept_fail_at(&e, KEPT_ARGUMENT, 7, "%s", big), KEPT_ARGUMENT);
    CHECK_INT(e.at, 7);
    CHECK_INT(strlen(e.text), sizeof e.text - 1);
    CHECK_INT(kept_fail(NULL, KEPT_FULL, "x"), KEPT_FULL);
}

/* Written from the authors' description, state by state. */
static uint64_t ref_splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15ull;
    z ^= z >> 30;
    z *= 0xbf58476d1ce4e5b9ull;
    z ^= z >> 27;
    z *= 0x94d049bb133111ebull;
    z ^= z >> 31;
    return z;
}

static void generator(void)
{
    uint64_t x = 1234567;
    /* The widely published first outputs of splitmix64 for seed 1234567. */
    CHECK(ref_splitmix(&x) == 6457827717110365317ull);
    CHECK(ref_splitmix(&x) == 3203168211198807973ull);
    /* xoshiro256** from the state {1, 2, 3, 4}: the published test vector. */
    const uint64_t want[10] = {11520ull,
                               0ull,
                               1509978240ull,
                               1215971899390074240ull,
                               1216172134540287360ull,
                               607988272756665600ull,
                               16172922978634559625ull,
                               8476171486693032832ull,
                               10595114339597558777ull,
                               2904607092377533576ull};
    kept_rng r = {{1, 2, 3, 4}};
    for (int i = 0; i < 10; i++)
        CHECK(kept_rng_u64(&r) == want[i]);
    kept_rng_init(&r, 42);
    x = 42;
    for (int i = 0; i < 4; i++)
        CHECK(r.s[i] == ref_splitmix(&x));
}

static void distributions(void)
{
    kept_rng r;
    kept_rng_init(&r, 7);
    int count[7] = {0};
    double sum = 0, square = 0, unit = 0;
    const int n = 140000;
    for (int i = 0; i < n; i++) {
        const uint32_t b = kept_rng_below(&r, 7);
        CHECK(b < 7);
        count[b % 7]++;
        const double u = kept_rng_unit(&r), g = kept_rng_normal(&r);
        if (!(u >= 0 && u < 1))
            CHECK(!"unit outside [0,1)");
        unit += u;
        sum += g;
        square += g * g;
    }
    for (int i = 0; i < 7; i++)
        CHECK_NEAR(count[i], n / 7, 800); /* 6 standard deviations */
    CHECK_NEAR(unit / n, 0.5, 0.005);
    CHECK_NEAR(sum / n, 0, 0.016);
    CHECK_NEAR(square / n, 1, 0.025);
    CHECK_INT(kept_rng_below(&r, 1), 0);
    /* Just above 2^31: a biased method would return the low half twice as often. */
    int low = 0;
    for (int i = 0; i < n; i++)
        low += kept_rng_below(&r, 3u << 30) < (1u << 30);
    CHECK_NEAR(low, n / 3, 1100);
}

static void hashing(void)
{
    const unsigned char a[] = "0123456789abcdef", b[] = "x0123456789abcdef";
    CHECK(kept_hash64(a, 16, 1) == kept_hash64(b + 1, 16, 1)); /* alignment does not matter */
    CHECK(kept_hash64(a, 16, 1) != kept_hash64(a, 16, 2));
    CHECK(kept_hash64(a, 16, 1) != kept_hash64(a, 15, 1));
    CHECK(kept_hash64("\0", 1, 1) != kept_hash64("\0\0", 2, 1));
    CHECK(kept_hash64(NULL, 0, 1) != kept_hash64(NULL, 0, 0));
    /* Flipping any input bit flips about half of the output. */
    for (int i = 0; i < 128; i++) {
        unsigned char c[16];
        memcpy(c, a, 16);
        c[i / 8] ^= (unsigned char)(1 << i % 8);
        uint64_t d = kept_hash64(a, 16, 9) ^ kept_hash64(c, 16, 9);
        int bits = 0;
        for (; d; d &= d - 1)
            bits++;
        CHECK(bits > 10 && bits < 54);
    }
}

static int near(const char *w)
{
    static const char *const names[] = {"snapkv", "streaming", "h2o", "tova", "full"};
    return kept_nearest(w, strlen(w), names, 5);
}

static void nearest(void)
{
    CHECK_INT(near("snapkv"), 0);
    CHECK_INT(near("SnapKV"), 0);
    CHECK_INT(near("snpakv"), 0); /* one swap */
    CHECK_INT(near("streeming"), 1);
    CHECK_INT(near("steraimng"), 1); /* three swaps or so: limit is 4 */
    CHECK_INT(near("h20"), 2);
    CHECK_INT(near("ho2"), 2); /* a swap is one edit */
    CHECK_INT(near("h2"), 2);
    CHECK_INT(near("h"), -1); /* two edits, limit is 1 */
    CHECK_INT(near("zzzzzz"), -1);
    CHECK_INT(near("fulll"), 4);
    static const char *const tie[] = {"ab", "ac"};
    CHECK_INT(kept_nearest("ad", 2, tie, 2), 0);
    CHECK_INT(kept_nearest("snapkv@25%", 6, tie, 0), -1);
    char longest[200];
    memset(longest, 'a', sizeof longest);
    CHECK_INT(kept_nearest(longest, sizeof longest, tie, 2), -1);
}

static void size_is(const char *text, uint64_t want)
{
    uint64_t got = 12345;
    kept_error e;
    if (kept_parse_size(text, &got, &e) != KEPT_OK || got != want) {
        fprintf(stderr, "parse_size(%s) = %llu, expected %llu\n", text, (unsigned long long)got,
                (unsigned long long)want);
        test_failed = 1;
    }
}

static void size_fails(const char *text)
{
    uint64_t got = 77;
    kept_error e = {{0}, -2};
    if (kept_parse_size(text, &got, &e) != KEPT_ARGUMENT || got != 77 || !e.text[0]) {
        fprintf(stderr, "parse_size(%s) did not fail cleanly\n", text ? text : "NULL");
        test_failed = 1;
    }
    CHECK_INT(kept_parse_size(text, &got, NULL), KEPT_ARGUMENT);
}

static void sizes(void)
{
    size_is("0", 0);
    size_is("512", 512);
    size_is("64MiB", 64ull << 20);
    size_is("64Mi", 64ull << 20);
    size_is("64MB", 64000000);
    size_is("3K", 3000);
    size_is("1Ki", 1024);
    size_is("1.5G", 1500000000);
    size_is("1.5GiB", 3ull << 29);
    size_is("0.000000001G", 1);
    size_is("0.999999999GiB", 1073741822); /* rounded down */
    size_is("007KB", 7000);
    size_is("17179869183GiB", 18446744072635809792ull);
    size_is("17179869183.999999999GiB", 18446744072635809792ull + 1073741822);
    size_is("9999999999999999999", 9999999999999999999ull);
    static const char *const bad[] = {"",
                                      "K",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1 K",
                                      "1.5",
                                      "1.",
                                      ".5G",
                                      "1..5G",
                                      "1.5.5G",
                                      "1KK",
                                      "1kib",
                                      "1e3",
                                      "0x10",
                                      "1T",
                                      "1B",
                                      "1KiBs",
                                      "1,5G",
                                      "nan",
                                      "inf",
                                      "1.0000000000G",
                                      "17179869184GiB",
                                      "18446744073709551616",
                                      "99999999999999999999999999",
                                      "18446744073709552K",
                                      "18446744074G",
                                      "1\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        size_fails(bad[i]);
    size_fails(NULL);
    uint64_t got;
    kept_error e;
    CHECK_INT(kept_parse_size("12xB", &got, &e), KEPT_ARGUMENT);
    CHECK_INT(e.at, 2);
}

static void format_bytes(void)
{
    char b[32];
    CHECK_STR(kept_format_bytes(0, b, sizeof b), "0 B");
    CHECK_STR(kept_format_bytes(1023, b, sizeof b), "1023 B");
    CHECK_STR(kept_format_bytes(1024, b, sizeof b), "1.00 KiB");
    CHECK_STR(kept_format_bytes(3u << 19, b, sizeof b), "1.50 MiB");
    CHECK_STR(kept_format_bytes((1u << 20) - 1, b, sizeof b), "1.00 MiB");
    CHECK_STR(kept_format_bytes((1u << 20) - 8, b, sizeof b), "1023.99 KiB");
    CHECK_STR(kept_format_bytes(1ull << 40, b, sizeof b), "1.00 TiB");
    CHECK_STR(kept_format_bytes(UINT64_MAX, b, sizeof b), "16.00 EiB");
    CHECK_STR(kept_format_bytes(3u << 19, b, 4), "1.5");
}

static void allocation(void)
{
    CHECK(!kept_calloc(SIZE_MAX / 2, 4));
    CHECK(!kept_aligned(64, SIZE_MAX - 3));
    CHECK(!kept_aligned(24, 100));
    CHECK(!kept_aligned(0, 100));
    void *a = kept_calloc(0, 8), *b = kept_aligned(64, 0);
    CHECK(a && b);
    free(a);
    free(b);
    unsigned char *p = kept_aligned(4096, 1000);
    CHECK(p && (uintptr_t)p % 4096 == 0);
    for (int i = 0; p && i < 1000; i++)
        if (p[i])
            CHECK(!"not zeroed");
    free(p);
}

static void sha256(void)
{
    char hex[65];
    kept_error e;
    kept_sha256("", 0, hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    kept_sha256("abc", 3, hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* A file longer than one read: a million times 'a' is a published vector, and longer still. */
    char path[] = "/tmp/kept-test-XXXXXX";
    const int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    CHECK(f != NULL);
    if (!f)
        return;
    for (int i = 0; i < 1000000; i++)
        fputc('a', f);
    fflush(f);
    CHECK_INT(kept_sha256_file(path, hex, &e), KEPT_OK);
    CHECK_STR(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    char *big = kept_calloc(3000000, 1);
    memset(big, 'a', 3000000);
    for (int i = 1000000; i < 3000000; i++)
        fputc('a', f);
    fclose(f);
    char want[65];
    kept_sha256(big, 3000000, want);
    CHECK_INT(kept_sha256_file(path, hex, NULL), KEPT_OK);
    CHECK_STR(hex, want);
    free(big);
    remove(path);
    CHECK_INT(kept_sha256_file(path, hex, &e), KEPT_IO);
    CHECK(strstr(e.text, path) != NULL);
    CHECK_STR(hex, "");
    CHECK_INT(kept_sha256_file("/", hex, &e), KEPT_IO); /* opens, cannot be read */
}

static void monotonic(void)
{
    uint64_t last = kept_clock_ns();
    CHECK(last > 0);
    for (int i = 0; i < 1000; i++) {
        const uint64_t now = kept_clock_ns();
        CHECK(now >= last);
        last = now;
    }
}

/* The second difference of n places, whose eigenvalues are 2 - 2 cos(pi k / (n + 1)) and whose
 * eigenvectors are sines. */
static void eigenvectors(void)
{
    enum { N = 40 };
    double a[N * N] = {0}, w[N];
    for (int i = 0; i < N; i++) {
        a[i * N + i] = 2;
        if (i)
            a[i * N + i - 1] = -1; /* the lower half alone is read */
    }
    CHECK(kept_eigen_symmetric(N, a, w));
    for (int k = 0; k < N; k++) {
        const double turn = acos(-1.0) * (N - k) / (N + 1);
        double along = 0;
        CHECK_NEAR(w[k], 2 - 2 * cos(turn), 1e-12);
        for (int i = 0; i < N; i++)
            along += a[k * N + i] * sin(turn * (i + 1)) * sqrt(2.0 / (N + 1));
        CHECK_NEAR(fabs(along), 1, 1e-10);
    }
    a[N] = NAN;
    CHECK(!kept_eigen_symmetric(N, a, w));
    CHECK(kept_eigen_symmetric(0, a, w));
}

int main(void)
{
    RUN(status_names);
    RUN(error_text);
    RUN(generator);
    RUN(distributions);
    RUN(hashing);
    RUN(nearest);
    RUN(sizes);
    RUN(format_bytes);
    RUN(allocation);
    RUN(sha256);
    RUN(monotonic);
    RUN(eigenvectors);
    TEST_END();
}
