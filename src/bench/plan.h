/* plan: what a K/V cache takes before anything runs, and what fits into a given memory.
 *
 * Nothing here is measured: figures are computed from a model's shape, the formula
 *
 *     2 x layers x heads x head size x tokens x batch x bytes per element
 *
 * and the cache's layout (pages of 64 slots, a position per slot, state planes, page lists).
 */
#ifndef BENCH_PLAN_H
#define BENCH_PLAN_H

#include "policy/strategy.h"

#define KEPT_PLAN_MAX_TOKENS (1 << 30) /* longest context that a plan looks at */
#define KEPT_PLAN_MAX_BATCH  1000000

/* ---- shapes of well-known models, from their public configurations ------------------------- */
int kept_shape_count(void);
const char *kept_shape_name(int i);
/* Fills the shape fields of info (names, layers, heads, windows); the rest is zero. False: unknown.
 */
bool kept_shape_get(const char *name, kept_model_info *info);
/* Marks layers as windowed: all but every global_every-th (0: all). */
void kept_shape_set_window(kept_model_info *info, int window, int global_every);
/* ARGUMENT: a count is out of range, or n_kv_heads does not divide n_heads. */
kept_status kept_shape_check(const kept_model_info *info, kept_error *err);

/* ---- one way of caching -------------------------------------------------------------------- */
typedef enum kept_plan_kind {
    KEPT_PLAN_ALL_HEADS, /* the formula with every query head cached */
    KEPT_PLAN_GROUPED,   /* the formula with KV heads */
    KEPT_PLAN_WINDOWED,  /* besides, windowed layers hold at most their window */
    KEPT_PLAN_STRATEGY   /* kept's cache under a strategy, pages and metadata included; f16 */
} kept_plan_kind;

typedef struct kept_plan_row {
    kept_plan_kind kind;
    const kept_strategy *strategy; /* KEPT_PLAN_STRATEGY only; borrowed */
    int bits;                      /* 1..32 bits per element, except KEPT_PLAN_STRATEGY */
    int chunk;                     /* prefill chunk, tokens; KEPT_PLAN_STRATEGY only */
} kept_plan_row;

/* Bytes of one sequence whose prompt has `tokens` tokens. */
typedef struct kept_plan_bytes {
    uint64_t kv_bytes;   /* held once the prompt is in: K/V */
    uint64_t meta_bytes; /* positions, state, lists, query statistics */
    uint64_t peak_bytes; /* most of both while the prompt goes in */
    uint64_t slots;      /* slots held over all layers and KV heads */
} kept_plan_bytes;

/* info must pass kept_shape_check, 1 <= tokens <= KEPT_PLAN_MAX_TOKENS. */
kept_plan_bytes kept_plan_one(const kept_plan_row *row, const kept_model_info *info, int tokens);

/* Bytes of a batch whose prompts go in one after the other: batch - 1 sequences held and one at its
 * peak. UINT64_MAX if that does not fit 64 bits. */
uint64_t kept_plan_batch_peak(kept_plan_bytes one, int batch);

/* ---- what fits ----------------------------------------------------------------------------- */
/* Most tokens per sequence so that a batch fits into bytes; 0: not even one token.
 * KEPT_PLAN_MAX_TOKENS: no limit worth naming. */
int kept_plan_longest(const kept_plan_row *row, const kept_model_info *info, int batch,
                      uint64_t bytes);
/* Most sequences of this many tokens that fit into bytes; at most KEPT_PLAN_MAX_BATCH. */
int kept_plan_widest(const kept_plan_row *row, const kept_model_info *info, int tokens,
                     uint64_t bytes);

#endif
