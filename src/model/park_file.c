/* park_file: what is around the fields of a parked sequence: see kept/park.h. */
#include "model/park_io.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define MAGIC  "kept-parked 2\n"
#define N_HEAD (sizeof MAGIC - 1 + 65) /* magic, model, newline */
#define N_SUM  64

kept_status kept_park_seal(kept_engine *e, const uint8_t *raw, size_t n, void **data, size_t *size,
                           kept_error *err)
{
    const size_t room = ZSTD_compressBound(n);
    char hex[65];
    kept_status st = kept_model_sha256(e->model, hex, err);
    if (st)
        return st;
    char *out = malloc(N_HEAD + room + N_SUM + 1);
    const size_t frame = out ? ZSTD_compress(out + N_HEAD, room, raw, n, KEPT_PARK_LEVEL) : 0;
    if (!out || ZSTD_isError(frame)) {
        free(out);
        return kept_fail(err, KEPT_NOMEM, "no memory to park a sequence of %zu bytes", n);
    }
    memcpy(out, MAGIC, sizeof MAGIC - 1);
    memcpy(out + sizeof MAGIC - 1, hex, 64);
    out[N_HEAD - 1] = '\n';
    kept_sha256(out, N_HEAD + frame, hex);
    memcpy(out + N_HEAD + frame, hex, N_SUM);
    *data = out;
    *size = N_HEAD + frame + N_SUM;
    return KEPT_OK;
}

kept_status kept_park_damaged(kept_error *err)
{
    return kept_fail(err, KEPT_FORMAT, "not a parked sequence that this version reads, or damaged");
}

kept_status kept_park_unseal(kept_engine *e, const uint8_t *data, size_t n, uint8_t **raw,
                             size_t *size, kept_error *err)
{
    char hex[65];
    if (n < N_HEAD + N_SUM || memcmp(data, MAGIC, sizeof MAGIC - 1))
        return kept_park_damaged(err);
    kept_sha256(data, n - N_SUM, hex);
    if (memcmp(hex, data + n - N_SUM, N_SUM) || data[N_HEAD - 1] != '\n')
        return kept_park_damaged(err);
    kept_status st = kept_model_sha256(e->model, hex, err);
    if (st)
        return st;
    if (memcmp(hex, data + sizeof MAGIC - 1, 64))
        return kept_fail(err, KEPT_ARGUMENT,
                         "the sequence was parked with the model of SHA-256 %.12s..., this one has "
                         "%.12s...",
                         (const char *)data + sizeof MAGIC - 1, hex);
    const uint8_t *frame = data + N_HEAD;
    const size_t n_frame = n - N_HEAD - N_SUM;
    const unsigned long long want = ZSTD_getFrameContentSize(frame, n_frame);
    kept_pool_account pool;
    kept_pool_get_account(e->pool, &pool);
    /* State weighs less than the pages it belongs to; what is recorded besides, less than this. */
    if (want == ZSTD_CONTENTSIZE_ERROR || want == ZSTD_CONTENTSIZE_UNKNOWN || !want ||
        want > 4 * pool.n_pages * pool.page_bytes + ((unsigned long long)1 << 30))
        return kept_park_damaged(err);
    *raw = malloc((size_t)want);
    if (!*raw)
        return kept_fail(err, KEPT_NOMEM, "no memory for a parked sequence");
    *size = ZSTD_decompress(*raw, (size_t)want, frame, n_frame);
    return ZSTD_isError(*size) || *size != want ? kept_park_damaged(err) : KEPT_OK;
}

kept_status kept_park_begin(const void *data, size_t n, void *to, size_t size)
{
    char hex[65];
    const uint8_t *from = data;
    if (n < N_HEAD + N_SUM || memcmp(from, MAGIC, sizeof MAGIC - 1))
        return KEPT_FORMAT;
    kept_sha256(from, n - N_SUM, hex);
    ZSTD_DStream *z = memcmp(hex, from + n - N_SUM, N_SUM) ? NULL : ZSTD_createDStream();
    ZSTD_inBuffer in = {from + N_HEAD, n - N_HEAD - N_SUM, 0};
    ZSTD_outBuffer out = {to, size, 0};
    while (z && out.pos < size) {
        const size_t left = ZSTD_decompressStream(z, &out, &in);
        if (ZSTD_isError(left) || !left || (in.pos == in.size && out.pos < size))
            break;
    }
    ZSTD_freeDStream(z);
    return out.pos == size ? KEPT_OK : KEPT_FORMAT;
}
