/* parts.c: the parts that the engine itself carries out (protection, schedule, position) and the
 * recipes. None of them has code of its own: evict.c and the engine read their options.
 */
#include "policy/parts.h"

#include <math.h>

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

/* ---- recipes ------------------------------------------------------------------------------- */

const kept_recipe kept_recipe_window = {
    .name = "window",
    .summary = "sliding window: the last tokens and nothing else",
    .spec = "recency+protect(sinks=0,recent=0)",
    .paper = "arXiv 2309.17453 (window attention, the negative control)",
    .deviations = "",
};

static const char *const streaming_positions[] = {"slot", "original", NULL};
static const kept_option streaming_options[] = {
    {"sinks", 4, 0, ANY_POSITION, true, NULL, "first positions kept"},
    {"position", 0, 0, 1, true, streaming_positions, "slot as in the paper, or original"},
};
const kept_recipe kept_recipe_streaming = {
    .name = "streaming",
    .summary = "StreamingLLM: the first tokens and the last ones",
    .spec = "recency+protect(sinks=$sinks,recent=0)+$position",
    .paper = "arXiv 2309.17453",
    .deviations = "evicts once after the prompt unless a schedule is added",
    .options = streaming_options,
    .n_options = 2,
};

const kept_recipe kept_recipe_observed_attention = {
    .name = "observed-attention",
    .summary = "mean instead of sum of the attention that each token received",
    .spec = "h2o(norm=on)",
    .paper = "kvpress ObservedAttention",
    .deviations = "",
};

const kept_recipe kept_recipe_pyramidkv = {
    .name = "pyramidkv",
    .summary = "SnapKV scores under a budget that falls from layer to layer",
    .spec = "snapkv+pyramid",
    .paper = "arXiv 2406.02069",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_adakv = {
    .name = "adakv",
    .summary = "SnapKV scores, the heads of a layer share one budget",
    .spec = "snapkv+ada",
    .paper = "arXiv 2407.11550",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_ada_expected_attention = {
    .name = "ada-expected-attention",
    .summary = "expected attention, the heads of a layer share one budget",
    .spec = "expected-attention(epsilon=0.01)+ada",
    .paper = "arXiv 2510.00636 with arXiv 2407.11550",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_cakekv = {
    .name = "cakekv",
    .summary = "SnapKV scores, layers get slots by how their attention spreads and shifts",
    .spec = "snapkv(window=32,kernel=5,pool=avg)+cake",
    .paper = "arXiv 2503.12491",
    .deviations = "the paper adds 200 times the variance over the window to the mean attention",
};

const kept_recipe kept_recipe_lavakv = {
    .name = "lavakv",
    .summary = "SnapKV scores times the head's largest value, layers by the spread of scores",
    .spec = "snapkv(window=32,kernel=7,pool=max)+values(kind=max)+lava",
    .paper = "arXiv 2509.09754",
    .deviations = "sum instead of maximum over the query heads of a KV head",
};

const kept_recipe kept_recipe_squeezeattention = {
    .name = "squeezeattention",
    .summary = "sinks and a window that is shorter in layers that change their input little",
    .spec = "recency+squeeze+protect(sinks=4,recent=0)",
    .paper = "arXiv 2404.04793",
    .deviations = "one of the paper's three pairings; the others are h2o+squeeze and window's",
};

static const kept_option simlayerkv_options[] = {
    {"theta", 0.9, 0, 1, false, NULL, "attention on the two windows above which a layer is lazy"},
    {"recent", 1024, 0, ANY_POSITION, true, NULL, "last tokens that a lazy layer keeps"},
};
const kept_recipe kept_recipe_simlayerkv = {
    .name = "simlayerkv",
    .summary = "lazy layers keep sinks and a window, the others all they may",
    .spec = "recency+simlayer(theta=$theta,recent=$recent)+protect(sinks=4,recent=0)",
    .paper = "arXiv 2410.13846",
    .deviations = "layers that are not lazy keep the latest tokens that the budget holds; with "
                  "@100% they keep all, as in the paper",
    .options = simlayerkv_options,
    .n_options = 2,
};

static const kept_option duo_attention_options[] = {
    {"sinks", 64, 0, ANY_POSITION, true, NULL, "first tokens that a streaming head keeps"},
    {"recent", 256, 0, ANY_POSITION, true, NULL, "last tokens that a streaming head keeps"},
};
const kept_recipe kept_recipe_duo_attention = {
    .name = "duo-attention",
    .summary = "DuoAttention: retrieval heads keep all, streaming heads sinks and a window",
    .spec = "recency+duo(sinks=$sinks,recent=$recent)+protect(sinks=$sinks,recent=0)",
    .paper = "arXiv 2410.10819",
    .deviations = "the budget decides how many heads are retrieval heads",
    .options = duo_attention_options,
    .n_options = 2,
};

const kept_recipe kept_recipe_headkv_snapkv = {
    .name = "headkv-snapkv",
    .summary = "HeadKV: SnapKV scores, a table of heads says how many slots each gets",
    .spec = "snapkv(window=32,kernel=7,pool=max)+headkv",
    .paper = "arXiv 2410.19258",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_lukv = {
    .name = "lukv",
    .summary = "LU-KV: expected attention, a table of heads says how many slots each gets",
    .spec = "expected-attention(epsilon=0.02)+lu-kv",
    .paper = "arXiv 2602.08585",
    .deviations = "those of its parts",
};

static const kept_option kvzap_threshold_options[] = {
    {"at", NAN, -1e9, 1e9, false, NULL,
     "least predicted log score that stays; what train kvzap printed as threshold-..., or @100% "
     "and a try"},
    {"recent", 128, 0, ANY_POSITION, true, NULL, "last tokens that are not judged yet"},
};
const kept_recipe kept_recipe_kvzap_threshold = {
    .name = "kvzap-threshold",
    .summary =
        "KVzap: what is predicted to score less than a threshold goes, once it is old enough",
    .spec = "kvzap+threshold(at=$at)+protect(sinks=4,recent=$recent)",
    .paper = "arXiv 2601.07891",
    .deviations = "evicts once after the prompt unless a schedule is added (decode: while decoding "
                  "too); the first 4 tokens stay",
    .options = kvzap_threshold_options,
    .n_options = 2,
};
