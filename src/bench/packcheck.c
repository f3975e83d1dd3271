/* packcheck: packed pages through the kernels. What a page holds is read back by the portable code
 * that every level shares (codec.h), and attention over that is a softmax in double precision.
 * Several queries widen a page to floats and must agree as over F16 pages; a single one is rounded
 * to integers, whose error is a small part of the codec's own. */
#include "bench/kerncheck.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 3, SLOTS = PAGES * KEPT_PAGE_SLOTS, G = KEPT_KERNCHECK_GROUP, QUERIES = 4 };
#define FEW_TOLERANCE  0.006 /* of a single query: integers of 8 bits */
#define MANY_TOLERANCE 5e-5

typedef struct rig {
    int d;
    float *k, *v, *q; /* [SLOTS][D] as held, [QUERIES * G][D] */
    uint8_t *f16, *pool;
    float *m, *l, *acc;
    double *weight; /* [SLOTS] */
} rig;

static bool rig_new(rig *x, int d, uint64_t seed)
{
    const size_t n = (size_t)d;
    kept_rng r;
    kept_rng_init(&r, seed);
    *x = (rig){.d = d};
    x->k = kept_aligned(64, SLOTS * n * 4), x->v = kept_aligned(64, SLOTS * n * 4);
    x->q = kept_aligned(64, QUERIES * G * n * 4), x->acc = kept_aligned(64, QUERIES * G * n * 4);
    x->f16 = kept_aligned(64, PAGES * kept_page_bytes(d));
    x->pool = kept_aligned(64, PAGES * kept_page_bytes(d));
    x->m = kept_aligned(64, 256), x->l = kept_aligned(64, 256);
    x->weight = kept_aligned(64, SLOTS * sizeof *x->weight);
    if (!x->k || !x->v || !x->q || !x->acc || !x->f16 || !x->pool || !x->m || !x->l || !x->weight)
        return false;
    for (int i = 0; i < QUERIES * G * d; i++)
        x->q[i] = (float)kept_rng_normal(&r);
    for (int s = 0; s < SLOTS; s++) {
        float k[KEPT_MAX_HEAD_SIZE], v[KEPT_MAX_HEAD_SIZE];
        for (int c = 0; c < d; c++) {
            k[c] = (float)kept_rng_normal(&r);
            v[c] = (float)kept_rng_normal(&r);
        }
        kept_kern_get("ref")->put(x->f16 + (size_t)(s / 64) * kept_page_bytes(d), d, s % 64, k, v);
    }
    return true;
}

static void rig_free(rig *x)
{
    free(x->k), free(x->v), free(x->q), free(x->acc), free(x->f16), free(x->pool);
    free(x->m), free(x->l), free(x->weight);
}

/* Largest error of rows [0, n_q * G) relative to the largest |V|. */
static double error_of(const rig *x, int n_q)
{
    double worst = 0, largest = 0;
    for (int i = 0; i < SLOTS * x->d; i++)
        largest = fmax(largest, fabs((double)x->v[i]));
    for (int r = 0; r < n_q * G; r++) {
        double top = -INFINITY, sum = 0;
        for (int s = 0; s < SLOTS; s++) {
            x->weight[s] = 0;
            for (int c = 0; c < x->d; c++)
                x->weight[s] += (double)x->q[r * x->d + c] * (double)x->k[s * x->d + c];
            x->weight[s] /= sqrt(x->d);
            top = fmax(top, x->weight[s]);
        }
        for (int s = 0; s < SLOTS; s++)
            sum += x->weight[s] = exp(x->weight[s] - top);
        for (int c = 0; c < x->d; c++) {
            double o = 0;
            for (int s = 0; s < SLOTS; s++)
                o += x->weight[s] / sum * (double)x->v[s * x->d + c];
            const double e = fabs((double)x->acc[r * x->d + c] / (double)x->l[r] - o) / largest;
            worst = e <= worst ? worst : isnan(e) ? INFINITY : e;
        }
    }
    return worst;
}

/* Attends to all pages in one form: with one query, then with several. */
static const char *check_form(const kept_kern *kern, rig *x, kept_codecs form, kept_kerncheck *out)
{
    const size_t D = (size_t)x->d, f16 = kept_page_bytes(x->d);
    const kept_codecs forms[PAGES] = {form, form, form};
    int32_t pages[PAGES];
    for (int i = 0; i < PAGES; i++) {
        const kept_packed to = {.at = x->pool + (size_t)i * f16, .c = form, .head_size = x->d};
        kept_codec_pack(to, x->f16 + (size_t)i * f16);
        kept_codec_read(to, 0, 64, x->k + (size_t)i * 64 * D, x->v + (size_t)i * 64 * D);
        pages[i] = i;
    }
    for (int n_q = 1; n_q <= QUERIES; n_q += QUERIES - 1) {
        const kept_attn_tile t = {.head_size = x->d,
                                  .group = G,
                                  .n_q = n_q,
                                  .q = x->q,
                                  .q_stride_t = G * D,
                                  .q_stride_g = D,
                                  .scale = (float)(1.4426950408889634 / sqrt(x->d)),
                                  .pool = x->pool,
                                  .page_bytes = f16,
                                  .pages = pages,
                                  .n_pages = PAGES,
                                  .codec = forms,
                                  .visible = SLOTS,
                                  .m = x->m,
                                  .l = x->l,
                                  .acc = x->acc};
        kern->attend(&t);
        const double error = error_of(x, n_q);
        double *most = n_q == 1 ? &out->packed_error : &out->widened_error;
        *most = fmax(*most, error);
        if (!(error <= (n_q == 1 ? FEW_TOLERANCE : MANY_TOLERANCE)))
            return n_q == 1 ? "attend, packed pages" : "attend, packed pages, several queries";
    }
    return NULL;
}

kept_status kept_packcheck_verify(const kept_kern *kern, int head_size, uint64_t seed,
                                  kept_kerncheck *out, kept_error *err)
{
    rig x;
    kept_status st = KEPT_OK;
    if (!rig_new(&x, head_size, seed))
        st = kept_fail(err, KEPT_NOMEM, "out of memory for checking kernels");
    for (int i = 0; i < 2 * KEPT_N_PLAIN && !st && !out->failed; i++) {
        const uint8_t codec = (uint8_t)(i / 2);
        const kept_codecs form = {i % 2 ? KEPT_Q8 : codec, i % 2 ? codec : KEPT_Q8};
        if (kept_codec_fits(form, head_size, NULL))
            out->failed = check_form(kern, &x, form, out);
    }
    rig_free(&x);
    return st;
}
