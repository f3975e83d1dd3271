/* packcheck: packed pages through the kernels. What a page holds is read back by the portable code
 * that every level shares (codec.h, lowrank.h), and attention over that is a softmax in double
 * precision. Several queries widen a page to floats and must agree as over F16 pages; a single one
 * is rounded to integers, whose error is a small part of the codec's own. Pages of coefficients and
 * of several layers have random directions. */
#include "bench/kerncheck.h"
#include "bench/lowdirs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    PAGES = 3,
    SLOTS = PAGES * KEPT_PAGE_SLOTS,
    G = KEPT_KERNCHECK_GROUP,
    QUERIES = 4,
    MAX_POS = 4096
};
#define FEW_TOLERANCE  0.006 /* of a single query: integers of 8 bits */
#define MANY_TOLERANCE 5e-5

typedef struct rig {
    int d;
    float *k, *v, *q; /* [SLOTS][D] as held, [QUERIES * G][D] */
    uint8_t *f16;     /* [KEPT_JOINT_LAYERS][PAGES] F16 pages */
    uint8_t *pool;    /* [PAGES] of two F16 pages' room: those of two layers take more than one */
    kept_lowdirs *dirs;
    int32_t pos[PAGES][KEPT_PAGE_SLOTS];
    float *m, *l, *acc;
    double *weight; /* [SLOTS] */
} rig;

/* Positions that follow each other in the first page, and in no order in the others. */
static void place_slots(rig *x, kept_rng *r)
{
    for (int i = 0; i < SLOTS; i++)
        x->pos[i / KEPT_PAGE_SLOTS][i % KEPT_PAGE_SLOTS] =
            i < KEPT_PAGE_SLOTS ? 100 + i : (int32_t)kept_rng_below(r, MAX_POS);
}

static bool rig_new(rig *x, int d, uint64_t seed)
{
    const size_t n = (size_t)d;
    kept_rng r;
    kept_rng_init(&r, seed);
    *x = (rig){.d = d};
    x->k = kept_aligned(64, SLOTS * n * 4), x->v = kept_aligned(64, SLOTS * n * 4);
    x->q = kept_aligned(64, QUERIES * G * n * 4), x->acc = kept_aligned(64, QUERIES * G * n * 4);
    x->f16 = kept_aligned(64, KEPT_JOINT_LAYERS * PAGES * kept_page_bytes(d));
    x->pool = kept_aligned(64, 2 * PAGES * kept_page_bytes(d));
    x->m = kept_aligned(64, 256), x->l = kept_aligned(64, 256);
    x->weight = kept_aligned(64, SLOTS * sizeof *x->weight);
    if (!x->k || !x->v || !x->q || !x->acc || !x->f16 || !x->pool || !x->m || !x->l || !x->weight ||
        kept_lowdirs_new(d, MAX_POS, seed, &x->dirs, NULL))
        return false;
    place_slots(x, &r);
    for (int i = 0; i < QUERIES * G * d; i++)
        x->q[i] = (float)kept_rng_normal(&r);
    for (int s = 0; s < KEPT_JOINT_LAYERS * SLOTS; s++) {
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
    kept_lowdirs_free(x->dirs);
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

/* Page i in one form, as the last of its layers reads it, and what it holds. */
static kept_packed pack_page(rig *x, int i, kept_codecs form)
{
    const size_t D = (size_t)x->d, f16 = kept_page_bytes(x->d);
    const int g = kept_codec_layers(form);
    const kept_low *low[KEPT_JOINT_LAYERS];
    const uint8_t *from[KEPT_JOINT_LAYERS];
    for (int l = 0; l < g; l++) {
        low[l] = &x->dirs->low[l];
        from[l] = x->f16 + (size_t)(l * PAGES + i) * f16;
    }
    const kept_packed to = {.at = x->pool + (size_t)i * 2 * f16,
                            .c = form,
                            .head_size = x->d,
                            .low = low[g - 1],
                            .pos = x->pos[i],
                            .layer = g - 1};
    if (g > 1)
        kept_codec_pack_joint(to, g, low, from);
    else
        kept_codec_pack(to, from[0]);
    kept_codec_read(to, 0, 64, x->k + (size_t)i * 64 * D, x->v + (size_t)i * 64 * D);
    return to;
}

/* Does a single query over pages of that form round it, or its weights, to integers? */
static bool rounds(kept_codecs form)
{
    const kept_codec_info *k = kept_codec_get(form.k), *v = kept_codec_get(form.v);
    return kept_codec_get(k->basis ? k->inner : form.k)->bits < 16 ||
           kept_codec_get(v->basis ? v->inner : form.v)->bits < 16;
}

/* Attends to all pages in one form: with one query, then with several. */
static const char *check_form(const kept_kern *kern, rig *x, kept_codecs form, kept_kerncheck *out)
{
    const size_t D = (size_t)x->d, f16 = kept_page_bytes(x->d);
    const kept_codecs forms[PAGES] = {form, form, form};
    int32_t pages[PAGES];
    const int32_t *pos[PAGES];
    kept_packed page = {.at = NULL};
    if (kept_lowdirs_need(x->dirs, form, NULL))
        return "memory for directions";
    for (int i = 0; i < PAGES; i++) {
        page = pack_page(x, i, form);
        pages[i] = i;
        pos[i] = x->pos[i];
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
                                  .page_bytes = 2 * f16,
                                  .pages = pages,
                                  .n_pages = PAGES,
                                  .codec = forms,
                                  .visible = SLOTS,
                                  .low = page.low,
                                  .slot_pos = pos,
                                  .layer = page.layer,
                                  .m = x->m,
                                  .l = x->l,
                                  .acc = x->acc};
        kern->attend(&t);
        const double error = error_of(x, n_q);
        double *most = n_q == 1 ? &out->packed_error : &out->widened_error;
        *most = fmax(*most, error);
        if (!(error <= (n_q == 1 && rounds(form) ? FEW_TOLERANCE : MANY_TOLERANCE)))
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
    for (uint8_t k = KEPT_N_PLAIN; k < KEPT_N_CODECS && !st && !out->failed; k++) {
        const bool flat = kept_codec_get(k)->basis == KEPT_BASIS_FLAT;
        const kept_codecs form = {k, flat ? (uint8_t)(k - KEPT_FLAT75 + KEPT_LOW75) : k};
        if (kept_codec_fits(form, head_size, NULL))
            out->failed = check_form(kern, &x, form, out);
    }
    rig_free(&x);
    return st;
}
