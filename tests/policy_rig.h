/* policy_rig: a synthetic sequence for the policy tests: a pool, a cache filled with given keys,
 * values and state, and everything else that an eviction borrows from an engine.
 */
#ifndef TESTS_POLICY_RIG_H
#define TESTS_POLICY_RIG_H

#include "kern/kern.h"
#include "policy/parts.h"
#include "policy/pass.h"
#include "test.h"

#define RIG_EMBD 24

typedef struct rig {
    int n_layers, n_heads, group, head_size, n;
    bool windowed[8];
    kept_capture
        capture;  /* windows 1, 32, all and query statistics; or what rig_needs made of it */
    int n_state;  /* state planes of capture: one each, G where split */
    float *k, *v; /* [n_layers][n_heads][n][D], exact in f16 */
    float *mass;  /* [n_state][n_layers][n_heads][n] */
    float *q_mean, *q_cov;          /* as in kept_evict */
    float *recent;                  /* [n_layers][capture.n_recent][n_heads][G][D], or NULL */
    float *w_o;                     /* [n_layers][RIG_EMBD][n_heads*G*D] */
    double cosine[8];               /* [n_layers] */
    const kept_trained *trained[8]; /* the caller's own */
    int n_trained;
    float *freq; /* [D/2] */
    kept_pool *pool;
    kept_cache *cache;
    kept_evict_work *work;
} rig;

static inline size_t rig_row(const rig *r, int layer, int head)
{
    return (size_t)(layer * r->n_heads + head) * (size_t)r->n;
}
static inline float *rig_mass(const rig *r, int plane, int layer, int head)
{
    return r->mass + (size_t)(plane * r->n_layers * r->n_heads) * (size_t)r->n +
           rig_row(r, layer, head);
}
static inline float *rig_k(const rig *r, int layer, int head)
{
    return r->k + rig_row(r, layer, head) * (size_t)r->head_size;
}
static inline float *rig_v(const rig *r, int layer, int head)
{
    return r->v + rig_row(r, layer, head) * (size_t)r->head_size;
}

static inline float rig_round(double x)
{
    return kept_f16_to_f32(kept_f32_to_f16((float)x));
}

static inline void *rig_array(size_t n)
{
    void *p = kept_calloc(n, sizeof(float));
    if (!p)
        exit(1);
    return p;
}

/* Arrays of a sequence of n tokens; the caller fills them and calls rig_fill. */
static inline rig rig_new(int n_layers, int n_heads, int group, int head_size, int n)
{
    rig r = {
        .n_layers = n_layers, .n_heads = n_heads, .group = group, .head_size = head_size, .n = n};
    size_t heads = (size_t)(n_layers * n_heads), size = (size_t)head_size, g = (size_t)group;
    r.k = rig_array(heads * (size_t)n * size);
    r.v = rig_array(heads * (size_t)n * size);
    r.mass = rig_array(3 * heads * (size_t)n);
    r.n_state = 3;
    r.capture = (kept_capture){.n_planes = 3,
                               .plane = {{.kind = KEPT_PLANE_MASS, .window = 1},
                                         {.kind = KEPT_PLANE_MASS, .window = 32},
                                         {.kind = KEPT_PLANE_MASS, .window = INT32_MAX}},
                               .query_stats = true,
                               .layer_cosine = true};
    r.w_o = rig_array(heads * RIG_EMBD * g * size);
    r.q_mean = rig_array(heads * g * size);
    r.q_cov = rig_array(heads * g * size * size);
    r.freq = rig_array(size / 2);
    for (int j = 0; j < head_size / 2; j++)
        r.freq[j] = (float)pow(10000, -2.0 * j / head_size);
    r.work = kept_evict_work_new();
    return r;
}

/* Makes capture and the arrays of state and recent queries exactly what s needs (all zero); before
 * rig_pool. */
static inline void rig_needs(rig *r, const kept_strategy *s)
{
    size_t heads = (size_t)(r->n_layers * r->n_heads), g = (size_t)r->group;
    r->capture = (kept_capture){0};
    CHECK_INT(kept_strategy_needs(s, &r->capture, NULL), KEPT_OK);
    r->n_state = 0;
    for (int i = 0; i < r->capture.n_planes; i++)
        r->n_state += r->capture.plane[i].split ? r->group : 1;
    free(r->mass);
    free(r->recent);
    r->mass = rig_array((size_t)r->n_state * heads * (size_t)r->n + 1);
    r->recent = rig_array((size_t)r->capture.n_recent * heads * g * (size_t)r->head_size + 1);
}

/* What was captured: of rng, or NULL: the same mass and the same number everywhere. */
static inline void rig_fill_captured(rig *r, kept_rng *rng, float mass, float level)
{
    const size_t rows = (size_t)(r->n_layers * r->n_heads) * (size_t)r->n;
    const size_t size = (size_t)r->head_size;
    const size_t stats = (size_t)(r->n_layers * r->n_heads * r->group) * size;
    for (size_t i = 0; i < (size_t)r->n_state * rows; i++)
        r->mass[i] = rng ? (float)kept_rng_unit(rng) : mass;
    for (size_t i = 0; i < stats; i++)
        r->q_mean[i] = rng ? (float)kept_rng_normal(rng) : level;
    for (size_t i = 0; i < stats; i++)
        for (size_t d = 0; d < size; d++)
            r->q_cov[i * size + d] = d == i % size ? 1.0f : 0.0f;
    for (size_t i = 0; i < stats * (size_t)r->capture.n_recent; i++)
        r->recent[i] = rng ? (float)kept_rng_normal(rng) : level;
    for (size_t i = 0; i < stats * RIG_EMBD; i++)
        r->w_o[i] = rng ? (float)kept_rng_normal(rng) : level;
}

/* Query of token n - capture.n_recent + t: [D]. */
static inline float *rig_recent(const rig *r, int layer, int t, int head, int x)
{
    size_t at = (size_t)layer * (size_t)r->capture.n_recent + (size_t)t;
    at = (at * (size_t)r->n_heads + (size_t)head) * (size_t)r->group + (size_t)x;
    return r->recent + at * (size_t)r->head_size;
}

static inline const float *rig_w_o(void *ctx, int layer)
{
    const rig *r = ctx;
    size_t row = (size_t)(r->n_heads * r->group * r->head_size);
    return r->w_o + (size_t)layer * RIG_EMBD * row;
}

/* A pool with room for three caches of the rig. */
static inline void rig_pool(rig *r)
{
    size_t pages = (size_t)(r->n_layers * r->n_heads) * (size_t)(r->n / 64 + 2) * 3;
    CHECK_INT(kept_pool_new(r->head_size, pages, pages * (size_t)(r->n_state + 2), &r->pool, NULL),
              KEPT_OK);
}

/* Writes token `pos` of the arrays as the next slot of every head. */
static inline void rig_append(rig *r, kept_cache *c, int pos)
{
    for (int l = 0; l < r->n_layers; l++)
        for (int h = 0; h < r->n_heads; h++) {
            int slot = kept_cache_n(c, l, h);
            size_t at = (size_t)pos * (size_t)r->head_size;
            CHECK_INT(kept_cache_reserve(c, l, h, 1), KEPT_OK);
            kept_cache_put(c, l, h, slot, rig_k(r, l, h) + at, rig_v(r, l, h) + at, pos);
            kept_cache_commit(c, l, h, 1);
            for (int p = 0; p < r->n_state; p++)
                kept_cache_set_state(c, l, h, p, slot, rig_mass(r, p, l, h)[pos]);
        }
}

/* A cache with the first n tokens, slot order turned by `turn` so that it is not the order of
 * positions (0: it is). */
static inline kept_cache *rig_cache(rig *r, int n, int turn)
{
    kept_cache *c = NULL;
    CHECK_INT(kept_cache_new(r->pool, kept_kern_get("ref"), r->n_layers, r->n_heads, r->n_state + 2,
                             r->n, &c, NULL),
              KEPT_OK);
    for (int i = 0; i < n; i++)
        rig_append(r, c, (i + turn) % n);
    return c;
}

static inline void rig_free(rig *r)
{
    kept_cache_free(r->cache);
    if (r->pool) {
        kept_pool_account a;
        kept_pool_get_account(r->pool, &a);
        CHECK_INT(a.n_free_pages, a.n_pages);
        kept_pool_free(r->pool);
    }
    kept_evict_work_free(r->work);
    free(r->k);
    free(r->v);
    free(r->mass);
    free(r->recent);
    free(r->w_o);
    free(r->q_mean);
    free(r->q_cov);
    free(r->freq);
}

/* What an engine would lend for evicting from cache c, n tokens seen. */
static inline kept_evict rig_evict(const rig *r, kept_cache *c, int n)
{
    kept_evict e = {.cache = c,
                    .n_layers = r->n_layers,
                    .windowed = r->windowed,
                    .n_heads = r->n_heads,
                    .group = r->group,
                    .head_size = r->head_size,
                    .next_pos = n,
                    .full_tokens = n,
                    .capture = r->capture,
                    .rope_plane = r->n_state,
                    .bias_plane = r->n_state + 1,
                    .recent = r->capture.n_recent ? r->recent : NULL,
                    .n_recent = r->capture.n_recent,
                    .cosine = r->cosine,
                    .w_o = rig_w_o,
                    .n_embd = RIG_EMBD,
                    .trained = r->trained,
                    .n_trained = r->n_trained,
                    .kern = kept_kern_get("ref"),
                    .attn_scale = 1.0f / sqrtf((float)r->head_size),
                    .q_mean = r->q_mean,
                    .q_cov = r->q_cov,
                    .rope_freq = r->freq,
                    .n_rope = r->head_size,
                    .rope_neox = true,
                    .seed = 1};
    e.w_o_ctx = (void *)(uintptr_t)r; /* only read */
    return e;
}

static inline kept_strategy *rig_parse(const char *spec)
{
    kept_strategy *s = NULL;
    kept_error err = {"", 0};
    if (kept_strategy_parse(spec, &s, &err)) {
        fprintf(stderr, "%s: %s\n", spec, err.text);
        exit(1);
    }
    return s;
}

/* live[pos] = 1 for every position that head still holds; returns their number. */
static inline int rig_live(const rig *r, const kept_cache *c, int layer, int head, uint8_t *live)
{
    int n = kept_cache_n(c, layer, head);
    int32_t *pos = rig_array((size_t)n + 1);
    memset(live, 0, (size_t)r->n);
    kept_cache_read(c, layer, head, pos, NULL, NULL);
    for (int i = 0; i < n; i++) {
        CHECK(pos[i] >= 0 && pos[i] < r->n && !live[pos[i]]);
        live[pos[i]] = 1;
    }
    free(pos);
    return n;
}

#endif
