/* recipes_codec: named combinations of what a slot is stored as. */
#include "policy/parts.h"

#define ANY_POSITION 1048576

#define RECIPE(id, named, says, expands, cites, differs)                                           \
    const kept_recipe kept_recipe_##id = {                                                         \
        .name = named, .summary = says, .spec = expands, .paper = cites, .deviations = differs}

RECIPE(bf16, "bf16", "keys and values as bfloat16", "store(k=bf16)", "", "");
RECIPE(q8, "q8", "8 bits, a scale per slot", "store(k=q8)", "", "");
RECIPE(q4, "q4", "4 bits after a rotation, a scale per slot", "store(k=q4)",
       "arXiv 2404.00456 (QuaRot)", "rounded to nearest, no calibration");
RECIPE(q4g, "q4g", "4 bits, a scale per slot and 32 channels", "store(k=q4g)", "", "");
RECIPE(rot4, "rot4", "4 bits after a rotation, levels of a Gaussian", "store(k=rot4)",
       "arXiv 2504.19874 (TurboQuant)", "without the paper's one-bit residual");
RECIPE(rot3, "rot3", "3 bits after a rotation, levels of a Gaussian", "store(k=rot3)",
       "arXiv 2504.19874 (TurboQuant)", "without the paper's one-bit residual");
RECIPE(rot2, "rot2", "2 bits after a rotation, levels of a Gaussian", "store(k=rot2)",
       "arXiv 2504.19874 (TurboQuant)", "without the paper's one-bit residual");
#define THINK(id, named, says, expands)                                                            \
    RECIPE(id, named, says, expands, "arXiv 2407.21018 (ThinK)",                                   \
           "chosen once a head, from the last 32 queries and the keys that are in full pages "     \
           "then; a page keeps a byte a channel that says which; values stay f16")
THINK(think75, "think75", "three quarters of the channels of keys, those that queries use most",
      "store(k=thin75)");
THINK(think50, "think50", "half of the channels of keys, those that queries use most",
      "store(k=thin50)");
THINK(think25, "think25", "a quarter of the channels of keys, those that queries use most",
      "store(k=thin25)");
#undef THINK
#define NUQ(id, says)                                                                              \
    RECIPE(id, #id, says, "store(k=" #id ")", "arXiv 2401.18079 (KVQuant)",                        \
           "levels of every KV head by itself, in units of deviation, not of range; errors are "   \
           "weighed by queries and by lengths of rows on a text (kept calibrate nuq), not by "     \
           "gradients; with s as many outliers in every page, those that the levels meet worst; "  \
           "of the first token the key stays whole (the paper: the value too)")
NUQ(nuq4, "4 bits, calibrated levels; keys before rotation, per channel, values per slot");
NUQ(nuq3, "3 bits, calibrated levels; keys before rotation, per channel, values per slot");
NUQ(nuq4s, "as nuq4, and the worst 1 % of the numbers of a page beside it as they are");
NUQ(nuq3s, "as nuq3, and the worst 1 % of the numbers of a page beside it as they are");
#undef NUQ
#define PALU_DIFFERS                                                                               \
    "of every KV head by itself, with the same rank for all of them; directions of keys and "      \
    "values on a calibration text (kept calibrate basis), not of the weights"
#define PALU(share, q8, says)                                                                      \
    RECIPE(palu##share##q8, "palu" #share #q8, says, "store(k=low" #share #q8 ")",                 \
           "arXiv 2407.21118 (Palu)", PALU_DIFFERS)
PALU(75, , "three quarters of the directions of keys and values, keys made again on read");
PALU(50, , "half of the directions of keys and values, keys made again on read");
PALU(25, , "a quarter of the directions of keys and values, keys made again on read");
PALU(50, q8, "half of the directions of keys and values, 8 bits each");
#undef PALU
#undef PALU_DIFFERS
#define XKV(id, form, says)                                                                        \
    RECIPE(id, #id, says, "store(k=" form ")", "arXiv 2503.18893 (xKV)",                           \
           "directions of a calibration text (kept calibrate basis), not of the prompt; of every " \
           "KV head by itself; groups of two and four layers; the same rank for keys and values")
XKV(xkv50, "pair100", "two layers share pages: as many coefficients as one layer has channels");
XKV(xkv25, "quad100", "four layers share pages: as many coefficients as one layer has channels");
XKV(xkv12, "quad50", "four layers share pages: half as many coefficients as one has channels");
#undef XKV
RECIPE(
    minicache, "minicache",
    "deeper half: two layers share the directions of keys and values, each has its lengths",
    "store(k=mini)", "arXiv 2405.14366 (MiniCache)",
    "directions of every KV head by itself; the 4 slots of a page whose angles are largest stay "
    "unmerged (the paper: those within 5 % of the range below the largest); t is 0.6; f16, where "
    "the paper also has 4 bits");
RECIPE(shadowkv, "shadowkv", "half of the directions of keys, and pages read by their mean key",
       "store(k=low50,v=f16)+landmarks(share=0.125)", "arXiv 2410.21465 (ShadowKV)",
       "values stay where they are (the paper: in host memory); directions of a calibration text, "
       "half of the head size where the paper has rank 160 of all heads together; pages of 64 "
       "slots (chunks of 8); no chunks set aside as outliers");
#undef RECIPE

static const kept_option kivi_options[] = {
    {"residual", 128, 0, ANY_POSITION, true, NULL, "newest slots of a head that stay f16"},
};
#define KIVI                                                                                       \
    .paper = "arXiv 2402.02750 (KIVI)",                                                            \
    .deviations = "values are packed a page at a time like keys (the paper: one token at a "       \
                  "time); keys are grouped by slots, which an eviction may reorder",               \
    .options = kivi_options, .n_options = 1
const kept_recipe kept_recipe_kivi4 = {
    .name = "kivi4",
    .summary = "4 bits, scales per channel for keys and per slot for values",
    .spec = "store(k=chan4,residual=$residual)",
    KIVI,
};
const kept_recipe kept_recipe_kivi2 = {
    .name = "kivi2",
    .summary = "2 bits, scales per channel for keys and per slot for values",
    .spec = "store(k=chan2,residual=$residual)",
    KIVI,
};

const kept_recipe kept_recipe_k4v3 = {
    .name = "k4v3",
    .summary = "keys in 4 bits, scales per channel; values in 3 after a rotation, levels of a "
               "Gaussian",
    .spec = "store(k=chan4,v=rot3)",
    .paper = "",
    .deviations = "",
};

const kept_recipe kept_recipe_aging = {
    .name = "aging",
    .summary = "f16, then q8, then q4, then gone, as tokens grow old",
    .spec = "recency+protect(recent=0)+aged",
    .paper = "",
    .deviations = "",
};

const kept_recipe kept_recipe_rdkv = {
    .name = "rdkv",
    .summary = "attention times length of value decides on eviction and bits together",
    .spec = "snapkv+values+waterfill",
    .paper = "arXiv 2605.08317 (RDKV)",
    .deviations = "the paper's weights are not public: attention of the last queries, pooled, "
                  "times the length of the value; for others: see waterfill",
};
