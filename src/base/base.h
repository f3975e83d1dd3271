/* base: what every layer uses: error text, seeded random numbers, clock, sizes. No globals. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "kept/kept.h"

#include <stdarg.h>

/* Fills err (if not NULL) with one formatted line (control characters become spaces), at = -1, and
 * returns s: `return kept_fail(...)`. */
kept_status kept_fail(kept_error *err, kept_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with a character offset. */
kept_status kept_fail_at(kept_error *err, kept_status s, int at, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

uint64_t kept_clock_ns(void); /* CLOCK_MONOTONIC */

/* splitmix64-seeded xoshiro256**. Same seed, same numbers, on every machine. */
typedef struct kept_rng {
    uint64_t s[4];
} kept_rng;
void kept_rng_init(kept_rng *r, uint64_t seed);
uint64_t kept_rng_u64(kept_rng *r);
double kept_rng_unit(kept_rng *r);                /* uniform in [0, 1) */
uint32_t kept_rng_below(kept_rng *r, uint32_t n); /* uniform in [0, n), n >= 1, unbiased */
double kept_rng_normal(kept_rng *r);              /* standard normal */
/* For seeds and keys, not for security. */
uint64_t kept_hash64(const void *data, size_t n, uint64_t seed);

/* Index of the name nearest to word by edit distance (case-insensitive, a swap of neighbours counts
 * one; the first of equals), or -1 if none is near (distance > 1 + len/3). */
int kept_nearest(const char *word, size_t len, const char *const *names, int n);

/* "64MiB", "1.5G", "512" -> bytes (K/M/G and KB/MB/GB = 1000^k, Ki/Mi/Gi[B] = 1024^k).
 * ARGUMENT on anything else, negative or overflow. Units are case-sensitive, a fraction needs a
 * unit and at most nine digits, and is rounded down to whole bytes. */
kept_status kept_parse_size(const char *text, uint64_t *bytes, kept_error *err);
/* "1.50 MiB" into buf; returns buf. */
const char *kept_format_bytes(uint64_t bytes, char *buf, size_t cap);

/* calloc/aligned with overflow check; NULL on failure. Free with free(). */
void *kept_calloc(size_t n, size_t size);
void *kept_aligned(size_t align, size_t bytes); /* zeroed; align a power of two >= 8 */

/* SHA-256 (libcrypto) of a file or of memory, as lower-case hexadecimal. IO, NOMEM; hex is then
 * empty, as it is if libcrypto cannot hash memory. */
kept_status kept_sha256_file(const char *path, char hex[65], kept_error *err);
void kept_sha256(const void *data, size_t n, char hex[65]);

#endif
