/* each: work besides forward passes on the engine's threads: a ggml graph of one custom node, so
 * that the threads that compute the model, and wait as it was decided for them, do this too. */
#include "model/engine.h"

#include <stdlib.h>

struct kept_each {
    void *mem;
    struct ggml_context *ctx;
    struct ggml_cgraph *gf;
    ggml_gallocr_t alloc;
    kept_each_fn *fn;
    void *arg;
    int n;
    atomic_int next;
};

static void node(struct ggml_tensor *dst, int ith, int nth, void *ctx)
{
    struct kept_each *x = ctx;
    (void)dst;
    (void)nth;
    for (int i; (i = atomic_fetch_add(&x->next, 1)) < x->n;)
        x->fn(x->arg, ith, i);
}

void kept_each_free(kept_engine *e)
{
    struct kept_each *x = e->each;
    if (!x)
        return;
    ggml_gallocr_free(x->alloc);
    ggml_free(x->ctx);
    free(x->mem);
    free(x);
    e->each = NULL;
}

kept_status kept_each_new(kept_engine *e, kept_error *err)
{
    const size_t bytes = 4 * ggml_tensor_overhead() + ggml_graph_overhead_custom(4, false);
    struct kept_each *x = e->each = kept_calloc(1, sizeof *x);
    if (!x || !(x->mem = malloc(bytes)))
        return kept_fail(err, KEPT_NOMEM, "no memory for work on all threads");
    struct ggml_init_params p = {.mem_size = bytes, .mem_buffer = x->mem, .no_alloc = true};
    x->ctx = ggml_init(p);
    x->gf = x->ctx ? ggml_new_graph_custom(x->ctx, 4, false) : NULL;
    if (!x->gf)
        return kept_fail(err, KEPT_NOMEM, "no memory for work on all threads");
    ggml_build_forward_expand(x->gf, ggml_custom_4d(x->ctx, GGML_TYPE_F32, 1, 1, 1, 1, NULL, 0,
                                                    node, GGML_N_TASKS_MAX, x));
    x->alloc = ggml_gallocr_new(ggml_backend_dev_buffer_type(e->model->dev));
    return x->alloc && ggml_gallocr_alloc_graph(x->alloc, x->gf)
               ? KEPT_OK
               : kept_fail(err, KEPT_NOMEM, "no memory for work on all threads");
}

void kept_engine_each(void *engine, int n, kept_each_fn *fn, void *arg)
{
    kept_engine *e = engine;
    struct kept_each *x = e->each;
    x->fn = fn;
    x->arg = arg;
    x->n = n;
    atomic_store(&x->next, 0);
    ggml_backend_graph_compute(e->backend, x->gf);
    node(NULL, 0, 1, x); /* what is left where the graph did not run: nothing otherwise */
}
