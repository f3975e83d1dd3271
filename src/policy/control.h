/* control: which strategy a sequence follows now, and how much of a shared budget it gets. Pure:
 * the engine asks, acts and writes down what was decided.
 *
 *   signal      one number that a sequence shows: a pure function of what the engine records
 *   controller  what is made of it. `adaptive` switches between two states with hysteresis,
 * `balance` moves budget between the live sequences of one strategy
 *
 * A signal has a side on which little is lost by holding less, the tight side; thresholds and
 * shares are read by it, so that one rule serves all of them.
 */
#ifndef POLICY_CONTROL_H
#define POLICY_CONTROL_H

#include "cache/cache.h"
#include "kept/policy.h"

/* X(identifier, name, high, low, tight_below, attention, probe): see kept_signal. A new signal is a
 * line here and a function read_IDENTIFIER in signal.c. */
#define KEPT_SIGNAL_LIST(X)                                                                        \
    X(pressure, "pressure", 0.9, 0.75, false, false, false)                                        \
    X(entropy, "entropy", 0.5, 0.4, true, true, false)                                             \
    X(window_ratio, "window-ratio", 0.7, 0.5, false, true, false)                                  \
    X(task, "task", 0.5, 0.5, false, false, false)                                                 \
    X(kl, "kl", 0.05, 0.01, true, false, true)
enum {
#define KEPT_SIGNAL_ENUM(id, name, high, low, below, attention, probe) KEPT_SIGNAL_##id,
    KEPT_SIGNAL_LIST(KEPT_SIGNAL_ENUM)
#undef KEPT_SIGNAL_ENUM
        KEPT_N_SIGNALS
};

/* The plane that signals of attention read: that of the last query. */
#define KEPT_SIGNAL_PLANE ((kept_plane){.kind = KEPT_PLANE_MASS, .window = 1})

/* What a signal may look at; everything is borrowed. */
typedef struct kept_signal_view {
    double used; /* part of the pool's pages in use, shared ones counted once */
    double hint; /* kept_seq_hint; NaN: nobody gave one */
    double kl;   /* KL(full, sequence) of the last token, nats; NaN: not probed now */
    const kept_pool *pool;
    const kept_cache *cache;
    int plane;            /* state plane of KEPT_SIGNAL_PLANE; signals of attention only */
    int n_layers;         /* all layers of the model */
    const bool *windowed; /* [n_layers] or NULL; these are left out */
    int n_heads;          /* KV heads */
    int32_t next_pos;     /* tokens seen */
    int sinks, window;    /* first and last positions that window-ratio counts */
} kept_signal_view;

typedef struct kept_signal {
    const char *name;
    double high, low; /* default thresholds */
    bool tight_below; /* the tight side is below low; else above high */
    bool attention;   /* reads KEPT_SIGNAL_PLANE */
    bool probe;       /* needs a full cache that reads the same tokens: kept_seq_set_reference */
    /* NaN: nothing to tell now. */
    double (*read)(const kept_signal_view *v);
} kept_signal;

extern const char *const kept_signal_names[]; /* [KEPT_N_SIGNALS], then NULL */
const kept_signal *kept_signal_at(int i);

/* ---- controllers --------------------------------------------------------------------------- */

/* Where a sequence stands. */
typedef struct kept_control_state {
    int state;
    int64_t since; /* decode tokens since the last switch; at the start as many as any hold */
} kept_control_state;
#define KEPT_CONTROL_START ((kept_control_state){0, INT64_MAX / 2})

/* One member of a group that shares a budget. */
typedef struct kept_member {
    int64_t own;   /* slots that it brings: its own budget */
    int64_t cap;   /* slots that it can use until it is asked again */
    double signal; /* NaN: unknown, counts as the mean of the others' */
} kept_member;

typedef struct kept_controller {
    kept_part part;
    const char *const *states; /* names of its states, NULL-terminated; NULL: it has none */
    int signal, every; /* its options: which signal; decode tokens between two decisions. Unused by
                          a controller that decides nothing */
    /* What is wrong with these options together, or NULL. NULL: nothing can be. */
    const char *(*wrong)(const double *options);
    /* The state after `at` when the signal has this value (not NaN); at->since is up to date. NULL:
     * never switches. */
    int (*next)(const double *options, const kept_control_state *at, double signal);
    /* Splits the sum of all own slots over n members. The sum of slots is that sum. scratch [n].
     * NULL: budgets stay with their sequences. */
    void (*share)(const double *options, const kept_member *m, int n, int64_t *slots,
                  double *scratch);
    int sinks, window; /* options with these, for kept_signal_view, or -1: 4 and 64 */
} kept_controller;

/* True if the controller decides anything. */
static inline bool kept_controller_acts(const kept_controller *c)
{
    return c->next || c->share;
}
/* The signal that the controller of s reads, or NULL. */
const kept_signal *kept_strategy_signal(const kept_strategy *s);

/* KL(p, q) in nats of the softmax of two rows of n logits; at least 0. NaN: one is not finite. */
double kept_control_kl(const float *p, const float *q, int n);

#endif
