/* kept/meter.h: where memory and time go: the account of a sequence, the pool's, and the times of
 * an engine. Part of kept/kept.h, which includes it. */
#ifndef KEPT_METER_H
#define KEPT_METER_H

#include "kept/kept.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes are what the sequence would hold alone: a page shared with another sequence counts
 * whole. meta: positions, per-slot state, page and block lists, notes on pages, query statistics.
 */
typedef struct kept_account {
    uint64_t kv_bytes;   /* K/V pages held now */
    uint64_t meta_bytes; /* everything else held now */
    uint64_t peak_bytes; /* most of kv + meta ever held */
    double byte_steps;   /* integral of kv + meta over forward steps (bytes x tokens seen) */
    uint64_t n_evicted;  /* slots dropped so far, all layers and KV heads */
    uint64_t score_ns;   /* time spent scoring, allocating and selecting */
    uint64_t compact_ns; /* time spent moving and packing slots and returning pages */
    uint64_t kv_numbers; /* numbers of K and V that the pages held have room for */
    /* What decode steps (items of one token that is no part of a prompt) read to attend: whole
     * pages, and the notes by which pages are chosen. A fork counts from 0. */
    uint64_t read_bytes;
    uint64_t n_reads; /* such steps */
} kept_account;
KEPT_API void kept_seq_account(const kept_seq *s, kept_account *out);

/* Pool-wide truth: pages shared by several sequences count once. */
typedef struct kept_pool_account {
    uint64_t page_bytes; /* one page of 64 slots, K and V */
    uint64_t n_pages, n_free_pages, peak_pages;
    uint64_t huge_bytes; /* bytes of the pool backed by huge pages, 0 if unknown */
} kept_pool_account;
KEPT_API void kept_engine_pool(const kept_engine *e, kept_pool_account *out);

/* Where the time of all forward passes went, in wall nanoseconds of the calling thread, except
 * attention_ns: busy time of attention and store nodes divided by the number of threads. */
typedef struct kept_engine_times {
    uint64_t forward_ns, attention_ns, policy_ns;
    uint64_t n_forwards, n_tokens;
} kept_engine_times;
KEPT_API void kept_engine_get_times(const kept_engine *e, kept_engine_times *out);

#ifdef __cplusplus
}
#endif

#include "kept/park.h"

#endif
