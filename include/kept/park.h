/* kept/park.h: sequences at rest. A parked sequence is one buffer, which may be written to a file,
 * and holds no page of the pool. Part of kept/kept.h, which includes it. */
#ifndef KEPT_PARK_H
#define KEPT_PARK_H

#include "kept/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Layout of a parked sequence: the line "kept-parked 2", the SHA-256 of the model file as 64
 * hexadecimal digits and a newline; a zstd frame; the SHA-256 of all that as 64 digits. The frame
 * holds, in the byte order of the machine and without padding, the fields of the sequence in the
 * order of src/model/park.c, then for each layer and KV head its slots: form, K/V bytes (those of
 * F16 pages as all low bytes, then all high ones), positions and state planes, page by page. Under
 * a strategy with park(bits=...) most slots of F16 pages are 0 there; what they nearly held follows
 * layer by layer (src/model/park_lossy.c, park_code.c). */
#define KEPT_PARK_VERSION 2

/* Writes s to *data [*n] (to be freed with free) and frees s: its pages are back in the pool. What
 * is resumed has the same bits, unless the strategy of s says park(bits=B) (KVTC, arXiv
 * 2511.01815): K and V of all but the first and last positions then come back from about B bits a
 * number, bases included; nothing else changes. On failure s is as it was. UNSUPPORTED: a
 * controller decides for s, or s looks at a file of hidden states or repeats its context. NOMEM,
 * IO: the model's SHA-256. */
KEPT_API kept_status kept_seq_park(kept_seq *s, void **data, size_t *n, kept_error *err);
/* The sequence again, in an engine of the same model, under the strategy it was parked with (its
 * resolved name counts; NULL: full), which is borrowed as by kept_seq_new. Notes on pages are made
 * anew; times and bytes read count from 0. FORMAT: not a parked sequence, damaged, or of another
 * version. ARGUMENT: another model or strategy, or more tokens than e's max_tokens. FULL: pages; e
 * is as it was. NOMEM. */
KEPT_API kept_status kept_seq_resume(kept_engine *e, const kept_strategy *strategy,
                                     const void *data, size_t n, kept_seq **out, kept_error *err);

/* What a parked sequence says of itself. */
typedef struct kept_parked {
    char model_sha256[65];
    char spec[4096]; /* resolved name of its strategy, "full" without one */
    int n_tokens;
} kept_parked;
/* FORMAT: as for kept_seq_resume. */
KEPT_API kept_status kept_parked_look(const void *data, size_t n, kept_parked *out,
                                      kept_error *err);

#ifdef __cplusplus
}
#endif
#endif
