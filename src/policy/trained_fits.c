/* trained_fits: do the arrays of a trained file have the shape that their readers expect? One
 * table; docs/add-a-strategy.md has it in words. "kvzap" is checked where it is run
 * (model/hidden.c). */
#include "policy/trained_fits.h"

#include <math.h>
#include <string.h>

/* Shapes: l layers, h KV heads, g query heads of one, d channels of a head, p pairs of them, b and
 * c levels of 3 and of 4 bits, f features of a slot, w hidden channels of a ranker, r rows of a
 * table: these two are what the array says that names them. */
static const struct {
    const char *kind, *array, *shape;
    char names; /* the letter that this array's length decides */
} table[] = {
    {"duo", "alpha", "lh", 0},
    {"headkv", "score", "lh", 0},
    {"lu-kv", "ratio", "r", 'r'},
    {"lu-kv", "keep", "rlh", 0},
    {"qfilters", "filter", "lhd", 0},
    {"triattention", "mean", "lhgd", 0},
    {"triattention", "modulus", "lhgp", 0},
    {"expected", "mean", "lhgd", 0},
    {"expected", "cov", "lhgdd", 0},
    {"bits", "k-q8", "lh", 0},
    {"bits", "v-q8", "lh", 0},
    {"bits", "k-rot4", "lh", 0},
    {"bits", "v-rot4", "lh", 0},
    {"bits", "k-rot3", "lh", 0},
    {"bits", "v-rot3", "lh", 0},
    {"bits", "k-rot2", "lh", 0},
    {"bits", "v-rot2", "lh", 0},
    {"split", "budget", "r", 'r'},
    {"split", "kl", "rw", 'w'},
    {"ranker", "b1", "lhw", 'w'},
    {"ranker", "w1", "lhwf", 0},
    {"ranker", "w2", "lhw", 0},
    {"ranker", "b2", "lh", 0},
    {"nuq", "k-zero", "lhd", 0},
    {"nuq", "k-scale", "lhd", 0},
    {"nuq", "k4", "lhc", 0},
    {"nuq", "k3", "lhb", 0},
    {"nuq", "k4s", "lhc", 0},
    {"nuq", "k3s", "lhb", 0},
    {"nuq", "v4", "lhc", 0},
    {"nuq", "v3", "lhb", 0},
    {"nuq", "v4s", "lhc", 0},
    {"nuq", "v3s", "lhb", 0},
    {"basis", "k", "lhdd", 0},
    {"basis", "v", "lhdd", 0},
    {"basis", "flat", "lhdd", 0},
    {"basis", "k2", "lhdd", 0},
    {"basis", "v2", "lhdd", 0},
    {"basis", "k4", "lhdd", 0},
    {"basis", "v4", "lhdd", 0},
};

/* Floats of a shape, without the letter left out. */
static size_t floats(const char *shape, char without, const kept_model_info *m,
                     const size_t own[256])
{
    size_t n = 1;
    for (const char *c = shape; *c; c++) {
        size_t d = (size_t)m->head_size;
        n *= *c == without ? 1
             : *c == 'l'   ? (size_t)m->n_layers
             : *c == 'h'   ? (size_t)m->n_kv_heads
             : *c == 'g'   ? (size_t)(m->n_heads / m->n_kv_heads)
             : *c == 'd'   ? d
             : *c == 'p'   ? d / 2
             : *c == 'b'   ? 8
             : *c == 'c'   ? 16
             : *c == 'f'   ? KEPT_N_FEATURES
                           : own[(unsigned char)*c];
    }
    return n;
}

static kept_status refuse(const char *kind, const char *array, const char *what, kept_error *err)
{
    return kept_fail(err, KEPT_ARGUMENT,
                     "the trained file of kind '%s' does not fit this model: its array '%s' %s; "
                     "make it again",
                     kind, array, what);
}

kept_status kept_trained_fits(const kept_trained *t, const kept_model_info *m, kept_error *err)
{
    size_t own[256] = {0};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const char *array = table[i].array, *kind = table[i].kind;
        size_t n;
        if (strcmp(kind, kept_trained_kind(t)))
            continue;
        const float *x = kept_trained_array(t, array, &n);
        if (!x)
            return refuse(kind, array, "is missing", err);
        size_t unit = floats(table[i].shape, table[i].names, m, own);
        if (table[i].names)
            own[(unsigned char)table[i].names] = n / unit;
        if (n == 0 || n != floats(table[i].shape, 0, m, own))
            return refuse(kind, array, "has another size", err);
        for (size_t k = 0; k < n; k++)
            if (!isfinite(x[k]))
                return refuse(kind, array, "has a number that is not finite", err);
    }
    return KEPT_OK;
}

const char *kept_trained_verb(const char *kind)
{
    return strcmp(kind, "kvzap") && strcmp(kind, "ranker") ? "calibrate" : "train";
}
