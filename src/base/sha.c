/* sha: SHA-256 through libcrypto, for model identity in results. */
#include "base/base.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK ((size_t)1 << 20)

static void to_hex(const unsigned char *digest, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 32; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[64] = 0;
}

kept_status kept_sha256_file(const char *path, char hex[65], kept_error *err)
{
    kept_status status = KEPT_OK;
    unsigned char digest[EVP_MAX_MD_SIZE];
    hex[0] = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char *buf = malloc(CHUNK);
    FILE *f = fopen(path, "rb");
    if (!f) {
        status = kept_fail(err, KEPT_IO, "cannot open %s: %s", path, strerror(errno));
        goto out;
    }
    if (!ctx || !buf || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        status = kept_fail(err, KEPT_NOMEM, "out of memory hashing %s", path);
        goto out;
    }
    for (size_t n; (n = fread(buf, 1, CHUNK, f)) > 0;)
        if (EVP_DigestUpdate(ctx, buf, n) != 1) {
            status = kept_fail(err, KEPT_NOMEM, "libcrypto failed hashing %s", path);
            goto out;
        }
    if (ferror(f)) {
        status = kept_fail(err, KEPT_IO, "cannot read %s: %s", path, strerror(errno));
        goto out;
    }
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1) {
        status = kept_fail(err, KEPT_NOMEM, "libcrypto failed hashing %s", path);
        goto out;
    }
    to_hex(digest, hex);
out:
    if (f)
        fclose(f);
    free(buf);
    EVP_MD_CTX_free(ctx);
    return status;
}

void kept_sha256(const void *data, size_t n, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    hex[0] = 0;
    if (EVP_Digest(n ? data : "", n, digest, NULL, EVP_sha256(), NULL) == 1)
        to_hex(digest, hex);
}
