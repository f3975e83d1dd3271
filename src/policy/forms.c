/* forms: the codec axis: in which form pages of a layer are kept, and what that makes of a budget.
 * Packing itself is in forms_pack.c.
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
#include <string.h>

#define P64         KEPT_PAGE_SLOTS
#define THIN_WINDOW 32 /* ThinK: queries by which channels are chosen */

/* The forms that pages may grow narrower by: rows move between pages of each. */
static const uint8_t graded[] = {KEPT_F16, KEPT_Q8, KEPT_Q4, KEPT_ROT4, KEPT_ROT3, KEPT_ROT2};

const uint8_t kept_water_codec[] = {KEPT_ROT2, KEPT_ROT3, KEPT_ROT4, KEPT_Q8, KEPT_F16};

static bool packs(const kept_strategy *s)
{
    return s->part[KEPT_AXIS_CODEC] && s->part[KEPT_AXIS_CODEC] != &kept_part_f16;
}

bool kept_form_is(const kept_strategy *s, const kept_part *codec)
{
    return s->part[KEPT_AXIS_CODEC] == codec;
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
    if (!kept_form_is(s, &kept_part_store))
        return (kept_codecs){KEPT_F16, KEPT_F16};
    const int edge = (int)o[KEPT_STORE_EDGE];
    const uint8_t at_edge = edge_codec[(int)o[KEPT_STORE_EDGE_AS]];
    if (l < edge || l >= n_layers - edge)
        return (kept_codecs){at_edge, at_edge};
    return kept_form_at((kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]}, l,
                        n_layers);
}

int kept_strategy_residual(const kept_strategy *s)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    return kept_form_is(s, &kept_part_store) ? ((int)o[KEPT_STORE_RESIDUAL] + P64 - 1) / P64 : 0;
}

static kept_codecs both(double choice)
{
    return (kept_codecs){graded[(int)choice], graded[(int)choice]};
}

/* What a page without any merit is stored as. */
static kept_codecs narrow_form(const kept_strategy *s, int l, int n_layers)
{
    if (!kept_form_is(s, &kept_part_waterfill))
        return kept_strategy_form(s, l, n_layers);
    const uint8_t k = kept_water_codec[(int)s->option[KEPT_AXIS_CODEC][KEPT_WATER_LEAST]];
    return (kept_codecs){k, k};
}

bool kept_form_grades(const kept_strategy *s)
{
    return kept_form_is(s, &kept_part_ranked) || kept_form_is(s, &kept_part_waterfill);
}

/* A ladder of forms, with pages up to either cut in the first and the second. */
static kept_rungs ladder(const double *form, const double cut[2], int n)
{
    kept_rungs r = {.pages = {(int)fmin(n, fmin(cut[0], cut[1]))}};
    for (int i = 0; i < 3; i++)
        r.form[i] = both(form[i]);
    r.pages[1] = (int)fmin(n, cut[1]) - r.pages[0];
    r.pages[2] = n - r.pages[0] - r.pages[1];
    return r;
}

#define FUZZ 1e-9 /* so that a part of n that is whole in decimals is whole */

kept_rungs kept_form_rungs(const kept_strategy *s, int l, int n_layers, int n)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    double cut[2];
    if (kept_form_is(s, &kept_part_aged)) {
        for (int i = 0; i < 2; i++) {
            const double at = o[KEPT_AGED_MID_AFTER + i];
            cut[i] = (int)o[KEPT_AGED_IN] == KEPT_AGED_TOKENS ? ceil(at / P64)
                                                              : floor(at / 100 * n + FUZZ);
        }
        return ladder(o + KEPT_AGED_NEW, cut, n);
    }
    if (kept_form_is(s, &kept_part_ranked)) {
        cut[0] = floor(o[KEPT_RANKED_TOP_PART] * n + FUZZ);
        cut[1] = floor((o[KEPT_RANKED_TOP_PART] + o[KEPT_RANKED_MID_PART]) * n + FUZZ);
        return ladder(o + KEPT_RANKED_TOP, cut, n);
    }
    const kept_codecs f16 = {KEPT_F16, KEPT_F16};
    const int wide = kept_strategy_residual(s) < n ? kept_strategy_residual(s) : n;
    return (kept_rungs){{f16, f16, narrow_form(s, l, n_layers)}, {wide, 0, n - wide}};
}

/* ---- what cannot be ------------------------------------------------------------------------- */

/* What stays F16 of a head: slots at its young end, whole pages. */
static int wide_slots(const kept_strategy *s)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (kept_form_is(s, &kept_part_store))
        return kept_strategy_residual(s) * P64;
    if (!kept_form_is(s, &kept_part_aged) || (int)o[KEPT_AGED_IN] != KEPT_AGED_TOKENS)
        return 0;
    const int last =
        graded[(int)o[KEPT_AGED_MID]] == KEPT_F16 ? KEPT_AGED_OLD_AFTER : KEPT_AGED_MID_AFTER;
    return graded[(int)o[KEPT_AGED_NEW]] == KEPT_F16 ? (int)ceil(o[last] / P64) * P64 : 0;
}

/* What makes that less. */
static const char *narrower_wide(const kept_strategy *s)
{
    return kept_form_is(s, &kept_part_store) ? "residual=0" : "a smaller mid-after";
}

/* Forms of a ladder: the first three options. */
static kept_status check_ladder(const kept_strategy *s, kept_error *err)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    const kept_option *option = s->part[KEPT_AXIS_CODEC]->options;
    for (int i = 0; i < 2; i++)
        if (kept_codec_get(graded[(int)o[i]])->bits < kept_codec_get(graded[(int)o[i + 1]])->bits)
            return kept_fail(err, KEPT_ARGUMENT,
                             "'%s' goes from wide to narrow, and %s=%s has more bits than %s=%s",
                             s->part[KEPT_AXIS_CODEC]->name, option[i + 1].name,
                             option[i + 1].choices[(int)o[i + 1]], option[i].name,
                             option[i].choices[(int)o[i]]);
    return KEPT_OK;
}

static kept_status check_aged(const kept_strategy *s, kept_error *err)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    const kept_option *option = kept_part_aged.options;
    const double most = (int)o[KEPT_AGED_IN] == KEPT_AGED_TOKENS ? INFINITY : 100;
    for (int i = KEPT_AGED_MID_AFTER; i <= KEPT_AGED_OLD_AFTER; i++)
        if (o[i] > most)
            return kept_fail(err, KEPT_ARGUMENT,
                             "%s=%.0f is more than 100 percent of a head; use in=tokens",
                             option[i].name, o[i]);
    return KEPT_OK;
}

static kept_status check_budget(const kept_strategy *s, kept_error *err)
{
    const double wide = kept_form_is(s, &kept_part_store)
                            ? s->option[KEPT_AXIS_CODEC][KEPT_STORE_RESIDUAL]
                            : wide_slots(s);
    if (s->budget_kind != KEPT_BUDGET_TOKENS || wide < s->budget || !wide)
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "the last %.0f slots of a head stay f16, and the budget is %.0f: nothing "
                     "would be packed; use %s or a larger budget",
                     wide, s->budget, narrower_wide(s));
}

/* Two axes decide the same, or the score does not let heads differ. */
static kept_status check_water(const kept_strategy *s, kept_error *err)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    const kept_option *option = kept_part_waterfill.options;
    const kept_score *score = kept_strategy_score(s);
    if (o[KEPT_WATER_LEAST] > o[KEPT_WATER_MOST])
        return kept_fail(err, KEPT_ARGUMENT, "least=%s has more bits than most=%s",
                         option[KEPT_WATER_LEAST].choices[(int)o[KEPT_WATER_LEAST]],
                         option[KEPT_WATER_MOST].choices[(int)o[KEPT_WATER_MOST]]);
    if (s->budget_kind == KEPT_BUDGET_TOKENS)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'waterfill' spends bytes: write the budget in %% or as a size such as "
                         "@64MiB");
    for (kept_axis a = KEPT_AXIS_ALLOCATOR; a < KEPT_N_AXES; a++)
        if ((a == KEPT_AXIS_ALLOCATOR || a == KEPT_AXIS_CONTROLLER) &&
            s->part[a] != kept_part_default(a))
            return kept_fail(err, KEPT_ARGUMENT,
                             "'waterfill' decides what every head keeps, so it takes no %s such "
                             "as '%s'",
                             kept_axis_name(a), s->part[a]->name);
    if (score->layer_shared || kept_strategy_wrapper(s)->layer_shared)
        return kept_fail(
            err, KEPT_ARGUMENT,
            "'waterfill' cuts every head by itself, and '%s' keeps the same tokens in "
            "all heads of a layer; use ranked",
            (score->layer_shared ? s->part[KEPT_AXIS_SCORE] : s->part[KEPT_AXIS_WRAPPER])->name);
    return KEPT_OK;
}

static kept_status check_graded(const kept_strategy *s, kept_error *err)
{
    const char *name = s->part[KEPT_AXIS_CODEC]->name;
    if (s->part[KEPT_AXIS_SCORE] == &kept_score_full.part)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' stores pages by what a score says of their slots, and 'full' says "
                         "nothing; write for example 'snapkv+%s@25%%'",
                         name, name);
    if (s->part[KEPT_AXIS_SCHEDULE] == &kept_part_layers)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' must have scored all slots before it can store one, so it cannot "
                         "evict by 'layers'; use the schedule prefill or chunks",
                         name);
    return kept_form_is(s, &kept_part_ranked) ? check_ladder(s, err) : check_water(s, err);
}

kept_status kept_form_check(const kept_strategy *s, kept_error *err)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (kept_form_is(s, &kept_part_aged)) {
        kept_status st = check_ladder(s, err);
        st = st ? st : check_aged(s, err);
        return st ? st : check_budget(s, err);
    }
    if (kept_form_grades(s))
        return check_graded(s, err);
    if (kept_form_is(s, &kept_part_searched) && s->budget_kind != KEPT_BUDGET_PERCENT)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'searched' looks up how to split a budget in %%; write for example "
                         "'snapkv+searched@12.5%%'");
    if (!kept_form_is(s, &kept_part_store))
        return KEPT_OK;
    const kept_status low = kept_form_check_low(s, err);
    if (low)
        return low;
    const kept_codec_info *k = kept_codec_get((int)o[KEPT_STORE_K]);
    if (kept_codec_is_thin((int)o[KEPT_STORE_K]) && kept_strategy_moves_keys(s))
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
    return check_budget(s, err);
}

static double bits_at(int width, int head_size)
{
    const kept_codecs c = {kept_water_codec[width], kept_water_codec[width]};
    return (double)kept_codec_page_bytes(c, head_size) * 8 / (2.0 * P64 * head_size);
}

static kept_status check_bits(const kept_strategy *s, int head_size, kept_error *err)
{
    const double bits = s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_BITS];
    const int most = (int)s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_MOST];
    if (bits >= bits_at(0, head_size) && bits <= bits_at(most, head_size))
        return KEPT_OK;
    return kept_fail(err, KEPT_UNSUPPORTED,
                     "'%s' stores heads of %d channels in %.9g to %.9g bits a number, not in "
                     "bits=%.9g",
                     kept_strategy_name(s), head_size, bits_at(0, head_size),
                     bits_at(most, head_size), bits);
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
    if (!s->n_states && kept_form_is(s, &kept_part_calibrated))
        return check_bits(s, head_size, err);
    if (s->n_states || !kept_form_is(s, &kept_part_store) ||
        kept_codec_fits((kept_codecs){(uint8_t)o[KEPT_STORE_K], (uint8_t)o[KEPT_STORE_V]},
                        head_size, &why))
        return KEPT_OK;
    return kept_fail(err, KEPT_UNSUPPORTED,
                     "'%s' cannot store heads of %d channels: %s; use q8, q4 or rot4",
                     kept_strategy_name(s), head_size, why);
}

/* The narrowest pages of all heads must fit. */
static kept_status holds_pages(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                               int32_t n_tokens, kept_error *err)
{
    const double heads = (double)n_layers * n_heads;
    const double page = (double)kept_codec_page_bytes(narrow_form(s, 0, 1), head_size);
    const double bytes = kept_form_spends(s, n_layers, n_heads, head_size, n_tokens);
    if (bytes >= heads * page || n_tokens < P64)
        return KEPT_OK;
    return kept_fail(
        err, KEPT_ARGUMENT,
        "'%s' holds whole pages, and one of the narrowest for each of %.0f heads takes "
        "%.0f bytes: of %d tokens its budget is %.0f; use a larger one",
        kept_strategy_name(s), heads, heads * page, (int)n_tokens, bytes);
}

kept_status kept_strategy_leaves_some(const kept_strategy *s, int n_layers, int n_heads,
                                      int head_size, int32_t n_tokens, kept_error *err)
{
    if (!s->n_states && kept_form_is(s, &kept_part_waterfill))
        return holds_pages(s, n_layers, n_heads, head_size, n_tokens, err);
    if (s->n_states || wide_slots(s) <= 0 || kept_strategy_is_full(s))
        return KEPT_OK;
    const int64_t slots = kept_strategy_budget_slots(s, n_layers, n_heads, head_size, n_tokens);
    const int64_t each = slots / ((int64_t)n_layers * n_heads);
    if (each > wide_slots(s))
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' leaves the last %d slots of a head in f16, and of %d tokens its budget "
                     "holds %lld: nothing would be packed; use %s or a larger budget",
                     kept_strategy_name(s), wide_slots(s), (int)n_tokens, (long long)each,
                     narrower_wide(s));
}

double kept_form_mean_bytes(const kept_strategy *s, int head_size)
{
    return s->option[KEPT_AXIS_CODEC][KEPT_CALIBRATED_BITS] / 8 * (2 * P64 * head_size);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

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
        out[n++] = (piece){INFINITY, kept_form_mean_bytes(s, head_size) / P64};
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
            mean += (double)(n / P64) * kept_form_mean_bytes(s, head_size);
        for (int k = 0; k < 3 && !kept_form_is(s, &kept_part_calibrated); k++)
            sum += (uint64_t)r.pages[k] * kept_form_page_bytes(r.form[k], l, n_layers, head_size);
        sum += n % P64 ? f16 : 0;
    }
    return sum + (uint64_t)mean;
}
