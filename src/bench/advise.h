/* advise: which strategy at which budget, from the cells of one result and nothing else. Quality
 * comes from verdicts (bench/compare.h, ladders of budgets), bytes from the planner (bench/plan.h)
 * at the context asked for, time from what was measured. docs/advise.md.
 *
 *   gate.c         what is asked of a row
 *   advise_row.c   rows: which hold what is asked
 *   advise_cmd.c   the command that would bring the evidence that is missing
 *   advise.c       the choice, and what would change it
 */
#ifndef BENCH_ADVISE_H
#define BENCH_ADVISE_H

#include "bench/compare.h"

/* ---- what is asked of a row ------------------------------------------------------------------ */
typedef struct kept_gate {
    double margin;   /* of scores */
    double relative; /* > 0: the margin is this part of the full cache's score instead */
    double nll;      /* margin of NLL, nats per token */
    bool zero;       /* not one sample may get worse, and enough of them to say so (zero_rate) */
    double ttft_ms, tpot_ms, length_ratio; /* 0: nothing is asked */
    char rest[256];                        /* clauses of a preset that nothing here judges */
} kept_gate;

/* At most this share of prompts may get worse, at the level, where the gate is `zero`. */
#define KEPT_ZERO_RATE 0.001

/* Clauses between commas: "-1pt", "97%" ("97% of full"), "zero regressions", "TTFT 500ms", "TPOT
 * 40ms", "output length at most 110% of full". Adds to *out, whose fields have values already.
 * ARGUMENT: a clause that is none of these, unless rest is true, when it goes to out->rest. */
kept_status kept_gate_parse(const char *text, bool rest, kept_gate *out, kept_error *err);

/* ---- advice ---------------------------------------------------------------------------------- */
typedef enum kept_prefer {
    KEPT_PREFER_MEMORY,  /* fewest bytes of those that hold what is asked */
    KEPT_PREFER_QUALITY, /* is shown to lose least */
    KEPT_PREFER_SPEED    /* least time per token */
} kept_prefer;

typedef struct kept_advise_options {
    const json_t *doc;
    const char *name;     /* of the study, for commands */
    bool is_study;        /* name is one; else a result file */
    const double *weight; /* [tasks] what a task counts in ties and losses; 0: left out */
    kept_gate gate;
    double level;
    uint64_t memory, weights; /* bytes there are, and of them the weights'; memory 0: not asked */
    int context, batch; /* tokens of a sequence (0: the longest that was measured), sequences */
    kept_prefer prefer;
} kept_advise_options;

/* A document: docs/advise.md. ARGUMENT: no task has a weight; what kept_compare says. NOMEM. */
kept_status kept_advise(const kept_advise_options *o, json_t **out, kept_error *err);

/* ---- private to src/bench/advise*.c -----------------------------------------------------------
 */
typedef enum kept_holds { KEPT_HOLDS, KEPT_FAILS, KEPT_UNKNOWN } kept_holds;

typedef struct kept_advised {
    int variant;
    const char *name;
    kept_holds quality, memory, time; /* of the gate, of the memory, of TTFT, TPOT and length */
    double loss;        /* weighted mean over tasks of what a row may lose at worst, in margins */
    double more;        /* samples that its weakest open verdict still needs; INFINITY: no number */
    bool promising;     /* what was measured is within the margin wherever a verdict is open */
    double bytes, peak; /* of `batch` sequences at the context: held; and the planner's peak */
    int widest;         /* sequences that fit; -1: memory is not asked */
    double tpot_ms, ttft_ms, length_ratio; /* worst of the tasks; NAN: not measured */
} kept_advised;

/* A verdict gets "task_index", "holds" and "need" (samples; null: no number helps) besides.
 * Rows 0 (the full cache) and 2 and after, in order; the verdicts behind them. *rows is malloc'ed.
 */
kept_status kept_advise_rows(const kept_advise_options *o, kept_advised **rows, int *n,
                             json_t **verdicts, kept_error *err);
/* Whether two rows are in this order. */
bool kept_advise_better(const kept_advised *a, const kept_advised *b, kept_prefer prefer);
/* The command that runs a row on a task, `more` samples besides those that are there, at another
 * length than the task's unless that is 0. malloc'ed, NULL: out of memory. */
char *kept_advise_command(const kept_advise_options *o, const char *row, int task, double more,
                          int length);

#endif
