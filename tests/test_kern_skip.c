/* Leaving out values of pages that nobody weighs: every level, F16 and packed pages, one query and
 * several, against softmax sums in double precision over what the pages hold. Which pages are idle
 * is made plain: scores of a page are near one number, and these are far apart. */
#include "test.h"

#include "kern/kern.h"

#include <math.h>
#include <stdlib.h>

enum { PAGES = 6, MAX_ROWS = 12 };

static uint64_t seed = 3;
static float uniform(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (float)(seed >> 40) / 16777216.0f;
}

typedef struct rig {
    int D, G, n_q;
    kept_codecs form;
    float q[MAX_ROWS * KEPT_MAX_HEAD_SIZE];
    float k[PAGES * 64 * KEPT_MAX_HEAD_SIZE], v[PAGES * 64 * KEPT_MAX_HEAD_SIZE]; /* as held */
    uint8_t *pool;
    int32_t pages[PAGES];
    kept_codecs forms[PAGES];
} rig;

/* Channel 0 of every query is 4 and of every key on page i level[i]; the rest is small. */
static void make(rig *x, const double *level)
{
    const size_t D = (size_t)x->D, f16 = kept_page_bytes(x->D);
    uint8_t *page = aligned_alloc(64, f16);
    x->pool = aligned_alloc(64, PAGES * f16);
    for (int i = 0; i < MAX_ROWS * x->D; i++)
        x->q[i] = i % x->D ? uniform() - 0.5f : 4;
    for (int i = 0; i < PAGES; i++) {
        const kept_packed to = {.at = x->pool + (size_t)i * f16, .c = x->form, .head_size = x->D};
        for (int s = 0; s < 64; s++) {
            float k[KEPT_MAX_HEAD_SIZE], v[KEPT_MAX_HEAD_SIZE];
            for (int d = 0; d < x->D; d++) {
                k[d] = d ? 0.5f * (uniform() - 0.5f) : (float)level[i];
                v[d] = 4 * uniform() - 2;
            }
            kept_kern_get("ref")->put(page, x->D, s, k, v);
        }
        kept_codec_pack(to, page);
        kept_codec_read(to, 0, 64, x->k + (size_t)i * 64 * D, x->v + (size_t)i * 64 * D);
        x->forms[i] = x->form;
        x->pages[i] = (int32_t)((size_t)i * f16 / 64);
    }
    free(page);
}

/* Sums of one row in base e; idle [PAGES]: what to leave out. */
static void sums(const rig *x, int row, const bool *idle, double *l, double *acc)
{
    const float *q = x->q + row * x->D;
    double s[PAGES * 64], top = -INFINITY;
    for (int i = 0; i < PAGES * 64; i++) {
        s[i] = 0;
        for (int d = 0; d < x->D; d++)
            s[i] += (double)q[d] * x->k[i * x->D + d];
        top = fmax(top, s[i]);
    }
    *l = 0;
    memset(acc, 0, (size_t)x->D * sizeof *acc);
    for (int i = 0; i < PAGES * 64; i++) {
        *l += exp(s[i] - top);
        for (int d = 0; d < x->D && !idle[i / 64]; d++)
            acc[d] += exp(s[i] - top) * x->v[i * x->D + d];
    }
}

static void check(const kept_kern *kern, rig *x, float skip, const bool *idle, double tolerance)
{
    static float m[MAX_ROWS], l[MAX_ROWS], acc[MAX_ROWS * KEPT_MAX_HEAD_SIZE];
    uint8_t skipped[PAGES];
    memset(skipped, 7, sizeof skipped);
    const kept_attn_tile t = {.head_size = x->D,
                              .group = x->G,
                              .n_q = x->n_q,
                              .q = x->q,
                              .q_stride_t = (size_t)(x->G * x->D),
                              .q_stride_g = (size_t)x->D,
                              .scale = 1.44269504f,
                              .pool = x->pool,
                              .page_bytes = 64,
                              .pages = x->pages,
                              .n_pages = PAGES,
                              .codec = kept_codec_is_f16(x->form) ? NULL : x->forms,
                              .visible = PAGES * 64,
                              .skip = skip,
                              .skipped = skipped,
                              .m = m,
                              .l = l,
                              .acc = acc};
    kern->attend(&t);
    for (int i = 0; i < PAGES; i++)
        CHECK_INT(skipped[i], skip > 0 ? idle[i] : 7); /* untouched where it is off */
    for (int r = 0; r < x->n_q * x->G; r++) {
        double want_l, want[KEPT_MAX_HEAD_SIZE];
        sums(x, r, idle, &want_l, want);
        for (int d = 0; d < x->D; d++)
            CHECK_NEAR((double)acc[r * x->D + d] / (double)l[r], want[d] / want_l, tolerance);
    }
}

static void levels(void)
{
    static const kept_codecs forms[] = {
        {KEPT_F16, KEPT_F16}, {KEPT_Q8, KEPT_Q8}, {KEPT_Q8, KEPT_Q4}, {KEPT_F16, KEPT_TOK4}};
    /* Weights relative to the running maximum: 1, e-8, 1 (raises it), e-16, e-4, e-12. */
    static const double level[PAGES] = {0, -2, 2, -2, 1, -1};
    static const bool none[PAGES] = {false}, far[PAGES] = {0, 0, 0, 1, 0, 1},
                      more[PAGES] = {0, 1, 0, 1, 0, 1};
    const char *names[8];
    const int n = kept_kern_levels(names, 8);
    for (int i = 0; i < n; i++)
        for (int f = 0; f < 4; f++)
            for (int shape = 0; shape < 4; shape++) {
                static rig x;
                x = (rig){.D = shape % 2 ? 80 : 64,
                          .G = shape < 2 ? 3 : 1,
                          .n_q = shape < 2 ? 1 : 4,
                          .form = forms[f]};
                if (shape % 2 && f == 3)
                    x.D = 96; /* groups of 32 channels */
                make(&x, level);
                /* A single query of packed pages is rounded to integers. */
                const double tolerance = f && x.n_q == 1 ? 0.02 : 2e-4;
                check(kept_kern_get(names[i]), &x, 0, none, tolerance);
                check(kept_kern_get(names[i]), &x, 1e-4f, far, tolerance);
                check(kept_kern_get(names[i]), &x, 2e-3f, more, tolerance);
                free(x.pool);
            }
}

int main(void)
{
    RUN(levels);
    TEST_END();
}
