/* kept/trained.h: trained files, what `kept train` and `kept calibrate` write and strategies read.
 *
 * A file holds named float arrays of one kind ("kvzap", "ranker", "duo", "headkv", "qfilters",
 * "triattention", "expected", "lu-kv", "bits",
 * "split") for one model, and notes on how it was made. Layout:
 * lines of text (the magic and version "kept-trained 1", "kind K", "model SHA256", "note KEY VALUE"
 * and "array NAME N" in any order, then an empty line), the arrays' floats in that order,
 * little-endian IEEE 754 without padding, and the SHA-256 of all of it as 64 hexadecimal digits.
 */
#ifndef KEPT_TRAINED_H
#define KEPT_TRAINED_H

#include "kept/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

#define KEPT_TRAINED_VERSION 1

typedef struct kept_trained kept_trained;

/* Opens PATH. IO: cannot be read. FORMAT: not such a file, truncated, a checksum that does not fit,
 * or of a newer version. */
KEPT_API kept_status kept_trained_open(const char *path, kept_trained **out, kept_error *err);
/* The same from bytes in memory; name is for messages. */
KEPT_API kept_status kept_trained_parse(const void *data, size_t n, const char *name,
                                        kept_trained **out, kept_error *err);
KEPT_API void kept_trained_free(kept_trained *t);

/* A new one without arrays; kind of [a-z0-9-], at most 15; model_sha256 64 hexadecimal digits. */
KEPT_API kept_status kept_trained_new(const char *kind, const char *model_sha256,
                                      kept_trained **out, kept_error *err);
/* Copies n floats in under a new name ([a-z0-9_.-], at most 31). ARGUMENT: a name that exists or is
 * not one. */
KEPT_API kept_status kept_trained_put(kept_trained *t, const char *name, const float *x, size_t n,
                                      kept_error *err);
/* Adds or replaces the note of a key (no blanks); value is one line. */
KEPT_API kept_status kept_trained_set_note(kept_trained *t, const char *key, const char *value,
                                           kept_error *err);
/* Writes to PATH by way of a file beside it, so that PATH is never half written. */
KEPT_API kept_status kept_trained_save(const kept_trained *t, const char *path, kept_error *err);

KEPT_API const char *kept_trained_kind(const kept_trained *t);
KEPT_API const char *kept_trained_model_sha256(const kept_trained *t);
/* Array `name` of *n floats, owned by t; NULL: there is none. */
KEPT_API const float *kept_trained_array(const kept_trained *t, const char *name, size_t *n);
/* The value of a note, owned by t; NULL: there is none. "text": the SHA-256 of the text it was
 * trained on, which no evaluation may use. */
KEPT_API const char *kept_trained_note(const kept_trained *t, const char *key);
/* The i-th note, in the order of the file, and its key; NULL: there are fewer. */
KEPT_API const char *kept_trained_note_at(const kept_trained *t, int i, const char **key);

/* Closes what a strategy leaves to a trained file of kind "split" (the codec `searched`): it stores
 * the form that lost least at the nearest budget, and its resolved spelling says which; the name
 * stays. Nothing happens to other strategies. Before sequences follow s. ARGUMENT: split is NULL or
 * of another shape. */
KEPT_API kept_status kept_strategy_bind(kept_strategy *s, const kept_trained *split,
                                        kept_error *err);

/* Lends t to e, whose strategies read it from now on; t must outlive e. One of the same kind is
 * replaced, but for "basis" only while no sequence is alive. ARGUMENT: of another model (by
 * SHA-256), or arrays that do not fit its shape. */
KEPT_API kept_status kept_engine_add_trained(kept_engine *e, const kept_trained *t,
                                             kept_error *err);

#ifdef __cplusplus
}
#endif
#endif
