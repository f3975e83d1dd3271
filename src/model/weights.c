/* weights: tensors of the file as ggml tensors the graph can use.
 *
 * A matrix goes to the first of the CPU's extra buffer types that can multiply it (these store a
 * repacked copy that its kernels read faster), one of Q4_1 as two (kept_matrix); all other tensors
 * stay where they are in the mapped file, without a copy. With tied embeddings the output matrix is
 * the embedding matrix: look-up needs the plain layout, multiplication may want a repacked copy of
 * its own.
 *
 * Every tensor is asked for by name with the shape the hyper-parameters imply. A tensor that nobody
 * asked for means that the model computes something we do not, so it is refused.
 */
#include "model/model.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_TYPES 8

/* Tensors of one buffer type. The plain type is the last and lives in the mapping; the one before
 * holds what is computed from the file, in plain memory. */
typedef struct group {
    ggml_backend_buffer_type_t type;
    ggml_backend_buffer_t probe; /* empty buffer of this type, to ask supports_op with */
    struct ggml_context *ctx;
    ggml_backend_buffer_t buffer;
    uint64_t bytes;
} group;

struct kept_weights {
    void *map;
    size_t map_bytes;
    struct gguf_context *gguf;
    struct ggml_context *meta; /* shapes and types as the file declares them */
    group groups[MAX_TYPES];
    int n_groups;
    int n_used; /* tensors of the file that were asked for */
};

typedef struct loader {
    struct kept_model *m;
    struct kept_weights *w;
    kept_error *err;
    kept_status status;
} loader;

/* What get_rows and mul_mat of ggml's CPU backend both take; others make it abort. */
static bool type_runs(enum ggml_type t)
{
    switch (t) {
    case GGML_TYPE_F32:
    case GGML_TYPE_F16:
    case GGML_TYPE_BF16:
    case GGML_TYPE_Q4_0:
    case GGML_TYPE_Q4_1:
    case GGML_TYPE_Q5_0:
    case GGML_TYPE_Q5_1:
    case GGML_TYPE_Q8_0:
    case GGML_TYPE_Q2_K:
    case GGML_TYPE_Q3_K:
    case GGML_TYPE_Q4_K:
    case GGML_TYPE_Q5_K:
    case GGML_TYPE_Q6_K:
    case GGML_TYPE_IQ1_S:
    case GGML_TYPE_IQ1_M:
    case GGML_TYPE_IQ2_XXS:
    case GGML_TYPE_IQ2_XS:
    case GGML_TYPE_IQ2_S:
    case GGML_TYPE_IQ3_XXS:
    case GGML_TYPE_IQ3_S:
    case GGML_TYPE_IQ4_NL:
    case GGML_TYPE_IQ4_XS:
    case GGML_TYPE_TQ1_0:
    case GGML_TYPE_TQ2_0:
    case GGML_TYPE_MXFP4:
        return true;
    default:
        return false;
    }
}

static kept_status map_file(struct kept_weights *w, const char *path, kept_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int e = errno;
        if (fd >= 0)
            close(fd);
        return kept_fail(err, KEPT_IO, "cannot open it: %s", strerror(e));
    }
    w->map_bytes = (size_t)st.st_size;
    void *p = mmap(NULL, w->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    int e = errno;
    close(fd);
    if (p == MAP_FAILED)
        return kept_fail(err, KEPT_IO, "cannot map it: %s", strerror(e));
    w->map = p;
    madvise(w->map, w->map_bytes, MADV_WILLNEED);
    return KEPT_OK;
}

static kept_status open_groups(loader *l, bool repack)
{
    struct kept_weights *w = l->w;
    ggml_backend_reg_t reg = ggml_backend_dev_backend_reg(l->m->dev);
    if (repack) {
        ggml_backend_dev_get_extra_bufts_t extra;
        *(void **)&extra =
            ggml_backend_reg_get_proc_address(reg, "ggml_backend_dev_get_extra_bufts");
        ggml_backend_buffer_type_t *b = extra ? extra(l->m->dev) : NULL;
        for (; b && *b && w->n_groups < MAX_TYPES - 2; b++)
            w->groups[w->n_groups++].type = *b;
    }
    for (int i = 0; i < 2; i++)
        w->groups[w->n_groups++].type = ggml_backend_dev_buffer_type(l->m->dev);
    for (int i = 0; i < w->n_groups; i++) {
        group *g = &w->groups[i];
        struct ggml_init_params p = {.mem_size = ggml_tensor_overhead() *
                                                 ((size_t)gguf_get_n_tensors(w->gguf) + 2),
                                     .no_alloc = true};
        g->ctx = ggml_init(p);
        if (!g->ctx)
            return kept_fail(l->err, KEPT_NOMEM, "out of memory for tensor descriptions");
        if (i < w->n_groups - 2)
            g->probe = ggml_backend_buft_alloc_buffer(g->type, 0);
    }
    return KEPT_OK;
}

/* The group whose kernels multiply a matrix of t's shape and this type best: the first that says it
 * can. */
static int pick_group(loader *l, const struct ggml_tensor *t, enum ggml_type type)
{
    int plain = l->w->n_groups - 1;
    for (int i = 0; i < plain; i++) {
        if (!l->w->groups[i].probe)
            continue;
        struct ggml_init_params p = {.mem_size = ggml_tensor_overhead() * 8, .no_alloc = true};
        struct ggml_context *c = ggml_init(p);
        if (!c)
            return plain;
        struct ggml_tensor *a = ggml_new_tensor_2d(c, type, t->ne[0], t->ne[1]);
        a->buffer = l->w->groups[i].probe;
        struct ggml_tensor *b = ggml_new_tensor_2d(c, GGML_TYPE_F32, t->ne[0], 512);
        bool yes = ggml_backend_dev_supports_op(l->m->dev, ggml_mul_mat(c, a, b));
        ggml_free(c);
        if (yes)
            return i;
    }
    return plain;
}

static struct ggml_tensor *add_as(loader *l, enum ggml_type type, const int64_t *ne,
                                  const char *name, int at)
{
    struct ggml_tensor *x = ggml_new_tensor(l->w->groups[at].ctx, type, GGML_MAX_DIMS, ne);
    ggml_set_name(x, name);
    l->w->groups[at].bytes += ggml_nbytes(x);
    return x;
}

static struct ggml_tensor *add(loader *l, const struct ggml_tensor *t, const char *name, int at)
{
    return add_as(l, t->type, t->ne, name, at);
}

/* The tensor of the file with this name, checked to be [ne0] (ne1 = 0) or [ne0][ne1]. */
static const struct ggml_tensor *look_up(loader *l, const char *name, int64_t ne0, int64_t ne1)
{
    const struct ggml_tensor *t = ggml_get_tensor(l->w->meta, name);
    int64_t rows = ne1 ? ne1 : 1;
    if (!t || l->status != KEPT_OK)
        return NULL;
    if (t->ne[0] != ne0 || t->ne[1] != rows || t->ne[2] != 1 || t->ne[3] != 1) {
        l->status =
            kept_fail(l->err, KEPT_FORMAT,
                      "tensor %s is [%lld, %lld, %lld, %lld], the metadata imply [%lld, %lld]",
                      name, (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2],
                      (long long)t->ne[3], (long long)ne0, (long long)rows);
        return NULL;
    }
    if (ne1 ? !type_runs(t->type) : t->type != GGML_TYPE_F32) {
        l->status = kept_fail(l->err, KEPT_UNSUPPORTED, "tensor %s is of type %s, which is not %s",
                              name, ggml_type_name(t->type),
                              ne1 ? "supported for matrices" : "supported for vectors (f32 is)");
        return NULL;
    }
    l->w->n_used++;
    return t;
}

static struct ggml_tensor *missing(loader *l, const char *name)
{
    if (l->status == KEPT_OK)
        l->status =
            kept_fail(l->err, KEPT_FORMAT, "tensor %s is missing: convert the model again", name);
    return NULL;
}

static struct ggml_tensor *vector(loader *l, const char *name, int64_t n, bool required)
{
    const struct ggml_tensor *t = look_up(l, name, n, 0);
    if (t)
        return add(l, t, name, l->w->n_groups - 1);
    return required ? missing(l, name) : NULL;
}

/* The matrix that lies in the file as t. */
static kept_matrix place(loader *l, const struct ggml_tensor *t, const char *name)
{
    const int plain = l->w->n_groups - 1;
    int at = pick_group(l, t, t->type);
    if (at != plain || t->type != GGML_TYPE_Q4_1 ||
        (at = pick_group(l, t, GGML_TYPE_Q4_0)) == plain)
        return (kept_matrix){.w = add(l, t, name, at)};
    const int64_t width = t->ne[0] / KEPT_SPLIT_BLOCK;
    const int64_t ne[4] = {GGML_PAD(width, KEPT_SPLIT_PAD), t->ne[1], 1, 1};
    return (kept_matrix){add_as(l, GGML_TYPE_Q4_0, t->ne, name, at),
                         add_as(l, GGML_TYPE_F16, ne, name, plain - 1)};
}

static kept_matrix matrix(loader *l, const char *name, int64_t ne0, int64_t ne1)
{
    const struct ggml_tensor *t = look_up(l, name, ne0, ne1);
    return t ? place(l, t, name) : (kept_matrix){.w = missing(l, name)};
}

static void want_layer(loader *l, int i)
{
    const struct kept_model *m = l->m;
    const kept_model_info *o = &m->info;
    kept_layer *y = &m->layers[i];
    bool qwen2 = strcmp(o->arch, "qwen2") == 0, gemma3 = strcmp(o->arch, "gemma3") == 0;
    bool qk_norm = gemma3 || strcmp(o->arch, "qwen3") == 0;
    int64_t e = o->n_embd, d = o->head_size, nq = d * o->n_heads, nk = d * o->n_kv_heads;
    char s[64];
#define NAME(x) (snprintf(s, sizeof s, "blk.%d." x, i), s)
    y->attn_norm = vector(l, NAME("attn_norm.weight"), e, true);
    y->q = matrix(l, NAME("attn_q.weight"), e, nq);
    y->k = matrix(l, NAME("attn_k.weight"), e, nk);
    y->v = matrix(l, NAME("attn_v.weight"), e, nk);
    y->o = matrix(l, NAME("attn_output.weight"), nq, e);
    if (qwen2) {
        y->q_bias = vector(l, NAME("attn_q.bias"), nq, false);
        y->k_bias = vector(l, NAME("attn_k.bias"), nk, false);
        y->v_bias = vector(l, NAME("attn_v.bias"), nk, false);
    }
    if (qk_norm) {
        y->q_norm = vector(l, NAME("attn_q_norm.weight"), d, true);
        y->k_norm = vector(l, NAME("attn_k_norm.weight"), d, true);
    }
    y->ffn_norm = vector(l, NAME("ffn_norm.weight"), e, true);
    y->gate = matrix(l, NAME("ffn_gate.weight"), e, m->n_ff);
    y->up = matrix(l, NAME("ffn_up.weight"), e, m->n_ff);
    y->down = matrix(l, NAME("ffn_down.weight"), m->n_ff, e);
    if (gemma3) {
        y->attn_post_norm = vector(l, NAME("post_attention_norm.weight"), e, true);
        y->ffn_post_norm = vector(l, NAME("post_ffw_norm.weight"), e, true);
    }
#undef NAME
}

static kept_status want_all(loader *l)
{
    struct kept_model *m = l->m;
    struct kept_weights *w = l->w;
    const char *tok = "token_embd.weight";
    int plain = w->n_groups - 1;
    int64_t e = m->info.n_embd, v = m->info.n_vocab;
    const struct ggml_tensor *t = look_up(l, tok, e, v);
    m->tok_embd = t ? add(l, t, tok, plain) : missing(l, tok);
    m->output_norm = vector(l, "output_norm.weight", e, true);
    if (ggml_get_tensor(w->meta, "output.weight")) {
        m->output = matrix(l, "output.weight", e, v);
    } else if (t) {
        if (pick_group(l, t, t->type) == plain)
            m->output.w = m->tok_embd;
        else
            m->output = place(l, t, "output.weight");
    }
    if (strcmp(m->info.arch, "llama") == 0)
        m->rope_factors = vector(l, "rope_freqs.weight", m->n_rope / 2, false);
    for (int i = 0; i < m->info.n_layers && l->status == KEPT_OK; i++)
        want_layer(l, i);
    if (l->status != KEPT_OK || w->n_used == gguf_get_n_tensors(w->gguf))
        return l->status;
    for (int64_t i = 0; i < gguf_get_n_tensors(w->gguf); i++) {
        const char *name = gguf_get_tensor_name(w->gguf, i);
        bool used = false;
        for (int g = 0; g < w->n_groups && !used; g++)
            used = ggml_get_tensor(w->groups[g].ctx, name) != NULL;
        if (!used)
            return kept_fail(l->err, KEPT_UNSUPPORTED,
                             "tensor %s is not part of a %s model as kept computes it", name,
                             m->info.arch);
    }
    return KEPT_OK;
}

/* What the file has under t's name. */
static const struct ggml_tensor *in_file(const struct kept_weights *w, const struct ggml_tensor *t)
{
    const struct ggml_tensor *f = ggml_get_tensor(w->meta, ggml_get_name(t));
    /* else the repacked copy of tied embeddings */
    return f ? f : ggml_get_tensor(w->meta, "token_embd.weight");
}

/* Where t's bytes are in the mapping, or NULL if the file has changed since it was checked. */
static const uint8_t *file_data(const struct kept_weights *w, const struct ggml_tensor *t)
{
    const struct ggml_tensor *f = in_file(w, t);
    int64_t i = gguf_find_tensor(w->gguf, ggml_get_name(f));
    size_t at = gguf_get_data_offset(w->gguf) + gguf_get_tensor_offset(w->gguf, i);
    if (at > w->map_bytes || ggml_nbytes(f) > w->map_bytes - at)
        return NULL;
    return (const uint8_t *)w->map + at;
}

/* Lets the kernel take back the pages of a tensor that lives on as a repacked copy. */
static void drop_pages(const void *data, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t lo = ((uintptr_t)data + page - 1) / page * page,
              hi = ((uintptr_t)data + n) / page * page;
    if (hi > lo)
        madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

/* t's data from those of the file, which may be of another type: kept_matrix. */
static kept_status fill(loader *l, struct ggml_tensor *t, const uint8_t *data)
{
    const struct ggml_tensor *f = in_file(l->w, t);
    const int64_t blocks = f->ne[0] / KEPT_SPLIT_BLOCK;
    if (f->type == t->type) {
        ggml_backend_tensor_set(t, data, 0, ggml_nbytes(t));
        return KEPT_OK;
    }
    void *made = malloc(ggml_nbytes(t));
    if (!made)
        return kept_fail(l->err, KEPT_NOMEM, "out of memory for weights");
    if (t->type == GGML_TYPE_Q4_0)
        kept_split_weights(data, blocks * f->ne[1], made);
    else
        kept_split_shift(data, f->ne[1], blocks, t->ne[0], made);
    ggml_backend_tensor_set(t, made, 0, ggml_nbytes(t));
    free(made);
    return KEPT_OK;
}

static kept_status fill_group(loader *l, group *g, bool mapped)
{
    struct kept_weights *w = l->w;
    struct ggml_tensor *t = ggml_get_first_tensor(g->ctx);
    if (!t)
        return KEPT_OK;
    g->buffer = mapped ? ggml_backend_dev_buffer_from_host_ptr(l->m->dev, w->map, w->map_bytes,
                                                               w->map_bytes)
                       : ggml_backend_alloc_ctx_tensors_from_buft(g->ctx, g->type);
    if (!g->buffer)
        return kept_fail(l->err, KEPT_NOMEM, "cannot allocate %llu bytes of %s for weights",
                         (unsigned long long)g->bytes, ggml_backend_buft_name(g->type));
    ggml_backend_buffer_set_usage(g->buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    kept_status s = KEPT_OK;
    for (; t && s == KEPT_OK; t = ggml_get_next_tensor(g->ctx, t)) {
        const uint8_t *data = file_data(w, t);
        if (!data)
            return kept_fail(l->err, KEPT_IO, "the file changed while it was being opened");
        if (mapped) {
            if (ggml_backend_tensor_alloc(g->buffer, t, (void *)(uintptr_t)data) !=
                GGML_STATUS_SUCCESS)
                return kept_fail(l->err, KEPT_FORMAT, "tensor %s does not fit its buffer",
                                 ggml_get_name(t));
        } else {
            s = fill(l, t, data);
            if (gguf_find_tensor(w->gguf, ggml_get_name(t)) >= 0)
                drop_pages(data, ggml_nbytes(in_file(w, t)));
        }
    }
    return s;
}

/* Sums over the file's tensors and the list of buffer types in use. */
static void describe(struct kept_model *m)
{
    const struct kept_weights *w = m->weights;
    uint64_t by_type[GGML_TYPE_COUNT] = {0};
    int most = 0;
    for (struct ggml_tensor *t = ggml_get_first_tensor(w->meta); t;
         t = ggml_get_next_tensor(w->meta, t)) {
        m->info.n_params += (uint64_t)ggml_nelements(t);
        m->info.weight_bytes += ggml_nbytes(t);
        by_type[t->type] += ggml_nbytes(t);
    }
    for (int i = 1; i < GGML_TYPE_COUNT; i++)
        if (by_type[i] > by_type[most])
            most = i;
    snprintf(m->info.weight_type, sizeof m->info.weight_type, "%s",
             ggml_type_name((enum ggml_type)most));
    m->info.file_bytes = w->map_bytes;
    size_t n = 0;
    for (int i = w->n_groups - 1; i >= 0; i--) {
        char size[32];
        uint64_t bytes = w->groups[i].bytes;
        if (i == w->n_groups - 1) /* both of the plain type */
            bytes += w->groups[i - 1].bytes;
        if (!bytes || i == w->n_groups - 2 || n >= sizeof m->info.buffers)
            continue;
        n += (size_t)snprintf(m->info.buffers + n, sizeof m->info.buffers - n, "%s%s %s",
                              n ? ", " : "", ggml_backend_buft_name(w->groups[i].type),
                              kept_format_bytes(bytes, size, sizeof size));
    }
}

kept_status kept_weights_load(struct kept_model *m, bool repack, kept_error *err)
{
    loader l = {.m = m, .w = kept_calloc(1, sizeof(struct kept_weights)), .err = err};
    m->weights = l.w;
    if (!l.w)
        return kept_fail(err, KEPT_NOMEM, "out of memory");
    m->dev = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!m->dev)
        return kept_fail(err, KEPT_UNSUPPORTED, "ggml has no CPU backend here: install ggml-cpu");
    kept_status s = map_file(l.w, m->path, err);
    if (s != KEPT_OK)
        return s;
    struct gguf_init_params p = {.no_alloc = true, .ctx = &l.w->meta};
    l.w->gguf = gguf_init_from_file(m->path, p);
    if (!l.w->gguf || !l.w->meta)
        return kept_fail(err, KEPT_FORMAT, "ggml cannot read it");
    if ((s = kept_hparams_read(m, l.w->gguf, err)) != KEPT_OK ||
        (s = open_groups(&l, repack)) != KEPT_OK || (s = want_all(&l)) != KEPT_OK)
        return s;
    for (int i = 0; i < l.w->n_groups && s == KEPT_OK; i++)
        s = fill_group(&l, &l.w->groups[i], i == l.w->n_groups - 1);
    if (s == KEPT_OK)
        describe(m);
    return s;
}

bool kept_weights_read(const struct kept_model *m, const struct ggml_tensor *t, float *out)
{
    const struct kept_weights *w = m->weights;
    const uint8_t *data = file_data(w, t);
    const enum ggml_type type = in_file(w, t)->type;
    const ggml_to_float_t convert = ggml_get_type_traits(type)->to_float;
    const size_t row = ggml_row_size(type, t->ne[0]);
    if (!data || (!convert && type != GGML_TYPE_F32))
        return false;
    for (int64_t i = 0; out && i < t->ne[1]; i++, out += t->ne[0]) {
        const uint8_t *from = data + (size_t)i * row;
        if (convert)
            convert(from, out, t->ne[0]);
        else
            memcpy(out, from, row);
    }
    if (out && t->data != data)
        drop_pages(data, ggml_nbytes(in_file(w, t)));
    return true;
}

void kept_weights_free(struct kept_model *m)
{
    struct kept_weights *w = m->weights;
    if (!w)
        return;
    for (int i = 0; i < w->n_groups; i++) {
        ggml_backend_buffer_free(w->groups[i].probe);
        ggml_backend_buffer_free(w->groups[i].buffer);
        ggml_free(w->groups[i].ctx);
    }
    ggml_free(w->meta);
    gguf_free(w->gguf);
    if (w->map)
        munmap(w->map, w->map_bytes);
    free(w);
    m->weights = NULL;
}
