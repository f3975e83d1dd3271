/* plan: see plan.h. Everything is monotone in tokens, so "what fits" is a binary search over the
 * same function that prints the figures. */
#include "bench/plan.h"

#include <stdio.h>
#include <string.h>

#define PAGE           KEPT_PAGE_SLOTS
#define TRIM_SLACK     64 /* stale slots that the engine lets a windowed head keep */
#define PLANE_BYTES    ((uint64_t)PAGE * 4)
#define POSITION_BYTES ((uint64_t)PAGE * 4)

/* ---- shapes -------------------------------------------------------------------------------- */

static const struct shape {
    const char *name;
    int n_layers, n_heads, n_kv_heads, head_size;
    int window, global_every; /* every global_every-th layer is not windowed */
} shapes[] = {
    {"llama-2-7b", 32, 32, 32, 128, 0, 0},      {"llama-2-13b", 40, 40, 40, 128, 0, 0},
    {"llama-2-70b", 80, 64, 8, 128, 0, 0},      {"llama-3-8b", 32, 32, 8, 128, 0, 0},
    {"llama-3-70b", 80, 64, 8, 128, 0, 0},      {"llama-3.1-8b", 32, 32, 8, 128, 0, 0},
    {"llama-3.1-405b", 126, 128, 8, 128, 0, 0}, {"mistral-7b", 32, 32, 8, 128, 0, 0},
    {"qwen2.5-0.5b", 24, 14, 2, 64, 0, 0},      {"qwen2.5-1.5b", 28, 12, 2, 128, 0, 0},
    {"qwen2.5-7b", 28, 28, 4, 128, 0, 0},       {"qwen2.5-72b", 80, 64, 8, 128, 0, 0},
    {"qwen3-8b", 36, 32, 8, 128, 0, 0},         {"smollm2-135m", 30, 9, 3, 64, 0, 0},
    {"gemma3-270m", 18, 4, 1, 256, 512, 6},
};

int kept_shape_count(void)
{
    return (int)(sizeof shapes / sizeof shapes[0]);
}

const char *kept_shape_name(int i)
{
    return shapes[i].name;
}

void kept_shape_set_window(kept_model_info *info, int window, int global_every)
{
    info->sliding_window = window;
    for (int l = 0; l < info->n_layers; l++)
        info->windowed[l] = window > 0 && (global_every == 0 || (l + 1) % global_every != 0);
}

bool kept_shape_get(const char *name, kept_model_info *info)
{
    for (int i = 0; i < kept_shape_count(); i++) {
        const struct shape *s = &shapes[i];
        if (strcmp(s->name, name))
            continue;
        *info = (kept_model_info){.n_layers = s->n_layers,
                                  .n_heads = s->n_heads,
                                  .n_kv_heads = s->n_kv_heads,
                                  .head_size = s->head_size};
        snprintf(info->name, sizeof info->name, "%s", name);
        kept_shape_set_window(info, s->window, s->global_every);
        return true;
    }
    return false;
}

kept_status kept_shape_check(const kept_model_info *info, kept_error *err)
{
    if (info->n_layers < 1 || info->n_layers > KEPT_MAX_LAYERS)
        return kept_fail(err, KEPT_ARGUMENT, "layers: want 1 to %d, got %d", KEPT_MAX_LAYERS,
                         info->n_layers);
    if (info->n_heads < 1 || info->n_heads > 1024)
        return kept_fail(err, KEPT_ARGUMENT, "heads: want 1 to 1024, got %d", info->n_heads);
    if (info->n_kv_heads < 1 || info->n_heads % info->n_kv_heads)
        return kept_fail(err, KEPT_ARGUMENT, "KV heads: %d does not divide the %d heads",
                         info->n_kv_heads, info->n_heads);
    if (info->head_size < 1 || info->head_size > 1024)
        return kept_fail(err, KEPT_ARGUMENT, "head size: want 1 to 1024, got %d", info->head_size);
    return KEPT_OK;
}

/* ---- bytes --------------------------------------------------------------------------------- */

static uint64_t min64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static int n_windowed(const kept_model_info *info)
{
    int n = 0;
    for (int l = 0; l < info->n_layers; l++)
        n += info->windowed[l];
    return n;
}

/* K and V (two elements a channel) of slots, without page rounding. 2^30 tokens of the largest
 * shape that kept_shape_check lets through, at 32 bits, stay below 2^64. */
static uint64_t exact_bytes(uint64_t slots, const kept_model_info *info, int bits)
{
    return slots * (uint64_t)info->head_size * (uint64_t)bits / 4;
}

static kept_plan_bytes formula(const kept_plan_row *row, const kept_model_info *info, int tokens)
{
    uint64_t n = (uint64_t)tokens, layers = (uint64_t)info->n_layers;
    uint64_t heads = (uint64_t)info->n_kv_heads, slots;
    if (row->kind == KEPT_PLAN_ALL_HEADS) {
        slots = layers * (uint64_t)info->n_heads * n;
    } else if (row->kind == KEPT_PLAN_GROUPED) {
        slots = layers * heads * n;
    } else {
        uint64_t windowed = (uint64_t)n_windowed(info);
        slots =
            heads * ((layers - windowed) * n + windowed * min64(n, (uint64_t)info->sliding_window));
    }
    uint64_t bytes = exact_bytes(slots, info, row->bits);
    return (kept_plan_bytes){.kv_bytes = bytes, .peak_bytes = bytes, .slots = slots};
}

/* Pages of heads that hold `slots` together, as evenly as whole slots allow. */
static uint64_t pages_of(uint64_t slots, uint64_t heads)
{
    if (!heads)
        return 0;
    uint64_t each = slots / heads, more = slots % heads;
    return (heads - more) * ((each + PAGE - 1) / PAGE) + more * ((each + 1 + PAGE - 1) / PAGE);
}

/* A sequence as the engine lays it out. */
typedef struct layout {
    uint64_t heads;          /* that the strategy manages */
    uint64_t windowed_heads; /* that hold their window, whatever the strategy */
    uint64_t list_bytes;     /* sized for the whole context when the sequence is made */
    uint64_t stats_bytes;    /* query statistics */
    int n_planes, n_stay;    /* four bytes per slot each; those that are never given back */
    int n_notes;             /* as many bytes per page each */
} layout;

static layout layout_of(const kept_strategy *s, const kept_model_info *info, int tokens)
{
    kept_capture cap = {0};
    layout l = {0};
    uint64_t kv = (uint64_t)info->n_kv_heads, d = (uint64_t)info->head_size;
    if (!kept_strategy_is_full(s)) {
        (void)kept_strategy_needs(s, &cap, NULL); /* an empty capture has room for one strategy */
        l.n_stay = kept_strategy_biases(s);
        l.n_planes = cap.n_planes + kept_strategy_moves_keys(s) + l.n_stay;
    }
    l.n_notes = kept_strategy_note_blocks(s, info->head_size);
    l.windowed_heads = kv * (uint64_t)n_windowed(info);
    l.heads = kv * (uint64_t)info->n_layers - l.windowed_heads;
    uint64_t entries =
        ((uint64_t)tokens + PAGE - 1) / PAGE + 1; /* one to spare, as the cache has */
    l.list_bytes =
        (l.heads + l.windowed_heads) * (8 + entries * 4 * (uint64_t)(1 + l.n_planes + l.n_notes));
    if (cap.query_stats)
        l.stats_bytes = (uint64_t)info->n_layers * (uint64_t)info->n_heads * (d + d * d) * 4;
    return l;
}

/* `slots` in the managed heads together and at most `stale` slots beyond its window in every
 * windowed head; forgot: state planes and statistics have been given back. */
static kept_plan_bytes held(const layout *l, const kept_model_info *info, uint64_t tokens,
                            uint64_t slots, uint64_t stale, bool forgot)
{
    uint64_t windowed = l->windowed_heads * min64(tokens, (uint64_t)info->sliding_window + stale);
    uint64_t pages = pages_of(slots, l->heads) + pages_of(windowed, l->windowed_heads);
    uint64_t per_page = POSITION_BYTES + (uint64_t)l->n_notes * PLANE_BYTES, fixed = l->list_bytes;
    per_page += (uint64_t)(forgot ? l->n_stay : l->n_planes) * PLANE_BYTES;
    fixed += forgot ? 0 : l->stats_bytes;
    return (kept_plan_bytes){.kv_bytes = pages * kept_page_bytes(info->head_size),
                             .meta_bytes = pages * per_page + fixed,
                             .slots = slots + windowed};
}

static kept_plan_bytes strategy_bytes(const kept_plan_row *row, const kept_model_info *info,
                                      int tokens)
{
    const kept_strategy *s = row->strategy;
    const layout l = layout_of(s, info, tokens);
    const int n_layers = info->n_layers - n_windowed(info);
    const uint64_t n = (uint64_t)tokens, chunk = (uint64_t)row->chunk, all = n * l.heads;
    uint64_t keep = all, most = all;
    bool forgets = false;
    if (!kept_strategy_is_full(s)) {
        const kept_when when = kept_strategy_when(s);
        forgets = !kept_strategy_acts_again(s);
        int64_t budget = n_layers ? kept_strategy_budget_slots(s, n_layers, info->n_kv_heads,
                                                               info->head_size, tokens)
                                  : 0;
        keep = min64(all, budget < 0 ? 0 : (uint64_t)budget);
        if (when.chunks) /* the budget, its slack and one chunk besides */
            most = min64(all, keep + (chunk + (uint64_t)when.slack) * l.heads);
        if (when.layers) /* the budget and one layer besides */
            most = min64(all, keep + n * (uint64_t)info->n_kv_heads);
    }
    kept_plan_bytes peak = held(&l, info, n, most, TRIM_SLACK - 1 + chunk, false);
    kept_plan_bytes out = held(&l, info, n, keep, TRIM_SLACK - 1, forgets);
    if (kept_strategy_packs(s)) {
        const uint64_t saved =
            pages_of(keep, l.heads) * kept_page_bytes(info->head_size) -
            kept_strategy_bytes(s, n_layers, info->n_kv_heads, info->head_size, keep);
        const kept_when when = kept_strategy_when(s);
        const uint64_t spends =
            (uint64_t)kept_form_spends(s, n_layers, info->n_kv_heads, info->head_size, tokens);
        out.kv_bytes = spends ? min64(out.kv_bytes, spends) : out.kv_bytes - saved;
        /* While the prompt is read: a chunk, or one layer, is not packed yet. */
        if (when.chunks || when.layers) {
            const uint64_t open = when.chunks ? min64(chunk * l.heads, keep)
                                              : min64(n * (uint64_t)info->n_kv_heads, keep);
            peak.kv_bytes -=
                saved - (uint64_t)((double)saved * (double)open / (double)(keep + !keep));
        }
    }
    out.peak_bytes = peak.kv_bytes + peak.meta_bytes;
    return out;
}

kept_plan_bytes kept_plan_one(const kept_plan_row *row, const kept_model_info *info, int tokens)
{
    return row->kind == KEPT_PLAN_STRATEGY ? strategy_bytes(row, info, tokens)
                                           : formula(row, info, tokens);
}

uint64_t kept_plan_batch_peak(kept_plan_bytes one, int batch)
{
    uint64_t each = one.kv_bytes + one.meta_bytes, rest = (uint64_t)batch - 1, total;
    if (__builtin_mul_overflow(each, rest, &total) ||
        __builtin_add_overflow(total, one.peak_bytes, &total))
        return UINT64_MAX;
    return total;
}

/* ---- what fits ----------------------------------------------------------------------------- */

static bool fits(const kept_plan_row *row, const kept_model_info *info, int tokens, int batch,
                 uint64_t bytes)
{
    return kept_plan_batch_peak(kept_plan_one(row, info, tokens), batch) <= bytes;
}

int kept_plan_longest(const kept_plan_row *row, const kept_model_info *info, int batch,
                      uint64_t bytes)
{
    int low = 0, high = KEPT_PLAN_MAX_TOKENS; /* low fits (0: nothing to hold) */
    if (fits(row, info, high, batch, bytes))
        return high;
    while (high - low > 1) {
        int mid = low + (high - low) / 2;
        if (fits(row, info, mid, batch, bytes))
            low = mid;
        else
            high = mid;
    }
    return low;
}

int kept_plan_widest(const kept_plan_row *row, const kept_model_info *info, int tokens,
                     uint64_t bytes)
{
    kept_plan_bytes one = kept_plan_one(row, info, tokens);
    uint64_t each = one.kv_bytes + one.meta_bytes;
    if (one.peak_bytes > bytes)
        return 0;
    if (!each)
        return KEPT_PLAN_MAX_BATCH;
    return (int)min64(1 + (bytes - one.peak_bytes) / each, KEPT_PLAN_MAX_BATCH);
}
