/* drop: no merging: what is dropped is gone. */
#include "kept/policy.h"

const kept_merge kept_merge_drop = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_MERGE,
             .name = "drop",
             .summary = "what is dropped is gone",
             .paper = "",
             .deviations = ""},
};
