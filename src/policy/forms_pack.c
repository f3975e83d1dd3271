/* forms_pack: full pages of a head get the form that the codec gives them: after a pass, after an
 * eviction, and when the prompt is in. */
#include "policy/parts.h"
#include "policy/select.h"

#include <math.h>
#include <string.h>

#define P64         KEPT_PAGE_SLOTS
#define THIN_WINDOW 32 /* ThinK: queries by which channels are chosen */

int kept_form_recent(const kept_strategy *s)
{
    const int k = (int)s->option[KEPT_AXIS_CODEC][KEPT_STORE_K];
    return kept_form_is(s, &kept_part_store) && kept_codec_is_thin(k) ? THIN_WINDOW : 0;
}

/* What a channel of the keys of a head weighs (ThinK eq. 5: a channel's part of the scores is at
 * most the length of its queries times that of its keys; squares order alike). */
static void weigh_channels(const kept_packing *p, const float *recent, int n_recent, int at,
                           float *weight)
{
    const size_t D = (size_t)p->head_size, row = (size_t)p->group * D;
    const int layer = at / p->n_heads, head = at % p->n_heads;
    memset(weight, 0, D * sizeof *weight);
    for (int t = 0; t < n_recent; t++) {
        const float *q =
            recent +
            (((size_t)layer * (size_t)n_recent + (size_t)t) * (size_t)p->n_heads + (size_t)head) *
                row;
        for (size_t i = 0; i < row; i++)
            weight[i % D] += q[i] * q[i];
    }
}

enum { N_LOSSY = 4, N_CHOICES };

/* What stays the same from head to head. */
typedef struct packer {
    const kept_strategy *s;
    const kept_packing *p;
    const float *recent;
    int n_recent;     /* -1: not asked for yet */
    int at, n_layers; /* of the layers that evict: this one, and all */
    /* calibrated: price of a byte (0: not known yet), losses and bytes of the widths, of keys and
     * of values */
    double price;
    const float *loss[2][N_LOSSY];
    size_t bytes[2][N_CHOICES];
} packer;

/* Pages of a group of layers, when its last one is at hand. A group with windowed layers is none.
 */
static kept_status pack_shared(const kept_packing *p, int l, int h, kept_codecs form, int skip)
{
    const int g = kept_codec_layers(form), first = l / g * g;
    const int last = (first + g < p->n_layers ? first + g : p->n_layers) - 1;
    for (int k = first; p->windowed && k <= last; k++)
        if (p->windowed[k])
            return KEPT_OK;
    return l == last ? kept_cache_pack_joint(p->cache, first, h, form, skip) : KEPT_OK;
}

static kept_status pack_stored(packer *x, int l, int h)
{
    const kept_packing *p = x->p;
    const kept_codecs form = kept_strategy_form(x->s, x->at, x->n_layers);
    const bool thin = kept_codec_is_thin(form.k);
    float weight[KEPT_MAX_HEAD_SIZE];
    if (kept_codec_layers(form) > 1)
        return pack_shared(p, l, h, form, kept_strategy_residual(x->s));
    if (thin && p->recent && x->n_recent < 0)
        x->recent = p->recent(p->ctx, &x->n_recent);
    if (thin && x->recent)
        weigh_channels(p, x->recent, x->n_recent, l * p->n_heads + h, weight);
    return kept_cache_pack(p->cache, l, h, form, kept_strategy_residual(x->s),
                           thin && x->recent ? weight : NULL);
}

/* Pages by age, the oldest first: a page is as old as its youngest slot. */
static kept_status pack_aged(packer *x, int l, int h)
{
    const kept_packing *p = x->p;
    const int n = kept_cache_n(p->cache, l, h) / P64;
    const kept_rungs r = kept_form_rungs(x->s, x->at, x->n_layers, n);
    int32_t *young = p->work, *order = young + n + n % 2;
    uint64_t *sorting = (uint64_t *)(void *)(order + n + n % 2);
    kept_status st = KEPT_OK;
    kept_cache_read(p->cache, l, h, p->work, NULL, NULL);
    for (int i = 0; i < n; i++) {
        int32_t last = 0;
        for (int k = i * P64; k < (i + 1) * P64; k++)
            last = p->work[k] > last ? p->work[k] : last;
        young[i] = last;
    }
    kept_order_positions(young, n, order, sorting);
    for (int i = 0; i < n && !st; i++) {
        const int rung = i < r.pages[2] ? 2 : i < r.pages[2] + r.pages[1] ? 1 : 0;
        st = kept_cache_narrow(p->cache, l, h, order[i], r.form[rung]);
    }
    return st;
}

/* Pages that filled since the last eviction, which grades them: until then they are at their best.
 */
static kept_status pack_graded(packer *x, int l, int h)
{
    const kept_packing *p = x->p;
    const int n = kept_cache_n(p->cache, l, h) / P64;
    const kept_codecs form =
        kept_form_is(x->s, &kept_part_ranked)
            ? kept_form_rungs(x->s, x->at, x->n_layers, n).form[0]
            : kept_water_form(x->s, x->at, x->n_layers, kept_water_most(x->s, x->at, x->n_layers));
    return kept_cache_pack(p->cache, l, h, form, 0, NULL);
}

/* ---- calibrated ------------------------------------------------------------------------------
 *
 * The least sum of losses within the bytes, by the price of a byte: at a price every head takes the
 * width with the least loss and cost together, or (apart) its keys and its values do. The lowest
 * price at which the bytes suffice is found by bisection, which needs no memory and gives the same
 * widths for the same pages. The outermost layers (edge) are besides. */

/* Full pages of a head; layers that are still to be read will hold as many as the longest. */
static int pages_of(const kept_packing *p, int l, int h)
{
    int most = 0;
    if (l < p->to)
        return kept_cache_n(p->cache, l, h) / P64;
    for (int k = 0; k < p->to; k++)
        for (int i = 0; i < p->n_heads && !(p->windowed && p->windowed[k]); i++) {
            const int n = kept_cache_n(p->cache, k, i) / P64;
            most = n > most ? n : most;
        }
    return most;
}

/* Width of halves [first, last] of a head at that price; of equal ones the narrower. */
static int width_of(const packer *x, const int head[2], const int half[2], double price)
{
    const int most = (int)x->s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_MOST];
    const int n = pages_of(x->p, head[0], head[1]), at = head[0] * x->p->n_heads + head[1];
    double least = INFINITY;
    int best = 0;
    for (int w = 0; w <= most; w++) {
        double sum = 0;
        for (int v = half[0]; v <= half[1]; v++)
            sum +=
                (w < N_LOSSY ? (double)x->loss[v][w][at] : 0) + price * n * (double)x->bytes[v][w];
        if (sum < least) {
            least = sum;
            best = w;
        }
    }
    return best;
}

static void widths_of(const packer *x, int l, int h, double price, int width[2])
{
    const bool apart = x->s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_APART] != 0;
    const int head[2] = {l, h};
    width[0] = width_of(x, head, (const int[2]){0, !apart}, price);
    width[1] = apart ? width_of(x, head, (const int[2]){1, 1}, price) : width[0];
}

static bool affords(const packer *x, double price)
{
    const kept_packing *p = x->p;
    double left = 0;
    uint8_t as;
    for (int l = 0, at = 0; l < p->n_layers; l++) {
        if (p->windowed && p->windowed[l])
            continue;
        const double each = kept_form_mean_bytes(x->s, at, x->n_layers, p->head_size);
        for (int h = 0; h < p->n_heads && !kept_form_at_edge(x->s, at, x->n_layers, &as); h++) {
            int w[2];
            widths_of(x, l, h, price, w);
            left += pages_of(p, l, h) * (each - (double)(x->bytes[0][w[0]] + x->bytes[1][w[1]]));
        }
        at++;
    }
    return left >= 0;
}

static void find_price(packer *x)
{
    static const char *const name[2][N_LOSSY] = {{"k-rot2", "k-rot3", "k-rot4", "k-q8"},
                                                 {"v-rot2", "v-rot3", "v-rot4", "v-q8"}};
    double low = -140, high = 40; /* of a byte, log 2 */
    for (int v = 0; v < 2; v++)
        for (int w = 0; w < N_CHOICES; w++) {
            size_t n;
            x->bytes[v][w] = kept_codec_half_bytes(kept_water_codec[w], v, x->p->head_size);
            if (w < N_LOSSY)
                x->loss[v][w] = kept_trained_array(x->p->bits, name[v][w], &n);
        }
    x->price = exp2(low);
    if (affords(x, x->price))
        return;
    for (int i = 0; i < 64; i++) {
        const double mid = (low + high) / 2;
        *(affords(x, exp2(mid)) ? &high : &low) = mid;
    }
    x->price = exp2(high);
}

static kept_status pack_calibrated(packer *x, int l, int h)
{
    const kept_packing *p = x->p;
    kept_status st = KEPT_OK;
    uint8_t as;
    int w[2];
    if (!p->bits) /* who let it begin without has been told */
        return KEPT_OK;
    if (!x->price)
        find_price(x);
    widths_of(x, l, h, x->price, w);
    const kept_codecs form = kept_form_at_edge(x->s, x->at, x->n_layers, &as)
                                 ? (kept_codecs){as, as}
                                 : (kept_codecs){kept_water_codec[w[0]], kept_water_codec[w[1]]};
    for (int i = 0; i < kept_cache_n(p->cache, l, h) / P64 && !st; i++)
        st = kept_cache_narrow(p->cache, l, h, i, form);
    return st;
}

kept_status kept_strategy_pack(const kept_strategy *s, const kept_packing *p)
{
    packer x = {.s = s, .p = p, .n_recent = -1};
    kept_status (*pack)(packer *, int, int) = kept_form_is(s, &kept_part_aged) ? pack_aged
                                              : kept_form_grades(s)            ? pack_graded
                                              : kept_form_is(s, &kept_part_calibrated)
                                                  ? pack_calibrated
                                                  : pack_stored;
    for (int l = 0; l < p->n_layers; l++)
        x.n_layers += !(p->windowed && p->windowed[l]);
    for (int l = 0; l < p->to; l++) {
        if (p->windowed && p->windowed[l])
            continue;
        for (int h = 0; h < p->n_heads && l >= p->from; h++) {
            if (p->fresh && kept_cache_n(p->cache, l, h) % P64 >= p->fresh)
                continue; /* no page has been filled */
            kept_status st = pack(&x, l, h);
            if (st)
                return st;
        }
        x.at++;
    }
    return KEPT_OK;
}
