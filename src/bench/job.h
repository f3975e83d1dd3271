/* job: what the files of one kept_run share. Private to src/bench.
 *
 *   run.c       opens everything, loops over tasks and samples
 *   prepare.c   strategies, sample sizes, pool size
 *   trained.c   what strategies need trained
 *   sweep.c     which samples, with a sink or without
 *   stop.c      when there are enough
 *   sample.c    one sample: prefill, fork, evict
 *   answer.c    one sample: turns, greedy decoding, teacher forcing
 *   branch.c    one sample: sequences set aside while a copy answers; choices by likelihood
 *   measure.c   recall and speed
 *   dump.c      kept positions as text
 *   control.c   what controllers are told and what they decided
 *   result.c    outcomes as JSON
 *   turns.c     aggregates by turn from that JSON
 *   paths.c     KL statistics and trajectories from it
 *   where.c     scored text by distance and position
 *   roof.c      gaps between tokens, share of what the memory allows
 *   energy.c    what the processor used
 *   sizes.c     lengths of prompts, remembered by a study
 *   cells.c     aggregates from that JSON
 *   tally.c     what the outcomes of a row add up to, for them
 *   pressure.c  many sequences under one cap, a job of its own
 */
#ifndef BENCH_JOB_H
#define BENCH_JOB_H

#include "bench/energy.h"
#include "bench/run.h"
#include "kept/trained.h"

#include <stdio.h>

/* The plane that mass_recall reads: it looks at the last query only. */
#define KEPT_PROBE ((kept_plane){.kind = KEPT_PLANE_MASS, .window = 1})

#define KEPT_MAX_LEVELS 2 /* copies of copies: a request or answer, a label */

enum { KEPT_VARIANT_FULL, KEPT_VARIANT_FLOOR, KEPT_FIRST_VARIANT };

typedef enum kept_phase {
    KEPT_PHASE_OPEN, /* model, tasks, engine */
    KEPT_PHASE_PREFILL,
    KEPT_PHASE_FORK, /* forks, evictions, evidence, dump */
    KEPT_PHASE_SPEED,
    KEPT_PHASE_ANSWER, /* suffix, decoding, comparing, mass */
    KEPT_PHASE_STORE,  /* all that a sink does */
    KEPT_PHASE_STATS,  /* cells from samples */
    KEPT_N_PHASES
} kept_phase;

typedef struct kept_variant {
    const char *name;        /* of the row: as the user wrote it */
    kept_strategy *strategy; /* NULL: full */
    bool own_prefill;        /* evicts between chunks, so it cannot fork the shared prefix */
    bool whole;              /* of its own, layer by layer */
} kept_variant;

/* One open task and what planning learned about its samples. */
typedef struct kept_run_task {
    kept_task_options options; /* as resolved */
    kept_task *task;
    kept_task_kind kind;
    int n_samples;
    double *weight;       /* [n_samples] estimated work, for the progress line only */
    char (*hash)[17];     /* [n_samples] of the prompts' tokens */
    char file_sha256[65]; /* of options.file, "" if there is none */
} kept_run_task;

typedef struct kept_dump kept_dump;

/* A trained file that some variant reads. */
typedef struct kept_run_trained {
    kept_trained *file;
    char name[128], sha256[65]; /* of the file, without its folder */
} kept_run_trained;

typedef struct kept_job {
    const kept_run_options *o;
    kept_model *model;
    const kept_model_info *info;
    kept_engine *engine;
    kept_variant *variants; /* [n_variants] */
    int n_variants;
    kept_run_task *tasks; /* [o->n_tasks] */
    kept_capture capture; /* of the shared prefix */
    bool probe;           /* the floor carries a window-1 mass plane: mass_recall is measured */
    int chunk, speed_steps;
    int max_batch;  /* tokens in one forward pass */
    int max_tokens; /* longest sequence of any sample */
    int echo_room;  /* tokens beyond its prefix that a fork repeats, 0: no strategy asks for it */
    int max_prefix; /* longest prefix of any sample */
    int more_seqs;  /* beside those of the rows */
    int max_levels; /* copies of each sequence that some sample needs */
    size_t pool_bytes;
    kept_energy energy;
    double bandwidth;                 /* bytes per second that all threads read; NAN: not asked */
    uint64_t start_ns;                /* clock when the run began */
    uint64_t phase_ns[KEPT_N_PHASES]; /* wall time of the run's parts */
    struct kept_stop *stop;           /* or NULL */
    kept_dump *dump;                  /* or NULL */
    kept_run_trained trained[16];
    int n_trained;
    double done, part, weight, total; /* work units: finished samples, in this one, of it, all */
    char what[96];                    /* text for the progress line */
} kept_job;

/* What one variant answered in one turn. */
typedef struct kept_reply {
    int32_t *tokens; /* [n_new] generated, end token left out; of a choice: the label's */
    int n_new;
    bool ended;   /* by an end token, not by the limit */
    int diverged; /* first generated token that differs from the reference, -1: none */
    double score;
    char *text;
    double evidence; /* evidence_recall of the turn's own evidence when its question came */
} kept_reply;

/* What happened to one variant on one sample. NaN: not measured. */
typedef struct kept_outcome {
    kept_seq *seq;                    /* NULL before the fork and after a failure */
    kept_seq *trunk[KEPT_MAX_LEVELS]; /* set aside, while seq is a copy of the last of them */
    int n_trunks;
    bool skip;    /* not asked for on this sample */
    uint8_t *map; /* kept positions after the eviction, for a sink */
    size_t map_bytes;
    bool failed;
    char why[200];            /* reason of the failure */
    bool active;              /* still fed */
    kept_account after, last; /* right after eviction; at the end */
    uint64_t prefill_ns;
    uint64_t parked_bytes, park_ns, resume_ns; /* 0: not parked */
    double evidence, evidence_any;
    double mass, mass_core; /* sums over n_mass measurements */
    double n_kept;          /* the same of prefix slots held in layers that evict */
    int n_mass;
    double regret; /* oracle_regret */
    /* GENERATE */
    kept_reply *replies; /* [n_turns] */
    int32_t next;        /* token to feed next */
    double score;        /* mean over turns */
    double *choice;      /* [labels of the turn] log-likelihoods, NULL: no turn is a choice */
    /* Comparison with the reference: one position per turn if GENERATE, else one per scored token.
     */
    int n_scored;
    double *kl, *nll; /* [n_scored] */
    bool *top1;       /* [n_scored] */
    /* Speed: nanoseconds of single decode steps, this variant and the full cache, in pairs. */
    int n_steps;
    uint64_t *step_ns, *full_ns; /* [n_steps] */
} kept_outcome;

typedef struct kept_work {
    kept_job *job;
    int task, index;
    kept_sample sample;
    kept_tokens tokens;
    const int32_t *suffix; /* never empty */
    int n_prefix, n_suffix;
    kept_outcome *out; /* [n_variants] */
    float *reference;  /* [n_vocab] logits of the reference at the position being compared */
    bool have_reference;
    int level;            /* how deep copies are: branch.c */
    int turn;             /* GENERATE: which is being answered */
    int at;               /* SCORE: index of the suffix token just fed; choices: of a label's */
    int label;            /* choices: which is being fed */
    const int32_t **feed; /* [n_variants] tokens to feed next */
    kept_item *items;     /* [n_variants] */
    int *who;             /* [n_variants] variant of items[i] */
    int32_t *pos;         /* [max_tokens] */
    float *mass, *by_pos; /* [max_tokens] */
    double *share, *core; /* [n_variants] */
    /* Attention paid to each prefix position since the eviction, shares of a head summed over
     * measurements: [layers that evict * KV heads][n_prefix]. */
    float *paid;
    int32_t *evidence_at; /* [n_prefix] index of the evidence token at a position, -1: none */
    double *short_nll; /* SCORE: [n_suffix - 1] of the full cache with a short context, or NULL */
    int n_evidence;    /* tokens that evidence_at has */
    const int32_t *evidence;
} kept_work;

/* Called for each active variant with the logits of its last token. */
typedef void (*kept_visit)(kept_work *w, int variant, const float *logits);

/* ---- run.c ---- */
/* Strategies, model, tasks, engine for the options j->o; close it in any case. */
kept_status kept_job_open(kept_job *j, kept_error *err);
void kept_job_close(kept_job *j);

/* ---- prepare.c ---- */
kept_status kept_prepare_variants(kept_job *j, kept_error *err);
kept_status kept_prepare_tasks(kept_job *j, kept_error *err); /* also sizes and weights */
kept_status kept_prepare_pool(kept_job *j, kept_error *err);
uint64_t kept_free_memory(void); /* bytes this process may still take, UINT64_MAX if unknown */

/* ---- trained.c ---- */
/* Opens the trained files that the variants need, before any work. ARGUMENT, in one line that says
 * what to do: one is missing, of another model, or was trained on a text that is evaluated here. */
kept_status kept_prepare_trained(kept_job *j, kept_error *err);
kept_status kept_lend_trained(kept_job *j, kept_error *err); /* to the engine */
json_t *kept_trained_json(const kept_job *j);
/* SHA-256 of the trained file that serves `kind`; NULL: none does. */
const char *kept_trained_sha256(const kept_job *j, const char *kind);
void kept_trained_close(kept_job *j);

/* ---- foresee.c ---- */
/* Extra passes over a prefix, once for all of its forks: repetition for kvzip, what will come for
 * the oracle. Where they fail, the strategies that need them fail, each with its reason. */
kept_status kept_look_ahead(kept_work *w, kept_seq *prefix, kept_error *err);
int kept_look_ahead_room(const kept_job *j); /* tokens beyond max_prefix that they need */

/* ---- sample.c ---- */
/* Runs sample `index` of `task`; on OK *json is its record, and the sink, if there is one, has it.
 * lacks [n_variants]: the variants to run besides the full caches, NULL: all. CANCELLED: no record.
 */
kept_status kept_run_sample(kept_job *j, int task, int index, const bool *lacks, json_t **json,
                            kept_error *err);
/* Says that `units` of work (about: prefill tokens) are done. CANCELLED: the user wants to stop. */
kept_status kept_job_tick(kept_job *j, double units);
/* Adds the time since *since to a phase and moves *since to now. */
void kept_job_clock(kept_job *j, kept_phase phase, uint64_t *since);
/* Tells a new sequence what a sample says of its tokens: pinned spans, and if marks the template's.
 */
kept_status kept_tell_tokens(kept_seq *seq, const kept_tokens *t, bool marks, kept_error *err);
void kept_outcome_fail(kept_outcome *o, const char *why); /* the first reason stays */

/* ---- answer.c ---- */
/* Feeds n tokens from w->feed[v] to every active variant, as few forward passes as the batch
 * limit allows. A pool that is full costs the largest variant its life. visit may be NULL. */
kept_status kept_feed(kept_work *w, int n, kept_visit visit, kept_error *err);
/* Lowest id wins ties; -1: some logit is not a finite number. */
int32_t kept_argmax(const float *x, int n);
kept_status kept_answer_generate(kept_work *w, kept_error *err);
kept_status kept_answer_score(kept_work *w, kept_error *err);
void kept_feed_all(kept_work *w, const int32_t *tokens); /* the same to every variant */
void kept_wake(kept_work *w); /* every variant that did not fail is fed again */

/* ---- branch.c ---- */
/* A copy of a variant's sequence in its present state, under s: the variant's strategy, or its
 * equal. NULL: no room, reason in err. */
kept_seq *kept_copy_seq(kept_work *w, int variant, const kept_strategy *s,
                        const kept_capture *extra, kept_error *err);
/* Every active variant goes on with a copy until kept_unbranch drops the copies; KEPT_MAX_LEVELS
 * deep. */
void kept_branch(kept_work *w);
void kept_unbranch(kept_work *w);
/* Log-likelihoods of the first token of every label, from the logits before it. */
void kept_choice_first(kept_work *w, int variant, const float *logits);
/* NLL of the scored text after no more than the last eighth of the prefix, into w->short_nll; it
 * stays NULL where there is no room. */
kept_status kept_short_context(kept_work *w, kept_error *err);
/* Feeds the rest of the labels and settles which one every variant chooses. */
kept_status kept_choose(kept_work *w, kept_error *err);

/* ---- measure.c ---- */
/* Which positions of the prefix are looked at from now on: ascending. */
void kept_measure_set_evidence(kept_work *w, const int32_t *positions, int n);
/* Share of them that the variant holds, mean over heads; any: in some head. NaN: there are none. */
double kept_measure_evidence(kept_work *w, int variant, double *any);
void kept_measure_mass(kept_work *w); /* adds one measurement to every living variant */
kept_status kept_measure_regret(kept_work *w, kept_error *err); /* once all have been added */
kept_status kept_measure_speed(kept_work *w);                   /* OK or CANCELLED */

/* ---- control.c ---- */
/* Before the prefill of seq ends: what a run can tell its controller. full: the reference's
 * sequence, or NULL. */
kept_status kept_control_tell(kept_work *w, int variant, kept_seq *seq, kept_seq *full,
                              kept_error *err);
/* "control" of an outcome: tokens in each state and all decisions; null without a controller. */
json_t *kept_control_json(const kept_seq *seq, const kept_strategy *s);
/* ---- sweep.c ---- */
/* Runs every sample, or has the sink say which, and fills `samples`. CANCELLED: it has what is
 * there. */
kept_status kept_run_sweep(kept_job *j, const json_t *head, json_t *samples, kept_error *err);

/* ---- dump.c ---- */
kept_status kept_dump_open(const kept_job *j, kept_dump **out, kept_error *err);
kept_status kept_dump_write(kept_dump *d, const kept_work *w, int variant, kept_error *err);
/* Ends the file and moves it to its name; complete: no sample is missing. Frees d. */
kept_status kept_dump_close(kept_dump *d, bool complete, kept_error *err);
void kept_dump_abandon(kept_dump *d); /* removes what was written; NULL is fine */

/* ---- result.c ---- */
json_t *kept_result_head(kept_job *j, kept_error *err); /* document without samples and cells */
json_t *kept_result_sample(const kept_work *w);
json_t *kept_result_times(kept_job *j); /* where the time of the whole run went */

#endif
