/* job: what the driver (train.c) and the kinds share. */
#ifndef TRAIN_JOB_H
#define TRAIN_JOB_H

#include "model/look.h"
#include "train/text.h"
#include "train/train.h"

typedef struct kept_train_job kept_train_job;

/* A kind. document, epoch and finish see the same calls in the same order whether or not the job
 * was interrupted; all that they carry from one call to the next lies in kept_train_state. */
typedef struct kept_trainer {
    kept_train_kind kind;
    int n_held; /* documents that are held out and measured */
    int n_epochs;
    int n_seqs;             /* sequences alive at once (0: 1) */
    int n_more;             /* tokens beyond the document; KEPT_TRAIN_AGAIN: enough to repeat it */
    const kept_score *eyes; /* what documents are looked at with; NULL: not by document */
    const char *const *variant; /* NULL-terminated, the default first; NULL: none */
    kept_status (*open)(kept_train_job *j, kept_error *err);
    /* Document i of one side. tokens [n], NULL for kinds that make their own prompts. */
    kept_status (*document)(kept_train_job *j, int i, bool held, const int32_t *tokens,
                            kept_error *err);
    kept_status (*epoch)(kept_train_job *j, int i, kept_error *err); /* NULL: no epochs */
    kept_status (*finish)(kept_train_job *j, kept_trained *out, kept_error *err);
    void (*close)(kept_train_job *j); /* NULL: nothing to free */
} kept_trainer;

#define KEPT_TRAIN_AGAIN (-1)
#define KEPT_MAX_BLOBS   64

struct kept_train_job {
    const kept_train_options *o;
    const kept_trainer *kind;
    int variant; /* index into kind->variant */
    kept_model *model;
    const kept_model_info *info;
    kept_engine *engine;
    char sha256[65]; /* of the model */
    kept_train_text text;
    int length, n_docs, n_held;
    int group, head_size;
    int n_layers, n_heads; /* all layers; KV heads */
    int32_t *docs, *held;  /* [n_docs][length], [n_held][length] */
    int done, n_steps;
    char what[64]; /* the step in hand, in words */
    struct kept_blob {
        char name[32];
        void *data;
        size_t bytes;
    } blob[KEPT_MAX_BLOBS];
    int n_blobs;
    void *own; /* of the kind, not kept in checkpoints */
    uint64_t saved_ns;
};

/* n zeroed elements that a checkpoint keeps, owned by the job; for open() only. size is a multiple
 * of
 * 4. NULL: out of memory. */
void *kept_train_state(kept_train_job *j, const char *name, size_t n, size_t size);
/* Says how far a step is, 0..1. CANCELLED: the user wants to stop. */
kept_status kept_train_tick(kept_train_job *j, double part, kept_error *err);
/* An empty sequence that captures what kind->eyes needs. */
kept_status kept_train_seq(kept_train_job *j, kept_seq **out, kept_error *err);
/* Feeds tokens[0..n) as part of a prompt, in passes of at most KEPT_TRAIN_CHUNK. */
#define KEPT_TRAIN_CHUNK 512
kept_status kept_train_feed(kept_train_job *j, kept_seq *s, const int32_t *tokens, int n,
                            kept_error *err);
kept_status kept_train_look(kept_train_job *j, kept_seq *s, bool queries_only, kept_look_fn *fn,
                            void *ctx, kept_error *err);
/* Puts n doubles as floats under a name; a note with a number. */
kept_status kept_train_put(kept_trained *t, const char *name, const double *x, size_t n,
                           kept_error *err);
kept_status kept_train_note(kept_trained *t, kept_error *err, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- fit.c: small numerics, double, no randomness but the seed --------------------------------
 */
/* Unit eigenvector of the largest eigenvalue of the symmetric positive semidefinite a [n][n], into
 * x [n]; work [n]. */
void kept_fit_principal(const double *a, int n, double *x, double *work);
/* Solves a x = b for m right-hand sides: a [n][n] symmetric positive definite (its lower triangle
 * is overwritten by the factor), b [m][n] becomes x. False: not positive definite. */
bool kept_fit_cholesky(double *a, int n, double *b, int m);
/* One step of Adam (arXiv 1412.6980) on n parameters; step counts from 1. */
void kept_fit_adam(float *w, const float *grad, float *m1, float *m2, size_t n, double rate,
                   int64_t step);
/* Spearman's rank correlation of two rows (mean ranks on ties); work [4 n]. 0 if one is constant.
 */
double kept_fit_spearman(const float *a, const float *b, int n, int32_t *work);
/* Mean over n rows of logits [n][n_vocab] of the KL of q's distribution to p's, in nats. */
double kept_fit_kl(const float *p, const float *q, int n, int n_vocab);
/* Orders r [n] from the highest score down, the higher `at` first among equals. */
typedef struct kept_fit_ranked {
    float score;
    int32_t at;
} kept_fit_ranked;
void kept_fit_rank(kept_fit_ranked *r, int n);

/* ---- the list: kinds.c ---- */
#define KEPT_TRAINER_LIST(X)                                                                       \
    X(duo)                                                                                         \
    X(headkv)                                                                                      \
    X(qfilters)                                                                                    \
    X(triattention)                                                                                \
    X(expected)                                                                                    \
    X(lu_kv)                                                                                       \
    X(kvzap)                                                                                       \
    X(ranker)                                                                                      \
    X(bits)                                                                                        \
    X(split)                                                                                       \
    X(basis)                                                                                       \
    X(nuq)
#define KEPT_DECLARE_TRAINER(id) extern const kept_trainer kept_trainer_##id;
KEPT_TRAINER_LIST(KEPT_DECLARE_TRAINER)
#undef KEPT_DECLARE_TRAINER
const kept_trainer *kept_trainer_find(const char *name);

#endif
