/* forms_parts: the parts of the codec axis: what a slot is stored as. forms.c reads their options;
 * recipes_codec.c has the recipes. */
#include "policy/parts.h"

#define ANY_POSITION 1048576

const kept_part kept_part_f16 = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "f16",
    .summary = "keys and values stay as the forward pass writes them",
    .paper = "",
    .deviations = "",
};

/* In the order of kept_codec; some are for keys alone. */
static const char *const codecs[] = {
    "f16",     "bf16",    "q8",     "q4",      "q4g",    "rot4",   "rot3",   "rot2",
    "tok4",    "tok2",    "chan4",  "chan2",   "thin75", "thin50", "thin25", "pair100",
    "pair75",  "pair50",  "pair25", "quad100", "quad75", "quad50", "quad25", "mini",
    "flat75",  "flat50",  "flat25", "low100",  "low75",  "low50",  "low25",  "low75q8",
    "low50q8", "low25q8", "nuq4",   "nuq3",    "nuq4s",  "nuq3s",  NULL};
static const char *const edge_codecs[] = {"f16", "q8", NULL};

#define EDGE_OPTIONS(as)                                                                           \
    {"edge", 0, 0, 255, true, NULL, "first and last layers, as many each, that keep more bits"},   \
    {                                                                                              \
        "edge-as", 0, 0, 1, true, edge_codecs, as                                                  \
    }
#define AT_LEAST EDGE_OPTIONS("what these layers store at least")

static const kept_option store_options[] = {
    {"k", KEPT_Q8, KEPT_F16, KEPT_N_CODECS - 1, true, codecs, "what keys are stored as"},
    {"v", KEPT_Q8, KEPT_F16, KEPT_N_CODECS - 1, true, codecs,
     "what values are stored as; like keys if it is not said"},
    {"residual", 0, 0, ANY_POSITION, true, NULL,
     "newest slots of a head that stay f16, in whole pages; the page that fills does anyhow"},
    EDGE_OPTIONS("what these layers store"),
};
/* Values are stored like keys unless it is said; what is per channel for keys is per slot for them,
 * and channels are left out of keys alone. */
static double store_fallback(const double *o, int i)
{
    const int k = (int)o[KEPT_STORE_K];
    if (i != KEPT_STORE_V)
        return store_options[i].value;
    if (k == KEPT_CHAN4 || k == KEPT_CHAN2)
        return k == KEPT_CHAN4 ? KEPT_TOK4 : KEPT_TOK2;
    if (k >= KEPT_FLAT75 && k <= KEPT_FLAT25)
        return KEPT_LOW75 + k - KEPT_FLAT75;
    return kept_codec_is_thin(k) ? KEPT_F16 : k;
}

const kept_part kept_part_store = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "store",
    .summary = "full pages are packed, keys and values each in a form of their own",
    .paper = "arXiv 2404.00456 (rotation), 2402.02750 (chan, tok), 2504.19874 (rot), "
             "2407.21018 (thin), 2407.21118 (low), 2503.18893 (pair, quad), 2405.14366 (mini), "
             "2401.18079 (nuq)",
    .deviations =
        "keys are stored rotated to their positions; a page of 64 slots is packed when it is full "
        "and the prompt is in (schedule chunks: while it is read, so that later chunks attend to "
        "packed pages); layers with a sliding window stay f16",
    .options = store_options,
    .n_options = 5,
    .fallback = store_fallback,
};

/* In the order of kept_graded_keys and kept_graded_values. */
static const char *const graded_keys[] = {"f16",  "q8",    "q4",    "rot4", "rot3",
                                          "rot2", "chan4", "chan2", NULL};
static const char *const graded_values[] = {"f16", "q8", "q4", "rot4", "rot3", "rot2", NULL};

/* What values are unless it is said: as keys (where these have scales per channel, rotated), but no
 * wider than what goes before. Option i, of rungs from `keys` and from `values` on. */
static double graded_value(const double *o, int keys, int values, int i)
{
    enum { ROT4 = 3, ROT2 = 5, CHAN4 = 6, CHAN2 = 7 };
    const double key = o[keys + i - values];
    const double like = (int)key == CHAN4 ? ROT4 : (int)key == CHAN2 ? ROT2 : key;
    return i > values && o[i - 1] > like ? o[i - 1] : like;
}

#define LIKE_KEYS "; like keys if it is not said"
static const char *const age_units[] = {"tokens", "percent", NULL};

static const kept_option aged_options[] = {
    {"new", 0, 0, 7, true, graded_keys, "what keys of young pages are stored as"},
    {"mid", 1, 0, 7, true, graded_keys, "what they become after mid-after"},
    {"old", 2, 0, 7, true, graded_keys, "what they become after old-after"},
    {"mid-after", 128, 0, ANY_POSITION, true, NULL,
     "age at which a page becomes mid: slots of its head in younger pages, in whole pages (10 "
     "with in=percent)"},
    {"old-after", 512, 0, ANY_POSITION, true, NULL,
     "age at which it becomes old, whatever mid-after says (50 with in=percent)"},
    {"in", KEPT_AGED_TOKENS, 0, 1, true, age_units,
     "what ages count: slots, or percent of the slots that the head holds"},
    {"new-v", 0, 0, 5, true, graded_values, "values of young pages" LIKE_KEYS},
    {"mid-v", 1, 0, 5, true, graded_values, "what they become after mid-after" LIKE_KEYS},
    {"old-v", 2, 0, 5, true, graded_values, "what they become after old-after" LIKE_KEYS},
    AT_LEAST,
};

/* No wider than what goes before; ages in the unit. */
static double aged_fallback(const double *o, int i)
{
    const double usual = aged_options[i].value;
    if (i == KEPT_AGED_MID || i == KEPT_AGED_OLD)
        return o[i - 1] > usual ? o[i - 1] : usual;
    if (i >= KEPT_AGED_NEW_V && i <= KEPT_AGED_OLD_V)
        return graded_value(o, KEPT_AGED_NEW, KEPT_AGED_NEW_V, i);
    if (i > KEPT_AGED_OLD && (int)o[KEPT_AGED_IN] == KEPT_AGED_PERCENT)
        return i == KEPT_AGED_MID_AFTER ? 10 : i == KEPT_AGED_OLD_AFTER ? 50 : usual;
    return usual;
}

const kept_part kept_part_aged = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "aged",
    .summary = "pages get narrower as they grow old, in place: a ladder of forms",
    .paper = "",
    .deviations =
        "a page is as old as its youngest slot; a page that is packed again is unpacked to f16 "
        "and rounded once more, so what it lost it does not regain: a wider form is for pages to "
        "come; the last rung, eviction, is the score's and the budget's",
    .options = aged_options,
    .n_options = 11,
    .fallback = aged_fallback,
};

static const kept_option ranked_options[] = {
    {"top", 1, 0, 7, true, graded_keys, "what keys of the best pages of a head are stored as"},
    {"mid", 3, 0, 7, true, graded_keys, "what those of the next ones are"},
    {"low", 5, 0, 7, true, graded_keys, "what those of the others are"},
    {"top-part", 0.25, 0, 1, false, NULL, "part of a head's pages that is top, rounded down"},
    {"mid-part", 0.5, 0, 1, false, NULL, "part that is mid"},
    {"top-v", 1, 0, 5, true, graded_values, "values of the best pages" LIKE_KEYS},
    {"mid-v", 3, 0, 5, true, graded_values, "of the next ones" LIKE_KEYS},
    {"low-v", 5, 0, 5, true, graded_values, "of the others" LIKE_KEYS},
    AT_LEAST,
};

static double ranked_fallback(const double *o, int i)
{
    const double usual = ranked_options[i].value;
    if (i >= KEPT_RANKED_TOP_V && i <= KEPT_RANKED_LOW_V)
        return graded_value(o, KEPT_RANKED_TOP, KEPT_RANKED_TOP_V, i);
    return (i == KEPT_RANKED_MID || i == KEPT_RANKED_LOW) && o[i - 1] > usual ? o[i - 1] : usual;
}

#define GRADED                                                                                     \
    "slots are put in the order of their scores when they are scored, so that pages are alike "    \
    "inside; pages that are packed already keep their slots and only get narrower; pages that "    \
    "fill between two evictions are stored at the widest form; the best n % 64 slots are f16, "    \
    "in the page that fills"

const kept_part kept_part_ranked = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "ranked",
    .summary = "pages of a head are stored by rank: what scores most keeps more bits",
    .paper = "",
    .deviations = GRADED,
    .options = ranked_options,
    .n_options = 10,
    .fallback = ranked_fallback,
};

/* In the order of kept_water_codec. */
static const char *const water_codecs[] = {"rot2", "rot3", "rot4", "q8", "f16", NULL};

static const char *const water_scales[] = {"row", "channel", NULL};

static const kept_option waterfill_options[] = {
    {"most", 4, 0, 4, true, water_codecs, "the widest form"},
    {"least", 0, 0, 4, true, water_codecs, "the narrowest form that is not eviction"},
    {"power", 2, 0.01, 8, false, NULL, "of a score in the distortion that losing its slot causes"},
    {"lag", 0, 0, 3, true, NULL, "widths that values are narrower than keys"},
    {"keys", 0, 0, 1, true, water_scales,
     "what shares a scale in keys of 4 bits and fewer; channel, stored as chan4, chan4, chan2: for "
     "keys with a bias"},
    AT_LEAST,
};

const kept_part kept_part_waterfill = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "waterfill",
    .summary = "one budget of bytes for eviction and precision: every page of every head gets a "
               "width from 16 bits to 0 by reverse water-filling over any score",
    .paper = "arXiv 2605.08317 (RDKV)",
    .deviations =
        "widths are of pages of 64 slots, by the mean of their slots, and not of tokens or "
        "channels; what a slot is worth is its score to the power `power` (the paper's weights "
        "are not public); scores that heads cannot compare are parts of their head's sum; a head "
        "that does not keep all of its slots keeps whole pages; " GRADED,
    .options = waterfill_options,
    .n_options = 7,
};

static const kept_option calibrated_options[] = {
    {"bits", 4.5, 2, 16, false, NULL, "bits that a number takes in the mean, scales included"},
    {"most", 3, 0, 4, true, water_codecs, "the widest form of a head; the narrowest is rot2"},
    {"apart", 0, 0, 1, true, kept_off_on, "keys and values of a head each in a form of their own"},
    EDGE_OPTIONS("what these layers store, besides that mean"),
};

const kept_part kept_part_calibrated = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "calibrated",
    .summary = "every head in a form of its own, by what it was measured to lose: the least loss "
               "in all that a mean of bits allows",
    .paper = "",
    .deviations = "losses of heads are measured one at a time and added; a step of one head that "
                  "does not fit leaves its bits unspent; where heads hold unequally many pages the "
                  "mean is over pages, and a head may get narrower while others grow",
    .options = calibrated_options,
    .n_options = 5,
};

const kept_part kept_part_searched = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_CODEC,
    .name = "searched",
    .summary = "splits the budget between eviction and bits as a search on text found best: "
               "store(k=FORM) with the form of the nearest budget",
    .paper = "",
    .deviations = "searched with snapkv, whatever the score",
};
