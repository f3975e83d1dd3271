/* recipes: named combinations of parts; those of the codec axis are in forms_parts.c. */
#include "policy/parts.h"

#include <math.h>

#define ANY_POSITION 1048576

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

const kept_recipe kept_recipe_chunk_summaries = {
    .name = "chunk-summaries",
    .summary = "evenly spaced tokens become the means of their surroundings, with counts",
    .spec = "ladder(gamma=0)+summary",
    .paper = "",
    .deviations = "",
};

static const kept_option recursive_options[] = {
    {"gamma", 1, 0, 4, false, NULL, "how fast summaries coarsen with age"},
    {"every", 64, 1, ANY_POSITION, true, NULL, "decode steps between two compressions"},
};
const kept_recipe kept_recipe_recursive = {
    .name = "recursive",
    .summary = "summaries that are compressed again and again as they grow old",
    .spec = "ladder(gamma=$gamma)+summary+chunks(decode=$every)",
    .paper = "",
    .deviations = "",
    .options = recursive_options,
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
    .summary = "CAKE: attention and its variance, layers by how their attention spreads and shifts",
    .spec = "mean-variance+cake",
    .paper = "arXiv 2503.12491",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_lavakv = {
    .name = "lavakv",
    .summary = "SnapKV scores times the head's largest value, layers by the spread of scores",
    .spec = "snapkv(gqa=max)+values(kind=max)+lava",
    .paper = "arXiv 2509.09754",
    .deviations = "those of its parts; sum instead of mean over the window, which is one factor",
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

const kept_recipe kept_recipe_kvcompose = {
    .name = "kvcompose",
    .summary = "KVCompose: what repeating the context attends to, layers by composite tokens",
    .spec = "kvzip+blended+composite",
    .paper = "arXiv 2509.05165; kvpress KVComposePress",
    .deviations = "those of its parts; the most over the query heads of a KV head, not their mean; "
                  "the first 4 and the last 32 tokens stay and do not compete",
};

const kept_recipe kept_recipe_expected_attention_stats = {
    .name = "expected-attention-stats",
    .summary = "expected attention by query statistics of the model, not of the sequence",
    .spec = "expected-attention(statistics=calibrated)",
    .paper = "arXiv 2510.00636; kvpress ExpectedAttentionStats",
    .deviations = "",
};

const kept_recipe kept_recipe_trikv = {
    .name = "trikv",
    .summary = "TriAttention while decoding: every 128 steps, the last 128 tokens stay",
    .spec = "triattention+protect(sinks=0,recent=128)+decode(every=128)",
    .paper = "arXiv 2604.04921",
    .deviations = "the prompt is no exception: it is cut when it is in",
};

const kept_recipe kept_recipe_criticalkv = {
    .name = "criticalkv",
    .summary = "CriticalKV: half of the budget by SnapKV scores, half by these times W_o v",
    .spec = "snapkv+critical",
    .paper = "arXiv 2502.03805",
    .deviations = "those of its parts",
};

const kept_recipe kept_recipe_critical_adakv = {
    .name = "critical-adakv",
    .summary = "CriticalKV, the heads of a layer share one budget",
    .spec = "snapkv+critical+ada",
    .paper = "arXiv 2502.03805 with arXiv 2407.11550",
    .deviations =
        "those of its parts; heads compete with what both stages say (the paper splits by "
        "the first)",
};

static const kept_option chunkkv_options[] = {
    {"size", 20, 4, 65536, true, NULL, "positions of a chunk; the paper has 10, its code 20"},
};
const kept_recipe kept_recipe_chunkkv = {
    .name = "chunkkv",
    .summary = "ChunkKV: whole chunks of tokens by their mean SnapKV score",
    .spec = "snapkv+chunked(size=$size)",
    .paper = "arXiv 2502.00299",
    .deviations = "those of its parts",
    .options = chunkkv_options,
    .n_options = 1,
};

static const kept_option finch_options[] = {
    {"window", 64, 1, KEPT_MAX_RECENT, true, NULL, "tokens of the question at the end"},
};
const kept_recipe kept_recipe_finch = {
    .name = "finch",
    .summary = "FINCH: what the question attends to, keys re-rotated; aware of the query",
    .spec = "question(window=$window)+protect(sinks=4,recent=$window)+slot",
    .paper = "FINCH, TACL 2024",
    .deviations = "those of its parts; compare it with strategies that see the question as well",
    .options = finch_options,
    .n_options = 1,
};

static const kept_option scissorhands_options[] = {
    {"window", 64, 1, KEPT_MAX_RECENT, true, NULL, "last queries that make the history"},
    {"recent", 10, 0, ANY_POSITION, true, NULL, "last tokens that stay"},
    {"every", 64, 1, ANY_POSITION, true, NULL, "decode steps between two evictions"},
};
const kept_recipe kept_recipe_scissorhands = {
    .name = "scissorhands",
    .summary = "Scissorhands: tokens that were important to recent queries stay",
    .spec = "persistence(window=$window)+protect(sinks=0,recent=$recent)+decode(every=$every)",
    .paper = "arXiv 2305.17118",
    .deviations = "those of its parts; cuts to the budget at a fixed rate (the paper: half of the "
                  "budget at a time)",
    .options = scissorhands_options,
    .n_options = 3,
};

const kept_recipe kept_recipe_compactorkv = {
    .name = "compactorkv",
    .summary = "Compactor as published: the first 8 and the last 4 tokens stay",
    .spec = "compactor+protect(sinks=8,recent=4)",
    .paper = "arXiv 2507.08143; kvpress CompactorPress",
    .deviations = "those of its parts",
};

static const char *const morphkv_over[] = {"sum", "max", NULL};
static const kept_option morphkv_options[] = {
    {"window", 32, 1, KEPT_MAX_RECENT, true, NULL, "last tokens, which stay and vote"},
    {"over", 0, 0, 1, true, morphkv_over, "sum or maximum over these queries"},
};
const kept_recipe kept_recipe_morphkv = {
    .name = "morphkv",
    .summary = "MorphKV: a cache of constant size, ranked anew at every step by the last tokens",
    .spec = "morph(window=$window,over=$over)+protect(sinks=0,recent=$window)+decode(every=1)",
    .paper = "arXiv 2503.00979",
    .deviations = "those of its parts",
    .options = morphkv_options,
    .n_options = 2,
};

static const kept_option r_kv_options[] = {
    {"window", 8, 1, KEPT_MAX_RECENT, true, NULL, "last queries, whose tokens stay"},
    {"lambda", 0.1, 0, 1, false, NULL, "what importance counts; the rest is redundancy"},
    {"every", 128, 1, ANY_POSITION, true, NULL, "decode steps between two evictions"},
};
const kept_recipe kept_recipe_r_kv = {
    .name = "r-kv",
    .summary = "R-KV: important and not redundant, every 128 decode steps",
    .spec = "redundancy(window=$window,lambda=$lambda)+protect(sinks=0,recent=$window)+"
            "decode(every=$every)",
    .paper = "arXiv 2505.24133",
    .deviations = "those of its parts",
    .options = r_kv_options,
    .n_options = 3,
};

static const kept_option pagedeviction_options[] = {
    {"size", 16, 1, 65536, true, NULL, "positions of a block, and decode steps between two cuts"},
};
const kept_recipe kept_recipe_pagedeviction_blocks = {
    .name = "pagedeviction-blocks",
    .summary = "PagedEviction by blocks: the least one goes whenever the newest is full",
    .spec = "pagedeviction+blocks(size=$size)+decode(every=$size)",
    .paper = "arXiv 2509.04377",
    .deviations = "those of its parts; blocks after the prompt too (the paper: tokens then)",
    .options = pagedeviction_options,
    .n_options = 1,
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

static const kept_option rocketkv_options[] = {
    {"share", 0.25, 0, 1, false, NULL, "part of the pages held that a decode step reads"},
};
const kept_recipe kept_recipe_rocketkv = {
    .name = "rocketkv",
    .summary = "RocketKV: SnapKV with wide pooling, and of what stays the best pages are read",
    .spec = "snapkv(window=32,gqa=sum,pool=max,kernel=63)+rocket(share=$share)",
    .paper = "arXiv 2502.14051",
    .deviations = "those of its parts; the budget and share say how much each stage does (the "
                  "paper: the square root of one ratio each)",
    .options = rocketkv_options,
    .n_options = 1,
};
