/* rest: the axis that says what a sequence is at rest. The engine carries it out (kept/park.h). */
#include "policy/parts.h"

#define ANY_POSITION 1048576

const kept_part kept_part_awake = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_REST,
    .name = "awake",
    .summary = "a sequence stays in memory; one that its owner parks comes back bit for bit",
    .paper = "",
    .deviations = "",
};

static const char *const bases[] = {"own", "calibrated", NULL};
static const kept_option park_options[] = {
    {"bits", 0, 0, 16, false, NULL, "a number of K and V at rest; 0: every bit comes back"},
    {"keys", 2, 0.0625, 16, false, NULL,
     "how coarse keys may get beside values, each in deviations of their own"},
    {"first", 4, 0, ANY_POSITION, true, NULL, "first positions, which come back bit for bit"},
    {"last", 128, 0, ANY_POSITION, true, NULL, "last positions, which come back bit for bit"},
    {"basis", 0, 0, 1, true, bases,
     "components of the sequence itself, stored with it, or those of the trained file 'basis'"},
};
const kept_part kept_part_park = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_REST,
    .name = "park",
    .summary = "parked between the prompt and the question; with bits=, as components in few bits",
    .paper = "arXiv 2511.01815 (KVTC)",
    .deviations =
        "components of each head's keys (before rotation) and values, not over heads and layers "
        "together, because heads evict on their own; they are the sequence's own, stored with it "
        "in "
        "8 bits a number and counted, unless basis=calibrated (the paper: calibrated); one step "
        "for "
        "all components of a half, whose rates are those of reverse water-filling (the paper: "
        "dynamic programming over groups); zstd's entropy stage (the paper: DEFLATE); pages that a "
        "codec has packed, and heads of fewer than 2 D such slots, stay as they are",
    .options = park_options,
    .n_options = 5,
};

static const kept_option kvtc_options[] = {
    {"bits", 2, 0.0625, 16, false, NULL, "a number of K and V at rest, bases included"},
    {"basis", 0, 0, 1, true, bases, "whose components: see park"},
};
const kept_recipe kept_recipe_kvtc = {
    .name = "kvtc",
    .summary = "KVTC: at rest, principal components in few bits",
    .spec = "park(bits=$bits,basis=$basis)",
    .paper = "arXiv 2511.01815",
    .deviations = "those of its part",
    .options = kvtc_options,
    .n_options = 2,
};

kept_rest kept_strategy_rest(const kept_strategy *s)
{
    const double *o = s->option[KEPT_AXIS_REST];
    if (s->part[KEPT_AXIS_REST] != &kept_part_park)
        return (kept_rest){.parks = false};
    return (kept_rest){.parks = true,
                       .bits = o[KEPT_PARK_BITS],
                       .keys = o[KEPT_PARK_KEYS],
                       .first = (int)o[KEPT_PARK_FIRST],
                       .last = (int)o[KEPT_PARK_LAST],
                       .calibrated = o[KEPT_PARK_BITS] > 0 && o[KEPT_PARK_BASIS] > 0};
}

const char *kept_rest_trained(const kept_strategy *s)
{
    return kept_strategy_rest(s).calibrated ? "basis" : NULL;
}
