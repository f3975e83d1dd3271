/* graph: the forward pass of llama, qwen2, qwen3 and gemma3 as one ggml graph. What differs between
 * them is data (a NULL tensor, a scale), not a branch on the name. Attention and the cache are
 * three custom nodes per layer; everything else is ggml's. */
#include "model/engine.h"

#include <stdlib.h>
#include <string.h>

enum { NODES_PER_LAYER = 80, NODES_EXTRA = 32 };

/* The input whose block sums were last asked for, and those: q, k and v share theirs. */
typedef struct sums {
    struct ggml_tensor *of, *sum;
} sums;

typedef struct builder {
    kept_engine *e;
    const struct kept_model *m;
    struct ggml_context *c;
    kept_graph *g;
    sums *sums;
} builder;

static struct ggml_tensor *norm(const builder *b, struct ggml_tensor *x, struct ggml_tensor *w)
{
    return w ? ggml_mul(b->c, ggml_rms_norm(b->c, x, b->m->norm_eps), w) : x;
}

/* Sums of every 32 of x [ne0][n], as wide as shift and at least 2 of them: ggml multiplies a single
 * one of F16 in another order, and a token must not depend on how many are beside it. */
static struct ggml_tensor *block_sums(const builder *b, struct ggml_tensor *x, int64_t width)
{
    const int64_t n_blocks = x->ne[0] / KEPT_SPLIT_BLOCK, n = x->ne[1];
    if (b->sums->of != x) {
        struct ggml_tensor *s =
            ggml_sum_rows(b->c, ggml_reshape_3d(b->c, x, KEPT_SPLIT_BLOCK, n_blocks, n));
        s = ggml_reshape_2d(b->c, s, n_blocks, n);
        if (width > n_blocks || n < 2)
            s = ggml_pad(b->c, s, (int)(width - n_blocks), n < 2, 0, 0);
        *b->sums = (sums){x, s};
    }
    return b->sums->sum;
}

/* m x: [m's ne1][n] */
static struct ggml_tensor *multiply(const builder *b, const kept_matrix *m, struct ggml_tensor *x)
{
    struct ggml_tensor *y = ggml_mul_mat(b->c, m->w, x);
    if (!m->shift)
        return y;
    struct ggml_tensor *s = ggml_mul_mat(b->c, m->shift, block_sums(b, x, m->shift->ne[0]));
    return ggml_add(b->c, y, ggml_view_2d(b->c, s, s->ne[0], x->ne[1], s->nb[1], 0));
}

/* One of q, k, v: projection, bias, heads, head norm; [D][heads][n_tokens], before rotation. */
static struct ggml_tensor *project(const builder *b, const kept_matrix *w, struct ggml_tensor *bias,
                                   struct ggml_tensor *head_norm, struct ggml_tensor *x, int heads)
{
    struct ggml_tensor *y = multiply(b, w, x);
    if (bias)
        y = ggml_add(b->c, y, bias);
    y = ggml_reshape_3d(b->c, y, b->m->info.head_size, heads, b->g->shape.n_tokens);
    return norm(b, y, head_norm);
}

/* Layers that never evict know nothing of renumbered keys. */
static struct ggml_tensor *rotate(const builder *b, struct ggml_tensor *x, int il)
{
    const kept_layer *l = &b->m->layers[il];
    struct ggml_tensor *pos = b->m->info.windowed[il] ? b->g->pos : b->g->rope_pos;
    const int mode = b->m->rope_neox ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL;
    return ggml_rope_ext(b->c, x, pos, b->m->rope_factors, b->m->n_rope, mode, 0, l->rope_base,
                         l->rope_scale, 0.0f, 1.0f, 32.0f, 1.0f);
}

/* Shows what enters layer il (in), and that after its norm (x), to who asks for it. */
static struct ggml_tensor *hidden(const builder *b, struct ggml_tensor *in, struct ggml_tensor *x,
                                  int il)
{
    struct ggml_tensor *src[2] = {in, x};
    return ggml_custom_4d(b->c, GGML_TYPE_F32, 1, 1, 1, 1, src, 2, kept_node_hidden,
                          GGML_N_TASKS_MAX, &b->e->nodes[il]);
}

/* Attention of layer il on its input: [n_heads*D][n_tokens], before the output matrix. */
static struct ggml_tensor *attention(const builder *b, struct ggml_tensor *in, int il)
{
    const kept_model_info *info = &b->m->info;
    const kept_layer *l = &b->m->layers[il];
    kept_node *node = &b->e->nodes[il];
    struct ggml_tensor *x = norm(b, in, l->attn_norm);
    struct ggml_tensor *q = project(b, &l->q, l->q_bias, l->q_norm, x, info->n_heads);
    struct ggml_tensor *k = project(b, &l->k, l->k_bias, l->k_norm, x, info->n_kv_heads);
    struct ggml_tensor *v = project(b, &l->v, l->v_bias, NULL, x, info->n_kv_heads);
    /* The store node also reads the queries before rotation when someone wants their statistics;
     * the attend node names the store node as a source, which orders the two. */
    struct ggml_tensor *store_src[3] = {rotate(b, k, il), v, q};
    struct ggml_tensor *st = ggml_custom_4d(b->c, GGML_TYPE_F32, 1, 1, 1, 1, store_src,
                                            b->g->shape.records & KEPT_GRAPH_STATS ? 3 : 2,
                                            kept_node_store, GGML_N_TASKS_MAX, node);
    struct ggml_tensor *attend_src[3] = {rotate(b, q, il), st};
    if (b->g->shape.records & KEPT_GRAPH_READ)
        attend_src[1] = ggml_custom_4d(b->c, GGML_TYPE_F32, 1, 1, 1, 1, attend_src, 2,
                                       kept_node_select, GGML_N_TASKS_MAX, node);
    int n_src = 2;
    if (b->g->shape.records & KEPT_GRAPH_HIDDEN)
        attend_src[n_src++] = hidden(b, in, x, il);
    struct ggml_tensor *o = ggml_custom_4d(
        b->c, GGML_TYPE_F32, (int64_t)info->n_heads * info->head_size, b->g->shape.n_tokens, 1, 1,
        attend_src, n_src, kept_node_attend, GGML_N_TASKS_MAX, node);
    return ggml_custom_inplace(b->c, o, NULL, 0, kept_node_merge, GGML_N_TASKS_MAX, node);
}

/* What layer il adds to its input x after attention o, and a node for how far that turns x if some
 * sequence asks. Such a node goes into the graph at once, while x is there. */
static struct ggml_tensor *add_output(const builder *b, struct ggml_tensor *x,
                                      struct ggml_tensor *o, int il, bool record)
{
    const kept_layer *l = &b->m->layers[il];
    struct ggml_tensor *y = ggml_add(b->c, norm(b, multiply(b, &l->o, o), l->attn_post_norm), x);
    struct ggml_tensor *src[2] = {x, y};
    if (record && b->g->shape.records & KEPT_GRAPH_COSINE)
        ggml_build_forward_expand(b->g->gf, ggml_custom_4d(b->c, GGML_TYPE_F32, 1, 1, 1, 1, src, 2,
                                                           kept_node_cosine, GGML_N_TASKS_MAX,
                                                           &b->e->nodes[il]));
    return y;
}

static struct ggml_tensor *feed_forward(const builder *b, struct ggml_tensor *x,
                                        const kept_layer *l)
{
    struct ggml_tensor *gate = multiply(b, &l->gate, x);
    struct ggml_tensor *up = multiply(b, &l->up, x);
    struct ggml_tensor *h =
        b->m->gelu ? ggml_geglu_split(b->c, gate, up) : ggml_swiglu_split(b->c, gate, up);
    return norm(b, multiply(b, &l->down, h), l->ffn_post_norm);
}

/* What enters the first layer of the graph. */
static struct ggml_tensor *enter(const builder *b)
{
    kept_graph *g = b->g;
    if (g->shape.from) {
        g->in = ggml_new_tensor_2d(b->c, GGML_TYPE_F32, b->m->info.n_embd, g->shape.n_tokens);
        ggml_set_input(g->in);
        return g->in;
    }
    struct ggml_tensor *x = ggml_get_rows(b->c, b->m->tok_embd, g->tokens);
    return b->m->embd_scale != 1.0f ? ggml_scale(b->c, x, b->m->embd_scale) : x;
}

static void build(const builder *b)
{
    const struct kept_model *m = b->m;
    struct ggml_context *c = b->c;
    kept_graph *g = b->g;
    g->tokens = ggml_new_tensor_1d(c, GGML_TYPE_I32, g->shape.n_tokens);
    g->pos = ggml_new_tensor_1d(c, GGML_TYPE_I32, g->shape.n_tokens);
    g->rope_pos = ggml_new_tensor_1d(c, GGML_TYPE_I32, g->shape.n_tokens);
    g->out_ids = ggml_new_tensor_1d(c, GGML_TYPE_I32, g->shape.n_out ? g->shape.n_out : 1);
    ggml_set_input(g->tokens);
    ggml_set_input(g->pos);
    ggml_set_input(g->rope_pos);
    ggml_set_input(g->out_ids);
    g->logits = NULL;
    struct ggml_tensor *x = enter(b);
    for (int il = g->shape.from; il < g->shape.to; il++) {
        const kept_layer *l = &m->layers[il];
        struct ggml_tensor *o = attention(b, x, il);
        const bool all = il < m->info.n_layers - 1 || g->shape.n_out == g->shape.n_tokens;
        if (!all) {
            /* Of the last layer only what comes out is computed, whatever is recorded: the same
             * rows in the same products give the same bits. */
            if (g->shape.records & KEPT_GRAPH_COSINE)
                add_output(b, x, o, il, true);
            if (g->shape.n_out == 0) { /* nobody reads the rest of the last layer */
                ggml_build_forward_expand(g->gf, o);
                return;
            }
            o = ggml_get_rows(c, o, g->out_ids);
            x = ggml_get_rows(c, x, g->out_ids);
        }
        x = add_output(b, x, o, il, all);
        x = ggml_add(c, feed_forward(b, norm(b, x, l->ffn_norm), l), x);
    }
    if (g->shape.to < m->info.n_layers)
        g->hidden = x;
    else
        x = g->logits = multiply(b, &m->output, norm(b, x, m->output_norm));
    ggml_set_output(x);
    ggml_build_forward_expand(g->gf, x);
}

void kept_graph_clear(kept_graph *g)
{
    ggml_gallocr_free(g->alloc);
    ggml_free(g->ctx);
    free(g->mem);
    memset(g, 0, sizeof *g);
}

static bool graph_make(kept_engine *e, kept_graph *g)
{
    const size_t nodes = (size_t)(g->shape.to - g->shape.from) * NODES_PER_LAYER + NODES_EXTRA;
    const size_t bytes = ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false);
    g->mem = malloc(bytes);
    if (!g->mem)
        return false;
    struct ggml_init_params p = {.mem_size = bytes, .mem_buffer = g->mem, .no_alloc = true};
    g->ctx = ggml_init(p);
    if (!g->ctx)
        return false;
    g->gf = ggml_new_graph_custom(g->ctx, nodes, false);
    sums none = {0};
    builder b = {e, e->model, g->ctx, g, &none};
    build(&b);
    g->alloc = ggml_gallocr_new(ggml_backend_dev_buffer_type(e->model->dev));
    return g->alloc && ggml_gallocr_alloc_graph(g->alloc, g->gf);
}

static bool same(const kept_shape *a, const kept_shape *b)
{
    return a->n_tokens == b->n_tokens && a->n_out == b->n_out && a->records == b->records &&
           a->from == b->from && a->to == b->to;
}

kept_graph *kept_graph_get(kept_engine *e, const kept_shape *shape)
{
    kept_graph *victim = &e->graphs[0];
    for (int i = 0; i < KEPT_GRAPHS; i++) {
        kept_graph *g = &e->graphs[i];
        if (g->gf && same(&g->shape, shape)) {
            g->used = ++e->graph_clock;
            return g;
        }
        if (g->used < victim->used)
            victim = g;
    }
    kept_graph_clear(victim);
    victim->shape = *shape;
    if (!graph_make(e, victim)) {
        kept_graph_clear(victim);
        return NULL;
    }
    victim->used = ++e->graph_clock;
    return victim;
}
