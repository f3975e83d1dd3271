/* look: sees a sequence as a score would when it evicts, without evicting: for training, so that
 * what is trained on is what will be read. */
#ifndef MODEL_LOOK_H
#define MODEL_LOOK_H

#include "policy/strategy.h"

/* Shows every head of every layer that is not windowed, heads ascending, to look->fn as score `as`
 * (with the defaults of its options) sees it; as->score is not called. The view is borrowed for the
 * call. ARGUMENT: s did not capture what `as` needs: kept_look_capture says what that is. */
kept_status kept_seq_look(kept_seq *s, const kept_score *as, const kept_look *look,
                          kept_error *err);

/* What a sequence must capture to be looked at. */
kept_status kept_look_capture(const kept_score *as, kept_capture *out, kept_error *err);
/* A strategy of this score and the default of every other axis, at the whole cache. */
kept_strategy kept_look_strategy(const kept_score *as);

#endif
