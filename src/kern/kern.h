/* kern: every inner loop over the cache, as one table of functions per instruction set.
 *
 * The page. 64 slots of one KV head of one layer, D = head size (a multiple of 16, at most 256):
 *
 *     K   [2][D][32]  F16   slot s, channel d at ((s/32)*D + d)*32 + s%32         ("d-major")
 *     V   blocks of w = min(64, D-64*b) channels: block b is [64][w] F16 at 64*64*b elements
 *
 * K first, then V; a page is 256*D bytes and 64-byte aligned. Scores come out of d-major K as whole
 * vectors of slots, with no horizontal sums.
 *
 * Attention is defined row by row, so that results do not depend on batching, chunking or threads:
 * a row is one query of one query head. Its slots are cut into segments of KEPT_SEG_PAGES pages;
 * each segment is an online softmax over its pages in order (attend), and segments are folded into
 * the row's running result in order (combine). Within one table, equal inputs give equal bits.
 * Scores are kept in base 2: the tile's scale includes log2(e).
 *
 * Full pages may be packed (codec.h). A tile of one query multiplies integers: the query, and a
 * page's weights, are rounded to 8 bits for codecs of 4 bits and less, to 16 bits for q8. A tile of
 * more queries widens a packed page to float. So a row's bits depend, besides the row, on whether
 * it comes alone; the error of the integers is a small part of the codec's own.
 */
#ifndef KERN_KERN_H
#define KERN_KERN_H

#include "kern/codec.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEPT_PAGE_SLOTS    64
#define KEPT_SEG_PAGES     8
#define KEPT_TILE_ROWS     64 /* most rows (queries x group) of a tile */
#define KEPT_MAX_HEAD_SIZE 256

typedef uint16_t kept_f16; /* IEEE binary16 bits */

static inline size_t kept_page_bytes(int head_size)
{
    return (size_t)256 * (size_t)head_size;
}

/* One tile: up to KEPT_TILE_ROWS rows of one KV head against one segment of its pages. Row
 * r = t * group + g is query t of query head g. */
typedef struct kept_attn_tile {
    int head_size;  /* D */
    int group;      /* query heads per KV head, 1..16 */
    int n_q;        /* queries; n_q * group <= KEPT_TILE_ROWS */
    const float *q; /* q[t*q_stride_t + g*q_stride_g + d], not scaled */
    size_t q_stride_t, q_stride_g;
    float scale;         /* softmax scale * log2(e) */
    const uint8_t *pool; /* page p starts at pool + p * page_bytes */
    size_t page_bytes;
    const int32_t *pages; /* [n_pages] where the segment's pages are, 1..KEPT_SEG_PAGES of them */
    int n_pages;
    const kept_codecs *codec; /* [n_pages] forms of the pages; NULL: all F16 */
    const uint8_t *next;      /* hint: the page this thread reads after this tile; NULL: unknown */
    int first_slot;           /* slot number of the segment's first slot: a multiple of 64 */
    int visible;        /* query t sees slots [0, visible + t): causal order inside the chunk */
    int window;         /* 0, or: query t sees only positions > q_pos + t - window */
    int32_t q_pos;      /* position of query 0 (used with window) */
    const int32_t *pos; /* [n_pages*64] positions of the segment's slots; needed with window */
    /* [n_pages] -> [64] what is added to the scores of a page's slots, in base 2 and finite: a slot
     * that stands for c tokens has log2(c). NULL: nothing, at no cost. */
    const float *const *bias;
    /* A page's V is not read if no row of the tile gives any of its slots more than this share of
     * the greatest weight that the row has given in this tile so far; what they weigh stays in l.
     * 0: always read, at no cost. skipped [n_pages]: out, whether it was; needed with skip. */
    float skip;
    uint8_t *skipped;
    /* Where a page's codec has a basis: the head's directions, and [n_pages] -> [64] the positions
     * of a page's slots. Else not read. */
    const kept_low *low;
    const int32_t *const *slot_pos;
    int layer;    /* that reads, for pages of several layers */
    float *m, *l; /* out [rows] running maximum (base 2; -INFINITY: nothing visible), sum */
    float *acc;   /* out [rows][D] sum of 2^(s-m) * v */
    kept_f16 *p;  /* out [n_pages][rows][64] 2^(s - p_max), or NULL */
    float *p_max; /* out [n_pages][rows] maximum that p of this page is relative to */
} kept_attn_tile;

typedef struct kept_kern {
    const char *name; /* "ref", "avx2", "avx2vnni", "avx512", "avx512vnni" */

    /* Computes one tile as described above. Invisible slots contribute exactly 0 (and 0 in p). */
    void (*attend)(const kept_attn_tile *t);
    /* Folds a segment (m, l, acc) into the running (M, L, O): rows x D. Start with M = -INFINITY,
     * L = 0, O = 0. */
    void (*combine)(int rows, int head_size, float *M, float *L, float *O, const float *m,
                    const float *l, const float *acc);
    /* out[slot] += sum over rows row0, row0 + step, ... below row1 of p[page][row][slot] *
     * 2^(p_max - M) / L, for the n_pages*64 slots of p. rows is the row count p was written with.
     * step 1: all query heads together; group: the one that row0 belongs to. */
    void (*mass)(int n_pages, int rows, int row0, int row1, int step, const kept_f16 *p,
                 const float *p_max, const float *M, const float *L, float *out);
    /* out[slot] = the greater of out[slot] and weight[row] * p * 2^(p_max - M) / L of every row;
     * weight [rows] NULL: 1. Otherwise as mass. */
    void (*peak)(int n_pages, int rows, const kept_f16 *p, const float *p_max, const float *M,
                 const float *L, const float *weight, float *out);
    /* Writes one token's K and V (D floats each, rounded to nearest even) into slot of page. */
    void (*put)(uint8_t *page, int head_size, int slot, const float *k, const float *v);
    /* Copies slot src of page from to slot dst of page to (bit copy). */
    void (*move)(uint8_t *to, int dst, const uint8_t *from, int src, int head_size);
    /* Reads n slots from slot0 as floats: k [n][D] and/or v [n][D] (either may be NULL). */
    void (*get)(const uint8_t *page, int head_size, int slot0, int n, float *k, float *v);
    /* mean[d] += x[d], cov[i][j] += x[i]*x[j] (full square), for n rows x[t*stride .. +D). */
    void (*outer)(int n, int head_size, const float *x, size_t stride, float *mean, float *cov);
    /* c[i*ldc + j] = sum over d < k of a[i*k + d] * b[j*k + d], i < m, j < n, in the order of d:
     * the same two rows give the same bits wherever they stand. c overlaps neither. */
    void (*dots)(int m, int n, int k, const float *a, const float *b, float *c, int ldc);
    /* Packs K or V of an F16 page, f16, as kept_codec_pack does in plain C, with the same bits.
     * False: not of that codec. NULL: of none. */
    bool (*pack)(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size);
    /* out[r] += sum over i < n of a[i] * b[r*ldb + i], r < rows; n a multiple of 16. */
    void (*judge)(int n, const kept_f16 *a, int rows, const float *b, size_t ldb, float *out);
} kept_kern;

/* The table named isa; NULL or "": the best this CPU runs. NULL if unknown or not on this CPU. */
const kept_kern *kept_kern_get(const char *isa);
/* Names of all levels this CPU runs, lowest first; returns their number (cap >= 5 suffices). */
int kept_kern_levels(const char **names, int cap);
/* Sets flush-to-zero and denormals-are-zero for the calling thread (no-op where there is none). */
void kept_kern_enter(void);

float kept_f16_to_f32(kept_f16 h);
kept_f16 kept_f32_to_f16(float f); /* nearest even */

#endif
