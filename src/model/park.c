/* park: a sequence as bytes. One list of fields serves both ways (io): what is written is what is
 * read. Bytes that come from outside are believed only as far as they were checked: the checksum
 * keeps accidents out, every count and index is held against the engine all the same. */
#include "model/park_io.h"
#include "model/work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORDER  0x01020304u
#define N_NAME sizeof((kept_strategy){0}.resolved)

void kept_io_bytes(kept_io *x, void *what, size_t n)
{
    if (x->writes && n > x->n - x->at) {
        const size_t more = x->n + n + x->n / 2 + 4096;
        uint8_t *q = realloc(x->p, more);
        x->failed |= !q;
        x->p = q ? q : x->p;
        x->n = q ? more : x->n;
    }
    x->failed |= n > x->n - x->at;
    if (x->failed) {
        if (!x->writes)
            memset(what, 0, n);
        return;
    }
    if (x->writes)
        memcpy(x->p + x->at, what, n);
    else
        memcpy(what, x->p + x->at, n);
    x->at += n;
}
#define IO(field) kept_io_bytes(x, &(field), sizeof(field))

/* ---- fields ---------------------------------------------------------------------------------- */

/* What a sequence must be made with before the rest can be read. */
typedef struct head {
    uint32_t order;
    int32_t n_layers, n_kv, head_size, n_tokens;
    kept_capture capture;
    uint64_t seed;
    bool done, keep_planes, marks;
    char strategy[N_NAME];
} head;

static void io_head(kept_io *x, head *h)
{
    IO(h->order);
    IO(h->n_layers);
    IO(h->n_kv);
    IO(h->head_size);
    IO(h->n_tokens);
    IO(h->capture.n_planes);
    for (int i = 0; i < KEPT_MAX_CAPTURED; i++) {
        kept_plane *p = &h->capture.plane[i];
        uint8_t kind = (uint8_t)p->kind, split = p->split;
        IO(kind);
        IO(p->window);
        IO(split);
        *p = (kept_plane){(kept_plane_kind)kind, p->window, split != 0};
    }
    uint8_t flags = (uint8_t)(h->capture.query_stats | h->capture.layer_cosine << 1 | h->done << 2 |
                              h->keep_planes << 3 | h->marks << 4);
    IO(h->capture.n_recent);
    IO(flags);
    h->capture.query_stats = flags & 1;
    h->capture.layer_cosine = flags >> 1 & 1;
    h->done = flags >> 2 & 1;
    h->keep_planes = flags >> 3 & 1;
    h->marks = flags >> 4 & 1;
    IO(h->seed);
    IO(h->strategy);
    h->strategy[N_NAME - 1] = 0;
}

/* What an evicting sequence knows, in plain numbers. */
static void io_numbers(kept_io *x, kept_seq *s)
{
    const size_t layers = (size_t)s->engine->model->info.n_layers;
    uint8_t flags = (uint8_t)(s->layered | s->shift_lost << 1 | s->foreseen << 2);
    IO(s->counted);
    kept_io_bytes(x, s->trimmed, layers * sizeof *s->trimmed);
    IO(s->full_tokens);
    IO(s->n_after);
    IO(s->rope_back);
    IO(s->left);
    IO(s->steps);
    IO(s->round);
    IO(s->score_ns);
    IO(s->compact_ns);
    IO(s->n_pins);
    IO(s->pins);
    IO(flags);
    IO(s->history);
    s->layered = flags & 1;
    s->shift_lost = flags >> 1 & 1;
    s->foreseen = flags >> 2 & 1;
}

/* What it has recorded besides planes. */
static void io_records(kept_io *x, kept_seq *s)
{
    const kept_dims k = kept_dims_of(s->engine);
    const size_t layers = (size_t)s->engine->model->info.n_layers;
    const size_t token = (size_t)k.n_heads * (size_t)k.d, d = (size_t)k.d;
    if (s->stats) {
        IO(s->stats->count);
        kept_io_bytes(x, s->stats->sum, layers * token * sizeof(float));
        kept_io_bytes(x, s->stats->outer, layers * token * d * sizeof(float));
    }
    if (s->recent)
        kept_io_bytes(x, s->recent, layers * (size_t)s->capture.n_recent * token * sizeof(float));
    if (s->cosine)
        kept_io_bytes(x, s->cosine, layers * sizeof(double));
    if (s->marks)
        kept_io_bytes(x, s->marks, (size_t)s->n_tokens);
}

/* ---- slots ----------------------------------------------------------------------------------- */

/* Bytes of an F16 page, apart: low ones, then high ones. */
static void split(uint8_t *to, const uint8_t *from, size_t n, bool back)
{
    for (size_t i = 0; i < n / 2; i++) {
        const size_t a = back ? i : 2 * i, b = back ? n / 2 + i : 2 * i + 1;
        to[back ? 2 * i : i] = from[a];
        to[back ? 2 * i + 1 : n / 2 + i] = from[b];
    }
}

/* A page of a head, its live slots, and room for two F16 pages. */
typedef struct spot {
    int layer, h, page, live;
    const kept_rest *lossy; /* of a head whose lossy slots are written elsewhere, or NULL */
    uint8_t *buf;
} spot;

static void io_states(kept_io *x, const kept_seq *s, const spot *at)
{
    for (int p = 0; p < kept_cache_n_planes(s->cache) && !x->failed; p++) {
        const int32_t b = kept_cache_blocks(s->cache, at->layer, at->h, p)[at->page];
        kept_io_bytes(x, kept_pool_block(s->engine->pool, b), (size_t)at->live * sizeof(float));
    }
}

/* Zeros in the lossy slots of the F16 page in at->buf. */
static void blank(const kept_seq *s, const spot *at)
{
    static const float zero[KEPT_MAX_HEAD_SIZE];
    const uint64_t mask = kept_park_lossy_slots(s, at->lossy, at->layer, at->h, at->page, at->live);
    for (int i = 0; i < KEPT_PAGE_SLOTS; i++)
        if (mask >> i & 1)
            s->engine->kern->put(at->buf, s->engine->model->info.head_size, i, zero, zero);
}

static kept_status save_page(kept_io *x, const kept_seq *s, const spot *at)
{
    const int32_t id = kept_cache_pages(s->cache, at->layer, at->h)[at->page];
    kept_codecs form = kept_pool_get_page(s->engine->pool, id).c;
    const size_t n = kept_cache_save_page(s->cache, at->layer, at->h, at->page, at->buf);
    IO(form);
    if (kept_codec_has_low(form)) {
        uint64_t mark = kept_directions_mark_of(s->engine, form);
        IO(mark);
    }
    if (at->lossy)
        blank(s, at);
    if (kept_codec_is_f16(form))
        split(at->buf + n, at->buf, n, false);
    kept_io_bytes(x, kept_codec_is_f16(form) ? at->buf + n : at->buf, n);
    kept_io_bytes(x, kept_pool_pos(s->engine->pool) + (size_t)id * KEPT_PAGE_SLOTS,
                  (size_t)at->live * sizeof(int32_t));
    io_states(x, s, at);
    return KEPT_OK;
}

/* A page may hold anything but channels that are not there. */
static bool channels_are_sound(kept_codecs form, const uint8_t *page, int d)
{
    const int n = kept_codec_is_thin(form.k) ? kept_codec_channels(form.k, d) : 0;
    const uint8_t *c = n ? kept_codec_channels_of(page, form.k, d) : NULL;
    for (int i = 0; i < n; i++)
        if (c[i] >= d || (i && c[i] <= c[i - 1]))
            return false;
    return true;
}

static kept_status load_page(kept_io *x, kept_seq *s, const spot *at)
{
    const int d = s->engine->model->info.head_size;
    kept_codecs form;
    int32_t pos[KEPT_PAGE_SLOTS] = {0};
    const char *why;
    IO(form);
    if (form.k >= KEPT_N_CODECS || form.v >= KEPT_N_CODECS || !kept_codec_fits(form, d, &why) ||
        (at->live < KEPT_PAGE_SLOTS && !kept_codec_is_f16(form)))
        return KEPT_FORMAT;
    if (kept_codec_has_low(form)) {
        uint64_t mark = 0;
        IO(mark);
        if (mark != kept_directions_mark_of(s->engine, form))
            return KEPT_ARGUMENT;
        if (kept_directions_need(s->engine, form, NULL))
            return KEPT_NOMEM;
    }
    const size_t n = kept_codec_page_bytes(form, d), f16 = kept_page_bytes(d);
    if (n > f16)
        return KEPT_FORMAT;
    kept_io_bytes(x, at->buf + f16, n);
    if (kept_codec_is_f16(form))
        split(at->buf, at->buf + f16, n, true);
    else
        memcpy(at->buf, at->buf + f16, n);
    kept_io_bytes(x, pos, (size_t)at->live * sizeof *pos);
    bool sound = !x->failed && channels_are_sound(form, at->buf, d);
    for (int i = 0; i < at->live; i++)
        sound &= pos[i] >= 0 && pos[i] < s->n_tokens;
    if (!sound)
        return KEPT_FORMAT;
    const kept_status st = kept_cache_load_page(s->cache, at->layer, at->h, form, at->buf, pos);
    if (!st)
        io_states(x, s, at);
    return st;
}

static kept_status io_slots(kept_io *x, kept_seq *s, uint8_t *buf)
{
    const kept_model_info *info = &s->engine->model->info;
    const kept_rest rest = kept_park_rest(s);
    for (int i = 0; i < info->n_layers * info->n_kv_heads; i++) {
        spot at = {.layer = i / info->n_kv_heads, .h = i % info->n_kv_heads, .buf = buf};
        if (x->writes && kept_park_is_lossy(s, &rest, at.layer, at.h))
            at.lossy = &rest;
        int32_t n = kept_cache_n(s->cache, at.layer, at.h);
        IO(n);
        if (n < 0 || n > s->n_tokens)
            return KEPT_FORMAT;
        for (; at.page < kept_pages_of(n) && !x->failed; at.page++) {
            at.live = kept_min(KEPT_PAGE_SLOTS, n - at.page * KEPT_PAGE_SLOTS);
            const kept_status st = x->writes ? save_page(x, s, &at) : load_page(x, s, &at);
            if (st)
                return st;
        }
        if (!x->writes && !x->failed)
            kept_cache_load_end(s->cache, at.layer, at.h, n);
    }
    kept_status st = KEPT_OK;
    if (rest.bits > 0 && !x->failed)
        st = x->writes ? kept_park_save_lossy(x, s, &rest) : kept_park_load_lossy(x, s, &rest);
    if (st)
        return st;
    kept_history past = kept_cache_get_history(s->cache);
    IO(past);
    if (!x->writes && !x->failed)
        kept_cache_set_history(s->cache, &past);
    return KEPT_OK;
}

/* ---- parking --------------------------------------------------------------------------------- */

static const char *resolved_of(const kept_strategy *s)
{
    return s ? kept_strategy_resolved(s) : "full";
}

static head head_of(const kept_seq *s)
{
    const kept_model_info *info = &s->engine->model->info;
    head h = {.order = ORDER,
              .n_layers = info->n_layers,
              .n_kv = info->n_kv_heads,
              .head_size = info->head_size,
              .n_tokens = s->n_tokens,
              .capture = s->capture,
              .seed = s->seed,
              .done = s->done,
              .keep_planes = s->keep_planes,
              .marks = s->marks};
    memcpy(h.strategy, resolved_of(s->named), strlen(resolved_of(s->named)));
    return h;
}

kept_status kept_seq_park(kept_seq *s, void **data, size_t *n, kept_error *err)
{
    kept_engine *e = s->engine;
    if (s->control || s->log || s->scratch)
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "a sequence whose controller decides, or that repeats its context, cannot "
                         "be parked; park one under a fixed strategy");
    if (s->bias_plane >= 0 && !(s->whole && kept_strategy_biases(s->whole)))
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "a fork that has biases of its source's merges and merges nothing itself "
                         "cannot be parked; fork it under the source's strategy");
    if (kept_cache_is_joint(s->cache))
        return kept_fail(err, KEPT_UNSUPPORTED,
                         "a sequence with pages of several layers cannot be parked; store k=low50, "
                         "or q8");
    for (int l = 0; l < e->model->info.n_layers; l++) /* what a failed pass had reserved */
        for (int h = 0; h < e->model->info.n_kv_heads; h++)
            (void)kept_cache_reserve(s->cache, l, h, 0);
    uint8_t *buf = malloc(2 * kept_page_bytes(e->model->info.head_size));
    kept_io x = {.writes = true};
    head h = head_of(s);
    kept_status st = KEPT_NOMEM;
    if (buf) {
        io_head(&x, &h);
        io_numbers(&x, s);
        io_records(&x, s);
        st = io_slots(&x, s, buf);
    }
    if (st || x.failed)
        st = kept_fail(err, KEPT_NOMEM, "no memory to park a sequence");
    else
        st = kept_park_seal(e, x.p, x.at, data, n, err);
    free(buf);
    free(x.p);
    if (!st)
        kept_seq_free(s);
    return st;
}

/* ---- resuming -------------------------------------------------------------------------------- */

static bool same_capture(const kept_capture *a, const kept_capture *b)
{
    bool same = a->n_planes == b->n_planes && a->n_recent == b->n_recent &&
                a->query_stats == b->query_stats && a->layer_cosine == b->layer_cosine;
    for (int i = 0; same && i < a->n_planes; i++)
        same = a->plane[i].kind == b->plane[i].kind && a->plane[i].window == b->plane[i].window &&
               a->plane[i].split == b->plane[i].split;
    return same;
}

/* Numbers that other code takes for granted. */
static bool numbers_are_sound(const kept_seq *s)
{
    const kept_engine *e = s->engine;
    bool ok = s->full_tokens >= 0 && s->full_tokens <= s->n_tokens && s->n_after >= 0 &&
              s->n_after <= e->max_tokens && s->rope_back >= 0 && s->rope_back <= s->n_tokens &&
              s->left >= 0 && s->steps >= 0 && s->steps <= e->max_tokens && s->n_pins >= 0 &&
              s->n_pins <= KEPT_MAX_PINS && (!s->stats || s->stats->count >= 0);
    for (int i = 0; i < KEPT_MAX_CAPTURED; i++)
        ok &= s->counted[i] >= 0 && s->counted[i] <= s->n_tokens;
    for (int l = 0; l < e->model->info.n_layers; l++)
        ok &= s->trimmed[l] >= 0 && s->trimmed[l] <= s->n_tokens / KEPT_PAGE_SLOTS;
    for (int i = 0; ok && i < s->n_pins; i++)
        ok = s->pins[i].begin >= 0 && s->pins[i].begin <= s->pins[i].end &&
             s->pins[i].end <= e->max_tokens;
    for (int i = 0; ok && s->marks && i < s->n_tokens; i++)
        ok = s->marks[i] <= KEPT_CLASS_TEMPLATE;
    return ok;
}

static kept_status check_head(const kept_engine *e, const kept_strategy *strategy, const head *h,
                              kept_error *err)
{
    const kept_model_info *info = &e->model->info;
    bool ok = h->order == ORDER && h->n_layers == info->n_layers && h->n_kv == info->n_kv_heads &&
              h->head_size == info->head_size && h->n_tokens >= 0 && h->capture.n_planes >= 0 &&
              h->capture.n_planes <= KEPT_MAX_CAPTURED && h->capture.n_recent >= 0 &&
              h->capture.n_recent <= KEPT_MAX_RECENT;
    for (int i = 0; ok && i < h->capture.n_planes; i++)
        ok = h->capture.plane[i].kind <= KEPT_PLANE_PREDICTED &&
             h->capture.plane[i].kind != KEPT_PLANE_ECHO &&
             h->capture.plane[i].kind != KEPT_PLANE_ECHO_PLUS && h->capture.plane[i].window >= 0;
    if (!ok)
        return kept_park_damaged(err);
    if (strcmp(h->strategy, resolved_of(strategy)))
        return kept_fail(err, KEPT_ARGUMENT, "the sequence was parked under '%.200s'", h->strategy);
    if (h->n_tokens > e->max_tokens)
        return kept_fail(err, KEPT_ARGUMENT,
                         "the sequence has %d tokens, the engine's max_tokens is %d", h->n_tokens,
                         e->max_tokens);
    return KEPT_OK;
}

/* The rest of x into s, a new sequence that captures what h says. */
static kept_status fill(kept_io *x, kept_seq *s, const head *h, kept_error *err)
{
    if (h->done && s->strategy && !s->control)
        kept_seq_forget(s);
    if (s->control || s->log || h->done != s->done || !same_capture(&s->capture, &h->capture) ||
        (h->marks && kept_seq_mark(s, 0, 0, KEPT_CLASS_TEXT)))
        return kept_park_damaged(err);
    s->keep_planes = h->keep_planes;
    s->n_tokens = h->n_tokens;
    io_numbers(x, s);
    io_records(x, s);
    if (x->failed || !numbers_are_sound(s))
        return kept_park_damaged(err);
    uint8_t *buf = malloc(2 * kept_page_bytes(s->engine->model->info.head_size));
    const kept_status st = buf ? io_slots(x, s, buf) : KEPT_NOMEM;
    free(buf);
    if (st == KEPT_FULL || st == KEPT_NOMEM)
        return kept_fail(err, st,
                         st == KEPT_FULL ? "the page pool has no room for the sequence"
                                         : "no memory for a parked sequence");
    if (st == KEPT_ARGUMENT)
        return kept_fail(err, st,
                         "the sequence's pages lie along other directions than this engine's; lend "
                         "it the trained file 'basis' that they were packed with");
    return st || x->failed || x->at != x->n ? kept_park_damaged(err) : KEPT_OK;
}

kept_status kept_seq_resume(kept_engine *e, const kept_strategy *strategy, const void *data,
                            size_t n, kept_seq **out, kept_error *err)
{
    kept_io x = {.p = NULL};
    head h = {0};
    kept_seq *s = NULL;
    kept_status st = kept_park_unseal(e, data, n, &x.p, &x.n, err);
    if (st)
        goto out;
    io_head(&x, &h);
    st = x.failed ? kept_park_damaged(err) : check_head(e, strategy, &h, err);
    if (!st)
        st = kept_seq_new(e, strategy, h.done ? NULL : &h.capture, h.seed, &s, err);
    if (!st)
        st = fill(&x, s, &h, err);
out:
    free(x.p);
    if (st)
        kept_seq_free(s);
    else
        *out = s;
    return st;
}

kept_status kept_parked_look(const void *data, size_t n, kept_parked *out, kept_error *err)
{
    uint8_t raw[sizeof(head) + 4096];
    kept_io count = {.p = raw, .n = sizeof raw, .writes = true}, x = {.p = raw};
    head h = {0};
    io_head(&count, &h); /* how many bytes it has */
    x.n = count.at;
    *out = (kept_parked){.n_tokens = 0};
    if (kept_park_begin(data, n, raw, x.n))
        return kept_park_damaged(err);
    io_head(&x, &h);
    if (x.failed || h.order != ORDER)
        return kept_park_damaged(err);
    memcpy(out->model_sha256, (const char *)data + strlen("kept-parked N\n"), 64);
    snprintf(out->spec, sizeof out->spec, "%s", h.strategy);
    out->n_tokens = h.n_tokens;
    return KEPT_OK;
}
