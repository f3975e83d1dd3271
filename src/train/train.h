/* train: makes trained files (kept/trained.h): `kept calibrate` and `kept train` without the
 * command line. One driver for all kinds:
 *
 *   documents    the text, split by block into a part that is trained on and one that is held out
 *                (text.h); each document is read by the engine and a kind collects what it needs
 *   epochs       passes over what was collected, for kinds that fit a model
 *   held out     documents of the other part; what the result is worth is measured there
 *
 * Everything is seeded and in a fixed order, so the same arguments give the same bytes, on any
 * number of threads. After every step the state goes to OUT.ckpt; a later call with the same
 * arguments goes on from there and gives the same bytes as one that was never interrupted.
 */
#ifndef TRAIN_TRAIN_H
#define TRAIN_TRAIN_H

#include "base/base.h"
#include "kept/trained.h"

typedef struct kept_train_kind {
    const char *name;    /* "ranker" */
    bool calibrates;     /* kept calibrate, not kept train */
    bool reads_text;     /* false: makes its own prompts */
    bool has_types;      /* there are variants (kept train --type) */
    const char *summary; /* one line */
    const char *paper, *deviations;
    int n_tokens; /* default amount of text */
    int length;   /* tokens of a document */
} kept_train_kind;
int kept_train_kind_count(void);
const kept_train_kind *kept_train_kind_at(int i);
const kept_train_kind *kept_train_kind_find(const char *name); /* NULL: unknown */

typedef struct kept_train_options {
    const char *kind, *model_path;
    const char *text; /* UTF-8 file; kinds that make their own prompts: NULL */
    const char *out;  /* file to write; OUT.ckpt while it is made */
    int64_t n_tokens; /* of documents trained on; 0: the kind's default */
    int length;       /* tokens of a document; 0: the kind's */
    uint64_t seed;
    int n_threads;        /* 0: all processors */
    const char *isa;      /* NULL: best */
    const char *variant;  /* kvzap: "linear" or "mlp"; NULL: the default */
    const char *held_out; /* also write the text that is held out to this file; NULL: no */
    /* Called now and then: fraction done in [0,1], what is being done. False: stops; what was done
     * stays in OUT.ckpt. May be NULL. */
    bool (*progress)(void *ctx, double done, const char *what);
    void *ctx;
} kept_train_options;

typedef struct kept_train_report {
    bool was_there;     /* OUT was made with these arguments before; nothing was done */
    int resumed;        /* steps that a checkpoint had done, 0: from the start */
    int n_steps;        /* steps in all */
    bool stale;         /* a checkpoint of other arguments was there and was thrown away */
    kept_trained *file; /* what OUT holds now, owned; NULL if it failed */
} kept_train_report;

/* CANCELLED: progress said so. ARGUMENT: an unknown kind or variant, a text too short, a model that
 * cannot be read this way; IO, FORMAT, NOMEM. */
kept_status kept_train(const kept_train_options *o, kept_train_report *r, kept_error *err);

/* Does the text of file t overlap with FILE? OK: no (or t was not trained on text). ARGUMENT: yes,
 * in one line. IO, FORMAT, NOMEM. */
kept_status kept_train_check_text(const kept_trained *t, const char *file, kept_error *err);

#endif
