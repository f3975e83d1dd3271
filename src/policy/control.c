/* control: the controllers. Each is its options and one or two pure functions. */
#include "policy/control.h"

#include "policy/parts.h"

#include <math.h>

#define MANY 1048576

const kept_controller kept_control_fixed = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_CONTROLLER,
             .name = "fixed",
             .summary = "one strategy and one budget from the first token to the last",
             .paper = "",
             .deviations = ""},
};

/* ---- adaptive ------------------------------------------------------------------------------ */

enum { SIGNAL, HIGH, LOW, EVERY, HOLD, SINKS, WINDOW };

static const char *const adaptive_states[] = {"calm", "tight", NULL};
static const kept_option adaptive_options[] = {
    {"signal", 0, 0, KEPT_N_SIGNALS - 1, true, kept_signal_names, "what is watched"},
    {"high", 0.9, 0, MANY, false, NULL,
     "threshold: tight above it (entropy, kl: calm above it); that of pressure, each signal has "
     "its "
     "own"},
    {"low", 0.75, 0, MANY, false, NULL,
     "threshold: calm below it (entropy, kl: tight below it); that of pressure, as above"},
    {"every", 16, 1, MANY, true, NULL, "decode steps between two looks"},
    {"hold", 32, 0, MANY, true, NULL, "least decode steps between two switches"},
    {"sinks", 4, 0, MANY, true, NULL, "window-ratio: first positions that count"},
    {"window", 64, 0, MANY, true, NULL, "window-ratio: last positions that count"},
};

/* Thresholds mean something for one signal only, so their defaults are the signal's. */
static double adaptive_fallback(const double *options, int i)
{
    const kept_signal *s = kept_signal_at((int)options[SIGNAL]);
    return i == HIGH ? s->high : i == LOW ? s->low : adaptive_options[i].value;
}

static const char *adaptive_wrong(const double *options)
{
    return options[LOW] > options[HIGH] ? "low must not be above high" : NULL;
}

static int adaptive_next(const double *options, const kept_control_state *at, double signal)
{
    const bool below = kept_signal_at((int)options[SIGNAL])->tight_below;
    int to = at->state;
    if (signal > options[HIGH])
        to = below ? 0 : 1;
    else if (signal < options[LOW])
        to = below ? 1 : 0;
    return at->since >= options[HOLD] ? to : at->state;
}

const kept_controller kept_control_adaptive = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_CONTROLLER,
             .name = "adaptive",
             .summary = "switches between two strategies, calm=SPEC and tight=SPEC, on a signal",
             .paper = "",
             .deviations = "",
             .options = adaptive_options,
             .n_options = 7,
             .fallback = adaptive_fallback},
    .states = adaptive_states,
    .signal = SIGNAL,
    .every = EVERY,
    .wrong = adaptive_wrong,
    .next = adaptive_next,
    .sinks = SINKS,
    .window = WINDOW,
};

/* ---- balance ------------------------------------------------------------------------------- */

enum { BALANCE_SIGNAL, BALANCE_FLOOR, BALANCE_EVERY };

static const kept_option balance_options[] = {
    {"signal", KEPT_SIGNAL_entropy, 0, KEPT_N_SIGNALS - 1, true, kept_signal_names,
     "what says who gets more"},
    {"floor", 50, 0, 100, false, NULL, "percent of its own budget that no sequence falls below"},
    {"every", 16, 1, MANY, true, NULL, "decode steps between two splits"},
};

/* How much the signals speak for holding more, into want [n]: >= 0, mean 1 unless all are 0. */
static void wants(const kept_signal *s, const kept_member *m, int n, double *want)
{
    double sum = 0;
    int known = 0;
    for (int i = 0; i < n; i++) {
        double x = s->tight_below ? m[i].signal : 1 - m[i].signal;
        want[i] = isfinite(x) ? fmax(0, x) : NAN;
        sum += isfinite(x) ? want[i] : 0;
        known += isfinite(x) != 0;
    }
    const double mean = known ? sum / known : 0;
    for (int i = 0; i < n; i++)
        want[i] = !(mean > 0) ? 1 : isfinite(want[i]) ? want[i] / mean : 1;
}

/* One round: `left` slots in proportion to weight over those that have one, none above its cap (if
 * capped), whole slots only. Who reaches its cap has no weight any more. Returns what is over. */
static int64_t pour(const kept_member *m, int n, int64_t left, bool capped, int64_t *slots,
                    double *weight)
{
    double sum = 0, ahead = 0;
    int64_t given = 0, over = 0;
    for (int i = 0; i < n; i++)
        sum += weight[i];
    if (!(sum > 0))
        return left;
    for (int i = 0; i < n; i++) {
        /* Cumulative rounding: what members 0..i get together is exact to a slot. */
        ahead += weight[i];
        int64_t upto = i == n - 1 ? left : (int64_t)floor((double)left * (ahead / sum));
        int64_t part = upto - given, room = m[i].cap - slots[i];
        given = upto;
        room = room > 0 ? room : 0;
        if (capped && part >= room) {
            over += part - room;
            part = room;
            weight[i] = 0;
        }
        slots[i] += part;
    }
    return over;
}

static void balance_share(const double *options, const kept_member *m, int n, int64_t *slots,
                          double *scratch)
{
    int64_t left = 0;
    wants(kept_signal_at((int)options[BALANCE_SIGNAL]), m, n, scratch);
    for (int i = 0; i < n; i++) {
        slots[i] = (int64_t)ceil((double)m[i].own * options[BALANCE_FLOOR] / 100);
        left += m[i].own - slots[i];
        scratch[i] *= (double)m[i].own;
    }
    /* Every round but the last fills somebody, so n rounds are enough. */
    for (int round = 0; round < n && left > 0; round++) {
        int64_t over = pour(m, n, left, true, slots, scratch);
        if (over == left)
            break;
        left = over;
    }
    /* Nobody can use the rest now; it stays with those who brought it. */
    for (int i = 0; i < n; i++)
        scratch[i] = (double)m[i].own;
    if (left > 0)
        pour(m, n, left, false, slots, scratch);
}

const kept_controller kept_control_balance = {
    .part = {.abi = KEPT_POLICY_ABI,
             .axis = KEPT_AXIS_CONTROLLER,
             .name = "balance",
             .summary = "live sequences of one strategy share the sum of their budgets by a signal",
             .paper = "",
             .deviations = "",
             .options = balance_options,
             .n_options = 3},
    .signal = BALANCE_SIGNAL,
    .every = BALANCE_EVERY,
    .share = balance_share,
    .sinks = -1,
    .window = -1,
};

/* ---- for the engine ------------------------------------------------------------------------ */

const kept_signal *kept_strategy_signal(const kept_strategy *s)
{
    const kept_controller *c = kept_strategy_controller(s);
    return kept_controller_acts(c) ? kept_signal_at((int)s->option[KEPT_AXIS_CONTROLLER][c->signal])
                                   : NULL;
}

double kept_control_kl(const float *p, const float *q, int n)
{
    double top_p = -HUGE_VAL, top_q = -HUGE_VAL, sum_p = 0, sum_q = 0, cross = 0;
    for (int i = 0; i < n; i++) {
        top_p = fmax(top_p, (double)p[i]);
        top_q = fmax(top_q, (double)q[i]);
    }
    for (int i = 0; i < n; i++) {
        const double w = (double)expf(p[i] - (float)top_p);
        sum_p += w;
        sum_q += (double)expf(q[i] - (float)top_q);
        cross += w * ((double)p[i] - (double)q[i]);
    }
    const double kl = cross / sum_p - (top_p + log(sum_p)) + (top_q + log(sum_q));
    return isfinite(kl) ? fmax(0, kl) : NAN;
}
