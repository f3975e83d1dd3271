/* trained_rig: random trained files of every kind that a part may read, for the policy tests. */
#ifndef TESTS_TRAINED_RIG_H
#define TESTS_TRAINED_RIG_H

#include "policy_rig.h"

#include <string.h>

#define RIG_MODEL "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static inline void rig_put(kept_trained *t, const char *name, size_t n, kept_rng *rng)
{
    float *x = rig_array(n);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)kept_rng_unit(rng);
    CHECK_INT(kept_trained_put(t, name, x, n, NULL), KEPT_OK);
    free(x);
}

/* A file of this kind for a model like r; the caller frees it. */
static inline kept_trained *rig_table(const char *kind, const rig *r, uint64_t seed)
{
    static const float ratio[] = {0.1f, 0.25f, 0.5f, 0.8f};
    size_t heads = (size_t)(r->n_layers * r->n_heads), size = (size_t)r->head_size;
    size_t queries = heads * (size_t)r->group;
    kept_trained *t = NULL;
    kept_rng rng;
    kept_rng_init(&rng, seed);
    CHECK_INT(kept_trained_new(kind, RIG_MODEL, &t, NULL), KEPT_OK);
    if (!strcmp(kind, "duo"))
        rig_put(t, "alpha", heads, &rng);
    if (!strcmp(kind, "headkv"))
        rig_put(t, "score", heads, &rng);
    if (!strcmp(kind, "lu-kv")) {
        CHECK_INT(kept_trained_put(t, "ratio", ratio, 4, NULL), KEPT_OK);
        rig_put(t, "keep", 4 * heads, &rng);
    }
    if (!strcmp(kind, "qfilters"))
        rig_put(t, "filter", heads * size, &rng);
    if (!strcmp(kind, "expected") || !strcmp(kind, "triattention"))
        rig_put(t, "mean", queries * size, &rng);
    if (!strcmp(kind, "expected"))
        rig_put(t, "cov", queries * size * size, &rng);
    if (!strcmp(kind, "triattention"))
        rig_put(t, "modulus", queries * size / 2, &rng);
    if (!strcmp(kind, "ranker")) {
        rig_put(t, "w1", heads * 8 * KEPT_N_FEATURES, &rng);
        rig_put(t, "b1", heads * 8, &rng);
        rig_put(t, "w2", heads * 8, &rng);
        rig_put(t, "b2", heads, &rng);
    }
    return t;
}

/* Lends r random files of the kinds that s reads; rig_unlend frees them. */
static inline void rig_lend(rig *r, const kept_strategy *s)
{
    const char *kind[] = {kept_score_trained(s), kept_allocator_trained(s)};
    r->n_trained = 0;
    for (int i = 0; i < 2; i++)
        if (kind[i])
            r->trained[r->n_trained++] = rig_table(kind[i], r, 5);
}
static inline void rig_unlend(rig *r)
{
    while (r->n_trained)
        kept_trained_free((kept_trained *)(uintptr_t)r->trained[--r->n_trained]);
}

#endif
