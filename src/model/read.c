/* read: which pages a decode step attends to, for sequences that do not read all (kept/policy.h,
 * kept_read). A node between store and attend chooses for each KV head; attend then walks the
 * chosen pages as if they were all there is. They are listed in the order of the head's list and
 * end with its last page, so choosing all of them gives the bits of reading all. */
#include "model/work.h"
#include "policy/parts.h"

#include <math.h>
#include <string.h>

#define LN2 0.69314718055994531 /* biases are in base 2 */

kept_status kept_read_new(kept_seq *s, kept_error *err)
{
    const int d = s->engine->model->info.head_size;
    const int blocks = s->read ? kept_strategy_note_blocks(s->read, d) : 0;
    const kept_status st = blocks ? kept_cache_set_notes(s->cache, blocks) : KEPT_OK;
    return st ? kept_fail(err, st, "no memory for notes on pages") : KEPT_OK;
}

/* The k-th largest of x [n], 1 <= k <= n, which are put into another order. */
static float kth_largest(float *x, int n, int k)
{
    int low = 0, high = n - 1;
    while (low < high) {
        const float pivot = x[(low + high) / 2];
        int i = low, j = high;
        while (i <= j) {
            while (x[i] > pivot)
                i++;
            while (x[j] < pivot)
                j--;
            if (i <= j) {
                const float t = x[i];
                x[i++] = x[j];
                x[j--] = t;
            }
        }
        if (k - 1 <= j)
            high = j;
        else if (k - 1 >= i)
            low = i;
        else
            break;
    }
    return x[k - 1];
}

void kept_read_pick(const float *score, int n, int k, float *work, int32_t *list)
{
    if (k < 1)
        return;
    memcpy(work, score, (size_t)n * sizeof *work);
    const float least = kth_largest(work, n, k);
    int ties = k;
    for (int i = 0; i < n; i++)
        ties -= score[i] > least;
    for (int i = n - 1, at = k; i >= 0; i--)
        if (score[i] > least || (score[i] == least && ties-- > 0))
            list[--at] = i;
}

/* score [n] of x [rows][n]. x is overwritten. */
static void aggregate(float *x, int rows, int n, int gqa, float scale, float *score)
{
    for (int r = 0; r < rows; r++) {
        float *row = x + (size_t)r * (size_t)n, top = -INFINITY, sum = 0;
        for (int i = 0; i < n; i++)
            top = row[i] > top ? row[i] : top;
        for (int i = 0; i < n && gqa == KEPT_READ_SOFT; i++)
            sum += row[i] = expf(scale * (row[i] - top));
        for (int i = 0; i < n; i++) {
            const float y = gqa == KEPT_READ_SOFT ? row[i] / sum : row[i];
            score[i] = r == 0 ? y : gqa == KEPT_READ_MAX ? fmaxf(score[i], y) : score[i] + y;
        }
    }
    for (int i = 0; i < n; i++) /* a model gone wrong: any order, but one */
        score[i] = isnan(score[i]) ? -INFINITY : score[i];
}

/* What the biases of a page add to its score: in the units of scores, which are not scaled yet. */
static float bias_of(const kept_engine *e, const float *bias, bool bounds)
{
    double top = -INFINITY, sum = 0;
    for (int i = 0; i < KEPT_PAGE_SLOTS; i++) {
        top = bias[i] > top ? bias[i] : top;
        sum += exp2((double)bias[i]) / KEPT_PAGE_SLOTS;
    }
    return (float)((bounds ? top : log2(sum)) * LN2 / (double)e->model->attn_scale);
}

/* Scores of the first n pages, by queries q [G][D]. scratch holds x [G][n] first. */
static void judge_pages(const kept_seq *seq, int layer, int h, const float *q, int n, float *score,
                        float *scratch)
{
    const kept_engine *e = seq->engine;
    kept_cache *c = seq->cache;
    const kept_strategy *s = seq->read;
    const int32_t *bias =
        seq->bias_plane < 0 ? NULL : kept_cache_blocks(c, layer, h, seq->bias_plane);
    const kept_dims k = kept_dims_of(e);
    const kept_read *how = kept_strategy_read(s);
    const double *option = s->option[KEPT_AXIS_READ];
    const int m = how->note * k.d;
    float *x = scratch, *w = x + (size_t)k.group * (size_t)n, *rest = w + k.group * m;
    kept_cache_refresh_notes(c, layer, h, n, how->describe, rest);
    for (int g = 0; g < k.group; g++)
        how->weigh(option, q + (size_t)g * (size_t)k.d, k.d, w + (size_t)g * (size_t)m);
    for (int i = 0; i < n; i++) {
        float out[KEPT_TILE_ROWS] = {0};
        for (int b = 0; b * KEPT_NOTE_BLOCK < m; b++)
            e->kern->judge(kept_min(KEPT_NOTE_BLOCK, m - b * KEPT_NOTE_BLOCK),
                           kept_cache_note(c, layer, h, i, b), k.group, w + b * KEPT_NOTE_BLOCK,
                           (size_t)m, out);
        const float more = bias ? bias_of(e, kept_pool_block(e->pool, bias[i]), how->bounds) : 0.0f;
        for (int g = 0; g < k.group; g++)
            x[(size_t)g * (size_t)n + (size_t)i] = out[g] + more;
    }
    aggregate(x, k.group, n, (int)option[KEPT_READ_GQA], e->model->attn_scale, score);
}

/* Lists the pages that cell i reads. Scratch of a thread is that of tiles: 64 (4 + pages + 2 D)
 * floats, of which this takes (2 + G) pages + 2 G D + 64 D + 4 * KEPT_NOTE_BLOCK. */
static void choose(kept_engine *e, int layer, int i, const struct ggml_tensor *q, int ith)
{
    const kept_dims k = kept_dims_of(e);
    const int h = i % k.n_kv;
    const kept_job *job = &e->jobs[i / k.n_kv];
    kept_seq *s = job->seq;
    const int pages = kept_pages_of(kept_cache_n(s->cache, layer, h) + 1);
    const int n_read = kept_job_pages(e, job, layer, pages);
    float *score = e->tile_buf + (size_t)ith * e->tile_buf_size, *work = score + pages;
    if (n_read == pages)
        return;
    int32_t *list = e->reads + e->work.read[i];
    int32_t *known = e->chosen_stride ? e->chosen + (size_t)i * e->chosen_stride : NULL;
    /* A head that holds as many pages as in the layer that chose reads the same ones. */
    if (known && !kept_strategy_chooses(s->read, layer) && e->work.chosen[i] >= 0 &&
        e->work.chosen_of[i] == pages) {
        memcpy(list, known, (size_t)n_read * sizeof *list);
        return;
    }
    const float *row =
        (const float *)q->data +
        ((size_t)job->tok0 * (size_t)k.n_heads + (size_t)(h * k.group)) * (size_t)k.d;
    judge_pages(s, layer, h, row, pages - 1, score, work + pages);
    kept_read_pick(score, pages - 1, n_read - 1, work, list);
    list[n_read - 1] = pages - 1;
    if (known) {
        memcpy(known, list, (size_t)n_read * sizeof *list);
        e->work.chosen[i] = layer;
        e->work.chosen_of[i] = pages;
    }
    const uint64_t note = (uint64_t)(2 * k.d) * (uint64_t)kept_strategy_read(s->read)->note +
                          (s->bias_plane < 0 ? 0 : KEPT_PAGE_SLOTS * sizeof(float));
    atomic_fetch_add_explicit(&s->read_bytes, (uint64_t)(pages - 1) * note, memory_order_relaxed);
}

void kept_node_select(struct ggml_tensor *dst, int ith, int nth, void *node)
{
    kept_engine *e = ((kept_node *)node)->engine;
    const int layer = ((kept_node *)node)->layer, n_kv = e->model->info.n_kv_heads;
    const uint64_t t0 = kept_clock_ns();
    kept_kern_enter();
    for (int i = ith; i < e->n_jobs * n_kv; i += nth)
        if (e->jobs[i / n_kv].decodes && e->jobs[i / n_kv].seq->read)
            choose(e, layer, i, dst->src[0], ith);
    atomic_fetch_add_explicit(&e->busy_ns, kept_clock_ns() - t0, memory_order_relaxed);
}
