/* metric: how an output is compared with its references. The published ones are ported to the last
 * digit from what their benchmarks run; docs/tasks.md has each one's definition and source.
 */
#ifndef TASK_METRIC_H
#define TASK_METRIC_H

#include "base/base.h"

typedef enum kept_metric {
    KEPT_METRIC_ALL,          /* RULER: mean over references of case-insensitive substring hits */
    KEPT_METRIC_ANY,          /* RULER: 1 if any reference is a substring */
    KEPT_METRIC_F1,           /* LongBench: token F1, best reference */
    KEPT_METRIC_F1_LINE,      /* the same of the first line that is not empty */
    KEPT_METRIC_ROUGE_L,      /* LongBench: ROUGE-L of the package `rouge`, best reference */
    KEPT_METRIC_ROUGE_L_LINE, /* the same of the first line that is not empty */
    KEPT_METRIC_CLASS,        /* LongBench: 1 / classes named in the first line, if gold is one */
    KEPT_METRIC_COUNT,        /* LongBench: share of the integers that are the reference */
    KEPT_METRIC_RETRIEVAL,    /* LongBench: the same with the number of "Paragraph N" */
    KEPT_METRIC_EDIT,         /* LongBench: similarity of the first code line, difflib's ratio */
    KEPT_METRIC_EXACT,        /* equal to a reference once the ends are stripped */
    KEPT_METRIC_LABEL,        /* BABILong: of the labels only the reference in the first sentence */
    KEPT_METRIC_NUMBER,       /* the first integer is the reference's first */
    KEPT_METRIC_LETTER,       /* the letter chosen: "The correct answer is (B)", "B. ..." */
    KEPT_METRIC_CHOICE,       /* the likeliest label is a reference: not from output but logits */
    KEPT_N_METRICS
} kept_metric;

const char *const *kept_metric_names(int *n); /* "all", "any", "f1", ... by kept_metric */
bool kept_metric_parse(const char *name, kept_metric *out);

typedef struct kept_reference {
    char *const *answers; /* [n_answers], >= 1 */
    int n_answers;
    char *const *labels; /* [n_labels] */
    int n_labels;
} kept_reference;

/* 0..1; output NULL or no answer: 0. For CHOICE the output is the label that was chosen. */
double kept_metric_score(kept_metric m, const char *output, const kept_reference *r);

/* Parts of it, for tests and other uses. All texts are UTF-8. */
double kept_f1(const char *output, const char *answer);
double kept_rouge_l(const char *output, const char *answer);
/* difflib.SequenceMatcher(None, a, b).ratio() over code points, its rule for popular ones
 * included. */
double kept_difflib_ratio(const char *a, const char *b);

/* RULER string match: mean over references of case-insensitive (ASCII) substring hit (any: 1 if
 * any), after control characters became newlines and the ends were stripped. 0..1. */
double kept_score_match(const char *output, char *const *answers, int n_answers, bool any);

/* ---- where an answer comes from -------------------------------------------------------------- */
typedef enum kept_answer_class {
    KEPT_ANSWER_NOVEL,
    KEPT_ANSWER_NEAR_COPY, /* 80 % of its runs of three words stand in the context */
    KEPT_ANSWER_ABSTAIN    /* no word, or words that say that there is no answer */
} kept_answer_class;
const char *kept_answer_class_name(kept_answer_class c); /* "novel", "near-copy", "abstain" */
/* Letters and digits count, in one case. A definition of ours. NOMEM. */
kept_status kept_answer_classify(const char *answer, const char *context, kept_answer_class *out,
                                 kept_error *err);

#endif
