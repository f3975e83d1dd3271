/* kern/ref: every function of the table in portable C, for machines without a faster table and as
 * the plain reading of kern.h. A page is widened to float once per tile, then read row by row.
 * Nothing is reassociated, so a row's bits depend on that row alone. */
#include "kern/impl.h"
#include "kern/lowrank.h"

#include <math.h>
#include <string.h>

/* Both conversions work on bits only, so that flush-to-zero modes cannot change them. */
float kept_f16_to_f32(kept_f16 h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 0x3ff, u;
    float f;

    if (e == 31) {
        u = sign | 0x7f800000u | m << 13 | (m ? 0x400000u : 0);
    } else if (e) {
        u = sign | (e + 112) << 23 | m << 13;
    } else if (m) {
        for (e = 113; !(m & 0x400); e--)
            m <<= 1;
        u = sign | e << 23 | (m & 0x3ff) << 13;
    } else {
        u = sign;
    }
    memcpy(&f, &u, sizeof f);
    return f;
}

kept_f16 kept_f32_to_f16(float f)
{
    uint32_t u, sign, a, m, shift, half, rest;

    memcpy(&u, &f, sizeof u);
    sign = u >> 16 & 0x8000;
    a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return (kept_f16)(sign | 0x7e00 | (a >> 13 & 0x3ff));
    if (a >= 0x477ff000) /* 65520: rounds past the largest finite value */
        return (kept_f16)(sign | 0x7c00);
    if (a >= 0x38800000) { /* normal; a carry out of the mantissa is the right exponent */
        a -= 112u << 23;
        return (kept_f16)(sign | (a + 0xfff + (a >> 13 & 1)) >> 13);
    }
    if (a < 0x33000000) /* below half of the smallest denormal */
        return (kept_f16)sign;
    m = (a & 0x7fffff) | 0x800000;
    shift = 126 - (a >> 23);
    half = 1u << (shift - 1);
    rest = m & ((1u << shift) - 1);
    m >>= shift;
    m += rest > half || (rest == half && (m & 1));
    return (kept_f16)(sign | m);
}

static float exp2_cut(float x)
{
    return x > KEPT_EXP2_CUT ? exp2f(x) : 0.0f;
}

static void widen(float *to, const kept_f16 *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = kept_f16_to_f32(from[i]);
}

/* s[64] = scores of one row against page k (widened, d-major), invisible slots -INFINITY. */
static void row_scores(const kept_attn_tile *a, int i, int row, const float *k, float *s)
{
    int D = a->head_size, t = row / a->group;
    const float *q = a->q + (size_t)t * a->q_stride_t + (size_t)(row % a->group) * a->q_stride_g;
    int seen = kept_tile_seen(a, i, t);
    int32_t horizon = a->window > 0 ? kept_tile_horizon(a, t) : 0;

    memset(s, 0, KEPT_PAGE_SLOTS * sizeof *s);
    for (int b = 0; b < KEPT_PAGE_SLOTS; b += 32) {
        for (int d = 0; d < D; d++) {
            const float *kd = k + (size_t)b * (size_t)D + (size_t)d * 32;
            float x = q[d] * a->scale;

            for (int j = 0; j < 32; j++)
                s[b + j] += x * kd[j];
        }
    }
    for (int j = 0; a->bias && j < KEPT_PAGE_SLOTS; j++)
        s[j] += a->bias[i][j];
    for (int j = 0; j < KEPT_PAGE_SLOTS; j++) {
        if (j >= seen || (a->window > 0 && a->pos[i * KEPT_PAGE_SLOTS + j] <= horizon))
            s[j] = -INFINITY;
    }
}

/* Turns the row's scores into weights and brings m, l, acc up to this page. */
static void row_weights(const kept_attn_tile *a, int row, float *s)
{
    float *acc = a->acc + (size_t)row * (size_t)a->head_size;
    float top = -INFINITY, sum = 0;

    for (int j = 0; j < KEPT_PAGE_SLOTS; j++)
        top = s[j] > top ? s[j] : top;
    if (top > a->m[row]) {
        float c = exp2_cut(a->m[row] - top);

        for (int d = 0; d < a->head_size; d++)
            acc[d] *= c;
        a->l[row] *= c;
        a->m[row] = top;
    }
    for (int j = 0; j < KEPT_PAGE_SLOTS; j++) {
        s[j] = s[j] > -INFINITY ? exp2_cut(s[j] - a->m[row]) : 0.0f;
        sum += s[j];
    }
    a->l[row] += sum;
}

/* Whether V of page i can be left out: see kept_attn_tile.skip. */
static bool is_idle(const kept_attn_tile *a, int i, float s[][KEPT_PAGE_SLOTS])
{
    bool idle = a->skip > 0;

    for (int j = 0; j < a->n_q * a->group * KEPT_PAGE_SLOTS && idle; j++)
        idle = s[j / KEPT_PAGE_SLOTS][j % KEPT_PAGE_SLOTS] <= a->skip;
    if (a->skip > 0)
        a->skipped[i] = idle;
    return idle;
}

static void row_values(const kept_attn_tile *a, int row, const float *p, const float *v, int seen)
{
    int D = a->head_size;

    for (int c = 0; c < D; c += 64) {
        float *acc = a->acc + (size_t)row * (size_t)D + c;
        const float *vb = v + (size_t)c * KEPT_PAGE_SLOTS;
        int w = kept_v_width(D, c);

        for (int j = 0; j < seen; j++)
            for (int d = 0; d < w; d++)
                acc[d] += p[j] * vb[(size_t)j * (size_t)w + (size_t)d];
    }
}

/* Brings n vectors of D floats into the basis that a codec wants. */
static void ref_turn(float *x, int n, int D, int codec, bool *turned)
{
    bool want = kept_codec_get(codec)->rotated;

    for (int r = 0; r < n && want != *turned; r++)
        kept_codec_turn(x + (size_t)r * (size_t)D, D, *turned);
    *turned = want;
}

/* A half of page i as floats. */
static void ref_widen(float *to, const kept_attn_tile *a, int i, bool v)
{
    const uint8_t *page = a->pool + (size_t)a->pages[i] * a->page_bytes;
    const kept_codecs c = kept_tile_codec(a, i);
    const int D = a->head_size, codec = v ? c.v : c.k;

    if (codec >= KEPT_N_PLAIN)
        kept_low_widen(kept_tile_packed(a, i), v, to);
    else
        kept_codec_widen(to, page + (v ? kept_codec_half_bytes(c.k, false, D) : 0), codec, v, D);
}

static void ref_attend(const kept_attn_tile *tile)
{
    float wide[KEPT_PAGE_SLOTS * KEPT_MAX_HEAD_SIZE], s[KEPT_TILE_ROWS][KEPT_PAGE_SLOTS];
    float q[KEPT_TILE_ROWS * KEPT_MAX_HEAD_SIZE];
    kept_attn_tile turned_tile = *tile;
    const kept_attn_tile *a = &turned_tile;
    int rows = a->n_q * a->group, D = a->head_size;
    bool q_turned = false, acc_turned = false;

    for (int r = 0; r < rows; r++) {
        memcpy(q + r * D,
               tile->q + (size_t)(r / a->group) * a->q_stride_t +
                   (size_t)(r % a->group) * a->q_stride_g,
               (size_t)D * sizeof *q);
        a->m[r] = -INFINITY;
        a->l[r] = 0;
    }
    turned_tile.q = q;
    turned_tile.q_stride_t = (size_t)(a->group * D);
    turned_tile.q_stride_g = (size_t)D;
    memset(a->acc, 0, (size_t)rows * (size_t)D * sizeof *a->acc);
    for (int i = 0; i < a->n_pages; i++) {
        kept_codecs c = kept_tile_codec(a, i);

        ref_turn(q, rows, D, c.k, &q_turned);
        ref_turn(a->acc, rows, D, c.v, &acc_turned);
        ref_widen(wide, a, i, false);
        for (int r = 0; r < rows; r++)
            row_scores(a, i, r, wide, s[r]);
        for (int r = 0; r < rows; r++)
            row_weights(a, r, s[r]);
        ref_widen(wide, a, i, true);
        const bool idle = is_idle(a, i, s);
        for (int r = 0; r < rows && !idle; r++)
            row_values(a, r, s[r], wide, kept_tile_seen(a, i, r / a->group));
        for (int r = 0; a->p && r < rows; r++) {
            kept_f16 *p = a->p + ((size_t)i * (size_t)rows + (size_t)r) * KEPT_PAGE_SLOTS;

            for (int j = 0; j < KEPT_PAGE_SLOTS; j++)
                p[j] = kept_f32_to_f16(s[r][j]);
            a->p_max[i * rows + r] = a->m[r] > -INFINITY ? a->m[r] : 0.0f;
        }
    }
    ref_turn(a->acc, rows, D, KEPT_F16, &acc_turned);
}

static void ref_combine(int rows, int head_size, float *M, float *L, float *O, const float *m,
                        const float *l, const float *acc)
{
    for (int r = 0; r < rows; r++, O += head_size, acc += head_size) {
        float top = m[r] > M[r] ? m[r] : M[r], a, b;

        if (!(m[r] > -INFINITY))
            continue;
        a = M[r] > -INFINITY ? exp2_cut(M[r] - top) : 0.0f;
        b = exp2_cut(m[r] - top);
        M[r] = top;
        L[r] = L[r] * a + l[r] * b;
        for (int d = 0; d < head_size; d++)
            O[d] = O[d] * a + acc[d] * b;
    }
}

static void ref_mass(int n_pages, int rows, int row0, int row1, int step, const kept_f16 *p,
                     const float *p_max, const float *M, const float *L, float *out)
{
    for (int i = 0; i < n_pages; i++, out += KEPT_PAGE_SLOTS) {
        for (int r = row0; r < row1; r += step) {
            size_t at = (size_t)i * (size_t)rows + (size_t)r;
            float c = L[r] > 0 ? exp2_cut(p_max[at] - M[r]) / L[r] : 0.0f;

            for (int j = 0; j < KEPT_PAGE_SLOTS; j++)
                out[j] += kept_f16_to_f32(p[at * KEPT_PAGE_SLOTS + (size_t)j]) * c;
        }
    }
}

static void ref_peak(int n_pages, int rows, const kept_f16 *p, const float *p_max, const float *M,
                     const float *L, const float *weight, float *out)
{
    for (int i = 0; i < n_pages; i++, out += KEPT_PAGE_SLOTS) {
        for (int r = 0; r < rows; r++) {
            size_t at = (size_t)i * (size_t)rows + (size_t)r;
            float c = L[r] > 0 ? exp2_cut(p_max[at] - M[r]) / L[r] : 0.0f;

            c = weight ? c * weight[r] : c;
            for (int j = 0; j < KEPT_PAGE_SLOTS; j++) {
                float x = kept_f16_to_f32(p[at * KEPT_PAGE_SLOTS + (size_t)j]) * c;

                out[j] = x > out[j] ? x : out[j];
            }
        }
    }
}

static void ref_put(uint8_t *page, int head_size, int slot, const float *k, const float *v)
{
    kept_f16 *kp = (kept_f16 *)(void *)page + kept_k_at(head_size, slot);

    for (int d = 0; d < head_size; d++)
        kp[d * 32] = kept_f32_to_f16(k[d]);
    for (int c = 0; c < head_size; c += 64) {
        int w = kept_v_width(head_size, c);
        kept_f16 *vp = (kept_f16 *)(void *)page + kept_v_at(head_size, c) + slot * w;

        for (int d = 0; d < w; d++)
            vp[d] = kept_f32_to_f16(v[c + d]);
    }
}

void kept_kern_move(uint8_t *to, int dst, const uint8_t *from, int src, int head_size)
{
    kept_f16 *tk = (kept_f16 *)(void *)to;
    const kept_f16 *fk = (const kept_f16 *)(const void *)from;
    size_t kd = kept_k_at(head_size, dst), ks = kept_k_at(head_size, src);

    for (size_t d = 0; d < (size_t)head_size; d++)
        tk[kd + d * 32] = fk[ks + d * 32];
    for (int c = 0; c < head_size; c += 64) {
        int w = kept_v_width(head_size, c);
        size_t at = kept_v_at(head_size, c);

        memmove(tk + at + dst * w, fk + at + src * w, (size_t)w * sizeof *tk);
    }
}

static void ref_get(const uint8_t *page, int head_size, int slot0, int n, float *k, float *v)
{
    const kept_f16 *pg = (const kept_f16 *)(const void *)page;

    for (int j = 0; j < n; j++) {
        size_t row = (size_t)j * (size_t)head_size, at = kept_k_at(head_size, slot0 + j);

        for (size_t d = 0; k && d < (size_t)head_size; d++)
            k[row + d] = kept_f16_to_f32(pg[at + d * 32]);
        for (int c = 0; v && c < head_size; c += 64) {
            int w = kept_v_width(head_size, c);

            widen(v + row + c, pg + kept_v_at(head_size, c) + (slot0 + j) * w, (size_t)w);
        }
    }
}

static void ref_outer(int n, int head_size, const float *x, size_t stride, float *mean, float *cov)
{
    for (int t = 0; t < n; t++, x += stride) {
        for (int i = 0; i < head_size; i++) {
            float *row = cov + (size_t)i * (size_t)head_size;

            mean[i] += x[i];
            for (int j = 0; j < head_size; j++)
                row[j] += x[i] * x[j];
        }
    }
}

static void ref_dots(int m, int n, int k, const float *a, const float *b, float *c, int ldc)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            const float *x = a + (size_t)i * (size_t)k, *y = b + (size_t)j * (size_t)k;
            float sum = 0;

            for (int d = 0; d < k; d++)
                sum += x[d] * y[d];
            c[(size_t)i * (size_t)ldc + (size_t)j] = sum;
        }
}

static void ref_judge(int n, const kept_f16 *a, int rows, const float *b, size_t ldb, float *out)
{
    for (int r = 0; r < rows; r++, b += ldb) {
        float sum = 0;

        for (int i = 0; i < n; i++)
            sum += kept_f16_to_f32(a[i]) * b[i];
        out[r] += sum;
    }
}

const kept_kern *kept_kern_ref(void)
{
    static const kept_kern table = {
        .name = "ref",
        .attend = ref_attend,
        .combine = ref_combine,
        .mass = ref_mass,
        .peak = ref_peak,
        .put = ref_put,
        .move = kept_kern_move,
        .get = ref_get,
        .outer = ref_outer,
        .dots = ref_dots,
        .judge = ref_judge,
    };

    return &table;
}
