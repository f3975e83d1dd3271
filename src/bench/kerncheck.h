/* kerncheck: does a kernel table compute what kern.h says, and how fast, on this machine.
 *
 * Verification builds pages of random K and V through the table itself, reads them back by the
 * layout that kern.h describes with arithmetic of its own, and compares attention, mass and query
 * statistics with a direct softmax in double precision.
 */
#ifndef BENCH_KERNCHECK_H
#define BENCH_KERNCHECK_H

#include "base/base.h"
#include "kern/kern.h"

#define KEPT_KERNCHECK_GROUP 4 /* query heads per KV head in verification and timings */

typedef struct kept_kerncheck {
    const char *failed;   /* first function that is wrong: "attend", ..., NULL: all are right */
    double error;         /* largest attention error relative to the largest |V| */
    double mass_error;    /* largest mass error relative to the mass of a slot's row sum */
    double packed_error;  /* of one query over packed pages, beside what they hold */
    double widened_error; /* of several */
} kept_kerncheck;

/* head_size 64, 80, 96, 128 or 256. NOMEM. A wrong result is not a failure: see out->failed. */
kept_status kept_kerncheck_verify(const kept_kern *kern, int head_size, uint64_t seed,
                                  kept_kerncheck *out, kept_error *err);

/* The same for packed pages of every form; adds to *out. */
kept_status kept_packcheck_verify(const kept_kern *kern, int head_size, uint64_t seed,
                                  kept_kerncheck *out, kept_error *err);

typedef struct kept_kerntime {
    double decode_ns;      /* per slot-head: K and V of one slot of one KV head, one query each */
    double decode_mass_ns; /* the same with probabilities written and mass accumulated */
    double prefill_gflops; /* 64 rows against whole segments; 4 x rows x slots x head size flop */
} kept_kerntime;

/* Best of several passes over cache_bytes of pages on the calling thread. NOMEM. */
kept_status kept_kerncheck_time(const kept_kern *kern, int head_size, size_t cache_bytes,
                                kept_kerntime *out, kept_error *err);

/* Bytes per second that n_threads together read from memory, from buffers of total_bytes in all:
 * best of three passes. NOMEM; UNSUPPORTED: a thread could not be started. */
kept_status kept_read_bandwidth(int n_threads, size_t total_bytes, double *out, kept_error *err);

#endif
