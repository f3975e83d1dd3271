/* cache: a preallocated pool of pages, and per sequence one list of pages for every KV head of
 * every layer. Heads have their own length, so per-head budgets free real memory.
 *
 * Slots. A head's live slots are dense: 0..n-1, only its last page partly filled. Slots are NOT
 * kept in order of position: dropping slots moves tail slots into the holes. Each slot carries its
 * original position (pos, part of the page record) and one 4-byte value per state plane of its
 * sequence (blocks of 64, one block per page and plane); all of it travels with the slot.
 *
 * Sharing. A fork references the same pages. A page with more than one reference is never written:
 * append and retain take a private copy first. State blocks are always private.
 *
 * Forms. A full page may be packed (kept_cache_pack): its id stays and its F16 bytes go back. Slots
 * of packed pages whose rows can move are moved as they are between pages of one form, and rounded
 * once more between forms; a page with scales per channel is unpacked to F16 when slots leave it,
 * to be packed again when it is full. The last page, if partly full, is always F16.
 *
 * Joint pages hold one head of a group of layers once (codec.h): each of its layers has the page in
 * its list, with a reference. Nothing writes to them; a slot that leaves one layer makes an F16
 * copy of that layer's part.
 *
 * Notes. A cache that is read sparsely has a note on the keys of every full page (notes.c), which
 * moves with the page and becomes stale when its keys change.
 *
 * The account is exact: pages, blocks, positions, and the lists themselves.
 */
#ifndef CACHE_CACHE_H
#define CACHE_CACHE_H

#include "base/base.h"
#include "kern/kern.h"

#define KEPT_MAX_PLANES 48

typedef struct kept_pool kept_pool;

/* n_pages pages for head_size and n_blocks state blocks of 256 bytes, on huge pages where the
 * system gives them. Address space is taken now, memory at first use. NOMEM, ARGUMENT. */
kept_status kept_pool_new(int head_size, size_t n_pages, size_t n_blocks, kept_pool **out,
                          kept_error *err);
void kept_pool_free(kept_pool *p);           /* every cache of it must be gone */
uint8_t *kept_pool_base(const kept_pool *p); /* every page lies behind it, at its place */
kept_packed kept_pool_get_page(const kept_pool *p, int32_t id); /* where it is, in which form */
int32_t *kept_pool_pos(const kept_pool *p); /* [page id][64] positions of every page */
/* Lends the directions of every head, [n_layers * n_heads], for pages whose codec has a basis. They
 * outlive the pool, or are replaced while no such page is there. */
void kept_pool_set_low(kept_pool *p, const kept_low *low);
bool kept_pool_has_low(const kept_pool *p);
float *kept_pool_block(const kept_pool *p, int32_t b); /* [64] state block b */
void kept_pool_get_account(const kept_pool *p, kept_pool_account *out);
size_t kept_pool_free_pages(const kept_pool *p);
size_t kept_pool_free_blocks(const kept_pool *p);

typedef struct kept_cache kept_cache;

/* An empty cache of n_layers x n_heads heads, n_planes state planes, at most max_slots slots per
 * head. Page and block lists are sized now, so that appending allocates nothing. */
kept_status kept_cache_new(kept_pool *p, const kept_kern *kern, int n_layers, int n_heads,
                           int n_planes, int max_slots, kept_cache **out, kept_error *err);
void kept_cache_free(kept_cache *c); /* every page and block goes back to the pool */
/* planes[i] = plane of src that becomes plane i of the copy, or -1: a zeroed plane. The copy
 * inherits n_evicted, and peak and byte_steps as if it had run alone with its own planes (exact
 * until src evicts; afterwards they are src's), not extra_meta. Slots that src has only reserved
 * stay with src, which must reserve them again before it writes them. FULL: blocks. */
kept_status kept_cache_fork(kept_cache *src, int n_planes, const int *planes, kept_cache **out,
                            kept_error *err);

/* Page i of a head, as the head reads it. */
kept_packed kept_cache_page(const kept_cache *c, int layer, int head, int i);
/* Directions of a head; NULL: none were lent. */
const kept_low *kept_cache_low(const kept_cache *c, int layer, int head);
int kept_cache_n(const kept_cache *c, int layer, int head);                /* live slots */
const int32_t *kept_cache_pages(const kept_cache *c, int layer, int head); /* [ceil(n/64)] */
kept_codecs kept_cache_form(const kept_cache *c, int layer, int head, int page);
int kept_cache_n_planes(const kept_cache *c);
/* Block ids of a plane: [ceil(n/64)]. */
const int32_t *kept_cache_blocks(const kept_cache *c, int layer, int head, int plane);
/* Gives the blocks of planes from n_planes up back to the pool (a one-shot strategy is done). */
void kept_cache_drop_planes(kept_cache *c, int n_planes);
/* The same for all planes but this one, which is plane 0 from now on. */
void kept_cache_keep_plane(kept_cache *c, int plane);

/* Makes room for exactly n more slots beyond the live ones: pages, blocks, a private copy of a
 * shared last page; state beyond the live slots becomes zero. Does not change n, but
 * kept_cache_pages covers the new slots. Not cumulative: reserving again replaces the last
 * reservation, 0 gives it back. FULL: nothing changed. ARGUMENT: more than max_slots + 64 slots. */
kept_status kept_cache_reserve(kept_cache *c, int layer, int head, int n);
/* Pages that reserving n more slots in every head of `layer` would take from the pool. */
size_t kept_cache_reserve_cost(const kept_cache *c, int layer, int n);
/* Writes K, V ([D] floats) and position of slot `slot` >= n, inside what was reserved. Different
 * slots may be written by different threads at once. */
void kept_cache_put(kept_cache *c, int layer, int head, int slot, const float *k, const float *v,
                    int32_t pos);
/* The n written slots become live. */
void kept_cache_commit(kept_cache *c, int layer, int head, int n);

/* Keeps exactly the slots with keep[slot] != 0 ([n] bytes); order may change; pages that become
 * empty go back to the pool at once. What was reserved and not committed is given back first. FULL
 * (only when more shared pages must change than are free or freed by it): slots are unchanged. */
kept_status kept_cache_retain(kept_cache *c, int layer, int head, const uint8_t *keep);

/* Packs the full F16 pages of a head into form, except the last `skip` ones; a shared page gets a
 * packed copy of its own. Of a thin K those channels stay whose sums of squares over these pages,
 * times weight [D] (NULL: 1), are largest; where the head has pages of that form, theirs. FULL: no
 * room for the next packed page; the pages before it are packed. */
kept_status kept_cache_pack(kept_cache *c, int layer, int head, kept_codecs form, int skip,
                            const float *weight);

/* The same for a form of joint pages: the pages of the group of layers that `layer`, a multiple of
 * the form's layers, is the first of; the last group of a model may have fewer of them. One page
 * takes the place of the group's pages, each of which loses its own; its bytes count in equal parts
 * for its layers. Layers that do not hold the same positions there stay as they are. */
kept_status kept_cache_pack_joint(kept_cache *c, int layer, int head, kept_codecs form, int skip);
bool kept_cache_is_joint(const kept_cache *c); /* it may have such pages */

/* Either half of full page `page` of a head gets its part of that form if it takes fewer bytes in
 * it than now; else it stays as it is, bit for bit: what was rounded regains nothing in a wider
 * form. A packed half is unpacked to F16, which rounds once, and packed again; a page that layers
 * share stays. FULL: no room. */
kept_status kept_cache_narrow(kept_cache *c, int layer, int head, int page, kept_codecs form);

/* Slot i of a head becomes what slot from[i] was, for a permutation from [n] of the live slots that
 * moves slots of F16 pages only. Shared pages get a private copy first. FULL: no page is free for
 * one, nothing changed. */
kept_status kept_cache_arrange(kept_cache *c, int layer, int head, const int32_t *from);

/* From now on every page has a note of n_blocks blocks of KEPT_NOTE_BLOCK numbers, for ways of
 * reading (kept/policy.h). A fork has none until it is asked to. ARGUMENT: it has notes, FULL,
 * NOMEM. */
#define KEPT_NOTE_BLOCK 128
kept_status kept_cache_set_notes(kept_cache *c, int n_blocks);
int kept_cache_n_notes(const kept_cache *c); /* blocks of a note, 0 without */
/* [KEPT_NOTE_BLOCK] block of the note of a page of a head. Only what was refreshed since the page's
 * keys changed means something. */
kept_f16 *kept_cache_note(const kept_cache *c, int layer, int head, int page, int block);
/* Brings the notes of the first n_pages pages of a head, full ones, up to date: fn writes the note
 * of 64 keys [64][D] as they are stored. scratch [64 * D + n_blocks * KEPT_NOTE_BLOCK]. Different
 * heads and caches may be served by different threads. */
typedef void kept_describe_fn(const float *key, int n, int head_size, float *note);
void kept_cache_refresh_notes(kept_cache *c, int layer, int head, int n_pages, kept_describe_fn *fn,
                              float *scratch);

/* State of one slot of one plane. */
float kept_cache_state(const kept_cache *c, int layer, int head, int plane, int slot);
void kept_cache_set_state(kept_cache *c, int layer, int head, int plane, int slot, float v);
/* One plane of the live slots: out [n]. */
void kept_cache_read_state(const kept_cache *c, int layer, int head, int plane, float *out);
/* Asks for positions and one plane (-1: none) of a head that are about to be read: between two
 * steps the weights push them out of the caches, and pages lie apart. */
void kept_cache_prefetch(const kept_cache *c, int layer, int head, int plane);
/* Position, K and V of live slots: any of the outputs may be NULL. pos [n], k and v [n][D]. */
void kept_cache_read(const kept_cache *c, int layer, int head, int32_t *pos, float *k, float *v);
/* Overwrites K and V ([D], NULL: stays as it is) of a live slot; takes a private copy of a shared
 * page and of one whose rows cannot be written, which is F16 then. FULL: no page is free for it,
 * nothing changed. */
kept_status kept_cache_set_row(kept_cache *c, int layer, int head, int slot, const float *k,
                               const float *v);

/* Page `page` of a head to out, kept_codec_page_bytes of its form; slots beyond the live ones are
 * 0. Returns the bytes. */
size_t kept_cache_save_page(const kept_cache *c, int layer, int head, int page, uint8_t *out);
/* Appends a page to a head that has nothing reserved; its state is 0. It counts once
 * kept_cache_load_end has said how many slots the head has. FULL, ARGUMENT: more than max_slots. */
kept_status kept_cache_load_page(kept_cache *c, int layer, int head, kept_codecs form,
                                 const uint8_t *bytes, const int32_t *pos);
void kept_cache_load_end(kept_cache *c, int layer, int head, int n);
/* What the account knows of the past. */
typedef struct kept_history {
    uint64_t peak_bytes, n_evicted, peak_pages;
    double byte_steps, page_steps, n_ticks;
} kept_history;
kept_history kept_cache_get_history(const kept_cache *c);
void kept_cache_set_history(kept_cache *c, const kept_history *h);

/* extra_meta: bytes the owner holds besides (query statistics), added to meta from now on. */
void kept_cache_set_extra(kept_cache *c, uint64_t extra_meta);
/* One forward pass over n tokens (a part of one: of those layers) is over: byte_steps += bytes held
 * * n, peak is updated. */
void kept_cache_tick(kept_cache *c, double n);
/* Fills bytes, peak, byte_steps and n_evicted; the times are 0. */
void kept_cache_account(const kept_cache *c, kept_account *out);
/* The same two byte figures, recomputed by walking every list: the test's other side. */
void kept_cache_walk(const kept_cache *c, uint64_t *kv_bytes, uint64_t *meta_bytes);

#endif
