/* tokens: no wrapper: every token is kept or dropped by its own score. */
#include "kept/policy.h"

const kept_wrapper kept_wrap_tokens = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_WRAPPER,
             .name = "tokens",
             .summary = "every token by its own score",
             .paper = "",
             .deviations = ""},
};
