/* forms_check: what the codec axis refuses, when a spec is read, a model known, or a prompt. */
#include "policy/parts.h"

#include <math.h>

#define P64 KEPT_PAGE_SLOTS

static bool is_wide(const double *o, int key, int value)
{
    return kept_graded_keys[(int)o[key]] == KEPT_F16 &&
           kept_graded_values[(int)o[value]] == KEPT_F16;
}

/* What stays F16 of a head: slots at its young end, whole pages. */
static int wide_slots(const kept_strategy *s)
{
    const double *o = s->option[KEPT_AXIS_CODEC];
    if (kept_form_is(s, &kept_part_store))
        return kept_strategy_residual(s) * P64;
    if (!kept_form_is(s, &kept_part_aged) || (int)o[KEPT_AGED_IN] != KEPT_AGED_TOKENS)
        return 0;
    const int last =
        is_wide(o, KEPT_AGED_MID, KEPT_AGED_MID_V) ? KEPT_AGED_OLD_AFTER : KEPT_AGED_MID_AFTER;
    return is_wide(o, KEPT_AGED_NEW, KEPT_AGED_NEW_V) ? (int)ceil(o[last] / P64) * P64 : 0;
}

/* What makes that less. */
static const char *narrower_wide(const kept_strategy *s)
{
    return kept_form_is(s, &kept_part_store) ? "residual=0" : "a smaller mid-after";
}

/* Rungs i and i + 1 of the options from `first` on. */
static kept_status check_rung(const kept_strategy *s, int first, int i, bool v, kept_error *err)
{
    const uint8_t *codec = v ? kept_graded_values : kept_graded_keys;
    const double *o = s->option[KEPT_AXIS_CODEC] + first + i;
    const kept_option *option = s->part[KEPT_AXIS_CODEC]->options + first + i;
    if (kept_form_compare(codec[(int)o[0]], codec[(int)o[1]], v) >= 0)
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' goes from wide to narrow, and %s=%s has more bits than %s=%s",
                     s->part[KEPT_AXIS_CODEC]->name, option[1].name, option[1].choices[(int)o[1]],
                     option[0].name, option[0].choices[(int)o[0]]);
}

/* Forms of a ladder, of keys the first three options, of values those from `values` on. */
static kept_status check_ladder(const kept_strategy *s, int values, kept_error *err)
{
    kept_status st = KEPT_OK;
    for (int i = 0; i < 2 && !st; i++) {
        st = check_rung(s, 0, i, false, err);
        st = st ? st : check_rung(s, values, i, true, err);
    }
    return st;
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
    return kept_form_is(s, &kept_part_ranked) ? check_ladder(s, KEPT_RANKED_TOP_V, err)
                                              : check_water(s, err);
}

/* Keys in that form, and what moves or rewrites them. */
static kept_status check_keys(const kept_strategy *s, int codec, kept_error *err)
{
    const kept_codec_info *k = kept_codec_get(codec);
    const char *is = kept_form_is(s, &kept_part_store) ? "k=" : "";
    const char *other = k->bits == 4 ? "q4" : "rot2";
    if (kept_codec_is_thin(codec) && kept_strategy_moves_keys(s))
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' turns channels of keys in pairs, and keys stored as %s have lost "
                         "some of them; use the position original, or k=q8",
                         s->part[KEPT_AXIS_POSITION]->name, k->name);
    if (k->channel && kept_strategy_moves_keys(s))
        return kept_fail(
            err, KEPT_ARGUMENT,
            "'%s' turns keys one by one, and keys stored as %s have scales for 32 slots "
            "together; use the position original, or %s%s",
            s->part[KEPT_AXIS_POSITION]->name, k->name, is, other);
    if (k->channel && kept_strategy_merge(s)->merge)
        return kept_fail(
            err, KEPT_ARGUMENT,
            "'%s' rewrites slots one by one, and keys stored as %s have scales for 32 slots "
            "together; leave it out, or use %s%s",
            s->part[KEPT_AXIS_MERGE]->name, k->name, is, other);
    return KEPT_OK;
}

kept_status kept_form_check(const kept_strategy *s, kept_error *err)
{
    enum { MANY = 1000 }; /* layers, so that one is in their midst */
    kept_status st = KEPT_OK;
    if (kept_form_is(s, &kept_part_aged)) {
        st = check_ladder(s, KEPT_AGED_NEW_V, err);
        st = st ? st : check_aged(s, err);
    }
    if (kept_form_grades(s))
        st = check_graded(s, err);
    if (kept_form_is(s, &kept_part_searched) && s->budget_kind != KEPT_BUDGET_PERCENT)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'searched' looks up how to split a budget in %%; write for example "
                         "'snapkv+searched@12.5%%'");
    st = st ? st : kept_form_check_low(s, err);
    const kept_rungs r = kept_form_rungs(s, MANY / 2, MANY, MANY);
    for (int i = 0; i < 3 && !st; i++)
        st = check_keys(s, r.form[i].k, err);
    return st || kept_form_grades(s) ? st : check_budget(s, err);
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
    const double bytes = kept_form_spends(s, n_layers, n_heads, head_size, n_tokens);
    double least = 0;
    for (int l = 0; l < n_layers; l++)
        least +=
            n_heads * (double)kept_codec_page_bytes(kept_form_narrowest(s, l, n_layers), head_size);
    if (bytes >= least || n_tokens < P64)
        return KEPT_OK;
    return kept_fail(err, KEPT_ARGUMENT,
                     "'%s' holds whole pages, and one of the narrowest for each of %d heads takes "
                     "%.0f bytes: of %d tokens its budget is %.0f; use a larger one",
                     kept_strategy_name(s), n_layers * n_heads, least, (int)n_tokens, bytes);
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
