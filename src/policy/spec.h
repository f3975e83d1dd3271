/* spec: the text side of a strategy, shared by the parser and the printer. */
#ifndef POLICY_SPEC_H
#define POLICY_SPEC_H

#include "policy/strategy.h"

/* Numbers of a spec are plain decimals of at most 15 digits: "32", "0.25", "-4".
 * They are read and
 * written here and not by strtod and printf, because those follow the locale and know "1e+06",
 * whose '+' would end the part. Every such number survives print and parse unchanged. */
#define KEPT_SPEC_DIGITS 15
#define KEPT_SPEC_NUMBER 40 /* bytes that a printed number needs at most */

/* Reads text[0..n) whole. False if it is anything but a decimal as above. */
bool kept_spec_read(const char *text, size_t n, double *value);
/* Shortest decimal that reads back as value, into buf; returns buf. */
const char *kept_spec_write(double value, char buf[KEPT_SPEC_NUMBER]);

/* Fills s->name and s->resolved from the rest of s. ARGUMENT if a name does not fit. */
kept_status kept_spec_print(kept_strategy *s, kept_error *err);

/* ARGUMENT at `at`: one of the options, whose default is not a number, was not given. */
kept_status kept_spec_given(const char *owner, const kept_option *options, int n,
                            const double *value, int at, kept_error *err);

#endif
