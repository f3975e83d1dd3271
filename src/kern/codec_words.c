/* codec_words: see codec.h for the layout. A field is where one number of one slot lies; the loops
 * over whole halves walk words, because every page of a prompt passes here. */
#include "kern/codec_words.h"

#define P64 KEPT_PAGE_SLOTS

/* Numbers that one byte of a word holds. */
static int per_byte(int bits)
{
    return 8 / bits;
}

/* Words of `bits` each for 64 slots of K, without the high bits of 3. */
static size_t k_words(int bits, int D)
{
    return (size_t)(D / (4 * per_byte(bits))) * P64;
}

size_t kept_words_bytes(int bits, bool v, int D)
{
    if (bits == 3)
        return v ? (size_t)D * 24 : 4 * (k_words(2, D) + (size_t)((D + 31) / 32) * P64);
    return (size_t)P64 * (size_t)D * (size_t)bits / 8;
}

/* ---- one plane of 1, 2, 4 or 8 bits -----------------------------------------------------------
 */

int kept_words_planes(kept_plane p[2], uint8_t *half, int bits, bool v, int D)
{
    if (bits != 3) {
        p[0] = (kept_plane){half, bits, 0, v ? (size_t)(8 * bits) : k_words(bits, D), 0};
        return 1;
    }
    p[0] = (kept_plane){half, 2, 0, v ? 24 : k_words(2, D), 0};
    p[1] = (kept_plane){v ? half : half + 4 * k_words(2, D), 1, 2,
                        v ? 24 : (size_t)((D + 31) / 32) * P64, 16};
    return 2;
}

/* Byte of number d of slot s, and in *field its lowest bit there. */
static uint8_t *field_of(const kept_plane *p, bool v, int D, int s, int d, int *field)
{
    int per = per_byte(p->bits), along = v ? s : d, in = along % (4 * per);
    size_t word = (size_t)(along / (4 * per));

    *field = in / 4 * p->bits;
    if (v) {
        int c = d / 32 * 32, w = D - c < 32 ? D - c : 32;

        return p->base + (size_t)c * p->block_step + (size_t)w * p->at +
               (word * (size_t)w + (size_t)(d - c)) * 4 + in % 4;
    }
    return p->base + (size_t)(s / 16) * p->block_step + word * 64 + (size_t)(s % 16) * 4 + in % 4;
}

void kept_words_put(uint8_t *half, const uint8_t *code, int bits, bool v, int D, int slot)
{
    kept_plane p[2];
    int n = kept_words_planes(p, half, bits, v, D), at;

    for (int i = 0; i < n; i++) {
        int mask = (1 << p[i].bits) - 1;

        for (int d = 0; d < D; d++) {
            uint8_t *b = field_of(&p[i], v, D, slot, d, &at);

            *b = (uint8_t)((*b & ~(mask << at)) | (code[d] >> p[i].shift & mask) << at);
        }
    }
}

void kept_words_get(uint8_t *code, const uint8_t *half, int bits, bool v, int D, int slot)
{
    kept_plane p[2];
    int n = kept_words_planes(p, (uint8_t *)(uintptr_t)half, bits, v, D), at;

    memset(code, 0, (size_t)D);
    for (int i = 0; i < n; i++)
        for (int d = 0; d < D; d++) {
            const uint8_t *b = field_of(&p[i], v, D, slot, d, &at);

            code[d] |= (uint8_t)((*b >> at & ((1 << p[i].bits) - 1)) << p[i].shift);
        }
}

/* ---- whole halves ------------------------------------------------------------------------------
 */

static uint32_t four(const uint8_t *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof x);
    return x;
}

static void store_k(const kept_plane *p, const uint8_t *code, int D)
{
    int per = per_byte(p->bits);
    uint32_t mask = 0x01010101u * (uint32_t)((1 << p->bits) - 1);

    for (int s = 0; s < P64; s++) {
        uint8_t *to = p->base + (size_t)(s / 16) * p->block_step + (size_t)(s % 16) * 4;

        for (int d = 0; d < D; d += 4 * per, to += 64) {
            uint32_t x = 0;

            for (int i = 0; i < per && d + 4 * i < D; i++)
                x |= (four(code + s * D + d + 4 * i) >> p->shift & mask) << i * p->bits;
            memcpy(to, &x, sizeof x);
        }
    }
}

static void load_k(const kept_plane *p, uint8_t *code, int D)
{
    int per = per_byte(p->bits);
    uint32_t mask = 0x01010101u * (uint32_t)((1 << p->bits) - 1);

    for (int s = 0; s < P64; s++) {
        const uint8_t *from = p->base + (size_t)(s / 16) * p->block_step + (size_t)(s % 16) * 4;

        for (int d = 0; d < D; d += 4 * per, from += 64) {
            uint32_t x = four(from);

            for (int i = 0; i < per && d + 4 * i < D; i++) {
                uint32_t y = four(code + s * D + d + 4 * i) | (x >> i * p->bits & mask) << p->shift;

                memcpy(code + s * D + d + 4 * i, &y, sizeof y);
            }
        }
    }
}

/* Word row `word` of the V block at channel c: bytes [w][4]. */
static uint8_t *v_row(const kept_plane *p, int c, int w, int word)
{
    return p->base + (size_t)c * p->block_step + (size_t)w * p->at + (size_t)(word * w * 4);
}

static void store_v(const kept_plane *p, const uint8_t *code, int D)
{
    int per = per_byte(p->bits), mask = (1 << p->bits) - 1;

    for (int c = 0; c < D; c += 32) {
        int w = D - c < 32 ? D - c : 32;

        for (int s = 0; s < P64; s += 4 * per) {
            uint8_t *to = v_row(p, c, w, s / (4 * per));

            memset(to, 0, (size_t)w * 4);
            for (int i = 0; i < 4 * per; i++) {
                const uint8_t *from = code + (s + i) * D + c;

                for (int d = 0; d < w; d++)
                    to[d * 4 + i % 4] |=
                        (uint8_t)((from[d] >> p->shift & mask) << (i / 4 * p->bits));
            }
        }
    }
}

static void load_v(const kept_plane *p, uint8_t *code, int D)
{
    int per = per_byte(p->bits), mask = (1 << p->bits) - 1;

    for (int c = 0; c < D; c += 32) {
        int w = D - c < 32 ? D - c : 32;

        for (int s = 0; s < P64; s += 4 * per) {
            const uint8_t *from = v_row(p, c, w, s / (4 * per));

            for (int i = 0; i < 4 * per; i++) {
                uint8_t *to = code + (s + i) * D + c;

                for (int d = 0; d < w; d++)
                    to[d] |=
                        (uint8_t)((from[d * 4 + i % 4] >> (i / 4 * p->bits) & mask) << p->shift);
            }
        }
    }
}

void kept_words_store(uint8_t *half, const uint8_t *code, int bits, bool v, int D)
{
    kept_plane p[2];
    int n = kept_words_planes(p, half, bits, v, D);

    for (int i = 0; i < n; i++) {
        if (v)
            store_v(&p[i], code, D);
        else
            store_k(&p[i], code, D);
    }
}

void kept_words_load(uint8_t *code, const uint8_t *half, int bits, bool v, int D)
{
    kept_plane p[2];
    int n = kept_words_planes(p, (uint8_t *)(uintptr_t)half, bits, v, D);

    memset(code, 0, (size_t)(P64 * D));
    for (int i = 0; i < n; i++) {
        if (v)
            load_v(&p[i], code, D);
        else
            load_k(&p[i], code, D);
    }
}
