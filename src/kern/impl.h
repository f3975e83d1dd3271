/* kern, inside: what the tables of the levels share. A level's file defines its table behind a
 * function that returns NULL when the file was built without that instruction set. */
#ifndef KERN_IMPL_H
#define KERN_IMPL_H

#include "kern/kern.h"

const kept_kern *kept_kern_ref(void);
const kept_kern *kept_kern_avx2(void);
const kept_kern *kept_kern_avx2vnni(void); /* avx2 with AVX-VNNI */
const kept_kern *kept_kern_avx512(void);
const kept_kern *kept_kern_avx512vnni(void);

/* Scores below the maximum by this much (base 2) weigh exactly 0: sums of denormals would cost more
 * than the whole rest of the kernel, and can change no result. */
#define KEPT_EXP2_CUT (-120.0f)

/* 2^f on [-0.5, 0.5] as 1 + f*(c1 + f*(c2 + ...)): minimax in relative error. */
#define KEPT_EXP2_C1 0.6931469776f
#define KEPT_EXP2_C2 0.2402224209f
#define KEPT_EXP2_C3 0.05550733743f
#define KEPT_EXP2_C4 0.009671512640f
#define KEPT_EXP2_C5 0.001326472722f

/* kept_kern.pack of the levels of AVX2 and of AVX-512. */
bool kept_pack_avx2(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size);
bool kept_pack_avx512(uint8_t *half, const uint8_t *f16, int codec, bool v, int head_size);

/* Bit copy, the same for every level: K is a strided column, V one row of every channel block. */
void kept_kern_move(uint8_t *to, int dst, const uint8_t *from, int src, int head_size);

/* First element of slot s, channel 0 in the K half (stride 32 per channel). */
static inline size_t kept_k_at(int head_size, int s)
{
    return (size_t)(s / 32) * (size_t)head_size * 32 + (size_t)(s % 32);
}

/* Channels of the V block that starts at channel c, and its first element (of slot 0). */
static inline int kept_v_width(int head_size, int c)
{
    return head_size - c < 64 ? head_size - c : 64;
}
static inline size_t kept_v_at(int head_size, int c)
{
    return (size_t)KEPT_PAGE_SLOTS * (size_t)(head_size + c);
}

/* Slots of page i (of the tile) before the end of what query t sees, 0..64; the window, if any,
 * may hide some of these. */
static inline int kept_tile_seen(const kept_attn_tile *a, int i, int t)
{
    long n = (long)a->visible + t - a->first_slot - (long)i * KEPT_PAGE_SLOTS;

    return n < 0 ? 0 : n > KEPT_PAGE_SLOTS ? KEPT_PAGE_SLOTS : (int)n;
}

/* Form of page i of the tile. */
static inline kept_codecs kept_tile_codec(const kept_attn_tile *a, int i)
{
    return a->codec ? a->codec[i] : (kept_codecs){KEPT_F16, KEPT_F16};
}

/* Page i of the tile. */
static inline kept_packed kept_tile_packed(const kept_attn_tile *a, int i)
{
    return (kept_packed){.at =
                             (uint8_t *)(uintptr_t)(a->pool + (size_t)a->pages[i] * a->page_bytes),
                         .c = kept_tile_codec(a, i),
                         .head_size = a->head_size,
                         .low = a->low,
                         .pos = a->slot_pos ? a->slot_pos[i] : NULL,
                         .layer = a->layer};
}

/* Query t sees a position iff it is greater than this; INT32_MIN stands for every position. */
static inline int32_t kept_tile_horizon(const kept_attn_tile *a, int t)
{
    int64_t h = (int64_t)a->q_pos + t - a->window;

    return h < INT32_MIN ? INT32_MIN : h > INT32_MAX ? INT32_MAX : (int32_t)h;
}

#endif
