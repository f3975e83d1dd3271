/* strategy: a resolved point in the space of strategies, and the one procedure that applies it.
 *
 * Spec grammar:   spec   := part ('+' part)* [ '@' budget ]          spaces are not allowed
 *                 part   := name [ '(' opt (',' opt)* ')' ]
 *                 opt    := name '=' value | state '=' spec      (a state of a controller)
 *                 budget := NUMBER '%' | NUMBER | SIZE
 * A name is a part of some axis or a recipe (a named spec, see parts.h). Each axis at most once;
 * what is not named takes the axis' default part and options. "full" takes no budget and no part of
 * another axis but a codec (with it prefill, chunks or layers) and read, every other score needs a
 * budget. '%' is of the full f16 cache's K/V bytes, a bare number is tokens per KV head (protected
 * ones included), a size is K/V bytes of the whole sequence (of its layers that evict); both count
 * slots as they are stored.
 *
 * Axes and their parts here:
 *   score       full random recency h2o tova snapkv knorm keydiff expected-attention
 *   allocator   uniform (default) pyramid ada global cake lava squeeze simlayer threshold coverage
 *               duo headkv lu-kv
 *   protection  protect(sinks=4,recent=32,first=0,last=0,template=off)  -- the same for every score
 *               unless written
 *   schedule    prefill (default: once, when the prompt is in), decode(every=1,slack=0) (after
 *               prefill and then every k decode steps at the budget), chunks(decode=0,slack=0)
 *               (after every prefill chunk too, and every `decode` decode steps), turns (at the end
 *               of every turn), pressure (when the pool runs short), layers (layer by layer while
 *               the prompt is read)
 *   position    original (default), slot (keys are re-rotated so that gaps close; the newest token
 *               keeps its position, older ones move up until they touch it: equal to positions by
 *               cache slot, because rotary attention depends on differences only), rerotated (keys
 *               are numbered from 0, and the next token after the longest head's)
 *   merge       drop (default: what is dropped is gone), or what kept slots take over from the
 *               dropped ones (kept/merge.h): merging, cam, ...
 *   codec       f16 (default), store(k=q8,v=q8,residual=0,edge=0,edge-as=f16), aged, ranked,
 *               waterfill, calibrated, searched: see forms_parts.c
 *   controller  fixed (default), adaptive(calm=SPEC,tight=SPEC), balance: see control.h
 *   read        all (default), quest, landmarks, rocket: pages that a decode step attends to
 * The specs of a controller's states name everything but a controller and a way of reading, which
 * holds in every state. What they leave open, the budget included, they take from the spec around
 * them; "full" takes nothing.
 * Recipes: window = recency+protect(sinks=0,recent=0), streaming(sinks=4,position=slot|original)
 *          = recency+protect(sinks=$sinks,recent=0)+$position, pyramidkv = snapkv+pyramid,
 *          adakv = snapkv+ada, ... Others join in on axes that the recipe leaves open.
 */
#ifndef POLICY_STRATEGY_H
#define POLICY_STRATEGY_H

#include "cache/cache.h"
#include "kept/policy.h"
#include "kept/trained.h"

typedef enum kept_budget_kind {
    KEPT_BUDGET_NONE,
    KEPT_BUDGET_PERCENT,
    KEPT_BUDGET_TOKENS,
    KEPT_BUDGET_BYTES
} kept_budget_kind;

#define KEPT_MAX_STATES 2 /* of a controller */

struct kept_strategy {
    const kept_part *part[KEPT_N_AXES];           /* never NULL */
    double option[KEPT_N_AXES][KEPT_MAX_OPTIONS]; /* resolved values */
    kept_budget_kind budget_kind;
    double budget; /* percent, tokens per head, or bytes */
    /* What its controller switches between, owned; none: the strategy itself is all there is. With
     * states, parts (but the controller) and budget are those of the last state that evicts. */
    kept_strategy *state[KEPT_MAX_STATES];
    int n_states;
    char name[1024], resolved[3072];
};

/* ---- registry: parts and recipes, in the order of parts.h -------------------------------- */
int kept_part_count(void);
const kept_part *kept_part_at(int i);
const kept_part *kept_part_find(kept_axis axis, const char *name); /* NULL if unknown */
const char *kept_axis_name(kept_axis a);
typedef struct kept_recipe {
    const char *name, *summary, *spec; /* spec with $option placeholders */
    const char *paper, *deviations;
    const kept_option *options;
    int n_options;
} kept_recipe;
int kept_recipe_count(void);
const kept_recipe *kept_recipe_at(int i);

/* What a part asks of the engine, in words, and what that costs. */
typedef struct kept_profile {
    /* "window" (positions alone), "attention", "keys" (also values), "passes" (extra forward
     * passes), "learned", "oracle", "allocation"; "" for the other axes */
    const char *family;
    /* the dearest thing it does: "none", "state" (a number per slot, kept while attending), "rows"
     * (reads keys or values once), "queries" (slots times queries), "passes" */
    const char *cost;
    char needs[240]; /* "keys, attention mass of all queries"; "" for none */
    char state[96];  /* memory held for it while tokens come, in words: "4 B a slot"; "" for none */
    int planes;      /* numbers per slot that the engine keeps for it: 0 or 1, and if split as many
                        per query head */
    bool split;
} kept_profile;
/* options NULL: the defaults. */
void kept_part_profile(const kept_part *part, const double *options, kept_profile *out);

/* ---- forms: forms.c, forms_check.c, forms_bytes.c, forms_pack.c, forms_grade.c ------------- */
static inline bool kept_strategy_is_full(const kept_strategy *s) /* evicts nothing */
{
    return s->budget_kind == KEPT_BUDGET_NONE;
}
/* Whether an axis is about eviction, so that "full" takes no part of it. */
static inline bool kept_axis_evicts(kept_axis a)
{
    return a != KEPT_AXIS_CODEC && a != KEPT_AXIS_READ && a != KEPT_AXIS_REST;
}
/* The full cache as everybody has it: what others are compared with. */
bool kept_strategy_is_plain(const kept_strategy *s);
/* Whether it, or any of its states, stores slots in another form than F16. */
bool kept_strategy_packs(const kept_strategy *s);
/* Whether nothing that is held changes: it neither evicts nor packs. */
static inline bool kept_strategy_is_idle(const kept_strategy *s)
{
    return kept_strategy_is_full(s) && !kept_strategy_packs(s);
}
/* Whether axis a says anything about s: the full cache evicts nothing. */
static inline bool kept_strategy_takes(const kept_strategy *s, kept_axis a)
{
    return !kept_strategy_is_full(s) || a == KEPT_AXIS_SCORE ||
           (a == KEPT_AXIS_SCHEDULE ? kept_strategy_packs(s)
                                    : !kept_axis_evicts(a) && !kept_strategy_is_plain(s));
}
/* The form of full pages in the l-th of n_layers layers that evict. */
kept_codecs kept_strategy_form(const kept_strategy *s, int l, int n_layers);
int kept_strategy_residual(const kept_strategy *s); /* full pages of a head that stay F16 */
/* Whether that part is its codec. */
bool kept_form_is(const kept_strategy *s, const kept_part *codec);
/* Choices of aged and ranked, of keys and of values. */
extern const uint8_t kept_graded_keys[], kept_graded_values[];
/* Whether the l-th of n_layers layers that evict is one of the outermost that the codec of s treats
 * apart: *as is the narrowest form that keys and values take there. */
bool kept_form_at_edge(const kept_strategy *s, int l, int n_layers, uint8_t *as);
/* Whether codec a takes more bytes of that half than b (1), less (-1) or as many (0). */
int kept_form_compare(int a, int b, bool v);
/* The widths of waterfill, from the narrowest, in the order of its choices. */
extern const uint8_t kept_water_codec[];
enum { KEPT_WATER_F16 = 4 }; /* the widest */
/* Form of a page of that width in the l-th of n_layers layers: values may be some widths narrower
 * than keys, keys may have scales per channel. The narrowest and the widest that a page has there;
 * the outermost layers have wider ones. */
kept_codecs kept_water_form(const kept_strategy *s, int l, int n_layers, int width);
int kept_water_least(const kept_strategy *s, int l, int n_layers);
int kept_water_most(const kept_strategy *s, int l, int n_layers);
/* What a page without any merit is stored as. */
kept_codecs kept_form_narrowest(const kept_strategy *s, int l, int n_layers);
/* Forms that the codec `searched` chooses from, in the order of a trained file of kind "split". */
#define KEPT_N_SEARCHED 5
extern const uint8_t kept_searched_codec[KEPT_N_SEARCHED];
/* Bytes that a page takes in the mean of all heads, but for the outermost layers; codec calibrated.
 */
double kept_form_mean_bytes(const kept_strategy *s, int l, int n_layers, int head_size);
/* Whether its codec gives pages forms by what their slots scored: forms_grade.c. */
bool kept_form_grades(const kept_strategy *s);
/* Bytes that a codec which decides what heads keep spends on n_layers that evict; 0: it decides
 * nothing. */
double kept_form_spends(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                        int32_t full_tokens);
/* Forms of n full pages of a head of the l-th of n_layers layers that evict, from the youngest page
 * to the oldest (store: from the last in the list; ranked: from the best): so many pages of each
 * form. Bytes of a page do not grow. */
typedef struct kept_rungs {
    kept_codecs form[3];
    int pages[3];
} kept_rungs;
kept_rungs kept_form_rungs(const kept_strategy *s, int l, int n_layers, int n);
/* ARGUMENT: the codec and another part, or the budget, exclude each other. */
kept_status kept_form_check(const kept_strategy *s, kept_error *err);
/* The same of coefficients along directions, and of pages of several layers. */
kept_status kept_form_check_low(const kept_strategy *s, kept_error *err);
/* Kind of trained file that packed pages are read with; NULL: none. */
const char *kept_form_trained(const kept_strategy *s);
/* What a form is in the l-th of n_layers layers: directions are shared by the deeper half, in
 * pairs.
 */
kept_codecs kept_form_at(kept_codecs form, int l, int n_layers);
/* Bytes of a packed page of the l-th of n_layers layers, its part of one that it shares. */
size_t kept_form_page_bytes(kept_codecs form, int l, int n_layers, int head_size);
/* UNSUPPORTED: heads of that size cannot be stored so. */
kept_status kept_strategy_fits(const kept_strategy *s, int head_size, kept_error *err);
/* ARGUMENT: of n_tokens the budget holds no more than what stays F16 anyhow. */
kept_status kept_strategy_leaves_some(const kept_strategy *s, int n_layers, int n_heads,
                                      int head_size, int32_t n_tokens, kept_error *err);
/* Slots that a budget of `bytes` over n_layers that evict holds. */
int64_t kept_form_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                        double bytes);
/* Bytes of the pages of n_layers that evict, holding `slots` as evenly as they can be shared. */
uint64_t kept_strategy_bytes(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                             uint64_t slots);
typedef struct kept_packing {
    kept_cache *cache;
    int n_layers; /* of the model */
    const bool *windowed;
    int n_heads, from, to; /* KV heads of a layer; layers [from, to) are packed */
    int fresh;             /* slots a head has got since, 0: look at every page */
    int head_size, group;  /* D, G; of what follows */
    /* [n_layers][*n][n_heads][G][D] rotated queries of the last *n tokens, by which thin keys
     * choose their channels; asked for once, when pages may have to be packed. NULL, or returns
     * NULL: by the keys alone */
    const float *(*recent)(void *ctx, int *n);
    void *ctx;
    const kept_trained *bits; /* the file of that kind, if the codec reads it */
    int32_t *work;            /* [slots of the longest head] 8-byte aligned */
} kept_packing;
/* Recent queries that the codec of s looks at when it packs. */
int kept_form_recent(const kept_strategy *s);
/* Packs what s stores in another form. FULL: some pages are still F16. */
kept_status kept_strategy_pack(const kept_strategy *s, const kept_packing *p);

/* How sequences of s rest. */
typedef struct kept_rest {
    bool parks;      /* between the prompt and the question, where a run can */
    double bits;     /* a number of K and V; 0: every bit comes back */
    double keys;     /* steps of keys, in those of values */
    int first, last; /* positions that keep every bit all the same */
    bool calibrated; /* components are those of the trained file "basis" */
} kept_rest;
kept_rest kept_strategy_rest(const kept_strategy *s);

/* ---- what a strategy needs and when it acts: of one with states, what any of them does ------ */
/* Blocks of the note on a page (cache.h) by which s reads; 0: it reads all. */
int kept_strategy_note_blocks(const kept_strategy *s, int head_size);
/* Share of the greatest weight below which a decode step of s leaves out values; 0: none. */
double kept_strategy_skips(const kept_strategy *s);
/* Whether a layer chooses its pages itself, where it does not read all. */
bool kept_strategy_chooses(const kept_strategy *s, int layer);
/* Pages that a decode step of s reads of the n pages of a head of a layer, at most n. */
int kept_strategy_pages_read(const kept_strategy *s, int layer, int n);
/* First state plane of captured plane i, or with i = n_planes how many there are: a split one has
 * `group`, any other one. */
static inline int kept_capture_state(const kept_capture *c, int i, int group)
{
    int n = 0;
    for (int k = 0; k < i; k++)
        n += c->plane[k].split ? group : 1;
    return n;
}
/* Adds what s needs to cap. ARGUMENT: no room for another window. */
kept_status kept_strategy_needs(const kept_strategy *s, kept_capture *cap, kept_error *err);
/* KEPT_NEED_* of all parts of s together. */
int kept_strategy_needs_of(const kept_strategy *s);
/* Kinds of trained files that score, allocator, codec and rest of s read, or NULL. */
const char *kept_score_trained(const kept_strategy *s);
const char *kept_allocator_trained(const kept_strategy *s);
const char *kept_codec_trained(const kept_strategy *s);
const char *kept_rest_trained(const kept_strategy *s);
/* The i-th of the kinds that s reads, NULL where a part reads none. */
#define KEPT_TRAINED_PARTS 4
static inline const char *kept_strategy_trained(const kept_strategy *s, int i)
{
    return i == 0   ? kept_score_trained(s)
           : i == 1 ? kept_allocator_trained(s)
           : i == 2 ? kept_codec_trained(s)
                    : kept_rest_trained(s);
}
/* When a strategy evicts; all zero for the full cache. */
typedef struct kept_when {
    bool prompt;   /* when the prompt is in */
    bool chunks;   /* after every prefill chunk */
    bool layers;   /* a prompt that is read layer by layer: after each layer */
    bool turns;    /* at the end of every turn */
    bool pressure; /* when the pool runs short, and not before */
    int every;     /* decode steps between two evictions, 0: none while decoding */
    int slack;     /* slots per head above the budget, on average, that are left alone */
} kept_when;
kept_when kept_strategy_when(const kept_strategy *s);
/* Whether it looks at classes of tokens (kept_seq_mark). */
bool kept_strategy_reads_marks(const kept_strategy *s);
/* Whether it may evict again once the prompt is in. */
bool kept_strategy_acts_again(const kept_strategy *s);
/* Whether the schedule can serve the score and the allocator. ARGUMENT: one line that says why
 * not. */
kept_status kept_strategy_check(const kept_strategy *s, kept_error *err);
bool kept_strategy_acts_on_chunks(const kept_strategy *s); /* evicts between prefill chunks */
/* Decode steps between two evictions, 0 if the strategy never acts while decoding. */
int kept_strategy_decode_every(const kept_strategy *s);
/* Positions "slot" and "rerotated": kept_evict needs a rope_plane. */
bool kept_strategy_moves_keys(const kept_strategy *s);
/* Kept slots may get a bias: kept_evict needs a bias_plane, and attention must read it. */
bool kept_strategy_biases(const kept_strategy *s);
/* Recent queries that all parts but the merge read. */
int kept_strategy_recent(const kept_strategy *s);
/* Position "rerotated": keys are numbered from 0. Who owns the sequence makes the slots of its
 * longest head the rotary position of the next token. */
bool kept_strategy_renumbers(const kept_strategy *s);
/* The i-th of the strategies that a sequence of s may follow, the first at its start; without
 * states that is s itself. NULL: there are fewer. */
static inline const kept_strategy *kept_strategy_state(const kept_strategy *s, int i)
{
    if (!s->n_states)
        return i ? NULL : s;
    return i < s->n_states ? s->state[i] : NULL;
}

/* ---- applying ------------------------------------------------------------------------------ */

typedef struct kept_span {
    int32_t begin, end; /* positions [begin, end) */
} kept_span;

/* What the owner of a sequence (the engine) lends for one eviction. */
/* One piece of work of many: i of n, on lane `lane`. */
typedef void kept_each_fn(void *arg, int lane, int i);

typedef struct kept_evict {
    kept_cache *cache;
    /* Calls fn for every i in [0, n), maybe several at once, each on a lane of its own in
     * [0, n_lanes), and returns when all are done. NULL: one after the other. */
    void (*each)(void *ctx, int n, kept_each_fn *fn, void *arg);
    void *each_ctx;
    int n_lanes;
    int n_layers;         /* all layers of the model */
    const bool *windowed; /* [n_layers] layers left alone (sliding window), or NULL */
    int n_heads, group, head_size;
    int32_t next_pos;    /* tokens seen */
    int32_t full_tokens; /* tokens the full cache would hold now: what '%' refers to */
    const kept_span *pins;
    int n_pins;
    const uint8_t *mark;  /* [next_pos] kept_class of every position, or NULL: all are text */
    int64_t left;         /* slots that the last eviction left, 0: there was none */
    bool *acted;          /* set if anything may have changed; NULL: nobody asks */
    kept_capture capture; /* meaning of the cache's first state planes, in this order: one each, G
                             where split */
    /* Plane of what a key's rotary position is above the original one (position slot, rerotated),
     * or -1. */
    int rope_plane;
    int bias_plane;              /* plane of biases (base 2), or -1: no slot has one */
    int32_t rope_back;           /* next_pos less the rotary position of the next token */
    const float *q_mean, *q_cov; /* [n_layers][n_heads][G][D], [..][D][D]; NULL if not captured */
    const float *recent; /* [n_layers][n_recent][n_heads][G][D] rotated queries of the last n_recent
                            tokens, oldest first; NULL if not captured */
    int n_recent;        /* <= capture.n_recent, fewer while the sequence is shorter */
    const double *cosine; /* [n_layers] capture.layer_cosine, or NULL */
    /* W_o of a layer as floats [n_embd][n_heads*G*D], valid until the next call; NULL: cannot be
     * read. w_o NULL: nor can any. */
    const float *(*w_o)(void *ctx, int layer);
    void *w_o_ctx;
    int n_embd;
    const kept_trained *const *trained; /* [n_trained] */
    int n_trained;
    const struct kept_kern *kern;
    float attn_scale;       /* softmax scale, usually 1/sqrt(D) */
    const float *rope_freq; /* [n_rope/2] */
    int n_rope;
    bool rope_neox;
    uint64_t seed, round; /* round: evictions of this sequence so far */
    int64_t slots;        /* budget in slots in place of the strategy's own, 0: its own */
} kept_evict;

/* Reusable scratch for kept_strategy_evict; grows as needed, so reuse makes it allocation-free. */
typedef struct kept_evict_work kept_evict_work;
kept_evict_work *kept_evict_work_new(void); /* NULL: out of memory */
void kept_evict_work_free(kept_evict_work *w);

/* Scores, splits, selects and drops, so that the sequence meets its budget. Nothing happens if it
 * does already (within the slack of its schedule), unless the allocator is data-dependent; with
 * slack such a one acts once a head holds on average that much more than it left the last time.
 * Adds the time spent to *score_ns and *compact_ns.
 *
 * Protected are the first `sinks` positions, the last `recent` ones (at least the parts `first` and
 * `last` of full_tokens, rounded up), marked template tokens if template=keep, and all pins. They
 * are no candidates: nothing competes with them. Where they exceed a head's even share of the
 * budget, the recent window shrinks first (oldest first), then the sinks (latest first), then the
 * template tokens (latest first); pins never do, so pins alone may exceed a budget. With
 * template=demote template tokens score just below the lowest other candidate of their head. Of two
 * candidates with equal scores the later position stays.
 * A layer_shared score gives every head of a layer the mean of what the allocator gave its heads;
 * at most n_heads - 1 slots of the whole sequence stay unused by that. Scores that are not
 * comparable are z-normalised per head before an allocator sees them; the selection uses them as
 * they are.
 *
 * ARGUMENT: something that the strategy needs was not captured; nothing changed. NOMEM: nothing
 * changed. FULL: some heads may have been cut and others not; the sequence is sound. */
kept_status kept_strategy_evict(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                                uint64_t *score_ns, uint64_t *compact_ns, kept_error *err);

/* One eviction spread over the layers of a prompt that is read layer by layer (layers.c). e is as
 * for kept_strategy_evict: after a layer that evicts was read, its heads hold next_pos slots in the
 * order of positions, earlier layers what was left of them, later ones nothing. What is left after
 * the last layer is what one eviction of the whole would have left, but for the rounding of keys
 * that moved more than once. ARGUMENT, NOMEM; FULL leaves a sound sequence. */
typedef struct kept_layers kept_layers;
kept_status kept_layers_new(const kept_strategy *s, const kept_evict *e, kept_layers **out,
                            kept_error *err);
kept_status kept_layers_cut(kept_layers *c, const kept_evict *e, uint64_t *score_ns,
                            uint64_t *compact_ns, kept_error *err);
uint64_t kept_layers_bytes(const kept_layers *c); /* scores held between layers */
void kept_layers_free(kept_layers *c);

/* Shows every head to fn as the score of s would see it, and drops nothing: for training. */
typedef void kept_look_fn(void *ctx, const kept_view *v, int head);
typedef struct kept_look {
    kept_look_fn *fn;
    void *ctx;
    bool queries_only; /* of recent queries: leave out prob and lse, which cost slots x queries */
} kept_look;
kept_status kept_strategy_look(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                               const kept_look *look, kept_error *err);

/* Grows w so that no eviction of s over heads of up to n slots needs more. */
kept_status kept_strategy_reserve(const kept_strategy *s, const kept_evict *e, kept_evict_work *w,
                                  int n, kept_error *err);

/* Budget in slots over all evictable heads together, protected slots included; heads hold
 * full_tokens each in the full cache. */
int64_t kept_strategy_budget_slots(const kept_strategy *s, int n_layers, int n_heads, int head_size,
                                   int32_t full_tokens); /* with states: the largest */

#endif
