/* lowrank: the plain reading of lowrank.h, and what packs pages. */
#include "kern/lowrank_stands.h"

#include "kern/impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define P64 KEPT_PAGE_SLOTS

/* ---- rotary factors ------------------------------------------------------------------------- */

static size_t table_floats(int n_rope, int n_high)
{
    return (size_t)(2 * P64 + n_high) * (size_t)n_rope;
}

kept_turns *kept_turns_new(const float *freq, int n_rope, bool neox, int head_size, int max_pos)
{
    const int half = n_rope / 2, n_high = max_pos / P64 + 1;
    kept_turns *t = calloc(1, sizeof *t);
    float *at = t ? calloc(table_floats(n_rope, n_high), sizeof *at) : NULL;

    if (!at) {
        free(t);
        return NULL;
    }
    *t = (kept_turns){.n_rope = n_rope,
                      .n_high = n_high,
                      .table = at,
                      .re_low = at,
                      .im_low = at + P64 * half,
                      .re_high = at + 2 * P64 * half,
                      .im_high = at + (2 * P64 + n_high) * half,
                      .re_slot = at + 2 * (P64 + n_high) * half,
                      .im_slot = at + (3 * P64 + 2 * n_high) * half};
    for (int p = 0; p < P64 + n_high; p++)
        for (int j = 0; j < half; j++) {
            double angle = (p < P64 ? (double)p : (double)P64 * (p - P64)) * (double)freq[j];
            float *re = at + (p < P64 ? 0 : P64 * half) + p * half;

            re[j] = (float)cos(angle);
            re[j + (p < P64 ? P64 : n_high) * half] = (float)sin(angle);
        }
    for (int p = 0; p < P64; p++)
        for (int j = 0; j < half; j++) {
            float *re = at + 2 * (P64 + n_high) * half + j * P64 + p;

            re[0] = t->re_low[p * half + j];
            re[P64 * half] = t->im_low[p * half + j];
        }
    for (int d = 0; d < head_size; d++)
        t->order[d] = (uint8_t)(neox || d >= n_rope ? d : d < half ? 2 * d : 2 * (d - half) + 1);
    return t;
}

void kept_turns_free(kept_turns *t)
{
    if (t)
        free(t->table);
    free(t);
}

size_t kept_turns_bytes(const kept_turns *t)
{
    return table_floats(t->n_rope, t->n_high) * sizeof(float);
}

/* Turns x, in places, by pos; back: by -pos. */
static void turn(const kept_turns *t, int32_t pos, bool back, float *x)
{
    const int half = t->n_rope / 2;
    const float *re0 = t->re_low + pos % P64 * half, *im0 = t->im_low + pos % P64 * half;
    const float *re1 = t->re_high + pos / P64 * half, *im1 = t->im_high + pos / P64 * half;

    for (int j = 0; j < half; j++) {
        float re = re0[j] * re1[j] - im0[j] * im1[j], im = re0[j] * im1[j] + im0[j] * re1[j];
        float a = x[j], b = x[j + half];

        im = back ? -im : im;
        x[j] = re * a - im * b;
        x[j + half] = im * a + re * b;
    }
}

/* ---- coefficients --------------------------------------------------------------------------- */

/* Rows [r][D] whose products with a vector are its coefficients. */
static const float *rows_of(const kept_low *low, int codec, bool v)
{
    return kept_low_is_turned(codec, v) ? kept_low_stands(low, codec)->into
                                        : kept_low_directions(low, codec, v);
}

void kept_turns_place(const kept_turns *t, int32_t pos, int D, float *x)
{
    float y[KEPT_MAX_HEAD_SIZE];

    for (int d = 0; d < D; d++)
        y[d] = x[t->order[d]];
    turn(t, pos, true, y);
    memcpy(x, y, (size_t)D * sizeof *x);
}

void kept_turns_unplace(const kept_turns *t, int32_t pos, int D, float *x)
{
    float y[KEPT_MAX_HEAD_SIZE];

    turn(t, pos, false, x);
    for (int d = 0; d < D; d++)
        y[t->order[d]] = x[d];
    memcpy(x, y, (size_t)D * sizeof *x);
}

void kept_low_project(const kept_low *low, int codec, bool v, const int32_t *pos, int D, float *x,
                      float *c)
{
    float part[P64 * KEPT_MAX_HEAD_SIZE];
    const int r = kept_codec_channels(codec, D);

    for (int s = 0; s < P64 && kept_low_is_turned(codec, v); s++)
        kept_turns_place(low->turns, pos[s], D, x + s * D);
    kept_kern_get(NULL)->dots(P64, r, D, x, rows_of(low, codec, v), part, r);
    for (int i = 0; i < P64 * r; i++)
        c[i] += part[i];
}

void kept_low_store(uint8_t *half, bool v, int r, const float *c)
{
    __attribute__((aligned(64))) uint8_t page[256 * KEPT_MAX_HEAD_SIZE];
    const size_t size = kept_page_bytes(r) / 2;

    for (int s = 0; s < P64; s++)
        kept_kern_get(NULL)->put(page, r, s, c + s * r, c + s * r);
    memcpy(half, page + (v ? size : 0), size);
}

void kept_low_project_row(const kept_low *low, int codec, bool v, int32_t pos, int D, float *x)
{
    const float *u = rows_of(low, codec, v);
    const int r = kept_codec_channels(codec, D);
    float y[KEPT_MAX_HEAD_SIZE];

    if (kept_low_is_turned(codec, v))
        kept_turns_place(low->turns, pos, D, x);
    memcpy(y, x, (size_t)D * sizeof *y);
    for (int i = 0; i < r; i++) {
        x[i] = 0;
        for (int d = 0; d < D; d++)
            x[i] += u[i * D + d] * y[d];
    }
}

/* y[D], in places, of a turned key at position 0. */
static void complete(const kept_stands *x, const float *c, float *y)
{
    for (int k = 0; k < x->n_own; k++)
        y[x->own[k]] = c[x->from[k]];
    for (int k = 0; k < x->n_rest; k++) {
        float sum = 0;

        for (int i = 0; i < x->r; i++)
            sum += x->mix[k * x->r + i] * c[i];
        y[x->rest[k]] = sum;
    }
}

void kept_low_expand(const kept_low *low, int codec, bool v, const int32_t *pos, int D,
                     const float *c, float *x)
{
    const float *u = kept_low_directions(low, codec, v);
    const int r = kept_codec_channels(codec, D);

    for (int s = 0; s < P64; s++, x += D, c += r) {
        if (kept_low_is_turned(codec, v)) {
            complete(kept_low_stands(low, codec), c, x);
            kept_turns_unplace(low->turns, pos[s], D, x);
            continue;
        }
        memset(x, 0, (size_t)D * sizeof *x);
        for (int i = 0; i < r; i++)
            for (int d = 0; d < D; d++)
                x[d] += c[i] * u[i * D + d];
    }
}

void kept_low_widen(kept_packed p, bool v, float *to)
{
    float x[P64 * KEPT_MAX_HEAD_SIZE];
    const int D = p.head_size;

    kept_codec_read(p, 0, P64, v ? NULL : x, v ? x : NULL);
    for (int s = 0; s < P64; s++)
        for (int d = 0; d < D; d++) {
            const int c = d / 64 * 64;
            const size_t at = v ? (size_t)(P64 * c + s * kept_v_width(D, c) + d - c)
                                : kept_k_at(D, s) + (size_t)d * 32;

            to[at] = x[s * D + d];
        }
}
