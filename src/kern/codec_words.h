/* codec_words: codes of a page half, [64][D] bytes, to and from the words that codec.h lays out. */
#ifndef KERN_CODEC_WORDS_H
#define KERN_CODEC_WORDS_H

#include "kern/kern.h"

#include <string.h>

static inline float kept_bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* Levels of codes that are spread evenly: codec_info.c. */
extern const int8_t kept_codec_even4[16];

/* The largest Lloyd-Max level of 2 to 4 bits in units of the standard deviation. */
extern const float kept_codec_lloyd_top[5];

/* A plane of 1, 2, 4 or 8 bits: where its words are. K: word w of slot s at base + block(s) + w *
 * 64
 * + s % 16 * 4. */
typedef struct kept_plane {
    uint8_t *base;
    int bits, shift;   /* bits of the code from `shift` up lie here */
    size_t block_step; /* K: bytes of a block of 16 slots; V: of one channel, high bits included */
    size_t at;         /* V: bytes before this plane in a block, per channel */
} kept_plane;
/* The planes of a half's codes; returns their number, 2 for 3 bits, else 1. */
int kept_words_planes(kept_plane p[2], uint8_t *half, int bits, bool v, int head_size);

/* Bytes of the codes of a half. bits: 2, 3, 4, 8, or 16: plain elements. */
size_t kept_words_bytes(int bits, bool v, int head_size);
void kept_words_store(uint8_t *half, const uint8_t *code, int bits, bool v, int head_size);
void kept_words_load(uint8_t *code, const uint8_t *half, int bits, bool v, int head_size);
/* The same for the codes [D] of one slot. */
void kept_words_put(uint8_t *half, const uint8_t *code, int bits, bool v, int head_size, int slot);
void kept_words_get(uint8_t *code, const uint8_t *half, int bits, bool v, int head_size, int slot);

#endif
