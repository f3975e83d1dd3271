/* signal: what controllers can read of a sequence. Attention is that of the last query, summed over
 * the query heads of a KV head; per head, then the mean over KV heads of layers that evict. */
#include "policy/control.h"

#include <math.h>

static double read_pressure(const kept_signal_view *v)
{
    return v->used;
}

static double read_task(const kept_signal_view *v)
{
    return v->hint;
}

static double read_kl(const kept_signal_view *v)
{
    return v->kl;
}

/* Up to 64 slots of one head: where they came from and what the last query pays them. */
typedef struct page {
    const int32_t *pos;
    const float *mass;
    int n;
} page;

/* Adds a page to a head's sums; end: the head's value, NaN if it has none. */
typedef struct reader {
    void (*add)(const kept_signal_view *v, const page *p, double sum[2]);
    double (*end)(const kept_signal_view *v, const double sum[2]);
} reader;

static double read_head(const kept_signal_view *v, const reader *r, int layer, int head)
{
    const int n = kept_cache_n(v->cache, layer, head);
    const int32_t *pages = kept_cache_pages(v->cache, layer, head);
    const int32_t *blocks = kept_cache_blocks(v->cache, layer, head, v->plane);
    const int32_t *pos = kept_pool_pos(v->pool);
    double sum[2] = {0, 0};
    for (int at = 0, i = 0; at < n; at += KEPT_PAGE_SLOTS, i++) {
        page p = {.pos = pos + (size_t)pages[i] * KEPT_PAGE_SLOTS,
                  .mass = kept_pool_block(v->pool, blocks[i]),
                  .n = n - at < KEPT_PAGE_SLOTS ? n - at : KEPT_PAGE_SLOTS};
        r->add(v, &p, sum);
    }
    return r->end(v, sum);
}

static double read_heads(const kept_signal_view *v, const reader *r)
{
    double sum = 0;
    int n = 0;
    for (int l = 0; l < v->n_layers; l++)
        for (int h = 0; h < v->n_heads && !(v->windowed && v->windowed[l]); h++) {
            double x = read_head(v, r, l, h);
            if (!isfinite(x))
                continue;
            sum += x;
            n++;
        }
    return n ? sum / n : NAN;
}

/* ---- entropy: of a head's attention, as a share of what tokens seen could have --------------- */

static void add_entropy(const kept_signal_view *v, const page *p, double sum[2])
{
    (void)v;
    for (int i = 0; i < p->n; i++) {
        const float m = p->mass[i];
        if (!(m > 0))
            continue;
        sum[0] += (double)m;
        sum[1] += (double)(m * logf(m));
    }
}

/* -sum p log p with p = m / S is log S - (sum m log m) / S. */
static double end_entropy(const kept_signal_view *v, const double sum[2])
{
    if (!(sum[0] > 0) || v->next_pos < 2)
        return NAN;
    return fmax(0, (log(sum[0]) - sum[1] / sum[0]) / log(v->next_pos));
}

static double read_entropy(const kept_signal_view *v)
{
    return read_heads(v, &(reader){add_entropy, end_entropy});
}

/* ---- window-ratio: part of a head's attention on sinks and window ---------------------------- */

static void add_window(const kept_signal_view *v, const page *p, double sum[2])
{
    for (int i = 0; i < p->n; i++) {
        sum[0] += (double)p->mass[i];
        if (p->pos[i] < v->sinks || p->pos[i] >= v->next_pos - v->window)
            sum[1] += (double)p->mass[i];
    }
}

static double end_window(const kept_signal_view *v, const double sum[2])
{
    (void)v;
    return sum[0] > 0 ? sum[1] / sum[0] : NAN;
}

static double read_window_ratio(const kept_signal_view *v)
{
    return read_heads(v, &(reader){add_window, end_window});
}

/* ---- the table ------------------------------------------------------------------------------ */

static const kept_signal signals[] = {
#define KEPT_ENTRY(id, name, high, low, below, attention, probe)                                   \
    {name, high, low, below, attention, probe, read_##id},
    KEPT_SIGNAL_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
};

const char *const kept_signal_names[] = {
#define KEPT_ENTRY(id, name, high, low, below, attention, probe) name,
    KEPT_SIGNAL_LIST(KEPT_ENTRY)
#undef KEPT_ENTRY
        NULL,
};

const kept_signal *kept_signal_at(int i)
{
    return i >= 0 && i < KEPT_N_SIGNALS ? &signals[i] : NULL;
}
