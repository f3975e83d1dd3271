/* kern, inside: the rest of the table over any vector width; see simd_attend.h. */
#ifndef KERN_SIMD_REST_H
#define KERN_SIMD_REST_H

static void simd_combine(int rows, int head_size, float *M, float *L, float *O, const float *m,
                         const float *l, const float *acc)
{
    for (int r = 0; r < rows; r++, O += head_size, acc += head_size) {
        float top = m[r] > M[r] ? m[r] : M[r];
        vec old, new;

        if (!(m[r] > -__builtin_inff()))
            continue;
        old = v_set(v_first(v_exp2(v_set(M[r] - top))));
        new = v_set(v_first(v_exp2(v_set(m[r] - top))));
        M[r] = top;
        L[r] = v_first(v_fma(v_set(l[r]), new, v_mul(v_set(L[r]), old)));
        for (int d = 0; d < head_size; d += W)
            v_store(O + d, v_fma(v_load(acc + d), new, v_mul(v_load(O + d), old)));
    }
}

/* share[r - row0] = 2^(p_max - M) / L, what a row's p must be multiplied by; 0 for a row that saw
 * nothing. share has room for W more. */
INLINE void row_shares(int row0, int row1, const float *p_max, const float *M, const float *L,
                       float *share)
{
    for (int r = row0; r < row1; r += W) {
        int n = row1 - r;
        vec sum = v_load_n(L + r, n);
        vec c = v_exp2(v_sub(v_load_n(p_max + r, n), v_load_n(M + r, n)));

        v_store(share + r - row0, v_if_positive(sum, v_div(c, sum)));
    }
}

static void simd_mass(int n_pages, int rows, int row0, int row1, int step, const kept_f16 *p,
                      const float *p_max, const float *M, const float *L, float *out)
{
    ALIGNED float share[KEPT_TILE_ROWS + W];

    for (int i = 0; i < n_pages; i++, out += P64, p += (size_t)rows * P64, p_max += rows) {
        vec x[P64 / W];

        row_shares(row0, row1, p_max, M, L, share);
        UNROLL
        for (int c = 0; c < P64 / W; c++)
            x[c] = v_load(out + c * W);
        for (int r = row0; r < row1; r += step) {
            vec y = v_set(share[r - row0]);

            UNROLL
            for (int c = 0; c < P64 / W; c++)
                x[c] = v_fma(v_wide(p + (size_t)r * P64 + c * W), y, x[c]);
        }
        UNROLL
        for (int c = 0; c < P64 / W; c++)
            v_store(out + c * W, x[c]);
    }
}

static void simd_peak(int n_pages, int rows, const kept_f16 *p, const float *p_max, const float *M,
                      const float *L, const float *weight, float *out)
{
    ALIGNED float share[KEPT_TILE_ROWS + W];

    for (int i = 0; i < n_pages; i++, out += P64, p += (size_t)rows * P64, p_max += rows) {
        vec x[P64 / W];

        row_shares(0, rows, p_max, M, L, share);
        UNROLL
        for (int c = 0; c < P64 / W; c++)
            x[c] = v_load(out + c * W);
        for (int r = 0; r < rows; r++) {
            vec y = v_set(weight ? share[r] * weight[r] : share[r]);

            UNROLL
            for (int c = 0; c < P64 / W; c++)
                x[c] = v_max(v_mul(v_wide(p + (size_t)r * P64 + c * W), y), x[c]);
        }
        UNROLL
        for (int c = 0; c < P64 / W; c++)
            v_store(out + c * W, x[c]);
    }
}

static void simd_put(uint8_t *page, int head_size, int slot, const float *k, const float *v)
{
    ALIGNED kept_f16 narrow[KEPT_MAX_HEAD_SIZE];
    kept_f16 *to = (kept_f16 *)(void *)page + kept_k_at(head_size, slot);

    for (int d = 0; d < head_size; d += W)
        v_narrow(narrow + d, v_load(k + d));
    for (int d = 0; d < head_size; d++)
        to[d * 32] = narrow[d];
    for (int c = 0; c < head_size; c += 64) {
        int w = kept_v_width(head_size, c);

        to = (kept_f16 *)(void *)page + kept_v_at(head_size, c) + slot * w;
        for (int d = 0; d < w; d += W)
            v_narrow(to + d, v_load(v + c + d));
    }
}

/* k[j][d] = slot slot0 + j: 16 channels at a time are widened, then read by column. */
static void get_keys(const kept_f16 *page, int head_size, int slot0, int n, float *k)
{
    ALIGNED float wide[16][32];

    for (int end = slot0 + n, s = slot0; s < end; s = (s / 32 + 1) * 32) {
        int stop = (s / 32 + 1) * 32 < end ? (s / 32 + 1) * 32 : end;

        for (int d0 = 0; d0 < head_size; d0 += 16) {
            const kept_f16 *from = page + kept_k_at(head_size, s / 32 * 32) + d0 * 32;

            for (int d = 0; d < 16; d++)
                for (int c = 0; c < 32; c += W)
                    v_store(wide[d] + c, v_wide(from + d * 32 + c));
            for (int j = s; j < stop; j++)
                for (int d = 0; d < 16; d++)
                    k[(size_t)(j - slot0) * (size_t)head_size + (size_t)(d0 + d)] = wide[d][j % 32];
        }
    }
}

static void simd_get(const uint8_t *page, int head_size, int slot0, int n, float *k, float *v)
{
    const kept_f16 *pg = (const kept_f16 *)(const void *)page;

    if (k)
        get_keys(pg, head_size, slot0, n, k);
    for (int j = 0; v && j < n; j++) {
        for (int c = 0; c < head_size; c += 64) {
            int w = kept_v_width(head_size, c);
            const kept_f16 *from = pg + kept_v_at(head_size, c) + (slot0 + j) * w;

            for (int d = 0; d < w; d += W)
                v_store(v + (size_t)j * (size_t)head_size + c + d, v_wide(from + d));
        }
    }
}

/* cov[i .. i+4)[j .. j+nv*W) += sum over n rows, kept in registers. */
INLINE void outer_block(int nv, int n, const float *xi, const float *xj, size_t stride, float *cov,
                        int D)
{
    vec c[4][2];

    UNROLL
    for (int r = 0; r < 4; r++) {
        UNROLL
        for (int b = 0; b < nv; b++)
            c[r][b] = v_load(cov + r * D + b * W);
    }
    for (int t = 0; t < n; t++, xi += stride, xj += stride) {
        UNROLL
        for (int r = 0; r < 4; r++) {
            vec y = v_set(xi[r]);

            UNROLL
            for (int b = 0; b < nv; b++)
                c[r][b] = v_fma(y, v_load(xj + b * W), c[r][b]);
        }
    }
    UNROLL
    for (int r = 0; r < 4; r++) {
        UNROLL
        for (int b = 0; b < nv; b++)
            v_store(cov + r * D + b * W, c[r][b]);
    }
}

static void simd_outer(int n, int head_size, const float *x, size_t stride, float *mean, float *cov)
{
    for (int d = 0; d < head_size; d += W) {
        vec sum = v_load(mean + d);

        for (int t = 0; t < n; t++)
            sum = v_add(sum, v_load(x + (size_t)t * stride + d));
        v_store(mean + d, sum);
    }
    for (int i = 0; i < head_size; i += 4) {
        float *row = cov + (size_t)i * (size_t)head_size;
        int j = 0;

        for (; j + 2 * W <= head_size; j += 2 * W)
            outer_block(2, n, x + i, x + j, stride, row + j, head_size);
        for (; j < head_size; j += W)
            outer_block(1, n, x + i, x + j, stride, row + j, head_size);
    }
}

/* ---- rows against rows ---------------------------------------------------------------------- */

#define DOTS_N                                                                                     \
    (2 * W)        /* rows of b at once, turned so that a vector holds one channel of W rows       \
                    */
#define DOTS_K 256 /* channels at once */

/* c[r][0..nj) of nr rows of a against a turned panel; `more`: goes on with what c holds. */
INLINE void dots_block(int nr, int nj, int k, const float *a, size_t lda, const float *panel,
                       float *c, size_t ldc, int more)
{
    ALIGNED float edge[DOTS_N];
    vec s[4][2];

    UNROLL
    for (int r = 0; r < nr; r++) {
        if (more && nj < DOTS_N) {
            memcpy(edge, c + (size_t)r * ldc, (size_t)nj * sizeof *edge);
            memset(edge + nj, 0, (size_t)(DOTS_N - nj) * sizeof *edge);
        }
        const float *from = nj < DOTS_N ? edge : c + (size_t)r * ldc;

        s[r][0] = more ? v_load(from) : v_set(0);
        s[r][1] = more ? v_load(from + W) : v_set(0);
    }
    for (int d = 0; d < k; d++) {
        vec y0 = v_load(panel + (size_t)d * DOTS_N), y1 = v_load(panel + (size_t)d * DOTS_N + W);

        UNROLL
        for (int r = 0; r < nr; r++) {
            vec x = v_set(a[(size_t)r * lda + (size_t)d]);

            s[r][0] = v_fma(x, y0, s[r][0]);
            s[r][1] = v_fma(x, y1, s[r][1]);
        }
    }
    UNROLL
    for (int r = 0; r < nr; r++) {
        float *to = nj < DOTS_N ? edge : c + (size_t)r * ldc;

        v_store(to, s[r][0]);
        v_store(to + W, s[r][1]);
        if (nj < DOTS_N)
            memcpy(c + (size_t)r * ldc, edge, (size_t)nj * sizeof *edge);
    }
}

static void simd_dots(int m, int n, int k, const float *a, const float *b, float *c, int ldc)
{
    ALIGNED float panel[DOTS_K * DOTS_N];

    for (int j = 0; j < n; j += DOTS_N) {
        int nj = n - j < DOTS_N ? n - j : DOTS_N;

        for (int d0 = 0; d0 < k || d0 == 0; d0 += DOTS_K) {
            int nk = k - d0 < DOTS_K ? k - d0 : DOTS_K, i = 0;

            for (int t = 0; t < DOTS_N; t++) {
                const float *row = b + (size_t)(j + (t < nj ? t : 0)) * (size_t)k + d0;

                for (int d = 0; d < nk; d++)
                    panel[d * DOTS_N + t] = t < nj ? row[d] : 0;
            }
            for (; i + 4 <= m; i += 4)
                dots_block(4, nj, nk, a + (size_t)i * (size_t)k + d0, (size_t)k, panel,
                           c + (size_t)i * (size_t)ldc + j, (size_t)ldc, d0 > 0);
            for (; i < m; i++)
                dots_block(1, nj, nk, a + (size_t)i * (size_t)k + d0, (size_t)k, panel,
                           c + (size_t)i * (size_t)ldc + j, (size_t)ldc, d0 > 0);
        }
    }
}

static void simd_judge(int n, const kept_f16 *a, int rows, const float *b, size_t ldb, float *out)
{
    for (int r = 0; r < rows; r++, b += ldb) {
        vec s = v_set(0);

        for (int i = 0; i < n; i += W)
            s = v_fma(v_wide(a + i), v_load(b + i), s);
        out[r] += v_sum(s);
    }
}

#define SIMD_TABLE(isa)                                                                            \
    {                                                                                              \
        .name = isa, .attend = simd_attend, .combine = simd_combine, .mass = simd_mass,            \
        .peak = simd_peak, .put = simd_put, .move = kept_kern_move, .get = simd_get,               \
        .outer = simd_outer, .dots = simd_dots, .pack = PACK_HALF, .judge = simd_judge             \
    }

#endif
