/* park_io: what the files of a parked sequence share. Private to park*.c.
 *
 *   park.c        the list of fields, and pages
 *   park_file.c   around them: magic, model, zstd frame, checksum
 *   park_lossy.c  slots that come back nearly: bases, steps and codes of each layer
 *   park_code.c   codes as bytes, and bytes as few */
#ifndef MODEL_PARK_IO_H
#define MODEL_PARK_IO_H

#include "model/engine.h"
#include "policy/parts.h"

#define KEPT_PARK_LEVEL 3 /* of zstd */

/* ---- fields: park.c ---- */
typedef struct kept_io {
    uint8_t *p;
    size_t at, n; /* next byte; bytes there (writing: room) */
    bool writes, failed;
} kept_io;

/* n bytes to the buffer, or from it (zeros where it ends). */
void kept_io_bytes(kept_io *x, void *what, size_t n);

/* ---- the file: park_file.c ---- */
kept_status kept_park_damaged(kept_error *err); /* FORMAT */
/* Magic, model, frame and sum of the n bytes at raw. IO, NOMEM. */
kept_status kept_park_seal(kept_engine *e, const uint8_t *raw, size_t n, void **data, size_t *size,
                           kept_error *err);
/* The bytes of the frame, *raw to be freed, if they are of this engine's model. */
kept_status kept_park_unseal(kept_engine *e, const uint8_t *data, size_t n, uint8_t **raw,
                             size_t *size, kept_error *err);

/* The first `size` bytes of the frame, of any model. FORMAT. */
kept_status kept_park_begin(const void *data, size_t n, void *to, size_t size);

/* ---- lossy slots: park_lossy.c ---- */
/* How s is parked, from its strategy. */
kept_rest kept_park_rest(const kept_seq *s);
/* Whether the lossy section has slots of a head: too few do not pay for a basis. */
bool kept_park_is_lossy(const kept_seq *s, const kept_rest *r, int layer, int h);
/* Marks the slots of page `page` of a head that the lossy section holds: bit i of the return value.
 * live: slots of the page. */
uint64_t kept_park_lossy_slots(const kept_seq *s, const kept_rest *r, int layer, int h, int page,
                               int live);
/* Appends what those slots hold, or sets them from it. NOMEM; reading: FORMAT. */
kept_status kept_park_save_lossy(kept_io *x, kept_seq *s, const kept_rest *r);
kept_status kept_park_load_lossy(kept_io *x, kept_seq *s, const kept_rest *r);

/* ---- codes: park_code.c ---- */
/* Whole numbers of one layer, in classes by how large they get: numbers of a class share the
 * statistics that make them short. Class 0 has four to a byte, 1 and 2 two, the last one two bytes
 * each; a number that does not fit is written apart, last. */
enum { KEPT_PARK_CLASSES = 8, KEPT_PARK_STREAMS = KEPT_PARK_CLASSES + 2 };
/* The class of numbers whose standard deviation is x. */
int kept_park_class(double x);
size_t kept_park_class_bytes(int class, size_t n); /* of n numbers of one row */

/* Streams: those of the classes, numbers apart, and, last, what the layer's numbers mean. */
typedef struct kept_streams {
    uint8_t *p[KEPT_PARK_STREAMS];
    size_t n[KEPT_PARK_STREAMS], cap[KEPT_PARK_STREAMS], at[KEPT_PARK_STREAMS];
    bool failed; /* no memory; reading: ran out */
} kept_streams;
#define KEPT_PARK_APART KEPT_PARK_CLASSES
#define KEPT_PARK_TABLE (KEPT_PARK_CLASSES + 1)

void kept_streams_put(kept_streams *s, int stream, const void *what, size_t n);
void kept_streams_get(kept_streams *s, int stream, void *what, size_t n); /* zeros beyond the end */
/* n numbers as one row of a class. */
void kept_streams_put_row(kept_streams *s, int class, const int32_t *q, size_t n);
void kept_streams_get_row(kept_streams *s, int class, int32_t *q, size_t n);
void kept_streams_free(kept_streams *s);
/* All streams compressed one by one: *out [*n], to be freed. False: no memory. */
bool kept_streams_pack(const kept_streams *s, uint8_t **out, size_t *n);
/* The streams of the n bytes at p; they may have at most `most` bytes together. False: they have
 * not, or no memory. */
bool kept_streams_unpack(kept_streams *s, const uint8_t *p, size_t n, size_t most);

#endif
