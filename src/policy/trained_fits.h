/* trained_fits: the shapes of trained kinds. */
#ifndef POLICY_TRAINED_FITS_H
#define POLICY_TRAINED_FITS_H

#include "base/base.h"
#include "kept/policy.h"

/* ARGUMENT: an array that the kind of t must have is missing, of another size, or not finite. Kinds
 * that are not known here fit. */
kept_status kept_trained_fits(const kept_trained *t, const kept_model_info *m, kept_error *err);

/* The command that makes files of a kind: "train" or "calibrate". */
const char *kept_trained_verb(const char *kind);

#endif
