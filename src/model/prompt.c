/* prompt: reads a whole prompt: chunk by chunk, or layer by layer where the schedule asks.
 *
 * Layer by layer, all chunks go through layer 0, which is cut, then through layer 1 and so on; the
 * hidden states between two layers are held for the whole prompt. Each layer does what it does in a
 * pass through all layers, in the same shapes, so its bits are the same. For that the sequence is
 * taken back to its beginning before each layer: positions, windows of planes, counts.
 */
#include "model/engine.h"

#include <stdlib.h>
#include <string.h>

typedef struct reading {
    kept_seq *s;
    const int32_t *tokens;
    int n, chunk, n_logits;
    float *hidden; /* [n][n_embd] */
    kept_layers *cut;
} reading;

static kept_item item_at(const reading *r, int at, bool logits)
{
    const int n = r->n - at < r->chunk ? r->n - at : r->chunk;
    const bool last = at + n == r->n;
    return (kept_item){.seq = r->s,
                       .tokens = r->tokens + at,
                       .n_tokens = n,
                       .n_logits = logits && last ? r->n_logits : 0,
                       .n_after = r->n - at - n,
                       .prefill = true};
}

static kept_status read_chunks(const reading *r, kept_error *err)
{
    kept_status st = KEPT_OK;
    for (int at = 0; at < r->n && !st; at += r->chunk) {
        const kept_item it = item_at(r, at, true);
        st = kept_engine_forward(r->s->engine, &it, 1, err);
    }
    return st;
}

/* The sequence before its first token, for the next layer. */
static void rewind_to_start(kept_seq *s)
{
    s->n_tokens = 0;
    memset(s->counted, 0, sizeof s->counted);
    if (s->stats)
        s->stats->count = 0;
}

/* Bytes held while reading, besides what s holds anyway. */
static void account(const reading *r)
{
    const uint64_t embd = (uint64_t)r->s->engine->model->info.n_embd;
    const uint64_t scores = r->cut ? kept_layers_bytes(r->cut) : 0;
    kept_cache_set_extra(r->s->cache, r->s->extra_bytes + scores +
                                          (r->hidden ? (uint64_t)r->n * embd * sizeof(float) : 0));
}

static kept_status read_layer(const reading *r, int layer, kept_error *err)
{
    kept_engine *e = r->s->engine;
    kept_status st = KEPT_OK;
    rewind_to_start(r->s);
    for (int at = 0; at < r->n && !st; at += r->chunk) {
        const kept_item it = item_at(r, at, layer == e->model->info.n_layers - 1);
        const kept_range range = {layer, layer + 1,
                                  r->hidden + (size_t)at * (size_t)e->model->info.n_embd};
        st = kept_engine_pass(e, &it, 1, &range, err);
    }
    return st;
}

static kept_status cut_layer(reading *r, kept_error *err)
{
    kept_seq *s = r->s;
    kept_evict x = kept_seq_lend(s, r->n);
    bool acted = false;
    kept_status st = kept_record_show(s, &x, err);
    x.acted = &acted;
    if (!st && !r->cut) {
        st = kept_layers_new(s->strategy, &x, &r->cut, err);
        if (!st)
            account(r);
    }
    return st ? st : kept_layers_cut(r->cut, &x, &s->score_ns, &s->compact_ns, err);
}

/* Gives every page back: half of the layers of a prompt are no sequence. */
static void empty(kept_seq *s)
{
    const kept_model_info *info = &s->engine->model->info;
    memset(s->engine->keep_buf, 0, (size_t)s->engine->max_tokens + KEPT_PAGE_SLOTS);
    for (int l = 0; l < info->n_layers; l++)
        for (int h = 0; h < info->n_kv_heads; h++)
            (void)kept_cache_retain(s->cache, l, h, s->engine->keep_buf);
    memset(s->trimmed, 0, (size_t)info->n_layers * sizeof *s->trimmed);
    rewind_to_start(s);
}

static kept_status read_layers(reading *r, kept_error *err)
{
    kept_seq *s = r->s;
    const kept_model_info *info = &s->engine->model->info;
    kept_status st = KEPT_OK;
    r->hidden = kept_calloc((size_t)r->n * (size_t)info->n_embd, sizeof *r->hidden);
    if (!r->hidden)
        return kept_fail(err, KEPT_NOMEM, "no memory for the hidden states of %d tokens", r->n);
    account(r);
    for (int l = 0; l < info->n_layers && !st; l++) {
        st = read_layer(r, l, err);
        if (!st && !info->windowed[l])
            st = cut_layer(r, err);
        if (!st) /* allocators that cascade cut layers before this one, too */
            kept_seq_pack(s, 0, l + 1, 0);
    }
    kept_layers_free(r->cut);
    free(r->hidden);
    r->cut = NULL;
    r->hidden = NULL;
    account(r);
    s->layered = !st;
    if (st)
        empty(s);
    return st;
}

kept_status kept_seq_prefill(kept_seq *s, const int32_t *tokens, int n, int chunk, int n_logits,
                             kept_error *err)
{
    reading r = {.s = s, .tokens = tokens, .n = n, .n_logits = n_logits};
    const kept_engine *e = s->engine;
    r.chunk = chunk ? chunk : e->max_batch;
    if (n < 1 || chunk < 0 || n > e->max_tokens - s->n_tokens)
        return kept_fail(err, KEPT_ARGUMENT, "a prompt of %d tokens: 1 to %d fit (max_tokens)", n,
                         e->max_tokens - s->n_tokens);
    if (!s->strategy || !kept_strategy_when(s->strategy).layers)
        return read_chunks(&r, err);
    if (s->n_tokens)
        return kept_fail(err, KEPT_ARGUMENT,
                         "'%s' reads its whole prompt layer by layer, so it cannot go on from the "
                         "%d tokens that the sequence has",
                         kept_strategy_name(s->strategy), s->n_tokens);
    return read_layers(&r, err);
}
