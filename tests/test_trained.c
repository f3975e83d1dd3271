/* Trained files: what is written is read back bit for bit; every cut and every altered byte is
 * refused. */
#include "kept/trained.h"
#include "test.h"

#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char sha[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static char path[64];

static kept_trained *sample(void)
{
    kept_trained *t = NULL;
    const float a[3] = {1.5f, -0.0f, 3e-42f};
    CHECK(kept_trained_new("duo", sha, &t, NULL) == KEPT_OK);
    CHECK(kept_trained_put(t, "alpha.0", a, 3, NULL) == KEPT_OK);
    CHECK(kept_trained_put(t, "none", a, 0, NULL) == KEPT_OK);
    CHECK(kept_trained_set_note(t, "text", "kjv 0 1000", NULL) == KEPT_OK);
    return t;
}

static char *slurp(size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *data = calloc(1, 65536);
    *n = f && data ? fread(data, 1, 65536, f) : 0;
    if (f)
        fclose(f);
    return data;
}

static void round_trip(void)
{
    kept_trained *t = sample(), *u = NULL;
    kept_error err = {{0}, 0};
    size_t n = 9;
    CHECK(kept_trained_put(t, "alpha.0", (float[]){1}, 1, NULL) == KEPT_ARGUMENT);
    CHECK(kept_trained_put(t, "Bad name", (float[]){1}, 1, NULL) == KEPT_ARGUMENT);
    CHECK(kept_trained_set_note(t, "seed", "1", NULL) == KEPT_OK);
    CHECK(kept_trained_set_note(t, "seed", "2", NULL) == KEPT_OK);
    CHECK(kept_trained_set_note(t, "two", "a\nb", NULL) == KEPT_ARGUMENT);
    CHECK(kept_trained_save(t, path, &err) == KEPT_OK);
    CHECK(kept_trained_open(path, &u, &err) == KEPT_OK);
    if (u) {
        const float *x = kept_trained_array(u, "alpha.0", &n);
        size_t none = 7;
        CHECK(n == 3 && !memcmp(x, kept_trained_array(t, "alpha.0", &n), 12));
        CHECK(kept_trained_array(u, "none", &none) != NULL && none == 0);
        CHECK(kept_trained_array(u, "text", &none) == NULL);
        CHECK(!strcmp(kept_trained_note(u, "text"), "kjv 0 1000"));
        CHECK(!strcmp(kept_trained_note(u, "seed"), "2"));
        CHECK(kept_trained_note(u, "alpha.0") == NULL);
        CHECK(!strcmp(kept_trained_kind(u), "duo") && !strcmp(kept_trained_model_sha256(u), sha));
    }
    kept_trained_free(t);
    kept_trained_free(u);
    CHECK(kept_trained_new("Duo", sha, &t, NULL) == KEPT_ARGUMENT && !t);
    CHECK(kept_trained_new("duo", "12", &t, NULL) == KEPT_ARGUMENT && !t);
    CHECK(kept_trained_open("/nonexistent/x.kept", &u, &err) == KEPT_IO && !u);
    t = sample();
    CHECK(kept_trained_save(t, "/nonexistent/x.kept", &err) == KEPT_IO);
    kept_trained_free(t);
}

/* Bytes with a checksum that fits, so that what lies behind it is tested too. */
static kept_status parse_signed(char *data, size_t n)
{
    kept_trained *u = NULL;
    char hex[65];
    kept_sha256(data, n - 64, hex);
    memcpy(data + n - 64, hex, 64);
    kept_status st = kept_trained_parse(data, n, "x", &u, NULL);
    CHECK((st == KEPT_OK) == (u != NULL));
    kept_trained_free(u);
    return st;
}

static void damage(void)
{
    size_t n;
    char *data = slurp(&n), *copy = calloc(1, 65536);
    CHECK(n > 200);
    for (size_t i = 0; i < n; i++) {
        kept_trained *u = NULL;
        CHECK(kept_trained_parse(data, i, "x", &u, NULL) == KEPT_FORMAT && !u);
        memcpy(copy, data, n);
        copy[i] ^= 4;
        CHECK(kept_trained_parse(copy, n, "x", &u, NULL) == KEPT_FORMAT && !u);
    }
    kept_rng r;
    kept_rng_init(&r, 5);
    for (int k = 0; k < 20000; k++) {
        size_t m = n - (kept_rng_below(&r, 4) ? 0 : kept_rng_below(&r, (uint32_t)n - 64));
        memcpy(copy, data, n);
        for (uint32_t j = kept_rng_below(&r, 4); j > 0; j--)
            copy[kept_rng_below(&r, (uint32_t)m)] = (char)kept_rng_below(&r, 256);
        parse_signed(copy, m);
    }
    const char *const heads[] = {"kept-trained 2\nkind a\nmodel b\n\n",
                                 "kept-trained 1\nkind a\n\n",
                                 "kept-trained 1\nkind a\nmodel zz\n\n", "kept-trained 1\n"};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        size_t m = strlen(heads[i]);
        memcpy(copy, heads[i], m);
        CHECK(parse_signed(copy, m + 64) == KEPT_FORMAT);
    }
    int m =
        sprintf(copy, "kept-trained 1\nkind a\nmodel %s\narray x 18446744073709551615\n\n", sha);
    CHECK(parse_signed(copy, (size_t)m + 64) == KEPT_FORMAT);
    m = sprintf(copy, "kept-trained 1\nkind a\nmodel %s\narray x 0\narray x 0\n\n", sha);
    CHECK(parse_signed(copy, (size_t)m + 64) == KEPT_FORMAT);
    m = sprintf(copy, "kept-trained 1\nkind a\nmodel %s\narray x 0\nnote x y z\n\n", sha);
    CHECK(parse_signed(copy, (size_t)m + 64) == KEPT_OK);
    free(data);
    free(copy);
}

int main(void)
{
    char dir[] = "/tmp/kept-trained-XXXXXX";
    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/x.kept", dir);
    RUN(round_trip);
    RUN(damage);
    unlink(path);
    rmdir(dir);
    TEST_END();
}
