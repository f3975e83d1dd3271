/* kept/control.h: sequences whose strategy has a controller that decides: what it is told, what it
 * decided, and how to decide the same again. Part of kept/kept.h, which includes it. */
#ifndef KEPT_CONTROL_H
#define KEPT_CONTROL_H

#include "kept/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the controller of a sequence decided (strategies with "adaptive(...)" or "balance"). A
 * decision is made when the prompt is in and then after every so many decode tokens, and holds from
 * there on. Switching to a state that holds less evicts at once; switching to one that would hold
 * more only stops evicting. What is gone is gone. */
typedef struct kept_decision {
    int32_t at;    /* tokens seen when it was made */
    int32_t state; /* in force from here on: index for kept_strategy_state_name; 0 without states */
    int64_t slots; /* may be held from here on, over all heads that evict; 0: all (full) */
    double signal; /* what it was made from */
} kept_decision;

/* Name of a state of a strategy's controller, "calm" or "tight"; NULL: there are fewer. */
KEPT_API const char *kept_strategy_state_name(const kept_strategy *s, int i);
/* All decisions so far, oldest first. Returns their number; writes at most cap, and not more than
 * the log holds, which is sized for all that the sequence itself makes up to the engine's
 * max_tokens. */
KEPT_API int kept_seq_decisions(const kept_seq *s, kept_decision *out, int cap);
/* Decode tokens spent in each state. Returns the number of states, 0 without; writes at most cap.
 */
KEPT_API int kept_seq_state_tokens(const kept_seq *s, int64_t *tokens, int cap);
/* From now on s follows log[0..n) (copied; ascending by at) instead of its signal; to be called
 * before its prefill ends. With the same tokens, batches and seed it keeps the same sets. ARGUMENT:
 * s decides nothing, or log does not fit it. */
KEPT_API kept_status kept_seq_replay(kept_seq *s, const kept_decision *log, int n, kept_error *err);
/* How well the task of s bears a smaller cache, 0 to 1: the signal "task". Ignored where nobody
 * asks. ARGUMENT: out of range. */
KEPT_API kept_status kept_seq_hint(kept_seq *s, double hint);
/* Lends s a full cache that reads the same tokens in the same batches: what the signal "kl"
 * compares logits with, wherever both ask for some. NULL, or full freed: none any more; s then
 * cannot decode. Ignored where nobody asks. ARGUMENT: full is not such a sequence. */
KEPT_API kept_status kept_seq_set_reference(kept_seq *s, kept_seq *full, kept_error *err);

#ifdef __cplusplus
}
#endif
#endif
