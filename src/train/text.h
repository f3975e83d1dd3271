/* text: where documents come from, and the fingerprint that tells later what was trained on.
 *
 * A file is cut into blocks of equal size (at the next white space). The hash of a block's bytes
 * says whether it is held out (one in five): the same block is on the same side wherever it stands
 * and whatever is trained, and text that occurs twice cannot be on both sides. Documents are runs
 * of tokens inside one block.
 */
#ifndef TRAIN_TEXT_H
#define TRAIN_TEXT_H

#include "kept/trained.h"
#include "task/parts.h"

#define KEPT_SPLIT_EVERY 5 /* one block in so many is held out */

typedef struct kept_train_text {
    kept_buf text;
    char sha256[65];
    size_t block; /* bytes of a block */
    int n_blocks;
    size_t *begin; /* [n_blocks + 1] */
    uint8_t *held; /* [n_blocks] */
} kept_train_text;

/* ARGUMENT: too short to have blocks on both sides. IO, FORMAT, NOMEM. */
kept_status kept_train_text_open(const char *path, kept_train_text *t, kept_error *err);
void kept_train_text_close(kept_train_text *t);
/* Documents 0..n-1 of one side, each of `length` tokens (BOS first if the model has one), in an
 * order that the seed draws, as spread over the blocks as they can be. *tokens [n][length], malloc.
 * ARGUMENT: there are fewer, and how many. */
kept_status kept_train_text_documents(const kept_train_text *t, const kept_model *m, bool held,
                                      uint64_t seed, int n, int length, int32_t **tokens,
                                      kept_error *err);
/* Writes all held-out blocks to PATH. */
kept_status kept_train_text_write_held(const kept_train_text *t, const char *path, kept_error *err);

/* ---- fingerprint: runs of 13 words (arXiv 2005.14165, appendix C), one in eight of them --------
 */
typedef struct kept_shingles {
    uint32_t *hash; /* [n] 24 bits each, ascending, distinct once sorted */
    size_t n, cap;
    bool failed;
} kept_shingles;
void kept_shingles_add(kept_shingles *s, const char *text, size_t n);
void kept_shingles_sort(kept_shingles *s);
void kept_shingles_free(kept_shingles *s);
/* Of two sorted ones: what both have. */
size_t kept_shingles_common(const kept_shingles *a, const kept_shingles *b);

#endif
