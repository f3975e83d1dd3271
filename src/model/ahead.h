/* ahead: what sequences learn by looking ahead or inside: the planes of kept_seq_foresee and
 * kept_seq_echo, and hidden states for the trained predictor "kvzap" and for whoever trains it.
 *
 * Two hidden states of a layer are meant, both rows of n_embd floats per token:
 *   input   the residual stream that enters the layer; ECHO_PLUS divides by its length
 *   x       the same after the layer's attention norm, what Q, K and V are made of; "kvzap" reads
 * it
 *
 * Arrays of a trained file of kind "kvzap", for every layer L:
 *   linear   w1.L [n_kv_heads][n_embd], b1.L [n_kv_heads]:  y = w1 x + b1
 *   two      w1.L [hidden][n_embd], b1.L [hidden], w2.L [n_kv_heads][hidden], b2.L [n_kv_heads]:
 *            y = w2 gelu(w1 x + b1) + b2, gelu(z) = z (1 + erf(z / sqrt(2))) / 2
 * y is the natural logarithm of the token's kvzip-plus score in each KV head. Windowed layers have
 * no arrays.
 */
#ifndef MODEL_AHEAD_H
#define MODEL_AHEAD_H

#include "kept/kept.h"
#include "kept/trained.h"

/* Tokens of context that one forward pass over the whole cache repeats (arXiv 2505.23416). */
#define KEPT_ECHO_CHUNK 2048
/* Tokens before a chunk that tell where it begins. */
#define KEPT_ECHO_TAIL 8

/* Sees x [n][n_embd] of one layer and one batch item: tokens at positions pos0 .. pos0+n-1 of s.
 * Layers ascend within a forward pass. Called on a thread of the engine while the others wait; may
 * copy, must not call the engine. */
typedef void kept_hidden_fn(void *ctx, const kept_seq *s, int layer, int32_t pos0, int n,
                            const float *x);
/* From now on every forward pass shows fn the hidden states of all its items; NULL: no more. Forks
 * that the engine makes for itself (foresee, echo) are not shown. */
void kept_engine_tap(kept_engine *e, kept_hidden_fn *fn, void *ctx);

/* kept_seq_echo with chunks of `chunk` tokens, for tests. */
kept_status kept_seq_echo_by(kept_seq *s, int chunk, kept_error *err);
/* The tokens that ask for positions [begin, end) of s again and then repeat them, as kept_seq_echo
 * feeds them. Returns their number; writes at most cap. -1: s keeps no tokens, or out of memory. */
int kept_echo_tokens(const kept_seq *s, int begin, int end, int32_t *out, int cap);

#endif
