/* engine: limits, pool, threads, and one forward pass over a ragged batch. */
#include "model/engine.h"
#include "policy/trained_fits.h"

#include <fenv.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- creation ------------------------------------------------------------------------------- */

/* Threads: a thread pool of our own where the backend has one (a disposable one would be allocated
 * on every pass), else only the number. Entry points come from the registry, because a dlopen'd
 * CPU backend has no linkable symbols. */
static kept_status start_backend(kept_engine *e, kept_error *err)
{
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(e->model->dev);
    e->backend = ggml_backend_dev_init(e->model->dev, NULL);
    if (!e->backend)
        return kept_fail(err, KEPT_UNSUPPORTED, "ggml's CPU backend does not start");
    ggml_backend_set_n_threads_t set_threads;
    struct ggml_threadpool *(*pool_new)(struct ggml_threadpool_params *);
    void (*set_pool)(ggml_backend_t, struct ggml_threadpool *);
    *(void **)&set_threads = ggml_backend_reg_get_proc_address(reg, "ggml_backend_set_n_threads");
    *(void **)&pool_new = ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_new");
    *(void **)&set_pool = ggml_backend_reg_get_proc_address(reg, "ggml_backend_cpu_set_threadpool");
    *(void **)&e->threadpool_free = ggml_backend_reg_get_proc_address(reg, "ggml_threadpool_free");
    if (set_threads)
        set_threads(e->backend, e->n_threads);
    if (pool_new && set_pool && e->threadpool_free) {
        struct ggml_threadpool_params p = ggml_threadpool_params_default(e->n_threads);
        e->threadpool = pool_new(&p);
        if (e->threadpool)
            set_pool(e->backend, e->threadpool);
    }
    return KEPT_OK;
}

static kept_status make_pool(kept_engine *e, size_t pool_bytes, kept_error *err)
{
    const kept_model_info *i = &e->model->info;
    const size_t page = kept_page_bytes(i->head_size);
    size_t pages = pool_bytes / page;
    if (pool_bytes == 0)
        pages = (size_t)i->n_layers * (size_t)i->n_kv_heads *
                ((size_t)e->max_tokens / KEPT_PAGE_SLOTS + 2);
    if (pages == 0 || pages > INT32_MAX / 64)
        return kept_fail(err, KEPT_ARGUMENT, "a pool of %zu bytes cannot hold pages of %zu bytes",
                         pool_bytes, page);
    /* Blocks are private to a sequence while pages are shared, so there are more of them; they are
     * 1/64 of a page and memory that is never touched is never taken. */
    return kept_pool_new(i->head_size, pages, pages * KEPT_MAX_PLANES, &e->pool, err);
}

void kept_rope_freq(const struct kept_model *m, int layer, float *out)
{
    const float *factor = m->rope_factors ? (const float *)m->rope_factors->data : NULL;
    const kept_layer *l = &m->layers[layer];
    for (int j = 0; j < m->n_rope / 2; j++) {
        const double f = pow(l->rope_base, -2.0 * j / m->n_rope) * (double)l->rope_scale;
        out[j] = (float)(factor ? f / (double)factor[j] : f);
    }
}

/* Rotary frequencies of the layers that strategies act on. */
static kept_status make_rope(kept_engine *e, kept_error *err)
{
    const struct kept_model *m = e->model;
    int l = 0;
    while (l + 1 < m->info.n_layers && m->info.windowed[l])
        l++;
    e->rope_freq = kept_calloc((size_t)m->n_rope / 2 + 1, sizeof(float));
    if (!e->rope_freq)
        return kept_fail(err, KEPT_NOMEM, "no memory for rotary frequencies");
    kept_rope_freq(m, l, e->rope_freq);
    return KEPT_OK;
}

static kept_status make_buffers(kept_engine *e, kept_error *err)
{
    const kept_model_info *i = &e->model->info;
    e->nodes = kept_calloc((size_t)i->n_layers, sizeof *e->nodes);
    e->jobs = kept_calloc((size_t)e->max_seqs, sizeof *e->jobs);
    e->tok_buf = kept_calloc((size_t)e->max_batch, sizeof *e->tok_buf);
    e->pos_buf = kept_calloc((size_t)e->max_batch, sizeof *e->pos_buf);
    e->rope_buf = kept_calloc((size_t)e->max_batch, sizeof *e->rope_buf);
    e->out_buf = kept_calloc((size_t)e->max_batch, sizeof *e->out_buf);
    e->keep_buf = kept_calloc((size_t)e->max_tokens + KEPT_PAGE_SLOTS, 1);
    e->pack_work = kept_calloc((size_t)e->max_tokens + KEPT_PAGE_SLOTS, sizeof *e->pack_work);
    e->evict_work = kept_evict_work_new();
    e->inv_norm = kept_calloc((size_t)e->max_batch, sizeof *e->inv_norm);
    if (!e->inv_norm || !e->rope_buf || !e->nodes || !e->jobs || !e->tok_buf || !e->pos_buf ||
        !e->out_buf || !e->keep_buf || !e->pack_work || !e->evict_work)
        return kept_fail(err, KEPT_NOMEM, "no memory for an engine of %d tokens", e->max_tokens);
    for (int l = 0; l < i->n_layers; l++)
        e->nodes[l] = (kept_node){e, l};
    return kept_work_new(e, err);
}

static kept_status check_options(kept_engine *e, const kept_engine_options *o, kept_error *err)
{
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    e->n_threads = o->n_threads ? o->n_threads : (int)(cpus > 0 ? cpus : 1);
    e->max_tokens = o->max_tokens ? o->max_tokens : e->model->info.n_ctx_train;
    e->max_batch = o->max_batch_tokens ? o->max_batch_tokens : 512;
    e->max_seqs = o->max_seqs ? o->max_seqs : 64;
    if (e->n_threads < 1 || e->n_threads > 512)
        return kept_fail(err, KEPT_ARGUMENT, "threads must be 1..512, not %d", e->n_threads);
    if (e->max_tokens < 1 || e->max_tokens > 1 << 24)
        return kept_fail(err, KEPT_ARGUMENT, "max_tokens must be 1..2^24, not %d", e->max_tokens);
    if (e->max_batch < 1 || e->max_seqs < 1 || e->max_seqs > 4096)
        return kept_fail(err, KEPT_ARGUMENT, "max_batch_tokens must be >= 1, max_seqs 1..4096");
    e->kern = kept_kern_get(o->isa);
    if (!e->kern)
        return kept_fail(err, KEPT_UNSUPPORTED, "kernel level \"%s\" is not available on this CPU",
                         o->isa ? o->isa : "");
    return KEPT_OK;
}

kept_status kept_engine_new(kept_model *model, const kept_engine_options *options,
                            kept_engine **out, kept_error *err)
{
    static const kept_engine_options defaults;
    const kept_engine_options *o = options ? options : &defaults;
    kept_engine *e = kept_calloc(1, sizeof *e);
    if (!e)
        return kept_fail(err, KEPT_NOMEM, "no memory for an engine");
    e->model = model;
    kept_status st = check_options(e, o, err);
    if (!st)
        st = make_buffers(e, err);
    if (!st)
        st = make_rope(e, err);
    if (!st)
        st = make_pool(e, o->pool_bytes, err);
    if (!st)
        st = start_backend(e, err);
    if (!st)
        st = kept_each_new(e, err);
    if (st) {
        kept_engine_free(e);
        return st;
    }
    *out = e;
    return KEPT_OK;
}

void kept_engine_free(kept_engine *e)
{
    if (!e)
        return;
    for (int i = 0; i < KEPT_GRAPHS; i++)
        kept_graph_clear(&e->graphs[i]);
    kept_each_free(e);
    if (e->backend)
        ggml_backend_free(e->backend);
    if (e->threadpool)
        e->threadpool_free(e->threadpool);
    kept_pool_free(e->pool);
    kept_directions_free(e->directions);
    kept_work_free(e);
    kept_evict_work_free(e->evict_work);
    kept_record_engine_free(e);
    kept_control_engine_free(e);
    void *all[] = {e->nodes,   e->jobs,     e->tok_buf,   e->pos_buf,   e->out_buf,
                   e->logits,  e->keep_buf, e->pack_work, e->rope_freq, e->inv_norm,
                   e->predict, e->rope_buf, e->local};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
    free(e);
}

kept_status kept_engine_add_trained(kept_engine *e, const kept_trained *t, kept_error *err)
{
    char hex[65];
    kept_status st = kept_model_sha256(e->model, hex, err);
    if (st)
        return st;
    if (strcmp(hex, kept_trained_model_sha256(t)))
        return kept_fail(err, KEPT_ARGUMENT,
                         "the trained file of kind '%s' is for the model with SHA-256 %.12s..., "
                         "this one has %.12s...; train one for it",
                         kept_trained_kind(t), kept_trained_model_sha256(t), hex);
    st = strcmp(kept_trained_kind(t), "kvzap") ? kept_trained_fits(t, &e->model->info, err)
                                               : kept_hidden_trained(e, t, err);
    if (st)
        return st;
    int i = 0;
    while (i < e->n_trained && strcmp(kept_trained_kind(e->trained[i]), kept_trained_kind(t)))
        i++;
    if (i == KEPT_MAX_TRAINED)
        return kept_fail(err, KEPT_ARGUMENT, "more than %d trained files", KEPT_MAX_TRAINED);
    if (!strcmp(kept_trained_kind(t), "basis") || !strcmp(kept_trained_kind(t), "nuq"))
        st = kept_directions_set(e, t, err);
    if (st)
        return st;
    e->trained[i] = t;
    e->n_trained += i == e->n_trained;
    return KEPT_OK;
}

const char *kept_engine_isa(const kept_engine *e)
{
    return e->kern->name;
}

/* ---- one batch --------------------------------------------------------------------------------
 */

static kept_status check_items(kept_engine *e, const kept_item *items, int n_items, kept_error *err)
{
    int total = 0;
    if (n_items < 1 || n_items > e->max_seqs)
        return kept_fail(err, KEPT_ARGUMENT, "a batch has 1..%d items, not %d", e->max_seqs,
                         n_items);
    for (int i = 0; i < n_items; i++)
        items[i].seq->in_batch = false;
    for (int i = 0; i < n_items; i++) {
        const kept_item *it = &items[i];
        if (it->seq->engine != e || it->seq->in_batch)
            return kept_fail(err, KEPT_ARGUMENT, "item %d: a sequence twice, or of another engine",
                             i);
        it->seq->in_batch = true;
        if (it->n_tokens < 1 || it->n_tokens > e->max_batch - total)
            return kept_fail(err, KEPT_ARGUMENT,
                             "item %d: more than max_batch_tokens = %d tokens in a batch, or none",
                             i, e->max_batch);
        total += it->n_tokens;
        if (it->n_logits < 0 || it->n_logits > it->n_tokens || it->n_after < 0)
            return kept_fail(err, KEPT_ARGUMENT, "item %d: n_logits or n_after out of range", i);
        if (it->n_tokens > e->max_tokens - it->seq->n_tokens)
            return kept_fail(err, KEPT_ARGUMENT,
                             "item %d: sequence would pass max_tokens = %d tokens", i,
                             e->max_tokens);
        kept_status st = kept_control_check_item(it, err);
        if (st)
            return st;
        for (int t = 0; t < it->n_tokens; t++)
            if (it->tokens[t] < 0 || it->tokens[t] >= e->model->info.n_vocab)
                return kept_fail(err, KEPT_ARGUMENT, "item %d: token id %d at %d is not in 0..%d",
                                 i, it->tokens[t], t, e->model->info.n_vocab - 1);
    }
    return KEPT_OK;
}

/* Trailing queries of the item that a plane counts. */
static int count_queries(const kept_plane *p, const kept_item *it)
{
    const int window = p->window;
    if (p->kind == KEPT_PLANE_ECHO || p->kind == KEPT_PLANE_ECHO_PLUS)
        return it->seq->echoing ? it->n_tokens : 0;
    if (p->kind != KEPT_PLANE_MASS)
        return 0;
    if (window == INT_MAX)
        return it->n_tokens;
    /* While a prompt is being read only its last `window` queries count; n_after says how many
     * are still to come. */
    const int left = window - it->n_after;
    return left <= 0 ? 0 : left < it->n_tokens ? left : it->n_tokens;
}

static void plan_item(kept_engine *e, int j, const kept_item *it, int tok0)
{
    kept_seq *s = it->seq;
    kept_job *job = &e->jobs[j];
    *job = (kept_job){.seq = s,
                      .tok0 = tok0,
                      .n = it->n_tokens,
                      .pos0 = s->n_tokens,
                      .decodes = it->n_tokens == 1 && !it->prefill};
    for (int i = 0; i < s->capture.n_planes; i++) {
        const kept_plane *p = &s->capture.plane[i];
        job->counted[i] = count_queries(p, it);
        job->reset[i] = p->kind == KEPT_PLANE_MASS && p->window != INT_MAX && job->counted[i] &&
                        s->counted[i] + job->counted[i] > p->window;
        job->vec[i] = job->counted[i] ? job->n_vecs : -1;
        if (job->counted[i])
            job->n_vecs += p->split ? e->model->info.n_heads / e->model->info.n_kv_heads : 1;
    }
    for (int t = 0; t < it->n_tokens; t++) {
        e->tok_buf[tok0 + t] = it->tokens[t];
        e->pos_buf[tok0 + t] = s->n_tokens + t;
        e->rope_buf[tok0 + t] = s->n_tokens + t - s->rope_back;
    }
}

/* Whether the pool has what the pass needs; pages: that. */
static bool fits(const kept_engine *e, const kept_item *items, int n_items, const kept_range *range,
                 size_t *pages)
{
    size_t blocks = 0;
    *pages = 0;
    for (int i = 0; i < n_items; i++)
        for (int l = range->from; l < range->to; l++) {
            const size_t n = kept_cache_reserve_cost(items[i].seq->cache, l, items[i].n_tokens);
            *pages += n;
            blocks += n * (size_t)(kept_cache_n_planes(items[i].seq->cache) +
                                   kept_cache_n_notes(items[i].seq->cache));
        }
    return *pages <= kept_pool_free_pages(e->pool) && blocks <= kept_pool_free_blocks(e->pool);
}

/* Room for every new slot, all or nothing. Sequences under pressure make some, but not for a fork
 * of the engine's own: it may be what an eviction waits for. */
static kept_status reserve(kept_engine *e, const kept_item *items, int n_items,
                           const kept_range *range, kept_error *err)
{
    const kept_model_info *info = &e->model->info;
    size_t pages;
    kept_seq_shed_begin(e);
    while (!fits(e, items, n_items, range, &pages))
        if (items[0].seq->scratch || !kept_seq_shed(e, err))
            return kept_fail(err, KEPT_FULL,
                             "the page pool has %zu free pages, this pass needs %zu",
                             kept_pool_free_pages(e->pool), pages);
    for (int i = 0; i < n_items; i++)
        for (int l = range->from; l < range->to; l++)
            for (int h = 0; h < info->n_kv_heads; h++) {
                kept_status st = kept_cache_reserve(items[i].seq->cache, l, h, items[i].n_tokens);
                if (st)
                    return kept_fail(err, st, "no page for layer %d, KV head %d", l, h);
            }
    return KEPT_OK;
}

static kept_status grow_logits(kept_engine *e, int n_out, kept_error *err)
{
    const size_t need = (size_t)n_out * (size_t)e->model->info.n_vocab;
    if (need <= e->logits_cap)
        return KEPT_OK;
    float *p = malloc(need * sizeof *p);
    if (!p)
        return kept_fail(err, KEPT_NOMEM, "no memory for logits of %d tokens", n_out);
    free(e->logits);
    e->logits = p;
    e->logits_cap = need;
    return KEPT_OK;
}

/* An input that no node reads has no memory. */
static void set_input(struct ggml_tensor *t, const void *x, int64_t n)
{
    if (t && t->data && n)
        ggml_backend_tensor_set(t, x, 0, (size_t)n * 4);
}

static kept_status compute(kept_engine *e, const kept_shape *shape, float *hidden, kept_error *err)
{
    const int n_tokens = shape->n_tokens, n_out = shape->n_out;
    kept_graph *g = kept_graph_get(e, shape);
    if (!g)
        return kept_fail(err, KEPT_NOMEM, "no memory for a graph of %d tokens", n_tokens);
    set_input(g->tokens, e->tok_buf, n_tokens);
    set_input(g->pos, e->pos_buf, n_tokens);
    set_input(g->rope_pos, e->rope_buf, n_tokens);
    set_input(g->out_ids, e->out_buf, n_out);
    set_input(g->in, hidden, (int64_t)n_tokens * e->model->info.n_embd);
    /* Our nodes set flush-to-zero; the caller's floating-point environment is its own. */
    fenv_t env;
    fegetenv(&env);
    enum ggml_status gs = ggml_backend_graph_compute(e->backend, g->gf);
    fesetenv(&env);
    if (gs != GGML_STATUS_SUCCESS)
        return kept_fail(err, KEPT_NOMEM, "ggml could not compute the graph (status %d)", (int)gs);
    if (g->hidden)
        ggml_backend_tensor_get(g->hidden, hidden, 0, ggml_nbytes(g->hidden));
    else if (n_out)
        ggml_backend_tensor_get(g->logits, e->logits, 0, ggml_nbytes(g->logits));
    return KEPT_OK;
}

/* The new tokens become part of the sequence. */
static void commit_item(const kept_engine *e, const kept_item *it, const kept_job *job,
                        const kept_range *range)
{
    const kept_model_info *info = &e->model->info;
    kept_seq *s = it->seq;
    for (int l = range->from; l < range->to; l++)
        for (int h = 0; h < info->n_kv_heads; h++)
            kept_cache_commit(s->cache, l, h, it->n_tokens);
    for (int i = 0; i < s->capture.n_planes; i++) {
        if (s->capture.plane[i].window != INT_MAX)
            s->counted[i] = job->counted[i] + (job->reset[i] ? 0 : s->counted[i]);
    }
    for (int l = range->from; l < range->to && s->rope_back && s->rope_plane >= 0; l++)
        for (int h = 0; h < info->n_kv_heads && !info->windowed[l]; h++)
            for (int i = kept_cache_n(s->cache, l, h) - it->n_tokens;
                 i < kept_cache_n(s->cache, l, h); i++)
                kept_cache_set_state(s->cache, l, h, s->rope_plane, i, (float)-s->rope_back);
    kept_record_commit(s, job, range->from, range->to);
    if (s->log)
        memcpy(s->log + s->n_tokens, it->tokens, (size_t)it->n_tokens * sizeof *s->log);
    for (int t = 0; t < it->n_tokens; t++) {
        s->history = (s->history ^ (uint64_t)it->tokens[t]) * 0x9e3779b97f4a7c15u;
        s->history ^= s->history >> 29;
    }
    s->n_tokens += it->n_tokens;
    s->n_reads += job->decodes && range->to == info->n_layers;
    kept_cache_tick(s->cache, (double)it->n_tokens * (range->to - range->from) / info->n_layers);
}

static kept_status finish(kept_engine *e, const kept_item *items, int n_items,
                          const kept_range *range, kept_error *err)
{
    for (int i = 0; i < n_items; i++)
        commit_item(e, &items[i], &e->jobs[i], range);
    const uint64_t t0 = kept_clock_ns();
    kept_status st = KEPT_OK;
    for (int i = 0; i < n_items && !st; i++) {
        st = kept_seq_trim(items[i].seq, range->from, range->to);
        if (st)
            st = kept_fail(err, st, "windowed layers could not be trimmed");
        else if (!range->hidden)
            st = kept_seq_after(items[i].seq, &items[i], err);
    }
    if (!st && !range->hidden)
        st = kept_control_after(e, items, n_items, err);
    for (int i = 0; i < n_items && !st && !range->hidden; i++)
        kept_seq_pack_after(items[i].seq, &items[i]);
    e->times.policy_ns += kept_clock_ns() - t0;
    return st;
}

kept_status kept_engine_forward(kept_engine *e, const kept_item *items, int n_items,
                                kept_error *err)
{
    const kept_range all = {0, e->model->info.n_layers, NULL};
    for (int i = 0; i < n_items; i++) {
        const kept_strategy *s = items[i].seq->strategy;
        if (items[i].prefill && s && kept_strategy_when(s).layers)
            return kept_fail(err, KEPT_ARGUMENT,
                             "item %d: '%s' reads its whole prompt layer by layer: give it to "
                             "kept_seq_prefill",
                             i, kept_strategy_name(s));
    }
    return kept_engine_pass(e, items, n_items, &all, err);
}

kept_status kept_engine_pass(kept_engine *e, const kept_item *items, int n_items,
                             const kept_range *range, kept_error *err)
{
    const uint64_t t0 = kept_clock_ns();
    kept_status st = check_items(e, items, n_items, err);
    if (!st)
        st = reserve(e, items, n_items, range, err);
    if (st)
        return st;
    int n = 0, n_out = 0, records = 0;
    for (int i = 0; i < n_items; i++) {
        plan_item(e, i, &items[i], n);
        n += items[i].n_tokens;
        for (int o = items[i].n_logits; o > 0; o--)
            e->out_buf[n_out++] = n - o;
        records |= kept_record_graph(items[i].seq) | kept_hidden_graph(items[i].seq);
        records |= e->jobs[i].decodes && items[i].seq->read ? KEPT_GRAPH_READ : 0;
    }
    e->n_jobs = n_items;
    atomic_store(&e->busy_ns, 0);
    st = kept_work_prepare(e, err);
    if (!st)
        st = grow_logits(e, n_out, err);
    if (!st)
        st = compute(e, &(kept_shape){n, n_out, records, range->from, range->to}, range->hidden,
                     err);
    if (!st)
        st = finish(e, items, n_items, range, err);
    e->times.attention_ns += atomic_load(&e->busy_ns) / (uint64_t)e->n_threads;
    e->times.forward_ns += kept_clock_ns() - t0;
    e->times.n_forwards++;
    e->times.n_tokens += range->to == e->model->info.n_layers ? (uint64_t)n : 0;
    return st;
}

const float *kept_engine_logits(const kept_engine *e)
{
    return e->logits;
}

void kept_engine_pool(const kept_engine *e, kept_pool_account *out)
{
    kept_pool_get_account(e->pool, out);
}

void kept_engine_get_times(const kept_engine *e, kept_engine_times *out)
{
    *out = e->times;
}
