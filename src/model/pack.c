/* pack: pages whose strategy stores them in another form are packed: after a pass, an eviction, and
 * when the prompt is in. */
#include "model/engine.h"

static const float *recent_queries(void *ctx, int *n)
{
    kept_seq *s = ctx;
    kept_evict x = kept_seq_lend(s, s->n_tokens);
    const bool shown = s->recent && kept_record_show(s, &x, NULL) == KEPT_OK;
    *n = shown ? x.n_recent : 0;
    return shown ? x.recent : NULL;
}

void kept_seq_pack(kept_seq *s, int from, int to, int fresh)
{
    const kept_model_info *info = &s->engine->model->info;
    if (!s->strategy || !kept_strategy_packs(s->strategy))
        return;
    const uint64_t t0 = kept_clock_ns();
    const kept_packing p = {.cache = s->cache,
                            .n_layers = info->n_layers,
                            .windowed = info->windowed,
                            .n_heads = info->n_kv_heads,
                            .from = from,
                            .to = to,
                            .fresh = s->pack_owed ? 0 : fresh,
                            .head_size = info->head_size,
                            .group = info->n_heads / info->n_kv_heads,
                            .recent = recent_queries,
                            .ctx = s,
                            .bits = kept_hidden_file(s->engine, "bits"),
                            .work = s->engine->pack_work};
    /* A pool that is full puts it off: what is not packed is attended to as it is. */
    s->pack_owed = kept_strategy_pack(s->strategy, &p) != KEPT_OK;
    s->compact_ns += kept_clock_ns() - t0;
}

void kept_seq_pack_after(kept_seq *s, const kept_item *item)
{
    if (!s->strategy)
        return;
    /* A prompt is read as F16 and packed when it is in, but where the schedule bounds the peak. */
    if (!item->prefill || s->full_tokens || kept_strategy_when(s->strategy).chunks)
        kept_seq_pack(s, 0, s->engine->model->info.n_layers, item->n_tokens);
}
