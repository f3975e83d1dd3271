/* spec_parse: what the files that read a spec share: spec.c (parts and options), spec_words.c
 * (words, messages, the budget) and spec_finish.c (what parts say about each other).
 */
#ifndef POLICY_SPEC_PARSE_H
#define POLICY_SPEC_PARSE_H

#include "policy/parts.h"
#include "policy/spec.h"

typedef struct kept_owner {
    char name[48]; /* part or recipe that filled the axis, "" while it is open */
    int at;
} kept_owner;

/* The spec of a controller's state, until what it leaves open is known. */
typedef struct kept_nested {
    kept_owner axis[KEPT_N_AXES];
    int budget_at, end; /* its '@', or -1; the character after it */
} kept_nested;

/* A piece of the text being read, with what is known so far. */
typedef struct kept_parser {
    const char *s; /* the text */
    int i;         /* next character */
    int at;        /* -1, or the offset that errors point at: inside an expanded recipe */
    kept_strategy *out;
    kept_owner *axis;   /* [KEPT_N_AXES] */
    kept_nested *state; /* [KEPT_MAX_STATES]; NULL: this is the spec of a state */
    kept_error *err;
} kept_parser;

/* ---- spec_words.c ---- */
/* Where an error at character i of p's text is, in the text that the user wrote. */
int kept_spec_offset(const kept_parser *p, int i);
int kept_spec_word(const char *s); /* characters of the name at s */
/* "unknown WHAT 'word' at character N: did you mean 'x'?" over names[0..n). */
kept_status kept_spec_unknown(const kept_parser *p, const char *what, int at, int len,
                              const char *const *names, int n);
/* "expected WHAT at character N, not 'c'" */
kept_status kept_spec_expected(const kept_parser *p, const char *what);
/* Reads a budget up to the end of the text, or of the state. */
kept_status kept_spec_budget(kept_parser *p);

/* ---- spec_finish.c ---- */
/* Fills the axes that were not named, checks the whole and prints its names. budget_at: where the
 * '@' is, or -1. */
kept_status kept_spec_finish(kept_parser *p, int budget_at);

static inline const kept_controller *kept_spec_controller(const kept_part *part)
{
    return part->axis == KEPT_AXIS_CONTROLLER ? (const kept_controller *)(const void *)part : NULL;
}

#endif
