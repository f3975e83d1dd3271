/* parts.c: the parts that the engine itself carries out (protection, schedule, position). None of
 * them has code of its own: evict.c and the engine read their options.
 */
#include "policy/parts.h"

#define ANY_POSITION 1048576
#define SLACK_HELP   "slots per head above the budget, on average, that are left alone"

const kept_part kept_part_unweighted = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_WEIGHT,
    .name = "unweighted",
    .summary = "scores count as they are",
    .paper = "",
    .deviations = "",
};
static const char *const value_kinds[] = {"l2", "output", "max", NULL};
static const kept_option values_options[] = {
    {"kind", 0, 0, 2, true, value_kinds,
     "l2: length of v; output: 1-norm of W_o v; max: largest 1-norm of a v in the head"},
    {"epsilon", 0, 0, 1, false, NULL, "added to the score first"},
};
const kept_part kept_part_values = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_WEIGHT,
    .name = "values",
    .summary = "scores are multiplied by how much the value of the token can change the output",
    .paper = "arXiv 2406.12335 (l2), 2502.03805 (output), 2509.09754 (max)",
    .deviations = "a score that can be negative counts from the lowest one of the head",
    .options = values_options,
    .n_options = 2,
};

static const char *const template_choices[] = {"off", "keep", "demote", NULL};
static const kept_option protect_options[] = {
    {"sinks", 4, 0, ANY_POSITION, true, NULL, "first positions never evicted"},
    {"recent", 32, 0, ANY_POSITION, true, NULL, "last positions never evicted"},
    {"first", 0, 0, 1, false, NULL, "part of the prompt's length, from its start, never evicted"},
    {"last", 0, 0, 1, false, NULL, "part of the prompt's length, from the end, never evicted"},
    {"template", KEPT_TEMPLATE_OFF, 0, 2, true, template_choices,
     "tokens of the chat template: as any other, never evicted, or evicted before all others"},
};
const kept_part kept_part_protect = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_PROTECTION,
    .name = "protect",
    .summary = "the first and the last positions stay, whatever their score",
    .paper = "arXiv 2309.17453 (sinks)",
    .deviations =
        "equal for every score unless written; where a head's even share of the budget "
        "is smaller than this, the recent window shrinks first, then the sinks; pinned "
        "spans never do, and template tokens go after the sinks; of sinks and first, and of "
        "recent and last, the larger counts; template=demote (kvpress #288) puts template "
        "tokens just below the lowest score of the head",
    .options = protect_options,
    .n_options = 5,
};

const kept_part kept_part_prefill = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "prefill",
    .summary = "evict once, when the prompt is in",
    .paper = "",
    .deviations = "",
};

static const kept_option decode_options[] = {
    {"every", 1, 1, ANY_POSITION, true, NULL, "decode steps between two evictions"},
    {"slack", 0, 0, ANY_POSITION, true, NULL, SLACK_HELP},
};
const kept_part kept_part_decode = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "decode",
    .summary = "evict when the prompt is in, then every few decode steps",
    .paper = "",
    .deviations = "between two evictions a head holds up to every + slack slots more than its "
                  "budget",
    .options = decode_options,
    .n_options = 2,
};

static const kept_option chunks_options[] = {
    {"decode", 0, 0, ANY_POSITION, true, NULL,
     "decode steps between two evictions after the prompt, 0: none"},
    {"slack", 0, 0, ANY_POSITION, true, NULL, SLACK_HELP},
};
const kept_part kept_part_chunks = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "chunks",
    .summary = "evict after every prefill chunk, so that the peak is bounded too",
    .paper = "",
    .deviations = "later chunks attend to what earlier evictions left",
    .options = chunks_options,
    .n_options = 2,
};

const kept_part kept_part_turns = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "turns",
    .summary = "evict when the prompt is in, then at the end of every turn",
    .paper = "",
    .deviations = "a budget in percent is of all tokens seen by then",
};

const kept_part kept_part_pressure = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "pressure",
    .summary = "evict nothing until the page pool runs short; who is furthest over budget shrinks",
    .paper = "",
    .deviations = "sequences of this schedule that share a pool hold what they like while there is "
                  "room; then the one that holds most of its budget is cut to it, and so on until "
                  "the pass fits",
};

const kept_part kept_part_layers = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_SCHEDULE,
    .name = "layers",
    .summary = "read the prompt layer by layer and evict each layer once the prompt is through it",
    .paper = "arXiv 2503.12491, 2509.09754 (cascading)",
    .deviations = "keeps what prefill keeps; the peak is one full layer, the kept ones, and the "
                  "prompt's hidden states and scores while it is read; needs an allocator that can "
                  "cut layers as they come",
};

const kept_part kept_part_original = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_POSITION,
    .name = "original",
    .summary = "keys stay rotated to the positions they were written at",
    .paper = "",
    .deviations = "",
};
const kept_part kept_part_slot = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_POSITION,
    .name = "slot",
    .summary = "keys are re-rotated after an eviction so that the gaps between positions close",
    .paper = "arXiv 2309.17453",
    .deviations = "the paper stores keys before rotation and numbers them from 0; here the newest "
                  "token keeps its position and older ones move up, which is the same to rotary "
                  "attention; a key moved again and again collects f16 rounding; only the "
                  "rotation of layers that evict changes",
};
const kept_part kept_part_rerotated = {
    .abi = KEPT_POLICY_ABI,
    .axis = KEPT_AXIS_POSITION,
    .name = "rerotated",
    .summary = "keys are re-rotated to positions 0, 1, 2 ... after an eviction, and so are queries",
    .paper = "kvpress KeyRerotationPress",
    .deviations =
        "the next position is the slots of the longest head: heads that keep fewer have a "
        "gap before it, where slot has none; every key moves, so each eviction rounds it "
        "to f16 again; only the rotation of layers that evict changes",
};
