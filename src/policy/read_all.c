/* all: every page that is held. And what the other ways of reading have in common. */
#include "kept/policy.h"

const char *const kept_read_gqa_names[] = {"max", "sum", "soft", NULL};

const kept_read kept_read_all = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_READ,
             .name = "all",
             .summary = "a decode step reads every page that is held",
             .paper = "",
             .deviations = ""},
};
