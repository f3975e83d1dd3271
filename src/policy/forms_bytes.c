/* forms_bytes: what the forms of pages make of a budget.
 *
 * A page is 256 D bytes while it fills and stays so among the newest `residual` slots; any other is
 * packed into P bytes. A head of n slots holds its last n % 64 slots and 64 R residual ones as F16:
 *
 *     bytes(n) <= n P/64 + min(n, 64 R + 63) (256 D - P)/64
 *
 * The right side is what a budget counts per head. It grows by at most 4 D a slot and is concave,
 * so for a number of slots it is largest where heads hold equally many: a total that fits so fits
 * however heads share it, and what is really held exceeds a budget by the rest of the newest page
 * only. Forms by age and by rank are such sums of more pieces, the widest first, so the same holds.
 */
#include "policy/parts.h"

#include <math.h>

#define P64 KEPT_PAGE_SLOTS

double kept_form_mean_bytes(const kept_strategy *s, int l, int n_layers, int head_size)
{
    uint8_t as;
    if (kept_form_at_edge(s, l, n_layers, &as))
        return (double)kept_codec_page_bytes((kept_codecs){as, as}, head_size);
    return s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_BITS] / 8 * (2 * P64 * head_size);
}

/* A piece of the sum above: so many slots of a head at so many bytes each. */
typedef struct piece {
    double slots, bytes;
} piece;

static double slot_bytes(kept_codecs form, int head_size)
{
    return (double)kept_codec_page_bytes(form, head_size) / P64;
}

/* The pieces of a head of the l-th layer, the last without end. Shares of a head's pages are one
 * piece of their mean: how many pages that makes is rounded down where they are wider. */
static int pieces_of(const kept_strategy *s, int l, int n_layers, int head_size, piece out[4])
{
    enum { MANY = 1 << 20 }; /* pages, so that every rung has its own */
    const kept_rungs r = kept_form_rungs(s, l, n_layers, MANY);
    const bool mean_bits = kept_form_is(s, &kept_part_calibrated);
    const bool shares = kept_form_is(s, &kept_part_ranked) ||
                        (kept_form_is(s, &kept_part_aged) &&
                         (int)s->option[KEPT_AXIS_CODEC][KEPT_AGED_IN] != KEPT_AGED_TOKENS);
    double mean = 0;
    int n = 0;
    if (!kept_form_is(s, &kept_part_waterfill)) /* which keeps whole pages */
        out[n++] = (piece){P64 - 1, slot_bytes((kept_codecs){KEPT_F16, KEPT_F16}, head_size)};
    for (int i = 0; i < 3; i++) {
        const double bytes = slot_bytes(r.form[i], head_size);
        mean += bytes * r.pages[i] / MANY;
        if (!shares && !mean_bits)
            out[n++] = (piece){i == 2 ? INFINITY : (double)r.pages[i] * P64, bytes};
    }
    if (shares)
        out[n++] = (piece){INFINITY, mean};
    if (mean_bits)
        out[n++] = (piece){INFINITY, kept_form_mean_bytes(s, l, n_layers, head_size) / P64};
    return n;
}

double kept_form_spends(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                        int32_t full_tokens)
{
    const double full = (double)n_layers * n_heads * full_tokens * 4 * head_size;
    if (!kept_form_is(s, &kept_part_waterfill))
        return 0;
    return s->budget_kind == KEPT_BUDGET_BYTES ? s->budget : s->budget * full / 100;
}

int64_t kept_form_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                        double bytes)
{
    const bool even =
        kept_strategy_allocator(s)->even_layers; /* else any layer may get any share */
    piece all[4] = {{0, 0}};
    double left = bytes / n_heads, slots = 0;
    int n = 0;
    for (int l = 0; l < n_layers; l++) {
        piece x[4];
        n = pieces_of(s, l, n_layers, head_size, x);
        for (int i = 0; i < n; i++) {
            all[i].slots = x[i].slots;
            all[i].bytes = even ? all[i].bytes + x[i].bytes : fmax(all[i].bytes, x[i].bytes);
        }
    }
    for (int i = 0; i < n; i++) {
        const double each = even ? all[i].bytes : all[i].bytes * n_layers;
        const double take = fmin(all[i].slots, left / each);
        slots += take;
        left -= take * each;
        if (take < all[i].slots)
            break;
    }
    return (int64_t)floor(slots * n_layers * n_heads);
}

uint64_t kept_strategy_bytes(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                             uint64_t slots)
{
    const uint64_t heads = (uint64_t)n_layers * (uint64_t)n_heads, f16 = kept_page_bytes(head_size);
    uint64_t sum = 0;
    double mean = 0;
    for (uint64_t i = 0; i < heads; i++) {
        const int l = (int)(i / (uint64_t)n_heads);
        const uint64_t n = slots / heads + (i < slots % heads);
        const kept_rungs r = kept_form_rungs(s, l, n_layers, (int)(n / P64));
        if (kept_form_is(s, &kept_part_calibrated))
            mean += (double)(n / P64) * kept_form_mean_bytes(s, l, n_layers, head_size);
        for (int k = 0; k < 3 && !kept_form_is(s, &kept_part_calibrated); k++)
            sum += (uint64_t)r.pages[k] * kept_form_page_bytes(r.form[k], l, n_layers, head_size);
        sum += n % P64 ? f16 : 0;
    }
    return sum + (uint64_t)mean;
}
