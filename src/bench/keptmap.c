/* keptmap: runs of kept and evicted positions as LEB128. */
#include "bench/keptmap.h"

#include <stdlib.h>
#include <string.h>

enum { VERSION = 1 };

typedef struct writer {
    uint8_t *data;
    size_t n, cap;
    bool full; /* out of memory */
} writer;

static void write_number(writer *w, uint32_t x)
{
    if (w->n + 5 > w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 4096;
        uint8_t *bigger = realloc(w->data, cap);
        if (!bigger) {
            w->full = true;
            return;
        }
        w->data = bigger;
        w->cap = cap;
    }
    for (; x > 127; x >>= 7)
        w->data[w->n++] = (uint8_t)(x | 128);
    w->data[w->n++] = (uint8_t)x;
}

/* Runs of alive [seen], their number first. */
static void write_head(writer *w, const bool *alive, int seen)
{
    uint32_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        bool what = false;
        uint32_t length = 0, runs = 0;
        for (int p = 0; p < seen; p++, length++)
            if (alive[p] != what) {
                if (pass)
                    write_number(w, length);
                runs++;
                length = 0;
                what = alive[p];
            }
        if (pass)
            write_number(w, length);
        n = runs + 1;
        if (!pass) {
            write_number(w, (uint32_t)seen);
            write_number(w, n);
        }
    }
}

kept_status kept_map_of(const kept_seq *seq, const kept_model_info *m, uint8_t **map, size_t *bytes,
                        kept_error *err)
{
    const int seen = kept_seq_n_tokens(seq);
    int32_t *pos = kept_calloc((size_t)seen + 1, sizeof *pos);
    bool *alive = kept_calloc((size_t)seen + 1, sizeof *alive);
    writer w = {.full = !pos || !alive};
    *map = NULL;
    *bytes = 0;
    if (!w.full) {
        write_number(&w, VERSION);
        write_number(&w, (uint32_t)m->n_layers);
        write_number(&w, (uint32_t)m->n_kv_heads);
    }
    for (int l = 0; !w.full && l < m->n_layers; l++)
        for (int h = 0; !w.full && h < m->n_kv_heads; h++) {
            const int n = kept_seq_positions(seq, l, h, pos, seen);
            memset(alive, 0, (size_t)seen * sizeof *alive);
            for (int i = 0; i < n && i < seen; i++)
                if (pos[i] >= 0 && pos[i] < seen)
                    alive[pos[i]] = true;
            write_head(&w, alive, seen);
        }
    free(pos);
    free(alive);
    if (w.full) {
        free(w.data);
        return kept_fail(err, KEPT_NOMEM, "out of memory for kept positions");
    }
    *map = w.data;
    *bytes = w.n;
    return KEPT_OK;
}

/* ---- reading -------------------------------------------------------------------------------- */

typedef struct reader {
    const uint8_t *at, *end;
    bool bad;
} reader;

static uint32_t read_number(reader *r)
{
    uint32_t x = 0;
    for (int shift = 0; shift < 35; shift += 7) {
        if (r->at >= r->end)
            break;
        const uint8_t byte = *r->at++;
        x |= (uint32_t)(byte & 127) << shift;
        if (byte < 128)
            return x;
    }
    r->bad = true;
    return 0;
}

static kept_status damaged(kept_error *err)
{
    return kept_fail(err, KEPT_FORMAT, "a map of kept positions is damaged");
}

static kept_status read_shape(reader *r, int *n_layers, int *n_heads, kept_error *err)
{
    const uint32_t version = read_number(r), layers = read_number(r), heads = read_number(r);
    if (r->bad || version != VERSION || layers > 65536 || heads > 65536)
        return damaged(err);
    *n_layers = (int)layers;
    *n_heads = (int)heads;
    return KEPT_OK;
}

kept_status kept_map_shape(const uint8_t *map, size_t bytes, int *n_layers, int *n_heads,
                           kept_error *err)
{
    reader r = {map, map + bytes, false};
    return read_shape(&r, n_layers, n_heads, err);
}

kept_status kept_map_runs(const uint8_t *map, size_t bytes,
                          void (*take)(void *ctx, const kept_map_run *run), void *ctx,
                          kept_error *err)
{
    reader r = {map, map + bytes, false};
    int layers = 0, heads = 0;
    kept_status s = read_shape(&r, &layers, &heads, err);
    for (int i = 0; !s && i < layers * heads; i++) {
        const uint32_t tokens = read_number(&r), n = read_number(&r);
        kept_map_run run = {.layer = i / heads, .head = i % heads, .seen = (int)tokens};
        uint64_t p = 0;
        if (r.bad || tokens > INT32_MAX)
            return damaged(err);
        take(ctx, &run);
        for (uint32_t k = 0; k < n; k++) {
            const uint64_t to = p + read_number(&r);
            if (r.bad || to > tokens)
                return damaged(err);
            run.begin = (int)p;
            run.end = (int)to;
            if (k % 2 && run.end > run.begin)
                take(ctx, &run);
            p = to;
        }
        if (p != tokens)
            return damaged(err);
    }
    return s;
}

typedef struct one_head {
    int layer, head, cap, seen;
    bool *alive;
} one_head;

static void take_head(void *ctx, const kept_map_run *run)
{
    one_head *h = ctx;
    if (run->layer != h->layer || run->head != h->head)
        return;
    h->seen = run->seen;
    for (int p = run->begin; p < run->end && p < h->cap; p++)
        h->alive[p] = true;
}

kept_status kept_map_head(const uint8_t *map, size_t bytes, int layer, int head, bool *alive,
                          int cap, int *seen, kept_error *err)
{
    one_head h = {layer, head, cap, 0, alive};
    int layers = 0, heads = 0;
    kept_status s = kept_map_shape(map, bytes, &layers, &heads, err);
    if (!s && (layer < 0 || layer >= layers || head < 0 || head >= heads))
        s = kept_fail(err, KEPT_ARGUMENT, "there is no layer %d, head %d", layer, head);
    memset(alive, 0, (size_t)cap * sizeof *alive);
    if (!s)
        s = kept_map_runs(map, bytes, take_head, &h, err);
    *seen = h.seen;
    return s;
}
