/* parts: the one list of everything a spec may name. A line here plus the file that defines it is
 * all it takes to add a part: parser, help, tests and documentation checks read these lists.
 *
 * The order is the order of help and documentation. An explicit list, not constructors or linker
 * sections: those vanish from static archives.
 */
#ifndef POLICY_PARTS_H
#define POLICY_PARTS_H

#include "policy/control.h"
#include "policy/strategy.h"

/* X(identifier): const kept_score kept_score_IDENTIFIER, in score_IDENTIFIER.c */
#define KEPT_SCORE_LIST(X)                                                                         \
    X(full)                                                                                        \
    X(random)                                                                                      \
    X(recency)                                                                                     \
    X(ladder)                                                                                      \
    X(h2o)                                                                                         \
    X(tova)                                                                                        \
    X(snapkv)                                                                                      \
    X(mean_variance)                                                                               \
    X(question)                                                                                    \
    X(nacl)                                                                                        \
    X(morph)                                                                                       \
    X(persistence)                                                                                 \
    X(keyformer)                                                                                   \
    X(redundancy)                                                                                  \
    X(dropkv)                                                                                      \
    X(knorm)                                                                                       \
    X(keydiff)                                                                                     \
    X(expected_attention)                                                                          \
    X(lagkv)                                                                                       \
    X(pagedeviction)                                                                               \
    X(q_filters)                                                                                   \
    X(cur)                                                                                         \
    X(leverage)                                                                                    \
    X(non_causal)                                                                                  \
    X(compactor)                                                                                   \
    X(capkv)                                                                                       \
    X(triattention)                                                                                \
    X(corm)                                                                                        \
    X(kvzip)                                                                                       \
    X(kvzip_plus)                                                                                  \
    X(kvzap)                                                                                       \
    X(ranker)                                                                                      \
    X(oracle)

/* X(identifier): const kept_wrapper kept_wrap_IDENTIFIER, in wrap_IDENTIFIER.c */
#define KEPT_WRAP_LIST(X)                                                                          \
    X(tokens)                                                                                      \
    X(chunked)                                                                                     \
    X(blocks)                                                                                      \
    X(critical)                                                                                    \
    X(blended)

/* X(identifier): const kept_allocator kept_alloc_IDENTIFIER, in alloc_IDENTIFIER.c */
#define KEPT_ALLOC_LIST(X)                                                                         \
    X(uniform)                                                                                     \
    X(pyramid)                                                                                     \
    X(ada)                                                                                         \
    X(global)                                                                                      \
    X(cake)                                                                                        \
    X(lava)                                                                                        \
    X(squeeze)                                                                                     \
    X(simlayer)                                                                                    \
    X(threshold)                                                                                   \
    X(coverage)                                                                                    \
    X(composite)                                                                                   \
    X(zigzag)                                                                                      \
    X(duo)                                                                                         \
    X(headkv)                                                                                      \
    X(lu_kv)

/* X(identifier): const kept_read kept_read_IDENTIFIER, in read_IDENTIFIER.c */
#define KEPT_READ_LIST(X)                                                                          \
    X(all)                                                                                         \
    X(quest)                                                                                       \
    X(landmarks)                                                                                   \
    X(rocket)                                                                                      \
    X(sparse_v)

/* X(identifier): const kept_part kept_part_IDENTIFIER, in parts.c or forms_parts.c: the axes that
 * the engine itself carries out, so that a part is only a name and its options. */
#define KEPT_PART_LIST(X)                                                                          \
    X(unweighted)                                                                                  \
    X(values)                                                                                      \
    X(protect)                                                                                     \
    X(prefill)                                                                                     \
    X(decode)                                                                                      \
    X(chunks)                                                                                      \
    X(turns)                                                                                       \
    X(pressure)                                                                                    \
    X(layers)                                                                                      \
    X(original)                                                                                    \
    X(slot)                                                                                        \
    X(rerotated)                                                                                   \
    X(f16)                                                                                         \
    X(store)                                                                                       \
    X(aged)                                                                                        \
    X(ranked)                                                                                      \
    X(waterfill)                                                                                   \
    X(calibrated)                                                                                  \
    X(searched)                                                                                    \
    X(awake)                                                                                       \
    X(park)

/* X(identifier): const kept_merge kept_merge_IDENTIFIER, in merge_IDENTIFIER.c */
#define KEPT_MERGE_LIST(X)                                                                         \
    X(drop)                                                                                        \
    X(merging)                                                                                     \
    X(cam)                                                                                         \
    X(d2o)                                                                                         \
    X(kvmerger)                                                                                    \
    X(summary)                                                                                     \
    X(matching)

/* X(identifier): const kept_controller kept_control_IDENTIFIER, in controller.c */
#define KEPT_CONTROL_LIST(X)                                                                       \
    X(fixed)                                                                                       \
    X(adaptive)                                                                                    \
    X(balance)

/* X(identifier): const kept_recipe kept_recipe_IDENTIFIER, in recipes.c or recipes_codec.c */
#define KEPT_RECIPE_LIST(X)                                                                        \
    X(window)                                                                                      \
    X(streaming)                                                                                   \
    X(chunk_summaries)                                                                             \
    X(recursive)                                                                                   \
    X(observed_attention)                                                                          \
    X(pyramidkv)                                                                                   \
    X(adakv)                                                                                       \
    X(ada_expected_attention)                                                                      \
    X(cakekv)                                                                                      \
    X(lavakv)                                                                                      \
    X(squeezeattention)                                                                            \
    X(simlayerkv)                                                                                  \
    X(duo_attention)                                                                               \
    X(headkv_snapkv)                                                                               \
    X(lukv)                                                                                        \
    X(kvcompose)                                                                                   \
    X(kvzap_threshold)                                                                             \
    X(expected_attention_stats)                                                                    \
    X(trikv)                                                                                       \
    X(pagedeviction_blocks)                                                                        \
    X(criticalkv)                                                                                  \
    X(critical_adakv)                                                                              \
    X(chunkkv)                                                                                     \
    X(finch)                                                                                       \
    X(compactorkv)                                                                                 \
    X(scissorhands)                                                                                \
    X(morphkv)                                                                                     \
    X(r_kv)                                                                                        \
    X(rocketkv)                                                                                    \
    X(bf16)                                                                                        \
    X(q8)                                                                                          \
    X(q4)                                                                                          \
    X(q4g)                                                                                         \
    X(rot4)                                                                                        \
    X(rot3)                                                                                        \
    X(rot2)                                                                                        \
    X(nuq4)                                                                                        \
    X(nuq3)                                                                                        \
    X(nuq4s)                                                                                       \
    X(nuq3s)                                                                                       \
    X(think75)                                                                                     \
    X(think50)                                                                                     \
    X(think25)                                                                                     \
    X(palu75)                                                                                      \
    X(palu50)                                                                                      \
    X(palu25)                                                                                      \
    X(palu50q8)                                                                                    \
    X(xkv50)                                                                                       \
    X(xkv25)                                                                                       \
    X(xkv12)                                                                                       \
    X(minicache)                                                                                   \
    X(shadowkv)                                                                                    \
    X(kivi4)                                                                                       \
    X(kivi2)                                                                                       \
    X(k4v3)                                                                                        \
    X(aging)                                                                                       \
    X(rdkv)                                                                                        \
    X(kvtc)

#define KEPT_DECLARE(id) extern const kept_score kept_score_##id;
KEPT_SCORE_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_wrapper kept_wrap_##id;
KEPT_WRAP_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_allocator kept_alloc_##id;
KEPT_ALLOC_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_part kept_part_##id;
KEPT_PART_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_merge kept_merge_##id;
KEPT_MERGE_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_read kept_read_##id;
KEPT_READ_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_controller kept_control_##id;
KEPT_CONTROL_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE
#define KEPT_DECLARE(id) extern const kept_recipe kept_recipe_##id;
KEPT_RECIPE_LIST(KEPT_DECLARE)
#undef KEPT_DECLARE

/* Options of the engine's own parts, in the order of their tables. */
enum { KEPT_VALUES_KIND, KEPT_VALUES_EPSILON };
enum { KEPT_WEIGHT_L2, KEPT_WEIGHT_OUTPUT, KEPT_WEIGHT_MAX }; /* choices of values(kind=) */
enum {
    KEPT_PROTECT_SINKS,
    KEPT_PROTECT_RECENT,
    KEPT_PROTECT_FIRST,
    KEPT_PROTECT_LAST,
    KEPT_PROTECT_TEMPLATE
};
enum { KEPT_TEMPLATE_OFF, KEPT_TEMPLATE_KEEP, KEPT_TEMPLATE_DEMOTE }; /* choices of template= */
enum { KEPT_DECODE_EVERY, KEPT_DECODE_SLACK };
enum { KEPT_CHUNKS_DECODE, KEPT_CHUNKS_SLACK };
enum {
    KEPT_AGED_NEW,
    KEPT_AGED_MID,
    KEPT_AGED_OLD,
    KEPT_AGED_MID_AFTER,
    KEPT_AGED_OLD_AFTER,
    KEPT_AGED_IN,
    KEPT_AGED_NEW_V,
    KEPT_AGED_MID_V,
    KEPT_AGED_OLD_V,
    KEPT_AGED_EDGE, /* followed by edge-as, here and below */
    KEPT_AGED_EDGE_AS
};
enum {
    KEPT_RANKED_TOP,
    KEPT_RANKED_MID,
    KEPT_RANKED_LOW,
    KEPT_RANKED_TOP_PART,
    KEPT_RANKED_MID_PART,
    KEPT_RANKED_TOP_V,
    KEPT_RANKED_MID_V,
    KEPT_RANKED_LOW_V,
    KEPT_RANKED_EDGE,
    KEPT_RANKED_EDGE_AS
};
enum {
    KEPT_CALIBRATED_BITS,
    KEPT_CALIBRATED_MOST,
    KEPT_CALIBRATED_APART,
    KEPT_CALIBRATED_EDGE,
    KEPT_CALIBRATED_EDGE_AS
};
enum {
    KEPT_WATER_MOST,
    KEPT_WATER_LEAST,
    KEPT_WATER_POWER,
    KEPT_WATER_LAG,
    KEPT_WATER_KEYS,
    KEPT_WATER_EDGE,
    KEPT_WATER_EDGE_AS
};
enum { KEPT_AGED_TOKENS, KEPT_AGED_PERCENT }; /* choices of in= */
enum { KEPT_STORE_K, KEPT_STORE_V, KEPT_STORE_RESIDUAL, KEPT_STORE_EDGE, KEPT_STORE_EDGE_AS };
enum { KEPT_PARK_BITS, KEPT_PARK_KEYS, KEPT_PARK_FIRST, KEPT_PARK_LAST, KEPT_PARK_BASIS };

/* The part of an axis that a spec without one gets. NULL: the score must be named. */
const kept_part *kept_part_default(kept_axis a);

/* Default of option i of a part whose options have these values. */
static inline double kept_part_fallback(const kept_part *part, const double *options, int i)
{
    return part->fallback ? part->fallback(options, i) : part->options[i].value;
}

/* A part is the first member of its score, allocator or controller. */
static inline const kept_score *kept_strategy_score(const kept_strategy *s)
{
    return (const kept_score *)(const void *)s->part[KEPT_AXIS_SCORE];
}
static inline int kept_score_needs(const kept_score *s, const double *options)
{
    return s->needs_of ? s->needs_of(options) : s->needs;
}
static inline const kept_wrapper *kept_strategy_wrapper(const kept_strategy *s)
{
    return (const kept_wrapper *)(const void *)s->part[KEPT_AXIS_WRAPPER];
}
static inline const kept_allocator *kept_strategy_allocator(const kept_strategy *s)
{
    return (const kept_allocator *)(const void *)s->part[KEPT_AXIS_ALLOCATOR];
}
static inline const kept_merge *kept_strategy_merge(const kept_strategy *s)
{
    return (const kept_merge *)(const void *)s->part[KEPT_AXIS_MERGE];
}
static inline bool kept_merge_biases(const kept_merge *m, const double *options)
{
    return m->biases && m->biases(options);
}
static inline const kept_read *kept_strategy_read(const kept_strategy *s)
{
    return (const kept_read *)(const void *)s->part[KEPT_AXIS_READ];
}
static inline const kept_controller *kept_strategy_controller(const kept_strategy *s)
{
    return (const kept_controller *)(const void *)s->part[KEPT_AXIS_CONTROLLER];
}

#endif
