/* kept/read.h: ways of reading, which choose the pages that a decode step attends to; part of
 * kept/policy.h. */
#ifndef KEPT_READ_H
#define KEPT_READ_H

#include "kept/policy.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A way of reading: which pages (64 slots of one KV head) a decode step of one token attends to.
 * Nothing is evicted by it. Each full page has a note, made of its keys as they are stored; a
 * page's score for a query head is the scalar product of the note with weights made of the query.
 * The engine aggregates over query heads, reads the best pages and always the newest one, keeps
 * notes up to date and counts them. Steps of more tokens, and windowed layers, read every page. */
typedef struct kept_read {
    kept_part part;
    int note; /* numbers of a note for each channel of the keys: 0 (reads all), 1 or 2 */
    /* Page scores are upper bounds of their slots' ones; else they are those of a typical slot. A
     * slot's bias (kept/merge.h) counts accordingly: the greatest of a page, or the mean weight. */
    bool bounds;
    bool skips; /* reads no notes, but leaves out values: its only option says which */
    /* note[note * D] of n keys [n][D]; it is rounded to F16. */
    void (*describe)(const float *key, int n, int head_size, float *note);
    /* w [note * D] of the rotated query q [D] of one query head. */
    void (*weigh)(const double *options, const float *q, int head_size, float *w);
} kept_read;

/* Options of every way of reading that chooses: the first of its table. */
enum {
    KEPT_READ_SHARE,
    KEPT_READ_PAGES,
    KEPT_READ_SKIP,
    KEPT_READ_GQA,
    KEPT_READ_EVERY,
    KEPT_N_READ_OPTIONS
};
#define KEPT_READ_OPTIONS(share, pages, skip, gqa)                                                 \
    {"share", share, 0, 1, false, NULL, "part of a head's pages that is read, rounded up"},        \
        {"pages", pages, 1, 1048576, true, NULL, "pages of a head that are read at least"},        \
        {"skip", skip, 0, 256, true, NULL, "first layers, which read every page"},                 \
        {"gqa",                                                                                    \
         gqa,                                                                                      \
         0,                                                                                        \
         2,                                                                                        \
         true,                                                                                     \
         kept_read_gqa_names,                                                                      \
         "query heads of a KV head: greatest or sum of their page scores, or sum of softmaxes"},   \
    {                                                                                              \
        "every", 1, 1, 256, true, NULL, "layers of which the first chooses pages for all"          \
    }
enum { KEPT_READ_MAX, KEPT_READ_SUM, KEPT_READ_SOFT };
extern KEPT_API const char *const kept_read_gqa_names[]; /* "max", "sum", "soft", NULL */

#ifdef __cplusplus
}
#endif
#endif
