/* nuq: see nuq.h. */
#include "kern/nuq.h"

#include "kern/codec_words.h"
#include "kern/impl.h"

#include <math.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

int kept_nuq_outliers(int codec, int D)
{
    return kept_codec_get(codec)->nuq == KEPT_NUQ_SPARSE ? 16 * ((D + 24) / 25) : 0;
}

/* Of what follows the codes: scales, or the first key. */
static size_t row_bytes(bool v, int D)
{
    return (size_t)(v ? P64 : D) * sizeof(uint16_t);
}

size_t kept_nuq_half_bytes(int codec, bool v, int D)
{
    const size_t n = kept_words_bytes(kept_codec_get(codec)->bits, v, D) + row_bytes(v, D) +
                     (size_t)kept_nuq_outliers(codec, D) * 4;

    return (n + 63) / 64 * 64;
}

static uint16_t *row_of(uint8_t *half, int codec, bool v, int D)
{
    return (uint16_t *)(void *)(half + kept_words_bytes(kept_codec_get(codec)->bits, v, D));
}

/* Where outliers are; what they are follows. */
static uint16_t *outliers_of(uint8_t *half, int codec, bool v, int D)
{
    return (uint16_t *)(void *)(half + kept_words_bytes(kept_codec_get(codec)->bits, v, D) +
                                row_bytes(v, D));
}

static const float *levels_of(const struct kept_nuq *q, int codec, bool v)
{
    const kept_codec_info *f = kept_codec_get(codec);

    return q->level[v][f->nuq == KEPT_NUQ_SPARSE][f->bits == 4];
}

/* ---- codes ---------------------------------------------------------------------------------- */

/* Codes of y[D]: the nearest of n ascending levels. Counting the middles below is more comparisons
 * than searching and no branch. */
static void nearest(const float *level, int n, const float *y, int D, uint8_t *code)
{
    int32_t below[KEPT_MAX_HEAD_SIZE] = {0};

    for (int c = 0; c + 1 < n; c++) {
        const float middle = 0.5f * (level[c] + level[c + 1]);

        for (int d = 0; d < D; d++)
            below[d] += y[d] > middle;
    }
    for (int d = 0; d < D; d++)
        code[d] = (uint8_t)below[d];
}

/* y[D]: what levels are compared with; unit: of a value, 0: its row is. */
static void normalise(const struct kept_nuq *q, bool v, float unit, int D, const float *x, float *y)
{
    const float inverse = unit > 0 ? 1.0f / unit : 0.0f;

    for (int d = 0; d < D && v; d++)
        y[d] = x[d] * inverse;
    for (int d = 0; d < D && !v; d++)
        y[d] = (x[d] - q->zero[d]) / q->scale[d];
}

/* The scale with the least square error for these codes: costs nothing to read. */
static uint16_t fit_scale(const float *level, int D, const float *x, const uint8_t *apart,
                          const uint8_t *code)
{
    double dot = 0, square = 0;
    uint32_t bits;

    for (int d = 0; d < D; d++)
        if (!apart || !apart[d]) {
            const double l = (double)level[code[d]];

            dot += (double)x[d] * l;
            square += l * l;
        }
    const float scale = dot > 0 && square > 0 ? (float)(dot / square) : 0.0f;
    memcpy(&bits, &scale, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float rms(const float *x, const uint8_t *apart, int D)
{
    double sum = 0;
    int n = 0;

    for (int d = 0; d < D; d++)
        if (!apart || !apart[d]) {
            sum += (double)x[d] * (double)x[d];
            n++;
        }
    return n ? (float)sqrt(sum / n) : 0.0f;
}

/* Codes of one row; apart [D]: numbers that are stored beside them, or NULL. error [D]: what each
 * loses, or NULL. Returns the scale of a value. */
static uint16_t encode(const struct kept_nuq *q, int codec, bool v, int D, const float *x,
                       const uint8_t *apart, uint8_t *code, float *error)
{
    const float *level = levels_of(q, codec, v), unit = v ? rms(x, apart, D) : 0;
    float y[KEPT_MAX_HEAD_SIZE];

    normalise(q, v, unit, D, x, y);
    nearest(level, 1 << kept_codec_get(codec)->bits, y, D, code);
    for (int d = 0; d < D && error; d++)
        error[d] = fabsf(y[d] - level[code[d]]) * (v ? unit : q->scale[d]);
    return v ? fit_scale(level, D, x, apart, code) : 0;
}

/* ---- outliers ------------------------------------------------------------------------------- */

/* Marks the n of `all` numbers >= 0 with the largest error, the earlier one among equals. */
static void choose(const float *error, int all, int n, uint8_t *apart)
{
    uint32_t known = 0, prefix = 0, bits;
    int left = n; /* of those whose digits so far are the prefix */

    memset(apart, 0, (size_t)all);
    for (int shift = 24; shift >= 0; shift -= 8) {
        int count[256] = {0}, digit = 255;

        for (int i = 0; i < all; i++) {
            memcpy(&bits, &error[i], sizeof bits);
            count[bits >> shift & 255] += !((bits ^ prefix) & known);
        }
        for (; digit > 0 && left > count[digit]; digit--)
            left -= count[digit];
        prefix |= (uint32_t)digit << shift;
        known |= 255u << shift;
    }
    for (int i = 0; i < all; i++) { /* prefix is the n-th largest */
        memcpy(&bits, &error[i], sizeof bits);
        apart[i] = bits > prefix || (bits == prefix && left-- > 0);
    }
}

static float bounded(float x)
{
    return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x == x ? x : 0.0f;
}

static void store_outliers(uint8_t *half, int codec, bool v, int D, const float *x,
                           const uint8_t *apart)
{
    const int n = kept_nuq_outliers(codec, D);
    uint16_t *where = outliers_of(half, codec, v, D), *what = where + n;
    int k = 0;

    for (int i = 0; i < P64 * D && k < n; i++)
        if (apart[i]) {
            where[k] = (uint16_t)i;
            what[k++] = kept_f32_to_f16(bounded(x[i]));
        }
}

/* ---- halves ---------------------------------------------------------------------------------- */

static void store_first(uint8_t *half, int codec, int D, const float *x)
{
    uint16_t *to = row_of(half, codec, false, D);

    for (int d = 0; d < D; d++)
        to[d] = kept_f32_to_f16(x[d]);
}

static void load_first(const uint8_t *half, int codec, int D, float *x)
{
    const uint16_t *from = row_of((uint8_t *)(uintptr_t)half, codec, false, D);

    for (int d = 0; d < D; d++)
        x[d] = kept_f16_to_f32(from[d]);
}

void kept_nuq_pack(uint8_t *half, int codec, bool v, kept_packed p, float *x)
{
    const struct kept_nuq *q = p.low->nuq;
    const int D = p.head_size, n = kept_nuq_outliers(codec, D);
    uint8_t code[P64 * KEPT_MAX_HEAD_SIZE], apart[P64 * KEPT_MAX_HEAD_SIZE];
    float error[P64 * KEPT_MAX_HEAD_SIZE];
    uint16_t scale[P64];

    memset(half, 0, kept_nuq_half_bytes(codec, v, D));
    for (int i = 0; i < P64 * D; i++)
        x[i] = bounded(x[i]);
    for (int s = 0; s < P64; s++) {
        if (!v)
            kept_turns_place(p.low->turns, p.pos[s], D, x + s * D);
        scale[s] = encode(q, codec, v, D, x + s * D, NULL, code + s * D, error + s * D);
        if (!v && !p.pos[s]) {
            store_first(half, codec, D, x + s * D);
            memset(error + s * D, 0, (size_t)D * sizeof *error);
        }
    }
    if (n) {
        choose(error, P64 * D, n, apart);
        for (int s = 0; s < P64; s++)
            scale[s] = encode(q, codec, v, D, x + s * D, apart + s * D, code + s * D, NULL);
        store_outliers(half, codec, v, D, x, apart);
    }
    if (v)
        memcpy(row_of(half, codec, v, D), scale, sizeof scale);
    kept_words_store(half, code, kept_codec_get(codec)->bits, v, D);
}

void kept_nuq_read(const uint8_t *half, int codec, bool v, kept_packed p, float *x)
{
    const struct kept_nuq *q = p.low->nuq;
    const float *level = levels_of(q, codec, v);
    const int D = p.head_size, n = kept_nuq_outliers(codec, D);
    uint8_t code[P64 * KEPT_MAX_HEAD_SIZE], *at = (uint8_t *)(uintptr_t)half; /* only read */
    const uint16_t *scale = row_of(at, codec, v, D), *where = outliers_of(at, codec, v, D);

    kept_words_load(code, half, kept_codec_get(codec)->bits, v, D);
    for (int s = 0; s < P64; s++) {
        const float unit = v ? kept_bf16_to_f32(scale[s]) : 0.0f;
        const uint8_t *c = code + s * D;

        for (int d = 0; d < D; d++)
            x[s * D + d] = v ? unit * level[c[d]] : q->zero[d] + q->scale[d] * level[c[d]];
    }
    for (int i = 0; i < n; i++)
        if (where[i] < P64 * D) /* parked pages come from files */
            x[where[i]] = kept_f16_to_f32(where[n + i]);
    for (int s = 0; s < P64 && !v; s++) {
        if (!p.pos[s])
            load_first(half, codec, D, x + s * D);
        kept_turns_unplace(p.low->turns, p.pos[s], D, x + s * D);
    }
}

void kept_nuq_widen(kept_packed p, bool v, float *to)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];
    const int D = p.head_size;
    const uint8_t *half = p.at + (v ? kept_codec_half_bytes(p.c.k, false, D) : 0);

    kept_nuq_read(half, v ? p.c.v : p.c.k, v, p, x);
    for (int c = 0; c < D && v; c += 64) {
        const int w = kept_v_width(D, c);

        for (int s = 0; s < P64; s++, to += w)
            memcpy(to, x + s * D + c, (size_t)w * sizeof *to);
    }
    for (int b = 0; b < P64 && !v; b += 32)
        for (int d = 0; d < D; d++)
            for (int j = 0; j < 32; j++)
                *to++ = x[(b + j) * D + d];
}

void kept_nuq_put(uint8_t *half, int codec, bool v, kept_packed p, int slot, float *x)
{
    const int D = p.head_size;
    uint8_t code[KEPT_MAX_HEAD_SIZE];

    for (int d = 0; d < D; d++)
        x[d] = bounded(x[d]);
    if (!v)
        kept_turns_place(p.low->turns, p.pos[slot], D, x);
    if (!v && !p.pos[slot])
        store_first(half, codec, D, x);
    const uint16_t scale = encode(p.low->nuq, codec, v, D, x, NULL, code, NULL);
    if (v)
        row_of(half, codec, v, D)[slot] = scale;
    kept_words_put(half, code, kept_codec_get(codec)->bits, v, D, slot);
}

void kept_nuq_move(kept_packed to, int dst, kept_packed from, int src, bool v)
{
    const int D = to.head_size, codec = v ? to.c.v : to.c.k, bits = kept_codec_get(codec)->bits;
    const size_t at = v ? kept_codec_half_bytes(to.c.k, false, D) : 0;
    uint16_t *there = row_of(to.at + at, codec, v, D), *here = row_of(from.at + at, codec, v, D);
    uint8_t code[KEPT_MAX_HEAD_SIZE];

    kept_words_get(code, from.at + at, bits, v, D, src);
    kept_words_put(to.at + at, code, bits, v, D, dst);
    if (v)
        there[dst] = here[src];
    else if (!from.pos[src])
        memcpy(there, here, row_bytes(v, D));
}
