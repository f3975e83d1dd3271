/* kern, inside: pages of coefficients and one query; in the midst of simd_packed.h, which says what
 * the rest of a tile is. */
#ifndef KERN_SIMD_LOWRANK_H
#define KERN_SIMD_LOWRANK_H

/* A query along the first r directions. */
static void project_query(const float *u, int r, int D, const float *q, float *out)
{
    for (int i = 0; i < r; i++, u += D) {
        vec s = v_mul(v_load(q), v_load(u));

        for (int d = W; d < D; d += W)
            s = v_fma(v_load(q + d), v_load(u + d), s);
        out[i] = v_sum(s);
    }
}

/* Scores against a page of coefficients of rotated keys. */
static void flat_scores(const kept_attn_tile *a, const struct packed *k, int codec,
                        struct queries *x, struct rows *rows)
{
    struct half h = {k->at, (const kept_f16 *)(const void *)(k->at + k->ahead)};

    for (int r = 0; r < rows->n && x->flat_codec != codec; r++)
        project_query(kept_low_directions(a->low, codec, false), k->D, a->head_size,
                      x->q + r * Q_STRIDE, x->flat + r * Q_STRIDE);
    x->flat_codec = codec;
    for (int r = 0; r < rows->n; r += ROWS)
        qk_few(rows->n - r < ROWS ? rows->n - r : ROWS, &h, k->D, x->flat + r * Q_STRIDE,
               rows->s + r * P64);
}

/* Sums over coefficients, which lie beside those over channels until pages of another codec come.
 */
struct sums {
    float *acc; /* [rows][r] */
    int codec;  /* of the values summed so far; 0: none */
    int r;
};

/* Brings them to what the maxima of rows are now: was [rows] before. */
static void rescale_sums(const kept_attn_tile *a, struct sums *x, int row, float was)
{
    float *acc = x->acc + (size_t)row * (size_t)x->r;
    vec c;

    if (!x->codec || !(a->m[row] > was))
        return;
    c = v_set(v_first(v_exp2(v_set(was - a->m[row]))));
    for (int i = 0; i < x->r; i += W)
        v_store(acc + i, v_mul(v_load(acc + i), c));
}

/* acc of the tile += the sums, along their directions; then there are none. */
static void fold_sums(const kept_attn_tile *a, struct sums *x, int rows)
{
    const int D = a->head_size;
    const float *u;

    if (!x->codec)
        return;
    u = kept_low_directions(a->low, x->codec, true);
    for (int r = 0; r < rows; r++) {
        const float *c = x->acc + (size_t)r * (size_t)x->r;
        float *to = a->acc + (size_t)r * (size_t)D;

        for (int d = 0; d < D; d += 2 * W) {
            int n = D - d < 2 * W ? 1 : 2;
            vec y = v_load(to + d), z = n > 1 ? v_load(to + d + W) : v_set(0);

            for (int i = 0; i < x->r; i++) {
                const float *w = u + (size_t)i * (size_t)D + d;

                y = v_fma(v_set(c[i]), v_load(w), y);
                z = n > 1 ? v_fma(v_set(c[i]), v_load(w + W), z) : z;
            }
            v_store(to + d, y);
            if (n > 1)
                v_store(to + d + W, z);
        }
    }
    x->codec = 0;
}

/* Values of a page with a basis: coefficients are summed. */
static void sum_values(const kept_attn_tile *a, int i, const struct rows *rows, struct sums *x)
{
    const int codec = kept_tile_codec(a, i).v, n = rows->n;
    const int inner = kept_codec_get(codec)->inner;
    const struct packed v = open_packed(a, i, true);
    const struct half h = {v.at, (const kept_f16 *)(const void *)(v.at + v.ahead)};

    if (x->codec != codec) {
        fold_sums(a, x, n);
        x->codec = codec;
        x->r = v.D;
        memset(x->acc, 0, (size_t)n * (size_t)v.D * sizeof *x->acc);
    }
    for (int r = 0; r < n && packed_values[inner]; r += PK_ROWS)
        packed_values[inner](n - r < PK_ROWS ? n - r : PK_ROWS, &v, rows->s + r * P64,
                             x->acc + (size_t)r * (size_t)v.D);
    for (int r = 0; r < n && !packed_values[inner]; r += ROWS) {
        const int nr = n - r < ROWS ? n - r : ROWS;
        FOR_ROWS(nr, pv_few, &h, kept_tile_seen(a, i, 0), rows->s + r * P64,
                 x->acc + (size_t)r * (size_t)v.D, v.D)
    }
}

#endif
