/* forms: the codec axis: in which form pages of a layer are kept, and what that makes of a budget.
 *
 * A page is 256 D bytes while it fills and stays so among the newest `residual` slots; any other is
 * packed into P bytes. A head of n slots holds its last n % 64 slots and 64 R residual ones as F16:
 *
 *     bytes(n) <= n P/64 + min(n, 64 R + 63) (256 D - P)/64
 *
 * The right side is what a budget counts per head. It grows by at most 4 D a slot and is concave,
 * so for a number of slots it is largest where heads hold equally many: a total that fits so fits
 * however heads share it, and what is really held exceeds a budget by the rest of the newest page
 * only.
 */
#include "policy/parts.h"

#include <math.h>
#include <string.h>

#define P64         KEPT_PAGE_SLOTS
#define THIN_WINDOW 32 /* ThinK: queries by which channels are chosen */

static bool packs(const kept_strategy *s)
{
    return s->part[KEPT_AXIS_CODEC] == &kept_part_store;
}

bool kept_strategy_packs(const kept_strategy *s)
{
    for (int i = 0; i < s->n_states; i++)
        if (kept_strategy_packs(s->state[i]))
            return true;
    return !s->n_states && packs(s);
}

kept_codecs kept_strategy_form(const kept_strategy *s, int l, int n_layers)
{
    static const uint8_t edge_codec[] = {KEPT_F16, KEPT_Q8}; /* choices of edge-as */
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (!packs(s))
        return (kept_codecs){KEPT_F16, KEPT_F16};
    const int edge = (int)o[KEPT_STORE_EDGE];
    const uint8_t at_edge = edge_codec[(int)o[KEPT_STORE_EDGE_AS]];
    if (l < edge || l >= n_layers - edge)
        return (kept_codecs){at_edge, at_edge};
    return (kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]};
}

int kept_strategy_residual(const kept_strategy *s)
{
    return packs(s) ? ((int)s->option[KEPT_AXIS_CODEC][KEPT_STORE_RESIDUAL] + P64 - 1) / P64 : 0;
}

/* ---- what cannot be ------------------------------------------------------------------------- */

kept_status kept_form_check(const kept_strategy *s, kept_error *err)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (!packs(s))
        return KEPT_OK;
    const kept_status low = kept_form_check_low(s, err);
    if (low)
        return low;
    const kept_codec_info *k = kept_codec_get((int)o[KEPT_STORE_K]);
    if (k->quarters && kept_strategy_moves_keys(s))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' turns channels of keys in pairs, and keys stored as %s have lost "
                         "some of them; use the position original, or k=q8",
                         s->part[KEPT_AXIS_POSITION]->name, k->name);
    if (k->channel && kept_strategy_moves_keys(s))
        return kept_fail(
            err, KEPT_ARGUMENT,
            "'%s' turns keys one by one, and keys stored as %s have scales for 32 slots "
            "together; use the position original, or k=%s",
            s->part[KEPT_AXIS_POSITION]->name, k->name, k->bits == 4 ? "q4" : "rot2");
    if (k->channel && kept_strategy_merge(s)->merge)
        return kept_fail(
            err, KEPT_ARGUMENT,
            "'%s' rewrites slots one by one, and keys stored as %s have scales for 32 slots "
            "together; leave it out, or use k=%s",
            s->part[KEPT_AXIS_MERGE]->name, k->name, k->bits == 4 ? "q4" : "rot2");
    if (s->budget_kind == KEPT_BUDGET_TOKENS && o[KEPT_STORE_RESIDUAL] >= s->budget)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the last %.0f slots of a head stay f16, and the budget is %.0f: nothing "
                         "would be packed; use residual=0 or a larger budget",
                         o[KEPT_STORE_RESIDUAL], s->budget);
    return KEPT_OK;
}

kept_status kept_strategy_fits(const kept_strategy *s, int head_size, kept_error *err)
{
    for (int i = 0; i < s->n_states; i++) {
        kept_status st = kept_strategy_fits(s->state[i], head_size, err);
        if (st)
            return st;
    }
    const double *o = s->option[KEPT_AXIS_CODEC];
    const char *why = NULL;
    if (s->n_states || !packs(s) ||
        kept_codec_fits((kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]},
                        head_size, &why))
        return KEPT_OK;
    return kept_fail(err, KEPT_UNSUPPORTED,
                     "'%s' cannot store heads of %d channels: %s; use q8, q4 or rot4",
                     kept_strategy_name(s), head_size, why);
}

kept_status kept_strategy_leaves_some(const kept_strategy *s, int n_layers, int n_heads,
                                      int head_size, int32_t n_tokens, kept_error *err)
{
    if (s->n_states || !packs(s) || s->option[KEPT_AXIS_CODEC][KEPT_STORE_RESIDUAL] <= 0)
        return KEPT_OK;
    const int64_t slots = kept_strategy_budget_slots(s, n_layers, n_heads, head_size, n_tokens);
    const int64_t each = slots / ((int64_t)n_layers * n_heads);
    if (each > kept_strategy_residual(s) * P64)
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' leaves the last %d slots of a head in f16, and of %d tokens its budget "
                     "holds %lld: nothing would be packed; use residual=0 or a larger budget",
                     kept_strategy_name(s), kept_strategy_residual(s) * P64, (int)n_tokens,
                     (long long)each);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

int64_t kept_form_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                        double bytes)
{
    const double full = (double)kept_page_bytes(head_size) / P64;
    const double cap = kept_strategy_residual(s) * P64 + P64 - 1;
    double packed = 0, most = 0; /* bytes of a packed slot in all layers together, and in one */
    for (int l = 0; l < n_layers; l++) {
        const double x =
            (double)kept_codec_page_bytes(kept_strategy_form(s, l, n_layers), head_size) / P64;
        packed += x;
        most = x > most ? x : most;
    }
    if (!kept_strategy_allocator(s)->even_layers) /* any layer may get any share */
        packed = most * n_layers;
    const double more = full * n_layers - packed, each = bytes / n_heads;
    const double n =
        each <= cap * full * n_layers ? each / (full * n_layers) : (each - more * cap) / packed;
    return (int64_t)floor(n * n_layers * n_heads);
}

uint64_t kept_strategy_bytes(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                             uint64_t slots)
{
    const uint64_t heads = (uint64_t)n_layers * (uint64_t)n_heads, f16 = kept_page_bytes(head_size);
    const uint64_t residual = (uint64_t)kept_strategy_residual(s);
    uint64_t sum = 0;
    for (uint64_t i = 0; i < heads; i++) {
        const int l = (int)(i / (uint64_t)n_heads);
        const uint64_t n = slots / heads + (i < slots % heads), full = n / P64;
        const uint64_t packed = full > residual ? full - residual : 0;
        sum += packed *
               kept_form_page_bytes(kept_strategy_form(s, l, n_layers), l, n_layers, head_size);
        sum += ((n + P64 - 1) / P64 - packed) * f16;
    }
    return sum;
}

/* ---- packing -------------------------------------------------------------------------------- */

int kept_form_recent(const kept_strategy *s)
{
    return packs(s) && kept_codec_is_thin((int)s->option[KEPT_AXIS_CODEC][KEPT_STORE_K])
               ? THIN_WINDOW
               : 0;
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

kept_status kept_strategy_pack(const kept_strategy *s, const kept_packing *p)
{
    const int skip = kept_strategy_residual(s);
    const float *recent = NULL;
    int n_layers = 0, at = 0, n_recent = -1; /* not asked for yet */
    for (int l = 0; l < p->n_layers; l++)
        n_layers += !(p->windowed && p->windowed[l]);
    for (int l = 0; l < p->to; l++) {
        if (p->windowed && p->windowed[l])
            continue;
        const kept_codecs form = kept_strategy_form(s, at++, n_layers);
        for (int h = 0; h < p->n_heads && l >= p->from; h++) {
            if (p->fresh && kept_cache_n(p->cache, l, h) % P64 >= p->fresh)
                continue; /* no page has been filled */
            float weight[KEPT_MAX_HEAD_SIZE];
            const bool thin = kept_codec_is_thin(form.k);
            if (thin && p->recent && n_recent < 0)
                recent = p->recent(p->ctx, &n_recent);
            if (thin && recent)
                weigh_channels(p, recent, n_recent, l * p->n_heads + h, weight);
            kept_status st =
                kept_codec_layers(form) > 1
                    ? pack_shared(p, l, h, form, skip)
                    : kept_cache_pack(p->cache, l, h, form, skip, thin && recent ? weight : NULL);
            if (st)
                return st;
        }
    }
    return KEPT_OK;
}
