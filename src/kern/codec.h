/* codec: the forms in which a full page keeps its K and its V, chosen apart.
 *
 * The newest page of a head is F16 (kern.h) and takes tokens; a full page may be packed. A packed
 * page is its K half, then its V half, each a multiple of 64 bytes:
 *
 *     codes    what a number is stored as, 2 to 8 bits
 *     scales   numbers that turn codes back into values
 *
 * A value is level(code) * scale [+ zero]; level is a small integer, so that scores and outputs are
 * integer products. The integers are part of the codec: every instruction set reads the same
 * values.
 *
 *     codec    bits  level of a code c              scale                          rotated
 *     q8       8     c, -127..127                   bf16 per row                   no
 *     q4       4     c - 8, -7..7                   bf16 per row                   yes
 *     q4g      4     c - 8                          bf16 per row and 32 channels   no
 *     rot4/3/2 4/3/2 Lloyd-Max levels of a Gaussian bf16 per row                   yes
 *     tok4/2   4/2   c                              f16 scale and zero per row and 32 channels
 *     chan4/2  4/2   c                              f16 scale and zero per channel and 32 slots,
 *                                                   K only
 *     f16, bf16      as an unpacked page, the latter with bfloat16 in place of F16
 *     nuq4/3, with s calibrated levels: nuq.h
 *     thin75/50/25   as an unpacked page of three, two, one quarter of the channels, K only; then
 *                    [r] bytes, which channels these are, ascending. The others are 0. (ThinK,
 *                    arXiv 2407.21018: who packs says which channels stay.)
 *
 * A row is one slot's vector. Rotated: the row's signs are flipped by a fixed table and it is
 * turned by a Hadamard matrix over blocks of the largest power of two that divides D, which spreads
 * outliers over the block (QuaRot, arXiv 2404.00456; levels: Max 1960, as in TurboQuant, arXiv
 * 2504.19874, without its residual). Queries are turned likewise, and outputs turned back.
 * bf16 scales of linear levels are rounded up and zeros down, so that nothing is clipped and
 * nothing overflows. chan and tok are KIVI (arXiv 2402.02750) for keys and for values.
 *
 * Codes of K: blocks of 16 slots, each [words][16] words of 4 bytes, so that 64 bytes hold 4
 * (8-bit) to 16 (2-bit) channels of 16 slots:
 *
 *     8 bits   word w, byte j: channel 4w + j
 *     4 bits   word w, byte j: channel 8w + j in the low half, 8w + 4 + j in the high half
 *     2 bits   word w, byte j, bits 2i and 2i+1: channel 16w + 4i + j
 *     3 bits   the low two bits like 2 bits in D/16 words, then words of high bits: word w, byte j,
 *              bit i: channel 32w + 4i + j
 *
 * Codes of V: blocks of w = min(32, D-32b) channels, each [words][w] words of 4 bytes, the same
 * with slot in place of channel. Scales: [64] per row, [D/32][64] per group, then as many zeros;
 * chan: [2][D] scales, [2][D] zeros. */
#ifndef KERN_CODEC_H
#define KERN_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum kept_codec {
    KEPT_F16,
    KEPT_BF16,
    KEPT_Q8,
    KEPT_Q4,
    KEPT_Q4G,
    KEPT_ROT4,
    KEPT_ROT3,
    KEPT_ROT2,
    KEPT_TOK4,
    KEPT_TOK2,
    KEPT_CHAN4,
    KEPT_CHAN2,
    KEPT_THIN75,
    KEPT_THIN50,
    KEPT_THIN25,
    KEPT_PAIR100, /* from here on a page is read with what lies beside it */
    KEPT_PAIR75,
    KEPT_PAIR50,
    KEPT_PAIR25,
    KEPT_QUAD100,
    KEPT_QUAD75,
    KEPT_QUAD50,
    KEPT_QUAD25,
    KEPT_MINI, /* needs no directions, but layers */
    KEPT_FLAT75,
    KEPT_FLAT50,
    KEPT_FLAT25,
    KEPT_LOW100,
    KEPT_LOW75,
    KEPT_LOW50,
    KEPT_LOW25,
    KEPT_LOW75Q8,
    KEPT_LOW50Q8,
    KEPT_LOW25Q8,
    KEPT_NUQ4, /* needs calibrated levels: nuq.h */
    KEPT_NUQ3,
    KEPT_NUQ4S,
    KEPT_NUQ3S,
    KEPT_N_CODECS,
    KEPT_N_PLAIN = KEPT_PAIR100 /* codecs that need the page alone */
} kept_codec;

/* Which directions a codec's coefficients refer to: lowrank.h. */
typedef enum kept_basis {
    KEPT_NO_BASIS,
    KEPT_BASIS_LOW,
    KEPT_BASIS_FLAT,
    KEPT_BASIS_PAIR,
    KEPT_BASIS_QUAD,
    KEPT_N_BASES
} kept_basis;
typedef struct kept_low kept_low;

/* The forms of one page. {KEPT_F16, KEPT_F16} is an unpacked page. */
typedef struct kept_codecs {
    uint8_t k, v; /* kept_codec */
} kept_codecs;

typedef struct kept_codec_info {
    const char *name;
    uint8_t bits;
    bool rotated, grouped, zero; /* grouped: scales for 32 channels each */
    bool channel;                /* scales per channel of 32 slots: K only, rows cannot move */
    const int8_t
        *level;       /* [16], 2^bits in use; NULL: the code is its own signed byte, or a float */
    uint8_t quarters; /* of the channels or directions that are held; 0: all */
    uint8_t basis;    /* kept_basis; NO_BASIS with quarters: channels, K only, rows move between
                         pages of the same channels */
    uint8_t inner;    /* codec of the coefficients */
    bool slerp;       /* the layers of a pair share directions of their own */
    uint8_t nuq;      /* kept_nuq_kind */
} kept_codec_info;

/* Whether levels are calibrated, and some numbers are held beside their codes: their rows cannot
 * move. */
typedef enum kept_nuq_kind { KEPT_NO_NUQ, KEPT_NUQ_DENSE, KEPT_NUQ_SPARSE } kept_nuq_kind;

extern const kept_codec_info kept_codec_infos[KEPT_N_CODECS];
static inline const kept_codec_info *kept_codec_get(int codec)
{
    return &kept_codec_infos[codec];
}
/* Some channels are left out. */
static inline bool kept_codec_is_thin(int codec)
{
    return kept_codec_infos[codec].quarters && !kept_codec_infos[codec].basis;
}
static inline bool kept_codec_has_basis(kept_codecs c)
{
    return kept_codec_infos[c.k].basis || kept_codec_infos[c.v].basis;
}
static inline bool kept_codec_has_nuq(kept_codecs c)
{
    return kept_codec_infos[c.k].nuq || kept_codec_infos[c.v].nuq;
}
/* Pages are read with what lies beside them: kept_packed.low. */
static inline bool kept_codec_has_low(kept_codecs c)
{
    return kept_codec_has_basis(c) || kept_codec_has_nuq(c);
}
/* Layers that a page belongs to. */
static inline int kept_codec_layers(kept_codecs c)
{
    const int basis = kept_codec_infos[c.k].basis;
    const bool pair = basis == KEPT_BASIS_PAIR || kept_codec_infos[c.k].slerp;
    return pair ? 2 : basis == KEPT_BASIS_QUAD ? 4 : 1;
}
/* Can a page of head size D have this form? why: what is wrong (static), if not. */
bool kept_codec_fits(kept_codecs c, int head_size, const char **why);
/* Bytes of a page, a multiple of 64, and of its K half. */
size_t kept_codec_page_bytes(kept_codecs c, int head_size);
size_t kept_codec_half_bytes(int codec, bool v, int head_size);
/* Channels, or coefficients, that a half holds of a slot. */
int kept_codec_channels(int codec, int head_size);
/* Rows of such a page can be written and moved one by one. */
bool kept_codec_has_rows(kept_codecs c);
static inline bool kept_codec_is_f16(kept_codecs c)
{
    return c.k == KEPT_F16 && c.v == KEPT_F16;
}

/* A packed page and what it is. */
typedef struct kept_packed {
    uint8_t *at;
    kept_codecs c;
    int head_size;
    /* For packing a thin K: [kept_codec_channels] the channels that stay, ascending; NULL: those
     * with the largest sum of squares in the page, the lower one among equals. */
    const uint8_t *channels;
    /* Of a codec with a basis or calibrated levels: what was calibrated of the head that reads, and
     * the positions [64] of the slots; pos is needed for keys alone. */
    const kept_low *low;
    const int32_t *pos;
    int layer; /* of a page of several layers: the one that reads */
} kept_packed;

/* The n of D channels with the largest sum, the lower one among equals, ascending. */
void kept_codec_choose(const double *sum, int D, int n, uint8_t *channels);
/* Which channels a thin half holds. */
const uint8_t *kept_codec_channels_of(const uint8_t *half, int codec, int head_size);

/* Packs a full F16 page; infinities become 65504, NaN 0. They do not overlap. */
void kept_codec_pack(kept_packed to, const uint8_t *f16);
/* The same by what a level has for it, instead of the best one; "ref" has nothing but plain C. The
 * bits are the same. */
struct kept_kern;
void kept_codec_pack_by(const struct kept_kern *kern, kept_packed to, const uint8_t *f16);
/* A joint page from the F16 pages of its n layers, low [n] their directions (to.low is not read).
 */
void kept_codec_pack_joint(kept_packed to, int n, const kept_low *const *low,
                           const uint8_t *const *f16);
/* The page's values, rounded to F16, as an F16 page. */
void kept_codec_unpack(uint8_t *f16, kept_packed from);
/* Reads n slots from slot0 as floats, k [n][D] and v [n][D] (either may be NULL). */
void kept_codec_read(kept_packed p, int slot0, int n, float *k, float *v);
/* Writes one slot of a page whose rows can be written; k or v NULL leaves that half as it is. */
void kept_codec_put(kept_packed p, int slot, const float *k, const float *v);
/* Slot src of one page becomes slot dst of another of the same form, whose rows can be moved: a bit
 * copy. */
void kept_codec_move(kept_packed to, int dst, kept_packed from, int src);

/* ---- for kernels ---------------------------------------------------------------------------- */

/* A half as floats in the element order of an F16 page half, still rotated where the codec is; a
 * codec without a basis. */
void kept_codec_widen(float *to, const uint8_t *half, int codec, bool v, int head_size);
/* Signs of the rotation, [256]: 1 or -1. */
extern const float kept_codec_signs[256];
static inline int kept_codec_block(int head_size)
{
    return head_size & -head_size;
}
/* x[D] becomes turned, or turned back. */
void kept_codec_turn(float *x, int head_size, bool back);

#endif
