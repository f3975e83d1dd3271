/* park_code: see park_io.h. zstd's entropy stage counts bytes; so numbers of one class lie together
 * and small ones share a byte, because no symbol of that stage is shorter than one bit. */
#include "model/park_io.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static const int per_byte[KEPT_PARK_CLASSES] = {4, 2, 2, 1, 1, 1, 1, 0};
/* Standard deviations from which the next class begins. */
static const double begins[KEPT_PARK_CLASSES - 1] = {0.5, 1, 2, 4, 8, 16, 32};

int kept_park_class(double x)
{
    int c = 0;
    while (c < KEPT_PARK_CLASSES - 1 && !(x < begins[c]))
        c++;
    return c;
}

size_t kept_park_class_bytes(int class, size_t n)
{
    const size_t per = (size_t)per_byte[class];
    return per ? (n + per - 1) / per : 2 * n;
}

/* ---- streams --------------------------------------------------------------------------------- */

static uint8_t *room_for(kept_streams *s, int i, size_t n)
{
    if (n > s->cap[i] - s->n[i]) {
        const size_t cap = s->n[i] + n + s->n[i] / 2 + 1024;
        uint8_t *p = realloc(s->p[i], cap);
        s->failed |= !p;
        if (!p)
            return NULL;
        s->p[i] = p;
        s->cap[i] = cap;
    }
    uint8_t *at = s->p[i] + s->n[i];
    s->n[i] += n;
    return at;
}

void kept_streams_put(kept_streams *s, int stream, const void *what, size_t n)
{
    uint8_t *at = room_for(s, stream, n);
    if (at)
        memcpy(at, what, n);
}

/* The next n bytes; NULL: there are fewer. */
static const uint8_t *take(kept_streams *s, int i, size_t n)
{
    if (n > s->n[i] - s->at[i]) {
        s->failed = true;
        return NULL;
    }
    s->at[i] += n;
    return s->p[i] + s->at[i] - n;
}

void kept_streams_get(kept_streams *s, int stream, void *what, size_t n)
{
    const uint8_t *from = take(s, stream, n);
    if (from && n)
        memcpy(what, from, n);
    else
        memset(what, 0, n);
}

void kept_streams_free(kept_streams *s)
{
    for (int i = 0; i < KEPT_PARK_STREAMS; i++)
        free(s->p[i]);
    *s = (kept_streams){.failed = false};
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Bits of a field, and the largest number that it holds: 0 stands for a number apart. */
static int bits_of(int class)
{
    return per_byte[class] ? 8 / per_byte[class] : 16;
}

void kept_streams_put_row(kept_streams *s, int class, const int32_t *q, size_t n)
{
    const int bits = bits_of(class), most = (1 << (bits - 1)) - 1;
    const size_t bytes = kept_park_class_bytes(class, n);
    uint8_t *at = room_for(s, class, bytes);
    if (!at)
        return;
    memset(at, 0, bytes);
    for (size_t i = 0; i < n; i++) {
        const bool fits = q[i] >= -most && q[i] <= most;
        const unsigned code = fits ? (unsigned)(q[i] + most + 1) : 0;
        if (!fits)
            kept_streams_put(s, KEPT_PARK_APART, &q[i], sizeof q[i]);
        if (bits == 16) { /* high bytes, then low ones: they have little in common */
            at[i] = (uint8_t)(code >> 8);
            at[n + i] = (uint8_t)code;
        } else {
            const size_t per = (size_t)per_byte[class];
            at[i / per] |= (uint8_t)(code << ((int)(i % per) * bits));
        }
    }
}

void kept_streams_get_row(kept_streams *s, int class, int32_t *q, size_t n)
{
    const int bits = bits_of(class), most = (1 << (bits - 1)) - 1;
    const uint8_t *at = take(s, class, kept_park_class_bytes(class, n));
    memset(q, 0, n * sizeof *q);
    for (size_t i = 0; at && i < n; i++) {
        const size_t per = (size_t)per_byte[class];
        const unsigned code = bits == 16
                                  ? (unsigned)at[i] << 8 | at[n + i]
                                  : at[i / per] >> ((int)(i % per) * bits) & ((1u << bits) - 1);
        if (code)
            q[i] = (int32_t)code - most - 1;
        else
            kept_streams_get(s, KEPT_PARK_APART, &q[i], sizeof q[i]);
    }
}

/* ---- as few bytes ---------------------------------------------------------------------------- */

/* Each stream: its bytes (8), those of its frame (8), the frame. */
bool kept_streams_pack(const kept_streams *s, uint8_t **out, size_t *n)
{
    size_t room = 0, at = 0;
    for (int i = 0; i < KEPT_PARK_STREAMS; i++)
        room += 16 + ZSTD_compressBound(s->n[i]);
    *out = malloc(room);
    for (int i = 0; *out && i < KEPT_PARK_STREAMS; i++) {
        const uint64_t raw = s->n[i];
        uint64_t frame = 0;
        if (raw) {
            const size_t got =
                ZSTD_compress(*out + at + 16, room - at - 16, s->p[i], s->n[i], KEPT_PARK_LEVEL);
            if (ZSTD_isError(got)) {
                free(*out);
                *out = NULL;
                break;
            }
            frame = got;
        }
        memcpy(*out + at, &raw, 8);
        memcpy(*out + at + 8, &frame, 8);
        at += 16 + (size_t)frame;
    }
    *n = at;
    return *out;
}

bool kept_streams_unpack(kept_streams *s, const uint8_t *p, size_t n, size_t most)
{
    for (int i = 0; i < KEPT_PARK_STREAMS; i++) {
        uint64_t raw, frame;
        if (n < 16)
            return false;
        memcpy(&raw, p, 8);
        memcpy(&frame, p + 8, 8);
        p += 16;
        n -= 16;
        if (frame > n || raw > most)
            return false;
        if (raw) {
            s->p[i] = malloc((size_t)raw);
            if (!s->p[i] || ZSTD_decompress(s->p[i], (size_t)raw, p, (size_t)frame) != raw)
                return false;
        }
        s->n[i] = s->cap[i] = (size_t)raw;
        most -= (size_t)raw;
        p += frame;
        n -= (size_t)frame;
    }
    return n == 0;
}
