/* sparse-v: values of a page are left out where nobody weighs them (sparse-V skipping, as in
 * turboquant_plus for llama.cpp). All keys are read: the weights decide. */
#include "kept/policy.h"

static const kept_option options[] = {
    {"below", 20, 1, 100, false, NULL,
     "halvings of the greatest weight so far, below which a page's values are not read"},
};
const kept_read kept_read_sparse_v = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_READ,
             .name = "sparse-v",
             .summary =
                 "every key is read, and the values of pages of which some slot weighs enough",
             .paper = "turboquant_plus (sparse V)",
             .deviations = "whole pages of 64 slots, for all query heads of the KV head together "
                           "(there: single slots); weights are relative to the greatest of the "
                           "same 8 pages so far, not of all (2^-20 is the 1e-6 there), and what is "
                           "left out still counts in "
                           "the sum that the others are divided by",
             .options = options,
             .n_options = 1},
    .skips = true,
};
